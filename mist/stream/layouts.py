"""The layout of a whole file made from an on-demand stream: its header, and at which byte each span's packets begin.

The stream's input makes it once, from times and sizes of all packets, in memory that is handed to workers by descriptor. So a file has
an exact length and can be asked for in ranges, and nobody but the input ever knows all its packets. The header of a long MP4 file is
large: of the usual one the index keeps the beginning, and workers ask for the rest when they need it.
"""

from __future__ import annotations

import asyncio
import mmap
import os
from array import array
from bisect import bisect_right
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple

from mist.core.flv import FlvMuxer, FlvSizes
from mist.core.mp4_file_mux import Mp4FileLayout
from mist.core.packet_log import FrameSizes, PacketLog
from mist.core.span_index import SpanIndex, sum_ends
from mist.errors import MistError, UnsupportedError
from mist.formats import flac_file, riff
from mist.formats.audio_files import AdtsMuxer
from mist.formats.mp4_file import FileMovie
from mist.formats.tracks import AC3, AUDIO, EAC3, JSON, SUBTITLE, VIDEO, TrackInfo

MP4: Final = "mp4"
MP4_3GP: Final = "3gp"
FLV: Final = "flv"
AAC: Final = "aac"
MP3: Final = "mp3"
FLAC: Final = "flac"
WAV: Final = "wav"
KINDS: Final[Mapping[str, Callable[[], FileMovie]]] = {MP4: FileMovie, MP4_3GP: lambda: FileMovie("3gp6")}
TEXTS: Final = frozenset({SUBTITLE, JSON})  # written in another form, of another size
DESCRIBED_BY_PACKETS: Final = frozenset({AC3, EAC3})  # whose set-up is in their first packet

OUTLINE_BYTES: Final = 64 << 10  # of a header that are kept in the index

# first_payload(track): returns the first packet of a track.
FirstPayload = Callable[[int], Awaitable[bytes]]

_NUMBER_BYTES: Final = 8
_ADTS_MAX_BYTES: Final = 8191  # of a frame with its header


class _Streamed(NamedTuple):
    """A format whose packets each take as many bytes as their size says, whatever is in them.

    sizes: returns what counts them. header: returns all before them, by the tracks, the decode time of the first packet, the length of
    the media in microseconds and in bytes. Either raises UnsupportedError.
    """

    sizes: Callable[[list[TrackInfo]], FlvSizes | FrameSizes]
    header: Callable[[list[TrackInfo], int, int, int], bytes]


def _adts_sizes(tracks: list[TrackInfo]) -> FrameSizes:
    before = len(AdtsMuxer(tracks).prefix(tracks[0]))
    return FrameSizes(before, most=_ADTS_MAX_BYTES - before)


def _wav_header(tracks: list[TrackInfo], _start_us: int, _duration_us: int, media_bytes: int) -> bytes:
    if media_bytes & 1:
        raise UnsupportedError("an odd number of sample bytes, which are filled up at the end")
    muxer = riff.make_muxer(tracks)
    muxer.restore(media_bytes.to_bytes(_NUMBER_BYTES, "little"))
    header = bytearray(muxer.header())
    for position, data in muxer.patches():
        header[position : position + len(data)] = data
    return bytes(header)


STREAMED: Final[Mapping[str, _Streamed]] = {
    FLV: _Streamed(
        FlvSizes, lambda tracks, start_us, duration_us, _: FlvMuxer(tracks, duration_us=duration_us).header(start_us)
    ),
    AAC: _Streamed(_adts_sizes, lambda *_: b""),
    MP3: _Streamed(lambda _: FrameSizes(), lambda *_: b""),
    FLAC: _Streamed(lambda _: FrameSizes(), lambda tracks, start_us, *_: flac_file.make_muxer(tracks).header(start_us)),
    WAV: _Streamed(lambda tracks: FrameSizes(frame_bytes=riff.format_of(tracks[0]).frame_bytes), _wav_header),
}


@dataclass(frozen=True, slots=True)
class Layout:
    """A file that can be made.

    header: what is known so far of all before the first packet, from its beginning; header_bytes: how long all of it is.
    positions: byte of each span's first packet, and the file's end. description: what it is of, as the input was asked for it.
    """

    header: memoryview
    header_bytes: int
    positions: memoryview
    description: Mapping[str, Any] = field(default_factory=dict)

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return int(self.positions[-1])

    @property
    def whole(self) -> bool:
        """Whether all of the header is known."""
        return len(self.header) == self.header_bytes

    def span_at(self, position: int) -> int:
        """Return the span in whose packets a byte behind the header lies."""
        return max(bisect_right(self.positions, position) - 1, 0)

    def begins(self, other: Layout) -> bool:
        """Tell whether all that is known here is the same in another layout."""
        return (
            self.header_bytes == other.header_bytes
            and self.header == other.header[: len(self.header)]
            and self.positions == other.positions
        )


class Outline(NamedTuple):
    """What is kept of the layout of a film's usual MP4 file, so that it can be begun to be sent while the rest is made.

    indexes: of its tracks. header_bytes, positions: as of `Layout`. beginning: of the header.
    """

    indexes: list[int]
    header_bytes: int
    positions: array[int] | memoryview
    beginning: bytes


async def make_layout(
    description: Mapping[str, Any],
    log: PacketLog,
    index: SpanIndex,
    infos: Sequence[TrackInfo],
    first_payload: FirstPayload,
) -> tuple[int, dict[str, Any]]:
    """Return the descriptor of a layout's memory, which is the caller's, and what `open_layout` needs besides.

    description: "kind", "indexes" of tracks, "from_us" and "to_us" or None. infos: all tracks of the stream.
    Raises UnsupportedError where the length cannot be known. It takes a while, in which others get turns.
    """
    positions, header = await _file(description, log, index, infos, first_payload)
    return await asyncio.to_thread(_memory, positions, header)


async def _file(
    description: Mapping[str, Any],
    log: PacketLog,
    index: SpanIndex,
    infos: Sequence[TrackInfo],
    first_payload: FirstPayload,
) -> tuple[array[int], list[bytes]]:
    """Return positions of a layout, and pieces of its header. Parameters and errors as of `make_layout`."""
    kind = description["kind"]
    indexes = [int(one) for one in description["indexes"]]
    tracks = [infos[one] for one in indexes]
    if not log.whole or any(info.codec in TEXTS for info in tracks) or index[index.count - 1][6]:
        raise UnsupportedError("the length of this file is not known beforehand")
    window = {name: int(description[name]) for name in ("from_us", "to_us") if description.get(name) is not None}
    places = [indexes.index(one) if one in indexes else -1 for one in range(len(infos))]
    if kind in STREAMED:
        return _streamed_layout(STREAMED[kind], log, index, tracks, places, window)
    if kind not in KINDS:
        raise UnsupportedError(f"no file of kind {kind} is laid out")
    described = [place for place, info in enumerate(tracks) if info.codec in DESCRIBED_BY_PACKETS]
    payloads = {place: await first_payload(indexes[place]) for place in described}
    layout = Mp4FileLayout(tracks, KINDS[kind](), payloads, located=False)
    return await _mp4_layout(layout, log, index, places, window)


async def _mp4_layout(
    layout: Mp4FileLayout, log: PacketLog, index: SpanIndex, places: list[int], window: Mapping[str, Any]
) -> tuple[array[int], list[bytes]]:
    laying = log.lay_out(layout, lambda: layout.media_bytes, places, index, **window)
    while laying.step():
        await asyncio.sleep(0)
    layout.finish()
    positions = array("q", (layout.header_bytes + end for end in laying.ends))
    return positions, layout.header_pieces()


async def make_outline(
    log: PacketLog, index: SpanIndex, infos: Sequence[TrackInfo], first_payload: FirstPayload
) -> Outline | None:
    """Return what is to be kept of the layout of an MP4 file with the first track of pictures and the first of sound.

    None where that cannot be made. Parameters as of `make_layout`.
    """
    types = [info.type for info in infos]
    indexes = [types.index(kind) for kind in (VIDEO, AUDIO) if kind in types]
    if not indexes or not index.count:
        return None
    try:
        positions, header = await _file({"kind": MP4, "indexes": indexes}, log, index, infos, first_payload)
    except MistError:
        return None
    return Outline(indexes, positions[0], positions, b"".join(header)[:OUTLINE_BYTES])


def layout_of_outline(description: Mapping[str, Any], outline: Outline | None) -> tuple[int, dict[str, Any]] | None:
    """Return what `make_layout` does, but for the end of the header, from what was kept; None where that does not say it."""
    windowed = any(description.get(name) is not None for name in ("from_us", "to_us"))
    if outline is None or windowed or (description["kind"], description["indexes"]) != (MP4, outline.indexes):
        return None
    return _memory(array("q", outline.positions), [outline.beginning])


def _streamed_layout(
    kind: _Streamed,
    log: PacketLog,
    index: SpanIndex,
    tracks: list[TrackInfo],
    places: list[int],
    window: Mapping[str, Any],
) -> tuple[array[int], list[bytes]]:
    sizes = kind.sizes(tracks)
    ends = log.span_ends(sizes, lambda: sizes.total_bytes, places, index, **window)
    return _streamed_file(kind, tracks, [ends], index, window)


def _streamed_file(
    kind: _Streamed,
    tracks: list[TrackInfo],
    ends: list[array[int] | memoryview],
    index: SpanIndex,
    window: Mapping[str, Any],
) -> tuple[array[int], list[bytes]]:
    """Return positions and header of a file. ends: media bytes before each span, and in all; of parts that add up to the file."""
    from_us = window.get("from_us", index[0][0])
    to_us = min(window.get("to_us", index.end_us), index.end_us)
    header = kind.header(tracks, from_us, max(to_us - from_us, 0), sum(one[-1] for one in ends))
    return sum_ends(ends, len(header)), [header]


def track_ends(log: PacketLog, index: SpanIndex, infos: Sequence[TrackInfo]) -> dict[int, array[int]]:
    """Return for each track that an FLV file can have what its packets take there: before each span, and in all.

    These add up to the layout of an FLV file with any of the tracks, so that it is known without the log. Empty where that does not hold.
    """
    found: dict[int, array[int]] = {}
    if not log.whole or not index.count or index[index.count - 1][6]:
        return found
    for number, info in enumerate(infos):
        if info.codec in TEXTS:
            continue
        try:
            sizes = FlvSizes([info])
        except UnsupportedError:
            continue
        places = [-1] * len(infos)
        places[number] = 0
        found[number] = log.span_ends(sizes, lambda sizes=sizes: sizes.total_bytes, places, index)  # type: ignore[misc]
    return found


def layout_of_ends(
    description: Mapping[str, Any],
    ends: Mapping[int, array[int] | memoryview],
    index: SpanIndex,
    infos: Sequence[TrackInfo],
) -> tuple[int, dict[str, Any]] | None:
    """Return what `make_layout` does, from the ends of tracks that were kept; None where they do not say it."""
    indexes = [int(one) for one in description["indexes"]]
    tracks = [infos[one] for one in indexes]
    windowed = any(description.get(name) is not None for name in ("from_us", "to_us"))
    alone = len({info.type for info in tracks}) == len(
        tracks
    )  # further tracks of a type take more than they do by themselves
    if description["kind"] != FLV or windowed or not alone or not all(one in ends for one in indexes):
        return None
    return _memory(*_streamed_file(STREAMED[FLV], tracks, [ends[one] for one in indexes], index, {}))


def _memory(positions: array[int], header: list[bytes]) -> tuple[int, dict[str, Any]]:
    """Return the descriptor of memory with a layout, and what `open_layout` needs besides."""
    fd = os.memfd_create("mist layout", os.MFD_CLOEXEC)
    try:
        for data in (positions.tobytes(), *header):
            part = memoryview(data)
            while part:
                part = part[os.write(fd, part) :]
    except BaseException:
        os.close(fd)
        raise
    return fd, {"spans": len(positions), "header_bytes": positions[0]}


def open_layout(fd: int, note: Mapping[str, Any], description: Mapping[str, Any] | None = None) -> Layout:
    """Map a layout and close the descriptor. description: as of `make_layout`."""
    try:
        mapped = memoryview(mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ))
    finally:
        os.close(fd)
    split = int(note["spans"]) * _NUMBER_BYTES
    return Layout(mapped[split:], int(note["header_bytes"]), mapped[:split].cast("q"), description or {})

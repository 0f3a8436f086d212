"""The layout of a whole file made from an on-demand stream: its header, and at which byte each span's packets begin.

The stream's input makes it once, from times and sizes of all packets, in memory that is handed to workers by descriptor. So a file has
an exact length and can be asked for in ranges, and nobody but the input ever knows all its packets.
"""

from __future__ import annotations

import mmap
import os
from array import array
from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

from mist.core.flv import FlvMuxer, FlvSizes
from mist.core.mp4_file_mux import Mp4FileLayout
from mist.core.packet_log import FrameSizes, PacketLog
from mist.core.span_index import SpanIndex, sum_ends
from mist.errors import UnsupportedError
from mist.formats import flac_file, riff
from mist.formats.audio_files import AdtsMuxer
from mist.formats.mp4_file import FileMovie
from mist.formats.tracks import AC3, EAC3, JSON, SUBTITLE, TrackInfo

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
    """A file that can be made. header: all before the first packet. positions: byte of each span's first packet, and the file's end."""

    header: memoryview
    positions: memoryview

    @property
    def size(self) -> int:
        """Bytes of the whole file."""
        return int(self.positions[-1])

    def span_at(self, position: int) -> int:
        """Return the span in whose packets a byte behind the header lies."""
        return max(bisect_right(self.positions, position) - 1, 0)


def make_layout(
    description: Mapping[str, Any],
    log: PacketLog,
    index: SpanIndex,
    infos: Sequence[TrackInfo],
    first_payload: Callable[[int], bytes],
) -> tuple[int, dict[str, Any]]:
    """Return the descriptor of a layout's memory, which is the caller's, and what `open_layout` needs besides.

    description: "kind", "indexes" of tracks, "from_us" and "to_us" or None. infos: all tracks of the stream. first_payload: returns
    the first packet of a track. Raises UnsupportedError where the length cannot be known.
    """
    kind = description["kind"]
    indexes = [int(one) for one in description["indexes"]]
    tracks = [infos[one] for one in indexes]
    if not log.whole or any(info.codec in TEXTS for info in tracks) or index[index.count - 1][6]:
        raise UnsupportedError("the length of this file is not known beforehand")
    window = {name: int(description[name]) for name in ("from_us", "to_us") if description.get(name) is not None}
    places = [indexes.index(one) if one in indexes else -1 for one in range(len(infos))]
    if kind in STREAMED:
        positions, header = _streamed_layout(STREAMED[kind], log, index, tracks, places, window)
    elif kind in KINDS:
        payloads = {
            place: first_payload(one) for place, one in enumerate(indexes) if infos[one].codec in DESCRIBED_BY_PACKETS
        }
        positions, header = _mp4_layout(Mp4FileLayout(tracks, KINDS[kind](), payloads), log, index, places, window)
    else:
        raise UnsupportedError(f"no file of kind {kind} is laid out")
    return _memory(positions, header), {"spans": len(positions)}


def _mp4_layout(
    layout: Mp4FileLayout, log: PacketLog, index: SpanIndex, places: list[int], window: Mapping[str, Any]
) -> tuple[array[int], bytes]:
    counts = log.lay_out(layout, places, index, **window)
    layout.finish()
    positions = array("q", (layout.locate(one)[2] if one < layout.packets else layout.total_bytes for one in counts))
    positions[0] = layout.header_bytes
    return positions, layout.header()


def _streamed_layout(
    kind: _Streamed,
    log: PacketLog,
    index: SpanIndex,
    tracks: list[TrackInfo],
    places: list[int],
    window: Mapping[str, Any],
) -> tuple[array[int], bytes]:
    sizes = kind.sizes(tracks)
    ends = log.span_ends(sizes, lambda: sizes.total_bytes, places, index, **window)
    return _streamed_file(kind, tracks, [ends], index, window)


def _streamed_file(
    kind: _Streamed,
    tracks: list[TrackInfo],
    ends: list[array[int] | memoryview],
    index: SpanIndex,
    window: Mapping[str, Any],
) -> tuple[array[int], bytes]:
    """Return positions and header of a file. ends: media bytes before each span, and in all; of parts that add up to the file."""
    from_us = window.get("from_us", index[0][0])
    to_us = min(window.get("to_us", index.end_us), index.end_us)
    header = kind.header(tracks, from_us, max(to_us - from_us, 0), sum(one[-1] for one in ends))
    return sum_ends(ends, len(header)), header


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
    """Return what `make_layout` does from the ends of tracks that were kept; None where they do not say it."""
    indexes = [int(one) for one in description["indexes"]]
    tracks = [infos[one] for one in indexes]
    windowed = any(description.get(name) is not None for name in ("from_us", "to_us"))
    alone = len({info.type for info in tracks}) == len(
        tracks
    )  # further tracks of a type take more than they do by themselves
    if description["kind"] != FLV or windowed or not alone or not all(one in ends for one in indexes):
        return None
    positions, header = _streamed_file(STREAMED[FLV], tracks, [ends[one] for one in indexes], index, {})
    return _memory(positions, header), {"spans": len(positions)}


def _memory(positions: array[int], header: bytes) -> int:
    fd = os.memfd_create("mist layout", os.MFD_CLOEXEC)
    try:
        for part in (memoryview(positions).cast("B"), memoryview(header)):
            while part:
                part = part[os.write(fd, part) :]
    except BaseException:
        os.close(fd)
        raise
    return fd


def open_layout(fd: int, note: Mapping[str, Any]) -> Layout:
    """Map a layout and close the descriptor."""
    try:
        mapped = memoryview(mmap.mmap(fd, 0, mmap.MAP_SHARED, mmap.PROT_READ))
    finally:
        os.close(fd)
    split = int(note["spans"]) * _NUMBER_BYTES
    return Layout(mapped[split:], mapped[:split].cast("q"))

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
from typing import Any, Final

from mist.core.mp4_file_mux import Mp4FileLayout
from mist.core.packet_log import PacketLog
from mist.core.span_index import SpanIndex
from mist.errors import UnsupportedError
from mist.formats.mp4_file import FileMovie
from mist.formats.tracks import AC3, EAC3, SUBTITLE, TrackInfo

MP4: Final = "mp4"
MP4_3GP: Final = "3gp"
KINDS: Final[Mapping[str, Callable[[], FileMovie]]] = {MP4: FileMovie, MP4_3GP: lambda: FileMovie("3gp6")}
DESCRIBED_BY_PACKETS: Final = frozenset({AC3, EAC3})  # whose set-up is in their first packet

_NUMBER_BYTES: Final = 8


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
    indexes = [int(one) for one in description["indexes"]]
    make_movie = KINDS.get(description["kind"])
    if make_movie is None or not log.whole or any(infos[one].codec == SUBTITLE for one in indexes):
        raise UnsupportedError("the length of this file is not known beforehand")
    tracks = [infos[one] for one in indexes]
    payloads = {
        place: first_payload(one) for place, one in enumerate(indexes) if infos[one].codec in DESCRIBED_BY_PACKETS
    }
    layout = Mp4FileLayout(tracks, make_movie(), payloads)
    window = {name: int(description[name]) for name in ("from_us", "to_us") if description.get(name) is not None}
    places = [indexes.index(one) if one in indexes else -1 for one in range(len(infos))]
    counts = log.lay_out(layout, places, index, **window)
    layout.finish()
    positions = array("q", (layout.locate(one)[2] if one < layout.packets else layout.total_bytes for one in counts))
    positions[0] = layout.header_bytes
    return _memory(positions, layout.header()), {"spans": len(positions)}


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

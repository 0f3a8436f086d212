"""When pictures are presented, of streams that say only when they are decoded: by the picture order count of H.264 and HEVC.

The demuxers of byte streams find out the order; the times are those of the container.
"""

from __future__ import annotations

from collections import deque
from typing import Any, Final, Generic, TypeVar

from mist.core.demuxer import PacketList
from mist.core.nal import length_prefixed_to_annexb
from mist.errors import RemoteProtocolError
from mist.formats import h264, hevc
from mist.formats.tracks import H264
from mist.formats.video_files import H264Demuxer, HevcDemuxer

_START: Final = b"\0\0\0\1"
_DELIMITERS: Final = {
    True: b"\0\0\0\1\x09\xf0",
    False: b"\0\0\0\1\x46\x01\x50",
}  # of H.264, of HEVC: one for each picture
_USUAL_RATE_MHZ: Final = 25_000

T = TypeVar("T")


class PictureOrder(Generic[T]):
    """Takes pictures in the order of decoding and gives them back in it, with the times at which they are presented."""

    def __init__(self, codec: str, init_data: bytes, step: int) -> None:
        """codec: H264 or HEVC. init_data: of the track, b"" for none. step: from a picture to the next, behind the last one."""
        self._engine = H264Demuxer() if codec == H264 else HevcDemuxer()
        self._delimiter = _DELIMITERS[codec == H264]
        self._found = PacketList()
        self._engine.attach(self._found)
        self._step = step
        self._waiting: deque[T] = deque()
        self._times: deque[int] = deque()  # at which the pictures that wait are decoded, and those after them
        self._lost = False
        if init_data:
            self._feed(b"".join(_START + unit for unit in _parameter_sets(codec, init_data)))

    def put(self, picture: bytes, dts: int, item: T) -> list[tuple[T, int]]:
        """Take a picture, with 4-byte lengths; return (item, time of presentation) of those whose place is known."""
        if self._times:
            self._step = max(dts - self._times[-1], 1)
        self._waiting.append(item)
        self._times.append(dts)
        self._feed(self._delimiter + length_prefixed_to_annexb(picture))
        return self._take()

    def end(self) -> list[tuple[T, int]]:
        """Return the pictures that wait."""
        self._feed(b"")
        return self._take(ended=True)

    def _feed(self, data: bytes) -> None:
        if self._lost:
            return
        try:
            self._engine.feed(data)
        except RemoteProtocolError:
            self._lost = True  # the times of decoding have to do

    def _take(self, ended: bool = False) -> list[tuple[T, int]]:
        ready: list[tuple[T, int]] = []
        for one in self._found.take():
            if self._waiting:
                rate = self._engine.tracks[0].frame_rate_mhz or _USUAL_RATE_MHZ
                ready.append((self._waiting.popleft(), self._time(round(one.offset_us * rate / 1e9))))
                self._times.popleft()
        while self._waiting and (self._lost or ended):
            ready.append((self._waiting.popleft(), self._times.popleft()))
        return ready

    def _time(self, places: int) -> int:
        """Return when the picture is decoded that comes so many after the first of those that wait."""
        beyond = places - len(self._times) + 1
        return self._times[places] if beyond <= 0 else self._times[-1] + beyond * self._step


def _parameter_sets(codec: str, init_data: bytes) -> list[bytes]:
    if codec == H264:
        record = h264.parse_avcc(init_data)
        return [*record.sps, *record.pps]
    units: dict[Any, Any] = dict(hevc.parse_hvcc(init_data).units)
    return [unit for kind in sorted(units) for unit in units[kind]]

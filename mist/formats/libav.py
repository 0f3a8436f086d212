"""Formats that mist has no demuxer of its own for, read with FFmpeg's libraries through PyAV, which is imported when it is needed.

libav asks for bytes; a demuxer is given them. So libav runs in a thread of its own that only ever runs while the demuxer waits for it:
it goes on from one read to the next.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any, Final

from mist.core.demuxer import READ_BYTES, Demuxer
from mist.core.nal import annexb_to_length_prefixed, change_length_size, split_annexb
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError, UnsupportedError
from mist.formats import aac, codecs, h264, hevc
from mist.formats.tracks import (
    AAC,
    AC3,
    ALAW,
    AUDIO,
    DTS,
    EAC3,
    FLAC,
    FLOAT,
    H264,
    HEVC,
    JPEG,
    MP2,
    MP3,
    MPEG2,
    OPUS,
    PCM,
    ULAW,
    VIDEO,
    VP8,
    VP9,
    TrackInfo,
)  # fmt: skip

INSTALL: Final = "this format is read with PyAV, which is not installed: pip install 'mist[libav]'"
MAX_PROBED_PACKETS: Final = 500  # until every track has shown a packet
MAX_HELD_BYTES: Final = 64 << 20
SEEK_MARGIN_US: Final = 1_000_000  # indexes of formats go by one or the other of the two times of a packet
END_OF_FILE: Final = 1 << 62  # what is told as the length, as long as it is not known

CODECS: Final = {
    "h264": H264, "hevc": HEVC, "mjpeg": JPEG, "mpeg1video": MPEG2, "mpeg2video": MPEG2, "vp8": VP8, "vp9": VP9,
    "aac": AAC, "mp3": MP3, "mp3float": MP3, "mp2": MP2, "mp2float": MP2, "ac3": AC3, "eac3": EAC3, "dca": DTS, "dts": DTS,
    "flac": FLAC, "opus": OPUS, "pcm_alaw": ALAW, "pcm_mulaw": ULAW,
    "pcm_u8": PCM, "pcm_s16le": PCM, "pcm_s16be": PCM, "pcm_s24le": PCM, "pcm_s24be": PCM, "pcm_s32le": PCM, "pcm_s32be": PCM,
    "pcm_f32le": FLOAT, "pcm_f64le": FLOAT,
}  # fmt: skip
_AVCC_VERSION: Final = 1


def _swapped(width: int) -> Callable[[bytes], bytes]:
    """Return what turns samples of so many bytes round."""

    def swap(payload: bytes) -> bytes:
        whole = len(payload) - len(payload) % width
        swapped = bytearray(whole)
        for place in range(width):
            swapped[place::width] = payload[width - 1 - place : whole : width]
        return bytes(swapped)

    return swap


class _Track:
    """How the packets of one stream become those of a track."""

    def __init__(self, stream: Any, number: int, codec: str) -> None:
        context = stream.codec_context
        self.number = number
        self.base = stream.time_base
        self.last_us: int | None = None
        self.kind = VIDEO if stream.type == "video" else AUDIO
        self.extra = bytes(context.extradata or b"")
        self.convert: Callable[[bytes], bytes] = lambda payload: payload
        fields: dict[str, Any] = {"track_id": number + 1}
        if self.kind == VIDEO:
            rate = stream.average_rate
            fields |= {"width": context.width, "height": context.height}
            fields["frame_rate_mhz"] = round(rate * 1000) if rate else 0
        else:
            name = context.name
            fields |= {"sample_rate_hz": context.sample_rate, "channels": context.channels}
            if codec in (PCM, FLOAT):
                bits = int("".join(letter for letter in name if letter.isdigit()))
                fields["sample_bits"] = bits
                if name.endswith("le") and codec == PCM and bits > 8:
                    self.convert = _swapped(bits // 8)
        self.info = TrackInfo(self.kind, codec, **fields)
        self.known = False
        if codec in (H264, HEVC):
            self._prepare_pictures(codec)

    def _prepare_pictures(self, codec: str) -> None:
        if self.extra[:1] == bytes([_AVCC_VERSION]):
            size = 1 + (self.extra[4 if codec == H264 else 21] & 3)
            if size != 4:
                self.convert = lambda payload: change_length_size(payload, size)
            self.info = codecs.with_init_data(self.info, self.extra)
        else:
            self.convert = annexb_to_length_prefixed

    def learn(self, payload: bytes) -> None:
        """Take what a first packet, or the stream's own set-up, says of the track."""
        info = self.info
        if info.codec in (H264, HEVC) and not info.init_data:
            update = h264.updated_avcc if info.codec == H264 else hevc.updated_hvcc
            record = next(filter(None, (update(b"", split_annexb(part)) for part in (self.extra, payload))), None)
            if record is None:
                return
            self.info = codecs.with_init_data(info, record)
        elif info.codec == AAC:
            if self.extra:
                self.info = codecs.with_init_data(info, self.extra)
            else:
                header = aac.parse_adts(payload)
                self.info = codecs.with_init_data(info, aac.adts_config(header))
                self.convert = _without_adts
        elif info.codec in (FLAC, OPUS) and self.extra:
            self.info = codecs.with_init_data(info, self.extra)
        else:
            self.info = codecs.complete(info, payload)
        self.known = True

    def packet(self, found: Any) -> Packet | None:
        """Return a packet, None for one that cannot be used."""
        payload = bytes(found)
        if not payload or (found.dts is None and found.pts is None):
            return None
        if not self.known:
            self.learn(payload)
        if not self.known:
            return None
        dts = found.dts if found.dts is not None else found.pts
        dts_us = round(dts * self.base * 1_000_000)
        offset_us = 0 if found.pts is None else max(round(found.pts * self.base * 1_000_000) - dts_us, 0)
        payload = self.convert(payload)
        keyframe = codecs.is_keyframe(self.info, payload) if self.kind == VIDEO and self.info.codec != JPEG else True
        return Packet(self.number, dts_us, offset_us, keyframe, payload)


def _without_adts(payload: bytes) -> bytes:
    header = aac.parse_adts(payload)
    return payload[header.header_bytes : header.frame_bytes]


def _codec_name(stream: Any) -> str:
    """Return what libav calls a stream's codec, "" for none."""
    context = stream.codec_context
    return "" if context is None else str(context.name)


class _Stopped(Exception):
    """The demuxer is gone."""


class _Source:
    """The file that libav reads, and its thread. Nothing of it runs while the demuxer does."""

    def __init__(self, size: int | None) -> None:
        self.size = END_OF_FILE if size is None else size
        self.position = 0
        self.wanted = 0  # bytes, 0 when libav has ended
        self.found: list[tuple[Packet, int]] = []
        self.tracks: list[_Track] = []
        self.ready = False
        self.failure: Exception | None = None
        self.seek_us: int | None = None
        self._given: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
        self._turn: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="libav", daemon=True)
        self._thread.start()
        self._turn.get()

    # -- the demuxer's side

    def give(self, data: bytes) -> None:
        """Give libav what it wants, and return when it wants more or has ended."""
        self._given.put(data)
        self._turn.get()

    def stop(self) -> None:
        """End the thread."""
        self._given.put(None)

    # -- libav's side

    def read(self, count: int) -> bytes:
        """Return bytes; libav calls this."""
        if self._leaving():
            return b""
        self.wanted = min(count, READ_BYTES) or READ_BYTES
        data = self._wait()
        if self._leaving():
            return b""
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position; libav calls this."""
        self.position = offset + (self.position if whence == 1 else self.size if whence == 2 else 0)
        return self.position

    def tell(self) -> int:
        """Return the position; libav calls this."""
        return self.position

    def _leaving(self) -> bool:
        """Tell whether reading is to go on elsewhere, so that libav is told that the file ends here."""
        return self.seek_us is not None

    def _wait(self) -> bytes:
        self._turn.put(None)
        data = self._given.get()
        if data is None:
            raise _Stopped
        return data

    def _run(self) -> None:
        try:
            import av

            with av.open(self, "r") as container:
                streams: dict[int, _Track] = {}
                for stream in container.streams:
                    codec = CODECS.get(_codec_name(stream))
                    if codec is not None:
                        streams[stream.index] = _Track(stream, len(streams), codec)
                if not streams:
                    names = ", ".join(filter(None, map(_codec_name, container.streams)))
                    raise UnsupportedError(f"none of its codecs is one that mist carries: {names or 'none'}")
                self.tracks = list(streams.values())
                self._read_all(container, streams)
        except _Stopped:
            return
        except ImportError:
            self.failure = UnsupportedError(INSTALL)
        except Exception as error:  # noqa: BLE001 - whatever libav says of a file is the file's error
            self.failure = error
        self.wanted = 0
        self._turn.put(None)

    def _read_all(self, container: Any, streams: dict[int, _Track]) -> None:
        import av

        while True:
            if self.seek_us is not None:
                target, self.seek_us = self.seek_us, None
                container.seek(max(target - SEEK_MARGIN_US, 0), backward=True)
            try:
                for found in container.demux():
                    if self._leaving():
                        break
                    track = streams.get(found.stream_index)
                    packet = track.packet(found) if track is not None else None
                    if packet is not None:
                        self.found.append((packet, max(found.pos or 0, 0)))
                        self._look_at_tracks(streams)
            except av.error.FFmpegError:
                if not self._leaving():
                    raise
            if not self._leaving():
                self.wanted = 0
                self._look_at_tracks(streams, ended=True)
                self._wait()  # for a seek

    def _look_at_tracks(self, streams: dict[int, _Track], ended: bool = False) -> None:
        if not self.ready and (
            ended or len(self.found) > MAX_PROBED_PACKETS or all(track.known for track in streams.values())
        ):
            self.ready = True


class LibavDemuxer(Demuxer):
    """A demuxer of whatever libav knows."""

    def __init__(self) -> None:
        """Begin. Raises UnsupportedError without PyAV."""
        try:
            import av  # noqa: F401
        except ImportError:
            raise UnsupportedError(INSTALL) from None
        self.size: int | None = None  # of the file, which may be set until the first `want`
        self._numbers: dict[int, int] | None = None
        self._opened: _Source | None = None

    @property
    def _source(self) -> _Source:
        if self._opened is None:
            self._opened = _Source(self.size)
            weakref.finalize(self, self._opened.stop)
        return self._opened

    def want(self) -> tuple[int, int] | None:
        """Return what libav wants to read."""
        source = self._source
        if not source.wanted:
            return None
        return source.position, source.wanted

    def feed(self, data: bytes | memoryview) -> None:
        """Let libav read. Raises RemoteProtocolError."""
        source = self._source
        place = source.position
        source.give(bytes(data))
        if source.failure is not None:
            if isinstance(source.failure, RemoteProtocolError):
                raise source.failure
            raise RemoteProtocolError(f"libav: {source.failure}", offset=place)
        if self._numbers is None and source.ready:
            known = [track for track in source.tracks if track.known]
            self._numbers = {track.number: number for number, track in enumerate(known)}
            self.put_ready([track.info for track in known])
        if self._numbers is not None:
            self._pass_on(self._numbers)
        if not source.wanted:
            self.put_end()

    def _pass_on(self, numbers: dict[int, int]) -> None:
        found, self._source.found = self._source.found, []
        for packet, position in found:
            number = numbers.get(packet.track)
            if number is not None:
                moved = Packet(number, packet.dts_us, packet.offset_us, packet.keyframe, packet.payload)
                self.put_packet(moved, position)

    def seek(self, dts_us: int, position: int) -> None:
        """Go on at a time."""
        source = self._source
        source.seek_us = dts_us
        source.give(b"")
        source.found.clear()

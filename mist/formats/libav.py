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
from mist.formats.languages import canonical
from mist.formats.picture_order import PictureOrder
from mist.formats.program_stream import HEAD_BYTES, PACK, stream_map
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
    left_out,
    none_carried,
)  # fmt: skip

INSTALL: Final = "this format is read with PyAV, which is not installed: pip install 'mist[libav]'"
MAX_PROBED_PACKETS: Final = 500  # until every track has shown a packet
MAX_HELD_BYTES: Final = 64 << 20
SEEK_MARGIN_US: Final = 1_000_000  # indexes of formats go by one or the other of the two times of a packet
MAX_UNDATED: Final = 64
USUAL_RATE: Final = 25  # pictures a second, where nothing says how many
END_OF_FILE: Final = 1 << 62  # what is told as the length, as long as it is not known

CODECS: Final = {
    "h264": H264, "hevc": HEVC, "mjpeg": JPEG, "mpeg1video": MPEG2, "mpeg2video": MPEG2, "vp8": VP8, "vp9": VP9,
    "aac": AAC, "mp3": MP3, "mp3float": MP3, "mp2": MP2, "mp2float": MP2, "ac3": AC3, "eac3": EAC3, "dca": DTS, "dts": DTS,
    "flac": FLAC, "opus": OPUS, "pcm_alaw": ALAW, "pcm_mulaw": ULAW,
    "pcm_u8": PCM, "pcm_s16le": PCM, "pcm_s16be": PCM, "pcm_s24le": PCM, "pcm_s24be": PCM, "pcm_s32le": PCM, "pcm_s32be": PCM,
    "pcm_f32le": FLOAT, "pcm_f64le": FLOAT,
}  # fmt: skip
# The formats that libav may take an input for: none that names other files, which libav would open.
FORMATS: Final = (
    "aiff", "asf", "asf_o", "au", "avi", "caf", "dv", "mpeg", "mxf", "mxf_opatom", "nut", "rm", "tta", "w64", "wv",
)  # fmt: skip
# Formats that say when pictures are decoded; what libav tells of their presentation is a guess.
WITHOUT_ORDER: Final = frozenset({"asf", "asf_o", "avi", "mpeg", "mxf", "mxf_opatom"})
# Samples in an order or a size that is libav's business, as its decoders give them out: codec and bits.
SAMPLES: Final = {"u8": (PCM, 8), "s16": (PCM, 16), "s32": (PCM, 32), "flt": (FLOAT, 32), "dbl": (FLOAT, 64)}
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

    def __init__(self, stream: Any, number: int, codec: str, format_name: str) -> None:
        context = stream.codec_context
        self.number = number
        self.base = stream.time_base
        self.kind = VIDEO if stream.type == "video" else AUDIO
        self.extra = bytes(context.extradata or b"")
        self.convert: Callable[[bytes], bytes] = lambda payload: payload
        self._stream = stream
        self._last_us: int | None = None
        self._last_dts: int | None = None
        self._undated: list[Any] = []  # pictures before the first one that says when it is decoded
        self._ordered = codec in (H264, HEVC) and format_name in WITHOUT_ORDER
        self._order: PictureOrder[Any] | None = None
        rate = stream.average_rate or stream.guessed_rate if self.kind == VIDEO else None
        self._step = round(1 / (rate or USUAL_RATE) / self.base) if self.kind == VIDEO else 0
        self.known = False
        self.info = self._describe(context, codec, rate)
        if codec in (H264, HEVC):
            self._prepare_pictures(codec)

    def _describe(self, context: Any, codec: str, rate: Any) -> TrackInfo:
        fields: dict[str, Any] = {"track_id": self.number + 1, "language": canonical(self._stream.language or "")}
        if self.kind == VIDEO:
            fields |= {"width": context.width, "height": context.height}
            fields["frame_rate_mhz"] = round(rate * 1000) if rate else 0
            return TrackInfo(self.kind, codec, **fields)
        fields |= {"sample_rate_hz": context.sample_rate, "channels": context.channels}
        if codec in (PCM, FLOAT):
            name = context.name
            bits = int("".join(letter for letter in name if letter.isdigit()))
            fields["sample_bits"] = bits
            if bits > 8 and name.endswith("le" if codec == PCM else "be"):
                self.convert = _swapped(bits // 8)
        return TrackInfo(self.kind, codec, **fields)

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

    def restart(self) -> None:
        """Expect packets from elsewhere in the file."""
        self._order = None
        self._last_us = self._last_dts = None
        self._undated = []

    def packets(self, found: Any) -> list[Packet]:
        """Return the packets that one of libav's completes; at its end, which is one without bytes, those that were held back."""
        ready = [(one, one.pts) for one in self._dated(found)]
        if self._ordered:
            ready = [two for one, _ in ready for two in self._in_order(one)]
            ready += self._order.end() if self._order is not None and not found.size else []
        return [packet for one, pts in ready if (packet := self._packet(one, pts)) is not None]

    def _in_order(self, found: Any) -> list[tuple[Any, int | None]]:
        """Return packets with the times at which they are presented, as the order of pictures says."""
        if self._order is None:
            self._order = PictureOrder(self.info.codec, self.info.init_data, self._step)
        return list(self._order.put(self.convert(bytes(found)), found.dts, found))

    def _dated(self, found: Any) -> list[Any]:
        """Return packets with decode times: where one says none, it is one picture after the one before it."""
        if found.size and found.dts is None and self._last_dts is None and self._step:
            self._undated.append(found)
            if len(self._undated) <= MAX_UNDATED:
                return []
        ready, self._undated = self._undated, []
        if found.size and found not in ready:
            ready.append(found)
        if not ready:
            return []
        if self._last_dts is None:
            first = ready[-1].dts if ready[-1].dts is not None else ready[0].pts or 0
            self._last_dts = first - len(ready) * self._step
        for one in ready:
            if one.dts is None:
                one.dts = self._last_dts + self._step if self._step else one.pts
            self._last_dts = one.dts
        return ready

    def _packet(self, found: Any, pts: int | None) -> Packet | None:
        """Return a packet, None for one that cannot be used."""
        payload = self._payload(found)
        if not payload or found.dts is None:
            return None
        if not self.known:
            self.learn(payload)
        if not self.known:
            return None
        dts_us = round(found.dts * self.base * 1_000_000)
        if self._last_us is not None and dts_us <= self._last_us:
            dts_us = self._last_us + 1
        self._last_us = dts_us
        offset_us = 0 if pts is None else max(round(pts * self.base * 1_000_000) - dts_us, 0)
        payload = self.convert(payload)
        keyframe = codecs.is_keyframe(self.info, payload) if self.kind == VIDEO and self.info.codec != JPEG else True
        return Packet(self.number, dts_us, offset_us, keyframe, payload)

    def _payload(self, found: Any) -> bytes:
        return bytes(found)


class _SampleTrack(_Track):
    """Uncompressed sound in a form of its format's own, brought into the usual one by libav."""

    def _describe(self, context: Any, codec: str, rate: Any) -> TrackInfo:
        fields: dict[str, Any] = {"track_id": self.number + 1, "language": canonical(self._stream.language or "")}
        return TrackInfo(self.kind, codec, sample_rate_hz=context.sample_rate, channels=context.channels, **fields)

    def learn(self, payload: bytes) -> None:
        """Know what the first samples told."""

    def _payload(self, found: Any) -> bytes:
        parts = []
        for frame in self._stream.codec_context.decode(found):
            codec, bits = SAMPLES[frame.format.name]
            if not self.known:
                channels = len(frame.layout.channels)
                self.info = self.info.changed(
                    codec=codec, sample_bits=bits, channels=channels, sample_rate_hz=frame.sample_rate
                )
                self.convert = _swapped(bits // 8) if codec == PCM and bits > 8 else self.convert
                self.known = True
            size = frame.samples * self.info.channels * bits // 8
            parts.append(bytes(memoryview(frame.planes[0])[:size]))
        return b"".join(parts)


def _without_adts(payload: bytes) -> bytes:
    header = aac.parse_adts(payload)
    return payload[header.header_bytes : header.frame_bytes]


def _codec_name(stream: Any) -> str:
    """Return what libav calls a stream's codec, "" for none."""
    context = stream.codec_context
    return "" if context is None else str(context.name)


def _track_of(stream: Any, number: int, format_name: str) -> _Track | None:
    """Return the track of a stream, None for one of a codec that is not carried."""
    name = _codec_name(stream)
    codec = CODECS.get(name)
    if codec is not None:
        return _Track(stream, number, codec, format_name)
    planar = name.endswith("_planar")
    return _SampleTrack(stream, number, PCM, format_name) if name.startswith("pcm_") and not planar else None


class _Stopped(Exception):
    """The demuxer is gone."""


class _Source:
    """The file that libav reads, and its thread. Nothing of it runs while the demuxer does.

    In front of a program stream that does not say what is in it stands a map that does, for libav alone: positions on its side are later
    by that.
    """

    def __init__(self, size: int | None) -> None:
        self.size = END_OF_FILE if size is None else size
        self.position = 0  # on libav's side
        self._front = b""  # what libav gets first: the map, and the bytes that it was made of
        self._map_bytes = 0
        self.wanted = 0  # bytes, 0 when libav has ended
        self.found: list[tuple[Packet, int]] = []
        self.tracks: list[_Track] = []
        self.left_out: list[str] = []
        self.ready = False
        self.failure: Exception | None = None
        self.seek_us: int | None = None
        self._first_us: int | None = None  # decode time of the first packet
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

    @property
    def file_position(self) -> int:
        """Where libav reads in the file."""
        return self.position - self._map_bytes

    # -- libav's side

    def read(self, count: int) -> bytes:
        """Return bytes; libav calls this."""
        if self._leaving():
            return b""
        if self.position < len(self._front):
            data = self._front[self.position : self.position + (count if count > 0 else READ_BYTES)]
            self.position += len(data)
            return data
        self.wanted = min(count, READ_BYTES) or READ_BYTES
        data = self._wait()
        if self._leaving():
            return b""
        self.position += len(data)
        return data

    def seek(self, offset: int, whence: int = 0) -> int:
        """Go to a position; libav calls this."""
        end = self.size + self._map_bytes
        self.position = offset + (self.position if whence == 1 else end if whence == 2 else 0)
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

            streams: dict[int, _Track] = {}
            self._read_front()
            name = "mpeg" if self._map_bytes else None
            while True:
                self.position = 0
                with av.open(self, "r", format=name, options={"format_whitelist": ",".join(FORMATS)}) as container:
                    if not streams:
                        streams = self._find_tracks(container)
                    self._read_all(container, streams)
        except _Stopped:
            return
        except ImportError:
            self.failure = UnsupportedError(INSTALL)
        except Exception as error:  # noqa: BLE001 - whatever libav says of a file is the file's error
            self.failure = error
        self.wanted = 0
        self._turn.put(None)

    def _read_front(self) -> None:
        """Read the beginning, and keep it for libav; of a program stream as much as tells what is in it."""
        head = b""
        while len(head) < (HEAD_BYTES if head.startswith(PACK) else len(PACK)):
            data = self.read(READ_BYTES)
            if not data:
                break
            head += data
        front = stream_map(head) if head.startswith(PACK) else b""
        self._map_bytes = len(front)
        self._front = front + head

    def _find_tracks(self, container: Any) -> dict[int, _Track]:
        """Return the tracks by libav's number. Raises UnsupportedError."""
        streams: dict[int, _Track] = {}
        for stream in container.streams:
            track = _track_of(stream, len(streams), container.format.name)
            if track is not None:
                streams[stream.index] = track
            elif stream.type in (VIDEO, AUDIO):
                self.left_out.append(left_out(stream.index + 1, _codec_name(stream)))
        if not streams:
            raise UnsupportedError(none_carried(self.left_out))
        self.tracks = list(streams.values())
        return streams

    def _read_all(self, container: Any, streams: dict[int, _Track]) -> None:
        """Read until the file is to be opened anew."""
        import av

        while True:
            if self.seek_us is not None:
                target, self.seek_us = self.seek_us, None
                self._front = self._front[: self._map_bytes]  # from here on reads take turns again
                for one in streams.values():
                    one.restart()
                if target - SEEK_MARGIN_US <= (self._first_us or 0):
                    return  # libav does not find back to the first packets of all tracks in every format
                container.seek(max(target - SEEK_MARGIN_US, 0), backward=True)
            try:
                for found in container.demux():
                    if self._leaving():
                        break
                    track = streams.get(found.stream_index)
                    packets = track.packets(found) if track is not None else []
                    place = max((found.pos or 0) - self._map_bytes, 0)
                    self.found += [(packet, place) for packet in packets]
                    if packets:
                        if self._first_us is None:
                            self._first_us = packets[0].dts_us
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
        return source.file_position, source.wanted

    def feed(self, data: bytes | memoryview) -> None:
        """Let libav read. Raises RemoteProtocolError."""
        source = self._source
        place = source.file_position
        source.give(bytes(data))
        if source.failure is not None:
            if isinstance(source.failure, RemoteProtocolError):
                raise source.failure
            raise RemoteProtocolError(f"libav: {source.failure}", offset=place)
        if self._numbers is None and source.ready:
            known = [track for track in source.tracks if track.known]
            self._numbers = {track.number: number for number, track in enumerate(known)}
            self.left_out = source.left_out + [
                f"track {track.number + 1}, {track.info.codec}, has nothing that says what it is"
                for track in source.tracks
                if not track.known
            ]
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
        source.found.clear()
        source.seek_us = dts_us
        source.give(b"")

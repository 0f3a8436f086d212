"""What a publisher's messages mean: tracks that appear and change, and packets in the project's own form."""

from __future__ import annotations

from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mist.core import flv
from mist.core.flv import TagPart
from mist.core.nal import annexb_to_length_prefixed, change_length_size, nal_types, split_annexb
from mist.core.packet import Packet
from mist.core.script_data import ABOUT_THE_STREAM, METADATA
from mist.errors import LimitExceededError, MistError
from mist.formats import codecs, h264
from mist.formats.av1 import TEMPORAL_DELIMITER, strip_temporal_delimiters
from mist.formats.rtmp.messages import SET_DATA_FRAME, number
from mist.formats.rtmp.messages import VIDEO as VIDEO_MESSAGE
from mist.formats.script_data import document_of
from mist.formats.tracks import AAC, AUDIO, AV1, FLAC, H264, HEVC, JSON, META, OPUS, PCM, VIDEO, TrackInfo

MAX_TRACKS: Final = 64
MAX_INIT_BYTES: Final = 1 << 20
MAX_EARLY: Final = 64  # documents that are held back until the media begins
MAX_EARLY_BYTES: Final = 1 << 18

_NAL_CODECS: Final = frozenset({H264, HEVC})
_NEEDS_INIT: Final = frozenset({H264, HEVC, AAC})  # undecodable, or not even describable, without it
_KNOWN: Final = flv.LEGACY_CODECS | flv.ENHANCED_CODECS | {PCM}
_FLAC_MARK: Final = b"fLaC"
_STREAM_INFO_BYTES: Final = 34
_ANNEXB_STARTS: Final = (b"\x00\x00\x00\x01", b"\x00\x00\x01")


@dataclass(frozen=True, slots=True)
class TrackFound:
    """A track appeared. track: its number, from 0 in order of appearance; never reused."""

    track: int
    info: TrackInfo


@dataclass(frozen=True, slots=True)
class TrackChanged:
    """What is known of a track changed, from the next packet on."""

    track: int
    info: TrackInfo


@dataclass(frozen=True, slots=True)
class TrackGone:
    """A track is over: its place was taken by another codec."""

    track: int


@dataclass(frozen=True, slots=True)
class Oddity:
    """Something that was repaired or ignored; said once of each kind. text: for the log."""

    text: str


MediaEvent = TrackFound | TrackChanged | TrackGone | Oddity | Packet


@dataclass(slots=True)
class _Slot:
    """One track of the publisher. setup: its sequence header as it was sent, to notice when it changes."""

    number: int = -1
    info: TrackInfo = field(default_factory=lambda: TrackInfo("", ""))
    setup: bytes = b""
    length_size: int = 4


class TrackAssembler:
    """Audio and video messages in, tracks and packets out; packet times are the publisher's own.

    language: of the audio tracks. Raises RemoteProtocolError for media that cannot be parsed.
    """

    def __init__(self, language: str = "und") -> None:
        self._language = language
        self._slots: dict[tuple[str, int], _Slot] = {}
        self._found = 0
        self._hints: dict[str, dict[str, int]] = {VIDEO: {}, AUDIO: {}}
        self._said: set[str] = set()
        self._begun = False  # there was a packet of media
        self._data = _Slot()  # the track of JSON
        self._early: list[tuple[int, bytes]] = []  # documents that came before the media, with their times

    # -- another process

    def export_state(self) -> dict[str, Any]:
        """Return everything the next message depends on, as JSON has it."""
        return {
            "language": self._language,
            "found": self._found,
            "hints": self._hints,
            "said": sorted(self._said),
            "begun": self._begun,
            "data": self._data.number,
            "early": [[time_ms, document.decode()] for time_ms, document in self._early],
            "slots": [
                [
                    kind,
                    track_id,
                    slot.number,
                    slot.info.export_state(),
                    b64encode(slot.setup).decode(),
                    slot.length_size,
                ]
                for (kind, track_id), slot in self._slots.items()
            ],
        }

    @classmethod
    def restore(cls, state: Mapping[str, Any]) -> TrackAssembler:
        """Return the assembler that `export_state` described. Raises ValueError, TypeError, KeyError."""
        assembler = cls(state["language"])
        assembler._found = state["found"]
        assembler._hints = {VIDEO: dict(state["hints"][VIDEO]), AUDIO: dict(state["hints"][AUDIO])}
        assembler._said = set(state["said"])
        assembler._begun = bool(state.get("begun", state["found"]))
        assembler._data.number = int(state.get("data", -1))
        assembler._early = [(int(time_ms), document.encode()) for time_ms, document in state.get("early", ())]
        for kind, track_id, place, info, setup, length_size in state["slots"]:
            slot = _Slot(place, TrackInfo.restore(info), b64decode(setup), length_size)
            assembler._slots[kind, track_id] = slot
        return assembler

    # -- data

    def feed_data(self, values: Sequence[Any], time_ms: int) -> list[MediaEvent]:
        """Take the values of a data message or of script data.

        onMetaData tells of the media. Anything else with a name is a packet of the one track of JSON, which begins behind the
        first packet of the media. time_ms: its time, unwrapped.   Spec: RTMP 1.0 section 7.1.2, FLV E.4.4.
        """
        if values and values[0] == SET_DATA_FRAME:
            values = values[1:]
        if not values or not isinstance(values[0], str):
            return []
        if values[0] == METADATA:
            return self.feed_metadata(values[1]) if len(values) > 1 and isinstance(values[1], dict) else []
        if values[0] in ABOUT_THE_STREAM:
            return []
        events: list[MediaEvent] = []
        try:
            self._early.append((time_ms, document_of(values)))
        except LimitExceededError as error:
            self._say(events, f"ignored: {error}")
        begun = self._begun or self._data.number >= 0
        if begun or len(self._early) > MAX_EARLY or sum(len(one) for _, one in self._early) > MAX_EARLY_BYTES:
            events += self.release_data()
        return events

    def release_data(self) -> list[MediaEvent]:
        """Return the packets that wait for the first one of the media: no more is expected, or it has come."""
        events: list[MediaEvent] = []
        early, self._early = self._early, []
        if early:
            events += self.begin_data()
        events += (Packet(self._data.number, time_ms * 1000, 0, True, document) for time_ms, document in early)
        return events

    def begin_data(self) -> list[MediaEvent]:
        """Make the track of JSON, unless it is there."""
        events: list[MediaEvent] = []
        if self._data.number < 0:
            self._find(self._data, TrackInfo(META, JSON), events)
        return events

    @property
    def holds_data(self) -> bool:
        """Whether documents wait for the first packet of the media."""
        return bool(self._early)

    @property
    def data_track(self) -> int:
        """The number of the track of JSON, -1 before there is one."""
        return self._data.number

    def feed_metadata(self, values: Mapping[str, Any]) -> list[MediaEvent]:
        """Take the properties of onMetaData; they fill what the media itself does not tell."""
        hints = self._hints
        hints[VIDEO] = {
            "width": _whole(values, "width", 16384),
            "height": _whole(values, "height", 16384),
            "frame_rate_mhz": _whole(values, "framerate", 1000, 1000) or _whole(values, "videoframerate", 1000, 1000),
            "bandwidth_bps": _whole(values, "videodatarate", 10_000_000, 1000),
        }
        hints[AUDIO] = {
            "sample_rate_hz": _whole(values, "audiosamplerate", 768_000),
            "channels": _whole(values, "audiochannels", 64),
            "sample_bits": _whole(values, "audiosamplesize", 64),
            "bandwidth_bps": _whole(values, "audiodatarate", 10_000_000, 1000),
        }
        events: list[MediaEvent] = []
        for (kind, track_id), slot in self._slots.items():
            if track_id == 0 and slot.number >= 0:
                filled = _filled(slot.info, hints[kind])
                if filled != slot.info:
                    slot.info = filled
                    events.append(TrackChanged(slot.number, filled))
        return events

    # -- media

    def feed(self, type_id: int, time_ms: int, payload: bytes) -> list[MediaEvent]:
        """Take the body of one audio (8) or video (9) message.

        time_ms: its time, unwrapped. Returns events in order; packets name tracks by the numbers of TrackFound.
        """
        parts = flv.parse_video_body(payload) if type_id == VIDEO_MESSAGE else flv.parse_audio_body(payload)
        events: list[MediaEvent] = []
        for part in parts:
            if part.kind == flv.FRAME:
                self._on_frame(part, time_ms, events)
            elif part.kind == flv.INIT:
                self._on_init(part, events)
            elif part.kind == flv.CHANNELS:
                self._on_channels(part, events)
        return events + self.release_data() if self._early and self._begun else events

    def _slot(self, part: TagPart, events: list[MediaEvent]) -> _Slot | None:
        """Return the slot of a part's track, fresh if another codec was in it; None for codecs that nobody knows."""
        if part.codec not in _KNOWN:
            self._say(events, f"ignored: {part.type} in a codec that is not supported ({part.codec})")
            return None
        key = (part.type, part.track_id)
        slot = self._slots.get(key)
        if slot is None:
            if len(self._slots) >= MAX_TRACKS:
                raise LimitExceededError(f"more than {MAX_TRACKS} tracks")
            slot = self._slots[key] = self._fresh(part)
        elif slot.info.codec != part.codec:
            if slot.number >= 0:
                events.append(TrackGone(slot.number))
            slot = self._slots[key] = self._fresh(part)
        return slot

    def _fresh(self, part: TagPart) -> _Slot:
        language = self._language if part.type == AUDIO else "und"
        info = TrackInfo(part.type, part.codec, language=language)
        if part.track_id == 0:
            info = _filled(info, self._hints[part.type])
        if part.codec not in _NEEDS_INIT and part.sample_rate_hz:
            heard = {"sample_rate_hz": part.sample_rate_hz, "channels": part.channels, "sample_bits": part.sample_bits}
            info = _filled(info, heard)
        return _Slot(info=info)

    def _say(self, events: list[MediaEvent], what: str) -> None:
        if what not in self._said and len(self._said) < 100:
            self._said.add(what)
            events.append(Oddity(what))

    def _on_init(self, part: TagPart, events: list[MediaEvent]) -> None:
        slot = self._slot(part, events)
        if slot is None or part.payload == slot.setup:
            return
        if len(part.payload) > MAX_INIT_BYTES:
            raise LimitExceededError(f"sequence header of {len(part.payload)} bytes")
        init_data = self._init_data(slot, part, events)
        if not init_data:
            return
        slot.setup = part.payload
        if slot.number < 0:
            self._find(slot, codecs.complete(slot.info.changed(init_data=init_data)), events)
        elif init_data != slot.info.init_data:
            self._change(slot, codecs.with_init_data(slot.info, init_data), events)

    def _init_data(self, slot: _Slot, part: TagPart, events: list[MediaEvent]) -> bytes:
        """Return a sequence header as the project stores it, b"" if there is nothing in it."""
        payload = part.payload
        if part.codec == FLAC:
            at = payload.find(_FLAC_MARK)
            payload = payload[at + 8 if at >= 0 else 0 :][:_STREAM_INFO_BYTES]
        elif part.codec == OPUS and payload[:8] != b"OpusHead":
            self._say(events, "ignored: an Opus sequence header without OpusHead")
            return b""
        elif part.codec == H264:
            return self._avcc(slot, payload, events)
        elif part.codec == HEVC and len(payload) > 21 and payload[21] & 3 != 3:
            slot.length_size = (payload[21] & 3) + 1
            payload = payload[:21] + bytes((payload[21] | 3,)) + payload[22:]
        return payload

    def _avcc(self, slot: _Slot, payload: bytes, events: list[MediaEvent]) -> bytes:
        if payload.startswith(_ANNEXB_STARTS):
            self._say(events, "repaired: the H264 sequence header holds an Annex B byte stream")
            units = split_annexb(payload)
            return h264.updated_avcc(b"", units) or b""
        if len(payload) > 4:
            slot.length_size = (payload[4] & 3) + 1
            if slot.length_size != 4:
                return payload[:4] + bytes((payload[4] | 3,)) + payload[5:]
        return payload

    def _on_channels(self, part: TagPart, events: list[MediaEvent]) -> None:
        slot = self._slots.get((part.type, part.track_id))
        if slot is None or slot.number < 0 or not part.channels or slot.info.channels:
            return
        self._change(slot, slot.info.changed(channels=part.channels), events)

    def _on_frame(self, part: TagPart, time_ms: int, events: list[MediaEvent]) -> None:
        slot = self._slot(part, events)
        if slot is None:
            return
        payload = self._payload(slot, part, events)
        if not payload:
            return
        if slot.number < 0 and not self._begin(slot, part, payload, events):
            return
        if part.keyframe and part.type == VIDEO:
            refreshed = codecs.refreshed(slot.info, payload)
            if refreshed is not None:
                self._change(slot, refreshed, events)
        self._begun = True
        dts_us = time_ms * 1000 + part.nano_offset_ns // 1000
        keyframe = part.keyframe or (part.codec == H264 and h264.begins_recovery(payload))
        events.append(Packet(slot.number, dts_us, part.offset_us, bool(keyframe), payload))

    def _begin(self, slot: _Slot, part: TagPart, payload: bytes, events: list[MediaEvent]) -> bool:
        """Make a track of its first frame, if that tells enough."""
        if part.type == VIDEO and not part.keyframe:
            return False
        info = codecs.complete(slot.info, payload)
        if info.codec in _NEEDS_INIT and not info.init_data:
            self._say(events, f"ignored: {info.codec} before its sequence header")
            return False
        self._find(slot, info, events)
        return True

    def _payload(self, slot: _Slot, part: TagPart, events: list[MediaEvent]) -> bytes:
        """Return a frame in the project's form, b"" for one that is broken."""
        payload = part.payload
        if part.codec == AV1:
            return self._temporal_unit(payload, events)
        if part.codec not in _NAL_CODECS:
            return payload
        if slot.length_size == 4 and nal_types(payload, part.codec == HEVC):
            return payload
        if payload.startswith(_ANNEXB_STARTS):
            self._say(events, f"repaired: {part.codec} frames hold an Annex B byte stream (some phone apps do so)")
            return annexb_to_length_prefixed(payload)
        try:
            return change_length_size(payload, slot.length_size)
        except MistError:
            self._say(events, f"ignored: {part.codec} frames whose NAL unit lengths are broken")
            return b""

    def _temporal_unit(self, payload: bytes, events: list[MediaEvent]) -> bytes:
        """Return a temporal unit without its delimiter, which has no place in FLV and is left in by some encoders."""
        if payload[0] >> 3 & 15 != TEMPORAL_DELIMITER:
            return payload
        try:
            return strip_temporal_delimiters(payload)
        except MistError:
            self._say(events, "ignored: AV1 frames whose OBU sizes are broken")
            return b""

    def _find(self, slot: _Slot, info: TrackInfo, events: list[MediaEvent]) -> None:
        slot.number = self._found
        self._found += 1
        if self._found > MAX_TRACKS:
            raise LimitExceededError(f"more than {MAX_TRACKS} tracks, one after the other")
        slot.info = info.changed(track_id=slot.number + 1)
        events.append(TrackFound(slot.number, slot.info))

    def _change(self, slot: _Slot, info: TrackInfo, events: list[MediaEvent]) -> None:
        if info != slot.info:
            slot.info = info
            events.append(TrackChanged(slot.number, info))


def _whole(values: Mapping[str, Any], name: str, limit: float, factor: int = 1) -> int:
    """Return a hint as a whole number, 0 if it is absent or beyond belief."""
    value = number(values.get(name))
    return round(value * factor) if 0 < value <= limit else 0


def _filled(info: TrackInfo, hints: Mapping[str, int]) -> TrackInfo:
    """Return the track with hints where nothing was known."""
    news = {name: value for name, value in hints.items() if value and not getattr(info, name)}
    return info.changed(**news) if news else info


__all__ = [
    "MediaEvent",
    "Oddity",
    "TrackAssembler",
    "TrackChanged",
    "TrackFound",
    "TrackGone",
]

"""An FLV stream demuxed: tags read by `mist.core.flv`, tracks and packets made of them as of a publisher's messages."""

from __future__ import annotations

from typing import Final

from mist.core.flv import FlvReader, FlvTag
from mist.errors import RemoteProtocolError
from mist.formats import amf
from mist.formats.rtmp.media import MediaEvent, Oddity, TrackAssembler

AUDIO_TAG: Final = 8
VIDEO_TAG: Final = 9
SCRIPT_TAG: Final = 18


class FlvDemuxer:
    """Bytes of an FLV file or stream in, tracks and packets out.

    language: of the audio tracks. Times are the tags', unwrapped beyond 32 bits of milliseconds.
    """

    def __init__(self, language: str = "und") -> None:
        self._reader = FlvReader()
        self._assembler = TrackAssembler(language)
        self._time_ms: int | None = None

    def feed(self, data: bytes) -> list[MediaEvent]:
        """Take bytes, any split, and return the events they complete.

        Raises RemoteProtocolError.   Spec: FLV E.2 to E.5, E-RTMP v2.
        """
        events: list[MediaEvent] = []
        for tag in self._reader.feed(data):
            if tag.tag_type in (AUDIO_TAG, VIDEO_TAG):
                events += self._assembler.feed(tag.tag_type, self._unwrapped(tag), tag.body)
            elif tag.tag_type == SCRIPT_TAG:
                events += self._script(tag.body)
        return events

    def _unwrapped(self, tag: FlvTag) -> int:
        """Return the tag's time as the one that is nearest to the last tag's."""
        if self._time_ms is None:
            self._time_ms = tag.time_ms - (1 << 32) if tag.time_ms >= 0xFFFF0000 else tag.time_ms
        else:
            self._time_ms += (tag.time_ms - self._time_ms + 0x80000000 & 0xFFFFFFFF) - 0x80000000
        return self._time_ms

    def _script(self, body: bytes) -> list[MediaEvent]:
        try:
            values = amf.decode_all(body)
        except RemoteProtocolError as error:
            return [Oddity(f"ignored: script data that cannot be read ({error})")]
        if len(values) > 1 and values[0] == "onMetaData" and isinstance(values[1], dict):
            return self._assembler.feed_metadata(values[1])
        return []

    def end_of_input(self) -> list[MediaEvent]:
        """Say that no more bytes come. Raises TruncatedError if the last tag is incomplete."""
        self._reader.end_of_input()
        return []

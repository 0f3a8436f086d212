"""FLV files and streams demuxed: tags read by `mist.core.flv_demux`, set-ups and metadata understood as a publisher's messages are."""

from __future__ import annotations

from typing import Final

from mist.core import flv_demux
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError
from mist.formats import amf
from mist.formats.rtmp.media import MediaEvent, Oddity, TrackAssembler, TrackChanged, TrackFound

MAX_ODDITIES: Final = 100


class FlvDemuxer(flv_demux.FlvDemuxer):
    """Bytes of an FLV file or stream in, packets out.

    language: of the audio tracks. What was repaired or ignored is in `left_out` as well, once of each kind.
    """

    def __init__(self, language: str = "und") -> None:
        self._assembler = TrackAssembler(language)

    def take_media(self, tag_type: int, time_ms: int, body: bytes) -> None:
        """Take the body of an audio or video tag.   Spec: FLV E.4.2, E.4.3, E-RTMP v2."""
        self._put_all(self._assembler.feed(tag_type, time_ms, body))

    def take_script(self, body: bytes) -> None:
        """Take script data; onMetaData fills what the media itself does not tell.   Spec: FLV E.4.4, E.5."""
        try:
            values = amf.decode_all(body)
        except RemoteProtocolError as error:
            self._put_all([Oddity(f"ignored: script data that cannot be read ({error})")])
            return
        if len(values) > 1 and values[0] == "onMetaData" and isinstance(values[1], dict):
            self._put_all(self._assembler.feed_metadata(values[1]))

    def _put_all(self, events: list[MediaEvent]) -> None:
        for event in events:
            if isinstance(event, Packet):
                self.put(event)
            elif isinstance(event, TrackFound | TrackChanged):
                self.put_track(event.track, event.info)
            elif isinstance(event, Oddity):
                self._say(event.text)

    def _say(self, text: str) -> None:
        if len(self.left_out) < MAX_ODDITIES and text not in self.left_out:
            self.left_out.append(text)

"""FLV files and streams demuxed: tags read by `mist.core.flv_demux`, set-ups and metadata understood as a publisher's messages are."""

from __future__ import annotations

from typing import Final

from mist.core import flv_demux
from mist.core.flv_demux import has_data
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
        self._has_data = False

    def look_ahead(self, fd: int) -> None:
        """Look through a whole local file for metadata, which comes when outputs that tell their tracks first have begun."""
        self._has_data = has_data(fd)

    def take_media(self, tag_type: int, time_ms: int, body: bytes) -> None:
        """Take the body of an audio or video tag.   Spec: FLV E.4.2, E.4.3, E-RTMP v2."""
        self._put_all(self._assembler.feed(tag_type, time_ms, body))

    def take_script(self, time_ms: int, body: bytes) -> None:
        """Take script data: what it says of the media, or a packet of metadata.   Spec: FLV E.4.4, E.5."""
        try:
            values = amf.decode_all(body)
        except RemoteProtocolError as error:
            self._put_all([Oddity(f"ignored: script data that cannot be read ({error})")])
            return
        self._put_all(self._assembler.feed_data(values, time_ms))

    def take_ready(self) -> None:
        """Make the track of metadata known if the file is known to have one."""
        if self._has_data:
            self._put_all(self._assembler.begin_data())

    def take_end(self) -> None:
        """Write what waited for media that never came."""
        self._put_all(self._assembler.release_data())

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

"""H.264 and HEVC as byte streams over HTTP: `/STREAM.h264`. With `keysonly` in the query only keyframes are sent."""

from __future__ import annotations

from typing import Any, Final

from mist.core.annexb import AnnexBMuxer
from mist.core.muxer import Muxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, Choice, ProgressiveOutput
from mist.stream.services import OutputServices

_CAPABILITY: Final = Capability(
    name="H264",
    push_urls=("/*.h264",),
    friendly="H264/HEVC over HTTP",
    desc="Pseudostreaming in raw H264 or HEVC Annex B format over HTTP",
    deps="HTTP",
    url_rel="/$.h264",
    url_match=("/$.h264",),
    codecs=((("H264", "HEVC"),),),
    methods=({"handler": "http", "type": "html5/video/raw", "hrn": "Raw progressive", "priority": 1},),
    optional={
        "keysonly": {
            "name": "Send only key frames",
            "help": "If set to any value, removes all non-keyframes",
            "type": "bool",
            "default": False,
        }
    },
)


class _ByteStream(ProgressiveOutput):
    """The reply: all pictures or keyframes."""

    def __init__(self, keys_only: bool) -> None:
        def make_muxer(_stream: str, tracks: list[TrackInfo]) -> Muxer:
            return AnnexBMuxer(tracks, keys_only)

        super().__init__(_CAPABILITY, "video/H264", make_muxer)
        self.suffix = "keys.h264" if keys_only else "h264"

    def media_type(self, choice: Choice) -> str:
        """Return the content type of the chosen codec."""
        return f"video/{choice.reader.track(choice.indexes[0]).info.codec}"


class ByteStreamOutput:
    """The connector."""

    capability = _CAPABILITY

    def __init__(self) -> None:
        self._all = _ByteStream(False)
        self._keys = _ByteStream(True)

    async def handle(self, services: OutputServices, request: Any, response: Any) -> None:
        """Answer a request with the stream; returns when the fan-out has the connection."""
        form = self._keys if "keysonly" in request.query else self._all
        await form.handle(services, request, response)


OUTPUT = ByteStreamOutput()

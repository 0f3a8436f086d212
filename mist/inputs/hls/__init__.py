"""HTTP Live Streaming as a source: playlists on disk and on servers, live and on demand."""

from __future__ import annotations

from typing import Final

from mist.errors import MistError, RemoteProtocolError
from mist.inputs.hls.live import LivePresentation
from mist.inputs.hls.loading import Loader, Rendition
from mist.inputs.hls.vod import OnDemandPresentation
from mist.stream.capability import Capability
from mist.stream.services import InputServices

START_FAILURE: Final = "READ_START_FAILURE"
_SUFFIXES: Final = ("m3u8", "m3u")
_FORCED: Final = {"http-hls://": "http://", "https-hls://": "https://"}


def playlist_place(source: str) -> str:
    """Return path or URL of a source, without what only says that it is a playlist."""
    if source[:4].lower() == "hls:":
        source = source[4:]
    for prefix, plain in _FORCED.items():
        if source.startswith(prefix):
            return plain + source[len(prefix) :]
    return source


class HlsInput:
    """The input for playlists."""

    capability = Capability(
        name="HLS",
        friendly="HTTP Live Streaming",
        desc=(
            "Plays HLS playlists of this machine and of http servers, on demand when they are complete, else live; "
            "http-hls:// and https-hls:// for addresses that do not end in .m3u8"
        ),
        source_match=(
            *(f"{scheme}*.{suffix}" for scheme in ("/", "http://", "https://") for suffix in _SUFFIXES),
            *(f"{prefix}*" for prefix in _FORCED),
        ),
        always_match=(
            *(f"{scheme}*.{suffix}" for scheme in ("/", "http://", "https://") for suffix in _SUFFIXES),
            *(f"{prefix}*" for prefix in _FORCED),
        ),
        codecs=((("+*",),),),
    )

    async def run(self, services: InputServices) -> None:
        """Play the presentation. Returns when a live one has ended; raises MistError."""
        loader = Loader(services)
        try:
            renditions = await loader.open(playlist_place(services.source))
        except RemoteProtocolError as error:
            raise MistError(f"{services.source}: {error}", reason=START_FAILURE) from None
        if all(one.playlist.ended for one in renditions):
            await OnDemandPresentation(services, loader, renditions).run()
        else:
            await LivePresentation(services, loader, renditions).run()


INPUT: Final = HlsInput()

__all__ = ["INPUT", "HlsInput", "Rendition", "playlist_place"]

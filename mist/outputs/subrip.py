"""Subtitles over HTTP: `/STREAM.srt` as SubRip, `/STREAM.vtt` and `/STREAM.webvtt` as WebVTT.

Besides the common parameters `track` names the track, and `from` and `to` the times in milliseconds.
"""

from __future__ import annotations

from typing import Any, Final

from mist.core.muxer import Muxer
from mist.formats.subtitles import SubRipMuxer, WebVttMuxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, ProgressiveOutput
from mist.stream.services import OutputServices

_SYNONYMS: Final = (("track", "subtitle"), ("from", "start"), ("to", "stop"))
_CAPABILITY: Final = Capability(
    name="SubRip",
    push_urls=("/*.srt", "/*.vtt"),
    friendly="SubRip/WebVTT over HTTP",
    desc="Pseudostreaming in SubRip (SRT) or WebVTT subtitle format over HTTP",
    deps="HTTP",
    url_rel="/$.srt",
    url_match=("/$.srt", "/$.vtt", "/$.webvtt"),
    codecs=((("subtitle",),),),
    methods=(
        {"handler": "http", "type": "html5/text/plain", "hrn": "SRT subtitle progressive", "priority": 8, "url_rel": "/$.srt"},
        {"handler": "http", "type": "html5/text/vtt", "hrn": "WebVTT subtitle progressive", "priority": 9, "url_rel": "/$.webvtt"},
    ),
)  # fmt: skip


def _subrip(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    return SubRipMuxer(tracks)


def _webvtt(_stream: str, tracks: list[TrackInfo]) -> Muxer:
    return WebVttMuxer(tracks)


class SubtitleOutput:
    """The connector: one form for each of the two formats."""

    capability = _CAPABILITY

    def __init__(self) -> None:
        self._subrip = ProgressiveOutput(_CAPABILITY, "text/plain; charset=utf-8", _subrip)
        self._webvtt = ProgressiveOutput(_CAPABILITY, "text/vtt; charset=utf-8", _webvtt)
        self._subrip.suffix = "srt"
        self._webvtt.suffix = "vtt"

    async def handle(self, services: OutputServices, request: Any, response: Any) -> None:
        """Answer a request with the stream; returns when the fan-out has the connection."""
        for synonym, name in _SYNONYMS:
            if synonym in request.query:
                request.query.setdefault(name, request.query[synonym])
        form = self._subrip if request.path.endswith(".srt") else self._webvtt
        await form.handle(services, request, response)


OUTPUT = SubtitleOutput()

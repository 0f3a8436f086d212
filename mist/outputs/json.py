"""Metadata and subtitles over HTTP as JSON: `/STREAM.json`, an array, or with `callback` calls of a function; `dedupe` drops repeats."""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.errors import UnsupportedError
from mist.formats.json_tracks import CALLBACK_NAME, MAX_DEDUPE_NAMES, JsonMuxer
from mist.formats.tracks import TrackInfo
from mist.outputs.base import Capability, Choice, ProgressiveOutput
from mist.stream.parameters import PlaybackParameters
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices

_CAPABILITY: Final = Capability(
    name="JSON",
    friendly="JSON over HTTP",
    desc="Pseudostreaming in JSON format over HTTP",
    deps="HTTP",
    url_rel="/$.json",
    url_match=("/$.json",),
    codecs=((("+@meta", "+subtitle"),),),
    methods=({"handler": "http", "type": "html5/text/javascript", "hrn": "JSON progressive", "priority": 0},),
)


class _Items(ProgressiveOutput):
    """The reply to one request. callback: name of a JavaScript function; "" for an array, which is closed only where the stream ends.

    dedupe: as of `JsonMuxer`. What is a repeat depends on when a viewer came, so such a viewer shares no bytes with others.
    """

    def __init__(self, callback: str, dedupe: Sequence[str] | None) -> None:
        super().__init__(_CAPABILITY, "text/javascript; charset=utf-8", self._make_muxer)
        self._callback = callback
        self._dedupe = dedupe
        self._live = True
        self.variant = callback if dedupe is None else f"{callback}.{secrets.token_hex(8)}"

    def _make_muxer(self, _stream: str, tracks: list[TrackInfo]) -> Muxer:
        return JsonMuxer(tracks, open_end=self._live, callback=self._callback, dedupe=self._dedupe)

    async def choose(
        self, services: OutputServices, reader: StreamReader, parameters: PlaybackParameters, user_agent: str
    ) -> Choice:
        """Choose tracks, and see whether the stream has an end."""
        self._live = reader.live
        return await super().choose(services, reader, parameters, user_agent)


class JsonOutput:
    """The connector."""

    capability = _CAPABILITY

    async def handle(self, services: OutputServices, request: Any, response: Any) -> None:
        """Answer a request with the stream; returns when the fan-out has the connection.

        Raises UnsupportedError for a callback that is no name of a function, or too many names to ignore.
        """
        callback = request.query.get("callback") or request.query.get("jsonp") or ""
        if callback and CALLBACK_NAME.fullmatch(callback) is None:
            raise UnsupportedError("the callback is not the name of a function")
        names = request.query.get("dedupe")
        dedupe = names.split(",") if names else None
        if dedupe is not None and len(dedupe) > MAX_DEDUPE_NAMES:
            raise UnsupportedError(f"dedupe can ignore {MAX_DEDUPE_NAMES} members at most")
        await _Items(callback, dedupe).handle(services, request, response)


OUTPUT = JsonOutput()

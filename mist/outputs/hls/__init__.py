"""HTTP Live Streaming with transport stream segments: `/hls/STREAM/index.m3u8`.

Playlists and segments are made from what lies in the stream's buffer, or from an on-demand stream's index and spans. A worker keeps
a stream open for a while after a request, so that most requests are answered by a look-up.
"""

from __future__ import annotations

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import lru_cache
from typing import Any, Final
from urllib.parse import quote

from mist.errors import MistError, NotFound, NotReady, StreamError
from mist.formats.m3u8 import CONTENT_TYPE, write_error
from mist.outputs.base import UNPLAYABLE, wait_playable
from mist.outputs.base.refusal_text import refusal_text
from mist.outputs.base.viewers import admit, describe
from mist.outputs.hls.live import LiveStream
from mist.outputs.hls.master import TS_CODECS
from mist.outputs.hls.on_demand import OnDemandStream
from mist.outputs.hls.stream import CAPABILITY, HlsStream, Rendition
from mist.stream.parameters import absolute_unix_s, parse_parameters
from mist.stream.segments import DEFAULT_CACHE_BYTES, SegmentCache
from mist.stream.selectors import select_tracks
from mist.stream.services import OutputServices
from mist.stream.state import TrackState

SEGMENT_TYPES: Final = {"ts": "video/mp2t", "vtt": "text/vtt; charset=utf-8"}  # by suffix
START_WAIT_S: Final = 8.0  # a new stream's playlist waits no longer than this: players give up after 10 s
IDLE_S: Final = 30.0  # a stream without requests is closed after this at the latest
MIN_SWEEP_S: Final = 1.0
UNIX_TIMES: Final = frozenset({"startunix", "stopunix"})
TIMES: Final = ("start", "stop", "duration", *sorted(UNIX_TIMES))  # in the URLs of media playlists, too
STARTS: Final = ("start", "startunix")
TOKEN_IN_URLS: Final = 4  # bit of the token mode

_SEGMENT_NAME: Final = re.compile(r"(-?[0-9]{1,15})_(-?[0-9]{1,15})\.(ts|vtt)", re.ASCII)


class HlsOutput:
    """The OUTPUT of this module."""

    capability = CAPABILITY
    answers_options = True

    def __init__(self, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.cache = SegmentCache(cache_bytes)
        self._streams: dict[str, HlsStream] = {}
        self._serial = 0
        self._sweep: asyncio.TimerHandle | None = None

    def handle(self, services: OutputServices, request: Any, response: Any) -> Awaitable[None] | None:
        """Answer a request under /hls/STREAM/."""
        if request.method == "OPTIONS":
            response.send(204, cache="no-store")
            return None
        stream = self._streams.get(request.stream)
        if (
            services.guarded
            or stream is None
            or stream.reader.status() in UNPLAYABLE
            or stream.config is not services.config
        ):
            return self._open_and_answer(services, request, response)
        return self._answer(stream, request, response)

    async def _open_and_answer(self, services: OutputServices, request: Any, response: Any) -> None:
        try:
            stream = await self._open(services, request.stream)
        except StreamError as error:
            if not _is_playlist(request.rest):
                raise
            _send_error(response, error)
            return
        await admit(services, stream.reader, CAPABILITY.name, request)
        pending = self._answer(stream, request, response)
        if pending is not None:
            await pending

    async def _open(self, services: OutputServices, name: str) -> HlsStream:
        """Return the stream, opened anew if it has ended; one that has ended for good is kept for its last segments."""
        held = self._streams.get(name)
        try:
            reader = await services.open_stream(name)
        except StreamError:
            if held is not None and self._streams.get(name) is held:
                return held
            raise
        held = self._streams.get(name)
        if held is not None and held.reader is reader and held.config is services.config:
            services.close_stream(reader)
            return held
        if held is not None:
            held.close()
        self._serial += 1
        kind = LiveStream if reader.live else OnDemandStream
        stream = self._streams[name] = kind(services, reader, name, self.cache, self._serial)
        if self._sweep is None:
            self._sweep = services.loop.call_later(min(MIN_SWEEP_S, IDLE_S), self._close_idle, services)
        return stream

    def _close_idle(self, services: OutputServices) -> None:
        """Close streams that nobody has asked for lately."""
        self._sweep = None
        for name, stream in list(self._streams.items()):
            if stream.time() - stream.used_at >= stream.idle_s(IDLE_S):
                del self._streams[name]
                stream.close()
        if self._streams:
            left_s = min(one.used_at + one.idle_s(IDLE_S) - one.time() for one in self._streams.values())
            self._sweep = services.loop.call_later(max(left_s, MIN_SWEEP_S), self._close_idle, services)

    def close(self) -> None:
        """Give everything back."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def _answer(self, stream: HlsStream, request: Any, response: Any) -> Awaitable[None] | None:
        stream.used_at = stream.time()
        _note(stream, request, response)
        folder, _, name = request.rest.rpartition("/")
        match = _SEGMENT_NAME.fullmatch(name) if folder else None
        if match is not None:
            return self._answer_segment(stream, request, response, folder, match)
        if not _is_playlist(request.rest):
            raise NotFound("Unknown file")
        try:
            return self._answer_playlist(stream, request, response, folder)
        except StreamError as error:
            _send_error(response, error)
            return None

    def _answer_playlist(self, stream: HlsStream, request: Any, response: Any, folder: str) -> Awaitable[None] | None:
        if not folder:
            if stream.playable:
                _send_master(stream, request, response)
                return None
            return _send_master_later(stream, request, response)
        rendition = stream.rendition(folder)
        if rendition.ready():
            _send_media(stream, rendition, request, response)
            return None
        return _send_media_later(stream, rendition, request, response)

    def _answer_segment(
        self, stream: HlsStream, request: Any, response: Any, folder: str, name: re.Match[str]
    ) -> Awaitable[None] | None:
        rendition = stream.rendition(folder)
        if rendition.suffix != name[3]:
            raise NotFound("Unknown file")
        segment = rendition.segment(int(name[1]), int(name[2]))
        if isinstance(segment, bytes):
            _send_segment(stream, request, response, name, segment)
            return None
        return _send_segment_later(stream, request, response, name, segment)


def _send_segment(stream: HlsStream, request: Any, response: Any, name: re.Match[str], segment: bytes) -> None:
    if request.token_mode & TOKEN_IN_URLS and not stream.chunk_path:
        cache = "no-store"
    else:
        cache = f"public, max-age={stream.buffered_s}, immutable"
    if response.record is not None:
        response.record.set_position(int(name[1]) * 1000)
    response.send(200, segment, SEGMENT_TYPES[name[3]], cache=cache)


async def _send_segment_later(
    stream: HlsStream, request: Any, response: Any, name: re.Match[str], segment: Awaitable[bytes]
) -> None:
    _send_segment(stream, request, response, name, await segment)


def _note(stream: HlsStream, request: Any, response: Any) -> None:
    """Tell the statistics what this request counts for."""
    record = response.record
    if record is not None:
        describe(stream.services, record, request, CAPABILITY.name, stream.reader.name, agent_seconds=0.0)


def _is_playlist(rest: str) -> bool:
    return ".m3u" in rest.rpartition("/")[2]


def _send_error(response: Any, error: MistError) -> None:
    """Answer a playlist request with a playlist that says what is wrong."""
    response.send(200, write_error(refusal_text(error, error.reason)).encode(), CONTENT_TYPE)


def _query(request: Any, names: Sequence[str]) -> str:
    """Return the part of a query that goes into the URLs of a playlist: the token, and what of names was given."""
    given = request.query
    fields = {name: given[name][:100] for name in names if given.get(name)} if given else {}
    for name in UNIX_TIMES & fields.keys() if fields else ():  # what counts from now, counts from this now
        fields[name] = str(absolute_unix_s(given, name, time.time()))
    if request.token_mode & TOKEN_IN_URLS and request.token:
        if not fields:
            return _token_query(request.token)
        fields["tkn"] = request.token
    return "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items()) if fields else ""


@lru_cache(1024)
def _token_query(token: str) -> str:
    return f"?tkn={quote(token, safe='')}"


def _send_master(stream: HlsStream, request: Any, response: Any) -> None:
    if request.query.get("duration") and not any(request.query.get(name) for name in STARTS):
        stream.fix_begin(request.query)  # each look at the list would count from another beginning
    body = stream.master(parse_parameters(request.query), _query(request, TIMES))
    response.send(200, body, CONTENT_TYPE)


async def _send_master_later(stream: HlsStream, request: Any, response: Any) -> None:
    """Answer when the stream's tracks are known."""
    parameters = parse_parameters(request.query)

    def select(states: list[TrackState]) -> list[int]:
        return select_tracks(states, parameters.selectors, TS_CODECS)

    try:
        await wait_playable(stream.services, stream.reader, parameters, select)
        _send_master(stream, request, response)
        stream.playable = True
    except StreamError as error:
        _send_error(response, error)


def _send_media(stream: HlsStream, rendition: Rendition, request: Any, response: Any) -> None:
    if rendition.empty():
        raise NotReady("Stream is waiting for data")
    query = _query(request, ())
    if not request.query.keys().isdisjoint(TIMES):
        parameters = parse_parameters(request.query)
        zero_us = stream.reader.wall_clock_offset_us or None
        start_us, stop_us = parameters.window(time.time_ns() // 1000, zero_us, rendition.begin_us())
        body = rendition.playlist_between(query, start_us, stop_us)
    else:
        body = rendition.playlist(query)
    response.send(200, body, CONTENT_TYPE)


async def _send_media_later(stream: HlsStream, rendition: Rendition, request: Any, response: Any) -> None:
    """Answer when there are fragments enough to begin with, or after START_WAIT_S with what there is."""
    try:
        await _wait(stream, rendition.ready, stream.start_wait_s(START_WAIT_S))
        _send_media(stream, rendition, request, response)
    except StreamError as error:
        _send_error(response, error)


async def _wait(stream: HlsStream, ready: Callable[[], bool], limit_s: float) -> None:
    """Wait until ready() is true or the time is up; asked whenever the stream has something new."""
    changed = asyncio.Event()
    fanout = stream.services.fanout
    watch = fanout.watch(stream.reader, changed.set)
    try:
        async with asyncio.timeout(limit_s):
            while not ready():
                changed.clear()
                await changed.wait()
    except TimeoutError:
        return
    finally:
        fanout.unwatch(watch, changed.set)


OUTPUT = HlsOutput()

"""HTTP Live Streaming with transport stream segments: `/hls/STREAM/index.m3u8`.

Playlists and segments are made from what lies in the stream's buffer; all processes make the same ones. A worker keeps a
stream open for a while after a request, so that most requests are answered by a look-up.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote

from mist.core.ts_mux import TsMuxer
from mist.errors import MistError, NoSuitableTrack, NotFound, NotReady, RemoteProtocolError, StreamError
from mist.formats.codecs import codec_string
from mist.formats.m3u8 import CONTENT_TYPE, MediaPlaylist, Segment, Variant, write_error, write_master, write_media
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.outputs.base import UNPLAYABLE, wait_playable
from mist.stream.capability import Capability
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.reader import StreamReader
from mist.stream.segments import (
    DEFAULT_CACHE_BYTES,
    Fragment,
    FragmentList,
    SegmentCache,
    list_fragments,
    listed,
    segment_ranges,
    target_duration_s,
)
from mist.stream.selectors import select_tracks, usable_tracks
from mist.stream.services import OutputServices
from mist.stream.state import TrackState

SEGMENT_TYPE: Final = "video/mp2t"
START_FRAGMENTS: Final = 2  # a new stream's playlist waits for this many
START_WAIT_S: Final = 8.0  # and no longer than this: players give up after 10 s
RECHECK_S: Final = 0.01  # how often a track that lags is looked at again
IDLE_S: Final = 30.0  # a stream without requests is closed after this
MAX_TRACKS: Final = 4  # in one rendition
MAX_RENDITIONS: Final = 64
TOKEN_IN_URLS: Final = 4  # bit of the token mode
BANDWIDTH_MARGIN: Final = 1.1  # transport stream packets, and fragments busier than those seen
GUESSED_BPS: Final = {VIDEO: 2_000_000, AUDIO: 128_000}
MARK: Final = "\0"  # where the query goes in a playlist that is kept

_SEGMENT_NAME: Final = re.compile(r"(-?[0-9]{1,15})_(-?[0-9]{1,15})\.ts", re.ASCII)
_TRACK_LIST: Final = re.compile(r"[0-9]{1,4}(_[0-9]{1,4})*", re.ASCII)

CAPABILITY = Capability(
    name="HLS",
    friendly="Apple segmented over HTTP (HLS)",
    desc="Segmented streaming in Apple (TS-based) format over HTTP (HTTP Live Streaming)",
    deps="HTTP",
    url_rel="/hls/$/index.m3u8",
    url_prefix=("/hls/$/",),
    codecs=((("+HEVC", "+H264"), ("+AAC", "+MP3", "+AC3", "+EAC-3")),),
    methods=({"handler": "http", "type": "html5/application/vnd.apple.mpegurl", "hrn": "HLS (TS)", "priority": 9},),
    # What players of browsers cannot do: the stream is not offered to them, but whoever asks for it gets it.
    exceptions={
        "codec:HEVC": (("blacklist",),),
        "codec:MP3": (("blacklist",), ("whitelist", ("iPad", "iPhone", "iPod", "MacIntel", "Edge"))),
    },
    optional={
        "listlimit": {
            "name": "Live playlist limit",
            "help": "Maximum number of segments in live playlists, 0 for all that are in the buffer",
            "type": "uint",
            "default": 0,
            "option": "--list-limit",
            "short": "y",
        },
        "chunkpath": {
            "name": "Base URL of segments",
            "help": "Alternative URL that segments are fetched from, such as that of a cache in front of this server",
            "type": "str",
            "default": "",
            "option": "--chunkpath",
            "short": "e",
        },
        "nonchunked": {
            "name": "Send whole segments",
            "help": "Segments are always sent whole, with their length; kept for configurations that set it",
            "type": "bool",
            "default": False,
            "option": "--nonchunked",
            "short": "C",
        },
    },
)


def options_of(config: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the configured options of the HLS connector, {} when it has none."""
    protocols = (config.get("config") or {}).get("protocols") or ()
    return next((entry for entry in protocols if entry.get("connector") == CAPABILITY.name), {})


class Rendition:
    """The playlist and the segments of one choice of tracks."""

    def __init__(self, stream: LiveStream, name: str, indexes: Sequence[int]) -> None:
        self.stream = stream
        self.name = name
        self.indexes = tuple(indexes)
        self.fragments = FragmentList((), True, False)
        self._seen: tuple[int, int, int] | None = None
        self._recheck_at = 0.0
        self._first_listed = 0
        self._target_s = 1
        self._parts: list[str] = []

    def refresh(self) -> None:
        """Follow the stream; costs a comparison when nothing has changed. Raises NotFound for tracks that are gone."""
        reader = self.stream.reader
        now = (reader.key_generation(), reader.track_set_generation(), int(reader.status()))
        if now == self._seen and (self.fragments.complete or self.stream.time() < self._recheck_at):
            return
        main, others = self._tracks()
        found = list_fragments(reader, main, others, reader.status() in UNPLAYABLE)
        self.stream.note_init_data([main, *others])
        whole = tuple(one for one in found.fragments if self.stream.knows_init_data(main.index, one.init_changes))
        self.fragments = FragmentList(whole, found.complete, found.ended)
        self._target_s = target_duration_s(reader, main, self.fragments.fragments)
        self._parts = self._write(self._listed()).split(MARK)
        self._recheck_at = self.stream.time() + RECHECK_S
        self._seen = now

    def _tracks(self) -> tuple[TrackState, list[TrackState]]:
        """Return the track whose fragments are followed, and the others."""
        states = {state.index: state for state in self.stream.usable()}
        span_us = max((state.last_us - state.first_us for state in states.values()), default=0)
        self.stream.buffered_s = span_us // 1_000_000
        if any(index not in states for index in self.indexes):
            raise NotFound(f"The stream has no track {self.name}")
        chosen = [states[index] for index in self.indexes]
        videos = [state for state in chosen if state.info.type == VIDEO]
        main = (videos or [state for state in states.values() if state.info.type == VIDEO] or chosen)[0]
        return main, [state for state in chosen if state.index != main.index]

    def _listed(self) -> Sequence[Fragment]:
        """Return what the playlist lists; it never goes back to what it has dropped."""
        fragments = self.fragments.fragments
        if not self.fragments.ended:
            fragments = tuple(listed(fragments, self._target_s, self.stream.list_limit))
        kept = tuple(fragment for fragment in fragments if fragment.number >= self._first_listed)
        if kept:
            self._first_listed = kept[0].number
        return kept

    def _write(self, fragments: Sequence[Fragment]) -> str:
        """Return the playlist with MARK where the query of a segment goes."""
        prefix = self.stream.segment_prefix(self.name)
        before: Fragment | None = None
        segments = []
        for fragment in fragments:
            broken = before is not None and fragment.discontinuities != before.discontinuities
            uri = f"{prefix}{fragment.from_ms}_{fragment.to_ms}.ts{MARK}"
            segments.append(Segment(uri, fragment.duration_us, broken))
            before = fragment
        return write_media(
            MediaPlaylist(
                target_duration_s=self._target_s,
                segments=tuple(segments),
                media_sequence=fragments[0].number if fragments else self._first_listed,
                discontinuity_sequence=fragments[0].discontinuities if fragments else 0,
                ended=self.fragments.ended,
            )
        )

    def playlist(self, query: str) -> bytes:
        """Return the playlist. query: what follows the name of each segment, "" or from its "?" on."""
        return query.join(self._parts).encode()

    def playlist_between(self, query: str, start_us: int | None, stop_us: int | None) -> bytes:
        """Return the playlist of a part of the stream."""
        fragments = self.fragments.fragments if start_us is not None else self._listed()
        wanted = [
            fragment
            for fragment in fragments
            if (start_us is None or fragment.to_us > start_us) and (stop_us is None or fragment.from_us < stop_us)
        ]
        text = self._write(wanted)
        known_us = self.fragments.fragments[-1].to_us if self.fragments.fragments else 0
        if stop_us is not None and known_us >= stop_us and not self.fragments.ended:
            text += "#EXT-X-ENDLIST\r\n"
        return text.replace(MARK, query).encode()

    def ready(self) -> bool:
        """Return whether a player has enough to begin with."""
        self.refresh()
        return len(self.fragments.fragments) >= START_FRAGMENTS or self.fragments.ended

    def segment(self, from_ms: int, to_ms: int) -> bytes:
        """Return a segment. Raises NotFound for one that is not in the buffer."""
        key = (self.stream.serial, self.indexes, from_ms, to_ms)
        cached = self.stream.cache.get(key)
        if cached is not None:
            return cached
        self.refresh()
        fragment = self.fragments.find(from_ms, to_ms)
        if fragment is None:
            raise NotFound("Fragment out of range")
        return self.stream.cache.get_or_make(key, lambda: self._mux(fragment))

    def _mux(self, fragment: Fragment) -> bytes:
        """Make a segment: tables first, and padded so that the next one continues its continuity counters."""
        reader = self.stream.reader
        states = {state.index: state for state in reader.tracks()}
        if any(index not in states for index in self.indexes):
            raise NotFound("Fragment out of range")
        infos = [self.stream.info_at(states[index], fragment.from_us) for index in self.indexes]
        muxer = TsMuxer(infos, reader.name, fragment.number, repeat_tables=False)
        ranges = segment_ranges(reader, fragment, self.indexes)
        reader.mux_range(muxer, ranges)
        muxer.pad_counters()
        segment = muxer.take_output()
        now = {state.index: state for state in reader.tracks()}
        if not segment or any(index not in now or _trimmed(now[index], fragment) for index in self.indexes):
            raise NotFound("Fragment out of range")
        return segment


def _trimmed(track: TrackState, fragment: Fragment) -> bool:
    """Return whether packets of a fragment have left a track's buffer."""
    return track.first_sequence > 0 and track.first_us > fragment.from_us


class LiveStream:
    """A stream that a worker holds open for HLS: its reader, its renditions, its master playlists."""

    def __init__(
        self, services: OutputServices, reader: StreamReader, url_name: str, cache: SegmentCache, serial: int
    ) -> None:
        """Take a reader; `close` gives it back. serial: makes the cache's keys unique."""
        self.services = services
        self.reader = reader
        self.url_name = url_name
        self.cache = cache
        self.serial = serial
        self.time = services.loop.time
        self.used_at = self.time()
        self.playable = False
        self.buffered_s = 0
        options = options_of(services.config)
        self.config = services.config
        self.list_limit = int(options.get("listlimit") or 0)
        self.chunk_path = str(options.get("chunkpath") or "").rstrip("/")
        self._renditions: dict[str, Rendition] = {}
        self._infos: dict[int, dict[int, TrackInfo]] = {}

    def close(self) -> None:
        """Give the reader back and forget the segments."""
        self.cache.forget(lambda key: isinstance(key, tuple) and key[0] == self.serial)
        self.services.close_stream(self.reader)

    def note_init_data(self, states: Sequence[TrackState]) -> None:
        """Remember the tracks' properties for the fragments that go with them; shared memory has the newest only."""
        for state in states:
            keys = self.reader.keys(state.index)
            if keys:
                known = self._infos.setdefault(state.index, {})
                known.setdefault(keys[-1].init_changes, state.info)
                for old in [number for number in known if number < keys[0].init_changes]:
                    del known[old]

    def knows_init_data(self, index: int, init_changes: int) -> bool:
        """Return whether a fragment of a track can be muxed: not if its init data were replaced before we looked."""
        return init_changes in self._infos.get(index, ())

    def info_at(self, state: TrackState, time_us: int) -> TrackInfo:
        """Return the properties that a track had at a decode time."""
        change = next(
            (key.init_changes for key in reversed(self.reader.keys(state.index)) if key.dts_us <= time_us), None
        )
        known = self._infos.get(state.index, {})
        return known.get(change, state.info) if change is not None else state.info

    def usable(self) -> list[TrackState]:
        """Return the tracks that HLS can carry."""
        return usable_tracks(self.reader.tracks(), CAPABILITY.codecs)

    def segment_prefix(self, tracks: str) -> str:
        """Return what goes before a segment's name in a playlist."""
        return f"{self.chunk_path}/hls/{quote(self.url_name, safe='')}/{tracks}/" if self.chunk_path else ""

    def rendition(self, name: str) -> Rendition:
        """Return the rendition of a list of track numbers such as "0_1". Raises NotFound."""
        found = self._renditions.get(name)
        if found is None:
            indexes = [int(text) for text in name.split("_")] if _TRACK_LIST.fullmatch(name) else []
            if not indexes or len(indexes) > MAX_TRACKS or len(set(indexes)) != len(indexes):
                raise NotFound(f"No track {name[:40]!r}")
            found = Rendition(self, name, indexes)
            found.refresh()
            if len(self._renditions) >= MAX_RENDITIONS:
                self._renditions.clear()
            self._renditions[name] = found
        return found

    def master(self, parameters: PlaybackParameters, query: str) -> bytes:
        """Return the master playlist: every chosen video track with the first chosen audio track, or that alone.

        Raises NoSuitableTrack.
        """
        states = {state.index: state for state in self.reader.tracks()}
        chosen = [
            states[index] for index in select_tracks(list(states.values()), parameters.selectors, CAPABILITY.codecs)
        ]
        videos = [state for state in chosen if state.info.type == VIDEO]
        audios = [state for state in chosen if state.info.type == AUDIO]
        if not videos and not audios:
            raise NoSuitableTrack("Stream has no track that HLS can carry and you asked for")
        choices = [[video, *audios[:1]] for video in videos] or [audios[:1]]
        return write_master([_variant(tracks, query) for tracks in choices]).encode()


def _variant(tracks: Sequence[TrackState], query: str) -> Variant:
    """Return the master playlist's entry for a choice of tracks."""
    info = tracks[0].info
    frames = info.frame_rate_mhz or tracks[0].measured_frame_rate_mhz
    return Variant(
        f"{'_'.join(str(track.index) for track in tracks)}/index.m3u8{query}",
        bandwidth_bps=round(sum(_bandwidth_bps(track) for track in tracks) * BANDWIDTH_MARGIN),
        codecs=",".join(filter(None, (_codec_string(track) for track in tracks))),
        resolution=(info.width, info.height) if info.width and info.height else None,
        frame_rate=f"{frames / 1000:.3f}" if info.type == VIDEO and frames else "",
    )


def _bandwidth_bps(track: TrackState) -> int:
    measured = max(track.max_bytes_per_second, track.bytes_per_second) * 8
    return measured or track.info.bandwidth_bps or GUESSED_BPS.get(track.info.type, 0)


def _codec_string(track: TrackState) -> str:
    try:
        return codec_string(track.info)
    except RemoteProtocolError:
        return ""  # set-up bytes that do not parse: a player finds out from the media


class HlsOutput:
    """The OUTPUT of this module."""

    capability = CAPABILITY
    answers_options = True

    def __init__(self, cache_bytes: int = DEFAULT_CACHE_BYTES) -> None:
        self.cache = SegmentCache(cache_bytes)
        self._streams: dict[str, LiveStream] = {}
        self._serial = 0
        self._sweep: asyncio.TimerHandle | None = None

    def handle(self, services: OutputServices, request: Any, response: Any) -> Awaitable[None] | None:
        """Answer a request under /hls/STREAM/."""
        if request.method == "OPTIONS":
            response.send(204, cache="no-store")
            return None
        stream = self._streams.get(request.stream)
        if stream is None or stream.reader.status() in UNPLAYABLE or stream.config is not services.config:
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
        pending = self._answer(stream, request, response)
        if pending is not None:
            await pending

    async def _open(self, services: OutputServices, name: str) -> LiveStream:
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
        stream = self._streams[name] = LiveStream(services, reader, name, self.cache, self._serial)
        if self._sweep is None:
            self._sweep = services.loop.call_later(IDLE_S, self._close_idle, services)
        return stream

    def _close_idle(self, services: OutputServices) -> None:
        """Close streams that nobody has asked for lately."""
        self._sweep = None
        for name, stream in list(self._streams.items()):
            if stream.time() - stream.used_at >= IDLE_S:
                del self._streams[name]
                stream.close()
        if self._streams:
            self._sweep = services.loop.call_later(IDLE_S / 2, self._close_idle, services)

    def close(self) -> None:
        """Give everything back."""
        if self._sweep is not None:
            self._sweep.cancel()
            self._sweep = None
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()

    def _answer(self, stream: LiveStream, request: Any, response: Any) -> Awaitable[None] | None:
        stream.used_at = stream.time()
        _note(stream, request, response)
        folder, _, name = request.rest.rpartition("/")
        match = _SEGMENT_NAME.fullmatch(name) if folder else None
        if match is not None:
            self._send_segment(stream, request, response, folder, int(match[1]), int(match[2]))
            return None
        if not _is_playlist(request.rest):
            raise NotFound("Unknown file")
        try:
            return self._answer_playlist(stream, request, response, folder)
        except StreamError as error:
            _send_error(response, error)
            return None

    def _answer_playlist(self, stream: LiveStream, request: Any, response: Any, folder: str) -> Awaitable[None] | None:
        if not folder:
            if stream.playable:
                _send_master(stream, request, response)
                return None
            return _send_master_later(stream, request, response)
        rendition = stream.rendition(folder)
        if rendition.ready():
            _send_media(rendition, request, response)
            return None
        return _send_media_later(rendition, request, response)

    def _send_segment(
        self, stream: LiveStream, request: Any, response: Any, folder: str, from_ms: int, to_ms: int
    ) -> None:
        segment = stream.rendition(folder).segment(from_ms, to_ms)
        if request.token_mode & TOKEN_IN_URLS and not stream.chunk_path:
            cache = "no-store"
        else:
            cache = f"public, max-age={stream.buffered_s}, immutable"
        if response.record is not None:
            response.record.set_position(from_ms * 1000)
        response.send(200, segment, SEGMENT_TYPE, cache=cache)


def _note(stream: LiveStream, request: Any, response: Any) -> None:
    """Tell the statistics what this request counts for."""
    record = response.record
    if record is not None:
        record.set_stream(stream.reader.name)
        record.set_connector(CAPABILITY.name)
        record.set_token(request.token)


def _is_playlist(rest: str) -> bool:
    return ".m3u" in rest.rpartition("/")[2]


def _send_error(response: Any, error: MistError) -> None:
    """Answer a playlist request with a playlist that says what is wrong."""
    response.send(200, write_error(str(error) or error.reason).encode(), CONTENT_TYPE)


def _query(request: Any, names: Sequence[str]) -> str:
    """Return the part of a query that goes into the URLs of a playlist: the token, and what of names was given."""
    fields = {name: request.query[name][:100] for name in names if request.query.get(name)}
    if request.token_mode & TOKEN_IN_URLS and request.token:
        fields["tkn"] = request.token
    return "?" + "&".join(f"{name}={quote(value, safe='')}" for name, value in fields.items()) if fields else ""


def _send_master(stream: LiveStream, request: Any, response: Any) -> None:
    body = stream.master(parse_parameters(request.query), _query(request, ("start", "stop")))
    response.send(200, body, CONTENT_TYPE)


async def _send_master_later(stream: LiveStream, request: Any, response: Any) -> None:
    """Answer when the stream's tracks are known."""
    parameters = parse_parameters(request.query)

    def select(states: list[TrackState]) -> list[int]:
        return select_tracks(states, parameters.selectors, CAPABILITY.codecs)

    try:
        await wait_playable(stream.services, stream.reader, parameters, select)
        _send_master(stream, request, response)
        stream.playable = True
    except StreamError as error:
        _send_error(response, error)


def _send_media(rendition: Rendition, request: Any, response: Any) -> None:
    if not rendition.fragments.fragments and not rendition.fragments.ended:
        raise NotReady("Stream is waiting for data")
    query = _query(request, ())
    if "start" in request.query or "stop" in request.query:
        parameters = parse_parameters(request.query)
        body = rendition.playlist_between(query, parameters.start_us, parameters.stop_us)
    else:
        body = rendition.playlist(query)
    response.send(200, body, CONTENT_TYPE)


async def _send_media_later(rendition: Rendition, request: Any, response: Any) -> None:
    """Answer when there are fragments enough to begin with, or after START_WAIT_S with what there is."""
    try:
        await _wait(rendition.stream, rendition.ready, START_WAIT_S)
        _send_media(rendition, request, response)
    except StreamError as error:
        _send_error(response, error)


async def _wait(stream: LiveStream, ready: Callable[[], bool], limit_s: float) -> None:
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

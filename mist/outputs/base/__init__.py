"""What all outputs share: the capability document, discovery, and getting a stream that can be played."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, Protocol

from mist.core.muxer import Muxer
from mist.errors import MistError, NoSuitableTrack, NotFound, NotReady, RemoteProtocolError
from mist.formats.tracks import TrackInfo
from mist.net.http_messages import asked_range
from mist.net.http_server import Resumed, request_saver
from mist.outputs.base.beginning import settle_times
from mist.outputs.base.on_demand import Beginning, OnDemandSender, Sender, begin, time_window
from mist.outputs.base.resumed import resume_viewer
from mist.outputs.base.viewers import admit, describe
from mist.outputs.base.whole_file import SMALL_BYTES, FileSender
from mist.stream.capability import Capability, discover, listener_options
from mist.stream.layouts import STREAMED, Layout
from mist.stream.on_demand import OnDemandReader
from mist.stream.parameters import UNLIMITED_RATE, PlaybackParameters
from mist.stream.playability import UNPLAYABLE, is_playable
from mist.stream.reader import StreamReader
from mist.stream.selectors import VIEWERS_MASK, configured_sorting, select_tracks
from mist.stream.services import ConnectionRecord, OutputServices
from mist.stream.state import TrackState

SHORT_WAIT_S: Final = 0.2  # for the length of what a viewer gets anyway

MuxerFactory = Callable[[list[TrackInfo]], Muxer]


class Output(Protocol):
    """What a module of `mist.outputs` offers under the name OUTPUT."""

    capability: Capability


def discover_outputs() -> dict[str, Any]:
    """Return all outputs by connector name."""
    return discover("mist.outputs", "OUTPUT")


@dataclass(frozen=True, slots=True)
class Choice:
    """A stream that can be played, and the tracks that a viewer gets."""

    reader: StreamReader
    indexes: list[int]
    reselect: Callable[[list[TrackState]], list[int]]


def selection(
    reader: StreamReader,
    parameters: PlaybackParameters,
    capability: Capability,
    user_agent: str,
    mask: int = VIEWERS_MASK,
    sorting: str = "",
) -> Callable[[list[TrackState]], list[int]]:
    """Return what chooses a viewer's tracks. mask: of those who may see a track. sorting: see `sort_tracks`."""

    def select(states: list[TrackState]) -> list[int]:
        return select_tracks(
            states,
            parameters.selectors,
            capability.codecs,
            live=reader.live,
            sorting=sorting,
            exceptions=capability.exceptions,
            user_agent=user_agent,
            mask=mask,
        )

    return select


async def choose_tracks(
    services: OutputServices,
    reader: StreamReader,
    parameters: PlaybackParameters,
    capability: Capability,
    user_agent: str,
    mask: int = VIEWERS_MASK,
) -> Choice:
    """Wait until a stream is playable and choose a viewer's tracks. mask: as of `selection`.

    Raises NoSuitableTrack, NotReady when the stream ends meanwhile.
    """

    sorting = configured_sorting(services.config, capability.name)
    select = selection(reader, parameters, capability, user_agent, mask, sorting)
    if reader.live:
        await wait_playable(services, reader, parameters, select)
    indexes = select(reader.tracks())
    if not indexes:
        raise NoSuitableTrack(
            f"The stream {reader.name} has no track that {capability.name} can carry and you asked for"
        )
    return Choice(reader, indexes, select)


async def wait_playable(
    services: OutputServices,
    reader: StreamReader,
    parameters: PlaybackParameters,
    select: Callable[[list[TrackState]], list[int]],
) -> None:
    """Wait until enough tracks have enough media, or waiting longer makes no sense.

    Raises NotReady when the stream ends or stays empty.
    """
    if is_playable(reader, parameters, select):
        return
    changed = asyncio.Event()
    watch = services.fanout.watch(reader, changed.set)
    try:
        async with asyncio.timeout(parameters.max_wait_us / 1e6):
            while not is_playable(reader, parameters, select):
                if reader.status() in UNPLAYABLE:
                    raise NotReady("Stream is offline")
                changed.clear()
                await changed.wait()
    except TimeoutError:
        if not any(state.next_sequence for state in reader.tracks()):
            raise NotReady("Stream is waiting for data") from None
    finally:
        services.fanout.unwatch(watch, changed.set)


class RequestLike(Protocol):
    """What a progressive output reads of an HTTP request."""

    method: str
    query: dict[str, str]
    headers: dict[str, str]
    host: str
    peer: str
    token: str
    stream: str
    http10: bool


class ProgressiveOutput:
    """An endless HTTP reply in one format: FLV, TS, MP4 and their like are each a capability and a muxer."""

    def __init__(
        self,
        capability: Capability,
        content_type: str,
        make_muxer: Callable[[str, list[TrackInfo]], Muxer],
        layouts: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """Make an output.

        make_muxer: called with the stream's name and the tracks, raises UnsupportedError. layouts: for suffixes of the URL the kind of
        file (`mist.stream.layouts`) as which an on-demand stream is sent, with a length and in ranges.
        """
        self.layouts = layouts
        self.suffix = capability.name.lower()
        self.variant = ""  # tells those apart who get different bytes of the same suffix
        self.capability = capability
        self.content_type = content_type
        self.make_muxer = make_muxer

    async def handle(self, services: OutputServices, request: Any, response: Any) -> None:
        """Answer a request with the stream; returns when the fan-out has the connection."""
        from mist.stream.parameters import parse_parameters

        parameters = parse_parameters(request.query, rate_header=request.headers.get("x-mist-rate", ""))
        if response.resumed is not None:
            await self.resume(services, request, response.resumed, parameters)
            return
        reader = await services.open_stream(request.stream)
        try:
            await admit(services, reader, self.capability.name, request)
            choice = await self.choose(services, reader, parameters, request.headers.get("user-agent", ""))
            headers = self.headers(parameters, reader.name)
            if not reader.live:
                await self.deliver_on_demand(services, request, response, parameters, choice, headers)
                return
            if request.method == "HEAD":
                response.send(200, b"", self.media_type(choice), headers, unknown_length=True)
                services.close_stream(reader)
                return
            parameters = await settle_times(services, choice, parameters)
            self.deliver(services, request, response, parameters, choice, headers)
        except BaseException:
            services.close_stream(reader)
            raise

    async def choose(
        self, services: OutputServices, reader: StreamReader, parameters: PlaybackParameters, user_agent: str
    ) -> Choice:
        """Wait until the stream is playable and choose a viewer's tracks. Raises as `choose_tracks`."""
        return await choose_tracks(services, reader, parameters, self.capability, user_agent)

    def media_type(self, choice: Choice) -> str:
        """Return the content type of the chosen tracks."""
        return self.content_type

    def headers(self, parameters: PlaybackParameters, name: str) -> dict[str, str]:
        """Return the reply's own headers."""
        if parameters.download is None:
            return {}
        file_name = parameters.download or f"{name}.{self.suffix}"
        return {"Content-Disposition": f'attachment; filename="{file_name}"'}

    async def deliver_on_demand(
        self,
        services: OutputServices,
        request: Any,
        response: Any,
        parameters: PlaybackParameters,
        choice: Choice,
        headers: Mapping[str, str],
    ) -> None:
        """Answer with an on-demand stream; whatever is wrong is told before the reply begins."""
        reader = choice.reader
        media = services.on_demand(reader)
        kind = self.layouts.get(request.path[request.path.rfind(".") :], "")
        paced = parameters.rate_given and parameters.rate != UNLIMITED_RATE
        ranged = not paced and ("range" in request.headers or request.method == "HEAD")
        if (
            kind
            and (ranged or kind not in STREAMED)
            and not paced
            and await self.deliver_file(services, request, response, parameters, choice, headers, media, kind)
        ):
            return
        beginning = await begin(media, choice.indexes, parameters, time.time_ns() // 1000)
        layout: Layout | None = None
        # Who seeks wants the picture, not the length of what is left.
        seeks = beginning.from_us is not None and beginning.to_us is None
        if kind in STREAMED and not seeks:
            layout = await media.layout(kind, choice.indexes, beginning.from_us, beginning.to_us, wait_s=SHORT_WAIT_S)
        sender = OnDemandSender(
            media,
            choice.indexes,
            await self.film_muxer(media, choice.indexes, beginning),
            beginning,
            parameters,
            self._film_header(media, choice.indexes, beginning) if layout is None else bytes(layout.header),
        )
        if request.method == "HEAD":
            response.send(200, b"", self.media_type(choice), headers, unknown_length=True)
            services.close_stream(reader)
            return
        chunked = layout is None and not request.http10
        if layout is not None:
            headers = {**headers, "Content-Length": str(layout.size), "Accept-Ranges": "bytes"}
        elif chunked:
            headers = {**headers, "Transfer-Encoding": "chunked"}
        self._hand_over(services, request, response, choice, sender, 200, headers, chunked=chunked)

    async def film_muxer(
        self, media: OnDemandReader, indexes: list[int], beginning: Beginning
    ) -> Callable[[list[TrackInfo]], Muxer]:
        """Return what makes the muxer of a viewer of an on-demand stream, the same one for all of them. Raises MistError."""
        return lambda tracks: self.make_muxer(media.name, tracks)

    def _film_header(self, media: OnDemandReader, indexes: list[int], beginning: Beginning) -> bytes | None:
        """Return the header of a reply whose length in bytes is not known, but that in time is; None for the muxer's own."""
        if not media.complete:
            return None
        end_us = media.index.end_us if beginning.to_us is None else min(beginning.to_us, media.index.end_us)
        tracks = [beginning.loaded.infos[index] for index in indexes]
        return self.timed_header(tracks, end_us - beginning.start_us)

    def timed_header(self, tracks: list[TrackInfo], length_us: int) -> bytes | None:
        """Return a header that tells how long the media is, None where the format's does not."""
        return None

    async def deliver_file(
        self,
        services: OutputServices,
        request: Any,
        response: Any,
        parameters: PlaybackParameters,
        choice: Choice,
        headers: Mapping[str, str],
        media: OnDemandReader,
        kind: str,
    ) -> bool:
        """Answer with a file of known length, or the range of it that is asked for; False where the length is not known.

        Raises RangeNotSatisfiable.
        """
        window = await time_window(media, choice.indexes, parameters, time.time_ns() // 1000)
        layout = await media.layout(kind, choice.indexes, window.get("from_us"), window.get("to_us"))
        if layout is None:
            return False
        headers = {**headers, "Accept-Ranges": "bytes"}
        wanted = asked_range(request.headers, layout.size)
        begin_at, end = wanted or (0, layout.size)
        if wanted is not None:
            headers["Content-Range"] = f"bytes {begin_at}-{end - 1}/{layout.size}"
        status = 206 if wanted is not None else 200
        make_muxer = self._span_muxer(kind, choice.reader.name)
        sender = FileSender(media, choice.indexes, layout, begin_at, end, window, kind, make_muxer)
        if end - begin_at > SMALL_BYTES:
            headers["Content-Length"] = str(end - begin_at)
            self._hand_over(services, request, response, choice, sender, status, headers, chunked=False)
            return True
        if response.record is not None:
            describe(services, response.record, request, self.capability.name, choice.reader.name)
        response.send(status, await sender.whole(), self.media_type(choice), headers)
        services.close_stream(choice.reader)
        return True

    def _span_muxer(self, kind: str, name: str) -> Callable[[list[TrackInfo]], Muxer] | None:
        """Return what makes the muxer of a layout's spans, None where they are just payload."""
        return (lambda tracks: self.make_muxer(name, tracks)) if kind in STREAMED else None

    def _hand_over(
        self,
        services: OutputServices,
        request: Any,
        response: Any,
        choice: Choice,
        sender: Sender,
        status: int,
        headers: Mapping[str, str],
        *,
        chunked: bool,
    ) -> None:
        """Let a sender have the connection's socket."""
        reader = choice.reader
        saver = response.saver()
        record: ConnectionRecord = response.take_record()
        fd, head = response.take_socket(status, self.media_type(choice), headers)
        describe(services, record, request, self.capability.name, reader.name)

        def closed() -> None:
            record.close()
            services.close_stream(reader)

        sender.start(services, fd, head, record, closed, chunked=chunked, saver=saver)

    def deliver(
        self,
        services: OutputServices,
        request: Any,
        response: Any,
        parameters: PlaybackParameters,
        choice: Choice,
        headers: Mapping[str, str],
    ) -> None:
        """Hand the connection's socket to the fan-out. Raises NoSuitableTrack for tracks that the format cannot carry."""
        reader = choice.reader
        pace = own_pace(parameters, choice)
        selectors = ",".join(f"{kind}={text}" for kind, text in sorted(parameters.selectors.items()))
        key = f"{self.capability.name}.{self.suffix}.{self.variant}?{selectors}"
        state = response.saved(kind="live", stream=reader.name, key=key, indexes=choice.indexes)
        record = response.take_record()
        fd, head = response.take_socket(200, self.media_type(choice), headers)
        describe(services, record, request, self.capability.name, reader.name)

        def closed(reason: str) -> None:
            record.close()
            services.close_stream(reader)

        try:
            services.fanout.join(
                reader,
                choice.indexes,
                key,
                lambda tracks: self.make_muxer(reader.name, tracks),
                fd,
                head,
                reselect=choice.reselect,
                record=record,
                state=state,
                on_close=closed,
                **pace,
            )
        except BaseException as error:
            response.give_back(fd, record)
            if isinstance(error, RemoteProtocolError):  # the publisher's, not the viewer's
                text = f"The stream {reader.name} cannot be sent as {self.capability.name}: {error}"
                raise NoSuitableTrack(text) from error
            raise

    async def resume(
        self, services: OutputServices, request: Any, resumed: Resumed, parameters: PlaybackParameters
    ) -> None:
        """Go on with a reply that another process had begun. Raises MistError, OSError."""
        if resumed.saved["kind"] != "live":
            await self._resume_on_demand(services, request, resumed, parameters)
            return
        agent = request.headers.get("user-agent", "")
        record = resumed.record
        sorting = configured_sorting(services.config, self.capability.name)
        resume_viewer(
            services,
            resumed.sock,
            record,
            resumed.saved,
            lambda _reader, tracks: self.make_muxer(str(resumed.saved["stream"]), tracks),
            lambda reader, states: selection(reader, parameters, self.capability, agent, sorting=sorting)(states),
            on_close=lambda reason: record.close(),
        )

    async def _resume_on_demand(
        self, services: OutputServices, request: Any, resumed: Resumed, parameters: PlaybackParameters
    ) -> None:
        """Go on sending an on-demand stream or a file made from it. Raises MistError."""
        saved = resumed.saved
        reader = await services.open_stream(str(saved["stream"]))
        try:
            media = services.on_demand(reader)
            indexes = list(saved["indexes"])
            sender: Sender
            if saved["kind"] == "file":
                window = dict(saved["window"])
                layout = await media.layout(saved["layout"], indexes, window.get("from_us"), window.get("to_us"))
                if layout is None or layout.size < saved["end"]:
                    raise MistError("the file is not what it was")
                kind = str(saved["layout"])
                make_muxer = self._span_muxer(kind, reader.name)
                sender = FileSender(media, indexes, layout, saved["at"], saved["end"], window, kind, make_muxer)
            else:
                await self.choose(services, reader, parameters, request.headers.get("user-agent", ""))
                beginning = Beginning(await media.span(saved["span"]), saved["from_us"], saved["to_us"])
                make_film_muxer = await self.film_muxer(media, indexes, beginning)
                sender = OnDemandSender(media, indexes, make_film_muxer, beginning, parameters)
                sender.go_to(saved)
        except BaseException:
            services.close_stream(reader)
            raise
        record = resumed.record

        def closed() -> None:
            record.close()
            services.close_stream(reader)

        saver = request_saver(int(saved["answered"]), resumed.request)
        chunked = bool(saved["chunked"])
        fd = resumed.sock.detach()
        sender.start(services, fd, b"", record, closed, chunked=chunked, saver=saver, resumed=True)


def own_pace(parameters: PlaybackParameters, choice: Choice) -> dict[str, Any]:
    """Return what `Fanout.join` needs for a viewer with a start, an end or a speed of its own; {} for the live edge."""
    main = choice.reader.track(choice.indexes[0])
    zero_us = choice.reader.wall_clock_offset_us or None
    start_us, stop_us = parameters.window(time.time_ns() // 1000, zero_us, main.last_us)
    pace: dict[str, Any] = {}
    if start_us is not None:
        pace["start_us"] = max(start_us, main.first_us)
    if stop_us is not None:
        pace["stop_us"] = stop_us
    if parameters.rate != 1.0 or pace:
        pace["rate"] = parameters.rate
    if parameters.buffer_us is not None and pace:
        pace["ahead_us"] = parameters.buffer_us
    return pace


__all__ = [
    "UNPLAYABLE",
    "Capability",
    "Choice",
    "NotFound",
    "ProgressiveOutput",
    "choose_tracks",
    "discover",
    "discover_outputs",
    "listener_options",
    "wait_playable",
]

"""The reading side of an on-demand stream: its index in shared memory, and spans that its input loads when asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import weakref
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, BinaryIO, Final, NamedTuple

from mist.core.span import Span, open_span
from mist.core.span_index import INDEX_SUFFIX, SpanIndex, open_index
from mist.errors import MistError, NotFound, NotReady, TransportError, UnsupportedError
from mist.formats.tracks import VIDEO, TrackInfo
from mist.stream.layouts import Layout, open_layout
from mist.stream.names import stream_prefix
from mist.stream.reader import StreamReader
from mist.stream.state import StreamStatus, TrackState

KEPT_SPANS: Final = 128  # that nobody uses any more, for the next who wants them
KEPT_BYTES: Final = (
    64 << 20
)  # of those, as long as there are more than MIN_KEPT; most of it is memory that the input keeps as well
MIN_KEPT: Final = 4
KEPT_LAYOUTS: Final = 2
WHOLE_WAIT_S: Final = 2.0  # for the whole index, when a length is wanted
WAIT_PARTS: Final = 4  # after the first of them the rest is waited only if the index grows fast enough
MAX_INPUTS: Final = 5  # one after the other that may go while one span is wanted
INPUT_WAIT_S: Final = 20.0  # for a new input, after one was killed, or for the first one's index to grow
ENDED: Final = frozenset({StreamStatus.OFF, StreamStatus.SHUTDOWN, StreamStatus.INVALID})

# fetch({"span": number} or {"layout": description}): asks the stream's input; returns a descriptor, which the caller owns, and what
# came with it.
Fetch = Callable[[Mapping[str, Any]], Awaitable[tuple[int, Mapping[str, Any]]]]
# wait(condition, seconds): returns when the condition is true, which is looked at whenever the stream has something new.
Wait = Callable[[Callable[[], bool], float], Awaitable[bool]]


class SpanPlace(NamedTuple):
    """One record of the index. from_us, to_us: decode times. version: how often init data changed before."""

    from_us: int
    to_us: int
    position: int
    bytes: int
    packets: int
    key: bool
    version: int


@dataclass(frozen=True, slots=True, weakref_slot=True)
class LoadedSpan:
    """A span in memory. infos: all tracks of the stream as they are in this span. memory: what the span is in, as a file."""

    number: int
    place: SpanPlace
    span: Span
    infos: tuple[TrackInfo, ...]
    memory: BinaryIO


def pack_tracks(tracks: list[TrackInfo]) -> str:
    """Return tracks as text, for a message between processes."""
    return json.dumps([info.export_state() for info in tracks], separators=(",", ":"))


@lru_cache(64)
def unpack_tracks(text: str) -> tuple[TrackInfo, ...]:
    """Return the tracks of `pack_tracks`."""
    return tuple(TrackInfo.restore(fields) for fields in json.loads(text))


def main_track(infos: list[TrackInfo]) -> int:
    """Return the track whose keyframes begin the spans: the first video track, else the first audio track, else the first."""
    types = [info.type for info in infos]
    return next((types.index(kind) for kind in (VIDEO, "audio") if kind in types), 0)


def index_name(instance: str, stream: str) -> str:
    """Return the name of a stream's index in shared memory."""
    return stream_prefix(instance, stream) + INDEX_SUFFIX


class OnDemandReader:
    """Plays an on-demand stream; shared by all connections of a worker that play it."""

    def __init__(
        self, reader: StreamReader, fetch: Fetch, wait: Wait, listens: Callable[[], bool] = lambda: True
    ) -> None:
        """Open the index. Raises NotFound.

        listens: whether the input that the stream's table names can be asked; there is news of the stream once it can.
        """
        self.reader = reader
        self._fetch = fetch
        self._wait = wait
        self._listens = listens
        self._index = open_index(index_name(reader.instance, reader.name))
        self._layouts: dict[str, Layout] = {}
        self._asking: dict[tuple[str, bool], asyncio.Future[Layout]] = {}
        self._loading: dict[int, asyncio.Future[LoadedSpan]] = {}
        self._used: weakref.WeakValueDictionary[int, LoadedSpan] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[int, LoadedSpan] = OrderedDict()
        self._kept_bytes = 0
        self._first_shown: tuple[SpanIndex, dict[int, int]] | None = None

    @property
    def name(self) -> str:
        return self.reader.name

    def tracks(self) -> list[TrackState]:
        """Return a fresh snapshot of the tracks."""
        return self.reader.tracks()

    @property
    def index(self) -> SpanIndex:
        """The index; made anew, it may be shorter for a moment than it was."""
        if self._index.stale:
            with contextlib.suppress(NotFound):  # between two: the old one will do
                self._index = open_index(index_name(self.reader.instance, self.reader.name))
        return self._index

    @property
    def main(self) -> int:
        """The track whose keyframes begin the spans."""
        return self.index.main

    @property
    def complete(self) -> bool:
        """Whether the whole file is in the index."""
        return self.index.complete

    def __len__(self) -> int:
        return len(self.index)

    def place(self, number: int) -> SpanPlace:
        """Return where a span begins and ends. Raises IndexError."""
        return SpanPlace(*self.index[number])

    def find(self, dts_us: int) -> int:
        """Return the number of the span to begin with for playing from a decode time."""
        return self.index.find(dts_us)

    async def first_shown_us(self, tracks: list[int]) -> list[int]:
        """Return for each track the earliest presentation time before zero, 0 where there is none.

        Raises as `span`.   Cost: the first span, once, where something is decoded before zero.
        """
        index = self.index
        if self._first_shown is None or self._first_shown[0] is not index:
            found: dict[int, int] = {}
            if self.place(0).from_us < 0:
                loaded = await self.span(0)
                times = {track: loaded.span.first_shown_us(track) for track in range(len(loaded.infos))}
                found = {track: time_us for track, time_us in times.items() if time_us is not None and time_us < 0}
            self._first_shown = (index, found)
        known = self._first_shown[1]
        return [known.get(track, 0) for track in tracks]

    async def reaches(self, number: int) -> bool:
        """Wait until a span is in the index, and tell whether there is one of that number.

        Raises NotReady when the stream ends or the index stops growing.
        """

        def known() -> bool:
            index = self.index
            return len(index) > number or index.complete or self.reader.status() in ENDED

        if not known() and not await self._wait(known, INPUT_WAIT_S):
            raise NotReady(f"The stream {self.name} is not read any further")
        if len(self.index) <= number and self.reader.status() in ENDED:
            raise NotReady(f"The stream {self.name} has ended")
        return len(self.index) > number

    async def reaches_time(self, dts_us: int) -> None:
        """Wait until the index has got to a decode time, or is complete. Raises NotReady."""
        while (index := self.index).end_us <= dts_us and not index.complete:
            if not await self.reaches(len(index)):
                return

    async def span(self, number: int) -> LoadedSpan:
        """Return a span, loaded by the stream's input if nobody here has it. A killed input's successor is waited for.

        Raises NotFound, NotReady, and what went wrong with the file.
        """
        found = self._used.get(number)
        if found is None:
            return await asyncio.shield(self._loading.get(number) or self._begin_loading(number))
        self._keep(found)
        return found

    def prepare(self, number: int) -> None:
        """Begin to load a span that is wanted soon, if the index has it."""
        if number < len(self.index) and number not in self._used and number not in self._loading:
            self._begin_loading(number)

    def _begin_loading(self, number: int) -> asyncio.Future[LoadedSpan]:
        loading = self._loading[number] = asyncio.ensure_future(self._load(number))

        def loaded(task: asyncio.Future[LoadedSpan]) -> None:
            del self._loading[number]
            if not task.cancelled() and task.exception() is None:
                self._keep(task.result())

        loading.add_done_callback(loaded)
        return loading

    def _keep(self, loaded: LoadedSpan) -> None:
        """Keep a span for the next who wants it, even if nobody uses it now."""
        self._kept_bytes += loaded.span.size - (before.span.size if (before := self._kept.get(loaded.number)) else 0)
        self._kept[loaded.number] = loaded
        self._kept.move_to_end(loaded.number)
        while len(self._kept) > (KEPT_SPANS if self._kept_bytes <= KEPT_BYTES else MIN_KEPT):
            self._kept_bytes -= self._kept.popitem(last=False)[1].span.size

    async def _load(self, number: int) -> LoadedSpan:
        fd, note = await self._ask({"span": number}, number)
        memory = open(fd, "rb", buffering=0)  # noqa: SIM115 (closed with the last who uses the span)
        loaded = LoadedSpan(number, self.place(number), open_span(fd), unpack_tracks(note["tracks"]), memory)
        weakref.finalize(loaded, memory.close)
        self._used[number] = loaded
        return loaded

    async def _ask(self, wanted: Mapping[str, Any], number: int) -> tuple[int, Mapping[str, Any]]:
        """Ask the input, or its successor, once its index has a span."""
        gone = 0
        for _ in range(MAX_INPUTS):
            if not await self.reaches(number):  # a killed input's successor may have to read the file again
                raise NotFound(f"The stream {self.name} has no span {number}")
            if not self._has_input(gone):
                await self._wait(lambda before=gone: self._has_input(before), INPUT_WAIT_S)  # type: ignore[misc]
            if self.reader.status() in ENDED:
                raise NotReady(f"The stream {self.name} has ended")
            if not self._has_input(gone):
                break
            gone = self.reader.table.pids[1]
            try:
                return await self._fetch(wanted)
            except TransportError:
                continue
        raise NotReady(f"The input of the stream {self.name} is gone")

    async def layout(
        self,
        kind: str,
        indexes: list[int],
        from_us: int | None,
        to_us: int | None,
        *,
        wait_s: float = WHOLE_WAIT_S,
    ) -> Layout | None:
        """Return how a whole file of some tracks is laid out, or None where its length cannot be known.

        kind: of `mist.stream.layouts`. from_us, to_us: decode times between which packets are in it, None for no bound.
        wait_s: how long to wait for the whole index, as long as it may be there in time; while that grows there is no length.
        """
        if wait_s:
            await self._wait_for_all(wait_s)
        if not self.complete or not len(self):
            return None
        description = {"kind": kind, "indexes": indexes, "from_us": from_us, "to_us": to_us}
        found = self._layouts.get(json.dumps(description))
        try:
            return found or await asyncio.shield(self._ask_layout(description))
        except UnsupportedError:
            return None

    async def _wait_for_all(self, wait_s: float) -> None:
        """Wait for the whole index, but for no longer than it takes to see that it will not be there in time."""

        def done() -> bool:
            return self.complete or self.reader.status() in ENDED

        before = self._part_read()
        if done() or await self._wait(done, wait_s / WAIT_PARTS):
            return
        part = self._part_read()
        if part == before or 1 - part <= (part - before) * (WAIT_PARTS - 1):  # or the input had no turn yet
            await self._wait(done, wait_s - wait_s / WAIT_PARTS)

    def _part_read(self) -> float:
        """Return how much of the file is in the index, from 0 to 1."""
        index = self.index
        return min(index[len(index) - 1][2] / max(index.identity[1], 1), 1.0) if len(index) else 0.0

    async def whole_layout(self, layout: Layout) -> Layout:
        """Return a layout with all of its header. Raises MistError."""
        if layout.whole:
            return layout
        key = json.dumps(layout.description)
        whole = self._layouts.get(key)
        if whole is None or not whole.whole:
            whole = await asyncio.shield(self._ask_layout(layout.description, whole=True))
        if not layout.begins(whole):
            self._layouts.pop(key, None)
            raise MistError(f"the file that is made of {self.name} is not what it was")
        return whole

    def prepare_layout(self, layout: Layout) -> None:
        """Have all of a layout's header made, which is wanted soon."""
        known = self._layouts.get(json.dumps(layout.description))
        if not layout.whole and (known is None or not known.whole):
            self._ask_layout(layout.description, whole=True)

    def _ask_layout(self, description: Mapping[str, Any], *, whole: bool = False) -> asyncio.Future[Layout]:
        """Ask the input for a layout, once for all who want it now. whole: with all of its header. Raises MistError."""
        key = json.dumps(description)
        asking = self._asking.get((key, whole))
        if asking is None:
            asking = self._asking[key, whole] = asyncio.ensure_future(self._fetch_layout(description, whole))

            def answered(task: asyncio.Future[Layout]) -> None:
                del self._asking[key, whole]
                self._layouts.pop(key, None)
                if not task.cancelled() and task.exception() is None:
                    self._layouts[key] = task.result()
                while len(self._layouts) > KEPT_LAYOUTS:
                    del self._layouts[next(iter(self._layouts))]

            asking.add_done_callback(answered)
        return asking

    async def _fetch_layout(self, description: Mapping[str, Any], whole: bool) -> Layout:
        wanted = {**description, "whole": True} if whole else description
        return open_layout(*await self._ask({"layout": wanted}, 0), description)

    def _has_input(self, gone: int) -> bool:
        """Tell whether another input than the one that is gone serves the stream, or it has ended."""
        status = self.reader.status()
        if status in ENDED:
            return True
        return status == StreamStatus.READY and self.reader.table.pids[1] not in (0, gone) and self._listens()


def places(indexes: list[int], count: int) -> list[int]:
    """Return what `Span.mux` wants to know: for each track of the stream its place among the chosen ones, or -1."""
    return [indexes.index(number) if number in indexes else -1 for number in range(count)]

"""A complete presentation: an index of its segments by the durations that the playlists say, fetched when somebody plays them."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import Mapping
from itertools import accumulate
from typing import Any, Final

from mist.core.packet import Packet
from mist.core.span import SpanWriter
from mist.core.span_index import create_index, open_index
from mist.errors import MistError, NotFound, RemoteProtocolError, UnsupportedError
from mist.formats.hls_follow import NEAR_US
from mist.formats.hls_segments import SAME_US, SegmentMedia, each_once, fingerprints, moved, unix_us, unwrapped_us
from mist.formats.tracks import AUDIO, META, TrackInfo
from mist.inputs.hls.loading import Loader, Rendition
from mist.stream.on_demand import index_name, main_track, pack_tracks
from mist.stream.services import InputServices
from mist.stream.span_store import SpanStore

KEPT_SEGMENTS: Final = 8
KEPT_BYTES: Final = 64 << 20
ALIGNED_US: Final = 100_000  # renditions whose segments begin nearer than this are cut alike
ALWAYS_US: Final = 1 << 61
START_FAILURE: Final = "READ_START_FAILURE"


class TimedRendition:
    """A rendition, where its segments begin by their durations, and the tracks that are taken from it."""

    def __init__(self, rendition: Rendition, media: SegmentMedia) -> None:
        """media: its first segment."""
        self.rendition = rendition
        self.segments = rendition.playlist.segments
        self.starts_us = list(accumulate((one.duration_us for one in self.segments), initial=0))
        self.first = media
        self.tracks: dict[int, int] = {}  # of the stream, by the number in the segments

    @property
    def texts(self) -> bool:
        """Whether it has nothing but texts."""
        return all(info.type == META for info in self.first.infos)

    def aligned(self, other: TimedRendition) -> bool:
        """Tell whether its segments are those of another one."""
        return len(self.starts_us) == len(other.starts_us) and all(
            abs(one - two) < ALIGNED_US for one, two in zip(self.starts_us, other.starts_us, strict=True)
        )

    def overlapping(self, from_us: int, to_us: int) -> range:
        """Return the segments that have something between two times."""
        first = max(bisect_right(self.starts_us, from_us) - 1, 0)
        end = first
        while end < len(self.segments) and self.starts_us[end] < to_us:
            end += 1
        return range(min(first, len(self.segments)), end)


class OnDemandPresentation:
    """Serves the spans of a presentation: one for each segment of its main rendition."""

    def __init__(self, services: InputServices, loader: Loader, renditions: list[Rendition]) -> None:
        self._services = services
        self._publisher = services.publisher
        self._loader = loader
        self._renditions = renditions
        self._timed: list[TimedRendition] = []
        self._media: OrderedDict[tuple[int, int], SegmentMedia] = OrderedDict()
        self._loading: dict[tuple[int, int], asyncio.Future[SegmentMedia]] = {}
        self._run_shifts: dict[int, int] = {}
        self._infos: list[TrackInfo] = []
        self._made: dict[int, tuple[SpanWriter, str]] = {}
        self._notes: dict[int, str] = {}
        self._segment_of: list[int] = []  # by span: segments without a duration have none
        self._making: dict[int, asyncio.Future[None]] = {}
        self.store = SpanStore(self._take_made, self._publisher.claim_memory)

    async def run(self) -> None:
        """Serve until cancelled. Raises MistError."""
        self._publisher.count_memory_anew()
        server = self._services.serve_spans(self.answer, self.answer_layout)
        try:
            await self._begin()
            self._publisher.play_on_demand()
            await asyncio.get_running_loop().create_future()
        finally:
            for loading in self._loading.values():
                loading.cancel()
            for making in self._making.values():
                making.cancel()
            server.close()
            self.store.clear()

    # -- the beginning -------------------------------------------------------------------------------------------------

    async def _begin(self) -> None:
        """Learn the tracks from the first segments, and write the index."""
        heard: list[frozenset[int]] = []
        failure: MistError | None = None
        for rendition in self._renditions:
            try:
                if not rendition.playlist.segments:
                    raise RemoteProtocolError(f"{rendition.place} lists no segments")
                media = await self._loader.segment(rendition, rendition.playlist.segments[0])
            except MistError as error:
                self._services.log.warning("A rendition is left out: %s", error)
                failure = error
                continue
            timed = TimedRendition(rendition, media)
            self._timed.append(timed)
            for number, info in enumerate(media.infos):
                prints = fingerprints(media.packets, number) if info.type == AUDIO else frozenset()
                if prints and any(len(prints & known) * 2 > len(prints) for known in heard):
                    continue
                if prints:
                    heard.append(prints)
                timed.tracks[number] = len(self._infos)
                self._infos.append(rendition.describe(info))
        if not self._timed:
            raise MistError(str(failure or "no media"), reason=START_FAILURE) from failure
        self._publish()

    @property
    def _main(self) -> TimedRendition:
        return self._timed[0]

    def _publish(self) -> None:
        known = self._publisher.tracks
        for number, info in enumerate(self._infos):
            if number in known:
                self._publisher.update_track(number, info)
            elif self._publisher.add_track(info) != number:
                raise MistError("the presentation has other tracks than before", reason="CLEAN_EOF")
        name = index_name(self._services.instance, self._services.stream)
        try:
            open_index(name).retire()
        except NotFound:
            pass
        main = self._main
        segments = main.segments
        index = create_index(name, (len(segments), main.starts_us[-1], 0), main_track(self._infos))
        versions = list(accumulate(int(number > 0 and one.discontinuity) for number, one in enumerate(segments)))
        for number in range(len(segments)):
            times = main.starts_us[number], main.starts_us[number + 1]
            if times[1] > times[0]:
                self._segment_of.append(number)
                index.add(*times, number, 1, 1, True, versions[number])
        index.finish()
        self._publisher.claim_memory(index.bytes_used)
        self._index = index
        for timed in self._timed:
            for number, track in timed.tracks.items():
                self._describe(timed, number, track)
        date_us = unix_us(segments[0].date)
        if date_us:
            self._publisher.set_wall_clock(date_us)
        self._services.log.info("%d segments, %.1f s, %d tracks", len(segments), index.end_us / 1e6, len(self._infos))

    def _describe(self, timed: TimedRendition, number: int, track: int) -> None:
        """Set the figures of a track from those of its first segment."""
        packets = [packet for packet in timed.first.packets if packet.track == number]
        length_us = max(timed.segments[0].duration_us, 1)
        size = sum(len(packet.payload) for packet in packets)
        mean = size * 1_000_000 // length_us
        total = max(len(packets) * timed.starts_us[-1] // length_us, 1)
        frames = len(packets) * 1_000_000_000 // length_us
        reorders = any(packet.offset_us for packet in packets)
        self._publisher.describe_track(track, total, 0, timed.starts_us[-1], mean, mean, frames, reorders)

    # -- spans -----------------------------------------------------------------------------------------------------

    async def answer(self, number: int) -> tuple[int, Mapping[str, Any]]:
        """Return a span, fetched if it is not there. Raises MistError."""
        if not 0 <= number < len(self._index):
            raise NotFound(f"{self._services.stream} has no span {number}")
        while number not in self.store:
            await self._make_once(number)
        span = await self.store.get(number)
        if number + 1 < len(self._index) and number + 1 not in self.store and number - 1 in self.store:
            self._make_once(number + 1).add_done_callback(_nobody_asks)
        return span.fileno(), {"tracks": self._notes[number]}

    async def answer_layout(self, _description: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Refuse: how long packets are is known once they are fetched."""
        raise UnsupportedError("the lengths of packets are not known before they are fetched")

    def _make_once(self, number: int) -> asyncio.Future[None]:
        """Return what makes a span; one maker serves all who wait, whether they go on waiting or not."""
        making = self._making.get(number)
        if making is None:
            making = self._making[number] = asyncio.ensure_future(self._make(number))
            making.add_done_callback(lambda _task: self._making.pop(number, None))
        return asyncio.shield(making)

    async def _take_made(self, number: int) -> SpanWriter:
        writer, self._notes[number] = self._made.pop(number)
        return writer

    async def _make(self, number: int) -> None:
        from_us, to_us = self._index[number][:2]
        segment = self._segment_of[number]
        infos = list(self._infos)
        packets: list[Packet] = []
        for timed in self._timed:
            if timed.texts and timed is not self._main:
                packets += await self._texts(timed, number)
                continue
            whole = timed is self._main or timed.aligned(self._main)
            for one in (segment,) if whole else timed.overlapping(from_us, to_us):
                try:
                    media, shift_us = await self._placed(timed, one)
                except MistError:
                    if timed is self._main:
                        raise
                    continue
                for place, info in enumerate(media.infos):
                    if (track := timed.tracks.get(place)) is not None and _same_kind(info, infos[track]):
                        infos[track] = timed.rendition.describe(info)
                packets += [
                    Packet(track, packet.dts_us + shift_us, packet.offset_us, packet.keyframe, packet.payload)
                    for packet in media.packets
                    if (track := timed.tracks.get(packet.track)) is not None
                    and (whole or from_us <= packet.dts_us + shift_us < to_us)
                ]
        writer = SpanWriter(
            -ALWAYS_US, ALWAYS_US, len(packets), sum(len(packet.payload) for packet in packets), len(infos)
        )
        for packet in packets:
            writer.write(packet)
        writer.finish()
        if number not in self.store:
            self._made[number] = writer, pack_tracks(infos)
            await self.store.get(number)

    async def _texts(self, timed: TimedRendition, number: int) -> list[Packet]:
        """Return the texts that begin or go away within a span. What was shown before it is looked at, too."""
        from_us, to_us = self._index[number][:2]
        numbers = timed.overlapping(from_us, to_us)
        found: list[Packet] = []
        for one in range(max(numbers.start - 1, 0), numbers.stop):
            try:
                media, shift_us = await self._placed(timed, one)
            except MistError:
                continue
            found += [
                moved(packet, track, shift_us)
                for packet in media.packets
                if (track := timed.tracks.get(packet.track)) is not None
            ]
        after_us = from_us - SAME_US if number else -ALWAYS_US
        until_us = to_us - SAME_US if number + 1 < len(self._index) else ALWAYS_US
        return [packet for packet in each_once(found) if after_us <= packet.dts_us < until_us]

    # -- segments and their times --------------------------------------------------------------------------------------

    async def _placed(self, timed: TimedRendition, number: int) -> tuple[SegmentMedia, int]:
        """Return a segment, and what is added to its times.

        All segments of a run without discontinuity have one shift, that of its first one in the main rendition; one that is far from
        where the playlist says is put there.
        """
        media = await self._segment(timed, number)
        if not media.packets:
            return media, 0
        expected_us = timed.starts_us[number]
        if not media.timed:
            return media, expected_us - media.first_us
        run_shift_us = await self._run_shift(timed.segments[number].discontinuity_sequence)
        first_us = media.first_us
        if media.wraps:
            first_us = unwrapped_us(first_us, expected_us - run_shift_us)
        shift_us = run_shift_us + first_us - media.first_us
        if not timed.texts and abs(first_us + run_shift_us - expected_us) > NEAR_US:
            shift_us = expected_us - media.first_us
        return media, shift_us

    async def _run_shift(self, run: int) -> int:
        """Return the shift of a run of segments without discontinuity."""
        if run not in self._run_shifts:
            main = self._main
            first = next((n for n, one in enumerate(main.segments) if one.discontinuity_sequence == run), 0)
            media = await self._segment(main, first)
            self._run_shifts[run] = main.starts_us[first] - media.first_us
        return self._run_shifts[run]

    async def _segment(self, timed: TimedRendition, number: int) -> SegmentMedia:
        """Return a segment, from the last used ones if it is there."""
        key = (timed.rendition.number, number)
        found = self._media.get(key)
        if found is not None:
            self._media.move_to_end(key)
            return found
        loading = self._loading.get(key)
        if loading is None:
            loading = asyncio.ensure_future(self._loader.segment(timed.rendition, timed.segments[number]))
            self._loading[key] = loading
            loading.add_done_callback(lambda task: self._loaded(key, task))
        return await asyncio.shield(loading)

    def _loaded(self, key: tuple[int, int], task: asyncio.Future[SegmentMedia]) -> None:
        self._loading.pop(key, None)
        if task.cancelled() or task.exception() is not None:
            return
        self._media[key] = task.result()
        while len(self._media) > 1 and (
            len(self._media) > KEPT_SEGMENTS
            or sum(len(packet.payload) for one in self._media.values() for packet in one.packets) > KEPT_BYTES
        ):
            self._media.popitem(last=False)


def _same_kind(one: TrackInfo, other: TrackInfo) -> bool:
    return (one.type, one.codec) == (other.type, other.codec)


def _nobody_asks(task: asyncio.Future[None]) -> None:
    """Take note of a failure that whoever asks for the span is told again."""
    if not task.cancelled():
        task.exception()

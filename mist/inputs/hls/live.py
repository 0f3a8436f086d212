"""A live presentation: its playlists are followed, and its packets are written at the pace of their times."""

from __future__ import annotations

import asyncio
import heapq
import time
from collections.abc import Sequence
from typing import Final

from mist.core.packet import Packet
from mist.errors import MistError, TransportError, UnsupportedError
from mist.formats.hls_follow import NewSegment, PresentationClock
from mist.formats.hls_segments import NewTexts, SegmentMedia, fingerprints, unix_us
from mist.formats.tracks import AUDIO, META
from mist.inputs.hls.loading import MAX_TRACKS, Loader, Rendition
from mist.inputs.hls.progress import Progress, RenditionState
from mist.net.documents import Missing
from mist.stream.continued_tracks import FORGET_TRACKS_SECONDS
from mist.stream.services import InputServices
from mist.stream.source_intake import SourceIntake
from mist.stream.state import StreamStatus

PATIENCE_SECONDS: Final = 30.0
SEGMENT_TRIES: Final = 3
MAX_WAITING_BYTES: Final = 128 << 20  # of all renditions, before more segments are fetched
MAX_AHEAD_TARGETS: Final = 4  # of media that waits to be written; what is more is written at once
LATE_US: Final = 200_000  # packets that come later than this move the pace
KEPT_CUES: Final = 256  # of each track


class Pacer:
    """Writes packets when their time has come: the first at once, the others as far behind it as their times say."""

    def __init__(self, intake: SourceIntake) -> None:
        self.waiting_bytes = 0
        self._intake = intake
        self._heap: list[tuple[int, int, Packet]] = []
        self._count = 0
        self._anchor_us: int | None = None
        self._news = asyncio.Event()
        self._room = asyncio.Event()
        self._room.set()
        self._ended = False

    def put(self, packets: list[Packet], ahead_us: int) -> None:
        """Take packets. ahead_us: so much may wait; the pace catches up with what is more."""
        for packet in packets:
            self._count += 1
            heapq.heappush(self._heap, (packet.dts_us, self._count, packet))
            self.waiting_bytes += len(packet.payload)
        if self._heap and self._anchor_us is not None:
            newest_us = max(packet.dts_us for packet in packets) if packets else self._heap[0][0]
            self._anchor_us = min(self._anchor_us, _now_us() - newest_us + ahead_us)
        if self.waiting_bytes > MAX_WAITING_BYTES:
            self._room.clear()
        self._news.set()

    def end(self) -> None:
        """Say that nothing follows."""
        self._ended = True
        self._news.set()

    async def room(self) -> None:
        """Wait until more may be fetched."""
        await self._room.wait()

    async def run(self) -> None:
        """Write until the end."""
        while self._heap or not self._ended:
            self._news.clear()
            due_us = self._write_due()
            try:
                async with asyncio.timeout(None if due_us is None else due_us / 1e6):
                    await self._news.wait()
            except TimeoutError:
                continue

    def _write_due(self) -> int | None:
        """Write what is due; return how many microseconds from now the next packet is, None when none waits."""
        while self._heap:
            now_us = _now_us()
            dts_us = self._heap[0][0]
            if self._anchor_us is None or now_us - dts_us > self._anchor_us + LATE_US:
                self._anchor_us = now_us - dts_us
            if dts_us + self._anchor_us > now_us:
                return dts_us + self._anchor_us - now_us
            packet = heapq.heappop(self._heap)[2]
            self.waiting_bytes -= len(packet.payload)
            if self.waiting_bytes <= MAX_WAITING_BYTES:
                self._room.set()
            self._intake.write(packet)
        return 0 if self._ended else None


def _now_us() -> int:
    return time.monotonic_ns() // 1000


class LivePresentation:
    """Plays a live presentation until it ends."""

    def __init__(self, services: InputServices, loader: Loader, renditions: list[Rendition]) -> None:
        self._services = services
        self._loader = loader
        self._renditions = renditions
        self._progress = Progress(services.publisher, services.source)
        self._intake = SourceIntake(services.publisher, services.record, services.log, self._progress.intake_state)
        self._pacer = Pacer(self._intake)
        self._clock = PresentationClock()
        self._places = [RenditionState(one) for one in renditions]
        self._progress.restore(self._places, self._clock, self._intake)
        self._texts = NewTexts(KEPT_CUES)
        self._patience_s = float(services.config.get("inputtimeout") or PATIENCE_SECONDS)
        self._main_begun = asyncio.Event()
        self._heard: dict[int, frozenset[int]] = {}  # audio tracks by what their first packets are
        self._dated: set[tuple[int, int]] = set()

    async def run(self) -> None:
        """Return when all playlists have ended and their media is written. Raises MistError when none goes on."""
        self._services.loop.call_later(FORGET_TRACKS_SECONDS, self._intake.forget_left)
        pacing = asyncio.ensure_future(self._pacer.run())
        following = [asyncio.ensure_future(self._follow(one)) for one in self._places]
        try:
            await self._all_done(following, pacing)
            self._pacer.end()
            await pacing
        finally:
            for task in (pacing, *following):
                task.cancel()

    async def _all_done(self, following: Sequence[asyncio.Future[None]], pacing: asyncio.Future[None]) -> None:
        """Wait for the renditions; one that fails is left out as long as another goes on."""
        waiting: set[asyncio.Future[None]] = {*following, pacing}
        good = False
        failure: BaseException | None = None
        while waiting - {pacing}:
            done, waiting = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if task is pacing:
                    task.result()
                error = task.exception()
                good = good or error is None
                if error is not None and not isinstance(error, MistError):
                    raise error
                if error is not None:
                    failure = error
                    self._services.log.warning("A rendition ends: %s", error)
        if not good and failure is not None:
            raise failure

    # -- one rendition -----------------------------------------------------------------------------------------------

    async def _follow(self, place: RenditionState) -> None:
        """Play the segments of a rendition as they are listed."""
        rendition = place.rendition
        asked_at = time.monotonic()
        new = place.follower.take(rendition.playlist)
        changed = True
        heard_at = time.monotonic()
        try:
            while True:
                for one in new:
                    await self._pacer.room()
                    await self._play(place, one)
                if place.follower.ended:
                    return
                if new:
                    heard_at = time.monotonic()
                elif time.monotonic() - heard_at > self._patience_s + place.follower.target_s:
                    text = f"{rendition.place}: no new segment for {time.monotonic() - heard_at:.0f} s"
                    raise TransportError(text, reason="CLEAN_INACTIVE")
                wait_s = asked_at + place.follower.reload_s(changed) - time.monotonic()
                await asyncio.sleep(max(wait_s, 0.05))
                asked_at = time.monotonic()
                new, changed = await self._reload(place, heard_at)
        finally:
            if rendition.number == 0:
                self._main_begun.set()

    async def _reload(self, place: RenditionState, heard_at: float) -> tuple[list[NewSegment], bool]:
        """Return what is new, and whether the playlist has changed."""
        follower = place.follower
        restarts, skipped = follower.restarts, follower.skipped
        try:
            playlist = await self._loader.reload(place.rendition)
        except MistError as error:
            if time.monotonic() - heard_at > self._patience_s:
                raise
            self._services.log.info("The playlist is away, trying again: %s", error)
            self._waits()
            return [], False
        new = follower.take(playlist)
        if follower.restarts > restarts:
            self._services.log.warning("%s begins anew; times go on", place.rendition.place)
        if follower.skipped > skipped:
            self._services.log.warning("%s: %d segments were missed", place.rendition.place, follower.skipped - skipped)
        return new, playlist is not None

    def _waits(self) -> None:
        publisher = self._services.publisher
        if publisher.table.status == StreamStatus.READY and not self._pacer.waiting_bytes:
            publisher.set_status(StreamStatus.WAIT)

    async def _play(self, place: RenditionState, new: NewSegment) -> None:
        """Fetch one segment and hand its packets on; one that stays missing or broken is left out."""
        segment = new.segment
        media = await self._fetch(place, new)
        if place.expected_us is not None:
            place.expected_us += new.skipped_us
        if media is None:
            if place.expected_us is not None:
                place.expected_us += segment.duration_us
            return
        rendition = place.rendition
        if rendition.number and not place.begun:
            await self._main_begun.wait()
        shift_us = self._clock.shift_us(media, new.run, place.expected_us)
        texts = all(info.type == META for info in media.infos)
        begins_us = media.first_us + shift_us if media.packets and not texts else (place.expected_us or 0)
        expected_us, place.expected_us = place.expected_us, begins_us + segment.duration_us
        if not place.begun:
            place.begun = True
            place.doubled = self._doubles(rendition, media)
        for number, info in enumerate(media.infos):
            if number not in place.doubled:
                self._intake.describe([rendition.describe(info)], rendition.track(number))
        packets = [
            packet
            for packet in rendition.shifted(media, shift_us)
            if packet.track % MAX_TRACKS not in place.doubled
            and packet.dts_us >= 0
            and (not texts or self._texts.take(packet))
        ]
        self._tell_date(new, packets)
        place.note(segment.sequence, begins_us if expected_us is None else expected_us, packets)
        self._progress.save(self._places, self._clock, self._intake)
        packets = [packet for packet in packets if not self._intake.has(packet)]
        self._pacer.put(packets, round(place.follower.target_s * MAX_AHEAD_TARGETS * 1_000_000))
        if rendition.number == 0:
            self._main_begun.set()

    async def _fetch(self, place: RenditionState, new: NewSegment) -> SegmentMedia | None:
        for left in reversed(range(SEGMENT_TRIES)):
            try:
                return await self._loader.segment(place.rendition, new.segment)
            except UnsupportedError as error:
                if new.segment.key is not None:
                    raise
                self._services.log.warning("Segment %d is left out: %s", new.segment.sequence, error)
                return None
            except (Missing, TransportError) as error:
                if not left:
                    self._services.log.warning("Segment %d is left out: %s", new.segment.sequence, error)
                    return None
            except MistError as error:
                self._services.log.warning("Segment %d is left out: %s", new.segment.sequence, error)
                return None
            await asyncio.sleep(place.follower.target_s / 4)
        return None

    def _doubles(self, rendition: Rendition, media: SegmentMedia) -> frozenset[int]:
        """Return the tracks of a rendition that another one has already: the sound that stands beside every quality."""
        found = set()
        for number, info in enumerate(media.infos):
            if info.type != AUDIO:
                continue
            prints = fingerprints(media.packets, number)
            if any(len(prints & known) * 2 > len(prints) for known in self._heard.values()):
                found.add(number)
            else:
                self._heard[rendition.track(number)] = prints
        return frozenset(found)

    def _tell_date(self, new: NewSegment, packets: list[Packet]) -> None:
        """Set the wall clock by the first date of a run."""
        date_us = unix_us(new.segment.date)
        if date_us and packets and new.run not in self._dated:
            self._dated.add(new.run)
            first = packets[0].track
            shown_us = min(packet.dts_us + packet.offset_us for packet in packets if packet.track == first)
            self._intake.tell_clock(shown_us, date_us)

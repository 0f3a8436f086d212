"""Files as on-demand streams: one input for each format that mist can read.

The input reads the file once from its beginning into an index in shared memory, and meanwhile loads the spans that viewers ask for.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from array import array
from collections import OrderedDict
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

from mist.core.dtsc_index import IndexBuilder
from mist.core.packet_log import PacketLog, packed_log
from mist.core.span import SpanWriter, open_span
from mist.core.span_index import SpanIndex, SpanIndexer, create_index, open_index
from mist.errors import MistError, NotFound, RemoteProtocolError, TransportError, TruncatedError, UnsupportedError
from mist.formats.containers import CONTAINERS, Container, by_file_name, by_first_bytes
from mist.formats.dtsh import built
from mist.formats.sniffing import SNIFF_BYTES
from mist.formats.tracks import TrackInfo
from mist.inputs.base.as_it_comes import play_pipe, play_url
from mist.inputs.base.file_demuxer import FileDemuxer, read_from
from mist.net.block_file import BlockFile
from mist.net.local_file import LocalFile, is_pipe
from mist.net.remote_file import CHECK_SECONDS as REMOTE_CHECK_SECONDS
from mist.net.remote_file import GONE, Endless, RemoteFile, cached_blocks
from mist.net.source_reader import SOURCE_CHANGED, URL_SCHEMES, is_url, path_of
from mist.stream.capability import Capability
from mist.stream.damage import places_of
from mist.stream.index_file import (
    MARGIN_S,
    IndexFile,
    KeptIndex,
    cache_settings,
    figures_of,
    keeps_assets,
    serialize_index,
    trim,
)
from mist.stream.index_reader import PacketsOnDisk
from mist.stream.layouts import (
    Outline,
    layout_of_ends,
    layout_of_outline,
    make_layout,
    make_outline,
    open_layout,
    track_ends,
)
from mist.stream.names import wildcard_part
from mist.stream.on_demand import index_name, main_track, pack_tracks, unpack_tracks
from mist.stream.services import InputServices
from mist.stream.side_texts import SideTexts, read_side_texts
from mist.stream.span_store import SpanStore

SLICE_SECONDS: Final = 0.004  # of reading ahead for the index, between two looks at what viewers want
REPORT_SECONDS: Final = 0.25  # how often the figures of the tracks are brought up to date meanwhile
CHECK_SECONDS: Final = 2.0  # how often the file is looked at
READ_AHEAD_SPANS: Final = 1
KEPT_LAYOUTS: Final = 4
SPAN_SLACK_BYTES: Final = 64 << 20  # read behind a span's own bytes before it counts as damaged
MIN_READ_BYTES: Final = 64 << 10

# The names by which the control API and configurations know the inputs, and the formats that each reads.
INPUTS: Final[Mapping[str, tuple[str, ...]]] = {
    "AV": ("libav",),
    "AAC": ("aac",),
    "AC3": ("ac3",),
    "EBML": ("mkv", "webm"),
    "FLAC": ("flac",),
    "FLV": ("flv",),
    "H264": ("h264", "hevc"),
    "MP3": ("mp3",),
    "MP4": ("mp4",),
    "OGG": ("ogg",),
    "SubRip": ("srt", "vtt"),
    "TS": ("ts",),
    "WAV": ("wav",),
}
READABLE: Final = tuple(container for container in CONTAINERS if container.make_demuxer is not None)
TEXT_FORMATS: Final = frozenset({"srt", "vtt"})
START_FAILURE: Final = "READ_START_FAILURE"
PLACES: Final = ("/", *(f"{scheme}://" for scheme in URL_SCHEMES))  # what sources of files begin with


class FileStream:
    """One file that is played."""

    def __init__(self, services: InputServices, file: LocalFile | RemoteFile, container: Container) -> None:
        """Take over an open file."""
        self.services = services
        self.publisher = services.publisher
        self.container = container
        self.file = file
        self.scanned_file = file.another()
        self.texts = SideTexts()
        if container.name not in TEXT_FORMATS and isinstance(file, LocalFile):
            self.texts = read_side_texts(file.path, services.log.warning)
        inode, size, modified_ns = file.identity
        self.identity = (inode, size, modified_ns ^ self.texts.stamp)
        self.stamp = self.texts.stamp if isinstance(file, LocalFile) else inode
        cache = cache_settings(services.server_config)
        self.kept = IndexFile(file.path, cache, services.log, local=isinstance(file, LocalFile))
        self.store = SpanStore(self._load, self.publisher.claim_memory)
        self.index: SpanIndex
        self._scan: FileDemuxer | None = None
        self._indexer: SpanIndexer | None = None
        self._loader: FileDemuxer | None = None
        self._versions: list[str] = []
        self._reported = -1
        self._suspected = asyncio.Event()
        self._ahead: set[asyncio.Task[None]] = set()
        self._log = PacketLog()
        self._records: IndexBuilder | None = None
        self._told = 0  # of what the scan left out
        self._told_places = 0  # of what it could not read
        self._sizes_known = False
        self._logged = asyncio.Event()
        self._log_lock = asyncio.Lock()
        self._kept_packets: PacketsOnDisk | None = None
        self._ordered = False  # as the log of all packets is
        self._ends: Mapping[int, array[int] | memoryview] = {}  # of tracks in FLV files
        self._outline: Outline | None = None  # of the usual MP4 file
        self._anchors: dict[int, array[int]] = {}  # where the scan counted times from, as far as it is
        self._layouts: OrderedDict[str, asyncio.Future[tuple[int, Mapping[str, Any]]]] = OrderedDict()

    # -- the index -------------------------------------------------------------------------------------------------

    def adopt(self) -> bool:
        """Take over what a killed predecessor left; True when its index is whole, so that nothing need be read again.

        Raises MistError when the file is not the one that it indexed.
        """
        self.publisher.count_memory_anew()  # its spans went with it
        try:
            index = open_index(index_name(self.services.instance, self.services.stream))
        except NotFound:
            return False
        if index.identity != self.identity:
            raise MistError(f"{self.file.path} is not the file that is being played any more", reason="CLEAN_EOF")
        if not index.complete or index.versions:
            index.retire()
            return False
        self.index = index
        self.publisher.claim_memory(index.bytes_used)
        self._versions = [pack_tracks([info for _, info in sorted(self.publisher.tracks.items())])]
        return True

    @property
    def _source(self) -> tuple[int, int, int]:
        """What the kept index must have been made of."""
        return self.file.identity[1], self.file.modified_ns, self.stamp

    def restore(self) -> bool:
        """Take the index over that was kept on disk; False when there is none that fits."""
        kept = self._kept_index()
        if kept is None:
            return False
        infos = unpack_tracks(kept.versions[-1])
        self._publish_tracks(infos)
        self._create_index(kept.main)
        kept.fill(self.index)
        self._versions = kept.versions
        self._take_log(kept)
        for number, (packets, _, first, last, mean, highest, frames, reorders) in enumerate(kept.figures):
            if packets:
                self.publisher.describe_track(number, packets, first, last, mean, highest, frames, bool(reorders))
        self._announce()
        self.services.log.info("%s: %d spans, from %s", self.file.path, self.index.count, self.kept.written)
        if self.container.make_demuxer is not None:
            self.container.make_demuxer()  # imports what reads the file, while those who wait for the stream are told
        return True

    def _kept_index(self) -> KeptIndex | None:
        return self.kept.load(self._source) if self.file.lasting else None

    def _take_log(self, kept: KeptIndex) -> None:
        if isinstance(kept.packets, PacketsOnDisk):
            self._kept_packets = kept.packets
        else:
            self._log = packed_log(kept.packets, kept.ordered)
        self._ordered = kept.ordered
        self._ends, self._outline = kept.ends, kept.outline
        self._anchors = kept.anchors
        self._sizes_known = kept.sizes_are_exact and not self.index.versions
        self._logged.set()

    async def _read_log(self) -> None:
        """Read the log of all packets if it is on disk still; without it no length is known."""
        async with self._log_lock:
            if self._kept_packets is None:
                return
            try:
                self._log = packed_log(await asyncio.to_thread(self._kept_packets.read), self._ordered)
            except (MistError, OSError) as error:
                self._sizes_known = False
                self.kept.refuse(error)
            self._kept_packets = None

    def _create_index(self, main: int) -> None:
        name = index_name(self.services.instance, self.services.stream)
        self.index = create_index(name, self.identity, main)
        self.publisher.claim_memory(self.index.bytes_used)

    async def _keep(self, scan: FileDemuxer) -> None:
        """Write the whole index to disk, for the next start."""
        assert self._indexer is not None and self._records is not None
        packets = self._log.pack()
        kept = KeptIndex(
            self._source,
            self.index.main,
            self._versions,
            self._sizes_known and self._log.whole,
            figures_of([self._indexer.figures(number) for number in range(len(scan.demuxer.tracks))]),
            self.index.pack(),
            packets,
            self.index.shifts(),
            self._track_ends(),
            ordered=self._log.ordered,
            anchors=self._anchors,
        )
        if self._log.whole:
            self._log = packed_log(packets, kept.ordered)  # which takes a quarter of the memory
        if kept.sizes_are_exact:
            infos = unpack_tracks(self._versions[0])
            kept = replace(kept, outline=await make_outline(self._log, self.index, infos, self._first_payload))
        data = serialize_index(built(scan.demuxer, self._records), kept)
        if self.file.lasting and not await self._change():
            await asyncio.to_thread(self.kept.save, data)

    def _track_ends(self) -> Mapping[int, array[int]]:
        return track_ends(self._log, self.index, unpack_tracks(self._versions[0])) if self._sizes_known else {}

    async def _new_scan(self) -> FileDemuxer:
        scan = FileDemuxer(self.scanned_file, self.container)
        await scan.start(self.texts)
        self._scan = scan
        self._anchors = scan.media.anchors
        return scan

    async def open(self) -> None:
        """Begin to read the file. Raises RemoteProtocolError."""
        scan = await self._new_scan()
        self._create_index(main_track(scan.demuxer.tracks))
        scan.demuxer.on_tracks = self._tracks_changed
        self._publish_tracks(scan.demuxer.tracks)
        self._tell_left_out(scan)
        self._versions = [pack_tracks(scan.demuxer.tracks)]
        self._records = IndexBuilder(scan.demuxer, self._log)
        self._indexer = SpanIndexer(self.index, scan.demuxer, self.publisher.limits.segment_us, self._records)

    def _tell_left_out(self, scan: FileDemuxer) -> None:
        """Log what is left out of the file as far as it was read, once, and what cannot be read."""
        for text in scan.media.left_out[self._told :]:
            self.services.log.warning("%s: %s", self.file.path, text)
        self._told = len(scan.media.left_out)
        for place in places_of(scan.media.damage[self._told_places :]):
            self.services.log.warning("%s, %s", self.file.path, place)
        self._told_places = len(scan.media.damage)

    def _publish_tracks(self, infos: Sequence[TrackInfo]) -> None:
        """Make the demuxer's tracks known; their numbers are the same there and in the stream."""
        known = self.publisher.tracks
        for number, info in enumerate(infos):
            if number in known:
                self.publisher.update_track(number, info)
            elif self.publisher.add_track(info) != number:
                raise MistError(f"{self.file.path} has other tracks than before", reason="CLEAN_EOF")

    def _tracks_changed(self) -> None:
        """Follow tracks that come late, or whose init data changes."""
        if self._indexer is None or self._scan is None:
            return
        tracks = self._scan.demuxer.tracks
        before = self.publisher.tracks
        self._indexer.follow_tracks()
        if any(number in before and before[number] != info for number, info in enumerate(tracks)):
            self._indexer.new_version()
            self._versions.append(pack_tracks(tracks))
            for number in set(range(len(tracks))) - set(before):
                self.publisher.add_track(tracks[number])
        else:
            self._publish_tracks(tracks)
            self._versions[-1] = pack_tracks(tracks)

    async def build(self) -> None:
        """Read the whole file, letting viewers come first. What is damaged behind the first span is left out."""
        assert self._scan is not None and self._indexer is not None
        more = True
        reported = 0.0
        failure: MistError | None = None
        try:
            self._scan.index_into(self._indexer)
            while more:
                until = time.monotonic() + SLICE_SECONDS
                while more and time.monotonic() < until:
                    more = await self._scan.step()
                if time.monotonic() - reported > REPORT_SECONDS or (self.index.count and not self.ready):
                    reported = time.monotonic()
                    self._report()
                elif self.index.count != self._reported:
                    self._announce()
                await asyncio.sleep(0)
        except RemoteProtocolError as error:
            self.services.log.warning("%s; the rest of the file is left out", error)
            failure = error
        scan = self._scan
        self._indexer.finish()
        self._tell_left_out(scan)
        self._report()
        self._all_logged(scan)
        if not self.index.count:
            raise failure or RemoteProtocolError(f"{self.file.path} has no media")
        self.services.log.info(
            "%s: %d spans, %.1f s", self.file.path, self.index.count, (self.index.end_us - self.index[0][0]) / 1e6
        )
        if failure is None:
            await self._keep(scan)
        self._records = None

    async def log_again(self) -> None:
        """Read the file once more for the sizes of its packets, which a killed predecessor knew."""
        scan = await self._new_scan()
        scan.index_into(self._log)
        more = True
        while more:
            until = time.monotonic() + SLICE_SECONDS
            while more and time.monotonic() < until:
                more = await scan.step()
            await asyncio.sleep(0)
        self._all_logged(scan)

    def _all_logged(self, scan: FileDemuxer) -> None:
        self._sizes_known = bool(getattr(scan.demuxer, "sizes_are_exact", True)) and not self.index.versions
        self._logged.set()
        self._release_scan()

    def _release_scan(self) -> None:
        """Let go of what was only needed for the index; tables that spans are loaded with stay."""
        if self._scan is not None and not hasattr(self._scan.media, "share"):
            self._scan = None

    @property
    def ready(self) -> bool:
        """Whether viewers can begin."""
        return self._reported >= 0

    def _report(self) -> None:
        """Bring the tracks' figures up to date, and say that the stream plays once it can."""
        assert self._indexer is not None
        for number in self.publisher.tracks:
            packets, _, first, last, mean, highest, frames, reorders = self._indexer.figures(number)
            if packets:
                self.publisher.describe_track(number, packets, first, last, mean, highest, frames, reorders)
        self._announce()

    def _announce(self) -> None:
        if self.index.count and not self.ready:
            self.publisher.play_on_demand()
        if self.index.count:
            self._reported = self.index.count
        self.publisher.ring()

    # -- spans -----------------------------------------------------------------------------------------------------

    async def answer(self, number: int) -> tuple[int, Mapping[str, Any]]:
        """Return a span for a worker, and have the next one loaded when there is time."""
        if not 0 <= number < self.index.count:
            raise NotFound(f"{self.file.path} has no span {number}")
        in_order = number - 1 in self.store
        span = await self.store.get(number)
        if in_order:
            task = self.services.loop.create_task(self._read_ahead(number + 1))
            self._ahead.add(task)
            task.add_done_callback(self._ahead.discard)
        return span.fileno(), {"tracks": self._versions[self.index[number][6]]}

    async def answer_layout(self, description: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Return the layout of a file made from the stream, once the whole source was read. Raises UnsupportedError.

        description: as of `mist.stream.layouts`; with "whole" the header may not lack its end.
        """
        await self._logged.wait()
        key = json.dumps(description, sort_keys=True)
        making = self._layouts.pop(key, None)
        if making is None:
            making = self.services.loop.create_task(self._make_layout(description))
            making.add_done_callback(partial(self._layout_made, key))
            while len(self._layouts) >= KEPT_LAYOUTS:
                self._drop_layout()
        self._layouts[key] = making  # the newest
        return await asyncio.shield(making)

    def _layout_made(self, key: str, making: asyncio.Future[tuple[int, Mapping[str, Any]]]) -> None:
        """Forget a layout that cannot be made: the next who asks may have more luck."""
        if (making.cancelled() or making.exception() is not None) and self._layouts.get(key) is making:
            del self._layouts[key]

    def _drop_layout(self) -> None:
        """Let go of the layout that was not asked for for the longest time; whoever waits for it gets it."""

        def let_go(made: asyncio.Future[tuple[int, Mapping[str, Any]]]) -> None:
            if not made.cancelled() and made.exception() is None:
                self.services.loop.call_soon(os.close, made.result()[0])  # behind those who wait

        self._layouts.popitem(last=False)[1].add_done_callback(let_go)

    async def _make_layout(self, description: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        infos = unpack_tracks(self._versions[0])
        found = layout_of_ends(description, self._ends, self.index, infos) if self._sizes_known else None
        if found is None and self._sizes_known and not description.get("whole"):
            found = layout_of_outline(description, self._outline)
        if found is not None:
            return found
        await self._read_log()
        if not self._sizes_known:
            raise UnsupportedError(f"the packets of {self.file.path} are not as long as its index says")
        made = await make_layout(description, self._log, self.index, infos, self._first_payload)
        try:
            self._check_outline(description, made)
        except MistError as error:
            os.close(made[0])
            self._outline = None
            self.kept.refuse(error)
            raise
        return made

    def _check_outline(self, description: Mapping[str, Any], made: tuple[int, Mapping[str, Any]]) -> None:
        """Raise MistError if viewers may have been told something else about a layout than it says."""
        outlined = layout_of_outline(description, self._outline)
        if outlined is not None and not open_layout(*outlined).begins(open_layout(os.dup(made[0]), made[1])):
            raise MistError("its outline of the MP4 file is not what the packets say")

    async def _first_payload(self, track: int) -> bytes:
        return _first_payload(await self.store.get(0), track)

    async def _read_ahead(self, number: int) -> None:
        for ahead in range(number, min(number + READ_AHEAD_SPANS, self.index.count)):
            try:
                await self.store.get(ahead)
            except MistError:
                return  # who asks for it is told

    async def _load(self, number: int) -> SpanWriter:
        """Read one span from the file. Raises MistError that names file and byte."""
        try:
            return await self._read_span(number)
        except RemoteProtocolError:
            self._suspected.set()
            raise
        except TransportError as error:  # which means another thing to who asks for the span
            if error.reason in GONE:
                self._suspected.set()
            raise MistError(str(error), reason=error.reason) from error

    async def _read_span(self, number: int) -> SpanWriter:
        from_us, to_us, position, size, packets, _, _ = self.index[number]
        loader = self._loader
        if loader is None:
            loader = FileDemuxer(self.file, self.container, self._scan)
            await loader.start(self.texts)
            loader.media.anchors = self._anchors
            loader.media.foresee(
                [info for _, info in sorted(self.publisher.tracks.items())][len(loader.demuxer.tracks) :]
            )
        self._loader = None  # a demuxer that raises is of no more use
        tracks = max(len(loader.demuxer.tracks), len(self.publisher.tracks))
        loader.demuxer.attach(SpanWriter(0, 0, 0, 0, 1))  # drops what is held back
        loader.demuxer.bases = self.index.bases(number)
        loader.demuxer.seek(from_us, position)
        writer = SpanWriter(from_us, to_us, packets, size, tracks)
        loader.demuxer.attach(writer)
        loader.read_bytes = 0
        limit = size * 2 + SPAN_SLACK_BYTES
        while not writer.whole and not writer.passed and loader.read_bytes < limit:
            left = size + MIN_READ_BYTES - loader.read_bytes
            if not await loader.step(max(left, MIN_READ_BYTES)):
                break
        if not writer.count:
            raise TruncatedError(f"{self.file.path}, byte {position}: the media that was here is gone", offset=position)
        self.file.check(position)
        writer.finish()
        self._loader = loader
        return writer

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the file until cancelled, or until it is another one."""
        server = self.services.serve_spans(self.answer, self.answer_layout)
        try:
            if self.adopt():
                self._reported = self.index.count
                self.publisher.play_on_demand()
                if (kept := self._kept_index()) is not None:
                    self._take_log(kept)
                else:
                    await self.log_again()
            elif not self.restore() and not await self._unless_changed(self._read_whole()):
                return
            await self._watch_file()
        finally:
            server.close()
            for task in self._ahead:
                task.cancel()
            for file in (self.scanned_file, self.file):
                file.stop()
            self.store.clear()
            if self._kept_packets is not None:
                self._kept_packets.close()
            while self._layouts:
                next(iter(self._layouts.values())).cancel()
                self._drop_layout()
            self.scanned_file.close()
            self.file.close()

    def _age_s(self) -> float:
        return time.time() - self.file.modified_ns / 1e9

    async def _read_whole(self) -> None:
        await self.open()
        await self.build()

    async def _unless_changed(self, work: Coroutine[None, None, None]) -> bool:
        """Read the file until that is done, and return True, or until it is another one, which may be long before."""
        reading = self.services.loop.create_task(work)
        watching = self.services.loop.create_task(self._watch_file(grows=True))
        try:
            await asyncio.wait((reading, watching), return_when=asyncio.FIRST_COMPLETED)
            if reading.done():
                reading.result()
            return not watching.done()
        finally:
            reading.cancel()
            watching.cancel()

    async def _change(self, grows: bool = False) -> str:
        """Return what has become of the file, "" when nothing has."""
        return await asyncio.to_thread(self.file.changed, grows) if self.file.waits else self.file.changed(grows)

    async def _watch_file(self, grows: bool = False) -> None:
        """Return when the file has changed. grows: it may become longer."""
        pause_s = REMOTE_CHECK_SECONDS if self.file.waits else CHECK_SECONDS
        new = self.kept.written is not None and self._age_s() < MARGIN_S
        while not (text := await self._change(grows)):
            if new and self._age_s() >= MARGIN_S:
                new = False
                self.kept.confirm()
            try:
                async with asyncio.timeout(pause_s):
                    await self._suspected.wait()
            except TimeoutError:
                continue
            self._suspected.clear()
        self.services.log.warning("%s; the stream ends, and begins anew when it is asked for", text)


def source_path(source: str) -> str:
    """Return the path or URL of a file's source: without a prefix that names the input, and without a query if there is no such file."""
    prefix, colon, rest = source.partition(":")
    named = colon and prefix.upper() in {name.upper() for name in INPUTS} and (rest.startswith("/") or is_url(rest))
    path = rest if named else source
    return path.partition("?")[0] if "?" in path and not is_url(path) and not Path(path).exists() else path


async def open_file(services: InputServices, path: str) -> LocalFile | RemoteFile:
    """Open a path or URL. Raises MistError, with the reason START_FAILURE for what trying again soon will not mend."""
    if not is_url(path):
        return LocalFile(path)
    folder, size_bytes = cache_settings(services.server_config)
    blocks: Callable[[str, int], BlockFile] | None = None
    if folder and keeps_assets(services.server_config):
        blocks = cached_blocks(Path(folder), lambda count: trim(Path(folder), size_bytes - count))
    try:
        return await asyncio.to_thread(RemoteFile, path, blocks)
    except Endless:
        raise
    except MistError as error:
        raise MistError(str(error), reason=START_FAILURE) from error


async def play_file(services: InputServices, path: str, containers: Sequence[Container]) -> None:
    """Play a file until cancelled, or until it is another one. Raises MistError.

    path: may be a URL. A named pipe, and what a server sends without a length, is played as it comes.
    containers: those that it may be: the one of its suffix, else the one that its first bytes say.
    """
    if is_pipe(path):
        await play_pipe(services, path, containers)
        return
    try:
        file = await open_file(services, path)
    except Endless:
        await play_url(services, path, containers)
        return
    container = by_file_name(path_of(path))
    if container not in containers:
        try:
            container = by_first_bytes(await read_from(file, 0, SNIFF_BYTES))
        except BaseException:
            file.close()
            raise
    if container is None or container.make_demuxer is None:
        file.close()
        raise UnsupportedError(f"{file.path} is of no format that mist reads", reason=START_FAILURE)
    stream = FileStream(services, file, container)
    try:
        await stream.run()
    except RemoteProtocolError as error:
        if error.reason == SOURCE_CHANGED:
            raise MistError(str(error), reason="CLEAN_EOF") from None
        if stream.ready:
            raise
        raise MistError(str(error), reason=START_FAILURE) from None


def _first_payload(span: SpanWriter, track: int) -> bytes:
    """Return the payload of a track's first packet, b"" if it has none in the first span."""
    packets = open_span(span.fileno()).packet_list()
    return next((packet.payload for packet in packets if packet.track == track), b"")


class FileInput:
    """The input for files of some formats."""

    def __init__(self, name: str, containers: tuple[Container, ...]) -> None:
        self.containers = containers
        suffixes = tuple(suffix for container in containers for suffix in container.suffixes)
        self.capability = Capability(
            name=name,
            friendly=f"{name} file",
            desc=f"On-demand playback of files, here, on http(s) servers and in S3 stores: {', '.join(suffixes)}",
            priority=1 if name == "AV" else 9,
            source_match=tuple(f"{place}*{suffix}" for place in PLACES for suffix in suffixes),
        )

    async def run(self, services: InputServices) -> None:
        """Play the file. Raises MistError."""
        await play_file(services, source_path(services.source), self.containers)


class FolderInput:
    """The input for the files of a folder: the stream's name says which, behind its first "+"."""

    capability = Capability(
        name="Folder",
        friendly="Folder of files",
        desc="On-demand playback of the files in a folder: the stream NAME+FILE plays the file FILE in it",
        source_match=("/*/",),
    )

    async def run(self, services: InputServices) -> None:
        """Play the file. Raises MistError, NotFound for a name that is no file's in this folder."""
        name = wildcard_part(services.stream)
        if not name:
            raise NotFound(f"{services.source} is a folder: ask for {services.stream}+FILE", reason=START_FAILURE)
        if "/" in name or name in (".", ".."):
            raise NotFound(f"{services.source} has no file {name!r}", reason=START_FAILURE)
        await play_file(services, source_path(services.source) + name, READABLE)


def _inputs() -> tuple[FileInput | FolderInput, ...]:
    """Return an input for each row of INPUTS of which at least one format can be read."""
    readable = {container.name: container for container in READABLE}
    rows = ((name, tuple(readable[one] for one in formats if one in readable)) for name, formats in INPUTS.items())
    return (FolderInput(), *(FileInput(name, containers) for name, containers in rows if containers))


INPUT = _inputs()

"""Files of a recording that go to other machines: written to disk here, brought there one after the other, kept while that fails."""

from __future__ import annotations

import asyncio
import itertools
import logging
import posixpath
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mist.core.buffer import ByteBuffer
from mist.errors import RemoteProtocolError, TransportError
from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from mist.net.carriers import Carrier
from mist.net.remote_schemes import without_password
from mist.net.spool import Spool, SpooledFile
from mist.net.uploads import Away
from mist.stream.push import PushStatus
from mist.stream.recorder import Span
from mist.stream.recording import (
    Entry,
    RecordingPlaylist,
    RecordingTarget,
    file_name,
    iso_date,
    other_name,
    relative_uri,
)

FIRST_RETRY_SECONDS: Final = 0.5
LAST_RETRY_SECONDS: Final = 10.0
MAX_WAITING: Final = 10_000  # files
PLAYLIST_MIME: Final = "application/vnd.apple.mpegurl"
_SAFE_IN_URLS: Final = "/%:@!$&'()*+,;=~"


@dataclass(eq=False)
class Job:
    """One thing to do at the destination: bring a file there, or remove one (file is None). begun: it is being done."""

    url: str
    file: SpooledFile | None
    mime: str = ""
    begun: bool = False
    number: int = 0


class Delivery:
    """Does one job after the other; one that the destination does not take is tried again until it does."""

    def __init__(self, carrier: Carrier, status: PushStatus, spool: Spool, log: logging.Logger) -> None:
        self._carrier = carrier
        self._status = status
        self._spool = spool
        self._log = log
        self._jobs: deque[Job] = deque()
        self._numbers = itertools.count(1)
        self.version = 0  # another one with each change of the jobs
        self.changed: Callable[[], None] = lambda: None  # called when a job is done
        self._more = asyncio.Event()
        self._last = False
        self.room = asyncio.Event()
        self.room.set()

    def add(self, url: str, file: SpooledFile | None, mime: str = "") -> Job:
        """Add a job."""
        job = Job(url, file, mime, number=next(self._numbers))
        self._jobs.append(job)
        self.version += 1
        self._more.set()
        return job

    def take_back(self, job: Job) -> bool:
        """Forget a job that has not begun; returns whether."""
        if job.begun or job not in self._jobs:
            return False
        self._jobs.remove(job)
        self.version += 1
        if job.file is not None:
            job.file.discard()
        return True

    # -- another process -------------------------------------------------------------------------------------------

    def state(self) -> list[list[Any]]:
        """Return the jobs that are left, as JSON has it."""
        return [
            [one.number, one.url, one.mime, None, None]
            if one.file is None
            else [one.number, one.url, one.mime, one.file.state(), self._carrier.state(one.file)]
            for one in self._jobs
        ]

    def progress(self) -> object:
        """Return what is another one when the carrier has got further with the first job than `state` said."""
        file = self._jobs[0].file if self._jobs else None
        return (self.version, 0 if file is None else file.start)

    def restore(self, state: Sequence[Sequence[Any]], number: int, open_file: Mapping[str, Any]) -> Job | None:
        """Take over the jobs of another process, before all others; returns the one with a number, whose file is as it says itself.

        Raises KeyError, TypeError, ValueError.
        """
        found: Job | None = None
        for one, url, mime, file_state, sent in state:
            file = None
            if file_state is not None:
                file = SpooledFile.restore(self._spool, open_file if one == number else file_state)
                self._carrier.restore(file, sent)
            job = Job(url, file, mime, number=int(one))
            found = job if one == number else found
            self._jobs.append(job)
        self._numbers = itertools.count(max((one.number for one in self._jobs), default=0) + 1)
        self._spool.claim([block for job in self._jobs if job.file is not None for block in job.file.blocks])
        self._more.set()
        return found

    def has(self, job: Job) -> bool:
        """Tell whether a job is not done."""
        return job in self._jobs

    def find(self, url: str) -> Job | None:
        """Return the last job for a URL."""
        return next((one for one in reversed(self._jobs) if one.url == url), None)

    @property
    def full(self) -> bool:
        """Whether nothing more is to be added now."""
        return self._spool.full or len(self._jobs) >= MAX_WAITING

    def note(self) -> None:
        """Say in the status how much waits."""
        full = self.full
        if full and self.room.is_set():
            self._log.error(
                "The %d MiB that may wait on disk are full: media is lost until the destination takes some",
                self._spool.limit_bytes >> 20,
            )
            self.room.clear()
        elif not full and not self.room.is_set():
            self._log.warning("There is room on disk again for what the destination does not take yet")
            self.room.set()
        self._status.waiting_bytes, self._status.waiting_full = self._spool.used_bytes, full

    def finish(self) -> None:
        """Let `run` end after the last job."""
        self._last = True
        self._more.set()

    async def run(self) -> None:
        """Do the jobs, until the one after which `finish` was called. Raises TransportError that is no Away."""
        while self._jobs or not self._last:
            if not self._jobs:
                self._more.clear()
                await self._more.wait()
                continue
            job = self._jobs[0]
            job.begun = True
            await self._do(job)
            self._jobs.popleft()
            self.version += 1
            if job.file is not None:
                job.file.discard()
            self.note()
            self.changed()

    async def _do(self, job: Job) -> None:
        delay_s, away = FIRST_RETRY_SECONDS, False
        while True:
            try:
                await self._try(job)
                if away:
                    self._log.info("The destination is back: %s", without_password(job.url))
                self._status.trouble = ""
                return
            except Away as error:
                if not away:
                    self._log.warning("The destination is away, what comes waits on disk: %s", error)
                away = True
                self._status.trouble = str(error)
            await asyncio.sleep(delay_s)
            delay_s = min(delay_s * 2, LAST_RETRY_SECONDS)

    async def _try(self, job: Job) -> None:
        if job.file is not None:
            await self._carrier.send(job.url, job.file, job.mime)
            return
        try:
            await self._carrier.delete(job.url)
        except Away:
            raise
        except TransportError as error:
            self._log.warning("A file that is no longer listed stays there: %s", error)


class RemoteFiles:
    """The files of one recording, as `mist.stream.recorder` writes them."""

    def __init__(
        self,
        target: RecordingTarget,
        stream: str,
        mime: str,
        spool: Spool,
        delivery: Delivery,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        """target: its names are URLs. mime: of the files."""
        self._target = target
        self._stream = stream
        self._mime = mime
        self._spool = spool
        self._delivery = delivery
        self._now = now
        self._file: SpooledFile | None = None
        self._counter = 0
        self._used: set[str] = set()
        self._listed: dict[str, Job] = {}  # by URL: files that may leave the list
        self._list_job: Job | None = None
        self._playlist = RecordingPlaylist(target) if target.playlist else None
        self._playlist_url = self._name(target.playlist, 0) if target.playlist else ""
        self.path = ""
        self.bytes_written = 0

    @property
    def playlist_url(self) -> str:
        """Where the playlist is, "" without one."""
        return self._playlist_url

    def continue_from(self, data: bytes) -> None:
        """Go on with the playlist that is there. Raises TransportError."""
        assert self._playlist is not None
        try:
            old = parse_playlist(data)
        except RemoteProtocolError as error:
            raise TransportError(
                f"{without_password(self._playlist_url)} is there, and no playlist: {error}"
            ) from error
        if not isinstance(old, MediaPlaylist):
            raise TransportError(f"{without_password(self._playlist_url)} is a list of qualities, not of segments")
        self._playlist.continue_from(old)
        self._counter = self._playlist.next_number

    def vanished(self) -> bool:
        """Tell whether the open file was removed: what is on another machine is its own affair."""
        return False

    def choose(self, begin_us: int) -> None:
        """Say which file is the next one."""
        url = self._free_name(begin_us)
        self._used.add(url)
        self._counter += 1
        self.path = without_password(url)
        self._url = url

    def open(self) -> None:
        """Begin the file that was chosen."""
        self._file = SpooledFile(self._spool)
        self._job = self._delivery.add(self._url, self._file, self._mime)
        if self._target.prunes:
            self._listed[self._url] = self._job

    def write(self, output: ByteBuffer) -> None:
        """Append all there is. Raises TransportError."""
        assert self._file is not None
        data = output.take()
        if data:
            self._file.append(data)
            self.bytes_written += len(data)

    def close(self, patches: Sequence[tuple[int, bytes]], span: Span) -> None:
        """End the file, and list it. What is to be written over earlier bytes is, where none of the file was sent yet."""
        assert self._file is not None
        if not self._job.begun:
            for position, data in patches:
                self._file.patch(position, data)
        self.abandon()
        if self._playlist is not None:
            entry = Entry(self._uri(), span.end_us - span.begin_us, iso_date(span.date_us), span.discontinuity)
            self._remove(self._playlist.add(entry))
            self._write_playlist(ended=False)
        self._delivery.note()

    # -- another process -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return which file is open, or is to be made, and all that `book` does not hold, as JSON has it."""
        made = self._file is not None
        return {
            "url": self._url,
            "job": self._job.number if made else 0,
            "size": self._file.size if self._file is not None else 0,
            "bytes": self.bytes_written,
        }

    @property
    def book_number(self) -> int:
        """Another one whenever what `book` returns may be another one."""
        return len(self._used)

    def book(self) -> dict[str, Any]:
        """Return what files there were, as JSON has it."""
        listed = self._playlist.state() if self._playlist is not None else None
        return {
            "counter": self._counter,
            "used": sorted(self._used),
            "playlist": listed,
            "list": self._playlist_url,
            "listed": sorted(self._listed),
        }

    def open_state(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Return where the bytes of the file of a `state` are, {} when it is not there any more."""
        if not state["job"] or self._job.number != state["job"] or not self._delivery.has(self._job):
            return {}
        assert self._job.file is not None
        return self._job.file.state(int(state["size"]))

    def go_on(self, state: Mapping[str, Any], book: Mapping[str, Any], job: Job | None) -> bool:
        """Be where another process was; before `choose`. job: of its open file. Returns whether that can be gone on with.

        Raises KeyError, TypeError, ValueError.
        """
        self._counter, self._used = int(book["counter"]), set(book["used"])
        self._playlist_url = str(book["list"])
        if self._playlist is not None and book["playlist"] is not None:
            self._playlist.restore(book["playlist"])
        self._list_job = self._delivery.find(self._playlist_url) if self._playlist_url else None
        self._listed = {url: job for url in book["listed"] if (job := self._delivery.find(url)) is not None}
        self.bytes_written = int(state["bytes"])
        self._url = str(state["url"])
        self.path = without_password(self._url)
        if not state["job"]:
            self.open()
            return True
        if job is None or job.file is None:
            return False
        self._job, self._file = job, job.file
        return True

    def abandon(self) -> None:
        """Let the open file end as it is."""
        if self._file is not None:
            self._file.finish()
            self._file = None

    def end(self) -> None:
        """Say in the playlist that nothing follows."""
        if self._playlist is not None and self._playlist.entries:
            self._write_playlist(ended=True)

    # -- names -----------------------------------------------------------------------------------------------------

    def _name(self, pattern: str, begin_us: int) -> str:
        found = file_name(pattern, self._stream, self._now(), counter=self._counter, media_us=begin_us)
        scheme, _, rest = found.partition("://")
        host, slash, path = rest.partition("/")
        path = posixpath.normpath(f"/{path}") if slash else "/"
        if self._target.upload is not None:
            before, behind = self._target.upload
            return f"{before}{quote(posixpath.basename(path))}{behind}"
        return f"{scheme}://{host}{quote(path, safe=_SAFE_IN_URLS)}"

    def _uri(self) -> str:
        """Return the open file's name as the playlist has it."""
        if self._target.upload is not None:
            before, behind = self._target.upload
            return self._url[len(before) : len(self._url) - len(behind)]
        return relative_uri(_path(self._playlist_url), _path(self._url))

    def _free_name(self, begin_us: int) -> str:
        """Return the next file's name: not one that this recording has used."""
        url = self._name(self._target.files, begin_us)
        number = 2
        while url in self._used:
            self._counter += 1
            after = self._name(self._target.files, begin_us)
            if after == url or after in self._used:
                after, number = other_name(after, number), number + 1
            url = after
        return url

    # -- the playlist ----------------------------------------------------------------------------------------------

    def _write_playlist(self, *, ended: bool) -> None:
        """Bring the list there behind its files; one that still waits is not needed any more."""
        assert self._playlist is not None
        if self._list_job is not None:
            self._delivery.take_back(self._list_job)
        file = SpooledFile(self._spool)
        file.append(self._playlist.text(ended=ended).encode())
        file.finish()
        self._list_job = self._delivery.add(self._playlist_url, file, PLAYLIST_MIME)

    def _remove(self, gone: Sequence[Entry]) -> None:
        """Remove what has left the list; a file that still waits is not brought there in the first place."""
        if not self._target.unlink:
            return
        base = self._playlist_url.rpartition("/")[0]
        root = self._playlist_url[: len(self._playlist_url) - len(_path(self._playlist_url))]
        for entry in gone:
            if "://" in entry.uri or entry.uri.startswith("/"):
                continue
            url = root + posixpath.normpath(posixpath.join(_path(base) or "/", entry.uri))
            job = self._listed.pop(url, None)
            if job is None or not self._delivery.take_back(job):
                self._delivery.add(url, None)


def _path(url: str) -> str:
    """Return the path of a URL as it is written."""
    return urlsplit(url).path

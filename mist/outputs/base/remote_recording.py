"""Recordings whose files are on other machines: made as local ones are, and brought there as they grow."""

from __future__ import annotations

import asyncio
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from mist.errors import ConfigError, MistError, NotReady, TransportError
from mist.formats.containers import Container
from mist.net.carriers import Carrier, make_carrier
from mist.net.remote_schemes import Writers, remote_schemes, scheme_of, without_password
from mist.net.spool import DEFAULT_FOLDER, DEFAULT_LIMIT_BYTES, Spool
from mist.outputs.base.continued import left_behind, opened
from mist.outputs.base.file_formats import format_of
from mist.outputs.base.recording_steps import Recorded, follow, own_push, source, tell_progress, tell_unknown
from mist.outputs.base.remote_files import Delivery, Job, RemoteFiles
from mist.stream.film_reader import FilmReader
from mist.stream.push import PushPlan, PushStatus, split_target
from mist.stream.push_note import table_number
from mist.stream.recorder import Checkpoint, GoneReader, Recorder
from mist.stream.recording import RecordingTarget, parse_target
from mist.stream.services import OutputServices

STOP_SECONDS: Final = 25.0  # for what waits, once the push was stopped
FETCH_SECONDS: Final = 60.0
_NOTED: Final = ("began", "bytes", "first_ms", "last_ms", "current_target", "tracks")  # of the status


def is_remote(services: OutputServices, target: str) -> bool:
    """Tell whether a target is a URL that files are written to."""
    return scheme_of(target.rpartition("?")[0] or target) in remote_schemes(_writers(services))


def _writers(services: OutputServices) -> Writers:
    found: Writers = services.config.get("extwriters") or ()
    return found


def _open_target(services: OutputServices, text: str, connector: str) -> tuple[RecordingTarget, Container]:
    target = parse_target(text, remote_schemes(_writers(services)))
    container = format_of(target.files, connector)
    if container is None:
        shown = without_password(target.files)
        raise ConfigError(f"the name {shown} does not say a format that can be written", path="target", value=shown)
    if target.append and not target.playlist:
        raise ConfigError("files on other machines are not appended to: append is for playlists", path="target")
    return target, container


def _spool(services: OutputServices, fd: int) -> Spool:
    settings: Mapping[str, Any] = services.config.get("config", {}).get("pushbuffer") or {}
    return Spool(str(settings.get("folder") or DEFAULT_FOLDER), int(settings.get("limit") or DEFAULT_LIMIT_BYTES), fd)


Left = tuple[dict[str, Any], dict[str, Any]]  # note and book of the process before this one


async def record_remotely(services: OutputServices, plan: PushPlan, status: PushStatus, connector: str) -> None:
    """Record until the stream ends, the target's own end, or cancellation, and bring away what there is. Raises MistError."""
    target, container = _open_target(services, plan.target, connector)
    tell_unknown(services.log, target, ("verify",))
    verify = split_target(plan.target)[1].get("verify", "1") != "0"
    spool = _spool(services, status.left_file)
    try:
        carrier = make_carrier(target.files, _writers(services), spool, verify=verify)
        delivery, left, job = _take_over(services, status, carrier, spool)
        sending = asyncio.ensure_future(delivery.run())
        try:
            if left is not None and left[0]["over"]:
                delivery.finish()
            else:
                making = _Making(services, target, container, status, spool, delivery, sending)
                try:
                    await making.record(plan, connector, carrier, left, job)
                except MistError:
                    delivery.finish()  # also when there was no stream to open
                    await sending  # what there is of it; what went wrong there is the same, or worse
                    raise
            await sending
        except asyncio.CancelledError:
            await _send_rest(sending, status)
            raise
        finally:
            sending.cancel()
            with suppress(asyncio.CancelledError, MistError):
                await sending
            carrier.close()
    finally:
        spool.close()


def _take_over(
    services: OutputServices, status: PushStatus, carrier: Carrier, spool: Spool
) -> tuple[Delivery, Left | None, Job | None]:
    """Return what delivers, what the process before this one noted, and the job of the file that it was writing."""
    left = left_behind(services, status) if status.left_file >= 0 else None
    delivery = Delivery(carrier, status, spool, services.log)
    if left is None:
        return delivery, None, None
    note, book = left
    try:
        job = delivery.restore(book["jobs"], int(note["files"]["job"]), note["open"])
        for name, value in note["status"].items():
            setattr(status, name, value)
    except (KeyError, TypeError, ValueError) as error:
        services.log.warning("What waited for the destination is lost: the note has no %s", error)
        spool.claim(())
        return Delivery(carrier, status, spool, services.log), None, None
    services.log.info("%d files of the process before wait for the destination", len(book["jobs"]))
    return delivery, left, job


async def _send_rest(sending: asyncio.Future[None], status: PushStatus) -> None:
    """Wait a while for what is to be brought away of a push that was stopped. Raises TransportError."""
    try:
        async with asyncio.timeout(STOP_SECONDS):
            await asyncio.shield(sending)
    except TimeoutError:
        raise TransportError(
            f"stopped, with {status.waiting_bytes >> 10} KiB that the destination did not take: {status.trouble or 'it is slow'}",
            reason="WRITE_FAILURE",
        ) from None


class _Making:
    """What one recording is made of."""

    def __init__(
        self,
        services: OutputServices,
        target: RecordingTarget,
        container: Container,
        status: PushStatus,
        spool: Spool,
        delivery: Delivery,
        sending: asyncio.Future[None],
    ) -> None:
        self.services = services
        self.target = target
        self.container = container
        self.status = status
        self.spool = spool
        self.delivery = delivery
        self.sending = sending

    async def record(
        self, plan: PushPlan, connector: str, carrier: Carrier, left: Left | None, job: Job | None
    ) -> None:
        """Write the files; what is there of them is to be brought away, whatever ends this. Raises MistError."""
        services, status = self.services, self.status
        note = None if left is None else left[0]
        reader = await opened(services, plan.stream, status, note)
        record = services.open_record(f"OUTPUT:{connector}", scheme_of(self.target.files))
        record.set_stream(reader.name)
        try:
            recorded, self.target = await source(services, reader, self.target, note)
            files = RemoteFiles(self.target, reader.name, self.container.mime, self.spool, self.delivery)
            if self.target.append and left is None:
                await _continue(carrier, files)
            recording = _Recording(self, recorded, files)
            if left is not None:
                recording.go_on(*left, job)
            await recording.run()
        finally:
            self.delivery.finish()
            record.add_bytes(status.bytes, 0)
            record.close()
            if not isinstance(reader, GoneReader):
                services.close_stream(reader)


async def _continue(carrier: Carrier, files: RemoteFiles) -> None:
    """Go on with the playlist that is there. Raises TransportError."""
    async with asyncio.timeout(FETCH_SECONDS):
        data = await carrier.fetch(files.playlist_url)
    if data is not None:
        files.continue_from(data)


class _Notes:
    """Lets another process go on: writes down where the recorder is, and what is still to be brought away."""

    def __init__(self, made: _Making, reader: Recorded | GoneReader, files: RemoteFiles) -> None:
        self._made = made
        self._stream = reader.name
        self._table = 0 if isinstance(reader, GoneReader) else table_number(reader.table)
        self._film = isinstance(reader, FilmReader)
        self._files = files
        self._checkpoint: Checkpoint | None = None
        self._state: dict[str, Any] = {"job": 0}  # of the files, at the checkpoint
        self._book: dict[str, Any] = {}
        self._book_number = -1
        self._over = False
        made.delivery.changed = self.write
        if made.status.note is not None:
            made.spool.wait_for_notes(True)
            made.status.keep_file(made.spool.fileno())

    def keep(self, checkpoint: Checkpoint) -> None:
        """Note where the recorder is."""
        self._checkpoint, self._state = checkpoint, self._files.state()
        if self._files.book_number != self._book_number:
            self._book_number, self._book = self._files.book_number, self._files.book()
        self.write()

    def over(self) -> None:
        """Note that nothing more is recorded."""
        if self._checkpoint is not None:
            self._over, self._state = True, {**self._state, "job": 0}
            self.write()

    def write(self) -> None:
        """Replace the note."""
        status, checkpoint, delivery = self._made.status, self._checkpoint, self._made.delivery
        note = status.note
        if note is None or checkpoint is None:
            return
        document = {
            "stream": self._stream,
            "table": self._table,
            "film": self._film,
            "status": {name: getattr(status, name) for name in _NOTED},
            "recorder": checkpoint.state,
            "files": self._state,
            "open": self._files.open_state(self._state),
            "over": self._over,
        }

        def book() -> dict[str, Any]:
            index = b64encode(checkpoint.index).decode()
            return {"files": self._book, "jobs": delivery.state(), "index": index}

        try:
            # What the end of the file adds to its job may leave all the numbers as they are.
            note.write(document, (self._book_number, checkpoint.index_number, delivery.progress(), self._over), book)
            self._made.spool.noted()
        except OSError as error:
            status.note = None
            note.remove()
            self._made.spool.wait_for_notes(False)
            self._made.services.log.warning("If this process dies, what waits is lost: %s", error)


class _Recording:
    """The driver of a recorder that writes remote files."""

    def __init__(self, made: _Making, reader: Recorded | GoneReader, files: RemoteFiles) -> None:
        self._services = made.services
        self._reader = reader
        self._status = made.status
        self._files = files
        self._delivery = made.delivery
        self._sending = made.sending
        self._changed = asyncio.Event()
        self._notes = _Notes(made, reader, files)
        self._recorder = Recorder(
            reader,
            made.container,
            made.target,
            files,
            clock_us=lambda: time.monotonic_ns() // 1000,
            unix_us=lambda: time.time_ns() // 1000,
            tell=made.services.log.warning,
            keep=self._notes.keep,
        )

    def go_on(self, note: Mapping[str, Any], book: Mapping[str, Any], job: Job | None) -> None:
        """Be where the process before this one was. Raises MistError."""
        self._recorder.go_on(note["recorder"], b64decode(book["index"]))
        if self._files.go_on(note["files"], book["files"], job):
            self._services.log.info("The recording goes on in %s", self._files.path)
        else:
            self._services.log.warning("The file is not there any more; another one begins")
            self._recorder.begin_again()

    async def run(self) -> None:
        """Record. Raises MistError."""
        self._sending.add_done_callback(self._sending_over)
        try:
            if not isinstance(self._reader, GoneReader):
                await follow(self._services, self._reader, self._changed, self._step)
        finally:
            self._sending.remove_done_callback(self._sending_over)
            self._end()
        if not self._status.bytes:
            raise NotReady(f"nothing of the stream {self._reader.name} was recorded")

    def _sending_over(self, _sending: object) -> None:
        self._changed.set()

    def _step(self, reader: Recorded) -> bool:
        if self._sending.done():
            return False
        self._delivery.note()
        if self._delivery.full:
            return True
        goes_on = self._recorder.step()
        self._note()
        own_push(self._services.log, self._status, self._recorder)
        reader.forget_pages()
        return goes_on

    def _note(self) -> None:
        tell_progress(self._status, self._recorder, self._files, self._reader)

    def _end(self) -> None:
        """Write what is still there and end the file, whatever ended the recording."""
        try:
            self._recorder.finish()
            self._files.end()
            self._note()
        finally:
            self._files.abandon()
            self._notes.over()

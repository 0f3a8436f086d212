"""What records: a push of a stream into files, here or on other machines."""

from __future__ import annotations

import asyncio
import os
import time
from base64 import b64decode, b64encode
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, Final

from mist.errors import ConfigError, NotReady, TransportError
from mist.formats.containers import Container
from mist.outputs.base.continued import left_behind, opened
from mist.outputs.base.file_formats import format_of
from mist.outputs.base.recording_steps import Recorded, follow, own_push, source, tell_progress, tell_unknown
from mist.outputs.base.remote_recording import is_remote, record_remotely
from mist.stream.film_reader import FilmReader
from mist.stream.push import PushPlan, PushStatus
from mist.stream.push_note import table_number
from mist.stream.recorder import Checkpoint, GoneReader, Recorder
from mist.stream.recording import RecordingTarget, parse_target
from mist.stream.recording_files import RecordingFiles
from mist.stream.services import OutputServices

APPENDABLE: Final = frozenset({"ts", "aac", "ac3", "mp3", "dts", "h264", "hevc", "m2v"})


def open_target(text: str, connector: str) -> tuple[RecordingTarget, Container]:
    """Return what a recording's target asks for, with absolute paths, and the format of its files. Raises ConfigError."""
    target = parse_target(text)
    playlist = os.path.abspath(target.playlist) if target.playlist else ""
    target = replace(target, files=os.path.abspath(target.files), playlist=playlist)
    container = format_of(target.files, connector)
    if container is None:
        raise ConfigError(
            f"the name {target.files} does not say a format that can be written", path="target", value=text
        )
    if target.append and not target.playlist and container.name not in APPENDABLE:
        raise ConfigError(
            f"a file of the format {container.name} has one beginning: append is for {', '.join(sorted(APPENDABLE))}",
            path="target",
            value=text,
        )
    return target, container


class RecordingPush:
    """Records a stream into files; one for each connector that has such targets."""

    def __init__(self, connector: str) -> None:
        self.connector = connector

    def shares(self, target: str) -> bool:
        return False  # a disk that makes one recording wait does not make others wait

    async def push(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Record until the stream ends, the target's own end, or cancellation. Raises MistError."""
        if is_remote(services, plan.target):
            await record_remotely(services, plan, status, self.connector)
            return
        target, container = open_target(plan.target, self.connector)
        tell_unknown(services.log, target)
        left = left_behind(services, status)
        note = None if left is None else left[0]
        reader = await opened(services, plan.stream, status, note)
        record = services.open_record(f"OUTPUT:{self.connector}", "")
        record.set_stream(reader.name)
        try:
            recorded, target = await source(services, reader, target, note)
            recording = _Recording(services, recorded, target, container, status)
            if left is not None:
                recording.go_on(*left)
            await recording.run()
        finally:
            record.add_bytes(status.bytes, 0)
            record.close()
            if not isinstance(reader, GoneReader):
                services.close_stream(reader)


class _Recording:
    """One recording, from the first packet to the last file's end."""

    def __init__(
        self,
        services: OutputServices,
        reader: Recorded | GoneReader,
        target: RecordingTarget,
        container: Container,
        status: PushStatus,
    ) -> None:
        self._services = services
        self._reader = reader
        self._status = status
        self._table = 0 if isinstance(reader, GoneReader) else table_number(reader.table)
        self._files = RecordingFiles(target, reader.name)
        self._recorder = Recorder(
            reader,
            container,
            target,
            self._files,
            clock_us=lambda: time.monotonic_ns() // 1000,
            unix_us=lambda: time.time_ns() // 1000,
            tell=services.log.warning,
            keep=self._keep,
        )

    # -- another process -------------------------------------------------------------------------------------------

    def _keep(self, checkpoint: Checkpoint) -> None:
        """Note where another process can go on."""
        note, files = self._status.note, self._files
        if note is None:
            return

        def book() -> dict[str, Any]:
            return {"files": files.book(), "index": b64encode(checkpoint.index).decode()}

        document = {
            "stream": self._reader.name,
            "table": self._table,
            "film": isinstance(self._reader, FilmReader),
            "began": self._status.began,
            "recorder": checkpoint.state,
            "files": files.state(),
        }
        try:
            note.write(document, (files.book_number, checkpoint.index_number), book)
        except OSError as error:
            self._status.note = None
            note.remove()
            self._services.log.warning("If this process dies, its recording begins again: %s", error)

    def go_on(self, note: Mapping[str, Any], book: Mapping[str, Any]) -> None:
        """Be where the process before this one was. Raises TransportError."""
        log = self._services.log
        self._status.began = float(note["began"])
        self._recorder.go_on(note["recorder"], b64decode(book["index"]))
        trouble = self._files.go_on(note["files"], book["files"])
        if trouble:
            log.warning("%s while its recorder was replaced; another file begins", trouble)
            self._recorder.begin_again()
        else:
            log.info("The recording goes on in %s at byte %d", self._files.path, note["files"]["size"])

    # -- the media -------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Record. Raises MistError; what is in the files by then stays there."""
        try:
            if not isinstance(self._reader, GoneReader):
                await follow(self._services, self._reader, asyncio.Event(), self._step)
        except TransportError:
            with suppress(TransportError):  # the first one says what is wrong
                self._recorder.break_off()
            raise
        finally:
            self._end()
        if not self._status.bytes:
            raise NotReady(f"nothing of the stream {self._reader.name} was recorded")

    def _step(self, reader: Recorded) -> bool:
        goes_on = self._recorder.step()
        self._note()
        own_push(self._services.log, self._status, self._recorder)
        reader.forget_pages()
        return goes_on

    def _note(self) -> None:
        tell_progress(self._status, self._recorder, self._files, self._reader)

    def _end(self) -> None:
        """Write what is still there and close the file, whatever ended the recording."""
        try:
            self._recorder.finish()
            self._files.end()
        except TransportError:
            with suppress(TransportError):
                self._recorder.break_off()
            raise
        finally:
            self._note()
            self._files.abandon()

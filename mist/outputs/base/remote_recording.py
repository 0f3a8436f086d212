"""Recordings whose files are on other machines: made as local ones are, and brought there as they grow."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any, Final

from mist.errors import ConfigError, MistError, NotReady, TransportError
from mist.formats.containers import Container
from mist.net.carriers import Carrier, make_carrier
from mist.net.remote_schemes import Writers, remote_schemes, scheme_of, without_password
from mist.net.spool import DEFAULT_FOLDER, DEFAULT_LIMIT_BYTES, Spool
from mist.outputs.base.file_formats import format_of
from mist.outputs.base.publishing import refuse_files
from mist.outputs.base.remote_files import Delivery, RemoteFiles
from mist.stream.push import PushPlan, PushStatus, split_target
from mist.stream.reader import StreamReader
from mist.stream.recorder import Recorder
from mist.stream.recording import RecordingTarget, parse_target
from mist.stream.services import OutputServices

INTERVAL_S: Final = 0.1  # from a packet to the next write: larger pieces cost less
LOOK_S: Final = 0.5  # without a packet: the target may name a time to stop at
STOP_SECONDS: Final = 25.0  # for what waits, once the push was stopped
FETCH_SECONDS: Final = 60.0


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


def _spool(services: OutputServices) -> Spool:
    settings: Mapping[str, Any] = services.config.get("config", {}).get("pushbuffer") or {}
    return Spool(str(settings.get("folder") or DEFAULT_FOLDER), int(settings.get("limit") or DEFAULT_LIMIT_BYTES))


async def record_remotely(services: OutputServices, plan: PushPlan, status: PushStatus, connector: str) -> None:
    """Record until the stream ends, the target's own end, or cancellation, and bring away what there is. Raises MistError."""
    target, container = _open_target(services, plan.target, connector)
    verify = split_target(plan.target)[1].get("verify", "1") != "0"
    spool = _spool(services)
    try:
        carrier = make_carrier(target.files, _writers(services), spool, verify=verify)
        delivery = Delivery(carrier, status, spool, services.log)
        sending = asyncio.ensure_future(delivery.run())
        try:
            await _record(services, plan, status, connector, target, container, spool, carrier, delivery, sending)
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


async def _record(
    services: OutputServices,
    plan: PushPlan,
    status: PushStatus,
    connector: str,
    target: RecordingTarget,
    container: Container,
    spool: Spool,
    carrier: Carrier,
    delivery: Delivery,
    sending: asyncio.Future[None],
) -> None:
    """Write the files; what is there of them is to be brought away, whatever ends this."""
    reader = await services.open_stream(plan.stream)
    record = services.open_record(f"OUTPUT:{connector}", scheme_of(target.files))
    record.set_stream(reader.name)
    try:
        refuse_files(reader)
        files = RemoteFiles(target, reader.name, container.mime, spool, delivery)
        if target.append:
            await _continue(carrier, files)
        await _Recording(services, reader, target, container, status, files, delivery, sending).run()
    finally:
        delivery.finish()
        record.add_bytes(status.bytes, 0)
        record.close()
        services.close_stream(reader)


async def _continue(carrier: Carrier, files: RemoteFiles) -> None:
    """Go on with the playlist that is there. Raises TransportError."""
    async with asyncio.timeout(FETCH_SECONDS):
        data = await carrier.fetch(files.playlist_url)
    if data is not None:
        files.continue_from(data)


class _Recording:
    """The driver of a recorder that writes remote files."""

    def __init__(
        self,
        services: OutputServices,
        reader: StreamReader,
        target: RecordingTarget,
        container: Container,
        status: PushStatus,
        files: RemoteFiles,
        delivery: Delivery,
        sending: asyncio.Future[None],
    ) -> None:
        self._services = services
        self._reader = reader
        self._status = status
        self._files = files
        self._delivery = delivery
        self._sending = sending
        self._changed = asyncio.Event()
        self._recorder = Recorder(
            reader,
            container,
            target,
            files,
            clock_us=lambda: time.monotonic_ns() // 1000,
            unix_us=lambda: time.time_ns() // 1000,
            tell=services.log.warning,
        )

    async def run(self) -> None:
        """Record. Raises MistError."""
        changed = self._changed
        watch = self._services.fanout.watch(self._reader, changed.set)
        self._sending.add_done_callback(self._sending_over)
        try:
            while not self._sending.done() and self._step():
                changed.clear()
                with suppress(TimeoutError):
                    async with asyncio.timeout(LOOK_S):
                        await changed.wait()
                    await asyncio.sleep(INTERVAL_S)
        finally:
            self._sending.remove_done_callback(self._sending_over)
            self._services.fanout.unwatch(watch, changed.set)
            self._end()
        if not self._status.bytes:
            raise NotReady(f"nothing of the stream {self._reader.name} was recorded")

    def _sending_over(self, _sending: object) -> None:
        self._changed.set()

    def _step(self) -> bool:
        self._delivery.note()
        if self._delivery.full:
            return True
        goes_on = self._recorder.step()
        self._note()
        self._reader.forget_pages()
        return goes_on

    def _note(self) -> None:
        status, recorder = self._status, self._recorder
        status.bytes, status.current_target = self._files.bytes_written, self._files.path
        status.tracks = recorder.tracks
        if recorder.begun:
            status.first_ms, status.last_ms = recorder.first_us // 1000, recorder.done_us // 1000
            status.latency_ms = max(self._reader.track(recorder.tracks[0]).last_us - recorder.done_us, 0) // 1000

    def _end(self) -> None:
        """Write what is still there and end the file, whatever ended the recording."""
        try:
            self._recorder.finish()
            self._files.end()
            self._note()
        finally:
            self._files.abandon()

"""The process of an input: runs one source of one stream and is the `InputServices` that it is given."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Mapping
from typing import Any, cast

from mist.errors import MistError
from mist.runtime.channel import Channel, Message, close_all, read_memory_file
from mist.runtime.guardian import WorkerMain
from mist.runtime.program import InputRole, Server
from mist.runtime.snapshot import stream_settings
from mist.runtime.span_link import Answer, AnswerLayout, SpanServer
from mist.runtime.stream_guardian import InputMain, stream_limits
from mist.runtime.stream_source import InputStart
from mist.runtime.worker import Worker
from mist.stream.publisher import StreamPublisher
from mist.stream.services import InputServices

log = logging.getLogger(__name__)

STOP_SECONDS = 1.5
CLEAN = "CLEAN"


class InputWorker(Worker):
    """Runs an input until its source ends, fails or is told to stop."""

    def __init__(
        self,
        server: Server,
        channel: Channel,
        stream: str,
        source: str,
        connector: str,
        role: InputRole,
        start: InputStart,
    ) -> None:
        self.program = f"input {connector}"
        super().__init__(server, channel, stream)
        self.stream = stream
        self.source = source
        self.fd = start.fd
        self.ring = start.ring
        self.request = start.request
        self.state = b""
        self.on_yield: Callable[[], None] | None = None
        self._start = start
        self._connector = connector
        self._role = role
        self._task: asyncio.Task[None] | None = None

    def title(self) -> str:
        return f"input {self.stream}"

    @property
    def config(self) -> Mapping[str, Any]:
        """The stream's own configuration."""
        return stream_settings(self.snapshot, self.stream) or {}

    @property
    def server_config(self) -> Mapping[str, Any]:
        """The settings of the whole server."""
        settings: Mapping[str, Any] = self.snapshot["config"]
        return settings

    def started(self) -> None:
        if self._start.standby:
            self.channel.send({"event": "standing by"})
        else:
            self._begin()

    def _begin(self) -> None:
        if self._start.state_fd >= 0:
            self.state = read_memory_file(self._start.state_fd)
            os.close(self._start.state_fd)
        limits = stream_limits(self.snapshot, self.stream)
        bells = str(self.server.instance.bells)
        self.publisher = StreamPublisher(self.instance, self.stream, bells, limits, resumed=self._start.resumed)
        self.publisher.on_ready = lambda: self.channel.send({"event": "ready"})
        connector = str(self.request.get("connector") or self._connector)
        self.record = self.open_record(f"INPUT:{connector}", str(self.request.get("host", "")))
        self.record.set_stream(self.stream)
        self.record.set_token(str(self.request.get("token", "")))
        self._task = self.loop.create_task(self._run())

    def serve_spans(self, answer: Answer, answer_layout: AnswerLayout) -> SpanServer:
        """Serve the spans of an on-demand stream; see `InputServices`."""
        return SpanServer(self.server.instance, self.loop, answer, answer_layout)

    async def _run(self) -> None:
        self.channel.send({"event": "taken"})
        try:
            await self._role.run(cast(InputServices, self))
        except MistError as error:
            self._failed(error)
        except asyncio.CancelledError:
            log.info("Stopped")
        except Exception:
            log.exception("The input failed")
            self.exit_status = 1
        finally:
            self.record.close()
            self.publisher.close()
            self.finish()

    def _failed(self, error: MistError) -> None:
        """Say why the source ended; a reason that begins with CLEAN is no failure."""
        clean = error.reason.startswith(CLEAN)
        log.log(logging.INFO if clean else logging.WARNING, "%s (%s)", str(error) or type(error).__name__, error.reason)
        self.channel.send({"event": "failed", "text": str(error), "reason": error.reason})
        self.exit_status = 0 if clean else 1

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        what = message.get("do")
        if what == "end_connections" and str(os.getpid()) in message["records"]:
            self.stop("CLEAN_CONTROLLER_REQ")
        elif what == "ping":
            self.channel.send({"pong": 1})
        elif what == "go" and self._task is None:
            self._begin()
        elif what == "yield" and self._task is not None:
            self._give_way(self._task)

    def _give_way(self, task: asyncio.Task[None]) -> None:
        """Stop at a clean point, from where another process goes on."""
        log.info("Another process goes on with the source")
        self.channel.send({"event": "yielded"})
        if self.on_yield is not None:
            self.on_yield()
        else:
            task.cancel()

    def rejoined(self) -> None:
        """Show the next guardian what it must hold for whoever goes on when this process is killed."""
        fds = (self.fd, self.ring) if self.fd >= 0 else ()
        self.channel.send({"event": "inventory", "request": dict(self.request)}, fds)

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")

    def stopping(self, reason: str) -> None:
        log.info("Stopping: %s", reason)
        if self._task is None:
            self.finish()
            return
        self._task.cancel()
        self.loop.call_later(STOP_SECONDS, self.finish)


def input_main(server: Server, stream: str, source: str, connector: str, role: InputRole) -> InputMain:
    """Return what makes the main function of an input process for one publisher, or for a source that is pulled."""

    def make(start: InputStart) -> WorkerMain:
        return lambda channel: InputWorker(server, channel, stream, source, connector, role, start).run()

    return make

"""The process of an input: runs one source of one stream and is the `InputServices` that it is given."""

from __future__ import annotations

import asyncio
import logging
import os
import time
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, cast

from mist.errors import AccessDenied, MistError, NotFound
from mist.runtime.channel import Channel, Message, close_all, read_memory_file
from mist.runtime.guardian import WorkerMain
from mist.runtime.program import InputRole, Server
from mist.runtime.publisher_token import PublisherToken
from mist.runtime.session_link import SessionLink
from mist.runtime.snapshot import stream_settings
from mist.runtime.span_link import Answer, AnswerLayout, SpanServer
from mist.runtime.stream_guardian import InputMain, stream_limits
from mist.runtime.stream_source import InputStart
from mist.runtime.worker import Worker
from mist.stream.buffer_watch import BufferWatch
from mist.stream.publisher import StreamPublisher
from mist.stream.reader import StreamReader
from mist.stream.services import InputServices
from mist.stream.variables import all_values, custom_values, replace_in
from mist.stream.visits import end_lines

log = logging.getLogger(__name__)

STOP_SECONDS = 1.5
WATCH_SECONDS = 1.0
PUSHED = "push://"
CLEAN = "CLEAN"
TOKEN_ENDED = "UNAUTHORISED"
NO_FAILURES = ("TRIGGER", TOKEN_ENDED)  # ends that somebody wanted, beside the clean ones


class _Refused(AccessDenied):
    """A handler of a trigger does not want this source."""


class InputWorker(Worker):
    """Runs an input until its source ends, fails or is told to stop."""

    forwards_media = True

    def __init__(
        self,
        server: Server,
        channel: Channel,
        stream: str,
        source: str,
        connector: str,
        role: InputRole | None,
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
        self.ahead: Any = None
        self.watch: BufferWatch | None = None
        self._start = start
        self._admitted = start.admitted  # by the handlers of triggers
        self._given = start.source
        self._goes_on = False  # in another process
        self._gives_way = False  # ... which is there and waits
        self._connector = connector
        self._role = role
        self._token: PublisherToken | None = None
        self._task: asyncio.Task[None] | None = None
        self._reason, self._text = "CLEAN_EOF", "the source has ended"

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

    def variables(self) -> Mapping[str, str]:
        """Return the values of all variables as they are now; see `InputServices`."""
        return all_values(custom_values(self.snapshot), self.stream, datetime.now())

    def started(self) -> None:
        if self._start.standby:
            self.spawn(self._stand_by())
        else:
            self._begin()

    async def _stand_by(self) -> None:
        """Do what can be done before it is this process's turn."""
        self.source = replace_in(self._given or self.source, self.stream, self.snapshot)
        if self._given and self.fd < 0:
            self._find_input()
        begin_ahead = getattr(self._role, "begin_ahead", None)
        if begin_ahead is not None and self.fd < 0:
            try:
                self.ahead = await begin_ahead(cast(InputServices, self))
            except MistError as error:
                log.debug("The source cannot be begun ahead: %s", error)
        if self._task is None:
            self.channel.send({"event": "standing by"})
        elif self.ahead is not None:  # it was needed before all was ready
            self.ahead.close()
            self.ahead = None

    def _begin(self) -> None:
        if self._start.state_fd >= 0:
            self.state = read_memory_file(self._start.state_fd)
            os.close(self._start.state_fd)
        self._began = self._start.began or time.time()
        try:
            self._take_place()
        except MistError as error:
            self._failed(error)
            self._tell_end()
            self.finish()
            return
        if self.publisher.table.valid_tracks():
            self._watch_buffer(as_is=True)
        self._task = self.loop.create_task(self._run())
        self._follow_token(str(self.request.get("shown", "")))

    def _take_place(self) -> None:
        """Open the stream and a record in shared memory. Raises SharedMemoryFull."""
        limits = stream_limits(self.snapshot, self.stream)
        bells = str(self.server.instance.bells)
        self.publisher = StreamPublisher(self.instance, self.stream, bells, limits, resumed=self._start.resumed)
        self.publisher.on_ready = self._became_ready
        connector = str(self.request.get("connector") or self._connector)
        self.record = self.open_record(f"INPUT:{connector}", str(self.request.get("host", "")))
        self.record.set_stream(self.stream)
        self.record.set_token(str(self.request.get("token", "")))

    def _follow_token(self, token: str) -> None:
        if token:
            link = SessionLink(self.server.instance, self.loop, lambda: self.snapshot)
            host = str(self.request.get("host", ""))
            self._token = PublisherToken(token, host, link, self.loop, self.spawn, self._token_ended)

    def _token_ended(self) -> None:
        self._reason, self._text = TOKEN_ENDED, "the publisher's token holds no more"
        self.stop(TOKEN_ENDED)

    def _became_ready(self) -> None:
        self.channel.send({"event": "ready"})
        if not self.request.get("visit") and not self._start.resumed and self._fires("STREAM_READY"):
            self.spawn(self._check_ready())
        self._watch_buffer()

    async def _check_ready(self) -> None:
        """End a source whose stream the handlers of triggers do not want."""
        if not await self.triggers.allows("STREAM_READY", self.stream, [self.stream, self._connector]):
            self._reason, self._text = "TRIGGER", "STREAM_READY was refused"
            self.stop("TRIGGER")

    def _fires(self, *names: str) -> bool:
        return bool(self.server_config.get("triggers")) and any(
            self.triggers.wanted(name, self.stream) for name in names
        )

    def _watch_buffer(self, *, as_is: bool = False) -> None:
        """Look at the live buffer once a second, if a handler wants to know about it. as_is: it was told what there is."""
        if self.watch is None and not self.publisher.table.on_demand and self._fires(*BufferWatch.FIRED):
            self.watch = BufferWatch(self.triggers, StreamReader(self.instance, self.stream), as_is=as_is)
            self.loop.call_soon(self._look, self.watch)

    def _look(self, watch: BufferWatch) -> None:
        try:
            due = watch.look()
        except MistError as error:
            log.debug("The buffer cannot be looked at: %s", error)
            return
        if due:
            self.spawn(self._check_bandwidth(due))
        self.loop.call_later(WATCH_SECONDS, self._look, watch)

    async def _check_bandwidth(self, rate: int) -> None:
        if not await self.triggers.allows("LIVE_BANDWIDTH", self.stream, [self.stream, str(rate)]):
            self._reason, self._text = "TRIGGER", f"LIVE_BANDWIDTH refuses {rate} bytes a second"
            self.channel.send({"event": "end", "reason": "TRIGGER"})

    def reconfigured(self) -> None:
        if self._task is not None and self.publisher.table.valid_tracks():
            self._watch_buffer()
        if self._token is not None:
            self._token.check()

    def serve_spans(self, answer: Answer, answer_layout: AnswerLayout) -> SpanServer:
        """Serve the spans of an on-demand stream; see `InputServices`."""
        return SpanServer(self.server.instance, self.loop, answer, answer_layout)

    async def _run(self) -> None:
        try:
            role = await self._admit()
            self._admitted = True
            self.channel.send({"event": "taken", "input": self._connector, "source": self._given})
            await role.run(cast(InputServices, self))
        except _Refused as error:
            self._refused(error)
        except MistError as error:
            self._failed(error)
        except asyncio.CancelledError:
            log.info("Stopped")
        except Exception:
            log.exception("The input failed")
            self._reason, self._text = "INTERNAL_ERROR", "a defect, see the log"
            self._goes_on = True
            self.exit_status = 1
        finally:
            self._tell_end()
            if self.ahead is not None:
                self.ahead.close()
            if self._token is not None:
                self._token.close()
            self.record.close()
            self.publisher.close()
            if self._gives_way:
                self.channel.send({"event": "left"})
            self.finish()

    async def _admit(self) -> InputRole:
        """Return the input that runs, once the handlers of triggers have had their say. Raises _Refused, NotFound."""
        if self._start.begins and not self._admitted and self._fires("STREAM_LOAD", "STREAM_SOURCE"):
            if not await self.triggers.allows("STREAM_LOAD", self.stream, [self.stream]):
                raise _Refused(f"The stream {self.stream} may not be loaded")
            self._given = (await self.triggers.replace("STREAM_SOURCE", self.stream, [self.stream], "")).strip()
        self.source = replace_in(self._given or self.source, self.stream, self.snapshot)
        if self._given:
            self._find_input()
        if self._role is None:
            raise NotFound(f'The stream {self.stream} has the source "{self.source}", which no input takes')
        if not self._admitted and self.request.get("visit"):
            await self._admit_publisher([str(one) for one in self.request["visit"]])
        return self._role

    async def _admit_publisher(self, lines: list[str]) -> None:
        """Ask the handlers of triggers about a publisher. Raises _Refused."""
        ready = [self.stream, "Buffer"]
        if self._start.begins and not await self.triggers.allows("STREAM_READY", self.stream, ready):
            raise _Refused(f"The stream {self.stream} may not be loaded")
        keyed = bool(self.request.get("source"))
        if not keyed and not await self.triggers.allows("STREAM_PUSH", self.stream, lines):
            raise _Refused("Publishing was refused")

    def _find_input(self) -> None:
        """Find what takes the source that a handler gave. Raises _Refused."""
        if self.source.startswith(PUSHED) != (self.fd >= 0):
            raise _Refused(f"The stream {self.stream} has another kind of source now")
        if self.fd < 0:
            self._connector = self.server.program.input_for(self.source) or ""
            self._role = self.server.program.inputs.get(self._connector)

    def _refused(self, error: _Refused) -> None:
        log.info("%s", error)
        self._reason, self._text = "TRIGGER", str(error)
        self.channel.send({"event": "refused", "text": str(error), "reason": "READ_START_FAILURE"})

    def _tell_end(self) -> None:
        """Tell the handlers of triggers how it ended."""
        if not self.server_config.get("triggers"):
            return
        if not self._reason.startswith(CLEAN) and self._reason not in NO_FAILURES:
            lines = [self.stream, self.source, f"MistIn{self._connector}", str(os.getpid()), self._reason, self._text]
            self.triggers.notify("INPUT_ABORT", self.stream, lines)
        visit = self.request.get("visit")
        if visit and self._admitted and not self._goes_on:
            self.triggers.notify("CONN_CLOSE", self.stream, [str(one) for one in visit])
            lines = end_lines(self.stream, "", str(visit[2]), 0, self._began, self._reason, self._text)
            self.triggers.notify("OUTPUT_END", self.stream, lines)

    def _failed(self, error: MistError) -> None:
        """Say why the source ended; a reason that begins with CLEAN is no failure."""
        clean = error.reason.startswith(CLEAN)
        self._reason, self._text = error.reason, str(error)
        log.log(logging.INFO if clean else logging.WARNING, "%s (%s)", str(error) or type(error).__name__, error.reason)
        self.channel.send({"event": "failed", "text": str(error), "reason": error.reason})
        self.exit_status = 0 if clean else 1

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        what = message.get("do")
        if what == "end_connections" and str(os.getpid()) in message["records"]:
            self.stop("CLEAN_CONTROLLER_REQ")
        elif what == "go" and self._task is None:
            self._begin()
        elif what == "yield" and self._task is not None:
            self._give_way(self._task)

    def _give_way(self, task: asyncio.Task[None]) -> None:
        """Stop at a clean point, from where another process goes on."""
        log.info("Another process goes on with the source")
        self.channel.send({"event": "yielded"})
        self._goes_on = self._gives_way = True
        if self.on_yield is not None:
            self.on_yield()
        else:
            task.cancel()

    def rejoined(self) -> None:
        """Show the next guardian what it must hold for whoever goes on when this process is killed."""
        fds = (self.fd, self.ring) if self.fd >= 0 else ()
        known = {
            "request": dict(self.request),
            "admitted": self._admitted,
            "input": self._connector,
            "source": self._given,
        }
        self.channel.send({"event": "inventory", **known}, fds)

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")

    def stopping(self, reason: str) -> None:
        log.info("Stopping: %s", reason)
        if self._reason not in NO_FAILURES:
            self._reason, self._text = reason, "stopped"
        if self._task is None:
            self.finish()
            return
        self._task.cancel()
        self.loop.call_later(STOP_SECONDS, self.finish)


def input_main(server: Server, stream: str, source: str, connector: str, role: InputRole | None) -> InputMain:
    """Return what makes the main function of an input process for one publisher, or for a source that is pulled."""

    def make(start: InputStart) -> WorkerMain:
        return lambda channel: InputWorker(server, channel, stream, source, connector, role, start).run()

    return make

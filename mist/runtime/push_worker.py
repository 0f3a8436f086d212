"""The process of pushes: runs what pushes to each one's kind of target, and says how far they are."""

from __future__ import annotations

import asyncio
import contextvars
import logging
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final, cast

from mist.core.checkpoint import Record
from mist.errors import AccessDenied, MistError, NotFound
from mist.net.remote_schemes import without_password
from mist.runtime import log as runtime_log
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.guardian import WorkerMain
from mist.runtime.instance import Instance
from mist.runtime.output_worker import OutputWorker
from mist.runtime.program import Server
from mist.runtime.push_ends import former_result, leave_result, make_result
from mist.runtime.worker import Worker
from mist.stream.push import LeftConnection, PushPlan, PushRole, PushStatus
from mist.stream.push_note import PushNote
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices
from mist.stream.visits import Visit

log = logging.getLogger(__name__)

STATUS_SECONDS: Final = 5.0
STOP_SECONDS: Final = 1.5
GRACE_SECONDS: Final = 20.0  # for a destination to take what it has not yet
_PLAN: Final[contextvars.ContextVar[PushPlan]] = contextvars.ContextVar("plan")
_STOPPED: Final = ("CLEAN_CONTROLLER_REQ", "stopped")


@dataclass(eq=False)
class Running:
    """A push of this process. leaving: it is to end when the destination has taken what there is."""

    plan: PushPlan
    role: PushRole
    status: PushStatus
    context: contextvars.Context = field(default_factory=contextvars.copy_context)
    task: asyncio.Task[tuple[str, str]] | None = None
    leaving: bool = False
    file: int = -1  # that is to outlive this process; for a push to a server its socket

    def document(self) -> dict[str, Any]:
        """Return how far it is, as the API shows it."""
        return self.status.document(int((time.time() - self.status.began) * 1000))


class PushWorker(OutputWorker):
    """Serves the pushes that the guardian gives it. The result of each goes to the guardian: reason and text, and the figures."""

    def __init__(self, server: Server, channel: Channel) -> None:
        super().__init__(server, channel, "pushes", cast(Any, None), {})
        self.program = "pushes"
        runtime_log.become(self.program)
        self._running: dict[int, Running] = {}
        self._left: dict[int, LeftConnection] = {}  # by push, of the process that had them before

    def title(self) -> str:
        if len(self._running) != 1:
            return f"pushes ({len(self._running)})"
        plan = next(iter(self._running.values())).plan
        return f"push {plan.stream} to {plan.connector}"

    def started(self) -> None:
        super().started()
        self.loop.call_later(STATUS_SECONDS, self._report)

    # -- one push --------------------------------------------------------------------------------------------------

    def _begin(self, plan: PushPlan, left_file: int = -1) -> None:
        """Begin a push. left_file: of the process that had it before, this one's from now on."""
        if plan.number in self._running:
            close_all([left_file] if left_file >= 0 else [])
            return
        note = push_note(self.server.instance, plan)
        if (result := former_result(note)) is not None:
            self.channel.send(result)
            close_all([left_file] if left_file >= 0 else [])
            return
        role = self.server.program.pushes[plan.connector]
        status = PushStatus(began=time.time(), note=note, left_file=left_file)
        status.left_connection = self._left.pop(plan.number, None)
        one = self._running[plan.number] = Running(plan, role, status)
        status.keep_file = lambda fd: self._keep(one, fd)
        status.keep_connection = lambda record, fd: self._keep_connection(one, record, fd)
        one.context.run(runtime_log.speak_for, f"push {plan.number}", plan.stream)
        one.context.run(_PLAN.set, plan)
        one.task = self.loop.create_task(self._push(one), context=one.context)
        one.task.add_done_callback(lambda task: self._over(one, task), context=one.context)
        self.show_title()

    def _keep(self, one: Running, fd: int) -> None:
        """Have the guardian keep a file open for the next process. fd: stays the push's own."""
        one.file = fd
        copy = os.dup(fd)
        self.channel.send({"event": "file", "number": one.plan.number}, (copy,), close=(copy,))

    def _keep_connection(self, one: Running, record: Record, fd: int) -> None:
        """Have the guardian keep a connection, with which the next process can go on. record, fd: stay the push's own."""
        try:
            if not record.recoverable:
                record.follow_socket(fd)
                record.set_connection(one.plan.number)
            self._keep(one, fd)
        except OSError as error:
            record.give_up()
            log.warning("The connection of push %d will end with this process: %s", one.plan.number, error)

    async def open_stream(self, name: str, visit: Visit | None = None) -> StreamReader:
        """Open the stream that a push begins to send; handlers are asked as for viewers, with neither address nor URL."""
        plan = _PLAN.get()
        if self._running[plan.number].status.goes_on:
            return await super().open_stream(name, visit)
        connector = plan.connector
        wanted = (await self.triggers.replace("PLAY_REWRITE", name, [name, "", connector, ""], name)).strip()
        if not wanted:
            raise NotFound("Nothing plays under this name")
        reader = await super().open_stream(wanted, visit)
        try:
            if not await self.triggers.allows("CONN_PLAY", reader.name, [reader.name, "", connector, ""]):
                raise AccessDenied("Not allowed to play")
        except BaseException:
            self.close_stream(reader)
            raise
        return reader

    async def _push(self, one: Running) -> tuple[str, str]:
        """Push to the end; returns reason and text."""
        try:
            await one.role.push(cast(OutputServices, self), one.plan, one.status)
        except MistError as error:
            return error.reason, str(error)
        except Exception:
            log.exception("The push failed")
            return "INTERNAL_ERROR", "a defect, see the log"
        return _STOPPED if one.leaving else ("CLEAN_EOF", "the stream has ended")

    def _over(self, one: Running, task: asyncio.Task[tuple[str, str]]) -> None:
        reason, text = _STOPPED if task.cancelled() else task.result()
        clean = reason.startswith("CLEAN")
        log.log(
            logging.INFO if clean else logging.WARNING,
            "Push to %s ended: %s (%s)",
            without_password(one.plan.target),
            text,
            reason,
        )
        self._tell_end(one, reason, text)
        del self._running[one.plan.number]
        self.show_title()
        if self._stopping and not self._running:
            self.finish()

    def _tell_end(self, one: Running, reason: str, text: str) -> None:
        """Say how it went to the guardian, which tells the handlers of triggers."""
        status = one.status
        result = make_result(
            one.plan.number,
            reason,
            text,
            status=one.document(),
            began=status.began,
            first_ms=status.first_ms,
        )
        if status.note is not None:
            leave_result(status.note, result)
        self.channel.send(result)

    def _end(self, number: int, *, gracefully: bool) -> None:
        """End a push with what it still has to send; gracefully, with what the destination has not taken yet, too.

        One that has just begun goes on to where the process before it was, first.
        """
        one = self._running.get(number)
        if one is None or one.task is None:
            return
        if gracefully and one.status.leave is not None and not one.leaving:
            one.leaving = True
            one.status.leave()
            self.loop.call_later(GRACE_SECONDS, one.task.cancel)
        else:
            self.loop.call_soon(one.task.cancel)

    # -- all of them -----------------------------------------------------------------------------------------------

    def _report(self) -> None:
        if self._running:
            documents = {number: one.document() for number, one in self._running.items()}
            self.channel.send({"event": "status", "pushes": documents})
        self.loop.call_later(STATUS_SECONDS, self._report)

    def command(self, message: Message, fds: list[int]) -> None:
        what = message.get("do")
        if what == "push":
            files = dict(zip(message.get("files", ()), fds, strict=True))
            for plan in message["plans"]:
                self._begin(PushPlan(**plan), files.get(plan["number"], -1))
        elif what == "end_push":
            close_all(fds)
            self._end(int(message["number"]), gracefully=bool(message.get("gracefully")))
        else:
            super().command(message, fds)

    def stopping(self, reason: str) -> None:
        if not self._running:
            self.finish()
            return
        for one in self._running.values():
            if one.task is not None:
                one.task.cancel()
        self.loop.call_later(STOP_SECONDS, self.finish)

    # -- connections of another process ----------------------------------------------------------------------------

    def resume(self, number: int, host: str, fd: int, former: Record, visit: Sequence[Any] | None) -> None:
        """Take a connection to another server for the push of that number, which is begun next."""
        record = Worker.open_record(self, "", host)
        record.adopt(former)
        self._left[number] = LeftConnection(fd, record)

    def serve(self, number: int, host: str, fd: int, visit: Sequence[Any] | None = None) -> None:
        """Close a connection on which no media was sent yet: the push connects again."""
        os.close(fd)

    def gone(self, number: int) -> None:
        """Take note that nobody can go on with a push's connection: it connects again."""

    def _drop_unused(self) -> None:
        super()._drop_unused()
        for number in list(self._left):
            left = self._left.pop(number)
            left.record.close()
            os.close(left.fd)
        self.channel.send({"held": list(self._arenas)})

    # -- the guardian ----------------------------------------------------------------------------------------------

    def guardian_gone(self) -> None:
        Worker.guardian_gone(self)  # with nothing but the pushes: there are no connections to go on with

    def show(self) -> tuple[Message, tuple[int, ...]]:
        return {"pushes": list(self._running)}, ()

    def rejoined(self) -> None:
        """Have the next guardian keep what the former one kept."""
        for one in self._running.values():
            if one.file >= 0:
                self._keep(one, one.file)
        super().rejoined()

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")


def push_note(instance: Instance, plan: PushPlan) -> PushNote:
    """Return where a push's processes leave what the next one needs."""
    return PushNote(instance.push_notes, plan.number)


def push_main(server: Server) -> WorkerMain:
    """Return what a worker of pushes runs."""
    return lambda channel: PushWorker(server, channel).run()

"""The worker of a push: runs what pushes to its kind of target, and says how far it is."""

from __future__ import annotations

import asyncio
import logging
import time
from contextlib import suppress
from typing import Any, Final, cast

from mist.errors import MistError
from mist.net.remote_schemes import without_password
from mist.runtime import log as runtime_log
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.guardian import WorkerMain
from mist.runtime.instance import Instance
from mist.runtime.output_worker import OutputWorker
from mist.runtime.program import Server
from mist.runtime.worker import Worker
from mist.stream.push import PushPlan, PushRole, PushStatus
from mist.stream.push_note import PushNote
from mist.stream.services import OutputServices

log = logging.getLogger(__name__)

STATUS_SECONDS: Final = 5.0
STOP_SECONDS: Final = 1.5
_RESULT: Final = "result"


class PushWorker(OutputWorker):
    """Serves one push. Its result goes to the guardian before it ends: reason and text, and the figures."""

    def __init__(self, server: Server, channel: Channel, plan: PushPlan, role: PushRole) -> None:
        super().__init__(server, channel, plan.connector, cast(Any, None), {})
        self.program = f"push {plan.number}"
        runtime_log.become(self.program, plan.stream)
        self._plan = plan
        self._push = role
        self._status = PushStatus(began=time.time(), note=push_note(server.instance, plan))
        self._task: asyncio.Task[None] | None = None

    def title(self) -> str:
        return f"push {self._plan.stream} to {self._plan.connector}"

    def started(self) -> None:
        super().started()
        self._task = self.spawn(self._run())
        self.loop.call_later(STATUS_SECONDS, self._report)

    def _former_result(self) -> Message | None:
        """Return what a process before this one said at the push's end, if it did: nobody may have heard it."""
        try:
            left = None if self._status.note is None else self._status.note.read()
        except (OSError, ValueError):
            return None
        return None if left is None else left[0].get(_RESULT)

    async def _run(self) -> None:
        if (result := self._former_result()) is not None:
            self.channel.send(result)
            self.finish()
            return
        reason, text = "CLEAN_EOF", "the stream has ended"
        try:
            await self._push.push(cast(OutputServices, self), self._plan, self._status)
        except asyncio.CancelledError:
            reason, text = "CLEAN_CONTROLLER_REQ", "stopped"
        except MistError as error:
            reason, text = error.reason, str(error)
        except Exception:
            log.exception("The push failed")
            reason, text = "INTERNAL_ERROR", "a defect, see the log"
        clean = reason.startswith("CLEAN")
        log.log(
            logging.INFO if clean else logging.WARNING,
            "Push to %s ended: %s (%s)",
            without_password(self._plan.target),
            text,
            reason,
        )
        self._tell_end(reason, text)
        self.finish()

    def _tell_end(self, reason: str, text: str) -> None:
        """Say how it went: to the guardian, and to the handlers of triggers."""
        plan, status, ended = self._plan, self._status, time.time()
        message = {"event": "result", "reason": reason, "text": text, "status": self._document()}
        if status.note is not None:
            with suppress(OSError):
                status.note.write({_RESULT: message}, _RESULT, dict)
        self.channel.send(message)
        first = 2**64 - 1 if status.first_ms is None else status.first_ms
        lines = [
            plan.stream,
            status.current_target or plan.target,
            plan.connector,
            str(status.bytes),
            str(int(ended - self._status.began)),
            str(int(self._status.began)),
            str(int(ended)),
            str(status.media_ms),
            str(first),
            str(status.last_ms or 0),
            reason,
            text,
            "",
        ]
        if status.current_target:
            self.triggers.notify("RECORDING_END", plan.stream, lines)
        self.triggers.notify("OUTPUT_END", plan.stream, lines)

    def _document(self) -> dict[str, Any]:
        return self._status.document(int((time.time() - self._status.began) * 1000))

    def _report(self) -> None:
        self.channel.send({"event": "status", "status": self._document()})
        self.loop.call_later(STATUS_SECONDS, self._report)

    def command(self, message: Message, fds: list[int]) -> None:
        if message.get("do") == "end_push":
            close_all(fds)
            if self._task is not None:
                self._task.cancel()
        else:
            super().command(message, fds)

    def stopping(self, reason: str) -> None:
        if self._task is not None:
            self._task.cancel()
        self.loop.call_later(STOP_SECONDS, self.finish)

    def guardian_gone(self) -> None:
        Worker.guardian_gone(self)  # with nothing but the push: there are no connections to go on with

    def rejoined(self) -> None:
        """The next guardian needs to know nothing more."""

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")


def push_note(instance: Instance, plan: PushPlan) -> PushNote:
    """Return where a push's processes leave what the next one needs."""
    return PushNote(instance.push_notes, plan.number)


def push_main(server: Server, plan: PushPlan, role: PushRole) -> WorkerMain:
    """Return what the worker of a push runs."""
    return lambda channel: PushWorker(server, channel, plan, role).run()

"""The worker of a push: runs what pushes to its kind of target, and says how far it is."""

from __future__ import annotations

import asyncio
import logging
import time
from typing import Any, Final, cast

from mist.errors import MistError
from mist.net.remote_schemes import without_password
from mist.runtime import log as runtime_log
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.guardian import WorkerMain
from mist.runtime.output_worker import OutputWorker
from mist.runtime.program import Server
from mist.stream.push import PushPlan, PushRole, PushStatus
from mist.stream.services import OutputServices

log = logging.getLogger(__name__)

STATUS_SECONDS: Final = 5.0
STOP_SECONDS: Final = 1.5


class PushWorker(OutputWorker):
    """Serves one push. Its result goes to the guardian before it ends: reason and text, and the figures."""

    def __init__(self, server: Server, channel: Channel, plan: PushPlan, role: PushRole) -> None:
        super().__init__(server, channel, plan.connector, cast(Any, None), {})
        self.program = f"push {plan.number}"
        runtime_log.become(self.program, plan.stream)
        self._plan = plan
        self._push = role
        self._status = PushStatus()
        self._began = time.time()
        self._task: asyncio.Task[None] | None = None

    def title(self) -> str:
        return f"push {self._plan.stream} to {self._plan.connector}"

    def started(self) -> None:
        super().started()
        self._task = self.spawn(self._run())
        self.loop.call_later(STATUS_SECONDS, self._report)

    async def _run(self) -> None:
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
        self.channel.send({"event": "result", "reason": reason, "text": text, "status": self._document()})
        first = 2**64 - 1 if status.first_ms is None else status.first_ms
        lines = [
            plan.stream,
            status.current_target or plan.target,
            plan.connector,
            str(status.bytes),
            str(int(ended - self._began)),
            str(int(self._began)),
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
        return self._status.document(int((time.time() - self._began) * 1000))

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

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")


def push_main(server: Server, plan: PushPlan, role: PushRole) -> WorkerMain:
    """Return what the worker of a push runs."""
    return lambda channel: PushWorker(server, channel, plan, role).run()

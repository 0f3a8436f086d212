"""The process that runs the handlers of triggers, for all other processes.

It has what handlers need (an HTTP client, connections kept open, children), so that nobody else does, and what it waits
for holds up only who asked for it. The main process owns its socket: what is asked while it restarts waits there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Coroutine, Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from mist.net.handler_calls import Call, CallFailed, Event, HandlerCalls
from mist.net.handler_calls import Server as Described
from mist.net.variable_sources import read_source
from mist.runtime.channel import Channel, Message
from mist.runtime.door import DoorWorker, answer
from mist.runtime.family import TRIGGERS as KEY
from mist.runtime.program import Server
from mist.runtime.trigger_link import handlers_of
from mist.stream.triggers import TRIGGERS, Answer, Handler, due

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 1.0
MAX_TOLD: Final = 20_000  # events that are not to be told again


@dataclass(slots=True)
class Count:
    """What became of the calls of one trigger's handlers."""

    count: int = 0
    ms: int = 0
    fails: int = 0


class TriggerProcess(DoorWorker):
    """Answers `fire` and `statistics` on its socket."""

    program = key = KEY

    def __init__(self, server: Server, channel: Channel, door: socket.socket) -> None:
        super().__init__(server, channel, door)
        self._counts: dict[str, Count] = {}
        self._running: set[asyncio.Task[None]] = set()
        self._told: dict[tuple[str, str], None] = {}  # by trigger: what is told once only; oldest first
        self._calls = HandlerCalls(self._described)

    def _described(self) -> Described:
        name = str(self.snapshot["config"].get("serverid") or "")
        return Described(self.server.instance.identity(), name, self.server.program.version)

    def is_occupied(self) -> bool:
        return bool(self._running)

    def asked(self, visitor: Channel, message: Message) -> None:
        what = message.get("do")
        if what == "fire" and message.get("trigger") in TRIGGERS:
            if self._is_told(message):
                answer(visitor, message, {"results": []})
                return
            self._do(self._fire(visitor, message))
        elif what == "variable":
            self._do(self._read_variable(visitor, message))
        elif what == "statistics":
            answer(visitor, message, {"triggers": {name: asdict(count) for name, count in self._counts.items()}})
        else:
            answer(visitor, message, {"error": "NotFound", "text": f"no trigger is called {message.get('trigger')}"})

    def _is_told(self, message: Message) -> bool:
        """Tell whether an event that is told once only was told before; take note of it."""
        event = message["trigger"], str(message.get("once", ""))
        if not event[1]:
            return False
        if event in self._told:
            return True
        self._told[event] = None
        if len(self._told) > MAX_TOLD:
            del self._told[next(iter(self._told))]
        return False

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self.loop.create_task(work)
        self._running.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._running.discard(task)
            self.end_when_left()

        task.add_done_callback(done)

    # -- handlers --------------------------------------------------------------------------------------------------

    async def _fire(self, visitor: Channel, message: Message) -> None:
        """Call the handlers one after another; those that are not waited for run on beside."""
        stream = str(message.get("stream", ""))
        found = handlers_of(self.snapshot, message["trigger"], stream)
        found = due(message["trigger"], found, str(message["payload"]).split("\n"))
        event = Event(message["trigger"], str(message["payload"]), int(message["pid"]), int(message["unix_ms"]))
        results: list[Mapping[str, Any]] = []
        beside: list[asyncio.Task[tuple[str | None, str, int]]] = []
        for handler in found:
            said, why, took_ms = None, "", 0
            if handler.blocking or message.get("test"):
                said, why, took_ms = await self._call(handler, event, blocking=True)
            else:
                beside.append(self.loop.create_task(self._call(handler, event, blocking=False)))
            results.append(
                {
                    "target": handler.target,
                    "default": handler.default,
                    "blocking": handler.blocking,
                    "answer": said,
                    "error": why,
                    "ms": took_ms,
                }
            )
        answer(visitor, message, {"results": results})
        for task in beside:
            await task

    async def _read_variable(self, visitor: Channel, message: Message) -> None:
        """Answer with the new value of a custom variable."""
        try:
            value = await read_source(str(message["name"]), str(message["target"]), float(message["seconds"]))
        except CallFailed as error:
            answer(visitor, message, {"error": "MistError", "text": f"{message['target']}: {error}"})
            return
        answer(visitor, message, {"value": value})

    async def _call(self, handler: Handler, event: Event, *, blocking: bool) -> tuple[str | None, str, int]:
        """Return a handler's answer, None if there is none, why there is none, and the milliseconds that it took."""
        if not handler.target:
            return None, "", 0
        count = self._counts.setdefault(event.trigger, Count())
        otherwise = "true" if TRIGGERS[event.trigger].answer is Answer.DECISION else ""
        default = otherwise if handler.default is None else handler.default
        call = Call(handler.target, default, handler.attempts, handler.timeout_s, handler.secret)
        began = time.monotonic()
        said: str | None = None
        why = ""
        try:
            said = await self._calls.call(call, event, blocking=blocking)
        except CallFailed as error:
            why = str(error)
            count.fails += 1
            log.warning("The handler %s of %s failed: %s", handler.target, event.trigger, error)
        count.count += 1
        took_ms = int((time.monotonic() - began) * 1000)
        count.ms += took_ms
        return said, why, took_ms

    # -- end -------------------------------------------------------------------------------------------------------

    def stopping(self, reason: str) -> None:
        """Let what was asked come to its end, for a while."""
        self.stop_listening()
        self.spawn(self._wind_up())

    async def _wind_up(self) -> None:
        if self._running:
            await asyncio.wait(set(self._running), timeout=STOP_SECONDS)
        self._calls.close()
        self.finish()

"""The process that runs the handlers of triggers, for all other processes.

It has what handlers need (an HTTP client, connections kept open, children), so that nobody else does, and what it waits
for holds up only who asked for it. The main process owns its socket: what is asked while it restarts waits there.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

from mist.net.handler_calls import Call, CallFailed, Event, HandlerCalls
from mist.net.handler_calls import Server as Described
from mist.runtime.channel import Channel, Message
from mist.runtime.door import DoorWorker, answer
from mist.runtime.program import Server
from mist.runtime.trigger_link import tags_of
from mist.stream.triggers import TRIGGERS, Handler, handlers

log = logging.getLogger(__name__)

STOP_SECONDS: Final = 1.0


@dataclass(slots=True)
class Count:
    """What became of the calls of one trigger's handlers."""

    count: int = 0
    ms: int = 0
    fails: int = 0


class TriggerProcess(DoorWorker):
    """Answers `fire` and `statistics` on its socket."""

    program = key = "triggers"

    def __init__(self, server: Server, channel: Channel, door: socket.socket) -> None:
        super().__init__(server, channel, door)
        self._counts: dict[str, Count] = {}
        self._running: set[asyncio.Task[None]] = set()
        name = str(self.snapshot["config"].get("serverid") or "")
        self._calls = HandlerCalls(Described(server.instance.name, name, server.program.version))

    def asked(self, visitor: Channel, message: Message) -> None:
        what = message.get("do")
        if what == "fire" and message.get("trigger") in TRIGGERS:
            task = self.loop.create_task(self._fire(visitor, message))
            self._running.add(task)
            task.add_done_callback(self._running.discard)
        elif what == "statistics":
            answer(visitor, message, {"triggers": {name: asdict(count) for name, count in self._counts.items()}})
        else:
            answer(visitor, message, {"error": "NotFound", "text": f"no trigger is called {message.get('trigger')}"})

    # -- handlers --------------------------------------------------------------------------------------------------

    async def _fire(self, visitor: Channel, message: Message) -> None:
        """Call the handlers one after another; those that are not waited for run on beside."""
        stream = str(message.get("stream", ""))
        found = handlers(self.snapshot["config"], message["trigger"], stream, tags_of(self.snapshot, stream))
        event = Event(message["trigger"], str(message["payload"]), int(message["pid"]), int(message["unix_ms"]))
        results: list[Mapping[str, Any]] = []
        beside: list[asyncio.Task[str | None]] = []
        for handler in found:
            said = None
            if handler.blocking:
                said = await self._call(handler, event)
            else:
                beside.append(self.loop.create_task(self._call(handler, event)))
            results.append(
                {"target": handler.target, "default": handler.default, "blocking": handler.blocking, "answer": said}
            )
        answer(visitor, message, {"results": results})
        for task in beside:
            await task

    async def _call(self, handler: Handler, event: Event) -> str | None:
        """Return a handler's answer, or None if there is none."""
        if not handler.target:
            return None
        count = self._counts.setdefault(event.trigger, Count())
        call = Call(handler.target, handler.default or "", handler.attempts, handler.timeout_s, handler.secret)
        began = time.monotonic()
        said: str | None = None
        try:
            said = await self._calls.call(call, event, blocking=handler.blocking)
        except CallFailed as error:
            count.fails += 1
            log.warning("The handler %s of %s failed: %s", handler.target, event.trigger, error)
        count.count += 1
        count.ms += int((time.monotonic() - began) * 1000)
        return said

    # -- end -------------------------------------------------------------------------------------------------------

    def stopping(self, reason: str) -> None:
        """Let what was asked come to its end, for a while."""
        self.stop_listening()
        self.spawn(self._wind_up())

    async def _wind_up(self) -> None:
        if self._running:
            await asyncio.wait(set(self._running), timeout=STOP_SECONDS)
        await self._calls.close()
        self.finish()

"""The main process's book of pushes: which run, how far they are, and which have ended lately."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from mist.errors import LimitExceededError, NotFound
from mist.net.remote_schemes import BUILT_IN, remote_schemes, scheme_of, without_password
from mist.runtime.backoff import Backoff
from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.family import Child, Family
from mist.runtime.guardian import RETIRED, guardian_main
from mist.runtime.listeners import MAX_JOINING, give_way, pass_on_all
from mist.runtime.program import Server
from mist.runtime.push_guardian import make_push_duty
from mist.runtime.push_worker import push_main, push_note
from mist.runtime.reactor import Reactor
from mist.runtime.rejoin import refuse
from mist.runtime.snapshot import read_snapshot
from mist.runtime.succession import Succession
from mist.stream.push import PushPlan

log = logging.getLogger(__name__)

KIND = "push"  # the first word of the names of guardians of pushes
MAX_PUSHES = 10_000
ENDED_SECONDS = 60.0  # how long the result of a push is to be seen
MAX_ENDED = 1000  # results: a thousand pushes that fail and are started again every few seconds leave many


@dataclass(eq=False)
class Push:
    """One push. result: how it ended, None while it runs."""

    plan: PushPlan
    child: Child | None = None
    worker: int = 0  # process number
    began: float = field(default_factory=time.time)
    status: Message | None = None
    result: Message | None = None
    ended: float = 0.0
    stopping: bool = False
    backoff: Backoff = field(default_factory=Backoff)
    joining: list[tuple[Message, list[int]]] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{KIND} {self.plan.number}"


class Pushes:
    """Starts guardians of pushes, and ends them."""

    def __init__(
        self,
        server: Server,
        family: Family,
        reactor: Reactor,
        changed: Callable[[], None],
        succession: Succession,
    ) -> None:
        self._succession = succession
        self._server = server
        self._family = family
        self._reactor = reactor
        self._changed = changed
        self._pushes: dict[int, Push] = {}
        self._over: deque[Push] = deque()  # those that have ended, oldest first
        self._numbers = itertools.count(1)
        self._closed = False

    def start(self, stream: str, requested: str, target: str) -> int:
        """Start a push and return its number. Raises NotFound (nothing pushes to such a target), LimitExceededError."""
        program = self._server.program
        found = program.push_role(target, BUILT_IN)
        if found is None and scheme_of(target):
            writers = read_snapshot(self._server.instance).get("extwriters") or ()
            found = program.push_role(target, remote_schemes(writers))
        if found is None:
            raise NotFound(f"No output pushes to {without_password(target)}")
        connector, plain = found
        if len(self._pushes) - len(self._over) >= MAX_PUSHES:
            raise LimitExceededError(f"{MAX_PUSHES} pushes run already")
        plan = PushPlan(next(self._numbers), stream, requested, plain, connector)
        push = self._pushes[plan.number] = Push(plan)
        push_note(self._server.instance, plan).remove()
        self._start(push)
        return plan.number

    def stop(self, number: int, reason: str) -> None:
        """End a push. Raises NotFound."""
        push = self._pushes.get(number)
        if push is None or push.result is not None:
            raise NotFound(f"There is no push {number}")
        push.stopping = True
        if push.child is not None:
            push.child.channel.send({"do": "stop", "reason": reason})

    # -- guardians -------------------------------------------------------------------------------------------------

    def _start(self, push: Push) -> None:
        if self._closed or push.stopping:
            return
        plan, server, worker = push.plan, self._server, push.worker
        note = push_note(server.instance, plan)

        def guard(channel: Channel) -> int:
            main = push_main(server, plan, server.program.pushes[plan.connector])
            name = f"push {plan.stream} {plan.number}"
            return guardian_main(
                server, channel, make_push_duty(plan, main, note, worker), name, push.name, plan.stream
            )

        push.child = self._family.start(
            f"The guardian of push {plan.number}",
            guard,
            on_message=lambda child, message, fds: self._said(push, message, fds),
            on_ended=lambda child, status: self._ended(push, status),
        )
        pass_on_all(push.child, push.joining)
        self._changed()

    def _said(self, push: Push, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("event") == "worker":
            push.worker = int(message["pid"])
            return
        if "status" in message:
            push.status = message["status"]
        if message.get("event") == "settled" and push.child is not None and push.child.build == running_build():
            self._succession.done(push)
        if message.get("event") == "result":
            push.result = {"reason": message["reason"], "text": message["text"]}
        self._changed()

    def _ended(self, push: Push, status: int) -> None:
        child, push.child = push.child, None
        assert child is not None
        if status != 0 and push.result is None and not push.stopping and not self._closed:
            delay = 0.0 if status == RETIRED else push.backoff.next_delay(child.ran_seconds())
            self._reactor.call_later(delay, self._start, push)
            return
        push.result = push.result or {"reason": "CLEAN_CONTROLLER_REQ", "text": "stopped"}
        push.ended = time.time()
        self._succession.done(push)
        push_note(self._server.instance, push.plan).remove()
        for _, fds in push.joining:
            refuse(fds, "its push has ended")
        self._over.append(push)
        if len(self._over) > MAX_ENDED:
            del self._pushes[self._over.popleft().plan.number]
        self._reactor.call_later(ENDED_SECONDS, self._forget)
        self._changed()

    def _forget(self) -> None:
        """Forget the pushes whose results were to be seen long enough."""
        until = time.time() - ENDED_SECONDS
        while self._over and self._over[0].ended <= until:
            del self._pushes[self._over.popleft().plan.number]
        self._changed()

    # -- processes of former guardians and main processes ----------------------------------------------------------

    def take(self, message: Message, fds: list[int]) -> None:
        """Take over a guardian whose main process is gone."""
        plan = PushPlan(**message["note"]["plan"])
        push = self._pushes.setdefault(plan.number, Push(plan))
        push.worker = int(message["note"].get("worker", 0))
        if push.child is not None:
            refuse(fds, "the push has another guardian")
            return
        self._numbers = itertools.count(max(self._pushes) + 1)
        push.child = self._family.adopt(
            f"The guardian of push {plan.number}",
            message,
            fds[:2],
            on_message=lambda child, message, fds: self._said(push, message, fds),
            on_ended=lambda child, status: self._ended(push, status),
        )
        if push.child is None:
            del self._pushes[plan.number]
            return
        if push.child.build != running_build():
            give_way(self._succession, push, push.child)
        pass_on_all(push.child, push.joining)
        self._changed()

    def pass_on(self, message: Message, fds: list[int]) -> None:
        """Give a worker whose guardian is gone to the next one."""
        push = self._pushes.get(int(str(message["to"]).removeprefix(f"{KIND} ")))
        if push is None or push.result is not None or len(push.joining) >= MAX_JOINING:
            refuse(fds, "its push has ended")
            return
        push.joining.append((message, fds))
        if push.child is not None:
            pass_on_all(push.child, push.joining)

    def states(self) -> list[dict[str, Any]]:
        """Return all pushes, and for a while those that have ended, for the status."""
        return [
            {
                **push.plan.document(),
                "guardian": push.child.pid if push.child is not None else 0,
                "began": push.began,
                "status": push.status,
                "result": push.result,
                "ended": push.ended,
            }
            for push in self._pushes.values()
        ]

    def close(self) -> None:
        """Start nothing any more."""
        self._closed = True

"""The main process's book of pushes: which run, how far they are, and which have ended lately."""

from __future__ import annotations

import itertools
import logging
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from mist.errors import LimitExceededError, NotFound
from mist.net.remote_schemes import BUILT_IN, remote_schemes, scheme_of, without_password
from mist.runtime.backoff import ONLY_ONE_SECONDS, Backoff
from mist.runtime.book import Around, Book, pass_on_all, retire
from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.family import Child
from mist.runtime.guardian import RETIRED, guardian_main
from mist.runtime.push_guardian import PushesDuty
from mist.runtime.push_worker import push_note
from mist.runtime.rejoin import refuse
from mist.runtime.snapshot import read_snapshot
from mist.stream.push import PushPlan

log = logging.getLogger(__name__)

KIND = "push"  # the guardian's key
NAME = "The guardian of the pushes"
MAX_PUSHES = 10_000
ENDED_SECONDS = 60.0  # how long the result of a push is to be seen
IDLE_SECONDS = 10.0  # that the guardian waits for another push after the last one
MAX_ENDED = 1000  # results: a thousand pushes that fail and are started again every few seconds leave many
TOLD_SECONDS = 5.0  # in which the controller has seen a result; so long it stays in any case


@dataclass(eq=False)
class Push:
    """One push. stopping: why it is told to end. result: how it ended, None while it runs."""

    plan: PushPlan
    worker: int = 0  # process number
    began: float = field(default_factory=time.time)
    status: Message | None = None
    result: Message | None = None
    ended: float = 0.0
    stopping: str = ""

    def order(self) -> Message:
        """Return what the guardian needs to know of it."""
        return {
            "plan": self.plan.document(),
            "worker": self.worker,
            "stopping": self.stopping,
            "began": self.began,
        }


class Pushes(Book):
    """Starts and ends pushes, by way of a guardian that is there as long as there are any."""

    def __init__(self, *around: *Around) -> None:
        super().__init__(*around)
        self._pushes: dict[int, Push] = {}
        self._over: deque[Push] = deque()  # those that have ended, oldest first
        self._numbers = itertools.count(1)
        self._guardian: Child | None = None
        self._planned = False  # another guardian
        self._backoff = Backoff(ONLY_ONE_SECONDS)
        self._joining: list[tuple[Message, list[int]]] = []  # workers that wait for a guardian

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
        if self._guardian is not None:
            self._guardian.channel.send({"do": "push", "pushes": [push.order()]})
        elif not self._planned:
            self._start_guardian()
        self._changed()
        return plan.number

    def stop(self, number: int, reason: str, *, gracefully: bool = False) -> None:
        """End a push, gracefully after its destination has taken what there is. Raises NotFound."""
        push = self._pushes.get(number)
        if push is None or push.result is not None:
            raise NotFound(f"There is no push {number}")
        push.stopping = reason
        self.tell({"do": "stop", "number": number, "reason": reason, "gracefully": gracefully})

    def tell(self, message: Message) -> None:
        """Send a message to the guardian."""
        if self._guardian is not None:
            self._guardian.channel.send(message)

    # -- the guardian ----------------------------------------------------------------------------------------------

    def _running(self) -> list[Push]:
        return [push for push in self._pushes.values() if push.result is None]

    def _start_guardian(self) -> None:
        self._planned = False
        if self._closed or self._guardian is not None or not self._running():
            self._succession.done(KIND)
            return
        server = self._server

        def guard(channel: Channel) -> int:
            return guardian_main(server, channel, lambda: PushesDuty(server), "pushes", KIND)

        try:
            self._guardian = self._family.start(NAME, guard, on_message=self._said, on_ended=self._guardian_ended)
        except OSError as error:
            log.error("%s cannot be started: %s; trying again", NAME, error.strerror)
            self._planned = True
            self._reactor.call_later(self._backoff.next_delay(0.0) or 1.0, self._start_guardian)
            return
        self._acquaint(self._guardian)
        self._changed()

    def _acquaint(self, guardian: Child) -> None:
        """Tell a guardian of all pushes, and give it the workers that wait for one."""
        guardian.channel.send({"do": "push", "pushes": [push.order() for push in self._running()]})
        pass_on_all(guardian, self._joining)

    def _said(self, child: Child, message: Message, fds: list[int]) -> None:
        close_all(fds)
        event = message.get("event")
        if event == "worker":
            for number in message["numbers"]:
                if number in self._pushes:
                    self._pushes[number].worker = int(message["pid"])
            return
        if event == "status":
            for number, status in message["pushes"].items():
                if int(number) in self._pushes:
                    self._pushes[int(number)].status = status
        elif event == "result":
            number = int(message["number"])
            push = self._pushes.get(number)
            if push is not None and push.result is None:
                push.status = message.get("status", push.status)
                self._end(push, {"reason": message["reason"], "text": message["text"]})
            child.channel.send({"do": "forget", "number": number})
        elif event == "settled" and child.build == running_build():
            self._succession.done(KIND)
        self._changed()

    def _end(self, push: Push, result: Message) -> None:
        """Note how a push ended."""
        push.result, push.ended = result, time.time()
        push_note(self._server.instance, push.plan).remove()
        self._over.append(push)
        while len(self._over) > MAX_ENDED and (
            self._over[0].ended < push.ended - TOLD_SECONDS or len(self._over) > MAX_PUSHES
        ):
            del self._pushes[self._over.popleft().plan.number]
        self._reactor.call_later(ENDED_SECONDS, self._forget)
        if len(self._over) == len(self._pushes):
            self._reactor.call_later(IDLE_SECONDS, self._end_idle)
        self._changed()

    def _end_idle(self) -> None:
        """End the guardian when there is nothing to guard."""
        if len(self._over) == len(self._pushes) and self._guardian is not None and not self._guardian.stopping:
            self._guardian.stopping = True
            self._guardian.channel.send({"do": "end"})

    def _guardian_ended(self, child: Child, status: int) -> None:
        self._guardian = None
        if self._closed:
            return
        at_once = status == RETIRED or child.stopping
        for push in self._running() if status == 0 and not child.stopping else ():
            self._end(push, {"reason": "CLEAN_CONTROLLER_REQ", "text": "stopped"})
        self._planned = True
        self._reactor.call_later(
            0.0 if at_once else self._backoff.next_delay(child.ran_seconds()), self._start_guardian
        )
        self._changed()

    def _forget(self) -> None:
        """Forget the pushes whose results were to be seen long enough."""
        until = time.time() - ENDED_SECONDS
        while self._over and self._over[0].ended <= until:
            del self._pushes[self._over.popleft().plan.number]
        self._changed()

    # -- processes of former guardians and main processes ----------------------------------------------------------

    def take(self, message: Message, fds: list[int]) -> None:
        """Take over a guardian whose main process is gone, with its pushes."""
        shown = message["note"].get("pushes")
        if shown is None:
            log.warning("A push of an older version ends; a rule begins it again")
            refuse(fds, "guardians have many pushes now")
            return
        for given in shown:
            plan = PushPlan(**given["plan"])
            if plan.number not in self._pushes:
                self._pushes[plan.number] = Push(plan, given["worker"], stopping=given["stopping"])
        self._numbers = itertools.count(max(self._pushes, default=0) + 1)
        if self._guardian is not None:
            self._retire_late(message, fds)
            self._acquaint(self._guardian)
            return
        self._guardian = self._family.adopt(
            NAME, message, fds[:2], on_message=self._said, on_ended=self._guardian_ended
        )
        if self._guardian is None:
            self._start_guardian()
            return
        self._acquaint(self._guardian)
        if self._guardian.build != running_build():
            self._succession.add(KIND, NAME, partial(self._retire_guardian, self._guardian))
        self._changed()

    def _retire_guardian(self, guardian: Child) -> None:
        """Let a guardian of other code retire, if it is still there."""
        if self._guardian is guardian:
            retire(guardian)

    def pass_on(self, message: Message, fds: list[int]) -> None:
        """Give a worker whose guardian is gone to the next one."""
        if not self._running() or len(self._joining) >= MAX_PUSHES:
            refuse(fds, "its pushes have ended")
            return
        self._joining.append((message, fds))
        if self._guardian is not None and not self._guardian.stopping:
            pass_on_all(self._guardian, self._joining)

    def states(self) -> list[dict[str, Any]]:
        """Return all pushes, and for a while those that have ended, for the status."""
        return [
            {
                **push.plan.document(),
                "began": push.began,
                "status": push.status,
                "result": push.result,
                "ended": push.ended,
            }
            for push in self._pushes.values()
        ]

    @property
    def pid(self) -> int:
        """The guardian's process number, 0 when there is none."""
        return 0 if self._guardian is None else self._guardian.pid

    def close(self) -> None:
        """Start nothing any more."""
        self._closed = True

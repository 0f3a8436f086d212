"""A reload: the configuration is read again, and newly installed code takes over."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from mist.runtime.build import installed_build, is_current, running_build
from mist.runtime.channel import Channel, Message
from mist.runtime.family import Family
from mist.runtime.notify import notify
from mist.runtime.reactor import Reactor
from mist.runtime.upgrade import Trial

log = logging.getLogger(__name__)

IDLE_SECONDS = 5.0
IDLE_RETRY_SECONDS = 0.05
PROGRESS_SECONDS = 5.0

Waiting = tuple[Channel, Message]


class Reload:
    """The one reload that may be going on, and those who wait for it to end.

    ask_controller: has the controller read the file, or only if it has changed; False when there is none, which reads it at
    its start. execute: has the new code take over, given what its trial said and who waits; returns why it could not.
    is_busy: tells whether a publisher is just being handed over. failure: why the last upgrade was not made, "" if it was.
    """

    def __init__(
        self,
        family: Family,
        reactor: Reactor,
        ask_controller: Callable[[bool], bool],
        execute: Callable[[str, list[Waiting]], str],
        is_busy: Callable[[], bool],
    ) -> None:
        self._family = family
        self._reactor = reactor
        self._ask_controller = ask_controller
        self._execute = execute
        self._is_busy = is_busy
        self._waiting: list[Waiting] = []
        self._upgrading = False
        self._asked = False
        self._trial: Trial | None = None
        self.failure = ""

    def begin(self, waiting: Waiting | None = None, *, force: bool = False) -> None:
        """Reload, and upgrade if other code is installed or it is forced; who comes in the middle gets the same answer."""
        if waiting is not None:
            self._waiting.append(waiting)
        if self._asked or self._trial is not None:
            return
        notify(f"RELOADING=1\nMONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")
        self._upgrading = force or not is_current()
        self._asked = True
        if not self._ask_controller(self._upgrading):
            self.controller_said("")

    def controller_said(self, error: str) -> None:
        """Go on when the controller has read the configuration, or could not, or has ended."""
        if not self._asked:
            return
        self._asked = False
        if error or not self._upgrading:
            self._end(error)
            return
        log.info("Trying the code that is installed now, %s", installed_build(), extra={"kind": "CONF"})
        try:
            self._trial = Trial(self._family, self._reactor, self._tried)
        except OSError as os_error:
            self._fail(f"its trial cannot be started: {os_error.strerror}")
            return
        self._reactor.call_later(PROGRESS_SECONDS, self._tell_progress)

    def _tell_progress(self) -> None:
        """Let those who wait know that the trial goes on, which it may for TRIAL_SECONDS."""
        if self._trial is not None:
            tell_progress(self._waiting)
            self._reactor.call_later(PROGRESS_SECONDS, self._tell_progress)

    def _tried(self, works: bool, said: str) -> None:
        self._trial = None
        if not works:
            self._fail(said)
            return
        for line in said.splitlines():
            log.warning("The upgrade: %s", line)
        self._execute_when_idle(said, time.monotonic() + IDLE_SECONDS)

    def _execute_when_idle(self, notes: str, until: float) -> None:
        """Execute once nothing is under way that could not be asked again, or after a while."""
        if self._is_busy() and time.monotonic() < until:
            self._reactor.call_later(IDLE_RETRY_SECONDS, self._execute_when_idle, notes, until)
        else:
            self._fail(self._execute(notes, self._waiting))  # returns only if it fails

    def _fail(self, said: str) -> None:
        self.failure = f"the new code does not work, so {running_build()} goes on: {said}"
        log.error("%s", self.failure)
        self._end(self.failure)

    def _end(self, error: str) -> None:
        answer_all(self._waiting, error, "")
        self._waiting = []
        notify("READY=1" + (f"\nSTATUS=Reload failed: {error}" if error else ""))


def tell_progress(waiting: list[Waiting]) -> None:
    """Tell those who wait that there is nothing to worry about."""
    for channel, request in waiting:
        if "id" in request:
            channel.send({"progress": True, "reply": request["id"]})


def answer_all(waiting: list[Waiting], error: str, notes: str) -> None:
    """Tell those who wait how a reload ended."""
    for channel, request in waiting:
        answer: Message = {"error": "ConfigError", "text": error} if error else {"ok": True, "notes": notes}
        if "id" in request:
            channel.send({**answer, "reply": request["id"]})

"""A process that is started when somebody first knocks at its socket, and again at once when it was killed.

The main process owns the socket, so that who knocks while nobody is there only waits.
"""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path

from mist.runtime.backoff import ONLY_ONE_SECONDS, Backoff
from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.family import Child, ChildMain, Family
from mist.runtime.listeners import bind_unix
from mist.runtime.process import own
from mist.runtime.program import Server
from mist.runtime.reactor import Reactor
from mist.runtime.succession import Succession

log = logging.getLogger(__name__)

SOCKET_MODE = 0o660


class Attendant:
    """Keeps one such process. make_main: given the descriptor of the listening socket. changed: called when it is another one."""

    def __init__(
        self,
        name: str,
        path: Path,
        make_main: Callable[[int], ChildMain],
        family: Family,
        reactor: Reactor,
        changed: Callable[[], None],
        succession: Succession,
    ) -> None:
        self._name = name
        self._path = path
        self._make_main = make_main
        self._family = family
        self._reactor = reactor
        self._changed = changed
        self._succession = succession
        self._backoff = Backoff(ONLY_ONE_SECONDS)
        self._child: Child | None = None
        self._door: socket.socket | None = None

    @property
    def fds(self) -> list[int]:
        """Its listening socket, for the next main process."""
        return [] if self._door is None else [self._door.fileno()]

    @property
    def pid(self) -> int:
        """The number of the process, 0 when it does not run."""
        return self._child.pid if self._child is not None else 0

    def take_door(self, fds: Sequence[int]) -> bool:
        """Take the socket of a former main process, if there is one; returns whether it is the one that is used here."""
        if not fds:
            return False
        if self._door is None:
            self._door = own(socket.socket(fileno=fds[0]))
            return True
        same = os.fstat(fds[0]).st_ino == os.fstat(self._door.fileno()).st_ino
        close_all(fds)
        return same

    def take(self, message: Message, fds: list[int]) -> None:
        """Take over the process that another main process had started; it gives way to one of this when it is its turn."""
        same = self.take_door(fds[2:])
        child = self._family.adopt(self._name, message, fds[:2], on_message=_ignore, on_ended=self._ended)
        if child is None:
            return
        if self._child is not None or not same:
            _retire(child)
            return
        assert self._door is not None
        self._reactor.remove_reader(self._door.fileno())
        self._child = child
        if child.build != running_build():
            self._succession.add(self, self._name, partial(self._replace, child))
        self._changed()

    def _replace(self, child: Child) -> None:
        """Start the next process at once, so that never this one alone has the socket."""
        if self._child is child and self._door is not None:
            _retire(child)
            self._start_at_once()
        self._succession.done(self)

    def open(self) -> None:
        """Wait for the first visitor, at a new socket if nobody brought one. Called when all who come back are back."""
        if self._door is None:
            self._door = bind_unix(str(self._path), SOCKET_MODE)
        if self._child is None:
            self._wait()

    def _wait(self) -> None:
        if self._door is not None:
            self._reactor.add_reader(self._door.fileno(), self._start)

    def _start(self) -> None:
        assert self._door is not None
        self._reactor.remove_reader(self._door.fileno())
        if self._child is None:
            self._start_at_once()

    def _start_at_once(self) -> None:
        assert self._door is not None
        fd = self._door.fileno()
        try:
            self._child = self._family.start(
                self._name, self._make_main(fd), on_message=_ignore, on_ended=self._ended, fds=(fd,)
            )
        except OSError as error:
            log.error("%s cannot be started: %s", self._name, error.strerror)
            self._reactor.call_later(self._backoff.next_delay(0.0), self._again)
        self._changed()

    def _ended(self, child: Child, status: int) -> None:
        self._changed()
        if child is not self._child:
            return
        self._child = None
        if self._door is not None:
            if status:
                self._reactor.call_later(self._backoff.next_delay(child.ran_seconds()), self._again)
            else:
                self._wait()

    def _again(self) -> None:
        self._wait()
        if self._door is not None:
            self._start()

    def tell(self, message: Message) -> None:
        """Send a message to the process, if it runs."""
        if self._child is not None:
            self._child.channel.send(message)

    def close(self) -> None:
        """Start it no more."""
        door, self._door = self._door, None
        if door is not None:
            self._reactor.remove_reader(door.fileno())
            door.close()


def _retire(child: Child) -> None:
    child.watched = False  # it ends when it has answered what it was asked
    child.channel.send({"do": "retire"})


def _ignore(child: Child, message: Message, fds: Sequence[int]) -> None:
    close_all(fds)


def session_main(server: Server, fd: int) -> ChildMain:
    """Return what the process of the sessions runs. fd: its listening socket."""

    def main(channel: Channel) -> int:
        from mist.runtime.session_process import SessionProcess  # with an HTTP client that no other process needs

        return SessionProcess(server, channel, own(socket.socket(fileno=fd))).run()

    return main


def trigger_main(server: Server, fd: int) -> ChildMain:
    """Return what the process of the triggers runs. fd: its listening socket."""

    def main(channel: Channel) -> int:
        from mist.runtime.trigger_process import TriggerProcess  # with an HTTP client that no other process needs

        return TriggerProcess(server, channel, own(socket.socket(fileno=fd))).run()

    return main

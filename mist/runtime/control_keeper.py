"""The main process's care for the controller: its port, which survives it, and the process, which is started again."""

from __future__ import annotations

import logging
import socket
from collections.abc import Callable, Sequence
from typing import Final

from mist.errors import TransportError
from mist.runtime.backoff import ONLY_ONE_SECONDS, Backoff
from mist.runtime.book import Around, Book
from mist.runtime.build import is_same_edition, running_build
from mist.runtime.channel import Message, close_all
from mist.runtime.control import CONTROLLER, control_main
from mist.runtime.descriptor_store import forget, listening_port, store
from mist.runtime.family import Child
from mist.runtime.listeners import bind_listening
from mist.runtime.process import own
from mist.runtime.snapshot import Snapshot, read_snapshot

log = logging.getLogger(__name__)

DEFAULT_API_PORT: Final = 4242
API_MOVE_SECONDS: Final = 0.5
NAME: Final = "The controller"


class ControlKeeper(Book):
    """Keeps the controller. reloaded: called with its answer to a request to reload, "" for success or when it has ended."""

    def __init__(self, reloaded: Callable[[str], None], *around: *Around) -> None:
        super().__init__(*around)
        self._reloaded = reloaded
        self._backoff = Backoff(ONLY_ONE_SECONDS)
        self._child: Child | None = None
        self._address: tuple[str, int] = ("", 0)
        self._sockets: list[socket.socket] = []

    @property
    def fds(self) -> list[int]:
        """The sockets of the control API's port, for the next main process."""
        return [sock.fileno() for sock in self._sockets]

    @property
    def pid(self) -> int:
        """The number of the process, 0 when it does not run."""
        return self._child.pid if self._child is not None else 0

    @property
    def port(self) -> int:
        return self._address[1]

    # -- the port --------------------------------------------------------------------------------------------------

    def bind(self, snapshot: Snapshot) -> None:
        """Open the port, if there is a controller and it is not open. Raises TransportError."""
        if self._server.program.controller is None or self._sockets:
            return
        self._address = api_address(snapshot)
        self._sockets = bind_listening(*self._address, "the control API")
        store(CONTROLLER, self.fds)

    def take_port(self, fds: Sequence[int], snapshot: Snapshot) -> None:
        """Take the port from a former main process, unless it is here already, or to be another one by now."""
        address = api_address(snapshot)
        if self._sockets:
            close_all(fds)
        elif fds and listening_port(fds[0]) != address[1]:
            forget(CONTROLLER)
            close_all(fds)
        elif fds:
            self._address = address
            self._sockets = [own(socket.socket(fileno=fd)) for fd in fds]

    def follow(self, snapshot: Snapshot) -> None:
        """Move the control API to another address if it is to be there; the controller restarts for it."""
        wanted = api_address(snapshot)
        if self._child is None or wanted == self._address:
            return
        try:
            sockets = bind_listening(*wanted, "the control API")
        except TransportError as error:
            log.error("The control API stays on port %d: %s", self.port, error)
            return
        self._close_sockets()
        forget(CONTROLLER)
        self._address, self._sockets = wanted, sockets
        store(CONTROLLER, self.fds)
        self._reactor.call_later(API_MOVE_SECONDS, self._child.terminate)  # the call that asked is to be answered

    def _close_sockets(self) -> None:
        for sock in self._sockets:
            sock.close()

    # -- the process -----------------------------------------------------------------------------------------------

    def take(self, message: Message, fds: list[int]) -> bool:
        """Take over the process that another main process had started; False if there is one already."""
        if self._child is not None:
            return False
        self.take_port(fds[2:], read_snapshot(self._server.instance))
        self._child = self._family.adopt(NAME, message, fds[:2], on_message=self._heard, on_ended=self._ended)
        return True

    def open(self) -> None:
        """Start the controller, or have one of other code replaced. Called when all who come back are back."""
        if self._child is None:
            self._start()
        elif not is_same_edition(self._child.build):
            self._succession.add(CONTROLLER, NAME, self._child.terminate)
        elif self._child.build != running_build():
            self._succession.add(CONTROLLER, NAME, self._ask_to_leave)

    def _ask_to_leave(self) -> None:
        """Let one that a crashed main process had started end when its API has no connections; nobody waits for that."""
        if self._child is not None:
            self._child.channel.send({"do": "leave"})
        self._succession.done(CONTROLLER)

    def _start(self) -> None:
        if self._server.program.controller is None or self._closed:
            return
        try:
            self.bind(read_snapshot(self._server.instance))
            fd = self.fds[0]
            self._child = self._family.start(
                NAME, control_main(self._server, fd), on_message=self._heard, on_ended=self._ended, fds=(fd,)
            )
        except TransportError as error:
            self._start_later(str(error))
            return
        except OSError as error:
            self._start_later(f"{NAME} cannot be started: {error.strerror}")
            return
        self._succession.done(CONTROLLER)
        self._changed()

    def _start_later(self, why: str) -> None:
        log.error("%s; trying again", why)
        self._reactor.call_later(self._backoff.next_delay(0.0) or 1.0, self._start)

    def ask_to_reload(self, changed_only: bool) -> bool:
        """Have it read the configuration; False if it does not run. Its answer goes to `reloaded`."""
        if self._child is not None:
            self._child.channel.send({"do": "reload", "changed_only": changed_only})
        return self._child is not None

    def _heard(self, child: Child, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("event") == "reloaded":
            self._reloaded(str(message.get("error", "")))

    def _ended(self, child: Child, status: int) -> None:
        self._child = None
        self._reloaded("")
        if not self._closed:
            self._reactor.call_later(
                0.0 if child.stopping else self._backoff.next_delay(child.ran_seconds()), self._start
            )

    def close(self) -> None:
        """Start it no more."""
        self._closed = True
        self._close_sockets()


def api_address(snapshot: Snapshot) -> tuple[str, int]:
    """Return the (interface, port) of the control API."""
    settings = snapshot["config"].get("controller") or {}
    return str(settings.get("interface") or ""), int(settings.get("port") or DEFAULT_API_PORT)

"""A process that answers visitors on a listening socket which the main process owns (`Attendant`)."""

from __future__ import annotations

import socket
from collections.abc import Mapping, Sequence
from typing import Any, Final

from mist.runtime.acceptor import Acceptor
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.program import Server
from mist.runtime.worker import Worker

RETIRE_SECONDS: Final = 60.0  # longer than any handler of a trigger may take


class DoorWorker(Worker):
    """Lets visitors in; subclasses answer what they ask."""

    def __init__(self, server: Server, channel: Channel, door: socket.socket) -> None:
        super().__init__(server, channel)
        self.door = door
        self.visitors: set[Channel] = set()
        self._retiring = False

    def started(self) -> None:
        self._acceptor = Acceptor(self.door, self.loop, self._visited)

    def _visited(self, sock: socket.socket) -> None:
        visitor = Channel(sock)
        self.visitors.add(visitor)

        def received(message: Message, fds: list[int]) -> None:
            close_all(fds)
            self.asked(visitor, message)

        def gone() -> None:
            self.visitors.discard(visitor)
            self.end_when_left()

        visitor.attach(self.loop, received, gone)

    def asked(self, visitor: Channel, message: Message) -> None:
        """Answer a visitor, at once or later."""

    def is_occupied(self) -> bool:
        """Tell whether something that was asked is not answered."""
        return False

    def stop_listening(self) -> None:
        """Let in nobody any more."""
        if not self._retiring:
            self._acceptor.close()

    # -- another main process, other code --------------------------------------------------------------------------

    def show(self) -> tuple[Message, Sequence[int]]:
        return {}, [] if self._retiring else [self.door.fileno()]

    def command(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("do") == "retire" and not self._retiring:
            self._retire()

    def _retire(self) -> None:
        """Give way to a process of other code: what was asked here is answered here, and nothing more is asked."""
        self.stop_listening()
        self._retiring = True
        self.door.close()
        for visitor in tuple(self.visitors):
            visitor.send({"moved": True})
        self.loop.call_later(RETIRE_SECONDS, self.stop, "CLEAN_RESTART")
        self.end_when_left()

    def end_when_left(self) -> None:
        """End once everybody has been answered, if another process has the visitors by now."""
        if self._retiring and not self.visitors and not self.is_occupied():
            self.stop("CLEAN_RESTART")

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")


def answer(visitor: Channel, request: Message, reply: Mapping[str, Any]) -> None:
    """Answer a request that wants an answer."""
    if "id" in request and not visitor.closed:
        visitor.send({**reply, "reply": request["id"]})

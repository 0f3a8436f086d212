"""A process that answers visitors on a listening socket which the main process owns (`Attendant`)."""

from __future__ import annotations

import socket
from collections.abc import Mapping
from typing import Any

from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.program import Server
from mist.runtime.worker import Worker


class DoorWorker(Worker):
    """Lets visitors in; subclasses answer what they ask."""

    def __init__(self, server: Server, channel: Channel, door: socket.socket) -> None:
        super().__init__(server, channel)
        self.door = door
        self._visitors: set[Channel] = set()

    def started(self) -> None:
        self.door.setblocking(False)
        self.loop.add_reader(self.door.fileno(), self._accept)

    def _accept(self) -> None:
        try:
            sock, _ = self.door.accept()
        except OSError:
            return
        visitor = Channel(sock)
        self._visitors.add(visitor)

        def received(message: Message, fds: list[int]) -> None:
            close_all(fds)
            self.asked(visitor, message)

        visitor.attach(self.loop, received, lambda: self._visitors.discard(visitor))

    def asked(self, visitor: Channel, message: Message) -> None:
        """Answer a visitor, at once or later."""

    def stop_listening(self) -> None:
        """Let in nobody any more."""
        self.loop.remove_reader(self.door.fileno())

    def deserted(self, why: str) -> None:
        self.stop("CLEAN_SIGNAL")


def answer(visitor: Channel, request: Message, reply: Mapping[str, Any]) -> None:
    """Answer a request that wants an answer."""
    if "id" in request and not visitor.closed:
        visitor.send({**reply, "reply": request["id"]})

"""Tags that processes give to the sessions of their viewers: a datagram to the controller, on the socket of the log."""

from __future__ import annotations

import asyncio
import json
import socket
from collections import OrderedDict, deque
from functools import partial
from typing import Final

from mist.runtime.process import own

MAX_TOLD: Final = 4096  # sessions that are remembered: one that asks for a file each second has its tag told once
LINGER_SECONDS: Final = 15.0  # that a session goes on without a request: the next one would begin another
MAX_WAITING: Final = 20_000  # tags that the controller could not take yet: many viewers may come at once
MAX_AGENT_CHARACTERS: Final = 128

# Stream, connector, host and token, as connection records have them: they make the session's identifier.
Names = tuple[str, str, str, str]


class AgentTags:
    """Tells of sessions what they are watched with: `UA:` and the name that a program gives itself."""

    def __init__(self, path: str, loop: asyncio.AbstractEventLoop) -> None:
        """path: of the controller's socket, which may be away for a moment: a tag is worth no more than a line of the log."""
        self._path = path
        self._loop = loop
        self._socket: socket.socket | None = None
        self._waiting: deque[tuple[Names, str]] = deque()
        self._full = False
        self._told: OrderedDict[Names, tuple[str, float]] = OrderedDict()

    def tell(self, names: Names, agent: str, seconds: float) -> None:
        """Tell of a session after some seconds, once for each agent."""
        agent, now = agent[:MAX_AGENT_CHARACTERS], self._loop.time()
        before, seen = self._told.get(names, ("", 0.0))
        self._told[names] = agent, now
        self._told.move_to_end(names)
        if before == agent and now - seen < LINGER_SECONDS:
            return
        if len(self._told) > MAX_TOLD:
            self._told.popitem(last=False)
        if seconds:
            self._loop.call_later(seconds, partial(self._send, names, agent))
        else:
            self._send(names, agent)

    def _send(self, names: Names, agent: str) -> None:
        if len(self._waiting) < MAX_WAITING:
            self._waiting.append((names, agent))
        if not self._full:
            self._send_waiting()

    def _send_waiting(self) -> None:
        """Send until the controller has enough to read; it says when that is over."""
        while self._waiting:
            names, agent = self._waiting[0]
            data = json.dumps({"session": names, "tag": f"UA:{agent}"}, separators=(",", ":")).encode()
            try:
                connected = self._connected()
                connected.send(data)
            except BlockingIOError:
                if not self._full:
                    self._full = True
                    self._loop.add_writer(connected.fileno(), self._send_waiting)
                return
            except OSError:  # it is not there; the next request tells of the session again
                self.close()
                self._told.pop(names, None)
            self._waiting.popleft()
        self._end_waiting()

    def _connected(self) -> socket.socket:
        """Return a socket to the controller: one that is connected says when the other end takes more. Raises OSError."""
        if self._socket is None:
            made = own(socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC))
            try:
                made.connect(self._path)
            except OSError:
                made.close()
                raise
            self._socket = made
        return self._socket

    def _end_waiting(self) -> None:
        if self._full and self._socket is not None:
            self._loop.remove_writer(self._socket.fileno())
        self._full = False

    def close(self) -> None:
        """Close the socket."""
        self._end_waiting()
        if self._socket is not None:
            self._socket.close()
            self._socket = None

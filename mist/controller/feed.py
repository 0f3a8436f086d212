"""The websocket `/ws`: log lines, the access log and the streams' counters, as they come."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import Receive, Scope, Send
from starlette.websockets import WebSocket, WebSocketDisconnect

from mist.controller.access import Origin
from mist.controller.gate import ApiConnection, Gate, Refused
from mist.controller.log_ring import History
from mist.controller.permissions import Caller
from mist.controller.requests import parse_command
from mist.controller.state import Controller
from mist.formats.json_text import dumps

LOGIN_SECONDS = 10.0
MAX_WAITING_CHARACTERS = 10_000  # of what comes live; the history that was asked for comes whole
MAX_FEEDS = 200
MAX_MESSAGE_CHARACTERS = 4096
HOLDS_SECONDS = 1.0  # how often it is looked whether a login still holds
POLICY_VIOLATION = 1008
SINCE = "since:"
TOO_SLOW = '["auth", "Too slow, sorry"]'


class Viewer:
    """One who watches: frames that wait to be sent, and the counters of streams that were sent last."""

    def __init__(self) -> None:
        self._waiting: deque[str] = deque()
        self._characters = 0
        self._wake = asyncio.Event()
        self._streams: dict[str, list[Any]] = {}

    def add(self, name: str, row: list[Any]) -> None:
        """Queue a frame, or drop it when too much waits already."""
        self.queue(dumps([name, row]), bounded=True)

    def queue(self, text: str, *, bounded: bool = False) -> None:
        """Queue a text."""
        if bounded and self._characters > MAX_WAITING_CHARACTERS:
            return
        self._waiting.append(text)
        self._characters += len(text)
        self._wake.set()

    def streams(self, rows: Iterable[list[Any]]) -> None:
        """Queue what changed of the streams' states and counters."""
        for row in rows:
            known = self._streams.get(row[0], [])
            if known is not row and known[:5] != row[:5]:
                self._streams[row[0]] = row
                self.add("stream", row)

    async def take(self) -> str:
        """Wait for a text and return it."""
        while not self._waiting:
            self._wake.clear()
            await self._wake.wait()
        text = self._waiting.popleft()
        self._characters -= len(text)
        return text


class Feed:
    """Serves the websocket."""

    def __init__(self, controller: Controller, gate: Gate, origin: Callable[[Scope], Origin]) -> None:
        self.controller = controller
        self.gate = gate
        self._origin = origin
        self._count = 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        socket = WebSocket(scope, receive, send)
        if self._count >= MAX_FEEDS:
            await socket.close(1013)
            return
        self._count += 1
        try:
            await self._serve(socket)
        except (WebSocketDisconnect, Refused):
            return
        finally:
            self._count -= 1

    async def _serve(self, socket: WebSocket) -> None:
        origin, connection = self._origin(socket.scope), ApiConnection()
        header = socket.headers.get("authorization", "")
        bearer = await self.gate.header_login(header, connection, origin) if header else None
        await socket.accept()
        _, caller = await self.gate.identify(None, connection, origin, bearer)
        await socket.send_text(f'["auth", {"true" if caller else "false"}]')
        if caller is None:
            try:
                async with asyncio.timeout(LOGIN_SECONDS):
                    await self._log_in(socket, connection, origin)
            except TimeoutError:
                await socket.send_text(TOO_SLOW)
                await socket.close()
                return
        await self._watch(socket, lambda: self.gate.holds(header, connection, origin))

    async def _log_in(self, socket: WebSocket, connection: ApiConnection, origin: Origin) -> None:
        """Answer logins until one is right."""
        caller: Caller | None = None
        while caller is None:
            text = await socket.receive_text()
            given = parse_command(text[:MAX_MESSAGE_CHARACTERS])
            is_login = isinstance(given, list) and len(given) == 2 and given[0] == "auth" and isinstance(given[1], dict)
            fields: dict[str, Any] = given[1] if is_login else {}
            status, caller = await self.gate.identify(fields, connection, origin)
            await socket.send_text(dumps(["auth", {**fields, **status}]))

    async def _watch(self, socket: WebSocket, holds: Callable[[], bool]) -> None:
        """Send what was subscribed to until the peer leaves, or its login holds no more."""
        viewer = Viewer()
        undo = list(self._subscribe(socket.query_params.get, viewer))
        sending = asyncio.ensure_future(_send(socket, viewer))
        guarding = asyncio.ensure_future(self._guard(socket, holds))
        try:
            while True:
                await socket.receive()
        except RuntimeError as error:  # the peer has left
            raise WebSocketDisconnect from error
        finally:
            sending.cancel()
            guarding.cancel()
            for one in undo:
                one()

    async def _guard(self, socket: WebSocket, holds: Callable[[], bool]) -> None:
        while holds():
            await asyncio.sleep(HOLDS_SECONDS)
        self.controller.log.info("A websocket ends: its login holds no more", extra={"kind": "AUTH"})
        await socket.close(POLICY_VIOLATION)

    def _subscribe(self, variable: Callable[[str], str | None], viewer: Viewer) -> Iterable[Callable[[], None]]:
        """Begin what the query asks for, after its history; yields what ends it."""
        for key, name, history in (
            ("logs", "log", self.controller.log_ring.history),
            ("accs", "access", self.controller.access_ring),
        ):
            wanted = variable(key)
            if wanted:
                for row in _past(history, wanted):
                    viewer.queue(dumps([name, row]))
                yield history.listen(lambda row, name=name: viewer.add(name, row))  # type: ignore[misc]
        if variable("streams"):
            for row in self.controller.stream_rows():
                viewer.streams([row])
            self.controller.on_second.add(viewer.streams)
            yield lambda: self.controller.on_second.discard(viewer.streams)


async def _send(socket: WebSocket, viewer: Viewer) -> None:
    while True:
        await socket.send_text(await viewer.take())


def _past(history: History, wanted: str) -> list[list[Any]]:
    """Return the rows that `N` or `since:TIME` asks for."""
    if wanted.startswith(SINCE):
        time = wanted.removeprefix(SINCE)
        return history.since(int(time)) if time.isdecimal() and len(time) < 20 else []
    return history.last(int(wanted)) if wanted.isdecimal() and len(wanted) < 20 else []

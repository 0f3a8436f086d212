"""One connection as the handlers of triggers are told of it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from mist.errors import AccessDenied, NotFound
from mist.stream.names import sanitise

if TYPE_CHECKING:
    from mist.stream.reader import StreamReader
    from mist.stream.services import OutputServices, Triggers

NOTHING_SENT: Final = 2**64 - 1  # shown as the time of the first packet


# Raises AccessDenied when a viewer's session may not watch a stream.
Admit = Callable[["StreamReader"], Awaitable[None]]


class Counted(Protocol):
    """What counts a connection's bytes."""

    @property
    def down_bytes(self) -> int: ...


class Visit:
    """Fires the triggers of a connection, which exists only where any handler is configured.

    host: the peer's address. connector, url, stream: what the connection is used for now. plays: the stream that it was allowed.
    record: counts its bytes. changed: called when there is something that a process would have to know which goes on with the
    connection (`state`, `go_on`).
    """

    def __init__(
        self,
        triggers: Triggers,
        host: str,
        connector: str,
        record: Counted | None = None,
        changed: Callable[[], None] = lambda: None,
    ) -> None:
        self.host = host
        self.connector = connector
        self.url = ""
        self.stream = ""
        self.is_open = False
        self._asked = ("", "")
        self.plays = ""
        self._rewritten: dict[str, str] = {}
        self._triggers = triggers
        self.record = record
        self._changed = changed
        self._began = time.time()

    def state(self) -> list[Any]:
        """Return what the next process needs, fit for JSON."""
        used = [self.host, self.connector, self.url, self.stream]
        return [*used, *self._asked, self.plays, self._rewritten, self._began, self.is_open]

    def go_on(self, state: Sequence[Any]) -> None:
        """Go on with the connection of another process; what that has asked the handlers is not asked again."""
        self.host, self.connector, self.url, self.stream, *asked = state[:6]
        self.plays, self._rewritten, self._began, self.is_open = state[6:]
        self._asked = (asked[0], asked[1])

    @property
    def lines(self) -> list[str]:
        """The payload of most of its triggers."""
        return [self.stream, self.host, self.connector, self.url]

    async def open(self, connector: str = "", stream: str = "", url: str = "") -> None:
        """Fire CONN_OPEN for what the connection is used for from now on. Raises AccessDenied."""
        self.connector = connector or self.connector
        self.stream, self.url = stream, url
        if not await self._triggers.allows("CONN_OPEN", stream, self.lines):
            raise AccessDenied("The connection was refused")
        self.is_open = True
        self._changed()

    async def open_stream(self, services: OutputServices, name: str, admit: Admit) -> StreamReader:
        """Return a reader of the stream that is played instead of the one asked for, or of that.

        Only the first of equal requests fires anything but what `admit` does, which comes before CONN_PLAY. Raises as
        `OutputServices.open_stream` and `admit`, and AccessDenied where a handler refuses.
        """
        known = self._asked == (self.connector, name)
        reader = await services.open_stream(self.plays if known else await self._rewritten_name(name), self)
        try:
            await admit(reader)
            if not known:
                self.stream = reader.name
                if not await self._triggers.allows("CONN_PLAY", self.stream, self.lines):
                    raise AccessDenied("Not allowed to play")
        except BaseException:
            services.close_stream(reader)
            raise
        if not known:
            self._asked, self.plays = (self.connector, name), reader.name
            self._changed()
        return reader

    async def _rewritten_name(self, name: str) -> str:
        self.stream = sanitise(name)
        wanted = await self._triggers.replace("PLAY_REWRITE", self.stream, self.lines, name)
        if not wanted.strip():
            raise NotFound("Nothing plays under this name")
        return wanted.strip() if wanted != name else name

    async def enter(self, services: OutputServices, connector: str, name: str, url: str, admit: Admit) -> str:
        """Take note that a connection which carries one request after another asks a connector for a stream.

        Returns the name to open instead. Raises as `open_stream`.
        """
        if self._asked != (connector, name):
            await self.open(connector, sanitise(name), url)
            services.close_stream(await self.open_stream(services, name, admit))
        return self.plays

    async def rewrite(self, trigger: str, lines: Sequence[str], value: str) -> str:
        """Return what the handlers make of what a publisher wants; they are asked once, whoever goes on with the connection."""
        asked = f"{trigger} {value}"
        if asked not in self._rewritten:
            self._rewritten[asked] = await self._triggers.replace(trigger, "", lines, value)
            self._changed()
        return self._rewritten[asked]

    async def fallback(self, setting: str, stream: str) -> str:
        """Return what DEFAULT_STREAM makes of the setting `defaultStream`, for a stream that does not play."""
        lines = [setting, stream, self.host, self.connector, self.url]
        return await self._triggers.replace("DEFAULT_STREAM", stream, lines, setting)

    def leave(self) -> None:
        """Take note that another process has the connection, and tells its end."""
        self.is_open = False
        self._changed()

    def stopped(self) -> None:
        """Tell that playback reached its end."""
        self._triggers.notify("CONN_STOP", self.stream, [*self.lines[:3], ""])

    def close(self) -> None:
        """Tell that the connection has ended."""
        if self.is_open:
            self._triggers.notify("CONN_CLOSE", self.stream, self.lines)
            if self.stream and self._triggers.wanted("OUTPUT_END", self.stream):
                self._triggers.notify("OUTPUT_END", self.stream, self._end_lines())

    def _end_lines(self) -> list[str]:
        sent = self.record.down_bytes if self.record is not None else 0
        return end_lines(self.stream, "", self.connector, sent, self._began, "CLEAN_REMOTE_CLOSE", "connection closed")


def end_lines(stream: str, target: str, connector: str, sent: int, began: float, reason: str, text: str) -> list[str]:
    """Return the payload of OUTPUT_END for an output without media times of its own. began: unix seconds."""
    now = time.time()
    seconds = [str(int(now - began)), str(int(began)), str(int(now))]
    return [stream, target, connector, str(sent), *seconds, "0", str(NOTHING_SENT), "0", reason, text, ""]

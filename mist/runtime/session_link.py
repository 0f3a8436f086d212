"""Asking the process of the sessions whether a viewer may watch, or a token's owner publish; free where nobody decides."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final

from mist.errors import AccessDenied, MistError, TransportError
from mist.runtime.instance import Instance
from mist.runtime.spawner_link import Link
from mist.stream.session_access import is_guarded

log = logging.getLogger(__name__)

# Longer than handlers may take, who are asked meanwhile.
ANSWER_SECONDS: Final = 70.0


class SessionLink:
    """One process's way to it. snapshot: returns the whole configuration as it is now."""

    def __init__(
        self, instance: Instance, loop: asyncio.AbstractEventLoop, snapshot: Callable[[], Mapping[str, Any]]
    ) -> None:
        self._link = Link(instance.session_socket, "The process of the sessions", loop, ANSWER_SECONDS)
        self._snapshot = snapshot
        self._looked_at: Mapping[str, Any] = {}
        self._guarded = False  # by that snapshot

    @property
    def guarded(self) -> bool:
        """Whether anybody decides about viewers."""
        snapshot = self._snapshot()
        if snapshot is not self._looked_at:
            self._looked_at, self._guarded = snapshot, is_guarded(snapshot)
        return self._guarded

    async def admit(self, stream: str, host: str, token: str, connector: str, url: str) -> None:
        """Raise AccessDenied when a viewer's session may not watch."""
        if not self.guarded:
            return
        question = {"do": "admit", "stream": stream, "host": host, "token": token, "connector": connector, "url": url}
        if not (await self._asked(question))["allowed"]:
            raise AccessDenied("Not allowed to play")

    async def publishing_stream(self, token: str, host: str) -> str:
        """Return the stream that a token allows to publish to. Raises AccessDenied."""
        return str((await self._asked({"do": "publish", "token": token, "host": host}))["stream"])

    async def publishing_holds(self, token: str, host: str) -> bool:
        """Tell whether a token that a publisher showed is still good; as long as nobody says no, it is."""
        try:
            await self._link.ask({"do": "publish", "token": token, "host": host})
        except AccessDenied:
            return False
        except MistError as error:
            log.warning("Nobody says whether a publisher's token still holds: %s", error)
        return True

    def invalidate(self, streams: Iterable[str]) -> None:
        """Let the sessions of streams be decided again."""
        if self.guarded:
            self._link.tell({"do": "invalidate", "streams": list(streams)})

    async def _asked(self, question: Mapping[str, Any]) -> Mapping[str, Any]:
        """Ask, and ask once more if the process ended meanwhile. Raises AccessDenied when there is no answer."""
        try:
            return await self._link.ask(question)
        except TransportError:
            pass  # it may have been killed: the next one is asked
        try:
            return await self._link.ask(question)
        except AccessDenied:
            raise
        except MistError as error:
            raise AccessDenied(f"Nobody decides about sessions: {error}") from None

    def close(self) -> None:
        """Close the connection."""
        self._link.close()

"""The token that a publisher showed: while it holds, it may go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Final

from mist.runtime.channel import Loop
from mist.runtime.session_link import SessionLink
from mist.stream.token_keys import unverified_claims

LATE_SECONDS: Final = 0.1  # a token that holds to the second does not hold after it
AGAIN_SECONDS: Final = 1.0  # where nobody says whether it still holds
MAX_UNIX_SECONDS: Final = 1e12
MAX_SECONDS: Final = 86_400.0  # after which it is looked again, however long the token holds


class PublisherToken:
    """Asks again about a token when its time is over, and whenever the configuration is another.

    link: its own from now on. spawn: runs a coroutine. ended: called once when the token holds no more.
    """

    def __init__(
        self,
        token: str,
        host: str,
        link: SessionLink,
        loop: Loop,
        spawn: Callable[[Coroutine[Any, Any, None]], Any],
        ended: Callable[[], None],
    ) -> None:
        self._token = token
        self._host = host
        self._link = link
        self._spawn = spawn
        self._ended = ended
        self._loop = loop
        self._timer: Any = None
        self._ends = _end(unverified_claims(token))
        if self._ends is not None:
            self._ask_in(self._ends - time.time() + LATE_SECONDS)

    def _ask_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._loop.call_later(min(max(seconds, 0.0), MAX_SECONDS), self.check)

    def check(self) -> None:
        """Ask whether the token holds."""
        self._spawn(self._check())

    async def _check(self) -> None:
        if not await self._link.publishing_holds(self._token, self._host):
            self._ended()
        elif self._ends is not None:
            self._ask_in(max(self._ends - time.time() + LATE_SECONDS, AGAIN_SECONDS))

    def close(self) -> None:
        """Follow it no more."""
        if self._timer is not None:
            self._timer.cancel()
        self._link.close()


def _end(claims: Mapping[str, Any]) -> float | None:
    ends = claims.get("exp")
    return float(ends) if isinstance(ends, int | float) and abs(ends) < MAX_UNIX_SECONDS else None

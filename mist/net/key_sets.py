"""Key sets on http(s) servers: fetched when they are first needed, and again when they are no longer fresh.

Specification: RFC 7517 section 5; RFC 9111 section 5.2.2.1 (max-age); OpenID Connect Discovery 1.0 section 4 (`jwks_uri`).
"""

from __future__ import annotations

import asyncio
import json
import logging
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from mist.errors import RemoteProtocolError, TransportError
from mist.net.http_client import HttpClient

log = logging.getLogger(__name__)

FRESH_SECONDS: Final = 60.0
MAX_FRESH_SECONDS: Final = 86_400.0
FETCH_SECONDS: Final = 5.0
MAX_SET_BYTES: Final = 1 << 20
MAX_KEYS: Final = 256
_MAX_AGE: Final = re.compile(r"max-age=(\d{1,9})")


@dataclass(slots=True)
class _Set:
    rest: Sequence[Any]
    keys: list[Any] = field(default_factory=list)
    stale_at: float = 0.0


class KeySets:
    """The keys at some URLs. A set that cannot be fetched stays as it was."""

    def __init__(self) -> None:
        self._sets: dict[str, _Set] = {}
        self._client = HttpClient(max_answer_bytes=MAX_SET_BYTES)
        self._fetching: asyncio.Task[None] | None = None

    def follow(self, urls: Mapping[str, Sequence[Any]]) -> None:
        """Keep the sets at these URLs and no others. The values: [permissions of the keys], or nothing."""
        known = self._sets
        self._sets = {}
        for url, rest in urls.items():
            kept = known.get(url)
            self._sets[url] = _Set(rest) if kept is None else _Set(rest, kept.keys, kept.stale_at)

    async def keys(self) -> list[list[Any]]:
        """Return the keys of all sets, each in a list with its permissions if there are any."""
        now = time.monotonic()
        if self._fetching is None and any(one.stale_at <= now for one in self._sets.values()):
            self._fetching = asyncio.get_running_loop().create_task(self._refresh())
        if self._fetching is not None:
            await asyncio.shield(self._fetching)
        return [[key, *one.rest] for one in self._sets.values() for key in one.keys]

    async def _refresh(self) -> None:
        try:
            due = [url for url, one in self._sets.items() if one.stale_at <= time.monotonic()]
            await asyncio.gather(*(self._update(url, self._sets[url]) for url in due))
        finally:
            self._fetching = None

    async def _update(self, url: str, one: _Set) -> None:
        seconds = FRESH_SECONDS
        try:
            document, seconds = await self._fetch(url)
            further = document.get("jwks_uri")
            if isinstance(further, str) and further.startswith(("http://", "https://")):
                document, seconds = await self._fetch(further)
            found = document.get("keys")
            if not isinstance(found, list) or len(found) > MAX_KEYS:
                raise ValueError("it has no list of keys, or too many")
            one.keys = [key for key in map(_checked, found) if key is not None]
        except (TransportError, RemoteProtocolError, ValueError, RecursionError, TimeoutError) as error:
            log.error("The key set %s cannot be used, its last keys stay: %s", url, str(error) or type(error).__name__)
        one.stale_at = time.monotonic() + seconds

    async def _fetch(self, url: str) -> tuple[dict[str, Any], float]:
        async with asyncio.timeout(FETCH_SECONDS):
            answer = await self._client.ask("GET", url, seconds=FETCH_SECONDS)
        if not answer.ok:
            raise ValueError(f"the server answers {answer.status} {answer.words}")
        age = _MAX_AGE.search(answer.headers.get("cache-control", ""))
        document = json.loads(answer.body)
        if not isinstance(document, dict):
            raise ValueError("it is no object")
        return document, min(float(age[1]), MAX_FRESH_SECONDS) if age else FRESH_SECONDS

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _checked(key: Any) -> dict[str, Any] | None:
    """Return a key with a type that is known, as an ordinary object."""
    return key if isinstance(key, dict) and key.get("kty") in ("oct", "RSA", "EC") else None

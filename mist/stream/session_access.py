"""Who may watch: what is known of a viewer's session, and when somebody must be asked about it again. No socket here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mist.errors import AccessDenied
from mist.stream.token_keys import Entry, claims_for, matches, unstored

DENIED_SECONDS: Final = 600.0
KEPT_SECONDS: Final = 17.0  # without a connection: longer than a session goes on
MAX_VERDICTS: Final = 200_000
USER_NEW: Final = "USER_NEW"


@dataclass(frozen=True, slots=True)
class Viewer:
    """One connection of a viewer: what USER_NEW is told."""

    session: str
    stream: str
    host: str
    token: str
    connector: str
    url: str

    def lines(self, *, first: bool) -> list[str]:
        """Return the lines of USER_NEW's payload; the one about the token only stands in the first of a session."""
        lines = [self.stream, self.host, self.token, self.connector, self.url, self.session]
        return [*lines, "false"] if first else lines


@dataclass(slots=True)
class Verdict:
    """Whether a session may go on. until: when it must be looked at again, unix seconds. by_token: a token allowed it.

    seen: unix second at which it last had a connection.
    """

    viewer: Viewer
    allowed: bool
    until: float
    seen: float
    by_token: bool = False


def is_guarded(config: Mapping[str, Any]) -> bool:
    """Return whether anybody decides about viewers: handlers of USER_NEW, or keys of tokens."""
    triggers = (config.get("config") or {}).get("triggers") or {}
    return bool(triggers.get(USER_NEW) or config.get("jwks"))


def literal_keys(config: Mapping[str, Any]) -> list[Entry]:
    """Return the keys that the configuration itself holds."""
    return [entry for entry in map(unstored, config.get("jwks") or ()) if isinstance(entry[0], dict)]


def key_sets(config: Mapping[str, Any]) -> dict[str, Sequence[Any]]:
    """Return the URLs of key sets, each with the rest of its entry: [its permissions] or nothing."""
    return {entry[0]: entry[1:] for entry in map(unstored, config.get("jwks") or ()) if isinstance(entry[0], str)}


def playback_claims(keys: Iterable[Entry], viewer: Viewer, now: float) -> Mapping[str, Any]:
    """Return the claims of a viewer's token that allow the stream. Raises AccessDenied."""
    claims = claims_for(viewer.token, "output", keys, viewer.host, now)
    subject = claims.get("sub")
    if isinstance(subject, str) and not matches(subject, viewer.stream):
        raise AccessDenied("The token is for another stream")
    return claims


def publishing_stream(keys: Iterable[Entry], token: str, host: str, now: float) -> str:
    """Return the stream that a token allows to publish to. Raises AccessDenied."""
    subject = claims_for(token, "input", keys, host, now).get("sub")
    if not isinstance(subject, str) or not subject or "*" in subject:
        raise AccessDenied("The token names no stream to publish to")
    return subject

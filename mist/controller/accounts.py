"""Who may use the control API: the challenge login, its rate limit, and what counts as local."""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
from collections import OrderedDict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

MAX_ADDRESSES = 4096
ATTEMPTS_AT_ONCE = 10
SECONDS_PER_ATTEMPT = 3.0
PROXY_HEADERS = ("x-forwarded-for", "x-real-ip")


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


def challenge(address: str, today: date) -> str:
    """Return the challenge for a peer address (as `plain_address` gives it); the same for the whole day."""
    return _md5(f"{today.day}-{today.month - 1}-{today.year}{address}")


def password_hash(clear: str) -> str:
    """Return a password as the configuration stores it."""
    return _md5(clear)


def answer(stored: str, challenge_text: str) -> str:
    """Return what a client must send: stored is the MD5 of the password, challenge_text what it was given."""
    return _md5(stored.lower() + challenge_text)


def plain_address(address: str) -> str:
    """Return an address text without the IPv6 form of IPv4 addresses."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


def is_local(address: str, own_addresses: Collection[str], headers: Mapping[str, str]) -> bool:
    """Return whether a request comes from this machine itself, so that it needs no login.

    headers: names in lower case. A request that a proxy passed on is not local, and neither is one that a browser sends
    for a page of another site: such a page must not command the server that runs beside the browser.
    """
    if any(name in headers for name in PROXY_HEADERS) or _is_cross_site(headers):
        return False
    try:
        if ipaddress.ip_address(address.partition("%")[0]).is_loopback:
            return True
    except ValueError:
        return False
    return address in own_addresses


def _is_cross_site(headers: Mapping[str, str]) -> bool:
    if headers.get("sec-fetch-site", "none") not in ("none", "same-origin"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.partition("://")[2] != headers.get("host", "")


@dataclass(slots=True)
class _Budget:
    attempts: float
    at: float


class LoginLimit:
    """Lets an address try ten passwords at once, and after that one every three seconds."""

    def __init__(self) -> None:
        self._budgets: OrderedDict[str, _Budget] = OrderedDict()

    def allow(self, address: str, now: float) -> bool:
        """Return whether an address may try a password, without counting. now: monotonic seconds."""
        budget = self._budgets.get(address)
        return budget is None or budget.attempts + (now - budget.at) / SECONDS_PER_ATTEMPT >= 1

    def failed(self, address: str, now: float) -> None:
        """Count a wrong password."""
        budget = self._budgets.setdefault(address, _Budget(ATTEMPTS_AT_ONCE, now))
        refilled = budget.attempts + (now - budget.at) / SECONDS_PER_ATTEMPT
        budget.attempts = max(0.0, min(refilled, ATTEMPTS_AT_ONCE) - 1)
        budget.at = now
        self._budgets.move_to_end(address)
        if len(self._budgets) > MAX_ADDRESSES:
            self._budgets.popitem(last=False)


def password_matches(accounts: Mapping[str, Any], username: object, password: object, challenge_text: str) -> bool:
    """Return whether a login is right; takes the same time for an unknown user as for a wrong password."""
    account = accounts.get(username) if isinstance(username, str) else None
    stored = account.get("password", "") if isinstance(account, Mapping) else ""
    given = password.lower() if isinstance(password, str) else ""
    right = hmac.compare_digest(answer(stored, challenge_text).encode(), given.encode("utf-8", "replace"))
    return right and bool(stored)

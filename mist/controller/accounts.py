"""Accounts of the control API: passwords, keys, permissions, the challenge of older clients, and the bound on guessing."""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import secrets
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Any

from mist.controller.permissions import Permission

MAX_REMEMBERED = 4096
ATTEMPTS_AT_ONCE = 10
SECONDS_PER_ATTEMPT = 3.0
FAILURES_TO_LOCK = 20
LOCK_SECONDS = 300.0
ACCOUNT_FACTOR = 5  # an account may be tried from several addresses

# RFC 7914 section 2: 16 MiB of memory and about 50 ms for each try.
SCRYPT_N, SCRYPT_R, SCRYPT_P, SCRYPT_BYTES, SALT_BYTES = 2**14, 8, 1, 32, 16
MAX_SCRYPT_MEMORY = 64 * 1024 * 1024
KEY_PREFIX = "mist_"
KEY_BYTES = 32


def _md5(text: str) -> str:
    return hashlib.md5(text.encode("utf-8", "replace"), usedforsecurity=False).hexdigest()


# -- the challenge -----------------------------------------------------------------------------------------------------


def challenge(address: str, today: date) -> str:
    """Return the challenge for a client's address; the same for the whole day."""
    return _md5(f"{today.day}-{today.month - 1}-{today.year}{address}")


def password_hash(clear: str) -> str:
    """Return a password in the form that the challenge needs."""
    return _md5(clear)


def answer(stored: str, challenge_text: str) -> str:
    """Return what a client must send: stored is the MD5 of the password, challenge_text what it was given."""
    return _md5(stored.lower() + challenge_text)


def answers_challenge(accounts: Mapping[str, Any], username: object, given: object, challenge_text: str) -> bool:
    """Return whether a challenge was answered; takes the same time for an unknown user as for a wrong password."""
    account = accounts.get(username) if isinstance(username, str) else None
    stored = account.get("password", "") if isinstance(account, Mapping) else ""
    text = given.lower() if isinstance(given, str) else ""
    right = hmac.compare_digest(answer(stored, challenge_text).encode(), text.encode("utf-8", "replace"))
    return right and bool(stored)


# -- passwords ---------------------------------------------------------------------------------------------------------


def scrypt_hash(clear: str) -> str:
    """Return a password as the configuration stores it: `scrypt$N$r$p$SALT$HASH`, both in base64."""
    salt = secrets.token_bytes(SALT_BYTES)
    digest = _scrypt(clear, salt, SCRYPT_N, SCRYPT_R, SCRYPT_P)
    parts = (base64.b64encode(part).decode() for part in (salt, digest))
    return "$".join(("scrypt", str(SCRYPT_N), str(SCRYPT_R), str(SCRYPT_P), *parts))


def _scrypt(clear: str, salt: bytes, n: int, r: int, p: int) -> bytes:
    password = clear.encode("utf-8", "replace")
    return hashlib.scrypt(password, salt=salt, n=n, r=r, p=p, maxmem=MAX_SCRYPT_MEMORY, dklen=SCRYPT_BYTES)


_NOBODY = "scrypt$16384$8$1$AAAAAAAAAAAAAAAAAAAAAA==$" + "A" * 43 + "="


def password_fits(account: Mapping[str, Any] | None, clear: str) -> bool:
    """Return whether a password is that of an account. Takes some 50 ms, also when there is no such account."""
    stored = (account or {}).get("hash")
    try:
        _, n, r, p, salt, digest = (stored or _NOBODY).split("$")
        found = _scrypt(clear, base64.b64decode(salt), int(n), int(r), int(p))
        right = hmac.compare_digest(found, base64.b64decode(digest)) and bool(stored)
    except (ValueError, MemoryError):
        right = False
    if stored or not account or not account.get("password"):
        return right
    return hmac.compare_digest(_md5(clear), str(account["password"]).lower())


def new_account(clear: str, permissions: Iterable[str] = (), *, challenge_login: bool) -> dict[str, Any]:
    """Return an account. challenge_login: whether older clients may log in, which stores the MD5 of the password, too."""
    account: dict[str, Any] = {"hash": scrypt_hash(clear)}
    if challenge_login:
        account["password"] = password_hash(clear)
    if permissions:
        account["permissions"] = list(permissions)
    return account


def permissions_of(entry: Mapping[str, Any]) -> frozenset[Permission]:
    """Return what an account or a key may do; one that says nothing may do everything."""
    given = entry.get("permissions")
    return permissions(given if given is not None else [Permission.ADMIN])


def permissions(words: object) -> frozenset[Permission]:
    """Return permissions named in a list, or in a text with spaces; what is none is passed over."""
    members = words.split() if isinstance(words, str) else words if isinstance(words, list) else ()
    found = {Permission(word) for word in members if isinstance(word, str) and word in Permission._value2member_map_}
    return frozenset(Permission) if Permission.ADMIN in found else frozenset({*found, Permission.READ})


# -- keys --------------------------------------------------------------------------------------------------------------


def new_key() -> tuple[str, str]:
    """Return a new key for programs, and the form of it that is stored."""
    key = KEY_PREFIX + secrets.token_urlsafe(KEY_BYTES)
    return key, key_hash(key)


def key_hash(key: str) -> str:
    """Return the stored form of a key: it is random, so that one SHA-256 is enough."""
    return hashlib.sha256(key.encode("utf-8", "replace")).hexdigest()


def find_key(accounts: Mapping[str, Any], key: str) -> tuple[str, frozenset[Permission]] | None:
    """Return the account of a key and what may be done with it, None when nobody has it."""
    wanted = key_hash(key)
    for name, account in accounts.items():
        for entry in account.get("keys") or ():
            if hmac.compare_digest(str(entry.get("hash", "")), wanted):
                return name, permissions_of(account) & permissions_of(entry)
    return None


# -- guessing ----------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Budget:
    attempts: float
    at: float
    failures: int = 0
    locked_until: float = float("-inf")


class LoginLimit:
    """Bounds guessing: ten passwords at once, then one every three seconds, and none for five minutes after twenty.

    Counted for an address (an IPv6 one with all of its /64) and, with five times as many, for an account: not for
    addresses that logged in to it before, so that nobody can be kept out by strangers.
    """

    def __init__(self) -> None:
        self._budgets: OrderedDict[tuple[str, str], _Budget] = OrderedDict()
        self._welcome: OrderedDict[tuple[str, str], None] = OrderedDict()

    def allow(self, address: str, username: str, now: float) -> bool:
        """Return whether an address may try a password of an account, without counting. now: monotonic seconds."""
        place = _neighbourhood(address)
        if not self._has_left(("address", place), now, 1):
            return False
        if not username or (place, username) in self._welcome:
            return True
        return self._has_left(("account", username), now, ACCOUNT_FACTOR)

    def _has_left(self, key: tuple[str, str], now: float, factor: int) -> bool:
        budget = self._budgets.get(key)
        if budget is None:
            return True
        return now >= budget.locked_until and budget.attempts + (now - budget.at) / SECONDS_PER_ATTEMPT * factor >= 1

    def failed(self, address: str, username: str, now: float) -> bool:
        """Count a wrong password; returns whether it locks the address or the account."""
        locked = self._count(("address", _neighbourhood(address)), now, 1)
        return (bool(username) and self._count(("account", username), now, ACCOUNT_FACTOR)) or locked

    def _count(self, key: tuple[str, str], now: float, factor: int) -> bool:
        most = ATTEMPTS_AT_ONCE * factor
        budget = self._budgets.setdefault(key, _Budget(most, now))
        refilled = budget.attempts + (now - budget.at) / SECONDS_PER_ATTEMPT * factor
        if now - budget.at >= LOCK_SECONDS:
            budget.failures = 0
        budget.attempts = max(0.0, min(refilled, most) - 1)
        budget.at = now
        budget.failures += 1
        self._budgets.move_to_end(key)
        if len(self._budgets) > MAX_REMEMBERED:
            self._budgets.popitem(last=False)
        if budget.failures % (FAILURES_TO_LOCK * factor):
            return False
        budget.locked_until = now + LOCK_SECONDS
        return True

    def succeeded(self, address: str, username: str) -> None:
        """Forget what an address did wrong."""
        place = _neighbourhood(address)
        self._budgets.pop(("address", place), None)
        self._welcome[(place, username)] = None
        self._welcome.move_to_end((place, username))
        if len(self._welcome) > MAX_REMEMBERED:
            self._welcome.popitem(last=False)


def _neighbourhood(address: str) -> str:
    try:
        found = ipaddress.ip_address(address.partition("%")[0])
    except ValueError:
        return address
    return address if found.version == 4 else str(ipaddress.ip_network((found, 64), strict=False))

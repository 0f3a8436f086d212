"""Logging in to HTTP servers: the Basic and Digest schemes (RFC 7617, RFC 7616)."""

from __future__ import annotations

import hashlib
import os
import re
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any, Final

from mist.errors import UnsupportedError

_PARAMETER: Final = re.compile(r'([a-zA-Z0-9_-]{1,40})=(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')
_HASHES: Final[Mapping[str, Callable[..., Any]]] = {
    "MD5": hashlib.md5,
    "SHA": hashlib.sha1,
    "SHA-256": hashlib.sha256,
    "SHA-512-256": lambda data: hashlib.new("sha512_256", data),
}


def basic(user: str, password: str) -> str:
    """Return the value of a header that logs in by the Basic scheme."""
    return "Basic " + b64encode(f"{user}:{password}".encode()).decode()


def new_nonce() -> str:
    """Return a number that was not used before."""
    return os.urandom(8).hex()


class Login:
    """A name and a password for one server, and how that server wants them."""

    def __init__(self, user: str, password: str, origin: tuple[str, str, int]) -> None:
        self._user = user
        self._password = password
        self._origin = origin
        self._asked: Mapping[str, str] | None = None  # the challenge; empty for Basic
        self._count = 0

    def applies(self, origin: tuple[str, str, int]) -> bool:
        """Tell whether a server has asked for it, and may be told."""
        return self._asked is not None and origin == self._origin

    def take(self, challenge: str) -> None:
        """Note what a server asks for: the value of WWW-Authenticate."""
        scheme, _, rest = challenge.strip().partition(" ")
        found = _PARAMETER.findall(rest) if scheme.lower() == "digest" else []
        self._asked = {name.lower(): quoted or bare for name, quoted, bare in found}

    def answer(self, method: str, target: str) -> str:
        """Return the value of Authorization for a request. Raises UnsupportedError for a scheme that is not known."""
        if not self._asked:
            return basic(self._user, self._password)
        self._count += 1
        return self._digest(self._asked, method, target, new_nonce())

    def _digest(self, asked: Mapping[str, str], method: str, target: str, own: str) -> str:
        algorithm = asked.get("algorithm", "MD5")
        make = _HASHES.get(algorithm.upper().removesuffix("-SESS"))
        if make is None:
            raise UnsupportedError(f"the login algorithm {algorithm[:40]} is not known", spec="RFC 7616 section 3.3")

        def digest(*parts: str) -> str:
            return str(make(":".join(parts).encode()).hexdigest())

        realm, nonce, count = asked.get("realm", ""), asked.get("nonce", ""), f"{self._count:08x}"
        secret = digest(self._user, realm, self._password)
        if algorithm.upper().endswith("-SESS"):
            secret = digest(secret, nonce, own)
        given = {"username": self._user, "realm": realm, "nonce": nonce, "uri": target}
        plain = {"algorithm": algorithm} if "algorithm" in asked else {}
        if "auth" in re.split(r"[\s,]+", asked.get("qop", "")):
            given["response"] = digest(secret, nonce, count, own, "auth", digest(method, target))
            given["cnonce"] = own
            plain |= {"qop": "auth", "nc": count}
        else:
            given["response"] = digest(secret, nonce, digest(method, target))
        if "opaque" in asked:
            given["opaque"] = asked["opaque"]
        quoted = [f'{name}="{value}"' for name, value in given.items()]
        return "Digest " + ", ".join([*quoted, *(f"{name}={value}" for name, value in plain.items())])

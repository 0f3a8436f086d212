"""The keys that sign tokens (`jwks`): their forms, what is a usable key, and checking a token for the control API.

Specification: RFC 7517 (keys), RFC 7518 section 6 (their members), RFC 7519 (tokens).
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import json
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any

from mist.errors import AccessDenied, ConfigError

MAX_KEYS = 256
MAX_MEMBER_CHARACTERS = 16 * 1024
MAX_TOKEN_CHARACTERS = 8192
MAX_SET_DEPTH = 4
COMMON_MEMBERS = ("kty", "use", "key_ops", "alg", "kid", "x5u", "x5c", "x5t", "x5t#S256")
# Members of each type, those that a key must have, and those that make two keys the same.
MEMBERS = {
    "oct": ("k",),
    "RSA": ("n", "e", "d", "p", "q", "dp", "dq", "qi"),
    "EC": ("crv", "x", "y", "d"),
}
REQUIRED = {"oct": ("k",), "RSA": ("n", "e"), "EC": ("crv", "x", "y")}
SAME = {"oct": ("k",), "RSA": ("n",), "EC": ("x", "y")}
CURVES = {"P-256": ("ES256", 32), "P-384": ("ES384", 48), "P-521": ("ES512", 66)}
ALGORITHMS = {"oct": ("HS256", "HS384", "HS512"), "RSA": ("RS256", "RS384", "RS512", "PS256", "PS384", "PS512")}
DEFAULT_PERMISSIONS: Mapping[str, Any] = {"input": True, "output": True, "admin": False, "stream": "*"}
TYPE_BY_LETTER = {"o": "oct", "R": "RSA", "r": "RSA", "E": "EC", "e": "EC"}
TOKEN = re.compile(r"[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]*")
_BASE64URL = re.compile(r"[A-Za-z0-9_-]+")
_URL = re.compile(r"https?://[^\s]{1,2000}")

Entry = list[Any]  # [key or URL] or [key or URL, permissions]; a URL may also stand alone in the configuration


def entries(value: Any, depth: int = 0) -> Iterator[Entry]:
    """Yield the entries in a request: one, a list of them, or key sets within. Raises ConfigError for what is none."""
    if depth > MAX_SET_DEPTH:
        raise ConfigError("key sets within key sets")
    if isinstance(value, str) or (isinstance(value, dict) and "keys" not in value):
        yield _entry(value, None)
    elif isinstance(value, dict):
        for key in _list(value["keys"]):
            yield from entries(key, depth + 1)
    elif _is_pair(value):
        source, permissions = value
        members = _list(source["keys"]) if isinstance(source, dict) and "keys" in source else [source]
        for member in members:
            yield _entry(member, permissions)
    else:
        for member in _list(value):
            yield from entries(member, depth + 1)


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise ConfigError(f"expected a key, a URL or a list of them, not {type(value).__name__}")
    if len(value) > MAX_KEYS:
        raise ConfigError(f"more than {MAX_KEYS} keys")
    return value


def _is_pair(value: Any) -> bool:
    """Return whether a list is one entry with its permissions: the second member has no key's members."""
    if not isinstance(value, list) or len(value) != 2 or not isinstance(value[1], dict):
        return False
    return isinstance(value[0], str | dict) and not {"kty", "keys"} & value[1].keys()


def _entry(source: Any, permissions: Any) -> Entry:
    if isinstance(source, str):
        if not _URL.fullmatch(source):
            raise ConfigError("expected the http(s) URL of a key set")
        checked: Any = source
    else:
        checked = usable_key(source)
    return [checked] if permissions is None else [checked, _permissions(permissions)]


def configured(value: Any) -> Entry:
    """Return an entry of a configuration file in its list form. Raises ConfigError for what is none."""
    entry = unstored(value)
    if not 1 <= len(entry) <= 2:
        raise ConfigError("expected a key or a URL, alone or in a list with its permissions")
    return _entry(entry[0], entry[1] if len(entry) == 2 else None)


def usable_key(value: Any) -> dict[str, Any]:
    """Return a key with only the members that keys have. Raises ConfigError when it could check no token."""
    if not isinstance(value, dict):
        raise ConfigError(f"expected a key, not {type(value).__name__}")
    kind = TYPE_BY_LETTER.get(str(value.get("kty", ""))[:1], "")
    if not kind:
        raise ConfigError('a key needs "kty": "oct", "RSA" or "EC"')
    key = {name: value[name] for name in (*COMMON_MEMBERS, *MEMBERS[kind]) if value.get(name) is not None}
    key["kty"] = kind
    for name, member in key.items():
        if name in ("key_ops", "x5c"):
            fits = isinstance(member, list) and all(isinstance(part, str) for part in member)
        else:
            fits = isinstance(member, str) and len(member) <= MAX_MEMBER_CHARACTERS
        if not fits:
            raise ConfigError(f'the member "{name}" of a key has a wrong type or is too long')
    for name in REQUIRED[kind]:
        _check_member(kind, key, name)
    return key


def _check_member(kind: str, key: Mapping[str, Any], name: str) -> None:
    value = key.get(name, "")
    if name == "crv":
        if value not in CURVES:
            raise ConfigError(f'an EC key needs "crv": {" or ".join(CURVES)}')
        return
    if not _BASE64URL.fullmatch(value.rstrip("=")):
        raise ConfigError(f'a key of type {kind} needs "{name}" in base64url')
    if kind == "EC" and len(_decoded(value)) != CURVES[key["crv"]][1]:
        raise ConfigError(f'the member "{name}" is no coordinate on {key["crv"]}')


def _decoded(text: str) -> bytes:
    try:
        return base64.urlsafe_b64decode(text.rstrip("=") + "=" * (-len(text.rstrip("=")) % 4))
    except (binascii.Error, ValueError):
        return b""


def _permissions(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise ConfigError("the permissions of a key are an object")
    result: dict[str, Any] = {name: bool(value[name]) for name in ("input", "output", "admin") if name in value}
    if "stream" in value:
        streams = value["stream"]
        if not isinstance(streams, str) and not (
            isinstance(streams, list) and all(isinstance(stream, str) for stream in streams)
        ):
            raise ConfigError('the permission "stream" is a pattern or a list of patterns')
        result["stream"] = streams
    return result


# -- the stored set ----------------------------------------------------------------------------------------------------


def stored(entry: Entry) -> Any:
    """Return an entry as the configuration has it: a URL without permissions stands alone."""
    return entry[0] if len(entry) == 1 and isinstance(entry[0], str) else entry


def unstored(value: Any) -> Entry:
    """Return an entry of the configuration in its list form."""
    return list(value) if isinstance(value, list) else [value]


def shown(entry: Entry) -> Entry:
    """Return an entry with all four permissions."""
    return [entry[0], {**DEFAULT_PERMISSIONS, **(entry[1] if len(entry) > 1 else {})}]


def is_same(one: Any, other: Any) -> bool:
    """Return whether two keys replace each other: the same identifier, or the same secret or public part; or equal URLs."""
    if isinstance(one, str) or isinstance(other, str):
        return bool(one == other)
    if one.get("kid") and one.get("kid") == other.get("kid"):
        return True
    kind = one.get("kty")
    return kind == other.get("kty") and kind in SAME and all(one.get(name) == other.get(name) for name in SAME[kind])


def added(present: list[Entry], new: Iterable[Entry]) -> tuple[list[Entry], list[Entry]]:
    """Return a set with new entries in it, and those that were added. A key takes the place of one that is the same."""
    result, changes = list(present), []
    for entry in new:
        place = next((n for n, old in enumerate(result) if is_same(old[0], entry[0])), None)
        if place is None:
            result.append(entry)
        elif isinstance(entry[0], str) and entry == result[place]:
            continue
        else:
            result[place] = entry
        changes.append(entry)
    if len(result) > MAX_KEYS:
        raise ConfigError(f"more than {MAX_KEYS} keys")
    return result, changes


def removed(present: list[Entry], unwanted: Any) -> tuple[list[Entry], list[Any]]:
    """Return a set without what a request names (identifier, URL, key, or a list of those), and what of it was there."""
    wanted = unwanted if isinstance(unwanted, list) and not _is_pair(unwanted) else [unwanted]
    left, gone = list(present), []
    for one in wanted[:MAX_KEYS]:
        name = one[0] if isinstance(one, list) and one else one
        if not isinstance(name, str | dict) or not name:
            continue
        keep = [entry for entry in left if not _is_named(entry[0], name)]
        if len(keep) < len(left):
            gone.append({"kid": name} if isinstance(name, str) and not _URL.fullmatch(name) else name)
        left = keep
    return left, gone


def _is_named(source: Any, name: Any) -> bool:
    if isinstance(name, str):
        return bool(source == name if isinstance(source, str) else source.get("kid") == name)
    if isinstance(source, str):
        return False
    given = {**name, "kty": TYPE_BY_LETTER.get(str(name.get("kty", ""))[:1], source.get("kty"))}
    return is_same(source, given)


# -- tokens ------------------------------------------------------------------------------------------------------------


def admin_claims(token: str, present: Iterable[Any], address: str, now: float) -> dict[str, Any]:
    """Return the claims of a token that one of the keys with the permission `admin` signed.

    The key named by the token's `kid` is tried, without one all that fit. It must have `exp` and `permissions`; `nbf` and
    `ipa` (address or network of the client) count where they are there. Raises AccessDenied.
    """
    if len(token) > MAX_TOKEN_CHARACTERS or not TOKEN.fullmatch(token):
        raise AccessDenied("That is no token")
    entries = [entry for entry in map(unstored, present) if isinstance(entry[0], dict)]
    keys = [entry[0] for entry in _meant(token, entries) if len(entry) > 1 and entry[1].get("admin")]
    claims = _verified(token, keys)
    expires, begins = claims.get("exp"), claims.get("nbf", 0)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float) or not begins <= now < expires:
        raise AccessDenied("The token is not valid at this time")
    if "ipa" in claims and not _covers(claims["ipa"], address):
        raise AccessDenied("The token is for another address")
    if not isinstance(claims.get("permissions"), list | str):
        raise AccessDenied('The token has no claim "permissions", a list')
    return claims


def claims_for(token: str, use: str, entries: Iterable[Entry], address: str, now: float) -> dict[str, Any]:
    """Return the claims of a token that one of some keys signed for a use, "input" or "output".

    entries: keys with their permissions, no URLs. The key named by the token's `kid` is tried, without one all that fit; its
    patterns of streams must cover the token's `sub`. `nbf`, `exp` and `ipa` count where they are there. Raises AccessDenied.
    """
    if len(token) > MAX_TOKEN_CHARACTERS or not TOKEN.fullmatch(token):
        raise AccessDenied("That is no token")
    for key, permissions in _meant(token, [shown(entry) for entry in entries if isinstance(entry[0], dict)]):
        if not permissions.get(use):
            continue
        try:
            claims = _verified(token, [key])
        except AccessDenied:
            continue
        _check_times(claims, now)
        if "ipa" in claims and not _covers(claims["ipa"], address):
            raise AccessDenied("The token is for another address")
        patterns = permissions["stream"]
        subject = str(claims.get("sub") or "")
        if any(matches(one, subject) for one in ([patterns] if isinstance(patterns, str) else patterns)):
            return claims
    raise AccessDenied("No key that may do so signed the token")


def _check_times(claims: Mapping[str, Any], now: float) -> None:
    begins, expires = claims.get("nbf", 0), claims.get("exp", now + 1)
    if not isinstance(expires, int | float) or not isinstance(begins, int | float) or not begins <= now < expires:
        raise AccessDenied("The token is not valid at this time")


def matches(pattern: str, name: str) -> bool:
    """Return whether a name fits a pattern, or a pattern that a token has for a name: with a "*" at either end or both."""
    if pattern == "*":
        return True
    front, back = pattern.startswith("*"), pattern.endswith("*")
    plain = pattern[front : len(pattern) - back]
    if front and back:
        return plain in name
    return name.endswith(plain) if front else name.startswith(plain) if back else name == plain


def unverified_claims(token: str) -> dict[str, Any]:
    """Return what a token claims, whoever made it; nothing for what is no token."""
    if len(token) > MAX_TOKEN_CHARACTERS or not TOKEN.fullmatch(token):
        return {}
    try:
        claims = json.loads(_decoded(token.split(".")[1]))
    except (ValueError, RecursionError):
        return {}
    return claims if isinstance(claims, dict) else {}


@lru_cache(256)
def subject_of(token: str) -> str:
    """Return the stream that a token claims to be for, unverified; "" for what is no token."""
    subject = unverified_claims(token).get("sub")
    return subject if isinstance(subject, str) else ""


def _header(token: str) -> Mapping[str, Any]:
    """Return what a token says of itself. Raises AccessDenied."""
    import jwt

    try:
        return jwt.get_unverified_header(token)
    except jwt.PyJWTError as error:
        raise AccessDenied("That is no token") from error


def _meant(token: str, entries: Sequence[Any]) -> Sequence[Any]:
    """Return those of some keys, each with its permissions, that may have signed a token: the one that its `kid` names, else all."""
    identifier = _header(token).get("kid")
    return [entry for entry in entries if identifier and entry[0].get("kid") == identifier] or entries


def _verified(token: str, keys: list[dict[str, Any]]) -> dict[str, Any]:
    import jwt

    header = _header(token)
    for key in keys:
        allowed = [CURVES[key["crv"]][0]] if key["kty"] == "EC" else list(ALGORITHMS[key["kty"]])
        if header.get("alg") not in allowed or key.get("alg", header["alg"]) != header["alg"]:
            continue
        options: Any = {"verify_exp": False, "verify_nbf": False, "verify_aud": False, "verify_iat": False}
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # of short keys, on standard error, for each token
                signer = jwt.PyJWK({"alg": header["alg"], **key})
                return dict(jwt.decode(token, signer.key, algorithms=[header["alg"]], options=options))
        except (jwt.PyJWTError, ValueError, TypeError):
            continue
    raise AccessDenied("No key of this server signed the token")


def _covers(claim: Any, address: str) -> bool:
    try:
        return ipaddress.ip_address(address) in ipaddress.ip_network(str(claim), strict=False)
    except (ValueError, TypeError):
        return False

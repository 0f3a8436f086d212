"""Lines about changes: what they say, and what must not be in them."""

from __future__ import annotations

import re
from typing import Any

from mist.formats.json_text import dumps

MAX_SHOWN = 500
MAX_MEMBERS = 50
MAX_LEVELS = 10
HIDDEN = "***"
# Members whose values are secrets: passwords, private parts of keys (RFC 7518 section 6), tokens.
SECRET_MEMBERS = frozenset({
    "password", "new_password", "clear", "hash", "keys", "k", "d", "p", "q", "dp", "dq", "qi", "token", "secret", "pass",
    "passphrase", "prometheus", "auth",
})  # fmt: skip
SECRET_CALLS = frozenset({"streamkeys", "streamkey_add", "streamkey_del", "config_restore", "config_backup"})
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")
_SECRET_VARIABLE = re.compile(r"(?i)([?&](?:\w*(?:pass|key|token|secret|auth)\w*|jwt|tkn)=)[^&#\s]*")


def without_passwords(text: str) -> str:
    """Return a URL, or another text, without user names, passwords and tokens. In `push://` the password comes last."""
    if text.startswith("push://"):
        allowed, at, _ = text.partition("@")
        return f"{allowed}@{HIDDEN}" if at else text
    return _SECRET_VARIABLE.sub(rf"\1{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text)) if "://" in text else text


def without_secrets(value: Any, depth: int = 0) -> Any:
    """Return a copy of a JSON value in which secrets are hidden; long lists and objects are cut, and deep ones."""
    if depth > MAX_LEVELS:
        return "…"
    if isinstance(value, dict):
        shown = list(value.items())[:MAX_MEMBERS]
        return {key: HIDDEN if key in SECRET_MEMBERS else without_secrets(member, depth + 1) for key, member in shown}
    if isinstance(value, list):
        return [without_secrets(member, depth + 1) for member in value[:MAX_MEMBERS]]
    return without_passwords(value) if isinstance(value, str) else value


def summary(call: str, value: Any) -> str:
    """Return what a call was given, in one short line without secrets."""
    if call in SECRET_CALLS:
        return f"({len(value)} hidden)" if isinstance(value, dict | list) else HIDDEN
    text = dumps(without_secrets(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"

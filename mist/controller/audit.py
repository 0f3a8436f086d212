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
# Calls that set command lines, and the place of those in the form of a list.
COMMAND_PLACES = {"external_writer_add": 1, "variable_add": 1}
_PROGRAM = re.compile(r"(?i)(\s*(?:[^:/?]*:)?\s*[a-z0-9]+-exec:\s*\S+)\s.*", re.DOTALL)
_USER_INFO = re.compile(r"(?<=://)[^/@\s]*@")
_SECRET_VARIABLE = re.compile(r"(?i)([?&](?:\w*(?:pass|key|token|secret|auth)\w*|jwt|tkn)=)[^&#\s]*")


def without_passwords(text: str) -> str:
    """Return a URL, or another text, without user names, passwords and tokens. In `push://` the password comes last."""
    if text.startswith("push://"):
        allowed, at, _ = text.partition("@")
        return f"{allowed}@{HIDDEN}" if at else text
    if "-exec:" in text and (program := _PROGRAM.fullmatch(text)):
        return f"{program[1]} {HIDDEN}"
    return _SECRET_VARIABLE.sub(rf"\1{HIDDEN}", _USER_INFO.sub(f"{HIDDEN}@", text)) if "://" in text else text


def without_arguments(command: str) -> str:
    """Return a command line without what the program is given, which may be passwords; a URL without its own."""
    program, blank, _ = command.strip().partition(" ")
    return f"{without_passwords(program)} {HIDDEN}" if blank else without_passwords(program)


def without_commands(call: str, value: Any) -> Any:
    """Return what a call was given that sets command lines, without their arguments."""
    if isinstance(value, dict):
        return {
            key: without_arguments(member) if key in ("cmdline", "target") and isinstance(member, str) else member
            for key, member in value.items()
        }
    place = COMMAND_PLACES[call]
    if isinstance(value, list) and len(value) > 2 and isinstance(value[place], str):
        return [*value[:place], without_arguments(value[place]), *value[place + 1 :]]
    return value


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
    if call in COMMAND_PLACES:
        value = without_commands(call, value)
    text = dumps(without_secrets(value))
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 1] + "…"

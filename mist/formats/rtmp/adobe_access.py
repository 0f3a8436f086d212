"""User and password for an RTMP server that asks for them as Adobe's Flash Media Server did (`authmod=adobe`).

The server refuses a connection and says in the description what it wants; the client connects again with that added to the name of
the application. There is no specification: this is what servers and encoders do.
"""

from __future__ import annotations

from base64 import b64encode
from hashlib import md5
from typing import Final
from urllib.parse import parse_qsl

from mist.errors import AccessDenied

ATTEMPTS: Final = 3  # connections: one that is told what to do, one for the salt, one with the answer
MAX_WORDS: Final = 16  # of a refusal
MODE: Final = "authmod=adobe"
_REASONS: Final = {"authfailed": "the password is wrong", "nosuchuser": "it does not know the user"}


def answer(description: str, user: str, password: str, challenge: str) -> str:
    """Return what is to be added to the name of the application after a refusal, "" where it was for another reason.

    challenge: text of our choice that nobody can know. Raises AccessDenied where the server says that user or password is wrong.
    """
    if MODE in description and "code=403" in description and "reason=" not in description:
        return f"?{MODE}&user={user}"
    if MODE not in description or "?" not in description:
        return ""
    words = description.partition("?")[2].strip().rstrip("] ")
    try:
        given = dict(parse_qsl(words.replace("+", "%2B"), keep_blank_values=True, max_num_fields=MAX_WORDS))
    except ValueError:
        return ""
    reason = given.get("reason", "")
    if reason in _REASONS:
        raise AccessDenied(f"the server refuses {user}: {_REASONS[reason]}")
    if reason != "needauth" or "salt" not in given:
        return ""
    opaque = given.get("opaque", "")
    response = _hash(_hash(user + given["salt"] + password) + (opaque or given.get("challenge", "")) + challenge)
    kept = f"&opaque={opaque}" if opaque else ""
    return f"?{MODE}&user={user}&challenge={challenge}&response={response}{kept}"


def _hash(text: str) -> str:
    return b64encode(md5(text.encode(), usedforsecurity=False).digest()).decode()

"""Which of several keys a token may be signed by."""

from __future__ import annotations

import base64

import jwt
import pytest

from mist.errors import AccessDenied
from mist.stream.token_keys import claims_for

SECRETS = {name: name.encode() * 32 for name in ("a", "b")}
KEYS = {
    name: {"kty": "oct", "k": base64.urlsafe_b64encode(secret).decode().rstrip("="), "kid": name}
    for name, secret in SECRETS.items()
}
ENTRIES = [["https://keys.example/set"], [KEYS["a"], {"output": False}], [KEYS["b"]]]


@pytest.mark.parametrize(
    ("signer", "named", "taken"),
    [
        ("b", "b", True),
        ("b", None, True),
        ("b", "unknown", True),
        ("b", "a", False),  # the key that it names did not sign it
        ("a", "a", False),  # that key is not for playing
        ("a", None, False),
    ],
)
def test_the_named_key_is_the_one(signer: str, named: str | None, taken: bool) -> None:
    headers = {} if named is None else {"kid": named}
    token = jwt.encode({"sub": "live"}, SECRETS[signer], algorithm="HS256", headers=headers)
    try:
        assert claims_for(token, "output", ENTRIES, "192.0.2.1", 0.0) == {"sub": "live"}
    except AccessDenied:
        assert not taken
    else:
        assert taken

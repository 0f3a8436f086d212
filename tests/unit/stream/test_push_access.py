"""Who may publish."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mist.errors import AccessDenied, MistError, NotFound
from mist.stream.push_access import PushTarget, admit, host_matches, is_name, push_rule

NAMES = {"encoder.example": ["192.0.2.7", "2001:db8::7"]}
STREAMS = {
    "open": {"source": "push://"},
    "secret": {"source": "push://@word"},
    "near": {"source": "push://192.0.2.0/24"},
    "both": {"source": "push://192.0.2.9@word"},
    "named": {"source": "push://encoder.example"},
    "six": {"source": "push://[2001:db8::]/32"},
    "pulled": {"source": "/file.mkv"},
    "internal": {"source": "push://INTERNAL_ONLY:x"},
}
CONFIG = {"streams": STREAMS, "streamkeys": {"k3y": "Secret", "odd": None}}


async def _resolve(host: str) -> list[str]:
    return NAMES.get(host, [])


def try_to_publish(name: str, password: str = "live", peer: str = "198.51.100.1", config: Any = CONFIG) -> PushTarget:
    return asyncio.run(admit(config, name, password, peer, _resolve))


@pytest.mark.parametrize(
    ("name", "password", "peer"),
    [
        ("open", "live", "198.51.100.1"),
        ("OPEN", "live", "198.51.100.1"),
        ("open+wild", "live", "198.51.100.1"),
        ("secret", "word", "198.51.100.1"),
        ("near", "live", "192.0.2.200"),
        ("near", "live", "::ffff:192.0.2.200"),
        ("both", "word", "198.51.100.1"),
        ("both", "wrong", "192.0.2.9"),
        ("named", "live", "192.0.2.7"),
        ("named", "live", "2001:db8::7"),
        ("six", "live", "2001:db8:1::9"),
    ],
)
def test_admitted(name: str, password: str, peer: str) -> None:
    assert try_to_publish(name, password, peer) == PushTarget(name.lower())


@pytest.mark.parametrize(
    ("name", "password", "peer", "error"),
    [
        ("secret", "wrong", "198.51.100.1", AccessDenied),
        ("secret", "", "198.51.100.1", AccessDenied),
        ("near", "live", "192.0.3.1", AccessDenied),
        ("both", "wrong", "192.0.2.8", AccessDenied),
        ("named", "live", "192.0.2.8", AccessDenied),
        ("six", "live", "192.0.2.8", AccessDenied),
        ("near", "live", "not an address", AccessDenied),
        ("pulled", "live", "198.51.100.1", AccessDenied),
        ("internal", "live", "198.51.100.1", AccessDenied),
        ("absent", "live", "198.51.100.1", NotFound),
        ("???", "live", "198.51.100.1", NotFound),
    ],
)
def test_refused(name: str, password: str, peer: str, error: type[MistError]) -> None:
    with pytest.raises(error):
        try_to_publish(name, password, peer)


def test_a_wildcard_may_have_settings_of_its_own() -> None:
    config = {"streams": {**STREAMS, "open+x": {"source": "push://@other"}}}
    with pytest.raises(AccessDenied):
        try_to_publish("open+x", config=config)


def test_stream_keys_come_first() -> None:
    assert try_to_publish("k3y", "wrong") == PushTarget("secret", keyed=True)
    with pytest.raises(NotFound):
        try_to_publish("odd")
    with pytest.raises(NotFound):
        try_to_publish("open", config={})


def test_rules() -> None:
    assert push_rule("push://host@pass@word?x=1") == ("host", "pass@word")
    assert is_name("encoder.example") and not is_name("10.0.0.0/8") and not is_name("::1")
    assert not host_matches("10.0.0.1", (), "10.0.0.2")

"""Addresses of RTMP servers, and those that servers name themselves."""

from __future__ import annotations

import pytest

from mist.errors import AccessDenied, ConfigError
from mist.formats.rtmp import adobe_access
from mist.net.rtmp_client import RtmpAddress

ASKS = "[ AccessManager.Reject ] : [ authmod=adobe ] : ?reason=needauth&user=u&salt=PQHo4Q==&challenge=8ACA+A=="


@pytest.mark.parametrize(
    ("named", "tc_url"),
    [
        ("", "rtmps://host:444/live/one"),
        ("rtmp://other/app", "rtmp://other/app"),
        ("rtmp://other:1936/app/two/", "rtmp://other:1936/app/two"),
        ("//[::1]:445/app", "rtmps://[::1]:445/app"),
        ("/app", "rtmps://host:444/app"),
        ("app/two", "rtmps://host:444/app/two"),
    ],
)
def test_where_a_server_sends_a_publisher(named: str, tc_url: str) -> None:
    address = RtmpAddress.parse("rtmps://user:pass%20word@host:444/live/one/key?a=b", verify=False)
    moved = address.moved_to(named)
    assert moved.tc_url == tc_url
    assert (moved.stream, moved.user, moved.password, moved.verify) == ("key?a=b", "user", "pass word", False)


@pytest.mark.parametrize("named", ["http://other/app", "rtmp://", "rtmp://host:99999/app"])
def test_nonsense(named: str) -> None:
    with pytest.raises(ConfigError):
        RtmpAddress.parse("rtmp://host/live/key").moved_to(named)


def test_a_password_is_not_shown() -> None:
    assert "secret" not in repr(RtmpAddress.parse("rtmp://user:secret@host/live/key"))


def test_answers() -> None:
    """The answer to a fixed question, computed with openssl; what is no question has none."""
    assert adobe_access.answer("[ code=403 need auth; authmod=adobe ] : ", "u", "p", "c") == "?authmod=adobe&user=u"
    answer = adobe_access.answer(ASKS, "u", "p", "00c0ffee")
    assert answer == "?authmod=adobe&user=u&challenge=00c0ffee&response=djVPs4FAWLVpWb94HwbgoQ=="
    assert adobe_access.answer(ASKS + "&opaque=8ACA+A==", "u", "p", "00c0ffee") == answer + "&opaque=8ACA+A=="
    for words in ("", "busy", "authmod=llnw ?reason=needauth", "authmod=adobe ?reason=needauth", ASKS + "&x=1" * 99):
        assert adobe_access.answer(words, "u", "p", "c") == ""
    with pytest.raises(AccessDenied):
        adobe_access.answer("authmod=adobe ] : ?reason=authfailed", "u", "p", "c")

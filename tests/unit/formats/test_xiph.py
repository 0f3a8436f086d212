"""Xiph lacing and comments."""

from __future__ import annotations

import pytest

from mist.errors import LocalProtocolError, RemoteProtocolError
from mist.formats import xiph


@pytest.mark.parametrize(
    "packets", [[b""], [b"abc"], [b"a", b"b"], [b"", b"", b""], [bytes(254), b"x"], [bytes(255), bytes(510), b"end"]]
)
def test_lacing_round_trip(packets: list[bytes]) -> None:
    assert xiph.unlace(xiph.lace(packets)) == packets


def test_golden_lacing() -> None:
    assert xiph.lace([bytes(255), b"abc", b"end"]) == b"\x02\xff\x00\x03" + bytes(255) + b"abcend"


@pytest.mark.parametrize("data", [b"", b"\x01", b"\x01\xff", b"\x01\x05abcd"])
def test_broken_lacing(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        xiph.unlace(data)


@pytest.mark.parametrize("count", [0, 257])
def test_lacing_of_a_wrong_number(count: int) -> None:
    with pytest.raises(LocalProtocolError):
        xiph.lace([b"x"] * count)


def test_comments_round_trip() -> None:
    comments = {"TITLE": "Käse = Cheese", "LANGUAGE": "de"}
    data = xiph.build_comments(b"vendor", comments)
    assert xiph.parse_comments(data + b"\x01") == (b"vendor", comments)
    assert xiph.language_of(data) == "deu"
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            xiph.parse_comments(data[:size])
        assert xiph.language_of(data[:size]) == "und"


def test_the_first_comment_of_a_name_counts_in_any_case() -> None:
    data = b"\0\0\0\0" + b"\2\0\0\0" + b"\x0c\0\0\0language=nld" + b"\x0c\0\0\0LANGUAGE=eng"
    assert xiph.language_of(data) == "nld"

"""Stream names and their form in shared memory."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mist.errors import NotFound
from mist.stream.names import MAX_NAME_BYTES, MAX_SHM_NAME_BYTES, base_name, sanitise, shm_name, split, wildcard_part


@pytest.mark.parametrize(
    ("written", "known"),
    [
        ("live", "live"),
        ("LiVe", "live"),
        ("my stream", "my+stream"),
        ("my+Stream/A b+c", "my+Stream/A b+c"),
        ("a b c", "a+b c"),
        ("caf\u00e9-1_2.x", "caf-1_2.x"),
        ("live?video=1", "live"),
        ("live+x?y?z", "live+x"),
        ("live?a+b", "live"),
        ("../live", "..live"),
        ("live+", "live+"),
        ("li\u212ave", "live"),
        ("x+\u00e9\u00e8", "x+\u00e9\u00e8"),
    ],
)
def test_sanitise(written: str, known: str) -> None:
    assert sanitise(written) == known


@pytest.mark.parametrize(
    "written", ["", "?", "+x", " x", "\u00e9", "a+\x00", "a+b\n", "a+\ud800", "a" * 101, "a+" + "\u00e9" * 50]
)
def test_sanitise_refuses(written: str) -> None:
    with pytest.raises(NotFound):
        sanitise(written)


def test_the_longest_name() -> None:
    assert sanitise("a" * MAX_NAME_BYTES) == "a" * MAX_NAME_BYTES
    assert sanitise("!" * 5000 + "a") == "a"


def test_parts() -> None:
    assert split("live") == ("live", None)
    assert split("live+") == ("live", "")
    assert split("live a+b") == ("live", "a+b")
    assert base_name("live+a+b") == "live"
    assert wildcard_part("live+a+b") == "a+b"
    assert wildcard_part("live") == ""


@given(st.text(max_size=130))
def test_sanitising_twice_changes_nothing_more(text: str) -> None:
    try:
        once = sanitise(text)
    except NotFound:
        return
    assert sanitise(once) == once
    assert len(once.encode()) <= MAX_NAME_BYTES
    assert base_name(once) == base_name(once).lower()


_names = st.text(st.sampled_from("aB.~%+/\u00e9-_\u4e00"), max_size=100)


@given(_names, _names)
def test_shared_memory_names_are_safe_and_differ(one: str, other: str) -> None:
    for name in (one, other):
        assert re.fullmatch(r"[A-Za-z0-9_+%~-]*", shm_name(name))
        assert len(shm_name(name)) <= MAX_SHM_NAME_BYTES
    assert (shm_name(one) == shm_name(other)) == (one == other)


def test_long_shared_memory_names_end_in_a_hash() -> None:
    short = "live+" + "\u00e9" * 25
    long = "live+" + "\u00e9" * 47
    assert "~" not in shm_name(short)
    assert len(shm_name(short)) == 5 + 25 * 6
    assert re.fullmatch(r"live\+(%[0-9A-F]{2})+~[0-9a-f]{32}", shm_name(long))
    assert shm_name(long) != shm_name(long[:-1] + "\u00e8")
    assert shm_name("live.0") == "live%2E0"

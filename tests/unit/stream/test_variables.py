"""Variables in names."""

from __future__ import annotations

from datetime import datetime

from mist.stream.variables import built_in, replace_in, substitute

NOW = datetime(2026, 11, 1, 7, 5, 9)


def test_all_that_are_built_in() -> None:
    values = built_in("live+cam 1", NOW)
    assert substitute("$stream|$basename|$wildcard|$pluswildcard", values) == "live+cam 1|live|cam 1|+cam 1"
    assert substitute("$datetime", values) == "2026.11.01.07.05.09"
    assert substitute("$wday/$yday/$week", values) == "7/305/44"
    assert substitute("a$pluswildcard$source", built_in("live", NOW)) == "a"


def test_names_have_no_ends() -> None:
    values = {"a": "1", "ab": "2"}
    assert substitute("$ab", values) == "1b"
    assert substitute("${ab}", values) == "2"
    assert substitute("$c ${c", values) == "$c ${c"


def test_levels_and_length_are_bounded() -> None:
    assert substitute("$a", {"a": "$b", "b": "x"}) == "x"
    assert len(substitute("$a", {"a": "$a$a$a$a$a$a$a$a$a"})) <= 4096
    assert substitute("$a", {"a": "x$a"}) == "x" * 10 + "$a"


def test_custom_variables_come_first_and_hide_built_in_ones() -> None:
    snapshot = {"variables": {"stream": {"value": "mine"}, "own": {"value": "$wildcard"}}}
    assert replace_in("$stream/$basename/$own", "live+cam", snapshot) == "mine/live/cam"

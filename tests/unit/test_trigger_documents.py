"""The table of triggers in the documents is the one that the server has."""

from __future__ import annotations

from pathlib import Path

import pytest

from mist.stream.triggers import TRIGGERS, Handler, due

DOCUMENT = (Path(__file__).parents[2] / "docs/operating.md").read_text()


@pytest.mark.parametrize("name", TRIGGERS)
def test_every_trigger_is_in_the_table(name: str) -> None:
    trigger = TRIGGERS[name]
    lines = " / ".join(line or "(empty)" for line in trigger.lines)
    assert f"| `{name}` | {trigger.when} | {lines} | {trigger.action} |" in DOCUMENT


def test_each_handler_of_live_bandwidth_has_its_own_bound() -> None:
    found = [
        Handler("low", argument="1000"),
        Handler("high", argument="9000"),
        Handler("any"),
        Handler("odd", argument="x"),
    ]
    assert [one.target for one in due("LIVE_BANDWIDTH", found, ["live", "5000"])] == ["low", "any", "odd"]
    assert due("STREAM_LOAD", found, ["live"]) == found

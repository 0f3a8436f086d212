"""The table of triggers in the documents is the one that the server has."""

from __future__ import annotations

from pathlib import Path

import pytest

from mist.stream.triggers import TRIGGERS, Handler, due

ROOT = Path(__file__).parents[2]
DOCUMENT = (ROOT / "docs/operating.md").read_text()
CODE = [path.read_text() for path in (ROOT / "mist").rglob("*.py") if path.name != "triggers.py"]
NOT_FIRED = {"LIVEPEER_SEGMENT_REJECTED"}


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


@pytest.mark.parametrize("name", TRIGGERS)
def test_every_trigger_is_fired_somewhere(name: str) -> None:
    fired = any(f'"{name}"' in text for text in CODE)
    assert fired != (name in NOT_FIRED)

"""Random JSON in every call: a reply, never an exception."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mist.controller.calls import CALLS
from mist.controller.schema import Server, Stream
from tests.fuzz.fuzz_api import fuzz, run_command

PAIRS = json.loads((Path(__file__).parents[2] / "data/api/pairs.json").read_text())
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | st.text(max_size=8)
)
WORDS = st.sampled_from(
    [*Server.model_fields, *Stream.model_fields, "live", "connector", "HTTP", "TS", "fields", "time", "streams", "start",
     "lastms", "health", "password", "online", "x-note", "push://", "-3", "config", "account", "variables", "jwks"]
)  # fmt: skip
VALUES = st.recursive(
    SCALARS | WORDS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(WORDS | st.text(max_size=5), inner, max_size=5),
    max_leaves=20,
)
NAMES = st.sampled_from([call.name for call in CALLS] + ["authorize", "minimal", "logout", "clearstatlogs"])


@settings(max_examples=100, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.dictionaries(NAMES, VALUES, max_size=6))
def test_random_values(command: dict[str, Any]) -> None:
    asyncio.run(run_command(command))


def replaced(value: Any, other: Any) -> list[Any]:
    """Return copies of a value, each with one of its parts replaced."""
    if isinstance(value, dict):
        return [other, *({**value, key: one} for key, part in value.items() for one in replaced(part, other))]
    if isinstance(value, list):
        places = range(len(value))
        return [other, *([*value[:n], one, *value[n + 1 :]] for n in places for one in replaced(value[n], other))]
    return [other]


@pytest.mark.parametrize("pair", PAIRS, ids=[pair["name"] for pair in PAIRS])
def test_recorded_command_with_one_part_replaced(pair: dict[str, Any]) -> None:
    """Every value in the command, replaced by something of another kind."""
    for other in ("\ud800\0", [{}], {"a": [-1]}):
        for command in replaced(pair["command"], other):
            fuzz(json.dumps(command).encode())


@pytest.mark.parametrize(
    "command",
    [
        '{"push_stop": ["\\u00b2", "' + "9" * 5000 + '"]}',
        '{"push_auto_add": {"stream": "live", "target": "/x.ts", "scheduletime": "inf", "completetime": "nan"}}',
        '{"push_auto_add": {"stream": "live", "target": "/x.ts", "start_rule": ["day", 1e400, 1]}}',
        '{"push_auto_add": ["live", "/x.ts", 1e400, 0, "day", "inf", "1"]}',
        '{"trigger_stat": {"name": "USER_NEW", "ms": 1e400}}',
        '{"config": {"location": {"lat": "nan", "lon": 1e400}}}',
    ],
)
def test_numbers_beyond_all_bounds(command: str) -> None:
    """Not a number, infinity, digits of other scripts and too many of them are numbers that nobody has."""
    fuzz(command.encode())

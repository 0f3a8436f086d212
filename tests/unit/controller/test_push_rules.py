"""Rules of automatic pushes."""

from __future__ import annotations

from typing import Any

import pytest

from mist.controller import push_rules
from mist.controller.push_rules import as_array, holds, judge, matches, read_rule, rule_id

VARIABLES = {"on": "true", "off": "0", "count": "10", "word": "beta", "same": "$word", "stream": "live"}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"stream": "live", "target": "/a.ts"}, {"stream": "live", "target": "/a.ts"}),
        (["live", "/a.ts"], {"stream": "live", "target": "/a.ts"}),
        (["live", "/a.ts", 0, 20], {"stream": "live", "target": "/a.ts", "completetime": 20}),
        (
            ["live", "/a.ts", None, None, "day", 2, "01"],
            {"stream": "live", "target": "/a.ts", "start_rule": ["day", 2, "01"]},
        ),
        (
            {"stream": "live", "target": "/a.ts", "endVariableName": "off", "endVariableOperator": 1, "junk": 5},
            {"stream": "live", "target": "/a.ts", "end_rule": ["off", 1, ""]},
        ),
        ({"stream": "live", "target": "/a.ts", "scheduletime": "12", "start_rule": []},
         {"stream": "live", "target": "/a.ts", "scheduletime": 12}),
        ({"stream": "live"}, None),
        ({"stream": "", "target": "/a.ts"}, None),
        (["live"], None),
        ("live", None),
        (None, None),
    ],
)  # fmt: skip
def test_forms(given: Any, expected: Any) -> None:
    assert read_rule(given) == expected


def test_array_form_is_as_long_as_needed() -> None:
    assert as_array({"stream": "a", "target": "b"}) == ["a", "b"]
    assert as_array({"stream": "a", "target": "b", "completetime": 9}) == ["a", "b", None, 9]
    rule = {"stream": "a", "target": "b", "end_rule": ["x", 1, ""]}
    assert as_array(rule) == ["a", "b", None, None, None, None, None, "x", 1, ""]
    assert read_rule(as_array(rule)) == rule


def test_identity_is_that_of_the_content() -> None:
    rule = {"stream": "a", "target": "b"}
    assert rule_id(rule) == rule_id(dict(reversed(rule.items()))) and len(rule_id(rule)) == 32
    assert rule_id(rule) != rule_id({**rule, "target": "c"})


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (["on", 0, ""], True),
        (["off", 0, ""], False),
        (["off", 1, ""], True),
        (["word", 2, "beta"], True),
        (["word", 3, "beta"], False),
        (["word", 2, "$same"], True),
        (["same", 2, "beta"], True),
        (["count", 10, "9"], True),
        (["count", 10, 9], True),
        (["count", 11, "10"], True),
        (["count", 12, "9"], False),
        (["count", 13, "10"], True),
        (["count", 20, "9"], False),
        (["word", 21, "alpha"], True),
        (["word", 22, "gamma"], True),
        (["word", 23, "beta"], True),
        (["unknown", 1, ""], False),
        (["on", 77, ""], False),
        ([], False),
        (["$on", 0, ""], True),
    ],
)
def test_conditions(condition: list[Any], expected: bool) -> None:
    assert holds(condition, VARIABLES) is expected


def test_streams() -> None:
    assert matches("live", "live") and not matches("live", "live+a")
    assert matches("live+", "live+a") and not matches("live+", "live") and not matches("live+", "liver+a")
    assert matches("#news", "live", {"news"}) and not matches("#news", "live", {"other"})


def test_times_and_conditions_decide() -> None:
    rule = {"stream": "live", "target": "b"}
    assert judge(rule, 100, {}).active
    assert not judge({**rule, "scheduletime": 101}, 100, {}).active
    assert judge({**rule, "scheduletime": 100}, 100, {}).active
    assert judge({**rule, "completetime": 100}, 100, {}).over
    assert not judge({**rule, "completetime": 101}, 100, {}).over
    assert not judge({**rule, "end_rule": ["on", 0, ""]}, 100, VARIABLES).active
    assert not judge({**rule, "start_rule": ["off", 0, ""]}, 100, VARIABLES).active
    assert judge({**rule, "start_rule": ["on", 0, ""]}, 100, VARIABLES).active


NOTED = {"stream": "live", "target": "/a.ts", "scheduletime": 4102444800, "x-LSP-notes": "mine"}
ON_DEMAND = {"stream": "live", "target": "/b.ts", "start_rule": ["$wanted", "2", 5]}


@pytest.mark.parametrize(
    ("given", "ids"),
    [
        (["live", "/a.ts", 4102444800], ["noted"]),
        (["live", "/b.ts", None, None, "wanted", 2, "5"], ["demand"]),
        ({"stream": "live", "target": "/b.ts", "start_rule": ["wanted", 2, "5"]}, ["demand"]),
        ({"stream": "live", "target": "/a.ts", "scheduletime": 4102444800}, []),
        (["live", "/c.ts"], ["plain"]),
        (["live", "/d.ts"], []),
        (5, []),
    ],
)
def test_rules_are_found_as_they_are_listed(given: Any, ids: list[str]) -> None:
    """A script that lists rules and removes rows of the list; a rule without more comes before one with more."""
    rules = {"noted": NOTED, "demand": ON_DEMAND, "plain": {"stream": "live", "target": "/c.ts"}}
    rules["narrow"] = {"stream": "live", "target": "/c.ts", "inhibit": ["x+"]}
    assert push_rules.found(rules, given) == ids
    for number in ("noted", "demand"):
        assert push_rules.found(rules, push_rules.as_array(rules[number])) == [number]

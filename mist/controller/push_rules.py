"""Rules of automatic pushes: read in all their forms, and whether they hold. Nothing here knows what runs."""

from __future__ import annotations

import hashlib
import json
import math
import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from mist.stream.names import base_name
from mist.stream.triggers import is_yes
from mist.stream.variables import substitute

# Places of the array form.
_PLACES: Final = (
    "stream", "target", "scheduletime", "completetime",
    "startVariableName", "startVariableOperator", "startVariableValue",
    "endVariableName", "endVariableOperator", "endVariableValue",
)  # fmt: skip
_KEPT: Final = (
    "stream",
    "target",
    "scheduletime",
    "completetime",
    "start_rule",
    "end_rule",
    "inhibit",
    "x-LSP-notes",
    "enabled",
)

_LAST_SECOND: Final = 2**63 - 1  # that a client's number can hold

Rule = dict[str, Any]
Condition = tuple[str, int, str]


def _number(text: str) -> float:
    """Return the number that a text is, 0 for one that is none; `inf` and `nan` are words here."""
    try:
        number = float(text)
    except ValueError:
        return 0.0
    return number if math.isfinite(number) else 0.0


def _numbers(compare: Callable[[float, float], bool]) -> Callable[[str, str], bool]:
    return lambda left, right: compare(_number(left), _number(right))


OPERATORS: Final[Mapping[int, Callable[[str, str], bool]]] = {
    0: lambda left, _right: is_yes(left),
    1: lambda left, _right: not is_yes(left),
    2: operator.eq,
    3: operator.ne,
    10: _numbers(operator.gt),
    11: _numbers(operator.ge),
    12: _numbers(operator.lt),
    13: _numbers(operator.le),
    20: operator.gt,
    21: operator.ge,
    22: operator.lt,
    23: operator.le,
}


def read_rule(given: object) -> Rule | None:
    """Return a rule in its object form, without what means nothing; None for what is no rule.

    given: an object, or an array of up to ten positions.
    """
    if isinstance(given, Sequence) and not isinstance(given, str):
        given = dict(zip(_PLACES, given, strict=False))
    if not isinstance(given, Mapping):
        return None
    rule = {name: given[name] for name in _KEPT if given.get(name) is not None}
    if not isinstance(rule.get("inhibit", ""), str | list):
        del rule["inhibit"]
    for side in ("start", "end"):
        name = given.get(f"{side}VariableName")
        if name and f"{side}_rule" not in rule:
            rule[f"{side}_rule"] = [
                name,
                given.get(f"{side}VariableOperator") or 0,
                given.get(f"{side}VariableValue") or "",
            ]
    for name in ("scheduletime", "completetime"):
        rule[name] = min(int(_number(str(rule.get(name, 0)))), _LAST_SECOND)
        if rule[name] <= 0:
            del rule[name]
    for name in ("start_rule", "end_rule"):
        if name in rule and _condition(rule[name]) is None:
            del rule[name]
    valid = (
        isinstance(rule.get("stream"), str)
        and isinstance(rule.get("target"), str)
        and rule["stream"]
        and rule["target"]
    )
    return rule if valid else None


def _condition(given: object) -> Condition | None:
    if not isinstance(given, Sequence) or isinstance(given, str) or not given or not str(given[0]):
        return None
    number = int(_number(str(given[1]))) if len(given) > 1 else 0
    return (
        str(given[0]).removeprefix("$"),
        number,
        str(given[2]) if len(given) > 2 and given[2] is not None else "",
    )


def rule_id(rule: Rule) -> str:
    """Return the identity of a rule that was given none: the MD5 of its JSON."""
    text = json.dumps(rule, sort_keys=True, separators=(",", ":"))
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def as_array(rule: Rule) -> list[Any]:
    """Return a rule as `push_auto_list` shows it: as many positions as are needed, null for those that are not set."""
    start, end = _condition(rule.get("start_rule")), _condition(rule.get("end_rule"))
    row: list[Any] = [rule["stream"], rule["target"], rule.get("scheduletime"), rule.get("completetime")]
    row += list(start or (None, None, None)) + list(end or (None, None, None))
    while len(row) > 2 and row[-1] is None:
        row.pop()
    return row


def found(rules: Mapping[str, Rule], given: object) -> list[str]:
    """Return the identities of the rules that equal a given one.

    An array that equals none means those that `push_auto_list` shows so: it leaves out what has no position in it.
    """
    wanted = read_rule(given)
    if wanted is None:
        return []
    same = [number for number, rule in rules.items() if _compared(rule) == _compared(wanted)]
    if same or isinstance(given, Mapping):
        return same
    return [number for number, rule in rules.items() if as_array(rule) == as_array(wanted)]


def _compared(rule: Rule) -> Rule:
    """Return a rule with its conditions as they are understood: `$name` is `name`, and 5 is "5"."""
    return {**rule, **{name: _condition(rule[name]) for name in ("start_rule", "end_rule") if name in rule}}


def holds(given: object, variables: Mapping[str, str]) -> bool:
    """Tell whether a condition holds; one with an unknown variable or operator does not."""
    condition = _condition(given)
    if condition is None:
        return False
    name, number, wanted = condition
    test = OPERATORS.get(number)
    if test is None or name not in variables:
        return False
    return bool(test(substitute(variables[name], variables), substitute(wanted, variables)))


def matches(pattern: str, stream: str, tags: Sequence[str] | set[str] = ()) -> bool:
    """Tell whether a pattern means a stream: its name, `name+` for all wildcard streams of one, `#tag`."""
    if pattern.startswith("#"):
        return pattern[1:] in tags
    if pattern.endswith("+"):
        return stream.startswith(pattern) and base_name(stream) == pattern[:-1]
    return pattern == stream


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a rule wants now. over: it is to be deleted and its pushes stopped. active: its pushes are to run."""

    over: bool = False
    active: bool = False


def judge(rule: Rule, now: int, variables: Mapping[str, str]) -> Verdict:
    """Return what a rule wants for one stream. now: unix seconds."""
    if 0 < rule.get("completetime", 0) <= now:
        return Verdict(over=True)
    if rule.get("scheduletime", 0) > now:
        return Verdict()
    if "end_rule" in rule and holds(rule["end_rule"], variables):
        return Verdict()
    if "start_rule" in rule and not holds(rule["start_rule"], variables):
        return Verdict()
    return Verdict(active=True)

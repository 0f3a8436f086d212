"""Variables in names and addresses: `$stream`, `${datetime}` and their like."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Final

from mist.stream import names

MAX_LEVELS: Final = 10
MAX_CHARACTERS: Final = 4096


def built_in(stream: str, now: datetime) -> dict[str, str]:
    """Return the variables that every stream has, in the order in which they are replaced. now: local time."""
    base, wildcard = names.base_name(stream), names.wildcard_part(stream)
    return {
        "source": "",
        "datetime": "$year.$month.$day.$hour.$minute.$second",
        "day": f"{now.day:02}",
        "month": f"{now.month:02}",
        "year": f"{now.year:04}",
        "hour": f"{now.hour:02}",
        "minute": f"{now.minute:02}",
        "second": f"{now.second:02}",
        "wday": str(now.isoweekday()),
        "yday": f"{now.timetuple().tm_yday:03}",
        "week": f"{now.isocalendar().week:02}",
        "stream": stream,
        "basename": base,
        "wildcard": wildcard,
        "pluswildcard": stream[len(base) :],
    }


def substitute(text: str, values: Mapping[str, str]) -> str:
    """Replace `$name` and `${name}` by values, which may hold variables themselves, at most 10 levels deep.

    A name ends where it ends: `$streamname` is the value of `stream` followed by "name". Unknown names stay as they are.
    The result is cut at 4096 characters.
    """
    for _ in range(MAX_LEVELS):
        before = text
        for name, value in values.items():
            text = text.replace(f"${{{name}}}", value).replace(f"${name}", value)[:MAX_CHARACTERS]
        if text == before or "$" not in text:
            break
    return text


def replace_in(text: str, stream: str, snapshot: Mapping[str, Any], source: str = "") -> str:
    """Replace the variables in a text: those that the configuration has, by name, then those that every stream has.

    snapshot: the whole configuration. source: value of `$source`. What is replaced depends on the local time.
    """
    if "$" not in text:
        return text
    return substitute(text, all_values(custom_values(snapshot), stream, datetime.now(), source))


def all_values(custom: Mapping[str, str], stream: str, now: datetime, source: str = "") -> dict[str, str]:
    """Return all variables in the order in which they are replaced: custom ones first, in place of built-in ones of their names."""
    return {**custom, **{**built_in(stream, now), "source": source, **custom}}


def custom_values(snapshot: Mapping[str, Any]) -> dict[str, str]:
    """Return the values of the variables that the configuration has, in the order in which they are replaced."""
    custom = snapshot.get("variables") or {}
    return {name: str(custom[name].get("value") or "") for name in sorted(custom)}

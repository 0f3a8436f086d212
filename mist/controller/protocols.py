"""Protocol entries of the configuration: equality, and what the API says of each one's state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

ENABLED = "Enabled"
PUSH_ONLY = "Push-only"
NOT_INSTALLED = "Not installed"
INVALID = "Invalid configuration"
NAMELESS = "Missing connector name"

Entry = dict[str, Any]


def plain(entry: Mapping[str, Any]) -> Entry:
    """Return an entry without its status and without nulls: what two entries are compared by."""
    return {key: value for key, value in entry.items() if key not in ("online", "error") and value is not None}


def canonical(entry: Mapping[str, Any]) -> str:
    """Return the text by which the runtime knows an entry."""
    return json.dumps(plain(entry), sort_keys=True, separators=(",", ":"))


def entries(value: object) -> list[Entry]:
    """Return the protocol entries in a request: one object, or a list of them."""
    members = value if isinstance(value, list) else [value]
    return [plain(member) for member in members if isinstance(member, dict)]


def without_duplicates(protocols: list[Any]) -> list[Any]:
    """Return a list with only the first of equal entries."""
    result: list[Any] = []
    for entry in protocols:
        if entry not in result:
            result.append(entry)
    return result


def online(entry: Mapping[str, Any], connectors: Mapping[str, Any], states: Mapping[str, Any]) -> Any:
    """Return the `online` value of an entry.

    connectors: capability documents by name. states: of the listeners, by `canonical` entry.
    """
    name = entry.get("connector")
    if not name:
        return NAMELESS
    capability = connectors.get(name)
    if capability is None:
        return NOT_INSTALLED
    if capability.get("PUSHONLY"):
        return PUSH_ONLY
    if not all(_is_given(entry.get(option)) for option in capability.get("required") or ()):
        return INVALID
    if capability.get("deps"):
        return ENABLED
    return states.get(canonical(entry), 0)


def _is_given(value: object) -> bool:
    if isinstance(value, list):
        return bool(value) and all(isinstance(member, str) for member in value)
    return isinstance(value, str | int | float) and not isinstance(value, bool) and value != ""


def with_states(protocols: list[Any], capabilities: Mapping[str, Any], states: Mapping[str, Any]) -> list[Entry]:
    """Return copies of protocol entries with their `online` values."""
    connectors = capabilities.get("connectors") or {}
    return [{"connector": None, **entry, "online": online(entry, connectors, states)} for entry in protocols]

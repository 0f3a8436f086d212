"""Turn a configuration that an older version or another server wrote into today's form, before it is validated."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mist.controller.push_rules import read_rule, rule_id
from mist.errors import ConfigError

SESSION_MODES = (
    "sessionViewerMode",
    "sessionInputMode",
    "sessionOutputMode",
    "sessionStreamInfoMode",
)
VARIABLE_MEMBERS = ("name", "target", "interval", "lastunix", "value", "waitTime")
RENAMED_PROTOCOLS = {"HSS": "CMAF", "DASH": "CMAF", "SRT": "SubRip"}
STATUS_MEMBERS = ("online", "error")
REPORTED_MEMBERS = ("iid", "version", "time")
OPAQUE_SECTIONS = ("ui_settings",)


MAX_DEPTH = 32
_PLAIN = frozenset({int, float, bool})


def migrate(document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a copy without nulls and status members, with old forms rewritten. Wrong types are left for validation.

    Raises ConfigError for objects nested deeper than MAX_DEPTH.
    """
    result = {key: clean(value, keep_nulls=key in OPAQUE_SECTIONS) for key, value in document.items()}
    result = {clean(key): value for key, value in result.items() if value is not None and key != "log"}
    server = result.get("config")
    if isinstance(server, dict):
        _migrate_server(server)
    _migrate_streams(result.get("streams"))
    if isinstance(result.get("variables"), list):
        result["variables"] = _variables(result["variables"])
    if isinstance(result.get("autopushes"), list) and "auto_push" not in result:
        result["auto_push"] = _pushes(result["autopushes"])
    return result


def clean(value: Any, *, keep_nulls: bool = False, depth: int = 0) -> Any:
    """Return a copy of a JSON value that can be written as UTF-8, in which no object has a null member.

    A null says the same as an absent key. Half a surrogate pair becomes a question mark.
    """
    if depth > MAX_DEPTH:
        raise ConfigError(f"expected at most {MAX_DEPTH} nested objects and lists")
    if isinstance(value, str):
        return value if value.isascii() else value.encode("utf-8", "replace").decode()
    if isinstance(value, dict):
        return {
            key if key.isascii() else clean(key): member
            if type(member) in _PLAIN or (type(member) is str and member.isascii())
            else clean(member, keep_nulls=keep_nulls, depth=depth + 1)
            for key, member in value.items()
            if keep_nulls or member is not None
        }
    if isinstance(value, list | tuple):
        return [clean(member, keep_nulls=keep_nulls, depth=depth + 1) for member in value]
    return value


def _migrate_server(server: dict[str, Any]) -> None:
    for key in REPORTED_MEMBERS:
        server.pop(key, None)
    for key in SESSION_MODES:
        if server.get(key) == 0:
            del server[key]
    controller = server.get("controller")
    if isinstance(controller, dict) and "prometheus" in controller:
        server.setdefault("prometheus", controller.pop("prometheus"))
        controller.pop("prometheus", None)
    if isinstance(server.get("protocols"), list):
        server["protocols"] = _protocols(server["protocols"])


def _protocols(entries: list[Any]) -> list[Any]:
    """Return the protocol list without nulls and duplicates; HSS and DASH became CMAF, SRT subtitles became SubRip."""
    result: list[Any] = []
    add_cmaf = False
    for entry in entries:
        if entry is None:
            continue
        if isinstance(entry, dict):
            entry = {key: value for key, value in entry.items() if key not in STATUS_MEMBERS}
            renamed = RENAMED_PROTOCOLS.get(str(entry.get("connector")))
            add_cmaf = add_cmaf or renamed is not None
            if renamed == "CMAF":
                continue
            if renamed is not None:
                entry["connector"] = renamed
        if entry not in result:
            result.append(entry)
    if add_cmaf and not any(isinstance(entry, dict) and entry.get("connector") == "CMAF" for entry in result):
        result.append({"connector": "CMAF"})
    return result


def _migrate_streams(streams: Any) -> None:
    if not isinstance(streams, dict):
        return
    for stream in streams.values():
        if not isinstance(stream, dict):
            continue
        for key in (*STATUS_MEMBERS, "preset"):
            stream.pop(key, None)
        channel = stream.pop("channel", None)
        if isinstance(channel, dict) and "URL" in channel:
            stream.setdefault("source", channel["URL"])


def _variables(rows: list[Any]) -> dict[str, Any]:
    """Return the object form of variables that were stored as six-element arrays; other lengths are dropped."""
    result: dict[str, Any] = {}
    for row in rows:
        if isinstance(row, list) and len(row) == len(VARIABLE_MEMBERS):
            named = dict(zip(VARIABLE_MEMBERS, row, strict=True))
            name = str(named.pop("name"))
            result[name] = {key: value for key, value in named.items() if value is not None}
    return result


def _pushes(rows: list[Any]) -> dict[str, Any]:
    rules = [rule for row in rows if isinstance(row, list) and (rule := read_rule(row)) is not None]
    return {rule_id(rule): rule for rule in rules}

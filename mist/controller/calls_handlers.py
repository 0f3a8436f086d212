"""API calls about custom variables and the handlers of triggers."""

from __future__ import annotations

from typing import Any, Final

from mist.controller.audit import without_commands
from mist.controller.config import parse
from mist.controller.permissions import Permission
from mist.controller.state import Command, Controller
from mist.errors import ConfigError, NotFound
from mist.stream.triggers import TRIGGERS

MEMBERS: Final = ("name", "target", "interval", "value", "waitTime")
MAX_BYTES: Final = {"name": 31, "target": 511, "value": 127}


def variable_add(controller: Controller, command: Command) -> None:
    """Add a custom variable, or change the given members of one."""
    given = _given_variable(command["variable_add"])
    name = given.pop("name", "")
    name = name if isinstance(name, str) else ""
    texts = {**given, "name": name}
    too_long = [
        key for key, most in MAX_BYTES.items() if len(str(texts.get(key, "")).encode("utf-8", "replace")) > most
    ]
    if not name or not name.isprintable() or too_long:
        controller.log.error("A variable needs a name of at most 31 bytes, a target of 511, a value of 127: %r", name)
    else:
        present = controller.store.document.get("variables") or {}
        entry = {**present.get(name, {}), **given}
        try:
            checked = parse({"variables": {name: entry}}).document()["variables"][name]
            controller.store.document["variables"] = {**present, name: checked}
        except ConfigError as error:
            controller.log.error("API call variable_add: %s", error)
    variable_list(controller, command)


def _given_variable(value: Any) -> dict[str, Any]:
    if isinstance(value, dict):
        return {key: part for key, part in value.items() if key in MEMBERS and part is not None}
    if isinstance(value, list) and len(value) == 2:
        return {"name": value[0], "value": value[1], "target": "", "interval": 0}
    return dict(zip(MEMBERS, value, strict=False)) if isinstance(value, list) and 2 < len(value) <= 5 else {}


def variable_remove(controller: Controller, command: Command) -> None:
    """Remove custom variables."""
    gone = set(command.names("variable_remove"))
    present = controller.store.document.get("variables") or {}
    left = {name: entry for name, entry in present.items() if name not in gone}
    if left:
        controller.store.document["variables"] = left
    else:
        controller.store.document.pop("variables", None)
    variable_list(controller, command)


def variable_list(controller: Controller, command: Command) -> None:
    """Return the custom variables."""
    shown = controller.store.document.get("variables") or {}
    if not command.caller.may(Permission.CONFIG):
        shown = {name: without_commands("variable_add", entry) for name, entry in shown.items()}
    command.reply["variable_list"] = shown or None


def trigger_stat(controller: Controller, command: Command) -> None:
    """Count a call of a trigger's handler that somebody else has made; such a command does nothing else."""
    given = command["trigger_stat"]
    if isinstance(given, dict):
        controller.count_trigger(str(given.get("name", "")), given.get("ms", 0), failed=not given.get("ok", True))


def trigger_fail(controller: Controller, command: Command) -> None:
    """Count a failure of a trigger's handler that somebody else has called; such a command does nothing else."""
    controller.count_trigger(str(command["trigger_fail"]), None, failed=True)


async def triggers(controller: Controller, command: Command) -> None:
    """Return how often handlers of triggers were called, how long that took in milliseconds, and how often they failed."""
    command.reply["trigger_stats"] = await controller.trigger_counts() or None


async def trigger_test(controller: Controller, command: Command) -> None:
    """Fire a trigger at the configured handlers and return what each answered, and how long that took."""
    given = command["trigger_test"]
    name = str(given.get("name", ""))
    if name not in TRIGGERS:
        raise NotFound(f"no trigger is called {name}")
    stream = str(given.get("stream") or "")
    payload = given.get("payload")
    text = "\n".join([stream, *("" for _ in TRIGGERS[name].lines[1:])]) if payload is None else str(payload)
    command.reply["trigger_test"] = await controller.services.triggers.test(name, stream, text.split("\n"))

"""API calls about pushes: those that run, and the rules of automatic ones."""

from __future__ import annotations

from typing import Any

from mist.controller import push_rules
from mist.controller.audit import without_secrets
from mist.controller.permissions import Permission
from mist.controller.push_rules import Rule, as_array, read_rule, rule_id
from mist.controller.state import Command, Controller
from mist.stream.push import runs_program

MAX_SETTING = 1 << 31
MAX_NUMBER_DIGITS = 19


def _rules(controller: Controller) -> dict[str, Rule]:
    found: dict[str, Rule] = controller.store.part("auto_push", {})
    return found


def push_start(controller: Controller, command: Command) -> None:
    """Start pushes of a stream, of all wildcard streams of one, or of those with a tag."""
    given = command["push_start"]
    if isinstance(given, list):
        given = dict(zip(("stream", "target"), given, strict=False))
    stream, target = (given.get("stream"), given.get("target")) if isinstance(given, dict) else (None, None)
    if isinstance(stream, str) and isinstance(target, str) and stream and target:
        if _may_push(controller, command, "push_start", target):
            controller.pushes.start(stream, target)
    else:
        controller.log.warning('push_start wants {"stream": NAME, "target": TARGET}')


def _may_push(controller: Controller, command: Command, call: str, target: str) -> bool:
    """Return whether the caller may push to a target: who runs programs must be one who may configure the server."""
    if not runs_program(target) or command.caller.may(Permission.CONFIG):
        return True
    command.denied.append(call)
    controller.log.warning(
        "API call %s by %s from %s: a target that runs a program needs the permission %s",
        call, command.caller.name, command.caller.address, Permission.CONFIG, extra={"kind": "AUTH"},
    )  # fmt: skip
    return False


def push_stop(controller: Controller, command: Command) -> None:
    """End pushes by number, or all of a stream."""
    _stop(controller, command["push_stop"])


def push_stop_graceful(controller: Controller, command: Command) -> None:
    """End pushes by number, or all of a stream, when their destinations have taken what there is."""
    _stop(controller, command["push_stop_graceful"], gracefully=True)


def _stop(controller: Controller, given: Any, *, gracefully: bool = False) -> None:
    for one in given if isinstance(given, list) else [given]:
        number = one if isinstance(one, int) else _push_number(one)
        if number is not None:
            controller.pushes.stop([number], gracefully=gracefully)
        elif isinstance(one, str):
            controller.pushes.stop_streams(one, gracefully=gracefully)


def _push_number(given: Any) -> int | None:
    """Return the number of a push that a text is, None when it is none."""
    is_number = isinstance(given, str) and len(given) < MAX_NUMBER_DIGITS and given.isascii() and given.isdigit()
    return int(given) if is_number else None


def push_list(controller: Controller, command: Command) -> None:
    """Show the pushes that run."""
    rows = controller.pushes.shown()
    command.reply["push_list"] = rows and [_told(command, row) for row in rows]


def push_auto_add(controller: Controller, command: Command) -> None:
    """Add rules: one, a list of them, or an object of them by their identities."""
    rules = _rules(controller)
    for number, given in _each_rule(command["push_auto_add"]):
        rule = read_rule(given)
        if rule is None:
            controller.log.warning("A rule of a push needs a stream and a target: %s", given)
            continue
        if not _may_push(controller, command, "push_auto_add", str(rule["target"])):
            continue
        rules[number or rule_id(rule)] = rule


def _each_rule(given: Any) -> list[tuple[str, Any]]:
    if isinstance(given, dict) and not isinstance(given.get("stream"), str):
        return [(str(name), rule) for name, rule in given.items()]
    return [("", one) for one in (given if _is_list_of_rules(given) else [given])]


def _is_list_of_rules(given: Any) -> bool:
    return isinstance(given, list) and any(isinstance(one, list | dict) for one in given)


def push_auto_remove(controller: Controller, command: Command) -> None:
    """Remove rules: by identity, all of a stream, or those that are equal to what is given."""
    given = command["push_auto_remove"]
    rules = _rules(controller)
    several = _is_list_of_rules(given) or (isinstance(given, list) and all(str(one) in rules for one in given))
    for one in given if several else [given]:
        for number in _found(rules, one):
            del rules[number]


def _found(rules: dict[str, Rule], given: Any) -> list[str]:
    if isinstance(given, str):
        return [given] if given in rules else [number for number, rule in rules.items() if rule["stream"] == given]
    return push_rules.found(rules, given)


def push_auto_list(controller: Controller, command: Command) -> None:
    """Ask for the rules; `reply` shows them once those of the command are stored."""


def reply(controller: Controller, command: Command) -> None:
    """Show the rules, as objects and as lists, to whoever asked for them or changed them."""
    if any(f"push_auto_{what}" in command for what in ("add", "remove", "list")):
        rules = controller.store.document.get("auto_push") or {}
        if not rules:
            controller.store.document.pop("auto_push", None)
        told = {number: _told(command, rules[number]) for number in sorted(rules)}
        command.reply["auto_push"] = told or None
        command.reply["push_auto_list"] = [_told(command, as_array(rules[number])) for number in told] or None


def _told(command: Command, given: Any) -> Any:
    """Return a push or a rule; who may not change them does not see the passwords in its target."""
    return given if command.caller.may(Permission.PUSHES) else without_secrets(given)


def push_settings(controller: Controller, command: Command) -> None:
    """Set how long a push that has ended is waited with, and how many start in a second; show both."""
    given = command["push_settings"]
    valid = {
        name: number
        for name in (("wait", "maxspeed") if isinstance(given, dict) else ())
        if (number := _setting(given.get(name))) is not None
    }
    if valid:
        controller.store.part("push_settings", {}).update(valid)
    settings = controller.store.document.get("push_settings") or {}
    command.reply["push_settings"] = {
        "maxspeed": int(settings.get("maxspeed", 0)),
        "wait": int(settings.get("wait", 3)),
    }


def _setting(given: Any) -> int | None:
    """Return a number, or a text of digits, that may be a setting."""
    if isinstance(given, str) and given.isdecimal():
        given = int(given[:20])
    return int(given) if isinstance(given, int | float) and 0 <= given < MAX_SETTING else None

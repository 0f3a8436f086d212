"""Triggers that the controller fires: about its streams' configuration, and the server's start."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import mist
from mist.controller.permissions import Permission
from mist.controller.state import Command, Controller
from mist.controller.turns import Turns

CHANGING = ("config_restore", "streams", "addstream", "deletestream", "deletestreamsource")
REFUSED_START = "SYSTEM_START was refused"


async def ask_about_streams(controller: Controller, command: Command) -> None:
    """Ask the handlers of triggers about the streams that a command changes, before anything waits for the command."""
    if not controller.store.server.get("triggers") or not any(call in command for call in CHANGING):
        return
    if not command.caller.may(Permission.STREAMS):
        return
    triggers, turns = controller.services.triggers, Turns()
    for trigger, name, entry in _changes(controller, command):
        await turns()
        if not triggers.wanted(trigger, name):
            continue
        lines = [name] if entry is None else [name, json.dumps(entry, separators=(",", ":"))]
        if not await triggers.allows(trigger, name, lines):
            controller.log.warning("The stream %s stays as it is: %s was refused", name, trigger)
            command.refused.add(name)


def _changes(controller: Controller, command: Command) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    """Yield trigger, stream and what it is to be of each change, as seen from when the first is asked for."""
    present = dict(controller.store.streams)
    for given in (_restored(command), command.values.get("streams")):
        if isinstance(given, dict):
            yield from _given(present, given)
            yield from (("STREAM_REMOVE", name, None) for name in present if name not in given)
    added = command.values.get("addstream")
    if isinstance(added, dict):
        yield from _given(present, added)
    for call in ("deletestream", "deletestreamsource"):
        if call in command:
            yield from (("STREAM_REMOVE", name, None) for name in command.names(call) if name in present)


def _restored(command: Command) -> Any:
    """Return the streams of a backup that the caller may restore."""
    backup = command.values.get("config_restore")
    return backup.get("streams") if isinstance(backup, dict) and command.caller.may(Permission.ADMIN) else None


def _given(present: dict[str, Any], given: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any] | None]]:
    for name, entry in given.items():
        if not isinstance(entry, dict):
            continue
        if name not in present:
            yield "STREAM_ADD", name, entry
        elif {**entry, "name": name} != {**present[name], "name": name}:
            yield "STREAM_CONFIG", name, entry


async def tell_start(controller: Controller) -> None:
    """Fire SYSTEM_START; the server ends where a handler refuses."""
    if not await controller.services.triggers.allows("SYSTEM_START", "", [mist.__version__]):
        controller.log.error("The server ends: %s", REFUSED_START)
        controller.services.shutdown(REFUSED_START, failed=True)

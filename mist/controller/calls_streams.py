"""API calls that configure streams."""

from __future__ import annotations

import re
from typing import Any

from mist.controller.config import parse
from mist.controller.state import Command, Controller
from mist.errors import ConfigError, NotFound
from mist.stream.names import sanitise

CLEAN_NAME = re.compile(r"[a-z0-9_.-]{1,100}")
DELETED = "CLEAN_CONTROLLER_REQ"
INCOMPLETE = "incomplete list"


def streams(controller: Controller, command: Command) -> None:
    """Make the given streams the complete list: add, update, and delete what is not in it."""
    wanted = command["streams"]
    if isinstance(wanted, dict):
        for name in [name for name in controller.store.streams if name not in wanted]:
            _delete(controller, name)
        for name, stream in wanted.items():
            _store(controller, name, stream)


def addstream(controller: Controller, command: Command) -> None:
    """Add or overwrite streams."""
    command.named_streams = command.named_streams or []
    given = command["addstream"]
    if isinstance(given, dict):
        for name, stream in given.items():
            if _store(controller, name, stream):
                command.named_streams.append(name)


def deletestream(controller: Controller, command: Command) -> None:
    """Delete streams; an always-on one stops."""
    command.named_streams = command.named_streams or []
    for name in command.names("deletestream"):
        _delete(controller, name)


def _store(controller: Controller, name: str, stream: Any) -> bool:
    """Put one stream into the configuration, unless it is unacceptable; the log says why then."""
    if not isinstance(stream, dict):
        return False
    present = name in controller.store.streams
    if not present and not CLEAN_NAME.fullmatch(name):
        try:
            hint = f", use {sanitise(name).partition('+')[0]!r} instead"
        except NotFound:
            hint = ""
        controller.log.error("A stream cannot be called %r%s", name, hint)
        return False
    entry = {**{key: value for key, value in stream.items() if value is not None}, "name": name}
    try:
        checked = parse({"streams": {name: entry}}, controller.store.capabilities).document()["streams"][name]
    except ConfigError as error:
        controller.log.error("%s", error, extra={"stream": name})
        return False
    controller.store.streams[name] = checked
    return True


def _delete(controller: Controller, name: str) -> None:
    stream = controller.store.streams.pop(name, None)
    if stream is not None:
        controller.log.info("The stream %s was deleted", name, extra={"kind": "CONF", "stream": name})
        if stream.get("always_on"):
            controller.watch.stop(name, DELETED)


def reply(controller: Controller, command: Command) -> None:
    """Show the streams with their states: all, or only those that were added when nobody asked for all."""
    configured = controller.store.streams
    if "streams" not in command and command.named_streams is not None:
        names = [name for name in command.named_streams if name in configured]
        command.reply["streams"] = {INCOMPLETE: 1, **{name: _shown(controller, name) for name in names}}
    elif "streams" in command or not command.minimal:
        command.reply["streams"] = {name: _shown(controller, name) for name in configured} or None


def _shown(controller: Controller, name: str) -> dict[str, Any]:
    return {**controller.store.streams[name], "name": name, **controller.watch.online(name)}


def nuke_stream(controller: Controller, command: Command) -> None:
    """Remove everything of an active stream by force."""
    name = command["nuke_stream"]
    if isinstance(name, str) and name:
        controller.watch.nuke(sanitise(name))

"""API calls that configure streams."""

from __future__ import annotations

import asyncio
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from itertools import islice
from pathlib import Path
from typing import Any

from mist.controller.audit import without_secrets
from mist.controller.permissions import Permission
from mist.controller.state import Command, Controller
from mist.controller.store import STREAMS_AT_ONCE
from mist.controller.turns import Turns
from mist.errors import ConfigError, NotFound
from mist.stream.names import base_name, sanitise

CLEAN_NAME = re.compile(r"[a-z0-9_.-]{1,100}")
DELETED = "CLEAN_CONTROLLER_REQ"
INCOMPLETE = "incomplete list"
# Clients read the number.
NO_ACTION = "0: No action taken"
SOURCE_REMAINS = "-1: Stream deleted, source remains"
SOURCE_DELETED = "-2: Stream and source file deleted"
SOURCE_AND_INDEX_DELETED = "-3: Stream, source file and dtsh deleted"


async def streams(controller: Controller, command: Command) -> None:
    """Make the given streams the complete list: add, update, and delete what is not in it."""
    wanted = command["streams"]
    if isinstance(wanted, dict):
        checked = await _checked(controller, command, wanted)
        gone = _taken_out(controller, command, [name for name in controller.store.streams if name not in wanted])
        controller.store.streams.update(checked)
        await _tell_deleted(controller, gone)


def name_streams(controller: Controller, command: Command) -> None:
    """Let the reply show the streams that a command adds, and not all of them."""
    command.named_streams = command.named_streams or []


async def addstream(controller: Controller, command: Command) -> None:
    """Add or overwrite streams."""
    given = command["addstream"]
    checked = await _checked(controller, command, given) if isinstance(given, dict) else {}
    controller.store.streams.update(checked)
    command.named_streams = [*(command.named_streams or ()), *checked]


async def deletestream(controller: Controller, command: Command) -> None:
    """Delete streams; an always-on one stops."""
    name_streams(controller, command)
    await _tell_deleted(controller, _taken_out(controller, command, command.names("deletestream")))


async def deletestreamsource(controller: Controller, command: Command) -> None:
    """Delete streams and the files they play; the reply tells for each what was deleted."""
    given = command["deletestreamsource"]
    name_streams(controller, command)
    sources = Counter(str(stream.get("source", "")) for stream in controller.store.streams.values())
    told: dict[str, str] = {}
    texts: list[str] = []
    turns = Turns()
    for name in command.names("deletestreamsource"):
        told[name] = await _delete_with_source(controller, command, name, sources)
        texts.append(told[name])
        await turns()
    if isinstance(given, str):
        command.reply["deletestreamsource"] = told[given]
    else:
        command.reply["deletestreamsource"] = (texts if isinstance(given, list) else told) or None


async def _delete_with_source(controller: Controller, command: Command, name: str, sources: Counter[str]) -> str:
    """Delete a stream and its source, if that is a file and nobody else's, and return what was done, in words.

    sources: how many streams have each.
    """
    gone = _taken_out(controller, command, [name])
    if not gone:
        return NO_ACTION
    await _tell_deleted(controller, gone)
    source = str(gone[name].get("source", ""))
    sources[source] -= 1
    path = Path(source)
    try:
        if not path.is_absolute() or sources[source] or not path.is_file():
            return SOURCE_REMAINS
        path.unlink()
        controller.log.warning(
            "The file %s was deleted with its stream", source, extra={"kind": "CONF", "stream": name}
        )
        index = path.with_name(path.name + ".dtsh")
        if index.is_file():
            index.unlink()
            return SOURCE_AND_INDEX_DELETED
    except (OSError, ValueError) as error:
        controller.log.error("%s", error, extra={"stream": name})
        return SOURCE_DELETED if not path.exists() else SOURCE_REMAINS
    return SOURCE_DELETED


async def _checked(controller: Controller, command: Command, given: Mapping[str, Any]) -> dict[str, Any]:
    """Return those of the streams that are acceptable, in normal form; others get their turn meanwhile."""
    checked: dict[str, Any] = {}
    entries = (
        (name, {**{key: value for key, value in stream.items() if value is not None}, "name": name})
        for name, stream in given.items()
        if isinstance(stream, dict) and name not in command.refused and _may_be_called(controller, name)
    )
    while some := dict(islice(entries, STREAMS_AT_ONCE)):
        checked.update(_normal(controller, some))
        await asyncio.sleep(0)
    return checked


def _may_be_called(controller: Controller, name: str) -> bool:
    """Return whether there is a stream of a name, or may be one; the log says why not."""
    if name in controller.store.streams or CLEAN_NAME.fullmatch(name):
        return True
    try:
        hint = f", use {sanitise(name).partition('+')[0]!r} instead"
    except NotFound:
        hint = ""
    controller.log.error("A stream cannot be called %r%s", name, hint)
    return False


def _normal(controller: Controller, entries: dict[str, Any]) -> dict[str, Any]:
    """Return the normal forms of those streams that are acceptable; the log says why the others are not."""
    try:
        checked = controller.store.check_streams(entries)
    except ConfigError as error:
        if len(entries) == 1:
            (name,) = entries
            controller.log.error("%s", error, extra={"stream": name})
            return {}
        alone = [_normal(controller, {name: entry}) for name, entry in entries.items()]
        return {name: stream for found in alone for name, stream in found.items()}
    controller.warn(checked)
    found: dict[str, Any] = checked.document()["streams"]
    return found


def _taken_out(controller: Controller, command: Command, names: Iterable[str]) -> dict[str, Any]:
    """Take streams out of the configuration; returns those that were in it."""
    streams = controller.store.streams
    return {name: streams.pop(name) for name in names if name in streams and name not in command.refused}


async def _tell_deleted(controller: Controller, gone: Mapping[str, Any]) -> None:
    """Log that streams are gone, and stop those that always ran."""
    turns = Turns()
    for name, stream in gone.items():
        controller.log.info("The stream %s was deleted", name, extra={"kind": "CONF", "stream": name})
        if stream.get("always_on"):
            controller.watch.stop(name, DELETED)
        await turns()


async def reply(controller: Controller, command: Command) -> None:
    """Show the streams with their states: all, or only those that were added when nobody asked for all."""
    wanted = dict(controller.store.streams)
    begin: dict[str, Any] = {}
    if "streams" not in command and command.named_streams is not None:
        wanted = {name: wanted[name] for name in command.named_streams if name in wanted}
        begin = {INCOMPLETE: 1}
    elif "streams" not in command and command.minimal:
        return

    def shown(name: str) -> Any:
        return begin[name] if name in begin else _shown(controller, command, name, wanted[name])

    command.reply["streams"] = await controller.shown([*begin, *wanted], shown) or None


def _shown(controller: Controller, command: Command, name: str, stream: Mapping[str, Any]) -> dict[str, Any]:
    """Return a stream with its state; who may not change streams does not see the passwords in it."""
    if not command.caller.may(Permission.STREAMS):
        stream = {key: without_secrets(value) for key, value in stream.items()}
    return {**stream, "name": name, **controller.watch.online(name)}


def nuke_stream(controller: Controller, command: Command) -> None:
    """Remove everything of an active stream by force."""
    name = command["nuke_stream"]
    if isinstance(name, str) and name:
        controller.watch.nuke(sanitise(name))


def no_unconfigured_streams(controller: Controller, command: Command) -> None:
    """Remove by force every active stream whose configuration is gone or has no source."""
    for name in controller.services.streams():
        if not controller.store.streams.get(base_name(name), {}).get("source"):
            controller.watch.nuke(name)

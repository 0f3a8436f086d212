"""API calls that are tools: folders, playlists, programs that write, updates."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from mist.controller.audit import without_commands
from mist.controller.declaration import Record
from mist.controller.permissions import Permission
from mist.controller.state import Command, Controller
from mist.controller.version import version_report
from mist.errors import ConfigError

MAX_LISTED = 10_000
MAX_PLAYLIST_BYTES = 1024 * 1024
MAX_PLAYLIST_LINES = 10_000
MAX_WRITERS = 64
MAX_NAME_BYTES, MAX_COMMAND_BYTES, MAX_PROTOCOL_BYTES, MAX_PROTOCOLS_BYTES = 31, 255, 63, 256
BROWSE_SECONDS = 5.0


# -- browse ------------------------------------------------------------------------------------------------------------


async def browse(controller: Controller, command: Command) -> None:
    """List a folder of the server, if it is one of those that `config.controller.browse` names or lies below."""
    given = command["browse"] if isinstance(command["browse"], str) else ""
    places = list(controller.store.config.model.config.controller.browse)
    result: dict[str, Any] = {"path": [given]}
    command.reply["browse"] = result
    try:
        async with asyncio.timeout(BROWSE_SECONDS):
            result.update(await asyncio.to_thread(_listed, given, places))
    except TimeoutError:
        controller.log.warning("API call browse: %s did not answer in %d s", given, BROWSE_SECONDS)


def _listed(given: str, places: list[str]) -> dict[str, Any]:
    """Return what is in a folder; of one above the places, only what leads to them. {} for what is not to be read."""
    try:
        real = os.path.realpath(given or ".")
        roots = [os.path.realpath(place) for place in places]
        if any(_is_within(real, root) for root in roots):
            folders, files = _scan(real)
        elif given and not any(_is_within(root, real) for root in roots):
            return {}
        else:
            real = real if given else "/"
            folders, files = sorted({_step(real, root) for root in roots if os.path.isdir(root)} - {""}), []
    except (OSError, ValueError):
        return {}
    found = {"subdirectories": folders, "files": files}
    return {"path": [real], **{name: names for name, names in found.items() if names}}


def _is_within(path: str, root: str) -> bool:
    return os.path.commonpath((path, root)) == root


def _step(path: str, root: str) -> str:
    """Return the first part of the way from a folder down to another, "" when it does not lead there."""
    return os.path.relpath(root, path).split(os.sep)[0] if _is_within(root, path) and root != path else ""


def _scan(path: str) -> tuple[list[str], list[str]]:
    folders: list[str] = []
    files: list[str] = []
    with os.scandir(path) as entries:
        for entry, _ in zip(entries, range(MAX_LISTED), strict=False):
            (folders if entry.is_dir() else files).append(entry.name)
    return folders, files


# -- playlists ---------------------------------------------------------------------------------------------------------


async def playlist(controller: Controller, command: Command) -> None:
    """Read or change the playlists of streams whose source is a `.pls` file: `{STREAM: COMMAND}`."""
    given = command["playlist"]
    result: dict[str, Any] = {}
    for name, orders in given.items() if isinstance(given, dict) else ():
        source = str(controller.store.streams.get(name, {}).get("source", ""))
        if not source.startswith("/") or not source.endswith(".pls"):
            controller.log.warning("API call playlist: %s has no playlist as its source", name)
            continue
        try:
            result[name] = await asyncio.to_thread(_edit_playlist, Path(source), orders) or None
        except (OSError, ValueError, ConfigError) as error:
            controller.log.error("API call playlist: %s", error, extra={"stream": name})
    command.reply["playlist"] = result or None


def _edit_playlist(path: Path, orders: Any) -> list[str]:
    """Change a playlist and return its lines. Raises ConfigError for an order that is none, OSError."""
    if path.exists() and path.stat().st_size > MAX_PLAYLIST_BYTES:
        raise ConfigError(f"{path} has more than {MAX_PLAYLIST_BYTES} bytes")
    before = path.read_text("utf-8", "replace").splitlines() if path.exists() else None
    lines = list(before or ())
    if isinstance(orders, list):
        for order in orders if orders and isinstance(orders[0], list) else [orders]:
            lines = _ordered(lines, order)
    if lines != before:
        text = "".join(f"{line}\n" for line in lines)
        if len(lines) > MAX_PLAYLIST_LINES or len(text) > MAX_PLAYLIST_BYTES:
            raise ConfigError(f"{path} would become too long")
        draft = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        draft.write_text(text, "utf-8")
        draft.replace(path)
    return lines


def _ordered(lines: list[str], order: Any) -> list[str]:
    """Return lines after one order: append, clear, remove (which leaves a blank line), line, replace."""
    match order:
        case ["append", str(line)]:
            return [*lines, _one_line(line)]
        case ["clear"]:
            return []
        case ["remove", str(line)]:
            return ["" if one == line else one for one in lines]
        case ["line", int(index), str(line)] if 0 <= index < len(lines):
            return [*lines[:index], _one_line(line), *lines[index + 1 :]]
        case ["replace", str(old), str(new)]:
            return [_one_line(new) if one == old else one for one in lines]
    raise ConfigError(f"a playlist cannot be changed by {str(order)[:80]}")


def _one_line(text: str) -> str:
    return " ".join(text.splitlines())


# -- external writers --------------------------------------------------------------------------------------------------


class Writer(Record):
    """A program that writes to URLs which the server does not know itself."""

    name: str
    cmdline: str
    protocols: list[str] | str


def external_writer_list(controller: Controller, command: Command) -> None:
    """List the programs that write to URLs of other kinds."""
    _show_writers(controller, command)


def external_writer_add(controller: Controller, command: Command) -> None:
    """Add a program that writes to URLs of some kinds, or change the one of that name."""
    given = command["external_writer_add"]
    if isinstance(given, list):
        given = dict(zip(("name", "cmdline", "protocols"), given, strict=False)) if len(given) in (3, 4) else {}
    _show_writers(controller, command)
    try:
        writer = Writer.model_validate(given)
    except ValueError:
        raise ConfigError("expected name, cmdline and protocols") from None
    protocols = [writer.protocols] if isinstance(writer.protocols, str) else list(writer.protocols)
    _check_length("name", writer.name, MAX_NAME_BYTES)
    _check_length("cmdline", writer.cmdline, MAX_COMMAND_BYTES)
    for protocol in protocols:
        _check_length("protocol", protocol, MAX_PROTOCOL_BYTES)
    if not protocols or sum(len(protocol) + 1 for protocol in protocols) > MAX_PROTOCOLS_BYTES:
        raise ConfigError(f"protocols: expected some, of at most {MAX_PROTOCOLS_BYTES} bytes in all")
    entry = [writer.name, writer.cmdline, protocols]
    present = list(controller.store.document.get("extwriters", ()))
    place = next((n for n, one in enumerate(present) if one[0] == writer.name), len(present))
    if place >= MAX_WRITERS:
        raise ConfigError(f"more than {MAX_WRITERS} external writers")
    present[place : place + 1] = [entry]
    controller.store.document["extwriters"] = present
    _show_writers(controller, command)


def _check_length(what: str, text: str, most: int) -> None:
    if not text or len(text.encode("utf-8", "replace")) > most or not text.isprintable():
        raise ConfigError(f"{what}: expected a text of 1 to {most} bytes")


def external_writer_remove(controller: Controller, command: Command) -> None:
    """Remove an external writer by its name."""
    given = command["external_writer_remove"]
    if isinstance(given, list):
        given = given[0] if given else ""
    name = given.get("name") if isinstance(given, dict) else given
    left = [entry for entry in controller.store.document.get("extwriters", ()) if entry[0] != name]
    controller.store.document["extwriters"] = left
    if not left:
        del controller.store.document["extwriters"]
    _show_writers(controller, command)


def _show_writers(controller: Controller, command: Command) -> None:
    writers: Iterable[Any] = controller.store.document.get("extwriters", ())
    if not command.caller.may(Permission.ADMIN):
        writers = [without_commands("external_writer_add", list(entry)) for entry in writers]
    command.reply["external_writer_list"] = [list(entry) for entry in writers] or None


def enumerate_sources(controller: Controller, command: Command) -> None:
    """List the devices of an input that has such; null for what is no text, nothing when no input knows it."""
    if not isinstance(command["enumerate_sources"], str):
        command.reply["enumerate_sources"] = None


# -- processes and updates ---------------------------------------------------------------------------------------------


def proc_list(controller: Controller, command: Command) -> None:
    """List the programs that work on streams, or on one, by process number; one that has ended is listed once more."""
    given = command["proc_list"]
    stream = given if isinstance(given, str) else ""
    command.reply["proc_list"] = controller.processes.listed(stream, controller.log_ring.history.since(0)) or None


def proc_status_update(controller: Controller, command: Command) -> None:
    """Take what a program that works on a stream reports of itself."""
    given = command["proc_status_update"]
    why = controller.processes.report(given) if isinstance(given, dict) else ""
    if why:
        controller.log.warning("API call proc_status_update: %s", why)


def update(controller: Controller, command: Command) -> None:
    """Tell which version runs, and that the system's package manager is what brings a newer one."""
    report = version_report()
    command.reply["update"] = {
        "uptodate": 1, "release": "Package manager", "version": report["version"],
        "date": time.strftime("%Y-%m-%d", time.strptime(report["date"], "%b %d %Y")), "needs_update": None,
    }  # fmt: skip

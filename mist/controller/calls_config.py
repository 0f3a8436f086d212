"""API calls that read and change the server's configuration, its protocols and its tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mist.controller import protocols
from mist.controller.audit import without_secrets
from mist.controller.config import parse
from mist.controller.migration import clean
from mist.controller.permissions import Permission
from mist.controller.schema import DEFAULT_BANDWIDTH_EXCEPTIONS, Server
from mist.controller.state import Command, Controller
from mist.controller.version import version_text
from mist.errors import ConfigError, MistError

ADDRESS = ("interface", "port", "username")
NOT_BACKED_UP = ("log", "online", "error")


def config(controller: Controller, command: Command) -> None:
    """Store each member that is known and acceptable; one that is not stays as it was, and the log says why."""
    given = command["config"]
    if not isinstance(given, dict):
        return
    for member in Server.model_fields:
        if member in given:
            try:
                _store_member(controller, member, given[member])
            except ConfigError as error:
                controller.log.error("API call config: %s", error)


def _store_member(controller: Controller, member: str, value: Any) -> None:
    if member == "debug" and (not isinstance(value, int) or isinstance(value, bool)):
        value = None
    if member == "triggers" and not isinstance(value, dict):
        value = None
    if member == "location" and isinstance(value, dict):
        value = {"lat": 0, "lon": 0, "name": "", **{key: part for key, part in value.items() if part is not None}}
    if member == "controller" and isinstance(
        value, dict
    ):  # older clients know three members, and must not drop the others
        merged = {**controller.store.server.get("controller", {}), **value}
        value = {key: part for key, part in merged.items() if part is not None}
    if member == "trustedproxy" and value is not None:
        value = sorted(set(value.split() if isinstance(value, str) else _texts(value)))
    checked: dict[str, Any] = {}
    if value is not None:
        checked = parse({"config": {member: value}}, controller.store.capabilities).document()["config"]
    if member in checked:
        controller.store.server[member] = checked[member]
    else:
        controller.store.server.pop(member, None)


def _texts(value: object) -> list[str]:
    return [text for text in value if isinstance(text, str) and text] if isinstance(value, list | dict) else []


def reply(controller: Controller, command: Command) -> None:
    """Show the member `config`, with the protocols' states and what identifies this server."""
    if command.minimal and "config" not in command:
        return
    shown: dict[str, Any] = {
        key: None if value in ({}, []) else value for key, value in controller.store.config.server().items()
    }
    configured = controller.store.server.get("controller", {})
    shown["controller"] = {key: value for key, value in shown["controller"].items() if key in (*ADDRESS, *configured)}
    shown["triggers"] = controller.store.server.get("triggers") or None
    if not command.caller.may(Permission.CONFIG):
        for name in ("triggers", "prometheus"):
            shown[name] = shown[name] and without_secrets({name: shown[name]})[name]
    for absent in ("location", "trustedproxy"):
        shown.setdefault(absent, None)
    entries = controller.store.server.get("protocols") or []
    states = controller.services.listener_states()
    shown["protocols"] = protocols.with_states(entries, controller.services.capabilities, states) or None
    shown["serverid"] = shown.get("serverid") or None
    shown.update(iid=controller.identity, version=version_text(), time=int(controller.clock()))
    command.reply["config"] = shown


async def save(controller: Controller, command: Command) -> None:
    """Write the configuration to its files now."""
    await controller.store.save_beside()


def bandwidth(controller: Controller, command: Command) -> None:
    """Return the bandwidth this server should be loaded with, and whose traffic is not counted; an object stores them."""
    given = command["bandwidth"]
    _show_bandwidth(controller, command)
    if isinstance(given, dict) and given:
        present = dict(controller.store.document.get("bandwidth", {}))
        wanted = {key: given[key] for key in ("limit", "exceptions") if key in given}
        checked = parse({"bandwidth": {**present, **wanted}}).document().get("bandwidth", {})
        controller.store.document["bandwidth"] = checked
        _show_bandwidth(controller, command)


def _show_bandwidth(controller: Controller, command: Command) -> None:
    shown = {"exceptions": DEFAULT_BANDWIDTH_EXCEPTIONS, **controller.store.document.get("bandwidth", {})}
    command.reply["bandwidth"] = shown


async def config_backup(controller: Controller, command: Command) -> None:
    """Return the whole configuration without what is state."""
    document, built_in = dict(controller.store.document), controller.store.built_in
    configured = document.pop("streams", None)
    backup = command.reply["config_backup"] = _without_state(document)
    if configured is not None:
        streams = {name: one for name, one in configured.items() if one != built_in.get(name)}
        backup["streams"] = await controller.shown(streams, lambda name: _without_state(streams[name]))


def _without_state(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_state(member) for key, member in value.items() if key not in NOT_BACKED_UP}
    return [_without_state(member) for member in value] if isinstance(value, list) else value


async def config_restore(controller: Controller, command: Command) -> None:
    """Replace the whole configuration by a backup."""
    backup = command["config_restore"]
    if not isinstance(backup, dict):
        return
    if all(part is None for part in backup.values()):
        controller.log.error("API call config_restore: an empty object is no backup")
        return
    if command.refused and isinstance(backup.get("streams"), dict):
        present = controller.store.streams
        stay = {name: present[name] for name in command.refused if name in present}
        others = {name: entry for name, entry in backup["streams"].items() if name not in command.refused}
        backup = {**backup, "streams": {**others, **stay}}
    try:
        await controller.store.restore(backup, controller.monotonic())
    except (MistError, OSError) as error:
        controller.log.error("API call config_restore: %s", error)
        return
    controller.log.warning("The configuration was replaced by a backup", extra={"kind": "WARN"})


async def config_reload(controller: Controller, command: Command) -> None:
    """Read the configuration file again."""
    await controller.reload("API call config_reload")


def ui_settings(controller: Controller, command: Command) -> None:
    """Store an object for the web interface, or return the stored one."""
    if isinstance(command["ui_settings"], dict):
        controller.store.document["ui_settings"] = clean(command["ui_settings"], keep_nulls=True)
    command.reply["ui_settings"] = controller.store.document.get("ui_settings") or None


# -- protocols ---------------------------------------------------------------------------------------------------------


def addprotocol(controller: Controller, command: Command) -> None:
    """Append entries that are not there yet."""
    for entry in protocols.entries(command["addprotocol"]):
        _add_protocol(controller, entry)


def _add_protocol(controller: Controller, entry: protocols.Entry) -> None:
    _set_protocols(controller, lambda present: [*present, entry])


def deleteprotocol(controller: Controller, command: Command) -> None:
    """Remove every entry that equals one given."""
    unwanted = protocols.entries(command["deleteprotocol"])
    _set_protocols(controller, lambda present: [entry for entry in present if entry not in unwanted])


def updateprotocol(controller: Controller, command: Command) -> None:
    """Replace the entries that equal the first of two by the second."""
    pair = command["updateprotocol"]
    if not isinstance(pair, list) or len(pair) != 2 or not all(isinstance(entry, dict) for entry in pair):
        controller.log.warning("API call updateprotocol: expected the old and the new entry")
        return
    old, new = (protocols.plain(entry) for entry in pair)
    _set_protocols(controller, lambda present: [new if entry == old else entry for entry in present])


def _set_protocols(controller: Controller, change: Callable[[list[Any]], list[Any]]) -> None:
    present = controller.store.server.setdefault("protocols", [])
    wanted = protocols.without_duplicates(change(present))
    if wanted == present:
        return
    try:
        found = parse({"config": {"protocols": wanted}}, controller.store.capabilities)
    except ConfigError as error:
        controller.log.error("The protocols stay as they were: %s", error)
        return
    controller.warn(found)
    controller.store.server["protocols"] = protocols.without_duplicates(found.document()["config"]["protocols"])


# -- tags of the server ------------------------------------------------------------------------------------------------


def tags(controller: Controller, command: Command) -> None:
    """Replace the server's tags when given a list."""
    if isinstance(command["tags"], list):
        _set_tags(controller, set(command.names("tags")))
    show_tags(controller, command)


def add_tag(controller: Controller, command: Command) -> None:
    """Add tags to the server."""
    _set_tags(controller, {*_tags(controller.store.document), *command.names("add_tag")})
    show_tags(controller, command)


def remove_tag(controller: Controller, command: Command) -> None:
    """Remove tags from the server."""
    _set_tags(controller, set(_tags(controller.store.document)) - set(command.names("remove_tag")))
    show_tags(controller, command)


def _tags(document: Mapping[str, Any]) -> list[str]:
    return list(document.get("tags", ()))


def _set_tags(controller: Controller, wanted: set[str]) -> None:
    texts: list[str] = clean(sorted(tag for tag in wanted if tag))
    if texts:
        controller.store.document["tags"] = texts
    else:
        controller.store.document.pop("tags", None)


def show_tags(controller: Controller, command: Command) -> None:
    """Show the server's tags."""
    command.reply["tags"] = _tags(controller.store.document)

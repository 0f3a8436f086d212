"""API calls about keys: those that sign tokens (`jwks`), and those that publishers show (`streamkeys`)."""

from __future__ import annotations

from typing import Any

from mist.controller.state import Command, Controller
from mist.errors import ConfigError
from mist.stream import token_keys

MAX_STREAM_KEY_CHARACTERS = 255
MAX_STREAM_CHARACTERS = 127


# -- jwks --------------------------------------------------------------------------------------------------------------


def _present(controller: Controller) -> list[token_keys.Entry]:
    return [token_keys.unstored(value) for value in controller.store.document.get("jwks", ())]


def _store(controller: Controller, entries: list[token_keys.Entry]) -> None:
    if entries:
        controller.store.document["jwks"] = [token_keys.stored(entry) for entry in entries]
    else:
        controller.store.document.pop("jwks", None)


def jwks(controller: Controller, command: Command) -> None:
    """List the keys that sign tokens; a list replaces all of them."""
    given = command["jwks"]
    _show_jwks(controller, command)
    if isinstance(given, list):
        _store(controller, token_keys.added([], token_keys.entries(given))[0])
        _show_jwks(controller, command)


def _show_jwks(controller: Controller, command: Command) -> None:
    command.reply["jwks"] = [token_keys.shown(entry) for entry in _present(controller)] or None


def deletejwks(controller: Controller, command: Command) -> None:
    """Remove keys by identifier, URL or by the key itself."""
    left, gone = token_keys.removed(_present(controller), command["deletejwks"])
    _store(controller, left)
    command.reply["deletejwks"] = gone or None


def addjwks(controller: Controller, command: Command) -> None:
    """Add keys that sign tokens, or URLs of key sets; a key that is the same as another replaces it."""
    entries, added = token_keys.added(_present(controller), token_keys.entries(command["addjwks"]))
    _store(controller, entries)
    shown = [token_keys.stored(entry) if isinstance(entry[0], str) else token_keys.shown(entry) for entry in added]
    command.reply["addjwks"] = shown or None


# -- stream keys -------------------------------------------------------------------------------------------------------


def _keys(controller: Controller) -> dict[str, str]:
    keys: dict[str, str] = controller.store.part("streamkeys", {})
    return keys


def _acceptable(pairs: dict[str, Any]) -> dict[str, str]:
    """Return the pairs of key and stream that can be stored. Raises ConfigError for one that is too long."""
    found = {key: name for key, name in pairs.items() if isinstance(name, str) and key}
    for key, name in found.items():
        if len(key.encode("utf-8", "replace")) > MAX_STREAM_KEY_CHARACTERS:
            raise ConfigError(f"Stream keys have at most {MAX_STREAM_KEY_CHARACTERS} bytes")
        if len(name.encode("utf-8", "replace")) > MAX_STREAM_CHARACTERS:
            raise ConfigError(f"The stream of a key has at most {MAX_STREAM_CHARACTERS} bytes")
    return found


def set_streamkeys(controller: Controller, command: Command) -> None:
    """List the keys of publishers, also after one of the two calls below; an object replaces all of them."""
    if isinstance(command["streamkeys"], dict):
        controller.store.document["streamkeys"] = _acceptable(command["streamkeys"])


def streamkey_del(controller: Controller, command: Command) -> None:
    """Remove stream keys; with an object only where the stream is the same."""
    given, keys = command["streamkey_del"], _keys(controller)
    if isinstance(given, dict):
        deleted = [key for key, name in given.items() if key in keys and keys[key] == name]
    elif not isinstance(given, str | list):
        command.reply["streamkey_del"] = {"error": "Expected a key, a list of keys, or an object of key and stream"}
        return
    else:
        deleted = [key for key in dict.fromkeys(command.names("streamkey_del")) if key in keys]
    for key in deleted:
        del keys[key]
    command.reply["streamkey_del"] = {"deleted": deleted or None}


def streamkey_add(controller: Controller, command: Command) -> None:
    """Add stream keys."""
    given, keys = command["streamkey_add"], _keys(controller)
    if not isinstance(given, dict):
        command.reply["streamkey_add"] = {"error": "Expected an object of key and stream"}
        return
    try:
        wanted = _acceptable(given)
    except ConfigError as error:
        command.reply["streamkey_add"] = {"error": str(error)}
        return
    added = [key for key, name in wanted.items() if keys.get(key) != name]
    keys.update(wanted)
    command.reply["streamkey_add"] = {"added": added or None}


def show_streamkeys(controller: Controller, command: Command) -> None:
    """Show the stream keys to whoever asked for them or changed them."""
    if any(name in command and name not in command.denied for name in ("streamkeys", "streamkey_add", "streamkey_del")):
        command.reply["streamkeys"] = dict(_keys(controller)) or None
    if not controller.store.document.get("streamkeys"):
        controller.store.document.pop("streamkeys", None)

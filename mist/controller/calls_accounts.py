"""API calls about accounts; MistServer has none, and edits its file instead."""

from __future__ import annotations

import asyncio
from typing import Any

from mist.controller import accounts
from mist.controller.declaration import Record
from mist.controller.gate import MAX_PASSWORD_CHARACTERS, is_acceptable
from mist.controller.state import Command, Controller

MAX_ACCOUNTS = 1000
MAX_KEYS = 64


class AccountChange(Record):
    """A new account, or changes of one that is there. new: refuse one that is there."""

    name: str
    password: str | None = None
    permissions: list[str] | None = None
    challenge: bool | None = None
    new: bool = False


class KeyWanted(Record):
    """A key for programs."""

    account: str
    name: str = ""
    permissions: list[str] | None = None


def _known(controller: Controller) -> dict[str, Any]:
    found: dict[str, Any] = controller.store.part("account", {})
    return found


def account_list(controller: Controller, command: Command) -> None:
    """List the accounts: what they may do, whether they may log in by challenge, and the names of their keys."""
    shown = {
        name: {
            "permissions": sorted(accounts.permissions_of(entry)),
            "challenge": bool(entry.get("password")),
            "keys": [
                {
                    "name": key.get("name", ""),
                    "permissions": sorted(accounts.permissions_of(entry) & accounts.permissions_of(key)),
                }
                for key in entry.get("keys", ())
            ],
        }
        for name, entry in controller.store.document.get("account", {}).items()
    }
    command.reply["account_list"] = shown or None


async def account_set(controller: Controller, command: Command) -> None:
    """Add an account, or change its password, its permissions or whether it may log in by challenge."""
    wanted = AccountChange.model_validate(command["account_set"])
    hashed: dict[str, Any] = {}
    if wanted.password is not None:
        if not is_acceptable(wanted.name, wanted.password) or len(wanted.password) > MAX_PASSWORD_CHARACTERS:
            command.reply["account_set"] = {"error": "That is no name or no password for an account"}
            return
        hashed = await asyncio.to_thread(accounts.new_account, wanted.password, challenge_login=True)
    async with controller.lock:
        command.reply["account_set"] = _set(controller, wanted, hashed)
    await controller.store.save_beside()


def _set(controller: Controller, wanted: AccountChange, hashed: dict[str, Any]) -> dict[str, Any]:
    known = _known(controller)
    entry = known.get(wanted.name)
    if entry is not None and wanted.new:
        return {"error": f"There is an account {wanted.name} already"}
    if entry is None and (not hashed or len(known) >= MAX_ACCOUNTS):
        return {"error": f"There is no account {wanted.name}" if not hashed else "There are too many accounts"}
    entry = dict(entry or {})
    with_challenge = wanted.challenge if wanted.challenge is not None else bool(entry.get("password"))
    if hashed:
        entry["hash"] = hashed["hash"]
    if not with_challenge:
        if not entry.get("hash"):
            return {"error": "Without a new password the account could not log in any more"}
        entry.pop("password", None)
    elif hashed:
        entry["password"] = hashed["password"]
    elif not entry.get("password"):
        return {"error": "The login by challenge needs the password once more"}
    if wanted.permissions is not None:
        entry["permissions"] = sorted(accounts.permissions(wanted.permissions)) if wanted.permissions else ["read"]
    known[wanted.name] = entry
    controller.commit()
    return {"name": wanted.name}


def account_remove(controller: Controller, command: Command) -> None:
    """Remove an account; logins with it end."""
    name = command["account_remove"]
    if name not in _known(controller):
        command.reply["account_remove"] = {"error": f"There is no account {name}"}
        return
    del _known(controller)[name]
    command.reply["account_remove"] = {"name": name}


def account_key(controller: Controller, command: Command) -> None:
    """Make a key of an account for programs; this reply is the only place where it is shown."""
    wanted = KeyWanted.model_validate(command["account_key"])
    entry = _known(controller).get(wanted.account)
    keys = list(entry.get("keys", ())) if entry is not None else []
    if entry is None:
        command.reply["account_key"] = {"error": f"There is no account {wanted.account}"}
        return
    if len(keys) >= MAX_KEYS:
        command.reply["account_key"] = {"error": f"{wanted.account} has {MAX_KEYS} keys; remove one that is not used"}
        return
    key, stored = accounts.new_key()
    made: dict[str, Any] = {"name": wanted.name[:128], "hash": stored}
    if wanted.permissions is not None:
        made["permissions"] = sorted(accounts.permissions(wanted.permissions))
    entry["keys"] = [*keys, made]
    command.reply["account_key"] = {"key": key}


def account_unkey(controller: Controller, command: Command) -> None:
    """Remove the keys of an account that have a name."""
    wanted = KeyWanted.model_validate(command["account_unkey"])
    entry = _known(controller).get(wanted.account, {})
    left = [key for key in entry.get("keys", ()) if key.get("name", "") != wanted.name]
    if len(left) == len(entry.get("keys", ())):
        command.reply["account_unkey"] = {"error": f"{wanted.account} has no key {wanted.name!r}"}
        return
    entry["keys"] = left
    command.reply["account_unkey"] = {"name": wanted.name}

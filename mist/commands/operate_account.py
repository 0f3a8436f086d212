"""`mist account`: users of the control API, their permissions and keys."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mist.commands import BadUsage
from mist.commands.operate_link import call
from mist.commands.operate_show import table
from mist.errors import MistError

PERMISSIONS = ("read", "streams", "pushes", "config", "admin")

ACCOUNT = """\
Users of the control API of a running server. Changes are written to its configuration at once.

  mist account list
  mist account add alice                            everything is allowed; the password is asked for
  mist account add bob --may streams,pushes         streams and pushes only; each permission includes reading
  mist account add ui --challenge                   for clients of MistServer, which need its MD5 to be stored
  mist account password bob
  mist account key bob --name backup --may read     a key for programs: Authorization: Bearer KEY
  mist account unkey bob backup
  mist account remove bob

The password comes from standard input where that is no terminal: mist account add bob < file
Permissions: read, streams (and their keys, sessions, files), pushes, config (settings, protocols, tags), admin (all).
"""


def list_accounts(path: Path, options: argparse.Namespace) -> int:
    """List the accounts."""
    accounts = call(path, {"account_list": True}).get("account_list") or {}
    if options.json:
        print(json.dumps(accounts, indent=2, ensure_ascii=False))
        return 0
    rows = []
    for name, entry in sorted(accounts.items()):
        keys = ", ".join(key["name"] or "(no name)" for key in entry["keys"])
        rows.append([name, " ".join(entry["permissions"]), "yes" if entry["challenge"] else "no", keys])
    print(table(("name", "permissions", "challenge", "keys"), rows) if rows else "There are no accounts.")
    return 0


def change(path: Path, options: argparse.Namespace) -> int:
    """Add an account, or give one another password."""
    request: dict[str, Any] = {"name": options.name, "password": _password()}
    if options.action == "add":
        request.update(permissions=_permissions(options.may), challenge=options.challenge, new=True)
    _done(call(path, {"account_set": request}), "account_set")
    return 0


def remove(path: Path, options: argparse.Namespace) -> int:
    """Remove an account."""
    _done(call(path, {"account_remove": options.name}), "account_remove")
    return 0


def make_key(path: Path, options: argparse.Namespace) -> int:
    """Make a key and show it, this once."""
    request = {"account": options.name, "name": options.key, "permissions": _permissions(options.may)}
    print(_done(call(path, {"account_key": request}), "account_key"))
    return 0


def remove_key(path: Path, options: argparse.Namespace) -> int:
    """Remove a key."""
    _done(call(path, {"account_unkey": {"account": options.name, "name": options.key}}), "account_unkey")
    return 0


def _done(reply: dict[str, Any], name: str) -> Any:
    """Return what was made. Raises MistError with what the server says against it."""
    told = reply.get(name) or {"error": "the server did not do it; its log says why"}
    if "error" in told:
        raise MistError(str(told["error"]))
    return told.get("key", "")


def _permissions(text: str) -> list[str]:
    words = text.replace(",", " ").split()
    for word in words:
        if word not in PERMISSIONS:
            raise BadUsage(f'there is no permission "{word}"; there are {", ".join(PERMISSIONS)}')
    return words


def _password() -> str:
    if not sys.stdin.isatty():
        password = sys.stdin.readline().rstrip("\r\n")
    else:
        from getpass import getpass

        password = getpass("Password: ")
        if getpass("Again: ") != password:
            raise BadUsage("the two passwords differ")
    if not password:
        raise BadUsage("a password has at least one character")
    return password


Run = Callable[[Path, argparse.Namespace], int]


def add_commands(
    commands: Any, run: Callable[[Run], Callable[[argparse.Namespace], int]]
) -> list[argparse.ArgumentParser]:
    """Add `account` to the command line. run: makes of a command here what the parser calls."""
    raw = argparse.RawDescriptionHelpFormatter
    account = commands.add_parser("account", help="users of the control API", description=ACCOUNT, formatter_class=raw)
    actions = account.add_subparsers(dest="action", metavar="ACTION", required=True)
    table_of_actions: list[tuple[str, str, Run, tuple[str, ...], str]] = [
        ("list", "list the accounts", list_accounts, ("json",), "list --json"),
        ("add", "add an account", change, ("name", "may", "challenge"), "add bob --may streams,pushes"),
        ("password", "give an account another password", change, ("name",), "password bob < file"),
        ("remove", "remove an account", remove, ("name",), "remove bob"),
        ("key", "make a key for programs", make_key, ("name", "--name", "may"), "key bob --name backup --may read"),
        ("unkey", "remove a key", remove_key, ("name", "key"), "unkey bob backup"),
    ]
    parsers = []
    for name, summary, work, wanted, example in table_of_actions:
        told = f"{summary[:1].upper()}{summary[1:]}.\n\n  mist account {example}\n"
        parser = actions.add_parser(name, help=summary, description=told, formatter_class=raw)
        parser.set_defaults(run=run(work))
        for argument in wanted:
            _ARGUMENTS[argument](parser)
        parsers.append(parser)
    return parsers


_ARGUMENTS: dict[str, Callable[[argparse.ArgumentParser], object]] = {
    "name": lambda parser: parser.add_argument("name", metavar="NAME", help="of the account"),
    "json": lambda parser: parser.add_argument("--json", action="store_true", help="as JSON, for programs"),
    "key": lambda parser: parser.add_argument("key", metavar="KEY_NAME", help="name of the key"),
    "--name": lambda parser: parser.add_argument("--name", dest="key", default="", help="name of the key"),
    "may": lambda parser: parser.add_argument(
        "--may", default="admin", metavar="PERMISSIONS", help="with commas (default %(default)s)"
    ),
    "challenge": lambda parser: parser.add_argument(
        "--challenge", action="store_true", help="allow clients of MistServer, which log in by challenge"
    ),
}

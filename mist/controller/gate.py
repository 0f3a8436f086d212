"""Who is asking: every way into the control API, and what whoever came in may do."""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Mapping
from datetime import date
from typing import TYPE_CHECKING, Any

from mist.controller import accounts
from mist.controller.access import Origin
from mist.controller.permissions import EVERYTHING, Caller, Permission
from mist.controller.requests import parse_command
from mist.errors import AccessDenied
from mist.stream import token_keys

if TYPE_CHECKING:
    from mist.controller.state import Controller

MAX_NAME_CHARACTERS = 128
MAX_PASSWORD_CHARACTERS = 1024
MAX_HEADER_CHARACTERS = 12 * 1024
SCRYPTS_AT_ONCE = 2


class ApiConnection:
    """What is remembered of one TCP connection: the account that logged in on it, and with which credentials."""

    __slots__ = ("account", "credentials")

    def __init__(self) -> None:
        self.account = ""
        self.credentials = b""

    def forget(self) -> None:
        """Log out."""
        self.account, self.credentials = "", b""


class Refused(AccessDenied):
    """A header asked to be let in and cannot be."""


class Gate:
    """Decides who may use the API."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.limit = accounts.LoginLimit()
        self._hashing = asyncio.Semaphore(SCRYPTS_AT_ONCE)

    @property
    def accounts(self) -> dict[str, Any]:
        """The accounts of the running configuration."""
        known: dict[str, Any] = self.controller.store.document.get("account") or {}
        return known

    def challenge(self, address: str) -> str:
        """Return the challenge of an address for today."""
        return accounts.challenge(address, date.fromtimestamp(self.controller.clock()))

    # -- a command -----------------------------------------------------------------------------------------------------

    async def identify(
        self, login: object, connection: ApiConnection, origin: Origin, bearer: Caller | None = None
    ) -> tuple[dict[str, Any], Caller | None]:
        """Return a reply's `authorize`, and who is asking: None when no call may run.

        login: the member `authorize` of the command. bearer: who a header of this request proved to be.
        """
        fields = login if isinstance(login, dict) else {}
        if bearer is not None:
            return {"status": "OK"}, bearer
        if not origin.foreign and (remembered := self._remembered(connection, origin)) is not None:
            return {"status": "OK"}, remembered
        if not self.accounts:
            return await self._without_accounts(fields, origin)
        if origin.local:
            return {"status": "OK", "local": True}, _local(origin)
        if await self._log_in(fields, connection, origin):
            return {"status": "OK"}, self._remembered(connection, origin)
        return {"status": "CHALL", "challenge": self.challenge(origin.address)}, None

    def knows(self, connection: ApiConnection, origin: Origin, bearer: Caller | None) -> bool:
        """Return whether who asks is known before the command is read: by its connection, its address or a header."""
        if bearer is not None or origin.local:
            return True
        return not origin.foreign and self._remembered(connection, origin) is not None

    async def _without_accounts(
        self, fields: Mapping[str, Any], origin: Origin
    ) -> tuple[dict[str, Any], Caller | None]:
        if not origin.foreign and await self._create_first(fields, origin):
            return {"status": "ACC_MADE", "challenge": self.challenge(origin.address)}, None
        return {"status": "NOACC"}, _local(origin) if origin.local else None

    async def _create_first(self, fields: Mapping[str, Any], origin: Origin) -> bool:
        username, password = fields.get("new_username"), fields.get("new_password")
        if not (isinstance(username, str) and isinstance(password, str) and is_acceptable(username, password)):
            return False
        if origin.opened or origin.renamed:
            self.controller.log.warning(
                "The first account was not made for %s: its browser does not call this server by its address or host name. "
                "Do so, or use `mist account add`", origin.address, extra={"kind": "AUTH"},
            )  # fmt: skip
            return False
        account = await asyncio.to_thread(accounts.new_account, password, challenge_login=True)
        async with self.controller.lock:
            if self.accounts:
                return False
            self.controller.store.part("account", {})[username] = account
            self.controller.commit()
        self.controller.log.info("The account %r was made from %s", username, origin.address, extra={"kind": "AUTH"})
        return True

    def _remembered(self, connection: ApiConnection, origin: Origin) -> Caller | None:
        """Return who logged in on a connection, as long as the account is what it was."""
        account = self.accounts.get(connection.account) if connection.account else None
        if account is None or credentials(account) != connection.credentials:
            connection.forget()
            return None
        return Caller(connection.account, origin.address, _bounded(origin, accounts.permissions_of(account)))

    async def _log_in(self, fields: Mapping[str, Any], connection: ApiConnection, origin: Origin) -> bool:
        """Check a login: `password` answers the challenge, `clear` is the password itself, if nobody can read it."""
        given, clear = fields.get("password"), fields.get("clear")
        username = fields.get("username")
        name = username if isinstance(username, str) else ""
        if isinstance(clear, str) and clear:
            return await self._check(connection, origin, name, clear, is_clear=True)
        if isinstance(given, str) and given:
            return await self._check(connection, origin, name, given, is_clear=False)
        return False

    async def _check(self, connection: ApiConnection, origin: Origin, name: str, given: str, *, is_clear: bool) -> bool:
        now = self.controller.monotonic()
        log = self.controller.log
        shown = name[:MAX_NAME_CHARACTERS]
        if not self.limit.allow(origin.address, name, now):
            return False
        if is_clear and not origin.private:
            log.warning("A password from %s was not looked at: it came in the clear", origin.address)
            return False
        right = await self._is_right(name, given) if is_clear else self._answers(name, given, origin)
        if right:
            connection.account, connection.credentials = name, credentials(self.accounts.get(name, {}))
            self.limit.succeeded(origin.address, name)
            return True
        if self.limit.failed(origin.address, name, now):
            seconds = int(accounts.LOCK_SECONDS)
            log.warning("Logins from %s are refused for %d s", origin.address, seconds, extra={"kind": "AUTH"})
        log.warning("Failed login as %r from %s", shown, origin.address, extra={"kind": "AUTH"})
        return False

    def _answers(self, name: str, given: str, origin: Origin) -> bool:
        return accounts.answers_challenge(self.accounts, name, given, self.challenge(origin.address))

    async def _is_right(self, name: str, clear: str) -> bool:
        if len(clear) > MAX_PASSWORD_CHARACTERS:
            return False
        async with self._hashing:
            return await asyncio.to_thread(accounts.password_fits, self.accounts.get(name), clear)

    # -- headers -------------------------------------------------------------------------------------------------------

    async def header_login(self, header: str, connection: ApiConnection, origin: Origin) -> Caller | None:
        """Look at an `Authorization` header: returns who a key or a token stands for, None to go on without.

        `json {…}` and `Basic` log in on the connection. Raises Refused when that is wrong.
        """
        scheme, _, text = header.partition(" ")
        kind, text = scheme.lower(), text.strip()
        if len(header) > MAX_HEADER_CHARACTERS:
            raise Refused("The header Authorization is too long")
        if kind == "bearer" and text:
            return self._bearer(text, origin)
        if kind not in ("json", "basic") or not self.accounts or origin.local:
            return None
        if kind == "basic" and origin.foreign:  # browsers send it by themselves once somebody has typed it
            return None
        if not origin.foreign and self._remembered(connection, origin) is not None:
            return None
        fields = _basic(text) if kind == "basic" else _json(text)
        if not await self._log_in(fields, connection, origin):
            raise Refused(kind)
        return self._remembered(connection, origin) if kind == "basic" else None

    def _bearer(self, text: str, origin: Origin) -> Caller:
        now = self.controller.monotonic()
        if not self.limit.allow(origin.address, "", now):
            raise Refused("Too many wrong keys")
        try:
            return self._proven(text, origin)
        except AccessDenied as error:
            self.limit.failed(origin.address, "", now)
            self.controller.log.warning("Refused %s: %s", origin.address, error, extra={"kind": "AUTH"})
            raise Refused(str(error)) from None

    def _proven(self, text: str, origin: Origin) -> Caller:
        """Return who a key or a token stands for. Raises AccessDenied."""
        if text.startswith(accounts.KEY_PREFIX):
            found = accounts.find_key(self.accounts, text)
            if found is None:
                raise AccessDenied("Nobody has this key")
            return Caller(found[0], origin.address, found[1])
        present = self.controller.store.document.get("jwks", ())
        claims = token_keys.admin_claims(text, present, origin.address, self.controller.clock())
        name = str(claims.get("name") or claims.get("sub") or claims.get("iss") or "")[:MAX_NAME_CHARACTERS]
        return Caller(f"token {name}".strip(), origin.address, accounts.permissions(claims["permissions"]))

    def holds(self, header: str, connection: ApiConnection, origin: Origin) -> bool:
        """Return whether one who was let in would be now: keys are withdrawn, tokens end, accounts get other passwords."""
        if connection.account:
            return self._remembered(connection, origin) is not None
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "bearer":
            return origin.local
        try:
            self._proven(text.strip(), origin)
        except AccessDenied:
            return False
        return True


def _local(origin: Origin) -> Caller:
    """Return who asks from this machine, without a login."""
    return Caller("local", origin.address, _bounded(origin, EVERYTHING), local=True)


def _bounded(origin: Origin, permissions: frozenset[Permission]) -> frozenset[Permission]:
    """Return what may be done with permissions that a request did not bring itself: a link that was opened may read."""
    return permissions & {Permission.READ} if origin.opened else permissions


def credentials(account: Mapping[str, Any]) -> bytes:
    """Return what a login on a connection is bound to: another password ends it."""
    return hashlib.sha256(f"{account.get('hash')}\0{account.get('password')}".encode()).digest()


def is_acceptable(username: str, password: str) -> bool:
    """Return whether an account may be called that, and have that password."""
    return bool(username) and len(username) <= MAX_NAME_CHARACTERS and username.isprintable() and bool(password)


def _json(text: str) -> dict[str, Any]:
    given = parse_command(text)
    return given if isinstance(given, dict) else {}


def _basic(text: str) -> dict[str, Any]:
    try:
        username, _, password = base64.b64decode(text, validate=True).decode("utf-8").partition(":")
    except ValueError:
        return {}
    return {"username": username, "clear": password}

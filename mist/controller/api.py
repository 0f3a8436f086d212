"""The control API over HTTP: requests in, authentication, replies out, and the status page."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import date
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

import mist
from mist.controller import accounts
from mist.controller.calls import execute
from mist.controller.state import Command, Controller
from mist.errors import RemoteProtocolError
from mist.formats.json_text import dumps, loads_lenient
from mist.net.local_addresses import LocalAddresses

MAX_BODY_BYTES = 16 * 1024 * 1024
MAX_LENIENT_CHARACTERS = 1024 * 1024
MAX_FORM_FIELDS = 100
MAX_NAME_CHARACTERS = 128
MAX_AUTHORIZATION_CHARACTERS = 2048
CALLBACK_NAME = re.compile(r"[A-Za-z_$][A-Za-z0-9_$.\[\]]{0,127}")
CONNECTION_KEY = "mist.connection"
SERVER = f"mist/{mist.__version__}"
REPLY_HEADERS = {
    "Access-Control-Allow-Credentials": "true",
    "Access-Control-Allow-Headers": "*",
    "Access-Control-Allow-Methods": "GET, POST, OPTIONS, HEAD",
    "Access-Control-Allow-Origin": "*",
    "Access-Control-Expose-Headers": "*",
    "Access-Control-Max-Age": "600",
    "Access-Control-Request-Headers": "*",
    "Access-Control-Request-Method": "GET",
    "Cache-Control": "no-cache, no-store, must-revalidate",
    "Content-Type": "text/javascript",
    "Expires": "0",
    "Pragma": "no-cache",
    "Server": SERVER,
    "X-Content-Type-Options": "nosniff",
}
PAGE_HEADERS = {
    "Cache-Control": "no-cache",
    "Content-Security-Policy": "default-src 'self'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src 'self' data:; frame-ancestors 'none'",
    "Content-Type": "text/html; charset=utf-8",
    "Server": SERVER,
    "X-Info": "mist control API",
    "X-UA-Compatible": "IE=edge;chrome=1",
}
_INT64 = 2**63


class ApiConnection:
    """What is remembered of one TCP connection: whether a login succeeded on it."""

    __slots__ = ("authorised",)

    def __init__(self) -> None:
        self.authorised = False


def parse_command(text: str | bytes) -> Any:
    """Return the value of a command's text, None when it has none: strict JSON first, which is fast, then the lenient form."""
    try:
        return json.loads(text, parse_int=_bounded_int, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return _lenient_value(text)


def _lenient_value(text: str | bytes) -> Any:
    try:
        return loads_lenient(text, max_characters=MAX_LENIENT_CHARACTERS)
    except RemoteProtocolError:
        return None


def _bounded_int(digits: str) -> int:
    return max(min(int(digits), _INT64 - 1), -_INT64)


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is not JSON")


class Api:
    """Answers every request on the controller's port, whatever its method."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.addresses = LocalAddresses()
        self.limit = accounts.LoginLimit()
        controller.memory.keep("login limits", self.limit, ("_budgets",))
        self._page: bytes | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)
        except ClientDisconnect:
            return

    async def _answer(self, request: Request) -> Response:
        connection = request.scope.setdefault(CONNECTION_KEY, ApiConnection())
        address = accounts.plain_address(request.client.host if request.client else "")
        own = self.addresses.get(self.controller.monotonic())
        local = accounts.is_local(address, own, request.headers)
        refusal = self._header_login(request.headers.get("authorization", ""), connection, address, local)
        if refusal is not None:
            return refusal
        body = await _body(request)
        if body is None:
            text = f"A command may be {MAX_BODY_BYTES} bytes long\n"
            return Response(text, 413, {"Connection": "close", "Content-Type": "text/plain", "Server": SERVER})
        variables, value = _command(request, body)
        path = request.url.path
        if not isinstance(value, dict):
            if path not in ("/api", "/api2"):
                return self._page_response()
            value = {}
        if path == "/api2":
            value["minimal"] = True
        reply = await self.run(value, connection, address, local=local, host=request.headers.get("host", ""))
        return Response(_reply_text(reply, variables), 200, REPLY_HEADERS)

    async def run(
        self, values: dict[str, Any], connection: ApiConnection, address: str, *, local: bool, host: str = ""
    ) -> dict[str, Any]:
        """Authenticate a command and run its calls; returns the reply object."""
        status, allowed = self._authorise(values.get("authorize"), connection, address, local=local)
        command = Command(values, local=local, host=host)
        if allowed:
            async with self.controller.lock:
                execute(self.controller, command)
            if "logout" in values:
                connection.authorised = False
        command.reply["authorize"] = status
        return command.reply

    # -- authentication ------------------------------------------------------------------------------------------------

    def _challenge(self, address: str) -> str:
        return accounts.challenge(address, date.fromtimestamp(self.controller.clock()))

    def _authorise(
        self, login: object, connection: ApiConnection, address: str, *, local: bool
    ) -> tuple[dict[str, Any], bool]:
        """Return the reply's `authorize` object, and whether the calls of the command may run."""
        known = self.controller.store.document.get("account") or {}
        fields = login if isinstance(login, dict) else {}
        if connection.authorised:
            return {"status": "OK"}, True
        if not known:
            if self._create_account(fields.get("new_username"), fields.get("new_password"), address):
                return {"status": "ACC_MADE", "challenge": self._challenge(address)}, False
            return {"status": "NOACC"}, local
        if local:
            return {"status": "OK", "local": True}, True
        if self._login(fields, connection, address):
            return {"status": "OK"}, True
        return {"status": "CHALL", "challenge": self._challenge(address)}, False

    def _create_account(self, username: object, password: object, address: str) -> bool:
        if not (isinstance(username, str) and isinstance(password, str) and username and password):
            return False
        if len(username) > MAX_NAME_CHARACTERS or not username.isprintable():
            return False
        account = {"password": accounts.password_hash(password)}
        self.controller.store.part("account", {})[username] = account
        self.controller.commit()
        self.controller.log.info("The account %r was made from %s", username, address, extra={"kind": "AUTH"})
        return True

    def _login(self, fields: Mapping[str, Any], connection: ApiConnection, address: str) -> bool:
        """Check a login; one with an empty password only asks for the challenge."""
        password = fields.get("password")
        if not isinstance(password, str) or not password:
            return False
        now = self.controller.monotonic()
        if not self.limit.allow(address, now):
            return False
        known = self.controller.store.document.get("account") or {}
        connection.authorised = accounts.password_matches(
            known, fields.get("username"), password, self._challenge(address)
        )
        if not connection.authorised:
            self.limit.failed(address, now)
            username = str(fields.get("username", ""))[:MAX_NAME_CHARACTERS]
            self.controller.log.warning("Failed login as %r from %s", username, address, extra={"kind": "AUTH"})
        return connection.authorised

    def _header_login(self, header: str, connection: ApiConnection, address: str, local: bool) -> Response | None:
        """Check an `Authorization: json {…}` header; returns the refusal to send, or None to go on."""
        known = self.controller.store.document.get("account")
        scheme, _, text = header.partition(" ")
        if scheme.lower() != "json" or connection.authorised or local or not known:
            return None
        given = parse_command(text) if len(text) <= MAX_AUTHORIZATION_CHARACTERS else None
        fields = given if isinstance(given, dict) else {}
        if self._login(fields, connection, address):
            return None
        told = {**fields, "status": "CHALL", "challenge": self._challenge(address)}
        headers = {"Content-Type": "text/plain", "Server": SERVER, "WWW-Authenticate": f"json {dumps(told)}"}
        return Response("Not authorized\n", 403, headers)

    def _page_response(self) -> Response:
        if self._page is None:
            self._page = Path(__file__).with_name("status_page.html").read_bytes()
        return Response(self._page, 200, PAGE_HEADERS)


async def _body(request: Request) -> bytes | None:
    """Return the body of a request, None when it is too large."""
    announced = request.headers.get("content-length", "")
    if announced.isdecimal() and int(announced[:20]) > MAX_BODY_BYTES:
        return None
    body = bytearray()
    async for piece in request.stream():
        body += piece
        if len(body) > MAX_BODY_BYTES:
            return None
    return bytes(body)


def _command(request: Request, body: bytes) -> tuple[dict[str, str], Any]:
    """Return the variables of a request (of its URL and its form), and the value of its command."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    variables = _variables(request.url.query)
    if kind == "application/json":
        return variables, parse_command(body)
    if kind == "application/x-www-form-urlencoded":
        variables.update(_variables(body.decode("utf-8", "replace")))
    return variables, parse_command(variables.get("command", ""))


def _variables(text: str) -> dict[str, str]:
    try:
        return dict(parse_qsl(text, keep_blank_values=True, max_num_fields=MAX_FORM_FIELDS))
    except ValueError:
        return {}


def _reply_text(reply: dict[str, Any], variables: Mapping[str, str]) -> str:
    callback = variables.get("jsonp") or variables.get("callback") or ""
    text = dumps(reply)
    return f"{callback}({text});\n\n" if CALLBACK_NAME.fullmatch(callback) else f"{text}\n\n"


def application(controller: Controller) -> Starlette:
    """Return the ASGI application of the controller's port."""
    return Starlette(routes=[Route("/{path:path}", Api(controller))])

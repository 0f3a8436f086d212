"""The control API over HTTP: requests in, authentication, replies out, and the status page."""

from __future__ import annotations

import hmac
from collections.abc import Iterable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route, WebSocketRoute
from starlette.types import Receive, Scope, Send

import mist
from mist.controller import metrics
from mist.controller.access import Origin, Proxies, locate, plain_address
from mist.controller.calls import execute
from mist.controller.feed import Feed
from mist.controller.gate import ApiConnection, Gate, Refused
from mist.controller.permissions import Caller
from mist.controller.problems import collected
from mist.controller.requests import BodyReader, Reply, find_command, parse_command
from mist.controller.state import Command, Controller
from mist.errors import Busy, LimitExceededError
from mist.formats.json_text import dumps
from mist.net.local_addresses import LocalAddresses

CONNECTION_KEY = "mist.connection"
ADMIN_SOCKET_KEY = (
    "mist.admin_socket"  # in the scope of requests on the socket that only the server's own user can open
)
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
RETRY_AFTER_S = "10"
COMMAND_PATHS = ("/api", "/api2")

__all__ = ["ADMIN_SOCKET_KEY", "CONNECTION_KEY", "Api", "ApiConnection", "application", "parse_command"]


class Api:
    """Answers every request on the controller's port, whatever its method."""

    def __init__(self, controller: Controller) -> None:
        self.controller = controller
        self.addresses = LocalAddresses()
        self.gate = Gate(controller)
        self._proxies: tuple[tuple[str, ...], Proxies] = ((), Proxies())
        controller.memory.keep("login limits", self.gate.limit, ("_budgets",))
        self._page: bytes | None = None
        self._bodies = BodyReader()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
            await response(scope, receive, send)
        except ClientDisconnect:
            return

    def origin(self, scope: Scope) -> Origin:
        """Return where a request comes from."""
        if is_admin(scope):
            return Origin("127.0.0.1", local=True, private=True)
        client = scope.get("client")
        headers = _joined(scope["headers"])
        model = self.controller.store.config.model.config
        listed = tuple(model.trustedproxy)
        if listed != self._proxies[0]:
            self._proxies = (listed, Proxies(listed))
        return locate(
            plain_address(client[0] if client else ""),
            self.addresses.get(self.controller.monotonic()),
            headers,
            self._proxies[1],
            allowed=model.controller.localaccess,
            tls=scope.get("scheme") in ("https", "wss"),
        )

    async def _answer(self, request: Request) -> Response:
        connection = request.scope.setdefault(CONNECTION_KEY, ApiConnection())
        origin = self.origin(request.scope)
        header = request.headers.get("authorization", "")
        try:
            bearer = await self.gate.header_login(header, connection, origin) if header else None
        except Refused as refusal:
            return self._refusal(header, origin, refusal)
        if passphrase := self.controller.store.config.model.config.prometheus:
            path = request.url.path
            if hmac.compare_digest(path.encode(), f"/{passphrase}".encode()):
                return await self._metrics_text()
            if hmac.compare_digest(path.encode()[: len(passphrase.encode()) + 6], f"/{passphrase}.json".encode()):
                return await self._metrics_document(request)
        try:
            body = await self._bodies.read(request, known=self.gate.knows(connection, origin, bearer))
        except (LimitExceededError, Busy) as error:
            headers = {"Connection": "close", "Content-Type": "text/plain", "Server": SERVER}
            if isinstance(error, LimitExceededError):
                return Response(f"{error}\n", 413, headers)
            return Response(f"{error}\n", 503, {**headers, "Retry-After": RETRY_AFTER_S})
        variables, value = await find_command(request, body)
        path = request.url.path
        if not isinstance(value, dict):
            if path not in COMMAND_PATHS:
                return self._page_response()
            value = {}
        if path == "/api2":
            value["minimal"] = True
        host, secure = request.headers.get("host", ""), request.scope.get("scheme") == "https"
        with collected(self.controller.log) if is_admin(request.scope) else nullcontext() as problems:
            reply = await self.run(value, connection, origin, bearer=bearer, host=host, secure=secure)
        if problems is not None and (found := problems.document()):
            reply["problems"] = found
        return Reply(reply, variables, REPLY_HEADERS)

    async def run(
        self,
        values: dict[str, Any],
        connection: ApiConnection,
        origin: Origin,
        *,
        bearer: Caller | None = None,
        host: str = "",
        secure: bool = False,
    ) -> dict[str, Any]:
        """Authenticate a command and run its calls; returns the reply object."""
        status, caller = await self.gate.identify(values.get("authorize"), connection, origin, bearer)
        if caller is None:
            return {"authorize": status}
        command = Command(values, caller, host=host, secure=secure)
        await execute(self.controller, command)
        if command.denied:
            status["denied"] = command.denied
        if "logout" in values:
            connection.forget()
        command.reply["authorize"] = status
        return command.reply

    def _refusal(self, header: str, origin: Origin, refusal: Refused) -> Response:
        """Answer a login by header that failed; the reference's form for `json`, RFC 6750 and RFC 7617 for the others."""
        scheme, _, text = header.partition(" ")
        headers = {"Content-Type": "text/plain", "Server": SERVER}
        if scheme.lower() == "json":
            given = parse_command(text)
            told = given if isinstance(given, dict) else {}
            told = {**told, "status": "CHALL", "challenge": self.gate.challenge(origin.address)}
            return Response("Not authorized\n", 403, {**headers, "WWW-Authenticate": f"json {dumps(told)}"})
        asked = 'Bearer error="invalid_token"' if scheme.lower() == "bearer" else 'Basic realm="mist", charset="UTF-8"'
        return Response(f"Not authorized: {refusal}\n", 401, {**headers, "WWW-Authenticate": asked})

    async def _metrics_text(self) -> Response:
        body = metrics.text(self.controller, await self.controller.trigger_counts())
        return Response(body, 200, {"Content-Type": metrics.TEXT_TYPE, "Connection": "close", "Server": SERVER})

    async def _metrics_document(self, request: Request) -> Response:
        found = metrics.document(self.controller, await self.controller.trigger_counts())
        headers = {**REPLY_HEADERS, "Content-Type": metrics.JSON_TYPE, "Connection": "close"}
        return Reply(found, dict(request.query_params), headers)

    def _page_response(self) -> Response:
        if self._page is None:
            self._page = Path(__file__).with_name("status_page.html").read_bytes()
        return Response(self._page, 200, PAGE_HEADERS)


def is_admin(scope: Scope) -> bool:
    """Return whether a request came over the socket that only the server's own user can open."""
    return bool((scope.get("state") or {}).get(ADMIN_SOCKET_KEY))


def _joined(headers: Iterable[tuple[bytes, bytes]]) -> dict[str, str]:
    """Return headers by name in lower case; of several with one name the values one after another, as RFC 9110 section 5.2 says."""
    found: dict[str, str] = {}
    for raw_name, raw_value in headers:
        name, value = raw_name.decode("latin-1").lower(), raw_value.decode("latin-1")
        found[name] = f"{found[name]}, {value}" if name in found else value
    return found


def application(controller: Controller) -> Starlette:
    """Return the ASGI application of the controller's port."""
    api = Api(controller)
    return Starlette(routes=[WebSocketRoute("/ws", Feed(controller, api.gate, api.origin)), Route("/{path:path}", api)])

"""The HTTP connector: accepted sockets become HTTP connections whose requests are dispatched to the outputs."""

from __future__ import annotations

import asyncio
import itertools
import os
import socket
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final

from mist.errors import MistError
from mist.net.http_messages import TOKEN_MODE_DEFAULT, HttpSettings, Request, TrustedProxies
from mist.net.http_server import HttpConnection, Response
from mist.outputs.base import Capability, discover_outputs, listener_options
from mist.outputs.http.dispatch import Route, Routes, error_reply
from mist.outputs.http.pages import PAGE_MATCHES, Pages, unsupported_page
from mist.stream.services import OutputServices
from mist.stream.visits import Visit

DEFAULT_PORT: Final = 8080
WRAPPERS: Final = (
    "html5", "hlsjs", "videojs", "dashjs", "wheprtc", "webrtc", "mews", "rawws", "flv", "flash_strobe",
)  # fmt: skip

CAPABILITY = Capability(
    name="HTTP",
    friendly="HTTP",
    desc="HTTP connection handler: pages and players of its own, and all outputs that are reached over HTTP",
    provides="HTTP",
    url_match=PAGE_MATCHES,
    default_port=DEFAULT_PORT,
    optional={
        **listener_options(DEFAULT_PORT),
        "wrappers": {
            "name": "Active players",
            "help": "Which players are attempted and in what order",
            "type": "ord_multi_sel",
            "select": [[name, name] for name in WRAPPERS],
            "default": list(WRAPPERS),
            "option": "--wrappers",
            "short": "w",
        },
        "nostreamtext": {
            "name": "Stream unavailable text",
            "help": "Text shown by players when a stream is not available",
            "type": "str",
            "default": "",
            "option": "--nostreamtext",
            "short": "t",
        },
        "pubaddr": {
            "name": "Public address",
            "help": "Full public address this server is reached at; generated links use the first",
            "type": "inputlist",
            "default": [],
            "option": "--public-address",
            "short": "A",
        },
    },
)


def _resolve(name: str) -> list[str]:
    """Return the addresses of a host name; an unknown name has none."""
    try:
        return [str(entry[4][0]) for entry in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)]
    except OSError:
        return []


def _string_list(value: object) -> list[str]:
    """Return a configured list that may also be one text with spaces."""
    if isinstance(value, str):
        return value.split()
    return [entry for entry in value if isinstance(entry, str)] if isinstance(value, Iterable) else []


def _url(request: Request) -> str:
    query = request.query_string.decode("utf-8", "replace")
    return f"http://{request.host}{request.path}{'?' if query else ''}{query}"


class Site:
    """What answers the requests of one listener: the application of its connections."""

    def __init__(self, services: OutputServices, options: Mapping[str, Any]) -> None:
        self.services = services
        self.settings = HttpSettings()
        outputs: Mapping[str, Any] = getattr(services, "outputs", None) or discover_outputs()
        pages = Pages(options, outputs)
        reached = [output for output in outputs.values() if output.capability.deps == "HTTP"]
        self.routes = Routes([*pages.pages(), *reached])
        self._config: Mapping[str, Any] | None = None
        self.refresh()

    def refresh(self) -> None:
        """Follow the configuration; cheap when it is the one already known. Resolves names of trusted proxies."""
        if self.services.config is self._config:
            return
        self._config = self.services.config
        config = self._config.get("config") or {}
        mode = config.get("tknMode")
        self.settings.token_mode = mode if isinstance(mode, int) else TOKEN_MODE_DEFAULT
        self.settings.trusted = TrustedProxies(_string_list(config.get("trustedproxy")), _resolve)

    def handle(self, request: Request, response: Response) -> Awaitable[None] | None:
        """Find the output of a request and let it answer."""
        self.refresh()
        route = self.routes.find(request.path)
        if request.method == "OPTIONS" and not getattr(route and route.output, "answers_options", False):
            response.send(200)
            return None
        if route is None:
            status, body = unsupported_page(request)
            response.send(status, body, "text/html; charset=utf-8", close=True)
            return None
        request.stream = route.stream
        request.rest = route.rest
        if (visit := self.services.visit(response.record)) is not None:
            return self._watched(visit, route, request, response)
        pending: Awaitable[None] | None = route.output.handle(self.services, request, response)
        return pending

    async def _watched(self, visit: Visit, route: Route, request: Request, response: Response) -> None:
        """Answer a request whose connection the handlers of triggers are told of."""
        visit.host = request.peer
        if not visit.is_open:
            await visit.open()
        connector = route.output.capability.name
        if route.stream and connector in getattr(self.services, "outputs", {}) and connector != CAPABILITY.name:
            request.stream = await visit.enter(self.services, connector, route.stream, _url(request))
        pending: Awaitable[None] | None = route.output.handle(self.services, request, response)
        if pending is not None:
            await pending

    def failed(self, request: Request, response: Response, error: Exception) -> None:
        """Tell the client and the log what went wrong."""
        if isinstance(error, MistError):
            self.services.log.info("HTTP %s for %s: %s", request.path, request.peer, error)
        else:
            self.services.log.error("HTTP %s failed", request.path, exc_info=error)
        reply = error_reply(error)
        response.send(reply.status, reply.body, headers=reply.headers, reason=reply.reason)


class HttpOutput:
    """The OUTPUT of this package."""

    capability = CAPABILITY

    def __init__(self) -> None:
        self._sites: dict[tuple[int, int], Site] = {}
        self._serial = itertools.count()
        self._accepting: set[asyncio.Task[Any]] = set()

    def connection(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str
    ) -> HttpConnection:
        """Serve an accepted, non-blocking socket; the connection owns it from here on."""
        key = (id(services), id(options))
        site = self._sites.get(key)
        if site is None or site.services is not services:
            site = self._sites[key] = Site(services, options)
        site.refresh()
        connection = HttpConnection(
            site,
            site.settings,
            loop=services.loop,
            log=services.log,
            record=services.open_record(CAPABILITY.name, peer),
            peer=peer,
            salt=f"{os.getpid()}.{next(self._serial)}",
        )
        task = services.loop.create_task(self._accept(services.loop, connection, sock))
        self._accepting.add(task)
        task.add_done_callback(self._accepting.discard)
        return connection

    async def _accept(self, loop: asyncio.AbstractEventLoop, connection: HttpConnection, sock: socket.socket) -> None:
        """Put the socket on the event loop; a peer that is gone by then leaves nothing behind."""
        try:
            await loop.connect_accepted_socket(lambda: connection, sock)
        except OSError as error:
            sock.close()
            connection.connection_lost(error)

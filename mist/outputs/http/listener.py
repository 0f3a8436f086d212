"""The HTTP connector: accepted sockets become HTTP connections whose requests are dispatched to the outputs."""

from __future__ import annotations

import os
import socket
from collections.abc import Awaitable, Iterable, Mapping
from typing import Any, Final

from mist.errors import MistError
from mist.net.http_messages import TOKEN_MODE_DEFAULT, HttpSettings, Request, TrustedProxies
from mist.net.http_reader import RequestReader
from mist.net.http_server import HttpConnection, Response, Resumed
from mist.outputs.base import Capability, discover_outputs, listener_options
from mist.outputs.base.refusal_text import refusal_text
from mist.outputs.base.resumed import unpack_saved
from mist.outputs.base.viewers import admit as admit_viewer
from mist.outputs.http.dispatch import Route, Routes, error_reply
from mist.outputs.http.pages import PAGE_MATCHES, Pages, unsupported_page
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices
from mist.stream.token_keys import subject_of
from mist.stream.visits import Visit

DEFAULT_PORT: Final = 8080
RETRY_AFTER_S: Final = "10"
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


def _take_route(request: Request, route: Route) -> None:
    """Tell a request what its path names. A token in place of the stream's name is for the stream that it is about."""
    subject = subject_of(route.stream)
    request.stream, request.rest = subject or route.stream, route.rest
    request.named_token = route.stream if subject else ""


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
        """Find the output of a request and let it answer, if the handlers of triggers allow that."""
        self.refresh()
        visit = self.services.visit(response.record)
        if visit is not None:
            return self._watched(visit, request, response)
        route = self._route(request, response)
        if route is None:
            return None
        pending: Awaitable[None] | None = route.output.handle(self.services, request, response)
        return pending

    async def _watched(self, visit: Visit, request: Request, response: Response) -> None:
        """Answer a request whose connection the handlers of triggers are told of."""
        visit.host = request.peer
        if not visit.is_open:
            await visit.open()
        route = self._route(request, response)
        if route is None:
            return
        connector = route.output.capability.name
        if request.stream and connector in getattr(self.services, "outputs", {}) and connector != CAPABILITY.name:

            async def admit(reader: StreamReader) -> None:
                await admit_viewer(self.services, reader, connector, request)

            request.stream = await visit.enter(self.services, connector, request.stream, _url(request), admit)
        pending: Awaitable[None] | None = route.output.handle(self.services, request, response)
        if pending is not None:
            await pending

    def _route(self, request: Request, response: Response) -> Route | None:
        """Return the way to the output of a request; what needs none is answered here."""
        route = self.routes.find(request.path)
        if request.method == "OPTIONS" and not getattr(route and route.output, "answers_options", False):
            response.send(200)
            return None
        if route is None:
            status, body = unsupported_page(request)
            response.send(status, body, "text/html; charset=utf-8", close=True)
            return None
        _take_route(request, route)
        return route

    def failed(self, request: Request, response: Response, error: Exception) -> None:
        """Tell the client and the log what went wrong."""
        if isinstance(error, MistError):
            self.services.log.info("HTTP %s for %s: %s", request.path, request.peer, error)
        else:
            self.services.log.error("HTTP %s failed", request.path, exc_info=error)
        reply = error_reply(error)
        response.send(reply.status, reply.body, headers=reply.headers, reason=reply.reason)


class Unavailable:
    """What answers the first request of a connection for which there is no room in shared memory: why, and no more."""

    def __init__(self, services: OutputServices, peer: str, error: Exception) -> None:
        self.settings = HttpSettings()
        self._error = error
        services.log.error("Requests from %s are refused: %s", peer, error)

    def handle(self, request: Request, response: Response) -> None:
        """Refuse it."""
        response.send(
            503, f"{refusal_text(self._error, '')}\n".encode(), headers={"Retry-After": RETRY_AFTER_S}, close=True
        )

    def failed(self, request: Request, response: Response, error: Exception) -> None:
        """Refuse what is no request either."""
        self.handle(request, response)


class HttpOutput:
    """The OUTPUT of this package."""

    capability = CAPABILITY

    def __init__(self) -> None:
        self._sites: dict[tuple[int, int], Site] = {}

    def connection(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str
    ) -> HttpConnection:
        """Serve an accepted, non-blocking socket; the connection owns it from here on."""
        site = self._site(services, options)
        record: Any = None
        application: Site | Unavailable = site
        try:
            record = services.open_record(CAPABILITY.name, peer)
        except (MistError, OSError) as error:
            application = Unavailable(services, peer, error)
        connection = self._make(services, application, sock, peer, record)
        try:
            connection.serve(sock)
        except OSError as error:  # the peer is gone already
            sock.close()
            connection.connection_lost(error)
        return connection

    def _site(self, services: OutputServices, options: Mapping[str, Any]) -> Site:
        key = (id(services), id(options))
        site = self._sites.get(key)
        if site is None or site.services is not services:
            site = self._sites[key] = Site(services, options)
        site.refresh()
        return site

    def _make(
        self, services: OutputServices, site: Site | Unavailable, sock: socket.socket, peer: str, record: Any
    ) -> HttpConnection:
        return HttpConnection(
            site,
            site.settings,
            loop=services.loop,
            log=services.log,
            record=record,
            peer=peer,
            salt=str(os.fstat(sock.fileno()).st_ino),  # the same in every process that has the socket
        )

    def resume(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str, record: Any
    ) -> Any:
        """Go on with a connection that another process served; the socket is this connection's unless this raises.

        record: what that process wrote down. Raises MistError, OSError.
        """
        site = self._site(services, options)
        saved, received = unpack_saved(record.progress()[3])
        if saved.get("kind") == "http":
            connection = self._make(services, site, sock, peer, record)
            connection.resume(sock, saved, received)
            return connection
        reader = RequestReader(site.settings, peer)
        requests = reader.feed(received)[int(saved.get("answered", 0)) :]
        route = site.routes.find(requests[0].path) if requests else None
        if route is None:
            raise MistError("nothing serves what its request asked for")
        request = requests[0]
        _take_route(request, route)
        visit = services.visit(record)
        if visit is not None and visit.plays:
            request.stream = visit.plays
        return ResumedReply(services, route.output, request, Resumed(sock, record, saved, received))


class ResumedReply:
    """A reply that another process had begun, in the shape of a connection and of a response."""

    def __init__(self, services: OutputServices, output: Any, request: Request, resumed: Resumed) -> None:
        self.resumed = resumed
        self._services = services
        self._task = services.loop.create_task(self._run(output, request))

    async def _run(self, output: Any, request: Request) -> None:
        try:
            await output.handle(self._services, request, self)
        except (MistError, OSError) as error:
            self._services.log.warning("The reply to %s could not be continued: %s", request.peer, error)
            self.resumed.sock.close()
            self.resumed.record.close()

    def close(self, reason: str) -> None:
        """End the connection, if nothing else has it yet."""
        self._task.cancel(reason)

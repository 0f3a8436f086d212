"""The pages that the HTTP connector serves itself: player, stream information, policies, icon.

The sources lie in `mist/web`: `player.html` and `index.html` have placeholders such as `@NAME@` that are filled in with
escaped values here, `player.js` gets its host and `player.css` in front. Nothing is loaded from another host.
"""

from __future__ import annotations

import asyncio
import html
import json
import re
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote, urlsplit

import mist
from mist.errors import AccessDenied, MistError, NotFound, StreamError
from mist.net.http_messages import TOKEN_TO_URL, Request
from mist.net.http_server import Response
from mist.outputs.base import Capability
from mist.stream.info import info_document
from mist.stream.names import sanitise
from mist.stream.reader import StreamReader
from mist.stream.services import OutputServices

WEB: Final = Path(mist.__file__).parent / "web"
INFO_WAIT_S: Final = 10.0  # how long a GET of the information waits for a stream that is starting
MAX_HOSTS_KEPT: Final = 64
DEFAULT_RTMP_PORT: Final = 1935
HTML: Final = "text/html; charset=utf-8"
JAVASCRIPT: Final = "application/javascript; charset=utf-8"
STATIC_CACHE: Final = "public, max-age=86400"

_TIME = re.compile(r"(?:(?:(\d{1,4})[h:])?(\d{1,6})[m:])?(\d{1,9}(?:\.\d{1,6})?)s?")
_PLACEHOLDER = re.compile(r"@([A-Z0-9]+)@")

Handler = Callable[[OutputServices, Request, Response], Awaitable[None] | None]


@cache
def source(name: str) -> str:
    """Return one of the files in `mist/web`."""
    return (WEB / name).read_text("utf-8")


def fill(template: str, values: Mapping[str, str]) -> str:
    """Fill in a template's placeholders, each once, so that no value is searched for further ones."""
    return _PLACEHOLDER.sub(lambda match: values.get(match[1], match[0]), template)


def script_json(value: object) -> str:
    """Return JSON that may stand in a script element or in a script: nothing in it ends the element or a line."""
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=True)
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def unsupported_page(request: Request) -> tuple[int, bytes]:
    """Return status and body for a URL that nothing answers."""
    values = {"PATH": html.escape(request.path[:200]), "PLAYER": "<code>/STREAM.html</code>"}
    if path := _player_path(request.path):
        base = html.escape(request.public_base)
        values["PLAYER"] = f'<a href="{base}{path}">{path}</a>'
    return 415, fill(source("unsupported.html"), values).encode("utf-8", "replace")


def _player_path(path: str) -> str:
    """Return the path of the player, encoded, for one that could be the name of a stream alone; else ""."""
    text = path.strip("/")
    if "/" in text or "." in text:
        return ""
    try:
        return f"/{quote(sanitise(text), safe='+')}.html"
    except NotFound:
        return ""


def seek_seconds(text: str) -> float | None:
    """Return the seconds of a start position: `SS`, `MmSs`, `M:S`, `HhMmSs` or `H:M:S`; None for anything else."""
    match = _TIME.fullmatch(text.strip().lower())
    if match is None:
        return None
    hours, minutes, seconds = match.groups()
    return int(hours or 0) * 3600 + int(minutes or 0) * 60 + float(seconds)


def player_options(query: Mapping[str, str], query_string: bytes, base: str) -> dict[str, Any]:
    """Return what the player page hands to the player, from the page's own query."""
    options: dict[str, Any] = {"host": base, "fillSpace": True}
    if query_string:
        options["urlappend"] = "?" + query_string.decode("latin-1")
    if "dev" in query:
        options["skin"] = "dev"
    if "muted" in query:
        options["muted"] = True
    if "nounix" in query:
        options["useDateTime"] = False
    if "nocatchup" in query:
        options["liveCatchup"] = False
    for name, option in (("forcetype", "forceType"), ("forceplayer", "forcePlayer")):
        value = query.get(option, query.get(name))
        if value:
            options[option] = value
    if query.get("autoplay") in ("false", "0"):
        options["autoplay"] = False
    start = seek_seconds(query["t"]) if "t" in query else None
    if start is not None:
        options["startTime"] = start
    return options


class Page:
    """One of the connector's own URLs, in the shape that the routes want of an output."""

    def __init__(self, pattern: str, handle: Handler) -> None:
        self.capability = Capability("HTTP", "", "", url_match=(pattern,))
        self.handle = handle


class Pages:
    """The pages of one listener, with its options."""

    def __init__(self, options: Mapping[str, Any], outputs: Mapping[str, Any]) -> None:
        """Outputs: all by connector name, whose documents say how a stream can be played."""
        self._options = options
        self._documents = {name: output.capability.document() for name, output in outputs.items()}
        self._player = "window.mistStyle=" + script_json(source("player.css")) + ";\n" + source("player.js")
        self._player_page = source("player.html")
        self._index = source("index.html")
        self._scripts: dict[str, bytes] = {}
        addresses = options.get("pubaddr") or []
        listed = addresses.split() if isinstance(addresses, str) else addresses
        self._public = [address.rstrip("/") for address in listed if isinstance(address, str) and address]
        self._plain = {
            "/robots.txt": (b"User-agent: *\nDisallow: /\n", "text/plain; charset=utf-8"),
            "/favicon.ico": ((WEB / "favicon.ico").read_bytes(), "image/x-icon"),
            "/favicon.svg": ((WEB / "favicon.svg").read_bytes(), "image/svg+xml"),
            "/skins/default.css": ((WEB / "player.css").read_bytes(), "text/css; charset=utf-8"),
            "/crossdomain.xml": (CROSS_DOMAIN, "text/xml"),
            "/clientaccesspolicy.xml": (CLIENT_ACCESS, "text/xml"),
        }

    def pages(self) -> list[Page]:
        """Return all pages for the routes."""
        return [Page(pattern, getattr(self, name)) for pattern, name in PAGE_HANDLERS.items()]

    def bases(self, request: Request) -> list[str]:
        """Return the server's public base URLs as this client knows them, without the last slash; never empty."""
        if request.public_base:
            return [request.public_base]
        if self._public:
            return self._public
        return [f"http://{request.host or 'localhost'}"]

    # What needs no stream.

    def plain(self, _services: OutputServices, request: Request, response: Response) -> None:
        """Answer with a file that is the same for everybody."""
        body, content_type = self._plain.get(request.path) or self._plain["/favicon.ico"]
        response.send(200, body, content_type, cache=STATIC_CACHE)

    def index(self, _services: OutputServices, request: Request, response: Response) -> None:
        """Answer the bare address with a page that leads to a stream."""
        if name := request.query.get("stream", "").strip():
            location = f"{self.bases(request)[0]}/{quote(sanitise(name), safe='+')}.html"
            response.send(302, b"", HTML, {"Location": location})
            return
        response.send(200, self._index.encode(), HTML)

    def player_page(self, _services: OutputServices, request: Request, response: Response) -> None:
        """Answer with the page that plays a stream."""
        name = sanitise(request.stream)
        base = self.bases(request)[0]
        file_name = quote(name, safe="+")
        values = {
            "TITLE": html.escape(name),
            "BASE": html.escape(base),
            "NAME": script_json(name),
            "OPTIONS": script_json(player_options(request.query, request.query_string, base)),
            "HLS": html.escape(f"{base}/hls/{file_name}/index.m3u8"),
            "MP4": html.escape(f"{base}/{file_name}.mp4"),
        }
        body = fill(self._player_page, values).encode("utf-8", "replace")
        response.send(200, body, HTML, {"X-UA-Compatible": "IE=edge"})

    def player_script(self, _services: OutputServices, request: Request, response: Response) -> None:
        """Answer with the player."""
        response.send(200, self._script(self.bases(request)[0]), JAVASCRIPT)

    def embed_script(self, _services: OutputServices, request: Request, response: Response) -> None:
        """Answer with the player and a few lines that put it where the script element stands."""
        name = script_json(sanitise(request.stream))
        options = player_options(request.query, request.query_string, self.bases(request)[0])
        del options["fillSpace"]
        snippet = (
            "(function(){var script=document.currentScript,target=document.createElement('div');"
            "target.className='mistvideo';script.parentNode.insertBefore(target,script);"
            f"var options={script_json(options)};options.target=target;mistPlay({name},options);}})();\n"
        )
        response.send(200, self._script(self.bases(request)[0]) + snippet.encode(), JAVASCRIPT)

    def _script(self, base: str) -> bytes:
        """Return the player with the host in front that it talks to."""
        script = self._scripts.get(base)
        if script is None:
            host = script_json(base)
            front = f"window.mistoptions=window.mistoptions||{{}};if(!mistoptions.host)mistoptions.host={host};\n"
            if len(self._scripts) >= MAX_HOSTS_KEPT:
                self._scripts.clear()
            script = self._scripts[base] = (front + self._player).encode()
        return script

    # What tells of a stream.

    async def json_info(self, services: OutputServices, request: Request, response: Response) -> None:
        """Answer with the stream's information; 200 also when it cannot be played, the document says why."""
        document = await self._info(services, request)
        body = json.dumps(document, separators=(",", ":")).encode()
        response.send(200, body, "application/json")

    async def script_info(self, services: OutputServices, request: Request, response: Response) -> None:
        """Answer with a script that stores the stream's information in `mistvideo`."""
        document = await self._info(services, request)
        name = script_json(sanitise(request.stream))
        body = f"if(!window.mistvideo)window.mistvideo={{}};\nmistvideo[{name}]={script_json(document)};\n"
        response.send(200, body.encode(), "application/javascript")

    async def _info(self, services: OutputServices, request: Request) -> dict[str, Any]:
        """Return the information document of a stream, started if need be."""
        try:
            reader = await self._open(services, request)
        except (StreamError, AccessDenied) as error:
            document: dict[str, Any] = {"error": _error_text(error)}
        else:
            try:
                document = self._describe(reader, services, request)
            finally:
                services.close_stream(reader)
        if "error" in document and (text := self._options.get("nostreamtext")):
            document["on_error"] = str(text)
        return document

    async def _open(self, services: OutputServices, request: Request) -> StreamReader:
        """Open a stream without waiting for ever for its start."""
        try:
            async with asyncio.timeout(INFO_WAIT_S):
                return await services.open_stream(request.stream)
        except TimeoutError:
            raise StreamError("Stream is booting") from None

    def _describe(self, reader: StreamReader, services: OutputServices, request: Request) -> dict[str, Any]:
        query = request.query
        return info_document(
            reader,
            self._documents,
            self.bases(request),
            protocols=_protocols(services),
            user_agent=query.get("ua") or request.headers.get("user-agent", ""),
            token=request.token if request.token_mode & TOKEN_TO_URL else "",
            include_zero="inclzero" in query,
            meta_everywhere="metaeverywhere" in query,
        )

    async def smil(self, services: OutputServices, request: Request, response: Response) -> None:
        """Answer with a SMIL switch of the stream's video tracks over RTMP."""
        reader = await self._open(services, request)
        try:
            states = [state for state in reader.tracks() if state.info.type == "video"]
        finally:
            services.close_stream(reader)
        if not states:
            raise NotFound("The stream has no video")
        entries = [entry for entry in _protocols(services) if entry.get("connector") == "RTMP"]
        entry = next((one for one in entries if not one.get("cert")), entries[0] if entries else {})
        host = urlsplit(self.bases(request)[0]).hostname or "localhost"
        scheme, host = "rtmps" if entry.get("cert") else "rtmp", f"[{host}]" if ":" in host else host
        address = f"{scheme}://{host}:{entry.get('port') or DEFAULT_RTMP_PORT}/play/"
        lines = [
            f"<video src='{html.escape(quote(reader.name, safe='+'))}?track={state.index}' height='{state.info.height}' "
            f"system-bitrate='{state.bytes_per_second * 8}' width='{state.info.width}' />"
            for state in states
        ]
        body = (
            "<?xml version='1.0' encoding='utf-8'?>\n<!DOCTYPE smil PUBLIC '-//W3C//DTD SMIL 2.0//EN' "
            "'http://www.w3.org/2001/SMIL20/SMIL20.dtd'>\n"
            f"<smil><head><meta base='{html.escape(address)}' /></head>\n<body><switch>\n"
            + "\n".join(lines)
            + "\n</switch></body></smil>\n"
        )
        response.send(200, body.encode(), "application/smil")


def _protocols(services: OutputServices) -> list[Mapping[str, Any]]:
    """Return the configured protocol entries."""
    listed = (services.config.get("config") or {}).get("protocols") or []
    return [entry for entry in listed if isinstance(entry, Mapping)]


def _error_text(error: MistError) -> str:
    """Return the text that players switch on, for a stream that could not be opened."""
    if isinstance(error, AccessDenied):
        return "Could not retrieve stream. Sorry."
    text = str(error)
    return next((known for known in STATUS_TEXTS if text.startswith(known)), STATUS_TEXTS[0])


STATUS_TEXTS: Final = (
    "Stream is offline",
    "Stream is initializing",
    "Stream is booting",
    "Stream is waiting for data",
    "Stream is shutting down",
)

CROSS_DOMAIN: Final = (
    b'<?xml version="1.0"?>\n<!DOCTYPE cross-domain-policy SYSTEM "http://www.adobe.com/xml/dtds/cross-domain-policy.dtd">\n'
    b'<cross-domain-policy><allow-access-from domain="*" /><site-control permitted-cross-domain-policies="all" />'
    b"</cross-domain-policy>\n"
)
CLIENT_ACCESS: Final = (
    b'<?xml version="1.0" encoding="utf-8"?>\n<access-policy><cross-domain-access><policy><allow-from http-methods="*" '
    b'http-request-headers="*"><domain uri="*" /></allow-from><grant-to><resource path="/" include-subpaths="true" />'
    b"</grant-to></policy></cross-domain-access></access-policy>\n"
)

PAGE_HANDLERS: Final[Mapping[str, str]] = {
    "/": "index",
    "/$.html": "player_page",
    "/json_$.js": "json_info",
    "/info_$.js": "script_info",
    "/embed_$.js": "embed_script",
    "/player.js": "player_script",
    "/$.smil": "smil",
    "/$.ico": "plain",
    "/favicon.ico": "plain",
    "/favicon.svg": "plain",
    "/robots.txt": "plain",
    "/skins/default.css": "plain",
    "/crossdomain.xml": "plain",
    "/clientaccesspolicy.xml": "plain",
}
PAGE_MATCHES: Final = tuple(PAGE_HANDLERS)

"""Fuzz target: HTTP requests from the network, through a whole connection."""

from __future__ import annotations

from mist.errors import MistError
from mist.net.http_messages import HttpSettings, Request, RequestRefused, parse_range
from mist.net.http_server import Response
from mist.outputs.http.dispatch import Routes
from mist.outputs.http.pages import PAGE_MATCHES, Page, player_options, seek_seconds
from tests.support.http import Application, Peer

SETTINGS = HttpSettings(
    max_target_bytes=500, max_header_bytes=1000, max_header_count=20, max_body_bytes=1000, max_pipelined=4
)
ROUTES = Routes(
    [Page(pattern, lambda *_: None) for pattern in (*PAGE_MATCHES, "/$.flv", "/hls/$/x", "/webrtc/$", "/a/$/b.mpd")]
)


def answer(request: Request, response: Response) -> None:
    """Look at everything that handlers look at, and answer."""
    route = ROUTES.find(request.path)
    if route is not None and "/" in route.stream:
        raise RuntimeError(f"the stream {route.stream!r} has a slash")
    assert request.token is not None and request.public_base is not None and request.peer
    player_options(request.query, request.query_string, request.public_base)
    seek_seconds(request.query.get("t", ""))
    found = parse_range(request.headers.get("range", ""), 1000)
    if found is not None and not 0 <= found[0] < found[1] <= 1000:
        raise RuntimeError(f"impossible range {found}")
    response.send(200, request.path.encode("utf-8", "replace")[:100], headers={"X-Path": "x"})


def fuzz(data: bytes) -> None:
    """Feed a connection in two pieces; every reply is one of ours, and what is kept stays small."""
    application = Application(answer)
    peer = Peer(application, SETTINGS, peer="127.0.0.1")
    cut = data[0] if data else 0
    peer.connection.data_received(data[:cut])
    peer.connection.data_received(data[cut:])
    for error in application.errors:
        if not isinstance(error, MistError) and not isinstance(error, RequestRefused):
            raise error
    sent = peer.heard()
    if sent and not sent.startswith(b"HTTP/1.1 "):
        raise RuntimeError(f"not a reply: {sent[:50]!r}")
    peer.loop.advance(SETTINGS.idle_timeout_s + 40)
    if not peer.transport.closed:
        raise RuntimeError("the connection never ends")

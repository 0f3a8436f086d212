"""Connections: order, limits, time-outs, back-pressure and endings, without a socket."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from mist.errors import LocalProtocolError, NotFound
from mist.net.http_messages import IDLE_TIMEOUT_S, HeadAnswered, HttpSettings, Request
from mist.net.http_server import MAX_LINGER_BYTES, Response
from tests.support.http import Application, Peer, split_replies

GET = b"GET /%d HTTP/1.1\r\nHost: h\r\n\r\n"


def get(path: str = "/", *lines: str, method: str = "GET", version: str = "1.1") -> bytes:
    return "\r\n".join([f"{method} {path} HTTP/{version}", "Host: h", *lines, "", ""]).encode()


def test_a_reply_has_the_usual_headers() -> None:
    [(status, headers, body)] = split_replies(Peer().say(get("/a")))
    assert (status, body) == (200, b"/a")
    assert headers["server"].startswith("mist/") and headers["date"].endswith("GMT")
    assert headers["access-control-allow-origin"] == "*" and headers["access-control-allow-credentials"] == "true"
    assert headers["access-control-expose-headers"] == "*" and headers["access-control-max-age"] == "600"
    assert headers["access-control-allow-methods"] == "GET, POST, OPTIONS, HEAD"
    assert headers["access-control-allow-headers"] == headers["access-control-request-headers"] == "*"
    assert headers["access-control-request-method"] == "GET"
    assert headers["cache-control"] == "no-cache, no-store, must-revalidate"
    assert (headers["pragma"], headers["expires"]) == ("no-cache", "0")
    assert "connection" not in headers


@pytest.mark.parametrize(
    ("version", "line", "connection", "closed"),
    [
        ("1.1", "X: y", None, False),
        ("1.1", "Connection: close", "close", True),
        ("1.1", "Connection: Keep-Alive", None, False),
        ("1.0", "X: y", "close", True),
        ("1.0", "Connection: keep-alive", "keep-alive", False),
        ("1.1", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c", None, False),
    ],
)
def test_connection_rules(version: str, line: str, connection: str | None, closed: bool) -> None:
    peer = Peer()
    [(_, headers, _)] = split_replies(peer.say(get("/", line, version=version)))
    assert headers.get("connection") == connection and peer.transport.closed is closed


def test_head_has_the_length_and_no_body() -> None:
    peer = Peer()
    [(status, headers, body)] = split_replies(peer.say(get("/four", method="HEAD")), heads_only=True)
    assert (status, headers["content-length"], body) == (200, "5", b"")
    assert split_replies(peer.say(get("/a")))[0][2] == b"/a"


def test_head_of_what_has_no_length_tells_none() -> None:
    peer = Peer(Application(lambda request, response: response.send(200, b"", "video/mp4", unknown_length=True)))
    two = peer.say(get("/live.mp4", method="HEAD") + get("/live.mp4", method="HEAD"))
    for status, headers, _ in split_replies(two, heads_only=True):
        assert (status, headers["content-type"]) == (200, "video/mp4")
        assert "content-length" not in headers and "transfer-encoding" not in headers
    assert not peer.transport.closed and two.count(b"HTTP/1.1 200") == 2


def test_replies_without_a_body() -> None:
    peer = Peer(Application(lambda request, response: response.send(204)))
    reply = peer.say(get())
    assert reply.startswith(b"HTTP/1.1 204 No Content\r\n") and b"ontent-" not in reply and reply.endswith(b"\r\n\r\n")


def test_pipelined_requests_are_answered_in_order_in_one_write() -> None:
    replies = split_replies(Peer().say(b"".join(GET % number for number in range(200))))
    assert [body for _, _, body in replies] == [b"/%d" % number for number in range(200)]


def test_a_second_reply_is_our_defect() -> None:
    def twice(_request: Request, response: Response) -> None:
        response.send(200)
        with pytest.raises(LocalProtocolError):
            response.send(200)

    assert len(split_replies(Peer(Application(twice)).say(get()))) == 1


def test_a_handler_that_answers_nothing_is_our_defect() -> None:
    application = Application(lambda request, response: None)
    assert len(split_replies(Peer(application).say(get()))) == 1
    assert isinstance(application.errors[0], LocalProtocolError)


def test_errors_of_handlers_reach_the_application() -> None:
    def fail(request: Request, _response: Response) -> None:
        raise NotFound(request.path)

    peer = Peer(Application(fail))
    assert [status for status, _, _ in split_replies(peer.say(get("/a") + get("/b")))] == [404, 404]


def test_slow_handlers_keep_the_order() -> None:
    async def scenario() -> None:
        gates = {f"/{number}": asyncio.Event() for number in range(3)}

        async def wait(request: Request, response: Response) -> None:
            await gates[request.path].wait()
            response.send(200, request.path.encode())

        peer = Peer(Application(wait))
        assert peer.say(b"".join(GET % number for number in range(3))) == b""
        for event in gates.values():
            event.set()
        for _ in range(10):
            await asyncio.sleep(0)
        assert [body for _, _, body in split_replies(peer.heard())] == [b"/0", b"/1", b"/2"]
        assert [request.path for request in peer.application.requests] == ["/0", "/1", "/2"]

    asyncio.run(scenario())


def test_only_so_many_requests_may_wait() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def wait(_request: Request, response: Response) -> None:
            await gate.wait()
            response.send(200)

        peer = Peer(Application(wait), HttpSettings(max_pipelined=3))
        peer.say(b"".join(GET % number for number in range(6)))
        gate.set()
        for _ in range(20):
            await asyncio.sleep(0)
        assert [status for status, _, _ in split_replies(peer.heard())] == [200, 200, 200, 200, 429]
        assert peer.transport.eof

    asyncio.run(scenario())


def test_a_viewer_that_leaves_cancels_its_handler() -> None:
    async def scenario() -> None:
        cancelled = asyncio.Event()

        async def wait(_request: Request, _response: Response) -> None:
            try:
                await asyncio.sleep(100)
            except asyncio.CancelledError:
                cancelled.set()
                raise

        peer = Peer(Application(wait))
        peer.say(get())
        await asyncio.sleep(0)
        peer.connection.connection_lost(None)
        await asyncio.wait_for(cancelled.wait(), 1)
        assert peer.record.closed == 1

    asyncio.run(scenario())


def test_a_half_closed_peer_is_answered() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def wait(_request: Request, response: Response) -> None:
            await gate.wait()
            response.send(200, b"late")

        peer = Peer(Application(wait))
        peer.say(get())
        assert peer.connection.eof_received() is True
        gate.set()
        for _ in range(5):
            await asyncio.sleep(0)
        assert split_replies(peer.heard())[0][2] == b"late" and peer.transport.closed

    asyncio.run(scenario())
    assert Peer().connection.eof_received() is False


def test_the_next_request_waits_until_a_reply_is_taken() -> None:
    peer = Peer(Application(lambda request, response: response.send(200, b"x" * 100_000)))
    peer.transport.accept = 10
    peer.connection.data_received(GET % 0 + GET % 1)
    peer.connection.data_received(GET % 2)
    assert len(peer.application.requests) == 1
    peer.transport.drain(50_000)
    assert len(peer.application.requests) == 1
    peer.transport.drain(1_000_000)
    assert len(peer.application.requests) == 3
    assert [len(body) for _, _, body in split_replies(peer.heard())] == [100_000] * 3


def test_many_small_requests_with_large_replies_do_not_pile_up() -> None:
    peer = Peer(Application(lambda request, response: response.send(200, b"x" * 30_000)))
    peer.transport.accept = 0
    peer.say(b"".join(GET % number for number in range(600)))
    assert len(peer.application.requests) < 10
    assert len(peer.transport.waiting) < 200_000


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02", 400),
        (b"BREW / HTTP/1.1\r\n\r\n", 400),
        (get(method="DELETE"), 405),
        (get("/" + "a" * 9000), 414),
    ],
)
def test_refusals_say_why_and_linger(data: bytes, status: int) -> None:
    peer = Peer()
    [(code, headers, body)] = split_replies(peer.say(data))
    assert code == status and headers["connection"] == "close" and body.strip()
    assert peer.transport.eof and not peer.transport.closed
    assert ("allow" in headers) == (status == 405)
    assert peer.say(get()) == b"" and not peer.application.requests
    peer.loop.advance(3)
    assert peer.transport.aborted


def test_lingering_has_a_limit() -> None:
    peer = Peer()
    peer.say(b"\0")
    peer.say(b"x" * MAX_LINGER_BYTES)
    assert not peer.transport.aborted
    peer.say(b"x")
    assert peer.transport.aborted


def test_a_slow_header_times_out() -> None:
    peer = Peer()
    data = get("/" + "a" * 100)
    for second in range(10):
        assert peer.heard() == b"", second
        peer.connection.data_received(data[second : second + 1])
        peer.loop.advance(1.0)
    [(status, _, body)] = split_replies(peer.heard())
    assert status == 408 and body
    assert not peer.application.requests


def test_a_slow_header_behind_other_requests_times_out() -> None:
    peer = Peer()
    peer.say(get() + b"GET /")
    peer.loop.advance(9)
    assert peer.heard() == b""
    peer.loop.advance(1.5)
    assert b" 408 " in peer.heard()


def test_a_slow_body_times_out() -> None:
    peer = Peer()
    peer.say(get("/", "Content-Length: 100", method="POST"))
    for _ in range(29):
        peer.connection.data_received(b"x")
        peer.loop.advance(1)
    assert peer.heard() == b""
    peer.loop.advance(2)
    assert b" 408 " in peer.heard()


def test_an_idle_connection_ends_quietly() -> None:
    for first in (b"", get("/"), b"\r\n"):
        peer = Peer()
        peer.say(first)
        peer.loop.advance(IDLE_TIMEOUT_S - 1)
        assert not peer.transport.closed
        peer.loop.advance(1.1)
        assert peer.transport.closed and peer.heard() == b""


def test_requests_renew_the_idle_time() -> None:
    peer = Peer()
    for _ in range(5):
        peer.loop.advance(IDLE_TIMEOUT_S - 10)
        assert split_replies(peer.say(get()))[0][0] == 200
    assert len([timer for timer in peer.loop.timers if not timer.cancelled]) == 1


def test_a_busy_connection_is_not_idle() -> None:
    async def scenario() -> None:
        async def wait(_request: Request, _response: Response) -> None:
            await asyncio.Event().wait()

        peer = Peer(Application(wait))
        peer.say(get())
        peer.loop.advance(500)
        assert not peer.transport.closed
        peer.connection.connection_lost(None)

    asyncio.run(scenario())


def test_a_peer_that_takes_nothing_is_dropped() -> None:
    peer = Peer(Application(lambda request, response: response.send(200, b"x" * 1000)))
    peer.transport.accept = 10
    peer.say(get())
    for _ in range(5):
        peer.loop.advance(50)
        peer.transport.drain(1)
        assert not peer.transport.aborted
    peer.loop.advance(130)
    assert peer.transport.aborted


def test_go_on_is_said_to_a_peer_that_asks() -> None:
    peer = Peer(Application(lambda request, response: response.send(200, request.body)))
    assert (
        peer.say(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST"))
        == b"HTTP/1.1 100 Continue\r\n\r\n"
    )
    assert split_replies(peer.say(b"ab"))[0][2] == b"ab"
    assert b"100 Continue" not in peer.say(get("/", "Content-Length: 2", "Expect: 100-continue", method="POST") + b"ab")


def test_statistics() -> None:
    peer = Peer()
    data = get("/a")
    reply = peer.say(data)
    assert (peer.record.down, peer.record.up, peer.record.closed) == (len(reply), len(data), 0)
    peer.connection.connection_lost(None)
    peer.connection.connection_lost(None)
    assert peer.record.closed == 1


def test_a_head_takes_no_socket() -> None:
    def media(_request: Request, response: Response) -> None:
        response.take_record()
        response.take_socket(200, "video/x-flv")

    peer = Peer(Application(media))
    reply = peer.say(get("/live.flv", method="HEAD"))
    assert (
        reply.startswith(b"HTTP/1.1 200 OK\r\n")
        and b"Content-Type: video/x-flv\r\n" in reply
        and b"Content-Length" not in reply
    )
    assert b"Connection: close\r\n" in reply and peer.transport.closed and not peer.application.errors
    peer.connection.connection_lost(None)
    assert peer.record.closed == 1
    assert HeadAnswered.reason == "CLEAN_EOF"


def test_large_bodies_are_sent_from_where_they_are() -> None:
    body = bytes(range(256)) * 1000
    peer = Peer(Application(lambda request, response: response.send(200, memoryview(body), cache="public, max-age=9")))
    [(_, headers, received)] = split_replies(peer.say(get()))
    assert received == body and headers["cache-control"] == "public, max-age=9" and "pragma" not in headers


def test_closing_waits_for_the_reply() -> None:
    async def scenario() -> None:
        gate = asyncio.Event()

        async def wait(_request: Request, response: Response) -> None:
            await gate.wait()
            response.send(200, b"done")

        peer = Peer(Application(wait))
        peer.say(get())
        peer.connection.close("shutdown")
        assert not peer.transport.closed
        gate.set()
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        [(_, headers, body)] = split_replies(peer.heard())
        assert body == b"done" and headers["connection"] == "close" and peer.transport.closed

    asyncio.run(scenario())
    peer = Peer()
    peer.connection.close()
    assert peer.transport.closed


def test_cookies_are_set_only_for_replies_that_nobody_caches() -> None:
    def answer(request: Request, response: Response) -> Awaitable[None] | None:
        assert request.token
        response.send(200, cache=None if request.path == "/a" else "public, max-age=5")
        return None

    peer = Peer(Application(answer))
    [(_, first, _), (_, second, _)] = split_replies(peer.say(get("/a?tkn=abc") + get("/b?tkn=abc")))
    assert first["set-cookie"] == "tkn=abc; Max-Age=600" and "set-cookie" not in second


def test_a_defect_after_the_reply_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def answer(_request: Request, response: Response) -> None:
        response.send(200, b"x")
        raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "test.http"):
        peer = Peer(Application(answer))
        assert split_replies(peer.say(get()))[0][2] == b"x"
    assert "after its reply" in caplog.text and not peer.transport.closed

"""Requests out of bytes, in any split, within limits."""

from __future__ import annotations

import pytest

from mist.net.http_messages import MAX_KNOWN_HEADS, HttpSettings, Request
from mist.net.http_reader import RequestReader

PIPELINE = (
    b"GET /a%20b.flv?x=1 HTTP/1.1\r\nHost: example.com\r\nCookie: a=1\r\nCookie: b=2\r\nX-Empty:\r\nAccept: a\r\naccept: b\r\n\r\n"
    b"POST /p HTTP/1.1\r\nHost: example.com\r\nContent-Length: 5\r\n\r\nhello"
    b"\r\nPOST /q HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nTrailer: 1\r\n\r\n"
    b"GET /ws HTTP/1.1\r\nHost: h\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    b"HEAD /old HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"
    b"GET /last HTTP/1.0\r\n\r\n"
)
EXPECTED = [
    ("GET", "/a b.flv", b"", True, False),
    ("POST", "/p", b"hello", True, False),
    ("POST", "/q", b"abcde", True, False),
    ("GET", "/ws", b"", True, False),
    ("HEAD", "/old", b"", True, True),
    ("GET", "/last", b"", False, True),
]


def short(requests: list[Request]) -> list[tuple[str, str, bytes, bool, bool]]:
    return [(r.method, r.path, r.body, r.keep_alive, r.http10) for r in requests]


def read(*pieces: bytes, **limits: int) -> RequestReader:
    reader = RequestReader(HttpSettings(**limits))  # type: ignore[arg-type]
    for piece in pieces:
        reader.feed(piece)
    return reader


def test_golden_parse() -> None:
    reader = RequestReader(HttpSettings(), peer="192.0.2.1")
    requests = reader.feed(PIPELINE)
    assert reader.refusal is None and reader.phase == "idle"
    assert short(requests) == EXPECTED
    first = requests[0]
    assert first.query == {"x": "1"} and first.host == "example.com" and first.peer == "192.0.2.1"
    assert first.headers == {"host": "example.com", "cookie": "a=1; b=2", "x-empty": "", "accept": "a, b"}
    assert "trailer" not in requests[2].headers
    assert requests[3].upgrade


def test_every_split() -> None:
    for cut in range(1, len(PIPELINE)):
        reader = RequestReader(HttpSettings())
        requests = reader.feed(PIPELINE[:cut]) + reader.feed(PIPELINE[cut:])
        assert reader.refusal is None, cut
        assert short(requests) == EXPECTED, cut


def test_lines_may_end_in_a_bare_lf() -> None:
    """RFC 9112 section 2.2; what is in a body stays as it is."""
    first = b"POST /p HTTP/1.1\nHost: h\r\nX-Old: yes\nContent-Length: 5\n\na\nb\r\n"
    second = b"GET /a%20b.flv?x=1 HTTP/1.0\nA:\n\n"
    for cut in range(len(first)):
        reader = RequestReader(HttpSettings())
        requests = [request for piece in (first[:cut], first[cut:], second) for request in reader.feed(piece)]
        assert reader.refusal is None, cut
        assert short(requests) == [("POST", "/p", b"a\nb\r\n", True, False), ("GET", "/a b.flv", b"", False, True)], cut
        assert requests[0].headers["x-old"] == "yes"


def test_byte_by_byte() -> None:
    reader = RequestReader(HttpSettings())
    requests = [request for i in range(len(PIPELINE)) for request in reader.feed(PIPELINE[i : i + 1])]
    assert short(requests) == EXPECTED
    assert requests[0].headers["x-empty"] == ""


def test_nothing_is_read_behind_the_last_request() -> None:
    reader = RequestReader(HttpSettings())
    requests = reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\nConnection: close\r\n\r\n\x00garbage GET / HTTP/1.1\r\n\r\n")
    assert len(requests) == 1 and reader.refusal is None
    assert reader.feed(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n") == [] and reader.refusal is None


def test_phases() -> None:
    reader = RequestReader(HttpSettings())
    assert reader.phase == "idle"
    reader.feed(b"\r\n")
    assert reader.phase == "idle"
    reader.feed(b"POST / HTTP/1.1\r\nHost: h\r\n")
    assert reader.phase == "head"
    reader.feed(b"Content-Length: 2\r\nExpect: 100-Continue\r\n\r\n")
    assert reader.phase == "body" and reader.wants_continue
    assert len(reader.feed(b"ab")) == 1
    assert reader.phase == "idle" and not reader.wants_continue


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03", 400),
        (b"\0" * 50, 400),
        (b"GET /\r\n\r\n", 505),
        (b"BREW / HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400),
        (b"GET /%00 HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET x HTTP/1.1\r\nHost: h\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nBad Header: x\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nHost: h\r\nA: b\0c\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: -5\r\n\r\n", 400),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\nxyz\r\n", 400),
        (b"DELETE / HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"CONNECT h:80 HTTP/1.1\r\nHost: h\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 1001\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nContent-Length: 99999999999\r\n\r\n", 413),
        (b"POST / HTTP/1.1\r\nHost: h\r\nTransfer-Encoding: chunked\r\n\r\n3e9\r\n" + b"x" * 1001, 413),
        (b"GET /" + b"a" * 500 + b" HTTP/1.1\r\nHost: h\r\n\r\n", 414),
        (b"GET /" + b"a" * 500, 414),
        (b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 12, 431),
        (b"GET / HTTP/1.1\r\nA: " + b"b" * 500 + b"\r\nB: c\r\n", 431),
    ],
)
def test_refusals(data: bytes, status: int) -> None:
    limits = {"max_target_bytes": 200, "max_header_bytes": 400, "max_header_count": 10, "max_body_bytes": 1000}
    for pieces in ([data], [data[i : i + 1] for i in range(len(data))]):
        reader = read(*pieces, **limits)
        assert reader.refusal is not None and reader.refusal.status == status
        assert str(reader.refusal)


@pytest.mark.parametrize("start", [b"GET / HTTP/1.1\r\nA: ", b"GET / HTTP/1.1\r\nA", b"GET / HTTP/1.1\r\n"])
def test_an_endless_header_line_is_refused(start: bytes) -> None:
    reader = RequestReader(HttpSettings(max_target_bytes=100, max_header_bytes=1000))
    reader.feed(start)
    fed = 0
    while reader.refusal is None:
        fed += 100
        assert fed < 5000
        reader.feed(b"x" * 100)
    assert reader.refusal.status in (400, 431)


def test_requests_before_an_error_count() -> None:
    reader = RequestReader(HttpSettings())
    requests = reader.feed(b"GET /a HTTP/1.1\r\nHost: h\r\n\r\n\x01\x02")
    assert [request.path for request in requests] == ["/a"]
    assert reader.refusal is not None and reader.feed(b"GET /b HTTP/1.1\r\nHost: h\r\n\r\n") == []


AGAIN = b"GET /hls/live/index.m3u8?a=1 HTTP/1.1\r\nHost: h\r\nX-Forwarded-For: 192.0.2.7\r\nUser-Agent: p\r\n\r\n"


def test_the_same_bytes_are_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    settings = HttpSettings()
    (first,) = RequestReader(settings, "127.0.0.1", "1").feed(AGAIN)
    first.stream, first.query["start"] = "live", "5"
    monkeypatch.setattr(RequestReader, "_parse", lambda *_: pytest.fail("read again"))
    near, far = RequestReader(settings, "127.0.0.1", "2"), RequestReader(settings, "198.51.100.1", "1")
    (same,), (other,), (later,) = near.feed(AGAIN), far.feed(AGAIN), near.feed(AGAIN)
    assert short([same, other, later]) == short([first]) * 3
    assert (same.stream, same.query, same.headers) == ("", {"a": "1"}, first.headers)
    assert (same.peer, other.peer) == ("192.0.2.7", "198.51.100.1")  # only a trusted peer speaks for others
    assert same.token != first.token == other.token


def test_what_was_read_once_is_read_the_same_at_every_split() -> None:
    settings = HttpSettings()
    pieces = [
        AGAIN,
        b"POST /b HTTP/1.1\r\nHost: h\r\nContent-Length: 9\r\n\r\n" + b"GET /\r\n\r\n",
        AGAIN,
        b"\r\n\r\n" + AGAIN,
    ]
    whole = [request for piece in pieces for request in RequestReader(settings).feed(piece)]
    stream = b"".join(pieces)
    for cut in range(len(stream)):
        reader = RequestReader(settings)
        found = [request for piece in (stream[:cut], stream[cut:], AGAIN) for request in reader.feed(piece)]
        assert reader.refusal is None and short(found) == short([*whole, whole[0]]), cut
    assert all(known.endswith(AGAIN) for known in settings.known)


@pytest.mark.parametrize(
    "data",
    [
        AGAIN.replace(b"User-Agent: p", b"Connection: close"),
        AGAIN.replace(b"User-Agent: p", b"Upgrade: websocket\r\nConnection: upgrade"),
        AGAIN.replace(b"GET", b"POST").replace(b"User-Agent: p", b"Content-Length: 4") + b"\r\n\r\n",
        AGAIN.replace(b"User-Agent: p", b"X: " + b"x" * 1024),
        AGAIN + AGAIN,
        AGAIN + b"\x01\r\n\r\n",
    ],
)
def test_what_is_more_than_a_head_is_not_remembered(data: bytes) -> None:
    settings = HttpSettings()
    assert RequestReader(settings).feed(data)
    assert settings.known == {}


def test_few_heads_are_remembered() -> None:
    settings = HttpSettings()
    reader = RequestReader(settings)
    for number in range(MAX_KNOWN_HEADS + 1):
        reader.feed(AGAIN.replace(b"a=1", b"a=%d" % number))
    assert len(settings.known) <= MAX_KNOWN_HEADS

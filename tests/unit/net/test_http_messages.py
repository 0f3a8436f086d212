"""Requests, queries, ranges, tokens, proxies and reply heads."""

from __future__ import annotations

import pytest

from mist.errors import LimitExceededError, LocalProtocolError
from mist.net.http_messages import (
    MAX_QUERY_FIELDS,
    HttpSettings,
    RangeNotSatisfiable,
    Request,
    RequestRefused,
    TrustedProxies,
    asked_range,
    fixed_head,
    header_lines,
    normalise_address,
    parse_cookies,
    parse_query,
    parse_range,
    percent_decode,
    session_token,
    split_target,
)


def request(target: bytes = b"/", headers: dict[str, str] | None = None, **more: object) -> Request:
    return Request("GET", target, headers or {}, more.pop("settings", None) or HttpSettings(), **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("target", "parts"),
    [
        (b"/", (b"", b"/", b"")),
        (b"/live.flv?a=1?b", (b"", b"/live.flv", b"a=1?b")),
        (b"/a#b?c", (b"", b"/a", b"")),
        (b"http://example.com/a?b", (b"example.com", b"/a", b"b")),
        (b"HTTPS://example.com:8443", (b"example.com:8443", b"/", b"")),
        (b"*", (b"", b"*", b"")),
        (b"//a", (b"", b"//a", b"")),
    ],
)
def test_targets(target: bytes, parts: tuple[bytes, bytes, bytes]) -> None:
    assert split_target(target) == parts


@pytest.mark.parametrize("target", [b"", b"live.flv", b"example.com:80", b"ftp://a/b", b"?a"])
def test_bad_targets(target: bytes) -> None:
    with pytest.raises(RequestRefused) as caught:
        split_target(target)
    assert caught.value.status == 400


@pytest.mark.parametrize(
    ("raw", "text"),
    [
        (b"a%20b", "a b"),
        (b"a+b", "a+b"),
        (b"%zz%4", "%zz%4"),
        (b"%C3%A9", "é"),
        (b"\xc3\xa9", "é"),
        (b"%ff", "�"),
        (b"%2F%2e%2E", "/.."),
    ],
)
def test_percent_decoding(raw: bytes, text: str) -> None:
    assert percent_decode(raw) == text


@pytest.mark.parametrize("target", [b"/a%00b", b"/a%0d%0aX:%20y", b"/%7f"])
def test_no_control_characters_hide_in_a_path(target: bytes) -> None:
    with pytest.raises(RequestRefused):
        request(target)


@pytest.mark.parametrize(
    ("raw", "fields"),
    [
        (b"", {}),
        (b"a=1&b=2&a=3", {"a": "3", "b": "2"}),
        (b"a&b=&=c&&", {"a": "", "b": "", "": "c"}),
        (b"a=b=c", {"a": "b=c"}),
        (b"video=%3C2mbps,|1x1&n=x+y", {"video": "<2mbps,|1x1", "n": "x y"}),
    ],
)
def test_queries(raw: bytes, fields: dict[str, str]) -> None:
    assert parse_query(raw) == fields


def test_a_query_has_a_limit() -> None:
    parse_query(b"&".join(b"a" for _ in range(MAX_QUERY_FIELDS)))
    with pytest.raises(LimitExceededError):
        parse_query(b"&".join(b"a" for _ in range(MAX_QUERY_FIELDS + 1)))


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("", None),
        ("bytes=0-0", (0, 1)),
        ("bytes=10-", (10, 100)),
        ("bytes=10-19", (10, 20)),
        ("bytes=90-500", (90, 100)),
        ("bytes=-10", (90, 100)),
        ("bytes=-500", (0, 100)),
        ("bytes=0-1,5-6", None),
        ("Bytes= 5-6 ", (5, 7)),
    ],
)
def test_ranges(header: str, expected: tuple[int, int] | None) -> None:
    assert parse_range(header, 100) == expected


@pytest.mark.parametrize("version", ['"an-entity-tag"', "Mon, 01 Jan 2001 00:00:00 GMT"])
def test_the_rest_of_another_version_is_the_whole(version: str) -> None:
    assert asked_range({"range": "bytes=10-", "if-range": version}, 100) is None
    assert asked_range({"range": "bytes=500-", "if-range": version}, 100) is None
    assert asked_range({"range": "bytes=10-"}, 100) == (10, 100)


@pytest.mark.parametrize(
    "header",
    [
        "bytes=100-",
        "bytes=5-4",
        "bytes=-0",
        "bytes=",
        "bytes=a-b",
        "bytes=-",
        "parsec=1-2",
        "5-6",
        "bytes=--1",
        "bytes=٣-٤",
    ],
)
def test_unsatisfiable_ranges(header: str) -> None:
    with pytest.raises(RangeNotSatisfiable) as caught:
        parse_range(header, 100)
    assert caught.value.size == 100


@pytest.mark.parametrize(
    ("mode", "query", "cookie", "authorization", "token"),
    [
        (15, {}, "", "", ""),
        (15, {"tkn": "t", "sid": "s", "sessId": "x"}, "", "", "t"),
        (15, {"sid": "s", "sessId": "x"}, "", "", "s"),
        (15, {"sessId": "x"}, "", "", "x"),
        (15, {"tkn": "t", "jwt": "j"}, "", "", "j"),
        (15, {"tkn": "t"}, "tkn=c", "", "t"),
        (15, {}, "a=b; tkn=c", "", "c"),
        (15, {}, "tkn=c; jwt=d", "", "d"),
        (2, {"tkn": "t"}, "tkn=c", "", "c"),
        (1, {"tkn": "t"}, "tkn=c", "", "t"),
        (0, {"tkn": "t"}, "tkn=c", "", ""),
        (0, {"tkn": "t"}, "tkn=c", "Bearer b", "b"),
        (15, {"tkn": "t"}, "", "bearer  b", "b"),
        (15, {"tkn": "t"}, "", "Basic b", "t"),
        (15, {"tkn": "bad;token"}, "tkn=c", "", "c"),
        (15, {"tkn": "a\r\nb"}, "", "", ""),
        (15, {"tkn": "x" * 5000}, "", "", ""),
    ],
)
def test_session_tokens(mode: int, query: dict[str, str], cookie: str, authorization: str, token: str) -> None:
    assert session_token(mode, query, cookie, authorization) == token


def test_a_token_is_made_where_none_came_and_the_mode_writes_them() -> None:
    agent = {"user-agent": "curl"}
    first = request(headers=agent, salt="1.1")
    assert first.token.isdecimal() and first.token == request(headers=agent, salt="1.1").token
    assert first.token != request(headers=agent, salt="1.2").token
    assert first.token_cookie == f"tkn={first.token}; Max-Age=600"
    silent = request(headers=agent, settings=HttpSettings(token_mode=3))
    assert silent.token == "" and silent.token_cookie == ""


def test_no_cookie_for_requests_whose_handler_wants_no_token() -> None:
    assert request(b"/?tkn=a").token_cookie == ""


def test_cookies() -> None:
    assert parse_cookies('a=1; b="2" ;c;a=3;  =x') == {"a": "1", "b": "2", "": "x"}


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("1.2.3.4", "1.2.3.4"),
        ("::ffff:1.2.3.4", "1.2.3.4"),
        ("[2001:db8::1]:443", "2001:db8::1"),
        ("1.2.3.4:99", "1.2.3.4"),
        ("fe80::1%eth0", "fe80::1"),
        ("example.com", ""),
        ("", ""),
        ("1.2.3.4\r\nX: y", ""),
    ],
)
def test_addresses(text: str, address: str) -> None:
    assert normalise_address(text) == address


def test_proxies_are_believed_when_trusted() -> None:
    settings = HttpSettings(trusted=TrustedProxies(["10.0.0.0/8", "proxy.example"], lambda name: ["192.0.2.7"]))
    headers = {"x-real-ip": "198.51.100.1"}
    for peer in ("127.0.0.1", "::1", "10.9.8.7", "192.0.2.7"):
        assert request(headers=headers, settings=settings, peer=peer).peer == "198.51.100.1"
    assert request(headers=headers, settings=settings, peer="192.0.2.8").peer == "192.0.2.8"
    both = headers | {"x-forwarded-for": "198.51.100.2, 10.0.0.1"}
    assert request(headers=both, settings=settings, peer="10.0.0.1").peer == "198.51.100.2"
    nonsense = {"x-forwarded-for": "unknown"}
    assert request(headers=nonsense, settings=settings, peer="10.0.0.1").peer == "10.0.0.1"


@pytest.mark.parametrize("host", ["example.com", "example.com:8080", "[::1]:8080", "10.0.0.1", "a_b-c.local", ""])
def test_hosts(host: str) -> None:
    assert request(headers={"host": host}).host == host


@pytest.mark.parametrize("host", ['a"b', "a/b", "a b", "a:b", "<x>", "[::1", "x" * 300])
def test_bad_hosts(host: str) -> None:
    with pytest.raises(RequestRefused):
        request(headers={"host": host})


def test_the_host_of_an_absolute_target_wins() -> None:
    assert request(b"http://a.example/x", {"host": "b.example"}).host == "a.example"


def test_public_base() -> None:
    assert request(headers={"x-mst-path": "https://cdn.example/mist/"}).public_base == "https://cdn.example/mist"
    for bad in ("javascript:alert(1)", 'https://a"b', "https://a/<script>", "cdn.example", ""):
        assert request(headers={"x-mst-path": bad}).public_base == ""


def test_reply_head() -> None:
    head = fixed_head(200, "video/mp4", "public, max-age=5").decode()
    lines = head.split("\r\n")
    assert lines[0] == "HTTP/1.1 200 OK" and lines[1].startswith("Server: mist/")
    assert "Access-Control-Allow-Origin: *" in lines and "Access-Control-Max-Age: 600" in lines
    assert "Cache-Control: public, max-age=5" in lines and "Pragma: no-cache" not in lines
    assert "Content-Type: video/mp4" in lines
    never = fixed_head(404, "text/plain", None, "Error opening stream").decode().split("\r\n")
    assert never[0] == "HTTP/1.1 404 Error opening stream"
    assert {"Cache-Control: no-cache, no-store, must-revalidate", "Pragma: no-cache", "Expires: 0"} <= set(never)


@pytest.mark.parametrize(
    "headers",
    [{"A": "b\r\nC: d"}, {"A": "b\nC"}, {"A\r\nB": "c"}, {"A B": "c"}, {"": "c"}, {"A": "b\0"}, {"A": "\x85"}],
)
def test_nothing_breaks_out_of_a_header_line(headers: dict[str, str]) -> None:
    with pytest.raises(LocalProtocolError):
        header_lines(headers)


def test_nothing_breaks_out_of_a_status_line_or_content_type() -> None:
    with pytest.raises(LocalProtocolError):
        fixed_head(200, "text/plain\r\nX: y", None)
    with pytest.raises(LocalProtocolError):
        fixed_head(200, "text/plain", None, "OK\r\nX: y")
    with pytest.raises(LocalProtocolError):
        fixed_head(200, "text/plain", "public\nX: y")

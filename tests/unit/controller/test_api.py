"""The API on a socket of the loopback interface: request forms, envelopes, who may do what."""

from __future__ import annotations

import asyncio
import hashlib
import json
import socket
from collections.abc import Awaitable, Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from mist.controller import accounts, requests
from mist.controller.access import Origin
from mist.controller.api import Api, ApiConnection, parse_command
from mist.controller.server import listen
from mist.errors import TransportError
from tests.support.api_client import Client, serving
from tests.support.fake_control import START, ControllerUnderTest, make_controller

PASSWORD = "secret"
ACCOUNT = {"account": {"root": {"password": hashlib.md5(PASSWORD.encode()).hexdigest()}}}
TODAY = date.fromtimestamp(START)
PROXIED = {"X-Real-IP": "192.0.2.1"}
Scene = Callable[[Client, ControllerUnderTest], Awaitable[None]]


def play(scene: Scene, tmp_path: Path, document: dict[str, Any] | None = None) -> ControllerUnderTest:
    """Let one client act on a served API."""
    control = make_controller(tmp_path, document or {})

    async def act() -> None:
        async with serving(control) as port:
            client = await Client.connect(port)
            try:
                await scene(client, control)
            finally:
                await client.close()

    asyncio.run(act())
    return control


# -- request and reply forms -------------------------------------------------------------------------------------------


def test_reply_headers_and_ending(tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        status, headers, body = await client.request("/api2")
        assert status == 200
        assert headers["content-type"] == "text/javascript"
        assert headers["access-control-allow-origin"] == "*"
        assert headers["access-control-allow-methods"] == "GET, POST, OPTIONS, HEAD"
        assert headers["cache-control"] == "no-cache, no-store, must-revalidate"
        assert headers["server"].startswith("mist/")
        assert body == b'{"LTS":1,"authorize":{"status":"NOACC"}}\n\n'

    play(scene, tmp_path)


def test_old_clients(tmp_path: Path) -> None:
    """Names of headers are as old clients look for them, and the lines of requests may end in a bare LF."""
    control = make_controller(tmp_path, {})

    async def act() -> list[bytes]:
        async with serving(control) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            post = b'POST /api2 HTTP/1.1\nHost: localhost\nConnection: close\nContent-Length: 10\n\n{"tags":1}'
            writer.write(b"GET /api2 HTTP/1.1\nHost: localhost\n\n" + post)
            lines = (await reader.read()).splitlines()
            writer.close()
            return lines

    lines = asyncio.run(act())
    names = {name for name, colon, _ in (line.partition(b": ") for line in lines) if colon}
    assert lines.count(b"HTTP/1.1 200 OK") == 2
    assert {b"Content-Type", b"Content-Length", b"Access-Control-Allow-Origin", b"Connection"} <= names
    assert not [name for name in names if name[:1].islower()]


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "OPTIONS", "DELETE", "PATCH"])
def test_any_method(method: str, tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        status, _, body = await client.request("/api2?command=" + quote('{"tags":1}'), method=method)
        assert (status, json.loads(body)["tags"]) == (200, [])

    play(scene, tmp_path)


def test_head_has_no_body(tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        status, headers, _ = await client.request("/api2", method="HEAD")
        assert (status, headers["content-length"]) == (200, "42")
        assert (await client.request("/api2"))[0] == 200

    play(scene, tmp_path)


@pytest.mark.parametrize(
    ("target", "headers", "body"),
    [
        ("/api2?command=%7B%22tags%22%3A1%7D", {}, b""),
        ("/anything/else?command=%7B%22tags%22:1,%22minimal%22:1%7D", {}, b""),
        ("/api2", {"Content-Type": "application/json"}, b'{"tags":1}'),
        ("/api2", {"Content-Type": "application/json; charset=utf-8"}, b'{"tags":1}'),
        ("/", {"Content-Type": "application/json"}, b"{'tags': true, 'minimal': 1,}"),
        ("/api2", {"Content-Type": "application/x-www-form-urlencoded"}, b"command=%7B%22tags%22%3A1%7D"),
    ],
)
def test_request_forms(target: str, headers: dict[str, str], body: bytes, tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        assert json.loads((await client.request(target, headers, body))[2]) == {
            "LTS": 1,
            "authorize": {"status": "NOACC"},
            "tags": [],
        }

    play(scene, tmp_path)


@pytest.mark.parametrize(
    ("query", "start", "end"),
    [
        ("callback=cb", b'cb({"LTS"', b"});\n\n"),
        ("callback=a&jsonp=my.func[0]", b'my.func[0]({"LTS"', b"});\n\n"),
        ("jsonp=alert(1);x", b'{"LTS"', b"}\n\n"),
    ],
)
def test_jsonp(query: str, start: bytes, end: bytes, tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        body = (await client.request("/api2?" + query))[2]
        assert body.startswith(start)
        assert body.endswith(end)

    play(scene, tmp_path)


def test_page_where_there_is_no_command(tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        for target in ("/", "/index.html", "/?command=", "/?command=3"):
            status, headers, body = await client.request(target)
            assert (status, headers["content-type"]) == (200, "text/html; charset=utf-8")
            assert b"<!DOCTYPE html>" in body
            assert headers["x-ua-compatible"] == "IE=edge;chrome=1"

    play(scene, tmp_path)


def test_lenient_commands() -> None:
    assert parse_command("{'a': t, b}") is not None
    assert parse_command('{"a":1e5}') == {"a": 100000}
    assert parse_command('{"a":' + "9" * 30 + "}") == {"a": 2**63 - 1}
    assert parse_command('{"a":NaN}') != {"a": float("nan")}
    assert parse_command("") is None
    assert not isinstance(parse_command("[" * 5000), dict)


def test_calls_run_in_their_own_order(tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        reply = await client.command({"remove_tag": "b", "add_tag": ["a", "b"], "tags": ["c"]}, remote=False)
        assert reply["tags"] == ["a", "c"]

    play(scene, tmp_path)


# -- who may do what ---------------------------------------------------------------------------------------------------


def test_no_account(tmp_path: Path) -> None:
    """Without accounts a local client is served, a remote one is not; both read NOACC."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        assert await client.command({"tags": ["x"]}) == {"authorize": {"status": "NOACC"}}
        assert (await client.command({"tags": 1}, remote=False))["tags"] == []

    play(scene, tmp_path)


def test_first_account(tmp_path: Path) -> None:
    """The first account is made by whoever comes first; after that only a login helps, and the rule is closed."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        made = await client.command({"authorize": {"new_username": "root", "new_password": PASSWORD}, "tags": ["x"]})
        assert made["authorize"]["status"] == "ACC_MADE"
        assert set(made) == {"authorize"}
        again = await client.command({"authorize": {"new_username": "evil", "new_password": "x"}})
        assert again["authorize"]["status"] == "CHALL"
        assert await client.log_in("root", PASSWORD) == {"status": "OK"}

    control = play(scene, tmp_path)
    (account,) = control.controller.store.document["account"].values()
    assert account["password"] == ACCOUNT["account"]["root"]["password"]
    assert accounts.password_fits(account, PASSWORD)
    assert not accounts.password_fits(account, "evil")


def test_login_sticks_to_the_connection(tmp_path: Path) -> None:
    """One login serves all later requests of the TCP connection, and no other; logout ends it after the command."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        assert await client.log_in("root", "wrong") == {
            "status": "CHALL",
            "challenge": accounts.challenge("127.0.0.1", TODAY),
        }
        assert await client.log_in("root", PASSWORD) == {"status": "OK"}
        assert (await client.command({"tags": ["x"]}))["tags"] == ["x"]
        other = await Client.connect(client.writer.get_extra_info("peername")[1])
        assert (await other.command({"tags": 1}))["authorize"]["status"] == "CHALL"
        await other.close()
        assert (await client.command({"tags": 1, "logout": 1}))["tags"] == ["x"]
        assert "tags" not in await client.command({"tags": 1})

    play(scene, tmp_path, ACCOUNT)


def test_login_and_pipelined_requests(tmp_path: Path) -> None:
    """Requests that are sent in one go are answered in order, the later ones on the login of the first."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        password = accounts.answer(accounts.password_hash(PASSWORD), accounts.challenge("127.0.0.1", TODAY))
        commands = [{"authorize": {"username": "root", "password": password}}, {"tags": ["p"]}, {"tags": 1}]
        targets = [f"/api2?command={quote(json.dumps(command))}" for command in commands]
        client.writer.write("".join(f"GET {t} HTTP/1.1\r\nX-Real-IP: 1\r\n\r\n" for t in targets).encode())
        replies = [json.loads((await client.reply())[2]) for _ in targets]
        assert [reply.get("tags") for reply in replies] == [None, ["p"], ["p"]]

    play(scene, tmp_path, ACCOUNT)


@pytest.mark.parametrize(
    "headers",
    [
        {"X-Forwarded-For": "1.2.3.4"},
        {"X-Real-IP": ""},
        {"Origin": "http://evil.example"},
        {"Sec-Fetch-Site": "cross-site"},
    ],
)
def test_not_local(headers: dict[str, str], tmp_path: Path) -> None:
    """A proxied request, or one of another site's page in a browser on this machine, needs a login."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        reply = json.loads((await client.request("/api2", headers))[2])
        assert reply["authorize"]["status"] == "CHALL"

    play(scene, tmp_path, ACCOUNT)


def test_local(tmp_path: Path) -> None:
    """With accounts, a local client needs none, and is told so; the page's own requests are local, too."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        assert (await client.command({}, remote=False))["authorize"] == {"status": "OK", "local": True}
        _, _, body = await client.request("/api2", {"Origin": "http://localhost:4242", "Sec-Fetch-Site": "same-origin"})
        assert json.loads(body)["authorize"]["local"] is True
        assert (await client.command({}))["authorize"]["status"] == "CHALL"

    play(scene, tmp_path, ACCOUNT)


def test_challenge_is_defined() -> None:
    """Day and month without padding, the month counted from 0."""
    assert accounts.challenge("192.0.2.1", date(2024, 1, 5)) == hashlib.md5(b"5-0-2024192.0.2.1").hexdigest()


def test_the_challenge_changes_at_midnight(tmp_path: Path) -> None:
    """A client that keeps its answer is let in until then, and after it has answered the new challenge."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        control.clock.now = datetime(2024, 2, 29, 23, 59, 59).timestamp()
        stored = accounts.password_hash(PASSWORD)
        told = (await client.command({"authorize": {"username": "root", "password": ""}}))["authorize"]
        login = {"username": "root", "password": accounts.answer(stored, told["challenge"])}
        assert (await client.command({"authorize": login, "logout": 1}))["authorize"] == {"status": "OK"}
        control.clock.now += 1
        reply = await client.command({"authorize": login, "load": 1})
        assert reply.keys() == {"authorize"}
        assert reply["authorize"] == {"status": "CHALL", "challenge": challenge(date(2024, 3, 1))}
        login["password"] = accounts.answer(stored, reply["authorize"]["challenge"])
        assert (await client.command({"authorize": login}))["authorize"] == {"status": "OK"}

    def challenge(day: date) -> str:
        return accounts.challenge("127.0.0.1", day)

    play(scene, tmp_path, ACCOUNT)


def test_header_login(tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        empty = {"Authorization": 'json {"username":"root","password":""}', **PROXIED}
        status, headers, body = await client.request("/api2", empty)
        assert (status, body) == (403, b"Not authorized\n")
        told = json.loads(headers["www-authenticate"].removeprefix("json "))
        assert set(told) == {"username", "password", "status", "challenge"}
        login = json.dumps(
            {"username": "root", "password": accounts.answer(accounts.password_hash(PASSWORD), told["challenge"])}
        )
        status, _, body = await client.request("/api2", {"Authorization": f"json {login}", **PROXIED})
        assert (status, json.loads(body)["authorize"]) == (200, {"status": "OK"})

    play(scene, tmp_path, ACCOUNT)


def test_failed_logins_are_logged_and_limited(tmp_path: Path) -> None:
    """A wrong password is logged; after ten even the right one has to wait for the next turn."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        for _ in range(20):
            await client.log_in("root\n[fake line]", "wrong")
        assert (await client.log_in("root", PASSWORD))["status"] == "CHALL"
        control.clock.now += 3
        assert (await client.log_in("root", PASSWORD))["status"] == "OK"

    control = play(scene, tmp_path, ACCOUNT)
    lines = control.services.lines.texts("AUTH")
    assert len(lines) == 10
    assert all("127.0.0.1" in line and "\n" not in line for line in lines)


def test_unknown_user_with_the_answer_to_an_empty_password(tmp_path: Path) -> None:
    control = make_controller(tmp_path, ACCOUNT)
    challenge = accounts.challenge("192.0.2.1", TODAY)
    login = {"username": "nobody", "password": accounts.answer("", challenge)}
    reply = asyncio.run(Api(control.controller).run({"authorize": login}, ApiConnection(), Origin("192.0.2.1")))
    assert reply["authorize"]["status"] == "CHALL"


# -- what peers do wrong -----------------------------------------------------------------------------------------------


def test_oversized_body(tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        client.writer.write(b"POST /api HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: 99999999\r\n\r\n")
        status, headers, _ = await client.reply()
        assert (status, headers["connection"]) == (413, "close")
        assert await asyncio.wait_for(client.reader.read(), 5) == b""

    play(scene, tmp_path)


def _post(size: int, *lines: str) -> bytes:
    head = f"POST /api2 HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: {size}\r\n"
    return (head + "".join(f"{line}\r\n" for line in lines) + "\r\n").encode()


def test_a_long_command_needs_a_login_first(tmp_path: Path) -> None:
    body = b'{"tags":1,"x":"' + b"y" * requests.MAX_STRANGER_BYTES + b'"}'

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        port = client.writer.get_extra_info("peername")[1]
        client.writer.write(_post(len(body)) + body)
        assert json.loads((await client.reply())[2])["authorize"]["status"] == "OK"  # from the machine itself
        stranger = await Client.connect(port)
        stranger.writer.write(_post(len(body), "X-Real-IP: 1"))
        status, headers, text = await stranger.reply()
        assert (status, headers["connection"]) == (413, "close") and b"not logged in" in text
        await stranger.close()
        friend = await Client.connect(port)
        assert await friend.log_in("root", PASSWORD) == {"status": "OK"}
        friend.writer.write(_post(len(body), "X-Real-IP: 1") + body)
        assert (await friend.reply())[0] == 200
        await friend.close()

    play(scene, tmp_path, ACCOUNT)


def test_commands_of_strangers_are_bounded_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(requests, "MAX_STRANGERS_BYTES", 300_000)
    piece = b" " * 250_000

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        port = client.writer.get_extra_info("peername")[1]
        strangers = [await Client.connect(port) for _ in range(2)]
        for stranger in strangers:
            stranger.writer.write(_post(250_001, "X-Real-IP: 1") + piece)
        first, second = (asyncio.ensure_future(stranger.reply()) for stranger in strangers)
        done, _ = await asyncio.wait((first, second), timeout=5, return_when=asyncio.FIRST_COMPLETED)
        (refused,) = (one.result() for one in done)
        assert refused[0] == 503 and "retry-after" in refused[1]
        assert (await client.command({"tags": 1}))["authorize"]["status"] == "CHALL"  # a short one goes on
        left = 1 if first in done else 0
        strangers[left].writer.write(b" ")
        assert (await (first, second)[left])[0] == 200
        for stranger in strangers:
            await stranger.close()

    play(scene, tmp_path, ACCOUNT)


@pytest.mark.parametrize(
    "data", [b"GET / HTTP/1.1\r\n" + b"A: b\r\n" * 40_000, b"GET /" + b"a" * 300_000, b"\0\1\2flub\r\n\r\n"]
)
def test_bad_heads_end_the_connection(data: bytes, tmp_path: Path) -> None:
    async def scene(client: Client, control: ControllerUnderTest) -> None:
        client.writer.write(data)
        try:
            while await asyncio.wait_for(client.reader.read(65536), 5):
                pass
        except ConnectionError:
            return

    play(scene, tmp_path)


def test_request_that_never_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mist.controller.server.REQUEST_SECONDS", 0.2)

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        client.writer.write(b"POST /api HTTP/1.1\r\nContent-Length: 10\r\n\r\n")
        with pytest.raises((ConnectionError, asyncio.IncompleteReadError)):
            await asyncio.wait_for(client.reader.readexactly(1), 5)

    play(scene, tmp_path)


def test_port_in_use_is_one_clear_line() -> None:
    taken = listen("127.0.0.1", 0)
    port = taken.getsockname()[1]
    with pytest.raises(TransportError, match=rf"port {port}: Address already in use; .*config\.controller\.port"):
        listen("127.0.0.1", port)
    taken.close()


def test_any_address_serves_both_families(tmp_path: Path) -> None:
    control = make_controller(tmp_path, ACCOUNT)

    async def act() -> None:
        async with serving(control, "0.0.0.0") as port:
            for host in ["127.0.0.1", *(["::1"] if socket.has_ipv6 else [])]:
                client = await Client.connect(port, host)
                reply = await client.command({})
                assert reply["authorize"]["challenge"] == accounts.challenge(host, TODAY)
                await client.close()

    asyncio.run(act())

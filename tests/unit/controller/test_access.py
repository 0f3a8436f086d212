"""From where requests come, who may do what, and how guessing is bounded."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any

import jwt
import pytest

from mist.controller import accounts
from mist.controller.access import Proxies, is_foreign, is_own, locate, plain_address
from mist.controller.accounts import LoginLimit, new_account, new_key
from mist.controller.audit import summary, without_passwords
from mist.controller.permissions import Permission
from tests.support.api_client import Client, serving
from tests.support.fake_control import START, ControllerUnderTest, make_controller

OWN = {"127.0.0.1", "192.0.2.7"}
BROWSER = {"user-agent": "Mozilla/5.0", "host": "192.0.2.7:4242"}
SECRET = base64.urlsafe_b64encode(b"0123456789abcdef0123456789abcdef").decode().rstrip("=")
OTHER = base64.urlsafe_b64encode(b"another secret, quite as long ..").decode().rstrip("=")


def located(peer: str, headers: dict[str, str], proxies: tuple[str, ...] = (), *, allowed: bool = True) -> Any:
    return locate(peer, OWN, headers, Proxies(proxies), allowed=allowed, tls=False)


@pytest.mark.parametrize(
    ("peer", "headers", "local"),
    [
        ("127.0.0.1", {}, True),
        ("::1", {}, True),
        ("192.0.2.7", {"host": "192.0.2.7:4242"}, True),
        ("192.0.2.8", {}, False),
        ("127.0.0.1", {"x-forwarded-for": ""}, False),
        ("127.0.0.1", {"x-real-ip": "127.0.0.1"}, False),
        ("127.0.0.1", {"forwarded": "for=127.0.0.1"}, False),
        ("127.0.0.1", {"via": "1.1 proxy"}, False),
        ("127.0.0.1", {"host": "localhost:4242"}, True),
        ("127.0.0.1", {"host": "[::1]:4242"}, True),
        ("127.0.0.1", {"host": "rebound.example:4242"}, False),
        ("127.0.0.1", {"host": "localhost:4242", "origin": "http://localhost:4242"}, True),
        ("127.0.0.1", {"host": "localhost:4242", "origin": "http://localhost:8080"}, False),
        ("127.0.0.1", {"host": "localhost:4242", "origin": "null"}, False),
        ("127.0.0.1", {"sec-fetch-site": "cross-site"}, False),
        ("127.0.0.1", {"sec-fetch-site": "same-site"}, False),
        ("192.0.2.7", BROWSER, False),  # an image on another site's page that hides its address
        ("192.0.2.7", {**BROWSER, "referer": "http://192.0.2.7:4242/"}, True),
        ("192.0.2.7", {**BROWSER, "sec-fetch-site": "none"}, True),
    ],
)
def test_local(peer: str, headers: dict[str, str], local: bool) -> None:
    assert located(peer, headers).local is local
    assert located(peer, headers, allowed=False).local is False


@pytest.mark.parametrize(
    ("forwarded", "client"),
    [
        ("198.51.100.4", "198.51.100.4"),
        ("127.0.0.1, 198.51.100.4", "198.51.100.4"),  # what the client itself claimed comes first
        ("198.51.100.4, 10.0.0.9", "198.51.100.4"),
        ("198.51.100.4:33, [10.0.0.9]", "198.51.100.4"),
        ("nonsense", "10.0.0.2"),
        ("", "10.0.0.2"),
    ],
)
def test_trusted_proxy(forwarded: str, client: str) -> None:
    """A trusted proxy names the client; the request is never local, whatever it claims."""
    origin = located("10.0.0.2", {"x-forwarded-for": forwarded}, ("10.0.0.0/8",))
    assert (origin.address, origin.local) == (client, False)
    assert located("127.0.0.1", {}, ("127.0.0.1",)).local is False


def test_other_proxies_are_not_believed() -> None:
    origin = located("203.0.113.5", {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1"}, ("10.0.0.0/8",))
    assert (origin.address, origin.local, origin.private) == ("203.0.113.5", False, False)


def test_addresses() -> None:
    assert is_own("192.0.2.7", OWN)
    assert not is_own("", {""})
    assert plain_address("::ffff:10.0.0.1") == "10.0.0.1"
    assert not is_foreign({"user-agent": "curl/8"})


def test_lock_out() -> None:
    """An address is locked after twenty failures, however slowly; a stranger cannot keep an account's owner out."""
    limit = LoginLimit()
    now = 0.0
    locked = []
    for _ in range(20):
        assert limit.allow("192.0.2.1", "root", now)
        locked.append(limit.failed("192.0.2.1", "root", now))
        now += 3
    assert locked == [False] * 19 + [True]
    assert not limit.allow("192.0.2.1", "other", now + 290)
    assert limit.allow("192.0.2.1", "root", now + 301)
    limit.succeeded("198.51.100.1", "root")
    for attacker in range(100):
        limit.failed(f"203.0.113.{attacker}", "root", now)
    assert not limit.allow("203.0.113.200", "root", now)
    assert limit.allow("198.51.100.1", "root", now)
    assert limit.failed("2001:db8::1", "", now) is False
    for _ in range(10):
        limit.failed("2001:db8::2", "", now)
    assert not limit.allow("2001:db8::3", "", now)


def test_secrets_do_not_reach_the_log() -> None:
    assert without_passwords("push://10.0.0.1@secret") == "push://10.0.0.1@***"
    assert (
        without_passwords("rtmp://u:p@host/a?pass=x&b=1&access_token=y")
        == "rtmp://***@host/a?pass=***&b=1&access_token=***"
    )
    assert "secret" not in summary("addstream", {"a": {"source": "push://@secret", "password": "secret"}})
    assert "secret" not in summary("addjwks", [[{"kty": "oct", "k": "secret"}, {}]])
    assert "secret" not in summary("streamkeys", {"secret": "live"})
    assert "secret" not in summary("variable_add", ["v", "curl -u me:secret http://host/", 5])
    assert "secret" not in summary("variable_add", {"name": "v", "target": "http://me:secret@host/"})
    assert "secret" not in summary("external_writer_add", ["w", "/bin/up --key secret", ["up"]])
    assert "secret" not in summary("push_start", ["live", "ts-exec:curl -u me:secret"])
    assert summary("variable_add", ["v", "two words"]) == '["v","two words"]'
    assert len(summary("streams", {f"s{n}": {"source": "x" * 100} for n in range(1000)})) <= 500


# -- a served API ------------------------------------------------------------------------------------------------------


def play(
    scene: Callable[[Client, ControllerUnderTest], Awaitable[None]], tmp_path: Path, document: dict[str, Any]
) -> ControllerUnderTest:
    control = make_controller(tmp_path, document)

    async def act() -> None:
        async with serving(control) as port:
            client = await Client.connect(port)
            try:
                await scene(client, control)
            finally:
                await client.close()

    asyncio.run(act())
    return control


REMOTE = {"X-Real-IP": "1.2.3.4"}


async def asked(client: Client, headers: dict[str, str], command: dict[str, Any]) -> Any:
    """Send a command as somebody who is not local; returns the reply, or the status of a refusal."""
    body = json.dumps(command).encode()
    status, _, text = await client.request("/api2", {**headers, **REMOTE, "Content-Type": "application/json"}, body)
    return json.loads(text) if status == 200 else status


def test_keys_and_permissions(tmp_path: Path) -> None:
    """A key does what both it and its account may do, for its request only; the log says who did what."""
    key, stored = new_key()
    reader, reader_stored = new_key()
    account = {**new_account("p", ["streams"], challenge_login=False), "keys": [{"name": "ci", "hash": stored}]}
    watcher = {"hash": accounts.scrypt_hash("q"), "keys": [{"hash": reader_stored, "permissions": ["read"]}]}

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        bearer = {"Authorization": f"Bearer {key}"}
        reply = await asked(
            client, bearer, {"addstream": {"a": {"source": "push://@geheim"}}, "save": 1, "tags": ["x"]}
        )
        assert reply["authorize"] == {"status": "OK", "denied": ["tags", "save"]}
        assert "a" in reply["streams"]
        assert (await asked(client, {}, {"tags": 1}))["authorize"]["status"] == "CHALL"
        assert await asked(client, {"Authorization": "Bearer mist_wrong"}, {"tags": 1}) == 401
        shown = await asked(client, {"Authorization": f"Bearer  {reader}"}, {"streams": 1, "deletestream": "a"})
        assert shown["streams"]["a"]["source"] == "push://@***"
        assert shown["authorize"]["denied"] == ["deletestream"]
        control.controller.store.document["variables"] = {"dyn": {"target": "/bin/get --password geheim"}}
        listed = await asked(client, {"Authorization": f"Bearer {reader}"}, {"variable_list": 1})
        assert listed["variable_list"] == {"dyn": {"target": "/bin/get ***"}}

    control = play(scene, tmp_path, {"account": {"deploy": account, "watch": watcher}})
    lines = control.services.lines.texts("CONF")
    assert any(line.startswith('deploy from 127.0.0.1: addstream {"a"') for line in lines)
    assert not any("geheim" in line for line in control.services.lines.texts())


def test_passwords_by_header_and_command(tmp_path: Path) -> None:
    """The password itself is taken from this machine or over TLS only; the challenge only by accounts that allow it."""
    modern = new_account("right", challenge_login=False)

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        login = base64.b64encode(b"root:right").decode()
        assert await asked(client, {"Authorization": f"Basic {login}"}, {"tags": 1}) == 401  # passed on in the clear
        settings = control.controller.store.server.setdefault("controller", {})
        settings["localaccess"] = False
        control.controller.commit()
        body, kind = json.dumps({"tags": 1}).encode(), {"Content-Type": "application/json"}
        status, _, text = await client.request("/api2", {**kind, "Authorization": f"Basic {login}"}, body)
        assert (status, json.loads(text)["tags"]) == (200, [])
        assert json.loads((await client.request("/api2", kind, body))[2])["authorize"] == {"status": "OK"}
        control.controller.store.document["account"]["root"]["hash"] = accounts.scrypt_hash("changed")
        control.controller.commit()
        assert json.loads((await client.request("/api2", kind, body))[2])["authorize"]["status"] == "CHALL"
        given = json.dumps({"authorize": {"username": "root", "clear": "changed"}}).encode()
        assert json.loads((await client.request("/api2", kind, given))[2])["authorize"] == {"status": "OK"}
        await client.command({"logout": 1})
        assert (await client.log_in("root", "changed"))["status"] == "CHALL"

    play(scene, tmp_path, {"account": {"root": modern}})


def token(claims: dict[str, Any], secret: str = SECRET, **header: str) -> dict[str, str]:
    key = base64.urlsafe_b64decode(secret + "=" * (-len(secret) % 4))
    return {"Authorization": "Bearer " + jwt.encode(claims, key, algorithm="HS256", headers=header)}


def test_tokens(tmp_path: Path) -> None:
    """A token of any key with the permission admin lets in; one that is late, for others or of no key does not."""
    keys = [
        [{"kty": "oct", "k": OTHER, "kid": "other"}, {"admin": True}],
        [{"kty": "oct", "k": SECRET}, {"admin": True}],
        [{"kty": "oct", "k": base64.urlsafe_b64encode(b"x" * 32).decode(), "kid": "weak"}, {"admin": False}],
    ]
    good = {"exp": START + 60, "permissions": ["config"], "name": "ci"}

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        assert (await asked(client, token(good), {"tags": ["a"]}))["tags"] == ["a"]
        assert (await asked(client, token(good, OTHER, kid="other"), {"tags": 1}))["tags"] == ["a"]
        assert (await asked(client, token(good), {"streams": {}, "jwks": 1}))["authorize"]["denied"] == [
            "jwks",
            "streams",
        ]
        bad = [
            token({**good, "exp": START - 1}), token({**good, "nbf": START + 9}), token({**good, "ipa": "10.0.0.0/8"}),
            token({"exp": START + 60}), token({"permissions": ["admin"]}), token(good, kid="other"),
            token(good, base64.urlsafe_b64encode(b"x" * 32).decode()),
            token(good, kid="weak"),  # which names a key that may not admit anybody
            {"Authorization": "Bearer " + jwt.encode(good, "", algorithm="none")},
            token({**good, "permissions": None}), token({**good, "permissions": {"admin": 1}}),
        ]  # fmt: skip
        for headers in bad:
            assert await asked(client, headers, {"tags": 1}) == 401

    play(scene, tmp_path, {"jwks": keys, "account": {"root": new_account("p", challenge_login=True)}})


def test_cross_origin_requests_ride_on_nothing(tmp_path: Path) -> None:
    """Another site's page has neither local access, nor the login of its connection, nor may it make the first account."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        assert (await client.log_in("root", "p"))["status"] == "OK"
        foreign = {"Origin": "http://evil.example", **REMOTE}
        reply = json.loads((await client.request('/api2?command={"tags":["x"]}', foreign))[2])
        assert reply["authorize"]["status"] == "CHALL"
        assert (await client.command({"tags": 1}))["tags"] == []

    play(scene, tmp_path, {"account": {"root": new_account("p", challenge_login=True)}})

    async def first(client: Client, control: ControllerUnderTest) -> None:
        login = '{"authorize":{"new_username":"evil","new_password":"x"}}'
        reply = json.loads((await client.request(f"/api2?command={login}", {"Origin": "http://evil.example"}))[2])
        assert reply["authorize"] == {"status": "NOACC"}

    assert "account" not in play(first, tmp_path, {}).controller.store.document


REBOUND = {"Host": "rebound.example:4242", "Origin": "http://rebound.example:4242", "Sec-Fetch-Site": "same-origin"}


@pytest.mark.parametrize(
    ("headers", "made"),
    [
        (REBOUND, False),
        ({**REBOUND, "X-Real-IP": "192.0.2.1"}, False),
        ({"Host": "rebound.example", "User-Agent": "Mozilla/5.0", "Referer": "http://rebound.example/"}, False),
        ({"Sec-Fetch-Site": "none"}, False),
        ({"Host": "mist.example:4242"}, True),  # no browser, so that no page stands behind it
        ({"Host": "192.0.2.7:4242", "Origin": "http://192.0.2.7:4242", "Sec-Fetch-Site": "same-origin"}, True),
    ],
)
def test_a_page_whose_name_was_led_here_makes_no_account(headers: dict[str, str], made: bool, tmp_path: Path) -> None:
    """The page of a name that first led elsewhere is of the same origin for the browser; it must not become the first user."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        login = '{"authorize":{"new_username":"root","new_password":"x"}}'
        reply = json.loads((await client.request(f"/api2?command={login}", headers))[2])
        assert reply["authorize"]["status"] == ("ACC_MADE" if made else "NOACC")

    assert ("account" in play(scene, tmp_path, {}).controller.store.document) is made


def test_an_opened_link_changes_nothing(tmp_path: Path) -> None:
    """A link in a letter is opened by a browser on this machine, perhaps where somebody has logged in: it may only read."""
    opened = {"Sec-Fetch-Site": "none", "Sec-Fetch-Mode": "navigate"}

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        async def follow(headers: dict[str, str]) -> None:
            reply = json.loads((await client.request('/api2?command={"tags":["x"],"load":1}', headers))[2])
            assert reply["authorize"]["denied"] == ["tags"]
            assert reply["load"]

        await follow(opened)
        assert (await client.log_in("root", "p"))["status"] == "OK"
        await follow({**opened, **REMOTE})
        assert (await client.command({"tags": ["y"]}))["tags"] == ["y"]

    play(scene, tmp_path, {"account": {"root": new_account("p", challenge_login=True)}})


def test_a_password_that_a_browser_remembers_is_not_for_other_pages(tmp_path: Path) -> None:
    """Browsers add `Authorization: Basic` by themselves to what any page sends."""
    basic = {"Authorization": "Basic " + base64.b64encode(b"root:p").decode(), "Content-Type": "application/json"}

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        control.controller.store.server.setdefault("controller", {})["localaccess"] = False
        control.controller.commit()
        body = b'{"tags":["x"]}'
        foreign = {**basic, "Origin": "http://evil.example", "Sec-Fetch-Site": "cross-site"}
        assert json.loads((await client.request("/api2", foreign, body))[2])["authorize"]["status"] == "CHALL"
        assert json.loads((await client.request("/api2", basic, body))[2])["tags"] == ["x"]

    play(scene, tmp_path, {"account": {"root": new_account("p", challenge_login=False)}})


def test_headers_with_one_name_count_together(tmp_path: Path) -> None:
    """Of two hosts neither is ours; the proxies of two X-Forwarded-For lines stand in the order in which they came."""

    async def scene(client: Client, control: ControllerUnderTest) -> None:
        async def asked_raw(lines: str) -> Any:
            client.writer.write(f"GET /api2 HTTP/1.1\r\n{lines}\r\n\r\n".encode())
            return json.loads((await client.reply())[2])["authorize"]

        assert (await asked_raw("Host: localhost"))["status"] == "OK"
        assert (await asked_raw("Host: rebound.example\r\nHost: localhost"))["status"] == "CHALL"
        control.controller.store.server["trustedproxy"] = ["127.0.0.1", "10.0.0.9"]
        control.controller.commit()
        told = await asked_raw("Host: x\r\nX-Forwarded-For: 192.0.2.9\r\nX-Forwarded-For: 10.0.0.9")
        assert told["challenge"] == control_challenge("192.0.2.9", control)

    play(scene, tmp_path, {"account": {"root": new_account("p", challenge_login=True)}})


def control_challenge(address: str, control: ControllerUnderTest) -> str:
    return accounts.challenge(address, date.fromtimestamp(control.controller.clock()))


def test_permission_words() -> None:
    assert accounts.permissions(["admin"]) == frozenset(Permission)
    assert accounts.permissions("pushes flub") == {Permission.PUSHES, Permission.READ}
    assert accounts.permissions([]) == {Permission.READ}
    assert accounts.permissions(5) == {Permission.READ}
    assert accounts.permissions([["admin"], {}, None, "pushes"]) == {Permission.PUSHES, Permission.READ}

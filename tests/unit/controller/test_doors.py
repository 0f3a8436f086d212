"""The other ways to the API: the websocket, datagrams, TLS, and the socket of the server's own user."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import subprocess
from pathlib import Path
from typing import Any

import jwt
import pytest
from wsproto import ConnectionType, WSConnection
from wsproto.events import AcceptConnection, CloseConnection, RejectConnection, Request, TextMessage

from mist.controller.access import Origin
from mist.controller.accounts import answer, new_account, new_key, password_hash
from mist.controller.api import application
from mist.controller.doors import Doors
from mist.controller.server import ApiServer, listen, listen_here
from mist.controller.udp import UdpPort
from tests.support.api_client import serving
from tests.support.fake_control import START, ControllerUnderTest, make_controller

ACCOUNT = {"account": {"root": new_account("p", challenge_login=True)}}
LINE = [1_700_000_000, "INFO", "hello", "live", 12, "input", "a.py:3"]


class WebSocketPeer:
    """A websocket client on wsproto."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader, self.writer, self.engine = reader, writer, WSConnection(ConnectionType.CLIENT)
        self.texts: list[str] = []
        self.closed = False

    @classmethod
    async def connect(cls, port: int, target: str, headers: dict[str, str] | None = None) -> WebSocketPeer:
        peer = cls(*await asyncio.open_connection("127.0.0.1", port))
        extra = [(name.encode(), value.encode()) for name, value in (headers or {}).items()]
        peer.writer.write(peer.engine.send(Request(host="localhost", target=target, extra_headers=extra)))
        return peer

    async def read(self) -> Any:
        """Return the next message, None at the end."""
        while not self.texts and not self.closed:
            data = await asyncio.wait_for(self.reader.read(65536), 10)
            self.engine.receive_data(data or None)
            for event in self.engine.events():
                if isinstance(event, TextMessage):
                    self.texts.append(event.data)
                elif isinstance(event, CloseConnection | RejectConnection):
                    self.closed = True
                else:
                    assert isinstance(event, AcceptConnection)
        return self.texts.pop(0) if self.texts else None

    def send(self, value: Any) -> None:
        self.writer.write(self.engine.send(TextMessage(json.dumps(value))))


def test_websocket_shows_what_happens(tmp_path: Path) -> None:
    """History first, then what comes; streams only when something changed."""
    control = make_controller(tmp_path, {"streams": {"live": {"source": "push://"}}})

    async def act() -> None:
        for number in range(3):
            control.controller.log_ring.add([*LINE[:2], f"line {number}", *LINE[3:]])
        async with serving(control) as port:
            peer = await WebSocketPeer.connect(port, "/ws?logs=2&accs=since:0&streams=1")
            assert await peer.read() == '["auth", true]'
            assert [json.loads(await peer.read())[1][2] for _ in range(2)] == ["line 1", "line 2"]
            assert json.loads(await peer.read()) == ["stream", ["live", 0, 0, 0, 0, ""]]
            control.controller.log_ring.add(LINE)
            assert json.loads(await peer.read()) == ["log", LINE]
            viewer = control.services.connect("live", "FLV")
            control.second()
            assert json.loads(await peer.read()) == ["stream", ["live", 0, 1, 0, 0, ""]]
            control.second()
            control.services.disconnect(viewer)
            control.second(16)
            name, row = json.loads(await peer.read())
            assert (name, row[2], row[3], len(row)) == ("access", "live", "FLV", 9)
            assert json.loads(await peer.read()) == ["stream", ["live", 0, 0, 0, 0, ""]]
            peer.writer.close()

    asyncio.run(act())


def test_websocket_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    control = make_controller(tmp_path, ACCOUNT)

    async def act() -> None:
        async with serving(control) as port:
            peer = await WebSocketPeer.connect(port, "/ws?logs=100", {"Origin": "http://evil.example"})
            assert await peer.read() == '["auth", false]'
            peer.send(["auth", {"username": "root", "password": ""}])
            told = json.loads(await peer.read())[1]
            assert (told["status"], told["username"]) == ("CHALL", "root")
            peer.send(["auth", {"username": "root", "password": answer(password_hash("p"), told["challenge"])}])
            assert json.loads(await peer.read())[1]["status"] == "OK"
            control.controller.log_ring.add(LINE)
            assert json.loads(await peer.read()) == ["log", LINE]
            peer.writer.close()
            monkeypatch.setattr("mist.controller.feed.LOGIN_SECONDS", 0.1)
            late = await WebSocketPeer.connect(port, "/ws?logs=1", {"X-Real-IP": "1"})
            assert await late.read() == '["auth", false]'
            assert await late.read() == '["auth", "Too slow, sorry"]'
            assert await late.read() is None
            late.writer.close()

    asyncio.run(act())


def test_a_websocket_ends_with_its_login(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a key that is withdrawn, a token that ends, and an account that gets another password."""
    monkeypatch.setattr("mist.controller.feed.HOLDS_SECONDS", 0.01)
    key, stored = new_key()
    secret = base64.urlsafe_b64encode(b"k" * 32).decode().rstrip("=")
    keys = [[{"kty": "oct", "k": secret}, {"admin": True}]]
    root = {**ACCOUNT["account"]["root"], "keys": [{"hash": stored}]}
    control = make_controller(tmp_path, {"account": {"root": root}, "jwks": keys})
    claims = {"exp": START + 60, "permissions": ["read"]}
    token = jwt.encode(claims, b"k" * 32, algorithm="HS256")

    async def act() -> None:
        async with serving(control) as port:
            proxy = {"X-Real-IP": "10.1.1.1"}
            peers = [
                await WebSocketPeer.connect(port, "/ws?logs=1", {**proxy, "Authorization": f"Bearer {one}"})
                for one in (key, token)
            ]
            peers.append(await WebSocketPeer.connect(port, "/ws?logs=1", proxy))
            assert [await peer.read() for peer in peers] == ['["auth", true]', '["auth", true]', '["auth", false]']
            challenge = json.loads(await asked(peers[2], ""))[1]["challenge"]
            told = json.loads(await asked(peers[2], answer(password_hash("p"), challenge)))[1]
            assert told["status"] == "OK"
            control.controller.store.document["account"]["root"]["keys"] = []
            control.controller.commit()
            assert await last(peers[0]) is None
            control.clock.now += 61
            assert await last(peers[1]) is None
            control.controller.store.document["account"]["root"] = new_account("q", challenge_login=True)
            control.controller.commit()
            assert await last(peers[2]) is None
            for peer in peers:
                peer.writer.close()

    asyncio.run(act())


async def asked(peer: WebSocketPeer, password: str) -> Any:
    peer.send(["auth", {"username": "root", "password": password}])
    return await peer.read()


async def last(peer: WebSocketPeer) -> Any:
    """Return the first message that is no line of the log: None at the end."""
    while (text := await peer.read()) is not None and json.loads(text)[0] == "log":
        continue
    return text


def test_slow_watchers_lose_lines_and_nothing_else(tmp_path: Path) -> None:
    from mist.controller.feed import MAX_WAITING_CHARACTERS, Viewer

    viewer = Viewer()
    for _ in range(10_000):
        viewer.add("log", LINE)
    assert viewer._characters < MAX_WAITING_CHARACTERS + 200


# -- datagrams ---------------------------------------------------------------------------------------------------------


def test_datagrams(tmp_path: Path) -> None:
    """Commands are answered without login and without `authorize`; what is no command as an empty one."""
    control = make_controller(tmp_path, ACCOUNT)

    async def act() -> None:
        port = UdpPort(control.controller)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
            taken.bind(("127.0.0.1", 0))
            await port.open(taken.getsockname()[1])  # another number, then
        assert port.address is not None
        assert port.address[0] == "127.0.0.1"
        loop = asyncio.get_running_loop()
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
            client.setblocking(False)
            client.connect(port.address)

            async def ask(data: bytes) -> Any:
                client.send(data)
                return json.loads(await asyncio.wait_for(loop.sock_recv(client, 65536), 5))

            assert await ask(b'{"tags":["x"]}') == {"LTS": 1, "tags": ["x"]}
            assert await ask(b"\x16\x03 flub") == {"LTS": 1}
            assert (await ask(b'{"shutdown":1}'))["shutdown"] == "Shutting down"
        port.close()

    asyncio.run(act())
    assert ("shutdown", "API call shutdown") in control.services.done


# -- TLS ---------------------------------------------------------------------------------------------------------------


def make_certificate(folder: Path, name: str) -> tuple[Path, Path]:
    """Make a certificate for a host name with OpenSSL."""
    certificate, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = [
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "ec",
        "-pkeyopt",
        "ec_paramgen_curve:P-256",
        "-nodes",
        "-days",
        "2",
    ]
    command += [
        "-subj",
        f"/CN={name}",
        "-addext",
        f"subjectAltName=DNS:{name}",
        "-keyout",
        str(key),
        "-out",
        str(certificate),
    ]
    subprocess.run(command, check=True, capture_output=True, timeout=30)
    return certificate, key


@pytest.mark.tools("openssl")
def test_tls(tmp_path: Path) -> None:
    """The API speaks TLS only; a new certificate is used once it was written, a bad one is not; nothing goes in the clear."""
    certificate, key = make_certificate(tmp_path, "one.example")
    tls = {"certificate": str(certificate), "key": str(key)}
    control = make_controller(tmp_path, {**ACCOUNT, "config": {"controller": {"tls": tls, "udp": False}}})

    async def name(port: int, trusted: Path, host: str) -> str:
        context = ssl.create_default_context(cafile=str(trusted))
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=host)
        writer.write(b"GET /api2 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        reply = await asyncio.wait_for(reader.read(), 5)
        writer.close()
        status: str = json.loads(reply.partition(b"\r\n\r\n")[2])["authorize"]["status"]
        return status

    async def act() -> None:
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        server = ApiServer(application(control.controller), asyncio.get_running_loop())
        doors = Doors(control.controller, server)
        control.controller.on_publish = doors.follow
        doors.follow()
        await server.start(listener)
        assert await name(port, certificate, "one.example") == "OK"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /api2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert b"LTS" not in await asyncio.wait_for(reader.read(), 15)
        writer.close()
        second, second_key = make_certificate(tmp_path, "two.example")
        certificate.write_bytes(second.read_bytes())
        key.write_bytes(second_key.read_bytes())
        assert not await control.controller.reload("SIGHUP")
        assert await name(port, second, "two.example") == "OK"
        certificate.write_text("nonsense")
        assert not await control.controller.reload("SIGHUP")
        assert await name(port, second, "two.example") == "OK"
        assert control.controller.store.config.model.config.controller.tls is not None
        doors.close()
        await server.close()

    asyncio.run(act())
    assert any("cannot be used" in line for line in control.services.lines.texts())


def test_without_a_certificate_nobody_is_served_in_the_clear(tmp_path: Path) -> None:
    tls = {"certificate": str(tmp_path / "no.crt"), "key": str(tmp_path / "no.key")}
    control = make_controller(tmp_path, {"config": {"controller": {"tls": tls, "udp": False}}})

    async def act() -> None:
        listener = listen("127.0.0.1", 0)
        server = ApiServer(application(control.controller), asyncio.get_running_loop())
        Doors(control.controller, server).follow()
        await server.start(listener)
        admin = listen_here(str(tmp_path / "api.sock"))
        await server.start(admin, admin=True)
        assert (tmp_path / "api.sock").stat().st_mode & 0o777 == 0o600
        reader, writer = await asyncio.open_connection("127.0.0.1", listener.getsockname()[1])
        writer.write(b"GET /api2 HTTP/1.1\r\nHost: localhost\r\n\r\n")
        try:
            assert await asyncio.wait_for(reader.read(), 5) == b""
        except ConnectionError:
            pass
        writer.close()
        reader, writer = await asyncio.open_unix_connection(str(tmp_path / "api.sock"))
        writer.write(b"GET /api2?command={%22tags%22:1} HTTP/1.1\r\nHost: mist\r\nConnection: close\r\n\r\n")
        assert b'"tags":[]' in await asyncio.wait_for(reader.read(), 5)
        writer.close()
        await server.close()

    asyncio.run(act())


def test_a_slow_call_keeps_nobody_waiting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While one command waits for a folder or the disk, others are answered."""
    import threading

    from mist.controller import calls_tools
    from mist.controller.api import Api, ApiConnection

    control: ControllerUnderTest = make_controller(tmp_path, {})
    gate = threading.Event()
    monkeypatch.setattr(calls_tools, "_listed", lambda given, places: gate.wait(20) and {})
    api, origin = Api(control.controller), Origin("127.0.0.1", local=True)

    async def act() -> None:
        slow = asyncio.ensure_future(api.run({"browse": "/"}, ApiConnection(), origin))
        await asyncio.sleep(0)
        quick = await asyncio.wait_for(api.run({"tags": ["x"], "save": 1}, ApiConnection(), origin), 10)
        assert quick["tags"] == ["x"]
        assert not slow.done()
        gate.set()
        await slow

    asyncio.run(act())
    assert json.loads(control.path.read_text())["tags"] == ["x"]

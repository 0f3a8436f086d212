"""The control API of a whole server, as its users' scripts drive it: curl and a shell, plain sockets, and Python."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import socket
import subprocess
import urllib.request
from collections.abc import Mapping
from typing import Any

import pytest

from tests.integration.conftest import MakeServer, Publish
from tests.support.media import NO_BFRAMES, Sample
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer, ServerFailed
from tests.support.tools import Running

PASSWORD = "correct horse"
STORED = hashlib.md5(PASSWORD.encode()).hexdigest()

# A login as shell scripts do it: ask for the challenge, answer it, both through what looks like a proxy (so not local).
SHELL_CLIENT = r"""
set -eu
md5() { printf %s "$1" | md5sum | cut -d' ' -f1; }
call() { curl -sf -m 10 -H 'X-Forwarded-For: 192.0.2.1' --data-urlencode "command=$1" "$URL"; }
challenge=$(call '{}' | sed -n 's/.*"challenge":"\([0-9a-f]*\)".*/\1/p')
answer=$(md5 "$(md5 "$PASSWORD")$challenge")
call "{\"authorize\":{\"username\":\"admin\",\"password\":\"$answer\"},\"addstream\":{\"$1\":{\"source\":\"push://\"}}}"
"""


class PythonClient:
    """A login as Python scripts do it: the challenge is kept, and asked for again when it no longer fits."""

    def __init__(self, server: MistServer, username: str, clear: str) -> None:
        self.url = f"http://127.0.0.1:{server.api_port}/api2"
        self.username, self.secret, self.challenge = username, hashlib.md5(clear.encode()).hexdigest(), ""

    def call(self, command: Mapping[str, Any], *, again: bool = True) -> dict[str, Any]:
        """Send a command with the login in it."""
        password = hashlib.md5((self.secret + self.challenge).encode()).hexdigest() if self.challenge else ""
        body = json.dumps({"authorize": {"username": self.username, "password": password}, **command}).encode()
        headers = {"Content-Type": "application/json", "X-Real-IP": "192.0.2.1"}
        with urllib.request.urlopen(urllib.request.Request(self.url, body, headers), timeout=10) as answer:
            reply: dict[str, Any] = json.load(answer)
        if reply["authorize"]["status"] == "CHALL" and again:
            self.challenge = reply["authorize"]["challenge"]
            return self.call(command, again=False)
        return reply


def set_account(server: MistServer) -> None:
    """Make the first account through the API."""
    reply = server.api({"authorize": {"new_username": "admin", "new_password": PASSWORD}})
    assert reply["authorize"]["status"] == "ACC_MADE"


def listens(port: int) -> bool:
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


def protocol(server: MistServer, port: int) -> Any:
    """Return the state of the protocol entry with a port, None when there is none."""
    entries = server.api({"config": True})["config"]["protocols"] or []
    return next((entry["online"] for entry in entries if entry.get("port") == port), None)


def test_shell_client(server: MistServer) -> None:
    """A login of ten lines of shell: the right password is served, a wrong one is asked again and logged."""
    set_account(server)

    def run(password: str) -> dict[str, Any]:
        env = {**os.environ, "URL": f"http://127.0.0.1:{server.api_port}/api2", "PASSWORD": password}
        done = subprocess.run(
            ["bash", "-c", SHELL_CLIENT, "client", "fromshell"], env=env, capture_output=True, timeout=30
        )
        assert done.returncode == 0, done.stderr
        reply: dict[str, Any] = json.loads(done.stdout)
        return reply

    assert run("wrong")["authorize"]["status"] == "CHALL"
    server.wait_log("Failed login as 'admin' from 127.0.0.1")
    reply = run(PASSWORD)
    assert reply["authorize"] == {"status": "OK"}
    assert reply["streams"]["fromshell"] == {"name": "fromshell", "online": 0, "source": "push://"}


def test_python_client(server: MistServer) -> None:
    """The same from Python; a script without the password learns nothing and changes nothing."""
    set_account(server)
    client = PythonClient(server, "admin", PASSWORD)
    assert client.call({"tags": ["one"]})["tags"] == ["one"]
    assert client.call({"streams": True}, again=False)["streams"]["live"]["source"] == "push://127.0.0.1"
    stranger = PythonClient(server, "admin", "guess").call({"tags": [], "streams": {}, "shutdown": 1, "config": 1})
    assert set(stranger) == {"authorize"}
    assert client.call({"tags": True})["tags"] == ["one"]


def test_login_stays_with_its_connection(server: MistServer) -> None:
    """One login on a kept connection serves the requests that follow on it, byte by byte, and no other connection."""
    set_account(server)
    head = "GET /api2?command={} HTTP/1.1\r\nHost: x\r\nX-Real-IP: 192.0.2.1\r\n\r\n"

    def ask(sock: socket.socket, command: str) -> dict[str, Any]:
        for byte in head.format(command.replace('"', "%22").replace(" ", "%20")).encode():
            sock.sendall(bytes([byte]))
        data = b""
        while b"\n\n" not in data:
            data += sock.recv(65536)
        reply: dict[str, Any] = json.loads(data.partition(b"\r\n\r\n")[2])
        return reply

    with socket.create_connection(("127.0.0.1", server.api_port), 10) as one:
        challenge = ask(one, "{}")["authorize"]["challenge"]
        answer = hashlib.md5((STORED + challenge).encode()).hexdigest()
        assert ask(one, f'{{"authorize":{{"username":"admin","password":"{answer}"}}}}')["authorize"]["status"] == "OK"
        assert ask(one, '{"tags":1}')["tags"] == []
        with socket.create_connection(("127.0.0.1", server.api_port), 10) as other:
            assert ask(other, '{"tags":1}')["authorize"]["status"] == "CHALL"
        assert ask(one, '{"tags":1,"logout":1}')["tags"] == []
        assert ask(one, '{"tags":1}')["authorize"]["status"] == "CHALL"


def test_protocols_follow_the_configuration(server: MistServer) -> None:
    """A protocol that is added listens, one that moves listens elsewhere, one that is deleted does not."""
    first, second = free_port(), free_port()
    entry = {"connector": "RTMP", "port": first, "interface": "127.0.0.1"}
    server.api({"addprotocol": entry})
    wait_until(lambda: protocol(server, first) == 1 and listens(first), 10, "the new listener")
    server.api({"updateprotocol": [entry, {**entry, "port": second}]})
    wait_until(
        lambda: protocol(server, second) == 1 and listens(second) and not listens(first), 10, "the moved listener"
    )
    server.api({"deleteprotocol": {**entry, "port": second}})
    wait_until(lambda: not listens(second), 10, "the end of the listener")
    assert protocol(server, second) is None
    assert protocol(server, server.rtmp_port) == 1


def test_published_stream_is_seen(server: MistServer, publish: Publish) -> None:
    """A publisher and a viewer show up in every statistics call, and in the log and the state of the stream."""
    publish(server, Sample("api", NO_BFRAMES), loop=True)
    server.wait_tracks(2)
    with urllib.request.urlopen(server.play_url("flv"), timeout=10) as viewer:
        wait_until(lambda: viewer.read(4096) and connectors(server) == {"FLV", "INPUT:RTMP"}, 15, "both sessions")
        for _ in range(40):
            viewer.read(1024)
        reply = server.api({
            "streams": True, "active_streams": {"longform": True}, "stats_streams": ["clients"], "totals": {}, "log": 1,
            "clients": [{"time": -1, "protocols": ["INPUT"], "fields": ["host", "stream", "down"]}],
        })  # fmt: skip
    assert reply["streams"]["live"]["online"] == 1
    stream = reply["active_streams"]["live"]
    assert (stream["status"], stream["viewers"], stream["inputs"], stream["tracks"]) == ("Online", 1, 1, 2)
    assert stream["lastms"] > stream["firstms"] >= 0
    assert stream["health"]["tracks"]
    assert reply["stats_streams"] == {"live": [1]}
    assert reply["totals"]["data"][-1][:2] == [1, 1]
    ((host, name, received),) = reply["clients"][0]["data"]
    assert (host, name) == ("127.0.0.1", "live")
    assert received > 0
    assert any(line[3] == "live" for line in reply["log"])


def connectors(server: MistServer) -> set[str]:
    data = server.api({"clients": {"time": -1, "fields": ["protocol"]}})["clients"]["data"]
    return {row[0] for row in data or []}


def test_viewer_leaves_a_line(server: MistServer, publish: Publish) -> None:
    """A session that ended is in the access log."""
    publish(server, Sample("api", NO_BFRAMES), loop=True)
    server.wait_tracks(2)
    with urllib.request.urlopen(server.play_url("ts"), timeout=10) as viewer:
        wait_until(lambda: viewer.read(4096) and "TS" in "".join(connectors(server)), 15, "the session")
    assert " live (" in server.wait_log(lambda line: "ACCS: Session" in line and "TS" in line, 30)


def test_deleted_and_nuked_streams_end(make_server: MakeServer, publish: Publish) -> None:
    """An always-on stream starts by itself and ends with its configuration; a nuked one loses its publisher."""
    server = make_server(streams={"live": {"source": "push://127.0.0.1"}})
    sender: Running = publish(server, Sample("api", NO_BFRAMES), loop=True)
    server.wait_tracks(2)
    server.api({"nuke_stream": "live"})
    wait_until(lambda: not server.processes_titled("mist: input live"), 10, "the end of the input")
    wait_until(lambda: sender.process.poll() is not None, 15, "the end of the publisher")


def test_hangup_and_bad_file(server: MistServer) -> None:
    """SIGHUP with a bad file changes nothing and says why; with a good one it takes effect."""
    document = json.loads(server.config_file.read_text())
    server.api({"tags": True})
    server.config_file.write_text(json.dumps({**document, "steams": {}}))
    os.kill(server.pid, signal.SIGHUP)
    assert 'did you mean "streams"' in server.wait_log("stays as it was")
    assert list(server.api({"streams": True})["streams"]) == ["live"]
    document["streams"]["second"] = {"source": "push://"}
    server.config_file.write_text(json.dumps(document))
    os.kill(server.pid, signal.SIGHUP)
    wait_until(lambda: "second" in server.api({"streams": True})["streams"], 10, "the new stream")


def test_save_and_restart(server: MistServer) -> None:
    """What `save` wrote is a configuration that loads, with what was added and without what was never set."""
    server.api({"addstream": {"kept": {"source": "push://", "DVR": 20000}}, "config": {"serverid": "here"}, "save": 1})
    document = json.loads(server.config_file.read_text())
    assert document["streams"]["kept"] == {"name": "kept", "source": "push://", "DVR": 20000}
    assert document["config"]["serverid"] == "here"
    assert "memory" not in document["config"]


def test_controller_comes_back(server: MistServer) -> None:
    """A killed controller is replaced and answers again: protocols still run, and changes not yet saved are still there."""
    server.api({"addstream": {"unsaved": {"source": "push://"}}})
    (controller,) = server.processes_titled("mist: controller")
    os.kill(controller.pid, signal.SIGKILL)

    def answered() -> bool:
        try:
            return protocol(server, server.http_port) == 1
        except OSError:
            return False

    wait_until(answered, 10, "the new controller")
    assert "unsaved" in server.api({"streams": True})["streams"]


def test_shutdown_by_the_api(server: MistServer) -> None:
    """A client on this machine may end the server."""
    reply = server.api({"shutdown": "test"})
    assert reply["shutdown"] == "Shutting down"
    wait_until(lambda: not server.running, 5, "the end of the server")
    assert server.leftovers() == []
    server._process = None


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ('{"config": {"debug": "loud"}}', "config.debug: expected a whole number"),
        ('{"config": {\n  "debug": 4,}}', "line 2 column"),
        ('{"config": {"trustedproxi": []}}', 'config.trustedproxi: unknown key; did you mean "trustedproxy"?'),
    ],
)
def test_bad_configuration_refuses_to_start(text: str, told: str, make_server: MakeServer) -> None:
    """One line with file, key and expectation, and an exit status that is not zero."""
    server = MistServer()
    server.config_file.write_text(text)
    done = subprocess.run(server.command(), capture_output=True, text=True, timeout=20, env=server._env, check=False)
    server._remove()
    assert done.returncode == 2, done.stderr
    assert f"{server.config_file}: " in done.stderr
    assert told in done.stderr
    assert "Traceback" not in done.stderr


def test_port_of_the_api_in_use() -> None:
    """A taken port is one line that says which, and what to do."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        server = MistServer(config={"controller": {"interface": "127.0.0.1", "port": port}})
        with pytest.raises(ServerFailed, match=rf"port {port} .*in use"):
            server.start()
        server.stop(check=False)

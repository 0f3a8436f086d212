"""Operators' commands, and the ways to the API beside HTTP, on a whole server that all tests here share."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import subprocess
import sys
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import Publish
from tests.support.media import NO_BFRAMES, Sample
from tests.support.processes import wait_until
from tests.support.server import MistServer

# A client that keeps the challenge of the day and asks for another only when it no longer fits, as the stock interface does.
SCRIPT_CLIENT = r"""
const crypto = require("crypto");
const md5 = text => crypto.createHash("md5").update(text).digest("hex");
const [url, user, secret] = process.argv.slice(1);
let challenge = "", asked = 0;
async function call(command, again = true) {
  asked++;
  const password = challenge ? md5(md5(secret) + challenge) : "";
  const answer = await fetch(url, {method: "POST", headers: {"Content-Type": "application/json", "X-Real-IP": "192.0.2.1",
    "Connection": "close"}, body: JSON.stringify({authorize: {username: user, password}, ...command})});
  const reply = await answer.json();
  if (reply.authorize.status == "CHALL" && again) { challenge = reply.authorize.challenge; return call(command, false); }
  return reply;
}
(async () => {
  const first = await call({streams: true}), second = await call({tags: ["script"]}), third = await call({tags: true});
  console.log(JSON.stringify({asked, first: first.authorize.status, streams: Object.keys(first.streams), tags: third.tags}));
})();
"""


@pytest.fixture(scope="module")
def shared() -> Iterator[MistServer]:
    with MistServer(streams={"live": {"source": "push://127.0.0.1"}}) as server:
        yield server


def mist(server: MistServer, *arguments: str, text: str = "", status: int = 0) -> str:
    """Run a command on a server; returns what it prints, or its complaint when it is to fail."""
    command = [sys.executable, "-m", "mist", *arguments, "--instance", server.instance]
    done = subprocess.run(command, input=text, capture_output=True, text=True, timeout=30, env=server._env, check=False)
    assert done.returncode == status, done.stderr
    return done.stderr if status else done.stdout


def test_api_from_the_shell(shared: MistServer) -> None:
    """Any call, with a value in JSON, as a text, or without; a whole command from standard input; mistakes are told."""
    added = json.loads(mist(shared, "api", "addstream", '{"extra": {"source": "push://"}}'))
    assert added["streams"]["extra"]["source"] == "push://"
    assert json.loads(mist(shared, "api", "tags", '["shell"]')) == ["shell"]
    assert mist(shared, "api", "deletestream", "extra")
    both = json.loads(mist(shared, "api", "-", text='{"tags": 1, "load": 1}'))
    assert set(both) == {"tags", "load"}
    assert "no JSON" in mist(shared, "api", "tags", "[", status=2)
    # What the server refuses is said where it was asked, and no other client is told.
    assert "cannot be called 'A b', use 'a' instead" in mist(shared, "api", "addstream", '{"A b": {}}', status=1)
    assert "nuke_stream: Input should be a valid string" in mist(shared, "api", "nuke_stream", "5", status=1)
    assert "problems" not in shared.api({"nuke_stream": 5})
    assert mist(shared, "pushes") == "There are no pushes.\n"


def test_streams_clients_and_their_end(shared: MistServer, publish: Publish) -> None:
    """Tables and JSON of what goes on; a viewer whose session is stopped is gone, the others stay; a stopped publisher ends."""
    sender = publish(shared, Sample("operating", NO_BFRAMES), loop=True)
    shared.wait_tracks(2)
    ended = threading.Event()

    def watch(kind: str, done: threading.Event) -> None:
        with urllib.request.urlopen(shared.play_url(kind), timeout=20) as viewer:
            while viewer.read(4096):
                if done is not ended and ended.is_set():
                    return
        done.set()

    other = threading.Event()
    watchers = [threading.Thread(target=watch, args=one) for one in (("ts", ended), ("flv", other))]
    for watcher in watchers:
        watcher.start()

    def protocols() -> set[str]:
        return {row["protocol"] for row in json.loads(mist(shared, "clients", "live", "--json"))}

    wait_until(
        lambda: {"TS", "FLV", "INPUT:RTMP"} <= {p.replace("HTTPTS", "TS") for p in protocols()}, 20, "all sessions"
    )
    (line,) = [line for line in mist(shared, "streams").splitlines() if line.startswith("live")]
    assert line.split()[1:5] == ["Online", "2", "1", "0"]
    (name,) = [one for one in protocols() if "TS" in one]
    mist(shared, "api", "stop_sessions", json.dumps({"live": name}))
    assert ended.wait(10)
    for watcher in watchers:
        watcher.join(20)
    assert not other.is_set()
    mist(shared, "api", "stop_sessions", '{"live": "INPUT"}')
    wait_until(lambda: sender.process.poll() is not None, 15, "the end of the publisher")


def test_log_goes_on(shared: MistServer) -> None:
    """What is there already, and what comes; the change says who made it."""
    command = [sys.executable, "-m", "mist", "log", "-f", "--instance", shared.instance]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=shared._env) as process:
        try:
            assert process.stdout is not None
            assert re.match(r"\[\d{4}-\d\d-\d\d \d\d:\d\d:\d\d\] ", process.stdout.readline())
            found = threading.Event()

            def read() -> None:
                for line in process.stdout or ():
                    if "add_tag" in line and "followed" in line:
                        found.set()
                        return

            reader = threading.Thread(target=read)
            reader.start()
            wait_until(lambda: bool(shared.api({"add_tag": "followed"})) and found.wait(0.2), 20, "the line")
        finally:
            process.terminate()
        reader.join(10)
    shared.wait_log('local from 127.0.0.1: add_tag "followed"')


def test_datagrams(shared: MistServer) -> None:
    """The port for datagrams answers on the loopback interface."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.settimeout(0.5)

        def ask() -> bytes | None:
            """Return the answer; none comes from a port that is about to open."""
            sock.sendto(b'{"load":1}', ("127.0.0.1", shared.api_port))
            try:
                return sock.recv(65536)
            except TimeoutError:
                return None

        assert set(json.loads(wait_until(ask, 10, "an answer") or b"")) == {"LTS", "load"}


@pytest.mark.tools("node")
def test_accounts(shared: MistServer) -> None:
    """Accounts and keys from the shell, and what they are for: a script that keeps the challenge, a program with a key."""
    assert mist(shared, "account", "list") == "There are no accounts.\n"
    mist(shared, "account", "add", "ui", "--challenge", text="geheim\n")
    mist(shared, "account", "add", "bob", "--may", "streams", text="other\n")
    assert "already" in mist(shared, "account", "add", "bob", text="x\n", status=1)
    key = mist(shared, "account", "key", "bob", "--name", "ci", "--may", "read").strip()
    url = f"http://127.0.0.1:{shared.api_port}/api2"
    told = subprocess.run(
        ["node", "-e", SCRIPT_CLIENT, url, "ui", "geheim"], capture_output=True, timeout=30, check=True
    )
    assert json.loads(told.stdout) == {"asked": 4, "first": "OK", "streams": ["live"], "tags": ["script"]}

    def ask(headers: dict[str, str], command: dict[str, Any]) -> Any:
        sent = {"Content-Type": "application/json", "X-Real-IP": "192.0.2.1", **headers}
        request = urllib.request.Request(url, json.dumps(command).encode(), sent)
        try:
            with urllib.request.urlopen(request, timeout=10) as answer:
                return json.load(answer)
        except urllib.error.HTTPError as error:
            return error.code

    reply = ask({"Authorization": f"Bearer {key}"}, {"streams": 1, "deletestream": "live"})
    assert reply["authorize"] == {"status": "OK", "denied": ["deletestream"]}
    challenge = ask({}, {})["authorize"]["challenge"]
    wrong = hashlib.md5((hashlib.md5(b"other").hexdigest() + challenge).encode()).hexdigest()
    assert ask({}, {"authorize": {"username": "bob", "password": wrong}})["authorize"]["status"] == "CHALL"
    mist(shared, "account", "unkey", "bob", "ci")
    assert ask({"Authorization": f"Bearer {key}"}, {"streams": 1}) == 401
    document = json.loads(shared.config_file.read_text())
    assert set(document["account"]["bob"]) == {"hash", "permissions"}
    assert not any(word in line for line in shared.log for word in ("geheim", key))
    mist(shared, "account", "remove", "bob")
    mist(shared, "account", "remove", "ui")


def test_help_teaches(shared: MistServer) -> None:
    for command in ("streams", "clients", "pushes", "log", "api", "account"):
        told = subprocess.run(
            [sys.executable, "-m", "mist", command, "--help"], capture_output=True, text=True, timeout=20
        )
        assert told.returncode == 0
        assert len(told.stdout) > 150


def test_what_was_changed_and_not_saved(shared: MistServer) -> None:
    """`mist config diff` names the value of the file and the one that runs; saved, there is nothing to say."""
    mist(shared, "api", "save")
    assert mist(shared, "config", "diff") == ""
    shared.api({"addstream": {"live": {"source": "push://127.0.0.1", "DVR": 30000, "ui-colour": "red"}}})
    complaint = mist(shared, "config", "diff", status=1)
    assert complaint == ""
    done = subprocess.run(
        [sys.executable, "-m", "mist", "config", "diff", "--json", "--instance", shared.instance],
        capture_output=True, text=True, timeout=30, env=shared._env, check=False,
    )  # fmt: skip
    assert json.loads(done.stdout) == {"streams": {"live": {"DVR": 30000, "name": "live", "ui-colour": "red"}}}
    mist(shared, "api", "save")
    assert mist(shared, "config", "diff") == ""
    assert shared.api({"streams": True})["streams"]["live"]["ui-colour"] == "red"
    shared.api({"addstream": {"live": {"source": "push://127.0.0.1"}}, "save": 1})


def test_a_service_starts_with_what_ran_last(tmp_path: Path) -> None:
    """A damaged file is named and left alone; status and notices say so until it is put right; without a copy there is no start."""
    copy = tmp_path / "last-good.json"
    with MistServer(streams={"live": {"source": "push://"}}, env={"STATE_DIRECTORY": f"{tmp_path}:/else"}) as server:
        wait_until(copy.exists, 10, "the copy")
        mist(server, "stop")
        good = server.config_file.read_text()
        server.config_file.write_text(good[: len(good) // 2])
        server.restart()
        server.wait_log("the one that ran last is used instead")
        server.wait_log(lambda line: f"{server.config_file}: line" in line)
        assert list(server.api({"streams": True})["streams"]) == ["live"]
        assert json.loads(mist(server, "status", "--json"))["bad_file"].startswith(f"{server.config_file}: line")
        assert server.config_file.read_text() == good[: len(good) // 2]
        complaint = mist(server, "upgrade", status=1)
        assert f"{server.config_file}: line" in complaint
        server.config_file.write_text(good)
        mist(server, "reload")
        wait_until(lambda: not json.loads(mist(server, "status", "--json"))["bad_file"], 10, "the good file")
        mist(server, "stop")
        copy.unlink()
        server.config_file.write_text("{")
        done = subprocess.run(
            server.command(), env=server._env, capture_output=True, text=True, timeout=30, check=False
        )
        assert done.returncode == 2
        assert f"{server.config_file}: line 1 column 2" in done.stderr
        assert server.config_file.read_text() == "{"
        server.config_file.write_text(good)
        server.restart()

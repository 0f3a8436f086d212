"""Handlers of triggers: what they are told, how often, for how long, and what of their answers counts."""

from __future__ import annotations

import asyncio
import stat
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from mist.net import handler_calls
from mist.net.handler_calls import Call, CallFailed, Event, HandlerCalls, Server, sign
from tests.support.processes import wait_until

EVENT = Event("USER_NEW", "live\n127.0.0.1", 7, 1_795_000_000_123)
SERVER = Server("default", "studio", "3.10")
Reply = Callable[[BaseHTTPRequestHandler, bytes], tuple[int, dict[str, str], bytes]]


class Peer:
    """A server whose answers a test decides. seen: (path, headers, body) of each request."""

    def __init__(self, reply: Reply) -> None:
        seen: list[tuple[str, dict[str, str], bytes]] = []

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                seen.append((self.path, dict(self.headers), body))
                status, headers, answer = reply(self, body)
                self.send_response(status)
                for name, value in {**headers, "Content-Length": str(len(answer))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.seen = seen
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.port = self._server.server_port
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def make_peer() -> Iterator[Callable[[Reply], Peer]]:
    peers: list[Peer] = []

    def make(reply: Reply) -> Peer:
        peers.append(Peer(reply))
        return peers[-1]

    yield make
    for peer in peers:
        peer.close()


def call(given: Call, *, blocking: bool = True) -> str:
    async def work() -> str:
        calls = HandlerCalls(lambda: SERVER)
        try:
            return await calls.call(given, EVENT, blocking=blocking)
        finally:
            calls.close()

    return asyncio.run(work())


def test_a_post_says_everything(make_peer: Callable[[Reply], Peer]) -> None:
    peer = make_peer(lambda request, body: (200, {}, b"true\n"))
    assert call(Call(f"http://127.0.0.1:{peer.port}/hook?a=b", secret="word")) == "true\n"
    [(path, headers, body)] = peer.seen
    assert (path, body) == ("/hook?a=b", b"live\n127.0.0.1")
    wanted = {
        "Content-Type": "text/plain",
        "X-Trigger": "USER_NEW",
        "X-Trigger-UUID": EVENT.number,
        "X-Trigger-UnixMillis": "1795000000123",
        "X-Instance": "default",
        "X-Name": "studio",
        "X-PID": "7",
        "X-Attempt": "1",
        "X-Version": "3.10",
        "User-Agent": "MistServer/3.10",
        "X-Signature": sign("word", EVENT, body),
    }
    lower = {name.lower(): value for name, value in headers.items()}
    assert {name: lower[name.lower()] for name in wanted} == wanted
    assert lower["date"].endswith("00") and "2026" in lower["date"]


def test_redirects_are_posts_again(make_peer: Callable[[Reply], Peer]) -> None:
    def reply(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        return (302, {"Location": "/there"}, b"") if request.path == "/" else (200, {}, b"yes")

    peer = make_peer(reply)
    assert call(Call(f"http://127.0.0.1:{peer.port}/")) == "yes"
    assert [body for _, _, body in peer.seen] == [b"live\n127.0.0.1"] * 2


def test_circles_end(make_peer: Callable[[Reply], Peer]) -> None:
    peer = make_peer(lambda request, body: (302, {"Location": "/"}, b""))
    with pytest.raises(CallFailed, match="redirected more than 6"):
        call(Call(f"http://127.0.0.1:{peer.port}/"))


@pytest.mark.parametrize("scheme", ["Basic", "Digest"])
def test_logins_of_the_url(make_peer: Callable[[Reply], Peer], scheme: str) -> None:
    def reply(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if request.headers.get("Authorization", "").startswith(scheme):
            return 200, {}, b"yes"
        return 401, {"WWW-Authenticate": f'{scheme} realm="a", nonce="b"'}, b""

    peer = make_peer(reply)
    assert call(Call(f"http://user:word@127.0.0.1:{peer.port}/")) == "yes"


def test_other_answers_are_failures(make_peer: Callable[[Reply], Peer]) -> None:
    peer = make_peer(lambda request, body: (500, {}, b"true"))
    with pytest.raises(CallFailed, match="500"):
        call(Call(f"http://127.0.0.1:{peer.port}/"))
    assert len(peer.seen) == 1


def test_silence_is_tried_again(make_peer: Callable[[Reply], Peer]) -> None:
    asked = threading.Event()

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if request.headers["X-Attempt"] != "3":
            asked.wait(1)
        return 200, {}, b"at last"

    peer = make_peer(reply)
    assert call(Call(f"http://127.0.0.1:{peer.port}/", timeout_s=0.2)) == "at last"
    asked.set()
    assert [headers["X-Attempt"] for _, headers, _ in peer.seen] == ["1", "2", "3"]


def test_nobody_there() -> None:
    with pytest.raises(CallFailed, match="cannot be reached"):
        call(Call("http://127.0.0.1:9/", attempts=2))


def test_an_endless_answer_is_cut_off(make_peer: Callable[[Reply], Peer]) -> None:
    peer = make_peer(lambda request, body: (200, {}, bytes(handler_calls.MAX_ANSWER_BYTES + 1)))
    with pytest.raises(CallFailed, match="over"):
        call(Call(f"http://127.0.0.1:{peer.port}/"))


@pytest.fixture
def script(tmp_path: Path) -> Callable[[str], str]:
    def make(text: str) -> str:
        path = tmp_path / "handler"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(path.stat().st_mode | stat.S_IXUSR)
        return str(path)

    return make


def test_a_program_is_told_by_argument_input_and_environment(script: Callable[[str], str]) -> None:
    told = script(
        'echo "$# $1 $MIST_TRIGGER $MIST_TRIG_DEF $MIST_PID $MIST_INSTANCE $MIST_NAME $MIST_TUUID $MIST_TIME"; cat'
    )
    expected = f"1 USER_NEW USER_NEW no 7 default studio {EVENT.number} 1795000000123\nlive\n127.0.0.1"
    assert call(Call(told, "no")) == expected


def test_a_program_without_output_answers_nothing(script: Callable[[str], str]) -> None:
    assert call(Call(script("exit 3"))) == ""


def test_a_program_that_is_not_there() -> None:
    with pytest.raises(CallFailed, match="No such file"):
        call(Call("/nowhere/at/all"))


def test_a_program_that_stays_too_long(script: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_calls, "KILL_AFTER_S", handler_calls.TERM_AFTER_S + 0.3)
    stubborn = script("trap '' TERM; while :; do sleep 0.1; done")
    with pytest.raises(CallFailed, match=r"longer than 0\.2 s"):
        call(Call(stubborn, timeout_s=0.2))


def test_what_a_slow_program_wrote_counts(script: Callable[[str], str]) -> None:
    assert call(Call(script("echo yes; exec sleep 30"), timeout_s=0.5)) == "yes\n"


def test_nobody_waits_for_what_need_not_be_waited_for(script: Callable[[str], str], tmp_path: Path) -> None:
    assert call(Call(script(f"cat > {tmp_path}/told; echo yes")), blocking=False) == ""
    assert (tmp_path / "told").read_text() == "live\n127.0.0.1"


def until(path: Path) -> str:
    """Return what a shell does to wait for a file."""
    return f"while [ ! -e {path} ]; do sleep 0.05; done"


def test_what_is_not_waited_for_may_work_for_hours(
    script: Callable[[str], str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Handlers of RECORDING_END transcode and upload: they go on, and the next event's turn comes meanwhile."""
    monkeypatch.setattr(handler_calls, "TERM_AFTER_S", 0.2)
    monkeypatch.setattr(handler_calls, "MAX_AT_ONCE", 1)
    long = script(f"cat > /dev/null; {until(tmp_path / 'go')}; echo done >> {tmp_path}/told")

    async def work() -> None:
        calls = HandlerCalls(lambda: SERVER)
        for _ in range(2):
            assert await calls.call(Call(long), EVENT, blocking=False) == ""
        left = list(calls._left)
        assert len(left) == 2
        (tmp_path / "go").touch()
        await asyncio.wait(left)
        calls.close()

    asyncio.run(work())
    assert (tmp_path / "told").read_text().count("done") == 2


def test_children_that_go_on_hold_up_nobody(script: Callable[[str], str], tmp_path: Path) -> None:
    """`work & echo yes`: the answer is there when the program ends, and its children are left alone."""
    assert call(Call(script(f"({until(tmp_path / 'go')}; echo done > {tmp_path}/told) & echo yes"))) == "yes\n"
    assert not (tmp_path / "told").exists()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "told").exists, 20, "the child goes on")


def test_a_child_may_write_the_answer(script: Callable[[str], str]) -> None:
    """`exec > >(tee …)`: the program has ended when its answer comes."""
    assert call(Call(script("(sleep 0.3; echo yes) &"))) == "yes\n"


def test_children_without_an_answer(script: Callable[[str], str], tmp_path: Path) -> None:
    """A program that ended without a word has answered nothing, whatever its children do after the time for it."""
    quiet = script(f"({until(tmp_path / 'go')}; echo done > {tmp_path}/told) &")
    assert call(Call(quiet, timeout_s=0.5)) == ""
    assert not (tmp_path / "told").exists()
    (tmp_path / "go").touch()
    wait_until((tmp_path / "told").exists, 20, "the child goes on")


def test_an_answer_without_end_is_cut_off(script: Callable[[str], str]) -> None:
    assert call(Call(script("head -c 1000000 /dev/zero | tr '\\0' y"))) == "y" * handler_calls.MAX_ANSWER_BYTES


def test_a_slow_handler_delays_no_other(make_peer: Callable[[Reply], Peer], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handler_calls, "MAX_AT_ONCE", 1)
    release = threading.Event()
    slow = make_peer(lambda request, body: (200, {}, b"slow" if release.wait(20) else b""))
    quick = make_peer(lambda request, body: (200, {}, b"quick"))

    async def work() -> list[str]:
        calls = HandlerCalls(lambda: SERVER)
        waiting = [
            asyncio.ensure_future(calls.call(Call(f"http://127.0.0.1:{slow.port}/"), EVENT, blocking=True))
            for _ in range(3)
        ]
        first = await calls.call(Call(f"http://127.0.0.1:{quick.port}/"), EVENT, blocking=True)
        release.set()
        found = [first, *await asyncio.gather(*waiting)]
        calls.close()
        return found

    assert asyncio.run(work()) == ["quick", "slow", "slow", "slow"]


def test_a_program_is_run_again_where_that_is_configured(script: Callable[[str], str], tmp_path: Path) -> None:
    hangs_once = script(f"mkdir {tmp_path}/tried 2> /dev/null && exec sleep 30; echo yes")
    assert call(Call(hangs_once, attempts=2, timeout_s=0.5)) == "yes\n"


def test_what_is_not_waited_for_is_tried_again_where_that_is_configured(make_peer: Callable[[Reply], Peer]) -> None:
    answered = threading.Event()

    def reply(request: BaseHTTPRequestHandler, body: bytes) -> tuple[int, dict[str, str], bytes]:
        if request.headers["X-Attempt"] == "1":
            answered.wait(20)
        return 200, {}, b""

    peer = make_peer(reply)
    assert call(Call(f"http://127.0.0.1:{peer.port}/", attempts=2, timeout_s=0.3), blocking=False) == ""
    answered.set()
    assert [headers["X-Attempt"] for _, headers, _ in peer.seen] == ["1", "2"]

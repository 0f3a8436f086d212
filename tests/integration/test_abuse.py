"""Bad input on every port ends its own connection and nothing else; what the operator gets wrong is one line that says what to do."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.error import HTTPError
from urllib.request import urlopen

import pytest

from tests.integration.conftest import MakeServer, SendTo
from tests.support.hostile import (
    HANDSHAKE,
    HTTP_ATTACKS,
    RTMP_ATTACKS,
    RTMP_CONNECTED,
    flood,
    is_closed,
    rtmp_chunk,
    send_and_wait,
)
from tests.support.live import FRAME_MS, Sender, assert_rising, send_when_free, viewer, wait_mark
from tests.support.ports import free_port
from tests.support.processes import wait_until, written_kib
from tests.support.rtmp_peer import AVC_HEADER
from tests.support.server import MistServer

GROWTH_KIB = 24 * 1024
WORKER_KIB = 6 * 1024
SILENCE_S = 40.0


@contextmanager
def undisturbed(server: MistServer, send_to: SendTo) -> Iterator[None]:
    """A publisher and a viewer run while the block attacks: the viewer must miss nothing, memory must stay, no traceback."""
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        sender.keep_sending()
        before, count = _memory_kib(server)
        yield
        wait_mark(seen, sender.number + 10)
        assert_rising(seen)
        _assert_grown_little(server, before, count)
    sender.close()
    bad = [line for line in server.log if "Traceback" in line or " FAIL: " in line or "SIGSEGV" in line]
    assert not bad, "\n".join(server.log[-60:])


def _memory_kib(server: MistServer) -> tuple[int, int]:
    """Return the memory of all processes and their number."""
    pids = [one.pid for one in server.processes()]
    return written_kib(pids), len(pids)


def _assert_grown_little(server: MistServer, before_kib: int, count: int) -> None:
    """Workers that connections brought to life are wanted; what each of them costs is bounded too. What is let go of may take a moment."""

    def too_much() -> str:
        now_kib, now = _memory_kib(server)
        bound = GROWTH_KIB + max(0, now - count) * WORKER_KIB
        grown = now_kib - before_kib
        return (
            "" if grown < bound else f"memory that grew by {grown} KiB, processes from {count} to {now}, is given back"
        )

    wait_until(lambda: not too_much(), 20, too_much())


def test_rtmp_port(server: MistServer, send_to: SendTo) -> None:
    """Each kind of broken RTMP, cut off or answered with a close; the log has a reason for what was wrong."""
    with undisturbed(server, send_to):
        for data in RTMP_ATTACKS.values():
            send_and_wait(server.rtmp_port, data, end=True)
        # What is broken must be cut off without the peer's help.
        for name in (
            "noise after the handshake",
            "huge message",
            "chunk size zero",
            "nested amf",
            "http on the rtmp port",
        ):
            with socket.create_connection(("127.0.0.1", server.rtmp_port)) as sock:
                sock.sendall(RTMP_ATTACKS[name])
                if name != "huge message":  # which is not complete, so this peer is only slow
                    assert is_closed(sock, 10), f"{name}: the connection was kept"
                    server.wait_log("127.0.0.1", 5)


def test_http_port(server: MistServer, send_to: SendTo) -> None:
    with undisturbed(server, send_to):
        for name, data in HTTP_ATTACKS.items():
            answer = send_and_wait(server.http_port, data, end=True)
            if answer:
                assert answer.startswith(b"HTTP/1."), name
                assert b"root:" not in answer, name
                assert not re.match(rb"HTTP/1.\d 5(?!0[13])", answer), f"{name}: {answer[:100]!r}"


def test_api_port(server: MistServer, send_to: SendTo) -> None:
    requests = {
        **HTTP_ATTACKS,
        "not json": _post(b"{{{{"),
        "deep json": _post(b'{"a":' * 20_000),
        "long number": _post(b'{"stats_streams":' + b"9" * 6_000 + b"}"),
        "wrong types": _post(json.dumps({"clients": 7, "addstream": [1], "totals": {"streams": {"x": 1}}}).encode()),
        "broken utf-8": _post(b'{"addstream":{"\xff\xfe":{"source":"push://"}}}'),
    }
    with undisturbed(server, send_to):
        for name, data in requests.items():
            answer = send_and_wait(server.api_port, data, end=True, timeout_s=8)
            assert not re.match(rb"HTTP/1.\d 5(?!0[13])", answer), f"{name}: {answer[:200]!r}"
        assert "authorize" in server.api({"active_streams": True})


def _post(body: bytes) -> bytes:
    head = f"POST /api2 HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: {len(body)}\r\n"
    return head.encode() + b"Connection: close\r\n\r\n" + body


def test_floods_are_cut_off(server: MistServer, send_to: SendTo) -> None:
    """Input that never ends and never makes sense is stopped after a bounded number of bytes."""
    noise = os.urandom(1 << 16)
    bound = 64 << 20
    with undisturbed(server, send_to):
        assert flood(server.rtmp_port, b"", lambda: noise, bound) < bound
        assert flood(server.rtmp_port, RTMP_CONNECTED, lambda: noise, bound) < bound
        assert flood(server.http_port, b"GET / HTTP/1.1\r\nX: ", lambda: b"a" * 65536, bound) < bound
        assert flood(server.http_port, b"", lambda: noise, bound) < bound
        assert (
            flood(server.api_port, b"POST /api HTTP/1.1\r\nContent-Length: 99999999999\r\n\r\n", lambda: noise, bound)
            < bound
        )


def test_publisher_that_sends_a_packet_without_end(server: MistServer, send_to: SendTo) -> None:
    """Messages as long as RTMP allows, announced again and again on many chunk streams and never finished."""
    piece = b"".join(rtmp_chunk(9, b"x" * 128, length=0xFFFFFF, chunk_stream=n) for n in range(4, 60))
    with undisturbed(server, send_to):
        flood(server.rtmp_port, RTMP_CONNECTED, lambda: piece, 32 << 20)


def test_media_that_makes_no_sense(server: MistServer, send_to: SendTo) -> None:
    """A publisher of nonsense in every codec's clothes ends its own stream at most."""
    noise = os.urandom(300)
    with undisturbed(server, send_to):
        for head in (b"\x17\x00\0\0\0", b"\x17\x01\0\0\0", b"\x27\x01\xff\xff\xff", b"\xaf\x00", b"\xaf\x01", b"\x80hvc1", b"\x90av01",
                     b"\x91vp09", b"\x95hvc1", b"\x96av01", b"\x9f", b"\x90Opus", b"\x50", b"\x00", b"\x2f", b"\xff" * 8):  # fmt: skip
            with closing(send_when_free(lambda: send_to(server, "live+bad"))) as sender:
                peer = sender.peer
                for kind in (8, 9, 18, 22):
                    try:
                        peer.send(kind, 0, head)
                        peer.send(kind, 40, head + noise)
                        peer.send(kind, 80, AVC_HEADER)
                    except OSError:
                        break


@pytest.mark.timeout(180)
def test_slow_and_silent_peers_are_given_up(server: MistServer, send_to: SendTo) -> None:
    """Half a handshake or half a request, then silence or a byte a second: closed after a while, and meanwhile nobody minds."""
    starts = {
        "rtmp silent": (server.rtmp_port, b""),
        "rtmp half a handshake": (server.rtmp_port, HANDSHAKE[:100]),
        "rtmp after the handshake": (server.rtmp_port, RTMP_CONNECTED),
        "http half a request": (server.http_port, b"GET /live.flv HTTP/1.1\r\nHos"),
        "http half a body": (server.http_port, b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 10\r\n\r\nabc"),
    }
    with undisturbed(server, send_to):
        peers = {}
        for name, (port, data) in starts.items():
            sock = socket.create_connection(("127.0.0.1", port))
            sock.sendall(data)
            peers[name] = sock
        drip = socket.create_connection(("127.0.0.1", server.http_port))
        drip.sendall(b"GET /live.flv HTTP/1.1\r\n")
        deadline = time.monotonic() + SILENCE_S
        try:
            while time.monotonic() < deadline and not _gone(drip):
                try:
                    drip.sendall(b"X")
                except OSError:
                    break
                time.sleep(1)  # that is the attack
            assert _gone(drip), "a byte a second keeps a request open for ever"
            kept = [
                name for name, sock in peers.items() if not is_closed(sock, max(1.0, deadline + 30 - time.monotonic()))
            ]
            assert not kept, f"kept open: {kept}"
        finally:
            drip.close()
            for sock in peers.values():
                sock.close()


def _gone(sock: socket.socket) -> bool:
    sock.settimeout(0.01)
    try:
        while data := sock.recv(4096):
            del data
        return True
    except TimeoutError:
        return False
    except OSError:
        return True


def test_many_connections_at_once(server: MistServer, send_to: SendTo) -> None:
    """Five hundred connections that say nothing; the next viewer is served all the same."""
    with undisturbed(server, send_to):
        silent = [
            socket.create_connection(("127.0.0.1", port))
            for port in (server.rtmp_port, server.http_port)
            for _ in range(250)
        ]
        try:
            assert b"live" in server.get("/json_live.js")
        finally:
            for sock in silent:
                sock.close()


def test_viewers_that_never_read(make_server: MakeServer, send_to: SendTo) -> None:
    """Viewers that ask and do not read cost a socket buffer each, and are dropped when they fall behind the window."""
    server = make_server(streams={"live": {"source": "push://", "DVR": 2000}})
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with ExitStack() as lazy:
        for path in ("/live.flv", "/live.ts", "/live.mp4"):
            sock = lazy.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            sock.connect(("127.0.0.1", server.http_port))
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert sock.recv(1)  # the worker that serves it is there
        before, count = _memory_kib(server)
        _send_past_the_window(server, sender)
        _assert_grown_little(server, before, count)
    sender.close()


def _send_past_the_window(server: MistServer, sender: Sender) -> None:
    """Send 12 s of big pictures while a viewer reads them to the last."""
    big = bytes(20_000)
    with viewer(server) as seen:
        for n in range(50, 350):
            sender.peer.send_video(n * FRAME_MS, f"<{n:08d}>".encode() + big, key=n % 10 == 0)
            time.sleep(0.005)
        wait_until(
            lambda: any(b"<00000349>" in one.payload for one in seen), 10, "the last picture at the other viewer"
        )


@pytest.mark.root
def test_full_shared_memory(make_server: MakeServer, send_to: SendTo) -> None:
    """A /dev/shm of 24 MiB: the stream that fills it ends with a clear error, another one goes on, and a new one starts."""
    server = make_server(
        streams={"live": {"source": "push://", "DVR": 600_000, "inputtimeout": 3}, "small": {"source": "push://"}},
        wrap=("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=24m tmpfs /dev/shm && exec "$@"', "sh"),
    )
    small = send_to(server, "small")
    small.send([n * FRAME_MS for n in range(30)], headers=True)
    big = send_to(server, "live")
    big.send([0], headers=True)
    with viewer(server, "small") as seen, pytest.raises(OSError):
        for n in range(2000):
            big.peer.send_video(n * FRAME_MS, os.urandom(100_000), key=n == 0)  # one GOP, so nothing can be trimmed
            time.sleep(0.002)
    line = server.wait_log(lambda line: "memory" in line.lower() and ("ERROR" in line or "WARN" in line), 10)
    assert "live" in line
    big.close()
    server.wait_log(lambda line: "live" in line and "Stream ended" in line, 10)
    small.send([n * FRAME_MS for n in range(30, 60)])
    with viewer(server, "small") as seen:
        small.send([n * FRAME_MS for n in range(60, 90)])
        wait_until(lambda: any(b"<00000089>" in one.payload for one in seen), 10, "media of the small stream")
    small.close()
    again = send_to(server, "live")
    again.send([n * FRAME_MS for n in range(20)], headers=True)
    again.close()


@pytest.mark.root
def test_a_request_when_not_even_a_record_fits_is_told_why(make_server: MakeServer) -> None:
    server = make_server(
        wrap=("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=8m tmpfs /dev/shm && exec "$@"', "sh")
    )
    filler = Path(f"/proc/{server.pid}/root/dev/shm/filler")
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    with pytest.raises(HTTPError) as refused:
        urlopen(f"{server.http_url}/json_live.js", timeout=10)
    assert refused.value.code == 503
    assert b"free /dev/shm" in refused.value.read()
    filler.unlink()
    with urlopen(f"{server.http_url}/json_live.js", timeout=10) as reply:
        assert reply.status == 200


# -- what the operator gets wrong ----------------------------------------------------------------------------------------


@pytest.fixture
def runtime() -> Iterator[Path]:
    """Give a runtime directory with a short path, which sockets need."""
    with TemporaryDirectory(prefix="mist-") as folder:
        yield Path(folder, "run")


def _serve(config: object, tmp_path: Path, runtime: Path, *arguments: str, instance: str = "wrong") -> tuple[int, str]:
    """Start a server that must not start; returns its exit status and what it wrote to stderr."""
    path = tmp_path / "config.json"
    path.write_text(config if isinstance(config, str) else json.dumps(config))
    command = [sys.executable, "-m", "mist", "serve", "--config", str(path), "--instance", f"{instance}{os.getpid()}"]
    done = subprocess.run(
        [*command, *arguments],
        env={**os.environ, "MIST_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    return done.returncode, done.stderr


def _quiet(**config: object) -> dict[str, object]:
    """Return a configuration whose ports are free, with changes in its "config" part."""
    return {"config": {"controller": {"port": free_port(), "interface": "127.0.0.1"}, "protocols": [], **config}}


def _complaint(stderr: str) -> str:
    """Return the one line that a person gets; more than a few lines, or a traceback, is no answer."""
    lines = [line for line in stderr.splitlines() if line.strip()]
    assert "Traceback" not in stderr, stderr
    assert 1 <= len(lines) <= 4, stderr
    return stderr


def test_missing_configuration_file(tmp_path: Path, runtime: Path) -> None:
    missing = tmp_path / "nosuch.json"
    done = subprocess.run(
        [sys.executable, "-m", "mist", "serve", "--config", str(missing)],
        env={**os.environ, "MIST_RUNTIME_DIR": str(runtime)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert str(missing) in _complaint(done.stderr)


def test_broken_json(tmp_path: Path, runtime: Path) -> None:
    status, stderr = _serve('{"config": {\n  "debug": 4,,\n}}', tmp_path, runtime)
    assert status != 0
    text = _complaint(stderr)
    assert "config.json" in text
    assert "2" in text  # the line


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"controller": {"port": 99999}}, ["config.json", "port", "99999"]),
        ({"protocols": [{"connector": "HTTP", "port": "eighty"}]}, ["config.json", "port", "eighty"]),
        ({"protocols": "all"}, ["config.json", "protocols"]),
        ({"debug": "loud"}, ["config.json", "debug", "loud"]),
        ({"protcols": []}, ["config.json", "protcols", "protocols"]),
    ],
)
def test_bad_configuration_value(tmp_path: Path, runtime: Path, change: dict[str, object], words: list[str]) -> None:
    """File, key and value are named."""
    status, stderr = _serve(_quiet(**change), tmp_path, runtime)
    assert status != 0
    text = _complaint(stderr)
    for word in words:
        assert word in text, text


def test_stream_without_a_source_is_told_so(make_server: MakeServer) -> None:
    """Clients make streams before they know the source: the server runs, and the API says what is missing."""
    server = make_server(streams={"live": {"DVR": 1000}})
    found = server.api({"streams": 1})["streams"]["live"]
    assert (found["online"], found["error"]) == (0, "Stream offline: Missing source parameter!")


def test_unknown_connector_is_named(make_server: MakeServer) -> None:
    """A configuration from elsewhere may name protocols that this server has not: it runs without them, and says so."""
    server = make_server(protocols={"NOSUCH": {}})
    server.wait_log("NOSUCH", 5)


def test_control_port_in_use(tmp_path: Path, runtime: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, stderr = _serve(_quiet(controller={"port": port, "interface": "127.0.0.1"}), tmp_path, runtime)
    assert status != 0
    assert str(port) in _complaint(stderr)


def test_protocol_port_in_use(tmp_path: Path, runtime: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        status, stderr = _serve(
            _quiet(protocols=[{"connector": "HTTP", "port": port, "interface": "127.0.0.1"}]), tmp_path, runtime
        )
    assert status != 0
    text = _complaint(stderr)
    assert str(port) in text
    assert "HTTP" in text


def test_instance_runs_already(server: MistServer, tmp_path: Path) -> None:
    config = tmp_path / "config.json"
    config.write_text(json.dumps(_quiet()))
    done = subprocess.run(
        [sys.executable, "-m", "mist", "serve", "--config", str(config), "--instance", server.instance],
        env={**os.environ, "MIST_RUNTIME_DIR": str(server.runtime_base)},
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.returncode != 0
    assert server.instance in _complaint(done.stderr)


def test_runtime_directory_that_cannot_be_made(tmp_path: Path, runtime: Path) -> None:
    runtime.write_text("a file in the way")
    status, stderr = _serve(_quiet(), tmp_path, runtime)
    assert status != 0
    assert str(runtime) in _complaint(stderr)

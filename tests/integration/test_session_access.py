"""Who may watch and publish on a whole server: USER_NEW and USER_END with an HTTP service as their handler, and tokens."""

from __future__ import annotations

import base64
import http.client
import http.server
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jwt
import pytest

from tests.conftest import StartProgram
from tests.integration.conftest import MakeServer, Publish, SendTo
from tests.support.flv_files import flv_file, interleaved
from tests.support.live import FRAME_MS, Watcher
from tests.support.media import NO_BFRAMES, Sample
from tests.support.processes import wait_until
from tests.support.rtmp_peer import RtmpPeer
from tests.support.server import MistServer
from tests.support.tools import find_tool

SECRET = b"a secret that is long enough for SHA-256"
KEY = {"kty": "oct", "kid": "one", "k": base64.urlsafe_b64encode(SECRET).decode().rstrip("=")}
SAMPLE = Sample("sessions", NO_BFRAMES)


class Service:
    """What handles triggers, and serves a key set. denied: tokens that may not watch; payloads: by trigger."""

    def __init__(self) -> None:
        self.denied: set[str] = set()
        self.payloads: dict[str, list[list[str]]] = {"USER_NEW": [], "USER_END": []}
        self.keys: list[dict[str, Any]] = []
        service = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                lines = self.rfile.read(int(self.headers["Content-Length"])).decode().split("\n")
                name = self.headers["X-Trigger"]
                service.payloads[name].append(lines)
                self.reply(b"false" if name == "USER_NEW" and lines[2] in service.denied else b"true")

            def do_GET(self) -> None:
                self.reply(json.dumps({"keys": service.keys}).encode(), "max-age=1")

            def reply(self, body: bytes, cache: str = "no-store") -> None:
                self.send_response(200)
                self.send_header("Content-Length", str(len(body)))
                self.send_header("Cache-Control", cache)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: Any) -> None:
                """Say nothing."""

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_address[1]}/"
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def service() -> Iterator[Service]:
    one = Service()
    yield one
    one.close()


def token(**claims: Any) -> str:
    return jwt.encode(claims, SECRET, "HS256", headers={"kid": "one"})


def watch(server: MistServer, suffix: str, wanted: str, stream: str = "live") -> Any:
    return urllib.request.urlopen(f"{server.play_url(suffix, stream)}?tkn={wanted}", timeout=10)


def refused(server: MistServer, suffix: str, wanted: str, stream: str = "live") -> bool:
    try:
        watch(server, suffix, wanted, stream).close()
    except urllib.error.HTTPError as error:
        error.close()
        return error.code == 403
    return False


def read_to_end(viewer: Any) -> float:
    """Read until the server ends it; returns the unix second."""
    try:
        while viewer.read(65536):
            pass
    except (OSError, http.client.HTTPException):
        pass
    return time.time()


def guarded(make_server: MakeServer, service: Service, **more: Any) -> MistServer:
    handlers = {name: [{"handler": service.url, "sync": name == "USER_NEW"}] for name in service.payloads}
    return make_server(config={"triggers": handlers}, **more)


def test_user_new_and_end(
    make_server: MakeServer, publish: Publish, service: Service, start_program: StartProgram, tmp_path: Path
) -> None:
    """Asked once a session; refused on every protocol, ended by a second look, and told of its end."""
    server = guarded(make_server, service)
    publish(server, SAMPLE, loop=True)
    server.wait_tracks(2)
    service.denied = {"bad"}
    assert refused(server, "flv", "bad")
    assert refused(server, "ts", "bad")
    hls = server.play_url("flv").rpartition("/")[0] + "/hls/live/index.m3u8?tkn="
    with pytest.raises(urllib.error.HTTPError) as error:
        urllib.request.urlopen(hls + "bad", timeout=10)
    error.value.close()
    assert len(service.payloads["USER_NEW"]) == 1
    first = service.payloads["USER_NEW"][0]
    assert first[:4] == ["live", "127.0.0.1", "bad", "FLV"]
    assert first[4].endswith("/live.flv?tkn=bad")
    assert (len(first[5]), first[6]) == (64, "false")

    rtmp = start_program([find_tool("ffmpeg"), "-v", "error", "-i", f"{server.publish_url().rpartition('/')[0]}/live?tkn=bad",
                          "-f", "null", "-"])  # fmt: skip
    assert rtmp.wait(15) != 0
    assert len(service.payloads["USER_NEW"]) == 1

    viewer = watch(server, "flv", "good")
    assert viewer.read(1000)
    urllib.request.urlopen(hls + "good", timeout=10).close()
    assert [lines[2] for lines in service.payloads["USER_NEW"]] == ["bad", "good"]
    service.denied = {"bad", "good"}
    server.api({"invalidate_sessions": "live"})
    asked = time.time()
    assert read_to_end(viewer) - asked < 10
    viewer.close()
    assert len(service.payloads["USER_NEW"][-1]) == 6
    assert refused(server, "flv", "good")
    wait_until(lambda: bool(service.payloads["USER_END"]), 40, "the end of the session")
    ended = service.payloads["USER_END"][0]
    assert (len(ended), ended[0], ended[1], ended[3]) == (12, "good", "live", "127.0.0.1")
    assert set(ended[2].split(",")) >= {"FLV"}
    assert ended[11] == service.payloads["USER_NEW"][1][5]


def test_tokens(make_server: MakeServer, publish: Publish, service: Service, start_program: StartProgram) -> None:
    """A token opens a stream without a question and ends with its time; it takes a stream key's place for publishers."""
    server = guarded(make_server, service)
    server.api({"addjwks": [[KEY, {"input": True, "output": True, "stream": "li*"}]]})
    shown = token(sub="live", exp=int(time.time()) + 60)
    publish(server, SAMPLE, shown, loop=True)
    server.wait_tracks(2)
    ends = int(time.time()) + 5
    service.denied = {token(sub="live", exp=ends), token(sub="other"), "none"}
    with watch(server, "flv", token(sub="live", exp=ends)) as viewer:
        assert viewer.read(1000)
        assert service.payloads["USER_NEW"] == []
        assert ends - 1 < read_to_end(viewer) < ends + 10
    assert refused(server, "flv", token(sub="other"))
    assert refused(server, "flv", "none")

    # A set at a URL, whose key changes.
    server.api({"jwks": [service.url]})
    service.denied = {token(sub="l*", nbf=1)}
    assert refused(server, "flv", token(sub="l*", nbf=1))
    service.keys = [KEY]
    time.sleep(1.1)
    server.api({"invalidate_sessions": "live"})
    wait_until(lambda: not refused(server, "flv", token(sub="l*", nbf=1)), 10, "the new key")


def read_messages(peer: RtmpPeer) -> threading.Thread:
    """Read what a player gets until the connection is closed."""

    def read() -> None:
        try:
            for _ in peer.messages():
                pass
        except OSError:
            pass  # the test closes it

    thread = threading.Thread(target=read)
    thread.start()
    return thread


def test_sessions_outlive_processes(make_server: MakeServer, send_to: SendTo, service: Service) -> None:
    """Whatever is killed, nobody is asked twice about a session, and its end tells of all of it, once."""
    server = guarded(make_server, service, protocols={"HTTP": {"processes": 1}, "RTMP": {"processes": 1}})
    sender = send_to(server)
    sender.send([number * FRAME_MS for number in range(60)], headers=True)
    sender.keep_sending(0.02)
    sock = socket.create_connection(("127.0.0.1", server.http_port), 10)
    sock.sendall(b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n")
    flv = Watcher(sock)
    segments = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=10)  # one who knows no cookies

    def fetch() -> None:
        segments.request("GET", "/hls/live/index.m3u8")
        reply = segments.getresponse()
        assert (reply.status, bool(reply.read())) == (200, True)

    with RtmpPeer(server.rtmp_port) as rtmp:
        rtmp.play("live")
        reading = read_messages(rtmp)
        fetch()
        began = time.monotonic()
        flv.wait_mark(sender.number)
        asked = sorted(lines[5] for lines in service.payloads["USER_NEW"])
        assert len(set(asked)) == 3
        for title in ("output HTTP ", "output RTMP ", "controller", "sessions", "triggers", "output HTTP "):
            server.lose(f"mist: {title}")
            flv.wait_mark(sender.number + 5)
            fetch()
        wait_until(lambda: sorted(clients(server)) == asked, 30, "the same sessions in the figures")
        lived = time.monotonic() - began
        rtmp.socket.shutdown(socket.SHUT_RDWR)
        reading.join(10)
    flv.close()
    segments.close()
    wait_until(lambda: len(service.payloads["USER_END"]) >= 3, 40, "the ends of the sessions")
    assert sorted(lines[5] for lines in service.payloads["USER_NEW"]) == asked
    ends = {lines[11]: lines for lines in service.payloads["USER_END"]}
    assert (sorted(ends), len(service.payloads["USER_END"])) == (asked, 3)
    assert all(int(lines[4]) >= int(lived) - 2 for lines in ends.values())
    (watched,) = [lines for lines in ends.values() if lines[2] == "FLV"]
    assert int(watched[5]) >= len(flv.data)


def clients(server: MistServer) -> list[str]:
    """Return the sessions of viewers, nothing while no controller answers."""
    try:
        rows = server.api({"clients": {"fields": ["protocol", "sessid"]}})["clients"]["data"] or []
    except OSError:
        return []
    return [session for protocol, session in rows if not protocol.startswith("INPUT")]


def hls_ends(server: MistServer, stream: str, wanted: str) -> None:
    wait_until(lambda: refused(server, "hls", wanted, stream), 45, "the end of the HLS session")


@pytest.mark.parametrize("withdrawn", [False, True])
def test_tokens_end_on_every_protocol(make_server: MakeServer, withdrawn: bool) -> None:
    """With their time, or with their key: live streams and files, whatever they are played by."""
    server = make_server(streams={"test": {"source": "demo:", "always_on": True}})
    film = server.folder / "film.flv"
    film.write_bytes(flv_file(interleaved(120)))
    spare = {**KEY, "kid": "spare"}
    server.api(
        {"addstream": {"film": {"source": str(film)}}, "addjwks": [[KEY, {}], [{**spare, "k": KEY["k"][::-1]}, {}]]}
    )
    server.wait_tracks(2, "test")
    claims = {} if withdrawn else {"exp": int(time.time()) + 20}
    tokens = iter([token(sub="*", number=number, **claims) for number in range(20)])
    watching = []

    def begin(what: Callable[..., Any], *given: Any) -> None:
        watching.append(threading.Thread(target=what, args=given, daemon=True))
        watching[-1].start()

    for suffix, stream in (
        *((one, "test") for one in ("flv", "ts", "mp4", "webm", "aac", "h264")),
        ("mp4", "film"),
        ("ts", "film"),
    ):
        begin(read_to_end, watch(server, suffix, f"{next(tokens)}&rate=1", stream))
    for stream in ("test", "film"):  # who comes when the key is gone has no token, and may watch: nobody refuses it
        shown = next(tokens)
        assert not refused(server, "hls", shown, stream)
        begin(hls_ends, server, stream, shown)
    peer = RtmpPeer(server.rtmp_port, timeout_s=60)
    peer.play(f"test?tkn={next(tokens)}")
    watching.append(read_messages(peer))
    if withdrawn:
        server.api({"deletejwks": "one"})
    for thread in watching:
        thread.join(45)
    left = [thread for thread in watching if thread.is_alive()]
    peer.socket.close()
    assert not left


@pytest.mark.parametrize("withdrawn", [False, True])
def test_publishers_end_with_their_token(make_server: MakeServer, publish: Publish, withdrawn: bool) -> None:
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 60}})
    server.api({"addjwks": [[KEY, {"input": True}], [{**KEY, "kid": "spare", "k": KEY["k"][::-1]}, {"input": True}]]})
    shown = token(sub="live", number=1, **({} if withdrawn else {"exp": int(time.time()) + 20}))
    publish(server, SAMPLE, shown, loop=True)
    server.wait_tracks(2)
    if withdrawn:
        server.api({"deletejwks": "one"})
    server.wait_log("UNAUTHORISED", 45)
    wait_until(
        lambda: server.api({"active_streams": ["inputs"]})["active_streams"] is None, 20, "the end of the publisher"
    )


def test_sessions_say_what_they_are_watched_with(make_server: MakeServer, service: Service) -> None:
    """At once where media comes in many replies, after ten seconds where it comes in one: a tag like any other."""
    handlers = {"USER_END": [{"handler": service.url, "sync": False, "streams": []}]}
    server = make_server(streams={"test": {"source": "demo:", "always_on": True}}, config={"triggers": handlers})
    server.wait_tracks(2, "test")
    ends: dict[str, str] = {}

    def ended(connector: str) -> bool:
        server.api({"stop_tag": f"UA:{connector} player (1; 2)"})
        ends.update({lines[2]: lines[-1] for lines in service.payloads["USER_END"]})
        return connector in ends

    http_url = f"http://127.0.0.1:{server.http_port}"
    began = time.monotonic()
    flv = urllib.request.Request(f"{http_url}/test.flv?tkn=a", headers={"User-Agent": "FLV player (1; 2)"})
    hls = urllib.request.Request(f"{http_url}/hls/test/index.m3u8?tkn=b", headers={"User-Agent": "HLS player (1; 2)"})
    with urllib.request.urlopen(flv, timeout=20) as viewer:
        urllib.request.urlopen(hls, timeout=20).close()
        wait_until(lambda: ended("HLS"), 10, "the end of the HLS session")
        wait_until(lambda: ended("FLV"), 20, "the end of the FLV session")
        assert time.monotonic() - began > 10
        read_to_end(viewer)
    assert ends["HLS"] != ends["FLV"]
    assert {one for lines in service.payloads["USER_END"] for one in lines if "UA:" in one} == {
        "[UA:HLS player (1; 2)]",
        "[UA:FLV player (1; 2)]",
    }

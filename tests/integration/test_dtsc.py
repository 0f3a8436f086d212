"""DTSC between servers: edges of one and two hops, pushes by a client of our own, TLS, restarts, and peers that break the rules."""

from __future__ import annotations

import hashlib
import os
import signal
import socket
import ssl
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.integration.conftest import MakeServer, Publish, SendTo
from tests.support.dtsc_peer import DtscPeer, Heard, command, media, packet, write_value
from tests.support.live import FRAME_MS, assert_rising, marks, send_when_free, viewer, wait_mark
from tests.support.media import BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.players import play
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.rtmp_peer import VIDEO
from tests.support.server import MistServer

LIVE = {"live": {"source": "push://127.0.0.1", "inputtimeout": 4, "segmentsize": 1000}}


class DtscServer:
    """A server that also listens for DTSC."""

    def __init__(self, make_server: MakeServer, streams: dict[str, Any], **options: Any) -> None:
        self.port = free_port()
        listener = {"port": self.port, "interface": "127.0.0.1", **options}
        self.mist: MistServer = make_server(streams=streams, protocols={"DTSC": listener})


@pytest.fixture
def origin(make_server: MakeServer) -> DtscServer:
    return DtscServer(make_server, LIVE)


def edge_of(make_server: MakeServer, upstream: DtscServer, query: str = "", **settings: Any) -> DtscServer:
    """Start a server whose stream `live` is fetched from another."""
    source = f"dtsc://127.0.0.1:{upstream.port}/live{query}"
    return DtscServer(make_server, {"live": {"source": source, "inputtimeout": 4, "segmentsize": 1000, **settings}})


def facts(packets: list[Heard]) -> list[tuple[int, int, int, bool, str]]:
    """Return what must be the same at every server: track, times, key, hash of the payload; by track and time."""
    found = [
        (
            one.track,
            one.time_ms,
            int(one.members.get("offset", 0)),
            one.track == 1 and bool(one.members.get("keyframe")),
            hashlib.sha256(one.data).hexdigest()[:16],
        )
        for one in packets
    ]
    return sorted(found)


@contextmanager
def gathering(port: int, **members: Any) -> Iterator[list[Heard]]:
    """Play by DTSC in the background; everything that is heard gathers in the list."""
    found: list[Heard] = []
    peer = DtscPeer(port, timeout_s=30)
    peer.play("live", **members)

    def gather() -> None:
        try:
            for heard in peer.packets():
                found.append(heard)
        except OSError:
            return

    thread = threading.Thread(target=gather, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        peer.socket.shutdown(socket.SHUT_RDWR)
        thread.join(5)
        peer.socket.close()


def of_media(heard: list[Heard]) -> list[Heard]:
    return [one for one in list(heard) if one.kind == "DTP2"]


def unix_zero(port: int) -> int:
    with DtscPeer(port) as peer:
        peer.play("live")
        return int(peer.until("DTSC").members["unixzero"])


@pytest.mark.tools("ffmpeg", "ffprobe")
def test_a_chain_of_three_gives_the_same_everywhere(
    make_server: MakeServer, publish: Publish, origin: DtscServer, tmp_path: Path
) -> None:
    """Payloads, times, key flags and wall clock are those of the origin, in DTSC; and FFmpeg reads the same from the last edge."""
    sample = Sample("bframes", BFRAMES, seconds=14)
    source = read_media(sample.flv())
    first = edge_of(make_server, origin)
    second = edge_of(make_server, first)
    publisher = publish(origin.mist, sample)
    origin.mist.wait_tracks(2)
    with gathering(origin.port) as a, gathering(first.port) as b, gathering(second.port) as c:
        wait_until(lambda: len(of_media(c)) > 50, 15, "media at the last edge")
        seen = play(second.mist, "flv", "live", tmp_path / "out.flv")
        assert publisher.wait(30) == 0
        heard = [facts(of_media(one)) for one in (a, b, c)]
    compare(source, seen, tolerance_us=0)
    for other in heard[:2]:
        for track in (1, 2):
            wanted = [one for one in other if one[0] == track]
            got = [one for one in heard[2] if one[0] == track]
            at = wanted.index(got[0])
            assert wanted[at : at + len(got)] == got


def test_wall_clock_is_carried(make_server: MakeServer, origin: DtscServer, send_to: SendTo) -> None:
    first = edge_of(make_server, origin)
    second = edge_of(make_server, first)
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    zeros = [unix_zero(one.port) for one in (origin, first, second)]
    assert zeros[0] == zeros[1] == zeros[2]
    assert abs(zeros[0] / 1000 + 4 - time.time()) < 10
    # A publisher that comes back later has another clock, and players that are there are told.
    with gathering(second.port, exact=1) as heard:
        wait_until(lambda: of_media(heard), 10, "media")
        sender.close()
        again = send_when_free(lambda: send_to(origin.mist))
        again.send(list(range(0, 2000, FRAME_MS)), headers=True)
        again.keep_sending()
        wanted = unix_zero(origin.port)
        assert wanted != zeros[0]

        def told() -> bool:
            return any(one.kind == "DTSC" and abs(one.members["unixzero"] - wanted) <= 1 for one in list(heard))

        wait_until(told, 10, "the new wall clock at the last edge")


def test_an_edge_fetches_once_and_only_while_it_is_watched(
    make_server: MakeServer, origin: DtscServer, send_to: SendTo
) -> None:
    edge = edge_of(make_server, origin)
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    origin.mist.wait_tracks(2)
    assert not edge.mist.processes_titled("mist: input live"), "nobody watches, and yet it is fetched"

    def fetched() -> int:
        clients = origin.mist.api({"clients": {"fields": ["protocol"], "streams": ["live"]}})["clients"]["data"] or []
        return sum(row[0] == "DTSC" for row in clients)

    with viewer(edge.mist) as one, viewer(edge.mist) as two, gathering(edge.port) as three:
        for heard in (one, two):
            wait_mark(heard, 60, 15)
        wait_until(lambda: len(of_media(three)) > 20, 10, "media by DTSC")
        assert len(edge.mist.processes_titled("mist: input live")) == 1
        wait_until(lambda: fetched() == 1, 10, "one connection at the origin")
        assert_rising(one)
    wait_until(lambda: not edge.mist.processes_titled("mist: input live"), 40, "the edge to stop fetching")
    wait_until(lambda: fetched() == 0, 20, "no connection at the origin")


def test_synced_packets_are_in_the_order_of_their_times(origin: DtscServer, send_to: SendTo) -> None:
    sender = send_to(origin.mist)
    sender.send(list(range(0, 2000, FRAME_MS)), headers=True)
    for stamp in range(2000, 4000, 400):  # pictures ten at a time before their sound
        for at in range(stamp, stamp + 400, FRAME_MS):
            sender.peer.send_video(at, b"<v>" + bytes(50), key=at == stamp)
        for at in range(stamp, stamp + 400, FRAME_MS):
            sender.peer.send_audio(at + 5, b"<a>" + bytes(50))
    with DtscPeer(origin.port) as peer:
        peer.play("live", sync=1)
        assert peer.until("DTCM", "sync").members["sync"] == 1
        times = [one.time_ms for one in peer.media(90)]
    assert times == sorted(times)
    with DtscPeer(origin.port) as peer:
        peer.play("live")
        times = [one.time_ms for one in peer.media(90)]
    assert times != sorted(times), "in the order of arrival"


def test_a_pull_in_sync(make_server: MakeServer, origin: DtscServer, send_to: SendTo) -> None:
    edge = edge_of(make_server, origin, "?sync=1")
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    with viewer(edge.mist) as heard:
        wait_mark(heard, 110, 15)
        assert_rising(heard)


# -- files


@pytest.mark.tools("ffmpeg")
def test_a_file_of_another_server(make_server: MakeServer, tmp_path: Path) -> None:
    """A file is sent at its own speed, in the order of its times, and ends; an edge plays it and ends with it."""
    sample = Sample("bframes", BFRAMES, seconds=12)
    origin = DtscServer(make_server, {"live": {"source": str(sample.flv()), "inputtimeout": 4}})
    edge = edge_of(make_server, origin)
    source = read_media(sample.flv())
    with DtscPeer(origin.port, timeout_s=30) as peer:
        began = time.monotonic()
        peer.play("live")
        assert peer.until("DTCM", "sync")
        head = peer.until("DTSC")
        assert head.members["vod"] == 1 and "live" not in head.members
        peer.send(command("ping") + command("check_key_duration", id=1, duration=1))
        heard = list(peer.packets())
        assert time.monotonic() - began > 2, "faster than the clock"
    found = [one for one in heard if one.kind == "DTP2"]
    assert [one.time_ms for one in found] == sorted(one.time_ms for one in found)
    assert len([one for one in found if one.track == 1]) == len(source.of("video"))
    assert len([one for one in found if one.track == 2]) == len(source.of("audio"))
    said = [one.members["cmd"] for one in heard if one.kind == "DTCM"]
    assert said.count(b"ok") == 2 and said[-1] == b"error"
    with DtscPeer(origin.port) as peer:
        peer.play("live", start=5000, stop=7000, rate=0, video="none")
        times = [one.time_ms for one in peer.packets() if one.kind == "DTP2"]
        assert 4_000 <= min(times) <= 5_000 and 6_900 < max(times) < 7_000
    compare(source, play(edge.mist, "flv", "live", tmp_path / "out.flv"), tolerance_us=1_000)


# -- restarts


def test_an_origin_that_is_killed_and_comes_back(make_server: MakeServer, origin: DtscServer, send_to: SendTo) -> None:
    """Viewers of the edge stay connected, and the times go on."""
    edge = edge_of(make_server, origin)
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    with viewer(edge.mist) as heard:
        wait_mark(heard, 60, 15)
        for process in sorted(origin.mist.processes(), key=lambda one: one.pid != origin.mist.pid):
            os.kill(process.pid, signal.SIGKILL)  # the main process first: nobody starts others again
        sender.close()
        wait_until(lambda: not origin.mist.processes(), 10, "the origin to be gone")
        number = marks(heard, VIDEO)[-1][0]
        origin.mist.restart()
        again = send_when_free(lambda: send_to(origin.mist))
        again.number = 10_000
        again.send(list(range(0, 4000, FRAME_MS)), headers=True)
        again.keep_sending()
        wait_mark(heard, 10_050, 20)
        stamps = [ms for _, ms in marks(heard, VIDEO)]
        assert stamps == sorted(stamps), "times must not go back"
        assert number < 10_000
    tracks = edge.mist.info()["meta"]["tracks"]
    assert len(tracks) == 2, "the tracks were continued"


def test_a_connection_that_is_lost_is_made_again(make_server: MakeServer, origin: DtscServer, send_to: SendTo) -> None:
    """Kill the origin's workers: nothing is lost, doubled or swapped at the edge, for what was missed is sent again."""
    edge = edge_of(make_server, origin)
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    with viewer(edge.mist) as heard:
        wait_mark(heard, 60, 15)
        for _ in range(2):
            for process in origin.mist.processes_titled("mist: output DTSC"):
                os.kill(process.pid, signal.SIGKILL)
            number = marks(heard, VIDEO)[-1][0]
            wait_mark(heard, number + 60, 20)
        assert_rising(heard)


def test_an_input_that_is_killed_is_started_again(make_server: MakeServer, origin: DtscServer, send_to: SendTo) -> None:
    edge = edge_of(make_server, origin)
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    with viewer(edge.mist) as heard:
        wait_mark(heard, 60, 15)
        (process,) = edge.mist.processes_titled("mist: input live")
        os.kill(process.pid, signal.SIGKILL)
        number = marks(heard, VIDEO)[-1][0]
        wait_mark(heard, number + 60, 20)
        assert_rising(heard)


def test_an_edge_ends_with_its_origin(make_server: MakeServer, origin: DtscServer, send_to: SendTo) -> None:
    edge = edge_of(make_server, origin, inputtimeout=2)
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    with gathering(edge.port) as heard:
        wait_until(lambda: len(of_media(heard)) > 50, 15, "media")
        sender.close()
        wait_until(lambda: heard[-1].members.get("cmd") == b"error", 30, "the end of the stream at the edge")


def test_an_origin_without_the_stream(make_server: MakeServer, origin: DtscServer) -> None:
    """The text of the origin reaches the viewer of the edge."""
    edge = edge_of(make_server, origin)
    with DtscPeer(edge.port) as peer:
        peer.play("live")
        assert b"offline" in peer.until("DTCM", "error").members["msg"]
        assert list(peer.packets()) == []


def test_an_origin_that_is_not_there(make_server: MakeServer) -> None:
    source = f"dtsc://127.0.0.1:{free_port()}"
    edge = DtscServer(make_server, {"live": {"source": source, "inputtimeout": 2}})
    with DtscPeer(edge.port) as peer:
        peer.play("live")
        assert b"cannot be reached" in peer.until("DTCM", "error").members["msg"]


# -- pushes


def _header(unix_zero_ms: int, *, sound: bool = True) -> bytes:
    picture = {
        "trackid": 7, "firstms": 0, "lastms": 0, "bps": 0, "maxbps": 0, "init": b"", "codec": "VP8", "type": "video",
        "width": 64, "height": 64, "fpks": 25000, "efpks": 25000,
    }  # fmt: skip
    tone = {
        "trackid": 9,
        "init": b"",
        "codec": "MP3",
        "lang": "deu",
        "type": "audio",
        "rate": 48000,
        "size": 16,
        "channels": 2,
    }
    tracks: dict[str, Any] = {"video_VP8_64x64_25fps_0": picture}
    if sound:
        tracks["audio_MP3_2ch_48000hz_deu_1"] = tone
    return packet(b"DTSC", write_value({"live": 1, "version": 4, "unixzero": unix_zero_ms, "tracks": tracks}))


def _push(peer: DtscPeer, first_ms: int, count: int, zero_ms: int) -> None:
    peer.send(_header(zero_ms))
    for number in range(count):
        at = first_ms + number * 40
        peer.send(media(7, at, b"\x9d\x01\x2a" + number.to_bytes(4, "big"), key=number % 25 == 0, offset_ms=40))
        peer.send(media(9, at + 5, b"\xff\xfb" + number.to_bytes(4, "big")))


def test_a_push_is_played(origin: DtscServer) -> None:
    """Header and packets follow the request at once, as MistServer sends them; everything comes out as it went in."""
    zero_ms = int(time.time() * 1000) - 50_000
    with DtscPeer(origin.port) as pusher, DtscPeer(origin.port) as peer:
        pusher.push("live", password="")
        _push(pusher, 50_000, 100, zero_ms)
        assert pusher.until("DTCM", "ok").members["msg"]
        assert pusher.until("DTCM", "ok").members["msg"] == b"Header received"
        origin.mist.wait_tracks(2)
        peer.play("live")
        head = peer.until("DTSC")
        assert head.members["unixzero"] == zero_ms
        tracks = list(head.members["tracks"].values())
        assert [(one["codec"], one.get("lang")) for one in tracks] == [(b"VP8", None), (b"MP3", b"deu")]
        heard = peer.media(50)
        assert heard[0].members["keyframe"] == 1
        assert {one.members.get("offset", 0) for one in heard if one.track == 1} == {40}
        assert (heard[0].time_ms - 50_000) % 40 == 0
        pusher.send(command("ping"))
        assert pusher.until("DTCM", "ok").members["msg"] == b"Pong!"


def test_a_pusher_that_returns_goes_on(origin: DtscServer) -> None:
    zero_ms = int(time.time() * 1000)
    with gathering_after_push(origin, zero_ms) as heard:
        with DtscPeer(origin.port) as again:
            wait_until(lambda: _accepted(origin, again, zero_ms), 10, "the second push to be accepted")
            wait_until(lambda: of_media(heard)[-1].time_ms >= 9_000, 10, "the second push at the player")
        times = [one.time_ms for one in of_media(heard) if one.track == 1]
        assert times == sorted(times)


@contextmanager
def gathering_after_push(origin: DtscServer, zero_ms: int) -> Iterator[list[Heard]]:
    """Play what a first pusher left; it is gone when the block begins."""
    with DtscPeer(origin.port) as pusher:
        pusher.push("live")
        _push(pusher, 0, 100, zero_ms)
        origin.mist.wait_tracks(2)
        with gathering(origin.port) as heard:
            wait_until(lambda: len(of_media(heard)) > 20, 10, "media")
            pusher.socket.close()
            yield heard


def _accepted(origin: DtscServer, peer: DtscPeer, zero_ms: int) -> bool:
    peer.push("live")
    if peer.until("DTCM").members["cmd"] == b"hi" and peer.until("DTCM").members["cmd"] == b"ok":
        _push(peer, 5_000, 101, zero_ms)
        return True
    peer.socket.close()
    peer.__init__(origin.port)  # type: ignore[misc]
    return False


def test_pushes_that_are_refused(make_server: MakeServer) -> None:
    streams = {
        "word": {"source": "push://@secret"},
        "file": {"source": "dtsc://127.0.0.1:1"},
        "far": {"source": "push://10.0.0.1"},
    }
    server = DtscServer(make_server, streams)
    for stream in ("word", "file", "far", "nosuch"):
        with DtscPeer(server.port) as peer:
            peer.push(stream, password="wrong")
            _push(peer, 0, 50, 0)
            assert peer.until("DTCM", "error").members["msg"]
            assert list(peer.packets()) == []
    with DtscPeer(server.port) as peer:
        peer.push("word", password="secret")
        assert peer.until("DTCM", "ok")


def test_a_second_pusher_is_refused(origin: DtscServer) -> None:
    with DtscPeer(origin.port) as first, DtscPeer(origin.port) as second:
        first.push("live")
        _push(first, 0, 60, 0)
        origin.mist.wait_tracks(2)
        for number in range(20):
            first.send(media(7, 3000 + number, b"x"))
        second.push("live")
        assert b"already" in second.until("DTCM", "error").members["msg"]


# -- hostile peers


PUSH = command("push", stream="other", version="test")
NONSENSE = {
    "HTTP": b"GET / HTTP/1.1\r\n\r\n",
    "media first": media(1, 0, b"x"),
    "a huge command": b"DTCM\x7f\xff\xff\xff",
    "a deep command": packet(b"DTCM", b"\xe0" + b"\0\1a\xe0" * 10_000),
    "packets without header": PUSH + media(1, 0, b"x"),
    "a track without header": PUSH + _header(0) + media(1, 0, b"x"),
    "a huge packet": PUSH + _header(0) + b"DTP2\xff\xff\xff\xff",
    "nonsense after a header": PUSH + _header(0) + bytes(100),
}


@pytest.mark.parametrize("name", NONSENSE)
def test_hostile_peers_end_only_their_own_connection(make_server: MakeServer, send_to: SendTo, name: str) -> None:
    server = DtscServer(make_server, {**LIVE, "other": {"source": "push://", "inputtimeout": 2}}, processes=1)
    sender = send_to(server.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    with gathering(server.port) as heard:
        wait_until(lambda: of_media(heard), 10, "media")
        with DtscPeer(server.port) as peer:
            peer.send(NONSENSE[name])
            try:
                last = list(peer.packets())[-1]
            except ConnectionResetError:
                last = None
            assert last is None or last.kind == "DTCM"
        count = len(of_media(heard))
        wait_until(lambda: len(of_media(heard)) > count + 10, 10, "media after the hostile peer")


def test_a_player_that_says_strange_things(origin: DtscServer, send_to: SendTo) -> None:
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    sender.keep_sending()
    with DtscPeer(origin.port) as peer:
        peer.play("live", video="|||,!", start=1 << 60, rate="nan", stop=-1)
        peer.send(command("reset") + command("nosuch") + command("check_key_duration", id=1, duration=100))
        assert peer.until("DTCM")
    with DtscPeer(origin.port) as peer:
        peer.play("live")
        peer.until("DTSC")
        peer.send(command("check_key_duration", id=1, duration=100_000))
        assert b"mismatch" in peer.until("DTCM", "error").members["msg"]
        assert not [one for one in peer.packets() if one.kind == "DTCM"]


def test_pings_when_nothing_comes(origin: DtscServer, send_to: SendTo) -> None:
    sender = send_to(origin.mist)
    sender.send(list(range(0, 4000, FRAME_MS)), headers=True)
    with DtscPeer(origin.port) as peer:
        peer.play("live")
        for _ in range(2):
            assert peer.until("DTCM", "ping")
            peer.send(command("ok", msg="Pong!"))


def test_new_tracks_come_with_a_new_header(origin: DtscServer) -> None:
    with DtscPeer(origin.port) as pusher, DtscPeer(origin.port) as peer:
        pusher.push("live")
        pusher.send(_header(0, sound=False))
        for number in range(100):
            pusher.send(media(7, number * 40, b"\x9d\x01\x2a", key=number % 25 == 0))
        origin.mist.wait_tracks(1)
        peer.play("live", waittrackcount=1)
        assert len(peer.until("DTSC").members["tracks"]) == 1
        peer.media(20)
        _push(pusher, 4000, 30, 0)
        assert len(peer.until("DTSC").members["tracks"]) == 2
        assert {one.track for one in peer.media(40)} == {1, 2}


# -- TLS


@pytest.fixture
def certificate(tmp_path: Path) -> tuple[str, str]:
    cert, key = tmp_path / "cert.pem", tmp_path / "key.pem"
    subprocess.run(
        ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes", "-days", "2",
         "-subj", "/CN=localhost", "-keyout", str(key), "-out", str(cert)],
        check=True,
        capture_output=True,
        timeout=20,
    )  # fmt: skip
    return str(cert), str(key)


@pytest.mark.tools("openssl")
def test_tls_plays_pulls_and_takes_pushes(make_server: MakeServer, certificate: tuple[str, str]) -> None:
    cert, key = certificate
    origin = DtscServer(make_server, LIVE, cert=cert, key=key)
    source = f"dtscs://127.0.0.1:{origin.port}/live"
    edge = DtscServer(
        make_server, {"live": {"source": source + "?verify=0"}, "checked": {"source": source, "inputtimeout": 2}}
    )
    context = ssl.create_default_context(cafile=cert)
    context.check_hostname = False
    with DtscPeer(origin.port, tls=context) as pusher:
        pusher.push("live")
        _push(pusher, 0, 200, int(time.time() * 1000))
        assert pusher.until("DTCM", "ok")
        origin.mist.wait_tracks(2)
        with DtscPeer(origin.port, tls=context) as peer:
            peer.play("live")
            assert len(peer.media(100)) == 100
        with DtscPeer(edge.port) as peer:
            peer.play("live")
            assert len(peer.media(50)) == 50
        with DtscPeer(edge.port) as peer:
            peer.play("checked")
            assert b"certificate" in peer.until("DTCM", "error").members["msg"].lower()
    with DtscPeer(origin.port) as plain:
        plain.play("live")
        with pytest.raises((ConnectionError, EOFError)):
            plain.until("DTCM")

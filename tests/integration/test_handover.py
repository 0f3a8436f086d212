"""Workers that die, hang or are replaced while clients of every protocol play: nobody's socket is closed, nobody misses a byte."""

from __future__ import annotations

import os
import signal
import socket
import struct
from collections.abc import Iterator
from itertools import pairwise

import av
import pytest

from tests.support.dtsc_peer import DtscPeer, Heard, command
from tests.support.live import FRAME_MS, MARK, Sender, Watcher
from tests.support.media import NO_BFRAMES, Sample
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.rtmp_peer import AUDIO, COMMAND, USER_CONTROL, VIDEO, RtmpPeer
from tests.support.server import MistServer

PROTOCOLS = ("HTTP", "RTMP", "DTSC")
REPLY = b"HTTP/1.1 200 OK"
FILM_BYTES = 12 << 20  # more than sockets hold
FILM = Sample("film", NO_BFRAMES, size="1280x720", seconds=12, bit_rate="10M")
PAGE = b"GET /json_live.js HTTP/1.1\r\nHost: localhost\r\n\r\n"


class Stage:
    """A server with one worker a listener, so that all clients of a protocol are in the process that dies."""

    def __init__(self) -> None:
        self.dtsc_port = free_port()
        one = {"processes": 1}
        film = {"source": str(FILM.file())}
        self.server = MistServer(
            protocols={
                "HTTP": one,
                "RTMP": one,
                "DTSC": {"port": self.dtsc_port, "interface": "127.0.0.1", **one},
            },
            streams={"live": {"source": "push://127.0.0.1", "inputtimeout": 4}, "film": film},
        )

    def lose_workers(self, how: signal.Signals, protocol: str) -> None:
        """Send a signal to all workers of a listener, and wait until they are gone."""
        self.server.lose(f"mist: output {protocol} ", how)

    def connect(self, request: bytes = b"") -> socket.socket:
        sock = socket.create_connection(("127.0.0.1", self.server.http_port), 10)
        sock.sendall(request)
        return sock


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    with made.server:
        yield made


@pytest.fixture(scope="module")
def sender(stage: Stage) -> Iterator[Sender]:
    sender = Sender(stage.server)
    sender.send([number * FRAME_MS for number in range(60)], headers=True)
    sender.keep_sending(0.02)
    yield sender
    sender.close()


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSEGV, signal.SIGSTOP])
def test_live_viewers(stage: Stage, sender: Sender, how: signal.Signals) -> None:
    paths = ("/live.flv", "/live.flv", "/live.ts", "/live.mp4", "/live.mkv")
    viewers = [Watcher(stage.connect(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())) for path in paths]
    for viewer in viewers:
        viewer.wait_mark(sender.number)
    for _ in range(2):
        stage.lose_workers(how, "HTTP")
        for viewer in viewers:
            viewer.wait_mark(sender.number + 5)
    assert not any(viewer.closed for viewer in viewers)
    for viewer in viewers:
        marks = viewer.marks()
        pictures = sorted(marks)
        assert pictures == [number for number in range(pictures[0], pictures[-1] + 1) for _ in range(2)][: len(marks)]
        viewer.close()
    begin = max(viewer.marks()[0] for viewer in viewers[:2])  # they may have begun at different keyframes
    first, second = (bytes(viewer.data)[viewer.data.find(b"<%08d>" % begin) :] for viewer in viewers[:2])
    assert first[: len(second)] == second[: len(first)]
    assert [line for line in stage.server.log if "could not be continued" in line] == []


def test_players_of_rtmp_and_dtsc(stage: Stage, sender: Sender) -> None:
    got: list[av.Packet[av.VideoStream]] = []
    quick = {"analyzeduration": "500000"}
    with (
        av.open(stage.server.play_url("rtmp"), timeout=(10, 10), options=quick) as container,
        DtscPeer(stage.dtsc_port) as dtsc,
    ):
        dtsc.play("live")
        heard = dtsc.packets()
        packets = container.demux(video=0)
        for round_ in range(3):
            seen = sender.number
            for packet in packets:
                got.append(packet)
                if (mark := MARK.search(bytes(packet))) and int(mark[1]) > seen:
                    break
            for one in heard:
                if (mark := MARK.search(one.data)) and int(mark[1]) > seen:
                    break
            if round_ < 2:
                stage.lose_workers(signal.SIGKILL, "RTMP")
                stage.lose_workers(signal.SIGKILL, "DTSC")
        numbers = [int(mark[1]) for packet in got if (mark := MARK.search(bytes(packet)))]
        assert numbers == list(range(numbers[0], numbers[-1] + 1))
        times = [packet.dts for packet in got if packet.dts is not None]
        assert {later - former for former, later in pairwise(times)} == {FRAME_MS}


def test_half_said_things(stage: Stage, sender: Sender) -> None:
    """Requests and handshakes that a worker had read in part are read to their end by another one."""
    half, idle = stage.connect(PAGE[:20]), stage.connect(PAGE)
    assert idle.recv(65536).startswith(REPLY)
    shaking = socket.create_connection(("127.0.0.1", stage.server.rtmp_port), 10)
    shaking.sendall(b"\x03" + bytes(700))
    connected = RtmpPeer(stage.server.rtmp_port)
    connected.connect("play")
    with DtscPeer(stage.dtsc_port) as dtsc, half, idle, shaking, connected:
        dtsc.until("DTCM")
        for _ in range(2):
            for protocol in PROTOCOLS:
                stage.lose_workers(signal.SIGKILL, protocol)
        half.sendall(PAGE[20:])
        assert half.recv(65536).startswith(REPLY)
        idle.sendall(PAGE * 2)
        answered = b""
        while answered.count(REPLY) < 2:
            part = idle.recv(65536)
            assert part
            answered += part
        shaking.sendall(bytes(837))
        reply = b""
        while len(reply) < 3073:
            part = shaking.recv(65536)
            assert part
            reply += part
        connected.play_connected("live")
        dtsc.play("live")
        assert dtsc.until("DTP2").data


def test_just_accepted(stage: Stage, sender: Sender) -> None:
    """Connections whose worker dies before, or while, it begins with them are served by another one."""
    for _ in range(3):
        page = stage.connect(PAGE)
        rtmp = RtmpPeer(stage.server.rtmp_port)
        with page, rtmp, DtscPeer(stage.dtsc_port) as dtsc:
            for protocol in PROTOCOLS:
                stage.lose_workers(signal.SIGKILL, protocol)
            assert page.recv(65536).startswith(REPLY)
            rtmp.play("live")
            dtsc.until("DTCM")
            dtsc.play("live")
            assert dtsc.until("DTP2").data


@pytest.mark.parametrize(
    ("path", "header"),
    [("/film.flv", ""), ("/film.mp4", ""), ("/film.mp4", "Range: bytes=4000-\r\n"), ("/film.ts", "")],
)
def test_films(stage: Stage, path: str, header: str) -> None:
    request = f"GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n{header}\r\n".encode()
    undisturbed = Watcher(stage.connect(request))
    with socket.socket() as slow:
        slow.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        slow.connect(("127.0.0.1", stage.server.http_port))
        slow.settimeout(10)
        slow.sendall(request)
        got = b""
        for _ in range(2):
            target = len(got) + 300_000
            while len(got) < target:
                got += slow.recv(65536)
            stage.lose_workers(signal.SIGKILL, "HTTP")
        while part := slow.recv(1 << 20):
            got += part
    wait_until(lambda: undisturbed.closed, 15, "the end of the film")
    undisturbed.close()
    assert len(got) > FILM_BYTES
    assert got.partition(b"\r\n\r\n")[2] == bytes(undisturbed.data).partition(b"\r\n\r\n")[2]


def test_a_film_over_rtmp(stage: Stage, sender: Sender) -> None:
    """A film goes on at the byte where it was, is told to be over once, and can still be sought in."""

    def packets(peer: RtmpPeer, kills: int) -> Iterator[tuple[int, int, bytes]]:
        for number, message in enumerate(peer.messages()):
            if message.kind == COMMAND and message.values[3].get("code") == "NetStream.Play.Stop":
                return
            if message.kind in (AUDIO, VIDEO):
                yield message.kind, message.timestamp_ms, message.payload
            if number % 100 == 99 and number < 100 * kills + 99:
                stage.lose_workers(signal.SIGKILL, "RTMP")

    def film(peer: RtmpPeer, kills: int) -> list[tuple[int, int, bytes]]:
        peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
        peer.connect("play")
        peer.stream_id = int(peer.call("createStream", None)[1])
        peer.command("play", None, "film", -2000, stream_id=peer.stream_id)
        peer.send(USER_CONTROL, 0, struct.pack(">HII", 3, peer.stream_id, 3_600_000), stream_id=0)
        return list(packets(peer, kills))

    with RtmpPeer(stage.server.rtmp_port) as calm, RtmpPeer(stage.server.rtmp_port) as disturbed:
        wanted = film(calm, 0)
        assert film(disturbed, 3) == wanted
        stage.lose_workers(signal.SIGKILL, "RTMP")
        for peer in (calm, disturbed):
            peer.command("seek", None, 4000, stream_id=peer.stream_id)
        again = list(packets(calm, 0))
        assert len(again) < len(wanted)
        assert list(packets(disturbed, 1)) == again


@pytest.mark.parametrize(("rate", "kills_at"), [(0, (100, 200, 300)), (1, (580, 700))])
def test_a_film_over_dtsc(stage: Stage, sender: Sender, rate: int, kills_at: tuple[int, ...]) -> None:
    """A film goes on at the packet where it was, whether it waits for the socket or for the clock, and what it is asked is answered."""

    def film(kills: tuple[int, ...]) -> tuple[list[Heard], list[Heard]]:
        with DtscPeer(stage.dtsc_port, timeout_s=20) as peer:
            peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65536)
            peer.play("film", rate=rate)
            heard: list[Heard] = []
            for packet in peer.packets():
                heard.append(packet)
                if len(heard) in kills:
                    stage.server.lose("mist: input film", signal.SIGKILL)
                    stage.lose_workers(signal.SIGKILL, "DTSC")
                    peer.send(command("ping"))
        said = [one for one in heard if one.kind == "DTCM" and one.members["cmd"] != b"ping"]
        return [one for one in heard if one.kind != "DTCM"], said

    wanted, said = film(())
    media, more = film(kills_at)
    assert [(one.kind, one.track, one.time_ms, one.members) for one in media] == [
        (one.kind, one.track, one.time_ms, one.members) for one in wanted
    ]
    answers = [one.members["cmd"] for one in more].count(b"ok")
    assert (answers, len(more)) == (len(kills_at), len(said) + len(kills_at))
    assert more[-1].members["cmd"] == b"error"


def test_the_guardian_dies_and_then_the_worker(stage: Stage, sender: Sender) -> None:
    viewer = Watcher(stage.connect(b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n"))
    viewer.wait_mark(sender.number)
    [guardian] = stage.server.processes_titled("mist: guardian HTTP")
    start = len(stage.server.log)
    os.kill(guardian.pid, signal.SIGKILL)
    stage.server.wait_log("Goes on under another guardian", start=start)
    viewer.wait_mark(sender.number + 5)
    stage.lose_workers(signal.SIGKILL, "HTTP")
    viewer.wait_mark(sender.number + 5)
    marks = sorted(viewer.marks())
    assert marks == [number for number in range(marks[0], marks[-1] + 1) for _ in range(2)][: len(marks)]
    assert not viewer.closed
    viewer.close()

"""Publishers that come back, die, or jump in time; and every kind of process killed: the rest goes on, and so do the viewers."""

from __future__ import annotations

import os
import signal
import socket
import struct
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests.conftest import StartProgram
from tests.integration.conftest import MakeServer, Publish
from tests.support.media import BFRAMES, Sample
from tests.support.packets import SeenMedia, read_media
from tests.support.players import play
from tests.support.processes import look, wait_until
from tests.support.rtmp_peer import AUDIO, COMMAND, VIDEO, Message, Refused, RtmpPeer
from tests.support.server import MistServer

LOOP = Sample("loop", BFRAMES, seconds=25, rate="30")
FRAME_MS = 40
GOP = 10


class Sender:
    """Sends our own H.264 and AAC by RTMP, with times under control. Payloads are numbered, so a viewer knows each one."""

    def __init__(self, server: MistServer, stream: str = "live") -> None:
        self.peer = RtmpPeer(server.rtmp_port)
        self.number = 0
        try:
            self.peer.publish(stream)
        except BaseException:
            self.close()
            raise

    def send(self, stamps_ms: list[int], *, headers: bool = False, pace_s: float = 0.01) -> None:
        """Send a picture and a sound for each time."""
        if headers:
            self.peer.send_headers(stamps_ms[0])
        for stamp in stamps_ms:
            mark = f"<{self.number:08d}>".encode()
            self.peer.send_video(stamp, mark + bytes(200), key=self.number % GOP == 0)
            self.peer.send_audio(stamp + 5, mark + bytes(60))
            self.number += 1
            time.sleep(pace_s)  # the network's pace, not a wait for something

    def close(self) -> None:
        self.peer.socket.close()


@contextmanager
def viewer(server: MistServer, stream: str = "live") -> Iterator[list[Message]]:
    """Play by RTMP in the background; the media messages gather in the list. Ends when the block ends."""
    peer = RtmpPeer(server.rtmp_port, timeout_s=30)
    peer.play(stream)
    found: list[Message] = [one for one in peer.others if one.kind in (AUDIO, VIDEO)]

    def gather() -> None:
        try:
            found.extend(one for one in peer.messages() if one.kind in (AUDIO, VIDEO, COMMAND))
        except (OSError, ValueError):
            return

    thread = threading.Thread(target=gather, daemon=True)
    thread.start()
    try:
        yield found
    finally:
        peer.socket.shutdown(2)
        thread.join(5)
        peer.socket.close()


def _marks(messages: list[Message], kind: int) -> list[tuple[int, int]]:
    """Return (number, ms) of the media messages that carry one of our marks."""
    found = []
    for message in list(messages):
        start = message.payload.find(b"<", 0, 40)
        if message.kind == kind and start >= 0 and message.payload[start + 9 : start + 10] == b">":
            found.append((int(message.payload[start + 1 : start + 9]), message.timestamp_ms))
    return found


def _wait_mark(messages: list[Message], number: int, timeout_s: float = 10) -> None:
    wait_until(
        lambda: any(n >= number for n, _ in _marks(messages, VIDEO)), timeout_s, f"picture {number} at the viewer"
    )


def _assert_rising(messages: list[Message]) -> None:
    for kind in (VIDEO, AUDIO):
        marks = _marks(messages, kind)
        numbers, stamps = [n for n, _ in marks], [t for _, t in marks]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "packets were lost, doubled or swapped"
        steps = [(b - a + 2**31) % 2**32 - 2**31 for a, b in pairwise(stamps)]  # RTMP's clock may wrap
        assert all(step > 0 for step in steps), f"times do not rise: {[s for s in steps if s <= 0]}"
        assert max(steps) < 2_000, f"a gap of {max(steps)} ms was passed on"


@pytest.mark.parametrize(
    ("what", "second"),
    [
        ("jump ahead", [400_000_000 + n * FRAME_MS for n in range(50)]),
        ("back to zero", [n * FRAME_MS for n in range(50)]),
        ("back an hour", [7_200_000 - 3_600_000 + n * FRAME_MS for n in range(50)]),
    ],
)
def test_times_that_jump_are_repaired(server: MistServer, what: str, second: list[int]) -> None:
    start = 7_200_000
    sender = Sender(server)
    sender.send([start + n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        sender.send([start + (50 + n) * FRAME_MS for n in range(20)])
        mark = len(server.log)
        sender.send(second)
        _wait_mark(seen, sender.number - 1)
        _assert_rising(seen)
        server.wait_log(lambda line: "jump" in line or "back" in line, start=mark)
    sender.close()


def test_32_bit_times_wrap(server: MistServer) -> None:
    """RTMP's clock starts again after 49.7 days: nothing is to be repaired, and nothing is logged."""
    start = 2**32 - 60 * FRAME_MS
    sender = Sender(server)
    sender.send([start + n * FRAME_MS for n in range(40)], headers=True)
    with viewer(server) as seen:
        mark = len(server.log)
        sender.send([(start + (40 + n) * FRAME_MS) & 0xFFFFFFFF for n in range(60)])
        _wait_mark(seen, sender.number - 1)
        _assert_rising(seen)
        assert not [line for line in server.log[mark:] if "jump" in line]
    sender.close()


def test_equal_times_still_rise(server: MistServer) -> None:
    """A sender that gives two pictures one time (some phones do) must not make time stand still for the others."""
    sender = Sender(server)
    sender.send([n // 2 * 2 * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        sender.send([n // 2 * 2 * FRAME_MS for n in range(60, 120)])
        _wait_mark(seen, sender.number - 1)
        stamps = [stamp for _, stamp in _marks(seen, VIDEO)]
        assert all(b >= a for a, b in pairwise(stamps))
    sender.close()


@pytest.mark.parametrize("how", ["goodbye", "close", "kill"])
def test_viewers_stay_while_a_publisher_restarts(make_server: MakeServer, how: str) -> None:
    """The second publisher starts its clock at zero again; the viewer's goes on."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 20}})
    first = Sender(server)
    first.send([n * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        first.send([n * FRAME_MS for n in range(60, 90)])
        _wait_mark(seen, first.number - 1)
        if how == "goodbye":
            first.peer.command("deleteStream", None, first.peer.stream_id)
        elif how == "kill":
            _reset(first)
        first.close()
        second = _publish_again(server)
        second.number = 1000
        second.send([n * FRAME_MS for n in range(60)], headers=True, pace_s=0.02)
        _wait_mark(seen, 1059)
        stamps = [stamp for _, stamp in _marks(seen, VIDEO)]
        assert all(b > a for a, b in pairwise(stamps))
        assert [n for n, _ in _marks(seen, VIDEO) if n >= 1000] == list(range(1000, 1060))
    second.close()


def _reset(sender: Sender) -> None:
    """Make the kernel answer with a reset instead of a polite end."""
    sender.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def _publish_again(server: MistServer) -> Sender:
    """Publish as soon as the server has noticed that the last publisher is gone."""

    def attempt() -> Sender | None:
        try:
            return Sender(server)
        except (Refused, OSError):
            return None

    sender = wait_until(attempt, 10, "a place for the next publisher")
    assert sender is not None
    return sender


def test_second_publisher_is_refused(server: MistServer) -> None:
    """The first goes on undisturbed, and the second is told why."""
    first = Sender(server)
    first.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        with RtmpPeer(server.rtmp_port) as second, pytest.raises(Refused, match=r"NetStream\.Publish"):
            second.publish("live")
        first.send([n * FRAME_MS for n in range(50, 80)])
        _wait_mark(seen, first.number - 1)
        _assert_rising(seen)
    first.close()


def test_second_publisher_takes_over(make_server: MakeServer) -> None:
    """With the stream's option, the newest wins: the first is cut off, and the viewers stay."""
    server = make_server(streams={"live": {"source": "push://", "publisher": "takeover", "inputtimeout": 20}})
    first = Sender(server)
    first.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        second = Sender(server)
        second.number = 1000
        second.send([n * FRAME_MS for n in range(50)], headers=True, pace_s=0.02)
        _wait_mark(seen, 1049)
    with pytest.raises(OSError):
        for n in range(200):
            first.send([10_000 + n * FRAME_MS])
    first.close()
    second.close()


def test_a_parameter_change_in_mid_stream_reaches_viewers(server: MistServer, tmp_path: Path) -> None:
    """Another codec header after a while: every viewer gets it before the pictures that need it."""
    small, large = Sample("small", seconds=4), Sample("large", size="640x360", seconds=4)
    with RtmpPeer(server.rtmp_port) as peer, ThreadPoolExecutor(1) as pool:
        peer.publish("live")
        start = _send_file(peer, small, 0)
        task = pool.submit(play, server, "flv", "live", tmp_path / "out.flv")
        start = _send_file(peer, small, start)
        _send_file(peer, large, start)
        peer.command("deleteStream", None, peer.stream_id)
        media = task.result(30)
    sizes = _sizes(tmp_path / "out.flv")
    assert sizes == [(320, 180), (640, 360)]
    assert len(media.of("video")) >= 150


def _send_file(peer: RtmpPeer, sample: Sample, start_ms: int) -> int:
    """Send a sample's messages at four times its speed; returns the time at which the next one may begin."""
    data, at, last = sample.flv().read_bytes(), 13, start_ms
    while at + 11 < len(data):
        size = int.from_bytes(data[at + 1 : at + 4], "big")
        stamp = start_ms + int.from_bytes(data[at + 4 : at + 7], "big")
        body = data[at + 11 : at + 11 + size]
        if data[at] in (AUDIO, VIDEO) and not body.startswith(b"\x17\x02"):
            if stamp > last:
                time.sleep((stamp - last) / 4000)
            peer.send(data[at], stamp, body)
            last = max(last, stamp)
        at += 11 + size + 4
    return last + FRAME_MS


def _sizes(path: Path) -> list[tuple[int, int]]:
    """Return the picture sizes of a file in order, without repeats."""
    sizes: list[tuple[int, int]] = []
    with av.open(str(path)) as container:
        for frame in container.decode(video=0):
            if not sizes or sizes[-1] != (frame.width, frame.height):
                sizes.append((frame.width, frame.height))
    return sizes


# -- killing processes ---------------------------------------------------------------------------------------------------


def _kill(server: MistServer, title: str) -> int:
    """Kill the one process whose title begins so; returns its number."""
    found = wait_until(lambda: server.processes_titled(title), 5, f'a process "{title}…"')
    assert len(found) == 1, [one.title for one in found]
    os.kill(found[0].pid, signal.SIGKILL)
    wait_until(lambda: (now := look(found[0].pid)) is None or now.state == "Z", 5, "its end")
    return found[0].pid


def _comes_back(server: MistServer, title: str, old: int) -> None:
    wait_until(
        lambda: [one for one in server.processes_titled(title) if one.pid != old], 10, f'a new process "{title}…"'
    )


def test_controller_killed(server: MistServer) -> None:
    """Viewers and publisher do not notice, and the API answers again."""
    sender = Sender(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        old = _kill(server, "mist: controller")
        sender.send([n * FRAME_MS for n in range(50, 150)])
        _wait_mark(seen, sender.number - 1)
        _assert_rising(seen)
        _comes_back(server, "mist: controller", old)

        def answers() -> bool:
            try:
                return "authorize" in server.api({"active_streams": True})
            except OSError:
                return False

        wait_until(answers, 10, "an answer of the new controller")
    sender.close()


def test_input_killed(make_server: MakeServer) -> None:
    """The stream stays for its viewers; its publisher is cut off and comes back."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 20}})
    sender = Sender(server)
    sender.send([n * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        _kill(server, "mist: input live")
        sender.close()
        again = _publish_again(server)
        again.number = 1000
        again.send([n * FRAME_MS for n in range(60)], headers=True, pace_s=0.02)
        _wait_mark(seen, 1059)
        again.close()


def _busy_workers(server: MistServer) -> list[int]:
    return [one.pid for one in server.processes_titled("mist: output RTMP (") if "(0 " not in one.title]


def test_output_worker_killed(server: MistServer) -> None:
    """Only that worker's viewers are cut off; new ones are served at once, and the stream goes on."""
    sender = Sender(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen, viewer(server) as other:
        wait_until(lambda: len(_busy_workers(server)) >= 2, 10, "two workers with a connection each")
        os.kill(_busy_workers(server)[0], signal.SIGKILL)
        sender.send([n * FRAME_MS for n in range(50, 100)])
        wait_until(
            lambda: _marks(seen, VIDEO)[-1][0] == 99 or _marks(other, VIDEO)[-1][0] == 99, 10, "one viewer goes on"
        )
        with viewer(server) as new:
            sender.send([n * FRAME_MS for n in range(100, 150)])
            _wait_mark(new, 149)
    sender.close()


@pytest.mark.parametrize("title", ["mist: guardian HTTP", "mist: guardian RTMP"])
def test_listener_guardian_killed(server: MistServer, title: str) -> None:
    """The port is served again, and the other protocol never notices."""
    sender = Sender(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    found = [one for one in server.processes() if "guardian" in one.title and title.split()[-1] in one.title]
    if not found:
        pytest.skip(f"no process called like {title}: {[one.title for one in server.processes()]}")
    os.kill(found[0].pid, signal.SIGKILL)

    def plays() -> bool:
        try:
            with viewer(server):
                return b"live" in server.get("/json_live.js") or True
        except (OSError, Refused):
            return False

    wait_until(plays, 15, "both ports")
    sender.close()


def test_server_killed_and_started_again(make_server: MakeServer) -> None:
    """After SIGKILL of the main process, all others end by themselves, and the same instance starts again on the same ports."""
    server = make_server()
    sender = Sender(server)
    sender.send([n * FRAME_MS for n in range(20)], headers=True)
    os.kill(server.pid, signal.SIGKILL)
    wait_until(lambda: not server.processes(), 10, "the end of every process")
    sender.close()
    server.restart()
    again = _publish_again(server)
    again.send([n * FRAME_MS for n in range(20)], headers=True)
    again.close()


def test_sigterm_with_viewers_and_publishers(
    make_server: MakeServer, publish: Publish, start_program: StartProgram
) -> None:
    """SIGTERM with everything busy ends everything in 5 s; the fixture checks that nothing is left."""
    server = make_server()
    publish(server, LOOP, loop=True)
    server.wait_tracks(2)
    for output in ("flv", "ts", "mp4"):
        start_program(["curl", "-sN", "-o", "/dev/null", server.play_url(output)])
    with viewer(server) as seen:
        wait_until(lambda: len(seen) > 20, 10, "media at the viewer")
        server.stop()


def test_ffmpeg_publisher_killed_and_back(make_server: MakeServer, publish: Publish, tmp_path: Path) -> None:
    """An encoder that is killed without goodbye and started again: a viewer of each format sees rising times."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 6}})
    first = publish(server, LOOP, loop=True)
    server.wait_tracks(2)
    with ThreadPoolExecutor(3) as pool:
        tasks = {one: pool.submit(play, server, one, "live", tmp_path / one) for one in ("flv", "ts", "mp4")}
        wait_until(
            lambda: all((tmp_path / one).exists() and (tmp_path / one).stat().st_size for one in tasks), 10, "viewers"
        )
        time.sleep(3)  # some media before the break
        first.kill()
        second = publish(server, LOOP, loop=True)
        time.sleep(5)  # and some after
        assert second.process.poll() is None, second.output
        second.kill()
        for output, task in tasks.items():
            _assert_media_rises(output, task.result(30))


def _assert_media_rises(output: str, media: SeenMedia) -> None:
    for kind in ("video", "audio"):
        times = [one.dts_us for one in media.of(kind)]
        assert all(b > a for a, b in pairwise(times)), f"{output} {kind}: times go back"
        assert times[-1] - times[0] > 5_000_000, f"{output} {kind}: only {(times[-1] - times[0]) / 1e6:.1f} s"


def test_reading_stays_possible_after_a_restart(server: MistServer, publish: Publish) -> None:
    """Two whole publishings one after the other, with the stream's end between them."""
    for _ in range(2):
        publisher = publish(server, Sample("short", seconds=3))
        server.wait_tracks(2)
        assert read_media(server.play_url("flv")).of("video")
        publisher.wait(10)
        server.wait_log("ends", 10)

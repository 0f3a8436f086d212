"""Publishers that come back, die, or jump in time; and every kind of process killed: the rest goes on, and so do the viewers."""

from __future__ import annotations

import os
import resource
import signal
import socket
import struct
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests.conftest import StartProgram
from tests.integration.conftest import MakeServer, Publish, SendTo
from tests.support.live import FRAME_MS, Sender, assert_rising, marks, send_when_free, viewer, wait_mark
from tests.support.media import BFRAMES, Sample
from tests.support.packets import SeenMedia, read_media
from tests.support.players import play
from tests.support.processes import descriptors, look, wait_until
from tests.support.rtmp_peer import AUDIO, VIDEO, Refused, RtmpPeer
from tests.support.server import MistServer

LOOP = Sample("loop", BFRAMES, seconds=25, rate="30")


@pytest.mark.parametrize(
    ("what", "second"),
    [
        ("jump ahead", [400_000_000 + n * FRAME_MS for n in range(50)]),
        ("back to zero", [n * FRAME_MS for n in range(50)]),
        ("back an hour", [7_200_000 - 3_600_000 + n * FRAME_MS for n in range(50)]),
    ],
)
def test_times_that_jump_are_repaired(server: MistServer, what: str, second: list[int], send_to: SendTo) -> None:
    start = 7_200_000
    sender = send_to(server)
    sender.send([start + n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        sender.send([start + (50 + n) * FRAME_MS for n in range(20)])
        mark = len(server.log)
        sender.send(second)
        wait_mark(seen, sender.number - 1)
        assert_rising(seen)
        server.wait_log(lambda line: "jump" in line or "back" in line, start=mark)
    sender.close()


def test_32_bit_times_wrap(server: MistServer, send_to: SendTo) -> None:
    """RTMP's clock starts again after 49.7 days: nothing is to be repaired, and nothing is logged."""
    start = 2**32 - 60 * FRAME_MS
    sender = send_to(server)
    sender.send([start + n * FRAME_MS for n in range(40)], headers=True)
    with viewer(server) as seen:
        mark = len(server.log)
        sender.send([(start + (40 + n) * FRAME_MS) & 0xFFFFFFFF for n in range(60)])
        wait_mark(seen, sender.number - 1)
        assert_rising(seen)
        assert not [line for line in server.log[mark:] if "jump" in line]
    sender.close()


def test_equal_times_still_rise(server: MistServer, send_to: SendTo) -> None:
    """A sender that gives two pictures one time (some phones do) must not make time stand still for the others."""
    sender = send_to(server)
    sender.send([n // 2 * 2 * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        sender.send([n // 2 * 2 * FRAME_MS for n in range(60, 120)])
        wait_mark(seen, sender.number - 1)
        stamps = [stamp for _, stamp in marks(seen, VIDEO)]
        assert all(b >= a for a, b in pairwise(stamps))
    sender.close()


@pytest.mark.parametrize("how", ["goodbye", "close"])
def test_a_publisher_that_comes_back_at_once_is_welcome(make_server: MakeServer, how: str) -> None:
    """Whoever stops an encoder and starts it again must not be told that the name is in use, by itself."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 20}})
    for _ in range(10):
        with RtmpPeer(server.rtmp_port) as peer:
            peer.publish("live")
            peer.send_headers()
            peer.send_video(0, b"picture", key=True)
            if how == "goodbye":
                peer.command("FCUnpublish", None, "live")
                peer.command("deleteStream", None, peer.stream_id)


def test_a_second_publisher_is_told_that_there_is_one(make_server: MakeServer, send_to: SendTo) -> None:
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 20}})
    first = send_to(server)
    first.send([n * FRAME_MS for n in range(30)], headers=True)
    with viewer(server) as seen:
        with RtmpPeer(server.rtmp_port) as second:
            second.connect("live")
            second.stream_id = int(second.call("createStream", None)[1])
            second.command("publish", None, "live", "live", stream_id=second.stream_id)
            first.send([n * FRAME_MS for n in range(30, 60)])
            with pytest.raises(Refused, match="already has a publisher"):
                second.wait_status("NetStream.Publish.Start")
        first.send([n * FRAME_MS for n in range(60, 90)])
        wait_mark(seen, 89)


@pytest.mark.parametrize("how", ["goodbye", "close", "kill"])
def test_viewers_stay_while_a_publisher_restarts(make_server: MakeServer, how: str, send_to: SendTo) -> None:
    """The second publisher starts its clock at zero again; the viewer's goes on."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 20}})
    first = send_to(server)
    first.send([n * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        first.send([n * FRAME_MS for n in range(60, 90)])
        wait_mark(seen, first.number - 1)
        if how == "goodbye":
            first.peer.command("deleteStream", None, first.peer.stream_id)
        elif how == "kill":
            _reset(first)
        first.close()
        second = send_when_free(lambda: send_to(server))
        second.number = 1000
        second.send([n * FRAME_MS for n in range(60)], headers=True, pace_s=0.02)
        wait_mark(seen, 1059)
        stamps = [stamp for _, stamp in marks(seen, VIDEO)]
        assert all(b > a for a, b in pairwise(stamps))
        assert [n for n, _ in marks(seen, VIDEO) if n >= 1000] == list(range(1000, 1060))
    second.close()


def _reset(sender: Sender) -> None:
    """Make the kernel answer with a reset instead of a polite end."""
    sender.peer.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


def test_second_publisher_is_refused(server: MistServer, send_to: SendTo) -> None:
    """The first goes on undisturbed, and the second is told why."""
    first = send_to(server)
    first.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        with RtmpPeer(server.rtmp_port) as second, pytest.raises(Refused, match=r"NetStream\.Publish"):
            second.publish("live")
        first.send([n * FRAME_MS for n in range(50, 80)])
        wait_mark(seen, first.number - 1)
        assert_rising(seen)
    first.close()


def test_second_publisher_takes_over(make_server: MakeServer, send_to: SendTo) -> None:
    """With the stream's option, the newest wins: the first is cut off, and the viewers stay."""
    server = make_server(streams={"live": {"source": "push://", "publisher": "takeover", "inputtimeout": 20}})
    first = send_to(server)
    first.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        second = send_to(server)
        second.number = 1000
        second.send([n * FRAME_MS for n in range(50)], headers=True, pace_s=0.02)
        wait_mark(seen, 1049)
    with pytest.raises(OSError):
        for n in range(200):
            first.send([10_000 + n * FRAME_MS])
    first.close()
    second.close()


@pytest.mark.parametrize("together", [False, True], ids=["in turn", "at once"])
def test_a_second_stream_on_a_connection_is_answered(server: MistServer, together: bool) -> None:
    """As librtmp sends it: the server says that another connection is needed, which is taken at once."""
    with RtmpPeer(server.rtmp_port) as peer:
        peer.publish("live")
        peer.send_headers()
        peer.command("FCUnpublish", None, "live")
        peer.command("deleteStream", None, peer.stream_id)
        if not together:
            peer.wait_status("NetStream.Unpublish.Success")
            peer.call("releaseStream", None, "live")
            peer.stream_id = int(peer.call("createStream", None)[-1])
        peer.command("publish", None, "live", "live", stream_id=peer.stream_id)
        with pytest.raises(Refused, match="connect again"):
            peer.wait_status("NetStream.Publish.Start")
    sender = send_when_free(lambda: Sender(server))
    sender.send([0, FRAME_MS], headers=True)
    sender.close()


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


def views(server: MistServer) -> int:
    """Return how often the stream was watched."""
    count: int = server.api({"active_streams": {"longform": True}})["active_streams"]["live"]["views"]
    return count


def test_controller_killed(make_server: MakeServer, send_to: SendTo) -> None:
    """Viewers and publisher do not notice, new ones come meanwhile, and the next controller knows what the former knew."""
    server = make_server()
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)

    def sent() -> int:
        """Return what the sessions of the viewers have got, in bytes."""
        rows = server.api({"clients": {"fields": ["protocol", "up"]}}, timeout_s=15)["clients"]["data"] or []
        return sum(row[1] for row in rows if row[0] == "RTMP")

    sender.keep_sending()
    with viewer(server) as seen:
        wait_until(sent, 10, "figures")
        server.api({"addstream": {"unsaved": {"source": "push://"}}})
        time.sleep(1.2)  # what is written is at most this old
        before, lines = sent(), server.api({"log": True})["log"]
        old = _kill(server, "mist: controller")
        with viewer(server):
            wait_mark(seen, sender.number + 50)
        assert_rising(seen)
        reply = server.api({"streams": True, "log": True})
        wait_until(lambda: sent() >= before and views(server) == 2, 10, "what the former controller had counted")
        assert "unsaved" in reply["streams"]
        assert lines[0] in reply["log"]
        assert not [line for line in server.log if "ended after" in line]
        _comes_back(server, "mist: controller", old)
    sender.close()


def test_input_killed(make_server: MakeServer, send_to: SendTo) -> None:
    """The stream, its viewers and its publisher stay."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 20}})
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        _kill(server, "mist: input live")
        sender.send([n * FRAME_MS for n in range(60, 120)], pace_s=0.02)
        wait_mark(seen, 119)
        sender.close()


def _busy_workers(server: MistServer) -> list[int]:
    return [one.pid for one in server.processes_titled("mist: output RTMP (") if "(0 " not in one.title]


def test_output_worker_killed(server: MistServer, send_to: SendTo) -> None:
    """Only that worker's viewers are cut off; new ones are served at once, and the stream goes on."""
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen, viewer(server) as other:
        wait_until(lambda: len(_busy_workers(server)) >= 2, 10, "two workers with a connection each")
        os.kill(_busy_workers(server)[0], signal.SIGKILL)
        sender.send([n * FRAME_MS for n in range(50, 100)])
        wait_until(
            lambda: marks(seen, VIDEO)[-1][0] == 99 or marks(other, VIDEO)[-1][0] == 99, 10, "one viewer goes on"
        )
        with viewer(server) as new:
            sender.send([n * FRAME_MS for n in range(100, 150)])
            wait_mark(new, 149)
    sender.close()


@pytest.mark.parametrize("title", ["mist: guardian HTTP", "mist: guardian RTMP"])
def test_listener_guardian_killed(server: MistServer, title: str, send_to: SendTo) -> None:
    """The port is served again, and the other protocol never notices."""
    sender = send_to(server)
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


def _pids(server: MistServer, *titles: str) -> dict[str, list[int]]:
    return {title: [one.pid for one in server.processes_titled(f"mist: {title}")] for title in titles}


def test_server_killed_and_started_again(make_server: MakeServer, send_to: SendTo) -> None:
    """After SIGKILL of the main process all others go on, and the next main process of the instance takes them over."""
    server = make_server()
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        kept = ("controller", "guardian HTTP", "guardian RTMP", "guardian input live", "input live")
        before = _pids(server, *kept)
        server.api({"addstream": {"unsaved": {"source": "push://"}}})
        os.kill(server.pid, signal.SIGKILL)
        wait_mark(seen, sender.number + 5)
        server.restart()
        assert _pids(server, *kept) == before
        wait_mark(seen, sender.number + 5)
        assert_rising(seen)
        with viewer(server):
            assert "unsaved" in server.api({"streams": True})["streams"]
        os.kill(before["guardian RTMP"][0], signal.SIGKILL)
        _comes_back(server, "mist: guardian RTMP", before["guardian RTMP"][0])
        with viewer(server):
            pass
        _comes_back(server, "mist: controller", before["controller"][0])  # as nobody is connected to its API
        assert "unsaved" in server.api({"streams": True})["streams"]
    sender.close()


def test_stop_ends_a_worker_that_no_guardian_has(make_server: MakeServer, send_to: SendTo) -> None:
    """A worker of a former main process, hung while its guardian was killed, does not outlive the server."""
    server = make_server()
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server):
        [guardian] = _pids(server, "guardian RTMP")["guardian RTMP"]
        workers = [one.pid for one in server.processes() if one.parent == guardian]
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
        for pid in workers:
            os.kill(pid, signal.SIGSTOP)
        os.kill(guardian, signal.SIGKILL)
        _comes_back(server, "mist: guardian RTMP", guardian)
        assert workers
        server.stop()  # sees that nothing is left


def test_main_process_and_guardians_killed_together(make_server: MakeServer, send_to: SendTo) -> None:
    """What is left, an input and the workers, finds new guardians under a new main process; one that hangs is replaced."""
    server = make_server()
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        [pid] = _pids(server, "input live")["input live"]
        [hung] = server.processes_titled("mist: guardian HTTP")
        os.kill(hung.pid, signal.SIGSTOP)
        mark = len(server.log)
        for one in (server.pid, *(one.pid for one in server.processes_titled("mist: guardian") if one != hung)):
            os.kill(one, signal.SIGKILL)
        server.restart()
        server.wait_log(lambda line: f"({pid}) " in line and "Goes on under another guardian" in line, start=mark)
        assert hung.pid not in [one.pid for one in server.processes()]
        assert server.get("/json_live.js")
        wait_mark(seen, sender.number + 10)
        assert_rising(seen)
        with viewer(server):
            pass
        # Nobody has asked for other processes, so those that are left give way once the new main process has settled, in turns.
        replaced = "Another process goes on with the source"
        server.wait_log(replaced, 60, start=mark)
        runs, gave_way = (
            next(n for n, line in enumerate(server.log[mark:]) if text in line)
            for text in (f"runs, process {server.pid}", replaced)
        )
        assert runs < gave_way
        wait_mark(seen, sender.number + 10)
        assert_rising(seen)
    sender.close()


def test_killed_processes_leave_nothing(make_server: MakeServer, send_to: SendTo) -> None:
    """After each kind of kill: no zombie, no doorbell, no descriptor in those that stay, no memory of who is gone."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 30}})
    kinds = ("controller", "guardian HTTP", "guardian RTMP", "guardian input live", "input live", "output RTMP (1")

    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(20)], headers=True)
    with viewer(server):
        server.api({"authorize": {}})
        before = len(descriptors(server.pid))
        for title in kinds:
            found = wait_until(lambda title=title: server.processes_titled(f"mist: {title}"), 8, title)  # type: ignore[misc]
            os.kill(found[0].pid, signal.SIGKILL)
            wait_until(lambda pid=found[0].pid: look(pid) is None, 8, f"the end of {title}")  # type: ignore[misc]
    sender.close()

    def settled() -> bool:
        living = {one.pid for one in server.processes()}
        named = {int(path.name) for folder in ("bell", "span") for path in (server.runtime_folder / folder).iterdir()}
        named |= {int(name.rpartition("#")[2]) for name in server.shared_memory() if "#" in name}
        return named <= living and len(descriptors(server.pid)) <= before

    wait_until(settled, 25, "no trace of the dead")


def test_a_worker_that_hangs_when_its_guardian_dies_is_killed(make_server: MakeServer, send_to: SendTo) -> None:
    """Nobody watches over it any more. Its viewers are told by the end of their connections, and come again."""
    server = make_server(env={"MIST_REJOIN_SECONDS": "3"})
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    address = ("127.0.0.1", server.http_port)
    with socket.create_connection(address) as watching:
        watching.sendall(b"GET /live.flv HTTP/1.1\r\nHost: here\r\n\r\n")
        watching.settimeout(30)
        assert watching.recv(100).startswith(b"HTTP/1.1 200")
        title = "mist: output HTTP (1 "
        [worker] = wait_until(lambda: server.processes_titled(title), 5, title)
        [guardian] = server.processes_titled("mist: guardian HTTP")
        os.kill(worker.pid, signal.SIGSTOP)
        os.kill(guardian.pid, signal.SIGKILL)
        wait_until(lambda: look(worker.pid) is None, 15, "the end of the worker")
        with suppress(ConnectionResetError):
            while watching.recv(65536):
                pass
    with socket.create_connection(address) as watching:
        watching.sendall(b"GET /live.flv HTTP/1.1\r\nHost: here\r\n\r\n")
        watching.settimeout(30)
        assert watching.recv(100).startswith(b"HTTP/1.1 200")
    sender.close()


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
        mark = len(server.log)
        publisher = publish(server, Sample("short", seconds=3))
        server.wait_tracks(2)
        assert read_media(server.play_url("flv")).of("video")
        publisher.wait(10)
        server.wait_log("Stream ended", 10, start=mark)


SMALL_MEMORY = ("unshare", "-m", "sh", "-c", 'mount -t tmpfs -o size=24m tmpfs /dev/shm && exec "$@"', "sh")


def _fill(server: MistServer) -> Path:
    """Leave no room in a server's shared memory; returns the file that took it."""
    filler = Path(f"/proc/{server.pid}/root/dev/shm/filler")
    with pytest.raises(OSError, match="No space left"), filler.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return filler


@pytest.mark.root
def test_a_publisher_that_shared_memory_has_no_room_for_comes_back_later(
    make_server: MakeServer, send_to: SendTo
) -> None:
    """Its stream stops and it is told why, also when it tries again too early; everybody else goes on, new viewers later."""
    server = make_server(
        streams={"live": {"source": "push://", "inputtimeout": 30}, "small": {"source": "push://"}}, wrap=SMALL_MEMORY
    )
    small, large = send_to(server, "small"), send_to(server, "live")
    for sender in (small, large):
        sender.send([n * FRAME_MS for n in range(30)], headers=True)
    small.keep_sending()
    with viewer(server, "small") as others, viewer(server, "live") as seen:
        wait_mark(seen, large.number - 1)
        filler = _fill(server)
        with pytest.raises(OSError):
            for n in range(30, 2000):
                large.peer.send_video(n * FRAME_MS, bytes(100_000), key=n % 25 == 0)
        server.wait_log(lambda line: "input RTMP:live" in line and "free /dev/shm" in line)
        for _ in range(2):
            with pytest.raises(Refused, match="free /dev/shm"):
                send_to(server, "live")
        wait_mark(others, small.number + 10)
        filler.unlink()
        again = send_to(server, "live")
        again.number = 1000
        again.send([n * FRAME_MS for n in range(30)], headers=True)
        wait_mark(seen, again.number - 1, 30)
        with viewer(server, "live"):
            wait_mark(others, small.number + 10)
        assert_rising(others)
    for sender in (small, large, again):
        sender.close()


@pytest.mark.root
def test_a_worker_dies_while_shared_memory_is_full(make_server: MakeServer, send_to: SendTo) -> None:
    """Its viewers wait for room, and go on then."""
    server = make_server(wrap=SMALL_MEMORY)
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        wait_mark(seen, sender.number - 1)
        filler = _fill(server)
        for worker in server.processes_titled("mist: output RTMP ("):
            os.kill(worker.pid, signal.SIGKILL)
        server.wait_log("The connections of another worker wait", 30)
        filler.unlink()
        sender.send([n * FRAME_MS for n in range(50, 100)])
        wait_mark(seen, sender.number - 1, 30)
        assert_rising(seen)


def test_a_worker_that_may_have_no_more_memory_gives_its_viewers_to_another(
    server: MistServer, send_to: SendTo
) -> None:
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    with viewer(server) as seen:
        wait_mark(seen, sender.number - 1)
        title = "mist: output RTMP (1 "  # which changes at most once a second
        [worker] = wait_until(lambda: server.processes_titled(title), 5, title)
        now = int(Path(f"/proc/{worker.pid}/statm").read_text().split()[0]) * resource.getpagesize()
        resource.prlimit(worker.pid, resource.RLIMIT_AS, (now, now))
        mark = len(server.log)
        for number in range(50, 2000):  # until it has to map another page of the track
            media = f"<{number:08d}>".encode() + bytes(50_000)
            sender.peer.send_video(number * FRAME_MS, media, key=number % 25 == 0)
            time.sleep(0.005)  # the network's pace
            if any("has no memory left" in line for line in server.log[mark:]):
                break
        server.wait_log("has no memory left", start=mark)
        wait_mark(seen, number, 30)
        assert_rising(seen)

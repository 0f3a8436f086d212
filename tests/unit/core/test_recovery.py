"""Another process goes on: viewers of a process that is killed at a random moment get every byte once."""

from __future__ import annotations

import os
import random
import resource
import signal
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.core.arena import adopt_arena
from mist.core.checkpoint import CheckpointTable, Record, create_checkpoints, open_checkpoints
from mist.core.fanout import Fanout
from mist.core.flv import FlvMuxer
from mist.core.kernel_counts import received_bytes, sent_bytes, skip_received
from mist.core.subscription import Subscription
from mist.core.ts_mux import TsMuxer
from mist.errors import LimitExceededError, MistError
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo
from mist.stream.reader import StreamReader
from mist.stream.state import StreamStatus
from tests.support.shared_memory import make_publisher, shared_instance, write_frames

AVCC = bytes.fromhex("0164001fffe1001b6764001facd9405005bb016a02020280000003008000001e078c18cb01000568ebecb22c")
TRACKS = [
    TrackInfo(VIDEO, H264, AVCC, track_id=1, width=1280, height=720),
    TrackInfo(AUDIO, AAC, b"\x11\x90", track_id=2, sample_rate_hz=48000, channels=2),
]
KILLS = 60
FRAMES = 220  # less than the time after which a viewer that is behind skips


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        one = socket.create_connection(listener.getsockname())
        other, _ = listener.accept()
    other.setblocking(False)
    return one, other


@pytest.fixture
def table() -> Iterator[CheckpointTable]:
    name = f"mist-recovery-{os.getpid()}"
    yield create_checkpoints(name)
    Path("/dev/shm", name).unlink()


def record_of(table: CheckpointTable, sock: socket.socket, number: int = 1) -> Record:
    record = table.claim("FLV", "10.0.0.1")
    record.set_connection(number)
    record.follow_socket(sock.fileno())
    return record


def test_what_the_kernel_counts() -> None:
    peer, ours = tcp_pair()
    with peer, ours:
        sent, received = sent_bytes(ours.fileno()), received_bytes(ours.fileno())
        ours.send(b"x" * 1000)
        peer.sendall(b"y" * 700)
        peer.recv(400)
        assert len(ours.recv(700, socket.MSG_PEEK | socket.MSG_WAITALL)) == 700
        assert sent_bytes(ours.fileno()) - sent == 1000
        assert received_bytes(ours.fileno()) == received
        skip_received(ours.fileno(), 300)
        assert received_bytes(ours.fileno()) - received == 300
        peer.shutdown(socket.SHUT_WR)  # what a peer says last counts as a byte in the kernel, but is none
        while ours.recv(1000, socket.MSG_PEEK) != b"y" * 400:
            pass
        skip_received(ours.fileno(), 400)
        assert ours.recv(1) == b""
        assert received_bytes(ours.fileno()) - received == 700


def test_a_progress_holds_as_a_whole(table: CheckpointTable) -> None:
    peer, ours = tcp_pair()
    with peer, ours:
        record = record_of(table, ours)
        body = os.urandom(100_000)
        record.save(5, 7, [b"head", body], b"state", between=b"later", arena=3, position=9, flags=1)
        record.save(6, 8, [b"other"])
        assert record.progress() == (6, 8, b"other", b"state", b"", 0, 0, 0)
        for size in (0, 1, 255, 256, 257, 70_000):
            record.save(1, 1, [bytes(size)], b"s" * size)
            assert open_checkpoints(table.name).recoverable()[1].progress()[2:4] == (bytes(size), b"s" * size)


def in_use(table: CheckpointTable) -> int:
    return os.stat(f"/dev/shm/{table.name}").st_blocks * 512


def test_what_many_send_is_kept_once_and_for_the_next(table: CheckpointTable) -> None:
    """As long as somebody else has it, so the next viewer of a segment spares itself the copy; up to a bound."""
    pairs = [tcp_pair() for _ in range(2)]
    records = [record_of(table, ours, number) for number, (_, ours) in enumerate(pairs)]
    before = in_use(table)
    segments = [os.urandom(1 << 20) for _ in range(40)]
    for record in records:
        record.save(0, 0, [b"head", segments[0]])
    once = in_use(table)
    assert once - before < 1.1 * len(segments[0])
    for record in records:
        record.save(9, 0, [])
    assert in_use(table) == once
    records[0].save(9, 0, [segments[0]])
    assert in_use(table) == once
    assert records[0].progress()[:3] == (9, 0, segments[0])
    for segment in segments:
        records[1].save(9, 0, [segment])
        records[1].save(9, 0, [])
    assert before + 15 * len(segments[0]) < in_use(table) < before + 20 * len(segments[0])
    assert records[0].progress()[2] == segments[0]
    for pair in pairs:
        for sock in pair:
            sock.close()


def test_what_nobody_sends_is_given_back(table: CheckpointTable) -> None:
    """But for a little, which the next string is written into."""
    peer, ours = tcp_pair()
    with peer, ours:
        record = record_of(table, ours)
        before = in_use(table)
        record.save(0, 0, [os.urandom(4 << 20)])
        assert in_use(table) > before + (4 << 20) - 1
        record.save(1, 0, [])
        assert in_use(table) <= before + (1 << 16)
        body = os.urandom(4 << 20)
        for _ in range(3):  # nothing of it could be sent meanwhile
            record.save(0, 0, [body])
        record.save(1, 0, [])
        del body
        record.save(0, 0, [b"y" * 100_000])
        record.save(1, 0, [])
        assert in_use(table) <= before + (1 << 18)
        for size in (40_000, 100_000, 1 << 20):
            record.save(0, 0, [os.urandom(size), os.urandom(size)])
            once = in_use(table)
            record.save(1, 0, [])
            body = os.urandom(size)
            record.save(0, 0, [body])
            assert in_use(table) <= once and record.progress()[2] == body
            record.save(1, 0, [])
        assert in_use(table) <= before + (2 << 20) + (1 << 18)


def test_without_memory_a_connection_cannot_be_recovered(table: CheckpointTable) -> None:
    peer, ours = tcp_pair()
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    with peer, ours:
        record = record_of(table, ours)
        record.save(0, 0, [b"x" * 100_000])
        taken = in_use(table)
        ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limit[1]))  # the second write of a string gets an error
        try:
            record.save(0, 0, [b"x" * 100_000, os.urandom(1 << 20)])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limit)
            signal.signal(signal.SIGXFSZ, ignored)
        assert not record.recoverable
        record.close()
        assert in_use(table) <= taken + (1 << 18)
        other = record_of(table, ours, 2)
        other.save(0, 0, [b"z" * (1 << 20)])
        assert other.progress()[2] == b"z" * (1 << 20)


def test_a_record_moves_with_its_figures(table: CheckpointTable) -> None:
    peer, ours = tcp_pair()
    with peer, ours:
        record = record_of(table, ours)
        record.set_stream("live")
        record.add_bytes(1000, 50)
        record.save(1000, 50, [b"more"], b"state")
        before = table.snapshot()[0]
        name = f"mist-recovery-heir-{os.getpid()}"
        heirs = create_checkpoints(name)
        try:
            heir = heirs.claim("", "")
            heir.adopt(open_checkpoints(table.name).recoverable()[1])
            [after] = heirs.snapshot()
            assert after[3:] == before[3:]
            assert heir.progress()[:4] == (1000, 50, b"more", b"state")
            assert table.snapshot() == []
        finally:
            Path("/dev/shm", name).unlink()


def test_an_arena_of_something_else_is_refused() -> None:
    fd = os.memfd_create("other")
    with pytest.raises(MistError):
        adopt_arena(fd)


def test_a_socket_that_is_not_tcp_cannot_be_recovered(table: CheckpointTable) -> None:
    one, other = socket.socketpair()
    with one, other:
        assert not record_of(table, one).recoverable


def serve(instance: str, folder: Path, name: str, muxer: type, socks: list[socket.socket], said: socket.socket) -> None:
    """Be the first process: join, and send until killed."""
    folder.mkdir()
    fanout = Fanout(str(folder), 0)
    fanout.arena_made = lambda number, fd: socket.send_fds(said, [number.to_bytes(8, "big")], [fd])
    table = create_checkpoints(name)
    reader = StreamReader(instance, "live")
    viewers: list[Subscription] = []
    for number, sock in enumerate(socks, 1):
        record = table.claim("FLV", "")
        record.set_connection(number)
        record.follow_socket(sock.fileno())
        viewers.append(
            fanout.join(
                reader,
                [0, 1],
                "flv",
                muxer,
                sock.detach(),
                b"HEAD",
                record=record,
                state=b"s",
                on_close=lambda reason: None,
            )
        )
    said.send(b"ready")
    spoken = 0
    while True:
        fanout.run()
        spoken += 1
        if spoken % 5 == 0:
            try:
                viewers[1].send(b"<%06d>" % (spoken % 1_000_000))
            except LimitExceededError:
                pass


@pytest.mark.parametrize("muxer", [FlvMuxer, TsMuxer])
def test_killed_at_a_random_moment(tmp_path: Path, muxer: type) -> None:
    """Three viewers: one that reads at once, one that is told things between the packets, one that reads slowly."""
    chance = random.Random(muxer.__name__)
    lengths = {killed_once(tmp_path / str(number), muxer, chance) for number in range(KILLS // 2)}
    assert len(lengths) == 1
    assert lengths.pop() > 500 * FRAMES


def killed_once(folder: Path, muxer: type, chance: random.Random) -> int:
    """Return how many bytes a viewer got."""
    folder.mkdir()
    name = f"mist-recovery-kill-{os.getpid()}"
    with shared_instance() as instance:
        publisher = make_publisher(instance, folder)
        tracks = [publisher.add_track(info) for info in TRACKS]
        publisher.set_status(StreamStatus.READY)
        write_frames(publisher, *tracks, range(30))
        pairs = [tcp_pair() for _ in range(3)]
        pairs[2][1].setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)
        heard, said = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        pid = os.fork()
        if pid == 0:
            try:
                serve(instance, folder / "first", name, muxer, [ours for _, ours in pairs], said)
            finally:
                os._exit(1)
        said.close()
        arenas = []
        while True:
            message, fds, _, _ = socket.recv_fds(heard, 64, 1)
            assert message, "the process failed"
            if message == b"ready":
                break
            arenas += fds
        got = [bytearray() for _ in pairs]
        readers = [
            threading.Thread(target=read_all, args=(peer, data), daemon=True)
            for (peer, _), data in zip(pairs, got, strict=True)
        ]
        for thread in readers[:2]:
            thread.start()
        killed_at = chance.randrange(30, FRAMES)
        write_frames(publisher, *tracks, range(30, killed_at))
        for _ in range(chance.randrange(3000)):
            pass
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        readers[2].start()
        write_frames(publisher, *tracks, range(killed_at, FRAMES))
        (folder / "second").mkdir()
        fanout = Fanout(str(folder / "second"), 0)
        table = open_checkpoints(name)
        former = table.recoverable()
        reader = StreamReader(instance, "live")
        fanout.adopt_arena(reader, arenas[0], "flv", [0, 1], muxer, TrackInfo, None)
        heirs = create_checkpoints(name + "h")
        for number, (_, ours) in enumerate(pairs, 1):
            record = heirs.claim("", "")
            record.adopt(former[number])
            fanout.adopt(ours.detach(), record, on_close=lambda reason: None)
        publisher.set_status(StreamStatus.OFF)
        while len(fanout):
            fanout.run()
        for thread in readers:
            thread.join(20)
        fanout.close()
        check(got)
        for (peer, _), one in zip(pairs, (name, name + "h", ""), strict=True):
            peer.close()
            if one:
                Path("/dev/shm", one).unlink()
        heard.close()
    return len(got[0])


def read_all(peer: socket.socket, data: bytearray) -> None:
    while part := peer.recv(65536):
        data += part


def check(got: list[bytearray]) -> None:
    """All viewers began at the same key: they have the same bytes, but for what one of them was told between two packets."""
    fast, told, slow = (bytes(data) for data in got)
    assert fast[:4] == b"HEAD"
    assert slow == fast
    spoken = []
    while (at := told.find(b"<0")) >= 0 and told[at + 7 : at + 8] == b">":
        spoken.append(int(told[at + 1 : at + 7]))
        told = told[:at] + told[at + 8 :]
    assert spoken == sorted(set(spoken))
    assert told == fast

"""Many streams at once: each costs the same, whatever the number, and nothing is left when they end."""

from __future__ import annotations

from contextlib import ExitStack, closing
from functools import partial

import pytest

from tests.integration.conftest import MakeServer, SendTo
from tests.support.live import FRAME_MS, Sender, send_when_free, viewer
from tests.support.processes import descriptors, wait_until, written_kib
from tests.support.rtmp_peer import Message

MANY = 60
WORKERS = 8  # that came meanwhile, and stay
KIB_A_STREAM = 16 * 1024


def _arrived(seen: list[Message], mark: bytes) -> bool:
    return any(mark in one.payload for one in seen)


@pytest.mark.timeout(180)
def test_many_streams_run_side_by_side(make_server: MakeServer, send_to: SendTo) -> None:
    """Each gets its own media, memory and descriptors grow with their number only, and all goes back at their end."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 10}})
    main_before = len(descriptors(server.pid))
    before_kib = written_kib(one.pid for one in server.processes())
    with ExitStack() as stack:
        senders: list[Sender] = []
        for number in range(MANY):
            sender = stack.enter_context(closing(send_to(server, f"live+{number}")))
            sender.number = number * 1000 + number * 1000 % 10
            senders.append(sender)
        for sender in senders:
            sender.send([n * FRAME_MS for n in range(40)], headers=True, pace_s=0)
        used_kib = written_kib(one.pid for one in server.processes()) - before_kib
        assert used_kib / MANY < KIB_A_STREAM, f"{used_kib / MANY:.0f} KiB a stream"
        assert len(descriptors(server.pid)) - main_before <= 4 * MANY
        for number in (0, MANY // 2, MANY - 1):
            mark = f"<{number * 1000 + 79:08d}>".encode()
            with viewer(server, f"live+{number}") as seen:
                senders[number].send([n * FRAME_MS for n in range(40, 80)], pace_s=0)
                wait_until(partial(_arrived, seen, mark), 10, "media")
    wait_until(lambda: not server.processes_titled("mist: input"), 20, "the end of all inputs")
    wait_until(lambda: not [name for name in server.shared_memory() if ".live" in name], 25, "the end of all streams")
    wait_until(lambda: len(descriptors(server.pid)) <= main_before + WORKERS, 10, "the descriptors there were before")


@pytest.mark.timeout(180)
def test_one_stream_comes_and_goes(make_server: MakeServer, send_to: SendTo) -> None:
    """Thirty short lives of one stream leave no memory, process or descriptor behind."""
    server = make_server(streams={"live": {"source": "push://", "inputtimeout": 1}})

    def life() -> None:
        sender = send_when_free(lambda: send_to(server))
        sender.send([n * FRAME_MS for n in range(10)], headers=True, pace_s=0)
        sender.peer.command("deleteStream", None, sender.peer.stream_id)
        sender.close()
        wait_until(lambda: not server.processes_titled("mist: input live"), 10, "the end of the input")

    for _ in range(3):
        life()
    counted = [(one.pid, len(descriptors(one.pid))) for one in server.processes()]
    before_kib = written_kib(pid for pid, _ in counted)
    for _ in range(30):
        life()
    wait_until(lambda: len(server.processes()) <= len(counted) + 1, 10, "the processes there were")
    for pid, count in counted:
        assert len(descriptors(pid)) <= count + 3, f"descriptors of {pid} grow"
    assert written_kib(one.pid for one in server.processes()) - before_kib < 20 * 1024

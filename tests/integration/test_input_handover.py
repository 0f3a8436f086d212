"""Inputs are killed, crash and hang again and again; publishers keep their connections, and viewers get each packet once."""

from __future__ import annotations

import os
import signal
from itertools import pairwise

from tests.integration.conftest import MakeServer, Publish, SendTo
from tests.support.live import FRAME_MS, Sender, marks, viewer, wait_mark
from tests.support.media import Sample
from tests.support.processes import wait_until
from tests.support.rtmp_peer import VIDEO, Message
from tests.support.server import MistServer

BLOWS = (signal.SIGKILL, signal.SIGSEGV, signal.SIGKILL, signal.SIGKILL, signal.SIGSTOP, signal.SIGSEGV, signal.SIGKILL)


def input_of(server: MistServer, stream: str = "live") -> int:
    """Return the process of a stream's input, 0 while there is none."""
    found = server.processes_titled(f"mist: input {stream}")
    return found[0].pid if found else 0


def strike(server: MistServer, blow: int, stream: str = "live") -> None:
    """Kill or stop an input, and wait for the next one."""
    former = input_of(server, stream)
    os.kill(former, blow)
    wait_until(lambda: input_of(server, stream) not in (0, former), 15, "another input")


def test_each_packet_once(make_server: MakeServer, send_to: SendTo) -> None:
    server = make_server(streams={"live": {"source": "push://"}})
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        sender.keep_sending()
        for blow in BLOWS:
            number = sender.number
            strike(server, blow)
            wait_mark(seen, number + 10)
        sender.close()
        check_marks(seen, sender)
    assert len([line for line in server.log if "Stream is live" in line]) == 1


def check_marks(seen: list[Message], sender: Sender) -> None:
    """Fail unless a viewer has each packet once, at the distance in which they were sent."""
    found = marks(seen, VIDEO)
    numbers = [number for number, _ in found]
    assert numbers == list(range(numbers[0], numbers[-1] + 1))
    assert {second[1] - first[1] for first, second in pairwise(found)} == {FRAME_MS}
    assert numbers[-1] <= sender.number


def test_ffmpeg_does_not_notice(make_server: MakeServer, publish: Publish) -> None:
    server = make_server(streams={"live": {"source": "push://"}})
    sample = Sample("handover", seconds=8)
    running = publish(server, sample)
    server.wait_tracks(2)
    for _ in range(4):
        strike(server, signal.SIGKILL)
    assert running.process.wait(20) == 0, running.output


def test_a_guardian_and_then_an_input_killed(make_server: MakeServer, send_to: SendTo) -> None:
    """The next guardian holds the publisher's connection as well."""
    server = make_server(streams={"live": {"source": "push://"}})
    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(60)], headers=True)
    with viewer(server) as seen:
        sender.keep_sending()
        feeder = input_of(server)
        os.kill(server.processes_titled("mist: guardian input live")[0].pid, signal.SIGKILL)
        wait_until(lambda: "Goes on under another guardian" in "\n".join(server.log), 10, "the next guardian")
        number = sender.number
        wait_mark(seen, number + 10)
        assert input_of(server) == feeder
        strike(server, signal.SIGKILL)
        wait_mark(seen, sender.number + 10)
        sender.close()
        check_marks(seen, sender)

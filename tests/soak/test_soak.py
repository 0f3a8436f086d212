"""An hour of random kills while 10,000 connections come and go: memory, descriptors and processes stay what they were."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import pytest

from tests.recovery.stage import WAIT_S, Stage, kind_of
from tests.recovery.test_recovery import KINDS, STAYS
from tests.support.processes import pss_kib, wait_until

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
CONNECTIONS = 10_000 if MINUTES >= 60 else int(150 * MINUTES)
KILL_EVERY_S = 3.0
BRIEF_BYTES = 20_000
SETTLE_S = 120.0  # at most: a worker that is idle ends after a minute
BEGIN_S = 10.0
GROWTH = 1.15  # of memory, against what it was before anything was killed
# Half of it for those of a former main process that stay: they share what that one had with nobody else.
GROWTH_KIB = 40_000
EXTRA_DESCRIPTORS = 4
# At least: a guardian may be killed in the instant between taking a connection and noting whose it is.
KILLS_PER_RESET = 20
T = TypeVar("T")

pytestmark = pytest.mark.timeout(MINUTES * 60 + 900)

REQUESTS = (
    b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /live.ts HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /live.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /json_live.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /nothing.ts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /hls/live/index.m3u8 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /half",
)


def visit(stage: Stage, chance: random.Random) -> bool:
    """Connect, get a little, and leave, politely or not. Returns whether the server did not reset the connection."""
    port = chance.choice((stage.server.http_port, stage.server.http_port, stage.server.rtmp_port, stage.dtsc_port))
    try:
        with socket.create_connection(("127.0.0.1", port), WAIT_S) as sock:
            if port != stage.server.http_port:
                if chance.random() < 0.5:
                    sock.sendall(bytes(chance.randrange(1, 2000)))
                return True
            request = chance.choice(REQUESTS)
            sock.sendall(request)
            if request.endswith(b"\r\n\r\n"):
                assert sock.recv(BRIEF_BYTES), "a reply that is empty"
    except ConnectionResetError:
        return port != stage.server.http_port  # which the other two may do with what they were sent
    return True


def kill_any(stage: Stage, chance: random.Random) -> str:
    """Kill one process of a kind by chance."""
    kind, title = chance.choice([one for one in KINDS.items() if not one[0].startswith("push")])
    if title == "server":
        stage.kill_main_process()
    elif found := stage.processes(title):
        with suppress(ProcessLookupError):
            os.kill(chance.choice(found).pid, signal.SIGKILL)
    return kind


def memory_kib(stage: Stage) -> int:
    return pss_kib(one.pid for one in stage.server.processes())


def begin(stage: Stage) -> tuple[dict[str, int], int]:
    """Begin, with every process that there will ever be; returns what is held then, and the memory."""
    stage.begin()
    stage.call_trigger_process()
    time.sleep(BEGIN_S)  # buffers fill
    return stage.held(), memory_kib(stage)


def lasting(look: Callable[[], T]) -> T:
    """Return what is still found when it has had time to go."""
    with suppress(TimeoutError):
        wait_until(lambda: not look(), SETTLE_S, "nothing")
    return look()


def test_flat_for_long(capfd: pytest.CaptureFixture[str]) -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    stage = Stage()
    try:
        held, before_kib = begin(stage)
        begun, visits, resets, kills = time.monotonic(), 0, 0, 0
        while (elapsed := time.monotonic() - begun) < MINUTES * 60:
            if elapsed >= kills * KILL_EVERY_S:
                kill_any(stage, chance)
                kills += 1
            resets += not visit(stage, chance)
            visits += 1
            ahead = visits / CONNECTIONS * MINUTES * 60 - (time.monotonic() - begun)
            time.sleep(max(0.0, min(ahead, KILL_EVERY_S)))  # the visitors' pace
        stage.phase("end", lambda: 0, 1)  # everybody gets what is sent now
        most_kib = before_kib * GROWTH + GROWTH_KIB

        def grown() -> dict[str, tuple[int, int]]:
            now = {name: (held.get(name, 0), count) for name, count in stage.held().items()}
            return {name: pair for name, pair in now.items() if pair[1] > pair[0] + EXTRA_DESCRIPTORS}

        def too_large_kib() -> int:
            now_kib = memory_kib(stage)
            return now_kib if now_kib >= most_kib else 0

        left = [lasting(look) for look in (lambda: stage.of_former_main_processes() - STAYS, stage.strangers, grown)]
        lasting(too_large_kib)
        after_kib = memory_kib(stage)
        found = (
            f"{visits} connections, {resets} of them reset, {kills} kills, {before_kib} KiB before, {after_kib} KiB after, "
            f"seed {seed}"
        )
        with capfd.disabled():
            sys.stderr.write(f"\n{found}\n")
        wrong = {
            "left": [one for one in left if one],
            "KiB": after_kib if after_kib >= most_kib else 0,
            "resets": resets if resets > kills // KILLS_PER_RESET else 0,
            "closed": [f"{book.name}: {book.closed}" for book in stage.books if book.closed],
            "faults": [f"{book.name}: {book.faults[:3]}" for book in stage.books if book.faults],
        }
        assert {what: how for what, how in wrong.items() if how} == {}, found
        assert kind_of(stage.server.processes()[0].title), found
    finally:
        stage.end_viewers()
        stage.end()

"""An hour of random kills while 10,000 connections come and go: memory, descriptors and processes stay what they were."""

from __future__ import annotations

import os
import random
import signal
import socket
import sys
import time
from contextlib import suppress

import pytest

from tests.recovery.stage import Stage, kind_of
from tests.recovery.test_recovery import KINDS
from tests.support.processes import pss_kib, wait_until

MINUTES = float(os.environ.get("SOAK_MINUTES", "60"))
CONNECTIONS = 10_000 if MINUTES >= 60 else int(150 * MINUTES)
KILL_EVERY_S = 3.0
BRIEF_BYTES = 20_000
SETTLE_S = 40.0
GROWTH = 1.15  # of memory, against what it was when everything had been killed for the first time
GROWTH_KIB = 20_000
EXTRA_DESCRIPTORS = 4

pytestmark = pytest.mark.timeout(MINUTES * 60 + 300)

REQUESTS = (
    b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /live.ts HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /live.mp4 HTTP/1.1\r\nHost: localhost\r\n\r\n",
    b"GET /json_live.js HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /nothing.ts HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /hls/live/index.m3u8 HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n",
    b"GET /half",
)


def visit(stage: Stage, chance: random.Random) -> None:
    """Connect, get a little, and leave, politely or not."""
    port = chance.choice((stage.server.http_port, stage.server.http_port, stage.server.rtmp_port, stage.dtsc_port))
    with socket.create_connection(("127.0.0.1", port), 10) as sock:
        if port == stage.server.http_port:
            request = chance.choice(REQUESTS)
            sock.sendall(request)
            if request.endswith(b"\r\n\r\n"):
                assert sock.recv(BRIEF_BYTES), "a reply that is empty"
        elif chance.random() < 0.5:
            with suppress(ConnectionResetError):
                sock.sendall(bytes(chance.randrange(1, 2000)))


def kill_any(stage: Stage, chance: random.Random) -> str:
    """Kill one process of a kind by chance."""
    kind, title = chance.choice([one for one in KINDS.items() if not one[0].startswith("push")])
    if title == "server":
        os.kill(stage.server.pid, signal.SIGKILL)
        stage.server.restart()
    elif found := stage.processes(title):
        with suppress(ProcessLookupError):
            os.kill(chance.choice(found).pid, signal.SIGKILL)
    return kind


def memory_kib(stage: Stage) -> int:
    return pss_kib(one.pid for one in stage.server.processes())


def renew(stage: Stage) -> None:
    """Kill every process but the main one once, guardians first, so that each is one that comes from this main process.

    What main processes have in memory is shared with those that they forked and no others, so only such states compare.
    """
    for title in sorted(KINDS.values(), key=lambda title: not title.startswith("guardian")):
        if title != "server":
            stage.phase(title, lambda title=title: stage.strike(title, signal.SIGKILL), 1)  # type: ignore[misc]
    time.sleep(SETTLE_S / 4)  # the former ones' figures are kept for 10 s


def test_flat_for_long() -> None:
    seed = random.randrange(1 << 30)
    chance = random.Random(seed)
    stage = Stage()
    try:
        stage.begin()
        renew(stage)
        held, before_kib = stage.held(), memory_kib(stage)
        begun, visits, kills = time.monotonic(), 0, 0
        while (elapsed := time.monotonic() - begun) < MINUTES * 60:
            if elapsed >= kills * KILL_EVERY_S:
                kill_any(stage, chance)
                kills += 1
            visit(stage, chance)
            visits += 1
            ahead = visits / CONNECTIONS * MINUTES * 60 - (time.monotonic() - begun)
            time.sleep(max(0.0, min(ahead, KILL_EVERY_S)))  # the visitors' pace
        renew(stage)
        wait_until(lambda: not stage.strangers(), SETTLE_S, f"seed {seed}: {stage.strangers()}")

        def grown() -> dict[str, tuple[int, int]]:
            now = {name: (held.get(name, 0), count) for name, count in stage.held().items()}
            return {name: pair for name, pair in now.items() if pair[1] > pair[0] + EXTRA_DESCRIPTORS}

        wait_until(lambda: not grown(), SETTLE_S, f"seed {seed}: {grown()}")
        after_kib = memory_kib(stage)
        found = f"{visits} connections, {kills} kills, {before_kib} KiB before, {after_kib} KiB after, seed {seed}"
        sys.stderr.write(found + "\n")
        assert after_kib < before_kib * GROWTH + GROWTH_KIB, found
        assert [f"{book.name}: {book.closed}" for book in stage.books if book.closed] == [], found
        assert [f"{book.name}: {book.faults[:3]}" for book in stage.books if book.faults] == [], found
        assert kind_of(stage.server.processes()[0].title), found
    finally:
        stage.end_viewers()
        stage.end()

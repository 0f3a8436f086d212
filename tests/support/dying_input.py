"""An input of a publisher in one process after the other, each killed at an instant by chance, on a connection that stays."""

from __future__ import annotations

import asyncio
import logging
import os
import random
import selectors
import signal
import socket
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from mist.errors import MistError
from mist.net.receive_ring import create_ring
from mist.stream.publisher import Limits, StreamPublisher
from tests.support.rtmp_fakes import FakeInputServices

LONG_WINDOW = Limits(window_us=10**12)
PIECE_BYTES = 24 * 1024


def tcp_pair() -> tuple[socket.socket, socket.socket]:
    """Return both ends of a TCP connection over loopback."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        ours = socket.create_connection(listener.getsockname())
        theirs, _ = listener.accept()
    return ours, theirs


class DyingInput:
    """Runs an input until its publisher ends. kills: how many processes are killed first.

    heard: everything that the publisher was told. The stream's table must be there.
    """

    def __init__(
        self, run_input: Any, stream: tuple[str, str, Path], ours: socket.socket, theirs: socket.socket
    ) -> None:
        self.heard = b""
        self.deaths = 0
        self._run_input = run_input
        self._stream = stream
        self._ours = ours
        self._theirs = theirs
        self._ring = create_ring()

    def run(
        self, state: bytes, data: Callable[[int], bytes], kills: int, seed: int, longest_s: float, most: int
    ) -> None:
        """Send all that `data` returns for 0, 1, 2 … until it is empty; kill inputs meanwhile, then let the last one end.

        longest_s, most: how long a process lives and how often it gets data, at most.
        """
        chance = random.Random(seed)
        waiting, number = memoryview(b""), 0
        self._ours.setblocking(False)
        more, ended = True, False
        while not ended:
            life_s = chance.uniform(0.0002, longest_s) if self.deaths < kills else 0.0
            last = number + chance.randint(1, most) if life_s else 1 << 30
            pid = self._fork(state, life_s)
            child = os.pidfd_open(pid)
            with selectors.DefaultSelector() as selector:
                selector.register(child, selectors.EVENT_READ)
                selector.register(self._ours, selectors.EVENT_READ | selectors.EVENT_WRITE)
                while True:
                    ready = {key.fileobj: events for key, events in selector.select(20)}
                    assert ready, "nothing moves any more"
                    events = ready.get(self._ours, 0)
                    if events & selectors.EVENT_READ:
                        told = self._ours.recv(1 << 16)
                        self.heard += told
                        if not told:
                            selector.unregister(self._ours)
                            continue
                    if events & selectors.EVENT_WRITE:
                        if not waiting and more and number < last:
                            waiting = memoryview(data(number))
                            number, more = number + 1, bool(waiting)
                        if waiting:
                            waiting = waiting[self._ours.send(waiting[:PIECE_BYTES]) :]
                        else:
                            selector.modify(self._ours, selectors.EVENT_READ)
                    if child in ready:
                        break
            os.close(child)
            status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
            assert status in (0, -signal.SIGALRM), f"the input ended with {status}"
            self.deaths += status != 0
            ended = status == 0
        with suppress(OSError):  # the input of some protocols has said so itself
            self._theirs.shutdown(socket.SHUT_WR)
        self._ours.setblocking(True)
        while told := self._ours.recv(1 << 16):
            self.heard += told

    def _fork(self, state: bytes, life_s: float) -> int:
        pid = os.fork()
        if pid:
            return pid
        status = 1
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            if life_s:
                signal.setitimer(signal.ITIMER_REAL, life_s)
            asyncio.run(self._serve(state))
            status = 0
        except MistError as error:
            status = 0 if error.reason.startswith("CLEAN") else 1
            if status:
                traceback.print_exc()
        except Exception:  # noqa: BLE001 (a forked process must not go on with the test)
            traceback.print_exc()
        finally:
            os._exit(status)

    async def _serve(self, state: bytes) -> None:
        self._ours.close()
        instance, name, bells = self._stream
        publisher = StreamPublisher(instance, name, str(bells), LONG_WINDOW, resumed=True)
        log = logging.getLogger("tests.dying")
        log.setLevel(logging.WARNING)
        services = FakeInputServices(
            asyncio.get_running_loop(), os.dup(self._theirs.fileno()), state, self._ring, publisher=publisher, log=log
        )
        await self._run_input(services)

    def close(self) -> None:
        """Let go of the connection."""
        os.close(self._ring)
        self._ours.close()
        self._theirs.close()

"""Live media of our own: every packet carries its number, so that a viewer can tell what it got."""

from __future__ import annotations

import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise

from tests.support.processes import wait_until
from tests.support.rtmp_peer import AUDIO, COMMAND, VIDEO, Message, Refused, RtmpPeer
from tests.support.server import MistServer

FRAME_MS = 40
GOP = 10
MARK = re.compile(rb"<(\d{8})>")


class Sender:
    """Sends our own H.264 and AAC by RTMP, with times under control. Payloads are numbered, so a viewer knows each one."""

    def __init__(self, server: MistServer, stream: str = "live") -> None:
        self.peer = RtmpPeer(server.rtmp_port)
        self.number = 0
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
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

    def keep_sending(self, interval_s: float = FRAME_MS / 1000) -> None:
        """Go on in the background, one picture each interval, until `close`."""

        def run() -> None:
            while not self._ended.wait(interval_s):
                try:
                    self.send([self.number * FRAME_MS], pace_s=0)
                except OSError:
                    return

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._ended.set()
        if self._thread is not None:
            self._thread.join(5)
        self.peer.socket.close()


class Watcher:
    """Reads what a plain HTTP client gets; `closed` once the server has ended the connection."""

    def __init__(self, sock: socket.socket) -> None:
        self.data = bytearray()
        self.closed = False
        self._sock = sock
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while part := self._sock.recv(65536):
                self.data += part
        except OSError:
            pass  # the test closes it
        self.closed = True

    def marks(self) -> list[int]:
        return [int(number) for number in MARK.findall(self.data)]

    def wait_mark(self, number: int) -> None:
        wait_until(lambda: self.marks()[-1:] >= [number], 15, f"picture {number} after {self.marks()[-3:]}")

    def close(self) -> None:
        self._sock.close()
        self._thread.join(5)


def send_when_free(start: Callable[[], Sender], timeout_s: float = 10) -> Sender:
    """Start a publisher as soon as the server has noticed that the last one is gone. Raises TimeoutError."""

    def attempt() -> Sender | None:
        try:
            return start()
        except (Refused, OSError):
            return None

    sender = wait_until(attempt, timeout_s, "a place for the next publisher")
    assert sender is not None
    return sender


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


def marks(messages: list[Message], kind: int) -> list[tuple[int, int]]:
    """Return (number, ms) of the media messages that carry one of our marks."""
    found = []
    for message in list(messages):
        start = message.payload.find(b"<", 0, 40)
        if message.kind == kind and start >= 0 and message.payload[start + 9 : start + 10] == b">":
            found.append((int(message.payload[start + 1 : start + 9]), message.timestamp_ms))
    return found


def wait_mark(messages: list[Message], number: int, timeout_s: float = 10) -> None:
    wait_until(
        lambda: any(n >= number for n, _ in marks(messages, VIDEO)), timeout_s, f"picture {number} at the viewer"
    )


def assert_rising(messages: list[Message]) -> None:
    for kind in (VIDEO, AUDIO):
        numbered = marks(messages, kind)
        numbers, stamps = [n for n, _ in numbered], [t for _, t in numbered]
        assert numbers == list(range(numbers[0], numbers[-1] + 1)), "packets were lost, doubled or swapped"
        steps = [(b - a + 2**31) % 2**32 - 2**31 for a, b in pairwise(stamps)]  # RTMP's clock may wrap
        assert all(step > 0 for step in steps), f"times do not rise: {[s for s in steps if s <= 0]}"
        assert max(steps) < 2_000, f"a gap of {max(steps)} ms was passed on"

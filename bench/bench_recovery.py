"""How long viewers pause when their worker is killed: `python -m bench.bench_recovery [viewers] [kills]`.

A publisher of our own sends a picture every 20 ms. The pause is the longest time between two reads of a viewer around a kill,
less those 20 ms.
"""

from __future__ import annotations

import os
import selectors
import signal
import socket
import sys
import threading
import time

from tests.support.live import FRAME_MS, Sender
from tests.support.server import MistServer

INTERVAL_S = 0.02
SETTLE_S = 1.5


def watch(socks: list[socket.socket], longest: dict[socket.socket, float], ended: threading.Event) -> None:
    """Read all, and keep the longest time between two reads of each."""
    selector = selectors.DefaultSelector()
    last = dict.fromkeys(socks, time.monotonic())
    for sock in socks:
        selector.register(sock, selectors.EVENT_READ)
    while not ended.is_set():
        for key, _ in selector.select(0.2):
            viewer = key.fileobj
            assert isinstance(viewer, socket.socket)
            if not viewer.recv(1 << 20):
                sys.exit("a viewer's connection was closed")
            now = time.monotonic()
            longest[viewer] = max(longest[viewer], now - last[viewer])
            last[viewer] = now


def main() -> None:
    """Print the longest and the median pause of each kill."""
    viewers, kills = (int(text) for text in [*sys.argv[1:], "100", "5"][:2])
    with MistServer(protocols={"HTTP": {"processes": 1}}) as server:
        sender = Sender(server)
        sender.send([number * FRAME_MS for number in range(60)], headers=True)
        sender.keep_sending(INTERVAL_S)
        socks = [socket.create_connection(("127.0.0.1", server.http_port)) for _ in range(viewers)]
        for sock in socks:
            sock.sendall(b"GET /live.flv HTTP/1.1\r\nHost: localhost\r\n\r\n")
        longest = dict.fromkeys(socks, 0.0)
        ended = threading.Event()
        thread = threading.Thread(target=watch, args=(socks, longest, ended))
        thread.start()
        for _ in range(kills):
            time.sleep(SETTLE_S)
            longest.update(dict.fromkeys(socks, 0.0))
            for worker in server.processes_titled("mist: output HTTP"):
                if "connection" in worker.title:
                    os.kill(worker.pid, signal.SIGKILL)
            time.sleep(SETTLE_S)
            pauses = sorted(1000 * (pause - INTERVAL_S) for pause in longest.values())
            print(f"{viewers} viewers: longest pause {pauses[-1]:.0f} ms, median {pauses[len(pauses) // 2]:.0f} ms")
        ended.set()
        thread.join()
        sender.close()
        for sock in socks:
            sock.close()


if __name__ == "__main__":
    main()

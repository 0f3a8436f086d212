"""What a blocking HTTP handler that answers at once adds to a play request: the same requests to two servers, one after the other."""

from __future__ import annotations

import argparse
import asyncio
import http.client
import statistics
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import Server, publisher, report, server

ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue"


def start_handler() -> str:
    """Run a service that says yes at once, in a thread; return its URL."""
    started: list[int] = []
    ready = threading.Event()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = int(head.lower().partition(b"content-length:")[2].split()[0])
                await reader.readexactly(length)
                writer.write(ANSWER)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    async def run() -> None:
        listening = await asyncio.start_server(answer, "127.0.0.1", 0)
        started.append(listening.sockets[0].getsockname()[1])
        ready.set()
        await listening.serve_forever()

    threading.Thread(target=lambda: asyncio.run(run()), daemon=True).start()
    ready.wait()
    return f"http://127.0.0.1:{started[0]}/"


def play_ms(running: Server) -> float:
    """Return the milliseconds from the request of a new viewer to the first bytes of the reply."""
    client = http.client.HTTPConnection("127.0.0.1", running.http, timeout=10)
    client.connect()
    began = time.perf_counter()
    client.request("GET", "/live.flv")
    reply = client.getresponse()
    reply.read(1)
    took = time.perf_counter() - began
    assert reply.status == 200
    reply.close()
    client.close()
    return took * 1000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=400, help="of each server")
    parser.add_argument("--trigger", default="CONN_PLAY")
    options = parser.parse_args()
    handlers = {options.trigger: [{"handler": start_handler(), "sync": True}]}
    with ExitStack() as stack:
        plain = stack.enter_context(server())
        asked = stack.enter_context(server(config={"triggers": handlers}))
        for running in (plain, asked):
            stack.enter_context(publisher(running))
        without, with_handler = [], []
        for _ in range(options.requests):
            without.append(play_ms(plain))
            with_handler.append(play_ms(asked))
            time.sleep(0.005)
    added = [one - other for one, other in zip(with_handler, without, strict=True)]
    report(
        trigger=options.trigger,
        requests=options.requests,
        without_ms=round(statistics.median(without), 2),
        with_ms=round(statistics.median(with_handler), 2),
        added_ms=round(statistics.median(added), 2),
        added_p95_ms=round(statistics.quantiles(with_handler, n=20)[18] - statistics.quantiles(without, n=20)[18], 2),
    )


if __name__ == "__main__":
    main()

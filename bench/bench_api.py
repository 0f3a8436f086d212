"""The control API: calls a second, and what a configuration of 5 MB costs: saving it, a change in it, a start with it."""

from __future__ import annotations

import argparse
import http.client
import json
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import report
from tests.support.server import MistServer

STREAM_BYTES = 300  # about, of one stream in the file
PAUSE_SECONDS = 0.002  # of who asks beside: a core that is never idle has the scheduler make it wait, not the server


class Client:
    """One kept connection."""

    def __init__(self, port: int) -> None:
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def call(self, command: dict[str, Any]) -> bytes:
        """Send a command and return the reply's text."""
        self._connection.request("POST", "/api2", json.dumps(command), {"Content-Type": "application/json"})
        return self._connection.getresponse().read()


def rate(client: Client, command: dict[str, Any], seconds: float) -> int:
    """Return how often a command is answered in a second, one after the other on one connection."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        client.call(command)
        count += 1
    return round(count / (time.perf_counter() - began))


def took_ms(client: Client, command: dict[str, Any], rounds: int) -> float:
    """Return the median milliseconds of a command."""
    times = []
    for number in range(rounds):
        text = json.dumps(command).replace("NUMBER", str(number))
        began = time.perf_counter()
        client.call(json.loads(text))
        times.append(time.perf_counter() - began)
    return round(1000 * statistics.median(times), 1)


def large(megabytes: float) -> dict[str, Any]:
    """Return streams that make a configuration file of a size."""
    count = int(megabytes * 1_000_000 / STREAM_BYTES)
    source = "push://192.0.2.1/" + "x" * 150
    return {f"stream{number}": {"source": source, "tags": ["one", "two"], "DVR": 30000} for number in range(count)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=3)
    parser.add_argument("--megabytes", type=float, default=5)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    commands: dict[str, dict[str, Any]] = {
        "minimal": {},
        "streams_100": {"streams": True},
        "active_streams": {"active_streams": {"longform": True}},
        "clients": {"clients": {"time": -1}},
    }
    hundred = {f"s{number}": {"source": "push://"} for number in range(100)}
    with MistServer(streams=hundred) as server:
        client = Client(server.api_port)
        report(calls_a_second={name: rate(client, command, options.seconds) for name, command in commands.items()})
        report(change_ms=took_ms(client, {"addstream": {"sNUMBER": {"source": "push://x"}}}, options.rounds))
    began = time.perf_counter()
    with MistServer(streams=large(options.megabytes)) as server:
        client = Client(server.api_port)
        client.call({})
        start_s = round(time.perf_counter() - began, 2)
        change_ms = took_ms(client, {"addstream": {"newNUMBER": {"source": "push://x"}}}, options.rounds)
        save_ms = took_ms(client, {"save": 1}, options.rounds)
        size = server.config_file.stat().st_size
        report(file_mb=round(size / 1e6, 1), start_s=start_s, change_ms=change_ms, save_ms=save_ms)
        slow: dict[str, dict[str, Any]] = {
            "change": {"addstream": {"newNUMBER": {"source": "push://x"}}},
            "save": {"addstream": {"newNUMBER": {"source": "push://y"}}, "save": 1},
            "reload": {"config_reload": 1},
            "all_streams": {"streams": True},
            "change_all": {
                "addstream": {name: {**one, "DVR": 20000} for name, one in large(options.megabytes).items()}
            },
            "delete_all": {"deletestream": list(large(options.megabytes))},
        }
        for name, command in slow.items():
            slow_ms, waits = beside(server.api_port, command, options.rounds)
            report(**{f"{name}_ms": slow_ms, "others_wait_ms": {"median": waits[0], "most": waits[1]}})


def beside(port: int, command: dict[str, Any], rounds: int) -> tuple[float, tuple[float, float]]:
    """Return the milliseconds of a slow command, and the median and the most that small ones took meanwhile.

    The small ones have a process of their own: in this one they would wait for what makes and reads the slow command's text.
    """
    context = multiprocessing.get_context("spawn")
    done, asking = context.Event(), context.Event()
    receiver, sender = context.Pipe(duplex=False)
    other = context.Process(target=ask, args=(port, asking, done, sender))
    other.start()
    asking.wait()
    slow_ms = took_ms(Client(port), command, rounds)
    done.set()
    waits = receiver.recv()
    other.join()
    return slow_ms, (round(statistics.median(waits), 1), round(max(waits), 1))


def ask(port: int, asking: Event, done: Event, told: Connection) -> None:
    """Send small commands, one after the other, and tell at the end how many milliseconds each took."""
    client = Client(port)
    waits: list[float] = []
    while not done.is_set():
        began = time.perf_counter()
        client.call({})
        waits.append(1000 * (time.perf_counter() - began))
        asking.set()
        time.sleep(PAUSE_SECONDS)
    told.send(waits)


if __name__ == "__main__":
    main()

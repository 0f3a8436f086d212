"""The end of pushes, whoever dies when: the triggers of each are fired once."""

from __future__ import annotations

import asyncio
import os
import signal
import time

from mist.runtime.spawner_link import Link
from tests.integration.conftest import MakeServer, Publish
from tests.support.media import NO_BFRAMES, Sample
from tests.support.processes import wait_until
from tests.support.put_sink import PutSink
from tests.support.server import MistServer
from tests.support.trigger_service import Service

PUSHED = Sample("upgraded", NO_BFRAMES, seconds=10)
STREAMS = {"live": {"source": "push://127.0.0.1"}, "sink": {"source": "push://127.0.0.1"}}
ENDS = ("OUTPUT_END", "PUSH_END", "RECORDING_END")


def told(service: Service, trigger: str, line: int) -> list[str]:
    """Return what this line of the payload was, each time."""
    return sorted(lines[line] for name, lines in tuple(service.events) if name == trigger and lines[line])


def push_processes(server: MistServer) -> list[int]:
    return [one.pid for one in server.processes_titled("mist: push")]


def test_pushes_killed_as_they_are_stopped(make_server: MakeServer, publish: Publish, service: Service) -> None:
    """Their process hangs when it is told to end them, and is killed: nobody else ends them, and still all is told."""
    start = len(service.events)
    triggers = {name: [{"handler": service.url, "sync": False, "streams": ["live"]}] for name in ENDS}
    server = make_server(streams=STREAMS, config={"triggers": triggers})
    publish(server, PUSHED, loop=True)
    server.wait_tracks(2)
    targets = sorted(server.publish_url(f"sink+{name}") for name in "ab")
    for target in targets:
        server.api({"push_start": ["live", target]})
    wait_until(lambda: len(push_processes(server)) == 1, 20, "the pushes")
    server.wait_tracks(2, "sink+b")
    [pid] = push_processes(server)
    os.kill(pid, signal.SIGSTOP)
    server.api({"push_stop": "live"})
    os.kill(pid, signal.SIGKILL)
    wait_until(lambda: told(service, "PUSH_END", 2) == targets, 20, "the end of the pushes")
    wait_until(lambda: told(service, "OUTPUT_END", 1) == targets, 20, "the end of the outputs")
    server.stop()
    assert told(service, "PUSH_END", 2) == told(service, "OUTPUT_END", 1) == targets
    ends = [lines for name, lines in service.events[start:] if name == "OUTPUT_END" and lines[1]]
    assert {lines[10] for lines in ends} == {"CLEAN_CONTROLLER_REQ"}
    assert not told(service, "RECORDING_END", 1)


def test_a_recording_elsewhere_of_a_stream_that_is_not_there_ends(make_server: MakeServer) -> None:
    service = Service()
    try:
        triggers = {name: [{"handler": service.url, "sync": False, "streams": []}] for name in ENDS}
        server = make_server(streams=STREAMS, config={"triggers": triggers})
        with PutSink() as sink:
            target = f"http://127.0.0.1:{sink.port}/a.ts"
            server.api({"push_start": ["nothing", target]})
            wait_until(lambda: told(service, "PUSH_END", 2) == [target], 30, "the end of the push")
            wait_until(lambda: told(service, "RECORDING_END", 1) == [target], 10, "the end of the recording")
        assert server.api({"push_list": 1})["push_list"] is None
    finally:
        service.close()


def test_an_event_that_is_told_once_is_heard_once(make_server: MakeServer) -> None:
    triggers = {"OUTPUT_END": [{"handler": "", "sync": False, "streams": []}]}
    server = make_server(config={"triggers": triggers})
    path = server.runtime_folder / "trigger.sock"

    async def fire(once: str) -> int:
        link = Link(path, "The process of the triggers", asyncio.get_running_loop(), 10)
        event = {"do": "fire", "trigger": "OUTPUT_END", "stream": "live", "payload": "", "pid": 1, "unix_ms": 1}
        answer = await link.ask({**event, "once": once, "unix_ms": time.time_ns() // 1_000_000})
        link.close()
        return len(answer["results"])

    async def fire_all() -> list[int]:
        return [await fire(once) for once in ("push 1 10.5", "push 1 10.5", "push 2 10.5", "", "")]

    assert asyncio.run(fire_all()) == [1, 0, 1, 1, 1]

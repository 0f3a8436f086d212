"""Handlers of triggers hear of each connection once, however many processes it has had."""

from __future__ import annotations

import http.client
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from tests.support.live import FRAME_MS, Sender, viewer, wait_mark
from tests.support.processes import descends, wait_until
from tests.support.server import MistServer
from tests.support.trigger_service import Service

WHAT = "the trigger was fired"
BLOWS = 2


@pytest.fixture(scope="module")
def server(service: Service) -> Iterator[MistServer]:
    one = {"processes": 1}
    live = {"source": "push://127.0.0.1", "inputtimeout": 1, "segmentsize": 500}
    streams = {"live": live, **{name: {"source": "demo:"} for name in ("killed", "upgraded", "orphaned", "open")}}
    with MistServer(
        config={"triggers": service.handlers(timeout=50, attempts=1)},
        protocols={"HTTP": one, "RTMP": one},
        streams=streams,
    ) as started:
        yield started


def strike(server: MistServer, title: str) -> None:
    """Kill the processes of this title that have work, and wait for the next."""
    wait_until(lambda: server.processes_titled(title), 15, f"a process called {title}")
    lost = {one.pid for one in server.processes_titled(title)}
    for pid in lost:
        os.kill(pid, signal.SIGKILL)

    def replaced() -> bool:
        there = {one.pid for one in server.processes_titled(title)}
        return bool(there) and not there & lost

    wait_until(replaced, 15, f"others than {lost}")


def connection_events(service: Service, connector: str) -> Counter[str]:
    return Counter(name for name, lines in service.events if name.startswith("CONN_") and connector in lines)


def test_workers_and_inputs_killed(server: MistServer, service: Service) -> None:
    sender = Sender(server)
    sender.send([number * FRAME_MS for number in range(60)], headers=True)
    sender.keep_sending()
    wait_until(lambda: service.has("STREAM_BUFFER", "live", "FULL"), 20, WHAT)
    told = Counter(name for name, lines in service.events if lines[0] == "live")
    browser = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    with viewer(server) as seen:
        media = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
        media.request("GET", "/live.flv")
        reply = media.getresponse()
        for _ in range(BLOWS):
            browser.request("GET", "/hls/live/index.m3u8")
            assert browser.getresponse().read().startswith(b"#EXTM3U")
            assert len(reply.read(4000)) == 4000
            strike(server, "mist: output HTTP (")
            strike(server, "mist: output RTMP (")
            strike(server, "mist: input live")
            wait_mark(seen, sender.number + 5)
        browser.request("GET", "/hls/live/index.m3u8")
        assert browser.getresponse().read().startswith(b"#EXTM3U")
        assert len(reply.read(4000)) == 4000
        for connector, opened in (("FLV", 1), ("HLS", 1), ("RTMP", 2)):  # the publisher is one of RTMP
            assert connection_events(service, connector) == {"CONN_OPEN": opened, "CONN_PLAY": 1}, connector
        reply.close()
        media.close()
    browser.close()
    for connector in ("FLV", "HLS", "RTMP"):
        wait_until(lambda name=connector: connection_events(service, name)["CONN_CLOSE"] == 1, 20, WHAT)
    now = Counter(name for name, lines in service.events if lines[0] == "live")
    for name in ("STREAM_LOAD", "STREAM_SOURCE", "STREAM_READY", "STREAM_PUSH", "LIVE_TRACK_LIST", "STREAM_BUFFER"):
        assert now[name] == told[name], name
    assert service.count("INPUT_ABORT", "live") == BLOWS
    assert Counter(name for name, _ in service.events)["PUSH_REWRITE"] == 1
    sender.close()
    wait_until(lambda: connection_events(service, "RTMP")["CONN_CLOSE"] == 2, 20, WHAT)
    wait_until(lambda: service.has("STREAM_UNLOAD", "live", "Buffer"), 20, WHAT)
    assert connection_events(service, "RTMP") == {"CONN_OPEN": 2, "CONN_PLAY": 1, "CONN_CLOSE": 2}
    assert connection_events(service, "FLV")["CONN_CLOSE"] == connection_events(service, "HLS")["CONN_CLOSE"] == 1


# -- the process of the triggers -----------------------------------------------------------------------------------------


@contextmanager
def waiting_viewer(server: MistServer, service: Service, stream: str) -> Iterator[threading.Event]:
    """Ask for a stream whose handler of CONN_PLAY does not answer; at the end it does, and the viewer has media. Yields that gate."""
    gate = service.gates["CONN_PLAY", stream] = threading.Event()
    client = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=40)
    client.request("GET", f"/{stream}.flv")
    wait_until(lambda: service.has("CONN_PLAY", stream), 20, WHAT)
    yield gate
    gate.set()
    reply = client.getresponse()
    assert reply.status == 200
    assert len(reply.read(4000)) == 4000
    reply.close()
    client.close()


def handlers_process(server: MistServer) -> int:
    found = server.processes_titled("mist: triggers")
    return found[0].pid if len(found) == 1 else 0


def plays(server: MistServer, stream: str) -> bool:
    client = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=20)
    client.request("GET", f"/{stream}.flv")
    reply = client.getresponse()
    got = reply.status == 200 and len(reply.read(1000)) == 1000
    reply.close()
    client.close()
    return got


def test_the_process_of_the_triggers_killed(server: MistServer, service: Service) -> None:
    """Who waits is asked about again; everybody else goes on."""
    with waiting_viewer(server, service, "killed"):
        former = handlers_process(server)
        os.kill(former, signal.SIGKILL)
        assert plays(server, "open")
        wait_until(lambda: service.count("CONN_PLAY", "killed") == 2, 20, WHAT)
        assert handlers_process(server) not in (0, former)
    assert service.count("CONN_PLAY", "killed") == 2


def test_the_main_process_killed(server: MistServer, service: Service) -> None:
    """The process of the triggers goes on under the next one, with what it waits for and its socket."""
    with waiting_viewer(server, service, "orphaned"):
        former = handlers_process(server)
        os.kill(server.pid, signal.SIGKILL)
        server.restart()
        assert plays(server, "open")
        assert handlers_process(server) == former
    assert service.count("CONN_PLAY", "orphaned") == 1


def of_former_main_processes(server: MistServer) -> list[str]:
    """Return who is yet to be replaced, of those that connections and handlers need: asked again for their successors."""
    kinds = ("mist: output HTTP", "mist: guardian HTTP", "mist: triggers")
    return [one.title for one in server.processes() if one.title.startswith(kinds) and not descends(one, server.pid)]


@pytest.mark.timeout(360)  # it imports everything twice, at low priority
def test_an_upgrade(server: MistServer, service: Service) -> None:
    """What the former code waits for is answered by it, and the rest by the next."""
    wait_until(
        lambda: not of_former_main_processes(server), 40, "the successors of what the killed main process had started"
    )
    command = [sys.executable, "-m", "mist", "upgrade", "--instance", server.instance]
    with waiting_viewer(server, service, "upgraded") as gate:
        former = handlers_process(server)
        asked = subprocess.Popen(command, env={**os.environ, "MIST_RUNTIME_DIR": str(server.runtime_base)})
        server.wait_log("Going over to the code", 100)
        wait_until(
            lambda: {one.pid for one in server.processes_titled("mist: triggers")} - {former},
            100,
            "the next process of the triggers",
        )
        assert plays(server, "open")
        gate.set()
    assert asked.wait(120) == 0
    assert handlers_process(server) not in (0, former)
    assert service.count("CONN_PLAY", "upgraded") <= 2  # once more if its worker was replaced before the answer

"""Handlers of triggers hear of each connection once, however many processes it has had."""

from __future__ import annotations

import http.client
import os
import signal
from collections import Counter
from collections.abc import Iterator

import pytest

from tests.support.live import FRAME_MS, Sender, viewer, wait_mark
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.trigger_service import Service

WHAT = "the trigger was fired"
BLOWS = 2


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    service = Service()
    yield service
    service.close()


@pytest.fixture(scope="module")
def server(service: Service) -> Iterator[MistServer]:
    one = {"processes": 1}
    streams = {"live": {"source": "push://127.0.0.1", "inputtimeout": 1, "segmentsize": 500}}
    with MistServer(
        config={"triggers": service.handlers()}, protocols={"HTTP": one, "RTMP": one}, streams=streams
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

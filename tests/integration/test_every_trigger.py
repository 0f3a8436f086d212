"""Each trigger of the table is fired by what it stands for in a running server, with its lines in order."""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.stream.triggers import TRIGGERS
from tests.integration.test_triggers import play
from tests.support.flv_files import flv_file, interleaved
from tests.support.live import FRAME_MS, Sender
from tests.support.ports import free_port
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.trigger_service import Service

WHAT = "the trigger was fired"
ELSEWHERE = {"LIVEPEER_SEGMENT_REJECTED"}  # of a process that is not there
STUTTER_MS = 2000


@pytest.fixture(scope="module")
def server(service: Service) -> Iterator[MistServer]:
    push = {"source": "push://127.0.0.1", "inputtimeout": 1, "segmentsize": 500}
    streams = {"live": push, "stuttering": {**push, "DVR": 5000, "inputtimeout": 5}, "test": {"source": "demo:"}}
    with MistServer(config={"triggers": service.handlers()}, streams=streams) as started:
        yield started


def lines_of(service: Service, trigger: str, *first: str) -> list[str]:
    """Wait for a trigger whose payload begins like this; return its lines."""

    def found() -> list[str]:
        fits = [lines for name, lines in service.events if name == trigger and lines[: len(first)] == list(first)]
        return fits[0] if fits else []

    return wait_until(found, 40, f"{trigger} {first}")


def send(sender: Sender, start_ms: int, count: int) -> int:
    """Send so many pictures in real time; returns the time of the next."""
    sender.send([start_ms + n * FRAME_MS for n in range(count)], headers=start_ms == 0, pace_s=FRAME_MS / 1000)
    return start_ms + count * FRAME_MS


def test_a_publisher_that_stutters_and_recovers(server: MistServer, service: Service) -> None:
    sender = Sender(server, "stuttering")
    at_ms = send(sender, 0, 160)
    wait_until(lambda: service.has("STREAM_BUFFER", "stuttering", "FULL"), 20, WHAT)
    sender.send([at_ms], pace_s=STUTTER_MS / 1000)
    at_ms = send(sender, at_ms + STUTTER_MS, 20)
    wait_until(lambda: service.has("STREAM_BUFFER", "stuttering", "DRY"), 20, WHAT)
    for _ in range(60):
        if service.has("STREAM_BUFFER", "stuttering", "RECOVER"):
            break
        at_ms = send(sender, at_ms, 10)
    sender.close()
    wait_until(lambda: service.has("STREAM_BUFFER", "stuttering", "EMPTY"), 20, WHAT)
    told = [lines for name, lines in service.events if name == "STREAM_BUFFER" and lines[0] == "stuttering"]
    assert [lines[1] for lines in told] == ["FULL", "DRY", "RECOVER", "EMPTY"]
    assert ["issues" in json.loads(lines[2]) for lines in told[:3]] == [False, True, False]


def test_an_input_that_crashes_or_aborts(server: MistServer, service: Service) -> None:
    sender = Sender(server, "live")
    at_ms = send(sender, 0, 20)
    pids = []
    for how in (signal.SIGSEGV, signal.SIGABRT):
        [former] = wait_until(lambda: server.processes_titled("mist: input live"), 20, "the input")
        pids.append(former.pid)
        os.kill(former.pid, how)
        wait_until(lambda: service.count("INPUT_ABORT", "live") == len(pids), 20, WHAT)
        at_ms = send(sender, at_ms, 20)
    assert int(lines_of(service, "LIVE_BANDWIDTH", "live")[1]) > 0
    sender.close()
    told = [lines for name, lines in service.events if name == "INPUT_ABORT" and lines[0] == "live"]
    assert told == [
        ["live", "push://127.0.0.1", "MistInRTMP", str(pids[0]), "SEGFAULT", "killed by SIGSEGV"],
        ["live", "push://127.0.0.1", "MistInRTMP", str(pids[1]), "SIGABRT", "killed by SIGABRT"],
    ]


def test_an_input_that_cannot_read_its_source(server: MistServer, service: Service) -> None:
    file: Path = server.folder / "broken.flv"
    file.write_bytes(b"no video at all" * 100)
    server.api({"addstream": {"broken": {"source": str(file)}}})
    assert play(server.play_url("flv", "broken")) != 200
    lines = lines_of(service, "INPUT_ABORT", "broken", str(file), "MistInFLV")
    assert len(lines) == 6
    assert not lines[4].startswith("CLEAN") and lines[5]


def test_a_film_is_watched_to_its_end(server: MistServer, service: Service) -> None:
    file = server.folder / "film.flv"
    file.write_bytes(flv_file(interleaved(2)))
    server.api({"addstream": {"film": {"source": str(file), "inputtimeout": 1}}})
    assert play(server.play_url("flv", "film") + "?rate=0") == 200
    assert lines_of(service, "CONN_STOP", "film", "127.0.0.1", "FLV") == ["film", "127.0.0.1", "FLV", ""]
    lines = lines_of(service, "OUTPUT_END", "film", "", "FLV")
    assert len(lines) == 13 and int(lines[3]) > 0 and lines[10].startswith("CLEAN")
    lines = lines_of(service, "STREAM_END", "film")
    assert [int(number) for number in lines[3:6]] == [1, 1, 0]
    assert len(lines) == 7


def test_streams_and_ports_are_changed(server: MistServer, service: Service) -> None:
    for title in ("one", "other"):
        server.api({"addstream": {"changed": {"source": "push://", "title": title}}})
    server.api({"deletestream": "changed"})
    for trigger, title in (("STREAM_ADD", "one"), ("STREAM_CONFIG", "other")):
        assert json.loads(lines_of(service, trigger, "changed")[1])["title"] == title
    assert lines_of(service, "STREAM_REMOVE", "changed") == ["changed"]
    protocol = {"connector": "RTMP", "port": free_port(), "interface": "127.0.0.1"}
    server.api({"addprotocol": protocol})
    server.api({"deleteprotocol": protocol})
    wait_until(lambda: service.count("OUTPUT_STOP") == 1, 20, WHAT)
    [stopped] = [lines for name, lines in service.events if name == "OUTPUT_STOP"]
    started = [lines for name, lines in service.events if name == "OUTPUT_START"]
    assert stopped in started and json.loads(stopped[0])["port"] == protocol["port"]


def test_a_push_and_a_fallback(server: MistServer, service: Service) -> None:
    target = f"{server.folder}/$stream.flv"
    server.api({"push_start": ["test", target]})
    assert lines_of(service, "PUSH_OUT_START", "test") == ["test", target]
    wait_until((server.folder / "test.flv").exists, 20, "the recording")
    server.api({"push_stop": "test"})
    assert lines_of(service, "PUSH_END")[1:4] == ["test", target, f"{server.folder}/test.flv"]
    server.api({"config": {"defaultStream": "test"}})
    url = server.play_url("flv", "missing")
    assert play(url) == 200
    assert lines_of(service, "DEFAULT_STREAM", "test") == ["test", "missing", "127.0.0.1", "FLV", url]


def test_the_server_stops(service: Service) -> None:
    with MistServer(config={"triggers": service.handlers()}):
        assert lines_of(service, "SYSTEM_START")[0]
    assert lines_of(service, "SYSTEM_STOP")[0]


def test_none_is_forgotten() -> None:
    """Whoever adds a trigger adds a test that fires it."""
    tests = "".join(path.read_text() for path in Path(__file__).parent.glob("test_*.py"))
    assert {name for name in TRIGGERS if tests.count(f'"{name}"') <= (name in ELSEWHERE)} == ELSEWHERE

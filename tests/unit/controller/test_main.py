"""The controller as a whole: starting, reloading, always-on streams, log lines, stopping."""

from __future__ import annotations

import asyncio
import json
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
import uvloop

from mist.controller.log_ring import LogReceiver, LogRing, parse_object, row_of
from mist.controller.main import next_second, run
from mist.errors import ConfigError
from mist.stream.state import StreamStatus
from tests.support.api_client import Client, free_socket
from tests.support.fake_control import Clock, FakeControl
from tests.support.fake_stream import FakeStream

Scene = Callable[[Client, FakeControl], Awaitable[None]]


def play(scene: Scene, path: Path, log_socket: socket.socket | None = None, **options: Any) -> FakeControl:
    """Run a controller on uvloop while one client acts, then cancel it."""
    services = FakeControl(Clock())

    async def act() -> None:
        listener = free_socket()
        port = listener.getsockname()[1]
        task = asyncio.create_task(run(services, path, listener, log_socket, **options), name="controller")  # type: ignore[arg-type]
        while not services.published and not task.done():
            await asyncio.sleep(0.005)
        try:
            if not task.done():
                client = await Client.connect(port)
                await scene(client, services)
                await client.close()
        finally:
            task.cancel()
            await asyncio.wait([task])
        if not task.cancelled():
            task.result()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(asyncio.wait_for(act(), 30))
    return services


async def until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_start_change_and_stop(tmp_path: Path) -> None:
    """The snapshot is published at the start and at each change; what is not saved yet is saved at the end."""
    path = tmp_path / "config.json"

    async def scene(client: Client, services: FakeControl) -> None:
        assert list(services.published[0]["streams"]) == ["demo"]
        await client.command({"addstream": {"a": {"source": "push://"}}}, remote=False)
        assert sorted(services.published[-1]["streams"]) == ["a", "demo"]
        assert not path.exists()

    services = play(scene, path, built_in_streams={"demo": {"source": "demo:"}})
    assert json.loads(path.read_text())["streams"] == {"a": {"name": "a", "source": "push://"}}
    assert services.published[0]["config"]["memory"]["total_bytes"] > 0


def test_a_reload_reads_the_file_again(tmp_path: Path) -> None:
    """A bad file leaves everything as it was; a good one is used."""
    path = tmp_path / "config.json"
    path.write_text('{"tags": ["a"]}')

    async def scene(client: Client, services: FakeControl) -> None:
        path.write_text('{"tags": 5}')
        assert "tags: expected a list" in await services.on_reload(False)
        assert len(services.published) == 1
        path.write_text('{"tags": ["b"]}')
        assert await services.on_reload(False) == ""
        assert services.published[-1]["tags"] == ["b"]

    services = play(scene, path)
    (line,) = [line for line in services.lines.texts() if "stays as it was" in line]
    assert f"{path}: tags: expected a list (it is 5)" in line


def test_one_that_is_asked_to_leave_waits_for_its_last_connection(tmp_path: Path) -> None:
    async def scene(client: Client, services: FakeControl) -> None:
        [task] = [one for one in asyncio.all_tasks() if one.get_name() == "controller"]
        services.asked_to_leave = True
        await client.command({"addstream": {"a": {"source": "push://"}}}, remote=False)
        await asyncio.wait([task], timeout=1.1)  # it looks once a second
        assert not task.done()
        await client.close()
        await task

    play(scene, tmp_path / "config.json")
    assert json.loads((tmp_path / "config.json").read_text())["streams"] == {"a": {"name": "a", "source": "push://"}}


def test_bad_file_at_start(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"tag": []}')

    async def scene(client: Client, services: FakeControl) -> None:
        raise AssertionError("it must not serve")

    with pytest.raises(ConfigError, match=r'tag: unknown key; did you mean "tags"\?'):
        play(scene, path)


def test_statistics_run_by_themselves(tmp_path: Path) -> None:
    """Connections appear in `clients` within the next second; always-on streams are started at once."""
    path = tmp_path / "config.json"
    path.write_text('{"streams": {"a": {"source": "push://", "always_on": true}, "b": {"source": "push://"}}}')

    async def scene(client: Client, services: FakeControl) -> None:
        services.connect("a", "FLV")
        await until(lambda: bool(services.done))
        reply = await client.command({"active_streams": ["viewers"]}, remote=False)
        assert reply["active_streams"] == {"a": [1]}

    assert set(play(scene, path).done) == {("start", "a")}  # and again after a while, since the fake never runs it


def test_a_second_is_never_counted_twice() -> None:
    """Timers go by another clock than the figures, and come a moment early where it runs faster; one set back is not waited for."""

    async def scene() -> list[int]:
        begin, seconds = asyncio.get_running_loop().time(), []

        def slow() -> float:
            return 1700000000.2 + (asyncio.get_running_loop().time() - begin) * 0.9

        for _ in range(2):
            await next_second(slow)
            seconds.append(int(slow()))
        times = iter((1700000000.99, 1700000000.99, 1690000000.0))
        await next_second(lambda: next(times))
        return seconds

    assert asyncio.run(scene()) == [1700000001, 1700000002]


def test_log_lines(tmp_path: Path) -> None:
    """Datagrams on the log socket become lines of `log`; what is no log line is dropped."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    line = {
        "time": 5.5,
        "kind": "WARN",
        "program": "input",
        "pid": 7,
        "where": "a.py:3",
        "stream": "live",
        "message": "hm",
    }

    async def scene(client: Client, services: FakeControl) -> None:
        for datagram in (b"flub", b"[1]", b"{}", json.dumps(line).encode()):
            theirs.send(datagram)
        await asyncio.sleep(0.05)
        reply = await client.command({"log": 1}, remote=False)
        assert reply["log"][-1] == [5, "WARN", "hm", "live", 7, "input", "a.py:3"]
        assert len(reply["log"]) == 2

    play(scene, tmp_path / "config.json", ours)
    ours.close()
    theirs.close()


def test_log_ring_is_bounded() -> None:
    ring = LogRing()
    for number in range(250):
        ring.add([number, "INFO", "", "", 0, "", ""])
    assert [row[0] for row in ring.rows()] == list(range(150, 250))
    assert ring.total == 250
    line = parse_object(b'{"time": 1e400, "pid": "x", "message": 5}')
    assert line is not None
    assert row_of(line) == [0, "INFO", "5", "", 0, "", ""]


def test_processes_tag_sessions_on_the_socket_of_the_log() -> None:
    """What is no tag of a session, and no line, is passed over."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    ring = LogRing()
    tags: list[tuple[tuple[str, str, str, str], str]] = []

    async def scene() -> None:
        receiver = LogReceiver(asyncio.get_running_loop(), ours, ring, lambda names, tag: tags.append((names, tag)))
        for datagram in (
            b'{"session": ["live", "HLS", "203.0.113.7", ""], "tag": "UA:x"}',
            b'{"session": ["live"], "tag": "UA:x"}',
            b'{"tag": "UA:x"}',
            b"[]",
            b'{"message": "the last"}',
        ):
            theirs.send(datagram)
        while not ring.total:
            await asyncio.sleep(0)
        receiver.close()

    asyncio.run(scene())
    assert tags == [(("live", "HLS", "203.0.113.7", ""), "UA:x")]
    assert [row[2] for row in ring.rows()] == ["the last"]
    ours.close()
    theirs.close()


@pytest.mark.parametrize(
    ("status", "shown"),
    [
        (StreamStatus.READY, {"online": 1}),
        (StreamStatus.INIT, {"online": 2, "error": "Initializing..."}),
        (StreamStatus.BOOT, {"online": 2, "error": "Loading..."}),
        (StreamStatus.WAIT, {"online": 2, "error": "Waiting for data..."}),
        (StreamStatus.SHUTDOWN, {"online": 2, "error": "Shutting down..."}),
        (StreamStatus.INVALID, {"online": 0, "error": "Unrecognized stream state"}),
        (StreamStatus.OFF, {"online": 0}),
    ],
)
def test_stream_states(status: StreamStatus, shown: dict[str, Any], tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"streams": {"a": {"source": "push://"}}}')

    async def scene(client: Client, services: FakeControl) -> None:
        services.streams_by_name["a"] = FakeStream("a")
        services.streams_by_name["a"].set_status(status)
        reply = await client.command({"streams": 1}, remote=False)
        assert reply["streams"]["a"] == {
            "source": "push://", "name": "a", **shown
        }  # fmt: skip

    play(scene, path)

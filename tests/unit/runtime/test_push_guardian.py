"""The duty of the guardian of pushes: which worker has which push, and what becomes of them when workers die."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from mist.runtime.build import running_build
from mist.runtime.push_ends import leave_result, make_result
from mist.runtime.push_guardian import FILL, MAX_CRASHES, PushesDuty
from mist.runtime.reactor import Timer
from mist.stream.push_note import PushNote


class Channel:
    """Remembers what is sent."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.files: list[bytes] = []
        self.closed = False

    def send(self, message: dict[str, Any], fds: Sequence[int] = (), *, close: Sequence[int] = ()) -> None:
        self.sent.append(message)
        self.files += [os.read(fd, 100) for fd in fds]
        for fd in close:
            os.close(fd)


class Worker:
    """A process that does nothing."""

    def __init__(self, pid: int) -> None:
        self.pid, self.channel, self.stopping, self.build = pid, Channel(), False, ""
        self.stays = False
        self.signals: list[int] = []
        self.ran = 1.0
        self.heard = self.started = 0.0

    def ran_seconds(self) -> float:
        return self.ran

    def signal(self, number: int) -> None:
        self.signals.append(number)

    @property
    def pushes(self) -> list[int]:
        return [plan["number"] for one in self.channel.sent if one["do"] == "push" for plan in one["plans"]]


class Guardian:
    """Starts workers, and calls at once what is to be called later, but for heartbeats and lingering."""

    def __init__(self) -> None:
        self.upstream, self.reactor, self.ending = Channel(), self, False
        self.workers: dict[int, Worker] = {}
        self.later: list[tuple[float, Callable[..., Any], tuple[Any, ...]]] = []
        self.timers: list[Timer] = []
        self.stopped: list[int] = []
        self.forgotten: list[int] = []
        self.asked_to_settle = False
        self.failures: list[OSError] = []  # of workers that are started next
        self.instance = SimpleNamespace(prefix="t", shared_names=list)

    def call_later(self, delay: float, callback: Callable[..., Any], *arguments: Any) -> Timer:
        self.later.append((delay, callback, arguments))
        self.timers.append(Timer(delay, callback))
        return self.timers[-1]

    def waiting(self, name: str) -> int:
        """Return how many timers with this callback have not been cancelled."""
        return sum(one.callback is not None and one.callback.__name__ == name for one in self.timers)

    def run(self, name: str) -> None:
        """Call what waits and has this name."""
        due = [one for one in self.later if one[1].__name__ == name]
        self.later = [one for one in self.later if one not in due]
        for _, callback, arguments in due:
            callback(*arguments)

    def start_worker(self, main: object) -> Worker:
        if self.failures:
            raise self.failures.pop()
        worker = Worker(1000 + len(self.workers))
        self.workers[worker.pid] = worker
        return worker

    def expect_worker(self, pid: int) -> Worker | None:
        return self.workers.setdefault(pid, Worker(pid))

    def stop_worker(self, worker: Worker, reason: str) -> None:
        worker.stopping = True
        self.stopped.append(worker.pid)

    def tell_workers(self, message: dict[str, Any]) -> None:
        for worker in self.workers.values():
            worker.channel.send(message)

    def settle(self) -> None:
        self.asked_to_settle = True

    def forget_worker(self, pid: int) -> None:
        self.forgotten.append(pid)

    def results(self) -> dict[int, str]:
        return {one["number"]: one["reason"] for one in self.upstream.sent if one["event"] == "result"}


class Stage:
    """A duty with a guardian, on a machine with two processors."""

    def __init__(self, folder: Path) -> None:
        roles = {
            "RTMP": SimpleNamespace(shares=lambda target: True),
            "MP4": SimpleNamespace(shares=lambda target: False),
        }
        places = {name: folder / name for name in ("trigger_socket", "config_file")}
        server: Any = SimpleNamespace(
            instance=SimpleNamespace(push_notes=folder, **places), program=SimpleNamespace(pushes=roles)
        )
        self.duty = PushesDuty(server)
        self.duty._width = 2
        self.guardian = Guardian()
        self.dead: set[int] = set()
        self.duty.start(self.guardian)  # type: ignore[arg-type]
        self.told: list[tuple[str, str, list[str]]] = []  # trigger, what is told once, and the payload
        self.duty._ends._triggers = SimpleNamespace(  # type: ignore[assignment]
            notify=lambda name, _stream, lines, once: self.told.append((name, once, lines))
        )

    def order(self, numbers: range | list[int], connector: str = "RTMP", **more: Any) -> None:
        plans = [
            {"plan": {"number": n, "stream": "live", "requested": "t", "target": "t", "connector": connector}, **more}
            for n in numbers
        ]
        self.duty.command({"do": "push", "pushes": plans}, [])

    def give(self, worker: Worker, path: Path, **message: Any) -> None:
        """Have a worker say something, with a descriptor of a file."""
        self.duty.worker_said(worker, message, [os.open(path, os.O_RDONLY)])  # type: ignore[arg-type]

    def say(self, worker: Worker, **message: Any) -> None:
        self.duty.worker_said(worker, message, [])  # type: ignore[arg-type]

    def kill(self, worker: Worker) -> list[Worker]:
        """Have a worker die; returns those that are started for it."""
        self.dead.add(worker.pid)
        before = set(self.guardian.workers)
        self.duty.bequeath(worker, -9)  # type: ignore[arg-type]
        self.duty.worker_ended(worker, -9)  # type: ignore[arg-type]
        self.guardian.run("_start_worker")
        return [one for pid, one in self.guardian.workers.items() if pid not in before]

    @property
    def workers(self) -> list[Worker]:
        return list(self.guardian.workers.values())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    return Stage(tmp_path)


def test_pushes_to_servers_share_as_many_workers_as_there_are_processors(stage: Stage) -> None:
    stage.order(range(FILL))
    assert [len(worker.pushes) for worker in stage.workers] == [FILL]
    stage.order(range(FILL, 100))
    assert [len(worker.pushes) for worker in stage.workers] == [50, 50]
    stage.order([100, 101], "MP4")
    assert [worker.pushes for worker in stage.workers[2:]] == [[100], [101]]


def test_all_pushes_of_a_worker_that_died_begin_again(stage: Stage) -> None:
    stage.order(range(3))
    [next_one] = stage.kill(stage.workers[0])
    assert next_one.pushes == [0, 1, 2]
    assert stage.guardian.results() == {}


def test_the_push_that_kills_is_alone_in_the_end(stage: Stage) -> None:
    stage.order(range(FILL))
    guilty, lost = 5, 0
    while stage.guardian.results().get(guilty) is None:
        [worker] = [one for one in stage.workers if guilty in one.pushes and one.pid not in stage.dead]
        stage.kill(worker)
        lost += 1
        assert lost < 40
    assert stage.guardian.results() == {guilty: "INTERNAL_ERROR"}
    living = [one for one in stage.workers if one.pid not in stage.dead]
    assert sorted(number for worker in living for number in worker.pushes) == [n for n in range(FILL) if n != guilty]
    assert lost <= 2 + 3 + MAX_CRASHES + 1


def test_a_result_is_told_until_it_is_known(stage: Stage) -> None:
    stage.order([1, 2])
    [worker] = stage.workers
    stage.say(worker, event="result", number=1, reason="CLEAN_EOF", text="over", status={})
    assert stage.guardian.results() == {1: "CLEAN_EOF"}
    stage.guardian.upstream = Channel()  # of another main process, which has not heard it
    stage.order([1, 2])
    assert stage.guardian.results() == {1: "CLEAN_EOF"}
    assert [one["result"] is not None for one in stage.duty.show()[0]["pushes"]] == [True, False]
    stage.duty.command({"do": "forget", "number": 1}, [])
    assert [one["plan"]["number"] for one in stage.duty.show()[0]["pushes"]] == [2]


def test_a_worker_without_pushes_ends(stage: Stage) -> None:
    stage.order([1])
    [worker] = stage.workers
    stage.say(worker, event="result", number=1, reason="CLEAN_EOF", text="over")
    stage.order([2])  # in time
    stage.guardian.run("_end_idle")
    assert stage.guardian.stopped == []
    stage.say(worker, event="result", number=2, reason="CLEAN_EOF", text="over")
    stage.guardian.run("_end_idle")
    assert stage.guardian.stopped == [worker.pid]
    stage.order([3])
    assert stage.workers[1].pushes == [3], "nothing is given to one that ends"


def test_the_worker_of_a_former_guardian_goes_on(stage: Stage) -> None:
    assert not stage.duty.is_settled()
    stage.order([1, 2, 3], worker=77)
    assert stage.duty.is_settled() and stage.guardian.asked_to_settle, "what pushes there are is known now"
    stage.order([4], worker=77, stopping="CLEAN_CONTROLLER_REQ")
    [worker] = stage.workers
    assert (worker.pid, worker.pushes) == (77, [])
    stage.duty.worker_rejoined(worker, {"pushes": [1, 3, 4, 9]})  # type: ignore[arg-type]
    assert worker.pushes == [2], "it never got that one, or its result was not heard"
    assert [one["number"] for one in worker.channel.sent if one["do"] == "end_push"] == [9, 4]
    stranger = Worker(78)
    stage.duty.worker_rejoined(stranger, {"pushes": [1]})  # type: ignore[arg-type]
    assert stranger.signals


def test_what_was_stopped_does_not_begin_again(stage: Stage) -> None:
    stage.order([1, 2])
    [worker] = stage.workers
    stage.duty.command({"do": "stop", "number": 1, "reason": "CLEAN_CONTROLLER_REQ", "gracefully": True}, [])
    assert worker.channel.sent[-1] == {"do": "end_push", "number": 1, "gracefully": True}
    [next_one] = stage.kill(worker)
    assert next_one.pushes == [2]
    assert stage.guardian.results() == {1: "CLEAN_CONTROLLER_REQ"}


def ended(worker: Worker) -> list[int]:
    return [one["number"] for one in worker.channel.sent if one["do"] == "end_push"]


def test_files_of_a_push_that_was_stopped_are_ended_by_the_next_process(stage: Stage, tmp_path: Path) -> None:
    """What the first one died with would never be told, and the file would lack its end. One more process does, or none."""
    stage.order([1, 2], "MP4")
    for number in (1, 2):
        (tmp_path / str(number)).write_text("a note")
    first, second = stage.workers
    stage.duty.command({"do": "stop", "number": 1, "reason": "CLEAN_CONTROLLER_REQ"}, [])
    [next_one] = stage.kill(first)
    assert (next_one.pushes, ended(next_one), stage.guardian.results()) == ([1], [1], {})
    assert stage.kill(next_one) == []
    assert stage.guardian.results() == {1: "CLEAN_CONTROLLER_REQ"}
    stage.dead.add(second.pid)
    stage.duty.worker_ended(second, -9)  # type: ignore[arg-type]  # and another is started a moment later
    stage.duty.command({"do": "stop", "number": 2, "reason": "CLEAN_CONTROLLER_REQ"}, [])
    last = stage.workers[-1]
    assert (last.pushes, ended(last)) == ([2], [2])
    stage.guardian.run("_start_worker")
    assert stage.workers[-1] is last
    stage.guardian.run("_insist")
    assert stage.guardian.stopped == [last.pid]
    assert stage.kill(last) == []
    assert stage.guardian.results() == dict.fromkeys((1, 2), "CLEAN_CONTROLLER_REQ")


def test_a_push_that_was_stopped_while_its_guardian_died_is_ended(stage: Stage, tmp_path: Path) -> None:
    (tmp_path / "1").write_text("a note")
    stage.order([1, 2], "MP4", stopping="CLEAN_CONTROLLER_REQ")
    [worker] = stage.workers
    assert (worker.pushes, ended(worker)) == ([1], [1])
    assert stage.guardian.results() == {2: "CLEAN_CONTROLLER_REQ"}, "it had not begun"


def test_nothing_of_a_push_that_has_ended_waits(stage: Stage) -> None:
    """A timer would keep its result in memory: of a thousand pushes that were stopped, for half a minute."""
    stage.order([1, 2])
    [worker] = stage.workers
    for number in (1, 2):
        stage.duty.command({"do": "stop", "number": number}, [])
    assert stage.guardian.waiting("_insist") == 2
    stage.say(worker, event="result", number=1, reason="CLEAN_CONTROLLER_REQ", text="stopped")
    assert stage.guardian.waiting("_insist") == 1
    stage.guardian.run("_insist")
    assert worker.channel.sent[-1] == {"do": "end_push", "number": 2}


def test_a_file_of_a_push_goes_to_its_next_worker(stage: Stage, tmp_path: Path) -> None:
    stage.order([1, 2], "MP4")
    path = tmp_path / "waits"
    path.write_bytes(b"what waits")
    worker = stage.workers[1]
    stage.give(worker, path, event="file", number=2)
    [next_one] = stage.kill(worker)
    assert (next_one.pushes, next_one.channel.files) == ([2], [b"what waits"])
    assert stage.kill(stage.workers[0])[0].channel.files == []
    before = len(os.listdir("/proc/self/fd"))
    stage.say(next_one, event="result", number=2, reason="CLEAN_EOF", text="over")
    assert len(os.listdir("/proc/self/fd")) == before - 1


def test_workers_are_watched_while_they_have_pushes(stage: Stage) -> None:
    stage.order([1])
    [worker] = stage.workers
    assert [one for one, _ in stage.duty._watched()] == [worker]
    stage.say(worker, event="result", number=1, reason="CLEAN_EOF", text="over")
    assert list(stage.duty._watched()) == []


def test_after_a_crash_of_the_main_process_only_what_need_not_connect_again_moves(stage: Stage) -> None:
    """A push over TLS would have to; for other code it does."""
    for number, connector, target in (
        (1, "RTMP", "rtmps://there/live"),
        (2, "MP4", "/tmp/a.mp4"),
        (3, "MP4", "s3://b/a.mp4"),
    ):
        plan = {"number": number, "stream": "live", "requested": target, "target": target, "connector": connector}
        stage.duty.command({"do": "push", "pushes": [{"plan": plan}]}, [])
    for worker in stage.workers:
        worker.build = f"{running_build()}+0.1"
    stage.duty.replace_workers()
    assert [(one.stays, one.stopping) for one in stage.workers] == [(True, False), (False, True), (True, False)]
    for worker in stage.workers:
        worker.build, worker.stopping = "other code", False
    stage.duty.replace_workers()
    assert [(one.stays, one.stopping) for one in stage.workers] == [(False, True)] * 3


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def files(tmp_path: Path) -> tuple[Path, Path]:
    """Return files that stand for a socket and for the memory of a group."""
    paths = (tmp_path / "socket", tmp_path / "memory")
    for path in paths:
        path.write_text(path.name)
    return paths


def adopted(worker: Worker) -> list[tuple[list[int], list[int], list[int]]]:
    """Return of each order to adopt whose things they are, and the numbers of arenas and connections."""
    orders = [one for one in worker.channel.sent if one["do"] == "adopt"]
    return [(one["pids"], one.get("arenas", []), [c[0] for c in one.get("connections", [])]) for one in orders]


def test_connections_go_to_the_next_worker(stage: Stage, files: tuple[Path, Path]) -> None:
    sock, memory = files
    before = descriptors()
    stage.order([1, 2, 3])
    [worker] = stage.workers
    stage.give(worker, sock, event="file", number=2)
    stage.give(worker, memory, arena=7)
    [second] = stage.kill(worker)
    assert adopted(second) == [([1000], [7], []), ([1000], [], [2]), ([1000], [], [])]
    assert second.channel.files == [b"memory", b"socket"]
    assert [one["do"] for one in second.channel.sent][-1] == "push", "first what is left, then the pushes"
    assert second.pushes == [1, 2, 3]
    assert stage.guardian.forgotten == [], "its records are still to be read"
    living = stage.kill(second)  # which had adopted nothing yet; the pushes are divided
    assert sorted(number for one in living for number in one.pushes) == [1, 2, 3]
    orders = [order for one in living for order in adopted(one)]
    assert {tuple(pids) for pids, _, _ in orders} == {(1001, 1000)}
    assert [connection for _, _, some in orders for connection in some] == [2]
    for one in living:
        stage.say(one, adopted=[1001, 1000])
        stage.say(one, held=[])
    assert sorted(stage.guardian.forgotten) == [1000, 1001]
    for one in living:
        for number in one.pushes:
            stage.say(one, event="result", number=number, reason="CLEAN_EOF", text="over")
    assert descriptors() == before


def test_memory_of_groups_that_end_is_let_go(stage: Stage, files: tuple[Path, Path]) -> None:
    before = descriptors()
    stage.order([1])
    [worker] = stage.workers
    for _ in range(2):
        stage.give(worker, files[1], arena=7)
    assert descriptors() == before + 1
    stage.give(worker, files[1], inventory={"arenas": [8]})
    stage.say(worker, arena_gone=7)
    stage.say(worker, arena_gone=7)
    assert descriptors() == before + 1
    stage.say(worker, held=[])
    assert descriptors() == before


def test_a_worker_of_other_code_is_replaced_when_it_has_said_what_it_has(
    stage: Stage, files: tuple[Path, Path]
) -> None:
    stage.order([1], worker=77)
    [worker] = stage.workers
    worker.build = "another"
    stage.duty.worker_rejoined(worker, {"pushes": [1]})  # type: ignore[arg-type]
    stage.duty.replace_workers()
    assert not worker.signals
    stage.give(worker, files[0], event="file", number=1)
    stage.say(worker, inventory={"last": True})
    assert worker.signals
    [next_one] = stage.kill(worker)
    assert next_one.channel.files == [b"socket"]
    stage.say(next_one, event="result", number=1, reason="CLEAN_EOF", text="over")


def test_one_that_does_not_say_what_it_has_is_replaced_all_the_same(stage: Stage) -> None:
    stage.order([1], worker=77)
    [worker] = stage.workers
    worker.build = "another"
    stage.duty.worker_rejoined(worker, {"pushes": [1]})  # type: ignore[arg-type]
    stage.guardian.run("_told")
    assert worker.signals


STATUS = {"bytes": 900, "mediatime": 5000, "media_tx": 4000, "current_target": ""}


def test_a_push_whose_process_was_killed_as_it_was_to_end_is_told_of(stage: Stage) -> None:
    stage.order([1, 2], began=100.0)
    [worker] = stage.workers
    stage.say(worker, event="status", pushes={"1": STATUS})
    stage.duty.command({"do": "stop", "number": 1}, [])
    stage.kill(worker)
    [(name, _, lines)] = stage.told
    assert (name, lines[:4]) == ("OUTPUT_END", ["live", "t", "RTMP", "900"])
    assert (lines[5], lines[7:12]) == ("100", ["4000", "1000", "5000", "CLEAN_CONTROLLER_REQ", "stopped"])


def test_an_end_that_is_told_again_is_known_as_the_same(stage: Stage, tmp_path: Path) -> None:
    """The guardian is killed before the main process has heard the result: the next one finds it in the note."""
    stage.order([1])
    stage.duty.command({"do": "stop", "number": 1}, [])
    stage.kill(stage.workers[0])
    other = Stage(tmp_path)
    other.order([1], stopping="CLEAN_CONTROLLER_REQ")
    assert len(stage.told) == 1
    assert other.told == stage.told
    assert other.guardian.upstream.sent[-1]["ended"] == stage.guardian.upstream.sent[-1]["ended"]


def test_what_a_killed_process_said_of_the_end_counts(stage: Stage, tmp_path: Path) -> None:
    stage.order([1])
    stage.duty.command({"do": "stop", "number": 1}, [])
    said = make_result(1, "CLEAN_EOF", "the stream has ended", status=STATUS, began=1.0, first_ms=0)
    leave_result(PushNote(tmp_path, 1), said)
    stage.kill(stage.workers[0])
    assert stage.guardian.results() == {1: "CLEAN_EOF"}
    assert [lines[10] for _, _, lines in stage.told] == ["CLEAN_EOF"]


def test_a_recording_that_ends_before_it_began_is_told_of(stage: Stage) -> None:
    stage.order([1], "MP4")
    stage.duty.command({"do": "stop", "number": 1}, [])
    stage.kill(stage.workers[0])
    assert [name for name, _, _ in stage.told] == ["RECORDING_END", "OUTPUT_END"]
    assert stage.told[0][2][8] == str(2**64 - 1)


def test_the_end_of_a_former_version_s_push_was_told_by_itself(stage: Stage) -> None:
    stage.order([1])
    stage.say(stage.workers[0], event="result", number=1, reason="CLEAN_EOF", text="over", status={})
    assert stage.told == []


def test_pushes_whose_processes_die_with_the_server_are_told_of(stage: Stage) -> None:
    stage.order([1])
    stage.order([2], "MP4")
    first, second = stage.workers
    stage.duty.worker_ended(second, -9)  # type: ignore[arg-type]
    stage.guardian.ending = True
    stage.duty.stopping()
    stage.duty.worker_ended(first, -9)  # type: ignore[arg-type]
    assert [(name, lines[2]) for name, _, lines in stage.told] == [
        ("RECORDING_END", "MP4"), ("OUTPUT_END", "MP4"), ("OUTPUT_END", "RTMP")
    ]  # fmt: skip


def test_the_end_of_files_does_not_wait_for_the_next_attempt(stage: Stage, tmp_path: Path) -> None:
    """Processes that died again and again are started ever later; one that is to write the end of a file is started at once."""
    stage.order([1], "MP4")
    [worker] = stage.workers
    for _ in range(3):
        [worker] = stage.kill(worker)
    PushNote(tmp_path, 1).write({"recorder": {}}, 0, dict)
    stage.duty._pushes[1].version = PushNote(tmp_path, 1).version()
    stage.duty.command({"do": "stop", "number": 1}, [])
    before = len(stage.workers)
    stage.duty.worker_ended(worker, -9)  # type: ignore[arg-type]
    assert len(stage.workers) == before + 1
    assert stage.told == []


def test_a_worker_that_cannot_be_forked_is_tried_again(stage: Stage) -> None:
    stage.guardian.failures = [OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))]
    stage.order([1, 2])
    assert stage.workers == []
    stage.guardian.run("_start_worker")
    assert [worker.pushes for worker in stage.workers] == [[1, 2]]

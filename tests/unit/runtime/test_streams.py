"""The book of streams, limits from the configuration, and what dead processes leave in shared memory."""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

import pytest

from mist.core.checkpoint import create_checkpoints
from mist.core.track_buffer import open_table
from mist.errors import Busy, MistError, NotFound, NotReady
from mist.runtime.build import running_build
from mist.runtime.channel import Message
from mist.runtime.guardian import RETIRED
from mist.runtime.instance import Instance
from mist.runtime.leftovers import (
    ORPHAN_SECONDS,
    RECORDS_LINGER_SECONDS,
    RecordSweeper,
    all_records,
    end_records,
    records_name,
    release_subscriptions,
)
from mist.runtime.program import Program, Server
from mist.runtime.reactor import Timer
from mist.runtime.spawner_link import raise_error
from mist.runtime.stream_guardian import stream_limits
from mist.runtime.streams import Streams
from mist.runtime.succession import Succession
from mist.stream.capability import Capability
from mist.stream.names import SHARED_MEMORY, stream_prefix
from mist.stream.publisher import Limits, create_stream
from tests.support.shared_memory import shared_instance


@dataclass(frozen=True)
class Module:
    capability: Capability


@dataclass
class FakeChild:
    """A guardian that only keeps what it is told."""

    pid: int
    heard: Callable[[FakeChild, Message, list[int]], None]
    ended: Callable[[FakeChild, int], None]
    stopping: bool = False
    sent: list[Message] = field(default_factory=list)
    ran: float = 0.0
    build: str = field(default_factory=running_build)

    @property
    def channel(self) -> FakeChild:
        return self

    def send(self, message: Message, fds: Any = (), *, close: Any = ()) -> None:
        self.sent.append(message)
        for fd in close:
            os.close(fd)

    def ran_seconds(self) -> float:
        return self.ran

    def on_message(self, message: Message) -> None:
        self.heard(self, message, [])

    def on_ended(self, status: int) -> None:
        self.ended(self, status)


class Book:
    """Streams with a family and an event loop that are none."""

    def __init__(self, folder: Path) -> None:
        inputs = {
            "demo": Module(Capability("demo", "", "", source_match=("demo:*",))),
            "RTMP": Module(Capability("RTMP", "", "", non_provider=True)),
        }
        server = Server(Instance(f"unit{os.getpid()}", folder), Program("1", {}, inputs, dict))
        self.children: list[FakeChild] = []
        self.no_descriptors = False
        self.planned: list[Timer] = []
        self.answers: list[Message] = []
        self.succession = Succession(self, lambda: None)  # type: ignore[arg-type]
        self.streams = Streams(server, self, self, lambda: None, self.succession)  # type: ignore[arg-type]

    def start(self, name: str, main: object, *, on_message: Any, on_ended: Any) -> FakeChild:
        if self.no_descriptors:
            raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))
        self.children.append(FakeChild(len(self.children) + 1, on_message, on_ended))
        return self.children[-1]

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> Timer:
        self.planned.append(Timer(delay, partial(callback, *arguments)))
        return self.planned[-1]

    def run_planned(self) -> None:
        planned, self.planned = self.planned, []
        for timer in planned:
            if timer.callback is not None:
                timer.callback()

    def configure(self, **streams: dict[str, Any]) -> None:
        self.streams.apply({"config": {}, "streams": streams})

    def publish(self, name: str, connector: str = "rtmp") -> None:
        fds = list(os.pipe())
        self.streams.publish(name, {"input": connector}, fds, self.answers.append)

    def watch(self, name: str) -> None:
        self.streams.start(name, self.answers.append)


@pytest.fixture
def book(tmp_path: Path) -> Book:
    made = Book(tmp_path)
    made.configure(live={"source": "push://"}, test={"source": "demo:"}, odd={"source": "xyz:"})
    return made


def test_viewers_of_a_pulled_stream_share_one_guardian(book: Book) -> None:
    book.watch("test")
    book.watch("test")
    [child] = book.children
    first, second = child.sent
    child.on_message({"reply": second["id"], "ok": True})
    assert book.answers == [{"ok": True}]
    child.on_message({"reply": first["id"], "error": "NotReady", "text": "no"})
    assert book.answers[1] == {"error": "NotReady", "text": "no"}
    child.on_message({"reply": first["id"], "ok": True})
    assert len(book.answers) == 2


@pytest.mark.parametrize(("name", "error"), [("none", NotFound), ("odd", NotFound), ("live", NotReady)])
def test_what_cannot_be_watched(book: Book, name: str, error: type[MistError]) -> None:
    with pytest.raises(error, match=name):
        book.watch(name)
    assert book.children == []


def test_a_publisher_starts_its_stream_and_wildcards_are_streams_of_their_own(book: Book) -> None:
    book.publish("live+one")
    book.publish("live+two")
    book.publish("live+one")
    assert len(book.children) == 2
    assert book.children[0].sent[0]["request"] == {"input": "RTMP"}
    book.watch("live+one")
    assert [one["stream"] for one in book.streams.states()] == ["live+one", "live+two"]


def test_publishers_without_a_stream_or_an_input_are_refused_and_let_go(book: Book) -> None:
    before = len(os.listdir("/proc/self/fd"))
    readers = []
    for name, connector in (("none", "RTMP"), ("live", "SRT")):
        with pytest.raises(NotFound):
            book.publish(name, connector)
        readers.append(name)
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_killed_guardian_is_started_again_to_adopt(book: Book) -> None:
    book.publish("live")
    book.children[0].on_ended(-9)
    assert book.answers[0]["error"] == "NotReady"
    assert len(book.children) == 2
    assert book.streams._streams["live"].plan.adopt
    book.publish("live")
    assert len(book.children[1].sent) == 1


def test_requests_wait_for_the_next_guardian(book: Book) -> None:
    """What a killed one had not answered is asked again; what comes while there is none waits."""
    book.watch("test")
    book.children[0].on_ended(-9)
    assert [message["do"] for message in book.children[1].sent] == ["start"]
    book.children[1].on_ended(-9)  # the second time in a row: it is started after a while
    assert len(book.children) == 2
    book.watch("test")
    book.run_planned()
    assert [message["do"] for message in book.children[2].sent] == ["start", "start"]
    assert book.answers == []
    book.children[2].on_ended(0)
    assert book.answers == [], "they came while the stream ended, and are asked of a new one, once"
    assert [message["do"] for message in book.children[3].sent] == ["start", "start"]
    book.children[3].on_ended(0)
    assert [answer["error"] for answer in book.answers] == ["StreamEnded", "StreamEnded"]
    assert len(book.children) == 4


def test_a_guardian_that_cannot_be_forked_is_tried_again(book: Book) -> None:
    book.no_descriptors = True
    book.watch("test")
    book.run_planned()
    assert (book.answers, book.children) == ([], [])
    book.streams.nuke("test")
    book.run_planned()
    assert not book.planned, "a stream that is gone is not started"
    book.watch("test")
    book.no_descriptors = False
    book.run_planned()
    assert [message["do"] for message in book.children[0].sent] == ["start"]


def test_a_guardian_that_retires_has_a_successor_at_once(book: Book) -> None:
    book.watch("test")
    first = book.children[0]
    first.stopping = True
    book.watch("test")
    assert len(first.sent) == 1
    first.on_ended(RETIRED)
    assert [message["do"] for message in book.children[1].sent] == ["start", "start"]


def test_what_a_crashed_main_process_left_is_replaced_in_turns(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mist.runtime.streams.is_after_crash", lambda: True)
    for name in ("live+one", "live+two"):
        book.publish(name)
    for child in tuple(book.children):
        child.on_ended(-9)
    one, two = book.children[2:]
    replace: Message = {"do": "replace"}
    assert replace not in [*one.sent, *two.sent], "the main process has only begun"
    book.succession.open()
    assert (replace in one.sent, replace in two.sent) == (True, False)
    one.ran = 60.0
    one.on_ended(-9)  # the next one in its place waits for another turn
    again = book.children[4]
    assert (replace in two.sent, replace in again.sent) == (True, False)
    two.on_message({"event": "settled"})
    assert replace in again.sent


def test_a_stream_that_ended_is_forgotten(book: Book) -> None:
    book.watch("test")
    book.children[0].on_message({"reply": book.children[0].sent[0]["id"], "ok": True})
    book.children[0].on_ended(0)
    assert book.streams.states() == []
    book.watch("test")
    assert len(book.children) == 2


def test_always_on_streams_run_and_run_again(book: Book) -> None:
    book.configure(test={"source": "demo:", "always_on": True}, live={"source": "push://", "always_on": True})
    assert len(book.children) == 1
    book.children[0].on_ended(0)
    book.run_planned()
    assert len(book.children) == 2
    book.streams.close()
    book.children[1].on_ended(0)
    book.run_planned()
    assert len(book.children) == 2


def test_streams_follow_the_configuration(book: Book) -> None:
    book.publish("live")
    book.watch("test")
    book.configure(live={"source": "push://@secret"}, test={"source": "demo:", "inputtimeout": 3})
    live, test = book.children
    assert live.sent[-1]["do"] == "stop"
    assert test.sent[-1] == {"do": "config"}
    book.configure()
    assert test.sent[-1]["do"] == "stop"


def test_a_stream_key_alone_makes_a_stream(book: Book) -> None:
    fds = list(os.pipe())
    book.streams.publish("keyed", {"input": "RTMP", "source": "push://KEY"}, fds, book.answers.append)
    book.configure(live={"source": "push://"})
    assert [one["stream"] for one in book.streams.states()] == ["keyed"]
    assert [message["do"] for message in book.children[0].sent] == ["publish", "config"]


def test_stopping_and_nuking(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[int] = []
    monkeypatch.setattr("mist.runtime.streams.send_signal", lambda pid, number: killed.append(pid))
    monkeypatch.setattr("mist.runtime.streams.descendants", lambda pid: [77])
    with pytest.raises(NotFound):
        book.streams.stop("live", "x")
    book.publish("live")
    book.streams.stop("live", "CLEAN_CONTROLLER_REQ")
    assert book.children[0].sent[-1] == {"do": "stop", "reason": "CLEAN_CONTROLLER_REQ"}
    assert book.streams.nuke("live")
    assert not book.streams.nuke("live")
    assert sorted(killed) == [1, 77]
    assert book.streams.states() == []
    book.children[0].on_ended(-9)
    book.publish("live")
    assert len(book.children) == 2


def test_limits_come_from_the_configuration() -> None:
    snapshot = {
        "config": {"memory": {"per_stream_bytes": 5, "packet_bytes": 6}},
        "streams": {"live": {"DVR": 2000, "segmentsize": 500}},
    }
    assert stream_limits(snapshot, "live+x") == Limits(2_000_000, 500_000, 5, 6)
    assert stream_limits({"config": {}, "streams": {}}, "other") == Limits(50_000_000, 1_900_000, 1 << 30, 32 << 20)


def test_errors_travel_by_name() -> None:
    assert raise_error({"ok": True}) == {"ok": True}
    with pytest.raises(Busy, match="taken"):
        raise_error({"error": "Busy", "text": "taken"})
    with pytest.raises(MistError, match="odd"):
        raise_error({"error": "SystemExit", "text": "odd"})


# -- what dead processes leave -------------------------------------------------------------------------------------


@pytest.fixture
def dead_process() -> Iterator[int]:
    pid = os.fork()
    if pid == 0:
        signal.pause()
    yield pid
    os.kill(pid, signal.SIGKILL)
    os.waitpid(pid, 0)


def test_a_dead_process_lets_go_of_streams_and_its_doorbell(tmp_path: Path) -> None:
    with shared_instance() as name:
        instance = Instance(name, tmp_path)
        instance.bells.mkdir(parents=True)
        (instance.bells / str(os.getpid())).touch()
        create_stream(name, "live", Limits())
        table = open_table(stream_prefix(name, "live"))
        table.subscribe(1)
        create_checkpoints(records_name(instance, os.getpid())).claim("HTTP", "127.0.0.1")
        release_subscriptions(instance, os.getpid())
        assert table.subscribers() == []
        for _ in range(2):
            end_records(instance, os.getpid())
            assert list(instance.bells.iterdir()) == []


def test_without_descriptors_the_sweeper_comes_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: object) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE))

    sweeper = RecordSweeper(Instance("none", tmp_path))
    monkeypatch.setattr(os, "scandir", full)
    assert sweeper.sweep(100.0) == RECORDS_LINGER_SECONDS


def test_figures_of_a_dead_process_stay_a_while(tmp_path: Path, dead_process: int) -> None:
    with shared_instance() as name:
        instance = Instance(name, tmp_path)
        mine = records_name(instance, os.getpid())
        records = create_checkpoints(mine)
        records.claim("HTTP", "10.0.0.1").set_stream("live")
        other = create_checkpoints(records_name(instance, dead_process))
        assert set(all_records(instance)) == {os.getpid(), dead_process}
        sweeper = RecordSweeper(instance)
        assert sweeper.sweep(100.0) is None
        os.kill(dead_process, signal.SIGKILL)
        os.waitid(os.P_PID, dead_process, os.WEXITED | os.WNOWAIT)
        assert sweeper.sweep(101.0) == ORPHAN_SECONDS  # its guardian may have another process go on with them
        assert sweeper.sweep(101.0 + ORPHAN_SECONDS) == RECORDS_LINGER_SECONDS - ORPHAN_SECONDS
        assert (SHARED_MEMORY / other.name).exists()
        assert sweeper.sweep(101.0 + RECORDS_LINGER_SECONDS) is None
        assert set(all_records(instance)) == {os.getpid()}
        [seen] = records.look()
        assert (seen.connector, seen.stream, seen.host, seen.active) == ("HTTP", "live", "10.0.0.1", True)


def test_a_stream_that_is_nuked_before_its_next_guardian_gets_none(book: Book) -> None:
    """Its guardians die at once, so that the next one is to come after a while; who waits is answered, and may ask again."""
    book.watch("test")
    for _ in range(2):
        book.children[-1].on_ended(-9)
    guardians = len(book.children)
    assert book.planned, "the next one comes later"
    book.watch("test")
    assert book.streams.nuke("test")
    assert [answer["error"] for answer in book.answers] == ["StreamEnded"] * 2
    book.run_planned()
    assert (len(book.children), book.streams.states()) == (guardians, [])
    book.watch("test")
    assert len(book.children) == guardians + 1
    book.run_planned()
    assert len(book.children) == guardians + 1, "one guardian for one stream"

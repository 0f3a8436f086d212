"""Each kind of process is killed once a second, crashes, hangs and is upgraded; nobody who watches, publishes or records notices."""

from __future__ import annotations

import signal
import sys
from collections.abc import Callable, Iterator

import av
import pytest

from tests.integration.test_runtime import mist
from tests.recovery.stage import INTERVAL_S, PULLED, SECONDS, WAIT_S, Phase, Stage, write_report
from tests.support.numbered import Book
from tests.support.processes import wait_until

pytestmark = pytest.mark.timeout(600 + 3 * SECONDS)

UPGRADES = 10 if SECONDS >= 10 else 4
LEAK_SECONDS = 40.0  # after which the figures of dead processes are forgotten
STAYS = {f"input {PULLED}"}  # when the main process is another one
FEWER_HANGS = 3  # seconds that finding one takes
# What is killed, by the beginning of its title.
KINDS = {
    "output worker HTTP": "output HTTP",
    "output worker RTMP": "output RTMP",
    "output worker DTSC": "output DTSC",
    "input worker RTMP": "input live",
    "input worker DTSC pull": f"input {PULLED}",
    "guardian of HTTP": "guardian HTTP",
    "guardian of RTMP": "guardian RTMP",
    "guardian of DTSC": "guardian DTSC",
    "guardian of a publisher's stream": "guardian input live",
    "guardian of a pulled stream": f"guardian input {PULLED}",
    "controller": "controller",
    "push worker": "push live",
    "push guardian": "guardian push",
    "trigger process": "triggers",
    "session process": "sessions",
    "main process": "server",
}
CRASHES = ("output worker HTTP", "input worker RTMP", "input worker DTSC pull")
HANGS = (
    "output worker HTTP",
    "output worker RTMP",
    "output worker DTSC",
    "input worker RTMP",
    "input worker DTSC pull",
    "guardian of HTTP",
    "guardian of a publisher's stream",
    "guardian of a pulled stream",
    "controller",
    "session process",
)


@pytest.fixture(scope="module")
def stage() -> Iterator[Stage]:
    made = Stage()
    try:
        made.begin()
        yield made
    finally:
        made.end_viewers()
        made.log_file.write_text("\n".join(made.server.log))
        made.end()


@pytest.fixture(scope="module")
def held(stage: Stage) -> dict[str, int]:
    """Return what the server holds before anything is killed."""
    return stage.held()


def judge(phase: Phase) -> None:
    assert phase.blows, "nothing was there to be killed"
    assert phase.closed == []
    assert phase.differing == []


def blow_at(stage: Stage, title: str, how: int) -> Callable[[], int]:
    """Return what kills all processes of a kind, and the main process in such a way that it comes back."""

    def trigger_process() -> int:
        stage.call_trigger_process()
        return stage.strike(title, how)

    special = {"server": lambda: stage.kill_main_process(how), "triggers": trigger_process}
    return special.get(title, lambda: stage.strike(title, how))


@pytest.mark.parametrize("kind", KINDS)
def test_killed(stage: Stage, held: dict[str, int], kind: str) -> None:
    judge(stage.phase(f"{kind} killed", blow_at(stage, KINDS[kind], signal.SIGKILL), SECONDS, SECONDS * INTERVAL_S))


def test_what_a_killed_main_process_had_started_is_replaced(stage: Stage, held: dict[str, int]) -> None:
    """But for what would have to connect again."""

    def crash() -> int:
        struck = stage.kill_main_process()
        wait_until(lambda: stage.of_former_main_processes() <= STAYS, WAIT_S, "their successors")
        return struck

    judge(stage.phase("main process killed, then all that it had started replaced", crash, 1))
    assert stage.of_former_main_processes() == STAYS


@pytest.mark.parametrize("kind", CRASHES)
def test_crashes(stage: Stage, kind: str) -> None:
    judge(stage.phase(f"{kind} crashes", blow_at(stage, KINDS[kind], signal.SIGSEGV), SECONDS, SECONDS * INTERVAL_S))


@pytest.mark.parametrize("kind", HANGS)
def test_hangs(stage: Stage, kind: str) -> None:
    def hang() -> int:
        before = {one.pid for one in stage.processes(KINDS[kind])}
        struck = stage.strike(KINDS[kind], signal.SIGSTOP)
        wait_until(lambda: not before & {one.pid for one in stage.server.processes()}, WAIT_S, "the end of who hangs")
        return struck

    judge(stage.phase(f"{kind} hangs", hang, max(1, SECONDS // FEWER_HANGS)))


def test_upgrades(stage: Stage) -> None:
    def upgrade() -> int:
        done = mist(stage.server, "upgrade", "--instance", stage.server.instance)
        assert (done.returncode, done.stderr) == (0, "")
        return 1

    judge(stage.phase("upgrade", upgrade, UPGRADES))


def test_nothing_is_left_behind(stage: Stage, held: dict[str, int]) -> None:
    def grown() -> dict[str, tuple[int, int]]:
        now = stage.held()
        return {name: (held.get(name, 0), count) for name, count in now.items() if count > held.get(name, 0)}

    def too_much() -> list[str]:
        return [*stage.strangers(), *(name for name in grown() if name.startswith("process "))]

    wait_until(lambda: not too_much(), LEAK_SECONDS, f"{too_much()} {grown()}")
    few = {name: counts for name, counts in grown().items() if counts[1] > counts[0] + 4}
    assert few == {}, "descriptors"


def test_sessions_are_asked_about_once(stage: Stage) -> None:
    assert set(stage.sessions_asked().values()) == {1}


def test_viewers_and_recordings_at_the_end(stage: Stage) -> None:
    stage.end_viewers()
    assert [f"{book.name}: {book.closed}" for book in stage.books if book.closed] == []
    assert [f"{book.name}: {book.faults[:3]}" for book in stage.books if book.faults] == []
    stage.server.api({"push_auto_remove": [one.suffix for one in stage.recordings]})
    files = sorted(stage.folder.glob("recording*"))
    books = []
    for file in files:
        book = Book(file.name)
        with av.open(str(file)) as container:
            for packet in container.demux():
                if packet.dts is not None and packet.time_base is not None:
                    book.take(packet.stream.type, bytes(packet), float(packet.dts * packet.time_base) * 1000)
        books.append(book)
    found = {book.name: (book.packets, book.faults[:3]) for book in books}
    path = write_report(stage, {"recordings": found})
    sys.stderr.write(path.read_text())
    assert sorted(found) == sorted(file.name for file in stage.recordings), "a recording began again in another file"
    assert all(book.packets for book in books), found
    assert [name for name, (_, faults) in found.items() if faults] == [], found

"""The play that goes on for the whole of these tests: two publishers, two servers, sixty viewers and two recordings."""

from __future__ import annotations

import json
import math
import os
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.live import FRAME_MS
from tests.support.numbered import Book, NumberedSender
from tests.support.numbered_viewers import AvViewer, DtscViewer, FfmpegViewer, HlsViewer, HttpCrowd, RtmpViewer, Viewer
from tests.support.ports import free_port
from tests.support.processes import Process, descends, descriptors, living_watched, wait_until
from tests.support.server import MistServer

SECONDS = int(os.environ.get("MIST_RECOVERY_SECONDS", "2"))  # how long each kind of process is killed
INTERVAL_S = 1.0
LIVE, PULLED = "live", "pulled"
WAIT_S = 60.0  # at most, for what must come: nothing that is measured here depends on how fast this machine is
GOES_ON = 25  # pictures that every viewer must get after the last blow

# (how many, stream, what) of the viewers
HTTP_VIEWERS = (
    (8, LIVE, "flv"),
    (8, LIVE, "ts"),
    (6, LIVE, "mp4"),
    (6, LIVE, "mkv"),
    (4, PULLED, "flv"),
    (3, PULLED, "ts"),
)
OTHER_VIEWERS: tuple[tuple[int, str, type[Viewer]], ...] = (
    (8, LIVE, RtmpViewer),
    (4, LIVE, DtscViewer),
    (4, LIVE, HlsViewer),
    (1, LIVE, AvViewer),
    (3, PULLED, RtmpViewer),
    (2, PULLED, DtscViewer),
    (1, PULLED, AvViewer),
)
FFMPEG_OUTPUTS = ("mp4", "rtmp")


@dataclass
class Phase:
    """What the viewers saw while one kind of process was killed."""

    name: str
    blows: int = 0
    closed: list[str] = field(default_factory=list)
    differing: list[str] = field(default_factory=list)
    pause_ms: float = 0.0
    median_pause_ms: float = 0.0

    def document(self) -> dict[str, object]:
        return {
            "kind": self.name,
            "blows": self.blows,
            "closed_client_sockets": len(self.closed),
            "differing_viewers": len(self.differing),
            "longest_pause_ms": round(self.pause_ms),
            "median_of_the_longest_pauses_ms": round(self.median_pause_ms),
        }


class Stage:
    """Everything that runs. `begin` first, `end` last."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mist-recovery-"))
        self.origin_port, self.dtsc_port = free_port(), free_port()
        listen = {"interface": "127.0.0.1"}
        self.origin = MistServer(
            streams={LIVE: {"source": "push://127.0.0.1"}}, protocols={"DTSC": {"port": self.origin_port, **listen}}
        )
        self.server = MistServer(
            streams={
                LIVE: {"source": "push://127.0.0.1", "DVR": 60_000},
                PULLED: {"source": f"dtsc://127.0.0.1:{self.origin_port}/live", "DVR": 60_000},
            },
            protocols={"DTSC": {"port": self.dtsc_port, **listen}},
            config={
                "triggers": {
                    "STREAM_READY": [{"handler": "/bin/true", "sync": False, "streams": []}],
                    "USER_NEW": [{"handler": str(self._make_doorman()), "sync": True, "streams": []}],
                }
            },
            env={"MIST_REJOIN_SECONDS": "180"},  # a machine that is busy takes long to start a main process
        )
        self.senders: list[NumberedSender] = []
        self.books: list[Book] = []
        self.recordings = [self.folder / "recording.ts", self.folder / "recording.mp4"]
        self.log_file = self.folder / "server.log"
        self._crowd = HttpCrowd()
        self._viewers: list[Viewer] = []
        self._programs: list[FfmpegViewer] = []
        self.phases: list[Phase] = []

    def _make_doorman(self) -> Path:
        """Return a program that lets everybody in, and notes which session it was asked about."""
        program = self.folder / "doorman"
        program.write_text(f"#!/bin/sh\nsed -n 6p >>{self.folder}/asked\necho 1\n")
        program.chmod(0o755)
        return program

    def sessions_asked(self) -> Counter[str]:
        """Return how often the handler of USER_NEW was asked about each session."""
        return Counter((self.folder / "asked").read_text().split())

    # -- beginning and end ---------------------------------------------------------------------------------------------

    def begin(self) -> None:
        """Start publishers, viewers and recordings; returns when all of them play."""
        self.origin.start()
        self.server.start()
        for server in (self.origin, self.server):
            sender = NumberedSender(server)
            self.senders.append(sender)
            sender.send([number * FRAME_MS for number in range(50)], headers=True)
            sender.keep_sending()
        rules = {one.suffix: {"stream": LIVE, "target": str(one)} for one in self.recordings}
        self.server.api({"push_auto_add": rules})
        self._start_viewers()
        wait_until(lambda: all(book.number >= 0 or book.closed for book in self.watched()), WAIT_S, "all viewers")
        wait_until(lambda: len(self.processes("push live")) == len(self.recordings), WAIT_S, "both recordings")
        time.sleep(INTERVAL_S)

    def _book(self, name: str) -> Book:
        book = Book(f"{len(self.books)} {name}")
        self.books.append(book)
        return book

    def _start_viewers(self) -> None:
        self._crowd.start()
        for count, stream, container in HTTP_VIEWERS:
            for _ in range(count):
                self._crowd.join_stream(self.server, f"/{stream}.{container}", self._book(f"{stream}.{container}"))
        DtscViewer.port = self.dtsc_port
        for count, stream, make in OTHER_VIEWERS:
            for _ in range(count):
                viewer = make(self.server, stream, self._book(f"{stream} {make.__name__}"))
                viewer.start()
                self._viewers.append(viewer)
        for output in FFMPEG_OUTPUTS:
            program = FfmpegViewer(self._book(f"ffmpeg {output}"), self.folder / f"ffmpeg-{output}.txt")
            program.start(self.server.play_url(output, LIVE))
            self._programs.append(program)

    def watched(self) -> list[Book]:
        """Return the books that are written while viewers play: all but those of ffmpeg."""
        files = {program.book for program in self._programs}
        return [book for book in self.books if book not in files]

    def end_viewers(self) -> None:
        """Stop all viewers; those that are programs are judged now."""
        for viewer in self._viewers:
            viewer.end()
        for program in self._programs:
            program.end(self.senders[1].number)
        self._crowd.ended.set()
        for thread in (self._crowd, *self._viewers):
            if thread.ident is not None:  # it was started
                thread.join(10)

    def end(self) -> None:
        """Stop publishers and servers, which must leave nothing behind."""
        for sender in self.senders:
            sender.close()
        try:
            try:
                self.origin.stop()
            finally:
                self.server.stop()
        finally:  # an ExitStack would hide the failure with which a test comes here
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- blows ---------------------------------------------------------------------------------------------------------

    def processes(self, title: str) -> list[Process]:
        """Return the processes whose title begins so, but for idle ones."""
        return [one for one in self.server.processes_titled(f"mist: {title}") if "(idle)" not in one.title]

    def call_trigger_process(self) -> None:
        """Knock at the socket of the process that calls the handlers of triggers, which runs only while it is needed."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as visitor:
            visitor.connect(str(self.server.runtime_folder / "trigger.sock"))
            wait_until(lambda: self.processes("triggers"), WAIT_S, "the process of the triggers")

    def strike(self, title: str, how: int) -> int:
        """Send a signal to all processes of a kind; returns how many. One that is just being replaced is waited for."""
        found = wait_until(lambda: self.processes(title), WAIT_S, title)
        for one in found:
            with suppress(ProcessLookupError):
                os.kill(one.pid, how)
        return len(found)

    def phase(self, name: str, blow: Callable[[], int], seconds: int, within_s: float = math.inf) -> Phase:
        """Have somebody strike once a second, and return what the viewers saw. within_s: when to stop, however few blows those were."""
        before = {id(book): (len(book.faults), book.closed) for book in self.books}
        for book in self.books:
            book.pause_s = 0.0
        result = Phase(name)
        begun = time.monotonic()
        for number in range(1, seconds + 1):
            result.blows += blow()
            if time.monotonic() - begun > within_s:
                break  # who is killed again and again comes back later and later
            time.sleep(max(0.0, begun + number * INTERVAL_S - time.monotonic()))  # the blows' pace
        self._settle()
        for program in self._programs:
            program.look()
        for book in self.books:
            faults, closed = before[id(book)]
            if book.closed and not closed:
                result.closed.append(f"{book.name}: {book.closed}")
            if len(book.faults) > faults:
                result.differing.append(f"{book.name}: {book.faults[faults:][:3]}")
        pauses = sorted(book.pause_s for book in self.books if book.pause_s)
        if pauses:
            result.pause_ms = 1000 * pauses[-1] - FRAME_MS
            result.median_pause_ms = 1000 * pauses[len(pauses) // 2] - FRAME_MS
        self.phases.append(result)
        return result

    def _settle(self) -> None:
        """Wait until every viewer has got media that was sent after the last blow."""
        wanted = [sender.number + GOES_ON for sender in self.senders]

        def behind() -> list[str]:
            return [
                book.name
                for book in self.watched()
                if not book.closed and book.number < wanted[0 if PULLED in book.name else 1]
            ]

        try:
            wait_until(lambda: not behind(), WAIT_S, "all viewers")
        except TimeoutError:
            for book in self.books:
                if book.name in behind():
                    book.fault(f"nothing after {book.number}")

    def report(self) -> dict[str, object]:
        """Return the figures of all phases."""
        return {"seconds": SECONDS, "viewers": len(self.books), "phases": [one.document() for one in self.phases]}

    def kill_main_process(self, how: int = signal.SIGKILL) -> int:
        """Kill the main process, and start it again as a service manager does; returns how many that are."""
        os.kill(self.server.pid, how)
        self.server.restart()
        return 1

    def of_former_main_processes(self) -> set[str]:
        """Return the kinds of those that were started by a main process that is no more."""
        return {kind_of(one.title) for one in self.server.processes() if not descends(one, self.server.pid)}

    # -- what is held --------------------------------------------------------------------------------------------------

    def held(self) -> dict[str, int]:
        """Return how many of everything the server has that must not grow: by kind of process and of memory."""
        found: Counter[str] = Counter()
        for one in self.server.processes():
            if not one.title.endswith("(idle)"):
                found[f"process {kind_of(one.title)}"] += 1
            if "guardian" in one.title or "server" in one.title or "controller" in one.title:
                found[f"descriptors {kind_of(one.title)}"] += len(descriptors(one.pid)) - living_watched(one.pid)
        return dict(found)

    def strangers(self) -> list[str]:
        """Return shared memory and doorbells of processes that are no more."""
        alive = {str(one.pid) for one in self.server.processes()}
        names = [name.rpartition("#") for name in self.server.shared_memory()]
        left = [f"records of {pid}" for _, mark, pid in names if mark and pid not in alive]
        for folder in ("bell", "span"):
            left += [str(one) for one in (self.server.runtime_folder / folder).glob("*") if one.name not in alive]
        return left


def kind_of(title: str) -> str:
    """Return a title without its numbers."""
    return title.removeprefix("mist: ").partition(" (")[0]


def write_report(stage: Stage, more: dict[str, object]) -> Path:
    """Write the figures down, where the environment says or beside the recordings."""
    target = Path(os.environ.get("MIST_RECOVERY_REPORT", "") or stage.folder / "recovery.json")
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps({**stage.report(), **more}, indent=1) + "\n")
    return target

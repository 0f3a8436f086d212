"""Going over to newly installed code without letting go of anything.

The main process first tries the new code in a child: `mist serve … --trial` imports everything, reads the configuration and looks
at what is in shared memory. Then it executes the same command in its own place. What it had started finds it again as after the
death of a main process (`mist.runtime.rejoin`), only sooner: the socket they look for, the lock and the ports are handed on.
"""

from __future__ import annotations

import importlib
import json
import logging
import os
import pkgutil
import signal
import sys
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import NoReturn

import mist
from mist.core.track_buffer import open_table
from mist.errors import ConfigError, MistError, NotFound
from mist.runtime.channel import Channel
from mist.runtime.family import Child, Family
from mist.runtime.gently import NICENESS
from mist.runtime.instance import Instance
from mist.runtime.leftovers import all_records, open_records
from mist.runtime.process import RESET_SIGNALS, is_alive
from mist.runtime.program import Program
from mist.runtime.reactor import Reactor
from mist.runtime.vigil import is_held_up
from mist.stream.names import stream_prefix
from mist.stream.reader import list_streams

log = logging.getLogger(__name__)

INHERITANCE = "MIST_INHERITANCE"
TRIAL_SECONDS = 60.0  # of a processor, or of waiting for anything else
MAX_SAID_BYTES = 16_384
EXIT_CONFIG = 2


@dataclass
class Inheritance:
    """What a main process hands to the code that takes its place; numbers are descriptors.

    sockets: listening ones by the name of their owner. waiting: (connection, request) to answer when the new code runs.
    notes: what the trial had to say.
    """

    lock: int
    alive: int
    door: int
    number: int
    sockets: dict[str, list[int]] = field(default_factory=dict)
    waiting: list[tuple[int, int]] = field(default_factory=list)
    notes: str = ""

    def descriptors(self) -> list[int]:
        kept = [self.lock, self.alive, self.door, *(fd for fd, _ in self.waiting)]
        return kept + [fd for fds in self.sockets.values() for fd in fds]


def inherited() -> Inheritance | None:
    """Return what the code that ran before handed on, at the first call, else None."""
    text = os.environ.pop(INHERITANCE, "")
    if not text:
        return None
    found = Inheritance(**json.loads(text))
    for fd in found.descriptors():
        os.set_inheritable(fd, False)
    return found


def execute(inheritance: Inheritance) -> NoReturn:
    """Run the installed code in place of this one. Raises OSError, and then nothing has changed."""
    kept = inheritance.descriptors()
    # What arrives meanwhile waits until the new code has its handlers.
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, RESET_SIGNALS)
    for fd in kept:
        os.set_inheritable(fd, True)
    try:
        os.execve(sys.executable, command(), {**os.environ, INHERITANCE: json.dumps(asdict(inheritance))})
    finally:
        for fd in kept:
            os.set_inheritable(fd, False)
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def command() -> list[str]:
    """Return the command line that this process was started with."""
    return [sys.executable, *sys.orig_argv[1:]]


class Trial:
    """A child that runs the installed code with the option `--trial`. on_done: told whether it works, and what it said."""

    def __init__(self, family: Family, reactor: Reactor, on_done: Callable[[bool, str], None]) -> None:
        """Start it. Raises OSError when there are no descriptors or processes left."""
        self._reactor = reactor
        self._on_done = on_done
        self._said = b""
        self._reader, writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(writer, True)

        def run(channel: Channel) -> int:
            os.dup2(writer, 1)
            os.dup2(writer, 2)
            os.nice(NICENESS)
            os.execve(sys.executable, [*command(), "--trial"], {**os.environ, "NOTIFY_SOCKET": ""})

        try:
            self._child = family.start(
                "The trial of the new code",
                run,
                on_message=lambda child, message, fds: None,
                on_ended=self._ended,
                fds=[writer],
            )
        except OSError:
            os.close(self._reader)
            raise
        finally:
            os.close(writer)
        self._child.stopping = True  # how it ends is told by the one who asked
        self._child.watched = False
        reactor.add_reader(self._reader, self._read)
        self._timer = reactor.call_later(TRIAL_SECONDS, self._out_of_time)

    def _out_of_time(self) -> None:
        """End it, unless all it lacks is a processor: what serves goes first, however long that keeps them busy."""
        if is_held_up(self._child, TRIAL_SECONDS):
            self._timer = self._reactor.call_later(TRIAL_SECONDS, self._out_of_time)
        else:
            self._child.signal(signal.SIGKILL)

    def _read(self) -> None:
        try:
            while data := os.read(self._reader, 65_536):
                self._said = (self._said + data)[-MAX_SAID_BYTES:]
        except BlockingIOError:
            return
        self._reactor.remove_reader(self._reader)

    def _ended(self, child: Child, status: int) -> None:
        self._timer.cancel()
        self._read()
        self._reactor.remove_reader(self._reader)
        os.close(self._reader)
        said = self._said.decode("utf-8", "replace").strip()
        if status == 0:
            self._on_done(True, said)
        else:
            for line in said.splitlines():
                if not line.startswith("Traceback"):
                    log.error("The new code: %s", line)
            last = said.splitlines()[-1] if said else f"it ended with status {status}"
            self._on_done(False, last.removeprefix("mist: "))


def try_out(instance: Instance, program: Program) -> int:
    """Do in a trial all that could keep this code from taking over; what it prints is for the one who asked for it."""
    try:
        bad_file = program.load_config().get("bad_file")
        if bad_file:
            raise ConfigError(str(bad_file))
        program.preload()
    except MistError as error:
        sys.stderr.write("".join(f"mist: {line}\n" for line in str(error).splitlines()))
        return EXIT_CONFIG
    import_all()
    for what, why in unreadable(instance).items():
        sys.stdout.write(f"{what} starts afresh: {why}\n")
    return 0


def import_all() -> None:
    """Import every module: most are loaded by the processes that need them, which would find a defect too late. Raises what they raise."""
    for module in pkgutil.walk_packages(mist.__path__, "mist."):
        if module.name == "mist.__main__":
            continue
        try:
            importlib.import_module(module.name)
        except Exception as error:
            error.add_note(f"{module.name} cannot be imported: {type(error).__name__}: {error}")
            raise


def unreadable(instance: Instance) -> Mapping[str, str]:
    """Return what of a running instance this code cannot go on with: {what: why}."""
    found: dict[str, str] = {}
    for name in list_streams(instance.name):
        try:
            open_table(stream_prefix(instance.name, name))
        except NotFound:
            continue
        except MistError as error:
            found[f"stream {name}"] = str(error)
    if any(is_alive(pid) and open_records(name) is None for pid, (name, _) in all_records(instance).items()):
        found["counting of present connections"] = "their records have another layout"
    return found

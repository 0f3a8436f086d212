"""A stream pushed to a program's standard input: `ts-exec:COMMAND`, `mkv-exec:COMMAND`. The program ends with the push."""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.errors import PeerClosed, TransportError
from mist.formats.tracks import TrackInfo
from mist.net.dial import Dialled
from mist.net.programs import end_with_parent, signal_group, words_of
from mist.outputs.base import ProgressiveOutput, choose_tracks
from mist.outputs.base.film_publishing import FilmPublishing
from mist.outputs.base.publishing import PLAYBACK, Destination, Publishing, push_pace, tracks_mask, wait_fresh_key
from mist.outputs.base.recording_push import RecordingPush
from mist.stream.parameters import parse_parameters
from mist.stream.push import PushPlan, PushStatus, split_target
from mist.stream.services import OutputServices

END_SECONDS: Final = 5.0  # that a program has for what it read, until it is told to end
TERM_SECONDS: Final = 1.0  # until it is killed
MAX_WORDS_BYTES: Final = 2048  # of what it said last


class _Silence:
    """The session of a destination that says nothing and is told nothing but media."""

    def feed(self, data: bytes, now: float) -> Sequence[Any]:
        return ()

    def take_output(self) -> bytes:
        return b""

    def export_state(self) -> bytes:
        return b""


class ProgramPush:
    """Pushes to programs, in the format of an output; to other targets as a recording does."""

    def __init__(self, prefix: str, output: ProgressiveOutput, recording: RecordingPush) -> None:
        self.connector = recording.connector
        self._prefix = prefix
        self._output = output
        self._recording = recording

    def shares(self, target: str) -> bool:
        return False

    async def push(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Send until the stream ends, the program ends, or cancellation. Raises MistError."""
        if not plan.target.lower().startswith(self._prefix):
            await self._recording.push(services, plan, status)
            return
        command, given = split_target(plan.target[len(self._prefix) :])
        parameters = parse_parameters({name: value for name, value in given.items() if name in PLAYBACK})
        reader = await services.open_stream(plan.stream)
        record = services.open_record(f"OUTPUT:{self.connector}", "")
        record.set_stream(reader.name)
        try:
            choice = await choose_tracks(services, reader, parameters, self._output.capability, "", tracks_mask(given))
            status.tracks = list(choice.indexes)
            pace: dict[str, Any] = {}
            if reader.live:
                await wait_fresh_key(services, given, choice)
                pace = await push_pace(services, parameters, given, choice)
            make_muxer: Callable[[list[TrackInfo]], Muxer] = partial(self._output.make_muxer, reader.name)
            destination = Destination(self.connector, _Silence(), _nothing_heard, lambda: b"")
            status.keep_connection = _not_kept  # the program ends with this process
            program = _Program(services, command)
            dialled = await program.start()
            try:
                if reader.live:
                    live = Publishing(services, destination, status, {})
                    await live.run(dialled, choice, f"push {plan.number}", make_muxer, record, **pace)
                else:
                    film = FilmPublishing(services, destination, status, parameters, {})
                    await film.run(dialled, choice, make_muxer, record)
            except PeerClosed:
                raise await program.failure() from None
            finally:
                dialled.close()
                await program.stop()
        finally:
            record.close()
            services.close_stream(reader)


def _nothing_heard(_event: Any) -> None:
    """Pass over what a program cannot say."""


def _not_kept(_record: Any, _fd: int) -> None:
    """Let nobody go on with the connection."""


class _Program:
    """A program that reads media, in a process group of its own."""

    def __init__(self, services: OutputServices, command: str) -> None:
        """Take a command: words as a shell splits them, but no shell. Raises ConfigError."""
        self._words = words_of(command, "the command of the target", "target")
        self._log = services.log
        self._process: asyncio.subprocess.Process | None = None
        self._said = b""
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> Dialled:
        """Start it, and return what its standard input is connected to. Raises TransportError."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=theirs.fileno(),
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        except (OSError, ValueError) as error:
            ours.close()
            raise TransportError(f"{self._words[0]} cannot be started: {error}", reason="EXEC_FAILURE") from None
        finally:
            theirs.close()
        self._reading = asyncio.ensure_future(self._listen())
        return Dialled(ours, self._words[0])

    async def _listen(self) -> None:
        """Keep the end of what it says."""
        assert self._process is not None and self._process.stderr is not None
        while data := await self._process.stderr.read(MAX_WORDS_BYTES):
            self._said = (self._said + data)[-MAX_WORDS_BYTES:]

    async def failure(self) -> TransportError:
        """Return what to say of a program that does not read on."""
        status = await self.stop()
        lines = self._said.decode("utf-8", "replace").strip().splitlines()
        words = f": {lines[-1].strip()}" if lines else ""
        return TransportError(f"{self._words[0]} ended with {status}{words}", reason="WRITE_FAILURE")

    async def stop(self) -> int:
        """Wait until it has ended, with all that it started, and return its status; who does not end is killed."""
        assert self._process is not None
        try:
            if not await self._ends_in(END_SECONDS):
                self._log.warning("%s does not end with its input", self._words[0])
                self._signal(signal.SIGTERM)
                await self._ends_in(TERM_SECONDS)
        finally:
            self._signal(signal.SIGKILL)
            await self._heard_out()
        return await self._process.wait()

    async def _heard_out(self) -> None:
        """Wait for the rest of what it said: its end is often known before its words are read."""
        assert self._reading is not None
        try:
            async with asyncio.timeout(TERM_SECONDS):
                await self._reading
        except TimeoutError:
            self._log.warning("%s left a process that still writes", self._words[0])

    async def _ends_in(self, seconds: float) -> bool:
        assert self._process is not None
        try:
            async with asyncio.timeout(seconds):
                await self._process.wait()
        except TimeoutError:
            return False
        return True

    def _signal(self, number: int) -> None:
        assert self._process is not None
        signal_group(self._process.pid, number)

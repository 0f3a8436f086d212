"""Live sources from a program's output: `ts-exec:COMMAND`, `mkv-exec:COMMAND` and the like, one for each stream format."""

from __future__ import annotations

import asyncio
import signal
import time
from typing import Final

from mist.errors import TransportError
from mist.formats.containers import by_name
from mist.net.programs import end_with_parent, signal_group, words_of
from mist.stream.byte_source import play_bytes, silence_seconds
from mist.stream.capability import Capability
from mist.stream.services import InputServices

READ_BYTES: Final = 1 << 16
MAX_LINE_BYTES: Final = 2048  # of what the program says, in the log
MAX_LINES_PER_SECOND: Final = 20
TERM_SECONDS: Final = 0.8  # until a program that is told to end is killed

# The prefix, the format, and the name by which the API knows the input: those of the reference, and what costs nothing beside them.
SOURCES: Final = (
    ("ts-exec:", "ts", "TSExec"),
    ("mkv-exec:", "mkv", "EBMLExec"),
    ("h264-exec:", "h264", "H264Exec"),
    ("flv-exec:", "flv", "FLVExec"),
    ("ogg-exec:", "ogg", "OGGExec"),
    ("aac-exec:", "aac", "AACExec"),
    ("mp3-exec:", "mp3", "MP3Exec"),
)


class Program:
    """A running program whose output is media, in a process group of its own."""

    def __init__(self, services: InputServices, command: str) -> None:
        """Parse the command: words as a shell splits them, but no shell. Raises ConfigError."""
        self._words = words_of(command, "the command of the source", "source")
        self.name = self._words[0]
        self._log = services.log
        self._process: asyncio.subprocess.Process | None = None
        self._reading: asyncio.Task[None] | None = None

    async def start(self) -> asyncio.StreamReader:
        """Start it and return its output. Raises TransportError."""
        try:
            self._process = await asyncio.create_subprocess_exec(
                *self._words,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
                preexec_fn=end_with_parent,
            )
        except OSError as error:
            raise TransportError(f"{self._words[0]} cannot be started: {error.strerror}") from None
        assert self._process.stdout is not None and self._process.stderr is not None
        self._reading = asyncio.ensure_future(self._tell(self._process.stderr))
        return self._process.stdout

    async def _tell(self, errors: asyncio.StreamReader) -> None:
        """Write what it says to the log, in lines, not more than a log can bear."""
        second, lines, rest = 0, 0, b""
        while data := await errors.read(READ_BYTES):
            *whole, rest = (rest + data).replace(b"\r", b"\n").split(b"\n")
            if len(rest) > MAX_LINE_BYTES:
                whole, rest = [*whole, rest], b""
            for line in whole:
                if int(time.monotonic()) != second:
                    second, lines = int(time.monotonic()), 0
                lines += 1
                if line.strip() and lines <= MAX_LINES_PER_SECOND:
                    self._log.info("%s: %s", self._words[0], line[:MAX_LINE_BYTES].decode("utf-8", "replace"))
        if rest.strip():
            self._log.info("%s: %s", self._words[0], rest.decode("utf-8", "replace"))

    async def stop(self) -> int:
        """End it with everything that it started, and return its exit status."""
        process = self._process
        if process is None:
            return 0
        self._signal(signal.SIGTERM)
        try:
            async with asyncio.timeout(TERM_SECONDS):
                await process.wait()
        except TimeoutError:
            self._log.warning("%s does not end, and is killed", self._words[0])
        self._signal(signal.SIGKILL)
        status = await process.wait()
        if self._reading is not None:
            self._reading.cancel()
        return status

    async def ended(self) -> int:
        """Return the exit status of a program that closed its output, ended if it does not end by itself."""
        assert self._process is not None
        try:
            async with asyncio.timeout(TERM_SECONDS):
                status = await self._process.wait()
                if self._reading is not None:
                    await self._reading
        except TimeoutError:
            return await self.stop()
        self._signal(signal.SIGKILL)
        return status

    def _signal(self, number: int) -> None:
        assert self._process is not None
        signal_group(self._process.pid, number)


class ExecInput:
    """The input for one format."""

    def __init__(self, prefix: str, container: str, name: str) -> None:
        self._prefix = prefix
        self._container = container
        self.capability = Capability(
            name=name,
            friendly=f"{container.upper()} from a program",
            desc=f"Runs a command, without a shell, and plays its output as it comes: {prefix}COMMAND",
            source_match=(f"{prefix}*",),
            always_match=(f"{prefix}*",),
            priority=10,
            codecs=((("+*",),),),
        )

    async def run(self, services: InputServices) -> None:
        """Play the output of the program. Returns when it has ended well; raises MistError else."""
        program = Program(services, services.source[len(self._prefix) :])
        shown = f"{self._prefix}{program.name}"  # viewers are told it, and the words behind may be passwords
        output = await program.start()
        ended = False
        try:
            container = by_name(self._container)
            assert container is not None
            packets = await play_bytes(
                services, shown, container, lambda: output.read(READ_BYTES), silence_seconds(services)
            )
            status = await program.ended()
            ended = True
        finally:
            if not ended:
                await asyncio.shield(program.stop())
        if status or not packets:
            text = f"ended with status {status}" if status >= 0 else f"was ended by signal {-status}"
            raise TransportError(f"{shown} {text}" + ("" if packets else ", without media"))


INPUT: Final = tuple(ExecInput(*row) for row in SOURCES)

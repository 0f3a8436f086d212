"""Programs of others that tests run, and how they are run: bounded in time, and ended by their own process number."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

REQUIRE = "MIST_REQUIRE_TOOLS"


class ToolMissing(Exception):
    """A program that a test needs is not installed."""


def find_tool(name: str) -> str:
    """Return the path of a program; "ffmpeg-new" is the one inside the wheel imageio-ffmpeg. Raises ToolMissing."""
    if name == "ffmpeg-new":
        try:
            import imageio_ffmpeg
        except ImportError:
            raise ToolMissing(name) from None
        return str(imageio_ffmpeg.get_ffmpeg_exe())
    found = shutil.which(name, path=os.environ.get("PATH", "") + ":/usr/sbin:/sbin")
    if found is None:
        raise ToolMissing(name)
    return found


class Running:
    """A program in the background, in a session of its own, with its output in a file."""

    def __init__(
        self, command: Sequence[str], log: Path, *, env: dict[str, str] | None = None, stdin: bool = False
    ) -> None:
        self.command = list(command)
        self.log_file = log
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                self.command,
                stdin=subprocess.PIPE if stdin else subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def output(self) -> str:
        """What it has written so far."""
        return self.log_file.read_text(errors="replace")

    def wait(self, timeout_s: float) -> int:
        """Return its exit status; raises TimeoutError with its last output."""
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            raise TimeoutError(f"{self.command[0]} still runs after {timeout_s:g} s:\n{self.output[-2000:]}") from None

    def kill(self) -> None:
        """End it and all it started, at once."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait(10)
        if self.process.stdin is not None:
            self.process.stdin.close()

    def stop(self, timeout_s: float = 5) -> int:
        """Ask it to end (SIGTERM, then SIGKILL) and return its exit status."""
        if self.process.poll() is None:
            self.process.terminate()
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(timeout_s)
        self.kill()
        return self.process.returncode


def run(command: Sequence[str], timeout_s: float, *, check: bool = True) -> subprocess.CompletedProcess[bytes]:
    """Run a program to its end and return what it wrote. Raises AssertionError with its words when it fails."""
    done = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, timeout=timeout_s, check=False)
    if check:
        assert done.returncode == 0, f"{' '.join(command)} ended with {done.returncode}:\n" + done.stderr[
            -3000:
        ].decode(errors="replace")
    return done

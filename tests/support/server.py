"""A whole mist on loopback: started, waited for, looked at, and checked for leftovers at its end."""

from __future__ import annotations

import itertools
import json
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.support.ports import free_port
from tests.support.processes import Process, session_processes, wait_until

SHARED_MEMORY = Path("/dev/shm")
START_TIMEOUT_S = 120
STOP_TIMEOUT_S = 5.0  # what the server promises
_numbers = itertools.count(1)
# A stream ends soon after its publisher has gone, so that tests of whole recordings need not wait long.
DEFAULT_STREAMS: Mapping[str, Any] = {"live": {"source": "push://127.0.0.1", "inputtimeout": 4}}


class ServerFailed(AssertionError):
    """The server did not start, did not stop or left something behind."""


class MistServer:
    """One instance with its own ports, runtime directory and name. Use it as a context manager.

    streams: the "streams" part of the configuration. protocols: further options by connector name, for example
    {"RTMP": {"merge_ms": "0"}}. config: further keys of the "config" part. stderr lines arrive in `log`.
    """

    def __init__(
        self,
        *,
        streams: Mapping[str, Any] | None = None,
        protocols: Mapping[str, Mapping[str, Any]] | None = None,
        config: Mapping[str, Any] | None = None,
        arguments: tuple[str, ...] = (),
        env: Mapping[str, str] | None = None,
        wrap: tuple[str, ...] = (),
    ) -> None:
        self.instance = f"t{os.getpid()}-{next(_numbers)}"
        self.http_port, self.rtmp_port, self.api_port = free_port(), free_port(), free_port()
        self.folder = Path(tempfile.mkdtemp(prefix="mist-test-"))
        self.config_file = self.folder / "config.json"
        self.runtime_base = self.folder / "run"
        self.log: list[str] = []
        self._arguments = arguments
        self.wrap = wrap
        self._env = {**os.environ, **(env or {}), "MIST_RUNTIME_DIR": str(self.runtime_base), "PYTHONUNBUFFERED": "1"}
        self._more = threading.Condition()
        self._process: subprocess.Popen[bytes] | None = None
        self._readers: list[threading.Thread] = []
        self._sessions: list[int] = []  # of this run: more than one after the main process was killed and started again
        given = protocols or {}
        entries = [
            {"connector": "HTTP", "port": self.http_port, "interface": "127.0.0.1", **given.get("HTTP", {})},
            {"connector": "RTMP", "port": self.rtmp_port, "interface": "127.0.0.1", **given.get("RTMP", {})},
            *({"connector": name, **options} for name, options in given.items() if name not in ("HTTP", "RTMP")),
        ]
        self.config: dict[str, Any] = {
            "config": {
                "controller": {"interface": "127.0.0.1", "port": self.api_port},
                "protocols": entries,
                **(config or {}),
            },
            "streams": dict(DEFAULT_STREAMS if streams is None else streams),
        }

    # -- addresses ---------------------------------------------------------------------------------------------------

    @property
    def http_url(self) -> str:
        return f"http://127.0.0.1:{self.http_port}"

    @property
    def rtmp_url(self) -> str:
        return f"rtmp://127.0.0.1:{self.rtmp_port}"

    @property
    def runtime_folder(self) -> Path:
        return self.runtime_base / self.instance

    def play_url(self, output: str, stream: str = "live") -> str:
        """Return the address of a stream on an output: "rtmp", "hls", or the extension of an HTTP one."""
        if output == "rtmp":
            return f"{self.rtmp_url}/play/{stream}"
        if output == "hls":
            return f"{self.http_url}/hls/{stream}/index.m3u8"
        return f"{self.http_url}/{stream}.{output}"

    def publish_url(self, stream: str = "live", password: str = "live") -> str:
        return f"{self.rtmp_url}/{password}/{stream}"

    # -- life --------------------------------------------------------------------------------------------------------

    def __enter__(self) -> MistServer:
        try:
            self.start()
        except BaseException:
            self.stop(check=False)
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.stop(check=kind is None)
        finally:
            if kind is not None:
                sys.stderr.write("".join(f"mist| {line}\n" for line in self.log[-200:]))

    def command(self) -> list[str]:
        """Return the command line that starts it."""
        fixed = [sys.executable, "-m", "mist", "serve", "--config", str(self.config_file), "--instance", self.instance]
        return [*self.wrap, *fixed, *self._arguments]

    def start(self) -> None:
        """Write the configuration, start, and return once it says that it is ready. Raises ServerFailed."""
        self.config_file.write_text(json.dumps(self.config))
        self._run()

    def _run(self) -> None:
        self.runtime_base.mkdir(exist_ok=True)
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as ready:
            address = self.folder / "notify"
            ready.bind(str(address))
            self._process = subprocess.Popen(
                self.command(),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                env={**self._env, "NOTIFY_SOCKET": str(address)},
                start_new_session=True,
                cwd=self.folder,
            )
            self._sessions.append(self._process.pid)
            self._readers.append(threading.Thread(target=self._read_log, args=(self._process,), daemon=True))
            self._readers[-1].start()
            self._wait_ready(ready, self._process)
            address.unlink()

    def _wait_ready(self, ready: socket.socket, process: subprocess.Popen[bytes]) -> None:
        ended = os.pidfd_open(process.pid)
        try:
            deadline = time.monotonic() + START_TIMEOUT_S
            while (left := deadline - time.monotonic()) > 0:
                readable, _, _ = select.select([ready.fileno(), ended], [], [], left)
                if ready.fileno() in readable:
                    if b"READY=1" in ready.recv(4096).split(b"\n"):
                        return
                elif ended in readable:
                    break
        finally:
            os.close(ended)
        status = process.poll()
        how = "did not get ready in time" if status is None else f"ended with status {status}"
        self._kill_session()
        self._reader_done()
        self._remove_shared_memory()
        raise ServerFailed(f"mist {how}:\n" + "\n".join(self.log[-60:]))

    def _read_log(self, process: subprocess.Popen[bytes]) -> None:
        assert process.stderr is not None
        for line in process.stderr:
            with self._more:
                self.log.append(line.decode(errors="replace").rstrip("\n"))
                self._more.notify_all()
        process.stderr.close()

    def _reader_done(self) -> None:
        while self._readers:
            self._readers.pop().join(5)

    def restart(self) -> None:
        """Start again, same instance and ports, after the main process was killed; what it had started goes on."""
        assert self._process is not None
        self._process.wait(10)
        self._run()

    def stop(self, *, check: bool = True) -> None:
        """End it with SIGTERM; with check, it must end by itself in time, cleanly, and leave nothing behind."""
        process, problems = self._process, []
        if process is None:
            self._remove()
            return
        early = process.poll()
        if early is not None:
            problems.append(f"it had ended before, with status {early}")
        else:
            process.terminate()
            try:
                status = process.wait(STOP_TIMEOUT_S)
                if status != 0:
                    problems.append(f"it ended with status {status}")
            except subprocess.TimeoutExpired:
                left = ", ".join(f"{one.pid} {one.title}" for one in self.processes())
                problems.append(f"it still ran {STOP_TIMEOUT_S:g} s after SIGTERM: {left}")
        problems += self.leftovers() if early is None else []
        self._kill_session()
        self._process = None
        self._sessions.clear()
        self._reader_done()
        problems += [f"logged: {line}" for line in self.log if "Traceback (most recent call last)" in line][:3]
        self._remove()
        if check and problems:
            raise ServerFailed("mist did not end well:\n" + "\n".join(problems) + "\n" + "\n".join(self.log[-80:]))

    def leftovers(self) -> list[str]:
        """Return what a server that has ended still has on the machine: nothing, if all is well."""
        found = [f"process left: {one.pid} {one.title}" for one in self.processes()]
        found += [f"shared memory left: {name}" for name in self.shared_memory()]
        if self.runtime_folder.exists():
            found.append(f"runtime directory left: {sorted(p.name for p in self.runtime_folder.rglob('*'))}")
        return found

    def _kill_session(self) -> None:
        if self._process is None:
            return
        for _ in range(20):
            alive = self.processes()
            if not alive:
                break
            for one in alive:
                with suppress(ProcessLookupError):
                    os.kill(one.pid, signal.SIGKILL)
            time.sleep(0.02)
        self._process.wait(10)

    def _remove_shared_memory(self) -> None:
        for name in self.shared_memory():
            (SHARED_MEMORY / name).unlink(missing_ok=True)

    def _remove(self) -> None:
        self._remove_shared_memory()
        shutil.rmtree(self.folder, ignore_errors=True)

    # -- looking at it -----------------------------------------------------------------------------------------------

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def processes(self) -> list[Process]:
        """Return its living processes, the main one included."""
        return [one for session in self._sessions for one in session_processes(session)]

    def processes_titled(self, start: str) -> list[Process]:
        """Return those whose title begins so, for example "mist: input live"."""
        return [one for one in self.processes() if one.title.startswith(start)]

    def lose(self, title: str, how: signal.Signals = signal.SIGKILL) -> None:
        """Send a signal to all processes whose title begins so, and wait until they are gone."""
        wait_until(
            lambda: self.processes_titled(title), 15, f'a process "{title}…", which has a name only when it runs'
        )
        lost = {one.pid for one in self.processes_titled(title)}
        for pid in lost:
            os.kill(pid, how)
        wait_until(lambda: not lost & {one.pid for one in self.processes_titled(title)}, 15, f"the end of {lost}")

    def shared_memory(self) -> list[str]:
        own = f"mist.{self.instance}"
        return [name for name in os.listdir(SHARED_MEMORY) if name == own or name.startswith(f"{own}.")]

    def wait_log(self, matches: Callable[[str], bool] | str, timeout_s: float = 10, *, start: int = 0) -> str:
        """Return the first log line from number start on that contains the text (or that the function likes)."""
        like = matches if callable(matches) else lambda line: matches in line
        deadline = time.monotonic() + timeout_s
        with self._more:
            while True:
                for line in self.log[start:]:
                    if like(line):
                        return line
                start = len(self.log)
                if not self._more.wait(max(0.0, deadline - time.monotonic())) and time.monotonic() >= deadline:
                    raise TimeoutError(
                        f"no log line like {matches!r} in {timeout_s:g} s:\n" + "\n".join(self.log[-60:])
                    )

    def get(self, path: str, timeout_s: float = 10) -> bytes:
        """Fetch a path over HTTP; raises urllib's HTTPError for other answers than 2xx."""
        with urllib.request.urlopen(self.http_url + path, timeout=timeout_s) as reply:
            return bytes(reply.read())

    def info(self, stream: str = "live") -> dict[str, Any]:
        """Return the stream's information document."""
        found: dict[str, Any] = json.loads(self.get(f"/json_{stream}.js"))
        return found

    def api(self, request: Mapping[str, Any], timeout_s: float = 10) -> dict[str, Any]:
        """Send a command object to the control API and return the reply."""
        body = json.dumps(request).encode()
        address = f"http://127.0.0.1:{self.api_port}/api2"
        post = urllib.request.Request(address, data=body, headers={"Content-Type": "application/json"})
        with urllib.request.urlopen(post, timeout=timeout_s) as reply:
            answer: dict[str, Any] = json.loads(reply.read())
        return answer

    def wait_tracks(self, count: int, stream: str = "live", timeout_s: float = 15) -> dict[str, Any]:
        """Return the stream's information once it has that many tracks."""

        def look() -> dict[str, Any] | None:
            try:
                document = self.info(stream)
            except OSError:
                return None
            return document if len(document.get("meta", {}).get("tracks", {})) >= count else None

        found = wait_until(look, timeout_s, f"{count} tracks in {stream}")
        assert found is not None
        return found

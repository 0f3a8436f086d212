"""What the benches share: a server of its own, a publisher, viewers, and figures read from /proc."""

from __future__ import annotations

import itertools
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
CACHE = HERE.parent / "build" / "bench"
LIVE_SECONDS = 20
PORTS = ("http", "rtmp", "dtsc", "api")
_numbers = itertools.count(1)


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


def compiled(name: str) -> str:
    """Return the path of a C program of this directory, compiled if it is not up to date."""
    CACHE.mkdir(parents=True, exist_ok=True)
    source, target = HERE / f"{name}.c", CACHE / name
    if not target.exists() or target.stat().st_mtime < source.stat().st_mtime:
        subprocess.run(["cc", "-O2", "-Wall", "-o", str(target), str(source)], check=True)
    return str(target)


def made_file(name: str, options: str) -> Path:
    """Return a file that ffmpeg makes with these options, once."""
    path = CACHE / name
    if not path.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        subprocess.run(["ffmpeg", "-v", "error", "-y", *options.split(), str(path)], check=True)
    return path


def live_file() -> Path:
    """Return 20 s of 1280x720 at 30 fps, 2.5 Mbit/s H.264 with 128 kbit/s AAC, as FLV; made once."""
    picture = "testsrc2=size=1280x720:rate=30"
    x264 = "-c:v libx264 -preset veryfast -tune zerolatency -g 60 -x264-params nal-hrd=cbr:force-cfr=1"
    rate = "-b:v 2500k -minrate 2500k -maxrate 2500k -bufsize 500k"
    sound = "-c:a aac -b:a 128k -ac 2"
    sources = f"-f lavfi -i {picture} -f lavfi -i sine=440:sample_rate=48000"
    return made_file("live.flv", f"{sources} -t {LIVE_SECONDS} {x264} {rate} {sound}")


def thin_file() -> Path:
    """Return 20 s of 160x90 at 10 fps, about 80 kbit/s H.264 with 32 kbit/s AAC, as FLV; made once."""
    x264 = "-c:v libx264 -preset veryfast -tune zerolatency -g 20 -b:v 80k -maxrate 80k -bufsize 40k"
    sources = "-f lavfi -i testsrc2=size=160x90:rate=10 -f lavfi -i sine=440:sample_rate=22050"
    return made_file("thin.flv", f"{sources} -t {LIVE_SECONDS} {x264} -c:a aac -b:a 32k -ac 1")


class Server:
    """A running mist."""

    def __init__(self, process: subprocess.Popen[bytes], instance: str, ports: Mapping[str, int], folder: Path) -> None:
        self.process = process
        self.instance = instance
        self.http, self.rtmp, self.dtsc, self.api = (ports[name] for name in PORTS)
        self.folder = folder

    def pids(self) -> list[int]:
        """Return all its processes."""
        found = [self.process.pid]
        for pid in found:
            try:
                found += [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
            except FileNotFoundError:
                continue
        return found

    def cpu_s(self) -> dict[int, float]:
        """Return the CPU seconds of each process, from the scheduler's own count in nanoseconds."""
        return {pid: cpu_s(pid) for pid in self.pids()}

    def pss_kb(self) -> int:
        """Return the proportional memory of all processes."""
        return sum(pss_kb(pid) for pid in self.pids())

    def log(self) -> str:
        return (self.folder / "log").read_text()


def cpu_s(pid: int) -> float:
    """Return the CPU seconds of a process."""
    try:
        return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9
    except (FileNotFoundError, ProcessLookupError, IndexError):
        return 0.0


def pss_kb(pid: int) -> int:
    """Return the proportional memory of a process in kB."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return next((int(line.split()[1]) for line in text.splitlines() if line.startswith("Pss:")), 0)


def spent(before: Mapping[int, float], after: Mapping[int, float]) -> float:
    """Return the CPU seconds between two readings."""
    return sum(seconds - before.get(pid, 0.0) for pid, seconds in after.items())


@contextmanager
def server(
    streams: Sequence[str] = ("live",),
    *,
    sources: Mapping[str, str] = {},
    config: Mapping[str, Any] = {},
    **protocol: Any,
) -> Iterator[Server]:
    """Run a server with these streams, published to by anyone, and those of other sources.

    config: goes into that part of the configuration, `protocol` into all listeners' options.
    """
    settings = config
    wanted = {**dict.fromkeys(streams, "push://"), **sources}
    folder = Path(tempfile.mkdtemp(prefix="mist-bench-"))
    ports = {name: free_port() for name in PORTS}
    config = {
        "config": {
            **settings,
            "controller": {"port": ports["api"], "interface": "127.0.0.1"},
            "protocols": [
                {"connector": name.upper(), "port": ports[name], "interface": "127.0.0.1", **protocol}
                for name in ("http", "rtmp", "dtsc")
            ],
        },
        "streams": {name: {"source": source} for name, source in wanted.items()},
    }
    (folder / "config.json").write_text(json.dumps(config))
    instance = f"bench{os.getpid()}-{next(_numbers)}"
    ready = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    ready.bind(str(folder / "notify"))
    ready.settimeout(60)
    environment = {**os.environ, "MIST_RUNTIME_DIR": str(folder / "run"), "NOTIFY_SOCKET": str(folder / "notify")}
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "mist", "serve", "--instance", instance, "--config", str(folder / "config.json")],
            env=environment,
            stdout=log,
            stderr=log,
        )
    running = Server(process, instance, ports, folder)
    try:
        while b"READY=1" not in ready.recv(4096):
            continue
        yield running
    finally:
        process.send_signal(signal.SIGTERM)
        process.wait(10)
        ready.close()
        shutil.rmtree(folder)


def wait_for(condition: Any, seconds: float = 20) -> None:
    """Wait until a condition holds. Raises TimeoutError."""
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            raise TimeoutError("the server did not get there in time")
        time.sleep(0.05)


@contextmanager
def publisher(running: Server, stream: str = "live", file: Path | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """Publish a file, else the live file, over and over, in real time, until the block ends."""
    process = subprocess.Popen(
        [sys.executable, str(HERE / "publisher.py"), str(running.rtmp), stream, str(file or live_file())],
        stdout=subprocess.PIPE,
    )
    try:
        assert process.stdout is not None
        if not process.stdout.readline():
            raise RuntimeError("the publisher ended: " + running.log())
        time.sleep(3.5)  # a GOP and a half, so that joining viewers find a keyframe
        yield process
    finally:
        process.terminate()
        process.wait(10)


def request_file(kind: str, running: Server, stream: str = "live") -> tuple[int, str]:
    """Return (port, path of a file with the bytes that ask for the stream)."""
    path = running.folder / f"request-{kind}"
    if kind == "rtmp":
        path.write_bytes(rtmp_request(stream))
        return running.rtmp, str(path)
    path.write_bytes(f"GET /{stream}.{kind} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
    return running.http, str(path)


def rtmp_request(stream: str) -> bytes:
    """Return all that a player sends before media, in one piece: it does not wait for answers."""
    from mist.core.rtmp_chunks import ChunkWriter
    from mist.formats.amf import encode

    writer = ChunkWriter()

    def command(stream_id: int, *values: Any) -> None:
        body = encode(*values)
        writer.write(3, 20, stream_id, 0, body)

    command(0, "connect", 1.0, {"app": "play", "tcUrl": "rtmp://127.0.0.1/play", "objectEncoding": 0.0})
    command(0, "createStream", 2.0, None)
    command(1, "play", 3.0, None, stream)
    return b"\x03" + bytes(1536) + bytes(1536) + bytes(writer.take_output())


def run_viewers(
    kind: str, running: Server, count: int, seconds: int, rate: int = 0, skip: int = 4096
) -> subprocess.Popen[str]:
    """Start viewers and return when all are connected."""
    port, request = request_file(kind, running)
    process = subprocess.Popen(
        [compiled("viewers"), str(port), str(count), str(seconds), str(rate), request, str(skip)],
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    process.stdout.readline()
    return process


def result(process: subprocess.Popen[str]) -> dict[str, Any]:
    """Return the JSON that a program prints last."""
    out, _ = process.communicate()
    return dict(json.loads(out.strip().splitlines()[-1]))


def report(**figures: Any) -> None:
    """Print a bench's one line."""
    print(json.dumps({"bench": Path(sys.argv[0]).stem, **figures}), flush=True)

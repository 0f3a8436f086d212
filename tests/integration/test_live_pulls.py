"""Live sources that come as bytes: they stop without viewers, go on after a hang, and follow pipes and servers without end."""

from __future__ import annotations

import os
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import pairwise
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.support.hls_client import record_hls
from tests.support.media import BFRAMES, Sample
from tests.support.packets import read_media
from tests.support.processes import look, wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

SHORT = Sample("short", BFRAMES, seconds=3, keyframe_s=1)


def command(*, loop: int = -1, quick: bool = False) -> list[str]:
    """Return what writes the film as TS to standard output, in real time or as fast as it can."""
    pace = () if quick else ("-re",)
    source = ("-stream_loop", str(loop), "-i", str(SHORT.flv()))
    return [find_tool("ffmpeg"), "-v", "error", *pace, *source, "-c", "copy", "-f", "mpegts", "-"]


def running(mark: Path) -> bool:
    """Tell whether the program that wrote its number to a file, or its child, still runs."""
    return any((found := look(int(number))) is not None and found.state != "Z" for number in mark.read_text().split())


class EndlessHandler(BaseHTTPRequestHandler):
    """Sends the film over and over without a length; "/cut" closes after some seconds of it."""

    def do_GET(self) -> None:
        self.server.asked.append(self.path)  # type: ignore[attr-defined]
        self.send_response(200)
        self.send_header("Content-Type", "video/mp2t")
        self.end_headers()
        with subprocess.Popen(command(loop=0 if "cut" in self.path else -1), stdout=subprocess.PIPE) as process:
            assert process.stdout is not None
            try:
                while data := os.read(process.stdout.fileno(), 1 << 14):
                    self.wfile.write(data)
            except OSError:
                pass
            finally:
                process.terminate()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def origin() -> Iterator[ThreadingHTTPServer]:
    """Run a server that sends without end; `asked` has the paths."""
    with ThreadingHTTPServer(("127.0.0.1", 0), EndlessHandler) as server:
        server.asked = []  # type: ignore[attr-defined]
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pulls")
    os.mkfifo(path / "pipe.ts")
    os.mkfifo(path / "other")
    words = " ".join(f"'{word}'" for word in command())
    (path / "loop.sh").write_text(f'echo $$ > "{path}/loop.pid"\n{words} & echo $! >> "{path}/loop.pid"; wait\n')
    words = " ".join(f"'{word}'" for word in command(loop=0))
    (path / "hang.sh").write_text(f'echo $$ >> "{path}/hang.pid"\n{words}\nsleep 1000\n')
    (path / "short.pls").write_text(f"{SHORT.flv()}\n")
    return path


@pytest.fixture(scope="module")
def server(origin: ThreadingHTTPServer, folder: Path) -> Iterator[MistServer]:
    address = f"127.0.0.1:{origin.server_address[1]}"
    sources = {
        "loop": f"ts-exec:sh {folder}/loop.sh",
        "hang": f"ts-exec:sh {folder}/hang.sh",
        "silent": "ts-exec:sh -c 'echo nothing to see' --password hunter2",
        "list": f"{folder}/short.pls",
        "pipe": f"{folder}/pipe.ts",
        "named": f"stream://{folder}/other",
        "plain": f"http://{address}/live.ts",
        "forced": f"http-ts://{address}/cut",
    }
    streams = {name: {"source": source, "segmentsize": 1000, "inputtimeout": 2} for name, source in sources.items()}
    with MistServer(streams=streams) as running_server:
        yield running_server


def assert_film(path: Path, *, step_us: int = 200_000) -> None:
    """Check that all pictures are of the film, and that their times rise in small steps."""
    video = read_media(path).of("video")
    assert {packet.digest for packet in video} <= {packet.digest for packet in read_media(SHORT.flv()).of("video")}
    assert all(0 < later.dts_us - packet.dts_us < step_us for packet, later in pairwise(video)), path


def ended(server: MistServer, stream: str) -> None:
    wait_until(lambda: not server.processes_titled(f"mist: input {stream}"), 45, f"the end of {stream}")


def test_viewers_are_not_told_the_words_of_a_command(server: MistServer) -> None:
    """Why the stream does not play is told them, by the program's name; what stands behind that may be passwords."""
    with pytest.raises(HTTPError) as refused:
        server.get("/silent.ts")
    told = refused.value.read().decode() + server.get("/hls/silent/index.m3u8").decode()
    assert "ts-exec:sh" in told and "hunter2" not in told
    assert not [line for line in server.log if "hunter2" in line]


@pytest.mark.parametrize("name", ("loop", "list"))
def test_a_pull_stops_after_its_last_viewer(server: MistServer, folder: Path, tmp_path: Path, name: str) -> None:
    record_hls(server.play_url("hls", name), tmp_path / "seen.ts", seconds=2)
    assert_film(tmp_path / "seen.ts")
    ended(server, name)
    if name == "loop":
        wait_until(lambda: not running(folder / "loop.pid"), 5, "the end of the program and its child")


def test_a_killed_input_takes_its_program_with_it(server: MistServer, folder: Path, tmp_path: Path) -> None:
    record_hls(server.play_url("hls", "loop"), tmp_path / "seen.ts", seconds=1)
    first = (folder / "loop.pid").read_text()
    input_process = next(one for one in server.processes_titled("mist: input loop") if "guard" not in one.title)
    os.kill(input_process.pid, 9)
    wait_until(lambda: look(int(first.split()[0])) is None, 5, "the end of the program")


def test_a_program_that_hangs_is_started_again(server: MistServer, folder: Path, tmp_path: Path) -> None:
    """The film lasts three seconds, then the program sleeps: who watches goes on after it was started again."""
    record_hls(server.play_url("hls", "hang"), tmp_path / "seen.ts", seconds=5)
    assert_film(tmp_path / "seen.ts")
    server.wait_log("nothing came for 2 s")
    assert len((folder / "hang.pid").read_text().split()) >= 2
    ended(server, "hang")
    wait_until(lambda: not running(folder / "hang.pid"), 5, "the end of the programs")


@pytest.mark.parametrize(("stream", "pipe"), (("pipe", "pipe.ts"), ("named", "other")))
def test_one_writer_after_another(server: MistServer, folder: Path, tmp_path: Path, stream: str, pipe: str) -> None:
    """Writers that are faster than real time wait, and the film goes on from one to the next."""

    def write() -> None:
        for _ in range(2):
            with (folder / pipe).open("wb") as file:
                subprocess.run(command(loop=0, quick=True), stdout=file, check=False)

    writer = threading.Thread(target=write, daemon=True)
    writer.start()
    record_hls(server.play_url("hls", stream), tmp_path / "seen.ts", seconds=4)
    assert_film(tmp_path / "seen.ts")
    writer.join(20)
    server.wait_log("the next one is waited for")
    ended(server, stream)


@pytest.mark.parametrize("stream", ("plain", "forced"))
def test_a_server_that_sends_without_end(
    server: MistServer, origin: ThreadingHTTPServer, tmp_path: Path, stream: str
) -> None:
    """One that closes the connection is asked again."""
    record_hls(server.play_url("hls", stream), tmp_path / "seen.ts", seconds=5)
    assert_film(tmp_path / "seen.ts")
    if stream == "forced":
        assert origin.asked.count("/cut") >= 2  # type: ignore[attr-defined]
    ended(server, stream)

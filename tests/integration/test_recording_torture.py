"""Recordings while the whole server is killed and while disks fill up, at random instants: every file plays to where it was.

MIST_TORTURE says how many files at least, 18 unless it is given.
"""

from __future__ import annotations

import os
import random
import shutil
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from mist.stream.reader import StreamReader
from tests.integration.conftest import Publish
from tests.integration.test_push_handover import HANDLER, STREAMS, decode_errors, said
from tests.support.media import BFRAMES, Sample
from tests.support.packets import SeenPacket, read_media
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.timeout(900)
FILES = int(os.environ.get("MIST_TORTURE", "18"))
FORMATS = ("ts", "flv", "mp4", "mkv", "dtsc", "aac")
DISKS = 8
FILLS = max(FILES // 20, 1)
KILLS = max(-((DISKS * FILLS - FILES) // len(FORMATS)), 1)
SENT = Sample("tortured", BFRAMES, seconds=30)
LOST_US = 1_000_000
PATIENCE_S = 120  # for a program that has nothing to wait for, on a machine that is busy
REPORT: list[str] = []  # a line for each file
MOUNT = 'for n in 0 1 2 3 4 5 6 7; do eval mount -t tmpfs -o size=\\$SIZE$n none "$0/$n" || exit 9; done; exec "$@"'


@pytest.fixture(scope="module", autouse=True)
def report() -> Iterator[None]:
    """Write what was seen to the file that MIST_TORTURE_REPORT names, for the figures in the documents."""
    yield
    if "MIST_TORTURE_REPORT" in os.environ:
        Path(os.environ["MIST_TORTURE_REPORT"]).write_text("\n".join([*REPORT, ""]))


@pytest.fixture(scope="module")
def chance() -> random.Random:
    seed = int(os.environ.get("MIST_TORTURE_SEED", "0")) or time.time_ns() % 1_000_000
    REPORT.append(f"seed {seed}")
    return random.Random(seed)


@pytest.fixture(scope="module")
def source() -> dict[str, list[SeenPacket]]:
    media = read_media(SENT.flv())
    return {kind: media.of(kind) for kind in ("video", "audio")}


def playable(path: Path) -> Path:
    """Return a file that every program plays: DTSC is turned into Matroska, all of it that is whole."""
    if path.suffix != ".dtsc":
        return path
    copy = path.with_suffix(".dtsc.mkv")
    done = run([sys.executable, "-m", "mist", "convert", str(path), str(copy)], PATIENCE_S)
    assert done.returncode == 0, (path, done.stderr)
    return copy


def copied(path: Path, folder: Path) -> Path:
    copy = folder / f"copy{path.parent.name}{path.suffix}"
    shutil.copyfile(path, copy)
    return copy


def places(path: Path, kind: str, source: dict[str, list[SeenPacket]]) -> list[int]:
    """Return which packets of the source a file holds, without what is torn at its end; they must be without a gap."""
    number = {packet.digest: place for place, packet in enumerate(source[kind])}
    packets = read_media(path).of(kind)
    found = [number[packet.digest] for packet in packets if packet.digest in number]
    assert len(packets) - len(found) <= 1, path
    assert found == list(range(found[0], found[0] + len(found))), path
    return found


@pytest.mark.parametrize("attempt", range(KILLS))
def test_the_whole_server_is_killed(
    attempt: int, publish: Publish, tmp_path: Path, chance: random.Random, source: dict[str, list[SeenPacket]]
) -> None:
    server = MistServer(streams=STREAMS)
    try:
        server.start()
        publisher = publish(server, SENT)
        server.wait_tracks(2)
        paths = [tmp_path / f"a.{suffix}" for suffix in FORMATS]
        for path in paths:
            server.api({"push_start": ["live", str(path)]})
        wait_until(lambda: all(path.exists() and path.stat().st_size > 5000 for path in paths), 20, "the files")
        reader = StreamReader(server.instance, "live")
        time.sleep(chance.uniform(0, 2))  # the instant is what is tried here
        sent = {state.info.type: state.next_sequence for state in reader.tracks()}
        for one in server.processes():
            with suppress(ProcessLookupError):
                os.kill(one.pid, signal.SIGKILL)
        reader.close()
        publisher.stop()
    finally:
        server.stop(check=False)
    for path in paths:
        kind = "audio" if path.suffix == ".aac" else "video"
        shown = playable(path)
        done = run([find_tool("ffmpeg"), "-v", "error", "-i", str(shown), "-f", "null", "-"], PATIENCE_S)
        assert done.returncode == 0, path
        last = source[kind][places(shown, kind, source)[-1]]
        newest = source[kind][sent[kind] - 1]
        assert newest.dts_us - last.dts_us <= LOST_US, path
        REPORT.append(
            f"killed: {path.suffix} lost {(newest.dts_us - last.dts_us) // 1000} ms {done.stderr.decode()[:60]}"
        )


@pytest.mark.skipif(os.geteuid() != 0, reason="only root mounts file systems")
@pytest.mark.parametrize("attempt", range(FILLS))
def test_the_disk_is_full(
    attempt: int, publish: Publish, tmp_path: Path, chance: random.Random, source: dict[str, list[SeenPacket]]
) -> None:
    handler = tmp_path / "handler"
    handler.write_text(HANDLER)
    handler.chmod(0o755)
    disks = tmp_path / "disks"
    for number in range(DISKS):
        (disks / str(number)).mkdir(parents=True)
    most = [60 if FORMATS[number % len(FORMATS)] == "aac" else 160 for number in range(DISKS)]
    sizes = {f"SIZE{number}": f"{chance.randrange(24, most[number])}k" for number in range(DISKS)}
    triggers = {"RECORDING_END": [{"handler": str(handler), "sync": False, "streams": []}]}
    wrap = ("unshare", "--mount", "sh", "-c", MOUNT, str(disks))
    server = MistServer(streams=STREAMS, config={"triggers": triggers}, wrap=wrap, env=sizes)
    with server:
        publish(server, SENT)
        server.wait_tracks(2)
        for number in range(DISKS):
            server.api({"push_start": ["live", f"{disks}/{number}/a.{FORMATS[number % len(FORMATS)]}"]})
        ends = wait_until(lambda: len(found := said(handler)) == DISKS and found, 30, "the ends of the recordings")
        for lines in ends:
            seen = Path(f"/proc/{server.pid}/root{lines[1]}")
            assert seen.stat().st_size == int(lines[3]), lines
            assert lines[10] == "WRITE_FAILURE"
            assert "No space left on device" in lines[11]
            assert "Make room" in lines[11]
            server.wait_log(lambda line, name=lines[1]: name in line and "Make room" in line)  # type: ignore[misc]
            if lines[3] == "0":
                REPORT.append(f"full: {seen.suffix} 0 bytes: not one second fitted")
                continue
            shown = playable(copied(seen, tmp_path)) if seen.suffix == ".dtsc" else seen  # there is no room beside it
            assert decode_errors(shown) == "", lines
            kind = "audio" if seen.suffix == ".aac" else "video"
            packets = [source[kind][place] for place in places(shown, kind, source)]
            told_us = int(lines[7]) * 1000
            held_us = packets[-1].dts_us - packets[0].dts_us
            assert abs(told_us - held_us) < LOST_US // 4, lines
            REPORT.append(f"full: {seen.suffix} {lines[3]} bytes, {held_us // 1000} ms")

"""`mist record`: what is published is in the files, whole, also when the recorder is killed."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from mist.stream.reader import StreamReader
from tests.conftest import StartProgram
from tests.integration.conftest import MakeServer, Publish
from tests.support.media import BFRAMES, NO_BFRAMES, Sample
from tests.support.packets import compare, read_media
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import Running, find_tool, run
from tests.support.ts_check import check_ts

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

STREAM = {"live": {"source": "push://127.0.0.1", "inputtimeout": 2}}
PLAIN = Sample("plain", NO_BFRAMES, seconds=10)
REORDERED = Sample("bframes", BFRAMES, seconds=10)
END_S = 30.0
MILLISECOND_US = 1_000

Record = Callable[..., Running]


@pytest.fixture
def server(make_server: MakeServer) -> MistServer:
    """Start a server whose stream ends soon after its publisher."""
    return make_server(streams=STREAM)


@pytest.fixture
def record(server: MistServer, start_program: StartProgram) -> Record:
    """Start a recorder of the stream `live`."""

    def start(target: str, stream: str = "live") -> Running:
        command = [sys.executable, "-m", "mist", "record", stream, target, "--instance", server.instance]
        env = {**os.environ, "MIST_RUNTIME_DIR": str(server.runtime_base), "PYTHONUNBUFFERED": "1"}
        return start_program(command, env=env)

    return start


def size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def playlist(path: Path) -> MediaPlaylist:
    found = parse_playlist(path.read_bytes())
    assert isinstance(found, MediaPlaylist)
    return found


def assert_decodes(path: Path) -> None:
    done = run([find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], END_S)
    assert done.stderr == b"", path


@pytest.mark.parametrize("sample", [PLAIN, REORDERED], ids=lambda sample: sample.name)
def test_whole_files(server: MistServer, publish: Publish, record: Record, tmp_path: Path, sample: Sample) -> None:
    publish(server, sample)
    server.wait_tracks(2)
    recorders = {kind: record(f"{tmp_path}/$stream.{kind}") for kind in ("mp4", "mkv", "flv")}
    segmented = record(f"{tmp_path}/$basename-$segmentCounter.ts?split=2&m3u8=list.m3u8")
    source = read_media(sample.flv())
    for recorder in (*recorders.values(), segmented):
        assert recorder.wait(END_S) == 0, recorder.output

    for kind in recorders:
        path = tmp_path / f"live.{kind}"
        found = read_media(path)
        missing = compare(source, found, tolerance_us=MILLISECOND_US + 1)
        assert missing["video"][1] == missing["audio"][1] == 0, kind
        assert min(packet.dts_us for packet in found.packets) in range(-100_000, 100_000), kind
        assert_decodes(path)

    listed = playlist(tmp_path / "list.m3u8")
    assert listed.ended
    assert listed.type == "EVENT"
    assert len(listed.segments) >= 4
    assert [one.uri for one in listed.segments] == [f"live-{number}.ts" for number in range(len(listed.segments))]
    assert all(one.duration_us == 2_000_000 for one in listed.segments[:-1])
    for one in listed.segments:
        packets = read_media(tmp_path / one.uri)
        assert packets.of("video")[0].key
        assert_decodes(tmp_path / one.uri)
    joined = tmp_path / "joined.ts"
    joined.write_bytes(b"".join((tmp_path / one.uri).read_bytes() for one in listed.segments))
    missing = compare(source, read_media(joined), tolerance_us=MILLISECOND_US)
    assert missing["video"][1] == missing["audio"][1] == 0
    assert_decodes(joined)
    assert not check_ts(joined.read_bytes()).errors


def test_a_file_that_is_removed_is_followed_by_another(
    server: MistServer, publish: Publish, record: Record, tmp_path: Path
) -> None:
    """The new one begins with the keyframe before: what came after that is in it."""
    publish(server, PLAIN, loop=True)
    server.wait_tracks(2)
    recorder = record(str(tmp_path / "a.mkv"))
    wait_until(lambda: size(tmp_path / "a.mkv") > 50_000, END_S, "media in the first file")
    (tmp_path / "a.mkv").unlink()
    wait_until(lambda: size(tmp_path / "a_2.mkv") > 50_000, END_S, "media in the second file")
    recorder.process.send_signal(signal.SIGTERM)
    assert recorder.process.wait(END_S) == 0
    assert "was removed while it was recorded" in recorder.output
    assert not (tmp_path / "a.mkv").exists()
    assert_decodes(tmp_path / "a_2.mkv")


def test_a_killed_recorder_leaves_files_that_play(
    server: MistServer, publish: Publish, record: Record, tmp_path: Path
) -> None:
    publish(server, PLAIN, loop=True)
    server.wait_tracks(2)
    targets = {kind: tmp_path / f"a.{kind}" for kind in ("ts", "mp4", "mkv")}
    recorders = [record(str(path)) for path in targets.values()]
    for path in targets.values():
        wait_until(lambda path=path: size(path) > 100_000, END_S, f"media in {path}")  # type: ignore[misc]
    for recorder in recorders:
        recorder.kill()
    table = StreamReader(server.instance, "live").table
    killed = {recorder.pid for recorder in recorders}
    wait_until(lambda: not killed & set(table.subscribers()), 5, "the slots of the killed recorders free again")
    source = read_media(PLAIN.flv())
    for path in targets.values():
        found = read_media(path)
        assert len(found.of("video")) > 25
        digests = {packet.digest for packet in source.packets}
        assert sum(packet.digest not in digests for packet in found.packets) <= 1  # the one that was being written
        run([find_tool("ffmpeg"), "-v", "error", "-i", str(path), "-f", "null", "-"], END_S)


def test_the_end_comes_with_a_signal_or_a_duration(
    server: MistServer, publish: Publish, record: Record, tmp_path: Path
) -> None:
    publish(server, PLAIN, loop=True)
    server.wait_tracks(2)
    timed = record(f"{tmp_path}/timed.ts?duration=2&video=all&audio=none")
    stopped = record(f"{tmp_path}/sub/folder/stopped.mkv")
    assert timed.wait(END_S) == 0, timed.output
    found = read_media(tmp_path / "timed.ts")
    assert len(found.of("video")) == 50
    assert not found.of("audio")
    path = tmp_path / "sub/folder/stopped.mkv"
    wait_until(lambda: size(path) > 50_000, END_S, "media")
    stopped.process.terminate()
    assert stopped.wait(END_S) == 0, stopped.output
    assert str(path) in stopped.output
    assert_decodes(path)


def test_the_end_of_the_server_is_the_end(server: MistServer, publish: Publish, record: Record, tmp_path: Path) -> None:
    publish(server, PLAIN, loop=True)
    server.wait_tracks(2)
    recorder = record(f"{tmp_path}/a.mkv")
    wait_until(lambda: size(tmp_path / "a.mkv") > 50_000, END_S, "media")
    server.stop()
    assert recorder.wait(END_S) == 0, recorder.output
    assert_decodes(tmp_path / "a.mkv")


def test_a_sliding_list_and_going_on(server: MistServer, publish: Publish, record: Record, tmp_path: Path) -> None:
    publish(server, PLAIN, loop=True)
    server.wait_tracks(2)
    target = f"{tmp_path}/$segmentCounter.ts?split=1&m3u8=list.m3u8&maxEntries=2"
    first = record(target)
    wait_until(lambda: (tmp_path / "4.ts").exists(), END_S, "segments")
    first.stop()
    assert first.process.returncode == 0
    listed = playlist(tmp_path / "list.m3u8")
    assert len(listed.segments) == 2
    assert not listed.ended
    assert sorted(path.name for path in tmp_path.glob("*.ts")) == [one.uri for one in listed.segments]

    second = record(f"{target}&append")
    number = listed.media_sequence + 2
    wait_until(lambda: (tmp_path / f"{number + 1}.ts").exists(), END_S, "more segments")
    second.stop()
    listed = playlist(tmp_path / "list.m3u8")
    assert listed.segments[-1].uri == f"{number + 1}.ts"
    assert listed.media_sequence == number
    assert listed.segments[0].discontinuity


def test_what_cannot_be(server: MistServer, record: Record, tmp_path: Path) -> None:
    for target, status, words in (
        (f"{tmp_path}/a.xyz", 2, "does not say a format"),
        (f"{tmp_path}/a.ts?m3u8=list.m3u8", 2, "$segmentCounter"),
        (f"{tmp_path}/a.mkv?append", 2, "append is for"),
        ("rtmp://example.org/live/a", 2, "local file"),
    ):
        recorder = record(target)
        assert recorder.wait(END_S) == status, recorder.output
        assert words in recorder.output
    recorder = record(f"{tmp_path}/a.ts", "nothing")
    assert recorder.wait(END_S) == 1
    assert "nothing" in recorder.output
    assert not list(tmp_path.glob("a.*"))

"""A recording that goes on in another process: its files are those of one that was never interrupted, byte for byte."""

from __future__ import annotations

import json
import struct
from base64 import b64decode, b64encode
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.errors import TransportError
from mist.formats.containers import CONTAINERS, Container, by_name
from mist.formats.opus import OpusHead, build_head
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.stream.push_note import PushNote
from mist.stream.recorder import Checkpoint, GoneReader, Recorder
from mist.stream.recording import parse_target
from mist.stream.recording_files import RecordingFiles
from mist.stream.state import StreamStatus
from tests.support.fake_stream import FakeStream
from tests.support.flv_files import AUDIO_TRACK, VIDEO_TRACK

FRAME_US = 40_000
GOP = 12
FRAMES = 90
LONG_US = 60_000_000
NOW = datetime(2026, 1, 2, 3, 4, 5)

MP3 = TrackInfo(AUDIO, "MP3", sample_rate_hz=48000, channels=2)
PCM = TrackInfo(AUDIO, "PCM", sample_rate_hz=48000, channels=2, sample_bits=16)
OPUS = TrackInfo(AUDIO, "opus", build_head(OpusHead(2)), sample_rate_hz=48000, channels=2)
VP8 = TrackInfo(VIDEO, "VP8", width=64, height=48)
SUBTITLE = TrackInfo(META, "subtitle")
AC3 = TrackInfo(AUDIO, "AC3", sample_rate_hz=48000, channels=2)
TRACKS = {
    "ac3": [AC3],
    "h264": [VIDEO_TRACK],
    "ivf": [VP8],
    "json": [SUBTITLE],
    "mp3": [MP3],
    "ogg": [OPUS],
    "srt": [SUBTITLE],
    "vtt": [SUBTITLE],
    "wav": [PCM],
    "webm": [VP8, OPUS],
    "aac": [AUDIO_TRACK],
}
NOT_TRIED = {"dts", "flac", "hevc", "m2v"}  # as ac3, wav and h264
FORMATS = [one for one in CONTAINERS if one.make_muxer and one.name not in NOT_TRIED and not one.on_pipe]


def payload(info: TrackInfo, number: int, key: bool) -> bytes:
    mark = struct.pack(">I", number) * 5
    if info.type == VIDEO and info.codec == "H264":
        unit = (b"\x65" if key else b"\x41") + mark
        return struct.pack(">I", len(unit)) + unit
    if info.codec == "opus":
        return b"\xfc" + mark
    if info.codec == "MP3":
        return b"\xff\xfb\x94\x00" + bytes(380)
    if info.codec == "subtitle":
        return f"text {number} {'x' * 200}".encode()
    return mark * 2


class Source:
    """A stream, of which more comes bit by bit."""

    def __init__(self, tracks: list[TrackInfo]) -> None:
        self.tracks = tracks
        self.stream = FakeStream("live", tracks)

    def frame(self, number: int) -> None:
        for track, info in enumerate(self.tracks):
            key = number % GOP == 0 or info.type == AUDIO
            dts_us = number * FRAME_US + 5_000 * track
            self.stream.write(Packet(track, dts_us, 0, key, payload(info, number, key)))


class Bench:
    """A recorder, and what it leaves."""

    def __init__(self, source: Source, container: Container, target: str, folder: Path) -> None:
        self._source, self._container, self._target = source, container, parse_target(target)
        folder.mkdir()
        self.note = PushNote(folder, 1)
        self.clock_us = 0
        self.begin(source.stream.reader())

    def begin(self, reader: Any) -> None:
        self.files = RecordingFiles(self._target, "live", now=lambda: NOW)
        self.recorder = Recorder(
            reader,
            self._container,
            self._target,
            self.files,
            clock_us=lambda: self.clock_us,
            unix_us=lambda: 0,
            keep=self._keep,
        )

    def _keep(self, checkpoint: Checkpoint) -> None:
        def book() -> dict[str, Any]:
            return {"files": self.files.book(), "index": b64encode(checkpoint.index).decode()}

        note = {"recorder": checkpoint.state, "files": self.files.state()}
        self.note.write(note, (self.files.book_number, checkpoint.index_number), book)

    def die(self, reader: Any = None, torn: bytes = b"torn bytes of what was being written") -> str:
        """Be another process; returns what is wrong with the file."""
        if self.files.path and Path(self.files.path).exists():
            with Path(self.files.path).open("ab") as file:
                file.write(torn)
        self.files.abandon()
        left = self.note.read()
        self.begin(reader or self._source.stream.reader())
        if left is None:
            return ""
        note, book = json.loads(json.dumps(left))
        self.recorder.go_on(note["recorder"], b64decode(book["index"]))
        trouble = self.files.go_on(note["files"], book["files"])
        if trouble:
            self.recorder.begin_again()
        return trouble

    def end(self) -> None:
        self.recorder.finish()
        self.files.end()


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


@pytest.fixture(params=FORMATS, ids=lambda one: str(one.name))
def container(request: pytest.FixtureRequest) -> Container:
    found: Container = request.param
    return found


def record(
    source: Source, container: Container, target: str, place: Path, *, deaths: bool, frames: int = FRAMES
) -> dict[str, bytes]:
    media = place / "media"
    place.mkdir()
    media.mkdir()
    bench = Bench(source, container, f"{media}/{target}", place / "notes")
    bench.clock_us = LONG_US  # no other track is waited for
    for number in range(frames):
        source.frame(number)
        bench.clock_us += FRAME_US
        if number % 3 == 0:
            bench.recorder.step()
            if deaths and bench.recorder.begun:
                assert bench.die() == ""
    bench.end()
    bench.note.remove()
    assert not list((place / "notes").iterdir())
    return contents(media)


@pytest.mark.parametrize(
    "query", ["a.{}", "$segmentCounter.{}?split=1&m3u8=list.m3u8&maxEntries=2"], ids=["one", "list"]
)
def test_files_are_those_of_an_uninterrupted_recording(container: Container, query: str, tmp_path: Path) -> None:
    tracks = TRACKS.get(container.name, [VIDEO_TRACK, AUDIO_TRACK])
    target = query.format(container.suffixes[0][1:])
    whole = record(Source(tracks), container, target, tmp_path / "whole", deaths=False)
    again = record(Source(tracks), container, target, tmp_path / "again", deaths=True)
    assert whole.keys() == again.keys()
    assert any(len(data) > 500 for data in whole.values())
    for name in whole:
        assert whole[name] == again[name], name


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    source = Source([VIDEO_TRACK, AUDIO_TRACK])
    container = by_name("mkv")
    assert container is not None
    (tmp_path / "media").mkdir()
    bench = Bench(source, container, f"{tmp_path}/media/a.mkv", tmp_path / "notes")
    for number in range(30):
        source.frame(number)
    bench.recorder.step()
    yield bench
    bench.files.abandon()


def test_a_file_that_was_moved_is_left_alone(bench: Bench, tmp_path: Path) -> None:
    media = tmp_path / "media"
    (media / "a.mkv").rename(media / "kept.mkv")
    (media / "a.mkv").write_bytes(b"somebody else's")
    assert "another file" in bench.die(torn=b"")
    bench.end()
    assert (media / "a.mkv").read_bytes() == b"somebody else's"
    assert (media / "a_2.mkv").stat().st_size > 500


def test_a_file_that_was_removed(bench: Bench, tmp_path: Path) -> None:
    (tmp_path / "media/a.mkv").unlink()
    assert "moved or removed" in bench.die()
    bench.end()
    assert [path.name for path in (tmp_path / "media").iterdir()] == ["a_2.mkv"]


def test_a_stream_that_ended_meanwhile(bench: Bench, tmp_path: Path) -> None:
    path = tmp_path / "media/a.mkv"
    before = path.stat().st_size
    assert bench.die(GoneReader("live")) == ""
    assert path.stat().st_size == before
    bench.end()
    assert path.stat().st_size > before  # the index of keyframes


def test_a_disk_that_is_full_leaves_what_was_whole(
    bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "media/a.mkv"
    before = path.stat().st_size
    written = bench.files.bytes_written

    def full(output: Any) -> None:
        output.take()
        raise TransportError("no room")

    with monkeypatch.context() as patch:
        patch.setattr(bench.files, "write", full)
        for number in range(30, 60):
            bench._source.frame(number)
        with pytest.raises(TransportError):
            bench.recorder.step()
        bench.recorder.break_off()
    bench.end()
    assert path.stat().st_size == before
    assert bench.files.bytes_written == written
    assert bench.recorder.finished


def test_a_disk_that_takes_nothing_leaves_an_empty_file(
    container: Container, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What would be written over a header that is not there must not be."""
    source = Source(TRACKS.get(container.name, [VIDEO_TRACK, AUDIO_TRACK]))
    path = tmp_path / f"a{container.suffixes[0]}"
    bench = Bench(source, container, str(path), tmp_path / "notes")
    bench.clock_us = LONG_US

    def full(output: Any) -> None:
        if len(output):
            output.take()
            raise TransportError("no room")

    monkeypatch.setattr(bench.files, "write", full)
    for number in range(FRAMES):
        source.frame(number)
    with pytest.raises(TransportError):
        while True:
            bench.recorder.step()
            bench.clock_us += LONG_US
    bench.recorder.break_off()
    assert path.read_bytes() == b""
    assert bench.files.bytes_written == 0


def test_notes_of_another_layout_are_told(tmp_path: Path) -> None:
    note = PushNote(tmp_path, 7)
    assert note.read() is None
    assert note.version() == 0
    note.write({"a": 1}, "book", lambda: {"b": 2})
    version = note.version()
    assert PushNote(tmp_path, 7).read() == ({"a": 1}, {"b": 2})
    note.write({"a": 2}, "other", lambda: {"b": 3})
    assert note.version() != version
    assert PushNote(tmp_path, 7).read() == ({"a": 2}, {"b": 3})
    assert {one.name for one in tmp_path.iterdir()} == {"7", "7.2", "7.owner"}
    (tmp_path / "7").write_text('{"layout": 99}')
    with pytest.raises(ValueError, match="layout 99"):
        note.read()
    note.remove()
    assert not list(tmp_path.iterdir())


def test_a_stream_that_is_over_is_finished(bench: Bench) -> None:
    bench._source.stream.set_status(StreamStatus.SHUTDOWN)
    assert bench.die() == ""
    assert not bench.recorder.step()

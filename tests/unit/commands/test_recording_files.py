"""The files of a recording: names, locks, what is there already, and the playlist beside them."""

from __future__ import annotations

import fcntl
from datetime import datetime
from pathlib import Path

import pytest

from mist.core.buffer import ByteBuffer
from mist.errors import TransportError
from mist.stream.recorder import Span
from mist.stream.recording import parse_target
from mist.stream.recording_files import RecordingFiles

NOW = datetime(2026, 11, 21, 8, 30, 1)
SECOND_US = 1_000_000


def make(folder: Path, text: str) -> RecordingFiles:
    return RecordingFiles(parse_target(f"{folder}/{text}"), "live+a", now=lambda: NOW)


def write(files: RecordingFiles, data: bytes, begin_s: int = 0, patches: list[tuple[int, bytes]] | None = None) -> Path:
    """Record one file; returns where it is."""
    files.choose(begin_s * SECOND_US)
    files.open()
    output = ByteBuffer()
    output.write(data)
    files.write(output)
    files.close(patches or [], Span(begin_s * SECOND_US, (begin_s + 2) * SECOND_US, 0, False))
    return Path(files.path)


def test_a_file_in_new_folders(tmp_path: Path, no_leaks: None) -> None:
    path = write(make(tmp_path, "$basename/$year/$wildcard.ts"), b"hello", patches=[(1, b"u")])
    assert path == tmp_path / "live/2026/a.ts"
    assert path.read_bytes() == b"hullo"


def test_an_old_file_is_replaced_or_continued(tmp_path: Path) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(b"a longer text")
    write(make(tmp_path, "a.ts"), b"new")
    assert path.read_bytes() == b"new"
    write(make(tmp_path, "a.ts?append"), b"more", patches=[(0, b"M")])
    assert path.read_bytes() == b"newMore"


def test_no_name_twice(tmp_path: Path) -> None:
    files = make(tmp_path, "a.ts?split=1")
    assert [write(files, b"%d" % n).name for n in range(3)] == ["a.ts", "a_2.ts", "a_3.ts"]
    files = make(tmp_path, "a.ts?split=1&append")
    assert [write(files, b"x").name for _ in range(2)] == ["a.ts", "a.ts"]
    assert (tmp_path / "a.ts").read_bytes() == b"0xx"
    files = make(tmp_path, "$segmentCounter-$currentMediaTime.ts")
    assert [write(files, b"x", begin_s=n).name for n in range(2)] == ["0-0.ts", "1-1000.ts"]


def test_a_file_that_another_writes(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "a.ts"
    files = make(tmp_path, "a.ts")
    with path.open("wb") as other:
        other.write(b"theirs")
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(TransportError, match="another program"):
            files.choose(0)
            files.open()
        files.abandon()
    assert path.read_bytes() == b"theirs"


def test_what_cannot_be_written(tmp_path: Path, no_leaks: None) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(TransportError, match="file/a"):
        files = make(tmp_path, "file/a.ts")
        files.choose(0)
        files.open()
    (tmp_path / "list.m3u8").write_text("no list")
    with pytest.raises(TransportError, match="no playlist"):
        make(tmp_path, "$segmentCounter.ts?m3u8=list.m3u8").choose(0)


def test_a_list_that_slides(tmp_path: Path) -> None:
    files = make(tmp_path, "seg/$segmentCounter.ts?m3u8=../list.m3u8&maxEntries=2&split=2")
    for number in range(4):
        write(files, b"x", begin_s=2 * number)
    files.end()
    assert sorted(path.name for path in (tmp_path / "seg").iterdir()) == ["2.ts", "3.ts"]
    assert (tmp_path / "list.m3u8").read_text().splitlines()[-3:] == ["seg/2.ts", "#EXTINF:2.000,", "seg/3.ts"]


def test_the_files_of_an_old_list(tmp_path: Path) -> None:
    query = "$segmentCounter.ts?m3u8=list.m3u8&split=2"
    files = make(tmp_path, query)
    for number in range(3):
        write(files, b"old", begin_s=2 * number)
    files.end()
    (tmp_path / "3.ts").write_bytes(b"unlisted")
    files = make(tmp_path, f"{query}&append")
    assert write(files, b"new").name == "4.ts"
    files.end()
    assert (tmp_path / "3.ts").read_bytes() == b"unlisted"
    assert (tmp_path / "list.m3u8").read_text().count("#EXTINF") == 4
    assert (tmp_path / "list.m3u8").read_text().count("#EXT-X-DISCONTINUITY\n") == 1
    assert write(make(tmp_path, query), b"new").name == "0.ts"
    assert sorted(path.name for path in tmp_path.glob("*.ts")) == ["0.ts", "3.ts"]
    assert not list(tmp_path.glob(".*"))

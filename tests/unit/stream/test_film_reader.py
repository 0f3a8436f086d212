"""Recordings of on-demand streams, span by span, by one process and by many."""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mist.errors import NoSuitableTrack, NotReady
from mist.formats.containers import by_name
from mist.stream.film_reader import FilmReader
from mist.stream.push_note import PushNote
from mist.stream.recorder import Checkpoint, Recorder
from mist.stream.recording import RecordingTarget, parse_target
from mist.stream.recording_files import RecordingFiles
from tests.unit.stream.test_on_demand import Film, film, run

__all__ = ["film"]  # the fixture

SPANS = 6
FRAME_US = 40_000


class Process:
    """What one process has of a recording."""

    def __init__(self, film: Film, target: str, folder: Path) -> None:
        self.reader = FilmReader(film.media())
        self._target = parse_target(target)
        folder.mkdir(exist_ok=True)
        self.note = PushNote(folder, 1)
        self.wanted: RecordingTarget = self._target

    async def begin(self) -> None:
        self.wanted = await self.reader.begin(self._target, 0)
        self.files = RecordingFiles(self.wanted, "film", now=lambda: datetime(2026, 1, 1))
        container = by_name(self._target.files.rpartition(".")[2])
        assert container is not None
        self.recorder = Recorder(
            self.reader, container, self.wanted, self.files, clock_us=lambda: 0, unix_us=lambda: 0, keep=self._keep
        )

    def _keep(self, checkpoint: Checkpoint) -> None:
        def book() -> dict[str, Any]:
            return {"files": self.files.book(), "index": b64encode(checkpoint.index).decode()}

        note = {"recorder": checkpoint.state, "files": self.files.state()}
        self.note.write(note, (self.files.book_number, checkpoint.index_number), book)

    async def go_on(self) -> None:
        left = self.note.read()
        assert left is not None
        note, book = json.loads(json.dumps(left))
        await self.reader.go_to(note["recorder"]["done_us"])
        self.recorder.go_on(note["recorder"], b64decode(book["index"]))
        assert self.files.go_on(note["files"], book["files"]) == ""

    async def step(self) -> bool:
        more = await self.reader.load()
        goes_on = self.recorder.step()
        self.reader.forget_pages()
        assert not (goes_on and self.reader.waits)
        return more and goes_on

    def end(self) -> None:
        self.recorder.finish()
        self.files.end()


@pytest.fixture
def whole_film(film: Film) -> Film:
    film.grow(SPANS)
    film.indexer.finish()
    film.index.finish()
    return film


async def begun(film: Film, folder: Path, target: str) -> Process:
    (folder / "media").mkdir(parents=True, exist_ok=True)
    process = Process(film, f"{folder}/media/{target}", folder / "notes")
    await process.begin()
    return process


async def record(film: Film, target: str, folder: Path, *, deaths: bool) -> dict[str, bytes]:
    """Record into a folder; with deaths, each span by a process of its own."""
    media = folder / "media"
    process = await begun(film, folder, target)
    left = 2 * SPANS if deaths else 0
    while await process.step():
        if left:
            left -= 1
            process.files.abandon()
            process = await begun(film, folder, target)
            await process.go_on()
    process.end()
    return {path.name: path.read_bytes() for path in sorted(media.iterdir())}


@pytest.mark.parametrize("target", ["a.ts", "a.flv", "a.fmp4", "a.mkv", "$segmentCounter.ts?split=3&m3u8=list.m3u8"])
def test_many_processes_write_what_one_writes(whole_film: Film, target: str, tmp_path: Path) -> None:
    async def work() -> None:
        whole = await record(whole_film, target, tmp_path / "whole", deaths=False)
        again = await record(whole_film, target, tmp_path / "again", deaths=True)
        assert whole == again
        assert any(len(data) > 1000 for data in whole.values())

    run(work())


def test_a_span_is_let_go_when_it_is_written(whole_film: Film, tmp_path: Path) -> None:
    async def work() -> None:
        process = await begun(whole_film, tmp_path, "a.ts")
        for _ in range(SPANS - 1):
            await process.step()
            assert {state.first_us for state in process.reader.tracks()} == {process.recorder.done_us - 50 * FRAME_US}
        process.end()

    run(work())


@pytest.mark.parametrize(
    ("target", "begin_us", "end_us"),
    [
        ("a.ts?start=5400&stop=7000", 5_000_000, 7_000_000),
        ("a.ts?duration=3", 0, 3_000_000),
        ("a.ts?start=2000", 2_000_000, None),
    ],
)
def test_a_part(whole_film: Film, tmp_path: Path, target: str, begin_us: int, end_us: int | None) -> None:
    async def work() -> None:
        process = await begun(whole_film, tmp_path, target)
        while await process.step():
            pass
        process.end()
        assert process.recorder.first_us == begin_us
        assert process.recorder.done_us == (whole_film.index.end_us if end_us is None else end_us)

    run(work())


@pytest.mark.parametrize(
    ("target", "error"),
    [("a.ts?start=900000", NotReady), ("a.wav", NoSuitableTrack)],
    ids=["behind the end", "no track"],
)
def test_nothing_to_record(whole_film: Film, tmp_path: Path, target: str, error: type[Exception]) -> None:
    async def work() -> None:
        process = await begun(whole_film, tmp_path, target)
        with pytest.raises(error):
            while await process.step():
                pass

    run(work())

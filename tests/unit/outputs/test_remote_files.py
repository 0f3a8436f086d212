"""Files on their way to another machine: order, tries, room, and what need not go any more."""

from __future__ import annotations

import asyncio
import json
import logging
import os
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from mist.core.buffer import ByteBuffer
from mist.errors import TransportError
from mist.net.spool import LEAST_LIMIT_BYTES, Spool, SpooledFile
from mist.net.uploads import Away
from mist.outputs.base import remote_files
from mist.outputs.base.remote_files import Delivery, RemoteFiles
from mist.stream.push import PushStatus
from mist.stream.recorder import Span
from mist.stream.recording import parse_target


class Shelf:
    """A carrier to a dictionary. away: takes nothing."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.did: list[str] = []
        self.away = False
        self.refuses = False

    async def send(self, url: str, file: SpooledFile, mime: str) -> None:
        while not file.whole:
            await file.wait_beyond(file.size)
        self._check()
        self.files[url] = b"".join(self._pieces(file))
        self.did.append(f"PUT {url}")

    def _pieces(self, file: SpooledFile) -> Iterator[bytes]:
        at = 0
        while piece := file.read(at):
            yield piece
            at += len(piece)

    def _check(self) -> None:
        if self.away:
            raise Away("nobody there")
        if self.refuses:
            raise TransportError("no")

    async def delete(self, url: str) -> None:
        self._check()
        self.did.append(f"DELETE {url}")
        self.files.pop(url, None)

    async def fetch(self, url: str) -> bytes | None:
        return self.files.get(url)

    def state(self, file: SpooledFile) -> Any:
        return f"of {file.size}"

    def restore(self, file: SpooledFile, state: Any) -> None:
        self.did.append(state)

    def close(self) -> None:
        pass


class Case:
    def __init__(self, folder: Path, target: str, fd: int = -1) -> None:
        self.spool = Spool(str(folder), 0, fd)
        self.status = PushStatus()
        self.shelf = Shelf()
        self.delivery = Delivery(self.shelf, self.status, self.spool, logging.getLogger("test"))
        self.files = RemoteFiles(
            parse_target(target, {"http"}),
            "live",
            "video/mp2t",
            self.spool,
            self.delivery,
            lambda: datetime(2026, 1, 2),
        )

    def add(self, second: int, data: bytes = b"media") -> None:
        buffer = ByteBuffer()
        self.files.choose(second * 1_000_000)
        self.files.open()
        buffer.write(data)
        self.files.write(buffer)
        self.files.close([], Span(second * 1_000_000, (second + 1) * 1_000_000, 0, False))

    def names(self) -> list[str]:
        return sorted(url.rpartition("/")[2] for url in self.shelf.files)


MakeCase = Callable[[str], Case]


@pytest.fixture
def make(tmp_path: Path) -> Iterator[MakeCase]:
    made: list[Case] = []

    def one(target: str) -> Case:
        made.append(Case(tmp_path, target))
        return made[-1]

    yield one
    for case in made:
        case.spool.close()


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_files, "FIRST_RETRY_SECONDS", 0.001)
    monkeypatch.setattr(remote_files, "LAST_RETRY_SECONDS", 0.001)


SLIDING = "http://host/a/$segmentCounter.ts?m3u8=list.m3u8&maxEntries=2"


def test_what_left_the_list_before_it_was_sent_is_not_sent(make: MakeCase) -> None:
    case = make(SLIDING)
    for second in range(6):
        case.add(second)
    case.files.end()
    case.delivery.finish()
    asyncio.run(case.delivery.run())
    assert case.shelf.did == ["PUT http://host/a/4.ts", "PUT http://host/a/5.ts", "PUT http://host/a/list.m3u8"]
    assert case.shelf.files["http://host/a/list.m3u8"].count(b".ts") == 2
    assert case.spool.used_bytes == 0


def test_what_was_sent_is_removed_when_it_leaves_the_list(make: MakeCase) -> None:
    async def run() -> Case:
        case = make(SLIDING)
        running = asyncio.ensure_future(case.delivery.run())
        for second in range(4):
            case.add(second)
            while case.spool.used_bytes:
                await asyncio.sleep(0)
        case.delivery.finish()
        await running
        return case

    case = asyncio.run(run())
    assert case.names() == ["2.ts", "3.ts", "list.m3u8"]
    assert "DELETE http://host/a/0.ts" in case.shelf.did


def test_nothing_is_removed_if_that_is_not_wanted(make: MakeCase) -> None:
    case = make(SLIDING + "&nounlink")
    for second in range(4):
        case.add(second)
    case.delivery.finish()
    asyncio.run(case.delivery.run())
    assert case.names() == ["0.ts", "1.ts", "2.ts", "3.ts", "list.m3u8"]


def test_it_goes_on_when_the_destination_is_back(make: MakeCase) -> None:
    async def run() -> Case:
        case = make("http://host/$segmentCounter.ts?split=1")
        case.shelf.away = True
        for second in range(3):
            case.add(second, b"%d" % second)
        running = asyncio.ensure_future(case.delivery.run())
        while not case.status.trouble:
            await asyncio.sleep(0)
        assert case.status.document(0)["buffer_bytes"] > 0
        assert case.status.document(0)["trouble"] == "nobody there"
        case.shelf.away = False
        case.delivery.finish()
        await running
        return case

    case = asyncio.run(run())
    assert case.shelf.did == [f"PUT http://host/{number}.ts" for number in range(3)]
    assert [case.shelf.files[f"http://host/{number}.ts"] for number in range(3)] == [b"0", b"1", b"2"]
    assert "trouble" not in case.status.document(0)


def test_a_full_buffer_is_said(make: MakeCase, caplog: pytest.LogCaptureFixture) -> None:
    case = make("http://host/$segmentCounter.ts?split=1")
    case.add(0, bytes(LEAST_LIMIT_BYTES))
    assert case.delivery.full
    assert case.status.document(0)["buffer_full"] is True
    assert "The 32 MiB that may wait on disk are full" in caplog.text
    case.delivery.finish()
    asyncio.run(case.delivery.run())
    assert not case.delivery.full
    assert "buffer_full" not in case.status.document(0)


def test_a_refusal_is_final(make: MakeCase) -> None:
    case = make("http://host/a.ts")
    case.shelf.refuses = True
    case.add(0)
    with pytest.raises(TransportError):
        asyncio.run(case.delivery.run())


def test_a_list_that_is_there_is_continued(make: MakeCase) -> None:
    case = make(SLIDING + "&append")
    assert case.files.playlist_url == "http://host/a/list.m3u8"
    case.files.continue_from(b"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:1,\n7.ts\n")
    case.add(0)
    case.delivery.finish()
    asyncio.run(case.delivery.run())
    assert case.names() == ["8.ts", "list.m3u8"]
    assert b"7.ts\n#EXT-X-DISCONTINUITY\n#EXTINF:1.000,\n8.ts" in case.shelf.files["http://host/a/list.m3u8"]


def test_names_are_made_fit_for_urls(make: MakeCase) -> None:
    case = make("http://me:pass@host/a b/../$stream#$datetime.ts")
    case.add(0)
    assert case.files.path == "http://host/live%232026.01.02.00.00.00.ts"


def test_another_process_goes_on(make: MakeCase, tmp_path: Path) -> None:
    """With the files that wait, with the one that is open as far as it was noted, and with the list."""
    target = "http://host/$segmentCounter.ts?m3u8=list.m3u8&maxEntries=3"
    case = make(target)
    case.shelf.away = True
    for second in range(3):
        case.add(second, b"media %d" % second)
    case.files.choose(3_000_000)
    case.files.open()
    buffer = ByteBuffer()
    buffer.write(b"noted")
    case.files.write(buffer)
    state, book = case.files.state(), case.files.book()
    buffer.write(b" and more")
    case.files.write(buffer)
    left = json.loads(json.dumps([case.delivery.state(), state, case.files.open_state(state), book]))

    other = Case(tmp_path, target, os.dup(case.spool.fileno()))
    jobs, state, opened, book = left
    job = other.delivery.restore(jobs, state["job"], opened)
    assert job is not None
    assert other.files.go_on(state, book, job)
    assert "of 14" in other.shelf.did, "what the carrier had noted"
    buffer.write(b", gone on with")
    other.files.write(buffer)
    other.files.close([], Span(3_000_000, 4_000_000, 0, False))
    other.add(4)
    other.files.end()
    other.delivery.finish()
    asyncio.run(other.delivery.run())
    found = {url.rpartition("/")[2]: data for url, data in other.shelf.files.items()}
    assert found.pop("list.m3u8").decode().count(".ts\n") == 3
    assert found == {"2.ts": b"media 2", "3.ts": b"noted, gone on with", "4.ts": b"media"}
    assert other.spool.used_bytes == 0
    other.spool.close()


def test_a_file_that_is_there_already_is_not_gone_on_with(make: MakeCase) -> None:
    case = make("http://host/a.ts")
    case.files.choose(0)
    case.files.open()
    state = case.files.state()
    case.files.abandon()
    case.delivery.finish()
    asyncio.run(case.delivery.run())
    assert case.files.open_state(state) == {}
    assert not case.files.go_on(state, case.files.book(), None)

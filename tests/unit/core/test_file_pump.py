"""The pump that sends from files: everything arrives, slow peers wait without work, ends are told once."""

from __future__ import annotations

import os
import select
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import pytest

from mist.core.file_pump import FilePump, FileRun

pytestmark = pytest.mark.usefixtures("no_leaks")
DATA = bytes(range(256)) * (5 << 12)  # more than any socket buffer and than one turn


class Sending:
    """One run, and what was told of it."""

    def __init__(self, pump: FilePump, file: BinaryIO, position: int = 0, count: int = len(DATA)) -> None:
        self.ours, self.theirs = socket.socketpair()
        self.ours.setblocking(False)
        self.theirs.setblocking(False)
        self.taken = 0
        self.ends: list[OSError | None] = []
        self.run: FileRun = pump.send(self.ours.fileno(), file.fileno(), position, count, self._count, self.ends.append)

    def _count(self, down: int, up: int) -> None:
        assert down > 0 and up == 0
        self.taken += down

    def read(self) -> bytes:
        parts = []
        try:
            while data := self.theirs.recv(1 << 16):
                parts.append(data)
        except BlockingIOError:
            pass
        return b"".join(parts)

    def close(self) -> None:
        self.ours.close()
        self.theirs.close()


@pytest.fixture
def file(tmp_path: Path) -> Iterator[BinaryIO]:
    (tmp_path / "data").write_bytes(DATA)
    with (tmp_path / "data").open("rb", buffering=0) as opened:
        yield opened


def readable(pump: FilePump) -> bool:
    return bool(select.select([pump], [], [], 0)[0])


def test_everything_arrives_as_peers_take_it(file: BinaryIO) -> None:
    pump = FilePump()
    sendings = [Sending(pump, file), Sending(pump, file, 1000, 3_000_000)]
    got = [b"", b""]
    assert len(pump) == 2 and not readable(pump)
    while len(pump):
        for number, one in enumerate(sendings):
            got[number] += one.read()
        assert readable(pump)
        pump.run()
    got = [before + one.read() for before, one in zip(got, sendings, strict=True)]
    assert got == [DATA, DATA[1000:3_001_000]]
    assert [(one.taken, one.ends) for one in sendings] == [(len(DATA), [None]), (3_000_000, [None])]
    assert sendings[1].run.position == 3_001_000
    for one in sendings:
        one.close()


def test_what_a_socket_takes_at_once_ends_at_once(file: BinaryIO) -> None:
    pump = FilePump()
    small = Sending(pump, file, 5, 100)
    assert (small.ends, len(pump), small.read()) == ([None], 0, DATA[5:105])
    pump.forget(small.run)
    small.close()


def test_a_run_that_is_forgotten_says_nothing(file: BinaryIO) -> None:
    pump = FilePump()
    one = Sending(pump, file)
    pump.forget(one.run)
    one.read()
    assert not readable(pump) and len(pump) == 0 and one.ends == []
    one.close()


def test_a_peer_that_has_gone_is_an_error(file: BinaryIO) -> None:
    pump = FilePump()
    one = Sending(pump, file)
    one.theirs.close()
    assert readable(pump)
    pump.run()
    assert len(pump) == 0 and [type(error) for error in one.ends] == [BrokenPipeError]
    one.ours.close()


def test_a_file_that_is_shorter_is_an_error(file: BinaryIO) -> None:
    pump = FilePump()
    one = Sending(pump, file, len(DATA) - 10, 100)
    assert len(pump) == 0 and one.taken == 10
    assert [type(error) for error in one.ends] == [OSError]
    one.close()


def test_a_pipe_that_nobody_reads(file: BinaryIO) -> None:
    pump = FilePump()
    ends: list[OSError | None] = []
    read, write = os.pipe2(os.O_NONBLOCK)
    os.close(read)
    pump.send(write, file.fileno(), 0, 10, lambda down, up: None, ends.append)
    os.close(write)
    assert len(ends) == 1 and len(pump) == 0

"""Bytes of files and pipes by position."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest

from mist.errors import RemoteProtocolError, TransportError, UnsupportedError
from mist.net.source_reader import HEAD_BYTES, PipeReader, SourceReader, path_of
from mist.net.sources import open_source

DATA = bytes(range(256)) * 1024


def test_a_file_is_read_anywhere(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    for source in (str(path), path.as_uri()):
        with open_source(source) as reader:
            assert reader.size == len(DATA) and reader.can_jump
            assert reader.read(1000, 10) == DATA[1000:1010]
            assert reader.read(0, 10) == DATA[:10]
            assert reader.read(len(DATA) - 3, 10) == DATA[-3:]
            assert reader.read(len(DATA), 10) == b""


def test_a_file_that_grows_is_read_on_and_one_that_shrinks_is_an_error(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    with open_source(str(path)) as reader:
        with path.open("ab") as file:
            file.write(b"more")
        assert reader.read(len(DATA), 10) == b"more"
        os.truncate(path, 100)
        with pytest.raises(RemoteProtocolError, match="cut from 262144 to 100 bytes") as caught:
            reader.read(200, 10)
        assert caught.value.offset == 200


def test_a_file_that_vanishes_is_read_on(tmp_path: Path) -> None:
    path = tmp_path / "a.bin"
    path.write_bytes(DATA)
    with open_source(str(path)) as reader:
        path.unlink()
        assert reader.read(5, 5) == DATA[5:10]


@pytest.mark.parametrize("name", ["missing", ""])
def test_what_cannot_be_opened_is_named(name: str, tmp_path: Path) -> None:
    with pytest.raises(TransportError, match=f"{name}: "):
        open_source(str(tmp_path / name))


class Feeder:
    """A pipe that another thread fills."""

    def __init__(self, pieces: list[bytes]) -> None:
        self.read_end, self.write_end = os.pipe()
        self.thread = threading.Thread(target=self._fill, args=(pieces,))
        self.thread.start()

    def _fill(self, pieces: list[bytes]) -> None:
        with os.fdopen(self.write_end, "wb", buffering=0) as pipe:
            for piece in pieces:
                pipe.write(piece)

    def reader(self) -> SourceReader:
        return PipeReader("pipe", self.read_end)


def read_all(reader: SourceReader, at: int = 0) -> bytes:
    found = b""
    while data := reader.read(at + len(found), 10_000):
        found += data
    return found


def test_a_pipe_is_read_once_and_its_head_twice(no_leaks: None) -> None:
    feeder = Feeder([DATA[:10], DATA[10:]])
    with feeder.reader() as reader:
        assert reader.size is None and not reader.can_jump
        assert reader.read(0, 4) == DATA[:4]
        assert DATA[4:104].startswith(reader.read(4, 100))
        assert read_all(reader) == DATA
        assert reader.read(len(DATA), 1) == b""
        with pytest.raises(UnsupportedError, match="it is a pipe") as caught:
            reader.read(HEAD_BYTES + 1, 10)
        assert caught.value.offset == HEAD_BYTES + 1
    feeder.thread.join()


def test_a_pipe_can_be_read_ahead(no_leaks: None) -> None:
    feeder = Feeder([DATA])
    with feeder.reader() as reader:
        assert reader.read(200_000, 4) == DATA[200_000:200_004]
        assert reader.read(10**9, 4) == b""
    feeder.thread.join()


def test_a_named_pipe_is_a_pipe(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "fifo"
    os.mkfifo(path)
    thread = threading.Thread(target=path.write_bytes, args=(b"hello",))
    thread.start()
    with open_source(str(path)) as reader:
        assert isinstance(reader, PipeReader)
        assert read_all(reader) == b"hello"
    thread.join()


def test_path_of_a_source() -> None:
    assert path_of("https://host/a%20b/c.ts?x=.mp4") == "/a b/c.ts"
    assert path_of("file:///a/b.flv") == "/a/b.flv"
    assert path_of("a?b.ts") == "a?b.ts"


def test_standard_input_may_be_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.stdin", None)
    with pytest.raises(TransportError, match="standard input is closed"):
        open_source("-")

"""Files that have their name only once they are whole, and pipes."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mist.commands.targets import BLOCKS_BYTES, FileTarget, PipeTarget, open_target
from mist.core.buffer import ByteBuffer
from mist.errors import TransportError


def buffer(data: bytes) -> ByteBuffer:
    made = ByteBuffer()
    made.write(data)
    return made


def test_a_file_is_written_in_whole_blocks(tmp_path: Path) -> None:
    target = FileTarget(str(tmp_path / "a"))
    data = os.urandom(BLOCKS_BYTES + 100)
    output = buffer(data[:1000])
    target.write(output)
    assert len(output) == 1000
    output.write(data[1000:])
    target.write(output)
    assert len(output) == 100
    target.write(output, last=True)
    target.complete([])
    assert (tmp_path / "a").read_bytes() == data


def test_a_file_appears_when_it_is_whole(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "a.ts"
    target = open_target(str(path))
    assert target.rewritable
    target.write(buffer(b"hello "), last=True)
    target.write(buffer(b"world"), last=True)
    assert not path.exists() and (tmp_path / "a.ts.part").exists()
    target.complete([(0, b"J"), (6, b"WOR")])
    assert path.read_bytes() == b"Jello WORld"
    assert os.listdir(tmp_path) == ["a.ts"]


def test_what_was_there_stays_until_the_new_one_is_whole(tmp_path: Path, no_leaks: None) -> None:
    path = tmp_path / "a.ts"
    path.write_bytes(b"old")
    target = open_target(str(path))
    target.write(buffer(b"new"), last=True)
    assert path.read_bytes() == b"old"
    target.discard()
    assert path.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.ts"]


def test_what_is_not_whole_keeps_its_other_name(tmp_path: Path, no_leaks: None) -> None:
    target = open_target(str(tmp_path / "a.ts"))
    target.write(buffer(b"half"), last=True)
    assert target.keep([(0, b"H")]) == str(tmp_path / "a.ts.part")
    assert (tmp_path / "a.ts.part").read_bytes() == b"Half"
    assert os.listdir(tmp_path) == ["a.ts.part"]


def test_places_that_cannot_be_written_are_named(tmp_path: Path) -> None:
    with pytest.raises(TransportError, match="it is a folder"):
        open_target(str(tmp_path))
    with pytest.raises(TransportError, match="No such file"):
        open_target(str(tmp_path / "nowhere" / "a.ts"))


def test_a_full_disk_is_named() -> None:
    if not os.path.exists("/dev/full"):
        pytest.skip("needs /dev/full")
    target = open_target("/dev/full")
    assert isinstance(target, PipeTarget) and not target.rewritable
    with pytest.raises(TransportError, match="/dev/full: No space left"):
        target.write(buffer(b"x"), last=True)
    target.discard()


def test_a_pipe_takes_no_patches(no_leaks: None) -> None:
    read_end, write_end = os.pipe()
    target = PipeTarget("pipe", write_end, owned=True)
    target.write(buffer(b"hello"), last=True)
    target.complete([(0, b"J")])
    assert os.read(read_end, 100) == b"hello"
    os.close(read_end)


def test_a_broken_pipe_stays_one() -> None:
    read_end, write_end = os.pipe()
    os.close(read_end)
    target = PipeTarget("pipe", write_end, owned=True)
    with pytest.raises(BrokenPipeError):
        target.write(buffer(b"hello"), last=True)
    target.discard()


@pytest.mark.parametrize(("flags", "rewritable"), [(os.O_WRONLY, True), (os.O_WRONLY | os.O_APPEND, False)])
def test_standard_output_to_a_file_takes_patches_where_it_begins(flags: int, rewritable: bool, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"before:")
    fd = os.open(path, flags)
    os.lseek(fd, 0, os.SEEK_END)
    target = PipeTarget("standard output", fd)
    assert target.rewritable == rewritable
    target.write(buffer(b"hello"), last=True)
    target.complete([(0, b"J")])
    os.close(fd)
    assert path.read_bytes() == (b"before:Jello" if rewritable else b"before:hello")


def test_a_file_target_that_is_given_up_twice(tmp_path: Path) -> None:
    target = FileTarget(str(tmp_path / "a"))
    target.discard()
    target.discard()
    assert os.listdir(tmp_path) == []

"""What waits on disk: bytes come back as they went in, room is used again, and the file shrinks."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from mist.errors import TransportError
from mist.net.spool import BLOCK_BYTES, LEAST_LIMIT_BYTES, Spool, SpooledFile


@pytest.fixture
def spool(tmp_path: Path) -> Iterator[Spool]:
    made = Spool(str(tmp_path), 0)
    yield made
    made.close()
    assert not list(tmp_path.iterdir())


def whole(file: SpooledFile, at: int = 0) -> bytes:
    found = b""
    while piece := file.read(at + len(found)):
        found += piece
    return found


def test_files_side_by_side(spool: Spool) -> None:
    chance = random.Random(1)
    files = [(SpooledFile(spool), bytearray()) for _ in range(3)]
    for _ in range(60):
        file, expected = chance.choice(files)
        data = chance.randbytes(chance.randrange(1, BLOCK_BYTES))
        file.append(data)
        expected += data
    for file, expected in files:
        assert whole(file) == expected
        at = chance.randrange(len(expected))
        assert whole(file, at) == expected[at:]


def test_earlier_bytes_are_written_over(spool: Spool) -> None:
    file = SpooledFile(spool)
    file.append(b"a" * (2 * BLOCK_BYTES))
    assert file.patch(BLOCK_BYTES - 2, b"1234")
    assert whole(file)[BLOCK_BYTES - 3 : BLOCK_BYTES + 3] == b"a1234a"
    assert not file.patch(2 * BLOCK_BYTES - 1, b"12")
    file.let_go(BLOCK_BYTES)
    assert not file.patch(0, b"1")


def test_room_is_used_again_and_given_back(spool: Spool) -> None:
    first, second = SpooledFile(spool), SpooledFile(spool)
    first.append(b"a" * 4 * BLOCK_BYTES)
    second.append(b"b" * BLOCK_BYTES)
    assert spool.used_bytes == 5 * BLOCK_BYTES
    first.let_go(2 * BLOCK_BYTES + 1)
    assert spool.used_bytes == 3 * BLOCK_BYTES
    second.append(b"c" * 2 * BLOCK_BYTES)
    assert whole(second) == b"b" * BLOCK_BYTES + b"c" * 2 * BLOCK_BYTES
    assert whole(first, 2 * BLOCK_BYTES + 1) == b"a" * (2 * BLOCK_BYTES - 1)
    first.discard()
    second.discard()
    assert spool.used_bytes == 0
    assert os.fstat(spool.fileno()).st_size == 0


def test_it_is_full_at_its_limit(spool: Spool) -> None:
    file = SpooledFile(spool)
    file.append(bytes(LEAST_LIMIT_BYTES - BLOCK_BYTES))
    assert not spool.full
    file.append(b"1")
    assert spool.full


def test_a_folder_that_is_not_there() -> None:
    with pytest.raises(TransportError, match="/no/such cannot hold"):
        Spool("/no/such")


def test_another_process_goes_on(spool: Spool) -> None:
    """It finds what was noted, and what it writes is beside that."""
    chance = random.Random(2)
    first, second, third = SpooledFile(spool), SpooledFile(spool), SpooledFile(spool)
    expected = {id(file): chance.randbytes(3 * BLOCK_BYTES + 100) for file in (first, second, third)}
    for at in range(0, 3 * BLOCK_BYTES + 100, 1000):
        for file in (first, second, third):
            file.append(expected[id(file)][at : at + 1000])
    second.let_go(2 * BLOCK_BYTES + 5)
    third.discard()
    size = 2 * BLOCK_BYTES + 50
    states = [first.state(size), second.state()]
    other = Spool(fd=os.dup(spool.fileno()))
    again, later = (SpooledFile.restore(other, state) for state in states)
    other.claim([*again.blocks, *later.blocks])
    more = SpooledFile(other)
    more.append(chance.randbytes(5 * BLOCK_BYTES))
    again.append(expected[id(first)][size:])
    assert whole(again) == expected[id(first)]
    assert whole(later, later.start) == expected[id(second)][2 * BLOCK_BYTES + 5 :]
    other.close()


@pytest.mark.parametrize("change", [{"size": 9 * BLOCK_BYTES}, {"blocks": []}])
def test_a_state_that_cannot_be(spool: Spool, change: dict[str, Any]) -> None:
    file = SpooledFile(spool)
    file.append(bytes(2 * BLOCK_BYTES))
    with pytest.raises(ValueError, match="blocks"):
        SpooledFile.restore(spool, {**file.state(), **change})


def test_what_a_note_names_is_not_written_over(spool: Spool) -> None:
    spool.wait_for_notes(True)
    file, other = SpooledFile(spool), SpooledFile(spool)
    file.append(b"a" * BLOCK_BYTES)
    state = file.state()
    file.discard()
    assert spool.used_bytes == 0
    other.append(b"b" * BLOCK_BYTES)
    assert whole(SpooledFile.restore(spool, state)) == b"a" * BLOCK_BYTES
    spool.noted()
    other.append(b"c" * BLOCK_BYTES)
    assert whole(SpooledFile.restore(spool, state)) == b"c" * BLOCK_BYTES
    spool.wait_for_notes(False)
    other.discard()

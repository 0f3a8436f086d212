"""Files of every format with numbers that lie, and files that change while they are read.

A file is read to its end, or refused with an error that names it and a byte of it: in bounded time and memory.
(Files that are cut: `test_file_truncated.py`. Viewers of other files meanwhile: `tests/integration/test_changing_files.py`.)
"""

from __future__ import annotations

import asyncio
import os
import resource
from collections.abc import Callable
from pathlib import Path

import pytest

from mist.errors import MistError, RemoteProtocolError
from tests.support.small_files import FILES, Reading, reading, small_file

pytestmark = pytest.mark.tools("ffmpeg")

PLACES = 150  # of the beginning at which a number may stand: the first ones all, then one in seven
MOST_STEPS = 500  # pieces that a file of under 100 kB may be read in
MOST_PACKETS = 20_000
MEMORY_KIB = 96 << 10  # more than before that all bad files of a format may take together

LIES = {
    "2^32-1": b"\xff" * 4,
    "2^63-1": b"\x7f" + b"\xff" * 7,
    "2^63": b"\x80" + bytes(7),
    "0": bytes(8),
    "1": bytes(7) + b"\x01",
    "2^63 little-endian": bytes(7) + b"\x80",
}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    folder, made = tmp_path_factory.mktemp("films"), dict[str, Path]()

    def film(name: str) -> Path:
        if name not in made:
            made[name] = small_file(folder, name)
        return made[name]

    return film


def places(size: int) -> list[int]:
    return [*range(min(size - 8, PLACES // 2)), *range(PLACES // 2, min(size - 8, PLACES * 4), 7)]


async def read_bad(path: Path, index: bool) -> Reading | None:
    async with reading(path, index=index) as found:
        await found.to_the_end(MOST_STEPS)
        return found


def check_error(error: RemoteProtocolError, path: Path) -> None:
    """The text names the file, the offset a byte of it or its end."""
    assert str(path) in str(error), error
    assert error.offset is not None and 0 <= error.offset <= path.stat().st_size, (error, error.offset)


@pytest.mark.parametrize("name", FILES)
def test_a_file_whose_numbers_lie(films: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    data = films(name).read_bytes()
    path = tmp_path / f"bad.{name}"
    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for lie, number in LIES.items():
        for at in places(len(data)):
            path.write_bytes(data[:at] + number + data[at + len(number) :])
            try:
                found = asyncio.run(read_bad(path, bool(at & 1)))
            except RemoteProtocolError as error:
                check_error(error, path)
            else:
                assert found is not None
                assert found.steps < MOST_STEPS, (lie, at)
                assert found.packets <= MOST_PACKETS, (lie, at)
                assert found.payload_bytes <= 2 * len(data) + MOST_PACKETS, (lie, at)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib <= MEMORY_KIB


def _cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def _empty(path: Path) -> None:
    os.truncate(path, 0)


def _grow(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\x47\xff\0\1" * 5000)


CHANGES = {"cut": _cut, "emptied": _empty, "grown": _grow, "removed": Path.unlink}


@pytest.mark.parametrize("change", CHANGES)
@pytest.mark.parametrize("name", FILES)
def test_a_file_that_changes_while_it_is_read(
    films: Callable[[str], Path], tmp_path: Path, name: str, change: str
) -> None:
    """A file that is gone is read to its end, since it is open. One that was cut says so, and at which byte."""
    data = films(name).read_bytes() * 1
    path = tmp_path / f"film.{name}"

    async def play() -> Reading:
        async with reading(path, index=False) as found:
            CHANGES[change](path)
            try:
                await found.to_the_end(MOST_STEPS)
                found.file.check(len(data))
            except RemoteProtocolError as error:
                assert str(path) in str(error)
                assert error.offset is not None and 0 <= error.offset <= len(data) + 20_000
                assert change in ("cut", "emptied", "grown")
            else:
                assert change == "removed"
            return found

    path.write_bytes(data)
    whole = asyncio.run(read_bad(path, False))
    found = asyncio.run(play())
    assert whole is not None and whole.packets
    assert found.steps < MOST_STEPS
    if change == "removed":
        assert found.packets == whole.packets
    elif change != "grown":
        assert found.packets <= whole.packets


def test_an_error_is_one_of_ours(tmp_path: Path) -> None:
    """Whatever the suffix, a file of nothing and one of noise are refused."""
    for name in FILES:
        for data in (b"", bytes(5000), b"\xff" * 5000):
            path = tmp_path / f"nothing.{name}"
            path.write_bytes(data)
            with pytest.raises(MistError) as caught:
                asyncio.run(read_bad(path, True))
            assert str(path) in str(caught.value)

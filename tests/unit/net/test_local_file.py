"""Local files that change under their readers."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mist.errors import RemoteProtocolError
from mist.net.local_file import LocalFile


@pytest.fixture
def path(tmp_path: Path) -> Path:
    found = tmp_path / "film.ts"
    found.write_bytes(bytes(1000))
    os.utime(found, (1_600_000_000, 1_600_000_000))
    return found


def test_nothing_has_changed(path: Path) -> None:
    file = LocalFile(str(path))
    file.check(0)
    assert file.changed() == ""
    file.close()


def test_an_overwritten_file_is_an_error_with_name_and_byte(path: Path) -> None:
    file = LocalFile(str(path))
    path.write_bytes(b"x" * 1000)
    with pytest.raises(RemoteProtocolError, match=f"{path}, byte 300: it was overwritten") as caught:
        file.check(300)
    assert (caught.value.offset, caught.value.reason) == (300, "SOURCE_CHANGED")
    assert "somebody has written into it" in file.changed()
    file.close()


def test_a_file_that_grows(path: Path) -> None:
    file = LocalFile(str(path))
    with path.open("ab") as more:
        more.write(b"more")
    assert file.changed(grows=True) == ""
    assert "1004 bytes instead of 1000" in file.changed()
    file.close()


def test_a_replaced_file_stays_readable(path: Path) -> None:
    file = LocalFile(str(path))
    other = path.with_suffix(".new")
    other.write_bytes(b"x" * 1000)
    other.replace(path)
    file.check(0)
    assert file.read(0, 4) == bytes(4)
    assert "was replaced" in file.changed()
    path.unlink()
    assert "is gone" in file.changed(grows=True)
    file.close()

"""Files of every format, cut at every byte of their beginning: the input plays what is there, or names file and byte."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from mist.errors import RemoteProtocolError
from tests.support.small_files import FILES, reading, small_file

pytestmark = pytest.mark.tools("ffmpeg")

HEADER_BYTES = 1400


async def packets_of(path: Path) -> int:
    """Return how many packets a file has."""
    async with reading(path) as found:
        return await found.to_the_end()


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_ends_in_its_header(tmp_path: Path, name: str) -> None:
    path = small_file(tmp_path, name)
    whole = asyncio.run(packets_of(path))
    assert whole
    full_bytes = path.stat().st_size
    refused = 0
    for size in range(min(HEADER_BYTES, full_bytes) - 1, -1, -1):
        os.truncate(path, size)
        try:
            assert asyncio.run(packets_of(path)) <= whole, size
        except RemoteProtocolError as error:
            refused += 1
            assert str(path) in str(error), (size, error)
            assert error.offset is not None and 0 <= error.offset <= full_bytes, (size, error)
    assert refused, "the empty file has no tracks"

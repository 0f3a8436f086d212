"""Indexes that another program left beside a file: read as the layout says, left alone while they are right, replaced otherwise."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import pytest

from mist.errors import UnsupportedError
from mist.formats.dtsh import parse_dtsh
from mist.stream.index_file import IndexFile, parse_index
from tests.support.foreign_dtsh import Film, dtsh

LOG = logging.getLogger("test")
SIZE = 60_000
NOW_NS = 1_700_000_000 * 10**9
SOURCE = (SIZE, NOW_NS, 0)
FILM = Film([(13, 25), (26_000, 24)])
WHOLE = dtsh(FILM, extra={b"unixzero": 1_600_000_000_000, b"inputLocalVars": b'{"timescale":1000000,"version":2}'})
BROKEN = {
    "empty": b"",
    "cut": WHOLE[:-20],
    "longer": WHOLE + b"\0",
    "other-magic": b"DTPD" + WHOLE[4:],
    "no-end": WHOLE[:-3] + b"\1\1\1",
    "keys-without-parts": WHOLE.replace(b"\0\5parts", b"\0\5partz").replace(b"\0\x08keysizes\2", b"\0\x08keysizes\3"),
    "of-version-3": dtsh(FILM, 3),
    "of-version-2": dtsh(FILM, 2),
    "of-no-version": WHOLE.replace(b"\0\7version\1", b"\0\7versiom\1"),
    "of-a-version-to-come": dtsh(FILM, 5),
}


def test_it_says_what_its_writer_meant() -> None:
    index = parse_dtsh(WHOLE)
    (track,) = index.tracks
    assert (index.live, index.unix_zero_ms, index.input_variables[:10]) == (False, 1_600_000_000_000, '{"timescal')
    assert (track.info.codec, track.info.width, track.info.track_id, track.name) == (
        "H264",
        128,
        1,
        "H264_128x96_25fps_1",
    )
    assert (track.first_ms, track.last_ms, track.bytes_per_second, track.max_bytes_per_second) == (
        0,
        1920,
        25_000,
        30_000,
    )
    keys, parts, fragments = track.keys(), track.parts(), track.fragments()
    assert (
        list(keys.positions) == [13, 26_000] and list(keys.times_ms) == [0, 1000] and list(keys.part_counts) == [25, 24]
    )
    assert list(fragments.first_keys) == [0, 1] and list(fragments.durations_ms) == [1000, 0]
    assert len(parts.payload_bytes) == 49 and list(parts.offsets_ms[:2]) == [40, -40]
    assert list(track.key_sizes()) == [25 * 1035, 24 * 1035]


@pytest.fixture
def beside(tmp_path: Path) -> IndexFile:
    film = tmp_path / "film.flv"
    film.write_bytes(bytes(SIZE))
    return IndexFile(str(film), ("", 0), LOG)


def put(file: IndexFile, data: bytes, seconds: float) -> Path:
    """Write an index so many seconds after the file."""
    assert file.beside is not None
    file.beside.write_bytes(data)
    time_ns = NOW_NS + int(seconds * 1e9)
    os.utime(file.beside, ns=(time_ns, time_ns))
    return file.beside


def test_a_sound_one_is_left_alone(beside: IndexFile) -> None:
    path = put(beside, WHOLE, 60)
    assert parse_index(WHOLE, SIZE) is None
    assert beside.load(SOURCE) is None and not beside.save(b"ours") and path.read_bytes() == WHOLE


@pytest.mark.parametrize("seconds", [-3600.0, 0.0, 14.0])
def test_a_stale_one_is_replaced(beside: IndexFile, seconds: float) -> None:
    path = put(beside, WHOLE, seconds)
    assert beside.load(SOURCE) is None and beside.save(b"ours") and path.read_bytes() == b"ours"


@pytest.mark.parametrize("name", BROKEN)
def test_another_version_or_a_damaged_one_is_replaced(
    beside: IndexFile, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(beside, BROKEN[name], 60)
    with caplog.at_level(logging.INFO):
        assert beside.load(SOURCE) is None and beside.save(b"ours")
    assert path.read_bytes() == b"ours" and "it is made anew" in caplog.text


@pytest.mark.parametrize("version", [2, 3])
def test_a_version_before_is_told_from_damage(version: int) -> None:
    with pytest.raises(UnsupportedError, match=f"version {version}"):
        parse_dtsh(dtsh(FILM, version))


def test_no_cut_and_no_changed_byte_is_an_error_for_the_viewer(beside: IndexFile) -> None:
    for place in range(0, len(WHOLE), 7):
        put(beside, WHOLE[:place], 60)
        assert beside.load(SOURCE) is None
        put(beside, WHOLE[:place] + bytes([WHOLE[place] ^ 0x41]) + WHOLE[place + 1 :], 60)
        assert beside.load(SOURCE) is None

"""Indexes of files on disk: what is kept comes back exactly, and what is stale or damaged is made anew."""

from __future__ import annotations

import logging
import os
import random
import struct
from array import array
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from mist.core.flv import FlvSizes
from mist.core.packet import Packet
from mist.core.packet_log import PacketLog, packed_log
from mist.core.span_index import SpanIndex, create_index
from mist.errors import MistError, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.dtsh import Index, IndexTrack, parse_dtsh, serialize_dtsh
from mist.stream.index_file import IndexFile, KeptIndex, cache_settings, parse_index, serialize_index, trim
from mist.stream.index_reader import PacketsOnDisk
from mist.stream.layouts import Outline
from mist.stream.on_demand import pack_tracks
from tests.support.flv_files import AUDIO_TRACK, VIDEO_TRACK
from tests.support.shared_memory import shared_instance

LOG = logging.getLogger("test")
SIZE = 10_000
NOW_NS = 1_700_000_000 * 10**9
SOURCE = (SIZE, NOW_NS, 0)
TRACKS = pack_tracks([VIDEO_TRACK, AUDIO_TRACK])
SPANS = [(-7, 2_000_001, 13, 500, 9, True, 0), (2_000_001, 3_333_333, 4000, 1 << 40, 1, False, 0)]
NO_CACHE = ("", 0)


def unpacked(data: bytes) -> PacketLog:
    found = packed_log(data)
    found.unpack()
    return found


def log(packets: int = 50) -> PacketLog:
    result = PacketLog()
    numbers = random.Random(3)
    for number in range(packets):
        for track in (0, 1):
            time_us = number * 40_000 - 7 + track * numbers.randrange(-90_000, 90_000)
            result.write(Packet(track, time_us, numbers.randrange(-5, 90_000), bool(track), bytes(number * 7)))
    return result


def packed(spans: list[tuple[int, int, int, int, int, bool, int]]) -> bytes:
    return b"".join(struct.pack(">qqqQI?I", *span) for span in spans)


def kept(**changed: object) -> KeptIndex:
    if isinstance(changed.get("spans"), list):
        changed["spans"] = packed(changed["spans"])
    figures = [(50, 8575, -7, 1_959_993, 4000, 5000, 25_000, 1), (50, 8575, -90_000, 2_000_000, 4000, 5000, 0, 0)]
    ends = {1: array("q", [0, 7, 1 << 40])}
    outline = Outline([0, 1], 1000, array("q", [1000, 1007, 1 << 40]), b"moov")
    anchors = {257: array("q", [0, -7, 44100])}
    known = (SOURCE, 0, [TRACKS], True, figures, packed(SPANS), log().pack(), [(0, 0)], ends)
    whole = KeptIndex(*known, ordered=True, outline=outline, anchors=anchors)
    return replace(whole, **changed)


def content(**changed: object) -> bytes:
    return serialize_index(Index([IndexTrack(VIDEO_TRACK), IndexTrack(AUDIO_TRACK)]), kept(**changed))


def age(path: Path, seconds: float = 15.0) -> None:
    time_ns = NOW_NS + int(seconds * 1e9)
    os.utime(path, ns=(time_ns, time_ns))


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "media" / "film.flv"
    path.parent.mkdir()
    path.write_bytes(bytes(SIZE))
    return path


def test_everything_comes_back() -> None:
    again = parse_index(content(), SIZE)
    assert again is not None
    assert (again.source, again.main, again.versions, again.sizes_are_exact) == (SOURCE, 0, [TRACKS], True)
    assert (again.figures, again.spans) == (kept().figures, packed(SPANS))
    assert {track: list(ends) for track, ends in again.ends.items()} == {1: [0, 7, 1 << 40]}
    assert again.anchors == kept().anchors
    assert unpacked(again.packets).count == 100 and again.packets == log().pack()
    assert again.ordered and again.outline is not None
    assert (*again.outline[:2], list(again.outline.positions), again.outline.beginning) == (
        [0, 1], 1000, [1000, 1007, 1 << 40], b"moov",
    )  # fmt: skip
    without = parse_index(content(outline=None, ordered=False), SIZE)
    assert without is not None and without.outline is None and not without.ordered


def test_an_outline_of_another_film_is_refused() -> None:
    outline = kept().outline
    assert outline is not None
    with pytest.raises(RemoteProtocolError):
        parse_index(content(outline=outline._replace(positions=outline.positions[:-1])), SIZE)


def test_time_bases_come_back() -> None:
    again = parse_index(content(shifts=[(0, 0), (1, 8_000_000)]), SIZE)
    assert again is not None
    with shared_instance() as instance:
        index = create_index(f"mist.{instance}.film.spans", (1, 2, 3), 0)
        again.fill(index)
        assert index.shifts() == [(0, 0), (1, 8_000_000)]
        assert [index[number] for number in range(2)] == SPANS and index.pack() == packed(SPANS)
        assert (index.bases(0), index.bases(1)) == ((0, 8_000_000), (8_000_000, 0))


def long_log() -> PacketLog:
    """Return a log that is longer than what is read of an index to begin with."""
    result = PacketLog()
    for number in range(120_000):
        result.write(Packet(0, number * 40_000, 0, False, b"x"))
    return result


def test_the_log_of_a_long_file_is_read_when_it_is_wanted(film: Path) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    packets = long_log().pack()
    file.save(content(packets=packets))
    age(file.beside, 99)
    found = file.load(SOURCE)
    assert found is not None and isinstance(found.packets, PacketsOnDisk)
    assert found.spans == packed(SPANS)
    file.beside.unlink()  # another index may take its place meanwhile
    assert found.packets.read() == packets


def test_damage_in_the_log_of_a_long_file_is_noticed_when_it_is_read(
    film: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    packets = long_log().pack()
    data = content(packets=packets)
    at = data.index(packets) + len(packets) // 2
    for damaged in (data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :], data):
        file.beside.write_bytes(damaged)
        age(file.beside, 99)
        found = file.load(SOURCE)
        assert found is not None and isinstance(found.packets, PacketsOnDisk)
        if damaged is data:
            os.truncate(file.beside, at)
        with pytest.raises(RemoteProtocolError) as caught:
            found.packets.read()
        with caplog.at_level(logging.INFO):
            file.refuse(caught.value)
        assert f"the index {file.beside} cannot be used: {caught.value}" in caplog.text
        assert not file.beside.exists()


def test_what_stays_on_disk_is_given_back_unread(film: Path) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    before = len(os.listdir("/proc/self/fd"))
    file.save(content(packets=long_log().pack()))
    for seconds, fresh in ((99, True), (1, False)):
        age(file.beside, seconds)
        found = file.load(SOURCE)
        assert (found is not None) == fresh
        if found is not None:
            assert len(os.listdir("/proc/self/fd")) == before + 1
            found.close()
        assert len(os.listdir("/proc/self/fd")) == before


def test_damage_before_the_log_of_a_long_file_is_noticed_at_once(film: Path) -> None:
    data = content(packets=long_log().pack())
    own = data.index(b"\x00\x04mist")
    log_at, spans_at = data.index(b"\x00\x07packets\x02", own), data.rindex(b"\x00\x05spans\x02")
    file = IndexFile(str(film), NO_CACHE, LOG)
    for at in (*range(8, log_at + 14, 11), *range(spans_at, len(data) - 8, 3)):
        file.beside.write_bytes(data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :])
        age(file.beside, 99)
        found = file.load(SOURCE)
        assert found is None or at < own  # the layout of others has no checksum
        if found is not None:
            found.close()


def test_others_read_it_as_their_own() -> None:
    index = parse_dtsh(content())
    assert [track.info.codec for track in index.tracks] == [VIDEO_TRACK.codec, AUDIO_TRACK.codec]


def test_a_log_comes_back_in_the_same_order() -> None:
    with shared_instance() as instance:
        index = create_index(f"mist.{instance}.film.spans", (1, 2, 3), 0)
        for span in SPANS:
            index.add(*span)
        assert [index[number] for number in range(2)] == SPANS

        def laid_out(packets: PacketLog, index: SpanIndex) -> array[int]:
            sizes = FlvSizes([VIDEO_TRACK, AUDIO_TRACK])
            laying = packets.lay_out(sizes, lambda: sizes.total_bytes, [0, 1], index)
            while laying.step(7):
                pass
            return laying.ends

        kept_log = packed_log(log().pack())
        assert not log().ordered
        assert laid_out(log(), index) == laid_out(unpacked(log().pack()), index) == laid_out(kept_log, index)


@pytest.mark.parametrize("size", range(1, 60, 7))
def test_a_cut_log_is_refused(size: int) -> None:
    packed = log(3).pack()
    for cut in range(1, 4):
        try:
            assert unpacked(packed[:cut]).count == 0
        except TruncatedError:
            continue
    with pytest.raises(RemoteProtocolError):
        unpacked(b"\x40\x00\x00\x00\x00" + packed[:size])  # loses something, and that nothing
    with pytest.raises(RemoteProtocolError):
        unpacked(b"\x00" + b"\xff" * 11)


def test_every_damaged_byte_is_noticed() -> None:
    data = content()
    begin = data.index(b"\x00\x04mist")
    for at in range(begin + 6, len(data) - 8, 5):
        damaged = data[:at] + bytes([data[at] ^ 0x41]) + data[at + 1 :]
        with pytest.raises(MistError):
            assert parse_index(damaged, SIZE) is None
            raise MistError("a member has another name now, so that it is not ours")


@pytest.mark.parametrize(
    "changed",
    [
        {"main": 2},
        {"versions": []},
        {"versions": ["nonsense"]},
        {"versions": ['[{"colour":1}]']},
        {"figures": []},
        {"figures": [(1, 2), (3, 4)]},
        {"spans": []},
        {"ends": {0: array("q", [0, 1])}},
        {"anchors": {257: array("q", [0, 1])}},
        {"spans": [(0, 1, SIZE, 1, 1, True, 0)]},
        {"spans": [(0, 1, -1, 1, 1, True, 0)]},
        {"spans": [(5, 1, 0, 1, 1, True, 0)]},
        {"spans": [(0, 1, 0, 1, 1, True, 1)]},
        {"spans": [(0, 1, 0, 1, 1, True, 0), (3, 4, 0, 1, 1, True, 0)]},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_what_does_not_fit_is_refused(changed: dict[str, object]) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_index(content(**changed), SIZE)


def test_another_version_is_refused() -> None:
    with pytest.raises(UnsupportedError):
        parse_index(content().replace(b"version\x01" + bytes(7) + b"\x04", b"version\x01" + bytes(7) + b"\x03"), SIZE)


def test_it_is_kept_beside_the_file(film: Path) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    assert file.load(SOURCE) is None
    assert file.save(content())
    assert [path.name for path in film.parent.iterdir()] in (
        ["film.flv", "film.flv.dtsh"],
        ["film.flv.dtsh", "film.flv"],
    )
    assert file.beside.stat().st_mode & 0o777 == 0o644
    found = IndexFile(str(film), NO_CACHE, LOG).load(SOURCE)
    assert found is not None and found.spans == packed(SPANS)


@pytest.mark.parametrize(
    ("seconds", "source", "fresh"),
    [
        (15.0, SOURCE, True),
        (14.9, SOURCE, False),
        (99.0, (SIZE + 1, NOW_NS, 0), False),
        (99.0, (SIZE, NOW_NS - 1, 0), False),
        (99.0, (SIZE, NOW_NS, 5), False),
    ],
)
def test_a_stale_one_is_deleted(film: Path, seconds: float, source: tuple[int, int, int], fresh: bool) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    file.save(content())
    age(file.beside, seconds)
    assert (file.load(source) is not None) == fresh
    assert file.beside.exists() == fresh


def _flip(data: bytes) -> bytes:
    return data[:-40] + bytes([data[-40] ^ 1]) + data[-39:]


@pytest.mark.parametrize("damage", [lambda data: b"", lambda data: b"junk" * 9, lambda data: data[:-9], _flip])
def test_a_damaged_one_is_replaced_and_the_log_says_why(
    film: Path, damage: Callable[[bytes], bytes], caplog: pytest.LogCaptureFixture
) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    file.beside.write_bytes(damage(content()))
    age(file.beside, 99)
    with caplog.at_level(logging.INFO):
        assert file.load(SOURCE) is None
    assert "cannot be used: " in caplog.text and str(file.beside) in caplog.text
    assert file.save(content())
    assert file.load(SOURCE) is not None


def test_one_of_another_program_stays(film: Path, tmp_path: Path) -> None:
    foreign = serialize_dtsh(Index([IndexTrack(VIDEO_TRACK)]))
    for cache, saved in ((NO_CACHE, False), ((str(tmp_path / "cache"), 1 << 20), True)):
        file = IndexFile(str(film), cache, LOG)
        file.beside.write_bytes(foreign)
        assert file.load(SOURCE) is None
        assert file.save(content()) == saved
        assert file.beside.read_bytes() == foreign
        assert (file.load(SOURCE) is not None) == saved


def test_a_folder_of_that_name_does_no_harm(film: Path) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    file.beside.mkdir()
    assert file.load(SOURCE) is None
    assert not file.save(content())


def test_the_cache_is_for_folders_that_cannot_be_written(tmp_path: Path) -> None:
    cache = (str(tmp_path / "deep" / "cache"), 1 << 20)
    path = "/proc/self/film.flv"  # nobody can make a file there
    file = IndexFile(path, cache, LOG)
    assert file.save(content())
    assert file.written == file.cached and file.load(SOURCE) is not None
    assert not IndexFile(path, NO_CACHE, LOG).save(content())
    assert not IndexFile(path, (cache[0], 100), LOG).save(content())


def test_the_least_recently_used_leaves_the_cache(tmp_path: Path) -> None:
    paths = [tmp_path / (f"{number:040x}.dtsh") for number in range(4)]
    for place, path in enumerate(paths):
        path.write_bytes(bytes(100))
        age(path, place)
    other = tmp_path / "other.txt"
    other.write_bytes(bytes(1000))
    age(paths[0], 50)
    trim(tmp_path, 250)
    assert [path.exists() for path in paths] == [True, False, False, True]
    assert other.exists()


def test_a_kill_while_it_is_written_leaves_nothing(film: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    monkeypatch.setattr(os, "fsync", lambda fd: seen.append(sorted(path.name for path in film.parent.iterdir())))
    assert IndexFile(str(film), NO_CACHE, LOG).save(content())
    assert seen == [[film.name]]
    assert sorted(path.name for path in film.parent.iterdir()) == [film.name, film.name + ".dtsh"]


def test_a_new_file_is_confirmed_later(film: Path) -> None:
    file = IndexFile(str(film), NO_CACHE, LOG)
    file.save(content())
    age(file.beside, 1)
    file.confirm()
    assert file.load(SOURCE) is not None


def test_settings() -> None:
    assert cache_settings({}) == ("", 1 << 30)
    assert cache_settings({"streamcache": {"path": "/x", "size_bytes": 5}}) == ("/x", 5)

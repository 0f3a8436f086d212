"""The records of DTSC's index, by hand in both directions; and the index that is built while packets pass."""

from __future__ import annotations

from array import array
from collections.abc import Callable
from typing import Any

import pytest

from mist.core import dtsc_index as index
from mist.core.demuxer import demux
from mist.core.dtsc import DtscMuxer
from mist.core.dtsc_index import IndexBuilder
from mist.core.packet import Packet
from mist.errors import LocalProtocolError, RemoteProtocolError
from mist.formats.dtsc import DtscDemuxer
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo

Parse = Callable[[bytes], Any]
Serialize = Callable[..., bytes]

CASES: dict[str, tuple[str, Parse, Serialize, tuple[list[int], ...]]] = {
    "fragments": (
        "000007d0 01 00000001 00001000  00000000 ff 00000003 ffffffff",
        index.parse_fragments,
        index.serialize_fragments,
        ([2000, 0], [1, 255], [0, 2], [4096, 0xFFFFFFFF]),
    ),
    "keys": (
        "0000000100000002 0003e8 00000007 0019 0000000000001388",
        index.parse_keys,
        index.serialize_keys,
        ([(1 << 32) + 2], [1000], [7], [25], [5000]),
    ),
    "parts": (
        "000400 000028 ffffd8  ffffff ffffff 7fffff",
        index.parse_parts,
        index.serialize_parts,
        ([1024, 0xFFFFFF], [40, 0xFFFFFF], [-40, 0x7FFFFF]),
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_golden(name: str) -> None:
    text, parse, serialize, columns = CASES[name]
    data = bytes.fromhex(text)
    found = parse(data)
    assert tuple(list(column) for column in found) == columns
    assert serialize(*found) == data
    for size in range(1, len(data)):
        if size % (len(data) // len(columns[0])):
            with pytest.raises(RemoteProtocolError):
                parse(data[:size])
    assert serialize(*parse(b"")) == b""


def test_key_sizes() -> None:
    assert list(index.parse_key_sizes(bytes.fromhex("00000001 fffffffe"))) == [1, 0xFFFFFFFE]
    assert index.serialize_key_sizes(array("I", [1, 2])) == bytes.fromhex("00000001 00000002")
    with pytest.raises(RemoteProtocolError):
        index.parse_key_sizes(b"abc")


def test_what_does_not_fit_is_cut() -> None:
    huge = array("I", [1 << 31])
    assert index.serialize_parts(huge, huge, array("i", [1 << 30])) == bytes.fromhex("ffffff ffffff 7fffff")
    assert index.serialize_parts(huge, huge, array("i", [-(1 << 30)]))[6:] == bytes.fromhex("800000")
    assert index.serialize_fragments(huge, huge, huge, huge)[4] == 255


def test_columns_must_be_equally_long() -> None:
    with pytest.raises(LocalProtocolError):
        index.serialize_parts(array("I", [1]), array("I", []), array("i", [1]))


def test_a_million_parts_take_no_time() -> None:
    parts = index.parse_parts(bytes(9_000_000))
    assert len(parts[0]) == 1_000_000
    assert index.serialize_parts(*parts) == bytes(9_000_000)


TRACKS = [
    TrackInfo(VIDEO, H264, track_id=1, width=64, height=64, frame_rate_mhz=25000),
    TrackInfo(AUDIO, AAC, track_id=2, sample_rate_hz=48000, channels=2),
]


def _built(packets: list[Packet]) -> tuple[IndexBuilder, bytes, int]:
    muxer = DtscMuxer(TRACKS)
    head = muxer.header()
    for one in packets:
        muxer.write(one)
    data = head + muxer.take_output()
    demuxer = DtscDemuxer()
    builder = IndexBuilder(demuxer)
    demuxer.attach(builder)
    for at in range(0, len(data), 100):
        demuxer.feed(data[at : at + 100])
    return builder, data, len(head)


def test_built_index_of_a_picture() -> None:
    """Keys of a second; a fragment is at least 1.9 s, so it has two."""
    packets = [Packet(0, n * 40_000, 40_000 if n % 2 else 0, n % 25 == 0, bytes(100 + n)) for n in range(110)]
    builder, data, head = _built(packets)
    fragments, keys, sizes, parts = builder.tracks[0].records()
    assert [list(c) for c in index.parse_fragments(fragments)] == [
        [2000, 2000, 0], [2, 2, 1], [0, 2, 4],
        [sum(100 + n for n in range(50)), sum(100 + n for n in range(50, 100)), sum(100 + n for n in range(100, 110))],
    ]  # fmt: skip
    positions, durations, numbers, counts, times = index.parse_keys(keys)
    assert list(durations) == [1000] * 4 + [0]
    assert (list(numbers), list(counts)) == ([0, 1, 2, 3, 4], [25, 25, 25, 25, 10])
    assert list(times) == [0, 1000, 2000, 3000, 4000]
    assert positions[0] == head
    for position in positions:
        assert data[position : position + 4] == b"DTP2"
        assert b"keyframe" in data[position : position + 60]
    payloads, lengths, offsets = index.parse_parts(parts)
    assert list(payloads) == [100 + n for n in range(110)]
    assert set(lengths) == {40}
    assert list(offsets) == [40 if n % 2 else 0 for n in range(110)]
    own = [35 + len(p.payload) + 15 + (17 if p.offset_us else 0) + (19 if p.keyframe else 0) for p in packets]
    assert list(index.parse_key_sizes(sizes)) == [sum(own[at : at + 25]) for at in range(0, 110, 25)]
    made = builder.tracks[0]
    assert (made.first_ms, made.last_ms, made.part_count) == (0, 4360, 110)
    assert made.bytes_per_second == sum(100 + n for n in range(100)) // 4
    assert made.max_bytes_per_second == sum(100 + n for n in range(50, 100)) // 2


def test_built_index_of_sound_has_a_key_every_two_seconds() -> None:
    packets = [Packet(1, n * 20_000, 0, True, b"abcd") for n in range(300)]
    builder, _, _ = _built(packets)
    _, keys, _, parts = builder.tracks[1].records()
    assert list(index.parse_keys(keys)[4]) == [0, 2060, 4120]
    assert len(parts) == 300 * index.PART_BYTES
    assert builder.tracks[0].part_count == 0


def test_lengths_of_packets_are_their_distances() -> None:
    packets = [Packet(0, us, 0, us == 0, b"a") for us in (0, 40_000, 100_000, 110_000)]
    builder, _, _ = _built(packets)
    assert list(index.parse_parts(builder.tracks[0].records()[3])[1]) == [40, 60, 10, 10]


def test_demuxing_a_whole_file_into_a_builder() -> None:
    _, data, _ = _built([Packet(0, 0, 0, True, b"a")])
    assert len(demux(DtscDemuxer(), data)) == 1

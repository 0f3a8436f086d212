"""RTMP chunk streams: reader, writer, the play muxer."""

from __future__ import annotations

import random
import struct

import pytest

from mist.core.packet import Packet
from mist.core.rtmp_chunks import (
    MAX_CHUNK_STREAMS,
    ChunkReader,
    ChunkWriter,
    Message,
    RtmpPlayMuxer,
    RtmpPublishMuxer,
)
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, UnsupportedError
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo

Seen = tuple[int, int, int, int, bytes]
WRAP = 1 << 32


def seen(messages: list[Message]) -> list[Seen]:
    return [(m.chunk_stream, m.type_id, m.message_stream, m.time_ms, m.payload) for m in messages]


def basic(form: int, number: int) -> bytes:
    if number < 64:
        return bytes([form << 6 | number])
    if number < 320:
        return bytes([form << 6, number - 64])
    return bytes([form << 6 | 1]) + struct.pack("<H", number - 64)


def chunk(
    form: int, number: int, time: int, payload: bytes, *, length: int = -1, kind: int = 8, stream: int = 1
) -> bytes:
    """Return one chunk with any header; time is the field of types 0 to 2."""
    length = len(payload) if length < 0 else length
    field = min(time, 0xFFFFFF)
    head = basic(form, number)
    if form < 3:
        head += field.to_bytes(3, "big")
    if form < 2:
        head += length.to_bytes(3, "big") + bytes([kind])
    if form == 0:
        head += stream.to_bytes(4, "little")
    if form < 3 and time >= 0xFFFFFF:
        head += time.to_bytes(4, "big")
    return head + payload


def test_golden_headers_of_all_types() -> None:
    reader = ChunkReader()
    data = (
        bytes.fromhex("04 0003e8 000002 08 01000000 6162")  # type 0 at 1000
        + bytes.fromhex("44 000014 000003 09 636465")  # type 1: 20 later, other length and type
        + bytes.fromhex("84 00000a 666768")  # type 2: 10 later
        + bytes.fromhex("c4 696a6b")  # type 3: 10 later again
    )
    assert seen(reader.feed(data)) == [
        (4, 8, 1, 1000, b"ab"),
        (4, 9, 1, 1020, b"cde"),
        (4, 9, 1, 1030, b"fgh"),
        (4, 9, 1, 1040, b"ijk"),
    ]


def test_a_type_3_chunk_after_type_0_repeats_its_time_as_a_difference() -> None:
    """RTMP 1.0 section 5.3.1.2.4."""
    assert [m.time_ms for m in ChunkReader().feed(chunk(0, 4, 40, b"a") + basic(3, 4) + b"b")] == [40, 80]


@pytest.mark.parametrize("number", [2, 63, 64, 319, 320, 65599])
def test_chunk_stream_ids(number: int) -> None:
    writer = ChunkWriter(4)
    writer.write(number, 8, 1, 7, b"0123456789")
    data = writer.take_output()
    assert data.startswith(basic(0, number)) and seen(_reader(4).feed(data)) == [(number, 8, 1, 7, b"0123456789")]


def _reader(chunk_size: int) -> ChunkReader:
    reader = ChunkReader()
    reader.feed(chunk(0, 2, 0, struct.pack(">I", chunk_size), kind=1, stream=0))
    return reader


def test_golden_written() -> None:
    writer = ChunkWriter()
    writer.write_chunk_size(3)
    writer.write(5, 18, 1, 0x1000000, b"abcdefg")
    assert writer.take_output().hex() == (
        "02 000000 000004 01 00000000 00000003"
        "05 ffffff 000007 12 01000000 01000000 616263"
        "c5 01000000 646566"
        "c5 01000000 67"
    ).replace(" ", "")
    for number in (1, 65600):
        with pytest.raises(LocalProtocolError):
            writer.write(number, 8, 1, 0, b"x")
    with pytest.raises(LocalProtocolError):
        writer.write(4, 8, 1, 0, bytes(1 << 24))
    with pytest.raises(LocalProtocolError):
        writer.write_chunk_size(0)


def _conversation() -> tuple[bytes, list[Seen]]:
    """Return interleaved chunk streams of all header types with extended times, and the messages in them."""
    expected: list[Seen] = []
    first, second = bytes(range(200)), bytes(range(100, 250))
    data = chunk(0, 4, 0xFFFFFE, first[:128], length=200)
    data += chunk(0, 300, 0x1000000, second[:128], length=150, kind=9)
    data += basic(3, 4) + first[128:]
    expected.append((4, 8, 1, 0xFFFFFE, first))
    data += basic(3, 300) + bytes.fromhex("01000000") + second[128:]
    expected.append((300, 9, 1, 0x1000000, second))
    data += chunk(0, 2, 0, struct.pack(">I", 1000), kind=1, stream=0)
    expected.append((2, 1, 0, 0, struct.pack(">I", 1000)))
    data += chunk(1, 4, 30, bytes(900)) + chunk(2, 300, 5, second)
    expected.append((4, 8, 1, 0x100001C, bytes(900)))
    expected.append((300, 9, 1, 0x1000005, second))
    data += basic(3, 300) + second
    expected.append((300, 9, 1, 0x100000A, second))
    return data, expected


def test_interleaved_chunk_streams() -> None:
    data, expected = _conversation()
    assert seen(ChunkReader().feed(data)) == expected


def test_every_split_and_every_hand_over() -> None:
    data, expected = _conversation()
    for cut in range(len(data) + 1):
        reader = ChunkReader()
        messages = reader.feed(data[:cut])
        other = ChunkReader()
        other.restore(reader.export_state())
        assert seen(messages + other.feed(data[cut:])) == expected
        assert seen(messages + reader.feed(data[cut:])) == expected
    reader = ChunkReader()
    assert seen([m for at in range(len(data)) for m in reader.feed(data[at : at + 1])]) == expected


@pytest.mark.parametrize("repeats", [True, False])
@pytest.mark.parametrize("tail", [b"\x01\x02", b"\x01\x00", b"0123456789", b"\x01\x00\x00"])
def test_extended_times_repeated_or_not(repeats: bool, tail: bytes) -> None:
    """librtmp leaves the extended time out of type 3 chunks, ffmpeg writes it; payload that begins alike is no trap."""
    time = 0x01000000
    again = time.to_bytes(4, "big") if repeats else b""
    body = bytes(128) + tail
    data = chunk(0, 6, time, body[:128], length=len(body), kind=9) + basic(3, 6) + again + tail
    data += chunk(0, 6, time + 5, b"next", kind=9)
    for size in (1, 2, 3, 5, len(data)):
        reader = ChunkReader()
        messages = [m for at in range(0, len(data), size) for m in reader.feed(data[at : at + size])]
        assert [(m.time_ms, m.payload) for m in messages] == [(time, body), (time + 5, b"next")]


def test_extended_differences() -> None:
    reader = ChunkReader()
    data = chunk(0, 4, 10, b"a") + chunk(1, 4, 0x1000000, b"b") + basic(3, 4) + b"\x01\x00\x00\x00" + b"c"
    assert [m.time_ms for m in reader.feed(data)] == [10, 0x100000A, 0x200000A]


def test_times_go_on_after_32_bits() -> None:
    reader = ChunkReader()
    times = [WRAP - 40, 0, 40, WRAP - 20, 100]
    data = b"".join(chunk(0, 4 + i % 2, time, b"x", kind=8 + i % 2) for i, time in enumerate(times))
    assert [m.time_ms for m in reader.feed(data)] == [WRAP - 40 - WRAP, 0, 40, -20, 100]
    reader = ChunkReader()
    times = [0x7FFFFFFF, 0xF0000000, 0, 40, 0xFFFFFFF0, 80]
    data = b"".join(chunk(0, 4, time, b"x") for time in times)
    assert [m.time_ms - 0x7FFFFFFF for m in reader.feed(data)] == [
        time - 0x7FFFFFFF for time in (0x7FFFFFFF, 0xF0000000, WRAP, WRAP + 40, 0xFFFFFFF0, WRAP + 80)
    ]


def test_commands_with_time_zero_do_not_move_the_clock() -> None:
    reader = ChunkReader()
    data = chunk(0, 4, 0x90000000, b"x") + chunk(0, 3, 0, b"c", kind=20) + chunk(0, 4, 0x90000028, b"x")
    assert [m.time_ms for m in reader.feed(data)][::2] == [0x90000000, 0x90000028]


def test_abort_and_interrupted_messages() -> None:
    reader = ChunkReader()
    data = chunk(0, 4, 0, bytes(128), length=200)
    data += chunk(0, 2, 0, struct.pack(">I", 4), kind=2, stream=0)
    data += chunk(1, 4, 0, b"whole")
    data += chunk(1, 4, 0, bytes(128), length=200) + chunk(0, 4, 9, b"other")
    assert [m.payload for m in reader.feed(data)][1:] == [b"whole", b"other"]
    assert reader.discarded == 2
    assert reader.feed(chunk(0, 2, 0, struct.pack(">I", 77), kind=2, stream=0))[0].type_id == 2


def test_a_chunk_stream_may_begin_with_type_1_and_not_with_2_or_3() -> None:
    assert seen(ChunkReader().feed(chunk(1, 2, 0, b"abcd", kind=3))) == [(2, 3, 0, 0, b"abcd")]
    for form in (2, 3):
        with pytest.raises(RemoteProtocolError):
            ChunkReader().feed(chunk(form, 4, 0, b"a"))


@pytest.mark.parametrize("size", [0, 0x80000000, 0xFFFFFFFF])
def test_bad_chunk_sizes(size: int) -> None:
    with pytest.raises(RemoteProtocolError):
        _reader(size)
    with pytest.raises(RemoteProtocolError):
        ChunkReader().feed(chunk(0, 2, 0, b"\0\1", kind=1))


def test_largest_chunk_size() -> None:
    reader = _reader(0x7FFFFFFF)
    assert reader.chunk_size == 0x7FFFFFFF
    payload = random.Random(1).randbytes(300_000)
    data = chunk(0, 6, 5, payload, kind=9)
    messages = [m for at in range(0, len(data), 1000) for m in reader.feed(data[at : at + 1000])]
    assert seen(messages) == [(6, 9, 1, 5, payload)]


def test_empty_messages_are_passed_over() -> None:
    assert ChunkReader().feed(chunk(0, 4, 5, b"") + basic(3, 4) * 1000) == []


def test_limits() -> None:
    with pytest.raises(LimitExceededError):
        ChunkReader(max_message_bytes=1000).feed(chunk(0, 4, 0, b"", length=1001))
    reader = ChunkReader()
    with pytest.raises(LimitExceededError):
        for number in range(2, MAX_CHUNK_STREAMS + 3):
            reader.feed(chunk(0, number, 0, b"x"))


def test_announced_lengths_cost_no_memory_and_received_ones_are_bounded() -> None:
    reader = ChunkReader(max_memory_bytes=4 << 20)
    reader.feed(chunk(0, 2, 0, struct.pack(">I", 1 << 20), kind=1))
    for number in range(4, 100):
        reader.feed(chunk(0, number, 0, b"x", length=0xFFFFFF) + bytes((1 << 20) - 1) if number == 4 else b"")
    assert reader.memory_bytes <= 1 << 20
    with pytest.raises(LimitExceededError):
        for number in range(5, 100):
            reader.feed(chunk(0, number, 0, bytes(1 << 20), length=0xFFFFFF))
    assert reader.memory_bytes <= 4 << 20


def test_memory_of_large_messages_is_given_back() -> None:
    reader = ChunkReader()
    reader.feed(chunk(0, 4, 0, bytes(128), length=3 << 20))
    for at in range(128, 3 << 20, 128):
        reader.feed(basic(3, 4) + bytes(min(128, (3 << 20) - at)))
    assert reader.memory_bytes == 0


@pytest.mark.parametrize("state", [b"", b"\x02" + bytes(40), bytes(5), b"\x01" + bytes(40)])
def test_damaged_state(state: bytes) -> None:
    with pytest.raises(LocalProtocolError):
        ChunkReader().restore(state + b"\xff")


# -- the play muxer

AVC = TrackInfo(VIDEO, H264, bytes.fromhex("0164001fffe1000467640001"), width=640, height=360)
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90", sample_rate_hz=48000, channels=2)


def test_golden_play() -> None:
    muxer = RtmpPlayMuxer([AVC, STEREO])
    muxer.write(Packet(0, 40_000, 80_000, True, b"\x00\x00\x00\x01\x65"))
    muxer.write(Packet(1, 41_000, 0, True, b"\x21"))
    assert muxer.take_output().hex() == (
        "06 000028 00000a 09 01000000 17 01 000050 000000016504 000029 000003 08 01000000 af 01 21"
    ).replace(" ", "")


def test_play_is_read_back() -> None:
    muxer = RtmpPlayMuxer([AVC, STEREO])
    reader = _reader(65536)
    header = reader.feed(muxer.header(1_000_000))
    assert [(m.type_id, m.time_ms) for m in header] == [(18, 0), (9, 1000), (8, 1000)]
    payload = random.Random(2).randbytes(200_000)
    muxer.write(Packet(0, (WRAP + 5) * 1000, 0, True, payload))
    muxer.write(Packet(0, 0x1000000 * 1000, 0, True, payload))
    messages = reader.feed(muxer.take_output())
    assert [m.payload[5:] for m in messages] == [payload, payload]


def test_play_muxer_limits() -> None:
    with pytest.raises(UnsupportedError):
        RtmpPlayMuxer([TrackInfo(VIDEO, "theora")])
    with pytest.raises(LocalProtocolError):
        RtmpPlayMuxer([AVC]).write(Packet(0, 0, 0, True, bytes(1 << 24)))


def test_equal_packets_make_equal_bytes() -> None:
    def output() -> bytes:
        muxer = RtmpPlayMuxer([AVC, STEREO])
        for number in range(10):
            muxer.write(Packet(number % 2, number * 20_000, 0, number == 0, bytes([number]) * 300))
        return muxer.take_output()

    assert output() == output()


def test_publish_muxer_begins_at_zero_once() -> None:
    """The first packet is at 0, also where what goes before it is asked for later; another header does not begin anew."""
    muxer = RtmpPublishMuxer([AVC, STEREO])
    for dts_us in (5_000_000, 5_040_000):
        muxer.write(Packet(0, dts_us, 0, dts_us == 5_000_000, b"picture"))
    first = ChunkReader().feed(
        b"\x02\x00\x00\x00\x00\x00\x04\x01\x00\x00\x00\x00\x00\x01\x00\x00" + muxer.take_output()
    )
    assert [one.time_ms for one in first if one.type_id == 9] == [0, 40]
    muxer.header(5_040_000)
    muxer.take_output()
    other = RtmpPublishMuxer([AVC, STEREO])
    other.restore(muxer.state())
    for one in (muxer, other):
        one.write(Packet(0, 5_080_000, 0, False, b"picture"))
    data = muxer.take_output()
    assert data == other.take_output()
    assert [one.time_ms for one in ChunkReader().feed(data) if one.type_id == 9] == [80]

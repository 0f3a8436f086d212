"""AV1: OBUs, sequence headers, records, codec strings."""

from __future__ import annotations

import pytest

from mist.core.bits import BitWriter
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError
from mist.formats import av1
from tests.support.codec_samples import golden, names

DELIMITER, PADDING = b"\x12\x00", b"\x7a\x02\x00\x80"
KEY_FRAME, INTER_FRAME, EXISTING = b"\x32\x02\x10\x00", b"\x32\x02\x30\x00", b"\x1a\x01\x80"


def timed_header() -> bytes:
    """A sequence header with timing, decoder model, two operating points and presentation delay."""
    bits = BitWriter()
    bits.u(0b000_0_0, 5)  # profile 0, moving, not reduced
    bits.u(1, 1)  # timing_info_present
    bits.u(1001, 32)
    bits.u(60000, 32)
    bits.u(1, 1)  # equal_picture_interval
    bits.ue(1)  # two ticks a picture
    bits.u(1, 1)  # decoder model
    bits.u(9, 5)
    bits.u(1001, 32)
    bits.u(0, 10)
    bits.u(1, 1)  # initial_display_delay_present
    bits.u(1, 5)  # two operating points
    for level in (13, 5):
        bits.u(0, 12)
        bits.u(level, 5)
        if level > 7:
            bits.u(1, 1)
        bits.u(1, 1)
        bits.u(0, 21)
        bits.u(1, 1)
        bits.u(9, 4)
    bits.u(10, 4)
    bits.u(9, 4)
    bits.u(1919, 11)
    bits.u(799, 10)
    bits.u(0, 1)
    bits.u(0, 3)
    bits.u(0b0000, 4)
    bits.u(0, 1)  # no order hint
    bits.u(1, 1)  # screen content selected
    bits.u(1, 1)
    bits.u(0, 3)
    bits.u(0b1, 1)  # high bit depth
    bits.u(0, 2)
    bits.u(1, 1)  # full range
    bits.u(2, 2)
    bits.u(0, 1)
    bits.u(1, 1)  # film grain
    bits.u(1, 1)
    payload = bits.getvalue()
    return b"\x0a" + av1.leb128(len(payload)) + payload


def test_a_header_with_everything() -> None:
    obu = timed_header()
    header = av1.parse_sequence_header(obu)
    assert (header.width, header.height, header.frame_rate_mhz) == (1920, 800, 29970)
    assert (header.level, header.tier, header.initial_presentation_delay, header.film_grain) == (13, 1, 10, True)
    assert (header.colour.bit_depth, header.colour.full_range, header.colour.chroma_sample_position) == (10, True, 2)
    record = av1.build_av1c(obu)
    assert record[:4] == bytes((0x81, 13, 0xC0 | 0x0C | 2, 0x19))
    assert av1.codec_string(av1.parse_av1c(record)) == "av01.0.13H.10.0.112.01.01.01.1"
    for size in range(len(obu)):
        with pytest.raises(RemoteProtocolError):
            av1.parse_sequence_header(obu[:size])


@pytest.mark.parametrize("name", names("av1"))
def test_records(name: str) -> None:
    vector = golden("av1", name)
    obu = av1.find_sequence_header(vector.payload)
    assert obu is not None
    record = av1.build_av1c(obu)
    assert record[:3] == vector.init_data[:3]
    parsed = av1.parse_av1c(record)
    assert (parsed.obus, av1.codec_string(parsed)) == (obu, vector.expected["codec_string"])
    assert av1.updated_av1c(record, vector.payload) is None
    assert av1.updated_av1c(record[:4], vector.payload) == record


def test_leb128() -> None:
    for value in (0, 1, 127, 128, 16384, (1 << 32) - 1):
        coded = av1.leb128(value)
        assert av1.read_leb128(coded, 0) == (value, len(coded))
        with pytest.raises(TruncatedError):
            av1.read_leb128(coded[:-1], 0)
    assert av1.read_leb128(b"\x85\x80\x00", 0) == (5, 3)
    for broken in (b"\x80" * 9, b"\xff\xff\xff\xff\x7f"):
        with pytest.raises(RemoteProtocolError):
            av1.read_leb128(broken, 0)


def test_obus_and_layers() -> None:
    data = DELIMITER + b"\x36\x28\x01\x10" + b"\x30\x10"
    obus = list(av1.iterate_obus(data))
    assert [(obu.type, obu.begin, obu.payload, obu.end, obu.has_size) for obu in obus] == [
        (2, 0, 2, 2, True),
        (6, 2, 5, 6, True),
        (6, 6, 7, 8, False),
    ]
    assert (obus[1].temporal_id, obus[1].spatial_id) == (1, 1)
    assert (obus[0].temporal_id, obus[0].spatial_id) == (0, 0)


def test_strip_temporal_delimiters() -> None:
    stored = timed_header() + KEY_FRAME
    assert av1.strip_temporal_delimiters(stored) is stored
    assert av1.strip_temporal_delimiters(DELIMITER + stored + PADDING) == stored
    assert av1.strip_temporal_delimiters(DELIMITER + b"\x30\x10\x00") == KEY_FRAME
    assert av1.strip_temporal_delimiters(b"\x34\x28\x10\x00") == b"\x36\x28\x02\x10\x00"
    assert av1.strip_temporal_delimiters(b"") == b""


@pytest.mark.parametrize(
    ("payload", "key"),
    [
        (KEY_FRAME, True),
        (INTER_FRAME, False),
        (EXISTING, False),
        (b"\x32\x02\x00\x00", False),  # a key frame that is not shown
        (DELIMITER + KEY_FRAME, True),
        (b"\x32\x00", False),
        (b"\x32", False),
        (b"", False),
        (b"\xff\xff", False),
    ],
)
def test_keyframes(payload: bytes, key: bool) -> None:
    assert av1.is_keyframe(payload) is key


def test_wrong_data() -> None:
    for record in (b"", b"\x81\0\0", b"\x01\0\0\0"):
        with pytest.raises(RemoteProtocolError):
            av1.parse_av1c(record)
    for obu in (b"", b"\x12\0", b"\x0a\x01\xff"):
        with pytest.raises(RemoteProtocolError):
            av1.parse_sequence_header(obu)
    with pytest.raises(TruncatedError):
        list(av1.iterate_obus(b"\x32\x05\x00"))
    with pytest.raises(LimitExceededError):
        list(av1.iterate_obus(DELIMITER * (av1.MAX_OBUS + 1)))
    assert av1.configured_sequence_header(b"\x81\0\x0c\0") is None
    assert av1.codec_string(av1.parse_av1c(b"\x81\x05\x0c\0")) == "av01.0.05M.08"
    assert av1.codec_string(av1.parse_av1c(b"\x81\x05\x0c\0\xff")) == "av01.0.05M.08"

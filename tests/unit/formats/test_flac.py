"""FLAC stream information and frame headers."""

from __future__ import annotations

import pytest

from mist.errors import RemoteProtocolError
from mist.formats import flac
from tests.support.codec_samples import golden, names

# The first two examples of RFC 9639 appendix D.
EXAMPLE_INFO = bytes.fromhex("1000100000000f00000f0ac442f0000000013e84b41807dc690307589a3dad1a2e0f")
EXAMPLE_FRAME = bytes.fromhex("fff869180000bf")


def test_examples_of_the_specification() -> None:
    info = flac.parse_stream_info(EXAMPLE_INFO)
    assert (info.min_block_samples, info.max_block_samples, info.min_frame_bytes, info.max_frame_bytes) == (
        4096,
        4096,
        15,
        15,
    )
    assert (info.sample_rate_hz, info.channels, info.sample_bits, info.total_samples) == (44100, 2, 16, 1)
    assert flac.build_stream_info(info) == EXAMPLE_INFO
    assert flac.parse_frame_header(EXAMPLE_FRAME) == flac.FrameHeader(False, 1, 44100, 2, 16, 0, 7)


@pytest.mark.parametrize("name", names("flac"))
def test_golden(name: str) -> None:
    vector = golden("flac", name)
    info = flac.parse_stream_info(vector.init_data)
    assert flac.build_stream_info(info) == vector.init_data
    assert flac.build_dfla(vector.init_data) == b"\0\0\0\0\x80\0\0\x22" + vector.init_data
    header = flac.parse_frame_header(vector.payload)
    assert (header.number, header.channels, header.block_samples) == (0, info.channels, info.max_block_samples)
    for size in range(header.header_bytes):
        with pytest.raises(RemoteProtocolError):
            flac.parse_frame_header(vector.payload[:size])


def with_checksum(header: bytes) -> bytes:
    return header + bytes((flac.crc8(header),))


@pytest.mark.parametrize(
    ("header", "block", "rate", "number"),
    [
        (b"\xff\xf9\x1a\x18\x00", 192, 48000, 0),
        (b"\xff\xf8\x5b\x18\x7f", 4608, 96000, 127),
        (b"\xff\xf8\xfa\x18\xc2\x80", 32768, 48000, 128),
        (b"\xff\xf8\x7c\x18\x00\x01\x00\x2c", 257, 44000, 0),
        (b"\xff\xf8\x8d\x18\x00\xac\x44", 256, 44100, 0),
        (b"\xff\xf8\x8e\x18\x00\x11\x3a", 256, 44100, 0),
        (b"\xff\xf9\x80\x18\xfe\xbf\xbf\xbf\xbf\xbf\xbf", 256, 0, (1 << 36) - 1),
    ],
)
def test_forms_of_the_header(header: bytes, block: int, rate: int, number: int) -> None:
    parsed = flac.parse_frame_header(with_checksum(header) + b"rest")
    assert (parsed.block_samples, parsed.sample_rate_hz, parsed.number) == (block, rate, number)
    assert parsed.header_bytes == len(header) + 1


@pytest.mark.parametrize(
    "header",
    [b"\xff\xfa\x1a\x18\x00", b"\xff\xf8\x0a\x18\x00", b"\xff\xf8\x1f\x18\x00", b"\xff\xf8\x1a\xb8\x00",
     b"\xff\xf8\x1a\x16\x00", b"\xff\xf8\x1a\x19\x00", b"\xff\xf8\x1a\x18\xff", b"\xff\xf8\x1a\x18\x80", b"\xff\xf8\x1a\x18\xc2\x00"],
)  # fmt: skip
def test_wrong_headers(header: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        flac.parse_frame_header(with_checksum(header) + bytes(8))


def test_wrong_stream_info() -> None:
    for wrong in (
        EXAMPLE_INFO[:33],
        bytes(34),
        b"\x00\x10\x00\x08" + EXAMPLE_INFO[4:],
        EXAMPLE_INFO[:12] + b"\0\0" + bytes(20),
    ):
        with pytest.raises(RemoteProtocolError):
            flac.parse_stream_info(wrong)
    with pytest.raises(RemoteProtocolError):
        flac.parse_frame_header(EXAMPLE_FRAME[:6] + b"\x00")

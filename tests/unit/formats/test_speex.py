"""Speex headers."""

from __future__ import annotations

import struct

import pytest

from mist.errors import RemoteProtocolError
from mist.formats import speex
from tests.support.codec_samples import golden, names


@pytest.mark.parametrize("name", names("speex"))
def test_golden(name: str) -> None:
    data = golden("speex", name).init_data
    found = speex.parse_header(data)
    assert (found.sample_rate_hz, found.channels, found.mode, found.packet_samples) == (16000, 1, 1, 320)
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            speex.parse_header(data[:size])


@pytest.mark.parametrize(("rate", "mode", "samples"), [(8000, 0, 160), (16000, 1, 320), (32000, 2, 640), (0, 1, 320)])
def test_own_headers(rate: int, mode: int, samples: int) -> None:
    found = speex.parse_header(speex.build_header(rate))
    assert (found.mode, found.packet_samples, found.frames_per_packet) == (mode, samples, 1)


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 0), (32, 79), (36, 0), (36, -1), (40, 3), (48, 0), (48, 3), (56, 0), (56, -320), (56, 1 << 30), (68, 65)],
)
def test_wrong_headers(field: int, value: int) -> None:
    data = bytearray(speex.build_header())
    struct.pack_into("<i", data, field, value)
    with pytest.raises(RemoteProtocolError):
        speex.parse_header(bytes(data))

"""Theora headers and key frames."""

from __future__ import annotations

import pytest

from mist.errors import RemoteProtocolError
from mist.formats import theora, xiph
from tests.support.codec_samples import golden, names


@pytest.mark.parametrize("name", names("theora"))
def test_golden(name: str) -> None:
    vector = golden("theora", name)
    identification, comments, setup = theora.parse_headers(vector.init_data)
    found = theora.parse_identification(identification)
    assert (found.version, found.width, found.height) == (0x030201, 70, 50)
    assert (found.rate_numerator, found.rate_denominator, found.frame_rate_mhz) == (30000, 1001, 29970)
    assert found.granule_shift == 6
    assert theora.build_init_data(identification, comments, setup) == vector.init_data
    assert theora.is_keyframe(vector.payload)
    for size in range(len(identification)):
        with pytest.raises(RemoteProtocolError):
            theora.parse_identification(identification[:size])


@pytest.mark.parametrize(
    ("payload", "key"), [(b"", False), (b"\x00", True), (b"\x3f", True), (b"\x40", False), (b"\x80", False)]
)
def test_keyframes(payload: bytes, key: bool) -> None:
    assert theora.is_keyframe(payload) == key


@pytest.mark.parametrize(("place", "value"), [(0, 0x81), (7, 2), (11, 0), (16, 255), (19, 255), (25, 0)])
def test_wrong_identification(place: int, value: int) -> None:
    data = bytearray(theora.parse_headers(golden("theora", "plain").init_data)[0])
    data[place] = value
    if place == 25:
        data[22:26] = bytes(4)
    with pytest.raises(RemoteProtocolError):
        theora.parse_identification(bytes(data))


def test_headers_that_are_others() -> None:
    with pytest.raises(RemoteProtocolError):
        theora.parse_headers(xiph.lace([theora.IDENTIFICATION, b"x", b"y"]))
    large = theora.COMMENTS + bytes(20_000)
    assert len(theora.build_init_data(b"a", large, b"c")) < 100

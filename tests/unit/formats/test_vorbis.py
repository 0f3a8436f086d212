"""Vorbis headers."""

from __future__ import annotations

import pytest

from mist.errors import RemoteProtocolError
from mist.formats import vorbis, xiph
from tests.support.codec_samples import golden, names


@pytest.mark.parametrize("name", names("vorbis"))
def test_golden(name: str) -> None:
    data = golden("vorbis", name).init_data
    identification, comments, setup = vorbis.parse_headers(data)
    found = vorbis.parse_identification(identification)
    assert (found.channels, found.sample_rate_hz) == (2, 44100)
    assert (found.short_block_samples, found.long_block_samples) == (256, 2048)
    assert vorbis.long_modes(setup, 2) == (False, True)
    assert vorbis.build_init_data(identification, comments, setup) == data
    assert vorbis.codec_string() == "vorbis"


@pytest.mark.parametrize("name", names("vorbis"))
def test_every_cut_of_the_headers(name: str) -> None:
    identification, _, setup = vorbis.parse_headers(golden("vorbis", name).init_data)
    for size in range(len(identification)):
        with pytest.raises(RemoteProtocolError):
            vorbis.parse_identification(identification[:size])
    for size in range(0, len(setup), 17):
        with pytest.raises(RemoteProtocolError):
            vorbis.long_modes(setup[:size], 2)


@pytest.mark.parametrize(("place", "value"), [(0, 3), (7, 1), (11, 0), (28, 0xB5), (28, 0x6E), (28, 0x57)])
def test_wrong_identification(place: int, value: int) -> None:
    data = bytearray(vorbis.parse_headers(golden("vorbis", "plain").init_data)[0])
    data[place] = value
    with pytest.raises(RemoteProtocolError):
        vorbis.parse_identification(bytes(data))


def test_comments_with_a_picture_are_left_out() -> None:
    identification, _, setup = vorbis.parse_headers(golden("vorbis", "plain").init_data)
    large = vorbis.COMMENTS + xiph.build_comments(comments={"METADATA_BLOCK_PICTURE": "A" * 20_000}) + b"\x01"
    found = vorbis.parse_headers(vorbis.build_init_data(identification, large, setup))
    assert len(found[1]) < 50 and (found[0], found[2]) == (identification, setup)


def test_headers_that_are_others() -> None:
    for packets in ([b"a", b"b", b"c"], [vorbis.IDENTIFICATION, vorbis.COMMENTS], [b"x", vorbis.COMMENTS, b"y"]):
        with pytest.raises(RemoteProtocolError):
            vorbis.parse_headers(xiph.lace(packets))

"""Headers of DTS core frames."""

from __future__ import annotations

import pytest

from mist.errors import RemoteProtocolError, TruncatedError
from mist.formats import codecs, dts
from mist.formats.tracks import AUDIO, DTS, TrackInfo
from tests.support.elementary import dts_frame


def test_header() -> None:
    expected = dts.CoreHeader(512, 512, 48000, 768_000, 2, 24)
    assert dts.parse_header(b"x" + dts_frame(), 1) == expected
    assert dts.parse_header(dts_frame(low_frequency=1)).channels == 3
    # A checksum of the header stands before the last fields.
    checked = bytearray(dts_frame())
    checked[4] |= 2
    assert dts.parse_header(bytes(checked)).sample_bits != 24


def test_broken_headers() -> None:
    frame = dts_frame()
    for size in range(dts.HEADER_BYTES):
        with pytest.raises(TruncatedError):
            dts.parse_header(frame[:size])
    for broken in (dts_frame(sync=0), dts_frame(size=95), dts_frame(low_frequency=3)):
        with pytest.raises(RemoteProtocolError):
            dts.parse_header(broken)


def test_codec_row() -> None:
    track = codecs.complete(TrackInfo(AUDIO, DTS), dts_frame())
    assert (track.sample_rate_hz, track.channels, track.sample_bits) == (48000, 2, 24)
    assert codecs.codec_string(track) == ""
    assert codecs.is_keyframe(track, b"")
    assert codecs.has_bframes(track) is False

"""Headers of MPEG video and JPEG, and the rows of both in the table of codecs."""

from __future__ import annotations

import pytest

from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError
from mist.formats import codecs, jpeg, mpeg2
from mist.formats.tracks import ID3, JPEG, JSON, KLV, META, MPEG2, SCTE35, SUBTITLE, VIDEO, TrackInfo
from tests.support.elementary import GROUP, mpeg_picture, mpeg_sequence


def test_sequence_header() -> None:
    header = mpeg2.parse_sequence(mpeg_sequence(4000, 2000, 7, low_delay=True) + GROUP + mpeg_picture(0, 1))
    assert header == mpeg2.SequenceHeader(4000, 2000, (60000, 1001), 400_000, True, True, True)
    assert header.frame_rate_mhz == 59940
    plain = mpeg2.parse_sequence(mpeg_sequence()[:12])
    assert plain == mpeg2.SequenceHeader(320, 176, (25, 1), 400_000)
    assert mpeg2.parse_sequence(mpeg_sequence(rate=15)).frame_rate_mhz == 0


def test_broken_sequences() -> None:
    for data in (b"", b"\0\0\1", mpeg_picture(0, 1), mpeg_picture(0, 1) + mpeg_sequence(), mpeg_sequence(0, 100)):
        with pytest.raises(RemoteProtocolError):
            mpeg2.parse_sequence(data)
    with pytest.raises(TruncatedError):
        mpeg2.parse_sequence(mpeg_sequence()[:8])


def test_keyframes() -> None:
    assert mpeg2.is_keyframe(mpeg_sequence() + GROUP + mpeg_picture(0, 1))
    assert not mpeg2.is_keyframe(GROUP + mpeg_picture(0, 1))
    assert not mpeg2.is_keyframe(mpeg_sequence() + mpeg_picture(0, 2))
    assert [mpeg2.picture_type(data) for data in (mpeg_picture(0, 3), mpeg_sequence(), b"", b"\0\0\1\0")] == [
        3,
        0,
        0,
        0,
    ]


def test_row_of_mpeg2() -> None:
    key = mpeg_sequence() + GROUP + mpeg_picture(0, 1)
    track = codecs.complete(TrackInfo(VIDEO, MPEG2), key)
    assert (track.width, track.height, track.frame_rate_mhz) == (320, 176, 25000)
    assert codecs.refreshed(track, key) is None
    assert codecs.refreshed(track, mpeg_picture(1, 2)) is None
    larger = codecs.refreshed(track, mpeg_sequence(640, 352) + mpeg_picture(0, 1))
    assert larger is not None
    assert larger.width == 640
    assert codecs.is_keyframe(track, key)
    assert not codecs.is_keyframe(track, mpeg_picture(1, 2))
    assert codecs.has_bframes(track) is None


def picture(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments)


FRAME = b"\xff\xc0\0\x11\x08\0\xb4\x01\x40\x03" + bytes(9)
APPLICATION = b"\xff\xe0\0\x10JFIF\0" + bytes(9)


def test_jpeg() -> None:
    assert jpeg.parse_frame_header(picture(APPLICATION, FRAME)) == jpeg.FrameHeader(320, 180, 3, 8)
    filled = picture(APPLICATION, b"\xff\xff\xff", FRAME[1:])
    assert jpeg.parse_frame_header(filled).width == 320
    track = codecs.complete(TrackInfo(VIDEO, JPEG), picture(FRAME))
    assert (track.width, track.height) == (320, 180)
    assert codecs.is_keyframe(track, b"")
    assert codecs.has_bframes(track) is False


def test_broken_jpeg() -> None:
    whole = picture(APPLICATION, FRAME)
    for size in range(len(whole) - 9):
        with pytest.raises(RemoteProtocolError):
            jpeg.parse_frame_header(whole[:size])
    for data in (picture(b"\xff\xda\0\x02"), picture(b"abcdefgh"), picture(FRAME.replace(b"\x01\x40", b"\0\0"))):
        with pytest.raises(RemoteProtocolError):
            jpeg.parse_frame_header(data)
    with pytest.raises(LimitExceededError):
        jpeg.parse_frame_header(picture(*[b"\xff\xe1\0\x02"] * 300))


@pytest.mark.parametrize("codec", [SUBTITLE, JSON, ID3, SCTE35, KLV])
def test_rows_of_metadata(codec: str) -> None:
    track = TrackInfo(META, codec, b"set-up")
    assert codecs.complete(track, b"payload") == track
    assert codecs.is_keyframe(track, b"payload")
    assert codecs.codec_string(track) == ""
    assert codecs.refreshed(track, b"payload") is None

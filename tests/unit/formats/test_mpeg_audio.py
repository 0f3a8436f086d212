"""Headers of MPEG audio frames."""

from __future__ import annotations

import pytest

from mist.errors import RemoteProtocolError, TruncatedError
from mist.formats import mpeg_audio


@pytest.mark.parametrize(
    ("header", "expected"),
    [
        ("fffb9064", mpeg_audio.FrameHeader(1, 3, 128000, 44100, 2, 1152, 417, False)),
        ("fffb9264", mpeg_audio.FrameHeader(1, 3, 128000, 44100, 2, 1152, 418, False)),
        ("fff340c4", mpeg_audio.FrameHeader(2, 3, 32000, 22050, 1, 576, 104, False)),
        ("ffe318c4", mpeg_audio.FrameHeader(25, 3, 8000, 8000, 1, 576, 72, False)),
        ("fffdc404", mpeg_audio.FrameHeader(1, 2, 256000, 48000, 2, 1152, 768, False)),
        ("fffec400", mpeg_audio.FrameHeader(1, 1, 384000, 48000, 2, 384, 384, True)),
        ("fffb0064", mpeg_audio.FrameHeader(1, 3, 0, 44100, 2, 1152, 0, False)),
    ],
)
def test_headers(header: str, expected: mpeg_audio.FrameHeader) -> None:
    assert mpeg_audio.parse_header(bytes.fromhex("00" + header), 1) == expected


@pytest.mark.parametrize("header", ["fffbf064", "fffb9c64", "ffeb9064", "fff99064", "00000000", "49443304"])
def test_no_headers(header: str) -> None:
    with pytest.raises(RemoteProtocolError):
        mpeg_audio.parse_header(bytes.fromhex(header))


def test_short_data_and_strings() -> None:
    for size in range(4):
        with pytest.raises(TruncatedError):
            mpeg_audio.parse_header(b"\xff\xfb\x90\x64"[:size])
    assert [mpeg_audio.codec_string(layer) for layer in (3, 2, 1)] == ["mp4a.40.34", "mp4a.40.33", "mp4a.40.32"]

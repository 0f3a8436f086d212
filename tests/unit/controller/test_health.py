"""The health object of a stream."""

from __future__ import annotations

from typing import Any, cast

from mist.core.packet import Packet
from mist.formats.tracks import AAC, AUDIO, H264, META, VIDEO, TrackInfo
from mist.stream.health import health, track_name
from mist.stream.state import TrackState
from tests.support.fake_control import LookingReader
from tests.support.fake_stream import FakeStream

PICTURE = TrackInfo(VIDEO, H264, b"\1", 1, width=320, height=240, frame_rate_mhz=25_000)
SOUND = TrackInfo(AUDIO, AAC, b"\x12\x10", 2, sample_rate_hz=44_100, channels=1)


def report(stream: FakeStream) -> dict[str, Any] | None:
    return health(cast(Any, LookingReader(stream)))


def filled(interval: int, frame_us: int = 40_000, tracks: tuple[TrackInfo, ...] = (PICTURE, SOUND)) -> FakeStream:
    """Return a stream of 200 pictures with a key each `interval`."""
    stream = FakeStream("a", tracks)
    for number in range(200):
        stream.write(Packet(0, number * frame_us, 0, number % interval == 0, b"x" * 500))
        if len(tracks) > 1:
            stream.write(Packet(1, number * frame_us, 0, True, b"y" * 50))
    return stream


def test_track_names() -> None:
    assert track_name(TrackState(1, PICTURE)) == "video_H264_320x240_25fps_1"
    assert track_name(TrackState(2, SOUND)) == "audio_AAC_1ch_44100hz_2"
    assert track_name(TrackState(2, SOUND.changed(language="fra"))) == "audio_AAC_1ch_44100hz_fra_2"
    assert track_name(TrackState(0, TrackInfo(META, "JSON"))) == "meta_JSON__0"
    assert track_name(TrackState(0, PICTURE.changed(frame_rate_mhz=29_970))) == "video_H264_320x240_29.97fps_0"


def test_healthy_stream() -> None:
    found = report(filled(25))
    assert found is not None
    assert "issues" not in found
    assert found["tracks"] == ["video_H264_320x240_25fps_0", "audio_AAC_1ch_44100hz_1"]
    video = found["video_H264_320x240_25fps_0"]
    assert video["keys"] == {
        "ms_min": 1000, "ms_max": 1000, "frame_ms_min": 40.0, "frame_ms_max": 40.0, "frames_min": 25, "frames_max": 25,
    }  # fmt: skip
    assert (video["width"], video["height"], video["fps"], video["kbits"]) == (320, 240, 25.0, 100)
    assert found["audio_AAC_1ch_44100hz_1"]["rate"] == 44_100
    assert found["buffer"] == 199 * 40


def test_problems_are_told() -> None:
    assert "only 2 frames" in (report(filled(2)) or {})["issues"]
    assert "frames of up to 600 ms" in (report(filled(25, 600_000)) or {})["issues"]
    assert (report(filled(25, tracks=(PICTURE,))) or {})["issues"] == "HLS no audio!"


def test_nothing_to_say() -> None:
    assert health(None) is None
    assert report(FakeStream("a")) is None

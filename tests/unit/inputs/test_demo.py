"""The built-in demo stream: its options, picture, sound and schedule."""

from __future__ import annotations

import asyncio
import itertools
import sys
from types import SimpleNamespace
from typing import Any

import pytest

from mist.core.packet import Packet
from mist.errors import MistError
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.inputs.demo import (
    FRAME_SAMPLES,
    INPUT,
    AudioEncoder,
    Demo,
    Picture,
    VideoEncoder,
    options,
    schedule,
)

np = pytest.importorskip("numpy")
av = pytest.importorskip("av")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        ("demo:", (640, 360, 25)),
        ("demo:?width=321&height=181&fps=50", (320, 180, 50)),
        ("demo:?width=99999&height=1&fps=0", (1920, 64, 1)),
        ("demo:?unknown=x", (640, 360, 25)),
    ],
)
def test_options(source: str, expected: tuple[int, int, int]) -> None:
    assert options(source) == expected


@pytest.mark.parametrize("source", ["demo:?width=wide", "demo:?fps=-1", "demo:?height=1.5"])
def test_bad_options(source: str) -> None:
    with pytest.raises(MistError, match="must be a number"):
        options(source)


@pytest.mark.parametrize(("width", "height"), [(640, 360), (64, 64), (64, 1080), (1920, 64)])
def test_pictures_of_any_size(width: int, height: int) -> None:
    picture = Picture(width, height)
    luma, blue, red = picture.draw("01:23:45.678", 0.5)
    assert luma.shape == (height, width) and blue.shape == red.shape == (height // 2, width // 2)
    assert {plane.dtype for plane in (luma, blue, red)} == {np.dtype("uint8")}
    assert luma.min() >= 16 and luma.max() <= 235


def test_the_clock_and_the_pendulum_move() -> None:
    picture = Picture(640, 360)
    first = picture.draw("00:00:00.000", 0.5)[0]
    assert (first != picture.draw("00:00:00.001", 0.5)[0]).any()
    assert (first != picture.draw("00:00:00.000", 0.6)[0]).any()
    assert (first == picture.draw("00:00:00.000", 0.5)[0]).all()


def test_the_mark_lights_up_with_the_beep() -> None:
    picture = Picture(640, 360)
    middle = slice(280, 360)
    assert picture.draw(":", 3.02)[0][60:140, middle].mean() > picture.draw(":", 3.5)[0][60:140, middle].mean() + 10
    audio = AudioEncoder()
    decoder = av.CodecContext.create("aac", "r")
    decoder.extradata = audio.context.extradata
    heard = []
    for number in range(130):
        for first_sample, data in audio.encode(number * FRAME_SAMPLES):
            for frame in decoder.decode(av.Packet(data)):
                loud = np.flatnonzero(np.abs(frame.to_ndarray()[0]) > 0.1)
                heard += [(first_sample + int(sample)) / 48000 for sample in loud]
    assert {int(second) for second in heard} == {0, 1, 2}
    assert all(second % 1 < 0.085 for second in heard)
    assert min(second % 1 for second in heard) < 0.02


def test_video_can_be_decoded() -> None:
    encoder, picture = VideoEncoder(320, 180, 25), Picture(320, 180)
    decoder = av.CodecContext.create("h264", "r")
    keys = []
    for number in range(60):
        planes = picture.draw("12:34:56.789", number / 25)
        [(data, keyframe)] = encoder.encode(planes, number)
        keys.append(keyframe)
        for frame in decoder.decode(av.Packet(data)):
            assert (frame.width, frame.height) == (320, 180)
    assert [number for number, key in enumerate(keys) if key] == [0, 50]


def test_the_schedule_is_in_time_order() -> None:
    events = list(itertools.islice(schedule(25), 200))
    times = [time_us for time_us, _, _ in events]
    assert times == sorted(times)
    assert [event for event in events if event[1]][25] == (1_000_000, True, 25)
    assert {time_us for time_us, video, number in events if not video and number == 46} == {
        46 * 1024 * 1_000_000 // 48000
    }


class FakePublisher:
    """Keeps tracks and packets."""

    def __init__(self, tracks: dict[int, TrackInfo] | None = None, last_us: int | None = None) -> None:
        self.tracks = tracks or {}
        self.written: list[Packet] = []
        self.table = SimpleNamespace(clocks=(0, 0))
        self._last_us = last_us

    def last_us(self) -> int | None:
        return self._last_us

    def add_track(self, info: TrackInfo) -> int:
        self.tracks[len(self.tracks)] = info
        return len(self.tracks) - 1

    def update_track(self, index: int, info: TrackInfo) -> None:
        self.tracks[index] = info

    def write(self, packet: Packet) -> None:
        self.written.append(packet)


def services(publisher: FakePublisher, source: str = "demo:?width=160&height=90") -> Any:
    record = SimpleNamespace(set_position=lambda media_us: None, add_bytes=lambda down, up: None)
    return SimpleNamespace(publisher=publisher, source=source, record=record)


def write_some(demo: Demo, count: int, offset_us: int) -> None:
    for media_us, is_video, number in itertools.islice(schedule(demo.rate), count):
        demo.write_video(number, offset_us + media_us) if is_video else demo.write_audio(number, offset_us)


def test_a_stream_of_two_tracks() -> None:
    publisher = FakePublisher()
    write_some(Demo(services(publisher)), 80, 0)
    assert {info.type for info in publisher.tracks.values()} == {VIDEO, AUDIO}
    video, audio = sorted(publisher.tracks.values(), key=lambda info: info.type, reverse=True)
    assert (video.codec, video.width, video.height, video.frame_rate_mhz) == ("H264", 160, 90, 25_000)
    assert video.init_data[0] == 1
    assert (audio.codec, audio.sample_rate_hz, audio.channels) == ("AAC", 48_000, 2)
    for index in publisher.tracks:
        times = [packet.dts_us for packet in publisher.written if packet.track == index]
        assert times == sorted(set(times)) and len(times) > 20


def test_a_restart_goes_on_after_what_was_written() -> None:
    first = FakePublisher()
    write_some(Demo(services(first)), 40, 0)
    last = max(packet.dts_us for packet in first.written)
    second = FakePublisher(dict(first.tracks), last_us=last)
    demo = Demo(services(second))
    assert demo.first_us() > last
    write_some(demo, 40, demo.first_us())
    assert len(second.tracks) == 2 and min(packet.dts_us for packet in second.written) > last


def test_without_pyav_the_cure_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "av", None)
    with pytest.raises(MistError, match="pip install av") as caught:
        asyncio.run(INPUT.run(services(FakePublisher())))
    assert caught.value.reason == "UNSUPPORTED"


def test_capability() -> None:
    document = INPUT.capability.document()
    assert document["source_match"] == ["demo:*"]

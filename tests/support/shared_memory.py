"""An instance of its own for tests that use shared memory, removed afterwards."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mist.core.packet import Packet
from mist.formats.tracks import AAC, AUDIO, H264, VIDEO, TrackInfo
from mist.stream.publisher import Limits, StreamPublisher, create_account, create_stream, remove_instance

VIDEO_TRACK = TrackInfo(VIDEO, H264, b"\x01\x64\x00\x1f", track_id=1, width=640, height=360)
AUDIO_TRACK = TrackInfo(AUDIO, AAC, b"\x11\x90", track_id=2, sample_rate_hz=48000, channels=2)
FRAME_US = 40_000
GOP_FRAMES = 50

_numbers = itertools.count()


@contextmanager
def shared_instance(total_bytes: int = 0) -> Iterator[str]:
    """Yield the name of an instance that nobody else has; fail if anything of it remains visible afterwards."""
    name = f"test-{os.getpid()}-{next(_numbers)}"
    create_account(name, total_bytes)
    try:
        yield name
    finally:
        remove_instance(name)
        left = [path.name for path in Path("/dev/shm").iterdir() if path.name.startswith(f"mist.{name}")]
        assert not left, left


def make_publisher(instance: str, bells: Path, limits: Limits | None = None, name: str = "live") -> StreamPublisher:
    """Make a stream without tracks."""
    limits = limits or Limits()
    create_stream(instance, name, limits)
    return StreamPublisher(instance, name, str(bells), limits)


def video_packet(track: int, number: int, size: int = 1000) -> Packet:
    """Return frame `number` of a 25 fps track with a keyframe every two seconds; its bytes tell its number."""
    payload = number.to_bytes(4, "big") * (size // 4)
    return Packet(track, number * FRAME_US, 0, number % GOP_FRAMES == 0, payload)


def write_frames(publisher: StreamPublisher, video: int, audio: int, numbers: range, size: int = 1000) -> None:
    """Write video frames, each with an audio packet of the same time after it."""
    for number in numbers:
        publisher.write(video_packet(video, number, size))
        publisher.write(Packet(audio, number * FRAME_US, 0, True, number.to_bytes(4, "big") * 20))

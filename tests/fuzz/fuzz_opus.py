"""OpusHead, dOps and packet durations."""

from __future__ import annotations

from mist.formats import opus
from mist.formats.tracks import AUDIO
from tests.fuzz.codec_harness import ask_everything, attempt


def fuzz(data: bytes) -> None:
    """Parse data as everything that Opus has; headers come back."""
    ask_everything(AUDIO, "opus", data, (opus.parse_head, opus.parse_dops, opus.packet_samples))
    head = attempt(opus.parse_head, data[2:]) or attempt(opus.parse_dops, data)
    if head is not None:
        assert opus.parse_head(opus.build_head(head)) == head
        assert opus.parse_dops(opus.build_dops(head)) == head

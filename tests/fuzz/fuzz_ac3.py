"""AC-3 and E-AC-3 frames."""

from __future__ import annotations

from mist.formats import ac3
from mist.formats.tracks import AUDIO
from tests.fuzz.codec_harness import ask_everything, attempt

_PARSERS = (ac3.parse_sync_frame, ac3.iterate_sync_frames, ac3.channels_of, ac3.build_dec3)


def fuzz(data: bytes) -> None:
    """Parse data as everything that AC-3 has."""
    for codec in ("AC3", "EAC-3"):
        ask_everything(AUDIO, codec, data, _PARSERS)
    for prefix in (b"\x0b\x77", b"\x0b\x77\x02\x3f\x3f\x80"):
        attempt(ac3.build_dec3, prefix + data)
    frame = attempt(ac3.parse_sync_frame, data[2:])
    if frame is not None:
        assert len(ac3.build_dac3(frame)) == 3

"""H.264 records, parameter sets and access units."""

from __future__ import annotations

from mist.core.nal import select_units
from mist.formats import h264
from mist.formats.tracks import VIDEO
from tests.fuzz.codec_harness import ask_everything, attempt

_PARSERS = (h264.parse_avcc, h264.configured_sps, h264.is_keyframe, h264.recovery_point, h264.slice_type)


def fuzz(data: bytes) -> None:
    """Parse data as everything that H.264 has."""
    ask_everything(VIDEO, "H264", data, _PARSERS)
    for header in (b"\x67", b"\x68"):
        attempt(h264.parse_sps, header + data)
        attempt(h264.parse_pps, header + data)
    record = attempt(h264.parse_avcc, data[2:])
    if record is not None:
        for unit in record.sps:
            attempt(h264.parse_sps, unit)
    assert len(select_units(data[:4096], (1 << 64) - 1)) <= len(data)

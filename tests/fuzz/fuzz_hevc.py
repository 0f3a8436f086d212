"""HEVC records, parameter sets and access units."""

from __future__ import annotations

from mist.formats import hevc
from mist.formats.tracks import VIDEO
from tests.fuzz.codec_harness import ask_everything, attempt

_PARSERS = (hevc.parse_hvcc, hevc.configured_sps, hevc.configured_frame_rate_mhz, hevc.is_keyframe)
_SETS = ((hevc.VPS, hevc.parse_vps), (hevc.SPS, hevc.parse_sps), (hevc.PPS, hevc.parse_pps_ids))


def fuzz(data: bytes) -> None:
    """Parse data as everything that HEVC has."""
    ask_everything(VIDEO, "HEVC", data, _PARSERS)
    for kind, parse in _SETS:
        attempt(parse, bytes((kind << 1, 1)) + data)
    record = attempt(hevc.parse_hvcc, data[2:])
    if record is not None:
        sets = [record.of_type(kind) for kind, _ in _SETS]
        if sets[1]:
            attempt(lambda _: hevc.build_hvcc(*sets), b"")

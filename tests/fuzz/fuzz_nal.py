"""NAL unit framing, emulation prevention and the bit reader."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

from mist.core import nal
from mist.core.bits import BitReader
from tests.fuzz.codec_harness import attempt

CORPORA = ("h264", "hevc", "nal")


def fuzz(data: bytes) -> None:
    """Convert data between the framings, both ways; read it as numbers."""
    for size in (1, 2, 3, 4):
        for convert in (nal.split_length_prefixed, nal.length_prefixed_to_annexb, nal.change_length_size):
            attempt(partial(_swap, convert, size), data)
        nal.nal_types(data, True, size)
    nal.select_units(data, (1 << 64) - 1, True, 7)
    prefixed = nal.annexb_to_length_prefixed(data)
    assert nal.split_length_prefixed(prefixed) == nal.split_annexb(data)
    assert nal.join_length_prefixed(nal.split_annexb(data)) == prefixed
    escaped = nal.escape(data)
    assert b"\0\0\0" not in escaped and b"\0\0\1" not in escaped and b"\0\0\2" not in escaped
    assert nal.unescape(escaped) in (data, data + b"\3")
    assert len(nal.unescape(data)) <= len(data)
    attempt(_read_numbers, data)


def _swap(convert: Callable[[bytes, int], object], size: int, data: bytes) -> object:
    return convert(data, size)


def _read_numbers(data: bytes) -> None:
    bits = BitReader(data)
    while bits.remaining:
        before = bits.position
        bits.more_rbsp_data()
        bits.ue()
        bits.se()
        bits.skip(bits.u(3))
        bits.take(bits.u(2))
        bits.align()
        assert before < bits.position <= len(data) * 8

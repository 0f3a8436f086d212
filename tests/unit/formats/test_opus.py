"""Opus headers and packet durations."""

from __future__ import annotations

import pytest

from mist.errors import LocalProtocolError, RemoteProtocolError
from mist.formats import opus
from tests.support.codec_samples import golden, names


@pytest.mark.parametrize("name", names("opus"))
def test_head_round_trip(name: str) -> None:
    data = golden("opus", name).init_data
    head = opus.parse_head(data)
    assert opus.build_head(head) == data
    assert opus.parse_dops(opus.build_dops(head)) == head
    for size in range(len(data)):
        with pytest.raises(RemoteProtocolError):
            opus.parse_head(data[:size])


def test_golden_boxes() -> None:
    head = opus.OpusHead(2, 312, 44100, -256, coupled=1)
    assert opus.build_head(head) == b"OpusHead\x01\x02\x38\x01\x44\xac\x00\x00\x00\xff\x00"
    assert opus.build_dops(head) == b"\x00\x02\x01\x38\x00\x00\xac\x44\xff\x00\x00"


@pytest.mark.parametrize(
    ("packet", "samples"),
    [(b"\x00", 480), (b"\x18", 2880), (b"\x60", 480), (b"\x80", 120), (b"\xfc", 960), (b"\xfd", 1920), (b"\xfe", 1920),
     (b"\xff\x03", 2880), (b"\x83\x30", 5760)],
)  # fmt: skip
def test_durations(packet: bytes, samples: int) -> None:
    assert opus.packet_samples(packet) == samples


@pytest.mark.parametrize("packet", [b"", b"\xff", b"\xff\x00", b"\xff\x07", b"\x1b\x03"])
def test_wrong_packets(packet: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        opus.packet_samples(packet)


def test_wrong_heads() -> None:
    good = opus.build_head(opus.OpusHead(2))
    surround = opus.build_head(opus.OpusHead(3, family=1, streams=2, coupled=1, mapping=b"\0\1\2"))
    assert opus.parse_head(surround).mapping == b"\0\1\2"
    for wrong in (b"X" + good[1:], good[:8] + b"\x11" + good[9:], good[:9] + b"\0" + good[10:], good[:9] + b"\3" + good[10:],
                  surround[:19] + b"\0" + surround[20:], surround[:20] + b"\3" + surround[21:]):  # fmt: skip
        with pytest.raises(RemoteProtocolError):
            opus.parse_head(wrong)
    for wrong in (b"", b"\1" + bytes(10)):
        with pytest.raises(RemoteProtocolError):
            opus.parse_dops(wrong)
    with pytest.raises(LocalProtocolError):
        opus.build_head(opus.OpusHead(3, family=1))
    assert opus.packet_is_stereo(b"\xfc") and not opus.packet_is_stereo(b"\xf8") and not opus.packet_is_stereo(b"")

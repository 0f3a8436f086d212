"""Audio added between a stream's packets: times, order, repetition, jumps, and another process."""

from __future__ import annotations

import pytest

from mist.core.added_audio import AddedAudio
from mist.core.demuxer import PacketList
from mist.core.packet import Packet
from mist.errors import LocalProtocolError
from mist.formats.audio_override import parse_adts_file, silence, split_selector

FRAME_US = 1024 * 1_000_000 // 44_100


def adding(frames: tuple[bytes, ...] = (b"a", b"b", b"c")) -> tuple[AddedAudio, PacketList]:
    packets = PacketList()
    return AddedAudio(packets, 1, silence().info, frames), packets


def video(dts_ms: int) -> Packet:
    return Packet(0, dts_ms * 1000, 0, True, b"v")


def test_frames_come_before_the_packets_of_their_time() -> None:
    muxer, packets = adding()
    for dts_ms in (1000, 1040, 1080, 1120):
        muxer.write(video(dts_ms))
    found = packets.take()
    assert [one.dts_us for one in found] == sorted(one.dts_us for one in found)
    audio = [one for one in found if one.track == 1]
    assert [one.payload for one in audio] == [b"a", b"b", b"c", b"a", b"b", b"c"]
    assert [one.dts_us for one in audio] == [1_000_000 + n * 1024 * 1_000_000 // 44_100 for n in range(6)]
    assert all(one.keyframe for one in audio)


def test_no_error_adds_up() -> None:
    muxer, packets = adding()
    for dts_ms in range(0, 3_600_000, 1000):
        muxer.write(video(dts_ms))
    audio = [one for one in packets.take() if one.track == 1]
    assert audio[-1].dts_us == (len(audio) - 1) * 1024 * 1_000_000 // 44_100


@pytest.mark.parametrize("jump_ms", [3_600_000, -100_000])
def test_the_audio_jumps_with_the_stream(jump_ms: int) -> None:
    muxer, packets = adding()
    for dts_ms in (200_000, 200_040, 200_040 + jump_ms):
        muxer.write(video(dts_ms))
    audio = [one for one in packets.take() if one.track == 1]
    assert len(audio) < 10
    assert audio[-1].dts_us == (200_040 + jump_ms) * 1000


def test_another_process_goes_on() -> None:
    muxer, packets = adding()
    muxer.write(video(0))
    muxer.write(video(40))
    next_muxer, next_packets = adding()
    next_muxer.restore(muxer.state())
    for one in (muxer, next_muxer):
        one.write(video(80))
    assert [one.dts_us for one in packets.take()][-2:] == [one.dts_us for one in next_packets.take()][-2:]
    with pytest.raises(LocalProtocolError):
        next_muxer.restore(b"short")


def test_tracks_that_change() -> None:
    muxer, _ = adding()
    assert muxer.set_tracks([silence().info, silence().info]) is False


def test_audio_needs_frames() -> None:
    with pytest.raises(LocalProtocolError):
        AddedAudio(PacketList(), 1, silence().info, ())


@pytest.mark.parametrize(
    ("text", "own", "other"),
    [
        ("silence", "", ["silence"]),
        ("AAC,silent", "AAC", ["silent"]),
        ("/a/b.aac,http://host/c.aac", "", ["/a/b.aac", "http://host/c.aac"]),
        ("eng", "eng", []),
        ("", "", []),
    ],
)
def test_what_an_audio_selector_names(text: str, own: str, other: list[str]) -> None:
    assert split_selector(text) == (own, other)


def test_a_file_of_frames() -> None:
    frame = bytes.fromhex("fff15080021ffc") + silence().frames[0]
    track = parse_adts_file(frame * 5)
    assert (track.info.sample_rate_hz, track.info.channels) == (44_100, 2)
    assert track.frames == silence().frames * 5

"""The Matroska muxer: golden bytes, Clusters, state at every cut, what a file gets at its end."""

from __future__ import annotations

import pytest

from mist.core.demuxer import demux
from mist.core.ebml import split_elements, unsigned_value
from mist.core.mkv_mux import CLUSTER_BYTES, CLUSTER_MS, MAX_TRACKS
from mist.core.packet import Packet
from mist.errors import LimitExceededError, LocalProtocolError, UnsupportedError
from mist.formats.matroska.reading import demuxer
from mist.formats.matroska.writing import muxer
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.mkv_files import MP3_FRAME, MP3_TRACK, VP8_FRAME, VP8_KEY, VP8_TRACK, mux_file

SPS = bytes.fromhex("6742c00ad90426c044000003000400000300c83c489920")
PPS = bytes.fromhex("68cb83cb20")
AVCC = bytes.fromhex("0142c00affe10017") + SPS + b"\x01\x00\x05" + PPS
OPUS_HEAD = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
TRACKS = [VP8_TRACK, MP3_TRACK]
CLUSTER_ID = bytes.fromhex("1f43b675")


def unit(data: bytes) -> bytes:
    return len(data).to_bytes(4, "big") + data


def media(count: int = 100, gop: int = 25) -> list[Packet]:
    """Return pictures of 40 ms and sounds of 24 ms, in order of time."""
    found = [
        Packet(0, n * 40_000, 0, n % gop == 0, (VP8_FRAME if n % gop else VP8_KEY) + bytes([n & 255]))
        for n in range(count)
    ]
    found += [Packet(1, n * 24_000, 0, True, MP3_FRAME + bytes([n & 255])) for n in range(count * 40 // 24)]
    return sorted(found, key=lambda packet: packet.dts_us)


def clusters(data: bytes) -> list[bytes]:
    """Split media without header into Clusters."""
    return [CLUSTER_ID + part for part in data.split(CLUSTER_ID)[1:]]


def muxed(tracks: list[TrackInfo], packets: list[Packet], **options: int) -> bytes:
    engine = muxer(tracks, **options)  # type: ignore[arg-type]
    for packet in packets:
        engine.write(packet)
    return engine.take_output()


def test_times_are_moved_up() -> None:
    earlier = [Packet(one.track, one.dts_us - 1_500_000, 0, one.keyframe, one.payload) for one in media()]
    assert muxed(TRACKS, earlier, shift_us=1_500_000) == muxed(TRACKS, media())
    assert muxed(TRACKS, earlier) != muxed(TRACKS, media())


def test_golden_header() -> None:
    assert muxer([VP8_TRACK.changed(language="nld")], webm=True).header().hex(" ", -4) == bytes.fromhex(
        "1a45dfa3 9f 4286 81 01 42f7 81 01 42f2 81 04 42f3 81 08 4282 84 7765626d 4287 81 04 4285 81 02"
        "18538067 01ffffffffffffff"
        "1549a966 95 2ad7b1 83 0f4240 4d80 84 6d697374 5741 84 6d697374"
        "1654ae6b a5 ae a3 d7 81 01 73c5 81 01 83 81 01 9c 81 00 22b59c 83 6e6c64 86 85 565f565038"
        "e0 86 b0 81 40 ba 81 30"
    ).hex(" ", -4)


def test_golden_media() -> None:
    packets = [
        Packet(0, 1_000_000, 80_400, True, b"key"),
        Packet(1, 990_000, 0, True, b"sound"),
        Packet(0, 1_040_000, 0, False, b"frame"),
        Packet(0, 2_000_000, 0, True, b"k"),
    ]
    assert muxed(TRACKS, packets).hex() == (
        "1f43b675 01ffffffffffffff e7 82 03e8"
        "a3 87 81 0050 80 6b6579"
        "a3 89 82 fff6 80 736f756e64"
        "a3 89 81 0028 00 6672616d65"
        "1f43b675 01ffffffffffffff e7 82 07d0"
        "a3 85 81 0000 80 6b"
    ).replace(" ", "")


def test_golden_subtitle() -> None:
    track = TrackInfo(META, "subtitle", language="nld")
    packets = [Packet(0, 500_000, 0, True, b"Hoi"), Packet(0, 600_000, 0, True, b" "), Packet(0, 700_000, 0, True, b"")]
    assert muxed([track], packets).hex() == (
        "1f43b675 01ffffffffffffff e7 82 01f4a0 8d a1 87 81 0000 00 486f69 9b 82 0401"  # 800 ms and 75 for each byte
    ).replace(" ", "")


def test_what_goes_in_comes_out() -> None:
    packets = media()
    engine = demuxer()
    data = muxer(TRACKS).header() + muxed(TRACKS, packets)
    assert demux(engine, data) == packets
    assert engine.tracks == TRACKS


def test_a_block_leaves_with_its_packet() -> None:
    engine = muxer(TRACKS)
    for packet in media(30):
        engine.write(packet)
        assert engine.take_output().endswith(packet.payload)


def test_viewers_join_at_every_cluster() -> None:
    packets = media()
    data = muxed(TRACKS, packets)
    header = muxer(TRACKS).header(3_000_000)
    parts = clusters(data)
    assert len(parts) == 4
    for number in range(len(parts)):
        found = demux(demuxer(), header + b"".join(parts[number:]))
        assert found == packets[-len(found) :]
        assert found[0] == Packet(0, number * 1_000_000, 0, True, VP8_KEY + bytes([25 * number]))


@pytest.mark.parametrize("number", range(0, 60, 7))
def test_state(number: int) -> None:
    """Another muxer that takes the state over makes the same bytes from there on."""
    packets = media(60)
    first, second = muxer(TRACKS), muxer(TRACKS)
    for packet in packets[:number]:
        first.write(packet)
    first.take_output()
    assert len(first.state()) <= 128
    second.restore(first.state())
    for packet in packets[number:]:
        first.write(packet)
        second.write(packet)
    assert first.take_output() == second.take_output()
    with pytest.raises(LocalProtocolError):
        second.restore(b"x")


def test_long_clusters_are_cut() -> None:
    packets = [Packet(0, n * 24_000, 0, True, MP3_FRAME) for n in range(1000)]
    parts = clusters(muxed([MP3_TRACK], packets))
    times = [unsigned_value(part[14 : 14 + (part[13] & 15)]) for part in parts]
    assert times == [n * 5016 for n in range(5)]
    assert CLUSTER_MS == 5000


def test_large_clusters_are_cut() -> None:
    packets = [Packet(0, n * 40_000, 0, not n, bytes(700_000)) for n in range(20)]
    assert [len(part) > CLUSTER_BYTES for part in clusters(muxed([VP8_TRACK], packets))] == [True, True, False]


def test_relative_times_have_16_bits() -> None:
    """Tracks far apart: the Cluster is left when a block's time does not fit it."""
    packets = [
        Packet(0, 100_000_000, 0, True, VP8_KEY),
        Packet(1, 50_000_000, 0, True, MP3_FRAME),
        Packet(0, 100_040_000, 60_000_000, False, VP8_FRAME),
        Packet(1, -20_000_000, 0, True, MP3_FRAME),
        Packet(1, -40_000_000, 0, True, MP3_FRAME),
    ]
    parts = clusters(muxed(TRACKS, packets))
    assert [unsigned_value(part[14 : 14 + (part[13] & 15)]) for part in parts] == [100_000, 50_000, 160_040, 0, 0]
    relative = [int.from_bytes(part[17 + (part[13] & 15) :][:2], "big", signed=True) for part in parts]
    assert relative == [0, 0, 0, -20_000, -32_000]


def test_opus_has_its_delay() -> None:
    track = TrackInfo(AUDIO, "opus", OPUS_HEAD, sample_rate_hz=48000, channels=2)
    packets = [Packet(0, n * 20_000 - 6_500, 0, True, b"\xfc" + bytes([n])) for n in range(10)]
    engine = demuxer()
    assert demux(engine, muxer([track]).header() + muxed([track], packets)) == packets
    assert engine.tracks[0].init_data == OPUS_HEAD


def test_changed_parameter_sets_go_in_front_of_keyframes() -> None:
    track = TrackInfo(VIDEO, "H264", AVCC, width=64, height=64)
    engine = muxer([track])
    key = unit(b"\x65\x88")
    engine.write(Packet(0, 0, 0, True, key))
    assert SPS not in engine.take_output()
    changed = AVCC[:8] + SPS[:-1] + b"\x21" + AVCC[31:]
    assert engine.set_tracks([track.changed(init_data=changed)])
    other = muxer([track.changed(init_data=changed)])
    other.restore(engine.state())
    for one in (engine, other):
        one.write(Packet(0, 40_000, 0, True, key))
        made = one.take_output()
        assert unit(SPS[:-1] + b"\x21") + unit(PPS) + key in made
        one.write(Packet(0, 80_000, 0, True, unit(SPS) + key))
        assert one.take_output().count(SPS[:4]) == 1
        one.write(Packet(0, 80_000, 0, False, unit(b"\x41\x9a")))
        assert SPS[:4] not in one.take_output()
    assert changed in engine.header()


def test_tracks_that_cannot_follow() -> None:
    aac = TrackInfo(AUDIO, "AAC", b"\x12\x10", sample_rate_hz=44100, channels=2)
    engine = muxer([aac])
    assert engine.set_tracks([aac.changed(bandwidth_bps=5)])
    assert not engine.set_tracks([aac, aac])
    assert not engine.set_tracks([aac.changed(init_data=b"\x11\x90")])
    assert not engine.set_tracks([VP8_TRACK])


def test_a_file_has_sizes_and_an_index() -> None:
    packets = media()
    data = mux_file(muxer(TRACKS, indexed=True), packets)
    assert demux(demuxer(), data) == packets
    (header, _), (segment_id, content) = split_elements(data)
    assert (header, segment_id) == (0x1A45DFA3, 0x18538067)
    parts = split_elements(content)
    kinds = [number for number, _ in parts]
    assert kinds == [0x114D9B74, 0xEC, 0x1549A966, 0x1654AE6B, *[0x1F43B675] * 4, 0x1C53BB6B]
    engine = demuxer()
    engine.feed(data)
    assert engine.duration_us == 4_000_000
    segment_at = len(data) - len(content)
    for _, seek in split_elements(parts[0][1]):
        (_, number), (_, position) = split_elements(seek)
        assert data[segment_at + unsigned_value(position) :].startswith(number)
    points = [dict(split_elements(point)) for _, point in split_elements(parts[-1][1])]
    assert [unsigned_value(point[0xB3]) for point in points] == [0, 1000, 2000, 3000]
    for point in points:
        place = dict(split_elements(point[0xB7]))
        assert unsigned_value(place[0xF7]) == 1
        assert data[segment_at + unsigned_value(place[0xF1]) :].startswith(CLUSTER_ID)


def test_a_file_of_sound_has_one_point_a_cluster() -> None:
    packets = [Packet(0, n * 24_000, 0, True, MP3_FRAME) for n in range(1000)]
    parts = split_elements(split_elements(mux_file(muxer([MP3_TRACK], indexed=True), packets))[1][1])
    assert len(split_elements(parts[-1][1])) == 5


def test_a_file_without_packets() -> None:
    data = mux_file(muxer(TRACKS, indexed=True), [])
    assert demux(demuxer(), data) == []
    assert [number for number, _ in split_elements(split_elements(data)[1][1])] == [
        0x114D9B74,
        0xEC,
        0x1549A966,
        0x1654AE6B,
    ]


def test_a_pipe_is_complete_without_patches() -> None:
    packets = media()
    engine = muxer(TRACKS, indexed=True)
    data = engine.header()
    for packet in packets:
        engine.write(packet)
    engine.finish()
    engine.finish()
    assert demux(demuxer(), data + engine.take_output()) == packets
    plain = muxer(TRACKS)
    plain.finish()
    assert plain.take_output() == b""
    assert plain.patches() == []


def test_what_does_not_fit() -> None:
    with pytest.raises(UnsupportedError):
        muxer([TrackInfo(AUDIO, "Speex")])
    with pytest.raises(UnsupportedError):
        muxer([TrackInfo(VIDEO, "H264", AVCC)], webm=True)
    with pytest.raises(UnsupportedError):
        muxer([TrackInfo(VIDEO, "H264")])
    with pytest.raises(LimitExceededError):
        muxer([VP8_TRACK] * (MAX_TRACKS + 1))
    engine = muxer([VP8_TRACK])
    with pytest.raises(LocalProtocolError):
        engine.write(Packet(1, 0, 0, True, b"x"))
    for time_us in (1 << 62, -(1 << 62), (1 << 63) - 1):
        with pytest.raises(UnsupportedError):
            engine.write(Packet(0, time_us, 0, True, b"x"))
    assert engine.take_output() == b""


def test_silence_that_is_not_sent_is_no_packet_of_its_length() -> None:
    """Opus that sends nothing in pauses: the file ends where its last packet does."""
    track = TrackInfo(AUDIO, "opus", OPUS_HEAD, sample_rate_hz=48000, channels=2)
    times_ms = [*range(0, 1000, 20), *range(3500, 4000, 20)]
    data = mux_file(
        muxer([track], indexed=True), [Packet(0, time_ms * 1000, 0, True, b"\x08\x0b") for time_ms in times_ms]
    )
    engine = demuxer()
    engine.feed(data)
    assert engine.duration_us == 4_000_000

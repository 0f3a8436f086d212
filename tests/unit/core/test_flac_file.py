"""FLAC files: frames found in every split and between damage, what the muxer writes and puts right at the end."""

from __future__ import annotations

from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.flac_file import MAX_METADATA_BLOCKS
from mist.core.flac_frames import crc16, frame_header
from mist.core.packet import Packet
from mist.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedError,
    UnsupportedError,
)
from mist.formats import flac, flac_file
from mist.formats.tracks import AAC, AUDIO, FLAC, TrackInfo
from tests.support.demuxing import demux_cut, demux_pieces, mux, packet_positions, patched, same_bytes_from_every_state

CORPUS = Path(__file__).resolve().parents[2] / "data" / "flac_file" / "corpus"
FILES = sorted(path.name for path in CORPUS.iterdir())


def read(data: bytes) -> list[Packet]:
    return demux(flac_file.make_demuxer(), data)


def load(name: str) -> tuple[TrackInfo, list[Packet], bytes]:
    data = (CORPUS / name).read_bytes()
    demuxer = flac_file.make_demuxer()
    packets = demux(demuxer, data)
    return demuxer.tracks[0], packets, data


def block(kind: int, body: bytes, last: bool = False) -> bytes:
    return bytes((kind | (0x80 if last else 0),)) + len(body).to_bytes(3, "big") + body


def plain_crc16(data: bytes) -> int:
    value = 0
    for byte in data:
        value ^= byte << 8
        for _ in range(8):
            value = (value << 1) ^ (0x18005 if value & 0x8000 else 0)
    return value


def test_checksum() -> None:
    for size in range(20):
        data = bytes(range(100, 100 + size))
        assert crc16(data) == plain_crc16(data) == crc16(data[size // 2 :], crc16(data[: size // 2]))


@pytest.mark.parametrize(
    "header",
    [
        b"\xff\xf9\x1a\x18\x00",
        b"\xff\xf8\x5b\x18\x7f",
        b"\xff\xf8\xfa\x18\xc2\x80",
        b"\xff\xf8\x7c\x18\x00\x01\x00\x2c",
        b"\xff\xf8\x6d\x18\x00\x09\xac\x44",
        b"\xff\xf9\x80\x18\xfe\xbf\xbf\xbf\xbf\xbf\xbf",
    ],
)
def test_frame_headers_are_read_alike_here_and_in_python(header: bytes) -> None:
    whole = header + bytes((flac.crc8(header),))
    expected = flac.parse_frame_header(whole)
    assert frame_header(whole + b"rest") == frame_header(whole) == (expected.block_samples, expected.number)
    for size in range(len(whole)):
        assert frame_header(whole[:size]) is None
    assert frame_header(whole[:-1] + bytes((whole[-1] ^ 1,))) is None


@pytest.mark.parametrize("name", FILES)
def test_every_split_gives_the_same_packets(name: str) -> None:
    _, whole, data = load(name)
    for step in (1, 13, 1000):
        assert demux_pieces(flac_file.make_demuxer(), data, step) == whole
    for cut in range(1, len(data), max(len(data) // 500, 1)):
        assert demux_cut(flac_file.make_demuxer(), data, cut) == whole


@pytest.mark.parametrize(
    ("name", "language", "channels", "count", "step_us"),
    [("plain.flac", "und", 2, 14, 72_000), ("tagged.flac", "und", 2, 14, 72_000), ("tool.flac", "deu", 1, 39, 26_122)],
)
def test_golden_files(name: str, language: str, channels: int, count: int, step_us: int) -> None:
    track, packets, data = load(name)
    assert (track.codec, track.language, track.channels, len(packets)) == (FLAC, language, channels, count)
    assert [packet.dts_us for packet in packets] == pytest.approx([step_us * n for n in range(count)], abs=20)
    assert b"".join(packet.payload for packet in packets) in data
    assert all(crc16(packet.payload) == 0 for packet in packets)


def test_damage_costs_the_frame_it_is_in() -> None:
    _, whole, data = load("plain.flac")
    start = data.index(whole[0].payload)
    for number in (0, 1, 6, 12, 13):
        position = start + sum(len(packet.payload) for packet in whole[:number])
        for place in (0, 2, 5, 20, len(whole[number].payload) - 1):
            damaged = bytearray(data)
            damaged[position + place] ^= 0x10
            # A header that does not even begin like one hides the end of the frame before it.
            before = max(number - 1, 0) if place == 0 else number
            assert read(bytes(damaged)) == whole[:before] + whole[number + 1 :]


def test_bytes_that_are_lost_and_bytes_that_are_too_many() -> None:
    _, whole, data = load("plain.flac")
    start = data.index(whole[3].payload)
    assert read(data[:start] + b"\xff\xf8 junk" * 9 + data[start:]) == whole
    assert read(data[: start - 5] + data[start:]) == whole[:2] + whole[3:]
    assert read(data[:start] + bytes(300_000) + data[start:]) == whole[:2] + whole[3:]
    assert read(data[:-5]) == whole[:-1]


def test_a_frame_that_holds_the_image_of_another_header() -> None:
    """A header inside a frame ends it only where the checksum fits, too."""
    track, whole, _ = load("plain.flac")
    image = whole[1].payload[:6]
    body = whole[0].payload[:40] + image + whole[0].payload[40:-2]
    frame = body + plain_crc16(body).to_bytes(2, "big")
    data = flac_file.make_muxer([track]).header() + frame + whole[1].payload
    assert [packet.payload for packet in read(data)] == [frame, whole[1].payload]


@pytest.mark.parametrize("name", ["plain.flac", "tagged.flac", "tool.flac"])
def test_seeking(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    demuxer = flac_file.make_demuxer()
    packet_positions(demuxer, data)
    _, whole, _ = load(name)
    sink = PacketList()
    demuxer.attach(sink)
    for number in (3, 0, len(whole) - 1, 1):
        position = data.index(whole[number].payload)
        demuxer.seek(whole[number].dts_us, position)
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + 777])
        assert sink.take() == whole[number:]
    with pytest.raises(LocalProtocolError):
        flac_file.make_demuxer().seek(0, 0)


def test_positions_are_where_frames_begin() -> None:
    data = (CORPUS / "plain.flac").read_bytes()
    for packet, position in packet_positions(flac_file.make_demuxer(), data):
        assert data[position : position + len(packet.payload)] == packet.payload


def test_broken_metadata() -> None:
    track, _, _ = load("plain.flac")
    info = track.init_data
    for data in (
        b"fLaX" + bytes(20),
        b"fLaC" + block(4, bytes(8)) + block(0, info, True),
        b"fLaC" + block(0, info + b"x", True),
        b"fLaC" + block(0, info) + block(0, info, True),
        b"fLaC" + block(0, info) + block(127, bytes(9)),
        b"fLaC" + block(0, bytes(34), True) + bytes(9),
    ):
        with pytest.raises(RemoteProtocolError):
            read(data)
    with pytest.raises(LimitExceededError):
        read(b"fLaC" + block(0, info) + block(1, b"") * MAX_METADATA_BLOCKS + bytes(10))


def test_inputs_that_end_in_the_metadata() -> None:
    _, whole, data = load("tool.flac")
    for size in range(data.index(whole[0].payload)):
        with pytest.raises(TruncatedError):
            read(data[:size])
    assert read(data[: data.index(whole[0].payload)]) == []


# -- the muxer


@pytest.mark.parametrize("name", ["plain.flac", "tool.flac"])
def test_round_trip(name: str) -> None:
    track, packets, _ = load(name)
    muxer = flac_file.make_muxer([track])
    data = mux(muxer, packets)
    demuxer = flac_file.make_demuxer()
    assert demux(demuxer, data) == packets
    info = flac.parse_stream_info(demuxer.tracks[0].init_data)
    assert (info.total_samples, info.min_frame_bytes, info.md5) == (0, 0, bytes(16))
    whole = patched(data, muxer.patches())
    assert whole[8:42] == track.init_data
    assert demux(flac_file.make_demuxer(), whole) == packets


def test_a_part_of_a_stream_has_its_own_length() -> None:
    track, packets, _ = load("plain.flac")
    muxer = flac_file.make_muxer([track])
    data = patched(mux(muxer, packets[3:8]), muxer.patches())
    info = flac.parse_stream_info(data[8:42])
    sizes = [len(packet.payload) for packet in packets[3:8]]
    assert (info.total_samples, info.min_frame_bytes, info.max_frame_bytes) == (5 * 576, min(sizes), max(sizes))
    assert info.md5 == bytes(16)
    assert flac_file.make_muxer([track]).patches() == []


def test_state_at_every_packet() -> None:
    track, packets, _ = load("plain.flac")
    same_bytes_from_every_state(lambda: flac_file.make_muxer([track]), packets)
    muxer, other = flac_file.make_muxer([track]), flac_file.make_muxer([track])
    for packet in packets[:5]:
        muxer.write(packet)
    other.restore(muxer.state())
    assert other.patches() == muxer.patches()
    with pytest.raises(LocalProtocolError):
        muxer.restore(b"x")


def test_tracks_that_change() -> None:
    track, _, _ = load("plain.flac")
    muxer = flac_file.make_muxer([track])
    info = track.init_data
    assert muxer.set_tracks([track.changed(init_data=info[:18] + bytes(16))])
    assert not muxer.set_tracks([track.changed(init_data=info[:10] + b"\2" + info[11:])])
    assert not muxer.set_tracks([track, track])
    assert not muxer.set_tracks([TrackInfo(AUDIO, AAC)])


def test_what_is_not_carried() -> None:
    track, _, _ = load("plain.flac")
    for tracks in ([], [track, track], [TrackInfo(AUDIO, AAC)], [TrackInfo(AUDIO, FLAC)]):
        with pytest.raises(UnsupportedError):
            flac_file.make_muxer(tracks)
    muxer = flac_file.make_muxer([track])
    muxer.write(Packet(0, 0, 0, True, b"no frame"))
    assert muxer.take_output() == b""
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(1, 0, 0, True, b"x"))

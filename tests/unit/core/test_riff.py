"""WAV: headers of every kind, samples in every split, sizes that are unknown, odd or too large."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.packet import Packet
from mist.core.riff import MAX_FORMAT_BYTES
from mist.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedError,
    UnsupportedError,
)
from mist.formats import riff
from mist.formats.tracks import AAC, ALAW, AUDIO, FLOAT, MP3, PCM, ULAW, TrackInfo
from tests.support.demuxing import demux_cut, demux_pieces, mux, packet_positions, patched, same_bytes_from_every_state

CORPUS = Path(__file__).resolve().parents[2] / "data" / "riff" / "corpus"
FILES = sorted(path.name for path in CORPUS.iterdir())
STEREO = TrackInfo(AUDIO, PCM, sample_rate_hz=8000, channels=2, sample_bits=16)
FORMAT = struct.pack("<HHIIHH", 1, 2, 8000, 32000, 4, 16)


def chunk(name: bytes, body: bytes, size: int | None = None) -> bytes:
    return name + struct.pack("<I", len(body) if size is None else size) + body + bytes(len(body) & 1)


def wav(*chunks: bytes, name: bytes = b"RIFF", size: int = 0) -> bytes:
    return name + struct.pack("<I", size) + b"WAVE" + b"".join(chunks)


def samples(packets: list[Packet]) -> bytes:
    return b"".join(packet.payload for packet in packets)


def read(data: bytes) -> list[Packet]:
    return demux(riff.make_demuxer(), data)


@pytest.mark.parametrize("name", FILES)
def test_every_split_gives_the_same_packets(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    whole = read(data)
    assert whole
    for step in (1, 13, 1000):
        assert demux_pieces(riff.make_demuxer(), data, step) == whole
    for cut in range(1, len(data), max(len(data) // 500, 1)):
        assert demux_cut(riff.make_demuxer(), data, cut) == whole


@pytest.mark.parametrize(
    ("name", "codec", "channels", "bits", "frames"),
    [
        ("u8.wav", PCM, 2, 8, 2400),
        ("s16.wav", PCM, 2, 16, 2400),
        ("pipe.wav", PCM, 2, 16, 2400),
        ("s24.wav", PCM, 2, 24, 2400),
        ("float.wav", FLOAT, 2, 32, 2400),
        ("alaw.wav", ALAW, 2, 8, 2400),
        ("ulaw.wav", ULAW, 2, 8, 2400),
        ("six.wav", PCM, 6, 16, 1600),
        ("rf64.wav", PCM, 1, 16, 1600),
        ("odd.wav", PCM, 2, 16, 1),
    ],
)
def test_golden_files(name: str, codec: str, channels: int, bits: int, frames: int) -> None:
    demuxer = riff.make_demuxer()
    packets = demux(demuxer, (CORPUS / name).read_bytes())
    [track] = demuxer.tracks
    assert (track.codec, track.channels, track.sample_bits, track.sample_rate_hz) == (codec, channels, bits, 8000)
    assert len(samples(packets)) == frames * channels * bits // 8
    assert [packet.dts_us for packet in packets] == [40_000 * number for number in range(len(packets))]


@pytest.mark.parametrize(
    ("bits", "little", "big"),
    [
        (8, "010203", "010203"),
        (16, "01020304", "02010403"),
        (24, "010203040506", "030201060504"),
        (32, "01020304", "04030201"),
    ],
)
def test_samples_are_big_endian(bits: int, little: str, big: str) -> None:
    form = struct.pack("<HHIIHH", 1, 1, 8000, 1000 * bits, bits // 8, bits)
    packets = read(wav(chunk(b"fmt ", form), chunk(b"data", bytes.fromhex(little))))
    assert samples(packets).hex() == big
    track = TrackInfo(AUDIO, PCM, sample_rate_hz=8000, channels=1, sample_bits=bits)
    assert mux(riff.make_muxer([track]), packets, finish=False).endswith(bytes.fromhex(little))


def test_samples_with_unused_bits_count_with_all_their_bytes() -> None:
    form = struct.pack("<HHIIHHHHIH", 0xFFFE, 1, 8000, 32000, 4, 32, 22, 20, 4, 1) + riff.SUBFORMAT_TAIL
    assert riff.parse_format(form).track.sample_bits == 32
    assert riff.parse_format(struct.pack("<HHIIHH", 1, 1, 8000, 16000, 2, 12)).track.sample_bits == 16


@pytest.mark.parametrize("size", [0, 0xFFFFFFFF, 1 << 20])
def test_unknown_and_too_large_sizes_go_on_to_the_end(size: int) -> None:
    body = bytes(range(256)) * 10
    packets = read(wav(chunk(b"fmt ", FORMAT), chunk(b"data", body, size)))
    assert len(samples(packets)) == len(body)


def test_what_follows_the_samples_is_not_read() -> None:
    demuxer = riff.make_demuxer()
    data = wav(chunk(b"fmt ", FORMAT), chunk(b"data", bytes(4000)), chunk(b"LIST", bytes(100)))
    assert len(samples(demux(demuxer, data))) == 4000
    assert demuxer.ended and demuxer.want() is None


def test_sizes_of_64_bits() -> None:
    sizes = struct.pack("<QQQI", 0, 1000, 0, 0)
    data = wav(chunk(b"ds64", sizes), chunk(b"fmt ", FORMAT), chunk(b"data", bytes(2000), 0xFFFFFFFF), name=b"RF64")
    assert len(samples(read(data))) == 1000
    assert len(samples(read(data.replace(b"RF64", b"BW64")))) == 1000


def test_times_of_a_rate_that_is_no_divisor() -> None:
    form = struct.pack("<HHIIHH", 1, 1, 44100, 88200, 2, 16)
    packets = read(wav(chunk(b"fmt ", form), chunk(b"data", bytes(2 * 44100 * 3))))
    assert [packet.dts_us for packet in packets] == [
        round(number * 1764 * 1_000_000 / 44100) for number in range(len(packets))
    ]


@pytest.mark.parametrize("name", ["s24.wav", "six.wav", "pipe.wav"])
def test_seeking(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    demuxer = riff.make_demuxer()
    found = packet_positions(demuxer, data)
    whole = [packet for packet, _ in found]
    sink = PacketList()
    demuxer.attach(sink)
    for number in (3, 0, len(found) - 1, 1):
        for dts_us in (whole[number].dts_us, whole[number].dts_us + 39_000):
            demuxer.seek(dts_us, found[number][1])
            while (wanted := demuxer.want()) is not None:
                demuxer.feed(data[wanted[0] : wanted[0] + 777])
            assert sink.take() == whole[number:]
    with pytest.raises(LocalProtocolError):
        riff.make_demuxer().seek(0, 0)


@pytest.mark.parametrize(
    "data",
    [
        b"RIFX" + bytes(8) + b"WAVE",
        b"RIFF" + bytes(4) + b"AVI " + bytes(20),
        wav(chunk(b"data", bytes(10))),
        wav(chunk(b"fmt ", bytes(10))),
        wav(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 16))),
        wav(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 0, 0, 4, 16))),
        wav(chunk(b"fmt ", struct.pack("<HHIIHH", 1, 2, 8000, 0, 5, 16))),
        wav(chunk(b"fmt ", struct.pack("<HHIIHH", 0xFFFE, 2, 8000, 0, 4, 16))),
    ],
)
def test_broken_headers(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        read(data)


@pytest.mark.parametrize("tag", [2, 0x11, 0xFF, 0x161])
def test_formats_that_are_not_read(tag: int) -> None:
    with pytest.raises(UnsupportedError):
        read(wav(chunk(b"fmt ", struct.pack("<HHIIHH", tag, 2, 8000, 32000, 4, 16))))


def test_limits() -> None:
    with pytest.raises(LimitExceededError):
        read(wav(chunk(b"fmt ", b"", MAX_FORMAT_BYTES + 1)))
    with pytest.raises(LimitExceededError):
        read(wav(*[chunk(b"JUNK", b"")] * 10_001))


def test_inputs_that_end_in_the_header() -> None:
    data = (CORPUS / "six.wav").read_bytes()
    for size in range(data.index(b"data") + 8):
        with pytest.raises(TruncatedError):
            read(data[:size])


# -- the muxer


def test_golden_header() -> None:
    header = riff.make_muxer([STEREO]).header()
    expected = wav(
        chunk(b"JUNK", bytes(28)), chunk(b"fmt ", FORMAT), chunk(b"LIST", b"INFO" + chunk(b"ISFT", b"mist\0\0")),
        chunk(b"data", b"", 0xFFFFFFFF), size=0xFFFFFFFF,
    )  # fmt: skip
    assert header == expected


@pytest.mark.parametrize("name", FILES)
def test_round_trip(name: str) -> None:
    demuxer = riff.make_demuxer()
    packets = demux(demuxer, (CORPUS / name).read_bytes())
    muxer = riff.make_muxer(demuxer.tracks)
    data = mux(muxer, packets)
    again = riff.make_demuxer()
    assert samples(demux(again, data)) == samples(packets)
    assert again.tracks == demuxer.tracks
    whole = patched(data, muxer.patches())
    assert read(whole) == packets
    assert int.from_bytes(whole[4:8], "little") == len(whole) - 8


def test_an_odd_number_of_bytes_is_filled_up() -> None:
    track = TrackInfo(AUDIO, ULAW, sample_rate_hz=8000, channels=1)
    muxer = riff.make_muxer([track])
    data = patched(mux(muxer, [Packet(0, 0, 0, True, b"abc")]), muxer.patches())
    assert b"fact\x04\0\0\0\x03\0\0\0" in data and data.endswith(b"data\x03\0\0\0abc\0") and len(data) % 2 == 0


def test_sizes_beyond_32_bits_make_it_rf64() -> None:
    muxer = riff.make_muxer([STEREO])
    muxer.restore(struct.pack("<Q", 5 << 30))
    header = patched(muxer.header(), muxer.patches())
    assert header[:4] == b"RF64" and header[4:8] == b"\xff" * 4 and header[12:20] == b"ds64\x1c\0\0\0"
    assert struct.unpack_from("<QQQ", header, 20) == (len(header) - 8 + (5 << 30), 5 << 30, (5 << 30) // 4)
    assert header[-4:] == b"\xff" * 4
    demuxer = riff.make_demuxer()
    demuxer.feed(header)
    assert demuxer.ready


def test_extensible_form() -> None:
    for channels, bits, size in ((2, 16, 16), (2, 24, 40), (6, 16, 40)):
        track = TrackInfo(AUDIO, PCM, sample_rate_hz=48000, channels=channels, sample_bits=bits)
        form = riff.build_format(track)
        assert len(form) == size and riff.parse_format(form).track == track


def test_mp3_is_written() -> None:
    muxer = riff.make_muxer([TrackInfo(AUDIO, MP3, sample_rate_hz=44100, channels=2, bandwidth_bps=128000)])
    data = mux(muxer, [Packet(0, 0, 0, True, b"\xff\xfbframe")])
    form = data[data.index(b"fmt ") + 8 :]
    assert struct.unpack_from("<HHIIHHH", form) == (0x55, 2, 44100, 16000, 1, 0, 12) and b"\xff\xfbframe" in data
    assert all(position != data.index(b"fact") + 8 for position, _ in muxer.patches())


def test_what_is_left_of_a_frame_is_dropped() -> None:
    muxer = riff.make_muxer([STEREO])
    muxer.write(Packet(0, 0, 0, True, b"\1\2\3\4\5\6"))
    assert muxer.take_output() == b"\2\1\4\3"


def test_state_at_every_packet() -> None:
    demuxer = riff.make_demuxer()
    packets = demux(demuxer, (CORPUS / "s24.wav").read_bytes())
    same_bytes_from_every_state(lambda: riff.make_muxer(demuxer.tracks), packets)
    with pytest.raises(LocalProtocolError):
        riff.make_muxer([STEREO]).restore(b"x")


def test_tracks_that_change() -> None:
    muxer = riff.make_muxer([STEREO])
    assert muxer.set_tracks([STEREO.changed(bandwidth_bps=1)])
    assert not muxer.set_tracks([STEREO.changed(channels=1)])
    assert not muxer.set_tracks([STEREO, STEREO])
    assert not muxer.set_tracks([TrackInfo(AUDIO, AAC)])


@pytest.mark.parametrize(
    "tracks",
    [
        [],
        [STEREO, STEREO],
        [TrackInfo(AUDIO, AAC, sample_rate_hz=48000, channels=2)],
        [STEREO.changed(sample_bits=0)],
        [STEREO.changed(sample_bits=40)],
        [STEREO.changed(channels=0)],
        [STEREO.changed(sample_rate_hz=0)],
    ],
)
def test_what_is_not_carried(tracks: list[TrackInfo]) -> None:
    with pytest.raises(UnsupportedError):
        riff.make_muxer(tracks)
    with pytest.raises(LocalProtocolError):
        riff.make_muxer([STEREO]).write(Packet(1, 0, 0, True, b"x"))

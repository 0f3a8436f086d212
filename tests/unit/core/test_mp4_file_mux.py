"""Plain MP4 files written: as packets come, laid out beforehand, and read again by our own reader."""

from __future__ import annotations

import random
import struct

import pytest

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.errors import LocalProtocolError, UnsupportedError
from mist.formats import mp4_file
from mist.formats.mp4_file import FileMovie, make_layout, make_muxer
from mist.formats.mp4_movie import make_demuxer
from mist.formats.timed_metadata import CODECS
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.mp4_boxes_reader import boxes
from tests.support.mp4_builder import ASC, AVCC

H264 = TrackInfo(VIDEO, "H264", AVCC, 1, "eng", 320, 180, 25_000)
AAC = TrackInfo(AUDIO, "AAC", ASC, 2, "deu", sample_rate_hz=48_000, channels=2)
TEXT = TrackInfo(META, "subtitle", language="fra")


def us(ticks: int, timescale: int) -> int:
    return (2 * ticks * 1_000_000 + timescale) // (2 * timescale)


def media(seconds: int = 3, *, start_us: int = 0, reorder: bool = True) -> list[Packet]:
    """Return pictures of 25 a second, a keyframe each second, and AAC, by decode time."""
    chance = random.Random(7)
    packets = []
    for number in range(25 * seconds):
        offset_us = ([2, 4, 1, 1][number % 4] if reorder else 0) * 40_000
        payload = struct.pack(">I", 40) + chance.randbytes(40)
        packets.append(Packet(0, start_us + number * 40_000, offset_us, number % 25 == 0, payload))
    for number in range(48_000 * seconds // 1024):
        payload = chance.randbytes(20 + number % 9)
        packets.append(Packet(1, start_us + us(number * 1024, 48_000), 0, True, payload))
    return sorted(packets, key=lambda packet: packet.dts_us)


def written(tracks: list[TrackInfo], packets: list[Packet], *, patched: bool = True) -> bytes:
    muxer = make_muxer(tracks)
    data = bytearray(muxer.header())
    for packet in packets:
        muxer.write(packet)
        data += muxer.take_output()
    muxer.finish()
    data += muxer.take_output()
    if patched:
        for position, piece in muxer.patches():
            data[position : position + len(piece)] = piece
    return bytes(data)


def laid_out(tracks: list[TrackInfo], packets: list[Packet]) -> bytes:
    layout = make_layout(tracks)
    for packet in packets:
        layout.add(packet.track, packet.dts_us, packet.offset_us, len(packet.payload), packet.keyframe)
    layout.finish()
    data = layout.header() + b"".join(layout.stored(packet.track, packet.payload) for packet in packets)
    assert len(data) == layout.total_bytes
    assert len(layout.header()) == layout.header_bytes
    return data


def read(data: bytes) -> tuple[list[TrackInfo], list[Packet]]:
    demuxer = make_demuxer()
    packets = demux(demuxer, data)
    return demuxer.tracks, packets


def by_track(packets: list[Packet]) -> dict[int, list[Packet]]:
    found: dict[int, list[Packet]] = {}
    for packet in packets:
        found.setdefault(packet.track, []).append(packet)
    return found


def top(data: bytes) -> list[str]:
    """Return the types of the boxes on the top level, with sizes of 64 bits too."""
    at, found = 0, []
    while at < len(data):
        size, kind = struct.unpack_from(">I4s", data, at)
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, at + 8)
        found.append(kind.decode())
        at += size
    assert at == len(data)
    return found


def test_golden_boxes() -> None:
    data = laid_out([H264], [Packet(0, 0, 40_000, True, bytes(9)), Packet(0, 40_000, 80_000, False, bytes(5))])
    assert top(data) == ["ftyp", "moov", "mdat"]
    moov = next(box.body for box in boxes(data) if box.path == "moov")
    found = {box.path: box.body for box in boxes(moov)}
    assert found["trak/edts/elst"] == struct.pack(">IIIiIIiI", 0, 2, 40, -1, 1 << 16, 120, 3600, 1 << 16)
    table = "trak/mdia/minf/stbl/"
    assert found[table + "stts"] == struct.pack(">IIII", 0, 1, 2, 3600)
    assert found[table + "ctts"] == struct.pack(">IIIIII", 0, 2, 1, 3600, 1, 7200)
    assert found[table + "stss"] == struct.pack(">III", 0, 1, 1)
    assert found[table + "stsc"] == struct.pack(">IIIII", 0, 1, 1, 2, 1)
    assert found[table + "stsz"] == struct.pack(">IIIII", 0, 0, 2, 9, 5)
    assert found[table + "stco"] == struct.pack(">III", 0, 1, len(data) - 14)
    assert found["trak/mdia/mdhd"][20:22] == struct.pack(">H", 0x15C7)


@pytest.mark.parametrize("make", [written, laid_out])
@pytest.mark.parametrize("reorder", [True, False])
def test_back_to_back(make: object, reorder: bool) -> None:
    assert callable(make)
    packets = media(reorder=reorder)
    tracks, found = read(make([H264, AAC], packets))
    assert by_track(found) == by_track(packets)
    assert [(one.codec, one.init_data, one.language) for one in tracks] == [("H264", AVCC, "eng"), ("AAC", ASC, "deu")]
    assert tracks[0].frame_rate_mhz == 25_000


def test_a_pipe_gets_a_valid_file_too() -> None:
    packets = media()
    data = written([H264, AAC], packets, patched=False)
    assert by_track(read(data)[1]) == by_track(packets)
    kinds = top(data)
    assert kinds[:2] == ["ftyp", "free"] and kinds[-1] == "moov"
    assert set(kinds[2:-1]) == {"mdat"} and len(kinds) == 9
    assert top(written([H264, AAC], packets)) == ["ftyp", "free", "mdat", "moov"]


def test_chunks_are_half_a_second() -> None:
    data = written([H264], [packet for packet in media(3) if packet.track == 0])
    moov = next(box.body for box in boxes(data) if box.path == "moov")
    found = {box.path: box.body for box in boxes(moov)}
    assert struct.unpack_from(">I", found["trak/mdia/minf/stbl/stco"], 4)[0] == 6


def test_every_byte_of_a_layout() -> None:
    packets = [
        Packet(p.track, p.dts_us, p.offset_us, p.keyframe, p.payload[: 3 + n % 5]) for n, p in enumerate(media(10))
    ]
    packets[5] = Packet(0, packets[5].dts_us, 0, True, b"")
    layout = make_layout([H264, AAC])
    for packet in packets:
        layout.write(packet)
    layout.finish()
    whole = layout.header() + b"".join(packet.payload for packet in packets)
    assert layout.packets == len(packets)
    place = layout.header_bytes
    for number, packet in enumerate(packets):
        assert layout.locate(number) == (packet.track, packet.dts_us, place)
        for inside in range(len(packet.payload)):
            assert layout.packet_at(place + inside) == (number, inside)
        place += len(packet.payload)
    assert place == layout.total_bytes == len(whole)
    assert layout.packet_at(place) == (len(packets), 0)
    assert layout.packet_at(17) == (-1, 17)
    for call in (
        lambda: layout.packet_at(place + 1),
        lambda: layout.packet_at(-1),
        lambda: layout.locate(len(packets)),
    ):
        with pytest.raises(LocalProtocolError):
            call()


def test_places_over_four_gigabytes() -> None:
    layout = make_layout([H264, AAC])
    size = 1 << 30
    for number in range(6):
        layout.add(0, number * 1_000_000, 0, size, True)
        layout.add(1, number * 1_000_000, 0, 100, True)
    layout.finish()
    assert layout.total_bytes == layout.header_bytes + 6 * size + 600
    assert layout.locate(8) == (0, 4_000_000, layout.header_bytes + 4 * (size + 100))
    assert layout.packet_at(layout.header_bytes + 4 * (size + 100) + 7) == (8, 7)
    head = layout.header()
    assert b"co64" in head and b"stco" not in head
    assert struct.unpack(">I4sQ", head[-16:]) == (1, b"mdat", 6 * size + 600 + 16)
    demuxer = make_demuxer()
    while not demuxer.ready:
        wanted = demuxer.want()
        assert wanted is not None
        demuxer.feed(head[wanted[0] : wanted[0] + wanted[1]])
    assert list(demuxer.keys(0)[1::3]) == [layout.locate(2 * number)[2] for number in range(6)]


def test_a_layout_that_just_passes_four_gigabytes_with_its_header() -> None:
    layout = make_layout([H264])
    for number in range(4):
        layout.add(0, number * 40_000, 0, (1 << 30) - (100 if number == 3 else 0), True)
    layout.finish()
    head = layout.header()
    assert b"co64" in head
    assert struct.unpack(">I4s", head[-8:]) == ((1 << 32) - 92, b"mdat")
    assert layout.total_bytes == len(head) + (1 << 32) - 100


@pytest.mark.parametrize(
    ("start_us", "shift_us"),
    [(0, 0), (1_400_000, 1_400_000), (400_000, 0), (-80_000, 0), (108_000_000_000, 108_000_000_000)],
)
def test_where_zero_is(start_us: int, shift_us: int) -> None:
    packets = media(start_us=start_us, reorder=False)
    found = read(written([H264, AAC], packets))[1]
    wanted = [Packet(p.track, p.dts_us - shift_us, p.offset_us, p.keyframe, p.payload) for p in packets]
    assert by_track(found) == by_track(wanted)


def test_a_track_that_starts_late() -> None:
    packets = [p for p in media() if p.track == 0] + [
        Packet(1, p.dts_us + 1_234_567, 0, True, p.payload) for p in media() if p.track == 1
    ]
    packets.sort(key=lambda packet: packet.dts_us)
    found = by_track(read(laid_out([H264, AAC], packets))[1])
    for track, wanted in by_track(packets).items():
        assert max(abs(a.dts_us - b.dts_us) for a, b in zip(found[track], wanted, strict=True)) <= 11  # half a sample
        assert [a.payload for a in found[track]] == [b.payload for b in wanted]


def test_an_origin_that_was_asked_for() -> None:
    packets = media(start_us=5_000_000)
    muxer = mp4_file.Mp4FileMuxer([H264, AAC], FileMovie("3gp6"), origin_us=0)
    data = muxer.header()
    assert data[8:12] == b"3gp6"
    for packet in packets:
        muxer.write(packet)
    muxer.finish()
    assert by_track(read(data + muxer.take_output())[1]) == by_track(packets)


@pytest.mark.parametrize(("rate_mhz", "over", "timescale"), [
    (23_976, 24_000, 120_000), (29_970, 30_000, 120_000), (59_940, 60_000, 120_000), (25_000, 0, 90_000), (30_000, 0, 90_000),
])  # fmt: skip
def test_picture_rates_are_exact(rate_mhz: int, over: int, timescale: int) -> None:
    """Each has one duration, whatever rounding its microseconds went through."""
    step, scale = (1001, over) if over else (1000, rate_mhz)
    packets = [Packet(0, us(n * step, scale), 0, n % 10 == 0, b"\0\0\0\1A") for n in range(1000)]
    data = written([H264.changed(frame_rate_mhz=rate_mhz)], packets)
    moov = next(box.body for box in boxes(data) if box.path == "moov")
    found = {box.path: box.body for box in boxes(moov)}
    assert struct.unpack(">IIII", found["trak/mdia/minf/stbl/stts"]) == (0, 1, 1000, timescale * step // scale)
    assert read(data)[1] == packets


def test_millisecond_clocks_go_back_on_their_samples() -> None:
    packets = [Packet(0, (us(n * 1024, 44_100) + 500) // 1000 * 1000, 0, True, bytes(9)) for n in range(500)]
    found = read(written([AAC.changed(sample_rate_hz=44_100, init_data=b"\x12\x10")], packets))[1]
    assert [p.dts_us for p in found] == [us(n * 1024, 44_100) for n in range(500)]


def test_gaps_stay() -> None:
    times = [0, 21_333, 42_667, 500_123, 521_456]
    found = read(written([AAC], [Packet(0, t, 0, True, bytes(9)) for t in times]))[1]
    assert all(abs(p.dts_us - t) <= 11 for p, t in zip(found, times, strict=True))


def test_presentation_before_decoding() -> None:
    packets = [Packet(0, n * 40_000, offset, n == 0, bytes(9)) for n, offset in enumerate((0, 40_000, -40_000, 0))]
    data = laid_out([H264], packets)
    assert b"ctts\1" in data
    found = read(data)[1]
    assert [p.pts_us for p in found] == [p.pts_us for p in packets]


@pytest.mark.parametrize("info", [
    TrackInfo(AUDIO, "PCM", sample_rate_hz=48_000, channels=2, sample_bits=16),
    TrackInfo(AUDIO, "PCM", sample_rate_hz=44_100, channels=1, sample_bits=24),
    TrackInfo(AUDIO, "PCM", sample_rate_hz=8000, channels=1, sample_bits=8),
    TrackInfo(AUDIO, "FLOAT", sample_rate_hz=48_000, channels=2, sample_bits=32),
    TrackInfo(AUDIO, "ALAW", sample_rate_hz=8000, channels=1, sample_bits=8),
    TrackInfo(AUDIO, "ULAW", sample_rate_hz=8000, channels=2, sample_bits=8),
])  # fmt: skip
def test_uncompressed_audio(info: TrackInfo) -> None:
    frame = info.channels * info.sample_bits // 8
    chance = random.Random(3)
    payloads = [chance.randbytes(frame * 500) for _ in range(50)]
    packets = [Packet(0, us(n * 500, info.sample_rate_hz), 0, True, p) for n, p in enumerate(payloads)]
    data = written([info], packets)
    tracks, found = read(data)
    assert (tracks[0].codec, tracks[0].sample_rate_hz, tracks[0].channels, tracks[0].sample_bits) == (
        info.codec, info.sample_rate_hz, info.channels, info.sample_bits,
    )  # fmt: skip
    assert b"".join(p.payload for p in found) == b"".join(payloads)
    at = 0
    for packet in found:
        assert packet.dts_us == us(at, info.sample_rate_hz)
        at += len(packet.payload) // frame


@pytest.mark.parametrize("make", [written, laid_out])
def test_subtitles(make: object) -> None:
    assert callable(make)
    texts = [(1_000_000, b"Hello"), (1_500_000, "früh".encode()), (1_501_000, b"at once"), (9_000_000, b"x" * 70_000)]
    packets = sorted(media(2) + [Packet(2, time, 0, True, text) for time, text in texts], key=lambda p: p.dts_us)
    tracks, found = read(make([H264, AAC, TEXT], packets))
    assert (tracks[2].codec, tracks[2].language) == ("subtitle", "fra")
    wanted = [(time, text[:0xFFFF]) for time, text in texts]
    wanted[2] = (1_502_000, b"at once")  # an end lies between any two
    assert [(p.dts_us, p.payload) for p in found if p.track == 2] == wanted
    assert by_track(found)[0] == by_track(packets)[0]


@pytest.mark.parametrize("make", [make_muxer, make_layout])
def test_changed_tracks_are_further_sample_entries(make: object) -> None:
    assert callable(make)
    other = H264.changed(width=640, height=360)
    muxer = make([H264, AAC])
    packets = media(4)
    for packet in packets[:100]:
        muxer.write(packet)
    assert muxer.set_tracks([other, AAC])
    for packet in packets[100:]:
        muxer.write(packet)
    assert not muxer.set_tracks([AAC, AAC])
    assert not muxer.set_tracks([H264])
    assert not muxer.set_tracks([H264, AAC.changed(sample_rate_hz=44_100)])
    muxer.finish()
    media_bytes = muxer.take_output() or b"".join(packet.payload for packet in packets)
    data = muxer.header() + media_bytes
    demuxer = make_demuxer()
    found = demux(demuxer, data)
    assert by_track(found) == by_track(packets)
    assert b"avc1" in data and data.count(b"avcC") == 2


def test_what_cannot_be_written() -> None:
    for info in (
        TrackInfo(AUDIO, "Speex"),
        TrackInfo(META, "RAW"),
        TrackInfo(AUDIO, "PCM", channels=2, sample_bits=12),
    ):
        with pytest.raises(UnsupportedError):
            make_muxer([info])
    muxer = make_muxer([AAC])
    for track in (1, -1):
        with pytest.raises(LocalProtocolError):
            muxer.write(Packet(track, 0, 0, True, b"x"))
    muxer.finish()
    muxer.finish()
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(0, 0, 0, True, b"x"))
    layout = make_layout([H264])
    with pytest.raises(LocalProtocolError):
        layout.header()
    with pytest.raises(UnsupportedError):
        layout.add(0, 0, 0, 1 << 31, True)


def test_nothing_at_all() -> None:
    muxer = make_muxer([H264])
    muxer.write(Packet(0, 0, 0, True, b""))
    muxer.finish()
    assert top(muxer.header() + muxer.take_output()) == ["ftyp", "free", "moov"]
    assert muxer.patches() == []
    layout = make_layout([H264])
    layout.finish()
    assert layout.total_bytes == layout.header_bytes == len(layout.header())


def test_every_codec_has_an_entry() -> None:
    for codec in mp4_file.CODECS - {"H264", "HEVC", "AV1", "FLAC", "MP2"}:
        kind = VIDEO if codec in ("VP8", "VP9", "MPEG2", "JPEG") else META if codec in ("subtitle", *CODECS) else AUDIO
        bits = 32 if codec == "FLOAT" else 16
        info = TrackInfo(kind, codec, width=32, height=32, sample_rate_hz=48_000, channels=2, sample_bits=bits)
        if codec == "AAC":
            info = info.changed(init_data=ASC)
        tracks, packets = read(written([info], [Packet(0, n * 20_000, 0, True, bytes(64)) for n in range(3)]))
        assert tracks[0].codec == codec
        assert b"".join(p.payload for p in packets) == bytes(192)

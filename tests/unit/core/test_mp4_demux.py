"""MP4 files read: tables, edits, fragments, reading by windows, seeking, and files that lie."""

from __future__ import annotations

import random
import struct
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.mp4_demux import Mp4Demuxer
from mist.core.packet import Packet
from mist.errors import LimitExceededError, NotReady, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.mp4_movie import make_demuxer
from tests.support.mp4_builder import (
    ASC,
    AVCC,
    Run,
    Track,
    audio_entry,
    box,
    esds,
    fragment,
    fragmented,
    full,
    movie,
    plain,
    rows,
    trex,
    video_entry,
)


def nal(number: int, size: int = 20) -> bytes:
    """Return a picture that no other is like."""
    body = bytes((0x65 if number == 0 else 0x41,)) + random.Random(number).randbytes(size - 1)
    return struct.pack(">I", len(body)) + body


def sound(number: int, size: int = 10) -> bytes:
    return random.Random(1000 + number).randbytes(size)


def pictures(count: int = 12, **fields: Any) -> Track:
    fields = {"sync": [1, 5, 9], "chunks": [3, 4, 5], **fields}
    return Track([nal(n, 20 + n) for n in range(count)], **fields)


def sounds(count: int = 20, **fields: Any) -> Track:
    fields = {"chunks": [5, 5, 10], "deltas": [(count, 1024)], "timescale": 48_000, "number": 2, **fields}
    return Track([sound(n, 5 + n) for n in range(count)], [audio_entry()], "soun", **fields)


def opus_sounds(count: int = 12) -> Track:
    """Packets of 20 ms, whose lengths are in the packets themselves."""
    entry = audio_entry("Opus", box("dOps", struct.pack(">BBHIhB", 0, 2, 0, 48_000, 0, 0)))
    packets = [b"\x78" + bytes([number]) * (5 + number) for number in range(count)]
    return Track(packets, [entry], "soun", deltas=[(count, 960)], timescale=48_000, number=2)


def read(data: bytes) -> tuple[Mp4Demuxer, list[Packet]]:
    demuxer = make_demuxer()
    return demuxer, demux(demuxer, data)


def of(packets: list[Packet], track: int = 0) -> list[Packet]:
    return [packet for packet in packets if packet.track == track]


def us(ticks: int, timescale: int) -> int:
    return (2 * ticks * 1_000_000 + timescale) // (2 * timescale)


def drive(demuxer: Mp4Demuxer, data: bytes, *, at_most: int = 1 << 30) -> Iterator[tuple[int, int]]:
    """Feed at most so many bytes at a time; yield what was read."""
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        piece = data[position : position + min(count, at_most)]
        demuxer.feed(piece)
        yield position, len(piece)


# --- plain files ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("moov_first", [True, False])
@pytest.mark.parametrize("wide", [True, False])
@pytest.mark.parametrize("size_bits", [8, 16, 32])
def test_golden_file(moov_first: bool, wide: bool, size_bits: int) -> None:
    video, audio = pictures(wide=wide, size_bits=size_bits, language=0x15C7), sounds(wide=wide)
    demuxer, packets = read(plain(video, audio, moov_first=moov_first, wide=wide))
    first, second = demuxer.tracks
    assert (first.type, first.codec, first.width, first.height, first.frame_rate_mhz) == (
        "video",
        "H264",
        320,
        180,
        25_000,
    )
    assert (first.language, first.track_id) == ("eng", 1)
    assert (second.codec, second.init_data, second.sample_rate_hz, second.channels) == ("AAC", ASC, 48_000, 2)
    assert second.bandwidth_bps == 96_000
    assert [p.payload for p in of(packets)] == list(video.payloads)
    assert [p.payload for p in of(packets, 1)] == list(audio.payloads)
    assert [p.dts_us for p in of(packets)] == [n * 40_000 for n in range(12)]
    assert [p.dts_us for p in of(packets, 1)] == [us(n * 1024, 48_000) for n in range(20)]
    assert [n for n, p in enumerate(of(packets)) if p.keyframe] == [0, 4, 8]
    assert all(p.keyframe and not p.offset_us for p in of(packets, 1))
    assert [p.dts_us for p in packets] == sorted(p.dts_us for p in packets)


@pytest.mark.parametrize("moov_first", [True, False])
def test_every_split(moov_first: bool) -> None:
    data = plain(pictures(), sounds(), moov_first=moov_first)
    _, expected = read(data)
    for at_most in [*range(1, 40), 100, 333, 1000]:
        demuxer, sink = make_demuxer(), PacketList()
        demuxer.attach(sink)
        list(drive(demuxer, data, at_most=at_most))
        assert sink.take() == expected


def test_bytes_that_are_not_bytes_objects() -> None:
    data = plain(pictures(), sounds())
    demuxer, sink = make_demuxer(), PacketList()
    demuxer.attach(sink)
    buffer = bytearray(len(data))
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        size = len(data[position : position + count])
        buffer[:size] = data[position : position + count]
        demuxer.feed(memoryview(buffer)[:size])
        buffer[:size] = bytes(size)
    assert sink.take() == read(data)[1]


@pytest.mark.parametrize(
    "timescale", [90_000, 48_000, 44_100, 1000, 600, 12_800, 15_360, 24_000, 30_000, 60_000, 999_999]
)
def test_times_go_there_and_back(timescale: int) -> None:
    delta = 1001 if timescale in (24_000, 30_000, 60_000) else max(1, timescale // 30 + 1)
    track = pictures(200, timescale=timescale, deltas=[(200, delta)], offsets=[(1, delta), (199, 3 * delta)])
    _, packets = read(plain(track))
    for number, packet in enumerate(packets):
        assert round(Fraction(packet.dts_us * timescale, 1_000_000)) == number * delta
        assert round(Fraction(packet.pts_us * timescale, 1_000_000)) == number * delta + (
            3 * delta if number else delta
        )


def test_no_sync_table_means_all_are_keys() -> None:
    assert all(p.keyframe for p in read(plain(pictures(sync=None)))[1])


def test_an_empty_sync_table_leaves_a_beginning() -> None:
    assert [p.keyframe for p in read(plain(pictures(sync=[])))[1]] == [True] + [False] * 11


def test_sizes_of_four_bits_and_equal_sizes() -> None:
    small = Track([sound(n, 1 + n % 15) for n in range(7)], [audio_entry()], "soun", size_bits=4)
    assert [p.payload for p in read(plain(small))[1]] == list(small.payloads)
    equal = Track([sound(n, 9) for n in range(7)], [audio_entry()], "soun", size_bits=0)
    assert [p.payload for p in read(plain(equal))[1]] == list(equal.payloads)


def test_negative_composition_makes_decode_times_earlier() -> None:
    track = pictures(4, offsets=[(1, 0), (1, 512), (2, -512)], offsets_version=1)
    packets = read(plain(track))[1]
    assert [p.dts_us for p in packets] == [-40_000, 0, 40_000, 80_000]
    assert [p.pts_us for p in packets] == [0, 80_000, 40_000, 80_000]


def test_empty_samples_are_passed_over() -> None:
    track = Track([nal(0), b"", nal(2), b""])
    assert [p.dts_us for p in read(plain(track))[1]] == [0, 80_000]


def test_samples_without_a_chunk_are_left_out() -> None:
    track = pictures(extra={"stsc": rows("stsc", "III", (1, 3, 1), (2, 2, 1))}, chunks=[3, 4, 5])
    assert len(read(plain(track))[1]) == 7


# --- edits ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("version", [0, 1])
def test_edits_shift(version: int) -> None:
    track = pictures(offsets=[(12, 1024)], edits=[(500, -1, 1 << 16), (480, 1024, 1 << 16)], header_version=version)
    packets = read(plain(track))[1]
    assert (packets[0].dts_us, packets[0].pts_us) == (420_000, 500_000)
    assert len(packets) == 12


def test_an_edit_begins_at_the_key_before_it_and_ends() -> None:
    track = pictures(edits=[(160, 512 * 6, 1 << 16)])
    packets = read(plain(track))[1]
    assert [p.payload for p in packets] == list(track.payloads[4:10])
    assert [p.dts_us for p in packets] == [(n - 6) * 40_000 for n in range(4, 10)]
    assert packets[0].keyframe


def test_edits_of_many_samples() -> None:
    """Beyond the samples that are walked, an edit's beginning is looked for by halving."""
    count = 10_000
    track = Track([struct.pack(">I", n) for n in range(count)], [audio_entry("ulaw")], "soun", deltas=[(count, 2)])
    track.entries = [video_entry()]
    track.handler, track.sync = "vide", list(range(1, count + 1, 100))
    track.edits = [(0, 2 * 9_050, 1 << 16)]
    assert read(plain(track))[1][0].payload == struct.pack(">I", 9_000)


def test_several_edits_follow_each_other() -> None:
    track = pictures(edits=[(160, 512 * 8, 1 << 16), (80, -1, 1 << 16), (160, 0, 1 << 16)])
    packets = read(plain(track))[1]
    assert [p.payload for p in packets] == [*track.payloads[8:12], *track.payloads[0:4]]
    assert [p.dts_us for p in packets] == [0, 40_000, 80_000, 120_000, 240_000, 280_000, 320_000, 360_000]


def test_aac_is_read_from_before_its_edit() -> None:
    packets = read(plain(sounds(edits=[(300, 1024, 1 << 16)])))[1]
    assert packets[0].dts_us == -21_333
    assert len(packets) == 16  # up to the one that the edit ends in


def test_edits_past_the_media_are_none() -> None:
    assert len(read(plain(pictures(edits=[(100, 1 << 30, 1 << 16)])))[1]) == 12


# --- codecs ---------------------------------------------------------------------------------------------------------

PCM_CASES: list[tuple[str, int, tuple[bytes, ...], bytes, bytes, str]] = [
    ("sowt", 16, (), b"\1\2\3\4", b"\2\1\4\3", "PCM"),
    ("twos", 16, (), b"\1\2\3\4", b"\1\2\3\4", "PCM"),
    ("twos", 8, (), b"\0\x80", b"\x80\0", "PCM"),
    ("raw ", 8, (), b"\0\x80", b"\0\x80", "PCM"),
    ("in24", 16, (box("wave", box("enda", b"\0\1")),), b"\1\2\3\4\5\6", b"\3\2\1\6\5\4", "PCM"),
    ("in32", 16, (), b"\1\2\3\4" * 2, b"\1\2\3\4" * 2, "PCM"),
    ("fl32", 16, (), b"\1\2\3\4" * 2, b"\4\3\2\1" * 2, "FLOAT"),
    ("ipcm", 16, (full("pcmC", b"\1\x18"),), b"\1\2\3\4\5\6", b"\3\2\1\6\5\4", "PCM"),
    (
        "fpcm",
        16,
        (full("pcmC", b"\0\x40"),),
        bytes(range(16)),
        bytes(range(7, -1, -1)) + bytes(range(15, 7, -1)),
        "FLOAT",
    ),
    ("ulaw", 16, (), b"\1\2", b"\1\2", "ULAW"),
    ("alaw", 16, (), b"\1\2", b"\1\2", "ALAW"),
]


@pytest.mark.parametrize(("kind", "bits", "boxes", "stored", "wanted", "codec"), PCM_CASES)
def test_uncompressed_audio(
    kind: str, bits: int, boxes: tuple[bytes, ...], stored: bytes, wanted: bytes, codec: str
) -> None:
    """Frames that are stored one by one become packets of up to 1024."""
    frames = [stored] * 1500
    track = Track(
        frames,
        [audio_entry(kind, *boxes, bits=bits)],
        "soun",
        48_000,
        deltas=[(1500, 1)],
        chunks=[1400, 100],
        size_bits=0,
    )
    demuxer, packets = read(plain(track))
    assert (demuxer.tracks[0].codec, demuxer.tracks[0].channels) == (codec, 2)
    assert [len(p.payload) // len(stored) for p in packets] == [1024, 376, 100]
    assert [p.dts_us for p in packets] == [0, us(1024, 48_000), us(1400, 48_000)]
    assert b"".join(p.payload for p in packets) == wanted * 1500


def quicktime_2(flags: int, bits: int, frame_bytes: int) -> bytes:
    head = struct.pack(">6xHHHIHHhHI", 1, 2, 0, 0, 3, 16, -2, 0, 0x10000)
    return box("lpcm", head, struct.pack(">IdIIIIII", 72, 96_000.0, 2, 0x7F000000, bits, flags, frame_bytes, 1))


@pytest.mark.parametrize(("flags", "bits", "stored", "wanted", "codec"), [
    (4, 24, b"\1\2\3\4\5\6", b"\3\2\1\6\5\4", "PCM"),
    (4 | 2, 24, b"\1\2\3\4\5\6", b"\1\2\3\4\5\6", "PCM"),
    (1, 32, bytes(range(8)), bytes(range(8)), "FLOAT"),
])  # fmt: skip
def test_quicktime_sound_version_2(flags: int, bits: int, stored: bytes, wanted: bytes, codec: str) -> None:
    track = Track([stored] * 10, [quicktime_2(flags, bits, len(stored))], "soun", 96_000, deltas=[(10, 1)], size_bits=0)
    demuxer, packets = read(plain(track))
    info = demuxer.tracks[0]
    assert (info.codec, info.sample_rate_hz, info.channels, info.sample_bits) == (codec, 96_000, 2, bits)
    assert [p.payload for p in packets] == [wanted * 10]


def test_quicktime_sound_version_1_keeps_its_setup_in_wave() -> None:
    head = struct.pack(">6xHHHIHHhHI", 1, 1, 0, 0, 2, 16, -2, 0, 44_100 << 16) + struct.pack(">4I", 1024, 0, 0, 2)
    entry = box(
        "mp4a", head, box("wave", box("frma", b"mp4a"), box("mp4a", bytes(4)), esds(0x40, b"\x12\x10"), bytes(4))
    )
    info = read(plain(Track([sound(1)], [entry], "soun", 44_100)))[0].tracks[0]
    assert (info.codec, info.init_data, info.sample_rate_hz) == ("AAC", b"\x12\x10", 44_100)


@pytest.mark.parametrize("width", [1, 2, 3])
def test_nal_unit_lengths_become_four_bytes(width: int) -> None:
    units = [bytes((0x65,)) * 30, bytes((0x41,)) * 50]
    record = bytearray(AVCC)
    record[4] = 0xFC | width - 1
    payload = b"".join(len(one).to_bytes(width, "big") + one for one in units)
    demuxer, packets = read(plain(Track([payload], [video_entry("avc1", box("avcC", bytes(record)))])))
    assert packets[0].payload == b"".join(struct.pack(">I", len(one)) + one for one in units)
    assert demuxer.tracks[0].init_data[4] & 3 == 3
    assert not demuxer.sizes_are_exact


def test_text_and_cues() -> None:
    text = [
        struct.pack(">H", 5) + b"Hello" + box("styl", bytes(14)),
        struct.pack(">H", 0),
        struct.pack(">H", 3) + b"two",
    ]
    tx3g = Track(text, [box("tx3g", bytes(38))], "sbtl", 1000, deltas=[(3, 1000)])
    demuxer, packets = read(plain(tx3g))
    assert (demuxer.tracks[0].type, demuxer.tracks[0].codec) == ("meta", "subtitle")
    assert [(p.dts_us, p.payload) for p in packets] == [(0, b"Hello"), (2_000_000, b"two")]
    cues = [
        box("vttc", box("sttg", b"line:0"), box("payl", b"Hello")) + box("vttc", box("payl", b"there")),
        box("vtte"),
    ]
    vtt = Track(cues, [box("wvtt", bytes(8), box("vttC", b"WEBVTT"))], "text", 1000)
    assert [p.payload for p in read(plain(vtt))[1]] == [b"Hello\nthere"]
    assert demuxer.sizes_are_exact  # of all that is laid out beforehand, which texts never are


def test_chapters_are_no_subtitles() -> None:
    text = Track([struct.pack(">H", 1) + b"x"], [box("text", bytes(51))], "text", 1000, number=2)
    video = pictures()
    data = plain(video, text)
    assert len(make_tracks(data)) == 2
    reference = box("tref", box("chap", struct.pack(">I", 2)))
    whole = plain(video, text, extra=box("udta"))
    assert len(make_tracks(whole)) == 2
    patched = Track.trak
    try:
        Track.trak = lambda self, places: box("trak", patched(self, places)[8:], reference if self is video else b"")  # type: ignore[method-assign]
        assert len(make_tracks(plain(video, text))) == 1
    finally:
        Track.trak = patched  # type: ignore[method-assign]


def make_tracks(data: bytes) -> list[Any]:
    return read(data)[0].tracks


@pytest.mark.parametrize(("object_type", "kind", "handler", "codec"), [
    (0x61, "mp4v", "vide", "MPEG2"), (0x6C, "mp4v", "vide", "JPEG"), (0x6B, "mp4a", "soun", "MP3"),
    (0xA5, "mp4a", "soun", "AC3"), (0xA9, "mp4a", "soun", "DTS"),
])  # fmt: skip
def test_object_types(object_type: int, kind: str, handler: str, codec: str) -> None:
    entry = (video_entry if handler == "vide" else audio_entry)(kind, esds(object_type))
    assert read(plain(Track([sound(1, 50)], [entry], handler)))[0].tracks[0].codec == codec


def test_what_the_first_frame_says() -> None:
    layer_2 = bytes.fromhex("fffd8404") + bytes(380)
    info = read(plain(Track([layer_2], [audio_entry("mp4a", esds(0x6B))], "soun")))[0].tracks[0]
    assert info.codec == "MP2"


def test_obus_without_size_and_delimiters() -> None:
    record = bytes.fromhex("81000c000a0b00000004 3cff bfff ff30 08".replace(" ", ""))
    sample = b"\x12\0" + b"\x32\x03abc" + b"\x30" + b"z" * 200
    demuxer, packets = read(plain(Track([sample], [video_entry("av01", box("av1C", record[:4]))])))
    assert demuxer.tracks[0].codec == "AV1"
    assert packets[0].payload == b"\x32\x03abc" + b"\x32\xc8\x01" + b"z" * 200


def test_a_second_sample_entry_is_announced() -> None:
    other = video_entry("avc1", width=640, height=360)
    track = pictures(entries=[video_entry(), other, video_entry("zzzz")], chunk_entries=[1, 2, 3])
    demuxer = make_demuxer()
    seen: list[int] = []
    sink = PacketList()
    demuxer.attach(sink)
    data = plain(track)
    demuxer.on_tracks = lambda: seen.append(len(demuxer.tracks))
    list(drive(demuxer, data))
    assert len(sink.take()) == 7  # not those of the third, which is not carried
    assert seen == [1]


def test_only_what_is_carried() -> None:
    with pytest.raises(UnsupportedError):
        read(plain(Track([b"x"], [audio_entry("alac")], "soun")))
    assert len(read(plain(Track([b"x"], [audio_entry("alac")], "soun"), pictures(number=2)))[0].tracks) == 1


# --- reading --------------------------------------------------------------------------------------------------------


def test_an_interleaved_file_is_read_once_from_front_to_back() -> None:
    video = Track([nal(n, 3000) for n in range(400)], sync=[1], chunks=[10] * 40)
    audio = Track(
        [sound(n, 300) for n in range(750)], [audio_entry()], "soun", 48_000, 2, [(750, 1024)], chunks=[19] * 40
    )
    data = plain(video, audio)
    demuxer, sink = make_demuxer(), PacketList()
    demuxer.attach(sink)
    reads = list(drive(demuxer, data))
    assert [position for position, _ in reads] == sorted(position for position, _ in reads)
    assert sum(size for _, size in reads) <= len(data)
    assert len(sink.take()) == 1150


def test_tracks_that_lie_apart_are_read_once_each() -> None:
    video = Track([nal(n, 20_000) for n in range(400)], sync=[1])
    audio = Track([sound(n, 300) for n in range(750)], [audio_entry()], "soun", 48_000, 2, [(750, 1024)])
    data = plain(video, audio)
    demuxer, sink = make_demuxer(), PacketList()
    demuxer.attach(sink)
    assert sum(size for _, size in drive(demuxer, data)) <= len(data) + (1 << 19)
    packets = sink.take()
    assert [p.dts_us for p in packets] == sorted(p.dts_us for p in packets)


def test_nothing_is_written_before_somebody_listens() -> None:
    data = plain(pictures(), sounds())
    demuxer = make_demuxer()
    while not demuxer.ready:
        wanted = demuxer.want()
        assert wanted is not None
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    sink = PacketList()
    demuxer.attach(sink)
    list(drive(demuxer, data))
    assert sink.take() == read(data)[1]
    assert demuxer.ended


# --- seeking and indexes --------------------------------------------------------------------------------------------


def ready(data: bytes) -> Mp4Demuxer:
    demuxer = make_demuxer()
    while not demuxer.ready:
        wanted = demuxer.want()
        assert wanted is not None
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    return demuxer


def test_seeking_goes_to_the_key_before() -> None:
    data = plain(pictures(offsets=[(12, 512)]), sounds())
    demuxer = ready(data)
    for dts_us, first in [(0, 0), (159_999, 0), (160_000, 4), (200_000, 4), (320_000, 8), (99_000_000, 8), (-5, 0)]:
        sink = PacketList()
        demuxer.attach(None)
        demuxer.seek(dts_us, 0)
        demuxer.attach(sink)
        list(drive(demuxer, data))
        packets = sink.take()
        assert of(packets)[0].dts_us == first * 40_000
        assert of(packets)[0].keyframe
        key_us = first * 40_000
        audio = of(packets, 1)
        assert audio[0].dts_us <= key_us < audio[0].dts_us + 43_000
        assert len(of(packets)) == 12 - first


def test_seeking_with_a_clock_finer_than_microseconds() -> None:
    track = pictures(timescale=10_000_000, deltas=[(12, 333_667)], sync=None)
    data = plain(track)
    demuxer = ready(data)
    keys = demuxer.keys(0)
    assert len(keys) == 36
    for number in range(12):
        sink = PacketList()
        demuxer.attach(None)
        demuxer.seek(keys[3 * number], 0)
        demuxer.attach(sink)
        list(drive(demuxer, data))
        assert sink.take()[0].payload == track.payloads[number]


def test_seeking_with_edits() -> None:
    track = pictures(edits=[(160, 512 * 8, 1 << 16), (80, -1, 1 << 16), (160, 0, 1 << 16)])
    data = plain(track)
    demuxer = ready(data)
    for dts_us, payload in [(0, 8), (130_000, 8), (239_999, 8), (240_000, 0), (400_000, 0)]:
        sink = PacketList()
        demuxer.attach(None)
        demuxer.seek(dts_us, 0)
        demuxer.attach(sink)
        list(drive(demuxer, data))
        assert sink.take()[0].payload == track.payloads[payload]


def test_keys_of_many_samples() -> None:
    count = 50_000
    track = Track([b"\0\0\0\1\x41"] * count, deltas=[(count, 512)], sync=list(range(1, count + 1, 250)), size_bits=0)
    data = plain(track)
    demuxer = ready(data)
    keys = demuxer.keys(0)
    assert list(keys[0::3]) == [n * 40_000 for n in range(0, count, 250)]
    assert list(keys[2::3]) == list(range(0, count, 250))
    assert keys[3 * 7 + 1] - keys[1] == 7 * 250 * 5
    assert len(demuxer.keys(0, 60_000_000)) < len(keys) // 4
    for number in (0, 1, 33, 199):
        demuxer.seek(keys[3 * number], 0)
        wanted = demuxer.want()
        assert wanted is None or wanted[0] <= keys[3 * number + 1]


def _runs(numbers: random.Random, count: int, most: int, values: Callable[[], int]) -> list[tuple[int, int]]:
    """Return rows of (samples, value) for so many samples; some rows are for none."""
    made, left = [], count
    while left > 0:
        length = min(numbers.randrange(0, most + 1), left)
        made.append((length, values()))
        left -= length
    return made


def _chunks(numbers: random.Random, count: int, most: int) -> list[int]:
    return [length for length, _ in _runs(numbers, count, most, lambda: 0) if length]


@pytest.mark.parametrize("seed", range(8))
def test_a_seek_finds_what_reading_finds(seed: int) -> None:
    """Tables with more rows, and chunks with more samples, than are passed over at once."""
    numbers = random.Random(seed)
    count = 6000
    most = (1, 2, 9, 6000)[seed % 4]
    sync = sorted({1, *numbers.sample(range(1, count + 1), (40, 2000)[seed % 2])})
    track = Track(
        [struct.pack(">IBI", 5 + n % 7, 0x41, n) + bytes(n % 7) for n in range(count)],
        deltas=_runs(numbers, count - numbers.randrange(2) * 1000, most, lambda: numbers.choice([1, 512, 512, 700])),
        offsets=_runs(numbers, count, most, lambda: numbers.randrange(3) * 512),
        chunks=_chunks(numbers, count, (3, 6000)[seed // 4]),
        sync=sync,
        size_bits=(8, 16, 32)[seed % 3],
    )
    audio = sounds(2000, chunks=_chunks(numbers, 2000, 5))
    data = plain(track, audio)
    _, expected = read(data)
    assert len(expected) == 8000
    demuxer = ready(data)
    keys = [packet for packet in of(expected) if packet.keyframe]
    times = [-1, 0, 1, keys[-1].dts_us + 10**9, *(key.dts_us for key in keys[::97])]
    for dts_us in [*times, *(numbers.randrange(expected[-1].dts_us) for _ in range(20))]:
        sink = PacketList()
        demuxer.attach(None)
        demuxer.seek(dts_us, 0)
        demuxer.attach(sink)
        list(drive(demuxer, data))
        found = sink.take()
        first = next((key for key in reversed(keys) if key.dts_us <= dts_us), keys[0])
        assert of(found) == of(expected)[of(expected).index(first) :]
        heard = of(expected, 1)
        begin = next((n for n in reversed(range(2000)) if heard[n].dts_us <= min(dts_us, first.dts_us)), 0)
        assert of(found, 1) == heard[begin:]


def test_a_seek_in_sound_of_single_frames_finds_what_reading_finds() -> None:
    """Frames of uncompressed sound are packets of at most 1024 frames, as far as they lie together."""
    count = 20_000
    entry = audio_entry("twos", rate_hz=48_000)
    frames = [struct.pack(">I", number) for number in range(count)]
    chunks = [5000, 700, 1024, 3, 9000, 4273]
    audio = Track(frames, [entry], "soun", timescale=48_000, deltas=[(count, 1)], chunks=chunks, size_bits=0)
    data = plain(audio)
    _, expected = read(data)
    demuxer = ready(data)
    for frame in (0, 1, 1023, 1024, 4999, 5000, 5699, 5700, 6723, 6724, 6727, 19_999, 20_000, 1 << 40):
        sink = PacketList()
        demuxer.attach(None)
        demuxer.seek(us(frame, 48_000), 0)
        demuxer.attach(sink)
        list(drive(demuxer, data))
        begin = max(n for n, one in enumerate(expected) if one.dts_us <= us(frame, 48_000))
        assert sink.take() == expected[begin:]


def test_seeking_before_the_tracks_are_known() -> None:
    for call in (lambda d: d.seek(0, 0), lambda d: d.keys(0), lambda d: d.share()):
        with pytest.raises(NotReady):
            call(make_demuxer())


@pytest.mark.parametrize("make", [
    lambda: plain(pictures(), sounds()),
    lambda: plain(pictures(), sounds(), moov_first=False),
    lambda: plain(pictures(), opus_sounds()),
    lambda: two_fragments(),
])  # fmt: skip
def test_indexing_reads_no_media(make: Callable[[], bytes]) -> None:
    data = make()
    _, expected = read(data)
    demuxer = ready(data)
    from mist.formats.mp4_file import make_layout

    layout = make_layout(demuxer.tracks)
    demuxer.index_into(layout)
    reads = list(drive(demuxer, data))
    assert demuxer.sizes_are_exact
    layout.finish()
    assert layout.packets == len(expected)
    for number, packet in enumerate(expected):
        assert layout.locate(number)[:2] == (packet.track, packet.dts_us)
    assert layout.total_bytes - layout.header_bytes == sum(len(p.payload) for p in expected)
    if b"moof" not in data:
        assert not reads


def test_sharing_tables() -> None:
    data = plain(pictures(), sounds())
    demuxer = ready(data)
    for one in (demuxer.share(), demuxer.share(), demuxer.share().share()):
        assert one.tracks == demuxer.tracks
        assert demux(one, data) == read(data)[1]


# --- fragments ------------------------------------------------------------------------------------------------------

KEY = 0x0200_0000
NO_KEY = 0x0101_0000


def empty(**fields: Any) -> Track:
    return Track([], extra={"stsc": rows("stsc", "III")}, **fields)


def two_fragments() -> bytes:
    data = fragmented(
        empty(),
        empty(entries=[audio_entry()], handler="soun", timescale=48_000, number=2),
        defaults=[trex(1), trex(2, 1024, 0, KEY)],
    )
    for number in range(2):
        video = Run(
            [nal(number * 4 + n) for n in range(4)],
            dts=2048 * number,
            first_flags=KEY,
            offsets=[512, 1536, 512, 0],
            split=2,
        )
        audio = Run([sound(number * 7 + n) for n in range(7)], 2, 7168 * number)
        data += fragment(video, audio, position=len(data), sequence=number + 1)
    return data


def test_golden_fragments() -> None:
    _, packets = read(two_fragments())
    video, audio = of(packets), of(packets, 1)
    assert [p.payload for p in video] == [nal(n) for n in range(8)]
    assert [p.payload for p in audio] == [sound(n) for n in range(14)]
    assert [p.dts_us for p in video] == [n * 40_000 for n in range(8)]
    assert [p.offset_us for p in video] == [40_000, 120_000, 40_000, 0] * 2
    assert [n for n, p in enumerate(video) if p.keyframe] == [0, 4]
    assert [p.dts_us for p in audio] == [us(n * 1024, 48_000) for n in range(14)]
    assert [p.dts_us for p in packets] == sorted(p.dts_us for p in packets)


@pytest.mark.parametrize("base", ["moof", "explicit", ""])
def test_fragments_of_boxes_with_sizes_of_64_bits(base: str) -> None:
    head = fragmented(empty())
    smooth = box(
        "uuid",
        bytes.fromhex("6d1d9b0542d544e680e2141daff757b2") + struct.pack(">IQQ", 1 << 24, 7 * 512, 512),
        wide=True,
    )
    for timed in ({"dts": 1024}, {"dts": None, "extra": smooth}):
        run = Run([nal(0), nal(1), nal(2)], offsets=[512, 0, 512], split=1, base=base, **timed)
        _, expected = read(head + fragment(run, position=len(head)))
        data = head + fragment(run, position=len(head), wide=True)
        _, packets = read(data)
        assert len(packets) == 3 and packets == expected
        for wrong in (15, len(data), 1 << 63):
            at = data.index(b"trun") - 4
            with pytest.raises(RemoteProtocolError):
                read(data[: at + 8] + struct.pack(">Q", wrong) + data[at + 16 :])


def test_fragments_in_every_split_and_in_order() -> None:
    data = two_fragments()
    _, expected = read(data)
    for at_most in [*range(1, 40), 100, 333]:
        demuxer, sink = make_demuxer(), PacketList()
        demuxer.attach(sink)
        reads = list(drive(demuxer, data, at_most=at_most))
        assert sink.take() == expected
        assert [position for position, _ in reads] == sorted(position for position, _ in reads)


@pytest.mark.parametrize("base", ["moof", "explicit", ""])
@pytest.mark.parametrize("timed", [True, False])
def test_bases_and_times(base: str, timed: bool) -> None:
    data = fragmented(empty(), empty(number=2))
    for number in range(3):
        runs = [
            Run([nal(n + 10 * place + 100 * number) for n in range(3)], place + 1, 3000 * number if timed else None,
                durations=[1000] * 3, flags=[KEY, NO_KEY, NO_KEY], base=base if place == 0 else base or "moof")
            for place in range(2)
        ]  # fmt: skip
        data += fragment(*runs, position=len(data))
    packets = read(data)[1]
    for track in range(2):
        assert [p.dts_us for p in of(packets, track)] == [us(n * 1000, 12_800) for n in range(9)]
        assert [p.keyframe for p in of(packets, track)] == [True, False, False] * 3
        assert [p.payload for p in of(packets, track)] == [
            nal(n + 10 * track + 100 * m) for m in range(3) for n in range(3)
        ]


def test_positions_of_fragments_that_were_moved() -> None:
    """Where the first moof counts from itself, what is missing or too much before another one moves its data, wherever that is."""
    data = fragmented(empty(), empty(number=2))
    for number, moved in enumerate((0, 0, 70, -50)):
        runs = [
            Run([nal(10 * number)], 1, 512 * number, flags=[KEY], base="explicit"),
            Run([nal(10 * number + 1)], 2, 512 * number, flags=[KEY], base="media"),
        ]
        data += fragment(*runs, position=len(data) + moved)
    packets = read(data)[1]
    for track in range(2):
        assert [p.payload for p in of(packets, track)] == [nal(10 * number + track) for number in range(4)]


@pytest.mark.parametrize("base", ["moof", "explicit"])
def test_fragments_behind_four_gigabytes(base: str) -> None:
    """A box of 5 GiB is passed over by its size of 64 bits, and what follows is found, also with a time of 64 bits."""
    head = fragmented(empty()) + fragment(Run([nal(0)]), position=len(fragmented(empty())))
    far = len(head) + (5 << 30)
    late = 1 << 40
    large = struct.pack(">I4sQ", 1, b"mdat", 5 << 30)
    index = box("sidx", bytes(32))
    tail = (
        index + fragment(Run([nal(1), nal(2)], dts=late, base=base), position=far + len(index)) + box("mfra", bytes(24))
    )
    pieces = {0: head + large, far: tail}
    demuxer, sink = make_demuxer(), PacketList()
    demuxer.attach(sink)
    fed = 0
    while (wanted := demuxer.want()) is not None:
        position, count = wanted
        begin = far if position >= far else 0
        data = pieces[begin][position - begin : position - begin + count]
        fed += len(data)
        demuxer.feed(data)
        assert fed < 10_000
    packets = sink.take()
    assert [one.payload for one in packets] == [nal(0), nal(1), nal(2)]
    assert packets[1].dts_us == us(late, 12_800)
    demuxer.seek(packets[1].dts_us, far)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(tail[wanted[0] - far : wanted[0] - far + wanted[1]])
    assert sink.take() == packets[1:]


@pytest.mark.parametrize("sizes_in_rows", [True, False])
def test_media_that_begins_where_that_of_a_track_left_out_ends(sizes_in_rows: bool) -> None:
    """Without any place said, which is what `default-base-is-moof` unset means behind the first track."""
    hidden, shown = [bytes(30)] * 3, [nal(n) for n in range(3)]
    size = 0 if sizes_in_rows else 30
    head = fragmented(empty(entries=[box("none", bytes(78))]), empty(number=2), defaults=[trex(1, size=size), trex(2)])

    def traf(number: int, payloads: list[bytes], offset: int | None) -> bytes:
        rows_of = b"".join(struct.pack(">I", len(one)) for one in payloads)
        flags = 0x200 if sizes_in_rows or number == 2 else 0
        place = b"" if offset is None else struct.pack(">i", offset)
        body = struct.pack(">I", len(payloads)) + place + (rows_of if flags else b"")
        run = full("trun", body, flags=flags | (offset is not None))
        return box("traf", full("tfhd", struct.pack(">I", number)), run)

    def moof(offset: int) -> bytes:
        return box("moof", full("mfhd", struct.pack(">I", 1)), traf(1, hidden, offset), traf(2, shown, None))

    data = head + moof(len(moof(0)) + 8) + box("mdat", *hidden, *shown)
    demuxer, packets = read(data)
    assert demuxer.left_out == ["track 1 is left out: none is not carried"]
    assert [packet.payload for packet in packets] == shown


def test_one_track_in_each_fragment_is_merged() -> None:
    data = fragmented(empty(), empty(number=2))
    for number in range(3):
        for place in range(2):
            run = Run([nal(n + 10 * place + 100 * number) for n in range(25)], place + 1, 25 * 512 * number)
            data += box("styp", b"msdh") + box("sidx", bytes(24))
            data += fragment(run, position=len(data))
    packets = read(data)[1]
    assert len(packets) == 150
    assert [p.dts_us for p in packets] == sorted(p.dts_us for p in packets)


def test_a_track_that_never_comes_holds_nothing_up() -> None:
    data = fragmented(empty(), empty(number=2))
    for number in range(20):
        data += fragment(Run([nal(n) for n in range(25)], 1, 25 * 512 * number), position=len(data))
    demuxer, sink = make_demuxer(), PacketList()
    demuxer.attach(sink)
    counts = []
    for _ in drive(demuxer, data, at_most=500):
        counts.append(len(sink.take()))
    assert sum(counts) == 500
    assert sum(counts[: len(counts) // 2]) > 100


def test_smooth_streaming_times() -> None:
    uuid = bytes.fromhex("6d1d9b0542d544e680e2141daff757b2")
    data = fragmented(empty(timescale=10_000_000))
    time = box("uuid", uuid, struct.pack(">IQQ", 1 << 24, 50_000_000, 800_000))
    data += fragment(Run([nal(0), nal(1)], dts=None, durations=[400_000] * 2, base="", extra=time), position=len(data))
    data += fragment(Run([nal(2), nal(3)], dts=None, durations=[400_000] * 2, base=""), position=len(data))
    assert [p.dts_us for p in read(data)[1]] == [5_000_000, 5_040_000, 5_080_000, 5_120_000]


def test_a_recording_that_was_cut_off_plays_to_its_end() -> None:
    data = two_fragments()
    whole = read(data)[1]
    for end in range(len(data) - 1, data.index(b"moof") + 200, -7):
        packets = read(data[:end])[1]
        for track in range(2):
            assert of(packets, track) == of(whole, track)[: len(of(packets, track))]


def test_samples_in_moov_and_then_fragments() -> None:
    track = pictures(4, chunks=[4], sync=[1])
    data = plain(track, extra=box("mvex", trex(1)))
    data += fragment(Run([nal(50), nal(51)], dts=None, first_flags=KEY), position=len(data))
    packets = read(data)[1]
    assert [p.dts_us for p in packets] == [n * 40_000 for n in range(6)]
    assert [p.payload for p in packets][4:] == [nal(50), nal(51)]


def test_seeking_in_fragments() -> None:
    data = two_fragments()
    demuxer = ready(data)
    second = data.rindex(b"moof") - 4
    for position, first in [(second, 160_000), (0, 0)]:
        sink = PacketList()
        demuxer.attach(None)
        demuxer.seek(first, position)
        demuxer.attach(sink)
        list(drive(demuxer, data))
        packets = sink.take()
        assert of(packets)[0].dts_us == first
        assert of(packets)[0].keyframe
    assert demuxer.position == second


def test_edits_of_fragmented_files_shift() -> None:
    data = fragmented(empty(edits=[(1000, -1, 1 << 16), (0, 512, 1 << 16)]))
    data += fragment(Run([nal(0), nal(1)], offsets=[512, 512]), position=len(data))
    packets = read(data)[1]
    assert [(p.dts_us, p.pts_us) for p in packets] == [(960_000, 1_000_000), (1_000_000, 1_040_000)]


# --- lies -----------------------------------------------------------------------------------------------------------


def lie(track: Track | None = None, **extra: bytes) -> bytes:
    return plain(track or pictures(extra=extra))


LIES: dict[str, tuple[Callable[[], bytes], type[Exception]]] = {
    "no moov": (lambda: box("ftyp", b"isom") + box("mdat", bytes(100)), TruncatedError),
    "nothing": (lambda: b"", TruncatedError),
    "box of 7 bytes": (lambda: box("ftyp") + struct.pack(">I4s", 7, b"free"), RemoteProtocolError),
    "box of 2^63 bytes": (lambda: struct.pack(">I4sQ", 1, b"free", 1 << 63), RemoteProtocolError),
    "moov larger than the file": (lambda: plain(pictures(), moov_first=False)[:-1], TruncatedError),
    "moov of a gigabyte": (lambda: struct.pack(">I4s", 1 << 30, b"moov") + bytes(100), LimitExceededError),
    "stts rows": (lambda: lie(stts=full("stts", struct.pack(">I", 1 << 31), bytes(8))), RemoteProtocolError),
    "ctts rows": (lambda: lie(ctts=full("ctts", struct.pack(">I", 5), bytes(32))), RemoteProtocolError),
    "stss rows": (lambda: lie(stss=full("stss", struct.pack(">I", 5), bytes(4))), RemoteProtocolError),
    "stco rows": (lambda: lie(stco=full("stco", struct.pack(">I", 0xFFFFFFFF))), RemoteProtocolError),
    "stsz rows": (lambda: lie(stsz=full("stsz", struct.pack(">II", 0, 1 << 30))), RemoteProtocolError),
    "stz2 of 5 bits": (lambda: lie(stsz=full("stz2", struct.pack(">II", 5, 1), bytes(8))), RemoteProtocolError),
    "stts of 4 bytes": (lambda: lie(stts=box("stts", bytes(4))), RemoteProtocolError),
    "stsc goes back": (lambda: lie(stsc=rows("stsc", "III", (2, 1, 1), (1, 1, 1))), RemoteProtocolError),
    "stsc from zero": (lambda: lie(stsc=rows("stsc", "III", (0, 1, 1))), RemoteProtocolError),
    "too many samples": (
        lambda: lie(stsz=full("stsz", struct.pack(">II", 1, 1 << 31)), stsc=rows("stsc", "III", (1, 1 << 31, 1))),
        LimitExceededError,
    ),
    "chunk past the end": (lambda: lie(stco=rows("stco", "I", (1 << 31,), (1,), (2,))), TruncatedError),
    "chunk at 2^63": (lambda: lie(stco=rows("co64", "Q", (1 << 63,), (1,), (2,))), RemoteProtocolError),
    "sample of 4 GiB": (
        lambda: lie(stsz=full("stsz", struct.pack(">II3I", 0, 3, 0xFFFFFFFF, 1, 1))),
        LimitExceededError,
    ),
    "no ticks a second": (lambda: plain(pictures(timescale=0)), RemoteProtocolError),
    "no movie ticks a second": (lambda: plain(pictures(), timescale=0), RemoteProtocolError),
    "one tick a second, long samples": (
        lambda: plain(pictures(timescale=1, deltas=[(12, 0x7FFFFFFF)], offsets=[(12, 0)])),
        type(None),  # 272 years: unusual, and no error
    ),
    "edits": (
        lambda: plain(pictures()).replace(b"mdia", b"edts", 1),
        UnsupportedError,
    ),
    "edit rows": (lambda: movie_with(box("edts", full("elst", struct.pack(">I", 9)))), RemoteProtocolError),
    "edit of 2^62": (
        lambda: plain(pictures(edits=[((1 << 63) - 1, -1, 1 << 16)], header_version=1)),
        RemoteProtocolError,
    ),
    "box in a box": (lambda: movie(struct.pack(">I4s", 500, b"trak")), RemoteProtocolError),
    "tkhd cut off": (lambda: movie(box("trak", box("tkhd", bytes(3)))), RemoteProtocolError),
    "65 tracks": (lambda: movie(*[box("trak")] * 65), RemoteProtocolError),
    "no tracks": (lambda: movie(), UnsupportedError),
    "sample entry cut off": (lambda: plain(pictures(entries=[box("avc1", bytes(20))])), RemoteProtocolError),
    "avcC cut off": (lambda: plain(pictures(entries=[video_entry("avc1", box("avcC", b"\1"))])), RemoteProtocolError),
    "tfdt of 2^63": (lambda: fragments_of(Run([nal(0)], dts=(1 << 64) - 5)), RemoteProtocolError),
    "trun rows": (
        lambda: (
            fragmented(empty())
            + box(
                "moof",
                box("traf", full("tfhd", struct.pack(">I", 1)), full("trun", struct.pack(">I", 99), flags=0x100)),
            )
        ),
        RemoteProtocolError,
    ),
    "trun without rows": (
        lambda: (
            fragmented(empty())
            + box("moof", box("traf", full("tfhd", struct.pack(">I", 1)), full("trun", struct.pack(">I", 0xFFFFFFFF))))
        ),
        LimitExceededError,
    ),
    "traf larger than moof": (
        lambda: fragmented(empty()) + box("moof", struct.pack(">I4s", 100, b"traf")),
        RemoteProtocolError,
    ),
}


def movie_with(inside: bytes) -> bytes:
    return movie(box("trak", inside))


def fragments_of(*runs: Run) -> bytes:
    data = fragmented(empty())
    return data + fragment(*runs, position=len(data))


@pytest.mark.parametrize("name", LIES)
def test_lies(name: str) -> None:
    make, error = LIES[name]
    if error is type(None):
        read(make())
        return
    with pytest.raises(RemoteProtocolError) as caught:
        read(make())
    assert isinstance(caught.value, error)
    assert caught.value.offset is not None
    assert str(caught.value)


def test_a_file_cut_off_at_every_byte_of_its_head() -> None:
    data = plain(pictures(), sounds())
    for end in range(data.index(b"mdat") + 20):
        with pytest.raises(RemoteProtocolError):
            read(data[:end])

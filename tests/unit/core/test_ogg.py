"""Ogg: pages, the demuxer over damage, chains and every split, the muxer's granule positions and order of pages."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.ogg import serialize_pages
from mist.core.ogg_demux import MAX_PACKET_BYTES, MAX_STREAMS, OggDemuxer
from mist.core.packet import Packet
from mist.errors import (
    LimitExceededError,
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedError,
    UnsupportedError,
)
from mist.formats import flac, ogg, opus, speex
from mist.formats.tracks import AUDIO, FLAC, H264, OPUS, SPEEX, VIDEO, TrackInfo
from tests.support.codec_samples import golden
from tests.support.demuxing import demux_cut, demux_pieces, mux, packet_positions, same_bytes_from_every_state

CORPUS = Path(__file__).resolve().parents[2] / "data" / "ogg" / "corpus"
FILES = sorted(path.name for path in CORPUS.iterdir())
FIRST, LAST, CONTINUED = 2, 4, 1
HEAD = opus.build_head(opus.OpusHead(2, 312, coupled=1))
TAGS = b"OpusTags" + b"\x04\0\0\0mist\0\0\0\0"
OPUS_TRACK = TrackInfo(AUDIO, OPUS, HEAD, sample_rate_hz=48000, channels=2, sample_bits=16)
THEORA_TRACK = replace(golden("theora", "plain").track(), width=70, height=50)
VORBIS_TRACK = golden("vorbis", "plain").track()


@dataclass(frozen=True)
class Page:
    flags: int
    granule: int
    serial: int
    number: int
    lacing: bytes
    body: bytes
    whole: bytes


def pages(data: bytes) -> list[Page]:
    """Split a stream into its pages, checking each checksum in the slow and plain way."""
    found = []
    while data:
        assert data[:5] == b"OggS\0"
        lacing = data[27 : 27 + data[26]]
        size = 27 + data[26] + sum(lacing)
        whole, data = data[:size], data[size:]
        assert len(whole) == size and plain_checksum(whole) == int.from_bytes(whole[22:26], "little")
        granule = int.from_bytes(whole[6:14], "little", signed=True)
        serial, number = int.from_bytes(whole[14:18], "little"), int.from_bytes(whole[18:22], "little")
        found.append(Page(whole[5], granule, serial, number, lacing, whole[27 + len(lacing) :], whole))
    return found


def plain_checksum(page: bytes) -> int:
    value = 0
    for byte in page[:22] + bytes(4) + page[26:]:
        value ^= byte << 24
        for _ in range(8):
            value = (value << 1) ^ (0x104C11DB7 if value & 0x80000000 else 0)
    return value


def page(packets: list[bytes], number: int, granule: int, flags: int = 0, serial: int = 1) -> bytes:
    return serialize_pages(packets, serial, number, flags, granule)[0]


def opus_stream(serial: int = 1, first: int = 0, count: int = 10, per_page: int = 1, mark: bytes = b"") -> bytes:
    """Return a link of 20 ms Opus packets, whose samples begin at granule position first."""
    data = page([HEAD], 0, 0, FIRST, serial) + page([TAGS], 1, 0, 0, serial)
    for start in range(0, count, per_page):
        packets = [b"\xfc" + mark + bytes((number,)) for number in range(start, min(start + per_page, count))]
        end = first + 960 * min(start + per_page, count)
        last = LAST if start + per_page >= count else 0
        data += page(packets, 2 + start // per_page, end, last, serial)
    return data


def read(data: bytes) -> list[Packet]:
    return demux(ogg.make_demuxer(), data)


def times(packets: list[Packet], track: int = 0) -> list[int]:
    return [packet.dts_us for packet in packets if packet.track == track]


# -- pages


def test_golden_page() -> None:
    data, count = serialize_pages([b"abc", bytes(255)], 0x01020304, 5, FIRST, 0x1122334455667788)
    expected = (
        bytes.fromhex("4f676753000288776655443322110403020105000000") + bytes(4) + b"\x03\x03\xff\x00abc" + bytes(255)
    )
    assert (data[:22] + bytes(4) + data[26:], count) == (expected, 1)
    assert len(pages(data)) == 1


def test_header_packets_over_several_pages() -> None:
    data, count = serialize_pages([bytes(70_000), b"end"], 1, 1)
    first, second = pages(data)
    assert count == 2 and (first.flags, first.granule, len(first.lacing)) == (0, -1, 255)
    assert (second.flags, second.granule, second.number, second.lacing[-1]) == (CONTINUED, 0, 2, 3)


# -- the demuxer


@pytest.mark.parametrize("name", FILES)
def test_every_split_gives_the_same_packets(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    whole = read(data)
    assert whole
    for step in (1, 7, 1000):
        assert demux_pieces(ogg.make_demuxer(), data, step) == whole
    stride = max(len(data) // 700, 1)
    for cut in range(1, len(data), stride):
        assert demux_cut(ogg.make_demuxer(), data, cut) == whole


@pytest.mark.parametrize(
    ("name", "tracks", "count", "first_us", "last_us"),
    [
        ("opus.ogg", [(OPUS, "nld", 48000, 1)], [51], -6500, 993_500),
        ("vorbis.ogg", [("vorbis", "und", 44100, 2)], [45], -2902, 988_299),
        ("flac.ogg", [(FLAC, "und", 8000, 1)], [7], 0, 864_000),
        ("speex.ogg", [(SPEEX, "und", 16000, 1)], [50], -8937, 971_063),
    ],
)
def test_golden_files(name: str, tracks: list[object], count: list[int], first_us: int, last_us: int) -> None:
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, (CORPUS / name).read_bytes())
    assert [(t.codec, t.language, t.sample_rate_hz, t.channels) for t in demuxer.tracks] == tracks
    assert [len(times(packets, track)) for track in range(len(tracks))] == count
    assert (packets[0].dts_us, packets[-1].dts_us) == (first_us, last_us)


def test_golden_video() -> None:
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, (CORPUS / "theora.ogv").read_bytes())
    video = demuxer.tracks[0]
    assert (video.codec, video.width, video.height, video.frame_rate_mhz) == ("theora", 70, 50, 29970)
    assert (len(times(packets)), times(packets)[0], times(packets)[-1]) == (
        25,
        0,
        967_633,
    )  # five frames were not coded
    keys = [packet.dts_us for packet in packets if packet.track == 0 and packet.keyframe]
    assert keys == [0, 266_933, 533_867, 800_800]
    assert all(packet.keyframe for packet in packets if packet.track == 1)


def test_a_skeleton_is_ignored() -> None:
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, (CORPUS / "skeleton.ogg").read_bytes())
    assert [track.codec for track in demuxer.tracks] == ["vorbis"]
    assert {packet.track for packet in packets} == {0}


@pytest.mark.parametrize("per_page", [1, 3, 10])
@pytest.mark.parametrize("first", [0, 48000])
def test_opus_times_do_not_depend_on_the_pages(per_page: int, first: int) -> None:
    begin = first * 125 // 6 - 6500
    assert times(read(opus_stream(first=first, per_page=per_page))) == [begin + 20_000 * n for n in range(10)]


def test_the_last_page_may_end_early() -> None:
    data = page([HEAD], 0, 0, FIRST) + page([TAGS], 1, 0) + page([b"\xfc0", b"\xfc1"], 2, 1000, LAST)
    assert times(read(data)) == [-6500, 13_500]


def test_links_of_a_chain_go_on() -> None:
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, opus_stream(1, mark=b"a") + opus_stream(2, mark=b"b", first=96000))
    assert len(demuxer.tracks) == 1 and len(packets) == 20
    # The first link ends at 200 ms less the pre-skip; the second begins there, wherever its own times begin.
    assert times(packets) == [-6500 + 20_000 * number for number in range(20)]


@pytest.mark.parametrize("name", ["chained.opus", "same_serial.opus"])
def test_chained_files_have_rising_times(name: str) -> None:
    demuxer = ogg.make_demuxer()
    found = times(demux(demuxer, (CORPUS / name).read_bytes()))
    assert len(demuxer.tracks) == 1
    assert all(0 < after - before <= 20_000 for before, after in itertools.pairwise(found))


def test_a_new_link_with_other_headers_changes_the_track() -> None:
    other = opus_stream(2).replace(page([HEAD], 0, 0, FIRST, 2), page([HEAD[:9] + b"\x01" + HEAD[10:]], 0, 0, FIRST, 2))
    demuxer = ogg.make_demuxer()
    changes: list[int] = []
    demuxer.on_tracks = lambda: changes.append(demuxer.tracks[0].channels)
    assert len(demux(demuxer, opus_stream(1) + other)) == 20
    assert changes == [1]


def test_another_codec_in_a_new_link_is_a_new_track() -> None:
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, (CORPUS / "opus.ogg").read_bytes() + (CORPUS / "flac.ogg").read_bytes())
    assert [track.codec for track in demuxer.tracks] == [OPUS, FLAC]
    assert times(packets, 1)[0] == 1_000_000  # the trimmed end of the first link


def test_streams_side_by_side_keep_their_times() -> None:
    first, second = pages(opus_stream(1)), pages(opus_stream(2, first=48000))
    data = b"".join(a.whole + b.whole for a, b in zip(first, second, strict=True))
    packets = read(data)
    assert times(packets, 0) == [-6500 + 20_000 * n for n in range(10)]
    assert times(packets, 1) == [993_500 + 20_000 * n for n in range(10)]


def test_damage_costs_the_pages_it_is_in() -> None:
    whole = pages(opus_stream(per_page=2))
    for lost in range(2, len(whole)):
        for damaged in (b"", whole[lost].whole[:-1] + b"\x55", whole[lost].whole[:-1], b"junk OggS junk"):
            data = b"".join(p.whole if n != lost else damaged for n, p in enumerate(whole))
            expected = [n for n in range(10) if n // 2 != lost - 2]
            assert times(read(data)) == [-6500 + 20_000 * n for n in expected]


def test_packets_over_several_pages() -> None:
    payloads = [b"\xfcsmall", b"\xfc" + bytes(range(256)) * 600, b"\xfcend"]
    given = [Packet(0, 20_000 * number - 6500, 0, True, payload) for number, payload in enumerate(payloads)]
    data = mux(ogg.make_muxer([OPUS_TRACK], 500_000), given)
    assert [one.granule for one in pages(data)] == [0, 0, 960, -1, 2880]
    assert read(data) == given


@pytest.mark.parametrize("lost", [2, 3, 4])
def test_a_packet_that_lost_a_part_is_left_out(lost: int) -> None:
    body = b"\xfc" + bytes(150_000)
    long = pages(page([body, b"\xfcend"], 2, 1920))
    assert len(long) == 3
    rest = page([b"\xfcnext"], 5, 2880)
    kept = b"".join(one.whole for one in long if one.number != lost)
    packets = read(page([HEAD], 0, 0, FIRST) + page([TAGS], 1, 0) + kept + rest)
    expected = [b"\xfcnext"] if lost == 4 else [b"\xfcend", b"\xfcnext"]
    assert [packet.payload for packet in packets] == expected
    assert times(packets)[-1] == 33_500


def test_a_stream_that_began_before_this_input() -> None:
    data = opus_stream(1)
    joined = b"".join(p.whole for p in pages(data)[5:]) + opus_stream(2)
    assert times(read(joined)) == [-6500 + 20_000 * n for n in range(10)]


def test_packets_without_media_are_left_out() -> None:
    data = page([HEAD], 0, 0, FIRST) + page([TAGS], 1, 0) + page([b"", b"\xff", b"\xff\x00", b"\xfcx"], 2, 1272)
    assert [packet.payload for packet in read(data)] == [b"\xfcx"]


def test_an_empty_theora_packet_is_a_frame_of_time() -> None:
    headers = ogg.header_packets(THEORA_TRACK)
    shift = ogg.timing(THEORA_TRACK).granule_shift
    data = page(headers[:1], 0, 0, FIRST) + page(headers[1:], 1, 0) + page([b"\0key", b"", b"\x40p"], 2, 1 << shift | 2)
    packets = read(data)
    assert [(packet.dts_us, packet.keyframe) for packet in packets] == [(0, True), (66_733, False)]


@pytest.mark.parametrize("name", ["opus.ogg", "vorbis.ogg", "theora.ogv", "flac.ogg", "speex.ogg"])
def test_seeking_gives_the_same_packets_from_there(name: str) -> None:
    data = (CORPUS / name).read_bytes()
    demuxer = ogg.make_demuxer()
    found = packet_positions(demuxer, data)
    whole = [packet for packet, _ in found]
    sink = PacketList()
    demuxer.attach(sink)
    for packet, position in found[:: max(len(found) // 12, 1)]:
        demuxer.seek(packet.dts_us, position)
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + 999])
        again = [one for one in sink.take() if one.track == packet.track and one.dts_us >= packet.dts_us]
        assert again == [one for one in whole if one.track == packet.track and one.dts_us >= packet.dts_us]


def test_seeking_between_links() -> None:
    data = opus_stream(1, mark=b"a") + opus_stream(2, mark=b"b")
    demuxer = ogg.make_demuxer()
    found = packet_positions(demuxer, data)
    sink = PacketList()
    demuxer.attach(sink)
    for number in (15, 3, 19, 0):
        packet, position = found[number]
        demuxer.seek(packet.dts_us, position)
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        again = [one for one in sink.take() if one.dts_us >= packet.dts_us]
        assert again == [one for one, _ in found[number:]]


def test_seeking_before_anything_was_read() -> None:
    with pytest.raises(TruncatedError):
        ogg.make_demuxer().seek(0, 0)


@pytest.mark.parametrize("data", [b"", b"OggS", b"x" * 100])
def test_inputs_without_a_page(data: bytes) -> None:
    with pytest.raises(TruncatedError):
        read(data)


def test_junk_is_not_read_forever() -> None:
    with pytest.raises(RemoteProtocolError, match="no Ogg page"):
        read(b"OggX" * 400_000)


def test_inputs_cut_anywhere_in_their_headers() -> None:
    data = (CORPUS / "vorbis.ogg").read_bytes()
    end = sum(len(one.whole) for one in pages(data)[:3])
    for size in range(0, end, 13):
        try:
            assert read(data[:size]) == []
        except TruncatedError:
            continue


def test_unknown_and_broken_streams() -> None:
    with pytest.raises(UnsupportedError):
        read(page([b"fishead\0"], 0, 0, FIRST) + page([b"x"], 1, 0))
    broken = page([b"\x01vorbis" + bytes(23)], 0, 0, FIRST, 7)
    with pytest.raises(RemoteProtocolError):
        read(broken + page([b"\x03vorbis", b"\x05vorbis"], 1, 0, 0, 7) + page([b"\0x"], 2, 5, 0, 7))
    together = pages(opus_stream())
    demuxer = ogg.make_demuxer()
    data = together[0].whole + broken + b"".join(p.whole for p in together[1:]) + page([b"\0x"], 1, 5, 0, 7)
    assert len(demux(demuxer, data)) == 10 and [track.codec for track in demuxer.tracks] == [OPUS]


def test_limits() -> None:
    streams = b"".join(page([b"fishead"], 0, 0, FIRST, serial) for serial in range(MAX_STREAMS + 1))
    with pytest.raises(LimitExceededError):
        read(streams)
    endless = page([HEAD], 0, 0, FIRST) + page([TAGS], 1, 0) + page([b"\xfc" + bytes(MAX_PACKET_BYTES)], 2, 0)
    with pytest.raises(LimitExceededError):
        read(endless)


# -- the muxer


def opus_packets(count: int = 100, begin_us: int = -6500, size: int = 60) -> list[Packet]:
    return [Packet(0, begin_us + 20_000 * n, 0, True, b"\xfc" + bytes((n & 255,)) * size) for n in range(count)]


def test_golden_stream() -> None:
    found = pages(mux(ogg.make_muxer([OPUS_TRACK], 0), opus_packets(2)))
    assert [(p.flags, p.granule, p.serial, p.number, p.lacing) for p in found] == [
        (FIRST, 0, 1, 0, b"\x13"),
        (0, 0, 1, 1, b"\x14"),
        (0, 960, 1, 2, b"\x3d"),
        (0, 1920, 1, 3, b"\x3d"),
        (LAST, -1, 1, 4, b""),
    ]
    assert found[0].body == HEAD and found[1].body == TAGS


def test_pages_of_a_file_hold_their_time_and_the_last_is_marked() -> None:
    found = pages(mux(ogg.make_muxer([OPUS_TRACK], 200_000), opus_packets(25)))[2:]
    assert [len(p.lacing) for p in found] == [10, 10, 5]
    assert [p.granule for p in found] == [9600, 19200, 24000]
    assert [p.flags for p in found] == [0, 0, LAST]


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("page_us", [0, 50_000, 500_000])
def test_round_trip(name: str, page_us: int) -> None:
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, (CORPUS / name).read_bytes())
    again = ogg.make_demuxer()
    output = mux(ogg.make_muxer(demuxer.tracks, page_us), packets)
    pages(output)
    found = demux(again, output)
    for track in range(len(demuxer.tracks)):
        assert [p for p in found if p.track == track] == [p for p in packets if p.track == track]
    assert [t.changed(track_id=0) for t in again.tracks] == [t.changed(track_id=0) for t in demuxer.tracks]


def test_pages_of_several_streams_are_in_order_of_time() -> None:
    video = [
        Packet(0, n * 1001 * 1000 // 30, 0, n % 8 == 0, (b"\0" if n % 8 == 0 else b"\x40") + bytes(2000))
        for n in range(90)
    ]
    audio = [Packet(1, p.dts_us, 0, True, p.payload) for p in opus_packets(150)]
    # Coarsely interleaved: a second of one, a second of the other.
    packets = sorted(video + audio, key=lambda p: (p.dts_us // 1_000_000, p.track))
    found = pages(mux(ogg.make_muxer([THEORA_TRACK, OPUS_TRACK], 200_000), packets))
    shift = ogg.timing(THEORA_TRACK).granule_shift

    def end_us(one: Page) -> float:
        if one.serial == 2:
            return (one.granule - 312) * 1e6 / 48000
        return ((one.granule >> shift) + (one.granule & (1 << shift) - 1)) * 1001 * 1e6 / 30000

    ends = [end_us(one) for one in found if one.granule > 0]
    assert ends == sorted(ends)
    assert [one.flags & LAST for one in found[-2:]] == [LAST, LAST]
    keys = [one for one in found if one.serial == 1 and one.granule > 0 and not one.granule & (1 << shift) - 1]
    assert len(keys) == 12 and all(one.body[:1] == b"\0" for one in keys)


def test_a_stream_that_ends_early_does_not_hold_the_other_back() -> None:
    muxer = ogg.make_muxer([THEORA_TRACK, OPUS_TRACK], 200_000)
    muxer.write(Packet(0, 0, 0, True, b"\0key"))
    written = 0
    for packet in opus_packets(1000):
        muxer.write(Packet(1, packet.dts_us, 0, True, packet.payload))
        written += len(muxer.take_output())
    assert written > 700 * 61


def test_gaps_and_late_packets_keep_their_times() -> None:
    stamps = [-6500, 13_500, 33_500, 2_000_000, 2_020_000, 2_020_400, 2_100_000]
    packets = [Packet(0, stamp, 0, True, b"\xfc" + bytes((n,))) for n, stamp in enumerate(stamps)]
    for page_us in (0, 500_000):
        found = times(read(mux(ogg.make_muxer([OPUS_TRACK], page_us), packets)))
        assert found == pytest.approx(stamps, abs=21)


def test_times_of_a_millisecond_clock_become_even() -> None:
    track = TrackInfo(AUDIO, FLAC, golden("flac", "plain").init_data)
    rate, block = 44100, 4608
    frame = b"\xff\xf8\x59\x18\x00"
    frame += bytes((flac.crc8(frame),)) + bytes(20)
    packets = [Packet(0, (n * block * 1000 // rate) * 1000, 0, True, frame) for n in range(50)]
    found = pages(mux(ogg.make_muxer([track], 0), packets))[2:]
    assert [one.granule for one in found] == [block * (n + 1) for n in range(50)] + [-1]


def test_times_before_zero() -> None:
    found = pages(mux(ogg.make_muxer([OPUS_TRACK], 0), opus_packets(100, begin_us=-1_000_000)))[2:]
    granules = [one.granule for one in found if one.granule >= 0]
    assert granules[0] == 960 and granules == sorted(granules)


def test_a_theora_key_frame_that_is_too_long_ago() -> None:
    shift = ogg.timing(THEORA_TRACK).granule_shift
    packets = [Packet(0, n * 1001 * 1000 // 30, 0, n == 0, b"\x40x" if n else b"\0x") for n in range((1 << shift) + 10)]
    assert times(read(mux(ogg.make_muxer([THEORA_TRACK], 0), packets))) == pytest.approx(
        [p.dts_us for p in packets], abs=1
    )


def test_state_at_every_packet() -> None:
    same_bytes_from_every_state(lambda: ogg.make_muxer([OPUS_TRACK], 0), opus_packets(20))
    demuxer = ogg.make_demuxer()
    packets = demux(demuxer, (CORPUS / "theora.ogv").read_bytes())
    same_bytes_from_every_state(lambda: ogg.make_muxer(demuxer.tracks, 0), packets)
    muxer = ogg.make_muxer([OPUS_TRACK], 500_000)
    muxer.write(opus_packets(1)[0])
    with pytest.raises(LocalProtocolError):
        muxer.state()
    with pytest.raises(LocalProtocolError):
        ogg.make_muxer([OPUS_TRACK], 0).restore(b"x")


def test_a_viewer_who_joins_late() -> None:
    muxer = ogg.make_muxer([OPUS_TRACK], 0)
    packets = opus_packets(50, begin_us=3_600_000_000)
    for packet in packets[:30]:
        muxer.write(packet)
    muxer.take_output()
    joined = muxer.header(packets[30].dts_us)
    for packet in packets[30:]:
        muxer.write(packet)
    assert read(joined + muxer.take_output()) == packets[30:]


@pytest.mark.parametrize("page_us", [0, 500_000])
def test_changed_tracks_begin_a_new_link(page_us: int) -> None:
    mono = OPUS_TRACK.changed(init_data=HEAD[:9] + b"\x01" + HEAD[10:], channels=1)
    muxer = ogg.make_muxer([OPUS_TRACK], page_us)
    packets = opus_packets(20)
    data = muxer.header(0)
    assert muxer.set_tracks([OPUS_TRACK.changed(bandwidth_bps=5)])
    for packet in packets[:10]:
        muxer.write(packet)
    assert muxer.set_tracks([mono])
    for packet in packets[10:]:
        muxer.write(packet)
    muxer.finish()
    data += muxer.take_output()
    found = pages(data)
    assert {one.serial for one in found} == {1, 257}
    assert [one.serial for one in found if one.flags & LAST] == ([1, 257] if page_us else [257])
    demuxer = ogg.make_demuxer()
    assert demux(demuxer, data) == packets and demuxer.tracks[0].channels == 1
    with pytest.raises(UnsupportedError):
        muxer.set_tracks([TrackInfo(VIDEO, H264)])


def test_a_viewer_who_begins_at_a_new_link_gets_its_headers_once() -> None:
    dutch = OPUS_TRACK.changed(language="nld")
    muxer = ogg.make_muxer([THEORA_TRACK, OPUS_TRACK], 0)
    muxer.write(Packet(0, 0, 0, True, b"\0key"))
    muxer.set_tracks([THEORA_TRACK, dutch])
    assert len(pages(muxer.header(0))) == 4
    muxer.take_output()
    state = muxer.state()
    muxer.write(Packet(0, 1_001_000, 0, True, b"\0key"))
    carried = muxer.take_output()
    assert [one.flags for one in pages(carried)] == [FIRST, FIRST, 0, 0, 0]
    assert muxer.header(1_001_000) == b"" and len(pages(muxer.header(2_002_000))) == 4
    other = ogg.make_muxer([THEORA_TRACK, dutch], 0)
    other.restore(state)
    other.write(Packet(0, 1_001_000, 0, True, b"\0key"))
    assert other.take_output() == carried
    # In front of a packet at which nobody begins they do not count.
    muxer.set_tracks([THEORA_TRACK, OPUS_TRACK])
    muxer.write(Packet(1, 2_002_000, 0, True, b"\xfc"))
    assert len(pages(muxer.header(2_002_000))) == 4


def test_headers_before_any_packet_are_those_of_the_newest_tracks() -> None:
    muxer = ogg.make_muxer([OPUS_TRACK], 0)
    assert muxer.set_tracks([OPUS_TRACK, THEORA_TRACK]) and muxer.take_output() == b""
    first = pages(muxer.header(0))
    assert [one.flags for one in first] == [FIRST, FIRST, 0, 0]
    assert [one.serial for one in first] == [2, 1, 2, 1]  # video comes first


def test_what_is_not_carried() -> None:
    for track in (TrackInfo(VIDEO, H264, b"x"), TrackInfo(AUDIO, "vorbis"), TrackInfo(AUDIO, FLAC)):
        with pytest.raises(UnsupportedError):
            ogg.make_muxer([track])
    with pytest.raises(RemoteProtocolError):
        ogg.make_muxer([TrackInfo(AUDIO, "vorbis", b"\x02\x01\x01abc")])
    with pytest.raises(LimitExceededError):
        ogg.make_muxer([OPUS_TRACK] * 65)
    with pytest.raises(LocalProtocolError):
        ogg.make_muxer([OPUS_TRACK]).write(Packet(1, 0, 0, True, b"x"))


def test_tracks_without_headers_get_some() -> None:
    bare = TrackInfo(AUDIO, SPEEX, sample_rate_hz=16000, channels=1)
    packets = [Packet(0, n * 20_000, 0, True, b"speex") for n in range(5)]
    demuxer = ogg.make_demuxer()
    assert demux(demuxer, mux(ogg.make_muxer([bare]), packets)) == packets
    assert speex.parse_header(demuxer.tracks[0].init_data).sample_rate_hz == 16000
    demuxer = ogg.make_demuxer()
    demux(demuxer, mux(ogg.make_muxer([TrackInfo(AUDIO, OPUS, language="deu", channels=1)]), opus_packets(3)))
    assert (demuxer.tracks[0].channels, demuxer.tracks[0].language) == (1, "deu")


def test_packets_that_are_none_are_left_out() -> None:
    muxer = ogg.make_muxer([OPUS_TRACK], 0)
    for payload in (b"", b"\xff", b"\xff\0"):
        muxer.write(Packet(0, 0, 0, True, payload))
    assert muxer.take_output() == b""


def test_the_demuxer_needs_no_more_than_it_is_given() -> None:
    assert isinstance(ogg.make_demuxer(), OggDemuxer)
    demuxer = ogg.make_demuxer()
    demuxer.feed(memoryview(opus_stream()))
    assert demuxer.ready and demuxer.want() is not None
    demuxer.feed(b"")
    assert demuxer.want() is None

"""The transport stream demuxer: our muxer's bytes, and streams made by hand that no muxer writes."""

from __future__ import annotations

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.nal import join_length_prefixed, split_length_prefixed
from mist.core.packet import Packet
from mist.core.ts_mux import TsMuxer
from mist.errors import RemoteProtocolError
from mist.formats import h264
from mist.formats.tracks import AUDIO, VIDEO, TrackInfo
from mist.formats.ts import EVERY_PROGRAM, TsDemuxer
from tests.support.codec_samples import golden
from tests.support.ts_build import PMT_PID, WRAP, StreamBuilder, descriptor, pat, pes, pmt

START = b"\0\0\0\1"
AVCC = golden("h264", "colour").init_data  # order of presentation is order of decoding
SETS = [*h264.parse_avcc(AVCC).sps, *h264.parse_avcc(AVCC).pps]
MPEG_FRAME = bytes.fromhex("fffb9064") + bytes(413)  # layer III, 44.1 kHz, 128 kbit/s
FRAME_US = 1152 * 1_000_000 / 44100
H264_PID, AUDIO_PID = 0x100, 0x101


def adts(payload: bytes) -> bytes:
    size = len(payload) + 7
    return bytes((0xFF, 0xF1, 0x50, 0x80 | size >> 11, size >> 3 & 255, (size & 7) << 5 | 0x1F, 0xFC)) + payload


def key_units(number: int, size: int = 300) -> list[bytes]:
    return [*SETS, b"\x65\x88" + bytes([number]) * size]


def plain_units(number: int, size: int = 200) -> list[bytes]:
    return [b"\x41\x9a" + bytes([number]) * size]


def annexb(units: list[bytes]) -> bytes:
    return b"".join(START + unit for unit in units)


def picture(number: int, gop: int = 5) -> list[bytes]:
    return plain_units(number + 1) if number % gop else key_units(number + 1)


def read(data: bytes, program: int = 0) -> tuple[TsDemuxer, list[Packet]]:
    demuxer = TsDemuxer(program)
    return demuxer, demux(demuxer, data)


def fed(data: bytes, step: int) -> list[Packet]:
    demuxer, packets = TsDemuxer(), PacketList()
    demuxer.attach(packets)
    for at in range(0, len(data), step):
        demuxer.feed(data[at : at + step])
    demuxer.feed(b"")
    return packets.take()


# -- our own muxer -------------------------------------------------------------------------------------------------------


def tracks_and_packets() -> tuple[list[TrackInfo], list[Packet]]:
    tracks = [
        TrackInfo(VIDEO, "H264", AVCC),
        TrackInfo(AUDIO, "AAC", b"\x12\x10", language="deu"),
        TrackInfo(AUDIO, "opus", b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"),
    ]
    packets = []
    for number in range(20):
        units = picture(number)
        offset_us = (80_000, 120_000, 0)[number % 3]
        packets.append(Packet(0, number * 40_000, offset_us, number % 5 == 0, join_length_prefixed(units)))
        for part in range(2):
            time_us = number * 40_000 + part * 20_000
            packets.append(Packet(1, round((number * 2 + part) * 1024e6 / 44100), 0, True, bytes([number, part]) * 100))
            packets.append(Packet(2, time_us, 0, True, b"\xfc" + bytes([number, part]) * 50))
    return tracks, sorted(packets, key=lambda packet: packet.dts_us)


def muxed(shift_us: int = 1_000_000) -> bytes:
    tracks, packets = tracks_and_packets()
    muxer = TsMuxer(tracks)
    for p in packets:
        muxer.write(Packet(p.track, p.dts_us + shift_us, p.offset_us, p.keyframe, p.payload))
    return muxer.take_output()


def of_track(packets: list[Packet], track: int) -> list[Packet]:
    return [packet for packet in packets if packet.track == track]


@pytest.mark.parametrize("shift_us", [1_000_000, 10, 95_443_000_000, 95_443_717_000 + 1_000_000])
def test_what_goes_in_comes_out(shift_us: int) -> None:
    tracks, packets = tracks_and_packets()
    demuxer, found = read(muxed(shift_us))
    assert [(info.codec, info.language, info.track_id) for info in demuxer.tracks] == [
        ("H264", "und", 256), ("AAC", "deu", 257), ("opus", "und", 258),
    ]  # fmt: skip
    assert demuxer.tracks[0].init_data == AVCC and demuxer.tracks[1].init_data == b"\x12\x10"
    assert demuxer.tracks[2].init_data == tracks[2].init_data
    moved = of_track(found, 0)[0].dts_us
    for track in range(3):
        wanted, got = of_track(packets, track), of_track(found, track)
        assert [(p.payload, p.keyframe) for p in got] == [(p.payload, p.keyframe) for p in wanted]
        assert all(abs(a.dts_us - moved - b.dts_us) <= 12 for a, b in zip(got, wanted, strict=True))
        assert all(abs(a.offset_us - b.offset_us) <= 23 for a, b in zip(got, wanted, strict=True))


def test_every_split() -> None:
    data = muxed()[: 188 * 60]
    whole = read(data)[1]
    assert len(whole) > 20
    for step in [*range(1, 400), 1000, 5000]:
        assert fed(data, step) == whole, step
    for cut in range(1, 1000):
        demuxer, sink = TsDemuxer(), PacketList()
        demuxer.attach(sink)
        for piece in (data[:cut], data[cut:], b""):
            demuxer.feed(piece)
        assert sink.take() == whole, cut


def test_positions_lead_back() -> None:
    data = muxed()
    pictures = of_track(read(data)[1], 0)
    demuxer, sink = TsDemuxer(), PacketList()
    demuxer.attach(sink)
    places: list[tuple[int, Packet]] = []
    for at in range(0, len(data), 188):
        demuxer.feed(data[at : at + 188])
        found = sink.take()
        if len(found) == 1 and found[0].track == 0:
            places.append((demuxer.position, found[0]))
    assert len(places) > 10
    for position, packet in places:
        assert data[position] == 0x47
        demuxer.seek(packet.dts_us, position)
        while (wanted := demuxer.want()) is not None:
            demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
        assert of_track(sink.take(), 0) == pictures[pictures.index(packet) :]


@pytest.mark.parametrize("second_us", [5_000_000_000, 5_000_000])
def test_seeking_behind_a_jump_takes_its_time_base(second_us: int) -> None:
    data = muxed(5_000_000) + muxed(second_us)
    pictures = of_track(read(data)[1], 0)
    demuxer, sink = TsDemuxer(), PacketList()
    demuxer.attach(sink)
    places: list[tuple[int, Packet, int]] = []
    for at in range(0, len(data), 188):
        demuxer.feed(data[at : at + 188])
        found = sink.take()
        if len(found) == 1 and found[0].track == 0:
            places.append((demuxer.position, found[0], demuxer.shift_us))
    assert places[-1][2] != places[0][2] == 0
    for position, packet, shift_us in places[-12::4]:
        fresh = TsDemuxer()
        fresh.attach(sink)
        fresh.feed(data[: 188 * 100])
        sink.take()
        fresh.bases = (shift_us, 0)
        fresh.seek(packet.dts_us, position)
        while (wanted := fresh.want()) is not None:
            fresh.feed(data[wanted[0] : wanted[0] + wanted[1]])
        assert of_track(sink.take(), 0) == pictures[pictures.index(packet) :]


# -- packets that are not in their places ----------------------------------------------------------------------------------


@pytest.mark.parametrize("stride", [188, 192, 204])
def test_packet_lengths_and_garbage_in_front(stride: int) -> None:
    data = muxed()
    plain = read(data)[1]
    head = bytes(4) if stride == 192 else b""
    spaced = b"".join((head + data[at : at + 188]).ljust(stride, b"\0") for at in range(0, len(data), 188))
    for garbage in (b"", b"\0", b"G" * 300, bytes(range(256)) * 20):
        demuxer, found = read(garbage + spaced)
        assert found == plain and demuxer.stride == stride
        assert fed(garbage + spaced, 1000) == plain


def test_garbage_in_the_middle_costs_what_it_hits() -> None:
    data = muxed()
    plain = read(data)[1]
    for at in range(188 * 10, 188 * 60, 61):
        found = read(data[:at] + b"\x47garbage" * 3 + data[at:])[1]
        payloads = [packet.payload for packet in plain]
        assert sum(packet.payload not in payloads for packet in found) <= 1 and len(plain) - len(found) <= 2, at


def test_lost_packets_cost_one_access_unit_each() -> None:
    data = muxed()
    plain = read(data)[1]
    for at in range(188 * 4, len(data) - 188, 188):
        found = read(data[:at] + data[at + 188 :])[1]
        assert all(packet.payload in [p.payload for p in plain] for packet in found)
        assert len(plain) - len(found) <= 7, (
            at
        )  # the first picture is a keyframe, and what follows waits for the next one
        damaged = data[: at + 1] + b"\xff\xff" + data[at + 3 :]
        assert len(plain) - len(read(damaged)[1]) <= 7
        twice = data[: at + 188] + data[at:]
        assert read(twice)[1] == plain


def test_no_transport_stream() -> None:
    for data in (b"", b"RIFF" * 100, bytes(1000)):
        with pytest.raises(RemoteProtocolError):
            read(data)
    with pytest.raises(RemoteProtocolError):
        fed(bytes(3 << 20), 1 << 18)


def test_a_cut_file_ends_normally() -> None:
    data = muxed()
    plain = read(data)[1]
    for cut in range(188 * 20, 188 * 24, 7):
        found = read(data[:cut])[1]
        assert [packet for packet in found if packet not in plain][1:] == []


# -- programs and their changes ------------------------------------------------------------------------------------------


def two_programs() -> StreamBuilder:
    build = StreamBuilder()
    build.add_section(0, pat({5: 0x30, 9: 0x40}))
    build.add_section(0x40, pmt([(3, 0x41, b"")], number=9))
    build.add_section(0x30, pmt([(3, 0x31, descriptor(0x0A, b"fra\0"))], number=5))
    for number in range(8):
        build.add(0x31, pes(MPEG_FRAME, 90_000 + number * 2351, stream_id=0xC0, bounded=True))
        build.add(0x41, pes(MPEG_FRAME * 2, 9_000_000_00 + number * 4702, stream_id=0xC0, bounded=True))
    return build


def test_programs() -> None:
    data = two_programs().data
    first, packets = read(data)
    assert [(info.track_id, info.language) for info in first.tracks] == [(0x31, "fra")] and len(packets) == 8
    ninth, packets = read(data, 9)
    assert [info.track_id for info in ninth.tracks] == [0x41] and len(packets) == 16
    every, packets = read(data, EVERY_PROGRAM)
    assert [info.track_id for info in every.tracks] == [0x31, 0x41] and len(packets) == 24
    times = [packet.dts_us for packet in packets]
    assert max(times) - min(times) < 1_000_000  # of one time base, though the programs' own are hours apart
    none, packets = read(data, 7)
    assert none.tracks == [] and packets == []


def test_a_program_without_known_streams_is_passed_over() -> None:
    build = StreamBuilder()
    build.add_section(0, pat({1: 0x30}, part=0, last=1)).add_section(0, pat({2: 0x40}, part=1, last=1))
    build.add_section(0x30, pmt([(0x99, 0x31, b"")], number=1)).add_section(0x40, pmt([(3, 0x41, b"")], number=2))
    build.add(0x41, pes(MPEG_FRAME, 0, stream_id=0xC0, bounded=True))
    assert [info.track_id for info in read(build.data)[0].tracks] == [0x41]


def test_streams_that_come_change_and_return() -> None:
    build = StreamBuilder().tables([(3, AUDIO_PID, b"")])
    demuxer, sink, changes = TsDemuxer(), PacketList(), []
    demuxer.attach(sink)
    demuxer.on_tracks = lambda: changes.append([info.codec for info in demuxer.tracks])
    build.add(AUDIO_PID, pes(MPEG_FRAME, 0, stream_id=0xC0, bounded=True))
    build.add_section(PMT_PID, pmt([(0x0F, AUDIO_PID, b""), (3, 0x102, b"")], version=1))
    build.add(AUDIO_PID, pes(adts(b"one") * 2, 9000, stream_id=0xC0, bounded=True))
    build.add(0x102, pes(MPEG_FRAME, 9000, stream_id=0xC0, bounded=True))
    build.add_section(PMT_PID, pmt([(3, AUDIO_PID, b"")], version=2))
    build.add(0x102, pes(MPEG_FRAME, 18000, stream_id=0xC0, bounded=True))
    build.add(AUDIO_PID, pes(MPEG_FRAME, 18000, stream_id=0xC0, bounded=True))
    for at in range(0, len(build.data), 188):
        demuxer.feed(build.data[at : at + 188])
    demuxer.feed(b"")
    assert [packet.track for packet in sink.take()] == [0, 1, 1, 2, 0]
    assert changes == [["MP3", "AAC"], ["MP3", "AAC", "MP3"]]


def test_a_stream_that_comes_and_goes_often() -> None:
    build = StreamBuilder().tables([(3, AUDIO_PID, b"")])
    for version in range(1500):
        streams = [(3, AUDIO_PID, b"")] + ([(3, 0x102, b"")] if version % 2 else [])
        build.add_section(PMT_PID, pmt(streams, version=version & 31))
        build.add(0x102, pes(MPEG_FRAME, version * 2351, stream_id=0xC0, bounded=True))
        build.add(AUDIO_PID, pes(MPEG_FRAME, version * 2351, stream_id=0xC0, bounded=True))
    demuxer, packets = read(build.data)
    assert len(demuxer.tracks) == 2 and len(packets) == 1500 + 750


def test_a_program_that_takes_the_place_of_another() -> None:
    build = StreamBuilder().tables([(3, AUDIO_PID, b"")])
    build.add(AUDIO_PID, pes(MPEG_FRAME, 9000, stream_id=0xC0, bounded=True))
    build.add_section(0, pat({2: 0x40}, version=1)).add_section(0x40, pmt([(3, 0x41, b"")], number=2))
    build.add(0x41, pes(MPEG_FRAME, 90_000_000, stream_id=0xC0, bounded=True))
    demuxer, packets = read(build.data)
    assert [info.track_id for info in demuxer.tracks] == [AUDIO_PID, 0x41]
    assert 0 <= packets[1].dts_us - packets[0].dts_us < 1_000_000


def test_a_stream_that_was_announced_and_does_not_come() -> None:
    build = StreamBuilder().tables([(0x1B, H264_PID, b""), (3, AUDIO_PID, b"")])
    for number in range(250):
        build.add(AUDIO_PID, pes(MPEG_FRAME, number * 2351, stream_id=0xC0, bounded=True))
    demuxer, sink = TsDemuxer(), PacketList()
    demuxer.attach(sink)
    demuxer.feed(build.data[: 188 * 300])
    assert not demuxer.ready and sink.take() == []
    demuxer.feed(build.data[188 * 300 :])
    assert demuxer.ready and len(sink.take()) == 250


def test_damaged_tables_do_not_count() -> None:
    build = StreamBuilder().tables([(3, AUDIO_PID, b"")])
    broken = bytearray(pmt([(0x0F, AUDIO_PID, b"")], version=1))
    broken[9] ^= 1
    build.add_section(PMT_PID, bytes(broken))
    build.add_section(PMT_PID, pmt([(3, AUDIO_PID, b"")], number=77))
    build.add(AUDIO_PID, pes(MPEG_FRAME, 0, stream_id=0xC0, bounded=True))
    assert [info.codec for info in read(build.data)[0].tracks] == ["MP3"]


def test_set_up_that_changes() -> None:
    build = StreamBuilder().tables([(0x1B, H264_PID, b"")])
    other = golden("h264", "baseline").init_data
    sets = [*h264.parse_avcc(other).sps, *h264.parse_avcc(other).pps]
    for number, units in enumerate([picture(0), picture(1), [*sets, b"\x65\x88new"], plain_units(9)]):
        build.add(H264_PID, pes(annexb(units), number * 3600))
    demuxer, changes = TsDemuxer(), []
    demuxer.on_tracks = lambda: changes.append(demuxer.tracks[0].init_data)
    assert len(demux(demuxer, build.data)) == 4
    assert changes == [h264.build_avcc(sets[:1], sets[1:])]


# -- PES packets and access units ------------------------------------------------------------------------------------------


def video(pieces: list[tuple[bytes, int | None, int | None]], **options: bool) -> list[Packet]:
    build = StreamBuilder().tables([(0x1B, H264_PID, b"")])
    for payload, pts, dts in pieces:
        build.add(H264_PID, pes(payload, pts, dts, **options))
    found = read(build.data)[1]
    assert fed(build.data, 100) == found
    return found


def test_delimiters_and_filler_go_all_else_stays() -> None:
    units = [b"\x09\xf0", b"\x06\x01\x01\x80", *key_units(1), b"\x0c\xff\xff\x80", b"\x0a"]
    (packet,) = video([(annexb(units), 0, None)])
    assert split_length_prefixed(packet.payload) == [b"\x06\x01\x01\x80", *key_units(1), b"\x0a"]


@pytest.mark.parametrize("bounded", [False, True])
@pytest.mark.parametrize("size", [100, 150, 184, 333, 1000, 5000])
def test_access_units_straddle_pes_packets(size: int, bounded: bool) -> None:
    """Cut the byte stream anywhere: each access unit has the time of the PES packet in which it is the first to begin."""
    units = [annexb([b"\x09\xf0", *picture(number)]) for number in range(12)]
    starts = [sum(map(len, units[:number])) for number in range(12)]
    stream = b"".join(units)
    pieces: list[tuple[bytes, int | None, int | None]] = []
    for at in range(0, len(stream), size):
        first = next((number for number, start in enumerate(starts) if at <= start < at + size), None)
        pieces.append((stream[at : at + size], None if first is None else 90_000 + first * 3600, None))
    found = video(pieces, bounded=bounded, aligned=False)
    assert [packet.payload for packet in found] == [join_length_prefixed(picture(number)) for number in range(12)]
    assert [packet.dts_us for packet in found] == [1_000_000 + number * 40_000 for number in range(12)]


def test_seeking_where_access_units_straddle_pes_packets() -> None:
    """A position is where the PES packet begins that holds the keyframe's start, behind the end of another picture."""
    later = b"\x41\x21" + b"\x77" * 100
    units = [annexb([b"\x09\xf0", *picture(number), later]) for number in range(20)]
    starts = [sum(map(len, units[:number])) for number in range(20)]
    stream = b"".join(units)
    build = StreamBuilder().tables([(0x1B, H264_PID, b"")])
    for at in range(0, len(stream), 350):
        first = next((number for number, start in enumerate(starts) if at <= start < at + 350), None)
        ticks = None if first is None else 90_000 + first * 3600
        build.add(H264_PID, pes(stream[at : at + 350], ticks, aligned=False))
    demuxer, sink = TsDemuxer(), PacketList()
    demuxer.attach(sink)
    places = []
    for at in range(0, len(build.data), 188):
        demuxer.feed(build.data[at : at + 188])
        found = sink.take()
        if len(found) == 1:
            places.append((demuxer.position, found[0]))
    every = read(build.data)[1]
    assert len(every) == 20 and len(places) > 10
    ambiguous = 0
    for position, packet in places:
        demuxer.seek(packet.dts_us, position)
        wanted = demuxer.want()
        assert wanted is not None and wanted[0] <= position
        demuxer.feed(build.data[wanted[0] :])
        demuxer.feed(b"")
        found = sink.take()  # may begin with the other picture that begins in this PES packet
        if packet not in found:
            ambiguous += 1  # cut behind a delimiter: nothing tells that the picture behind it began before
            continue
        assert found.index(packet) <= 1 and found[found.index(packet) :] == every[every.index(packet) :]
    assert ambiguous <= 1


def test_several_access_units_in_a_pes_packet() -> None:
    pieces = [
        (b"".join(annexb(picture(number + part)) for part in range(3)), number * 3600, number * 3600)
        for number in range(0, 12, 3)
    ]
    found = video(list(pieces))
    assert [packet.payload for packet in found] == [join_length_prefixed(picture(number)) for number in range(12)]
    assert [packet.dts_us for packet in found] == [number * 40_000 for number in range(12)]
    assert [packet.keyframe for packet in found] == [number % 5 == 0 for number in range(12)]


def test_slices_in_pes_packets_of_their_own() -> None:
    later = b"\x41\x21slice"
    found = video([(annexb(key_units(1)), 0, None), (annexb([later]), None, None), (annexb(picture(1)), 3600, None)])
    assert [split_length_prefixed(packet.payload) for packet in found] == [[*key_units(1), later], picture(1)]


def test_the_fields_of_a_frame_are_one_packet() -> None:
    avcc = golden("h264", "interlaced").init_data
    sps = h264.configured_sps(avcc)
    sets = [*h264.parse_avcc(avcc).sps, *h264.parse_avcc(avcc).pps]
    assert not sps.frame_mbs_only

    def field(kind: int, number: int, bottom: int) -> bytes:
        """Return a slice: first_mb 0, slice type 7, PPS 0, frame_num, field_pic_flag 1, bottom_field_flag."""
        bits = "1" + "0001000" + "1" + f"{number:0{sps.log2_max_frame_num}b}" + "1" + str(bottom) + "1010101"
        bits = bits.ljust(64, "0")
        return bytes((kind,)) + int(bits, 2).to_bytes(8, "big") + b"rest"

    frames = [
        [*sets, field(0x65, 0, 0), field(0x41, 0, 1)],
        [field(0x41, 1, 0), field(0x41, 1, 1)],
        [field(0x41, 2, 0)],
    ]
    frames += [
        [field(0x41, 3, 1), field(0x41, 3, 0)],
        [*sets, field(0x65, 0, 0), b"\x06\x01\x01\x80", field(0x41, 0, 1)],
    ]
    together = [(annexb([b"\x09\xf0", *units]), number * 3600, None) for number, units in enumerate(frames)]
    apart = []
    for number, units in enumerate(frames):
        place = next(at for at, unit in enumerate(units) if unit[0] & 31 in (1, 5)) + 1
        for part, half in enumerate((units[:place], units[place:])):
            if half:
                apart.append((annexb([b"\x09\xf0", *half]), number * 3600 + part * 1800, None))
    for pieces in (together, apart):
        found = video(list(pieces))
        assert [split_length_prefixed(packet.payload) for packet in found] == frames
        assert [packet.dts_us for packet in found] == [number * 40_000 for number in range(5)]


def test_keyframes_without_idr() -> None:
    recovery = b"\x06\x05\x03abc\x06\x01\xc4\x80"
    inter, intra = b"\x41\x9a", b"\x41\x88"
    found = video([
        (annexb([*SETS, recovery, inter]), 0, None),
        (annexb([recovery, inter]), 3600, None),
        (annexb([b"\x06\x01\x01\x80", inter]), 7200, None),
        (annexb([*SETS, intra]), 10800, None),
        (annexb([intra]), 14400, None),
        (annexb([*SETS, inter]), 18000, None),
    ])  # fmt: skip
    assert [packet.keyframe for packet in found] == [True, True, False, True, False, False]
    assert [packet.keyframe for packet in found] == [h264.is_keyframe(packet.payload) for packet in found]


def test_audio_frames_are_counted_from_the_time_stamp() -> None:
    build = StreamBuilder().tables([(4, AUDIO_PID, b"")])
    stream = b"".join(MPEG_FRAME[:4] + bytes([number]) * 413 for number in range(40))
    for at in range(0, len(stream), 1000):
        first = -(-at // 417)
        ticks = round(first * 1152 * 90_000 / 44100) + (30 if at % 2000 else 0)
        build.add(AUDIO_PID, pes(stream[at : at + 1000], ticks, stream_id=0xC0, bounded=True, aligned=False))
    found = read(build.data)[1]
    assert [packet.payload[4] for packet in found] == list(range(40))
    assert all(abs(packet.dts_us - number * FRAME_US) < 1 for number, packet in enumerate(found))


def test_audio_time_stamps_win_over_counting() -> None:
    build = StreamBuilder().tables([(4, AUDIO_PID, b"")])
    for ticks in (0, 4702, 20000, 24702):
        build.add(AUDIO_PID, pes(MPEG_FRAME * 2, ticks, stream_id=0xC0, bounded=True))
    times = [packet.dts_us for packet in read(build.data)[1]]
    assert times[:4] == [round(number * FRAME_US) for number in range(4)]
    assert times[4:6] == [222222, round(222222 + FRAME_US)]


def rounded_times(offset_ms: int = 0) -> StreamBuilder:
    """Sound whose time stamps are whole milliseconds, and jump after 30 frames; every PES packet begins with a frame."""
    build = StreamBuilder().tables([(4, AUDIO_PID, b"")])
    for number in range(0, 60, 2):
        stamp_ms = round(number * FRAME_US / 1000) + (500 if number >= 30 else 0) + offset_ms
        frames = b"".join(MPEG_FRAME[:4] + bytes([number + one]) * 413 for one in range(2))
        build.add(AUDIO_PID, pes(frames, stamp_ms * 90, stream_id=0xC0, bounded=True))
    return build


@pytest.mark.parametrize("offset_ms", [0, -20, (WRAP - 45_000) // 90])
def test_counted_times_are_the_same_behind_a_seek(offset_ms: int) -> None:
    data = rounded_times(offset_ms).data
    scan, sink = TsDemuxer(), PacketList()
    scan.attach(sink)
    found: list[tuple[int, Packet]] = []
    for at in range(0, len(data), 188):
        scan.feed(data[at : at + 188])
        found += [(scan.position, packet) for packet in sink.take()]
    whole = [packet for _, packet in found]
    assert len(whole) == 60
    assert len(scan.anchors[AUDIO_PID]) == 2 * 3
    for index in range(2, 60, 2):
        position, packet = found[index]
        again = TsDemuxer()
        again.attach(sink)
        again.feed(data[: 188 * 10])
        sink.take()
        again.anchors = scan.anchors
        again.seek(packet.dts_us, position)
        while (wanted := again.want()) is not None:
            again.feed(data[wanted[0] : wanted[0] + wanted[1]])
        assert sink.take() == whole[index:], index
    assert len(scan.anchors[AUDIO_PID]) == 2 * 3


@pytest.mark.parametrize("jump", [-5_000_000, 90_000 * 700, WRAP // 2])
def test_times_that_jump(jump: int) -> None:
    build = StreamBuilder().tables([(4, AUDIO_PID, b"")])
    for number in range(20):
        ticks = 9_000_000 + number * 2351 + (jump if number >= 10 else 0)
        build.add(AUDIO_PID, pes(MPEG_FRAME, ticks, stream_id=0xC0, bounded=True))
    times = [packet.dts_us for packet in read(build.data)[1]]
    assert len(times) == 20 and times == sorted(set(times)) and times[-1] - times[0] < 600_000


def test_times_that_wrap() -> None:
    build = StreamBuilder().tables([(4, AUDIO_PID, b"")])
    for number in range(20):
        build.add(AUDIO_PID, pes(MPEG_FRAME, WRAP - 20_000 + number * 2351, stream_id=0xC0, bounded=True))
    found = read(build.data)[1]
    assert all(abs(packet.dts_us + 20_000 * 100 / 9 - number * FRAME_US) < 100 for number, packet in enumerate(found))


def test_headers_that_do_not_fit_one_packet() -> None:
    build = StreamBuilder().tables([(4, AUDIO_PID, b"")])
    build.add(AUDIO_PID, pes(MPEG_FRAME, 9000, stream_id=0xC0, bounded=True, stuffing=200))
    build.add(AUDIO_PID, pes(MPEG_FRAME, 18000, stream_id=0xC0, bounded=True, stuffing=170))
    assert [packet.dts_us for packet in read(build.data)[1]] == [100_000, 200_000]


def test_a_pes_packet_over_the_limit_is_left_out() -> None:
    build = StreamBuilder().tables([(0x1B, H264_PID, b"")])
    build.add(H264_PID, pes(annexb(picture(0)), 0))
    build.add(H264_PID, pes(annexb([b"\x41\x9a" + b"\x55" * (33 << 20)]), 3600))
    build.add(H264_PID, pes(annexb(picture(2)), 7200))
    build.add(H264_PID, pes(annexb(picture(3)), 10800))
    assert [packet.dts_us for packet in read(build.data)[1]] == [0, 80_000, 120_000]


# -- data ------------------------------------------------------------------------------------------------------------------


def test_data_streams() -> None:
    klv = bytes.fromhex("060e2b34") + b"klv"
    streams = [
        (3, AUDIO_PID, b""),
        (0x06, 0x110, descriptor(5, b"JSON")),
        (0x06, 0x111, descriptor(5, b"KLVA")),
        (0x15, 0x112, descriptor(0x26, b"\xff\xffID3 \xffID3 \0\x0f")),
        (0x86, 0x113, descriptor(5, b"CUEI")),
        (0x06, 0x114, descriptor(0x59, b"deu\x10\0\1\0\1")),
        (0x06, 0x115, b""),
        (0x99, 0x116, b""),
        (0x15, 0x117, descriptor(0x26, b"\x01\0\xffKLVA\0\x0f")),
    ]
    build = StreamBuilder().tables(streams)
    build.add(AUDIO_PID, pes(MPEG_FRAME, 0, stream_id=0xC0, bounded=True))
    for pid, payload in (
        (0x110, b"\0\2{}\0\4[12]"), (0x111, klv), (0x112, b"ID3\4tag"), (0x114, b"\x20\0subtitle"), (0x115, b"none"),
        (0x117, b"\0\1\x0f\0\7" + klv),
    ):  # fmt: skip
        build.add(pid, pes(payload, 9000, stream_id=0xBD, bounded=True))
    cue = b"\xfc\x30\x0d" + bytes(9) + b"\0" + bytes(3)
    build.add_section(0x113, cue)
    demuxer, packets = read(build.data)
    assert [(info.type, info.codec, info.track_id) for info in demuxer.tracks] == [
        ("audio", "MP3", AUDIO_PID), ("meta", "JSON", 0x110), ("meta", "KLV", 0x111), ("meta", "ID3", 0x112),
        ("meta", "SCTE35", 0x113), ("meta", "RAW", 0x114), ("meta", "KLV", 0x117),
    ]  # fmt: skip
    assert demuxer.tracks[5].init_data == streams[5][2]
    found = {demuxer.tracks[packet.track].track_id: packet for packet in packets}
    assert [packet.payload for packet in packets if packet.track == 1] == [b"{}", b"[12]"]
    assert (
        found[0x111].payload == klv
        and found[0x112].payload == b"ID3\4tag"
        and found[0x114].payload == b"\x20\0subtitle"
    )
    assert found[0x117].payload == klv
    assert found[0x113].payload == cue and found[0x113].dts_us == 100_000
    assert all(packet.dts_us == 100_000 for packet in packets[1:2])


METADATA = {
    "JSON": b'["onTextData",{"text":"hi"}]',
    "KLV": bytes.fromhex("060e2b34020b01010e01030101000000") + b"\x02\x01\x01",
    "ID3": b"ID3\4\0\0\0\0\0\x10TIT2\0\0\0\6\0\0\3title",
    "SCTE35": b"\xfc\x30\x0d" + bytes(9) + b"\0" + bytes(3),
    "RAW": b"\x20\0subtitle",
}


def test_metadata_goes_in_and_comes_out() -> None:
    raw = descriptor(0x0A, b"deu\0") + descriptor(0x59, b"deu\x10\0\1\0\1")
    tracks = [TrackInfo("meta", codec, raw if codec == "RAW" else b"") for codec in METADATA]
    tracks.insert(1, TrackInfo(AUDIO, "MP3", sample_rate_hz=44100, channels=2))
    muxer = TsMuxer(tracks)
    packets = [Packet(1, 0, 0, True, MPEG_FRAME)]
    for number, info in enumerate(tracks):
        if info.type == "meta":
            packets.append(Packet(number, 100_000 + number, 0, True, METADATA[info.codec]))
    packets += [Packet(1, 200_000, 0, True, MPEG_FRAME), Packet(4, 200_000, 0, True, b"no section")]
    for packet in packets:
        muxer.write(packet)
    demuxer = TsDemuxer()
    found = demux(demuxer, muxer.take_output())
    assert [(info.type, info.codec) for info in demuxer.tracks] == [(info.type, info.codec) for info in tracks]
    assert demuxer.tracks[5].init_data == raw and demuxer.tracks[5].language == "deu"
    assert sorted((one.track, one.payload) for one in found) == sorted((one.track, one.payload) for one in packets[:-1])
    assert all(abs(one.dts_us - 100_000) < 2_000 for one in found if one.track not in (1, 4))
    assert not muxer.set_tracks([*tracks, TrackInfo("meta", "JSON")])  # viewers' tables stay as they are
    assert muxer.set_tracks(tracks)


def test_metadata_without_times_comes_with_what_is_before_it() -> None:
    """Asynchronous KLV has no time stamps (MISB ST 1402)."""
    klv = METADATA["KLV"]
    build = StreamBuilder().tables([(3, AUDIO_PID, b""), (0x06, 0x111, descriptor(5, b"KLVA"))])
    bare = b"\0\0\1\xbd" + (3 + len(klv)).to_bytes(2, "big") + b"\x84\0\0" + klv
    build.add(0x111, bare)  # before everything
    for number in range(3):
        build.add(AUDIO_PID, pes(MPEG_FRAME, 9000 * number, stream_id=0xC0, bounded=True))
        build.add(0x111, bare)
    found = read(build.data)[1]
    assert [packet.dts_us for packet in found if packet.payload == klv] == [0, 100_000, 200_000]


def test_a_cue_after_twenty_minutes_is_no_jump() -> None:
    cue = METADATA["SCTE35"]
    build = StreamBuilder().tables([(3, AUDIO_PID, b""), (0x86, 0x113, descriptor(5, b"CUEI"))])
    for second in range(0, 1300, 5):
        build.add(AUDIO_PID, pes(MPEG_FRAME, 90_000 * second, stream_id=0xC0, bounded=True))
        if second in (0, 1200):
            build.add_section(0x113, cue)
    found = read(build.data)[1]
    assert [packet.dts_us for packet in found if packet.payload == cue] == [0, 1_200_000_000]
    assert found[-1].dts_us == 1_295_000_000

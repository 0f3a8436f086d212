"""The Matroska demuxer: golden bytes, every split, lacing, encodings, damage, jumps."""

from __future__ import annotations

import itertools
import random
import zlib

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.ebml import UNKNOWN_SIZE, element, element_id, element_size, unsigned_element, void_element
from mist.core.mkv_demux import MAX_HEADER_BYTES, MAX_TRACKS
from mist.core.packet import Packet
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats import h264
from mist.formats.matroska.reading import demuxer
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.mkv_files import (
    MP3_FRAME,
    MP3_TRACK,
    VP8_FRAME,
    VP8_KEY,
    VP8_TRACK,
    audio,
    block,
    cluster,
    ebml_header,
    group,
    info,
    plain_file,
    segment,
    simple,
    track,
    tracks,
    video,
)

SPS = bytes.fromhex("6742c00ad90426c044000003000400000300c83c489920")
PPS = bytes.fromhex("68cb83cb20")
PLAIN = (
    cluster(0, simple(1, 0, VP8_KEY), simple(2, 5, MP3_FRAME), simple(1, 40, VP8_FRAME, key=False)),
    cluster(80, simple(1, 0, VP8_FRAME, key=False), simple(2, -51, MP3_FRAME), simple(1, 40, VP8_KEY)),
)
WANTED = [
    Packet(0, 0, 0, True, VP8_KEY),
    Packet(1, 5_000, 0, True, MP3_FRAME),
    Packet(0, 40_000, 0, False, VP8_FRAME),
    Packet(0, 80_000, 0, False, VP8_FRAME),
    Packet(1, 29_000, 0, True, MP3_FRAME),
    Packet(0, 120_000, 0, True, VP8_KEY),
]


def packets_of(data: bytes) -> list[Packet]:
    return demux(demuxer(), data)


def one_track(
    entry: bytes, *blocks: bytes, scale_ns: int = 1_000_000, time: int = 0
) -> tuple[list[TrackInfo], list[Packet]]:
    """Return tracks and packets of a file with one track and one Cluster."""
    engine = demuxer()
    found = demux(engine, ebml_header() + segment(info(scale_ns), tracks(entry), cluster(time, *blocks)))
    return engine.tracks, found


def test_golden_file() -> None:
    data = bytes.fromhex(
        "1a45dfa3 87 4282 84 7765626d"  # EBML header: DocType webm
        "18538067 01ffffffffffffff"  # Segment of unknown size
        "1549a966 87 2ad7b1 83 0f4240"  # Info: 1 ms
        "ec 82 0000"  # Void
        "1654ae6b a9 ae a7 d7 81 01 83 81 01 22b59c 83 656e67 22b59d 85 6e6c2d4245 86 85 565f565038"
        "e0 88 b0 82 0040 ba 82 0030"
        "1f43b675 ff e7 82 03e8"  # Cluster of unknown size, 1000 ms
        "a3 8f 81 000a 80"  # SimpleBlock of track 1, 10 ms later, keyframe
    )
    engine = demuxer()
    found = demux(engine, data + VP8_KEY)
    assert engine.tracks == [VP8_TRACK.changed(language="nld")]
    assert found == [Packet(0, 1_010_000, 0, True, VP8_KEY)]


@pytest.mark.parametrize("known", [True, False])
def test_sizes_known_and_not(known: bool) -> None:
    clusters = (
        cluster(0, *[simple(1, 0, VP8_KEY)], known=known),
        cluster(40, simple(1, 0, VP8_FRAME, key=False), known=known),
    )
    engine = demuxer()
    found = demux(engine, plain_file(*clusters, known=known))
    assert engine.tracks == [VP8_TRACK, MP3_TRACK]
    assert [packet.pts_us for packet in found] == [0, 40_000]


def test_every_split() -> None:
    data = plain_file(PLAIN[0], element(0x1254C367, bytes(50)), void_element(20), PLAIN[1], known=False)
    assert packets_of(data) == WANTED
    for step in range(1, len(data)):
        engine, sink = demuxer(), PacketList()
        engine.attach(sink)
        while (wanted := engine.want()) is not None:
            position = wanted[0]
            # One cut at `step`, then all that is left; with a step of 1 every byte on its own.
            engine.feed(data[position : (position + 1 if step == 1 else step if position < step else len(data))])
        assert sink.take() == WANTED, step


def test_positions_are_those_of_clusters() -> None:
    class Positions(list[tuple[int, int]]):
        pass

    data = plain_file(*PLAIN)
    engine = demuxer()
    starts = [data.index(one) for one in PLAIN]
    seen = []
    for at in range(len(data)):
        wanted = engine.want()
        assert wanted == (at, wanted[1] if wanted else 0)
        before = engine.position
        engine.feed(data[at : at + 1])
        if engine.position != before or not seen:
            seen.append(engine.position)
    assert [position for position in seen if position] == starts
    assert engine.ready


def test_seek_to_a_cluster() -> None:
    data = plain_file(*PLAIN)
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    engine.feed(data)
    sink.take()
    engine.seek(120_000, data.index(PLAIN[1]))
    assert engine.want() == (data.index(PLAIN[1]), engine.want()[1])  # type: ignore[index]
    engine.feed(data[data.index(PLAIN[1]) :])
    engine.feed(b"")
    assert sink.take() == WANTED[3:]
    assert engine.want() is None


def test_seek_after_the_end_reads_again() -> None:
    data = plain_file(*PLAIN)
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    for _ in range(2):
        engine.feed(data[data.index(PLAIN[0]) :] if engine.ready else data)
        engine.feed(b"")
        assert sink.take() == WANTED
        engine.seek(0, data.index(PLAIN[0]))


def test_large_elements_nobody_wants_are_skipped() -> None:
    attachments = element_id(0x1941A469) + element_size(1 << 40)
    data = plain_file(PLAIN[0], known=False) + attachments
    engine = demuxer()
    engine.feed(data)
    assert engine.want() == (len(data) + (1 << 40), engine.want()[1])  # type: ignore[index]


# -- Blocks


def test_groups() -> None:
    clusters = cluster(
        100,
        group(block(1, 0, VP8_KEY, key=False), duration=40),
        group(block(1, 40, VP8_FRAME, key=False), references=[-40], more=element(0x75A2, b"\x01")),
        group(b"") + element(0xA0, b"\x9b\x81\x28"),
    )
    found = packets_of(plain_file(clusters))
    assert [(packet.pts_us, packet.keyframe) for packet in found] == [(100_000, True), (140_000, False)]


@pytest.mark.parametrize(
    ("lacing", "head", "sizes"),
    [
        (1, "02 09 0a", (9, 10, 11)),
        (1, "01 ff01", (256, 3)),
        (2, "02", (9, 9, 9)),
        (3, "02 89 c0", (9, 10, 12)),
        (3, "03 90 b8 5ffe", (16, 9, 8, 5)),
        (3, "00", (9,)),
        (1, "00", (9,)),
        (2, "00", (9,)),
    ],
)
def test_lacing(lacing: int, head: str, sizes: tuple[int, ...]) -> None:
    """Frames of one block follow each other by their own durations: 24 ms for 1152 samples."""
    frames = [
        MP3_FRAME[:4] + bytes([number]) * (size - 4) if size > 4 else bytes(size) for number, size in enumerate(sizes)
    ]
    payload = bytes.fromhex(head) + b"".join(frames)
    found = packets_of(plain_file(cluster(0, simple(2, 0, payload, lacing=lacing), simple(2, 500, MP3_FRAME))))
    assert [packet.payload for packet in found] == [*frames, MP3_FRAME]
    if all(size > 4 for size in sizes):
        assert [packet.dts_us for packet in found] == [24_000 * n for n in range(len(sizes))] + [500_000]


@pytest.mark.parametrize(
    "payload", [b"", b"\x05", b"\x01\xff\xff", b"\x01\x20abc", b"\x02\x82\x00abcdef", b"\xff" * 30]
)
@pytest.mark.parametrize("lacing", [1, 2, 3])
def test_broken_lacing_loses_the_block(payload: bytes, lacing: int) -> None:
    found = packets_of(plain_file(cluster(0, simple(2, 0, payload, lacing=lacing), simple(2, 40, MP3_FRAME))))
    assert found[-1] == Packet(1, 40_000, 0, True, MP3_FRAME)


def test_lacing_takes_its_times_from_the_track() -> None:
    entry = track(1, "A_AC3", 2, audio() + unsigned_element(0x23E383, 31_999_999))
    _, found = one_track(entry, simple(1, 0, b"\x03abcd", lacing=2))
    assert [packet.dts_us for packet in found] == [0, 32_000, 64_000, 96_000]
    entry = track(1, "A_DTS", 2, audio())
    _, found = one_track(entry, group(block(1, 0, b"\x03abcd", lacing=2), duration=80))
    assert [packet.dts_us for packet in found] == [0, 20_000, 40_000, 60_000]
    _, found = one_track(
        track(1, "A_PCM/INT/BIG", 2, audio(8000, 1, 16)), simple(1, 0, b"\x01" + bytes(1600), lacing=2)
    )
    assert [packet.dts_us for packet in found] == [0, 50_000]


@pytest.mark.parametrize(("config", "frame_us"), [
    ("1190", 21_333),  # LC at 48 kHz
    ("2b118800", 42_667),  # SBR with a core at 24 kHz
    ("eb098800", 42_667),  # and parametric stereo
    ("130856e59d", 42_667),  # SBR signalled behind what old decoders read
])  # fmt: skip
def test_lacing_of_aac_counts_the_samples_that_come_out(config: str, frame_us: int) -> None:
    entry = track(1, "A_AAC", 2, audio(24_000), bytes.fromhex(config))
    _, found = one_track(entry, simple(1, 0, b"\x02abc", lacing=2))
    assert [packet.dts_us for packet in found] == pytest.approx([0, frame_us, 2 * frame_us], abs=2)


# -- Times


def test_times_before_zero_and_codec_delay() -> None:
    head = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
    entry = track(1, "A_OPUS", 2, audio() + unsigned_element(0x56AA, 6_500_000), head)
    _, found = one_track(entry, simple(1, 0, b"\xfc"), simple(1, 21, b"\xfc"), simple(1, -100, b"\xfc"))
    assert [packet.dts_us for packet in found] == [-6_500, 14_500, 14_501]


@pytest.mark.parametrize(
    ("scale_ns", "dts_us"), [(1_000_000, 1_010_000), (1_000, 1_010), (20_833, 21_041), (10**9, 1_010_000_000)]
)
def test_scales(scale_ns: int, dts_us: int) -> None:
    entry = track(1, "A_MPEG/L3", 2, audio())
    _, found = one_track(entry, simple(1, 10, MP3_FRAME), scale_ns=scale_ns, time=1000)
    assert [packet.dts_us for packet in found] == [dts_us]


def test_times_that_cannot_be() -> None:
    """A Cluster at 2^63 milliseconds is passed over."""
    data = plain_file(cluster(1 << 63, simple(1, 0, VP8_KEY)), cluster(40, simple(1, 0, VP8_KEY)))
    assert [packet.dts_us for packet in packets_of(data)] == [40_000]
    with pytest.raises(RemoteProtocolError):
        packets_of(plain_file(*PLAIN, scale_ns=0))


def test_a_second_recording_goes_on_behind_the_first() -> None:
    """Files one behind the other, and live streams whose encoder began anew."""
    late = cluster(60_000, simple(1, 0, VP8_KEY), simple(2, 10, MP3_FRAME))
    found = packets_of(plain_file(late, known=False) + plain_file(*PLAIN))
    assert [packet.dts_us for packet in found if packet.track == 0] == [
        60_000_000,
        60_010_000,
        60_050_000,
        60_090_000,
        60_130_000,
    ]
    assert [packet.dts_us for packet in found if packet.track == 1] == [60_010_000, 60_015_000, 60_039_000]


def test_reordered_pictures() -> None:
    """MPEG-2 says nothing of its reordering before it is decoded; it is seen from the first pictures."""
    order = [0, 120, 40, 80, 240, 160, 200]
    blocks = [simple(1, time, bytes([time]), key=not time) for time in order]
    entry = track(1, "V_MPEG2", 1, video() + unsigned_element(0x23E383, 40_000_000))
    _, found = one_track(entry, *blocks)
    assert [packet.pts_us for packet in found] == [time * 1000 for time in order]
    assert [packet.dts_us for packet in found] == [n * 40_000 - 40_000 for n in range(7)]


def test_a_sought_keyframe_keeps_its_time() -> None:
    """Where pictures reorder and the rate varies, the first times after a jump are what the index remembers."""
    times = [0, 1200, 400, 800, 2400, 1600, 2000, 3600, 2800, 3200, 4800, 4000, 4410]
    first = [simple(1, time, bytes([n + 1]), key=not n) for n, time in enumerate(times)]
    second = [simple(1, time, bytes([n + 50]), key=not n) for n, time in enumerate(times)]
    entry = track(1, "V_MPEG2", 1, video() + unsigned_element(0x23E383, 400_000_000))
    clusters = cluster(0, *first), cluster(5200, *second)
    data = ebml_header() + segment(info(), tracks(entry), *clusters)
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    engine.feed(data)
    engine.feed(b"")
    through = sink.take()[13:]
    assert through[0].dts_us == 4_800_000
    position = data.index(clusters[1])
    engine.seek(through[0].dts_us, position)
    engine.feed(data[position:])
    engine.feed(b"")
    assert sink.take() == through


@pytest.mark.parametrize("depth", [1, 2, 3])
@pytest.mark.parametrize("leading", [False, True], ids=["closed", "open"])
def test_times_behind_any_keyframe_are_those_of_the_whole(depth: int, leading: bool) -> None:
    """Pictures at any distance: what is read from a keyframe on has the times that it had when all was read."""
    chance = random.Random(depth)
    for _ in range(40):
        clusters: list[bytes] = []
        shown = 0
        while len(clusters) < 5:
            steps = [chance.choice((1, 4, 40, 41, 120, 600)) for _ in range(16)]
            times = [shown + sum(steps[:n]) for n in range(16)]
            shown = times[-1] + chance.choice((1, 40, 700))
            order = reordered(times, depth, leading=leading and bool(clusters))
            blocks = [simple(1, time - times[0], bytes([n + 1]), key=not n) for n, time in enumerate(order)]
            clusters.append(cluster(times[0], *blocks))
        entry = track(1, "V_MPEG2", 1, video() + unsigned_element(0x23E383, 40_000_000))
        data = ebml_header() + segment(info(), tracks(entry), *clusters)
        engine, sink = demuxer(), PacketList()
        engine.from_places = True
        engine.attach(sink)
        engine.feed(data)
        engine.feed(b"")
        whole = sink.take()
        assert len(whole) == 80 and all(one.dts_us < other.dts_us for one, other in itertools.pairwise(whole))
        for number, one in enumerate(clusters):
            position = data.index(one)
            engine.seek(whole[16 * number].dts_us, position)
            engine.feed(data[position:])
            engine.feed(b"")
            assert sink.take() == whole[16 * number :], number


def reordered(times: list[int], depth: int, *, leading: bool) -> list[int]:
    """Return times of pictures in decode order: each one that others refer to comes before `depth` that are shown earlier."""
    order = [] if leading else times[:1]
    rest = times if leading else times[1:]
    for at in range(0, len(rest), depth + 1):
        *between, last = rest[at : at + depth + 1]
        order += [last, *reversed(between)]
    return order


def test_who_goes_back_to_the_beginning_has_the_same_times() -> None:
    """Where sound is first, its time is no decode time of the picture, which begins later."""
    shown = [0, 120, 40, 80, 240, 160, 200]
    entry = track(1, "V_MPEG2", 1, video() + unsigned_element(0x23E383, 40_000_000))
    blocks = [simple(1, 60 + time, bytes([n + 1]), key=not n) for n, time in enumerate(shown)]
    first = cluster(0, simple(2, 0, b"s"), *blocks)
    data = ebml_header() + segment(info(), tracks(entry, track(2, "A_MPEG/L2", 2)), first)
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    engine.feed(data)
    engine.feed(b"")
    through = sink.take()
    engine.seek(0, data.index(first))
    engine.feed(data[data.index(first) :])
    engine.feed(b"")
    assert sink.take() == through


# -- Tracks and encodings


def encoding(compression: bytes, more: bytes = b"") -> bytes:
    return element(0x6D80, element(0x6240, element(0x5034, compression) + more))


def test_header_stripping() -> None:
    stripped = encoding(unsigned_element(0x4254, 3) + element(0x4255, MP3_FRAME[:4]))
    _, found = one_track(track(1, "A_MPEG/L3", 2, audio() + stripped), simple(1, 0, b"\x01<a><b>", lacing=2))
    assert [(packet.dts_us, packet.payload) for packet in found] == [
        (0, MP3_FRAME[:4] + b"<a>"), (24_000, MP3_FRAME[:4] + b"<b>")
    ]  # fmt: skip


def test_zlib() -> None:
    entry = track(1, "S_TEXT/UTF8", 17, encoding(b""))
    found = one_track(
        entry, simple(1, 0, zlib.compress(b"a" * 5000)), simple(1, 1, b"no zlib"), simple(1, 2, zlib.compress(b"c"))
    )[1]
    assert [packet.payload for packet in found] == [b"a" * 5000, b"c"]


def test_zlib_is_bounded() -> None:
    bomb = zlib.compress(bytes(65 << 20), 9)
    entry = track(1, "S_TEXT/UTF8", 17, encoding(b""))
    assert one_track(entry, simple(1, 0, bomb), simple(1, 1, zlib.compress(b"c")))[1] == [
        Packet(0, 1000, 0, True, b"c")
    ]


@pytest.mark.parametrize(
    "more",
    [
        encoding(unsigned_element(0x4254, 1)),  # bzip2
        encoding(b"", unsigned_element(0x5033, 1)),  # encryption
        element(0x6D80, element(0x6240, b"") + element(0x6240, b"")),
    ],
)
def test_tracks_that_cannot_be_read_are_passed_over(more: bytes) -> None:
    entries = tracks(
        track(1, "A_MPEG/L3", 2, audio() + more), track(2, "A_REAL/COOK", 2), track(3, "A_MPEG/L3", 2, audio())
    )
    data = ebml_header() + segment(
        info(), entries, cluster(0, simple(1, 0, b"a"), simple(2, 0, b"b"), simple(3, 0, MP3_FRAME))
    )
    assert packets_of(data) == [Packet(0, 0, 0, True, MP3_FRAME)]
    with pytest.raises(UnsupportedError):
        packets_of(ebml_header() + segment(info(), tracks(track(1, "A_MPEG/L3", 2, audio() + more))))


@pytest.mark.parametrize(
    ("codec", "payload", "text"),
    [
        ("S_TEXT/UTF8", "Hallo\nwereld", "Hallo\nwereld"),
        ("S_TEXT/ASS", r"1,0,Default,,0,0,0,,Yes, {\i1}two{\i0}\Nlines\hhere", "Yes, two\nlines here"),
        ("S_TEXT/SSA", r"1,0,Default,,0,0,0,,plain\n", "plain"),
        ("S_TEXT/ASS", "too,few,commas", ""),
        ("D_WEBVTT/SUBTITLES", "id\nline:5\ntext\nmore", "text\nmore"),
        ("S_TEXT/WEBVTT", "text", "text"),
    ],
)
def test_subtitles(codec: str, payload: str, text: str) -> None:
    found_tracks, found = one_track(
        track(1, codec, 17, language="ger"), group(block(1, 0, payload.encode()), duration=9)
    )
    assert found_tracks == [TrackInfo(META, "subtitle", language="deu", track_id=1)]
    assert [(packet.dts_us, packet.payload.decode()) for packet in found] == [(0, text), (9000, "")] * bool(text)


@pytest.mark.parametrize(
    ("codec", "bits", "payload", "stored"),
    [
        ("A_PCM/INT/LIT", 16, "0102030405", "02010403"),
        ("A_PCM/INT/LIT", 24, "010203040506", "030201060504"),
        ("A_PCM/INT/LIT", 32, "01020304", "04030201"),
        ("A_PCM/INT/LIT", 8, "0102", "0102"),
        ("A_PCM/INT/BIG", 16, "0102", "0102"),
    ],
)
def test_samples_are_big_endian(codec: str, bits: int, payload: str, stored: str) -> None:
    found_tracks, found = one_track(track(1, codec, 2, audio(8000, 1, bits)), simple(1, 0, bytes.fromhex(payload)))
    assert found_tracks == [TrackInfo(AUDIO, "PCM", sample_rate_hz=8000, channels=1, sample_bits=bits, track_id=1)]
    assert found[0].payload.hex() == stored


def test_obus_get_their_sizes() -> None:
    """The last unit of a Block may lack its size; delimiters should not be there, and go."""
    private = bytes.fromhex("81000c00")
    _, found = one_track(
        track(1, "V_AV1", 1, video(), private), simple(1, 0, bytes.fromhex("1200 2a02aabb 30ccdd"), key=False)
    )
    assert found[0].payload.hex() == "2a02aabb3202ccdd"


def test_nal_units_get_lengths_of_four_bytes() -> None:
    avcc = bytes.fromhex("0142c00afde10017") + SPS + b"\x01\x00\x05" + PPS
    payload = b"\x00\x02\x65\x88" + b"\x00\x03\x41\x9a\x00"
    found_tracks, found = one_track(
        track(1, "V_MPEG4/ISO/AVC", 1, video(), avcc), simple(1, 0, payload + b"\x00\x09\x01")
    )
    assert found[0].payload.hex() == "000000026588" + "00000003419a00"
    assert found_tracks[0].init_data == avcc[:4] + b"\xff" + avcc[5:]
    assert (found_tracks[0].width, found_tracks[0].height) == (64, 64)


def test_a_byte_stream_of_nal_units() -> None:
    """Some writers leave CodecPrivate out and keep start codes: the parameter sets are in the first keyframe."""
    start = b"\x00\x00\x00\x01"
    payload = start + SPS + start + PPS + start + b"\x65\x88"
    found_tracks, found = one_track(track(1, "V_MPEG4/ISO/AVC", 1, video()), simple(1, 0, payload))
    assert found[0].payload.hex() == "00000017" + SPS.hex() + "00000005" + PPS.hex() + "000000026588"
    assert h264.parse_avcc(found_tracks[0].init_data).sps == (SPS,)


def test_vp9_waits_for_its_first_keyframe() -> None:
    """WebM says nothing of VP9's profile: the first keyframe does, so tracks are known only then."""
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    entries = tracks(track(1, "V_VP9", 1, video()), track(2, "A_MPEG/L3", 2, audio()))
    key = bytes.fromhex("824983420003f002f600")
    engine.feed(ebml_header("webm") + element_id(0x18538067) + UNKNOWN_SIZE + info() + entries)
    assert not engine.ready
    engine.feed(cluster(0, simple(2, 0, MP3_FRAME), simple(1, 0, key)))
    assert engine.ready
    assert engine.tracks[0].init_data[:4] == b"\x01\x00\x00\x00"
    assert (engine.tracks[0].width, engine.tracks[0].height) == (64, 48)
    assert len(sink.take()) == 2


def test_a_size_that_changes_is_told_before_its_keyframe() -> None:
    engine, sink = demuxer(), PacketList()
    engine.attach(sink)
    seen: list[int] = []
    engine.on_tracks = lambda: seen.append(len(sink.take()))
    larger = VP8_KEY[:6] + bytes.fromhex("80006000") + VP8_KEY[10:]
    engine.feed(plain_file(cluster(0, simple(1, 0, VP8_KEY), simple(1, 40, larger))))
    assert seen == [1]
    assert (engine.tracks[0].width, engine.tracks[0].height) == (128, 96)


def test_forced_ready_where_a_track_never_comes() -> None:
    entries = tracks(track(1, "V_VP9", 1, video()), track(2, "A_MPEG/L3", 2, audio()))
    engine = demuxer()
    engine.feed(ebml_header() + segment(info(), entries, known=False))
    for second in range(0, 12):
        assert not engine.ready or second > 9
        engine.feed(cluster(second * 1000, simple(2, 0, MP3_FRAME)))
    assert engine.ready


# -- Damage


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"RIFF1234", RemoteProtocolError),
        (b"\x00" * 8, RemoteProtocolError),
        (b"", TruncatedError),
        (ebml_header(), TruncatedError),
        (ebml_header("mp3"), UnsupportedError),
        (ebml_header() + segment(info(), cluster(0)), RemoteProtocolError),
        (ebml_header() + segment(tracks()), UnsupportedError),
        (ebml_header() + element_id(0x1654AE6B) + element_size(MAX_HEADER_BYTES + 1), LimitExceededError),
        (
            ebml_header() + segment(tracks(*[track(n + 1, "V_VP8", 1) for n in range(MAX_TRACKS + 1)])),
            LimitExceededError,
        ),
        (ebml_header() + segment(info(), b"\x00\x00\x00"), RemoteProtocolError),
    ],
)
def test_what_is_no_matroska(data: bytes, error: type[RemoteProtocolError]) -> None:
    with pytest.raises(error):
        packets_of(data)


@pytest.mark.parametrize(
    "damage", [b"\x00" * 50, b"\xff" * 50, b"\xa3\x1f\xff\xff\xff", element_id(0xA3) + UNKNOWN_SIZE]
)
def test_reading_goes_on_at_the_next_cluster(damage: bytes) -> None:
    data = plain_file(known=False) + PLAIN[0][:-5] + damage + PLAIN[1]
    found = packets_of(data)
    assert [packet for packet in found if packet.pts_us >= 80_000 or packet.pts_us == 29_000][-3:] == WANTED[3:]


def test_a_block_beyond_its_cluster() -> None:
    lying = element_id(0xA3) + element_size(500) + b"\x81\x00\x00\x80abc"
    data = plain_file(cluster(0, simple(1, 0, VP8_KEY), lying), PLAIN[1])
    assert packets_of(data) == [WANTED[0], *WANTED[3:]]


def test_truncated_at_every_byte() -> None:
    data = plain_file(*PLAIN)
    begin = data.index(PLAIN[0])
    for end in range(len(data)):
        try:
            found = packets_of(data[:end])
        except RemoteProtocolError:
            assert end < begin
            continue
        assert found == WANTED[: len(found)]


def test_dates_and_durations() -> None:
    more = element(0x4489, bytes.fromhex("40c3880000000000")) + element(0x4461, (10**9).to_bytes(8, "big"))
    engine = demuxer()
    engine.feed(ebml_header() + segment(info(1_000_000, more), tracks(track(1, "V_VP8", VIDEO == "video"))))
    assert engine.duration_us == 10_000_000
    assert engine.unix_us == 978_307_201_000_000

"""DTSC packets: golden bytes in both directions, every split, times, headers that come again and that are elsewhere."""

from __future__ import annotations

from typing import Any

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.dtsc import MAX_COMMAND_BYTES, MAX_HEADERS, MAX_TRACKS, DtscMuxer, packet_bytes, track_name
from mist.core.dtsc_objects import parse_object, serialize_object
from mist.core.packet import Packet
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError
from mist.formats.dtsc import DtscDemuxer
from mist.formats.tracks import AAC, AUDIO, H264, META, VIDEO, TrackInfo
from tests.support.dtsc_peer import command, media, packet, read_value, write_value

PICTURE = TrackInfo(VIDEO, H264, track_id=1, width=1920, height=1080, frame_rate_mhz=29970)
SOUND = TrackInfo(AUDIO, AAC, track_id=2, language="eng", sample_rate_hz=48000, channels=2, sample_bits=16)
TRACKS = [PICTURE, SOUND]

# Track 1, 1000 ms, presented 40 ms later, a keyframe, payload "ABC".
GOLDEN = bytes.fromhex(
    "44545032 00000042 00000001 00000000000003e8 e0 0006 6f6666736574 01 0000000000000028"
    "0008 6b65796672616d65 01 0000000000000001 0004 64617461 02 00000003 414243 0000ee"
)
HEADER = {
    "live": 1,
    "version": 4,
    "unixzero": 1_700_000_000_123,
    "tracks": {
        "video_H264_1920x1080_29.97fps_0": {
            "trackid": 1, "firstms": 5000, "lastms": 5000, "bps": 0, "maxbps": 0, "init": b"", "codec": b"H264",
            "type": b"video", "width": 1920, "height": 1080, "fpks": 29970, "efpks": 29970,
        },
        "audio_AAC_2ch_48000hz_eng_1": {
            "trackid": 2, "firstms": 5000, "lastms": 5000, "bps": 0, "maxbps": 0, "init": b"", "codec": b"AAC",
            "lang": b"eng", "type": b"audio", "rate": 48000, "size": 16, "channels": 2,
        },
    },
}  # fmt: skip


def header(*infos: TrackInfo, **more: Any) -> bytes:
    """Return a header with these tracks, ids from 1."""
    members = parse_object(DtscMuxer(list(infos)).header(0), 8)
    return packet_bytes(b"DTSC", serialize_object(members | more))


def read(data: bytes, **options: Any) -> list[Packet]:
    return demux(DtscDemuxer(**options), data)


def in_pieces(data: bytes, size: int) -> tuple[list[Packet], DtscDemuxer]:
    demuxer, packets = DtscDemuxer(), PacketList()
    demuxer.attach(packets)
    for at in range(0, len(data), size):
        demuxer.feed(data[at : at + size])
    demuxer.feed(b"")
    return packets.take(), demuxer


def test_golden_packet() -> None:
    muxer = DtscMuxer(TRACKS)
    muxer.write(Packet(0, 1_000_000, 40_000, True, b"ABC"))
    assert muxer.take_output() == GOLDEN
    assert read(header(*TRACKS) + GOLDEN) == [Packet(0, 1_000_000, 40_000, True, b"ABC")]


def test_golden_header() -> None:
    data = DtscMuxer(TRACKS, unix_zero_us=lambda: 1_700_000_000_123_456).header(5_000_000)
    assert data[:4] == b"DTSC" and int.from_bytes(data[4:8], "big") == len(data) - 8
    found, end = read_value(data, 8)
    assert end == len(data)
    assert found == HEADER
    assert list(found["tracks"]) == list(HEADER["tracks"])  # type: ignore[call-overload]
    for name, members in HEADER["tracks"].items():  # type: ignore[attr-defined]
        assert list(found["tracks"][name]) == list(members), "the order of members"


def test_header_says_what_the_stream_is() -> None:
    assert parse_object(DtscMuxer(TRACKS, live=False).header(), 8).keys() == {"vod", "version", "tracks"}
    demuxer = DtscDemuxer()
    demux(demuxer, packet(b"DTSC", write_value(HEADER)))
    assert (demuxer.live, demuxer.vod, demuxer.unix_zero_ms) == (True, False, 1_700_000_000_123)
    assert demuxer.tracks == TRACKS


def test_track_names() -> None:
    assert track_name(TrackInfo(META, "JSON"), 3) == "meta_JSON_3"
    assert track_name(TrackInfo("", ""), 4) == "metadata_4"
    assert track_name(SOUND.changed(language="und"), 0) == "audio_AAC_2ch_48000hz_0"


def _sample() -> tuple[bytes, list[Packet]]:
    muxer = DtscMuxer(TRACKS)
    packets = []
    for number in range(40):
        packets.append(
            Packet(0, number * 40_000, 80_000 - number % 3 * 40_000, number % 12 == 0, bytes([number]) * 300)
        )
        packets.append(Packet(1, number * 40_000 + 5_000, 0, True, bytes([number]) * 20))
    data = muxer.header(0)
    for one in packets:
        muxer.write(one)
        data += muxer.take_output()
    return data, packets


def test_round_trip() -> None:
    data, packets = _sample()
    assert read(data) == packets


@pytest.mark.parametrize("size", [*range(1, 25), 64, 333, 5000])
def test_every_split_gives_the_same(size: int) -> None:
    data, packets = _sample()
    found, demuxer = in_pieces(data, size)
    assert found == packets
    assert demuxer.tracks == TRACKS


def test_a_split_at_every_byte() -> None:
    data, packets = _sample()
    data = data[:2000]
    whole, _ = in_pieces(data[: len(header(*TRACKS))], 1 << 20)
    for at in range(1, len(data)):
        demuxer, sink = DtscDemuxer(), PacketList()
        demuxer.attach(sink)
        demuxer.feed(data[:at])
        demuxer.feed(data[at:])
        assert (found := sink.take()) == packets[: len(found)] and len(found) == 6
    assert whole == []


def test_positions_lead_back() -> None:
    data, packets = _sample()
    at = len(header(*TRACKS))
    for _ in range(24):
        at += 8 + int.from_bytes(data[at + 4 : at + 8], "big")
    demuxer, sink = DtscDemuxer(), PacketList()
    demuxer.attach(sink)
    demuxer.feed(data[: at + 8 + int.from_bytes(data[at + 4 : at + 8], "big")])
    assert demuxer.position == at
    sink.take()
    demuxer.seek(packets[24].dts_us, at)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + 70])
    assert sink.take() == packets[24:]


def test_audio_keys_are_those_that_the_stream_lists() -> None:
    """Readers begin a key at each marked packet, so not every packet of sound is marked."""
    muxer = DtscMuxer(TRACKS)
    muxer.write(Packet(1, 0, 0, True, b"a"))
    assert b"keyframe" not in muxer.take_output()
    assert read(header(*TRACKS) + media(2, 0, b"a")) == [Packet(1, 0, 0, True, b"a")]


@pytest.mark.parametrize(("us", "ms"), [(0, 0), (499, 0), (500, 1), (1499, 1), (33_366, 33), (33_500, 34)])
def test_times_are_rounded(us: int, ms: int) -> None:
    muxer = DtscMuxer(TRACKS)
    muxer.write(Packet(0, us, 0, False, b""))
    assert int.from_bytes(muxer.take_output()[12:20], "big") == ms


def test_offsets_are_those_of_rounded_times() -> None:
    muxer = DtscMuxer(TRACKS)
    muxer.write(Packet(0, 33_366, 33_367, False, b""))
    assert read(header(*TRACKS) + muxer.take_output()) == [Packet(0, 33_000, 34_000, False, b"")]


EXACT = [
    Packet(0, 33_366, 33_367, True, b"a"),
    Packet(1, 21_333, 0, True, b"b"),
    Packet(0, -40_001, 40_001, False, b"c"),
    Packet(1, 21_000, 0, True, b"d"),
    Packet(0, 66_733, -16_600, False, b"e"),
]


def test_exact_times_go_round() -> None:
    muxer = DtscMuxer(TRACKS, exact=True)
    data = muxer.header()
    for one in EXACT:
        muxer.write(one)
    assert read(data + muxer.take_output()) == EXACT


def test_exact_times_change_nothing_for_others() -> None:
    """What a reader looks for is the same with and without the microseconds."""
    for one in EXACT:
        found = []
        for exact in (True, False):
            muxer = DtscMuxer(TRACKS, exact=exact)
            muxer.write(one)
            data = muxer.take_output()
            members, end = read_value(data, 20)
            assert end == len(data)
            found.append((data[8:20], {k: v for k, v in members.items() if k not in ("dus", "pus")}))
        assert found[0] == found[1]


def test_old_packets_are_read() -> None:
    body = write_value({"trackid": 2, "time": 77, "data": b"x", "keyframe": 1})
    assert read(header(*TRACKS) + packet(b"DTPD", body)) == [Packet(1, 77_000, 0, True, b"x")]


def test_members_in_any_order_and_unknown_ones() -> None:
    body = write_value({"data": b"x", "later": [1, {"a": None}], "keyframe": 1, "bpos": 9, "offset": -5})
    data = packet(b"DTP2", (1).to_bytes(4, "big") + (50).to_bytes(8, "big") + body)
    assert read(header(*TRACKS) + data) == [Packet(0, 50_000, -5_000, True, b"x")]


def test_hidden_members_and_cleared_keys() -> None:
    """Members are hidden in place by zeros over their names, and a key is cleared by a capital letter."""
    hidden = GOLDEN.replace(b"offset", bytes(6)).replace(
        b"keyframe\x01" + bytes(7) + b"\x01", b"Keyframe\x01" + bytes(8)
    )
    assert read(header(*TRACKS) + hidden) == [Packet(0, 1_000_000, 0, False, b"ABC")]


def test_unknown_kinds_and_packets_without_payload_are_passed_over() -> None:
    data = header(*TRACKS) + packet(b"DTXX", b"whatever") + packet(b"DTP2", bytes(12) + write_value({"a": 1})) + GOLDEN
    assert len(read(data)) == 1


# -- headers


def _followed(*pieces: bytes) -> tuple[list[Packet], DtscDemuxer, list[tuple[int, ...]]]:
    """Feed pieces one by one; return the packets, the demuxer, and the tracks at each change."""
    demuxer, sink, seen = DtscDemuxer(False), PacketList(), []
    demuxer.attach(sink)
    demuxer.on_header = lambda _members: seen.append(tuple(demuxer.announced))
    for piece in pieces:
        demuxer.feed(piece)
    return sink.take(), demuxer, seen


def test_a_second_header_adds_and_changes() -> None:
    other = SOUND.changed(track_id=3, codec="MP3")
    changed = PICTURE.changed(init_data=b"new")
    packets, demuxer, seen = _followed(
        header(PICTURE), GOLDEN, header(changed, SOUND, other), GOLDEN, media(3, 9, b"m")
    )
    assert seen == [(0,), (0, 1, 2)]
    assert demuxer.tracks == [changed, SOUND, other]
    assert [one.track for one in packets] == [0, 0, 2]


def test_a_header_without_a_track_keeps_it() -> None:
    packets, demuxer, seen = _followed(header(*TRACKS), header(), GOLDEN)
    assert seen == [(0, 1), (0, 1)]
    assert len(packets) == 1 and demuxer.tracks == TRACKS


def test_reset_replaces_all_tracks() -> None:
    second = header(SOUND, PICTURE)
    packets, demuxer, _ = _followed(header(*TRACKS), command("reset"), second, media(1, 5, b"s"))
    assert demuxer.tracks == [SOUND.changed(track_id=1), PICTURE.changed(track_id=2)]
    assert packets[0].keyframe
    with pytest.raises(RemoteProtocolError, match="track 2"):
        _followed(header(*TRACKS), command("reset"), header(PICTURE), media(2, 5, b"s"))


def test_commands_are_told() -> None:
    demuxer = DtscDemuxer()
    heard: list[Any] = []
    demuxer.on_command = heard.append
    demuxer.feed(command("sync", sync=1) + command("ping"))
    assert heard == [{"cmd": b"sync", "sync": 1}, {"cmd": b"ping"}]


def test_files_name_tracks_by_their_place() -> None:
    """A header with an index belongs to a file, whose packets have the place in it; the source's ids may be anything."""
    members = parse_object(header(*TRACKS), 8)
    for name, track_id in zip(members["tracks"], (4113, 256), strict=True):
        members["tracks"][name] |= {"trackid": track_id, "keys": b"", "parts": b"", "fragments": b"", "keysizes": b""}
    data = packet_bytes(b"DTSC", serialize_object(members)) + media(0, 1, b"v") + media(1, 2, b"a")
    assert [one.track for one in read(data)] == [0, 1]


def test_moreheader_leads_to_the_last_header() -> None:
    first = header(PICTURE, moreheader=1)
    packets = GOLDEN + media(2, 9, b"a")
    position = len(first) + len(packets)
    first = header(PICTURE, moreheader=position)
    data = first + packets + header(*TRACKS)
    demuxer = DtscDemuxer()
    assert [one.track for one in demux(demuxer, data)] == [0, 1]
    assert demuxer.tracks == TRACKS
    assert len(read(first + GOLDEN, seekable=False)) == 1


@pytest.mark.parametrize("position", [20, 1 << 40])
def test_moreheader_to_nowhere_keeps_the_first_header(position: int) -> None:
    demuxer = DtscDemuxer()
    assert len(demux(demuxer, header(PICTURE, moreheader=position) + GOLDEN)) == 1


def test_headers_in_a_circle() -> None:
    data = packet(b"DTXX", b"") + header(PICTURE, moreheader=8)
    with pytest.raises(LimitExceededError, match=str(MAX_HEADERS)):
        read(data)


# -- what is broken


def test_a_packet_before_any_header() -> None:
    with pytest.raises(RemoteProtocolError, match="before any header"):
        read(GOLDEN)


def test_the_end_in_a_packet() -> None:
    data = header(*TRACKS)
    for size in (*range(1, 30), len(GOLDEN) - 1):
        with pytest.raises(TruncatedError) as caught:
            read(data + GOLDEN + GOLDEN[:size])
        assert caught.value.offset == len(data) + len(GOLDEN)


@pytest.mark.parametrize(
    ("data", "error"),
    [
        (b"HTTP/1.1 200 OK", RemoteProtocolError),
        (b"DTP2\xff\xff\xff\xff", LimitExceededError),
        (b"DTSC\xff\xff\xff\xff", LimitExceededError),
        (b"DTCM" + (MAX_COMMAND_BYTES + 1).to_bytes(4, "big"), LimitExceededError),
        (packet(b"DTP2", bytes(5)), RemoteProtocolError),
        (packet(b"DTP2", bytes(12) + b"\x01"), RemoteProtocolError),
        (packet(b"DTP2", bytes(12) + b"\xe0\0\4data\2\0\0\1\0abc"), TruncatedError),
        (packet(b"DTP2", bytes(12) + b"\xe0\0\4data\2\0\0\0\1a"), TruncatedError),
        (packet(b"DTP2", bytes(4) + b"\xff" * 8 + write_value({"data": b""})), LimitExceededError),
        (media(1, 0, b"", offset_ms=-(1 << 62)), LimitExceededError),
        (media(1, 0, b"", dus=1 << 62), LimitExceededError),
        (packet(b"DTSC", write_value({"tracks": {"a": 1}})), RemoteProtocolError),
        (packet(b"DTSC", write_value({"tracks": {"a": {"init": bytes(70_000)}}})), LimitExceededError),
        (packet(b"DTSC", write_value({"tracks": {str(i): {} for i in range(MAX_TRACKS + 1)}})), LimitExceededError),
        (media(9, 0, b""), RemoteProtocolError),
    ],
)
def test_broken(data: bytes, error: type[Exception]) -> None:
    with pytest.raises(error) as caught:
        read(header(*TRACKS) + data + bytes(40))
    assert caught.value.offset is None or caught.value.offset >= len(header(*TRACKS))  # type: ignore[attr-defined]


def test_too_many_tracks_to_write() -> None:
    with pytest.raises(LimitExceededError):
        DtscMuxer([PICTURE] * (MAX_TRACKS + 1))
    muxer = DtscMuxer([PICTURE])
    assert muxer.set_tracks(TRACKS)
    assert muxer.take_output() == DtscMuxer(TRACKS).header(0)


def test_what_a_header_says_of_numbers_is_not_believed() -> None:
    entry = {"type": "audio", "codec": "AAC", "rate": -5, "channels": b"0x2", "size": b"junk", "width": 1 << 62}
    demuxer = DtscDemuxer()
    demux(demuxer, packet(b"DTSC", write_value({"tracks": {"a": entry}})))
    (info,) = demuxer.tracks
    assert (info.sample_rate_hz, info.channels, info.sample_bits, info.width) == (0, 2, 0, 1 << 31)

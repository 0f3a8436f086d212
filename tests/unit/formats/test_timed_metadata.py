"""Timed metadata in MP4: sample entries, events beside fragments, in and out."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.mp4_demux import MAX_EVENT_BYTES
from mist.core.mp4_mux import Mp4FragmentMuxer
from mist.core.packet import Packet
from mist.core.packet_log import PacketLog
from mist.errors import LimitExceededError, RemoteProtocolError, UnsupportedError
from mist.formats import timed_metadata
from mist.formats.mp4_boxes import LiveMovie
from mist.formats.mp4_file import make_muxer
from mist.formats.mp4_movie import make_demuxer
from mist.formats.timed_metadata import SCHEMES, parse_event
from mist.formats.tracks import AUDIO, ID3, JSON, KLV, META, SCTE35, SUBTITLE, TrackInfo
from tests.support.demuxing import demux_pieces, mux, packet_positions, patched
from tests.support.mp4_builder import box, full

MP3 = TrackInfo(AUDIO, "MP3", sample_rate_hz=48_000, channels=2)
FRAME = bytes.fromhex("fffb9464") + bytes(380)
FRAME_US = 24_000
MESSAGES = {
    ID3: b"ID3\4\0\0\0\0\0\x10TIT2\0\0\0\6\0\0\3title",
    SCTE35: bytes.fromhex("fc302000000000000000fff00f05000000017fcfffffffff00000000000000deadbeef"),
    KLV: bytes.fromhex("060e2b34020b01010e01030101000000") + b"\x02\x01\x01",
}


def emsg(scheme: str, payload: bytes, ticks: int, *, version: int = 1, timescale: int = 1000, number: int = 1) -> bytes:
    texts = scheme.encode() + b"\0value\0"
    if version:
        return full("emsg", struct.pack(">IQII", timescale, ticks, 0, number), texts, payload, version=version)
    return full("emsg", texts, struct.pack(">IIII", timescale, ticks, 0, number), payload)


def sound(first: int, count: int) -> list[Packet]:
    return [Packet(0, number * FRAME_US, 0, True, FRAME) for number in range(first, first + count)]


def live(packets: list[Packet], *codecs: str) -> bytes:
    tracks = [MP3, *(TrackInfo(META, codec) for codec in codecs)]
    return mux(Mp4FragmentMuxer(tracks, LiveMovie()), packets, finish=False)


def other(packets: list[Packet]) -> list[tuple[int, int, bytes]]:
    return [(packet.track, packet.dts_us, packet.payload) for packet in packets if packet.track]


def test_golden_event() -> None:
    engine = Mp4FragmentMuxer([MP3, TrackInfo(META, SCTE35)], LiveMovie())
    engine.write(Packet(1, 2_000_000, 0, True, b"\xfc\x30"))
    number = 2166136261 ^ 180_000
    for byte in b"\xfc\x30":
        number = (number ^ byte) * 16777619 & 0xFFFFFFFF
    assert engine.take_output() == (
        bytes.fromhex("0000003c 656d7367 01000000 00015f90 000000000002bf20 ffffffff")
        + struct.pack(">I", number)
        + b"urn:scte:scte35:2013:bin\0\0\xfc\x30"
    )


def test_events_have_no_track_in_the_movie() -> None:
    alone, beside = live([]), live([], ID3, KLV)
    assert beside.count(b"trak") == alone.count(b"trak") == 1
    with pytest.raises(UnsupportedError, match="no place in MP4"):
        Mp4FragmentMuxer([MP3, TrackInfo(META, JSON)], LiveMovie())


def test_events_that_begin_late_go_along() -> None:
    """They need nothing in the movie, so that whoever watches gets them as well."""
    engine = Mp4FragmentMuxer([MP3], LiveMovie())
    data = mux(engine, sound(0, 3), finish=False)
    assert not engine.set_tracks([MP3, TrackInfo(META, JSON)])
    assert not engine.set_tracks([MP3, MP3])
    assert engine.set_tracks([MP3, TrackInfo(META, ID3)])
    for packet in (Packet(1, 72_000, 0, True, b"ID3 late"), *sound(3, 3)):
        engine.write(packet)
    again = Mp4FragmentMuxer([MP3, TrackInfo(META, ID3)], LiveMovie())
    again.restore(engine.state())
    found = demux(make_demuxer(), data + engine.take_output())
    assert other(found) == [(1, 72_000, b"ID3 late")] and len(found) == 7


def test_events_go_out_and_come_in() -> None:
    """Each is written the moment it comes, and read once, in its place among the media, however the bytes are cut."""
    packets = sound(0, 50)
    for place, (codec, payload) in enumerate(MESSAGES.items()):
        packets.append(Packet(1 + list(MESSAGES).index(codec), 240_000 + 100_000 * place, 0, True, payload))
    packets.sort(key=lambda packet: packet.dts_us)
    data = live(packets, *MESSAGES)
    demuxer = make_demuxer()
    found = demux(demuxer, data)
    assert [(packet.track, packet.payload) for packet in found] == [
        (packet.track, packet.payload) for packet in packets
    ]
    assert [info.codec for info in demuxer.tracks] == ["MP3", *MESSAGES]
    assert other(found) == other(packets)
    assert [(one.track, one.dts_us) for one in demux_pieces(make_demuxer(), data, 7)] == [
        (one.track, one.dts_us) for one in found
    ]


@pytest.mark.parametrize("version", (0, 1))
def test_an_event_comes_once_when_it_is_due(version: int) -> None:
    """Packagers put it before the fragment, and repeat it in later ones until it is due."""
    begin = live(sound(0, 1))
    parts = [live(sound(20 * number, 20))[len(live([])) :] for number in range(3)]
    due_ms = (700, 700 - 480)  # from the movie's beginning, and from the second fragment's
    events = [
        emsg(SCHEMES[ID3], b"ID3 one", due_ms[number] if not version else 700, version=version) for number in range(2)
    ]
    foreign = emsg("urn:example", b"other", 0)
    data = live([]) + events[0] + foreign + parts[0] + events[1] + parts[1] + parts[2]
    assert begin.startswith(live([]))
    found = demux(make_demuxer(), data)
    assert other(found) == [(1, 700_000, b"ID3 one")]
    place = next(index for index, packet in enumerate(found) if packet.track)
    assert found[place - 1].dts_us < 700_000 <= found[place + 1].dts_us
    assert len(found) == 61


def test_an_event_behind_the_last_fragment_that_is_due() -> None:
    data = live(sound(0, 5)) + emsg(SCHEMES[KLV], b"klv", 5_000) + emsg(SCHEMES[KLV], b"lost", 1, version=0)
    assert other(demux(make_demuxer(), data)) == [(1, 5_000_000, b"klv")]


def test_an_index_knows_where_reading_begins_for_an_event() -> None:
    """Who reads on from a packet behind an event, at the place that the index has, gets the event as well."""
    parts = [live(sound(20 * number, 1))[len(live([])) :] for number in range(3)]
    event = emsg(SCHEMES[ID3], b"ID3 one", 490)
    data = live([]) + parts[0] + event + parts[1] + parts[2]
    demuxer = make_demuxer()
    found = packet_positions(demuxer, data)
    (position,) = {place for packet, place in found if packet.dts_us in (480_000, 490_000)}
    assert data[position:].startswith(event)
    again = PacketList()
    follower = demuxer.share()
    assert [info.codec for info in follower.tracks] == ["MP3", ID3]
    follower.attach(again)
    follower.seek(480_000, position)
    while (wanted := follower.want()) is not None:
        follower.feed(data[wanted[0] : wanted[0] + wanted[1]])
    assert [(one.track, one.dts_us) for one in again.take()] == [(0, 480_000), (1, 490_000), (0, 960_000)]


def test_sizes_of_events_are_in_an_index() -> None:
    log = PacketLog()
    demuxer = make_demuxer()
    data = live([*sound(0, 3), Packet(1, 30_000, 0, True, b"ID3 x")], ID3)
    while not demuxer.ready and (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    demuxer.index_into(log)
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    assert log.count == 4 and demuxer.sizes_are_exact


def test_tracks_that_an_index_knows_keep_their_numbers() -> None:
    demuxer = make_demuxer()
    data = live(sound(0, 2))
    while not demuxer.ready and (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    demuxer.foresee([TrackInfo(META, KLV), TrackInfo(META, ID3)])
    assert [info.codec for info in demuxer.tracks] == ["MP3", KLV, ID3]
    found = demux(demuxer, data + emsg(SCHEMES[ID3], b"ID3 one", 100))
    assert other(found) == [(2, 100_000, b"ID3 one")]


@pytest.mark.parametrize(
    ("content", "words"),
    (
        (b"\1\0\0\0" + bytes(10), "cut off"),
        (b"\0\0\0\0no end", "cut off"),
        (b"\0\0\0\0a\0b\0" + bytes(15), "cut off"),
        (emsg(SCHEMES[ID3], b"x", 1, timescale=0)[8:], "tick 1 of 0"),
        (emsg(SCHEMES[ID3], b"x", 1 << 63, timescale=1)[8:], "a second"),
        (b"", "cut off"),
    ),
)
def test_broken_events(content: bytes, words: str) -> None:
    with pytest.raises(RemoteProtocolError, match=words) as caught:
        parse_event(content, 77)
    assert caught.value.offset == 77


def test_events_that_are_not_carried() -> None:
    assert parse_event(emsg("urn:example", b"x", 1)[8:], 0) is None
    assert parse_event(emsg(SCHEMES[ID3], b"", 1)[8:], 0) is None
    assert parse_event(b"\2" + bytes(60), 0) is None


def test_too_large_an_event() -> None:
    data = live(sound(0, 2)) + emsg(SCHEMES[ID3], bytes(MAX_EVENT_BYTES), 1)
    with pytest.raises(LimitExceededError, match="an emsg box"):
        demux(make_demuxer(), data)


def test_looking_ahead_for_events(tmp_path: Path) -> None:
    """A converter knows before it begins what comes late."""
    path = tmp_path / "a.mp4"
    event = emsg(SCHEMES[KLV], b"klv", 200)
    path.write_bytes(live(sound(0, 9)) + event + event + emsg("urn:example", b"other", 0) + struct.pack(">I", 7))
    demuxer = make_demuxer()
    with path.open("rb") as file:
        demuxer.look_ahead(file.fileno())
    found = PacketList()
    demuxer.attach(found)
    data = path.read_bytes()[:-4]
    while not demuxer.ready and (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]][:600])
    assert [info.codec for info in demuxer.tracks] == ["MP3", KLV]
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    assert other(found.take()) == [(1, 200_000, b"klv")]


# -- tracks of plain files


def test_golden_sample_entries() -> None:
    assert timed_metadata.sample_entry(JSON) == box("mett", bytes(6) + b"\0\1", b"\0application/json\0")
    assert timed_metadata.sample_entry(KLV) == box(
        "urim", bytes(6) + b"\0\1", full("uri ", b"urn:misb:KLV:bin:1910.1\0")
    )


@pytest.mark.parametrize(
    ("content", "codec"),
    (
        (b"\0application/json\0", JSON),
        (b"\0application/json; charset=utf-8\0", JSON),
        (b"gzip\0application/json\0", ""),
        (b"\0text/plain\0", ""),
        (b"", ""),
    ),
)
def test_metadata_by_media_type(content: bytes, codec: str) -> None:
    assert timed_metadata.codec_of_text(content) == codec


def test_metadata_tracks_of_files() -> None:
    """Times, payloads and kinds are the same behind a file; packets of metadata may be any time apart."""
    codecs = [JSON, *SCHEMES, SUBTITLE]
    tracks = [MP3, *(TrackInfo(META, codec, language="deu") for codec in codecs)]
    packets = sound(0, 100)
    for place, codec in enumerate(codecs, 1):
        payload = {**MESSAGES, JSON: b'{"a":1}', SUBTITLE: b"text"}[codec]
        packets += [Packet(place, time_us, 0, True, payload) for time_us in (40_000, 1_000_000, 1_900_000)]
    packets.sort(key=lambda packet: packet.dts_us)
    engine = make_muxer(tracks)
    data = patched(mux(engine, packets), engine.patches())
    demuxer = make_demuxer()
    found = demux(demuxer, data)
    assert [(info.type, info.codec, info.language) for info in demuxer.tracks[1:]] == [
        (META, codec, "deu") for codec in codecs
    ]
    for place in range(1, len(tracks)):
        assert [one for one in other(found) if one[0] == place] == [one for one in other(packets) if one[0] == place]

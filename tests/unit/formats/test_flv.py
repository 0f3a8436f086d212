"""The FLV demuxer, against our own muxer."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.flv import FlvMuxer, FlvReader
from mist.core.flv_demux import has_data
from mist.core.packet import Packet
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats.flv import FlvDemuxer
from mist.formats.rtmp.media import TrackAssembler
from mist.formats.tracks import AAC, AUDIO, HEVC, JSON, META, MP3, OPUS, VIDEO, TrackInfo
from tests.support.codec_samples import golden

FILE_HEADER = b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00"
WRAP_US = (1 << 32) * 1000
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90", track_id=1, sample_rate_hz=48000, channels=2, sample_bits=16)
OPUS_TRACK = TrackInfo(
    AUDIO,
    OPUS,
    b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00",
    track_id=2,
    sample_rate_hz=48000,
    channels=2,
    sample_bits=16,
)


def _stream(start_us: int = 0) -> tuple[bytes, list[Packet]]:
    packets = [Packet(number % 2, start_us + number * 10_000, 0, True, bytes([number]) * 20) for number in range(20)]
    muxer = FlvMuxer([STEREO, OPUS_TRACK])
    data = muxer.header(start_us)
    for packet in packets:
        muxer.write(packet)
    return data + muxer.take_output(), packets


def _fed(data: bytes, step: int) -> tuple[FlvDemuxer, list[Packet]]:
    """Demux data fed in pieces of step bytes, whatever the demuxer wants."""
    demuxer, packets = FlvDemuxer(), PacketList()
    demuxer.attach(packets)
    for at in range(0, len(data), step):
        demuxer.feed(data[at : at + step])
    demuxer.feed(b"")
    return demuxer, packets.take()


def _tag(kind: int, body: bytes, time_ms: int = 0) -> bytes:
    head = bytes((kind,)) + len(body).to_bytes(3, "big") + (time_ms & 0xFFFFFF).to_bytes(3, "big")
    return head + bytes((time_ms >> 24, 0, 0, 0)) + body + (11 + len(body)).to_bytes(4, "big")


def _behind(data: bytes) -> int:
    """Return how many bytes the last ten tags of an FLV file have."""
    count = 0
    for _ in range(10):
        count += 4 + int.from_bytes(data[len(data) - count - 4 : len(data) - count], "big")
    return count


def test_what_goes_in_comes_out() -> None:
    data, packets = _stream()
    demuxer = FlvDemuxer()
    assert demux(demuxer, data) == packets
    assert demuxer.tracks == [STEREO, OPUS_TRACK] and demuxer.ready and demuxer.ended and demuxer.want() is None


def test_every_split() -> None:
    data, packets = _stream()
    for step in range(1, len(data)):
        assert _fed(data, step)[1] == packets
    for cut in range(len(data)):
        demuxer, sink = FlvDemuxer(), PacketList()
        demuxer.attach(sink)
        for part in (data[:cut], data[cut:]):
            if part:
                demuxer.feed(part)
        demuxer.feed(b"")
        assert sink.take() == packets


@pytest.mark.parametrize("start_us", [WRAP_US - 50_000, -50_000])
def test_times_go_on_after_32_bits(start_us: int) -> None:
    data, packets = _stream(start_us)
    times = [packet.dts_us for packet in demux(FlvDemuxer(), data)]
    assert [time - times[0] for time in times] == [packet.dts_us - start_us for packet in packets]
    assert times[0] == -50_000


def test_times_that_jump_go_on_without_the_jump() -> None:
    data, _ = _stream(5_000_000)
    later, _ = _stream(1_000_000)
    times = [packet.dts_us for packet in demux(FlvDemuxer(), data + later[13:])]
    assert len(times) == 40 and times == sorted(times) and times[-1] - times[0] < 500_000


@pytest.mark.parametrize("damage", [b"", bytes(400), b"\xff" * 50, b"picture" * 30, FILE_HEADER])
def test_what_is_no_tag_is_passed_over(damage: bytes) -> None:
    """Zeros, noise, or the header of a file that was put behind another one: the tag right behind it at most is lost with it."""
    data, packets = _stream()
    half = len(data) - _behind(data)
    bent = data[:half] + damage + data[half:]
    for step in (*range(1, 40), len(bent)):
        demuxer, seen = _fed(bent, step)
        assert seen == packets or seen == packets[:-10] + packets[-9:], step
        places = [(position, position + count) for position, count, _ in demuxer.damage]
        assert [begin in (half, half + 15) for begin, _ in places] == [True] * bool(damage)  # zeros are an empty tag
        assert all(half + len(damage) <= end <= len(bent) for _, end in places) and not demuxer.left_out


def test_a_tag_whose_size_is_damaged_costs_little() -> None:
    data, packets = _stream()
    half = len(data) - _behind(data)
    bent = bytearray(data)
    bent[half + 3] += 9  # the size of the tag at that place
    for step in (1, 7, len(bent)):
        _, seen = _fed(bytes(bent), step)
        assert seen[:10] == packets[:10] and seen[-8:] == packets[-8:]


def test_a_cut_file_ends_before_the_tag_that_is_not_whole() -> None:
    data, packets = _stream()
    assert demux(FlvDemuxer(), data[:-10]) == packets[:-1]
    assert demux(FlvDemuxer(), data[:-4]) == packets
    with pytest.raises(TruncatedError):
        demux(FlvDemuxer(), data[:8])


def _tags_of(data: bytes) -> list[bytes]:
    """Return the tags of a file, each with its size behind it."""
    found, at = [], len(FILE_HEADER)
    while at < len(data):
        size = 11 + int.from_bytes(data[at + 1 : at + 4], "big") + 4
        found.append(data[at : at + size])
        at += size
    return found


def _lying(tag: bytes, body_bytes: int) -> bytes:
    """Return a tag that says its body is that long."""
    return tag[:1] + body_bytes.to_bytes(3, "big") + tag[4:]


TAG = 8  # which is the seventh packet's or later: what stands before are metadata and set-ups
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "a body of no bytes": lambda tag: _lying(tag, 0),
    "a body that is too short": lambda tag: _lying(tag, 12),
    "a body that is too long by a byte": lambda tag: _lying(tag, len(tag) - 14),
    "a body that is too long by two tags": lambda tag: _lying(tag, len(tag) + 60),
    "a body without an end": lambda tag: _lying(tag, 0xFFFFFF),
    "most of a tag": lambda tag: tag[: len(tag) - 9],
    "zeros between tags": lambda tag: tag + bytes(100_000),
    "something between tags": lambda tag: tag + bytes(range(256)) * 100,
    "what looks encrypted between tags": lambda tag: tag + b"\x28" * 3000,
    "another file": lambda tag: tag + FILE_HEADER,
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("step", [7, 1 << 20])
def test_reading_goes_on_behind_a_tag_whose_size_is_wrong(damage: str, step: int) -> None:
    data, packets = _stream()
    tags = _tags_of(data)
    broken = FILE_HEADER + b"".join(tags[:TAG]) + DAMAGES[damage](tags[TAG]) + b"".join(tags[TAG + 1 :])
    _, found = _fed(broken, step)
    first = TAG - (len(tags) - len(packets))
    lost = [number for number, one in enumerate(packets) if one not in found]
    assert all(number >= first for number in lost)
    if damage != "a body without an end":  # which the rest of the file is the body of
        assert len(lost) <= 5 and all(number < first + 6 for number in lost)


@pytest.mark.parametrize("wrong", [0, 1, 0xFFFFFFFF])
def test_writers_that_get_the_size_of_the_tag_before_wrong(wrong: int) -> None:
    data, packets = _stream()
    said = wrong.to_bytes(4, "big")
    assert _fed(FILE_HEADER + b"".join(tag[:-4] + said for tag in _tags_of(data)), 50)[1] == packets


def test_tags_of_other_types_and_of_another_stream_are_passed_over_by_their_sizes() -> None:
    data, packets = _stream()
    tags = _tags_of(data)
    other = _tag(15, bytes(40))
    strange = [tag[:8] + b"\0\0\1" + tag[11:] for tag in tags[TAG:]]
    assert _fed(FILE_HEADER + b"".join([*tags[:TAG], other, *strange]), 50)[1] == packets


def test_no_tags_at_all_are_not_looked_for_without_end() -> None:
    demuxer = FlvDemuxer()
    demuxer.attach(PacketList())
    demuxer.feed(FILE_HEADER + bytes(20))
    with pytest.raises(RemoteProtocolError, match="no FLV tag") as caught:
        for _ in range(17):
            demuxer.feed(bytes(1 << 20))
    assert caught.value.offset is not None and caught.value.offset < 40


def test_positions_lead_back() -> None:
    data, packets = _stream()
    positions: list[int] = []
    demuxer = FlvDemuxer()
    sink = PacketList()
    demuxer.attach(sink)
    for at in range(len(data)):
        demuxer.feed(data[at : at + 1])
        positions += [demuxer.position] * len(sink.take())
    assert len(positions) == len(packets)
    for number, position in enumerate(positions):
        demuxer.seek(packets[number].dts_us, position)
        wanted = demuxer.want()
        assert wanted is not None and wanted[0] == position
        demuxer.feed(data[position:])
        assert sink.take() == packets[number:]
    demuxer.seek(0, 0)
    demuxer.feed(data)
    assert sink.take() == packets


def test_seek_knows_the_time_base_after_a_jump() -> None:
    first, _ = _stream(5_000_000)
    second, _ = _stream(60_000_000_000)
    data = first + second[13:]
    demuxer = FlvDemuxer()
    packets = demux(demuxer, data)
    place = data.index(_tag(8, b"\xaf\x01" + packets[20].payload, 60_000_000))
    fresh, sink = FlvDemuxer(), PacketList()
    fresh.attach(sink)
    fresh.feed(first)
    sink.take()
    fresh.seek(packets[20].dts_us, place)
    fresh.feed(data[place:])
    assert sink.take() == packets[20:]


def test_changed_setup() -> None:
    muxer = FlvMuxer([STEREO])
    data = muxer.header(0)
    muxer.write(Packet(0, 0, 0, True, b"a"))
    muxer.set_tracks([STEREO.changed(init_data=b"\x12\x10")])
    muxer.write(Packet(0, 20_000, 0, True, b"b"))
    muxer.write(Packet(0, 40_000, 0, True, b"c"))
    demuxer, changes = FlvDemuxer(), []
    demuxer.on_tracks = lambda: changes.append(demuxer.tracks[0].sample_rate_hz)
    assert [packet.payload for packet in demux(demuxer, data + muxer.take_output())] == [b"a", b"b", b"c"]
    assert changes == [44100]


def test_script_data_that_cannot_be_read() -> None:
    body = b"\x02\x00\x0aonMetaData\x08\xff"
    demuxer = FlvDemuxer()
    assert demux(demuxer, FILE_HEADER + _tag(18, body)) == []
    assert len(demuxer.left_out) == 1


def test_codecs_without_set_up_begin_with_their_first_frame() -> None:
    muxer = FlvMuxer([TrackInfo(AUDIO, MP3, sample_rate_hz=44100, channels=2), TrackInfo(VIDEO, HEVC)])
    muxer.write(Packet(0, 0, 0, True, bytes.fromhex("fffb9064") + bytes(413)))
    demuxer = FlvDemuxer()
    assert len(demux(demuxer, muxer.header() + muxer.take_output())) == 1
    assert [track.sample_rate_hz for track in demuxer.tracks] == [44100]


def test_what_is_not_flv() -> None:
    with pytest.raises(RemoteProtocolError):
        demux(FlvDemuxer(), b"RIFF" + bytes(100))
    with pytest.raises(RemoteProtocolError):
        demux(FlvDemuxer(), b"FLV\x01\x05\xff\x00\x00\x09" + bytes(100))
    with pytest.raises(UnsupportedError):
        demux(FlvDemuxer(), FILE_HEADER + _tag(0x28, b"\xaf\x01a"))
    assert demux(FlvDemuxer(), FILE_HEADER + _tag(3, b"abc") + bytes(15)) == []


def test_a_track_that_was_announced_and_does_not_come() -> None:
    demuxer, sink = FlvDemuxer(), PacketList()
    demuxer.attach(sink)
    demuxer.feed(FILE_HEADER + _tag(8, b"\xaf\x00\x11\x90"))
    for number in range(100):
        demuxer.feed(_tag(8, b"\xaf\x01abc", number * 100))
        assert demuxer.ready is (number > 30)
    assert len(sink.take()) == 100


def _assembled(data: bytes) -> list[Packet]:
    """What the engine for publishers makes of the same tags."""
    assembler = TrackAssembler()
    events = [
        event
        for tag in FlvReader().feed(data)
        if tag.tag_type in (8, 9)
        for event in assembler.feed(tag.tag_type, tag.time_ms, tag.body)
    ]
    return [event for event in events if isinstance(event, Packet)]


@pytest.mark.parametrize("enhanced", [False, True])
def test_the_quick_way_is_the_same_as_the_publishers(enhanced: bool) -> None:
    """Frames that need a second look among frames that do not: parameter sets, delimiters, Annex B, other codecs, multitrack."""
    h264 = golden("h264", "main").init_data
    codec = b"\x80avc1" if enhanced else b"\x07"

    def picture(key: int, payload: bytes, packet_type: int = 1) -> bytes:
        first = bytes((key << 4 | codec[0] | (packet_type if enhanced else 0),)) + codec[1:]
        return (
            first + (b"" if enhanced else bytes((packet_type,))) + (b"\x00\x00\x28" if packet_type else b"") + payload
        )

    init = b"\x90avc1" + h264 if enhanced else b"\x17\x00\x00\x00\x00" + h264
    unit = b"\x00\x00\x00\x03"
    bodies = [
        init,
        picture(1, unit + b"\x65\x88\x01"),
        picture(2, unit + b"\x41\x88\x02"),
        picture(2, unit + b"\x41\x88\x03"),
        picture(2, b"\x00\x00\x00\x01\x41\x88\x04"),
        picture(2, b"\x00\x00\x01\x41\x88\x05"),
        picture(2, b"\x00\x00\x09\x01\x41\x88\x06"),
        picture(1, unit + b"\x67\x01\x02" + unit + b"\x65\x88\x07"),
        b"\x57\x00",
        picture(2, b""),
        init[: -len(h264) + 4] + b"\xfe" + h264[5:],
        picture(2, b"\x00\x00\x03\x41\x88\x08"),
        init,
        picture(2, unit + b"\x41\x88\x09"),
        picture(2, unit + b"\x41\x88\x0a"),
        b"\x96\x01avc1\x01\x00\x00\x00" + unit + b"\x41\x88\x0b",
        picture(2, unit + b"\x41\x88\x0c"),
    ]
    data = FILE_HEADER + b"".join(_tag(9, body, 40 * number) for number, body in enumerate(bodies))
    expected = _assembled(data)
    assert len(expected) > 8
    for step in (1, 100, 10_000):
        assert _fed(data, step)[1] == expected


def test_av1_delimiters_and_keyframes_take_the_slow_way() -> None:
    av1 = golden("av1", "svt")
    track = av1.track().changed(init_data=av1.init_data)
    muxer = FlvMuxer([track])
    payloads = [b"\x32\x03\x30abc", b"\x12\x00\x32\x03\x30abc", b"\x32\x03\x30abd", b"\x32\x03\x10abe"]
    data = muxer.header()
    for number, payload in enumerate(payloads):
        muxer.write(Packet(0, number * 40_000, 0, number == 0, payload))
    data += muxer.take_output()
    assert demux(FlvDemuxer(), data) == _assembled(data)


DOCUMENT = b'["onTextData",{"text":"hi"}]'


def test_metadata_goes_in_and_comes_out() -> None:
    muxer = FlvMuxer([STEREO, TrackInfo(META, JSON)])
    data = muxer.header()
    packets = [Packet(0, 0, 0, True, b"a"), Packet(1, 20_000, 0, True, DOCUMENT), Packet(0, 40_000, 0, True, b"b")]
    for packet in [*packets, Packet(1, 60_000, 0, True, b"[" * 40 + b"]" * 40)]:
        muxer.write(packet)
    demuxer = FlvDemuxer()
    assert data[4] == 4 and demux(demuxer, data + muxer.take_output()) == packets
    assert demuxer.tracks[1] == TrackInfo(META, JSON, track_id=2)


def test_metadata_that_begins_late_is_announced_when_the_file_was_looked_through(tmp_path: Path) -> None:
    muxer = FlvMuxer([STEREO])
    data = muxer.header()
    for number in range(5):
        muxer.write(Packet(0, number * 20_000, 0, True, b"a"))
    data += muxer.take_output()
    path = tmp_path / "a.flv"
    script = b"\x02\0\x0aonTextData\x02\0\2hi"
    for content, late in (
        (data, False),
        (data + _tag(18, script, 100), True),
        (data[:-3], False),
        (b"", False),
        (b"FLV", False),
    ):
        path.write_bytes(content)
        with path.open("rb") as file:
            assert has_data(file.fileno()) == late
    path.write_bytes(data + _tag(18, script, 100))
    demuxer = FlvDemuxer()
    with path.open("rb") as file:
        demuxer.look_ahead(file.fileno())
    demuxer.feed(data)
    assert demuxer.ready and [track.codec for track in demuxer.tracks] == [AAC, JSON]
    assert has_data(-1) is False


def test_a_muxer_takes_metadata_later_and_says_nothing_of_it() -> None:
    muxer = FlvMuxer([STEREO])
    muxer.header()
    assert muxer.set_tracks([STEREO, TrackInfo(META, JSON)]) and not muxer.take_output()
    muxer.write(Packet(1, 20_000, 0, True, DOCUMENT))
    assert muxer.take_output()[0] == 18


def test_metadata_alone() -> None:
    muxer = FlvMuxer([TrackInfo(META, JSON)])
    data = muxer.header()
    packets = [Packet(0, number * 1_000_000, 0, True, DOCUMENT) for number in range(3)]
    for packet in packets:
        muxer.write(packet)
    assert demux(FlvDemuxer(), data + muxer.take_output()) == packets

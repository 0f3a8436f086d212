"""FLV: tag bodies in both directions, the muxer, the reader."""

from __future__ import annotations

import pytest

from mist.core import flv
from mist.core.flv import (
    FlvMuxer,
    FlvReader,
    carries,
    parse_audio_body,
    parse_video_body,
    serialize_frame,
    serialize_init,
)
from mist.core.packet import Packet
from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats import amf
from mist.formats.tracks import (
    AAC,
    AC3,
    AUDIO,
    AV1,
    EAC3,
    FLAC,
    H264,
    HEVC,
    META,
    MP3,
    OPUS,
    VIDEO,
    VP8,
    VP9,
    TrackInfo,
)

AVCC = bytes.fromhex("0164001fffe1000467640001 01000268ee".replace(" ", ""))
STREAM_INFO = bytes(range(34))
AVC = TrackInfo(VIDEO, H264, AVCC, width=1280, height=720, frame_rate_mhz=29970)
HVC = TrackInfo(VIDEO, HEVC, b"hvcC-record")
AV = TrackInfo(VIDEO, AV1, b"\x81\x00\x0c\x00")
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90", sample_rate_hz=48000, channels=2, sample_bits=16)
OPUS_TRACK = TrackInfo(AUDIO, OPUS, b"OpusHead" + bytes(11))

# What the tags look like, byte by byte: body in hex, then what it means.
VIDEO_BODIES = {
    "legacy AVC sequence header": ("17 00 000000 01640028", ("init", H264, 0, True, 0, "01640028")),
    "legacy AVC keyframe": ("17 01 000050 0000000165", ("frame", H264, 0, True, 80_000, "0000000165")),
    "legacy AVC frame, negative composition time": ("27 01 ffffd8 41", ("frame", H264, 0, False, -40_000, "41")),
    "legacy AVC end of sequence": ("17 02 000000", ("end", H264, 0, True, 0, "")),
    "codec id 12": ("1c 01 000000 26", ("frame", HEVC, 0, True, 0, "26")),
    "codec id 12 sequence header": ("1c 00 000000 01", ("init", HEVC, 0, True, 0, "01")),
    "H263": ("22 0102", ("frame", "H263", 0, False, 0, "0102")),
    "hvc1 sequence start": ("90 68766331 01", ("init", HEVC, 0, True, 0, "01")),
    "hvc1 coded frames": ("a1 68766331 000028 41", ("frame", HEVC, 0, False, 40_000, "41")),
    "hvc1 coded frames x": ("93 68766331 26", ("frame", HEVC, 0, True, 0, "26")),
    "avc1 coded frames": ("91 61766331 000000 65", ("frame", H264, 0, True, 0, "65")),
    "av01 coded frames": ("91 61763031 0a0b", ("frame", AV1, 0, True, 0, "0a0b")),
    "vp09 coded frames": ("a1 76703039 82", ("frame", VP9, 0, False, 0, "82")),
    "vp08 coded frames": ("91 76703038 10", ("frame", VP8, 0, True, 0, "10")),
    "sequence end": ("92 68766331", ("end", HEVC, 0, True, 0, "")),
    "metadata": ("94 68766331 0200", ("metadata", HEVC, 0, True, 0, "0200")),
    "one track of several": ("96 01 61766331 05 000000 65", ("frame", H264, 5, True, 0, "65")),
    "unknown FourCC": ("91 76766331 000000 65", ("frame", "vvc1", 0, True, 0, "65")),
}
AUDIO_BODIES = {
    "AAC sequence header": ("af 00 1190", ("init", AAC, 0, True, 0, "1190")),
    "AAC frame": ("af 01 2110", ("frame", AAC, 0, True, 0, "2110")),
    "MP3": ("2f fffb", ("frame", MP3, 0, True, 0, "fffb")),
    "MP3 at 8 kHz": ("e2 fffb", ("frame", MP3, 0, True, 0, "fffb")),
    "Speex": ("b2 0102", ("frame", "Speex", 0, True, 0, "0102")),
    "Opus sequence start": ("90 4f707573 4f70", ("init", OPUS, 0, True, 0, "4f70")),
    "Opus": ("91 4f707573 fc", ("frame", OPUS, 0, True, 0, "fc")),
    "FLAC": ("91 664c6143 fff8", ("frame", FLAC, 0, True, 0, "fff8")),
    "AC-3": ("91 61632d33 0b77", ("frame", AC3, 0, True, 0, "0b77")),
    "E-AC-3": ("91 65632d33 0b77", ("frame", EAC3, 0, True, 0, "0b77")),
    "enhanced MP3": ("91 2e6d7033 fffb", ("frame", MP3, 0, True, 0, "fffb")),
    "enhanced AAC": ("91 6d703461 2110", ("frame", AAC, 0, True, 0, "2110")),
    "second audio track": ("95 01 6d703461 01 2110", ("frame", AAC, 1, True, 0, "2110")),
}


def _seen(part: flv.TagPart) -> tuple[object, ...]:
    return part.kind, part.codec, part.track_id, bool(part.keyframe), part.offset_us, part.payload.hex()


@pytest.mark.parametrize("name", VIDEO_BODIES)
def test_golden_video_bodies(name: str) -> None:
    body, expected = VIDEO_BODIES[name]
    (part,) = parse_video_body(bytes.fromhex(body))
    assert (part.type, _seen(part)) == (VIDEO, expected)


@pytest.mark.parametrize("name", AUDIO_BODIES)
def test_golden_audio_bodies(name: str) -> None:
    body, expected = AUDIO_BODIES[name]
    (part,) = parse_audio_body(bytes.fromhex(body))
    assert (part.type, _seen(part)) == (AUDIO, expected)


@pytest.mark.parametrize(
    "body", ["", "5700000000", "17 01 000000", "d1 68766331 00", "17", "17 01 00", "17 02", "5700"]
)
def test_bodies_that_say_nothing(body: str) -> None:
    assert parse_video_body(bytes.fromhex(body)) == []


def test_audio_that_says_nothing() -> None:
    assert [parse_audio_body(bytes.fromhex(body)) for body in ("", "af", "af01", "914f707573")] == [[], [], [], []]


@pytest.mark.parametrize("body", ["17 03 000000 00", "90 6876", "91 68766331 0000", "97 05", "96 66 00"])
def test_broken_video_bodies(body: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_video_body(bytes.fromhex(body))


@pytest.mark.parametrize("body", ["af 02 00", "91 4f70", "95 15 6d703461", "95 11 6d703461 01 000005 00", "95 31 00"])
def test_broken_audio_bodies(body: str) -> None:
    with pytest.raises(RemoteProtocolError):
        parse_audio_body(bytes.fromhex(body))


def test_modex_nanoseconds() -> None:
    (part,) = parse_video_body(bytes.fromhex("97 02 0007d0 03 68766331 26"))
    assert (part.nano_offset_ns, part.keyframe, part.payload) == (2000, True, b"\x26")


def test_modex_is_cut_to_a_millisecond_and_may_be_repeated_and_long() -> None:
    long = b"\xff\x01\x03" + bytes(0x104)
    body = bytes.fromhex("97") + long + bytes.fromhex("17 02 ffffff 01 61763031 0a")
    (part,) = parse_video_body(body)
    assert (part.codec, part.nano_offset_ns, part.payload) == (AV1, 999_999, b"\x0a")


def test_many_tracks_in_one_body() -> None:
    body = bytes.fromhex("95 11 6d703461 00 000002 2110 01 000003 212223")
    assert [(p.track_id, p.payload.hex()) for p in parse_audio_body(body)] == [(0, "2110"), (1, "212223")]


def test_many_tracks_of_many_codecs() -> None:
    body = bytes.fromhex("a6 21 61766331 00 000004 000028 41 68766331 01 000005 000000 4142")
    parts = parse_video_body(body)
    assert [(p.codec, p.track_id, p.offset_us, p.payload.hex()) for p in parts] == [
        (H264, 0, 40_000, "41"),
        (HEVC, 1, 0, "4142"),
    ]


def test_channels_of_a_multichannel_configuration() -> None:
    (part,) = parse_audio_body(bytes.fromhex("94 4f707573 01 06 00000000"))
    assert (part.kind, part.channels) == ("channels", 6)


def test_hints_of_legacy_audio() -> None:
    (part,) = parse_audio_body(bytes.fromhex("2b ff"))
    assert (part.sample_rate_hz, part.channels, part.sample_bits) == (22050, 2, 16)


@pytest.mark.parametrize(
    ("track", "number", "init", "frame"),
    [
        (AVC, 0, "1700000000" + AVCC.hex(), "1701000028aabb"),
        (AVC, 1, "96006176633101" + AVCC.hex(), "96016176633101000028aabb"),
        (HVC, 0, "9068766331" + HVC.init_data.hex(), "9168766331000028aabb"),
        (STEREO, 0, "af001190", "af01aabb"),
        (STEREO, 2, "95006d703461021190", "95016d70346102aabb"),
        (OPUS_TRACK, 0, "904f707573" + OPUS_TRACK.init_data.hex(), "914f707573aabb"),
        (TrackInfo(AUDIO, FLAC, STREAM_INFO), 0, "90664c6143664c614380000022" + STREAM_INFO.hex(), "91664c6143aabb"),
        (TrackInfo(AUDIO, MP3, sample_rate_hz=44100, channels=2), 0, "", "2faabb"),
        (TrackInfo(AUDIO, MP3, sample_rate_hz=8000, channels=1), 0, "", "eeaabb"),
        (TrackInfo(AUDIO, AC3), 0, "", "9161632d33aabb"),
        (TrackInfo(AUDIO, EAC3), 0, "", "9165632d33aabb"),
    ],
)
def test_golden_serialized(track: TrackInfo, number: int, init: str, frame: str) -> None:
    packet = Packet(0, 0, 40_000, True, b"\xaa\xbb")
    assert serialize_init(track, number).hex() == init
    assert serialize_frame(track, packet, number).hex() == frame


@pytest.mark.parametrize("offset_us", [0, 40_000, -40_000, 8_388_607_000])
@pytest.mark.parametrize("track", [AVC, HVC])
@pytest.mark.parametrize("number", [0, 1])
def test_video_round_trip(track: TrackInfo, number: int, offset_us: int) -> None:
    for keyframe in (True, False):
        packet = Packet(0, 1_000, offset_us, keyframe, b"picture")
        (part,) = parse_video_body(serialize_frame(track, packet, number))
        assert _seen(part) == (flv.FRAME, track.codec, number, keyframe, offset_us, b"picture".hex())


def test_composition_times_beyond_24_bits_are_cut() -> None:
    (part,) = parse_video_body(serialize_frame(AVC, Packet(0, 0, 10**12, True, b"x")))
    assert part.offset_us == 0x7FFFFF * 1000


def test_presentation_times_are_right_to_the_millisecond() -> None:
    """Decode and presentation time are rounded each; 1/30 s steps must not add up their errors."""
    for frame in range(100):
        dts_us, pts_us = frame * 1_000_000 // 30, (frame + 2) * 1_000_000 // 30
        (part,) = parse_video_body(serialize_frame(AVC, Packet(0, dts_us, pts_us - dts_us, True, b"x")))
        assert (dts_us + 500) // 1000 * 1000 + part.offset_us == (pts_us + 500) // 1000 * 1000


def test_what_is_carried() -> None:
    assert carries(AVC, enhanced=False) and carries(STEREO, enhanced=False)
    assert not carries(HVC, enhanced=False) and carries(HVC)
    assert carries(TrackInfo(META, "JSON"), enhanced=False)
    assert not carries(TrackInfo(META, "subtitle")) and not carries(TrackInfo(VIDEO, "theora"))
    for tracks in ([HVC], [AVC, AVC], [TrackInfo(META, "subtitle")]):
        with pytest.raises(UnsupportedError):
            FlvMuxer(tracks, enhanced=False)


# -- the muxer


def test_golden_stream() -> None:
    muxer = FlvMuxer([AVC, STEREO])
    header = muxer.header(40_000)
    assert header[:13].hex() == "464c5601050000000900000000"
    tags = FlvReader().feed(header)
    assert [(tag.tag_type, tag.time_ms) for tag in tags] == [(18, 0), (9, 40), (8, 40)]
    muxer.write(Packet(0, 40_000, 80_000, True, b"\x00\x00\x00\x01\x65"))
    muxer.write(Packet(1, 40_500, 0, True, b"\x21"))
    assert muxer.take_output().hex() == (
        "09 00000a 000028 00 000000 17 01 000050 0000000165 0000001508 000003 000029 00 000000 af 01 21 0000000e"
    ).replace(" ", "")


def test_metadata_tells_the_first_tracks_and_maps_the_others() -> None:
    second = TrackInfo(VIDEO, HEVC, b"h", width=640, height=360)
    body = FlvReader().feed(FlvMuxer([AVC, second, STEREO]).header())[0].body
    name, values = amf.decode_all(body)
    assert name == "onMetaData"
    assert values["width"] == 1280 and values["framerate"] == 29.97 and values["videocodecid"] == 7
    assert values["audiocodecid"] == 10 and values["stereo"] is True and values["audiochannels"] == 2
    assert values["videoTrackIdInfoMap"] == {"1": {"width": 640.0, "height": 360.0, "videocodecid": float(0x68766331)}}


def test_times_wrap_at_32_bits() -> None:
    muxer = FlvMuxer([STEREO])
    for time_ms in (0xFFFFFF, 0x1000000, (1 << 32) - 1, 1 << 32, (1 << 32) + 40, -20):
        muxer.write(Packet(0, time_ms * 1000, 0, True, b"a"))
    reader = FlvReader()
    reader.feed(muxer.header()[:13])
    times = [tag.time_ms for tag in reader.feed(muxer.take_output())]
    assert times == [0xFFFFFF, 0x1000000, 0xFFFFFFFF, 0, 40, 0xFFFFFFFF - 19]


def _tags(data: bytes) -> list[flv.FlvTag]:
    reader = FlvReader()
    reader.feed(b"FLV\x01\x05\x00\x00\x00\x09\x00\x00\x00\x00")
    return reader.feed(data)


def test_changed_setup_goes_out_before_the_next_packet_of_its_track() -> None:
    muxer = FlvMuxer([AVC, STEREO])
    assert muxer.set_tracks([AVC.changed(init_data=b"new"), STEREO]) is True
    muxer.write(Packet(1, 0, 0, True, b"a"))
    muxer.write(Packet(0, 10_000, 0, True, b"v"))
    muxer.write(Packet(0, 20_000, 0, True, b"v"))
    tags = _tags(muxer.take_output())
    assert [(tag.tag_type, tag.time_ms) for tag in tags] == [(8, 0), (9, 10), (9, 10), (9, 20)]
    assert tags[1].body[1] == 0 and tags[1].body[5:] == b"new"
    muxer.set_tracks([AVC.changed(init_data=b"new", width=2), STEREO])
    muxer.write(Packet(0, 30_000, 0, True, b"v"))
    assert len(_tags(muxer.take_output())) == 1


def test_late_tracks() -> None:
    muxer = FlvMuxer([AVC])
    assert muxer.set_tracks([AVC, STEREO, OPUS_TRACK])
    muxer.write(Packet(2, 0, 0, True, b"o"))
    init, frame = _tags(muxer.take_output())
    assert parse_audio_body(init.body)[0].track_id == 1 and parse_audio_body(frame.body)[0].track_id == 1
    assert FlvMuxer([AVC], enhanced=False).set_tracks([AVC, OPUS_TRACK]) is False
    with pytest.raises(LocalProtocolError):
        muxer.write(Packet(3, 0, 0, True, b"o"))


def test_the_header_does_not_change_what_follows() -> None:
    packets = [Packet(i % 2, i * 20_000, 0, True, bytes([i])) for i in range(6)]

    def output(interrupt: bool) -> bytes:
        muxer = FlvMuxer([AVC, STEREO])
        muxer.set_tracks([AVC.changed(init_data=b"new"), STEREO])
        for packet in packets:
            if interrupt:
                muxer.header(packet.dts_us)
            muxer.write(packet)
        return muxer.take_output()

    assert output(True) == output(False)


def test_state_moves_to_another_muxer() -> None:
    changed = [AVC.changed(init_data=b"new"), STEREO]
    muxer = FlvMuxer([AVC, STEREO])
    muxer.set_tracks(changed)
    other = FlvMuxer(changed)
    other.restore(muxer.state())
    for one in (muxer, other):
        one.write(Packet(0, 0, 0, True, b"v"))
    assert muxer.take_output() == other.take_output()
    with pytest.raises(LocalProtocolError):
        other.restore(bytes(200))


# -- the reader


def _sample() -> bytes:
    muxer = FlvMuxer([AVC, STEREO])
    data = muxer.header(0)
    for number in range(4):
        muxer.write(Packet(0, number * 40_000, 0, number == 0, bytes([number]) * 30))
        muxer.write(Packet(1, number * 40_000, 0, True, bytes([number])))
    return data + muxer.take_output()


def test_every_split() -> None:
    data = _sample()
    whole = [(tag.tag_type, tag.time_ms, tag.body) for tag in FlvReader().feed(data)]
    assert len(whole) == 11
    for cut in range(len(data) + 1):
        reader = FlvReader()
        tags = reader.feed(data[:cut]) + reader.feed(data[cut:])
        assert [(tag.tag_type, tag.time_ms, tag.body) for tag in tags] == whole
        reader.end_of_input()
    reader = FlvReader()
    tags = [tag for at in range(len(data)) for tag in reader.feed(data[at : at + 1])]
    assert [(tag.tag_type, tag.time_ms, tag.body) for tag in tags] == whole


def test_truncated_input() -> None:
    reader = FlvReader()
    reader.feed(_sample()[:-10])
    with pytest.raises(TruncatedError):
        reader.end_of_input()


@pytest.mark.parametrize("data", [b"FLX" + bytes(20), b"FLV\x01\x05\xff\xff\xff\xff", b"FLV\x01\x05\x00\x00\x00\x01"])
def test_what_is_no_flv(data: bytes) -> None:
    with pytest.raises(RemoteProtocolError):
        FlvReader().feed(data)


def test_encrypted_tags_are_refused() -> None:
    with pytest.raises(UnsupportedError):
        _tags(bytes([0x29]) + bytes(14))

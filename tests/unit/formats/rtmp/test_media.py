"""What a publisher's messages mean: tracks, changes, packets, tolerances."""

from __future__ import annotations

import pytest

from mist.core.flv import serialize_frame, serialize_init
from mist.core.nal import join_length_prefixed
from mist.core.packet import Packet
from mist.errors import LimitExceededError, RemoteProtocolError
from mist.formats.amf import EcmaArray
from mist.formats.h264 import build_avcc
from mist.formats.rtmp.media import (
    MAX_EARLY,
    MAX_TRACKS,
    MediaEvent,
    Oddity,
    TrackAssembler,
    TrackChanged,
    TrackFound,
    TrackGone,
)
from mist.formats.rtmp.messages import AUDIO as AUDIO_MESSAGE
from mist.formats.rtmp.messages import VIDEO as VIDEO_MESSAGE
from mist.formats.tracks import AAC, AC3, AUDIO, AV1, FLAC, H264, JSON, META, MP3, OPUS, VIDEO, TrackInfo

SPS = bytes.fromhex("6742c01fd9005005bb0110000003001000000303c0f1832480")  # 1280x720
SPS_SMALL = bytes.fromhex("6742c00dd90141fb0110000003001000000303c0f142a480")  # 320x240
PPS = bytes.fromhex("68cb83cb20")
AVCC = build_avcc([SPS], [PPS])
AVC = TrackInfo(VIDEO, H264, AVCC)
STEREO = TrackInfo(AUDIO, AAC, b"\x11\x90")
PICTURE = join_length_prefixed([b"\x65" + bytes(20)])
KEYFRAME = Packet(0, 0, 0, True, PICTURE)


def video(assembler: TrackAssembler, body: bytes, time_ms: int = 0) -> list[MediaEvent]:
    return assembler.feed(VIDEO_MESSAGE, time_ms, body)


def audio(assembler: TrackAssembler, body: bytes, time_ms: int = 0) -> list[MediaEvent]:
    return assembler.feed(AUDIO_MESSAGE, time_ms, body)


def packet(events: list[MediaEvent]) -> Packet:
    (found,) = [event for event in events if isinstance(event, Packet)]
    return found


def test_tracks_come_with_their_sequence_headers() -> None:
    assembler = TrackAssembler("deu")
    (found,) = video(assembler, serialize_init(AVC))
    assert isinstance(found, TrackFound) and (found.track, found.info.width, found.info.height) == (0, 1280, 720)
    (heard,) = audio(assembler, serialize_init(STEREO))
    assert isinstance(heard, TrackFound) and heard.track == 1
    assert (heard.info.sample_rate_hz, heard.info.channels, heard.info.language) == (48000, 2, "deu")
    assert found.info.language == "und" and (found.info.track_id, heard.info.track_id) == (1, 2)
    assert video(assembler, serialize_frame(AVC, Packet(0, 0, 80_000, True, PICTURE)), 40) == [
        Packet(0, 40_000, 80_000, True, PICTURE)
    ]
    assert audio(assembler, serialize_frame(STEREO, Packet(0, 0, 0, True, b"\x21")), 50) == [
        Packet(1, 50_000, 0, True, b"\x21")
    ]


def test_repeated_sequence_headers_change_nothing() -> None:
    """OBS repeats them on reconnect, some phones with every keyframe."""
    assembler = TrackAssembler()
    video(assembler, serialize_init(AVC))
    assert video(assembler, serialize_init(AVC)) == []
    (changed,) = video(assembler, serialize_init(TrackInfo(VIDEO, H264, build_avcc([SPS_SMALL], [PPS]))))
    assert isinstance(changed, TrackChanged) and (changed.info.width, changed.info.height) == (320, 240)


def test_parameter_sets_in_band_change_the_track() -> None:
    assembler = TrackAssembler()
    video(assembler, serialize_init(AVC))
    payload = join_length_prefixed([SPS_SMALL, PPS, b"\x65" + bytes(20)])
    changed, found = video(assembler, serialize_frame(AVC, Packet(0, 0, 0, True, payload)))
    assert isinstance(changed, TrackChanged) and changed.info.width == 320 and isinstance(found, Packet)
    assert len(video(assembler, serialize_frame(AVC, Packet(0, 0, 0, True, payload)))) == 1


def test_a_track_without_a_sequence_header_begins_with_its_in_band_sets() -> None:
    assembler = TrackAssembler()
    (odd,) = video(assembler, serialize_frame(AVC, KEYFRAME))
    assert isinstance(odd, Oddity) and "before its sequence header" in odd.text
    assert video(assembler, serialize_frame(AVC, KEYFRAME)) == []
    payload = join_length_prefixed([SPS, PPS, b"\x65" + bytes(20)])
    found, _ = video(assembler, serialize_frame(AVC, Packet(0, 0, 0, True, payload)))
    assert isinstance(found, TrackFound) and found.info.init_data == AVCC


def test_annexb_from_phones() -> None:
    assembler = TrackAssembler()
    start = b"\x00\x00\x00\x01"
    events = video(assembler, bytes.fromhex("1700000000") + start + SPS + start + PPS)
    assert isinstance(events[0], Oddity) and isinstance(events[1], TrackFound)
    assert events[1].info.init_data == AVCC
    picture = b"\x65" + bytes([1]) * 30
    for begin in (start, b"\x00\x00\x01"):
        assert packet(video(assembler, bytes.fromhex("1701000000") + begin + picture)).payload == (
            join_length_prefixed([picture])
        )


def test_a_nal_unit_of_one_byte_is_no_start_code() -> None:
    assembler = TrackAssembler()
    video(assembler, serialize_init(AVC))
    payload = b"\x00\x00\x00\x01\x0b"
    assert packet(video(assembler, bytes.fromhex("2701000000") + payload)).payload == payload


def test_short_nal_unit_lengths_become_four_bytes() -> None:
    assembler = TrackAssembler()
    record = AVCC[:4] + b"\xfd" + AVCC[5:]
    (found,) = video(assembler, bytes.fromhex("1700000000") + record)
    assert isinstance(found, TrackFound) and found.info.init_data == AVCC
    found_packet = packet(video(assembler, bytes.fromhex("1701000000") + b"\x00\x03\x65\x01\x02"))
    assert found_packet.payload == b"\x00\x00\x00\x03\x65\x01\x02"


def test_broken_lengths_are_left_out() -> None:
    assembler = TrackAssembler()
    video(assembler, serialize_init(AVC))
    (odd,) = video(assembler, bytes.fromhex("1701000000") + b"\x00\x00\xff\xff\x65")
    assert isinstance(odd, Oddity)


def test_metadata_fills_what_the_media_does_not_tell() -> None:
    assembler = TrackAssembler()
    hints = EcmaArray(
        width=1.0, framerate=29.97, videodatarate=2500, audiodatarate=128, audiosamplerate=44100, stereo=True
    )
    assert assembler.feed_metadata(hints) == []
    (found,) = video(assembler, serialize_init(AVC))
    assert isinstance(found, TrackFound)
    assert (found.info.width, found.info.frame_rate_mhz, found.info.bandwidth_bps) == (1280, 29970, 2_500_000)
    (heard,) = audio(assembler, serialize_init(STEREO))
    assert isinstance(heard, TrackFound) and heard.info.bandwidth_bps == 128_000


def test_late_metadata() -> None:
    assembler = TrackAssembler()
    video(assembler, serialize_init(AVC))
    (changed,) = assembler.feed_metadata({"videodatarate": 1000, "width": -1, "height": float("inf"), "framerate": "x"})
    assert isinstance(changed, TrackChanged) and changed.info.bandwidth_bps == 1_000_000 and changed.info.height == 720
    assert assembler.feed_metadata({"videodatarate": 2000}) == []


def test_codecs_without_sequence_header() -> None:
    assembler = TrackAssembler()
    mp3 = bytes.fromhex("fffb9064") + bytes(413)
    found, _ = audio(assembler, serialize_frame(TrackInfo(AUDIO, MP3), Packet(0, 0, 0, True, mp3)))
    assert isinstance(found, TrackFound) and (found.info.codec, found.info.sample_rate_hz) == (MP3, 44100)
    ac3 = bytes.fromhex("0b77000008404f") + bytes(100)
    gone, found, _ = audio(assembler, serialize_frame(TrackInfo(AUDIO, AC3), Packet(0, 0, 0, True, ac3)))
    assert gone == TrackGone(0) and isinstance(found, TrackFound) and found.track == 1


def test_flac_and_opus_set_up() -> None:
    info = bytes.fromhex("100010000000000000000ac442f0") + bytes(20)
    (found,) = audio(TrackAssembler(), serialize_init(TrackInfo(AUDIO, FLAC, info)))
    assert isinstance(found, TrackFound) and found.info.init_data == info and found.info.sample_rate_hz == 44100
    (odd,) = audio(TrackAssembler(), b"\x90Opus" + b"junk")
    assert isinstance(odd, Oddity)
    head = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
    (found,) = audio(TrackAssembler(), serialize_init(TrackInfo(AUDIO, OPUS, head)))
    assert isinstance(found, TrackFound) and (found.info.channels, found.info.sample_rate_hz) == (2, 48000)


def test_temporal_delimiters_go() -> None:
    assembler = TrackAssembler()
    header = bytes.fromhex("0a0b0200000521e7fde257c802")
    frame = bytes.fromhex("3203 800102")
    body = serialize_frame(TrackInfo(VIDEO, AV1), Packet(0, 0, 0, True, b"\x12\x00" + header + frame))
    assert packet(video(assembler, body)).payload == header + frame


def test_broken_temporal_units_are_left_out() -> None:
    (odd,) = video(TrackAssembler(), b"\x91av01" + b"\x12\x00\x0a\x7f\x00")
    assert isinstance(odd, Oddity)


def test_multitrack() -> None:
    assembler = TrackAssembler()
    for number in range(3):
        (found,) = video(assembler, serialize_init(AVC, number))
        assert isinstance(found, TrackFound) and found.track == number
    assert packet(video(assembler, serialize_frame(AVC, KEYFRAME, 2))).track == 2


def test_late_nanoseconds() -> None:
    assembler = TrackAssembler()
    audio(assembler, serialize_init(STEREO))
    body = bytes.fromhex("97 02 07a120 01") + b"mp4a\x21"
    assert packet(audio(assembler, body, 10)).dts_us == 10_500


def test_unknown_codecs_are_said_once() -> None:
    assembler = TrackAssembler()
    body = bytes.fromhex("91 76766331 000000 65")
    (odd,) = video(assembler, body)
    assert isinstance(odd, Oddity) and "vvc1" in odd.text and video(assembler, body) == []
    (odd,) = audio(assembler, b"\xdf\x01\x02")
    assert isinstance(odd, Oddity)


@pytest.mark.parametrize(
    ("head", "payload", "bits"), [(0x3F, "02010403", 16), (0x0F, "02010403", 16), (0x3D, "01020304", 8)]
)
def test_samples_have_the_most_significant_byte_first(head: int, payload: str, bits: int) -> None:
    found, packet = audio(TrackAssembler(), bytes([head, 1, 2, 3, 4]))
    assert isinstance(found, TrackFound) and isinstance(packet, Packet)
    assert (found.info.codec, found.info.sample_bits, found.info.channels) == ("PCM", bits, 2)
    assert packet.payload.hex() == payload


def test_video_waits_for_a_keyframe() -> None:
    vp9 = TrackInfo(VIDEO, "VP9")
    assert video(TrackAssembler(), serialize_frame(vp9, Packet(0, 0, 0, False, b"\x86\x00"))) == []


def test_limits() -> None:
    assembler = TrackAssembler()
    with pytest.raises(LimitExceededError):
        for number in range(MAX_TRACKS + 1):
            video(assembler, serialize_init(AVC, number))
    assembler = TrackAssembler()
    with pytest.raises(LimitExceededError):
        for number in range(MAX_TRACKS + 2):
            audio(assembler, (b"\x2f\xff" if number % 2 else b"\x7f\xff") * 10)
    with pytest.raises(RemoteProtocolError):
        video(TrackAssembler(), bytes.fromhex("1700000000") + bytes(2 << 20))
    with pytest.raises(RemoteProtocolError):
        video(TrackAssembler(), bytes.fromhex("1700000000") + b"\x01\x64\x00\x1f\xff\xe1\xff")


def test_data_messages_are_a_track_behind_the_media() -> None:
    assembler = TrackAssembler()
    assert assembler.feed_data(["onMetaData", {"width": 640.0}], 0) == []
    assert assembler.feed_data(["@setDataFrame", "onTextData", {"text": "early"}], 0) == []
    for ignored in (["|RtmpSampleAccess", True], ["onPlayStatus", {}], [1.0], [], ["@setDataFrame"], ["onMetaData"]):
        assert assembler.feed_data(ignored, 0) == []
    assembler = TrackAssembler.restore(assembler.export_state())
    video(assembler, serialize_init(AVC))
    assert assembler.data_track == -1
    events = video(assembler, serialize_frame(AVC, KEYFRAME))
    assert events[:1] == [KEYFRAME]
    assert events[1:] == [
        TrackFound(1, TrackInfo(META, JSON, track_id=2)),
        Packet(1, 0, 0, True, b'["onTextData",{"text":"early"}]'),
    ]
    assembler = TrackAssembler.restore(assembler.export_state())
    assert assembler.feed_data(["onFI", {"st": "10:00"}], 40) == [
        Packet(1, 40_000, 0, True, b'["onFI",{"st":"10:00"}]')
    ]
    assert assembler.data_track == 1


def test_data_without_media_begins_after_a_while() -> None:
    assembler = TrackAssembler()
    events = [assembler.feed_data(["onCuePoint", float(number)], number) for number in range(MAX_EARLY + 1)]
    assert all(not one for one in events[:-1])
    assert len(events[-1]) == MAX_EARLY + 2 and isinstance(events[-1][0], TrackFound)
    assert assembler.feed_data(["onCuePoint", 1.5], 70) == [Packet(0, 70_000, 0, True, b'["onCuePoint",1.5]')]


def test_endless_data_is_one_oddity() -> None:
    assembler = TrackAssembler()
    endless: dict[str, object] = {}
    endless["me"] = endless
    events = [event for _ in range(3) for event in assembler.feed_data(["x", endless], 0)]
    assert len(events) == 1 and isinstance(events[0], Oddity)


def test_a_recovery_point_is_a_keyframe() -> None:
    """Pictures that are refreshed in strips have no others; some encoders do not say so in the tag."""
    assembler = TrackAssembler()
    video(assembler, serialize_init(AVC))
    slice_alone = join_length_prefixed([b"\x41" + bytes(20)])
    recovery = join_length_prefixed([bytes.fromhex("06060184 80"), b"\x41" + bytes(20)])
    for body, key in ((PICTURE, True), (slice_alone, False), (recovery, True)):
        found = packet(video(assembler, serialize_frame(AVC, Packet(0, 0, 0, body is PICTURE, body))))
        assert found.keyframe == key

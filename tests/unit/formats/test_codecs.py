"""The questions that every part asks about a track, over the golden vectors of every codec."""

from __future__ import annotations

import timeit

import pytest

from mist.core.nal import join_length_prefixed
from mist.errors import LimitExceededError, RemoteProtocolError
from mist.formats import codecs, h264, hevc, opus, vp9
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.codec_samples import FOLDERS, golden, names

VECTORS = [(folder, name) for folder in FOLDERS for name in names(folder)]
FIELDS = ("width", "height", "frame_rate_mhz", "sample_rate_hz", "channels", "sample_bits")


@pytest.mark.parametrize(("folder", "name"), VECTORS)
def test_golden(folder: str, name: str) -> None:
    vector = golden(folder, name)
    track = codecs.complete(vector.track(), vector.payload)
    assert {field: getattr(track, field) for field in FIELDS} == {
        field: vector.expected.get(field, 0) for field in FIELDS
    }
    assert codecs.codec_string(track) == vector.expected["codec_string"]
    assert codecs.has_bframes(track) == vector.expected["bframes"]
    assert codecs.is_keyframe(track, vector.payload)
    assert codecs.parameter_sets(track, vector.payload) is None
    assert codecs.refreshed(track, vector.payload) is None
    assert codecs.complete(track, vector.payload) is track


@pytest.mark.parametrize(("folder", "name"), VECTORS)
def test_every_cut_answers_or_raises_the_right_error(folder: str, name: str) -> None:
    vector = golden(folder, name)
    for size in range(len(vector.init_data)):
        track = vector.track(vector.init_data[:size])
        for ask in (codecs.complete, codecs.codec_string, codecs.has_bframes, codecs.profile_level):
            try:
                ask(track)
            except RemoteProtocolError:
                continue
    track = codecs.complete(vector.track(), vector.payload)
    for size in range(len(vector.payload)):
        cut = vector.payload[:size]
        codecs.is_keyframe(track, cut)
        codecs.refreshed(track, cut)
        codecs.complete(vector.track(b""), cut)


def test_the_source_keeps_its_frame_rate_but_not_its_size() -> None:
    vector = golden("h264", "main")
    announced = vector.track().changed(width=640, height=480, frame_rate_mhz=23976)
    track = codecs.complete(announced)
    assert (track.width, track.height, track.frame_rate_mhz) == (322, 182, 23976)
    audio = golden("aac", "51").track().changed(sample_rate_hz=48000, channels=2)
    assert codecs.complete(audio).channels == 6


def test_unknown_codecs_are_left_alone() -> None:
    for track in (TrackInfo(AUDIO, "Nellymoser", b"anything"), TrackInfo(META, "RAW"), TrackInfo(VIDEO, "H263")):
        assert codecs.complete(track, b"payload") is track
        assert codecs.with_init_data(track, b"new").init_data == b"new"
        assert codecs.codec_string(track) == ""
        assert codecs.is_keyframe(track, b"")
        assert codecs.parameter_sets(track, b"payload") is None
        assert codecs.refreshed(track, b"payload") is None
        assert codecs.has_bframes(track) is (False if track.type == AUDIO else None)
        assert codecs.profile_level(track) == ("", "")


def test_without_init_data() -> None:
    bare = {"H264": "avc1", "HEVC": "hvc1", "AV1": "av01", "VP9": "vp09.00.10.08", "AAC": "mp4a.40.2", "opus": "opus"}
    for codec, text in bare.items():
        track = TrackInfo(AUDIO if codec in ("AAC", "opus") else VIDEO, codec)
        assert codecs.codec_string(track) == text
        assert codecs.complete(track, b"\xff") in (track, codecs.complete(track, b"\xff"))
        assert codecs.complete(track) is track
    assert codecs.has_bframes(TrackInfo(VIDEO, "H264")) is None
    assert codecs.has_bframes(TrackInfo(VIDEO, "VP9")) is False
    assert codecs.parameter_sets(TrackInfo(VIDEO, "H264"), b"\0\0\0\1\x67") is None


def test_init_data_that_does_not_parse_raises() -> None:
    for codec in ("H264", "HEVC", "AV1", "AAC", "opus", "FLAC"):
        track = TrackInfo(AUDIO if codec in ("AAC", "opus", "FLAC") else VIDEO, codec, b"\x7f")
        with pytest.raises(RemoteProtocolError):
            codecs.complete(track)
    with pytest.raises(LimitExceededError):
        codecs.complete(TrackInfo(VIDEO, "VP9", bytes(70000)))


def test_h264_parameter_sets_in_band() -> None:
    old, new = golden("h264", "main"), golden("h264", "ntsc")
    record = h264.parse_avcc(new.init_data)
    sets = join_length_prefixed([*record.sps, *record.pps])
    track = codecs.complete(old.track(), old.payload)
    assert codecs.parameter_sets(track, sets + new.payload) == new.init_data
    changed = codecs.refreshed(track, sets + new.payload)
    assert changed is not None
    assert (changed.frame_rate_mhz, changed.init_data) == (29970, new.init_data)
    assert codecs.refreshed(changed, sets + new.payload) is None
    # one set alone joins the others
    own = h264.parse_avcc(old.init_data)
    other = b"\x68\x5b" + own.pps[0][2:]  # number 1 instead of 0
    joined = codecs.parameter_sets(track, join_length_prefixed([other]))
    assert joined is not None
    assert h264.parse_avcc(joined).pps == (*own.pps, other)
    # a set that does not parse changes nothing
    assert codecs.parameter_sets(track, join_length_prefixed([b"\x67", own.pps[0]])) is None


def test_hevc_parameter_sets_in_band() -> None:
    old, new = golden("hevc", "main"), golden("hevc", "high_tier")
    record = hevc.parse_hvcc(new.init_data)
    sets = [unit for kind in (hevc.VPS, hevc.SPS, hevc.PPS) for unit in record.of_type(kind)]
    track = codecs.complete(old.track(), old.payload)
    changed = codecs.refreshed(track, join_length_prefixed(sets) + new.payload)
    assert changed is not None
    assert (changed.width, changed.height, changed.init_data) == (3840, 2160, new.init_data)
    without_vps = codecs.parameter_sets(track, join_length_prefixed(sets[1:]) + new.payload)
    assert without_vps is not None
    mixed = hevc.parse_hvcc(without_vps)
    assert mixed.of_type(hevc.VPS) == hevc.parse_hvcc(old.init_data).of_type(hevc.VPS)
    assert mixed.of_type(hevc.SPS) == record.of_type(hevc.SPS)


def test_av1_sequence_header_in_band() -> None:
    old, new = golden("av1", "aom"), golden("av1", "hdr")
    track = codecs.complete(old.track(), old.payload)
    changed = codecs.refreshed(track, new.payload)
    assert changed is not None
    assert codecs.codec_string(changed) == new.expected["codec_string"]


def test_vp9_and_vp8_pictures_change_their_size() -> None:
    vector = golden("vp9", "plain")
    track = codecs.complete(vector.track(), vector.payload)
    header = vp9.parse_frame_header(vector.payload)
    assert track.init_data == vp9.build_vpcc(header)
    changed = codecs.refreshed(track.changed(width=64, height=64), vector.payload)
    assert changed == track
    deeper = codecs.refreshed(track, golden("vp9", "422_10").payload)
    assert deeper is not None
    assert codecs.codec_string(deeper).startswith("vp09.03.11.10.02")
    small = golden("vp8", "plain")
    assert codecs.refreshed(small.track().changed(width=1, height=1), small.payload) is not None


def test_opus_without_head_gets_one() -> None:
    track = codecs.complete(TrackInfo(AUDIO, "opus"), b"\xfc\xff\xfe")
    assert opus.parse_head(track.init_data).channels == track.channels == 2
    assert track.sample_rate_hz == 48000


def test_profile_and_level() -> None:
    assert codecs.profile_level(golden("h264", "baseline").track()) == ("Constrained Baseline", "1.3")
    assert codecs.profile_level(golden("h264", "interlaced").track()) == ("High", "2.1")
    assert codecs.profile_level(golden("h264", "intra").track()) == ("High 10 Intra", "1.3")
    assert codecs.profile_level(golden("hevc", "main").track()) == ("", "")
    assert codecs.profile_level(golden("h264", "main").track(b"\xff" * 40)) == (
        "",
        "",
    )  # a damaged record is not the viewer's fault


def test_packets_without_parameter_sets_are_cheap() -> None:
    """Generous, for a loaded machine: it would take a thousand times as long if the payload were walked through."""
    vector = golden("h264", "main")
    track = codecs.complete(vector.track())
    payload = join_length_prefixed([b"\x41" + bytes(1 << 20)])
    assert min(timeit.repeat(lambda: codecs.parameter_sets(track, payload), number=100, repeat=3)) < 0.01

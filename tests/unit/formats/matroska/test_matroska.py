"""Tracks in Matroska's terms: what is read of them, what is written, and that both agree."""

from __future__ import annotations

import pytest

from mist.core.demuxer import demux
from mist.core.ebml import element, float_element, split_elements, text_element, unsigned_element, unsigned_value
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats import aac, flac
from mist.formats.matroska.reading import Entry, Schema, demuxer
from mist.formats.matroska.waveformat import WaveFormat, build_wave_format, parse_wave_format
from mist.formats.matroska.writing import AUDIO_CODECS, META_CODECS, VIDEO_CODECS, frame_ns, muxer
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.codec_samples import golden
from tests.support.mkv_files import audio, track, video

SPS = bytes.fromhex("6742c00ad90426c044000003000400000300c83c489920")
PPS = bytes.fromhex("68cb83cb20")
AVCC = bytes.fromhex("0142c00affe10017") + SPS + b"\x01\x00\x05" + PPS
OPUS_HEAD = b"OpusHead\x01\x02\x38\x01\x80\xbb\x00\x00\x00\x00\x00"
STREAM_INFO = flac.build_stream_info(flac.StreamInfo(4096, 4096, 0, 0, 48000, 2, 24, 0, bytes(16)))


def read(*entries: bytes) -> list[Entry]:
    return Schema().tracks(b"".join(entries))


def one(*arguments: object, **options: object) -> Entry:
    """Return the only entry of a TrackEntry made by `track`."""
    (found,) = read(track(1, *arguments, **options))  # type: ignore[arg-type]
    return found


@pytest.mark.parametrize(
    "info",
    [
        TrackInfo(VIDEO, "H264", AVCC, width=64, height=64, frame_rate_mhz=25000),
        TrackInfo(VIDEO, "VP8", width=640, height=360, frame_rate_mhz=29970),
        TrackInfo(VIDEO, "MPEG2", width=720, height=576, frame_rate_mhz=25000),
        TrackInfo(VIDEO, "JPEG", width=720, height=576),
        TrackInfo(VIDEO, "theora", golden("theora", "plain").init_data, width=70, height=50, frame_rate_mhz=29970),
        TrackInfo(AUDIO, "AAC", b"\x11\x90", sample_rate_hz=48000, channels=2, sample_bits=16),
        TrackInfo(AUDIO, "AAC", bytes.fromhex("2b920800"), sample_rate_hz=44100, channels=2, sample_bits=16),
        TrackInfo(AUDIO, "opus", OPUS_HEAD, sample_rate_hz=48000, channels=2, sample_bits=16),
        TrackInfo(AUDIO, "FLAC", STREAM_INFO, sample_rate_hz=48000, channels=2, sample_bits=24),
        TrackInfo(AUDIO, "MP3", sample_rate_hz=44100, channels=1),
        TrackInfo(AUDIO, "MP2", sample_rate_hz=44100, channels=2),
        TrackInfo(AUDIO, "AC3", sample_rate_hz=48000, channels=6),
        TrackInfo(AUDIO, "EAC-3", sample_rate_hz=48000, channels=8),
        TrackInfo(AUDIO, "DTS", sample_rate_hz=48000, channels=6),
        TrackInfo(AUDIO, "PCM", sample_rate_hz=48000, channels=2, sample_bits=24),
        TrackInfo(AUDIO, "PCM", sample_rate_hz=8000, channels=1, sample_bits=8),
        TrackInfo(AUDIO, "FLOAT", sample_rate_hz=48000, channels=2, sample_bits=32),
        TrackInfo(AUDIO, "ALAW", sample_rate_hz=8000, channels=1, sample_bits=8),
        TrackInfo(AUDIO, "ULAW", sample_rate_hz=8000, channels=2, sample_bits=8),
        TrackInfo(META, "subtitle", language="nld"),
        TrackInfo(META, "JSON"),
    ],
    ids=lambda info: f"{info.codec}-{info.sample_bits}-{len(info.init_data)}",
)
def test_what_is_written_is_read(info: TrackInfo) -> None:
    engine = demuxer()
    demux(engine, muxer([info]).header())
    assert engine.tracks == [info.changed(track_id=1)]


def test_the_capability_lists_are_complete() -> None:
    assert {"H264", "VP9", "opus", "vorbis", "PCM", "subtitle", "JSON"} <= {*VIDEO_CODECS, *AUDIO_CODECS, *META_CODECS}


@pytest.mark.parametrize(
    ("name", "rates", "object_type", "sbr"),
    [
        ("A_AAC", (48000, 48000), 2, False),
        ("A_AAC/MPEG2/MAIN", (48000, 48000), 1, False),
        ("A_AAC/MPEG2/LC", (22050, 22050), 2, False),
        ("A_AAC/MPEG4/LC/SBR", (22050, 44100), 2, True),
        ("A_AAC/MPEG2/LC/SBR", (24000, 24000), 2, True),
    ],
)
def test_old_names_of_aac(name: str, rates: tuple[int, int], object_type: int, sbr: bool) -> None:
    sound = element(0xE1, float_element(0xB5, rates[0]) + float_element(0x78B5, rates[1]) + unsigned_element(0x9F, 2))
    entry = one(name, 2, sound)
    config = aac.parse_config(entry.info.init_data)
    assert (config.object_type, config.core_sample_rate_hz, config.sbr) == (object_type, rates[0], sbr)
    assert entry.info.sample_rate_hz == config.sample_rate_hz == (2 * rates[0] if sbr else rates[0])


@pytest.mark.parametrize(
    ("tag", "bits", "codec"),
    [
        (1, 16, "PCM"),
        (3, 32, "FLOAT"),
        (6, 8, "ALAW"),
        (7, 8, "ULAW"),
        (0x55, 0, "MP3"),
        (0x50, 0, "MP2"),
        (0x2000, 0, "AC3"),
    ],
)
def test_wave_formats(tag: int, bits: int, codec: str) -> None:
    wave = build_wave_format(WaveFormat(tag, 2, 44100, 176400, 4, bits, b"extra"))
    found = one("A_MS/ACM", 2, audio(), wave).info
    assert (found.codec, found.sample_rate_hz, found.channels) == (codec, 44100, 2)
    assert parse_wave_format(wave).extra == b"extra"
    assert not read(track(1, "A_MS/ACM", 2, audio(), b"\x61\x01" + wave[2:]))
    with pytest.raises(TruncatedError):
        parse_wave_format(wave[:15])


def test_extensible_wave_formats() -> None:
    wave = build_wave_format(WaveFormat(0xFFFE, 1, 8000, 16000, 2, 16, bytes(6) + b"\x01\x00" + bytes(14)))
    assert parse_wave_format(wave).tag == 1
    assert one("A_MS/ACM", 2, audio(), wave).info.codec == "PCM"


@pytest.mark.parametrize(
    ("elements", "language"),
    [
        (b"", "eng"),
        (text_element(0x22B59C, "ger"), "deu"),
        (text_element(0x22B59C, "und"), "und"),
        (text_element(0x22B59C, "ger") + text_element(0x22B59D, "nl-BE"), "nld"),
        (text_element(0x22B59C, "fre\0"), "fra"),
    ],
)
def test_languages(elements: bytes, language: str) -> None:
    assert one("A_MPEG/L3", 2, audio() + elements, language="").info.language == language


def test_reordering_is_what_the_parameter_sets_say() -> None:
    assert one("V_MPEG4/ISO/AVC", 1, video(), AVCC).depth == 0
    assert one("V_MPEG2", 1, video()).depth == -1
    assert one("V_VP8", 1, video()).depth == 0
    assert one("V_MPEG4/ISO/AVC", 1, video()).probe
    assert one("A_FLAC", 2, audio(), b"fLaC").probe


def test_pictures_are_cropped() -> None:
    crop = b"".join(unsigned_element(number, 2) for number in (0x54CC, 0x54DD, 0x54BB, 0x54AA))
    shape = element(0xE0, unsigned_element(0xB0, 64) + unsigned_element(0xBA, 48) + crop)
    info = one("V_VP8", 1, shape + unsigned_element(0x23E383, 33_366_667)).info
    assert (info.width, info.height, info.frame_rate_mhz) == (60, 44, 29970)


@pytest.mark.parametrize(
    ("name", "private"),
    [
        ("V_MPEG4/ISO/AVC", b"\x01\x42"), ("V_MPEGH/ISO/HEVC", b"\x01"), ("A_VORBIS", b"\x02\x01\x01abc"),
        ("A_OPUS", b"OpusHead"), ("A_AAC", b"\x11"), ("A_REAL/COOK", b""), ("V_QUICKTIME", b""), ("V_MS/VFW/FOURCC", bytes(40)),
    ],
)  # fmt: skip
def test_tracks_that_cannot_be_read(name: str, private: bytes) -> None:
    assert read(track(1, name, 2, audio(), private), track(0, "V_VP8", 1), track(2, "V_VP8", 1))[-1].number == 2
    assert len(read(track(1, name, 2, audio(), private), track(2, "V_VP8", 1))) == 1


def test_video_for_windows_knows_jpeg() -> None:
    assert one("V_MS/VFW/FOURCC", 1, video(), bytes(16) + b"MJPG" + bytes(20)).info.codec == "JPEG"


def test_broken_headers() -> None:
    schema = Schema()
    with pytest.raises(UnsupportedError):
        schema.check(text_element(0x4282, "matroska") + unsigned_element(0x42F7, 9))
    with pytest.raises(RemoteProtocolError):
        schema.info(unsigned_element(0x2AD7B1, 0))
    assert schema.info(float_element(0x4489, float("nan"))) == (1_000_000, 0, None)
    assert schema.info(float_element(0x4489, -5.0)) == (1_000_000, 0, None)


@pytest.mark.parametrize(
    ("rate_mhz", "duration_ns"),
    [
        (25_000, 40_000_000),
        (23_976, 41_708_333),
        (29_970, 33_366_667),
        (59_940, 16_683_333),
        (30_000, 33_333_333),
        (12_345, 81_004_455),
    ],
)
def test_frame_durations(rate_mhz: int, duration_ns: int) -> None:
    assert frame_ns(rate_mhz) == duration_ns


def test_the_end_of_a_file_fits_its_header() -> None:
    engine = muxer([TrackInfo(META, "JSON")], indexed=True)
    header = engine.header()
    patches = dict(engine.patches())
    assert all(position + len(data) <= len(header) for position, data in patches.items())
    places = sorted(patches)
    assert len(patches[places[1]]) == 80
    assert split_elements(patches[places[2]])[0][0] == 0x4489
    assert unsigned_value(patches[places[0]][1:]) == len(header) - places[1]

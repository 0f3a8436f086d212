"""AudioSpecificConfig in all its forms, ADTS."""

from __future__ import annotations

from dataclasses import replace

import pytest

from mist.errors import LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats import aac
from tests.support.codec_samples import golden, names


@pytest.mark.parametrize(
    ("data", "kind", "core_hz", "rate_hz", "channels", "samples", "text"),
    [
        ("1190", 2, 48000, 48000, 2, 1024, "mp4a.40.2"),
        ("1210", 2, 44100, 44100, 2, 1024, "mp4a.40.2"),
        ("1388", 2, 22050, 22050, 1, 1024, "mp4a.40.2"),
        ("1194", 2, 48000, 48000, 2, 960, "mp4a.40.2"),
        ("11b8", 2, 48000, 48000, 8, 1024, "mp4a.40.2"),
        ("0a10", 1, 44100, 44100, 2, 1024, "mp4a.40.1"),
        ("119056e500", 2, 48000, 48000, 2, 1024, "mp4a.40.2"),  # SBR said to be absent (ffmpeg)
        ("139056e5a0", 2, 22050, 44100, 2, 2048, "mp4a.40.5"),  # SBR, backward compatible
        ("2b920800", 2, 22050, 44100, 2, 2048, "mp4a.40.5"),  # SBR, hierarchical
        ("eb098800", 2, 24000, 48000, 2, 2048, "mp4a.40.29"),  # parametric stereo, hierarchical
        ("130856e59d4880", 2, 24000, 48000, 2, 2048, "mp4a.40.29"),  # parametric stereo, backward compatible
        ("1780555510", 2, 43690, 43690, 2, 1024, "mp4a.40.2"),  # escaped frequency
        ("f8e63000", 39, 48000, 48000, 1, 480, "mp4a.40.39"),  # ELD: escaped object type
        ("f9464000", 42, 48000, 48000, 2, 1024, "mp4a.40.42"),  # USAC
        ("b98800", 23, 48000, 48000, 1, 512, "mp4a.40.23"),  # LD
    ],
)
def test_configs(data: str, kind: int, core_hz: int, rate_hz: int, channels: int, samples: int, text: str) -> None:
    config = aac.parse_config(bytes.fromhex(data))
    assert (config.object_type, config.core_sample_rate_hz, config.sample_rate_hz) == (kind, core_hz, rate_hz)
    assert (config.channels, config.frame_samples) == (channels, samples)
    assert aac.codec_string(config) == text


@pytest.mark.parametrize("name", names("aac"))
def test_golden_round_trip(name: str) -> None:
    record = golden("aac", name).init_data
    config = aac.parse_config(record)
    assert aac.parse_config(aac.build_config(config)) == config
    assert (config.program_config is not None) == (name == "pce")
    prefix = aac.adts_prefix(config)
    frame = aac.set_adts_length(prefix, 100)
    header = aac.parse_adts(frame)
    assert (header.frame_bytes, header.header_bytes, header.raw_data_blocks) == (len(prefix) + 100, 7, 1)
    assert aac.parse_config(aac.adts_config(header, frame[7:])) == config


def test_config_of_he_aac_comes_back() -> None:
    for data in ("2b920800", "eb098800"):
        config = aac.parse_config(bytes.fromhex(data))
        assert aac.build_config(config) == bytes.fromhex(data).rstrip(b"\0") + b"\0" * (data == "eb098800") or (
            aac.parse_config(aac.build_config(config)) == config
        )
        assert aac.parse_adts(aac.build_adts_header(config, 9)).sample_rate_hz == config.core_sample_rate_hz


def test_adts_golden() -> None:
    header = aac.parse_adts(bytes.fromhex("fff15080 2e7ffc de02".replace(" ", "")))
    assert header == aac.AdtsHeader(False, 2, 44100, 2, 7, 371, 1)
    config = aac.simple_config(44100, 2)
    assert aac.build_adts_header(config, 371 - 7) == bytes.fromhex("fff150802e7ffc")
    assert aac.build_config(config) == b"\x12\x10"
    assert aac.adts_config(header) == b"\x12\x10"
    assert aac.parse_adts(b"\xff\xf0\x50\x80\x2e\x7f\xfc").header_bytes == 9


def test_wrong_adts() -> None:
    good = bytes.fromhex("fff150802e7ffc")
    for size in range(7):
        with pytest.raises(TruncatedError):
            aac.parse_adts(good[:size])
    for wrong in (b"\xff\xe1", b"\xff\xf3", b"\x00\x00"):
        with pytest.raises(RemoteProtocolError):
            aac.parse_adts(wrong + good[2:])
    with pytest.raises(RemoteProtocolError):
        aac.parse_adts(bytes.fromhex("fff17c802e7ffc"))
    with pytest.raises(RemoteProtocolError):
        aac.parse_adts(bytes.fromhex("fff15080001ffc"))
    silent = aac.parse_adts(bytes.fromhex("fff150002e7ffc"))
    for payload in (b"", b"\x00", b"\xa0"):
        with pytest.raises(RemoteProtocolError):
            aac.adts_config(silent, payload)


def test_what_cannot_be_built() -> None:
    with pytest.raises(UnsupportedError):
        aac.simple_config(48000, 9)
    assert [aac.simple_config(48000, count).channel_configuration for count in (1, 2, 6, 8)] == [1, 2, 6, 7]
    plain = aac.simple_config(48000, 2)
    for wrong in (
        replace(plain, object_type=39),
        replace(plain, core_sample_rate_hz=43690),
        replace(plain, channel_configuration=0),
    ):
        with pytest.raises(UnsupportedError):
            aac.adts_prefix(wrong)
    with pytest.raises(UnsupportedError):
        aac.build_adts_header(plain, 8190)
    for wrong in (replace(plain, object_type=39), replace(plain, channel_configuration=0)):
        with pytest.raises(LocalProtocolError):
            aac.build_config(wrong)
    for data in (b"", b"\x12", b"\x16\x80", b"\x17\x80\x00\x00\x08"):
        with pytest.raises(RemoteProtocolError):
            aac.parse_config(data)

"""The init segment: its boxes, and what it says of each codec."""

from __future__ import annotations

import struct

import pytest

from mist.errors import RemoteProtocolError, UnsupportedError
from mist.formats import h264, opus
from mist.formats.mp4_boxes import CODECS, LiveMovie, init_segment, pack_language, sample_entry, track_timing
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from tests.support.mp4_boxes_reader import boxes

SPS = bytes.fromhex("67640028acd940780227e5c05a808080a0000003002000000791e30632c0")
H264 = TrackInfo(
    VIDEO, "H264", h264.build_avcc([SPS], [b"\x68\xeb\xe3\xcb"]), width=1920, height=1080, frame_rate_mhz=29_970
)
HVCC = bytes.fromhex("01016000000090000000000078f000fcfdf8f800000f") + b"\x01\x20\x00\x01\x00\x03\x40\x01\x0c"
AAC = TrackInfo(AUDIO, "AAC", bytes.fromhex("1190"), sample_rate_hz=48_000, channels=2, language="ger")


def body(data: bytes, path: str) -> bytes:
    return next(box.body for box in boxes(data) if box.path == path)


def test_structure() -> None:
    data = init_segment([H264, AAC])
    media = ["mdia", "mdia/mdhd", "mdia/hdlr", "mdia/minf"]
    tables = ["dinf", "dinf/dref", "stbl", "stbl/stsd", "stbl/stts", "stbl/stsc", "stbl/stsz", "stbl/stco"]

    def track(header: str) -> list[str]:
        return ["", "/tkhd", *(f"/{name}" for name in media), *(f"/mdia/minf/{name}" for name in [header, *tables])]

    expected = ["ftyp", "moov", "moov/mvhd"]
    expected += [f"moov/trak{rest}" for rest in track("vmhd")] + [f"moov/trak{rest}" for rest in track("smhd")]
    expected += ["moov/mvex", "moov/mvex/trex", "moov/mvex/trex"]
    assert [box.path for box in boxes(data)] == expected
    assert body(data, "ftyp") == b"iso5\0\0\0\0iso5iso6mp41"
    assert len(body(data, "moov/mvhd")) == 100
    assert body(data, "moov/mvhd")[-4:] == b"\0\0\0\3"
    assert body(data, "moov/trak/tkhd")[-8:] == struct.pack(">II", 1920 << 16, 1080 << 16)
    assert len(body(data, "moov/trak/tkhd")) == 84


def test_defaults_of_fragments() -> None:
    trexes = [struct.unpack(">6I", box.body) for box in boxes(init_segment([H264, AAC])) if box.path.endswith("trex")]
    assert trexes == [(0, 1, 1, 0, 0, 0x0101_0000), (0, 2, 1, 1024, 0, 0x0200_0000)]
    mdhds = [box.body for box in boxes(init_segment([H264, AAC])) if box.path.endswith("mdhd")]
    assert [struct.unpack(">5IHH", mdhd)[3] for mdhd in mdhds] == [90_000, 48_000]
    assert struct.unpack(">5IHH", mdhds[1])[5] == pack_language("deu")


@pytest.mark.parametrize(
    ("language", "packed"), [("eng", 0x15C7), ("und", 0x55C4), ("en", 0x15C7), ("", 0x55C4), ("e1g", 0x55C4)]
)
def test_language(language: str, packed: int) -> None:
    assert pack_language(language) == packed


def entry_and_box(track: TrackInfo, payload: bytes = b"") -> tuple[str, str, bytes, bytes]:
    """Return the sample entry's kind and its head, and the configuration box's kind and body."""
    data = sample_entry(track, payload)
    assert int.from_bytes(data[:4], "big") == len(data)
    head = 78 if track.type == VIDEO else 28
    inner = data[8 + head :]
    assert int.from_bytes(inner[:4], "big") == len(inner)
    return data[4:8].decode(), inner[4:8].decode(), data[8 : 8 + head], inner[8:]


def test_h264_gets_four_byte_lengths() -> None:
    record = bytearray(H264.init_data)
    record[4] = 0xFC  # one-byte lengths in the source; our packets have four
    kind, box, head, configuration = entry_and_box(H264.changed(init_data=bytes(record)))
    assert (kind, box) == ("avc1", "avcC")
    assert configuration == H264.init_data
    resolution = bytes.fromhex("00480000 00480000 00000000 0001")
    size = struct.pack(">HH", 1920, 1080)
    assert head == bytes(6) + b"\0\1" + bytes(16) + size + resolution + bytes(32) + b"\0\x18\xff\xff"


def test_hevc_arrays_are_complete() -> None:
    kind, box, _head, configuration = entry_and_box(TrackInfo(VIDEO, "HEVC", HVCC, width=64, height=64))
    assert (kind, box) == ("hvc1", "hvcC")
    assert configuration == HVCC[:23] + b"\xa0" + HVCC[24:]


def test_hevc_with_lying_counts() -> None:
    for cut in range(23, len(HVCC)):
        record = HVCC[:22] + b"\xff" + HVCC[23:cut]
        assert len(entry_and_box(TrackInfo(VIDEO, "HEVC", record))[3]) == cut


def test_esds_of_aac() -> None:
    kind, box, head, configuration = entry_and_box(AAC)
    assert (kind, box) == ("mp4a", "esds")
    assert head == bytes(6) + b"\0\1" + bytes(8) + struct.pack(">HH4xI", 2, 16, 48_000 << 16)
    assert configuration == bytes.fromhex(
        "00000000 03 80808022 0000 00 04 80808014 40 15 000000 00000000 00000000 05 80808002 1190 06 80808001 02"
    )


@pytest.mark.parametrize(("rate_hz", "object_type"), [(48_000, 0x6B), (44_100, 0x6B), (22_050, 0x69), (0, 0x6B)])
def test_esds_of_mp3(rate_hz: int, object_type: int) -> None:
    kind, box, _head, configuration = entry_and_box(TrackInfo(AUDIO, "MP3", sample_rate_hz=rate_hz, channels=1))
    assert (kind, box) == ("mp4a", "esds")
    assert configuration[17] == object_type
    assert b"\x05\x80" not in configuration


def test_other_audio() -> None:
    head = opus.build_head(opus.OpusHead(2, pre_skip_samples=312, coupled=1))
    kind, box, _head, configuration = entry_and_box(TrackInfo(AUDIO, "opus", head, channels=2, sample_rate_hz=44_100))
    assert (kind, box, configuration) == ("Opus", "dOps", bytes.fromhex("00 02 0138 0000bb80 0000 00"))
    assert entry_and_box(TrackInfo(AUDIO, "opus", channels=1))[3][:2] == b"\0\1"
    stream_info = bytes(range(34))
    kind, box, _head, configuration = entry_and_box(TrackInfo(AUDIO, "FLAC", stream_info, sample_rate_hz=96_000))
    assert (kind, box, configuration) == ("fLaC", "dfLa", bytes.fromhex("00000000 80000022") + stream_info)
    assert _head[-4:] == bytes(4)  # 96 kHz does not fit; dfLa says it


@pytest.mark.parametrize("codec", ["AC3", "EAC-3"])
@pytest.mark.parametrize("channels", range(9))
def test_dolby_without_a_packet(codec: str, channels: int) -> None:
    track = TrackInfo(AUDIO, codec, sample_rate_hz=44_100, channels=channels)
    configuration = entry_and_box(track)[3]
    bits = int.from_bytes(configuration[:3], "big") if codec == "AC3" else int.from_bytes(configuration[2:5], "big")
    expected = {1: 1, 3: 3, 4: 6, 5: 7, 6: 7, 7: 7, 8: 7}.get(channels, 2)
    acmod = bits >> 11 & 7 if codec == "AC3" else bits >> 9 & 7
    assert bits >> 22 == 1
    assert acmod == expected
    assert entry_and_box(track, b"not a frame")[3] == configuration


def test_video_without_boxes_of_its_own() -> None:
    assert entry_and_box(TrackInfo(VIDEO, "VP8", width=64, height=48))[1] == "vpcC"
    record = bytes.fromhex("010000000014820201010000")
    assert entry_and_box(TrackInfo(VIDEO, "VP9", record))[3] == record
    assert entry_and_box(TrackInfo(VIDEO, "AV1", b"\x81\x05\x0c\0"))[:2] == ("av01", "av1C")


def test_timing() -> None:
    assert (track_timing(H264).timescale, track_timing(H264).frame_ticks) == (90_000, 3003)
    assert track_timing(H264.changed(frame_rate_mhz=0)).frame_ticks == 0
    assert (track_timing(AAC).timescale, track_timing(AAC).default_ticks) == (48_000, 1024)
    assert track_timing(AAC.changed(sample_rate_hz=0)).timescale == 48_000
    assert track_timing(AAC.changed(sample_rate_hz=5_000_000)).timescale == 48_000
    assert track_timing(TrackInfo(AUDIO, "opus", sample_rate_hz=16_000)).timescale == 48_000
    assert track_timing(TrackInfo(AUDIO, "AC3", sample_rate_hz=32_000)).default_ticks == 1536


def test_what_is_refused() -> None:
    for track in (TrackInfo(META, "JSON"), TrackInfo(AUDIO, "vorbis"), TrackInfo(META, "H264")):
        with pytest.raises(UnsupportedError):
            init_segment([track])
    for codec in ("H264", "HEVC", "FLAC"):
        with pytest.raises(RemoteProtocolError):
            init_segment([TrackInfo(AUDIO if codec == "FLAC" else VIDEO, codec, b"\1")])
    assert "H264" in CODECS


def test_follows() -> None:
    follows = LiveMovie.follows
    assert follows(H264, H264.changed(width=640, init_data=b""))
    assert not follows(AAC, AAC.changed(sample_bits=24))
    assert not follows(AAC, AAC.changed(init_data=bytes.fromhex("1188")))

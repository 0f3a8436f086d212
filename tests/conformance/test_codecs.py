"""What our parsers say of a stream, against what ffprobe, PyAV and ffmpeg's own boxes say of it.

Every sample is made here and now by ffmpeg; an encoder that this machine lacks skips its samples.
"""

from __future__ import annotations

import functools
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

from mist.core.nal import length_prefixed_to_annexb, split_annexb, split_length_prefixed
from mist.formats import aac, ac3, codecs, flac, h264, hevc, mpeg_audio, opus
from mist.formats.tracks import TrackInfo

pytestmark = [
    pytest.mark.timeout(90),
    pytest.mark.skipif(not shutil.which("ffmpeg") or not shutil.which("ffprobe"), reason="needs ffmpeg and ffprobe"),
]

NAMES = {
    "h264": "H264", "hevc": "HEVC", "av1": "AV1", "vp9": "VP9", "vp8": "VP8", "aac": "AAC", "mp3": "MP3", "mp2": "MP2",
    "opus": "opus", "flac": "FLAC", "ac3": "AC3", "eac3": "EAC-3",
}  # fmt: skip
X264 = "-c:v libx264 -preset ultrafast"
X265 = "-c:v libx265 -preset ultrafast -x265-params log-level=none"


@dataclass(frozen=True)
class Sample:
    """One stream as ffprobe and PyAV see it."""

    path: Path
    probed: dict[str, Any]
    init_data: bytes
    packets: list[tuple[bytes, bool]]

    def track(self, init_data: bytes | None = None) -> TrackInfo:
        """Return the track as an input without any description would hand it over."""
        name = NAMES[self.probed["codec_name"]]
        if init_data is None:
            init_data = self.init_data if name not in ("VP8", "VP9", "MP3", "MP2", "AC3", "EAC-3") else b""
        return TrackInfo(self.probed["codec_type"], name, init_data=init_data)


VIDEO = {
    "h264_baseline": f"{X264} -profile:v baseline -pix_fmt yuv420p",
    "h264_main": f"{X264} -profile:v main -bf 2 -pix_fmt yuv420p -x264-params cabac=1:b-adapt=0",
    "h264_high": "-c:v libx264 -profile:v high -bf 3 -pix_fmt yuv420p -level 5.1",
    "h264_high10": f"{X264} -pix_fmt yuv420p10le",
    "h264_422": f"{X264} -pix_fmt yuv422p10le -bf 1",
    "h264_444": f"{X264} -pix_fmt yuv444p",
    "h264_grey": f"{X264} -pix_fmt gray",
    "h264_intra": f"{X264} -pix_fmt yuv420p10le -g 1",
    "h264_interlaced": "-c:v libx264 -preset veryfast -pix_fmt yuv420p -flags +ildct+ilme -x264-params tff=1",
    "h264_interlaced_422": "-c:v libx264 -preset veryfast -pix_fmt yuv422p -flags +ildct+ilme -x264-params bff=1",
    "h264_hrd": f"{X264} -pix_fmt yuv420p -b:v 200k -maxrate 200k -bufsize 200k -x264-params nal-hrd=cbr -vf setsar=4/3",
    "h264_colour": f"{X264} -pix_fmt yuvj420p -x264-params colorprim=bt709:transfer=bt709:colormatrix=bt709:overscan=show",
    "h264_ntsc": f"{X264} -pix_fmt yuv420p -r 30000/1001 -vf setsar=40/33",
    "h264_matrix": f"{X264} -pix_fmt yuv420p -x264-params cqm=jvt:8x8dct=1",
    "h264_refresh": f"{X264} -pix_fmt yuv420p -x264-params intra-refresh=1:keyint=4",
    "h264_open": f"{X264} -pix_fmt yuv420p -bf 2 -x264-params open-gop=1:keyint=4:b-adapt=0",
    "h264_slices": f"{X264} -pix_fmt yuv420p -slices 4",
    "h264_large": f"{X264} -pix_fmt yuv420p -s 4096x2160 -frames:v 2",
    "hevc_main": f"{X265} -pix_fmt yuv420p",
    "hevc_main10": f"{X265}:colorprim=9:transfer=16:colormatrix=9:range=limited -pix_fmt yuv420p10le",
    "hevc_422": f"{X265} -pix_fmt yuv422p10le",
    "hevc_444": f"{X265} -pix_fmt yuv444p",
    "hevc_12": f"{X265} -pix_fmt yuv420p12le",
    "hevc_nob": f"{X265}:bframes=0:sar=1 -pix_fmt yuv420p",
    "hevc_hrd": f"{X265}:hrd=1:vbv-bufsize=300:vbv-maxrate=300 -b:v 300k -pix_fmt yuv420p",
    "hevc_high_tier": f"{X265}:high-tier=1:level-idc=51:vbv-bufsize=90000:vbv-maxrate=90000 -pix_fmt yuv420p -s 3840x2160 -frames:v 2",
    "hevc_scaling": f"{X265}:scaling-list=default:sar=16:overscan=show -pix_fmt yuv420p",
    "hevc_layers": f"{X265}:temporal-layers=1:b-adapt=0 -pix_fmt yuv420p",
    "hevc_open": f"{X265}:keyint=4:min-keyint=4:open-gop=1:b-adapt=0 -pix_fmt yuv420p",
    "hevc_intra": f"{X265}:keyint=1 -pix_fmt yuv420p",
    "hevc_field": f"{X265}:interlace=tff -pix_fmt yuv420p",
    "av1_svt": "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p",
    "av1_svt10": "-c:v libsvtav1 -preset 12 -pix_fmt yuv420p10le",
    "av1_aom": "-c:v libaom-av1 -cpu-used 8 -usage realtime -pix_fmt yuv420p -frames:v 4",
    "av1_444": "-c:v libaom-av1 -cpu-used 8 -pix_fmt yuv444p -frames:v 3",
    "av1_422_12": "-c:v libaom-av1 -cpu-used 8 -pix_fmt yuv422p12le -frames:v 3",
    "av1_grey": "-c:v libaom-av1 -cpu-used 8 -pix_fmt gray -frames:v 3",
    "av1_rgb": "-c:v libaom-av1 -cpu-used 8 -pix_fmt gbrp -frames:v 3",
    "av1_rav1e": "-c:v librav1e -speed 10 -pix_fmt yuv420p -frames:v 4",
    "av1_hdr": "-c:v libaom-av1 -cpu-used 8 -pix_fmt yuv420p10le -frames:v 3 -color_primaries bt2020 -color_trc smpte2084"
    " -colorspace bt2020nc",
    "vp8": "-c:v libvpx -deadline realtime -g 5",
    "vp9": "-c:v libvpx-vp9 -deadline realtime -g 5",
    "vp9_444": "-c:v libvpx-vp9 -deadline realtime -pix_fmt yuv444p",
    "vp9_422_10": "-c:v libvpx-vp9 -deadline realtime -pix_fmt yuv422p10le",
    "vp9_rgb": "-c:v libvpx-vp9 -deadline realtime -pix_fmt gbrp",
    "vp9_altref": "-c:v libvpx-vp9 -deadline good -cpu-used 8 -auto-alt-ref 1 -lag-in-frames 10 -g 8",
}
AUDIO = {
    "aac_stereo": "-c:a aac -ac 2 -ar 48000",
    "aac_mono": "-c:a aac -ac 1 -ar 22050",
    "aac_51": "-c:a aac -ac 6 -ar 44100",
    "aac_71": "-c:a aac -filter:a pan=7.1|c0=c0|c3=c0 -ar 48000",
    "aac_pce": "-c:a aac -filter:a pan=hexagonal|c0=c0|c3=c0 -ar 44100",
    "aac_96k": "-c:a aac -ac 2 -ar 96000",
    "aac_main": "-c:a aac -profile:a aac_main -strict -2 -ac 2 -ar 32000",
    "mp3": "-c:a libmp3lame -ac 2 -ar 44100",
    "mp3_low": "-c:a libmp3lame -ac 1 -ar 22050 -b:a 32k",
    "mp3_lowest": "-c:a libmp3lame -ac 1 -ar 11025 -b:a 16k",
    "mp3_vbr": "-c:a libmp3lame -ac 2 -ar 48000 -q:a 4",
    "mp2": "-c:a mp2 -ac 2 -ar 48000",
    "opus": "-c:a libopus -ac 2",
    "opus_mono": "-c:a libopus -ac 1 -frame_duration 10",
    "opus_60": "-c:a libopus -ac 2 -frame_duration 60 -application voip",
    "opus_51": "-c:a libopus -ac 6 -mapping_family 1",
    "flac": "-c:a flac -ac 2 -ar 44100",
    "flac_24": "-c:a flac -sample_fmt s32 -ac 1 -ar 96000",
    "flac_odd": "-c:a flac -ac 6 -ar 23456",
    "ac3": "-c:a ac3 -ac 2 -ar 48000 -b:a 192k",
    "ac3_51": "-c:a ac3 -ac 6 -ar 44100 -b:a 448k",
    "ac3_mono": "-c:a ac3 -ac 1 -ar 32000 -b:a 96k",
    "eac3": "-c:a eac3 -ac 2 -ar 48000 -b:a 128k",
    "eac3_51": "-c:a eac3 -ac 6 -ar 44100 -b:a 256k",
    "eac3_mono": "-c:a eac3 -ac 1 -ar 32000 -mixing_level 90 -room_type small -copyright 1",
}
SAMPLES = {**VIDEO, **AUDIO}


@functools.cache
def _encoders() -> str:
    return subprocess.run(["ffmpeg", "-hide_banner", "-encoders"], capture_output=True, text=True, check=True).stdout


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("codecs")


_made: dict[str, Sample] = {}


def make(name: str, folder: Path) -> Sample:
    """Return the sample, made at the first call."""
    if name not in _made:
        _made[name] = _make(name, folder)
    return _made[name]


def _make(name: str, folder: Path) -> Sample:
    words = SAMPLES[name].split()
    encoder = words[1]
    if f" {encoder} " not in _encoders():
        pytest.skip(f"this ffmpeg has no {encoder}")
    height = 180 if "interlaced" in name else 182
    source = f"testsrc2=size=322x{height}:rate=25:duration=0.4" if name in VIDEO else "sine=frequency=440:duration=0.4"
    path = folder / f"{name}.{'mkv' if name.startswith(('vp', 'mp2')) else 'mp4'}"
    command = ["ffmpeg", "-hide_banner", "-loglevel", "error", "-y", "-f", "lavfi", "-i", source, *words]
    done = subprocess.run(
        [*command, "-strict", "-2", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return read(path)


def read(path: Path) -> Sample:
    """Return the first stream of a file."""
    show = ["ffprobe", "-v", "error", "-of", "json", "-show_streams", str(path)]
    probed = json.loads(subprocess.run(show, capture_output=True, text=True, check=True).stdout)["streams"][0]
    with av.open(str(path)) as container:
        stream = container.streams[0]
        packets = [(bytes(packet), packet.is_keyframe) for packet in container.demux(stream) if packet.size]
        return Sample(path, probed, stream.codec_context.extradata or b"", packets)


def box(path: Path, kind: bytes) -> bytes:
    """Return the payload of the first MP4 box of this kind, by looking for its name."""
    data = path.read_bytes()
    at = data.index(kind)
    return data[at + 4 : at - 4 + int.from_bytes(data[at - 4 : at], "big")]


def reference_codec_string(sample: Sample) -> str:
    """Return the codec string that ffmpeg's DASH muxer writes."""
    manifest = sample.path.with_suffix(".mpd")
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(sample.path), "-c", "copy", "-strict", "-2"]
    done = subprocess.run([*command, "-f", "dash", str(manifest)], capture_output=True, timeout=60, check=False)
    if done.returncode or 'codecs="' not in (text := manifest.read_text()):
        return ""
    return text.split('codecs="')[1].split('"')[0]


@pytest.mark.parametrize("name", VIDEO)
def test_video_agrees_with_ffprobe(name: str, folder: Path) -> None:
    sample = make(name, folder)
    payloads = [payload for payload, _ in sample.packets]
    track = codecs.complete(sample.track(), payloads[0])
    assert (track.width, track.height) == (sample.probed["width"], sample.probed["height"])
    if track.codec in ("H264", "HEVC"):
        number, unit = map(int, sample.probed["r_frame_rate"].split("/"))
        fields = 2 if name == "hevc_field" else 1  # each field is an access unit of its own
        assert track.frame_rate_mhz == pytest.approx(number * 1000 / unit, abs=1) or fields == 2
        assert codecs.has_bframes(track) == (sample.probed["has_b_frames"] > 0)
    else:
        assert codecs.has_bframes(track) is False
    if name not in ("h264_refresh",):
        assert [codecs.is_keyframe(track, payload) for payload in payloads] == [key for _, key in sample.packets]
    assert {codecs.parameter_sets(track, payload) for payload in payloads} == {None}
    assert {codecs.refreshed(track, payload) for payload in payloads} == {None}


@pytest.mark.parametrize("name", AUDIO)
def test_audio_agrees_with_ffprobe(name: str, folder: Path) -> None:
    sample = make(name, folder)
    track = codecs.complete(sample.track(), sample.packets[0][0])
    assert track.sample_rate_hz == int(sample.probed["sample_rate"])
    assert track.channels == sample.probed["channels"]
    if track.codec == "FLAC":
        assert track.sample_bits == int(sample.probed["bits_per_raw_sample"])
    assert codecs.has_bframes(track) is False
    assert codecs.is_keyframe(track, sample.packets[0][0])


@pytest.mark.parametrize("name", [name for name in SAMPLES if not name.startswith(("mp", "hevc", "vp8"))])
def test_codec_string_agrees_with_dash(name: str, folder: Path) -> None:
    sample = make(name, folder)
    track = codecs.complete(sample.track(), sample.packets[0][0])
    reference = reference_codec_string(sample)
    if not reference:
        pytest.skip("ffmpeg has no codec string for this")
    ours = codecs.codec_string(track)
    if track.codec in ("AV1", "VP9"):
        # Ours has the optional part wherever it says something; ffmpeg's has the depth and no more.
        assert (
            ours.split(".")[:4][:: 3 if track.codec == "VP9" else 1]
            == (reference.split(".")[:4][:: 3 if track.codec == "VP9" else 1])
        )
    else:
        assert ours.lower() == reference.lower()


@pytest.mark.parametrize("name", [name for name in VIDEO if name.startswith("h264")])
def test_h264_parameter_sets(name: str, folder: Path) -> None:
    sample = make(name, folder)
    record = h264.parse_avcc(sample.init_data)
    sps = h264.parse_sps(record.sps[0])
    probed = sample.probed
    names = {profile.replace(" Predictive", ""): profile for profile in ("High 4:4:4 Predictive",)}
    profile, level = codecs.profile_level(sample.track())
    assert names.get(profile, profile) == probed["profile"] or profile.endswith("Intra")
    assert level == f"{probed['level'] // 10}.{probed['level'] % 10}"
    assert sps.bit_depth_luma == int(probed["bits_per_raw_sample"])
    assert sps.frame_mbs_only == (probed.get("field_order", "progressive") == "progressive")
    ratio = probed.get("sample_aspect_ratio", "0:1")
    assert ratio == (f"{sps.vui.sar_width}:{sps.vui.sar_height}" if sps.vui.sar_width else "1:1") or ratio == "0:1"
    assert sps.vui.full_range == (probed.get("color_range") == "pc")
    if "color_primaries" in probed:
        assert sps.vui.colour_primaries == {"bt709": 1}[probed["color_primaries"]]
    assert h264.build_avcc(record.sps, record.pps, record.sps_extensions) == sample.init_data
    in_band = b"".join(b"\0\0\0\1" + unit for unit in (*record.sps, *record.pps))
    payload = b"".join(
        len(unit).to_bytes(4, "big") + unit
        for unit in split_annexb(in_band + length_prefixed_to_annexb(sample.packets[0][0]))
    )
    assert codecs.parameter_sets(sample.track(), payload) is None
    assert codecs.parameter_sets(sample.track(b""), payload) == sample.init_data
    assert codecs.complete(sample.track(b""), payload).init_data == sample.init_data


def test_intra_refresh_points_are_keyframes(folder: Path) -> None:
    sample = make("h264_refresh", folder)
    keys = [h264.is_keyframe(payload) for payload, _ in sample.packets]
    assert keys[0] and sum(keys) >= 2
    counts = [
        count
        for payload, _ in sample.packets
        for unit in split_length_prefixed(payload)
        if unit[0] & 31 == h264.SEI and (count := h264.recovery_point(unit)) is not None
    ]
    assert counts and max(counts) > 0


@pytest.mark.parametrize("name", [name for name in VIDEO if name.startswith("hevc")])
def test_hevc_parameter_sets(name: str, folder: Path) -> None:
    sample = make(name, folder)
    record = hevc.parse_hvcc(sample.init_data)
    sps = hevc.parse_sps(record.of_type(hevc.SPS)[0])
    depth = {"10le": 10, "12le": 12}.get(sample.probed["pix_fmt"][-4:], 8)
    assert (sps.bit_depth_luma, record.bit_depth_luma) == (depth, depth)
    assert sps.profile_tier_level.level_idc == sample.probed["level"]
    assert sps.profile_tier_level == record.profile_tier_level or name == "hevc_layers"
    if "color_primaries" in sample.probed:
        assert (sps.vui.colour_primaries, sps.vui.transfer_characteristics, sps.vui.matrix_coefficients) == (9, 16, 9)
    sets = [record.of_type(kind) for kind in (hevc.VPS, hevc.SPS, hevc.PPS)]
    mine, theirs = hevc.build_hvcc(*sets), sample.init_data
    again = hevc.parse_hvcc(mine)
    assert [again.of_type(kind) for kind in (hevc.VPS, hevc.SPS, hevc.PPS)] == sets
    assert (mine[:13], mine[16:19]) == (theirs[:13], theirs[16:19])
    assert mine[21] == theirs[21]
    in_band = b"".join(len(unit).to_bytes(4, "big") + unit for units in sets for unit in units)
    assert codecs.parameter_sets(sample.track(), in_band + sample.packets[0][0]) is None
    assert codecs.complete(sample.track(b""), in_band + sample.packets[0][0]).init_data == mine


@pytest.mark.parametrize("name", [name for name in VIDEO if name.startswith("av1")])
def test_av1_configuration_from_the_stream(name: str, folder: Path) -> None:
    sample = make(name, folder)
    made = codecs.complete(sample.track(b""), sample.packets[0][0])
    assert made.init_data[:3] == sample.init_data[:3]
    if "svt" not in name:  # its global header is another one than it sends
        assert made.init_data[4:] in sample.init_data
    assert codecs.codec_string(made) == codecs.codec_string(sample.track())


@pytest.mark.parametrize("name", [name for name in VIDEO if name.startswith("vp9")])
def test_vp9_configuration_from_the_stream(name: str, folder: Path) -> None:
    sample = make(name, folder)
    track = codecs.complete(sample.track().changed(frame_rate_mhz=25000), sample.packets[0][0])
    copy = folder / f"{name}.mp4"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(sample.path), "-c", "copy", "-strict", "-2", str(copy)]
    subprocess.run(command, check=True, timeout=30)
    theirs = box(copy, b"vpcC")
    assert track.init_data[:6] == theirs[:6]
    assert track.init_data[6] >> 4 == theirs[6] >> 4
    assert track.init_data[6] & 0x0E or theirs[6] & 0x0E in (0, 2)


@pytest.mark.parametrize("name", [name for name in AUDIO if name.startswith("aac")])
def test_aac_in_adts(name: str, folder: Path) -> None:
    sample = make(name, folder)
    config = aac.parse_config(sample.init_data)
    ours = b"".join(aac.build_adts_header(config, len(payload)) + payload for payload, _ in sample.packets)
    theirs = folder / f"{name}.aac"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(sample.path), "-c", "copy", str(theirs)]
    subprocess.run(command, check=True, timeout=30)
    path = folder / f"{name}.ours.aac"
    path.write_bytes(ours)
    if config.program_config is None:
        assert ours == theirs.read_bytes()
    decoded = subprocess.run(
        ["ffmpeg", "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], capture_output=True, check=False
    )
    assert decoded.returncode == 0, decoded.stderr
    again = read(path).probed
    assert (again["sample_rate"], again["channels"]) == (sample.probed["sample_rate"], sample.probed["channels"])
    header = aac.parse_adts(theirs.read_bytes())
    back = aac.parse_config(aac.adts_config(header, theirs.read_bytes()[header.header_bytes :]))
    assert (back.sample_rate_hz, back.channels, back.object_type) == (
        config.sample_rate_hz,
        config.channels,
        config.object_type,
    )


@pytest.mark.parametrize("name", [name for name in AUDIO if name.startswith(("mp3", "mp2"))])
def test_mpeg_audio_frames(name: str, folder: Path) -> None:
    sample = make(name, folder)
    for payload, _ in sample.packets:
        header = mpeg_audio.parse_header(payload)
        assert header.frame_bytes == len(payload)
        assert header.layer == (2 if name == "mp2" else 3)


@pytest.mark.parametrize("name", [name for name in AUDIO if name.startswith("opus")])
def test_opus_packets_and_boxes(name: str, folder: Path) -> None:
    sample = make(name, folder)
    head = opus.parse_head(sample.init_data)
    assert opus.build_head(head) == sample.init_data
    assert opus.build_dops(head) == box(sample.path, b"dOps")
    assert opus.parse_dops(box(sample.path, b"dOps")) == head
    duration = {"opus_mono": 480, "opus_60": 2880}.get(name, 960)
    assert {opus.packet_samples(payload) for payload, _ in sample.packets} == {duration}


@pytest.mark.parametrize("name", [name for name in AUDIO if name.startswith("flac")])
def test_flac_frames_and_boxes(name: str, folder: Path) -> None:
    sample = make(name, folder)
    info = flac.parse_stream_info(sample.init_data)
    assert flac.build_stream_info(info) == sample.init_data
    assert flac.build_dfla(sample.init_data) == box(sample.path, b"dfLa")
    for number, (payload, _) in enumerate(sample.packets):
        header = flac.parse_frame_header(payload)
        assert header.number == number
        assert header.channels == info.channels
        assert header.sample_rate_hz in (0, info.sample_rate_hz)
        assert header.sample_bits in (0, info.sample_bits)
        assert header.block_samples <= info.max_block_samples
    made = codecs.complete(sample.track(b""), sample.packets[0][0])
    if made.init_data:
        assert (made.sample_rate_hz, made.channels) == (info.sample_rate_hz, info.channels)


@pytest.mark.parametrize("name", [name for name in AUDIO if "ac3" in name])
def test_ac3_frames_and_boxes(name: str, folder: Path) -> None:
    sample = make(name, folder)
    for payload, _ in sample.packets:
        frames = list(ac3.iterate_sync_frames(payload))
        assert sum(frame.frame_bytes for frame in frames) == len(payload)
    payload = sample.packets[0][0]
    if name.startswith("eac3"):
        assert ac3.build_dec3(payload) == box(sample.path, b"dec3")
    else:
        frame = ac3.parse_sync_frame(payload)
        assert ac3.build_dac3(frame) == box(sample.path, b"dac3")
        assert frame.bitrate_bps == int(sample.probed["bit_rate"])


@pytest.mark.skipif(not shutil.which("chromium"), reason="needs Chromium")
def test_chromium_takes_the_codec_strings(folder: Path) -> None:
    """Ask Chromium's Media Source for each string; HEVC, AC-3 and the like depend on the platform's decoders."""
    types = {}
    for name in SAMPLES:
        if name.startswith(("hevc", "ac3", "eac3", "mp2", "vp8", "h264_intra", "h264_grey")):
            continue
        if name.startswith("mp3") or name == "aac_main":
            continue  # "mp4a.40.34" is what HLS players and the reference server say; AAC Main is no web codec
        sample = make(name, folder)
        track = codecs.complete(sample.track(), sample.packets[0][0])
        types[name] = f'{track.type}/mp4; codecs="{codecs.codec_string(track)}"'
    script = f"document.title='x';document.body.textContent=JSON.stringify(Object.entries({json.dumps(types)}).filter("
    script += "([name, type]) => !MediaSource.isTypeSupported(type)))"
    page = folder / "types.html"
    page.write_text(f"<!doctype html><body><script>{script}</script></body>")
    command = ["chromium", "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={folder}/profile"]
    command += ["--dump-dom", page.as_uri()]
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as own:  # it leaves things there
        environment = {**os.environ, "TMPDIR": own}
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    refused = json.loads(done.stdout.split("<body>")[1].split("<")[0])
    assert not refused

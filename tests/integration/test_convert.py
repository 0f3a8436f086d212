"""Every pair of input and output format, converted and compared: payloads, times, keyframes, languages, init data."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path

import av
import pytest

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.errors import MistError
from mist.formats import hevc
from mist.formats.containers import Container, by_name
from mist.formats.tracks import META, TrackInfo
from tests.support.format_matrix import (
    BEGINS_AT_ZERO,
    CLOCK_US,
    DOCUMENT,
    INPUTS,
    KEEPS_DECODE_TIMES,
    KEEPS_LANGUAGE,
    METADATA,
    OUTPUTS,
    Source,
    cells,
    convert_file,
    document,
    sources,
)
from tests.support.packets import media_of

pytestmark = pytest.mark.tools("ffmpeg", "ffmpeg-new")

MOV_TEXT_LENGTH_BYTES = 2
CUE_TOLERANCE_US = 100_000  # cues of transport streams have the time of what is before them
SAMPLES = frozenset({"PCM", "FLOAT", "ALAW", "ULAW"})  # their packets are cut as the format likes
MIST_CODECS = {
    "h264": "H264", "hevc": "HEVC", "av1": "AV1", "libdav1d": "AV1", "vp8": "VP8", "vp9": "VP9", "mpeg2video": "MPEG2",
    "theora": "theora", "mjpeg": "JPEG", "aac": "AAC", "mp3": "MP3", "mp3float": "MP3", "opus": "opus", "libopus": "opus",
    "flac": "FLAC", "ac3": "AC3", "eac3": "EAC-3", "vorbis": "vorbis", "mp2": "MP2", "dca": "DTS", "pcm_alaw": "ALAW",
    "pcm_mulaw": "ULAW", "srt": "subtitle", "speex": "Speex", "libspeex": "Speex", "subrip": "subtitle",
    "webvtt": "subtitle", "ass": "subtitle",
    "mov_text": "subtitle", "mp2float": "MP2",
}  # fmt: skip
SWAPPED = {"pcm_s16le": 2, "pcm_s24le": 3, "pcm_s32le": 4, "pcm_f32be": 4, "pcm_f64be": 8}


@dataclass
class Seen:
    """One track as a demuxer shows it. times: of presentation and decoding, microseconds, where the format has them."""

    codec: str
    language: str = ""
    payloads: list[bytes] = field(default_factory=list)
    pts_us: list[float] = field(default_factory=list)
    dts_us: list[float] = field(default_factory=list)
    keys: list[bool] = field(default_factory=list)

    @property
    def digests(self) -> list[str]:
        return [hashlib.sha256(payload).hexdigest()[:12] for payload in self.payloads]


def seen_by_ffmpeg(path: Path) -> dict[str, Seen]:
    """Return the tracks of a file by codec, read with FFmpeg's demuxer."""
    found: dict[int, Seen] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            stream = packet.stream
            if not packet.size or stream.type not in ("video", "audio", "subtitle"):
                continue
            name = stream.codec_context.name
            codec = MIST_CODECS.get(name) or ("FLOAT" if name.startswith("pcm_f") else "PCM")
            track = found.setdefault(stream.index, Seen(codec, stream.language or ""))
            if name == "mov_text" and packet.size <= MOV_TEXT_LENGTH_BYTES:
                continue  # only says when the text before it goes
            data = media_of(name, bytes(packet), stream.codec_context.extradata or b"")
            base = packet.time_base or Fraction(1, 1000)
            data = data[MOV_TEXT_LENGTH_BYTES:] if name == "mov_text" else data
            track.payloads.append(_swapped(data, SWAPPED[name]) if name in SWAPPED else data)
            track.keys.append(packet.is_keyframe)
            if packet.pts is not None:
                track.pts_us.append(float(packet.pts * base * 1_000_000))
            if packet.dts is not None:
                track.dts_us.append(float(packet.dts * base * 1_000_000))
    return {track.codec: track for track in found.values()}


def seen_by_mist(path: Path, container: Container) -> tuple[dict[str, Seen], dict[str, TrackInfo]]:
    """Return the tracks of a file by codec, read with our demuxer."""
    assert container.make_demuxer is not None
    demuxer = container.make_demuxer()
    packets: list[Packet] = demux(demuxer, path.read_bytes())
    found = {index: Seen(info.codec, info.language) for index, info in enumerate(demuxer.tracks)}
    for packet in packets:
        track = found[packet.track]
        if track.codec == "subtitle" and not packet.payload.strip():
            continue  # only says when the text before it goes
        name = {"H264": "h264", "HEVC": "hevc"}.get(track.codec, "")
        track.payloads.append(media_of(name, packet.payload, b"\x01") if name else packet.payload)
        track.pts_us.append(packet.pts_us)
        track.dts_us.append(packet.dts_us)
        track.keys.append(packet.keyframe)
    return {track.codec: track for track in found.values()}, {info.codec: info for info in demuxer.tracks}


def _swapped(data: bytes, width: int) -> bytes:
    """Return samples in the other byte order."""
    out = bytearray(data)
    for byte in range(width):
        out[byte::width] = data[width - 1 - byte :: width]
    return bytes(out)


def readable_by_ffmpeg(container: str, codec: str) -> bool:
    """Tell whether FFmpeg can judge a track.

    It knows no DTSC, no AV1 in transport streams, no VP8 in FLV, no metadata but in transport streams, and takes MP2 in MP4, and in short
    transport streams, for MP3.
    """
    return (
        container != "dtsc"
        and codec not in METADATA
        and (container, codec)
        not in (
            ("ts", "AV1"),
            ("flv", "VP8"),
            ("mp4", "MP2"),
            ("ts", "MP2"),
        )
    )


def check_track(source: Seen, output: Seen, read: str, written: str) -> None:
    """Compare one track. Raises AssertionError."""
    if source.codec in SAMPLES:
        assert b"".join(output.payloads) == b"".join(source.payloads)
    elif source.codec == "subtitle":
        assert [_text(p) for p in output.payloads] == [_text(p) for p in source.payloads]
    else:
        assert len(output.payloads) == len(source.payloads), "packets"
        differing = [n for n, (a, b) in enumerate(zip(source.digests, output.digests, strict=True)) if a != b]
        assert not differing, f"payload of packet {differing[0]}"
        assert output.keys == source.keys, "key flags"
    clocks = [CLOCK_US[read], CLOCK_US[written]]
    if None in clocks or source.codec in SAMPLES:
        return
    tolerance_us = sum(clock for clock in clocks if clock is not None) + 1
    if source.codec == "SCTE35" and "ts" in (read, written):
        tolerance_us = CUE_TOLERANCE_US
    bound_us = float("inf") if written in BEGINS_AT_ZERO else 200_000
    _check_times(source.pts_us, output.pts_us, tolerance_us, bound_us, "presentation time")
    if {read, written} <= KEEPS_DECODE_TIMES:
        _check_times(source.dts_us, output.dts_us, tolerance_us, bound_us, "decode time")


def _text(payload: bytes) -> bytes:
    return payload.replace(b"\r\n", b"\n").strip()


def _check_times(source: list[float], output: list[float], tolerance_us: float, bound_us: float, what: str) -> None:
    shifts = [b - a for a, b in zip(source, output, strict=True)]
    moved = max(0.0, -min(source, default=0.0))
    worst = max(shifts, key=lambda shift: abs(shift - shifts[0]), default=0.0)
    assert abs(worst - (shifts[0] if shifts else 0)) <= tolerance_us, f"{what}: moved by {shifts[0]} and {worst} us"
    assert not shifts or abs(shifts[0]) <= moved + bound_us, f"{what}: moved by {shifts[0]} us"


def check_cell(source: Source, written: Container, target: Path) -> None:
    """Convert one source and compare what came out with what went in. Raises AssertionError."""
    path = source.file()
    convert_file(path, source.container, target, written.name)
    codecs = source.carried_by(written)
    if all(readable_by_ffmpeg(name, codec) for name in (source.container, written.name) for codec in codecs):
        before, after = seen_by_ffmpeg(path), seen_by_ffmpeg(target)
        compare(before, after, codecs, source.container, written.name)
    if written.make_demuxer is not None:
        origin = by_name(source.container)
        assert origin is not None
        before, infos = seen_by_mist(path, origin)
        after, infos_after = seen_by_mist(target, written)
        compare(before, after, codecs, source.container, written.name)
        for codec in codecs:
            same_description(infos[codec], infos_after[codec])


def compare(before: dict[str, Seen], after: dict[str, Seen], codecs: tuple[str, ...], read: str, written: str) -> None:
    """Compare all tracks that were to go along. Raises AssertionError."""
    assert set(after) == set(codecs), "tracks"
    for codec in codecs:
        try:
            check_track(before[codec], after[codec], read, written)
            if {read, written} <= KEEPS_LANGUAGE and before[codec].language not in ("", "und"):
                assert after[codec].language == before[codec].language, "language"
        except AssertionError as error:
            raise AssertionError(f"{codec}: {error}") from error


def same_description(before: TrackInfo, after: TrackInfo) -> None:
    """Check that a track is the same on both sides. Raises AssertionError."""
    assert _core(after) == _core(before), f"{before.codec}: init data"
    for name in ("width", "height", "sample_rate_hz", "channels"):
        assert getattr(after, name) == getattr(before, name), f"{before.codec}: {name}"


def _core(info: TrackInfo) -> object:
    """Return what of a track's init data every format keeps."""
    data = info.init_data
    if info.codec == "HEVC":  # formats differ in whether parameter sets may also be in the stream
        return dict(hevc.parse_hvcc(data).units)
    kept = {"AAC": slice(0, 2), "AV1": slice(0, 4), "FLAC": slice(10, 13)}.get(info.codec, slice(None))
    return data[kept]


PAIRS = [(read, written) for read in INPUTS for written in OUTPUTS if written.name != "json" and cells(read, written)]


@pytest.mark.parametrize(("read", "written"), PAIRS, ids=[f"{read.name}-{written.name}" for read, written in PAIRS])
def test_every_pair(read: Container, written: Container, tmp_path: Path) -> None:
    """What the input holds and the output carries comes out as it went in."""
    held = cells(read, written)
    wrong = []
    for source in held:
        try:
            check_cell(source, written, tmp_path / f"{source}{written.suffixes[0]}")
        except (AssertionError, MistError, OSError, ValueError, KeyError) as error:  # all that is wrong is told at once
            wrong.append(f"{source}: {type(error).__name__}: {error}")
    assert not wrong, "\n".join(wrong)


ROUND_TRIPS = [
    (a, b)
    for a in ("flv", "ts", "mkv", "mp4", "webm", "ogg")
    for b in ("flv", "ts", "mkv", "mp4", "fmp4", "dtsc", "webm", "ogg")
    if a != b
    and all(
        row is not None and row.make_demuxer and row.make_muxer
        for row in (by_name(a), by_name(b if b != "fmp4" else "mp4"))
    )
]


@pytest.mark.parametrize(("a", "b"), ROUND_TRIPS)
def test_there_and_back(a: str, b: str, tmp_path: Path) -> None:
    """Payloads and times are the same after going to another format and back, to the coarser clock."""
    first, second = by_name(a), by_name(b)
    assert first is not None and second is not None
    tested = 0
    for source in sources(first):
        if set(source.carried_by(second)) != set(source.codecs) or set(source.carried_by(first)) != set(source.codecs):
            continue
        tested += 1
        there, back = tmp_path / f"there{second.suffixes[0]}", tmp_path / f"back{first.suffixes[0]}"
        convert_file(source.file(), a, there, b)
        convert_file(there, b if b != "fmp4" else "mp4", back, a)
        before, infos = seen_by_mist(source.file(), first)
        after, infos_after = seen_by_mist(back, first)
        compare(before, after, source.codecs, a, b)
        for codec in source.codecs:
            same_description(infos[codec], infos_after[codec])
    assert tested or not cells(first, second)


def test_the_document_is_up_to_date() -> None:
    assert DOCUMENT.read_text("utf-8") == document(), "python -m tests.support.format_matrix > docs/formats.md"


def test_every_input_has_sources() -> None:
    assert not [row.name for row in INPUTS if not sources(row)]


def test_subtitles_go_along(tmp_path: Path) -> None:
    source = Source("mkv", ("H264", "AAC", "subtitle"))
    target = tmp_path / "a.mkv"
    convert_file(source.file(), "mkv", target, "mkv")
    assert META in {info.type for info in seen_by_mist(target, by_name("mkv") or INPUTS[0])[1].values()}

"""Files in formats and with codecs that are rarer: what is playable has the right times, and of the rest the reason is told."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import pytest

from mist.core.demuxer import Demuxer, PacketList, demux
from mist.core.packet import Packet
from mist.errors import MistError, UnsupportedError
from mist.formats.containers import by_file_name, by_first_bytes
from mist.formats.tracks import VIDEO
from tests.support.packets import read_media
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

PICTURE = ("-f", "lavfi", "-i", "testsrc2=size=128x96:rate=25")
SOUND = ("-f", "lavfi", "-i", "sine=frequency=440:sample_rate=48000")
X264 = ("-c:v", "libx264", "-preset", "veryfast", "-bf", "2", "-g", "25", "-pix_fmt", "yuv420p")
X265 = (
    *("-c:v", "libx265", "-preset", "ultrafast", "-pix_fmt", "yuv420p"),
    *("-x265-params", "log-level=error:info=0:keyint=25:bframes=2"),
)
MPEG2 = ("-c:v", "mpeg2video", "-bf", "2", "-g", "12")
LEFT_OUT = "is left out: {} is not carried"

# file: (arguments of ffmpeg, tracks that are read, codecs of tracks that are left out, as the format calls them)
READ: dict[str, tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]] = {
    "mpeg4.avi": (("-c:v", "mpeg4", "-bf", "2", "-c:a", "ac3"), ("AC3",), ("mpeg4",)),
    "jpeg.avi": (("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_u8"), ("JPEG", "PCM"), ()),
    "wmv.asf": (("-c:v", "wmv2", "-c:a", "mp3"), ("MP3",), ("wmv2",)),
    "dvd.vob": ((*MPEG2, "-c:a", "ac3"), ("MPEG2", "AC3"), ()),
    "disc.m2ts": ((*X264, "-c:a", "aac"), ("H264", "AAC"), ()),
    "latm.m2ts": ((*X264, "-c:a", "aac", "-mpegts_flags", "latm"), ("H264", "AAC"), ()),
    "dts.vob": ((*MPEG2, "-c:a", "dca", "-strict", "-2"), ("MPEG2", "DTS"), ()),
    "lpcm.vob": ((*MPEG2, "-c:a", "pcm_dvd"), ("MPEG2", "PCM"), ()),
    "mpeg1.mpg": (("-c:v", "mpeg1video", "-bf", "2", "-c:a", "mp2"), ("MPEG2", "MP2"), ()),
    "mpeg2.mxf": ((*MPEG2, "-c:a", "pcm_s24le"), ("MPEG2", "PCM"), ()),
    "prores.mxf": (("-c:v", "prores", "-c:a", "pcm_s16le"), ("PCM",), ("prores",)),
    "prores.mov": (("-c:v", "prores", "-c:a", "pcm_s16be"), ("PCM",), ("apcn",)),
    "jpeg24.mov": (("-c:v", "mjpeg", "-pix_fmt", "yuvj420p", "-c:a", "pcm_s24le"), ("JPEG", "PCM"), ()),
    "s8.mov": ((*X264, "-c:a", "pcm_s8"), ("H264", "PCM"), ()),
    "f64.mov": ((*X264, "-c:a", "pcm_f64be"), ("H264", "FLOAT"), ()),
    "mp2.mov": ((*MPEG2, "-c:a", "mp2"), ("MPEG2", "MP2"), ()),
    "alac.mov": ((*X264, "-c:a", "alac"), ("H264",), ("alac",)),
    "phone.3gp": ((*X264, "-c:a", "aac"), ("H264", "AAC"), ()),
    "pcm.flv": ((*X264, "-c:a", "pcm_s16le", "-ar", "44100"), ("H264", "PCM"), ()),
    "alaw.flv": ((*X264, "-c:a", "pcm_alaw", "-ar", "8000", "-ac", "1"), ("H264", "ALAW"), ()),
    "s16.caf": (("-vn", "-c:a", "pcm_s16be"), ("PCM",), ()),
    "opus.caf": (("-vn", "-c:a", "libopus"), ("opus",), ()),
    "s24.aiff": (("-vn", "-c:a", "pcm_s24be"), ("PCM",), ()),
    "f32.aif": (("-vn", "-c:a", "pcm_f32be"), ("FLOAT",), ()),
    "ulaw.au": (("-vn", "-c:a", "pcm_mulaw", "-ar", "8000"), ("ULAW",), ()),
    "s16.w64": (("-vn", "-c:a", "pcm_s16le"), ("PCM",), ()),
    "mp3.wav": (("-vn", "-c:a", "libmp3lame", "-write_xing", "0"), ("MP3",), ()),
    "ac3.wav": (("-vn", "-c:a", "ac3"), ("AC3",), ()),
    "dts.wav": (("-vn", "-c:a", "dca", "-strict", "-2"), ("DTS",), ()),
    "mp2.wav": (("-vn", "-c:a", "mp2"), ("MP2",), ()),
}
REFUSED = {
    "prores.mov": (("-an", "-c:v", "prores"), LEFT_OUT.format("apcn")),
    "alac.caf": (("-vn", "-c:a", "alac"), LEFT_OUT.format("alac")),
    "wmv.wmv": (("-c:v", "wmv2", "-c:a", "wmav2"), LEFT_OUT.format("wmv2")),
    "asp.mkv": (("-an", "-c:v", "mpeg4"), LEFT_OUT.format("V_MPEG4/ISO/ASP")),
    "adpcm.wav": (("-vn", "-c:a", "adpcm_ms"), "WAVE format 0x0002"),
    "raw.wav": (("-vn", "-c:a", "aac"), "WAVE format 0x00ff"),
    "lossless.wv": (("-vn",), LEFT_OUT.format("wavpack")),
}
RAW = {"MP3": "mp3", "AC3": "ac3", "DTS": "dts", "MP2": "mp2"}


def make(path: Path, arguments: tuple[str, ...], seconds: str = "3") -> Path:
    run([find_tool("ffmpeg"), "-v", "error", *PICTURE, *SOUND, "-t", seconds, *arguments, str(path)], 60)
    return path


def opened(path: Path, data: bytes) -> Demuxer:
    row = by_file_name(path.name)
    assert row is not None and row.make_demuxer is not None
    found = by_first_bytes(data)
    assert found is row, found
    demuxer = row.make_demuxer()
    if hasattr(demuxer, "size"):
        demuxer.size = len(data)
    return demuxer


@pytest.mark.parametrize("name", READ)
def test_what_is_playable_has_the_right_times(tmp_path: Path, name: str) -> None:
    arguments, codecs, missing = READ[name]
    path = make(tmp_path / name, arguments)
    data = path.read_bytes()
    demuxer = opened(path, data)
    packets = demux(demuxer, data)
    assert sorted(info.codec for info in demuxer.tracks) == sorted(codecs)
    assert len(demuxer.left_out) == len(missing)
    assert all(LEFT_OUT.format(codec) in text for codec, text in zip(missing, demuxer.left_out, strict=True))
    seen = read_media(path)
    for number, info in enumerate(demuxer.tracks):
        ours = [packet for packet in packets if packet.track == number]
        theirs = [one for one in seen.of(info.type) if one.pts_us is not None]
        assert all(before.dts_us < after.dts_us for before, after in pairwise(ours))
        assert ours[0].pts_us == pytest.approx(theirs[0].pts_us, abs=1000)
        if info.codec not in ("PCM", "FLOAT"):  # which may be cut elsewhere
            assert [one.pts_us for one in ours] == pytest.approx([one.pts_us for one in theirs], abs=1000)
        assert ours[-1].pts_us == pytest.approx(3_000_000 + ours[0].pts_us, abs=150_000)
    if name.endswith(".wav"):
        raw = tmp_path / f"raw.{RAW[codecs[0]]}"
        run([find_tool("ffmpeg"), "-v", "error", "-i", str(path), "-c", "copy", "-write_xing", "0", "-id3v2_version", "0", str(raw)]
            if codecs[0] == "MP3" else [find_tool("ffmpeg"), "-v", "error", "-i", str(path), "-c", "copy", str(raw)], 60)  # fmt: skip
        assert b"".join(packet.payload for packet in packets) == raw.read_bytes()


@pytest.mark.parametrize("name", REFUSED)
def test_the_reason_is_told(tmp_path: Path, name: str) -> None:
    arguments, says = REFUSED[name]
    path = make(tmp_path / name, arguments, "1")
    data = path.read_bytes()
    with pytest.raises(UnsupportedError) as caught:
        demux(opened(path, data), data)
    assert says in str(caught.value)


@pytest.fixture(scope="module")
def originals(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("order")
    encoders = {"h264": X264, "hevc": X265}
    return {name: make(folder / f"{name}.mkv", (*words, "-c:a", "mp2")) for name, words in encoders.items()}


def times(packets: list[Packet], track: int) -> list[tuple[int, int]]:
    first = next(packet.dts_us for packet in packets if packet.track == track)
    return [
        (round((packet.dts_us - first) / 1000), round((packet.pts_us - first) / 1000))
        for packet in packets
        if packet.track == track
    ]


@pytest.mark.parametrize("film", ["h264.avi", "hevc.avi", "h264.asf", "h264.mpg", "h264.mxf"])
def test_the_order_of_pictures_is_found_out(originals: dict[str, Path], tmp_path: Path, film: str) -> None:
    """These formats say when pictures are decoded, and nothing or nonsense of when they are presented."""
    path = tmp_path / film
    original = originals[path.stem]
    sound = ("-c:a", "pcm_s16le") if path.suffix == ".mxf" else ()
    bits = ("-tag:v", "hvc1") if original.stem == "hevc" else ("-bsf:v", "h264_mp4toannexb")
    run([find_tool("ffmpeg"), "-v", "error", "-i", str(original), "-c", "copy", *bits, *sound, str(path)], 60)
    data, wanted = path.read_bytes(), original.read_bytes()
    demuxer = opened(path, data)
    packets = demux(demuxer, data)
    video = next(number for number, info in enumerate(demuxer.tracks) if info.type == VIDEO)
    expected = opened(original, wanted)
    presented = [after for _, after in times(demux(expected, wanted), 0)]
    ours = times(packets, video)
    assert len({after - before for before, after in ours}) > 2
    shift = ours[0][1] - presented[0]
    assert [after for _, after in ours] == pytest.approx([one + shift for one in presented], abs=2)
    assert all(before <= after for before, after in ours)
    check_seeking(path, data, packets)


def check_seeking(path: Path, data: bytes, whole: list[Packet]) -> None:
    """Reading on at a keyframe gives the packets that reading from the beginning gave, with the same times."""
    demuxer = opened(path, data)
    sink = PacketList()
    demuxer.attach(sink)
    while not demuxer.ready and (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    video = next(number for number, info in enumerate(demuxer.tracks) if info.type == VIDEO)
    key = [packet for packet in whole if packet.track == video and packet.keyframe][2]
    sink.take()
    demuxer.seek(key.dts_us, 0)
    sink.take()
    while (wanted := demuxer.want()) is not None:
        demuxer.feed(data[wanted[0] : wanted[0] + wanted[1]])
    found = {(packet.track, packet.dts_us, packet.offset_us) for packet in sink.take()}
    rest = {(one.track, one.dts_us, one.offset_us) for one in whole if one.track == video and one.dts_us >= key.dts_us}
    assert rest <= found


def test_a_file_that_names_others_opens_none_of_them(tmp_path: Path) -> None:
    """What says of itself that it is an AVI may be a playlist of other files."""
    secret = make(tmp_path / "secret.avi", ("-an", "-c:v", "mjpeg", "-pix_fmt", "yuvj420p"), "1")
    for text in (
        f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nfile://{secret}\n#EXT-X-ENDLIST\n",
        f"ffconcat version 1.0\nfile '{secret}'\n",
    ):
        row = by_file_name("a.avi")
        assert row is not None and row.make_demuxer is not None
        with pytest.raises(MistError):
            demux(row.make_demuxer(), text.encode())


@pytest.mark.parametrize(
    ("name", "codec", "sound"), [("h264.vob", X264, "ac3"), ("h264.mpg", X264, "mp2"), ("hevc.vob", X265, "ac3")]
)
def test_pictures_in_program_streams_are_found(tmp_path: Path, name: str, codec: tuple[str, ...], sound: str) -> None:
    """libav alone takes them for sound where nothing in the stream says what they are. Only some have a time stamp."""
    path = make(tmp_path / name, (*codec, "-c:a", sound))
    data = path.read_bytes()
    demuxer = opened(path, data)
    packets = demux(demuxer, data)
    video = next(number for number, info in enumerate(demuxer.tracks) if info.type == VIDEO)
    assert sorted(info.codec for info in demuxer.tracks) == sorted((name[:4].upper(), sound.upper()))
    assert demuxer.tracks[video].width == 128 and demuxer.tracks[video].init_data
    pictures = [packet for packet in packets if packet.track == video]
    assert len(pictures) == 75 and pictures[0].keyframe
    assert all(before.dts_us < after.dts_us for before, after in pairwise(pictures))

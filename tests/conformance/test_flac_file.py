"""FLAC files between others and us: their frames found as FFmpeg finds them, our files judged by `flac -t`."""

from __future__ import annotations

from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.packet import Packet
from mist.formats import flac_file
from mist.formats.tracks import TrackInfo
from tests.support.audio_files import SECONDS, AudioFile, by_ffmpeg
from tests.support.demuxing import mux, patched
from tests.support.packets import read_media
from tests.support.tools import find_tool, run

FILES = [
    by_ffmpeg("ffmpeg.flac", "-c:a", "flac"),
    by_ffmpeg("mono-8k.flac", "-c:a", "flac", "-frame_size", "64", rate=8000, channels=1),
    by_ffmpeg("deep.flac", "-c:a", "flac", "-sample_fmt", "s32", rate=96000, channels=6, tool="ffmpeg-new"),
    AudioFile("fast.flac", "flac", ("-s", "-0", "-b", "192", "-o", "{out}", "{in}")),
    AudioFile("best.flac", "flac", ("-s", "-8", "-o", "{out}", "{in}")),
    AudioFile("large.flac", "flac", ("-s", "--lax", "-b", "16384", "-o", "{out}", "{in}")),
]
pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new", "flac")


def _read(path: Path) -> tuple[TrackInfo, list[Packet]]:
    demuxer = flac_file.make_demuxer()
    packets = demux(demuxer, path.read_bytes())
    return demuxer.tracks[0], packets


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_files_of_others(file: AudioFile, tmp_path: Path) -> None:
    path = file.make(tmp_path)
    _, packets = _read(path)
    theirs = read_media(path).packets
    assert [len(one.payload) for one in packets] == [one.size for one in theirs]
    assert [one.dts_us for one in packets] == pytest.approx([one.dts_us for one in theirs], abs=1)
    assert len(packets) > SECONDS


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.name)
def test_our_files(file: AudioFile, tmp_path: Path) -> None:
    path = file.make(tmp_path)
    track, packets = _read(path)
    muxer = flac_file.make_muxer([track])
    live = mux(muxer, packets)
    whole = patched(live, muxer.patches())
    assert whole[:4] == b"fLaC" and whole[8:42] == path.read_bytes()[8:42]
    for name, data in (("pipe.flac", live), ("file.flac", whole)):
        ours = tmp_path / name
        ours.write_bytes(data)
        told = run([find_tool("flac"), "-t", "-s", str(ours)], 60)
        complaints = told.stderr.decode().strip()
        assert not complaints if name == "file.flac" else "MD5 signature since it was unset" in complaints
        run([find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", str(ours), "-f", "null", "-"], 60)


def test_a_part_of_a_file(tmp_path: Path) -> None:
    """Frames from the middle on, as a viewer gets them who joins late."""
    track, packets = _read(FILES[0].make(tmp_path))
    muxer = flac_file.make_muxer([track])
    data = mux(muxer, packets[5:20])
    ours = tmp_path / "part.flac"
    ours.write_bytes(data)
    run([find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", str(ours), "-f", "null", "-"], 60)
    ours.write_bytes(patched(data, muxer.patches()))
    seen = read_media(ours)
    assert [one.size for one in seen.packets] == [len(one.payload) for one in packets[5:20]]

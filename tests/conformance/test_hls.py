"""HLS as FFmpeg and GStreamer play it: every playlist and segment on disk, read without a complaint, with what went in."""

from __future__ import annotations

import asyncio
import subprocess
from pathlib import Path

import av
import pytest

from mist.core.packet import Packet
from mist.formats.m3u8 import MasterPlaylist, MediaPlaylist, parse_playlist
from mist.formats.tracks import TrackInfo
from mist.stream.state import StreamStatus
from tests.conformance.test_ts import content
from tests.support.fake_stream import FakeStream
from tests.support.samples import picture, picture_and_tone, sample, shifted, tone
from tests.support.tools import find_tool
from tests.support.ts_check import check_ts
from tests.unit.outputs.test_hls import Server

pytestmark = [pytest.mark.timeout(120), pytest.mark.tools("ffmpeg", "ffprobe")]

SAMPLES = {
    "pal": picture_and_tone(seconds=9),
    "film": picture_and_tone(seconds=9, rate="24000/1001", gop=48, rate_hz=48000),
    "ntsc": picture_and_tone(seconds=9, rate="30000/1001", gop=60),
    "fields": picture_and_tone(seconds=8, rate="60000/1001", gop=30),
    "odd_gop": picture_and_tone(seconds=9, gop=37),
    "hevc": picture(seconds=8, codec="libx265", options="-preset ultrafast -x265-params log-level=none:keyint=50"),
    "audio": tone(seconds=9),
    "ac3": picture_and_tone(seconds=8, audio="ac3", rate_hz=48000),
    "mp3": picture_and_tone(seconds=8, audio="libmp3lame"),
}
START_US = 20_000_000


async def download(stream: FakeStream, folder: Path) -> list[Path]:
    """Write the whole HLS tree of a stream that has ended; returns the segments of its first quality in order."""
    server = Server(stream)
    master = (await server.get("index.m3u8")).body
    (folder / "index.m3u8").write_bytes(master)
    qualities = parse_playlist(master)
    assert isinstance(qualities, MasterPlaylist)
    stream.set_status(StreamStatus.SHUTDOWN)
    found: list[Path] = []
    for variant in qualities.variants:
        reply = await server.get(variant.uri)
        playlist = parse_playlist(reply.body)
        assert isinstance(playlist, MediaPlaylist)
        assert playlist.ended
        base = folder / Path(variant.uri).parent
        base.mkdir()
        (folder / variant.uri).write_bytes(reply.body)
        for segment in playlist.segments:
            (base / segment.uri).write_bytes((await server.get(f"{base.name}/{segment.uri}")).body)
            found += [base / segment.uri] if variant is qualities.variants[0] else []
    return found


@pytest.fixture(params=SAMPLES)
def tree(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[list[TrackInfo], list[Packet], Path, list[Path]]:
    tracks, packets = sample(SAMPLES[request.param])
    packets = shifted(packets, START_US)
    stream = FakeStream("live", tracks)
    stream.write_all(packets)
    return tracks, packets, tmp_path, asyncio.run(download(stream, tmp_path))


def test_segments_are_one_transport_stream(tree: tuple[list[TrackInfo], list[Packet], Path, list[Path]]) -> None:
    counters: dict[int, int] = {}
    for path in tree[3]:
        report = check_ts(path.read_bytes(), counters)
        assert report.errors == []
        counters = report.last_counters
    assert check_ts(b"".join(path.read_bytes() for path in tree[3])).errors == []


@pytest.mark.parametrize("program", ["ffmpeg", "ffmpeg-new"])
def test_ffmpeg_has_nothing_to_say(tree: tuple[list[TrackInfo], list[Packet], Path, list[Path]], program: str) -> None:
    command = [find_tool(program), "-v", "warning", "-xerror", "-i", "index.m3u8", "-f", "null", "-"]
    done = subprocess.run(command, cwd=tree[2], capture_output=True, timeout=60, stdin=subprocess.DEVNULL)
    assert (done.stderr.decode(), done.returncode) == ("", 0)


def test_what_goes_in_comes_out(tree: tuple[list[TrackInfo], list[Packet], Path, list[Path]]) -> None:
    """From the first fragment on, every packet of every track is there once, in order, with its times."""
    tracks, packets, folder, segments = tree
    joined = folder / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in segments))
    found: dict[int, list[tuple[int, int, bytes]]] = {}
    with av.open(str(joined)) as container:
        for packet in container.demux():
            if packet.dts is not None:
                found.setdefault(packet.stream.index, []).append((packet.pts, packet.dts, bytes(packet)))
    for place, track in enumerate(tracks):
        expected = [packet for packet in packets if packet.track == place and packet.dts_us >= packets_from(packets)]
        assert [content(track, data, byte_stream=True) for _, _, data in found[place]] == [
            content(track, packet.payload, byte_stream=False) for packet in expected
        ]
        assert [(pts, dts) for pts, dts, _ in found[place]] == [
            (((p.dts_us + p.offset_us) * 9 + 50) // 100, (p.dts_us * 9 + 50) // 100) for p in expected
        ]


def packets_from(packets: list[Packet]) -> int:
    """Return where the first fragment begins."""
    return next(packet.dts_us for packet in packets if packet.track == 0)


@pytest.mark.tools("gst-launch-1.0")
def test_gstreamer_plays_it(tree: tuple[list[TrackInfo], list[Packet], Path, list[Path]]) -> None:
    tracks, _, folder, _ = tree
    parsers = {"H264": "h264parse", "HEVC": "h265parse", "AAC": "aacparse", "AC3": "ac3parse", "MP3": "mpegaudioparse"}
    branches: list[str] = []
    for track in tracks:
        branches += ["d.", "!", "queue", "!", parsers[track.codec], "!", "fakesink", "sync=false"]
    joined = folder / "joined.ts"
    joined.write_bytes(b"".join(path.read_bytes() for path in tree[3]))
    command = ["gst-launch-1.0", "-q", "filesrc", f"location={joined}", "!", "tsdemux", "name=d", *branches]
    environment = {"GST_DEBUG": "ts*:2,mpegts*:2", "GST_DEBUG_NO_COLOR": "1", "PATH": "/usr/bin:/bin"}
    done = subprocess.run(command, capture_output=True, timeout=60, env=environment, stdin=subprocess.DEVNULL)
    assert (done.stderr.decode(), done.returncode) == ("", 0)

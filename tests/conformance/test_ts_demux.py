"""Transport streams of others read by us, packet for packet as FFmpeg reads them."""

from __future__ import annotations

import hashlib
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import av
import pytest

from mist.core.demuxer import PacketList, demux
from mist.core.packet import Packet
from mist.formats.ts import EVERY_PROGRAM, TsDemuxer
from mist.formats.tracks import TrackInfo
from tests.support.packets import media_of
from tests.support.tools import find_tool, run

pytestmark = [pytest.mark.timeout(180), pytest.mark.tools("ffmpeg", "ffmpeg-new")]

PICTURE = "-f lavfi -i testsrc2=s=192x108:r={rate}:d=3"
TONE = "-f lavfi -i sine=d=3:r={rate}"
X264 = "-c:v libx264 -preset veryfast -g 25 -pix_fmt yuv420p"
CODEC_NAMES = {
    "h264": "H264", "hevc": "HEVC", "mpeg2video": "MPEG2", "mpeg1video": "MPEG2", "av1": "AV1", "libdav1d": "AV1", "aac": "AAC",
    "aac_latm": "AAC", "mp3": "MP3", "mp3float": "MP3", "mp2": "MP2", "mp2float": "MP2", "ac3": "AC3", "eac3": "EAC-3",
    "dca": "DTS", "opus": "opus", "libopus": "opus",
}  # fmt: skip


@dataclass(frozen=True)
class Made:
    """A file that ffmpeg makes. times_us: how far times may be apart; audio that is counted in samples is exact, ffmpeg's is not."""

    name: str
    inputs: tuple[str, ...]
    options: str
    tool: str = "ffmpeg"
    suffix: str = "ts"

    def make(self, folder: Path) -> Path:
        path = folder / f"{self.name}.{self.suffix}"
        inputs = " ".join(self.inputs).split()
        run([find_tool(self.tool), "-v", "error", "-y", *inputs, *self.options.split(), "-f", "mpegts", str(path)], 120)
        return path


def picture(rate: str = "25") -> str:
    return PICTURE.format(rate=rate)


def tone(rate: int = 48000) -> str:
    return TONE.format(rate=rate)


FILES = [
    Made("bframes", (picture(), tone()), f"{X264} -bf 3 -c:a aac"),
    Made("bframes-new", (picture(), tone(44100)), f"{X264} -bf 3 -c:a aac", tool="ffmpeg-new"),
    Made("film", (picture("24000/1001"), tone(44100)), f"{X264} -bf 2 -c:a libmp3lame"),
    Made("slices", (picture(),), f"{X264} -bf 2 -slices 4"),
    Made("interlaced", (picture(),), f"{X264} -flags +ilme+ildct -bf 2"),
    Made("intra-refresh", (picture(),), f"{X264} -bf 0 -intra-refresh 1"),
    Made("open-gop", (picture(),), f"{X264} -bf 3 -x264-params open-gop=1:bframes=3"),
    Made(
        "hevc",
        (picture(), tone()),
        "-c:v libx265 -preset ultrafast -x265-params log-level=none:bframes=3 -g 25 -c:a ac3",
    ),
    Made("hevc-open", (picture(),), "-c:v libx265 -preset ultrafast -x265-params log-level=none:open-gop=1:keyint=20"),
    Made("mpeg2", (picture(), tone()), "-c:v mpeg2video -bf 2 -g 12 -c:a mp2"),
    Made("mpeg2-interlaced", (picture(), tone()), "-c:v mpeg2video -flags +ilme+ildct -bf 2 -g 12 -c:a eac3"),
    Made("mpeg1", (picture(),), "-c:v mpeg1video -g 12 -bf 2"),
    Made("opus", (picture(), tone()), f"{X264} -c:a libopus", tool="ffmpeg-new"),
    Made("opus51", (tone(),), "-ac 6 -c:a libopus", tool="ffmpeg-new"),
    Made("dts", (tone(),), "-ac 2 -c:a dca -strict -2"),
    Made("surround", (tone(),), "-ac 6 -c:a aac"),
    Made("low-rate", (tone(22050),), "-ac 1 -c:a libmp3lame"),
    Made("small-pes", (picture(), tone()), f"{X264} -c:a aac -pes_payload_size 200"),
    Made("large-pes", (tone(44100),), "-c:a mp2 -pes_payload_size 60000"),
    Made("large-pictures", (picture(),), "-c:v libx264 -preset ultrafast -qp 0 -g 10 -pix_fmt yuv420p"),
    Made("blocks-of-192", (picture(), tone()), f"{X264} -bf 2 -c:a ac3 -mpegts_m2ts_mode 1", suffix="m2ts"),
    Made("late-times", (picture(), tone()), f"{X264} -bf 2 -c:a aac -output_ts_offset 95442"),
    Made("discontinuity", (picture(), tone()), f"{X264} -c:a aac -mpegts_flags initial_discontinuity -muxrate 3000000"),
]


@dataclass(frozen=True)
class Seen:
    """A packet, comparable: times in microseconds, and what is in it."""

    dts_us: int
    pts_us: int
    key: bool
    digest: str


def digest(codec: str, data: bytes, extradata: bytes) -> str:
    return hashlib.sha256(media_of(codec, data, extradata)).hexdigest()[:16]


def theirs(path: Path) -> dict[int, tuple[str, list[Seen]]]:
    """Return codec and packets of each stream, by PID, as libavformat reads them."""
    found: dict[int, tuple[str, list[Seen]]] = {}
    with av.open(str(path)) as container:
        for packet in container.demux():
            if packet.dts is None or packet.pts is None or not packet.size:
                continue
            stream: Any = packet.stream
            name = stream.codec_context.name if stream.codec_context else "data"
            base = packet.time_base * 1_000_000
            one = Seen(
                round(packet.dts * base), round(packet.pts * base), packet.is_keyframe, digest(name, bytes(packet), b"")
            )
            found.setdefault(stream.id, (name, []))[1].append(one)
    return found


def ours(tracks: list[TrackInfo], packets: list[Packet]) -> dict[int, tuple[str, list[Seen]]]:
    names = {"H264": "h264", "HEVC": "hevc"}
    found: dict[int, tuple[str, list[Seen]]] = {track.track_id: (track.codec, []) for track in tracks}
    for packet in packets:
        track = tracks[packet.track]
        data = digest(names.get(track.codec, ""), packet.payload, b"\x01")
        one = Seen(packet.dts_us, packet.dts_us + packet.offset_us, packet.keyframe, data)
        found[track.track_id][1].append(one)
    return found


def check_same(path: Path, tracks: list[TrackInfo], packets: list[Packet]) -> None:
    """Check that we read what libavformat reads: same packets, same key flags, same times to a millisecond."""
    wanted, got = theirs(path), ours(tracks, packets)
    assert {pid: CODEC_NAMES[name] for pid, (name, _) in wanted.items()} == {
        pid: name for pid, (name, _) in got.items()
    }
    for pid, (codec, packets_wanted) in wanted.items():
        found = got[pid][1]
        assert [one.digest for one in found] == [one.digest for one in packets_wanted], codec
        first = packets_wanted[0]
        for number, (a, b) in enumerate(zip(packets_wanted, found, strict=True)):
            assert abs(a.dts_us - b.dts_us) <= 1000 and abs(a.pts_us - b.pts_us) <= 1000, (codec, number, a, b, first)
            assert a.key == b.key, (codec, number)


@pytest.fixture(params=FILES, ids=lambda made: made.name)
def file(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return request.param.make(tmp_path)


def test_what_ffmpeg_wrote(file: Path) -> None:
    demuxer = TsDemuxer()
    packets = demux(demuxer, file.read_bytes())
    check_same(file, demuxer.tracks, packets)


def test_latm_holds_what_adts_holds(tmp_path: Path) -> None:
    found = []
    for flags in ("latm", "pat_pmt_at_frames"):
        path = Made(flags, (tone(44100),), f"-ac 2 -c:a aac -mpegts_flags {flags}").make(tmp_path)
        demuxer = TsDemuxer()
        found.append((demux(demuxer, path.read_bytes()), demuxer.tracks))
    assert len(found[0][0]) > 100 and found[0] == found[1]

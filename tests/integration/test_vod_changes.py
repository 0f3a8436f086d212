"""Files in which the picture changes midway: another size, another codec; as HLS, and as files of other formats."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from mist.errors import MistError
from tests.support.format_matrix import convert_file
from tests.support.packets import read_media
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

SECONDS = 4
FRAMES = 25 * SECONDS


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Make films of two parts: small then large, and H.264 then HEVC, both on the same PID."""
    made = tmp_path_factory.mktemp("changes")
    x264 = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "25", "-pix_fmt", "yuv420p")
    x265 = (
        "-c:v",
        "libx265",
        "-preset",
        "ultrafast",
        "-x265-params",
        "log-level=error:keyint=25",
        "-pix_fmt",
        "yuv420p",
    )
    parts = {"small": ("160x90", 0, x264), "large": ("320x180", SECONDS, x264), "hevc": ("160x90", SECONDS, x265)}
    for name, (size, begin, codec) in parts.items():
        picture = ("-f", "lavfi", "-i", f"testsrc2=size={size}:rate=25:duration={SECONDS}")
        tone = ("-f", "lavfi", "-i", f"sine=sample_rate=48000:duration={SECONDS}", "-c:a", "aac")
        moved = ("-output_ts_offset", str(begin), "-muxdelay", "0", str(made / f"{name}.ts"))
        run([find_tool("ffmpeg"), "-v", "error", *picture, *tone[:4], *codec, *tone[4:], *moved], 60)
    for name, second in (("size", "large"), ("codec", "hevc")):
        (made / f"{name}.ts").write_bytes((made / "small.ts").read_bytes() + (made / f"{second}.ts").read_bytes())
    return made


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[MistServer]:
    streams = {name: {"source": f"{folder}/{name}.ts"} for name in ("size", "codec")}
    with MistServer(streams=streams) as running:
        yield running


def playlist(server: MistServer, stream: str) -> tuple[str, str]:
    """Return the address and the text of the first rendition's playlist."""
    master = server.get(f"/hls/{stream}/index.m3u8").decode()
    [first, *_] = [line for line in master.splitlines() if line and not line.startswith("#")]
    path = f"/hls/{stream}/{first}"
    return path, server.get(path).decode()


def test_a_change_of_size_is_marked_in_hls(server: MistServer) -> None:
    path, text = playlist(server, "size")
    assert text.count("#EXT-X-DISCONTINUITY\r\n") == 1 and "#EXT-X-ENDLIST" in text
    with av.open(server.http_url + path) as container:
        sizes = Counter((frame.width, frame.height) for frame in container.decode(video=0))
    assert sizes == {(160, 90): FRAMES, (320, 180): FRAMES}


def test_a_change_of_codec_is_marked_in_hls(server: MistServer) -> None:
    """Each part plays by itself, with its own tables; the list says where they meet."""
    path, text = playlist(server, "codec")
    assert "#EXT-X-ENDLIST" in text
    durations = [float(one) for one in re.findall(r"#EXTINF:([\d.]+)", text)]
    assert abs(sum(durations) - 2 * SECONDS) < 0.5
    with av.open(server.http_url + path) as container:
        seen = sum(1 for packet in container.demux(video=0) if packet.size)
    assert seen >= FRAMES


@pytest.mark.parametrize("written", ["ts", "mp4", "mkv", "flv"])
def test_a_change_of_size_in_other_formats(folder: Path, tmp_path: Path, written: str) -> None:
    target = tmp_path / f"size.{written}"
    convert_file(folder / "size.ts", "ts", target, written)
    assert len(read_media(target).of("video")) == 2 * FRAMES
    with av.open(str(target)) as container:
        sizes = Counter((frame.width, frame.height) for frame in container.decode(video=0))
    assert sizes == {(160, 90): FRAMES, (320, 180): FRAMES}


@pytest.mark.parametrize("written", ["ts", "mp4", "mkv", "flv"])
def test_a_change_of_codec_keeps_the_first_part(folder: Path, tmp_path: Path, written: str) -> None:
    """What comes with the second codec is a track of its own, which a file that has begun cannot take up any more."""
    target = tmp_path / f"codec.{written}"
    try:
        convert_file(folder / "codec.ts", "ts", target, written)
    except MistError as error:
        pytest.fail(str(error))
    with av.open(str(target)) as container:
        assert sum(1 for _ in container.decode(video=0)) == FRAMES

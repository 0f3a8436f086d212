"""The parameters that all media URLs share, on a live stream and on a file with several tracks of each kind."""

from __future__ import annotations

import json
import time
from collections.abc import Iterator
from pathlib import Path

import av
import pytest

from tests.support.hls_client import media_playlist, variants
from tests.support.live import Sender, viewer, wait_mark
from tests.support.media import BFRAMES, NO_BFRAMES, Sample
from tests.support.packets import read_media
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg")

BIG = Sample("big", BFRAMES, seconds=16, keyframe_s=2, bit_rate="800k")
SMALL = Sample(
    "small",
    NO_BFRAMES,
    ("-c:a", "aac", "-b:a", "32k"),
    seconds=16,
    keyframe_s=2,
    size="160x90",
    bit_rate="100k",
    channels=1,
)
SIX = Sample("six", (), ("-c:a", "ac3", "-b:a", "384k"), seconds=16, channels=6)
MAPS = "-map 0:v -map 1:v -map 0:a -map 1:a -map 2:a -c copy"
LANGUAGES = "-metadata:s:a:0 language=eng -metadata:s:a:1 language=deu -metadata:s:a:2 language=fra"

# What is asked for, and the widths of pictures and numbers of channels of sound that come, sorted; the automatic choice is not asked.
SELECTORS = {
    "video=all&audio=all": ([160, 320], [1, 2, 6]),
    "video=*&audio=none": ([160, 320], []),
    "video=none&audio=*": ([], [1, 2, 6]),
    "video=-1&audio=maxbps": ([], [6]),
    "video=maxbps&audio=minbps": ([320], [1]),
    "video=worstbps&audio=bestbps": ([160], [6]),
    "video=highres&audio=mono": ([320], [1]),
    "video=minres&audio=stereo": ([160], [2]),
    "video=160x90&audio=surround": ([160], [6]),
    "video=~170x90&audio=6ch": ([160], [6]),
    "video=<320x180&audio=eng": ([160], [2]),
    "video=>160x90&audio=de": ([320], [1]),
    "video=max<400kbps&audio=!deu": ([160], [2, 6]),
    "video=<400kbps&audio=all,!eng,!fra": ([160], [1]),
    "video=>400kbps&audio=deu,fra": ([320], [1, 6]),
    "video=700kbps&audio=ac3": ([320], [6]),
    "video=bframes&audio=aac,|mono": ([320], [1]),
    "video=0&audio=3": ([320], [1]),
    "video=h264,|1&audio=fra,|stereo": ([160], []),
}
OUTPUTS = ("ts", "mkv", "mp4", "flv")


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MistServer]:
    film = tmp_path_factory.mktemp("parameters") / "film.mkv"
    inputs = [part for sample in (BIG, SMALL, SIX) for part in ("-i", str(sample.file()))]
    run([find_tool("ffmpeg"), "-v", "error", *inputs, *MAPS.split(), *LANGUAGES.split(), str(film)], 60)
    again = f"mkv-exec:{find_tool('ffmpeg')} -v error -re -stream_loop -1 -i {film} -map 0 -c copy -f matroska -"
    streams = {"film": {"source": str(film)}, "now": {"source": again, "always_on": True}}
    with MistServer(streams=streams) as server:
        wait_until(lambda: buffered(server)[1] - buffered(server)[0] > 8000, 60, "some seconds of the live stream")
        yield server


def buffered(server: MistServer) -> tuple[int, int]:
    """Return the first and the last time of the live stream's pictures that are in the buffer, milliseconds."""
    tracks = json.loads(server.get("/json_now.js")).get("meta", {}).get("tracks", {}).values()
    return next(((one["firstms"], one["lastms"]) for one in tracks if one["type"] == "video"), (0, 0))


def escaped(query: str) -> str:
    return query.replace("<", "%3C").replace(">", "%3E").replace("|", "%7C")


@pytest.mark.parametrize("stream", ["film", "now"])
@pytest.mark.parametrize("output", OUTPUTS)
def test_selectors(served: MistServer, tmp_path: Path, stream: str, output: str) -> None:
    for query, wanted in SELECTORS.items():
        part = "stop=2000" if stream == "film" else "startunix=-5&duration=1&rate=0"
        target = tmp_path / f"part.{output}"
        target.write_bytes(served.get(f"/{stream}.{output}?{part}&{escaped(query)}", timeout_s=30))
        with av.open(str(target)) as container:
            got = (
                sorted(one.codec_context.width for one in container.streams.video),
                sorted(one.codec_context.channels for one in container.streams.audio),
            )
        assert got == wanted, query


def pictures_ms(server: MistServer, query: str, target: Path) -> list[float]:
    """Return the decode times of the pictures that a query of the live stream gives."""
    target.write_bytes(server.get(f"/now.ts?video=1&audio=none&{query}", timeout_s=30))
    return [one.dts_us / 1000 for one in read_media(target).of("video")]


def test_a_start_that_is_still_to_come_is_waited_for(served: MistServer, tmp_path: Path) -> None:
    last_ms = buffered(served)[1]
    got = pictures_ms(served, f"start={last_ms + 4000}&duration=1", tmp_path / "later.ts")
    assert last_ms + 2000 - 40 <= got[0] <= last_ms + 4000 <= got[-1] + 40 <= last_ms + 5040
    last_ms = buffered(served)[1]
    got = pictures_ms(served, "startunix=4&duration=1", tmp_path / "later.ts")
    assert got[0] > last_ms


def test_a_fresh_keyframe_is_waited_for(served: MistServer, tmp_path: Path) -> None:
    last_ms = buffered(served)[1]
    got = pictures_ms(served, "waitkey&duration=1", tmp_path / "fresh.ts")
    assert got[0] > last_ms


def test_an_end_that_is_past_means_what_lies_before_it(served: MistServer, tmp_path: Path) -> None:
    stop_ms = buffered(served)[0] + 4000
    got = pictures_ms(served, f"stop={stop_ms}", tmp_path / "before.ts")
    assert stop_ms - 80 <= got[-1] < stop_ms and got[0] < stop_ms - 1000


def test_a_duration_counts_from_where_a_viewer_begins(served: MistServer, tmp_path: Path) -> None:
    got = pictures_ms(served, "duration=1", tmp_path / "second.ts")
    assert len(got) == 25 and 950 < got[-1] - got[0] < 1000
    (media,) = variants(f"{served.play_url('hls', 'now')}?duration=4&video=1&audio=none")
    wait_until(lambda: media_playlist(media).ended, 30, "the end of the list")
    playlist = media_playlist(media)
    assert 4 <= sum(duration for duration, _ in playlist.segments) <= 6.1
    last_ms = buffered(served)[1]
    wait_until(lambda: buffered(served)[1] > last_ms + 4000, 30, "more media")
    assert media_playlist(media) == playlist


def test_a_rate_is_taken_from_a_header_too(served: MistServer) -> None:
    """The rate makes a viewer wait, and one of 0 does not."""
    paths = ("/now.ts?startunix=-6&stopunix=-1&rate=2&buffer=0", "/now.ts?startunix=-6&stopunix=-1&dl=part.ts")
    began = time.monotonic()
    assert all(served.get(path, timeout_s=30) for path in paths[:1])
    assert time.monotonic() - began > 1
    assert served.get(paths[1])


def test_publishers_are_slowed_down() -> None:
    """A port's `maxkbps` bounds how fast its publishers are read: 2.8 Mbit at 1,600 kbit/s take most of two seconds."""
    streams = {"live": {"source": "push://127.0.0.1", "inputtimeout": 30}}
    with MistServer(streams=streams, protocols={"RTMP": {"maxkbps": 1600}}) as server:
        sender = Sender(server)
        try:
            sender.send([number * 40 for number in range(40)], headers=True)
            with viewer(server) as messages:
                began = time.monotonic()
                for number in range(40, 90):
                    sender.peer.send_video(number * 40, f"<{number:08d}>".encode() + bytes(7000), key=number % 10 == 0)
                wait_mark(messages, 89, 30)
            assert time.monotonic() - began > 1.2
        finally:
            sender.close()

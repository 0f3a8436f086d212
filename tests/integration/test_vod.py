"""Files that the running server plays on demand: over FLV, TS, MP4 and HLS, in part and at once, through kills and damage."""

from __future__ import annotations

import json
import os
import shutil
import signal
import struct
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from pathlib import Path

import av
import pytest

from tests.integration.conftest import MakeServer
from tests.support.hls_client import record_hls
from tests.support.media import BFRAMES, NO_BFRAMES, Sample
from tests.support.packets import SeenMedia, compare, read_media
from tests.support.players import play
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)
PLAIN = Sample("plain", NO_BFRAMES, seconds=12)
TOLERANCE_US = {"flv": 0, "ts": 12, "mp4": 1000, "hls": 12}
OUTPUTS = ("flv", "ts", "mp4", "hls")


@pytest.fixture
def film(tmp_path: Path) -> Path:
    path = tmp_path / "film.flv"
    shutil.copy(FILM.flv(), path)
    return path


@pytest.fixture
def vod(make_server: MakeServer, film: Path) -> Iterator[MistServer]:
    yield make_server(streams={"film": {"source": str(film)}, "folder": {"source": f"{film.parent}/"}})


def fetch(server: MistServer, path: str, target: Path) -> SeenMedia:
    target.write_bytes(server.get(path, timeout_s=30))
    return read_media(target)


def refusal(server: MistServer, path: str) -> tuple[int, str]:
    """Return code and text of the answer to a request that is refused."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get(path, timeout_s=30)
    with caught.value as error:
        return error.code, error.read().decode()


def play_all(server: MistServer, output: str, stream: str, target: Path) -> SeenMedia:
    """Play an output to its end. HLS: every segment that its playlist lists."""
    if output == "hls":
        record_hls(server.play_url("hls", stream), target, seconds=3600)
        return read_media(target)
    return play(server, output, stream, target)


@pytest.mark.parametrize(
    "sample", [FILM, PLAIN, Sample("sound", video=()), Sample("silent", audio=())], ids=lambda s: s.name
)
def test_all_outputs_equal_the_file(make_server: MakeServer, tmp_path: Path, sample: Sample) -> None:
    source = read_media(sample.flv())
    server = make_server(streams={"film": {"source": str(sample.flv())}})
    for output in OUTPUTS:
        seen = play_all(server, output, "film", tmp_path / f"out.{output}")
        try:
            missing = compare(source, seen, tolerance_us=TOLERANCE_US[output])
        except AssertionError as error:
            error.add_note(f"output: {output}")
            raise
        assert not any(before or after for before, after in missing.values()), (output, missing)


@pytest.mark.parametrize("restarted", [False, True])
def test_a_transport_stream_of_rounded_times_is_a_sound_mp4(
    make_server: MakeServer, tmp_path: Path, restarted: bool
) -> None:
    """Its sound is counted in samples, everywhere from the same place: else packets would not lie where the MP4's tables say."""
    path, flv = tmp_path / "film.ts", tmp_path / "film.flv"
    media = (
        "-i",
        "testsrc2=size=64x48:rate=44100/1024:duration=10",
        "-f",
        "lavfi",
        "-i",
        "sine=440:duration=10",
    )  # in step
    encoders = ("-c:v", "libx264", "-preset", "ultrafast", "-g", "90", "-c:a", "aac")
    run([find_tool("ffmpeg"), "-v", "error", "-f", "lavfi", *media, *encoders, str(flv)], timeout_s=60)
    run([sys.executable, "-m", "mist", "convert", str(flv), str(path)], timeout_s=60)
    hour_ago = time.time() - 3600
    os.utime(path, (hour_ago, hour_ago))
    server = make_server(streams={"film": {"source": str(path)}})
    if restarted:
        server.get("/film.mp4")
        assert path.with_name("film.ts.dtsh").exists()
        server.stop()
        server = make_server(streams={"film": {"source": str(path)}})
    seen = play(server, "mp4", "film", tmp_path / "out.mp4")
    missing = compare(read_media(path), seen, tolerance_us=1000)
    assert not any(before or after for before, after in missing.values()), missing


@pytest.mark.parametrize("timing", ["even", "uneven"])
def test_matroska_without_decode_times_is_a_sound_mp4(make_server: MakeServer, tmp_path: Path, timing: str) -> None:
    """Decode times that are made up are the same whichever keyframe was read from: packets lie where the MP4's tables say."""
    path = tmp_path / "film.mkv"
    pictures = "testsrc2=size=64x48:rate=24000/1001:duration=20"
    uneven = [] if timing == "even" else ["-vf", "select='not(eq(mod(n,7),3)+eq(mod(n,11),5)+eq(mod(n,5),1))'"]
    media = ["-f", "lavfi", "-i", pictures, "-f", "lavfi", "-i", "sine=440:duration=20:sample_rate=48000", *uneven]
    encoders = ["-fps_mode", "vfr", "-c:v", "libx264", "-g", "48", "-bf", "3", "-c:a", "aac"]
    run(
        [find_tool("ffmpeg"), "-v", "error", *media, *encoders, "-default_mode", "passthrough", str(path)], timeout_s=60
    )
    server = make_server(streams={"film": {"source": str(path)}})
    play(server, "mp4", "film", tmp_path / "out.mp4")
    wanted, got = _shown(path), _shown(tmp_path / "out.mp4")
    assert [(kind, payload) for kind, payload, _ in got] == [(kind, payload) for kind, payload, _ in wanted]
    assert all(abs(one[2] - other[2]) <= 0.001 for one, other in zip(got, wanted, strict=True))


def _shown(path: Path) -> list[tuple[str, bytes, float]]:
    """Return type, payload and time in seconds of each packet, one track behind the other."""
    with av.open(str(path)) as container:
        found = [(one.stream.type, bytes(one), float(one.pts * one.time_base)) for one in container.demux() if one.size]
    return sorted(found, key=lambda one: one[0])


def test_files_put_one_behind_the_other(make_server: MakeServer, tmp_path: Path) -> None:
    """The second one's times begin anew, a few seconds back: its spans are read with the time base that the index was made with."""
    one = Sample("short", BFRAMES, seconds=6, keyframe_s=2).flv()
    data = one.read_bytes()
    (tmp_path / "two.flv").write_bytes(data + data[13:])
    run([find_tool("ffmpeg"), "-v", "error", "-i", str(one), "-c", "copy", str(tmp_path / "one.ts")], timeout_s=30)
    (tmp_path / "two.ts").write_bytes((tmp_path / "one.ts").read_bytes() * 2)
    server = make_server(streams={"folder": {"source": f"{tmp_path}/"}})
    pictures = len(read_media(one).of("video"))
    for name, lost in (("two.flv", 0), ("two.ts", 1)):  # of a byte stream that breaks off the last picture may be lost
        seen = play_all(server, "hls", f"folder+{name}", tmp_path / "out.bin").of("video")
        assert 2 * pictures - lost <= len(seen) <= 2 * pictures
        assert all(after.dts_us > before.dts_us for before, after in pairwise(seen))


def test_times_are_those_of_the_file(vod: MistServer, film: Path, tmp_path: Path) -> None:
    for packet, other in zip(
        read_media(film).of("video"), fetch(vod, "/film.flv", tmp_path / "out.flv").of("video"), strict=True
    ):
        assert (packet.dts_us, packet.pts_us, packet.key) == (other.dts_us, other.pts_us, other.key)


def test_ffmpeg_plays_all_outputs_without_a_complaint(vod: MistServer) -> None:
    for output in OUTPUTS:
        command = [find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", vod.play_url(output, "film"), "-f", "null", "-"]
        done = run(command, 60)
        assert not done.stderr, (output, done.stderr)


def test_the_playlist_lists_the_whole_file_exactly(vod: MistServer, film: Path) -> None:
    vod.get("/hls/film/index.m3u8")
    lines = vod.get("/hls/film/0_1/index.m3u8").decode().splitlines()
    assert "#EXT-X-PLAYLIST-TYPE:VOD" in lines and lines[-1] == "#EXT-X-ENDLIST"
    lengths = [float(line[8:].rstrip(",")) for line in lines if line.startswith("#EXTINF:")]
    assert lengths[:-1] == [2.0] * (len(lengths) - 1)
    packets = read_media(film).of("video")
    frame_us = packets[1].dts_us - packets[0].dts_us
    end_us = max(packets[-1].dts_us + frame_us, max(packet.dts_us for packet in read_media(film).of("audio")))
    assert abs(sum(lengths) * 1e6 - (end_us - packets[0].dts_us)) < 50_000
    target = next(int(line.partition(":")[2]) for line in lines if "TARGETDURATION" in line)
    assert target == 2


@pytest.mark.parametrize("output", ["flv", "ts", "mp4"])
def test_start_stop_and_duration(vod: MistServer, film: Path, tmp_path: Path, output: str) -> None:
    """A start means the keyframe at it or before it; a stop is not overstepped."""
    source = read_media(film)
    first_us = source.of("video")[0].dts_us
    cases = {
        "start=9000": (8.0, None),
        "start=8000&stop=15000": (8.0, 15.0),
        "start=5000&duration=4": (4.0, 9.0),
        "stop=3000": (0.0, 3.0),
        "start=29900": (28.0, None),
        "start=999000": (28.0, None),
        "stop=1": (0.0, 0.001),
    }
    for query, (from_s, to_s) in cases.items():
        seen = fetch(vod, f"/film.{output}?{query}", tmp_path / f"part.{output}")
        wanted = [
            packet
            for packet in source.of("video")
            if packet.dts_us >= first_us + from_s * 1e6 and (to_s is None or packet.dts_us < to_s * 1e6)
        ]
        assert [packet.digest for packet in seen.of("video")] == [packet.digest for packet in wanted], query
        if len(wanted) > 1:
            compare(source, seen, tolerance_us=TOLERANCE_US[output])


def test_tracks_can_be_chosen(vod: MistServer, tmp_path: Path) -> None:
    assert not fetch(vod, "/film.ts?audio=none", tmp_path / "v.ts").of("audio")
    assert not fetch(vod, "/film.flv?video=none", tmp_path / "a.flv").of("video")


def test_a_rate_paces_the_viewer(vod: MistServer, tmp_path: Path) -> None:
    """Thirty seconds at ten times their speed, half a second ahead of it, do not come sooner than after two."""
    began = time.monotonic()
    fetch(vod, "/film.flv?rate=10&buffer=0.5", tmp_path / "paced.flv")
    assert time.monotonic() - began > 2.0


@pytest.mark.parametrize(("query", "seconds"), [("", 30.1), ("?start=10000", 20.1), ("?start=10000&duration=4", 4.0)])
@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_matroska_says_how_long_it_is(vod: MistServer, suffix: str, query: str, seconds: float) -> None:
    """Though its length in bytes is not known; once the whole file is in the index."""
    vod.get("/film.mp4?duration=1", timeout_s=30)
    header = vod.get(f"/film.{suffix}{query}", timeout_s=30)[:4096]
    at = header.index(b"\x44\x89\x88") + 3
    told_s = struct.unpack(">d", header[at : at + 8])[0] / 1000
    assert abs(told_s - seconds) < 0.2
    probe = [find_tool("ffprobe"), "-v", "error", "-show_entries", "format=duration", "-of", "csv=p=0"]
    found = run([*probe, f"{vod.play_url(suffix, 'film')}{query}"], 30).stdout.decode()
    assert abs(float(found) - seconds) < 0.2


def test_a_download_has_a_file_name(vod: MistServer) -> None:
    with urllib.request.urlopen(f"{vod.http_url}/film.flv?dl=my.flv", timeout=20) as reply:
        assert reply.headers["Content-Disposition"] == 'attachment; filename="my.flv"'
        assert len(reply.read()) > 100_000
    head = urllib.request.Request(f"{vod.http_url}/film.flv", method="HEAD")
    with urllib.request.urlopen(head, timeout=20) as reply:
        assert reply.status == 200 and reply.headers["Content-Type"] == "video/x-flv"


def test_information_says_on_demand(vod: MistServer) -> None:
    vod.get("/film.flv?stop=1")
    document = wait_until(lambda: _whole(vod), 10, "the whole index")
    assert document["type"] == "vod" and document["meta"]["vod"] == 1 and "live" not in document["meta"]
    assert "unixoffset" not in document
    video = next(track for track in document["meta"]["tracks"].values() if track["type"] == "video")
    assert (video["firstms"], video["width"], video["fpks"] or video["efpks"]) == (0, 320, 25_000)
    assert {"html5/video/mp4", "html5/application/vnd.apple.mpegurl"} <= {one["type"] for one in document["source"]}
    request = {"active_streams": {"fields": ["status", "lastms", "tracks"], "longform": True}}
    active = wait_until(lambda: vod.api(request)["active_streams"], 10, "the statistics")
    assert active["film"]["status"] == "Online" and active["film"]["lastms"] > 29_000 and active["film"]["tracks"] == 2


def _whole(server: MistServer) -> dict[str, object] | None:
    document = server.info("film")
    tracks = document.get("meta", {}).get("tracks", {}).values()
    return document if tracks and all(track["lastms"] > 29_000 for track in tracks) else None  # type: ignore[return-value]


def test_a_folder_plays_its_files(vod: MistServer, film: Path, tmp_path: Path) -> None:
    seen = fetch(vod, "/folder+film.flv.ts", tmp_path / "folder.ts")
    assert not any(sum(one) for one in compare(read_media(film), seen, tolerance_us=12).values())
    for name in ("folder", "folder+", "folder+none.flv", "folder+..", "folder+%2e%2e%2ffilm.flv"):
        assert refusal(vod, f"/{name}.ts")[0] in (404, 415), name


def test_many_viewers_at_many_places(vod: MistServer, film: Path) -> None:
    whole = vod.get("/film.flv")

    def view(number: int) -> bool:
        start = number % 15 * 2000
        data = vod.get(f"/film.flv?start={start}" if start else "/film.flv", timeout_s=60)
        return data == whole if not start else whole.endswith(data[-10_000:])

    with ThreadPoolExecutor(24) as pool:
        assert all(pool.map(view, range(48)))


def _read_slowly(url: str, went_on: threading.Event, half: threading.Event) -> bytes:
    """Read a quarter of a reply, wait, and read the rest. The receive buffer is small, so that the server has to wait too."""
    with urllib.request.urlopen(url, timeout=30) as reply:
        data = bytes(reply.read(100_000))
        half.set()
        assert went_on.wait(20)
        return data + bytes(reply.read())


def test_a_killed_input_is_not_noticed_by_viewers(make_server: MakeServer, tmp_path: Path) -> None:
    """A viewer that is held back while the input is killed goes on with its successor."""
    sample = Sample("heavy", NO_BFRAMES, seconds=30, size="1280x720", bit_rate="6M")
    server = make_server(streams={"film": {"source": str(sample.flv())}})
    whole = server.get("/film.flv", timeout_s=60)
    assert len(whole) > 16 << 20
    went_on, half = threading.Event(), threading.Event()
    with ThreadPoolExecutor(1) as pool:
        viewer = pool.submit(_read_slowly, f"{server.http_url}/film.flv", went_on, half)
        assert half.wait(20)
        for _ in range(3):
            old = server.processes_titled("mist: input film")[0].pid
            os.kill(old, signal.SIGKILL)
            wait_until(
                lambda old=old: [one for one in server.processes_titled("mist: input film") if one.pid != old],  # type: ignore[misc]
                10,
                "a new input",
            )
        went_on.set()
        assert viewer.result(60) == whole
    assert server.get("/film.flv", timeout_s=60) == whole
    assert len(server.get(_first_segment(server))) > 100_000


def _first_segment(server: MistServer) -> str:
    lines = server.get("/hls/film/0_1/index.m3u8").decode().splitlines()
    return "/hls/film/0_1/" + next(line for line in lines if line and not line.startswith("#"))


def test_an_input_killed_again_and_again_while_viewers_come(make_server: MakeServer) -> None:
    sample = Sample("heavy", NO_BFRAMES, seconds=30, size="1280x720", bit_rate="6M")
    server = make_server(streams={"film": {"source": str(sample.flv())}})
    whole = server.get("/film.ts?stop=20000", timeout_s=60)
    with ThreadPoolExecutor(4) as pool:
        viewers = [pool.submit(server.get, "/film.ts?stop=20000", 60) for _ in range(8)]
        for one in server.processes_titled("mist: input film"):
            os.kill(one.pid, signal.SIGKILL)
        assert [len(viewer.result(60)) for viewer in viewers] == [len(whole)] * 8


def test_a_stream_ends_when_nobody_watches(make_server: MakeServer, film: Path) -> None:
    server = make_server(streams={"film": {"source": str(film), "inputtimeout": 1}})
    server.get("/film.flv")
    assert server.processes_titled("mist: input film")
    server.wait_log("CLEAN_INACTIVE", 30)
    wait_until(lambda: not server.processes_titled("mist: input film"), 10, "the input's end")
    wait_until(lambda: not [name for name in server.shared_memory() if ".film" in name], 10, "the end of its memory")
    assert len(server.get("/film.flv")) == len(server.get("/film.flv"))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "cannot be opened: No such file"),
        (b"", "byte 0"),
        (b"not a film", "FLV"),
        (b"FLV\x01\x05\0\0\0\x09\0\0\0\0" + bytes(100), ""),
    ],
)
def test_a_bad_file_is_named(make_server: MakeServer, tmp_path: Path, content: bytes | None, says: str) -> None:
    path = tmp_path / "bad.flv"
    if content is not None:
        path.write_bytes(content)
    server = make_server(streams={"bad": {"source": str(path)}})
    code, text = refusal(server, "/bad.flv")
    assert code == 404 and says in text, text
    assert str(tmp_path) not in text and path.name not in text, "where it is, the log knows"
    server.wait_log(str(path))
    wait_until(lambda: not server.processes_titled("mist: input bad"), 10, "the input's end")


def test_a_truncated_file_plays_as_far_as_it_goes(make_server: MakeServer, film: Path, tmp_path: Path) -> None:
    data = film.read_bytes()
    film.write_bytes(data[: len(data) * 2 // 3])
    server = make_server(streams={"film": {"source": str(film)}})
    missing = compare(read_media(FILM.flv()), fetch(server, "/film.ts", tmp_path / "out.ts"), tolerance_us=12)
    assert all(before == 0 and after > 100 for before, after in missing.values())


def test_a_file_damaged_in_the_middle_plays_up_to_there(make_server: MakeServer, film: Path, tmp_path: Path) -> None:
    data = bytearray(film.read_bytes())
    at = len(data) // 2
    data[at : at + 50_000] = bytes([0x3F]) * 50_000
    film.write_bytes(data)
    server = make_server(streams={"film": {"source": str(film)}})
    seen = fetch(server, "/film.ts", tmp_path / "out.ts")
    assert len(seen.of("video")) > 200


def test_a_file_cut_while_it_is_played_ends_that_stream_only(
    make_server: MakeServer, film: Path, tmp_path: Path
) -> None:
    other = tmp_path / "other.flv"
    shutil.copy(PLAIN.flv(), other)
    server = make_server(streams={"film": {"source": str(film)}, "other": {"source": str(other)}})
    server.get("/film.flv?stop=1000")
    wait_until(lambda: _whole(server), 10, "the whole index")
    os.truncate(film, 100_000)
    server.get("/other.flv")
    server.wait_log(f"{film} has changed", 10)
    server.wait_log("Stream ended", 10)
    assert len(read_media_bytes(server.get("/other.flv"), tmp_path).of("video")) == 300
    shutil.copy(FILM.flv(), film)
    wait_until(lambda: not server.processes_titled("mist: input film"), 10, "the old input's end")
    assert len(fetch(server, "/film.ts", tmp_path / "again.ts").of("video")) == 750


def read_media_bytes(data: bytes, folder: Path) -> SeenMedia:
    path = folder / "copy.flv"
    path.write_bytes(data)
    return read_media(path)


def test_a_file_that_grows_is_played_anew_with_all_that_it_has(
    make_server: MakeServer, film: Path, tmp_path: Path
) -> None:
    grown = tmp_path / "grown.flv"
    whole = film.read_bytes()
    grown.write_bytes(whole[: len(whole) // 2])
    server = make_server(streams={"film": {"source": str(grown)}})
    before = len(fetch(server, "/film.ts", tmp_path / "before.ts").of("video"))
    with grown.open("ab") as file:
        file.write(whole[len(whole) // 2 :])
    server.wait_log(f"{grown} has changed", 10)
    server.wait_log("Stream ended", 10)
    wait_until(lambda: not server.processes_titled("mist: input film"), 10, "the old input's end")
    after = len(fetch(server, "/film.ts", tmp_path / "after.ts").of("video"))
    assert 250 < before < after == 750


def test_a_removed_file_ends_the_stream(make_server: MakeServer, film: Path) -> None:
    server = make_server(streams={"film": {"source": str(film)}})
    server.get("/film.flv")
    film.unlink()
    assert str(film) in server.wait_log("is gone", 10)
    server.wait_log("Stream ended", 10)
    assert refusal(server, "/film.flv")[0] == 404


def test_viewers_that_leave_early_leave_nothing(vod: MistServer) -> None:
    def look_in(number: int) -> None:
        with urllib.request.urlopen(
            f"{vod.http_url}/film.{('flv', 'ts', 'mp4')[number % 3]}?rate=1", timeout=20
        ) as reply:
            reply.read(1000)

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(look_in, range(30)))
    wait_until(lambda: not _connections(vod), 20, "the end of all connections")


def _connections(server: MistServer) -> list[str]:
    return [one.title for one in server.processes_titled("mist: output HTTP") if "connection" in one.title]


def test_the_server_stops_while_viewers_play(make_server: MakeServer, film: Path) -> None:
    server = make_server(streams={"film": {"source": str(film)}})
    replies = [urllib.request.urlopen(f"{server.http_url}/film.flv?rate=1", timeout=20) for _ in range(3)]
    for reply in replies:
        assert reply.read(1000)
    server.stop()
    for reply in replies:
        reply.close()


def test_segments_come_from_the_cache_the_second_time(vod: MistServer) -> None:
    segment = _first_segment(vod)
    assert vod.get(segment) == vod.get(segment)
    assert refusal(vod, "/hls/film/0_1/1_2.ts")[0] == 404
    assert refusal(vod, "/hls/film/0_7/0_2000.ts")[0] == 404
    part = vod.get("/hls/film/0_1/index.m3u8?start=10000&stop=20000").decode()
    assert part.count("#EXTINF") == 5 and "ENDLIST" in part
    assert json.loads(vod.get("/json_film.js"))["type"] == "vod"


def test_mp4_is_a_file_of_known_length_in_ranges(vod: MistServer, film: Path, tmp_path: Path) -> None:
    whole = vod.get("/film.mp4")
    url = f"{vod.http_url}/film.mp4"
    with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=20) as reply:
        assert int(reply.headers["Content-Length"]) == len(whole) and reply.headers["Accept-Ranges"] == "bytes"
    for begin, end in ((0, 0), (0, 40), (30_000, 700_000), (5, len(whole) - 1), (len(whole) - 100, len(whole) - 1)):
        request = urllib.request.Request(url, headers={"Range": f"bytes={begin}-{end}"})
        with urllib.request.urlopen(request, timeout=20) as reply:
            assert reply.status == 206 and reply.headers["Content-Range"] == f"bytes {begin}-{end}/{len(whole)}"
            assert reply.read() == whole[begin : end + 1]
    request = urllib.request.Request(url, headers={"Range": f"bytes={len(whole)}-"})
    with pytest.raises(urllib.error.HTTPError) as caught:
        urllib.request.urlopen(request, timeout=20)
    with caught.value as error:
        assert error.code == 416 and error.headers["Content-Range"] == f"bytes */{len(whole)}"
    assert vod.get("/film.3gp")[8:12] == b"3gp6"
    assert b"moof" in vod.get("/film.fmp4")[:4000] and b"moof" not in whole[:4000]


def test_ranges_go_on_after_the_input_was_killed(vod: MistServer) -> None:
    whole = vod.get("/film.mp4")
    os.kill(vod.processes_titled("mist: input film")[0].pid, signal.SIGKILL)
    assert vod.get("/film.mp4") == whole


def test_a_browser_like_client_seeks_in_an_mp4(vod: MistServer) -> None:
    """FFmpeg jumps to the end of a file over HTTP by ranges."""
    seek = ("-v", "error", "-read_intervals", "28%+#1", "-show_packets", "-of", "json")
    done = run([find_tool("ffprobe"), *seek, f"{vod.http_url}/film.mp4"], 30)
    assert not done.stderr
    packets = json.loads(done.stdout)["packets"]
    assert packets and float(packets[0]["pts_time"]) >= 25.0


def test_what_reads_a_format_is_in_memory_before_it_is_played(make_server: MakeServer, tmp_path: Path) -> None:
    """Once, in the main process; of formats that no stream has, not at all."""
    server = make_server(streams={"film": {"source": f"{tmp_path}/film.mp4"}})

    def has(module: str) -> bool:
        return f"/{module}." in Path(f"/proc/{server.pid}/maps").read_text()

    assert has("mp4_demux")
    assert not has("mkv_demux")
    server.api({"addstream": {"other": {"source": f"{tmp_path}/film.mkv"}}})
    wait_until(lambda: has("mkv_demux"), 10, "the reader of another format")

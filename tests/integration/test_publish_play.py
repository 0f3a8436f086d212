"""What goes in by RTMP comes out of every output: same content, times and key flags; and FFmpeg reads it without a complaint."""

from __future__ import annotations

import json
import os
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import StartProgram
from tests.integration.conftest import MakeServer, Publish
from tests.support.footage import CYCLISTS, PHONE, SURROUND_FILM, Footage
from tests.support.hls_client import record_hls
from tests.support.media import (
    AC3,
    AV1,
    BFRAMES,
    EAC3,
    FLAC,
    HEVC,
    MP3,
    NO_BFRAMES,
    OPUS,
    VP9,
    Sample,
)
from tests.support.packets import SeenMedia, compare, probe_packets, read_media
from tests.support.players import play
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

ALL = ("flv", "ts", "mp4", "mkv", "hls", "rtmp")
MILLISECOND_US = 1_000
TICK_90_KHZ_US = 12
# Sources are in milliseconds here (RTMP), so finer formats must give them back as they are; MP4 counts audio in samples.
# Matroska has no decode times: they are what FFmpeg makes of the presentation times.
TOLERANCE_US = {
    "ts": TICK_90_KHZ_US,
    "hls": TICK_90_KHZ_US,
    "mp4": MILLISECOND_US,
    "mkv": MILLISECOND_US,
    "webm": MILLISECOND_US,
}
# Short segments, and an end soon after the publisher has gone, so that a test need not wait long.
STREAM = {"live": {"source": "push://127.0.0.1", "segmentsize": 1000, "inputtimeout": 2}}

PYRAMID = (*BFRAMES, "-bf", "7", "-x264-params", "b-pyramid=normal:ref=5:b-adapt=0")


@dataclass(frozen=True, slots=True)
class Case:
    """A sample, and the outputs that can carry it."""

    sample: Sample | Footage
    outputs: tuple[str, ...] = ALL


CASES = [
    Case(Sample("plain")),
    Case(Sample("bframes", BFRAMES)),
    Case(Sample("pyramid", PYRAMID)),
    Case(Sample("film", BFRAMES, rate="24000/1001")),
    Case(Sample("fields", NO_BFRAMES, rate="60000/1001")),
    Case(Sample("thirty", BFRAMES, rate="30")),
    Case(Sample("cd-audio", sample_rate=44100)),
    Case(Sample("mono-22k", sample_rate=22050, channels=1)),
    Case(Sample("surround", channels=6)),
    Case(Sample("mp3", audio=MP3)),
    Case(Sample("audio-only", video=())),
    Case(Sample("video-only", BFRAMES, audio=())),
    Case(Sample("bframes-new", BFRAMES, tool="ffmpeg-new")),
    Case(Sample("hevc", HEVC, tool="ffmpeg-new"), ("ts", "mp4", "mkv", "hls", "rtmp-enhanced")),
    Case(Sample("av1", AV1, tool="ffmpeg-new"), ("mp4", "mkv", "rtmp-enhanced")),
    Case(Sample("vp9", VP9, tool="ffmpeg-new"), ("mp4", "mkv", "rtmp-enhanced")),
    Case(Sample("opus", audio=OPUS, tool="ffmpeg-new"), ("mp4", "mkv", "rtmp-enhanced")),
    Case(Sample("av1-opus", AV1, OPUS, tool="ffmpeg-new"), ("mp4", "mkv", "webm", "rtmp-enhanced")),
    Case(Sample("flac", audio=FLAC, tool="ffmpeg-new"), ("mkv", "rtmp-enhanced")),
    Case(Sample("ac3", audio=AC3, tool="ffmpeg-new"), ("ts", "mp4", "mkv", "hls", "rtmp-enhanced")),
    Case(Sample("eac3", audio=EAC3, tool="ffmpeg-new"), ("mkv", "rtmp-enhanced")),
    # Keyframes of real footage are seconds apart: too few segments here for HLS, which the samples test.
    *(Case(film, ("flv", "ts", "mp4", "mkv", "rtmp")) for film in (SURROUND_FILM, CYCLISTS, PHONE)),
]

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new")


def _wait_playable(server: MistServer, sample: Sample | Footage) -> None:
    server.wait_tracks(bool(sample.video) + bool(sample.audio))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sample.name)
def test_all_outputs_equal_the_source(make_server: MakeServer, publish: Publish, tmp_path: Path, case: Case) -> None:
    sample = case.sample
    source = read_media(sample.flv())  # made before the clock runs
    server = make_server(streams=STREAM)
    publisher = publish(server, sample)
    _wait_playable(server, sample)
    progressive = [output for output in case.outputs if output != "hls"]
    with ThreadPoolExecutor(len(progressive) + 1) as pool:
        tasks = {one: pool.submit(play, server, one, "live", tmp_path / f"out.{one}") for one in progressive}
        if "hls" in case.outputs:
            tasks["hls"] = pool.submit(_play_hls, server, tmp_path / "hls.ts")
        assert publisher.wait(sample.seconds + 20) == 0, publisher.output
        seen = {output: task.result(30) for output, task in tasks.items()}
    for output, media in seen.items():
        tolerance = TOLERANCE_US.get(output, 0) + sample.seam_us
        try:
            missing = compare(source, media, tolerance_us=tolerance)
        except AssertionError as error:
            error.add_note(f"output: {output}")
            raise
        if output != "hls":
            assert not any(after for _, after in missing.values()), f"{output} ended early: {missing}"


def _play_hls(server: MistServer, target: Path) -> SeenMedia:
    """Fetch every segment that the stream's first quality lists, one after the other, as they appear."""
    record_hls(server.play_url("hls"), target, seconds=6)
    return read_media(target)


def test_ffprobe_agrees_with_the_source_file(server: MistServer, publish: Publish) -> None:
    """Judge by ffprobe alone: FLV over HTTP has the hashes, times and flags of the file that was sent."""
    sample = Sample("bframes", BFRAMES)
    source = probe_packets(sample.flv())
    publish(server, sample)
    _wait_playable(server, sample)
    got = probe_packets(server.play_url("flv"), timeout_s=sample.seconds + 20)
    for kind in ("video", "audio"):
        wanted = [_key_facts(one) for one in source if one["codec_type"] == kind]
        found = [_key_facts(one) for one in got if one["codec_type"] == kind]
        start = wanted.index(found[0])
        assert found == wanted[start : start + len(found)]
        assert start + len(found) == len(wanted)


def _key_facts(packet: dict[str, str]) -> tuple[str, bool, float]:
    offset = float(packet["pts_time"]) - float(packet["dts_time"])
    return packet["data_hash"], packet["flags"].startswith("K"), round(offset, 4)


@pytest.mark.parametrize("tool", ["ffmpeg", "ffmpeg-new"])
@pytest.mark.parametrize("output", ALL)
def test_ffmpeg_decodes_without_a_warning(
    server: MistServer, publish: Publish, start_program: StartProgram, output: str, tool: str
) -> None:
    """Decode ten seconds of a looping stream with -xerror; MIST_LONG=300 makes it five minutes."""
    seconds = int(os.environ.get("MIST_LONG", "10"))
    publish(server, Sample("loop", BFRAMES, seconds=seconds + 15, rate="30"))
    server.wait_tracks(2)
    level = ("-v", "warning", "-xerror")
    options = ("-live_start_index", "0") if output == "hls" else ()
    command = [find_tool(tool), "-hide_banner", "-nostdin", *level, *options, "-i", server.play_url(output)]
    player = start_program([*command, "-t", str(seconds), "-f", "null", "-"])
    assert player.wait(seconds + 30) == 0, player.output
    complaints = [line for line in player.output.splitlines() if line.strip() and not _harmless(line)]
    assert not complaints, "\n".join(complaints)


def _harmless(line: str) -> bool:
    """Tell what FFmpeg says of any good stream: that it had little to guess the frame rate from, or skips HLS segments."""
    return "Could not find codec parameters" not in line and any(
        text in line for text in ("max_analyze_duration", "deprecated pixel format", "Last message repeated")
    )


def test_info_document_and_page(server: MistServer, publish: Publish) -> None:
    publish(server, Sample("bframes", BFRAMES))
    document = server.wait_tracks(2)
    tracks = sorted(document["meta"]["tracks"].values(), key=lambda track: str(track["type"]))
    assert [track["codec"] for track in tracks] == ["AAC", "H264"]
    assert tracks[0]["rate"] == 48000
    assert tracks[0]["channels"] == 2
    assert (tracks[1]["width"], tracks[1]["height"]) == (320, 180)
    assert {"flv", "ts", "mp4"} <= {
        str(source["relurl"]).partition("?")[0].rpartition(".")[2] for source in document["source"]
    }
    page = server.get("/live.html").decode()
    assert "live" in page
    assert page.lstrip().lower().startswith("<!doctype html")


def test_wildcard_streams_are_separate(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    """Two publishers below one name; each is played with its own picture."""
    samples = {"live+a": Sample("plain"), "live+b": Sample("bframes", BFRAMES)}
    for name, sample in samples.items():
        publish(server, sample, name)
    with ThreadPoolExecutor(2) as pool:
        tasks = {}
        for name in samples:
            server.wait_tracks(2, name)
            tasks[name] = pool.submit(play, server, "flv", name, tmp_path / name)
        for name, task in tasks.items():
            compare(read_media(samples[name].flv()), task.result(40), tolerance_us=0)


def test_statistics_and_status(server: MistServer, publish: Publish, start_program: StartProgram) -> None:
    publish(server, Sample("plain", seconds=20))
    server.wait_tracks(2)
    viewers = [start_program(["curl", "-sN", "-o", "/dev/null", server.play_url("flv")]) for _ in range(3)]

    def counted() -> bool:
        found = server.api({"active_streams": ["viewers", "inputs"]})["active_streams"] or {}
        return bool(found.get("live") == [3, 1])

    wait_until(counted, 10, "three viewers and one input in the statistics")
    for viewer in viewers:
        viewer.kill()

    def gone() -> bool:
        found = server.api({"active_streams": ["viewers", "inputs"]})["active_streams"] or {}
        return bool(found.get("live", [0])[0] == 0)

    wait_until(gone, 25, "no viewer in the statistics")  # a session lasts 15 s beyond its connection


def test_head_and_unknown_names(server: MistServer) -> None:
    """HEAD has no body; a stream that is not configured is a 404 that says why."""
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/nosuchstream.flv")
    assert caught.value.code == 404
    assert b"nosuchstream" in caught.value.read() or caught.value.reason
    request = urllib.request.Request(server.http_url + "/live.html", method="HEAD")
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.status == 200
        assert reply.read() == b""
        assert reply.headers["Access-Control-Allow-Origin"] == "*"
    document = json.loads(server.get("/json_nosuchstream.js"))
    assert "error" in document

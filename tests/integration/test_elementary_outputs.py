"""AAC, MP3 and byte streams of H.264 over HTTP from a live stream: what was published, and readable for ffmpeg."""

from __future__ import annotations

import json
import urllib.error
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import av
import pytest

from mist.core.demuxer import demux
from mist.formats.audio_files import AdtsDemuxer, Mp3Demuxer
from mist.formats.video_files import H264Demuxer
from tests.integration.conftest import MakeServer, Publish
from tests.support.media import BFRAMES, MP3, Sample
from tests.support.packets import media_of
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

STREAM = {"live": {"source": "push://127.0.0.1", "segmentsize": 1000, "inputtimeout": 2}}
TIMEOUT_S = 30

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")


def fetch(server: MistServer, path: str, target: Path) -> tuple[str, bytes]:
    """Return content type and body of an endless reply, once the stream has ended."""
    with urllib.request.urlopen(server.http_url + path, timeout=TIMEOUT_S) as reply:
        body = b""
        while data := reply.read1(1 << 16):
            body += data
        target.write_bytes(body)
        return reply.headers["Content-Type"], body


def published(sample: Sample, kind: str) -> list[bytes]:
    """Return the media of the packets that a publisher sends."""
    with av.open(str(sample.flv())) as container:
        stream = container.streams.video[0] if kind == "video" else container.streams.audio[0]
        context = stream.codec_context
        return [
            media_of(context.name, bytes(packet), context.extradata or b"")
            for packet in container.demux(stream)
            if packet.size
        ]


def assert_run_of(found: list[bytes], wanted: list[bytes]) -> None:
    """Check that what was found is a part of what was sent, up to its end."""
    assert found
    start = wanted.index(found[0])
    assert found == wanted[start:]


def decode(path: Path) -> None:
    done = run([find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", str(path), "-f", "null", "-"], TIMEOUT_S)
    assert done.stderr == b"", done.stderr


def test_aac_and_h264(make_server: MakeServer, publish: Publish, tmp_path: Path) -> None:
    sample = Sample("bframes", BFRAMES, seconds=8)
    pictures, sounds = published(sample, "video"), published(sample, "audio")
    server = make_server(streams=STREAM)
    publisher = publish(server, sample)
    server.wait_tracks(2)
    paths = {name: tmp_path / name for name in ("a.aac", "all.h264", "keys.h264")}
    with ThreadPoolExecutor(3) as pool:
        aac = pool.submit(fetch, server, "/live.aac", paths["a.aac"])
        video = pool.submit(fetch, server, "/live.h264", paths["all.h264"])
        keys = pool.submit(fetch, server, "/live.h264?keysonly=1", paths["keys.h264"])
        assert publisher.wait(sample.seconds + 20) == 0, publisher.output
        assert aac.result(TIMEOUT_S)[0] == "audio/aac"
        assert video.result(TIMEOUT_S)[0] == keys.result(TIMEOUT_S)[0] == "video/H264"
    demuxer = AdtsDemuxer()
    assert_run_of([packet.payload for packet in demux(demuxer, aac.result()[1])], sounds)
    assert demuxer.tracks[0].sample_rate_hz == sample.sample_rate
    byte_stream = H264Demuxer()
    found = demux(byte_stream, video.result()[1])
    init = byte_stream.tracks[0].init_data
    assert_run_of([media_of("h264", packet.payload, init) for packet in found], pictures)
    only = demux(H264Demuxer(), keys.result()[1])
    wanted = [packet.payload for packet in found if packet.keyframe]
    assert [packet.payload for packet in only][-len(wanted) :] == wanted[-len(only) :]
    for path in paths.values():
        decode(path)


def test_mp3(make_server: MakeServer, publish: Publish, tmp_path: Path) -> None:
    sample = Sample("mp3", audio=MP3, seconds=8)
    sounds = published(sample, "audio")
    server = make_server(streams=STREAM)
    publisher = publish(server, sample)
    server.wait_tracks(2)
    with ThreadPoolExecutor(1) as pool:
        task = pool.submit(fetch, server, "/live.mp3", tmp_path / "a.mp3")
        assert publisher.wait(sample.seconds + 20) == 0, publisher.output
        content_type, body = task.result(TIMEOUT_S)
    assert content_type == "audio/mpeg"
    assert_run_of([packet.payload for packet in demux(Mp3Demuxer(), body)], sounds)
    decode(tmp_path / "a.mp3")


@pytest.mark.parametrize(
    "path", ["/live.mp3", "/live.srt", "/live.vtt", "/live.webvtt", "/live.json?maxwaittrackms=1000"]
)
def test_a_stream_without_such_a_track(server: MistServer, publish: Publish, path: str) -> None:
    publish(server, Sample("plain", seconds=20))
    server.wait_tracks(2)
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get(path)
    assert caught.value.code == 404
    assert b"no track" in caught.value.read()


def test_head_and_a_bad_callback(server: MistServer, publish: Publish) -> None:
    publish(server, Sample("plain", seconds=20))
    server.wait_tracks(2)
    for path, content_type in (("/live.aac", "audio/aac"), ("/live.h264", "video/H264")):
        request = urllib.request.Request(server.http_url + path, method="HEAD")
        with urllib.request.urlopen(request, timeout=10) as reply:
            assert reply.headers["Content-Type"] == content_type
            assert reply.headers["Content-Length"] is None  # that of a GET is not known
            assert reply.read() == b""
    with pytest.raises(urllib.error.HTTPError) as caught:
        server.get("/live.json?callback=alert(1)")
    assert caught.value.code == 400
    assert b"function" in caught.value.read()


def test_repeated_items_are_left_out(make_server: MakeServer, tmp_path: Path) -> None:
    film = tmp_path / "film.flv"
    film.write_bytes(Sample("plain", seconds=20).flv().read_bytes())
    shown = ("one", "one", "two", "one")
    cues = (f"{n}\n00:00:0{n},000 --> 00:00:0{n},500\n{text}\n\n" for n, text in enumerate(shown, 1))
    (tmp_path / "film.flv.eng.srt").write_text("".join(cues))
    server = make_server(streams={"film": {"source": str(film)}})

    def items(query: str) -> list[tuple[int, str]]:
        found = json.loads(server.get(f"/film.json{query}"))
        return [(item["time"], item["data"].strip()) for item in found]

    assert items("") == [(1000, "one"), (2000, "one"), (3000, "two"), (4000, "one")]
    assert items("?dedupe=a,b") == [(1000, "one"), (3000, "two"), (4000, "one")]

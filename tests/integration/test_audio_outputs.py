"""What goes in by RTMP comes out as Ogg, WAV and FLAC over HTTP, and programs of others play it."""

from __future__ import annotations

import urllib.error
import urllib.request
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.formats import riff
from tests.conftest import StartProgram
from tests.integration.conftest import MakeServer, Publish
from tests.support.media import FLAC, NO_BFRAMES, OPUS, Sample
from tests.support.packets import compare, read_media
from tests.support.players import play
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

STREAM = {"live": {"source": "push://127.0.0.1", "segmentsize": 1000, "inputtimeout": 2}}
MULAW = ("-c:a", "pcm_mulaw", "-ac", "1")
MILLISECOND_US = 1_000


@dataclass(frozen=True, slots=True)
class Case:
    """A sample, the output it is played by, and the content type that has."""

    sample: Sample
    output: str
    content_type: str


CASES = [
    Case(Sample("opus-ogg", video=(), audio=OPUS, tool="ffmpeg-new"), "ogg", "audio/ogg"),
    Case(Sample("opus-beside-video", NO_BFRAMES, OPUS, tool="ffmpeg-new"), "ogg", "audio/ogg"),
    Case(Sample("flac-ogg", video=(), audio=FLAC, tool="ffmpeg-new"), "ogg", "audio/ogg"),
    Case(Sample("flac-flac", NO_BFRAMES, FLAC, tool="ffmpeg-new"), "flac", "audio/flac"),
]
LAW = Sample("mulaw", video=(), audio=MULAW, sample_rate=8000, channels=1)

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe", "ffmpeg-new")


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.sample.name)
def test_outputs_equal_the_source(make_server: MakeServer, publish: Publish, tmp_path: Path, case: Case) -> None:
    source = read_media(case.sample.flv()) if case.sample.tool == "ffmpeg" else read_media(case.sample.file())
    server = make_server(streams=STREAM)
    publisher = publish(server, case.sample)
    server.wait_tracks(bool(case.sample.video) + 1)
    media = play(server, case.output, "live", tmp_path / f"out.{case.output}")
    assert publisher.wait(case.sample.seconds + 20) == 0, publisher.output
    if case.sample.audio == FLAC:  # FFmpeg takes the first packet of FLAC in Ogg to be at 0
        media = replace(media, packets=media.packets[1:])
    missing = compare(source, media, tolerance_us=MILLISECOND_US, kinds=("audio",))
    assert missing["audio"][1] == 0
    told = run(
        [
            find_tool("ffmpeg"),
            "-v",
            "warning",
            "-xerror",
            "-i",
            str(tmp_path / f"out.{case.output}"),
            "-f",
            "null",
            "-",
        ],
        60,
    )
    assert not told.stderr.strip()


@pytest.mark.parametrize("case", CASES[:1] + CASES[3:], ids=lambda case: case.output)
def test_replies(server: MistServer, publish: Publish, case: Case) -> None:
    publish(server, case.sample)
    server.wait_tracks(bool(case.sample.video) + 1)
    for method in ("GET", "HEAD"):
        request = urllib.request.Request(server.play_url(case.output), method=method)
        with urllib.request.urlopen(request, timeout=15) as reply:
            assert reply.headers["Content-Type"] == case.content_type
            assert method == "HEAD" or reply.read(4) in (b"OggS", b"fLaC")
    document = server.wait_tracks(bool(case.sample.video) + 1)
    assert any(str(source["relurl"]).partition("?")[0].endswith(f".{case.output}") for source in document["source"])


def test_wav(make_server: MakeServer, publish: Publish, tmp_path: Path) -> None:
    source = read_media(LAW.flv())
    server = make_server(streams=STREAM)
    publisher = publish(server, LAW)
    server.wait_tracks(1)
    target = tmp_path / "out.wav"
    with urllib.request.urlopen(server.play_url("wav"), timeout=20) as reply:
        assert reply.headers["Content-Type"] == "audio/wav"
        target.write_bytes(reply.read())
    assert publisher.wait(LAW.seconds + 20) == 0, publisher.output
    demuxer = riff.make_demuxer()
    samples = b"".join(packet.payload for packet in demux(demuxer, target.read_bytes()))
    [track] = demuxer.tracks
    assert (track.codec, track.sample_rate_hz, track.channels) == ("ULAW", 8000, 1)
    assert len(samples) > 8000 * (LAW.seconds - 5)
    assert sum(packet.size for packet in source.packets) >= len(samples)
    assert samples[-8000:] == _samples(LAW)[-8000:]


def _samples(sample: Sample) -> bytes:
    done = run(
        [find_tool("ffmpeg"), "-v", "error", "-i", str(sample.flv()), "-c", "copy", "-f", "data", "-map", "0:a", "-"],
        60,
    )
    return done.stdout


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize(("output", "parser"), [("ogg", "oggdemux"), ("flac", "flacparse")])
def test_gstreamer_plays(
    server: MistServer, publish: Publish, start_program: StartProgram, output: str, parser: str
) -> None:
    sample = Sample("opus-ogg", video=(), audio=OPUS if output == "ogg" else FLAC, tool="ffmpeg-new")
    publish(server, sample)
    server.wait_tracks(1)
    source = ("souphttpsrc", f"location={server.play_url(output)}", "is-live=true")
    decoder = ("opusdec",) if output == "ogg" else ("flacdec",)
    player = start_program(
        ["gst-launch-1.0", "-e", *source, "!", parser, "!", *decoder, "!", "fakesink", "num-buffers=100", "sync=false"]
    )
    assert player.wait(30) == 0, player.output
    assert "ERROR" not in player.output and "WARN" not in player.output


def test_streams_without_such_a_track_say_so(server: MistServer, publish: Publish) -> None:
    publish(server, Sample("plain"))
    server.wait_tracks(2)
    for output in ("ogg", "wav", "flac"):
        with pytest.raises(urllib.error.HTTPError) as error:
            urllib.request.urlopen(server.play_url(output), timeout=15)
        assert error.value.code == 404
        error.value.close()

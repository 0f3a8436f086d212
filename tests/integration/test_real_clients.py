"""Encoders, players and relays that people have: GStreamer, rtmpdump, VLC, curl, nginx with its RTMP module."""

from __future__ import annotations

import http.client
import os
import urllib.request
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest

from tests.conftest import StartProgram
from tests.integration.conftest import Publish
from tests.support.hls_client import media_playlist, variants
from tests.support.media import BFRAMES, Sample
from tests.support.nginx import Nginx, rtmp_module
from tests.support.packets import SeenMedia, compare, read_media
from tests.support.players import play
from tests.support.processes import wait_until
from tests.support.server import MistServer
from tests.support.tools import find_tool

SAMPLE = Sample("bframes", BFRAMES)
LONG = Sample("loop", BFRAMES, seconds=25, rate="30")

ENOUGH_BYTES = 250_000


@pytest.mark.tools("gst-launch-1.0")
@pytest.mark.parametrize("element", ["rtmpsink", "rtmp2sink"])
def test_gstreamer_publishes(server: MistServer, start_program: StartProgram, tmp_path: Path, element: str) -> None:
    """Encode live with GStreamer, through librtmp and through GStreamer's own client."""
    inspect = start_program(["gst-inspect-1.0", "--exists", element])
    if inspect.wait(20) != 0:
        pytest.skip(f"this GStreamer has no {element}")
    location = f"location={server.publish_url()}"
    command = (
        "gst-launch-1.0 -e flvmux name=mux streamable=true ! "
        f"{element} {location} "
        "videotestsrc is-live=true num-buffers=250 ! video/x-raw,width=320,height=180,framerate=25/1 ! "
        "x264enc tune=zerolatency key-int-max=25 ! h264parse ! video/x-h264,stream-format=avc ! queue ! mux. "
        "audiotestsrc is-live=true num-buffers=470 ! audio/x-raw,rate=48000,channels=2 ! avenc_aac ! queue ! mux."
    )
    start_program(command.split())
    server.wait_tracks(2, timeout_s=20)
    media = play(server, "flv", "live", tmp_path / "out.flv")
    assert sorted(media.codecs.values()) == ["aac", "h264"]
    assert len(media.of("video")) > 150
    steps = [b.dts_us - a.dts_us for a, b in zip(media.of("video"), media.of("video")[1:], strict=False)]
    assert min(steps) > 0
    assert (
        5_000_000 < sum(steps) < 15_000_000
    )  # GStreamer stamps with its clock: a busy machine makes single steps long


@pytest.mark.tools("gst-launch-1.0", "ffmpeg")
@pytest.mark.parametrize("output", ["rtmp", "flv", "ts", "mp4", "mkv"])
def test_gstreamer_plays(server: MistServer, publish: Publish, start_program: StartProgram, output: str) -> None:
    publish(server, LONG)
    server.wait_tracks(2)
    source = {
        "rtmp": f"rtmp2src location={server.play_url('rtmp')} ! flvdemux name=d",
        "flv": f"souphttpsrc location={server.play_url('flv')} ! flvdemux name=d",
        "ts": f"souphttpsrc location={server.play_url('ts')} ! tsdemux name=d",
        "mp4": f"souphttpsrc location={server.play_url('mp4')} ! qtdemux name=d",
        "mkv": f"souphttpsrc location={server.play_url('mkv')} ! matroskademux name=d",
    }[output]
    sinks = (
        "d. ! queue ! h264parse ! avdec_h264 ! fakesink num-buffers=100 sync=false "
        "d. ! queue ! aacparse ! avdec_aac ! fakesink sync=false"
    )
    player = start_program(f"gst-launch-1.0 -q {source} {sinks}".split())
    assert player.wait(40) == 0, player.output
    assert "ERROR" not in player.output


@pytest.mark.tools("gst-launch-1.0", "ffmpeg")
def test_gstreamer_plays_hls(server: MistServer, publish: Publish, start_program: StartProgram, tmp_path: Path) -> None:
    """Looked at from outside and then killed: GStreamer 1.22 now and then crashes when its HLS client is ended politely."""
    source = read_media(LONG.flv())
    publish(server, LONG)
    server.wait_tracks(2)
    _wait_hls(server)
    target = tmp_path / "out.ts"
    address = server.play_url("hls")
    player = start_program(
        f"gst-launch-1.0 -q souphttpsrc location={address} ! hlsdemux ! filesink location={target}".split()
    )
    wait_until(lambda: target.exists() and target.stat().st_size > ENOUGH_BYTES, 30, "four seconds of HLS")
    player.kill()
    media = read_media(target)
    whole = SeenMedia(media.codecs, [one for one in media.packets if one.dts_us < media.packets[-1].dts_us - 500_000])
    compare(source, whole, tolerance_us=1000)


def _wait_hls(server: MistServer) -> None:
    def listed() -> bool:
        try:
            return len(media_playlist(variants(server.play_url("hls"))[0]).segments) >= 3
        except (OSError, AssertionError, IndexError):
            return False

    wait_until(listed, 20, "an HLS playlist with three segments")


@pytest.mark.tools("rtmpdump", "ffmpeg")
def test_rtmpdump_records(server: MistServer, publish: Publish, start_program: StartProgram, tmp_path: Path) -> None:
    """librtmp does the complex handshake and knows only what Flash knew; what it writes equals the source."""
    source = read_media(SAMPLE.flv())
    publish(server, SAMPLE)
    server.wait_tracks(2)
    target = tmp_path / "out.flv"
    command = [find_tool("rtmpdump"), "-q", "--live", "-r", server.play_url("rtmp"), "-o", str(target)]
    recorder = start_program(command)
    assert recorder.wait(SAMPLE.seconds + 20) in (0, 2), recorder.output  # 2: ended before its idea of a duration
    compare(source, read_media(target), tolerance_us=0)


@pytest.mark.tools("cvlc", "ffmpeg")
@pytest.mark.parametrize("output", ["rtmp", "flv", "ts", "mp4", "hls"])
def test_vlc_plays(server: MistServer, publish: Publish, start_program: StartProgram, output: str) -> None:
    """VLC plays for some seconds and writes what it demuxed; the file must hold pictures and sound in order."""
    publish(server, LONG)
    server.wait_tracks(2)
    if output == "hls":
        _wait_hls(server)
    # VLC refuses to run as root: make it somebody else, with a folder that it may write.
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.getuid() == 0 else ()
    with TemporaryDirectory(prefix="mist-vlc-") as folder:
        Path(folder).chmod(0o777)
        target = Path(folder, "vlc.ts")
        sink = f"--sout=#standard{{access=file,mux=ts,dst={target}}}"
        options = ("--no-color", "--run-time=8", "--play-and-exit", sink, server.play_url(output), "vlc://quit")
        player = start_program([*somebody, find_tool("cvlc"), *options], env={**os.environ, "HOME": folder})
        player.wait(45)
        assert target.exists(), player.output
        media = read_media(target)
        assert len(media.of("video")) > 60, player.output
        assert len(media.of("audio")) > 100, player.output


@pytest.mark.tools("cvlc", "ffmpeg")
def test_vlc_plays_the_sound_of_fragments(server: MistServer, publish: Publish, start_program: StartProgram) -> None:
    """What VLC would play at the right times, rather than what it demuxes: it drops what comes too late."""
    publish(server, LONG)
    server.wait_tracks(2)
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.getuid() == 0 else ()
    with TemporaryDirectory(prefix="mist-vlc-") as folder:
        Path(folder).chmod(0o777)
        heard = Path(folder, "heard.wav")
        sinks = ("--aout=afile", f"--audiofile-file={heard}", "--vout=dummy")
        options = ("--no-color", "--run-time=6", "--play-and-exit", *sinks, server.play_url("mp4"), "vlc://quit")
        player = start_program([*somebody, find_tool("cvlc"), *options], env={**os.environ, "HOME": folder})
        player.wait(45)
        assert heard.exists(), player.output
        assert heard.stat().st_size > 3 * 48000 * 4, player.output


@pytest.mark.tools("curl", "ffmpeg")
@pytest.mark.parametrize("version", ["--http1.0", "--http1.1"])
def test_curl_records(
    server: MistServer, publish: Publish, start_program: StartProgram, tmp_path: Path, version: str
) -> None:
    source = read_media(SAMPLE.flv())
    publish(server, SAMPLE)
    server.wait_tracks(2)
    target = tmp_path / "out.flv"
    command = [find_tool("curl"), "-sS", "--fail", version, "-o", str(target), server.play_url("flv")]
    recorder = start_program(command)
    assert recorder.wait(SAMPLE.seconds + 20) == 0, recorder.output
    compare(source, read_media(target), tolerance_us=0)


@pytest.mark.tools("nginx", "ffmpeg")
@pytest.mark.skipif(rtmp_module() is None, reason="nginx has no RTMP module")
def test_nginx_relays_into_the_server(server: MistServer, start_program: StartProgram, tmp_path: Path) -> None:
    source = read_media(SAMPLE.flv())
    with Nginx(tmp_path, rtmp=f"push {server.rtmp_url}/live/live;") as relay:
        start_program(SAMPLE.publish_command(relay.url("anything")))
        server.wait_tracks(2)
        media = play(server, "flv", "live", tmp_path / "out.flv")
    compare(source, media, tolerance_us=0)


@pytest.mark.tools("nginx", "ffmpeg")
@pytest.mark.skipif(rtmp_module() is None, reason="nginx has no RTMP module")
def test_nginx_pulls_from_the_server(server: MistServer, publish: Publish, tmp_path: Path) -> None:
    source = read_media(SAMPLE.flv())
    with Nginx(tmp_path, rtmp=f"pull {server.rtmp_url}/play/live name=copy static; record off;") as relay:
        publish(server, SAMPLE)
        server.wait_tracks(2)
        media = read_media(relay.url("copy"), timeout_s=15, seconds=4)
    compare(source, media, tolerance_us=1000)


@pytest.mark.tools("ffmpeg")
def test_pyav_plays_every_output(server: MistServer, publish: Publish) -> None:
    """PyAV's FFmpeg reads each address by itself, RTMP too."""
    source = read_media(LONG.flv())
    publish(server, LONG)
    server.wait_tracks(2)
    for output in ("rtmp", "flv", "ts", "mp4"):
        compare(source, read_media(server.play_url(output), seconds=3), tolerance_us=1000)


def test_keep_alive_serves_many_requests_on_one_connection(server: MistServer, publish: Publish) -> None:
    publish(server, SAMPLE)
    server.wait_tracks(2)
    connection = http.client.HTTPConnection("127.0.0.1", server.http_port, timeout=5)
    connection.connect()
    first = connection.sock
    for path in ("/json_live.js", "/live.html", "/nosuch.flv", "/json_live.js"):
        connection.request("GET", path)
        reply = connection.getresponse()
        reply.read()
        assert reply.status == (404 if "nosuch" in path else 200)
        assert connection.sock is first, f"the connection was closed after {path}"
    connection.close()


def test_cross_origin_preflight(server: MistServer) -> None:
    request = urllib.request.Request(server.http_url + "/json_live.js", method="OPTIONS")
    with urllib.request.urlopen(request, timeout=5) as reply:
        assert reply.status in (200, 204)
        assert reply.headers["Access-Control-Allow-Origin"] == "*"

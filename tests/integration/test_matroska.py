"""Matroska and WebM over HTTP: which form a stream gets, and that a browser plays it."""

from __future__ import annotations

import urllib.request
from collections.abc import Iterator

import pytest

from tests.integration.conftest import MakeServer, Publish
from tests.support.browser import Browser
from tests.support.media import AV1, BFRAMES, OPUS, Sample
from tests.support.server import MistServer

pytestmark = pytest.mark.tools("ffmpeg", "ffmpeg-new")

WEB = Sample("av1-opus", AV1, OPUS, tool="ffmpeg-new", seconds=20)
PLAIN = Sample("bframes", BFRAMES, seconds=20)
PAGE = """new Promise(done => {
  const video = document.createElement('video'); video.muted = true; video.src = 'ADDRESS'; document.body.append(video);
  video.onerror = () => done('error ' + video.error.message);
  const begin = Date.now();
  const look = setInterval(() => {
    const frames = video.getVideoPlaybackQuality().totalVideoFrames;
    if (frames > 25 || Date.now() - begin > 40000) { clearInterval(look); done(frames + ' ' + video.videoWidth); }
  }, 50);
  video.play();
})"""


@pytest.fixture
def web_server(make_server: MakeServer, publish: Publish) -> Iterator[MistServer]:
    """Start a server with a stream of WebM's codecs and one of others."""
    server = make_server()
    for name, sample in (("live+web", WEB), ("live+plain", PLAIN)):
        publish(server, sample, name, loop=True)
        server.wait_tracks(2, name)
    yield server


def head(server: MistServer, path: str) -> tuple[str, bytes]:
    """Return content type and the first bytes of a reply."""
    with urllib.request.urlopen(f"{server.http_url}/{path}", timeout=15) as reply:
        return str(reply.headers["Content-Type"]), reply.read(64)


def test_forms(web_server: MistServer) -> None:
    for path, kind, document in (
        ("live+web.webm", "video/webm", b"webm"),
        ("live+web.webm?video=none", "audio/webm", b"webm"),
        ("live+web.mkv", "video/x-matroska", b"matroska"),
        ("live+plain.mkv", "video/x-matroska", b"matroska"),
        ("live+plain.mkv?video=none", "audio/x-matroska", b"matroska"),
        ("live+plain.webm", "video/x-matroska", b"matroska"),  # there is no H.264 in WebM
    ):
        found, data = head(web_server, path)
        assert found == kind, path
        assert b"\x42\x82" + bytes((0x80 | len(document),)) + document in data, path


@pytest.mark.tools("chromium")
@pytest.mark.timeout(240)
def test_chromium_plays(make_server: MakeServer, publish: Publish) -> None:
    """Streams that have just begun: with H.264 it waits for as long as the stream has run, see docs/deviations.md#matroska-times."""
    server = make_server()
    browser = Browser("--autoplay-policy=no-user-gesture-required")
    try:
        for sample, path in ((WEB, "live+web.webm"), (PLAIN, "live+plain.webm"), (PLAIN, "live+other.mkv")):
            name = path.partition(".")[0]
            browser.open(f"{server.http_url}/")
            browser.wait_for("document.readyState === 'complete' && document.body !== null")
            publish(server, sample, name, loop=True)
            server.wait_tracks(2, name)
            frames = browser.evaluate(PAGE.replace("ADDRESS", f"{server.http_url}/{path}")).split()
            assert frames[0] != "error", (path, frames)
            assert int(frames[0]) > 20, path
            assert frames[1] == "320", path
    finally:
        browser.close()

"""The player page in a real browser: it plays, says what it waits for, and goes on by itself."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.conftest import MakeServer, Publish
from tests.support.browser import Browser
from tests.support.media import NO_BFRAMES, Sample
from tests.support.server import MistServer

pytestmark = pytest.mark.tools("chromium")

PLAYING = "!mistVideo.video.paused && mistVideo.video.currentTime > 0 && mistVideo.video.readyState > 2"
# How far playback gets in a second.
MOVING = """(async () => {
  const before = mistVideo.video.currentTime;
  await new Promise((done) => setTimeout(done, 1000));
  return mistVideo.video.currentTime - before;
})()"""
# How much the picture differs from one colour: the mean distance of the pixels of a small copy from their mean.
VARIETY = """(() => {
  const canvas = document.createElement("canvas"), size = 32;
  canvas.width = canvas.height = size;
  const context = canvas.getContext("2d");
  context.drawImage(mistVideo.video, 0, 0, size, size);
  const pixels = context.getImageData(0, 0, size, size).data;
  let sum = 0, spread = 0;
  for (const value of pixels) sum += value;
  for (const value of pixels) spread += Math.abs(value - sum / pixels.length);
  return spread / pixels.length;
})()"""

LINKED = Sample("linked", NO_BFRAMES, seconds=2)
OpenBrowser = Callable[..., Browser]


@pytest.fixture
def browser() -> Iterator[Browser]:
    """Start a browser that lets nothing play with sound unless the user has clicked, as browsers do."""
    opened = Browser("--autoplay-policy=document-user-activation-required")
    yield opened
    opened.close()


def picture(browser: Browser, tmp_path: Path, name: str) -> bytes:
    """Take a screenshot; it is kept in the folder that MIST_SCREENSHOTS names."""
    folder = Path(os.environ.get("MIST_SCREENSHOTS", tmp_path))
    folder.mkdir(parents=True, exist_ok=True)
    return browser.screenshot(folder / f"{name}.png")


@pytest.fixture
def demo(make_server: MakeServer) -> MistServer:
    pytest.importorskip("av")
    return make_server(streams={"demo": {"source": "demo:?width=640&height=360"}})


def test_the_demo_plays_with_low_delay(demo: MistServer, browser: Browser, tmp_path: Path) -> None:
    demo.wait_tracks(2, "demo")
    browser.open(f"{demo.http_url}/demo.html")
    browser.wait_for("Boolean(window.mistVideo)")
    browser.wait_for(PLAYING)
    browser.wait_for(MOVING, 30, accept=lambda moved: moved > 0.8)
    browser.wait_for("mistVideo.delay()", accept=lambda delay: delay is not None and delay < 1.5)
    assert browser.evaluate("mistVideo.playerName") == "mp4"
    assert browser.evaluate(VARIETY) > 10
    browser.wait_for("mistVideo.stats.textContent", accept=lambda text: "640×360" in text and "H.264 + AAC" in text)
    assert "s delay" in browser.evaluate("mistVideo.stats.textContent")
    assert browser.evaluate("document.title") == "demo"
    # Without a click there is no sound, and a button offers it.
    assert browser.evaluate("mistVideo.video.muted && !mistVideo.unmuteButton.hidden")
    browser.move(640, 300)
    assert len(picture(browser, tmp_path, "player")) > 10_000
    browser.click(640, 34)
    browser.wait_for("!mistVideo.video.muted && mistVideo.unmuteButton.hidden && !mistVideo.video.paused")
    assert browser.console == []


def test_keys_and_buttons(demo: MistServer, browser: Browser) -> None:
    browser.open(f"{demo.http_url}/demo.html?muted")
    browser.wait_for("Boolean(window.mistVideo)")
    browser.wait_for(PLAYING)
    browser.press("k")
    browser.wait_for("mistVideo.video.paused && mistVideo.playButton.title === 'Play'")
    browser.evaluate("new Promise((r) => setTimeout(r, 1500))")
    browser.press("k")
    browser.wait_for(PLAYING)
    browser.wait_for("mistVideo.delay() < 1")  # a live stream goes on at its live edge
    browser.press("m")
    browser.wait_for("!mistVideo.video.muted && mistVideo.muteButton.getAttribute('aria-label') === 'Mute'")
    browser.press("f")
    browser.wait_for("document.fullscreenElement === mistVideo.container")
    unlabelled = "[...document.querySelectorAll('button, input')].filter((e) => !e.getAttribute('aria-label')).length"
    assert browser.evaluate(unlabelled) == 0


def test_small_screens(demo: MistServer, browser: Browser, tmp_path: Path) -> None:
    browser.resize(390, 700)
    browser.open(f"{demo.http_url}/demo.html")
    browser.wait_for("Boolean(window.mistVideo)")
    browser.wait_for(PLAYING)
    picture(browser, tmp_path, "player-phone")
    assert browser.evaluate("document.documentElement.scrollWidth") == 390
    box = browser.evaluate("(({left, right}) => [left, right])(mistVideo.fullButton.getBoundingClientRect())")
    assert box[0] >= 0 and box[1] <= 390


def test_a_page_may_be_open_before_the_stream(
    server: MistServer, publish: Publish, browser: Browser, tmp_path: Path
) -> None:
    browser.open(f"{server.http_url}/live.html")
    browser.wait_for("Boolean(window.mistVideo)")
    browser.wait_for("mistVideo.stateBox.textContent", accept=lambda text: "offline" in text or "Waiting" in text)
    picture(browser, tmp_path, "player-offline")
    sender = publish(server, Sample("plain"), loop=True)
    browser.wait_for(PLAYING, 30)
    browser.wait_for("mistVideo.stateBox.hidden")
    sender.stop()
    browser.wait_for("mistVideo.stateBox.hidden", 30, accept=lambda hidden: not hidden)
    before = browser.evaluate("mistVideo.video.currentTime")
    picture(browser, tmp_path, "player-ended")
    publish(server, Sample("plain"), loop=True)
    browser.wait_for(PLAYING + f" && mistVideo.stateBox.hidden && mistVideo.video.currentTime != {before}", 30)
    browser.wait_for(MOVING, 30, accept=lambda moved: moved > 0.5)


def test_an_unknown_stream_says_so(server: MistServer, browser: Browser) -> None:
    browser.open(f"{server.http_url}/nothing.html")
    browser.wait_for("Boolean(window.mistVideo)")
    browser.wait_for("mistVideo.stateBox.textContent", accept=lambda text: "offline" in text)


def test_the_bare_address_leads_to_a_player(demo: MistServer, browser: Browser, tmp_path: Path) -> None:
    browser.open(f"{demo.http_url}/")
    browser.wait_for("document.activeElement?.id === 'stream'")
    picture(browser, tmp_path, "index")
    browser.evaluate("document.getElementById('stream').value = 'demo'; document.querySelector('button').click()")
    browser.wait_for("location.pathname === '/demo.html' && Boolean(window.mistVideo)")


def test_the_status_page_links_to_what_plays(make_server: MakeServer, browser: Browser, tmp_path: Path) -> None:
    """A folder is no stream, its files are; a file of it that is watched has links as every stream."""
    (tmp_path / "a.flv").write_bytes(LINKED.flv().read_bytes())
    server = make_server(streams={"films": {"source": f"{tmp_path}/"}, "live": {"source": "push://"}})
    server.get("/films%2Ba.flv.ts")
    browser.open(f"http://127.0.0.1:{server.api_port}/")
    rows = "Object.fromEntries([...document.querySelectorAll('#streams tr')].map((row) => [row.querySelector('strong').textContent, "
    cells = "[row.lastChild.textContent, [...row.lastChild.querySelectorAll('a')].map((link) => new URL(link.href).pathname)]]))"
    found = browser.wait_for(
        f"document.querySelector('#streams strong') && {rows}{cells}", accept=lambda found: found and len(found) == 3
    )
    assert found["films"] == ["each file, as films+FILE", []]
    assert found["live"][1][:2] == ["/live.html", "/hls/live/index.m3u8"]
    assert found["films+a.flv"][1][2] == "/films%2Ba.flv.flv"

"""Each parameter of a target on another server, by what arrives there."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator

import pytest

from tests.integration.conftest import SendTo
from tests.support.live import FRAME_MS, GOP, Sender
from tests.support.processes import wait_until
from tests.support.rtmp_server import Published, RtmpServer
from tests.support.server import MistServer

MARK = re.compile(rb"<(\d{8})>")
BUFFERED = 60  # pictures that are there before the pushes begin
DELAY_S = 1.6
STOP_MS = 2200
TARGETS = {
    "plain": "",
    "keepts": "keepts",
    "mute": "audio=none",
    "blind": "video=none&waittrackcount=1",
    "graceless": "graceless",
    "delayed": f"pushdelay={DELAY_S}",
    "short": "duration=1",
    "stopped": f"start=1&stop={STOP_MS}&rate=0",
    "realtime": "start=1&realtime",
    "fresh": "waitkey",
    "elsewhere": "app=other/app&stream=renamed",
    "theirs?a=b": "mine=no",
}


@pytest.fixture(scope="module")
def sink() -> Iterator[RtmpServer]:
    with RtmpServer() as started:
        yield started


def numbers(one: Published, kind: str = "video") -> list[int]:
    """Return the numbers of the packets that arrived."""
    return [int(found[1]) for packet in one.of(kind) if (found := MARK.search(packet.payload))]


def test_parameters(sink: RtmpServer, send_to: SendTo) -> None:
    with MistServer(streams={"live": {"source": "push://", "inputtimeout": 2}}) as server:
        sender = send_to(server)
        sender.send([1000 + n * FRAME_MS for n in range(BUFFERED)], headers=True)
        server.wait_tracks(2)
        for name, query in TARGETS.items():
            separator = "&" if "?" in name else "?"
            server.api({"push_start": ["live", f"{sink.url(stream=name)}{separator if query else ''}{query}"]})
        keep_sending(sender, server)
        found = published(sink)
        check_beginnings(found)
        check_ends(found)
        assert not sink.errors


def keep_sending(sender: Sender, server: MistServer) -> None:
    """Send in real time until the delayed push is well on its way, then end all."""
    first, began = sender.number, time.monotonic()
    while (sent := sender.number - first) < 150:
        time.sleep(
            max(0.0, began + sent * FRAME_MS / 1000 - time.monotonic())
        )  # by the clock, however busy the machine is
        sender.send([1000 + sender.number * FRAME_MS], pace_s=0)
    wait_until(
        lambda: len(server.api({"push_list": 1})["push_list"]) == len(TARGETS) - 2, 20, "the two that end by themselves"
    )
    server.api({"push_stop": "live"})
    wait_until(lambda: not server.api({"push_list": 1})["push_list"], 20, "the end of the pushes")
    sender.close()


def published(sink: RtmpServer) -> dict[str, Published]:
    wait_until(lambda: all(one.end for one in sink.published), 10, "all ends")
    return {one.name: one for one in sink.published}


def check_beginnings(found: dict[str, Published]) -> None:
    assert set(found) == {*TARGETS, "renamed", "theirs?a=b&mine=no"} - {"elsewhere", "theirs?a=b"}
    assert found["renamed"].app == "other/app"
    for name, one in found.items():
        kind = "audio" if name == "blind" else "video"
        seen = numbers(one, kind)
        assert seen == list(range(seen[0], seen[0] + len(seen))), name
        assert kind == "audio" or seen[0] % GOP == 0, name
    assert not found["mute"].of("audio") and found["plain"].of("audio")
    assert not found["blind"].of("video")
    first = numbers(found["plain"])[0]
    assert found["plain"].of("video")[0].dts_us == 0
    # Where a stream begins is the server's to say; the distance to the beginning is not.
    kept = found["keepts"].of("video")[0].dts_us // 1000
    assert kept >= numbers(found["keepts"])[0] * FRAME_MS
    assert first >= BUFFERED - GOP
    assert numbers(found["fresh"])[0] >= BUFFERED, "the keyframe was there before"
    assert numbers(found["realtime"])[0] == 0


def check_ends(found: dict[str, Published]) -> None:
    assert found["plain"].end in ("FCUnpublish", "deleteStream")
    assert found["graceless"].end == "EOF"
    short = numbers(found["short"])
    assert 1000 // FRAME_MS - 2 <= len(short) <= 1000 // FRAME_MS + GOP + 1
    stopped = found["stopped"].of("video")
    assert stopped and stopped[-1].dts_us - stopped[0].dts_us < STOP_MS * 1000
    newest = numbers(found["plain"])[-1]
    delay = (newest - numbers(found["delayed"])[-1]) * FRAME_MS
    assert delay >= DELAY_S * 1000 - 2 * FRAME_MS, "the delayed push is not as far behind as it should be"
    behind = (newest - numbers(found["realtime"])[-1]) * FRAME_MS
    assert behind >= (BUFFERED - 2 * GOP) * FRAME_MS, "what is to keep its distance has come nearer"

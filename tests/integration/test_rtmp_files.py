"""Files played on demand over RTMP: positions, pauses and ends as players know them."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest

from tests.conftest import StartProgram
from tests.support.media import BFRAMES, Sample
from tests.support.packets import SeenMedia, compare, read_media
from tests.support.rtmp_peer import AUDIO, COMMAND, DATA, VIDEO, Message, Refused, RtmpPeer
from tests.support.server import MistServer
from tests.support.tools import find_tool, run

pytestmark = pytest.mark.tools("ffmpeg", "ffprobe")

USER_CONTROL, SET_BUFFER_LENGTH, STREAM_EOF, STREAM_IS_RECORDED = 4, 3, 1, 4
EVERYTHING_MS = 3_600_000
FILM = Sample("film", BFRAMES, seconds=30, keyframe_s=2)


@pytest.fixture(scope="module")
def vod() -> Iterator[MistServer]:
    with MistServer(streams={"film": {"source": str(FILM.flv())}}) as server:
        yield server


@pytest.fixture(scope="module")
def source() -> SeenMedia:
    return read_media(FILM.flv())


def begin(peer: RtmpPeer, name: str, *times: float, buffer_ms: int = EVERYTHING_MS) -> None:
    peer.connect("play")
    peer.stream_id = int(peer.call("createStream", None)[1])
    peer.command("play", None, name, *times, stream_id=peer.stream_id)
    peer.send(USER_CONTROL, 0, struct.pack(">HII", SET_BUFFER_LENGTH, peer.stream_id, buffer_ms), stream_id=0)


def code_of(message: Message) -> str:
    values = message.values if message.kind == COMMAND else []
    return str(values[3].get("code", "")) if values and values[0] == "onStatus" else ""


def until(peer: RtmpPeer, code: str) -> list[Message]:
    """Return the messages up to a status."""
    found = []
    for message in peer.messages():
        found.append(message)
        if code_of(message) == code:
            return found
    raise AssertionError(f"the connection ended before {code}: {[code_of(one) for one in found]}")


def frames(messages: list[Message]) -> list[Message]:
    """Return the coded pictures."""
    return [one for one in messages if one.kind == VIDEO and one.payload[1] == 1]


def controls(messages: list[Message]) -> list[int]:
    return [int.from_bytes(one.payload[:2], "big") for one in messages if one.kind == USER_CONTROL]


def metadata(messages: list[Message]) -> list[dict[str, Any]]:
    return [one.values[1] for one in messages if one.kind == DATA and one.values[0] == "onMetaData"]


def test_a_file_is_played_to_its_end(vod: MistServer, source: SeenMedia, tmp_path: Path) -> None:
    vod.get("/film.mp4")  # its length is known from here on
    with RtmpPeer(vod.rtmp_port, timeout_s=20) as peer:
        begin(peer, "film", -2000)
        messages = until(peer, "NetStream.Play.Stop")
    status = [code for one in messages if (code := code_of(one))]
    assert status == ["NetStream.Play.Reset", "NetStream.Play.Start", "NetStream.Play.Stop"]
    assert controls(messages)[-1] == STREAM_EOF and STREAM_IS_RECORDED in controls(messages)
    [complete] = [one.values[1] for one in messages if one.kind == DATA and one.values[0] == "onPlayStatus"]
    assert complete["code"] == "NetStream.Play.Complete" and 29.0 < complete["duration"] < 30.1
    [properties] = metadata(messages)
    assert abs(properties["duration"] - 30.0) < 0.1 and properties["width"] == 320
    pictures = source.of("video")
    assert [one.timestamp_ms * 1000 for one in frames(messages)] == [one.dts_us for one in pictures]
    assert len([one for one in messages if one.kind == AUDIO and one.payload[1] == 1]) == len(source.of("audio"))


def test_seeking_goes_to_the_keyframe_before(vod: MistServer) -> None:
    with RtmpPeer(vod.rtmp_port, timeout_s=20) as peer:
        begin(peer, "film", 0, buffer_ms=100)
        until(peer, "NetStream.Play.Start")
        for asked_ms, first_ms in ((21_500, 20_000), (5_000, 4_000), (999_000, 28_000)):
            peer.command("seek", None, asked_ms, stream_id=peer.stream_id)
            until(peer, "NetStream.Seek.Notify")
            begun = []
            for message in peer.messages():
                begun.append(message)
                if frames(begun):
                    break
            [key] = frames(begun)
            assert key.payload[0] == 0x17 and key.timestamp_ms == first_ms
            assert STREAM_IS_RECORDED in controls(begun) and metadata(begun)
            assert [one.payload[1] for one in begun if one.kind == VIDEO] == [0, 1], "parameter sets come first"
        until(peer, "NetStream.Play.Stop")
        peer.command("seek", None, 26_000, stream_id=peer.stream_id)  # after the end
        rest = until(peer, "NetStream.Play.Stop")
        assert frames(rest)[0].timestamp_ms == 26_000 and len(frames(rest)) == 100


def test_a_pause_loses_nothing(vod: MistServer, source: SeenMedia) -> None:
    with RtmpPeer(vod.rtmp_port, timeout_s=20) as peer:
        begin(peer, "film?rate=20", 0, buffer_ms=100)
        messages = until(peer, "NetStream.Play.Start")
        for number in range(3):
            peer.command("pause", None, True, number, stream_id=peer.stream_id)
            messages += until(peer, "NetStream.Pause.Notify")
            number_of = peer.command("ping", None)  # answered while nothing else comes
            for message in peer.messages():
                messages.append(message)
                if message.kind == COMMAND and message.values[:2] == ["_result", number_of]:
                    break
            peer.command("pause", None, False, number, stream_id=peer.stream_id)
            messages += until(peer, "NetStream.Unpause.Notify")
        messages += until(peer, "NetStream.Play.Stop")
    times = [one.timestamp_ms for one in frames(messages)]
    assert [time * 1000 for time in times] == [one.dts_us for one in source.of("video")]


@pytest.mark.parametrize(
    ("name", "times", "first_ms", "last_ms"),
    [
        ("film", (9_000,), 8_000, 29_960),
        ("film", (9_000, 3_000), 8_000, 11_960),
        ("film?start=20000&stop=24000", (), 20_000, 23_960),
        ("film?duration=2", (-1_000, -1_000), 0, 1_960),
    ],
)
def test_start_and_length(vod: MistServer, name: str, times: tuple[float, ...], first_ms: int, last_ms: int) -> None:
    with RtmpPeer(vod.rtmp_port, timeout_s=20) as peer:
        begin(peer, name, *times)
        found = [one.timestamp_ms for one in frames(until(peer, "NetStream.Play.Stop"))]
    assert (found[0], found[-1]) == (first_ms, last_ms)
    assert all(before < after for before, after in pairwise(found))


def test_what_cannot_be_played_is_refused(vod: MistServer) -> None:
    with RtmpPeer(vod.rtmp_port, timeout_s=20) as peer, pytest.raises(Refused, match=r"Play\.Failed"):
        peer.play("film?audio=none&video=none")


@pytest.mark.tools("rtmpdump")
def test_rtmpdump_copies_a_file(vod: MistServer, source: SeenMedia, tmp_path: Path) -> None:
    """It says that it buffers ten hours, and so gets the whole at once."""
    target = tmp_path / "out.flv"
    done = run([find_tool("rtmpdump"), "-q", "-r", vod.play_url("rtmp", "film"), "-o", str(target)], 60, check=False)
    assert done.returncode in (0, 2), done.stderr
    assert not any(sum(one) for one in compare(source, read_media(target), tolerance_us=0).values())
    part = tmp_path / "part.flv"
    run([find_tool("rtmpdump"), "-q", "-A", "20", "-r", vod.play_url("rtmp", "film"), "-o", str(part)], 60, check=False)
    [wanted] = [one for one in source.of("video") if one.dts_us == 20_000_000]
    assert read_media(part).of("video")[0].digest == wanted.digest


def test_ffmpeg_plays_and_seeks(vod: MistServer, source: SeenMedia, tmp_path: Path) -> None:
    url = vod.play_url("rtmp", "film") + "?rate=0"
    done = run([find_tool("ffmpeg"), "-v", "error", "-xerror", "-i", url, "-f", "null", "-"], 60)
    assert not done.stderr and done.returncode == 0, done.stderr
    shown = run([find_tool("ffprobe"), "-v", "error", "-show_packets", "-of", "json", url], 60)
    packets = json.loads(shown.stdout)["packets"]
    assert len([one for one in packets if one["codec_type"] == "video"]) == len(source.of("video"))
    seek = (
        "-v",
        "error",
        "-ss",
        "20",
        "-i",
        url.replace("rate=0", "rate=10"),
        "-c",
        "copy",
        "-copyts",
        "-y",
        str(tmp_path / "part.flv"),
    )
    assert run([find_tool("ffmpeg"), *seek], 60).returncode == 0
    assert 18_000_000 <= read_media(tmp_path / "part.flv").of("video")[0].dts_us <= 20_000_000


@pytest.mark.tools("cvlc")
def test_vlc_plays(vod: MistServer, start_program: StartProgram) -> None:
    somebody = ("setpriv", "--reuid=65534", "--regid=65534", "--clear-groups") if os.getuid() == 0 else ()
    with TemporaryDirectory(prefix="mist-vlc-") as folder:
        Path(folder).chmod(0o777)
        target = Path(folder, "vlc.ts")
        sink = f"--sout=#standard{{access=file,mux=ts,dst={target}}}"
        options = ("--no-color", "--run-time=6", "--play-and-exit", sink, vod.play_url("rtmp", "film"), "vlc://quit")
        player = start_program([*somebody, find_tool("cvlc"), *options], env={**os.environ, "HOME": folder})
        player.wait(40)
        seen = read_media(target)
        assert len(seen.of("video")) > 50 and len(seen.of("audio")) > 50

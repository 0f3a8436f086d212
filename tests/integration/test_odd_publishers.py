"""Publishers whose tracks come late, pause, end or change: what viewers of each live format get."""

from __future__ import annotations

import hashlib
import json
import re
import socket
import struct
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from urllib.error import HTTPError

import pytest

from tests.support.hls_client import MediaPlaylist, fetch, media_playlist, variants
from tests.support.live import MARK, Watcher, marks, viewer, wait_mark
from tests.support.media import HEVC, Sample
from tests.support.packets import read_media
from tests.support.processes import wait_until
from tests.support.rtmp_peer import AUDIO, DATA, VIDEO, RtmpPeer, amf_write
from tests.support.server import MistServer
from tests.support.tools import find_tool

FRAME_MS = 40
GOP = 25
SOUND = 10_000_000  # is added to a sound's number

STREAMS = {"live": {"source": "push://127.0.0.1", "inputtimeout": 60}}


@pytest.fixture(scope="module")
def served() -> Iterator[MistServer]:
    with MistServer(streams=STREAMS) as server:
        yield server


class Publisher:
    """Sends pictures and sound, each with its number, twenty times as fast as they would play."""

    def __init__(self, server: MistServer, stream: str) -> None:
        self.peer = RtmpPeer(server.rtmp_port)
        self.peer.publish(stream)

    def send(self, from_s: float, to_s: float, *, picture: bool = True, sound: bool = True) -> None:
        for number in range(round(from_s * 25), round(to_s * 25)):
            if picture:
                self.peer.send_video(number * FRAME_MS, f"<{number:08d}>".encode() + bytes(150), key=number % GOP == 0)
            if sound:
                self.peer.send_audio(number * FRAME_MS + 5, f"<{number + SOUND:08d}>".encode() + bytes(60))
            time.sleep(0.002)  # the network's pace, not a wait for something

    def close(self) -> None:
        self.peer.socket.close()


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as opened:
        yield opened


def publisher(stack: ExitStack, server: MistServer, stream: str, **headers: bool) -> Publisher:
    one = Publisher(server, stream)
    stack.callback(one.close)
    one.peer.send_headers(**headers)
    return one


def watch(stack: ExitStack, server: MistServer, stream: str, suffix: str) -> Watcher:
    sock = socket.create_connection(("127.0.0.1", server.http_port), 10)
    sock.sendall(f"GET /{stream.replace('+', '%2B')}.{suffix} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
    watcher = Watcher(sock)
    stack.callback(watcher.close)
    return watcher


def split(numbers: list[int]) -> tuple[list[int], list[int]]:
    """Return the numbers of pictures and of sounds."""
    return [one for one in numbers if one < SOUND], [one - SOUND for one in numbers if one >= SOUND]


def hls_marks(url: str) -> tuple[list[int], list[int]]:
    """Return the numbers of what all segments of a media playlist hold, which must follow each other."""
    playlist = media_playlist(url)
    return split([int(one) for _, name in playlist.segments for one in MARK.findall(fetch(name))])


def end_s(url: str) -> float:
    """Return where the last segment of a media playlist ends."""
    return int(media_playlist(url).segments[-1][1].rpartition("_")[2].partition(".")[0]) / 1000


def assert_goes_on(before: MediaPlaylist, after: MediaPlaylist) -> None:
    """A number that both lists have is the same segment in both, and there are such numbers."""
    listed = dict(enumerate(before.segments, before.first_number))
    again = dict(enumerate(after.segments, after.first_number))
    assert len(again) > len(listed)
    assert listed.keys() & again.keys() or after.first_number == before.first_number + len(listed)
    assert all(again[number] == listed[number] for number in listed.keys() & again.keys())


def whole(numbers: list[int], *parts: range) -> bool:
    return numbers == [number for part in parts for number in part][-len(numbers) :] and len(numbers) > 0


def test_a_picture_that_pauses(served: MistServer, stack: ExitStack) -> None:
    """Twenty seconds without pictures: nobody waits, the sound is whole everywhere, and the picture goes on in step."""
    stream = "live+pause"
    sender = publisher(stack, served, stream)
    sender.send(0, 3)
    watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts", "mp4", "mkv")}
    messages = stack.enter_context(viewer(served, stream))
    sender.send(3, 6)
    media = variants(served.play_url("hls", stream))[0]
    before = media_playlist(media)
    sender.send(6, 26, picture=False)
    wait_until(lambda: end_s(media) > 17, 10, "segments without pictures")
    late = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts", "mp4", "mkv")}
    sender.send(26, 32)
    last = SOUND + 32 * 25 - 1
    for suffix, watcher in watchers.items():
        watcher.wait_mark(last)
        pictures, sounds = split(watcher.marks())
        assert whole(pictures, range(6 * 25), range(26 * 25, 32 * 25)), (suffix, pictures)
        assert whole(sounds, range(32 * 25)), (suffix, sounds)
    for suffix, watcher in late.items():
        watcher.wait_mark(last)
        pictures, sounds = split(watcher.marks())
        assert sounds[0] > 20 * 25, (suffix, "one who joins in the pause begins with the sound of now")
        assert whole(sounds, range(sounds[0], 32 * 25))
        assert whole(pictures, range(26 * 25, 32 * 25)), (suffix, pictures)
    wait_mark(messages, 32 * 25 - 1)
    assert whole([one for one, _ in marks(messages, VIDEO)], range(6 * 25), range(26 * 25, 32 * 25))
    after = media_playlist(media)
    assert_goes_on(before, after)
    assert after.target_s == before.target_s
    pictures, sounds = hls_marks(media)
    assert whole(pictures, range(6 * 25), range(26 * 25, pictures[-1] + 1))
    assert whole(sounds, range(sounds[-1] + 1))
    assert pictures[-1] >= 29 * 25


def test_a_picture_that_comes_late(served: MistServer, stack: ExitStack) -> None:
    """Who began with sound alone keeps its list; who comes later has both from where the picture begins."""
    stream = "live+late"
    sender = publisher(stack, served, stream, video=False)
    sender.send(0, 8, picture=False)
    watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts")}
    alone = variants(served.play_url("hls", stream))[0]
    heard = media_playlist(alone)
    sender.peer.send_headers(8000, audio=False)
    to_s = 16
    sender.send(8, to_s)
    while to_s < 60 and not all(split(watcher.marks())[0] for watcher in watchers.values()):
        sender.send(to_s, to_s + 1)  # they take the picture up at a keyframe, when they have heard of it
        to_s += 1
    last = SOUND + to_s * 25 - 1
    for suffix, watcher in watchers.items():
        watcher.wait_mark(last)
        pictures, sounds = split(watcher.marks())
        assert whole(pictures, range(8 * 25, to_s * 25)), (suffix, pictures)
        assert whole(sounds, range(to_s * 25)), (suffix, sounds)
    assert_goes_on(heard, media_playlist(alone))
    assert whole(hls_marks(alone)[1], range(hls_marks(alone)[1][-1] + 1))
    both = variants(served.play_url("hls", stream))[0]
    pictures, sounds = hls_marks(both)
    assert pictures[0] == 8 * 25
    assert whole(sounds, range(sounds[-1] + 1))


def test_sound_that_comes_late_and_ends(served: MistServer, stack: ExitStack) -> None:
    """Sound that begins after eight seconds and ends ten later: the picture waits for it neither time."""
    stream = "live+sound"
    sender = publisher(stack, served, stream, audio=False)
    sender.send(0, 8, sound=False)
    watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts")}
    sender.peer.send_headers(8000, video=False)
    until_s = 18
    sender.send(8, until_s)
    while until_s < 60 and not all(split(watcher.marks())[1] for watcher in watchers.values()):
        sender.send(until_s, until_s + 1)
        until_s += 1
    both = variants(served.play_url("hls", stream))[0]
    sender.send(until_s, until_s + 16, sound=False)
    for suffix, watcher in watchers.items():
        watcher.wait_mark((until_s + 16) * 25 - 1)
        pictures, sounds = split(watcher.marks())
        assert whole(pictures, range((until_s + 16) * 25)), (suffix, pictures)
        assert whole(sounds, range(8 * 25, until_s * 25)), (suffix, sounds)
    wait_until(lambda: end_s(both) >= until_s + 14, 10, "segments without sound")
    pictures, sounds = hls_marks(both)
    assert whole(pictures, range(pictures[-1] + 1))
    assert whole(sounds, range(8 * 25, until_s * 25))


@pytest.mark.parametrize("stuck", ["picture", "sound"])
def test_a_track_whose_times_are_all_zero(served: MistServer, stack: ExitStack, stuck: str) -> None:
    """A defect of some encoders: nothing is lost, and times rise in each track."""
    stream = f"live+zero{stuck}"
    sender = publisher(stack, served, stream)
    sender.send(0, 1)
    watcher = watch(stack, served, stream, "flv")
    messages = stack.enter_context(viewer(served, stream))
    for number in range(25, 200):
        stamp = number * FRAME_MS
        mark = f"<{number:08d}>".encode() + bytes(60)
        sender.peer.send_video(0 if stuck == "picture" else stamp, mark, key=number % GOP == 0)
        sender.peer.send_audio(0 if stuck == "sound" else stamp, f"<{number + SOUND:08d}>".encode() + bytes(60))
        time.sleep(0.002)  # the network's pace, not a wait for something
    watcher.wait_mark(SOUND + 199)
    pictures, sounds = split(watcher.marks())
    assert whole(pictures, range(200))
    assert whole(sounds, range(200))
    wait_mark(messages, 199)
    for kind in (VIDEO, AUDIO):
        stamps = [stamp for _, stamp in marks(messages, kind)]
        assert all(after > before for before, after in pairwise(stamps))


RATES: dict[str, Callable[[int], int]] = {
    "1 fps": lambda number: number * 1000,
    "120 fps": lambda number: number * 25 // 3,
    "variable": lambda number: number * 40 + (number * number * 7919) % 35,
}


@pytest.mark.parametrize("rate", RATES)
def test_frame_rates(served: MistServer, stack: ExitStack, rate: str) -> None:
    """Each picture arrives, and the times are those of the source."""
    stream = f"live+rate{rate.replace(' ', '')}"
    sender = publisher(stack, served, stream, audio=False)
    count = 240 if rate == "120 fps" else 24
    messages = None
    for number in range(count):
        stamp = RATES[rate](number)
        sender.peer.send_video(stamp, f"<{number:08d}>".encode() + bytes(99), key=number % 12 == 0)
        if number == 12:
            messages = stack.enter_context(viewer(served, stream))
        time.sleep(0.002)  # the network's pace, not a wait for something
    assert messages is not None
    wait_mark(messages, count - 1)
    found = marks(messages, VIDEO)
    assert [stamp for _, stamp in found] == [RATES[rate](number) for number, _ in found]
    assert whole([number for number, _ in found], range(count))


# -- times of presentation


OFFSETS_MS = (0, 40, -40, 80, -80)


def test_composition_offsets_below_zero(served: MistServer, stack: ExitStack, tmp_path: Path) -> None:
    """Pictures that are shown before they are decoded, as some encoders write them: each comes, and no format says so where it cannot."""
    stream = "live+negative"
    sender = publisher(stack, served, stream, audio=False)
    watchers = {}
    for number in range(150):
        if number == 60:
            watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts", "mp4", "mkv")}
        mark, offset_ms = f"<{number:08d}>".encode() + bytes(99), OFFSETS_MS[number % 5]
        sender.peer.send_video(number * FRAME_MS, mark, key=number % GOP == 0, offset_ms=offset_ms)
        time.sleep(0.002)  # the network's pace, not a wait for something
    for suffix, watcher in watchers.items():
        watcher.wait_mark(149)
        numbers = watcher.marks()
        assert whole(numbers, range(150)), suffix
        target = tmp_path / f"negative.{suffix}"
        body = bytes(watcher.data)
        target.write_bytes(body[body.index(b"\r\n\r\n") + 4 :])
        seen = read_media(target).of("video")
        if suffix != "mkv":  # which has no decode times
            assert all(after.dts_us > before.dts_us for before, after in pairwise(seen)), suffix
        offsets_us = [max(one, 0) if suffix == "ts" else one for one in (one * 1000 for one in OFFSETS_MS)]
        if suffix in ("flv", "ts"):  # these say both times
            assert [one.pts_us - one.dts_us for one in seen] == (offsets_us * 30)[: len(seen)], suffix


# -- sound


MONO_44100 = b"\xaf\x00\x12\x08"


def test_sound_whose_parameters_change(served: MistServer, stack: ExitStack) -> None:
    """From 48 kHz stereo to 44.1 kHz mono: nobody waits, and what each format says of the sound is true."""
    stream = "live+mono"
    sender = publisher(stack, served, stream)
    sender.send(0, 4)
    watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts", "mp4", "mkv")}
    sender.send(4, 6)
    sender.peer.send(AUDIO, 6000, MONO_44100)
    sender.send(6, 12)
    for suffix in ("flv", "ts"):
        watchers[suffix].wait_mark(SOUND + 12 * 25 - 1)
        pictures, sounds = split(watchers[suffix].marks())
        assert whole(pictures, range(12 * 25)) and whole(sounds, range(12 * 25)), suffix
    assert MONO_44100 in watchers["flv"].data
    for number, head in ((5 * 25, 3 << 2 | 0), (8 * 25, 4 << 2 | 0)):  # ADTS: 48 kHz, 44.1 kHz
        place = watchers["ts"].data.index(f"<{number + SOUND:08d}>".encode())
        adts = watchers["ts"].data.rindex(b"\xff\xf1", place - 40, place)
        assert watchers["ts"].data[adts + 2] & 0x3C == head, number
    late = watch(stack, served, stream, "mp4")
    sender.send(12, 14)
    late.wait_mark(SOUND + 14 * 25 - 1)
    pictures, sounds = hls_marks(variants(served.play_url("hls", stream))[0])
    assert whole(pictures, range(pictures[-1] + 1)) and whole(sounds, range(sounds[-1] + 1))
    assert breaks(variants(served.play_url("hls", stream))[0]) == ["6000"]


def breaks(url: str) -> list[str]:
    """Return where the segments begin that do not continue the one before them, in ms."""
    return re.findall(r"#EXT-X-DISCONTINUITY\r\n(?:#[^\n]*\n)*(?:.*/)?(\d+)_\d+\.ts", fetch(url).decode())


def tags_with_sounds(sounds: Sequence[Sample], each_ms: int) -> list[tuple[int, int, bytes]]:
    """Return (kind, time, message): the picture of the first sample, with each sample's sound for so long."""
    found = []
    for place, sample in enumerate(sounds):
        data, at = sample.flv().read_bytes(), 13
        while at < len(data):
            kind, size = data[at], int.from_bytes(data[at + 1 : at + 4], "big")
            stamp, body = int.from_bytes(data[at + 4 : at + 7], "big"), data[at + 11 : at + 11 + size]
            at += 15 + size
            if kind == AUDIO and body[1] == 0:  # AAC's setup
                found.append((place * each_ms, kind, body))
            elif (kind == VIDEO and not place) or (kind == AUDIO and stamp // each_ms == place):
                found.append((stamp, kind, body))
    return [(kind, stamp, body) for stamp, kind, body in sorted(found, key=lambda one: one[0])]


def test_real_sound_that_changes_while_the_picture_goes_on(
    served: MistServer, stack: ExitStack, tmp_path: Path
) -> None:
    """Mono and 5.1: HLS marks both places, loses no packet, and two ffmpegs decode it all without a word."""
    stream = "live+sounds"
    shapes = ((48000, 2), (44100, 1), (48000, 6))
    samples = [Sample("sounds", seconds=8, sample_rate=rate, channels=channels) for rate, channels in shapes]
    sent = tags_with_sounds(samples, 2500)
    peer = RtmpPeer(served.rtmp_port)
    stack.callback(peer.socket.close)
    peer.publish(stream)
    for kind, stamp, body in sent:
        peer.send(kind, stamp, body)
    url = variants(served.play_url("hls", stream))[0]
    wait_until(lambda: end_s(url) > 7, 10, "segments of the last sound")
    assert [begin[:1] for begin in breaks(url)] == ["3", "5"]
    playlist = fetch(url).decode()
    media = media_playlist(url)
    for number, (_, name) in enumerate(media.segments):
        (tmp_path / f"{number}.ts").write_bytes(fetch(name))
    numbers = iter(range(len(media.segments)))
    kept = tmp_path / "index.m3u8"
    lines = [line if line.startswith("#") else f"{next(numbers)}.ts" for line in playlist.split()]
    kept.write_text("\n".join([*lines, "#EXT-X-ENDLIST", ""]))
    payloads = [body[2:] for kind, _, body in sent if kind == AUDIO and body[1] == 1]
    whole_text = b"".join((tmp_path / f"{number}.ts").read_bytes() for number in range(len(media.segments)))
    (tmp_path / "whole.ts").write_bytes(whole_text)
    heard = [one.digest for one in read_media(tmp_path / "whole.ts").of("audio")]
    wanted = [hashlib.sha256(one).hexdigest()[:16] for one in payloads]
    assert len(heard) > 250
    assert heard == wanted[wanted.index(heard[0]) :][: len(heard)]
    for tool in ("ffmpeg", "ffmpeg-new"):
        command = [find_tool(tool), "-hide_banner", "-v", "warning", "-xerror", "-i", str(kept), "-f", "null", "-"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert (done.returncode, done.stderr) == (0, ""), tool


def test_sound_with_gaps_and_tiny_frames(served: MistServer, stack: ExitStack) -> None:
    """Silence that is not sent, but for a frame of a few bytes now and then: the picture goes on, and the sound is where it was."""
    stream = "live+dtx"
    sender = publisher(stack, served, stream)
    sender.send(0, 3)
    watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts", "mp4", "mkv")}
    messages = stack.enter_context(viewer(served, stream))
    for second in range(3, 9):
        sender.send(second, second + 1, sound=False)
        sender.peer.send_audio(second * 1000 + 400, b"\x21")
    sender.send(9, 12)
    for suffix, watcher in watchers.items():
        watcher.wait_mark(SOUND + 12 * 25 - 1)
        pictures, sounds = split(watcher.marks())
        assert whole(pictures, range(12 * 25)), suffix
        assert whole(sounds, range(3 * 25), range(9 * 25, 12 * 25)), suffix
    wait_mark(messages, 12 * 25 - 1)
    tiny = [one.timestamp_ms for one in messages if one.kind == AUDIO and one.payload == b"\xaf\x01\x21"]
    assert tiny == [second * 1000 + 400 for second in range(3, 9)]


# -- data


def test_data_alone(served: MistServer, stack: ExitStack) -> None:
    """A publisher of script data without picture and sound is played as JSON, and nobody waits for ever."""
    peer = RtmpPeer(served.rtmp_port)
    stack.callback(peer.socket.close)
    peer.publish("live+data")
    watcher = None
    for number in range(200):
        body = amf_write("onTextData") + amf_write({"text": f"<{number:08d}>"})
        peer.send(DATA, number * 100, body)
        if number == 60:
            watcher = watch(stack, served, "live+data", "json?maxwaittrackms=1000")
        time.sleep(0.02)  # the network's pace, not a wait for something
    assert watcher is not None
    watcher.wait_mark(199)
    assert whole(watcher.marks(), range(200))
    known = json.loads(served.get("/json_live%2Bdata.js"))
    assert [one["codec"] for one in known["meta"]["tracks"].values()] == ["JSON"]


# -- tracks that a format cannot carry


def test_who_asks_for_a_format_that_cannot_carry_a_track_is_told(served: MistServer, stack: ExitStack) -> None:
    """AAC of a kind that ADTS has no number for: transport streams are refused with a reason, what can carry it plays."""
    stream = "live+null"
    sender = publisher(stack, served, stream, audio=False)
    sender.peer.send(AUDIO, 0, b"\xaf\x00\x00\x00")  # AudioSpecificConfig of object type 0
    sender.send(0, 3)
    for suffix in ("ts", "aac"):
        with pytest.raises(HTTPError) as refused:
            served.get(f"/live%2Bnull.{suffix}")
        assert refused.value.code == 404
        assert b"object type 0" in refused.value.read()
    watcher = watch(stack, served, stream, "flv")
    sender.send(3, 5)
    watcher.wait_mark(SOUND + 5 * 25 - 1)


# -- another codec


def test_another_codec_in_mid_stream(served: MistServer, stack: ExitStack) -> None:
    """H.264 becomes HEVC: viewers whose format can change go on, the others are ended and come again, HLS marks the place."""
    stream = "live+codec"
    sender = publisher(stack, served, stream)
    sender.send(0, 4)
    watchers = {suffix: watch(stack, served, stream, suffix) for suffix in ("flv", "ts", "mp4", "mkv")}
    sender.send(4, 6)
    header = hevc_header(Sample("hevc", HEVC, (), tool="ffmpeg-new").flv())
    sender.peer.send(VIDEO, 6000, header)

    def send(from_s: int, to_s: int) -> None:
        for number in range(from_s * 25, to_s * 25):
            key = number % GOP == 0
            nal = (b"\x26\x01" if key else b"\x02\x01") + f"<{number:08d}>".encode() + bytes(150)
            head = (b"\x91" if key else b"\xa1") + b"hvc1" + bytes(3)
            sender.peer.send(VIDEO, number * FRAME_MS, head + struct.pack(">I", len(nal)) + nal)
            sender.peer.send_audio(number * FRAME_MS + 5, f"<{number + SOUND:08d}>".encode() + bytes(60))
            time.sleep(0.002)  # the network's pace, not a wait for something

    send(6, 10)
    for suffix in ("mp4", "mkv"):
        wait_until(lambda watcher=watchers[suffix]: watcher.closed, 10, f"the end of {suffix}")  # type: ignore[misc]
        assert whole(split(watchers[suffix].marks())[0], range(6 * 25)), suffix
        watchers[suffix] = watch(stack, served, stream, suffix)
    send(10, 16)
    for suffix, watcher in watchers.items():
        watcher.wait_mark(SOUND + 16 * 25 - 1)
        pictures, sounds = split(watcher.marks())
        assert whole(pictures, range(16 * 25)), (suffix, pictures)
        assert whole(sounds, range(16 * 25)), (suffix, sounds)
    media = variants(served.play_url("hls", stream))[0]
    wait_until(lambda: end_s(media) > 13, 10, "segments of the other codec")
    pictures, sounds = hls_marks(media)
    assert whole(pictures, range(pictures[-1] + 1)) and whole(sounds, range(sounds[-1] + 1))
    playlist = fetch(media)
    assert playlist.count(b"#EXT-X-DISCONTINUITY\r\n") + playlist.count(b"#EXT-X-DISCONTINUITY-SEQUENCE:1\r\n") == 1


def hevc_header(flv: Path) -> bytes:
    """Return the first picture message of a file: the sequence header of enhanced RTMP."""
    data, at = flv.read_bytes(), 13
    while data[at] != VIDEO:
        at += 15 + int.from_bytes(data[at + 1 : at + 4], "big")
    return data[at + 11 : at + 11 + int.from_bytes(data[at + 1 : at + 4], "big")]

"""Publishers whose tracks come late, pause, end or change: what viewers of each live format get."""

from __future__ import annotations

import socket
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise

import pytest

from tests.support.hls_client import MediaPlaylist, fetch, media_playlist, variants
from tests.support.live import MARK, Watcher, marks, viewer, wait_mark
from tests.support.processes import wait_until
from tests.support.rtmp_peer import AUDIO, VIDEO, RtmpPeer
from tests.support.server import MistServer

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

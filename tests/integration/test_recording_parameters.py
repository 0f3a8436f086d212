"""Each parameter of a target that is a file, on a server that runs: by what is in the files."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from mist.stream.reader import StreamReader
from tests.integration.conftest import SendTo
from tests.support.live import FRAME_MS, GOP, Sender
from tests.support.processes import wait_until
from tests.support.server import MistServer

pytestmark = pytest.mark.timeout(300)

# A sender's picture has more zeros behind its number than its sound has.
PICTURE = re.compile(rb"<(\d{8})>\0{100}")
PICTURE_IN_TS = re.compile(rb"<(\d{8})>\0{90}")
SOUND = re.compile(rb"<(\d{8})>\0{60}(?!\0{40})")
BUFFERED = 60  # pictures that are there before the pushes begin
AFTER = 100  # pictures that follow
GOP_MS = GOP * FRAME_MS
BEGIN_MS, END_MS = 3 * GOP_MS + 100, 5 * GOP_MS
SECOND = 1000 // FRAME_MS
LIVE = {"source": "push://", "inputtimeout": 2}


def numbers(path: Path, pattern: re.Pattern[bytes] = PICTURE) -> list[int]:
    """Return which packets a file holds; they must be without a gap."""
    found = [int(number) for number in pattern.findall(path.read_bytes())]
    assert found == (list(range(found[0], found[-1] + 1)) if found else []), path
    return found


def playlist(path: Path) -> MediaPlaylist:
    found = parse_playlist(path.read_bytes())
    assert isinstance(found, MediaPlaylist)
    return found


def listed(path: Path) -> list[str]:
    return [one.uri for one in playlist(path).segments]


@pytest.fixture
def server() -> Iterator[MistServer]:
    with MistServer(streams={"live": LIVE}) as started:
        yield started


def fill(server: MistServer, sender: Sender) -> int:
    """Send what is there before the recordings begin. Returns the media time of its beginning in milliseconds."""
    sender.send([n * FRAME_MS for n in range(BUFFERED)], headers=True)
    server.wait_tracks(2)
    with_stream = StreamReader(server.instance, "live")
    wait_until(lambda: all(one.next_sequence == BUFFERED for one in with_stream.tracks()), 10, "all of it")
    first_us = min(one.first_us for one in with_stream.tracks())
    with_stream.close()
    return first_us // 1000


def begin(server: MistServer, folder: Path, *targets: str) -> None:
    for target in targets:
        connector, colon, path = target.rpartition(":")
        server.api({"push_start": ["live", f"{connector}{colon}{folder}/{path}"]})


def rows(server: MistServer) -> list[list[object]]:
    return server.api({"push_list": 1})["push_list"] or []


def go_on(server: MistServer, sender: Sender, folder: Path, *files: str) -> None:
    """Wait until files are begun, then send the rest by the clock, as a camera does."""
    wait_until(lambda: all((folder / one).exists() for one in files), 30, "the recordings")
    began = time.monotonic()
    for number in range(AFTER):
        time.sleep(max(0.0, began + number * FRAME_MS / 1000 - time.monotonic()))
        sender.send([sender.number * FRAME_MS], pace_s=0)


def finish(server: MistServer) -> None:
    server.api({"push_stop": "live"})
    wait_until(lambda: not rows(server), 30, "the end of the recordings")


def test_what_is_recorded(server: MistServer, send_to: SendTo, tmp_path: Path) -> None:
    sender = send_to(server)
    zero = fill(server, sender)
    span = f"start={zero + BEGIN_MS}&stop={zero + END_MS}"
    begin(
        server,
        tmp_path,
        "plain.mkv",
        f"start.mkv?start={zero + 1}",
        "early.mkv?recstart=-1",
        f"span.mkv?{span}",
        f"rec.mkv?start=1&stop=99999999&{span.replace('st', 'recst')}",
        "unix.mkv?recstartunix=-36000&recstopunix=36000",
        f"duration.mkv?start={zero + BEGIN_MS}&duration=1&stop={zero + END_MS + 9999}",
        "mute.mkv?audio=none",
        "blind.mkv?video=none&waittrackcount=1",
        "all.mkv?passthrough&unmask",
        "flv:other.name?audio=none",
        "fresh.mkv?waitkey",
    )
    go_on(
        server, sender, tmp_path, "plain.mkv", "start.mkv", "early.mkv", "mute.mkv", "blind.mkv", "unix.mkv", "all.mkv"
    )
    wait_until(lambda: len(rows(server)) == 9, 20, "the end of those that end by themselves")
    finish(server)
    last = BUFFERED + AFTER - 1
    plain = numbers(tmp_path / "plain.mkv")
    assert (plain[0], plain[-1]) == (BUFFERED - GOP, last)
    assert numbers(tmp_path / "plain.mkv", SOUND)[-1] == last
    for name in ("start", "early", "unix"):
        assert numbers(tmp_path / f"{name}.mkv")[0] == 0, name
    first, end = BEGIN_MS // GOP_MS * GOP, END_MS // FRAME_MS
    for name in ("span", "rec"):
        assert numbers(tmp_path / f"{name}.mkv") == list(range(first, end)), name
    timed = numbers(tmp_path / "duration.mkv")
    assert (timed[0], timed[-1]) == (first, (BEGIN_MS + 1000) // FRAME_MS)
    assert not numbers(tmp_path / "mute.mkv", SOUND)
    assert numbers(tmp_path / "mute.mkv") == plain
    assert not numbers(tmp_path / "blind.mkv")
    assert numbers(tmp_path / "blind.mkv", SOUND)
    assert numbers(tmp_path / "all.mkv") == plain
    assert (tmp_path / "other.name").read_bytes()[:3] == b"FLV"
    fresh = numbers(tmp_path / "fresh.mkv")[0]
    assert fresh >= BUFFERED, "the keyframe was there before"
    assert fresh % GOP == 0


def test_when_it_begins(server: MistServer, send_to: SendTo, tmp_path: Path) -> None:
    """A stream with one track only, of which a recording waits for two."""
    sender = send_to(server)
    sender.peer.send_headers(0)
    begin(
        server,
        tmp_path,
        "keys.mkv?waittrackcount=1&mintrackms=3600000&mintrackkeys=4",
        "ms.mkv?waittrackcount=1&mintrackkeys=1000&mintrackms=2000",
        "most.mkv?waittrackcount=5&maxtrackms=2800",
        "late.mkv?waittrackcount=5&maxwaittrackms=3400",
        "never.mkv?waittrackcount=5",
    )
    starts: dict[str, int] = {}
    names = ("keys", "ms", "most", "late")
    began = time.monotonic()
    while len(starts) < len(names) and sender.number < 300:
        sender.peer.send_video(
            sender.number * FRAME_MS, f"<{sender.number:08d}>".encode() + bytes(200), key=sender.number % GOP == 0
        )
        sender.number += 1
        time.sleep(max(0.0, began + sender.number * FRAME_MS / 1000 - time.monotonic()))
        for name in names:
            if (tmp_path / f"{name}.mkv").exists():
                starts.setdefault(name, sender.number)
    assert set(starts) == set(names)
    assert not (tmp_path / "never.mkv").exists()
    assert starts["keys"] > 3 * GOP
    assert starts["ms"] > 2 * SECOND
    assert starts["most"] > 2.8 * SECOND
    assert starts["late"] > SECOND  # by the clock: the sender may be behind it
    finish(server)


def test_files_and_lists(server: MistServer, send_to: SendTo, tmp_path: Path) -> None:
    sender = send_to(server)
    zero = fill(server, sender)
    all_of_it = f"split=1&start={zero + 1}"
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "stray.ts").write_bytes(b"x")
    (tmp_path / "old" / "list.m3u8").write_text(
        "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:2\n#EXTINF:2.000,\nstray.ts\n"
    )
    begin(
        server,
        tmp_path,
        f"split/$stream-$segmentCounter.mkv?{all_of_it}",
        f"same/a.mkv?{all_of_it}",
        f"time/$currentMediaTime.mkv?{all_of_it}",
        f"list/media/$segmentCounter.ts?m3u8=../live.m3u8&{all_of_it}",
        f"pattern/any.ts?segment=deep/$segmentCounter.ts&m3u8=list.m3u8&{all_of_it}",
        f"whole/$segmentCounter.ts?m3u8=list.m3u8&start={zero + 1}",
        f"few/$segmentCounter.ts?m3u8=list.m3u8&maxEntries=2&{all_of_it}",
        f"young/$segmentCounter.ts?m3u8=list.m3u8&targetAge=2&{all_of_it}",
        f"kept/$segmentCounter.ts?m3u8=list.m3u8&maxEntries=2&nounlink&{all_of_it}",
        f"open/$segmentCounter.ts?m3u8=list.m3u8&noendlist&{all_of_it}",
        f"old/$segmentCounter.ts?m3u8=list.m3u8&{all_of_it}",
        f"grown/$segmentCounter.ts?m3u8=list.m3u8&adjustSplit&split=0.1&start={zero + 1}",
    )
    go_on(server, sender, tmp_path, "split/live-0.mkv", "same/a.mkv", "few/0.ts", "grown/0.ts", "old/0.ts")
    finish(server)
    files = (BUFFERED + AFTER) * FRAME_MS // 1200  # the first keyframe at or after a second is at 1.2 s
    assert len(list((tmp_path / "split").iterdir())) in (files, files + 1)
    expected = 0
    for number in range(files):
        found = numbers(tmp_path / "split" / f"live-{number}.mkv")
        assert found[0] == expected
        assert found[0] % (3 * GOP) == 0
        expected = found[-1] + 1
    assert {"a.mkv", "a_2.mkv", "a_3.mkv"} <= {one.name for one in (tmp_path / "same").iterdir()}
    times = sorted(int(one.stem) for one in (tmp_path / "time").iterdir())
    assert times == [zero + 1200 * number for number in range(len(times))]
    check_lists(tmp_path, files)


def check_lists(folder: Path, files: int) -> None:
    found = playlist(folder / "list" / "live.m3u8")
    assert [one.uri for one in found.segments][:files] == [f"media/{number}.ts" for number in range(files)]
    assert found.ended
    assert found.type == "EVENT"
    assert all(one.date for one in found.segments)
    assert all(one.duration_us == 1_200_000 for one in found.segments[:-1])
    assert listed(folder / "pattern" / "list.m3u8")[:2] == ["deep/0.ts", "deep/1.ts"]
    assert (folder / "pattern" / "deep" / "0.ts").exists()
    assert listed(folder / "whole" / "list.m3u8") == ["0.ts"], "60 s is the length of a segment"
    for name in ("few", "young"):
        one = playlist(folder / name / "list.m3u8")
        lengths_us = [segment.duration_us for segment in one.segments]
        assert len(lengths_us) == 2 if name == "few" else sum(lengths_us[1:]) < 2_000_000 <= sum(lengths_us)
        assert sorted(path.name for path in (folder / name).glob("*.ts")) == sorted(listed(folder / name / "list.m3u8"))
        assert not one.ended, name
        assert one.type == "", name
        assert one.media_sequence > 0, name
    kept = playlist(folder / "kept" / "list.m3u8")
    assert len(kept.segments) == 2
    assert (folder / "kept" / "0.ts").exists()
    assert not playlist(folder / "open" / "list.m3u8").ended
    assert not (folder / "old" / "stray.ts").exists()
    assert listed(folder / "old" / "list.m3u8")[0] == "0.ts"
    grown = playlist(folder / "grown" / "list.m3u8")
    assert [one.duration_us for one in grown.segments[:3]] == [GOP_MS * 1000] * 3


def test_what_is_there_is_gone_on_with(server: MistServer, send_to: SendTo, tmp_path: Path) -> None:
    sender = send_to(server)
    fill(server, sender)
    targets = ("a.ts?append", "b.ts", "$segmentCounter.ts?m3u8=list.m3u8&append&split=1")
    ends = []
    for _ in range(2):
        begin(server, tmp_path, *targets)
        wait_until(lambda: len(rows(server)) == len(targets), 10, "the recordings")
        go_on(server, sender, tmp_path, "a.ts", "b.ts", "0.ts")
        finish(server)
        ends.append(sender.number)
    appended, replaced = ((tmp_path / name).read_bytes() for name in ("a.ts", "b.ts"))
    assert len(appended) % 188 == len(replaced) % 188 == 0
    found = [int(number) for number in PICTURE_IN_TS.findall(appended)]
    assert found[0] < ends[0] <= found[-1] == ends[1] - 1
    again = [int(number) for number in PICTURE_IN_TS.findall(replaced)]
    assert ends[0] - GOP <= again[0] and again[-1] == ends[1] - 1
    found_list = playlist(tmp_path / "list.m3u8")
    assert [one.uri for one in found_list.segments] == [f"{n}.ts" for n in range(len(found_list.segments))]
    assert sum(one.discontinuity for one in found_list.segments) == 1
    assert found_list.ended


def test_what_means_nothing_is_said(server: MistServer, send_to: SendTo, tmp_path: Path) -> None:
    sender = send_to(server)
    fill(server, sender)
    begin(server, tmp_path, "a.mkv?spilt=60&realtim")
    server.wait_log("realtim, spilt", 10)
    finish(server)

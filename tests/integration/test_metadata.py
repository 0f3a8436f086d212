"""Metadata of publishers: data messages come out of every output that has them, and disturb nobody who watches already."""

from __future__ import annotations

import os
import subprocess
import threading
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.formats.containers import by_name
from mist.formats.tracks import ID3, JSON, KLV, SCTE35
from tests.support.format_matrix import METADATA, Source, convert_file
from tests.support.hls_client import media_playlist, variants
from tests.support.live import Sender, marks, viewer, wait_mark
from tests.support.processes import wait_until
from tests.support.rtmp_peer import DATA, VIDEO, Message, RtmpPeer, amf_write
from tests.support.server import MistServer
from tests.support.tools import run

STREAMS = {"live": {"source": "push://127.0.0.1", "segmentsize": 1000}}
TEXT = amf_write("onTextData") + amf_write({"type": "Text", "text": "hello"})


@pytest.fixture(scope="module")
def live() -> Iterator[tuple[MistServer, Sender]]:
    """Run a stream, without metadata yet."""
    with MistServer(streams=STREAMS) as server:
        sender = Sender(server)
        try:
            sender.send([0], headers=True)
            sender.keep_sending()
            yield server, sender
        finally:
            sender.close()


def data_of(server: MistServer, sender: Sender, count: int) -> list[Message]:
    """Play by RTMP while metadata is sent, and return the first data messages that are not the header."""
    peer = RtmpPeer(server.rtmp_port, timeout_s=30)
    peer.play("live")
    found: list[Message] = []
    with peer:
        for message in peer.messages():
            if message.kind == VIDEO and len(found) < count:
                sender.peer.send(DATA, message.timestamp_ms, TEXT)
            if message.kind == DATA and message.values[0] not in ("onMetaData", "|RtmpSampleAccess"):
                found.append(message)
            if len(found) >= count:
                return found
    raise AssertionError("the stream ended")


def test_late_metadata_disturbs_nobody(live: tuple[MistServer, Sender]) -> None:
    server, sender = live
    playlist_url = variants(server.play_url("hls"))[0]

    def segments() -> list[str]:
        return [one[1] for one in media_playlist(playlist_url).segments]

    wait_until(segments, 20, "a segment")
    before = segments()
    got: dict[str, bytearray] = {suffix: bytearray() for suffix in ("flv", "ts", "mkv")}
    players = {
        suffix: subprocess.Popen(["curl", "-sN", server.play_url(suffix)], stdout=subprocess.PIPE) for suffix in got
    }

    def gather(suffix: str) -> None:
        pipe = players[suffix].stdout
        assert pipe is not None
        with pipe:
            while part := os.read(pipe.fileno(), 65536):
                got[suffix] += part

    threads = [threading.Thread(target=gather, args=(suffix,), daemon=True) for suffix in got]
    for thread in threads:
        thread.start()
    try:
        with viewer(server) as messages:
            wait_until(lambda: all(got.values()) and bool(marks(messages, VIDEO)), 15, "pictures at all viewers")
            first = data_of(server, sender, 3)
            mark = sender.number + 5
            wait_mark(messages, mark)
            assert first[0].values == ["onTextData", {"type": "Text", "text": "hello"}]
            wait_until(lambda: all(f"<{mark:08d}>".encode() in data for data in got.values()), 15, "pictures after it")
            assert all(player.poll() is None for player in players.values())
            numbers = [number for number, _ in marks(messages, VIDEO)]
            assert numbers == list(range(numbers[0], numbers[-1] + 1))
        wait_until(lambda: segments()[-1] not in before, 20, "further segments")
    finally:
        for player in players.values():
            player.kill()
            player.wait()
        for thread in threads:
            thread.join(5)
    assert b"onTextData" in got["flv"] and b"onTextData" not in got["ts"]
    assert {track["codec"] for track in server.info()["meta"]["tracks"].values()} == {"H264", "AAC", "JSON"}


def test_who_comes_later_gets_it_in_every_format(live: tuple[MistServer, Sender], tmp_path: Path) -> None:
    server, sender = live
    data_of(server, sender, 1)
    ended = threading.Event()

    def keep_talking() -> None:
        while not ended.wait(0.1):
            sender.peer.send(DATA, sender.number * 40, TEXT)

    talker = threading.Thread(target=keep_talking, daemon=True)
    talker.start()
    try:
        for suffix in ("flv", "ts", "mkv"):
            target = tmp_path / f"got.{suffix}"
            run(["timeout", "3", "curl", "-sN", "-o", str(target), server.play_url(suffix)], 30, check=False)
            container = by_name(suffix)
            assert container is not None and container.make_demuxer is not None
            demuxer = container.make_demuxer()
            packets = demux(demuxer, target.read_bytes())
            texts = {packet.payload for packet in packets if demuxer.tracks[packet.track].codec == JSON}
            assert texts == {b'["onTextData",{"type":"Text","text":"hello"}]'}, suffix
    finally:
        ended.set()
        talker.join(5)


def metadata_in(data: bytes, suffix: str) -> list[tuple[str, bytes, int]]:
    """Return codec, payload and time after the first packet of all packets of metadata."""
    container = by_name(suffix)
    assert container is not None and container.make_demuxer is not None
    demuxer = container.make_demuxer()
    packets = demux(demuxer, data)
    codecs = [info.codec for info in demuxer.tracks]
    first_us = min(packet.dts_us for packet in packets)
    return [
        (codecs[one.track], one.payload, round((one.dts_us - first_us) / 20_000))
        for one in packets
        if codecs[one.track] in METADATA
    ]


@pytest.mark.parametrize("codec", (ID3, SCTE35, KLV))
def test_films_with_metadata(codec: str, tmp_path: Path) -> None:
    """Tracks of transport streams and events of fragmented MP4, indexed and played, whole and in ranges."""
    film = Source("ts", ("H264", codec)).file()
    events = tmp_path / "events.mp4"
    convert_file(film, "ts", events, "fmp4")
    expected = metadata_in(film.read_bytes(), "ts")
    assert [payload for _, payload, _ in expected] == list(METADATA[codec])
    streams = {"track": {"source": str(film)}, "events": {"source": str(events)}}
    for _ in range(2):  # the second time with the index that is there
        with MistServer(streams=streams) as server:
            for stream in streams:
                server.get(f"/{stream}.mkv", timeout_s=30)  # the index is complete from here on
                with urllib.request.urlopen(f"{server.http_url}/{stream}.mp4", timeout=30) as reply:
                    whole = reply.read()
                    assert int(reply.headers["Content-Length"]) == len(whole)
                assert metadata_in(whole, "mp4") == expected, stream
                request = urllib.request.Request(f"{server.http_url}/{stream}.mp4", headers={"Range": "bytes=20000-"})
                with urllib.request.urlopen(request, timeout=30) as reply:
                    assert reply.read() == whole[20_000:], stream
                assert metadata_in(server.get(f"/{stream}.ts", timeout_s=30), "ts") == expected, stream

"""RTMP sessions against the sessions of others: encoders publish to ours, ours publishes to and plays from nginx."""

from __future__ import annotations

import os
import socket
import time
from pathlib import Path

import pytest

from mist.core.demuxer import demux
from mist.core.flv import serialize_frame, serialize_init
from mist.core.packet import Packet
from mist.formats.flv import FlvDemuxer
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.formats.rtmp.media import TrackAssembler, TrackFound
from mist.formats.tracks import AUDIO, VIDEO
from tests.support.media import AV1, BFRAMES, FLAC, HEVC, OPUS, Sample
from tests.support.nginx import Nginx, rtmp_module
from tests.support.processes import wait_until
from tests.support.rtmp_server import Published, RtmpServer
from tests.support.tools import find_tool, run

SAMPLE = Sample("bframes", BFRAMES, seconds=4)
PUBLISHED = [
    SAMPLE,
    Sample("bframes-new", BFRAMES, seconds=4, tool="ffmpeg-new"),
    Sample("hevc-opus", HEVC, OPUS, seconds=4, tool="ffmpeg-new"),
    Sample("av1-flac", AV1, FLAC, seconds=4, tool="ffmpeg-new"),
]


def expected(sample: Sample) -> list[Packet]:
    return demux(FlvDemuxer(), sample.flv().read_bytes())


def by_track(packets: list[Packet], record: Published) -> dict[str, list[Packet]]:
    kinds = {number: info.type for number, info in record.tracks.items()}
    found: dict[str, list[Packet]] = {}
    for packet in packets:
        found.setdefault(kinds.get(packet.track, ""), []).append(packet)
    return found


@pytest.mark.tools("ffmpeg", "ffmpeg-new")
@pytest.mark.parametrize("sample", PUBLISHED, ids=lambda sample: sample.name)
def test_ffmpeg_publishes(sample: Sample) -> None:
    with RtmpServer() as server:
        run(sample.publish_command(server.url(), realtime=False), 60)
        wait_until(lambda: bool(server.published and server.published[0].end), 10, "the end of the publisher")
    (record,) = server.published
    assert record.end == "FCUnpublish" and record.oddities == [] and record.app == "live"
    assert record.packets == expected(sample)


@pytest.mark.tools("ffmpeg")
def test_ffmpeg_plays_to_the_end(tmp_path: Path) -> None:
    demuxer = FlvDemuxer()
    packets = demux(demuxer, SAMPLE.flv().read_bytes())
    tracks = demuxer.tracks
    target = tmp_path / "played.flv"
    with RtmpServer(tracks, packets) as server:
        told = run([find_tool("ffmpeg"), "-v", "warning", "-xerror", "-i", server.url(), "-c", "copy", str(target)], 60)
    assert not told.stderr.strip(), told.stderr
    assert demux(FlvDemuxer(), target.read_bytes()) == packets


@pytest.mark.tools("nginx", "ffmpeg")
@pytest.mark.parametrize("scheme", [None, 0, 1])
def test_our_client_publishes_to_nginx_and_plays_from_it(tmp_path: Path, scheme: int | None) -> None:
    """Both handshakes, and a server that shares no code with ours in the middle."""
    if rtmp_module() is None:
        pytest.skip("nginx has no RTMP module")
    demuxer = FlvDemuxer()
    packets = demux(demuxer, SAMPLE.flv().read_bytes())
    tracks = demuxer.tracks
    with Nginx(tmp_path, rtmp="wait_key off;") as nginx:
        publisher, player = Client(nginx.rtmp_port, True, scheme), Client(nginx.rtmp_port, False, scheme)
        publisher.until_started()
        player.until_started()
        for number, info in enumerate(tracks):
            publisher.session.send_media(9 if info.type == VIDEO else 8, 0, serialize_init(tracks[number]))
        for packet in packets:
            info = tracks[packet.track]
            kind = m.VIDEO if info.type == VIDEO else m.AUDIO
            publisher.session.send_media(kind, packet.dts_us // 1000, serialize_frame(info, packet))
        publisher.flush()
        wait_until(lambda: player.hear() >= len(packets), 20, "what was published")
        publisher.close()
        player.close()
    for kind in (VIDEO, AUDIO):
        number = next(index for index, info in enumerate(tracks) if info.type == kind)
        wanted = [(p.dts_us, p.offset_us, p.payload) for p in packets if p.track == number]
        assert [(p.dts_us, p.offset_us, p.payload) for p in player.packets[kind]] == wanted


class Client:
    """A client session with a blocking socket."""

    def __init__(self, port: int, publish: bool, scheme: int | None) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), 10)
        self.session = ClientSession(
            app="live",
            stream="test",
            tc_url=f"rtmp://127.0.0.1:{port}/live",
            publish=publish,
            entropy=os.urandom,
            now=time.monotonic(),
            digest_scheme=scheme,
        )
        self.assembler = TrackAssembler()
        self.kinds: dict[int, str] = {}
        self.packets: dict[str, list[Packet]] = {VIDEO: [], AUDIO: []}
        self.started = False

    def flush(self) -> None:
        self.socket.sendall(self.session.take_output())

    def until_started(self) -> None:
        self.flush()
        while not self.started:
            data = self.socket.recv(65536)
            assert data, "nginx closed the connection"
            self._take(data)
            self.flush()
        self.socket.setblocking(False)

    def _take(self, data: bytes) -> None:
        for event in self.session.feed(data, time.monotonic()):
            assert not isinstance(event, m.Refused)
            self.started = self.started or isinstance(event, m.Started)
            if isinstance(event, m.Media):
                for found in self.assembler.feed(event.type_id, event.time_ms, event.payload):
                    if isinstance(found, TrackFound):
                        self.kinds[found.track] = found.info.type
                    elif isinstance(found, Packet):
                        self.packets[self.kinds[found.track]].append(found)

    def hear(self) -> int:
        """Take what has come; return how many packets that makes in all."""
        try:
            while data := self.socket.recv(65536):
                self._take(data)
        except BlockingIOError:
            pass
        return sum(len(found) for found in self.packets.values())

    def close(self) -> None:
        self.session.close()
        self.socket.setblocking(True)
        self.flush()
        self.socket.close()

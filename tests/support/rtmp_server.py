"""RTMP peers for tests: a small server on a thread that records publishers and plays packets, made of the sessions."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import TracebackType

from mist.core.packet import Packet
from mist.core.rtmp_chunks import RtmpPlayMuxer
from mist.errors import MistError
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.media import Oddity, TrackAssembler, TrackChanged, TrackFound, TrackGone
from mist.formats.rtmp.server import ServerSession
from mist.formats.tracks import TrackInfo


@dataclass
class Published:
    """What one publisher sent."""

    name: str = ""
    app: str = ""
    tracks: dict[int, TrackInfo] = field(default_factory=dict)
    packets: list[Packet] = field(default_factory=list)
    found: list[TrackFound] = field(default_factory=list)
    changes: list[TrackChanged] = field(default_factory=list)
    oddities: list[str] = field(default_factory=list)
    metadata: list[object] = field(default_factory=list)
    end: str = ""

    def of(self, kind: str) -> list[Packet]:
        """Return the packets of the first track of a type."""
        numbers = [number for number, info in self.tracks.items() if info.type == kind]
        return [packet for packet in self.packets if packet.track == numbers[0]] if numbers else []


class RtmpServer:
    """Accepts connections on a free port of the loopback until the `with` block ends.

    Publishers are recorded in `published`; players get `tracks` and `packets`, then the end of the stream.
    """

    def __init__(self, tracks: Sequence[TrackInfo] = (), packets: Sequence[Packet] = (), pace: float = 0.0) -> None:
        self.tracks = list(tracks)
        self.packets = list(packets)
        self.pace = pace
        self.published: list[Published] = []
        self.errors: list[Exception] = []
        self.played = 0
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._threads: list[threading.Thread] = []
        self._accepting = threading.Thread(target=self._accept, daemon=True)
        self._stopping = False

    def url(self, app: str = "live", stream: str = "test") -> str:
        return f"rtmp://127.0.0.1:{self.port}/{app}/{stream}"

    def __enter__(self) -> RtmpServer:
        self._accepting.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stopping = True
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self._accepting.join(5)
        for thread in self._threads:
            thread.join(10)

    def _accept(self) -> None:
        while not self._stopping:
            try:
                sock, _ = self._listener.accept()
            except OSError:
                return
            thread = threading.Thread(target=self._serve, args=(sock,), daemon=True)
            self._threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket) -> None:
        sock.settimeout(20)
        with sock:
            try:
                _Connection(self, sock).run()
            except (MistError, OSError) as error:
                self.errors.append(error)


class _Connection:
    def __init__(self, server: RtmpServer, sock: socket.socket) -> None:
        self.server = server
        self.sock = sock
        self.session = ServerSession(os.urandom, time.monotonic())
        self.assembler = TrackAssembler()
        self.record = Published()

    def run(self) -> None:
        data = b"\0"
        while data:
            data = self.sock.recv(65536)
            if not data:
                self.record.end = self.record.end or "EOF"
                return
            events = self.session.feed(data, time.monotonic())
            while events:
                for event in events:
                    self.handle(event)
                events = self.session.feed(b"", time.monotonic())
            output = self.session.take_output()
            if output:
                self.sock.sendall(output)

    def handle(self, event: m.Event) -> None:
        record = self.record
        if isinstance(event, m.Connected):
            record.app = event.app
        elif isinstance(event, m.PublishRequested):
            record.name = event.name
            self.server.published.append(record)
            self.session.send_publish_start(event.name, time.monotonic())
            # As when a publisher is handed over: the rest of the session is another one's.
            output = self.session.take_output()
            self.session = ServerSession.restore(self.session.export_state(), time.monotonic())
            self.sock.sendall(output)
        elif isinstance(event, m.PlayRequested):
            self.session.send_play_start(event.name, event.reset, time.monotonic())
            self.play(event.name)
        elif isinstance(event, m.Media):
            self.media(event)
        elif isinstance(event, m.Data):
            record.metadata.append(event.values)
            if event.name == "onMetaData" and event.values and isinstance(event.values[0], dict):
                self.assembler.feed_metadata(event.values[0])
        elif isinstance(event, m.StreamEnded):
            record.end = event.command

    def media(self, event: m.Media) -> None:
        record = self.record
        for found in self.assembler.feed(event.type_id, event.time_ms, event.payload):
            if isinstance(found, Packet):
                record.packets.append(found)
            elif isinstance(found, TrackFound):
                record.found.append(found)
                record.tracks[found.track] = found.info
            elif isinstance(found, TrackChanged):
                record.tracks[found.track] = found.info
                record.changes.append(found)
            elif isinstance(found, Oddity):
                record.oddities.append(found.text)
            else:
                assert isinstance(found, TrackGone)

    def play(self, name: str) -> None:
        muxer = RtmpPlayMuxer(self.server.tracks)
        start = self.server.packets[0].dts_us if self.server.packets else 0
        self.sock.sendall(self.session.take_output() + muxer.header(start))
        for packet in self.server.packets:
            muxer.write(packet)
            self.sock.sendall(muxer.take_output())
            if self.server.pace:
                time.sleep(self.server.pace)
        self.session.send_play_stop(name)
        self.sock.sendall(self.session.take_output())
        self.server.played += 1

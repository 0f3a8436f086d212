"""Viewers of numbered media in every protocol, as cheap as they can be: sixty of them share a core with the server."""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import selectors
import socket
import subprocess
import threading
import urllib.parse
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import av

from mist.core.demuxer import Demuxer, PacketList, demux
from mist.formats.flv import FlvDemuxer
from mist.formats.matroska.reading import demuxer as make_matroska_demuxer
from mist.formats.mp4_movie import make_demuxer as make_mp4_demuxer
from mist.formats.ts import TsDemuxer
from tests.support.dtsc_peer import DtscPeer
from tests.support.hls_client import MediaPlaylist, read_media_playlist
from tests.support.numbered import Book, picture_nal, sound
from tests.support.rtmp_peer import AUDIO, VIDEO, RtmpPeer
from tests.support.server import MistServer
from tests.support.tools import find_tool

DEMUXERS: dict[str, Callable[[], Demuxer]] = {
    "flv": FlvDemuxer,
    "ts": TsDemuxer,
    "mp4": make_mp4_demuxer,
    "mkv": make_matroska_demuxer,
}
READ_BYTES = 1 << 18
HLS_POLL_S = 0.4
PATIENCE_S = 60.0
HEADER_END = b"\r\n\r\n"


class StreamReader:
    """Takes the bytes of an endless HTTP reply, and gives the packets in it to a book."""

    def __init__(self, book: Book, container: str) -> None:
        self.book = book
        self._demuxer = DEMUXERS[container]()
        self._packets = PacketList()
        self._demuxer.attach(self._packets)
        self._data = bytearray()
        self._at = 0  # position in the media of the first of these bytes
        self._started = False

    def feed(self, data: bytes) -> None:
        """Take bytes of the connection."""
        self._data += data
        if not self._started:
            head, end, rest = bytes(self._data).partition(HEADER_END)
            if not end:
                return
            if b" 200 " not in head.splitlines()[0] or b"chunked" in head:
                raise ValueError(head.decode(errors="replace"))
            self._data, self._started = bytearray(rest), True
        while (wanted := self._demuxer.want()) is not None:
            offset = wanted[0] - self._at
            if offset >= len(self._data):
                break
            piece = bytes(self._data[offset : offset + wanted[1]])
            self._demuxer.feed(piece)
            del self._data[: offset + len(piece)]
            self._at += offset + len(piece)
        self._give()

    def _give(self) -> None:
        kinds = [info.type for info in self._demuxer.tracks]
        for packet in self._packets.take():
            self.book.take(kinds[packet.track], packet.payload, packet.dts_us / 1000)


class HttpCrowd(threading.Thread):
    """All viewers of endless replies, in one thread."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self._selector = selectors.DefaultSelector()
        self.ended = threading.Event()

    def join_stream(self, server: MistServer, path: str, book: Book) -> None:
        """Begin to play."""
        sock = socket.create_connection(("127.0.0.1", server.http_port), 10)
        sock.sendall(f"GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n".encode())
        sock.setblocking(False)
        self._selector.register(sock, selectors.EVENT_READ, StreamReader(book, path.rpartition(".")[2]))

    def run(self) -> None:
        while not self.ended.is_set():
            for key, _ in self._selector.select(0.2):
                sock = key.fileobj
                assert isinstance(sock, socket.socket)
                self._read(sock, key.data)
        for key in tuple(self._selector.get_map().values()):
            assert isinstance(key.fileobj, socket.socket)
            key.fileobj.close()
        self._selector.close()

    def _read(self, sock: socket.socket, reader: StreamReader) -> None:
        try:
            data = sock.recv(READ_BYTES)
            reader.book.heard()
            reader.feed(data)
            if data:
                return
            reader.book.closed = "closed by the server"
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down as the viewer's fate
            reader.book.closed = f"{type(error).__name__}: {error}"
        self._selector.unregister(sock)
        sock.close()


class Viewer(threading.Thread):
    """A viewer in a thread of its own. Subclasses play until `ended` is set."""

    def __init__(self, server: MistServer, stream: str, book: Book) -> None:
        super().__init__(daemon=True)
        self.server = server
        self.stream = stream
        self.book = book
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            self.play()
        except Exception as error:  # noqa: BLE001 - whatever it is, it is written down as the viewer's fate
            if not self.ended.is_set():
                self.book.closed = f"{type(error).__name__}: {error}"
        else:
            if not self.ended.is_set():
                self.book.closed = "closed by the server"

    def play(self) -> None:
        """Play, and tell the book."""
        raise NotImplementedError

    def end(self) -> None:
        """Stop playing."""
        self.ended.set()


class RtmpViewer(Viewer):
    def play(self) -> None:
        with RtmpPeer(self.server.rtmp_port, timeout_s=PATIENCE_S) as self.peer:
            self.peer.play(self.stream)
            kinds = {AUDIO: "audio", VIDEO: "video"}
            for message in itertools.chain(self.peer.others, self.peer.messages()):
                kind = kinds.get(message.kind)
                if kind is not None and b"<" in message.payload[:12]:
                    self.book.heard()
                    self.book.take(kind, message.payload, message.timestamp_ms)

    def end(self) -> None:
        super().end()
        with contextlib.suppress(OSError):
            self.peer.socket.shutdown(socket.SHUT_RDWR)


class DtscViewer(Viewer):
    port = 0

    def play(self) -> None:
        with DtscPeer(self.port, timeout_s=PATIENCE_S) as self.peer:
            self.peer.play(self.stream)
            kinds: dict[int, str] = {}
            for heard in self.peer.packets():
                if heard.kind == "DTSC":
                    found = heard.members["tracks"].values()
                    kinds = {int(one["trackid"]): one["type"].decode() for one in found}
                elif heard.kind == "DTP2" and kinds.get(heard.track) in ("video", "audio"):
                    self.book.heard()
                    self.book.take(kinds[heard.track], heard.data, heard.time_ms)

    def end(self) -> None:
        super().end()
        with contextlib.suppress(OSError):
            self.peer.socket.shutdown(socket.SHUT_RDWR)


class HlsViewer(Viewer):
    """Fetches playlists and each segment once, all on one connection."""

    def play(self) -> None:
        self._data = bytearray()
        with socket.create_connection(("127.0.0.1", self.server.http_port), PATIENCE_S) as self._socket:
            lines = self._get(f"/hls/{self.stream}/index.m3u8").decode().splitlines()
            name = next(line for line in lines if line and not line.startswith("#"))
            address = urllib.parse.urljoin(f"/hls/{self.stream}/", name)
            number = -1
            while not self.ended.wait(HLS_POLL_S):
                playlist = read_media_playlist(address, self._get(address))
                number = self._fetch(playlist, number)

    def _fetch(self, playlist: MediaPlaylist, number: int) -> int:
        if number < 0:
            number = playlist.first_number + max(0, len(playlist.segments) - 2)
        if number < playlist.first_number:
            self.book.fault(f"segment {number} left the playlist before it could be read")
            number = playlist.first_number
        for _, url in playlist.segments[number - playlist.first_number :]:
            demuxer = TsDemuxer()
            for packet in sorted(demux(demuxer, self._get(url)), key=lambda one: one.dts_us):
                kind = demuxer.tracks[packet.track].type
                self.book.take(kind, packet.payload, packet.dts_us / 1000)
            number += 1
        return number

    def _get(self, path: str) -> bytes:
        self._socket.sendall(f"GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n".encode())
        head = self._until(HEADER_END).decode()
        if " 200 " not in head.splitlines()[0]:
            raise ValueError(f"{path}: {head}")
        fields = dict(line.lower().split(": ", 1) for line in head.splitlines()[1:] if ": " in line)
        if "content-length" in fields:
            return self._take(int(fields["content-length"]))
        body = b""
        while count := int(self._until(b"\r\n"), 16):
            body += self._take(count)
            self._take(2)
        self._take(2)
        return body

    def _until(self, end: bytes) -> bytes:
        while (at := self._data.find(end)) < 0:
            self._more()
        return self._take(at + len(end))

    def _take(self, count: int) -> bytes:
        while len(self._data) < count:
            self._more()
        taken = bytes(self._data[:count])
        del self._data[:count]
        return taken

    def _more(self) -> None:
        data = self._socket.recv(READ_BYTES)
        if not data:
            raise EOFError("closed by the server")
        self._data += data


class AvViewer(Viewer):
    """PyAV, which is FFmpeg's library."""

    output = "mkv"

    def play(self) -> None:
        quick = {"analyzeduration": "500000"}
        with av.open(
            self.server.play_url(self.output, self.stream), timeout=(20, PATIENCE_S), options=quick
        ) as container:
            for packet in container.demux():
                if self.ended.is_set():
                    return
                if packet.dts is None or packet.time_base is None:
                    continue
                self.book.heard()
                self.book.take(packet.stream.type, bytes(packet), float(packet.dts * packet.time_base) * 1000)


@dataclass(eq=False)
class FfmpegViewer:
    """FFmpeg's program that shows packets: it writes time and hash of every one to a file, which is compared at the end."""

    book: Book
    file: Path
    process: subprocess.Popen[bytes] = field(init=False)

    def start(self, address: str) -> None:
        """Begin to play an address."""
        shown = ["-show_entries", "packet=codec_type,dts_time,data_hash", "-show_data_hash", "md5", "-of", "csv"]
        command = [find_tool("ffprobe"), "-v", "error", "-analyzeduration", "500000", *shown, address]
        with self.file.open("wb") as found, self.file.with_suffix(".log").open("wb") as log:
            self.process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=found, stderr=log)

    def look(self) -> None:
        """Take note when it has ended."""
        if self.process.poll() is not None and not self.book.closed:
            said = self.file.with_suffix(".log").read_text(errors="replace")
            self.book.closed = f"ffprobe ended with status {self.process.returncode}: {said[-300:]}"

    def end(self, count: int) -> None:
        """Stop it, and compare what it got. count: of the pictures that were published."""
        self.look()
        if not self.book.closed:
            self.process.terminate()
        self.process.wait(10)
        numbers = {hashlib.md5(picture_nal(number)).hexdigest(): number for number in range(count)}
        numbers |= {hashlib.md5(sound(number)).hexdigest(): number for number in range(count)}
        for line in self.file.read_text().splitlines()[:-1]:
            _, kind, time_s, text = line.split(",")[:4]
            number = numbers.get(text.rpartition(":")[2])
            if number is None:
                self.book.fault(f"a packet that was not sent: {line}")
            else:
                self.book.check(kind, number, float(time_s) * 1000)

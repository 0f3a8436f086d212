"""Files on demand: time to the first media byte, random seeks in ten hours, HLS segments cold and cached, memory of many viewers.

The ten-hour file is an MP4 whose 20 GB of media are a hole; what is measured with it does not look into the payload. A transport stream
cannot have holes: with --kind ts the ten hours are 20 s of a thin stream over and over, with their times and counters moved on, among null
packets.
"""

from __future__ import annotations

import argparse
import http.client
import itertools
import os
import random
import socket
import statistics
import struct
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.harness import CACHE, LIVE_SECONDS, Server, live_file, report, server, thin_file

HOURS = 10
FRAMES_PER_SECOND = 25
KEYFRAME_FRAMES = 50
FRAME_BYTES = 21_000
AUDIO_PER_SECOND = 50
AUDIO_BYTES = 300
CONNECTIONS = 16
TS_PACKET = 188
NULL_PID = 0x1FFF
NULL_PACKET = b"\x47\x1f\xff\x10" + b"\xff" * 184
FIRST_BYTES = 3000  # of an answer with media in it
SPS = bytes.fromhex("6764001facd9405005bb011000000300100000030320f1831960")
PPS = bytes.fromhex("68ebe3cb22c0")


def box(kind: str, *parts: bytes) -> bytes:
    """Return an MP4 box."""
    body = b"".join(parts)
    return struct.pack(">I4s", len(body) + 8, kind.encode()) + body


def _track(number: int, kind: str, entry: bytes, tables: tuple[bytes, ...], timescale: int, duration: int) -> bytes:
    matrix = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)
    size = struct.pack(">II", 1280 << 16, 720 << 16) if kind == "vide" else bytes(8)
    return box(
        "trak",
        box("tkhd", struct.pack(">IIIIII8xHHHH", 7, 0, 0, number, 0, HOURS * 3_600_000, 0, 0, 0, 0), matrix, size),
        box(
            "mdia",
            box("mdhd", struct.pack(">IIIIIHH", 0, 0, 0, timescale, duration, 0x55C4, 0)),
            box("hdlr", struct.pack(">II4s12xx", 0, 0, kind.encode())),
            box(
                "minf",
                box("vmhd" if kind == "vide" else "smhd", bytes(12 if kind == "vide" else 8)),
                box("dinf", box("dref", struct.pack(">II", 0, 1), box("url ", struct.pack(">I", 1)))),
                box("stbl", box("stsd", struct.pack(">II", 0, 1), entry), *tables),
            ),
        ),
    )


def _video_entry() -> bytes:
    record = bytes([1, SPS[1], SPS[2], SPS[3], 0xFF, 0xE1]) + struct.pack(">H", len(SPS)) + SPS
    record += b"\x01" + struct.pack(">H", len(PPS)) + PPS
    fixed = struct.pack(">6xH16xHHIII H32xHh", 1, 1280, 720, 0x480000, 0x480000, 0, 1, 24, -1)
    return box("avc1", fixed, box("avcC", record))


def _audio_entry() -> bytes:
    config = b"\x05\x02\x11\x90"
    decoder = b"\x04" + bytes([13 + len(config)]) + b"\x40\x15" + bytes(11) + config
    body = struct.pack(">HB", 2, 0) + decoder + b"\x06\x01\x02"
    esds = box("esds", bytes(4), b"\x03" + bytes([len(body)]) + body)
    return box("mp4a", struct.pack(">6xH8xHHIHH", 1, 2, 16, 0, 48000, 0), esds)


def ten_hours() -> Path:
    """Return the ten-hour file, made once: a second of pictures, then a second of sound, and so on."""
    path = CACHE / "ten-hours.mp4"
    if path.exists():
        return path
    CACHE.mkdir(parents=True, exist_ok=True)
    seconds = HOURS * 3600
    frames, sounds = seconds * FRAMES_PER_SECOND, seconds * AUDIO_PER_SECOND
    second_bytes = FRAMES_PER_SECOND * FRAME_BYTES + AUDIO_PER_SECOND * AUDIO_BYTES
    head = box("ftyp", b"isom", bytes(4), b"isom")
    start = len(head) + 16

    def tables(count: int, length: int, size: int, per_second: int, shift: int, *more: bytes) -> tuple[bytes, ...]:
        places = struct.pack(f">{seconds}Q", *(start + shift + n * second_bytes for n in range(seconds)))
        return (
            box("stts", struct.pack(">IIII", 0, 1, count, length)),
            box("stsc", struct.pack(">IIIII", 0, 1, 1, per_second, 1)),
            box("stsz", struct.pack(">III", 0, 0, count), struct.pack(">I", size) * count),
            box("co64", struct.pack(">II", 0, seconds), places),
            *more,
        )

    keys = range(1, frames + 1, KEYFRAME_FRAMES)
    sync = box("stss", struct.pack(f">II{len(keys)}I", 0, len(keys), *keys))
    video = tables(frames, 3600, FRAME_BYTES, FRAMES_PER_SECOND, 0, sync)
    audio = tables(sounds, 960, AUDIO_BYTES, AUDIO_PER_SECOND, FRAMES_PER_SECOND * FRAME_BYTES)
    mvhd = struct.pack(
        ">IIIIIIH10x9i24xI",
        0,
        0,
        0,
        1000,
        seconds * 1000,
        0x10000,
        0x100,
        0x10000,
        0,
        0,
        0,
        0x10000,
        0,
        0,
        0,
        0x40000000,
        3,
    )
    moov = box(
        "moov",
        box("mvhd", mvhd),
        _track(1, "vide", _video_entry(), video, 90_000, frames * 3600),
        _track(2, "soun", _audio_entry(), audio, 48_000, sounds * 960),
    )
    work = path.with_suffix(".part")
    with work.open("wb") as file:
        file.write(head + struct.pack(">I4sQ", 1, b"mdat", 16 + seconds * second_bytes))
        file.truncate(start + seconds * second_bytes)
        file.seek(0, 2)
        file.write(moov)
    work.rename(path)
    return path


class RepeatedStream:
    """A short transport stream that can go on behind itself: its continuity counters and time stamps are moved on."""

    def __init__(self, data: bytes) -> None:
        """Find the places that change. data: whole packets of 188 bytes."""
        self.data = bytearray(data)
        self.counters: dict[int, list[int]] = {}
        self.stamps: list[int] = []
        self.clocks: list[int] = []
        for at in range(0, len(data), TS_PACKET):
            pid = (data[at + 1] & 0x1F) << 8 | data[at + 2]
            body = at + 4 + (1 + data[at + 4] if data[at + 3] & 0x20 else 0)
            if data[at + 3] & 0x10 and pid != NULL_PID:
                self.counters.setdefault(pid, []).append(at + 3)
            if data[at + 3] & 0x20 and data[at + 4] and data[at + 5] & 0x10:
                self.clocks.append(at + 6)
            if data[at + 1] & 0x40 and data[body : body + 3] == b"\0\0\1":
                stamps = (0, 0, 1, 2)[data[body + 7] >> 6]
                self.stamps += [body + 9 + 5 * number for number in range(stamps)]

    def move(self, ticks: int) -> None:
        """Let the stream begin so many ticks of 90 kHz later, behind its own end."""
        data = self.data
        for places in self.counters.values():
            for at in places:
                data[at] = data[at] & 0xF0 | (data[at] + len(places)) & 15
        for at in self.stamps:
            high, middle, low = (
                data[at] >> 1 & 7,
                data[at + 1] << 7 | data[at + 2] >> 1,
                data[at + 3] << 7 | data[at + 4] >> 1,
            )
            moved = (high << 30 | middle << 15 | low) + ticks
            data[at] = data[at] & 0xF1 | moved >> 29 & 14
            data[at + 1 : at + 3] = ((moved >> 15 & 0x7FFF) << 1 | 1).to_bytes(2, "big")
            data[at + 3 : at + 5] = ((moved & 0x7FFF) << 1 | 1).to_bytes(2, "big")
        for at in self.clocks:
            base = int.from_bytes(data[at : at + 5], "big")
            moved = ((base >> 7) + ticks) % (1 << 33)
            data[at : at + 5] = (moved << 7 | base & 0x7F).to_bytes(5, "big")


def ten_hours_ts(size_bytes: int) -> Path:
    """Return ten hours as a transport stream of a constant rate, made once: a short thin one over and over, and null packets."""
    path = CACHE / f"ten-hours-{size_bytes}.ts"
    if path.exists():
        return path
    short = CACHE / "thin.ts"
    command = ["ffmpeg", "-v", "error", "-y", "-i", str(thin_file()), "-c", "copy", "-muxdelay", "0", str(short)]
    subprocess.run(command, check=True)
    times = HOURS * 3600 // LIVE_SECONDS
    media = short.read_bytes()
    nulls = NULL_PACKET * max(size_bytes // times // len(media) - 1, 0)
    stream = RepeatedStream(b"".join(media[at : at + TS_PACKET] + nulls for at in range(0, len(media), TS_PACKET)))
    work = path.with_suffix(".part")
    with work.open("wb") as file:
        for _ in range(times):
            file.write(stream.data)
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
            stream.move(LIVE_SECONDS * 90_000)
    work.rename(path)
    return path


def transport_stream(viewers: int, size_bytes: int) -> dict[str, Any]:
    """Return the figures of ten hours of transport stream: without an index, with it, and of many viewers at as many places."""
    film = ten_hours_ts(size_bytes)
    film.with_name(film.name + ".dtsh").unlink(missing_ok=True)
    figures: dict[str, Any] = {"bytes": film.stat().st_size}
    with server((), sources={"ten": str(film)}) as running:
        began = time.perf_counter()
        figures["first_byte_without_index_ms"] = round(first_bytes(running, "/ten.flv", FIRST_BYTES)[0] * 1000, 1)
        segments_of(running, "ten")
        figures["index_s"] = round(time.perf_counter() - began, 1)
        found = [first_bytes(running, "/ten.flv", FIRST_BYTES)[0] * 1000 for _ in range(20)]
        figures["first_byte_running_ms"] = round(statistics.median(found), 1)
        figures["viewers_mb"] = many_places(running, "ten", viewers)
    figures["first_byte_with_index_ms"] = with_index(film, FIRST_BYTES)
    return figures


def with_index(film: Path, count: int) -> dict[str, float]:
    """Return what the first viewer of each format waits for, to so many bytes: the index is on disk, no process of the stream runs."""
    figures = {}
    for kind in ("ts", "flv", "mp4"):
        found = []
        for _ in range(5):
            with server((), sources={"ten": str(film), "short": str(thin_file())}) as running:
                first_bytes(running, "/short.flv", FIRST_BYTES)[1].close()  # the workers of the server have begun
                found.append(first_bytes(running, f"/ten.{kind}", count)[0] * 1000)
        figures[kind] = round(statistics.median(found), 1)
    return figures


def long_file(suffix: str, copies: int) -> Path:
    """Return the live file several times over, as another format."""
    path = CACHE / f"long-{copies}{suffix}"
    if not path.exists():
        source = live_file()
        loops = ["-stream_loop", str(copies - 1)]
        subprocess.run(["ffmpeg", "-v", "error", "-y", *loops, "-i", str(source), "-c", "copy", str(path)], check=True)
    return path


def first_bytes(running: Server, path: str, count: int = 20_000) -> tuple[float, socket.socket]:
    """Ask for a path; return the seconds until so many bytes are here, and the connection."""
    began = time.perf_counter()
    sock = socket.create_connection(("127.0.0.1", running.http), 30)
    sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
    got = 0
    while got < count:
        data = sock.recv(1 << 16)
        if not data:
            raise RuntimeError(f"{path}: only {got} bytes")
        got += len(data)
    return time.perf_counter() - began, sock


def seeks(running: Server, name: str, count: int) -> list[float]:
    """Return the seconds of random seeks, each from the request to the first whole keyframe."""
    chance = random.Random(7)
    found = []
    for _ in range(count):
        start_ms = chance.randrange(HOURS * 3_600_000 - 10_000)
        seconds, sock = first_bytes(running, f"/{name}.flv?start={start_ms}", FRAME_BYTES + 1000)
        sock.close()
        found.append(seconds)
    return found


def segments_of(running: Server, name: str) -> list[str]:
    """Return the paths of all HLS segments of a stream."""
    connection = http.client.HTTPConnection("127.0.0.1", running.http, timeout=60)
    while True:
        connection.request("GET", f"/hls/{name}/0_1/index.m3u8")
        text = connection.getresponse().read().decode()
        if "#EXT-X-ENDLIST" in text:
            break
    connection.close()
    return [f"/hls/{name}/0_1/{line}" for line in text.splitlines() if line and not line.startswith("#")]


def fetch_all(running: Server, paths: Iterator[str], until: float) -> int:
    """Fetch paths over CONNECTIONS keep-alive connections until there are no more, or the time is up; return how many."""
    lock = threading.Lock()

    def client() -> int:
        sock = socket.create_connection(("127.0.0.1", running.http), 30)
        buffer = bytearray(4 << 20)
        done = 0
        while time.perf_counter() < until:
            with lock:
                path = next(paths, None)
            if path is None:
                break
            sock.sendall(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            got = sock.recv_into(buffer)
            head = bytes(buffer[:4096]).partition(b"\r\n\r\n")[0]
            if not head.startswith(b"HTTP/1.1 200"):
                raise RuntimeError(head.decode())
            length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]) + len(head) + 4
            while got < length:
                got += sock.recv_into(memoryview(buffer)[got:])
            done += 1
        sock.close()
        return done

    with ThreadPoolExecutor(CONNECTIONS) as pool:
        return sum(pool.map(lambda _: client(), range(CONNECTIONS)))


def hls(running: Server) -> dict[str, Any]:
    """Return HLS segments a second, each fetched once, and the same few over and over."""
    paths = segments_of(running, "long")
    began = time.perf_counter()
    count = fetch_all(running, iter(paths), began + 60)
    cold = count / (time.perf_counter() - began)
    few = paths[:2]
    fetch_all(running, itertools.islice(itertools.cycle(few), 400), time.perf_counter() + 10)
    began = time.perf_counter()
    count = fetch_all(running, itertools.cycle(few), began + 4)
    cached = count / (time.perf_counter() - began)
    return {"hls_cold": round(cold), "hls_cached": round(cached), "segments": len(paths)}


def many_places(running: Server, name: str, viewers: int) -> int:
    """Return the memory in MB that viewers at as many places cost, all read at a moderate speed for a while."""
    before = running.pss_kb()
    sockets = []
    for number in range(viewers):
        start_ms = number * HOURS * 3_600_000 // viewers + 1
        sockets.append(first_bytes(running, f"/{name}.flv?start={start_ms}&rate=1")[1])
    until = time.monotonic() + 6
    while time.monotonic() < until:
        for sock in sockets:
            sock.recv(1 << 20)
    cost = running.pss_kb() - before
    for sock in sockets:
        sock.close()
    return cost // 1024


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeks", type=int, default=1000)
    parser.add_argument("--viewers", type=int, default=50)
    parser.add_argument("--kind", choices=("mp4", "ts"), default="mp4")
    parser.add_argument(
        "--gigabytes", type=float, default=20, help="of the transport stream, all on disk (default: 20)"
    )
    options = parser.parse_args()
    if options.kind == "ts":
        report(**transport_stream(options.viewers, round(options.gigabytes * 1e9)))
        return
    film = ten_hours()
    figures: dict[str, Any] = {}
    with server((), sources={"ten": str(film)}) as running:
        figures["first_byte_cold_ms"] = round(first_bytes(running, "/ten.flv")[0] * 1000)
        segments_of(running, "ten")  # waits for the whole index
        figures["first_byte_running_ms"] = round(
            statistics.median(first_bytes(running, "/ten.flv")[0] for _ in range(20)) * 1000, 1
        )
        found = seeks(running, "ten", options.seeks)
        figures["seek_median_ms"] = round(statistics.median(found) * 1000, 1)
        figures["seek_99_ms"] = round(sorted(found)[len(found) * 99 // 100] * 1000, 1)
        figures["viewers_mb"] = many_places(running, "ten", options.viewers)
    figures["first_byte_with_index_ms"] = with_index(film, 20_000)
    with server((), sources={"long": str(long_file(".mp4", 60))}) as running:
        figures.update(hls(running))
    report(**figures)


if __name__ == "__main__":
    main()

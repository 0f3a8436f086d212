"""Publishes an FLV file over RTMP, over and over, in real time: publisher.py PORT STREAM FILE. Prints a line when it begins."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from bench.rtmp import publishing_session

TAG_HEADER_BYTES = 11


def tags(path: str) -> list[tuple[int, int, bytes]]:
    """Return (type, ms, body) of all tags of a file."""
    data = Path(path).read_bytes()
    found = []
    position = 13
    while position + TAG_HEADER_BYTES <= len(data):
        size = int.from_bytes(data[position + 1 : position + 4], "big")
        time_ms = int.from_bytes(data[position + 4 : position + 7], "big") | data[position + 7] << 24
        found.append((data[position], time_ms, data[position + 11 : position + 11 + size]))
        position += 11 + size + 4
    return found


def endless(path: str) -> Iterator[tuple[int, int, bytes]]:
    """Yield the file's media for ever with rising times; sequence headers once."""
    media = [tag for tag in tags(path) if tag[0] in (8, 9)]
    headers = [tag for tag in media if tag[2][1:2] == b"\x00" or (tag[0] == 8 and tag[2][1] == 0)]
    frames = [tag for tag in media if tag not in headers]
    length_ms = frames[-1][1] + 33
    yield from headers
    start = 0
    while True:
        for kind, time_ms, body in frames:
            yield kind, start + time_ms, body
        start += length_ms


def main() -> None:
    port, stream, path = int(sys.argv[1]), sys.argv[2], sys.argv[3]
    sock, session = publishing_session(port, stream)
    sock.setblocking(True)
    print("publishing", flush=True)
    began = time.monotonic()
    for kind, time_ms, body in endless(path):
        early = began + time_ms / 1000 - time.monotonic()
        if early > 0:
            time.sleep(early)
        session.send_media(kind, time_ms, body)
        sock.sendall(session.take_output())


if __name__ == "__main__":
    main()

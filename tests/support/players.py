"""Players of every output, each writing or returning what it received."""

from __future__ import annotations

import urllib.request
from pathlib import Path

from tests.support.packets import SeenMedia, read_media
from tests.support.rtmp_peer import RtmpPeer
from tests.support.server import MistServer

PIECE_BYTES = 1 << 16


def play(server: MistServer, output: str, stream: str, target: Path, *, timeout_s: float = 20) -> SeenMedia:
    """Play an output to the stream's end and return its packets.

    output: "flv", "ts", "mp4", "hls", "rtmp" or "rtmp-enhanced". target: where the bytes are kept for a look afterwards.
    """
    if output.startswith("rtmp"):
        with RtmpPeer(server.rtmp_port, timeout_s=timeout_s) as peer, target.open("wb") as file:
            peer.play(stream, enhanced=output == "rtmp-enhanced")
            peer.record(file)
        return read_media(target)
    if output == "hls":
        return read_media(server.play_url("hls", stream), timeout_s=timeout_s, options={"live_start_index": "0"})
    with urllib.request.urlopen(server.play_url(output, stream), timeout=timeout_s) as reply, target.open("wb") as file:
        while data := reply.read1(PIECE_BYTES):
            file.write(data)
    return read_media(target)

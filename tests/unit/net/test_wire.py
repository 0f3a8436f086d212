"""A socket that another process can go on with: what is written down while a peer takes its time."""

from __future__ import annotations

import asyncio
import os
import socket
from pathlib import Path
from typing import Any

from mist.core.checkpoint import CheckpointTable, create_checkpoints
from mist.net.wire import Wire

BODY = os.urandom(4 << 20)


class Owner:
    """Has nothing to say."""

    def saved_state(self) -> bytes:
        return b"state"

    def __getattr__(self, name: str) -> Any:
        return lambda *_: None


def test_what_is_left_is_written_down_without_another_copy() -> None:
    name = f"mist-wire-{os.getpid()}"
    table = create_checkpoints(name)
    try:
        asyncio.run(_send_to_a_slow_peer(table, name))
    finally:
        Path("/dev/shm", name).unlink()


async def _send_to_a_slow_peer(table: CheckpointTable, name: str) -> None:
    loop = asyncio.get_running_loop()
    with socket.create_server(("127.0.0.1", 0)) as listener:
        peer = socket.create_connection(listener.getsockname())
        ours, _ = listener.accept()
    with peer, ours:
        ours.setblocking(False)
        peer.setblocking(False)
        record = table.claim("HTTP", "10.0.0.1")
        record.follow_socket(ours.fileno())
        wire = Wire(loop, ours, record, Owner())
        wire.writelines([b"head", BODY])
        once = os.stat(f"/dev/shm/{name}").st_blocks
        got = b""
        for _ in range(3):
            while len(got) < len(BODY) // 4:
                got += await loop.sock_recv(peer, 1 << 16)
            wire.flush()  # as when something else has changed
            sent_at, _, pending, state, *_ = record.progress()
            whole = b"head" + BODY
            assert pending == whole[sent_at:]
            assert len(got) <= sent_at + len(pending) - wire.get_write_buffer_size()
            assert state == b"state"
            assert os.stat(f"/dev/shm/{name}").st_blocks == once
        while len(got) < len(whole):
            got += await loop.sock_recv(peer, 1 << 16)
        assert got == whole
        assert record.progress()[2] == b""
        wire.abort()
        await asyncio.sleep(0)

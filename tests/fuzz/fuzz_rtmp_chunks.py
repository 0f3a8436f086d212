"""Fuzz target: RTMP chunk streams."""

from __future__ import annotations

from mist.core.rtmp_chunks import ChunkReader
from mist.errors import RemoteProtocolError

MEMORY_BYTES = 1 << 20


def fuzz(data: bytes) -> None:
    """Read it whole, byte by byte, and with a hand-over in the middle: all three must agree."""
    whole = _read([data])
    pieces = [data[at : at + 1] for at in range(len(data))] if len(data) < 4096 else [data[:100], data[100:]]
    if _read(pieces) != whole:
        raise RuntimeError("pieces give other messages")
    if _read([data[: len(data) // 2], data[len(data) // 2 :]], hand_over=True) != whole:
        raise RuntimeError("another process gets other messages")


def _read(pieces: list[bytes], hand_over: bool = False) -> list[tuple[object, ...]]:
    reader = ChunkReader(max_memory_bytes=MEMORY_BYTES)
    seen: list[tuple[object, ...]] = []
    try:
        for piece in pieces:
            messages = reader.feed(piece)
            seen += [(m.chunk_stream, m.type_id, m.message_stream, m.time_ms, m.payload) for m in messages]
            if reader.memory_bytes > MEMORY_BYTES:
                raise RuntimeError(f"{reader.memory_bytes} bytes held")
            if hand_over:
                other = ChunkReader(max_memory_bytes=MEMORY_BYTES)
                other.restore(reader.export_state())
                reader = other
    except RemoteProtocolError:
        # What came before the error in the same piece is lost, so only whole conversations are compared.
        return [("error",)]
    return seen

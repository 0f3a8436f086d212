"""Fuzz target: stream names from the network."""

from __future__ import annotations

from mist.errors import NotFound
from mist.stream.names import MAX_NAME_BYTES, MAX_SHM_NAME_BYTES, base_name, sanitise, shm_name, wildcard_part


def fuzz(data: bytes) -> None:
    """Sanitise any text; what is accepted is short, stays the same when sanitised again, and is safe as a file name."""
    for text in (data.decode("utf-8", "surrogateescape"), data.decode("latin-1")):
        try:
            name = sanitise(text)
        except NotFound:
            continue
        file_name = shm_name(name)
        if sanitise(name) != name or len(name.encode()) > MAX_NAME_BYTES or "?" in name:
            raise RuntimeError(f"{text!r} is known as {name!r}")
        if len(file_name) > MAX_SHM_NAME_BYTES or not file_name.isascii() or set(file_name) & set("/.\0"):
            raise RuntimeError(f"{name!r} is stored as {file_name!r}")
        if base_name(name) + ("+" + wildcard_part(name) if "+" in name else "") != name:
            raise RuntimeError(f"{name!r} does not split")

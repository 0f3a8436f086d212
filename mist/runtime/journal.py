"""Records with fields for systemd's journal, in its native protocol: a datagram for each, and nothing ever waits."""

from __future__ import annotations

import os
import socket
import struct
from collections.abc import Mapping

from mist.runtime.process import own

JOURNAL_SOCKET = "/run/systemd/journal/socket"
MAX_FIELD_BYTES = 48 * 1024
STDERR = 2


def is_journal(stream: str) -> bool:
    """Tell whether standard error is the journal's: stream is $JOURNAL_STREAM, "DEVICE:INODE" of what it was at the start."""
    try:
        status = os.fstat(STDERR)
    except OSError:
        return False
    return stream == f"{status.st_dev}:{status.st_ino}"


def serialize(fields: Mapping[str, object]) -> bytes:
    """Return a record; values longer than MAX_FIELD_BYTES are cut. Spec: systemd's "Native Journal Protocol"."""
    result = bytearray()
    for name, value in fields.items():
        data = str(value).encode("utf-8", "replace")[:MAX_FIELD_BYTES]
        if b"\n" in data:
            result += name.encode() + b"\n" + struct.pack("<Q", len(data)) + data + b"\n"
        else:
            result += name.encode() + b"=" + data + b"\n"
    return bytes(result)


class Journal:
    """Sends records to the journal. What it has no room for is counted, and told with the next record that it takes."""

    def __init__(self, path: str = JOURNAL_SOCKET) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._lost = 0

    def send(self, fields: Mapping[str, object]) -> bool:
        """Send a record, or drop it when the journal is busy; False when there is no journal."""
        if self._lost:
            fields = {
                **fields,
                "MESSAGE": f"{fields['MESSAGE']} ({self._lost} lines before were lost: the journal is busy)",
            }
        if self._socket is None:
            self._socket = own(
                socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            )
        try:
            self._socket.sendto(serialize(fields), self._path)
        except BlockingIOError:
            self._lost += 1
            return True
        except OSError:
            return False
        self._lost = 0
        return True

    def reopen(self) -> None:
        """Forget the socket of the parent in a forked child."""
        self._socket = None

    def close(self) -> None:
        """Close the socket."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

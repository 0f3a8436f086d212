"""The service manager's descriptor store: what is put there outlives every process of the service.

systemd keeps descriptors by name (`FileDescriptorStoreMax=`) and gives them to the next start, as it gives the sockets of a socket
unit. Without a store nothing here does anything.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence

from mist.runtime.notify import notify

FIRST_DESCRIPTOR = 3
# systemd allows no colon in names, and addresses are full of them.
_COLON, _STAND_IN = ":", "~"


def has_store() -> bool:
    """Tell whether the service manager keeps descriptors for this service."""
    room = os.environ.get("FDSTORE", "")
    return room.isdigit() and int(room) > 0


def store(name: str, fds: Sequence[int]) -> None:
    """Put descriptors into the store under a name; one that is there already stays once."""
    if fds and has_store():
        notify(f"FDSTORE=1\nFDNAME={name.replace(_COLON, _STAND_IN)}", fds)


def forget(name: str) -> None:
    """Take the descriptors of a name out of the store."""
    if has_store():
        notify(f"FDSTOREREMOVE=1\nFDNAME={name.replace(_COLON, _STAND_IN)}")


def stored() -> dict[str, list[int]]:
    """Return what the service manager gave to this start, by name, at the first call; the caller owns it."""
    count, owner = os.environ.pop("LISTEN_FDS", ""), os.environ.pop("LISTEN_PID", "")
    names = os.environ.pop("LISTEN_FDNAMES", "").split(_COLON)
    found: dict[str, list[int]] = {}
    if not count.isdigit() or owner != str(os.getpid()):
        return found
    for number in range(int(count)):
        fd = FIRST_DESCRIPTOR + number
        os.set_inheritable(fd, False)
        name = names[number] if number < len(names) else ""
        found.setdefault(name.replace(_STAND_IN, _COLON), []).append(fd)
    return found


def listening_port(fd: int) -> int:
    """Return the port that a descriptor listens on, 0 if it is no listening TCP socket."""
    try:
        with socket.socket(fileno=os.dup(fd)) as sock:
            if sock.type != socket.SOCK_STREAM or not sock.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
                return 0
            return int(sock.getsockname()[1])
    except (OSError, IndexError, ValueError):
        return 0

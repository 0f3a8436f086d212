"""Messages to the service manager (systemd's notification protocol)."""

from __future__ import annotations

import os
import socket
from collections.abc import Sequence


def notify(text: str, fds: Sequence[int] = ()) -> bool:
    """Send a state such as "READY=1" to the service manager; False when there is none or it does not listen.

    Never blocks: a manager that does not read must not hold up the server.
    """
    address = os.environ.get("NOTIFY_SOCKET")
    if not address:
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK) as sock:
        try:
            sock.connect(address)
            if fds:
                socket.send_fds(sock, [text.encode()], fds)
            else:
                sock.send(text.encode())
        except OSError:
            return False
    return True


def notify_watchdog(patience_s: float) -> None:
    """Tell the service manager that this process is well, and by when it says so again at the latest."""
    notify(f"WATCHDOG=1\nWATCHDOG_USEC={round(patience_s * 1e6)}")


def watchdog_seconds() -> float | None:
    """Return how often the service manager wants to hear of this process, or None."""
    wanted = os.environ.get("WATCHDOG_USEC", "")
    owner = os.environ.get("WATCHDOG_PID", "")
    if not wanted.isdigit() or (owner and owner != str(os.getpid())):
        return None
    return int(wanted) / 2_000_000

"""Ports that nobody else uses."""

from __future__ import annotations

import os
import socket

# Below the range from which the kernel takes ports of outgoing connections, so that none of those is hit.
FIRST_PORT, LAST_PORT = 10_000, 32_000
_next = FIRST_PORT + (os.getpid() * 97) % (LAST_PORT - FIRST_PORT)


def free_port() -> int:
    """Return a TCP port that is free on all addresses of this machine, and that this process did not return before.

    Several pytest workers start at different places of the range and step over what is taken.
    """
    global _next
    for _ in range(LAST_PORT - FIRST_PORT):
        port, _next = _next, _next + 1 if _next < LAST_PORT else FIRST_PORT
        with socket.socket(socket.AF_INET6) as probe:
            probe.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("::", port))
            except OSError:
                continue
            return port
    raise RuntimeError("no free port")

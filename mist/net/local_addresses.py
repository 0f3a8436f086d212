"""The addresses of this machine's own interfaces."""

from __future__ import annotations


class LocalAddresses:
    """Knows the interfaces' addresses as text, and looks again when its knowledge is over `keep_seconds` old."""

    def __init__(self, keep_seconds: float = 10.0) -> None:
        self.keep_seconds = keep_seconds
        self._read_at = float("-inf")
        self._addresses: frozenset[str] = frozenset()

    def get(self, now: float) -> frozenset[str]:
        """Return the addresses; IPv6 ones of one link with their `%interface`. now: monotonic seconds."""
        if now - self._read_at > self.keep_seconds:
            import socket

            import psutil

            families = (socket.AF_INET, socket.AF_INET6)
            interfaces = psutil.net_if_addrs().values()
            self._addresses = frozenset(a.address for entry in interfaces for a in entry if a.family in families)
            self._read_at = now
        return self._addresses

"""The addresses of this machine's own interfaces."""

from __future__ import annotations

import ipaddress
from pathlib import Path
from typing import Final

# The kernel's routing table: an address on one line, and below it what it is.
IPV4_ROUTES: Final = Path("/proc/net/fib_trie")
IPV6_ADDRESSES: Final = Path("/proc/net/if_inet6")
_OWN = "host LOCAL"


class LocalAddresses:
    """Knows the interfaces' addresses as text, and looks again when its knowledge is over `keep_seconds` old."""

    def __init__(self, keep_seconds: float = 10.0) -> None:
        self.keep_seconds = keep_seconds
        self._read_at = float("-inf")
        self._addresses: frozenset[str] = frozenset()

    def get(self, now: float) -> frozenset[str]:
        """Return the addresses; IPv6 ones of one link with their `%interface`. now: monotonic seconds."""
        if now - self._read_at > self.keep_seconds:
            self._addresses = frozenset((*ipv4_addresses(_read(IPV4_ROUTES)), *ipv6_addresses(_read(IPV6_ADDRESSES))))
            self._read_at = now
        return self._addresses


def _read(path: Path) -> str:
    """Return a file of the kernel's, empty where it has none."""
    try:
        return path.read_text()
    except OSError:
        return ""


def ipv4_addresses(routes: str) -> set[str]:
    """Return the machine's own addresses in the text of its routing table."""
    found: set[str] = set()
    address = ""
    for line in routes.splitlines():
        words = line.split()
        if words[:1] == ["|--"]:
            address = words[1]
        elif line.endswith(_OWN):
            found.add(address)
    return found


def ipv6_addresses(interfaces: str) -> set[str]:
    """Return the addresses in the text of the kernel's list of them: 32 digits first, the interface last."""
    found: set[str] = set()
    for line in interfaces.splitlines():
        digits, *_, interface = line.split()
        address = ipaddress.IPv6Address(int(digits, 16))
        found.add(f"{address}%{interface}" if address.is_link_local else str(address))
    return found

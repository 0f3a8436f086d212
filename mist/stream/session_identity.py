"""Which connections count as one user: the settings that say so, and the identifier of a session."""

from __future__ import annotations

import hashlib
import ipaddress
from collections.abc import Mapping
from enum import IntEnum
from functools import lru_cache
from typing import Any, NamedTuple

STREAM_BIT, ADDRESS_BIT, TOKEN_BIT, CONNECTOR_BIT = 8, 4, 2, 1
INFO_AS_VIEWER, INFO_AS_OUTPUT, INFO_AS_NOTHING, INFO_AS_UNSPECIFIED = 1, 2, 3, 4
INFO_CONNECTOR = "HTTP"
MAX_RECORD_TOKEN_BYTES = 127


class Kind(IntEnum):
    """What a session is; the order is that of the counters in replies."""

    VIEWER = 0
    INPUT = 1
    OUTPUT = 2
    UNSPECIFIED = 3

    def __reduce_ex__(self, _protocol: object) -> tuple[type[Kind], tuple[int]]:
        """Be pickled by value: some releases of Python 3.11 do it by name, with a call of `getattr` that readers of states refuse."""
        return Kind, (int(self),)


_PREFIX = {Kind.VIEWER: "", Kind.INPUT: "I", Kind.OUTPUT: "O", Kind.UNSPECIFIED: "U"}


class SessionModes(NamedTuple):
    """The settings that say what a session is: for each kind which parts of a connection make its identifier."""

    viewer: int = 14
    input: int = 15
    output: int = 15
    unspecified: int = 0
    stream_info: int = INFO_AS_VIEWER

    @classmethod
    def from_config(cls, server: Mapping[str, Any]) -> SessionModes:
        """Return the modes in the member `config` of a snapshot."""
        return cls(
            server.get("sessionViewerMode", 14),
            server.get("sessionInputMode", 15),
            server.get("sessionOutputMode", 15),
            server.get("sessionUnspecifiedMode", 0),
            server.get("sessionStreamInfoMode", INFO_AS_VIEWER),
        )

    def kind_of(self, connector: str) -> Kind | None:
        """Return what kind of session a connection with this connector belongs to, None for none at all."""
        if connector.startswith("INPUT:"):
            return Kind.INPUT
        if connector.startswith("OUTPUT:"):
            return Kind.OUTPUT
        if connector != INFO_CONNECTOR:
            return Kind.VIEWER
        return {
            INFO_AS_OUTPUT: Kind.OUTPUT,
            INFO_AS_NOTHING: None,
            INFO_AS_UNSPECIFIED: Kind.UNSPECIFIED,
        }.get(self.stream_info, Kind.VIEWER)


def record_token(token: str) -> str:
    """Return a token as connection records hold it: a long one, such as a JWT, as its SHA-256."""
    data = token.encode("utf-8", "replace")
    return token if len(data) <= MAX_RECORD_TOKEN_BYTES else hashlib.sha256(data).hexdigest()


def identify(kind: Kind, modes: SessionModes, stream: str, host: str, token: str, connector: str) -> str:
    """Return the identifier of the session that a connection belongs to."""
    mode = modes[kind]
    digest = hashlib.sha256()
    if mode & STREAM_BIT:
        digest.update(stream.encode("utf-8", "replace"))
    if mode & ADDRESS_BIT:
        digest.update(packed_address(host))
    if mode & TOKEN_BIT:
        digest.update(record_token(token).encode("utf-8", "replace"))
    if mode & CONNECTOR_BIT:
        digest.update(connector.encode("utf-8", "replace"))
    return _PREFIX[kind] + digest.hexdigest()


@lru_cache(maxsize=4096)
def packed_address(host: str) -> bytes:
    """Return an address as 16 bytes, IPv4 mapped into IPv6; zeros for what is no address."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return bytes(16)
    return b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed

"""Who may publish to a stream: the rules in its `push://` source."""

from __future__ import annotations

import ipaddress
from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from mist.errors import AccessDenied, NotFound
from mist.stream.names import base_name, sanitise
from mist.stream.variables import replace_in

PREFIX: Final = "push://"
KEY_SOURCE: Final = "push://STREAM_KEY_ONLY:STREAM_KEY_ONLY"

Resolve = Callable[[str], Awaitable[Iterable[str]]]


@dataclass(frozen=True, slots=True)
class PushTarget:
    """A stream that somebody may publish to. keyed: by a stream key, so that no other rule counts."""

    stream: str
    keyed: bool = False


def push_rule(source: str) -> tuple[str, str]:
    """Return (host, password) of a `push://[host][@password]` source, "" for what it does not have.

    Raises AccessDenied for a source that nobody publishes to.
    """
    plain = source.strip().partition("?")[0]
    if not plain.startswith(PREFIX) or "INTERNAL_" in plain:
        raise AccessDenied("Stream is not configured to be published to")
    host, _, password = plain.removeprefix(PREFIX).partition("@")
    return host.strip().rstrip("/"), password


def host_matches(rule: str, addresses: Iterable[str], peer: str) -> bool:
    """Return whether a peer's address is in a rule: an address, address/bits, or a name with these addresses."""
    peer_address = _address(peer)
    if peer_address is None:
        return False
    network = _network(rule)
    if network is None:
        return any(_address(address) == peer_address for address in addresses)
    return peer_address.version == network.version and peer_address in network


def _network(rule: str) -> ipaddress.IPv4Network | ipaddress.IPv6Network | None:
    try:
        return ipaddress.ip_network(rule.replace("[", "").replace("]", ""), strict=False)
    except ValueError:
        return None


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text.strip("[]").partition("%")[0])
    except ValueError:
        return None
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def is_name(rule: str) -> bool:
    """Return whether a host rule is a name that must be looked up."""
    return _network(rule) is None


async def admit(config: Mapping[str, Any], name: str, password: str, peer: str, resolve: Resolve) -> PushTarget:
    """Return the stream that a peer may publish to.

    config: the whole configuration. name: as the peer wrote it, or a stream key. peer: its address. resolve(host):
    looks a name up. Raises NotFound, AccessDenied with a text for the peer.
    """
    keys = config.get("streamkeys")
    if isinstance(keys, Mapping) and isinstance(keys.get(name), str):
        return PushTarget(sanitise(keys[name]), keyed=True)
    stream = sanitise(name)
    streams = config.get("streams") or {}
    settings = streams.get(stream) or streams.get(base_name(stream))
    if not isinstance(settings, Mapping):
        raise NotFound(f"There is no stream {stream}")
    host, wanted = push_rule(replace_in(str(settings.get("source", "")), stream, config))
    if wanted and password == wanted:
        return PushTarget(stream)
    if wanted and not host:
        raise AccessDenied("The password is wrong")
    if host and not host_matches(host, await resolve(host) if is_name(host) else (), peer):
        raise AccessDenied("Publishing to this stream is not allowed from your address")
    return PushTarget(stream)

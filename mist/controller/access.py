"""From where a request comes: this machine, a proxy that is trusted, another site's page in a browser."""

from __future__ import annotations

import ipaddress
import socket
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from urllib.parse import urlsplit

# A request with any of these was passed on by somebody, so it is not this machine's own.
PROXY_HEADERS = ("x-forwarded-for", "x-real-ip", "forwarded", "via", "x-forwarded-host", "x-forwarded-proto")
MAX_FORWARDED = 32
MAX_RESOLVED = 16
SAME_SITE = ("none", "same-origin")

Network = ipaddress.IPv4Network | ipaddress.IPv6Network


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a request comes from.

    address: of the client, behind trusted proxies, too. local: this machine itself, so that it needs no login.
    foreign: a browser sends it for another site's page. private: nobody on the way can read it. opened: it is an address that
    somebody opened in a browser: typed, or a link in a letter. renamed: a browser calls the server by a name that may be
    anybody's, and lead here only since the page was loaded.
    """

    address: str
    local: bool = False
    foreign: bool = False
    private: bool = False
    opened: bool = False
    renamed: bool = False


def plain_address(address: str) -> str:
    """Return an address text without the IPv6 form of IPv4 addresses."""
    return address[7:] if address.startswith("::ffff:") and "." in address else address


class Proxies:
    """The peers that may say on whose behalf they ask: what `config.trustedproxy` lists, and nobody else."""

    def __init__(self, entries: Iterable[str] = ()) -> None:
        """Take addresses, networks and host names; names are looked up now."""
        self._networks: list[Network] = []
        for entry in entries:
            self._networks += _networks(entry)

    def trusts(self, address: str) -> bool:
        """Return whether a peer's word about its client counts."""
        try:
            peer = ipaddress.ip_address(address.partition("%")[0])
        except ValueError:
            return False
        return any(peer.version == network.version and peer in network for network in self._networks)

    def client(self, peer: str, headers: Mapping[str, str]) -> str:
        """Return the address of the client of a trusted peer: the last one that no trusted proxy has."""
        forwarded = [part.strip() for part in headers.get("x-forwarded-for", "").split(",")][-MAX_FORWARDED:]
        for entry in reversed(forwarded or [""]):
            address = _address(entry)
            if not address:
                break
            if not self.trusts(address):
                return address
        return _address(headers.get("x-real-ip", "")) or peer


def _networks(entry: str) -> list[Network]:
    try:
        return [ipaddress.ip_network(entry, strict=False)]
    except ValueError:
        pass
    try:
        found = socket.getaddrinfo(entry, None, type=socket.SOCK_STREAM)[:MAX_RESOLVED]
    except (OSError, UnicodeError):
        return []
    return [ipaddress.ip_network(str(row[4][0]).partition("%")[0]) for row in found]


def _address(text: str) -> str:
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        return plain_address(str(ipaddress.ip_address(text)))
    except ValueError:
        return ""


def locate(
    peer: str, own: Collection[str], headers: Mapping[str, str], proxies: Proxies, *, allowed: bool, tls: bool
) -> Origin:
    """Return where a request comes from.

    peer: address of the other end. own: this machine's addresses. headers: names in lower case. allowed: whether local
    requests need no login. tls: whether the connection is encrypted.
    """
    foreign, opened = is_foreign(headers), headers.get("sec-fetch-site") == "none"
    if proxies.trusts(peer):
        secure = headers.get("x-forwarded-proto", "").strip().lower() == "https"
        return Origin(proxies.client(peer, headers), foreign=foreign, private=secure, opened=opened)
    here = is_own(peer, own)
    passed_on = any(name in headers for name in PROXY_HEADERS)
    own_name = has_own_name(headers.get("host", ""))
    local = allowed and here and not passed_on and not foreign and own_name
    renamed = not own_name and not tls and is_browser(headers)  # who has a certificate of that name is no stranger
    private = tls or (here and not passed_on)
    return Origin(peer, local=local, foreign=foreign, private=private, opened=opened, renamed=renamed)


def is_own(address: str, own: Collection[str]) -> bool:
    """Return whether an address is one of this machine."""
    try:
        return ipaddress.ip_address(address.partition("%")[0]).is_loopback or address in own
    except ValueError:
        return False


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Return whether a browser sends a request for another site's page.

    Newer browsers say so. Of older ones, and where they do not (plain HTTP to other hosts than localhost), the page's
    address is compared with ours; one that says nothing at all is not believed.
    """
    host = headers.get("host", "")
    site = headers.get("sec-fetch-site")
    if site is not None and site not in SAME_SITE:
        return True
    origin = headers.get("origin")
    if origin is not None:
        return origin.partition("://")[2] != host
    if site is not None or not is_browser(headers):
        return False
    return _authority(headers.get("referer", "")) != host


def is_browser(headers: Mapping[str, str]) -> bool:
    """Return whether a browser sends a request, as far as it says so; a page cannot make it say less."""
    return headers.get("user-agent", "").startswith("Mozilla/") or "origin" in headers or "sec-fetch-site" in headers


def _authority(url: str) -> str:
    try:
        return urlsplit(url).netloc
    except ValueError:
        return ""


def has_own_name(host: str) -> bool:
    """Return whether a Host header names this machine: somebody else's name may lead a browser here, too."""
    name = host[1:].partition("]")[0] if host.startswith("[") else host.partition(":")[0]
    name = name.lower().rstrip(".")
    if name in ("", "localhost", _host_name()) or name.endswith(".localhost"):
        return True
    try:
        ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return True


@cache
def _host_name() -> str:
    return socket.gethostname().lower()

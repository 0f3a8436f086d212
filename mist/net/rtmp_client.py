"""Publishing to an RTMP server: connect, with TLS for `rtmps://`, say who we are if it asks, and talk until the server wants media."""

from __future__ import annotations

import os
import secrets
import time
from dataclasses import dataclass, field, replace
from typing import Any, Final
from urllib.parse import unquote, urlsplit

from mist.errors import AccessDenied, ConfigError
from mist.formats.rtmp import adobe_access
from mist.formats.rtmp import messages as m
from mist.formats.rtmp.client import ClientSession
from mist.net.dial import Dialled, client_context, dial, talk

_PORTS: Final = {"rtmp": 1935, "rtmps": 443}


@dataclass(frozen=True, slots=True)
class RtmpAddress:
    """Where a stream is published: `rtmp://[user:password@]host[:port]/app/stream`. verify: a certificate must be right."""

    host: str
    port: int
    app: str
    stream: str
    secure: bool
    verify: bool = True
    user: str = ""
    password: str = field(default="", repr=False)

    @classmethod
    def parse(cls, url: str, *, app: str = "", stream: str = "", verify: bool = True) -> RtmpAddress:
        """Read a URL; what else is given takes the place of its parts. Raises ConfigError."""
        try:
            parts = urlsplit(url)
            port = parts.port or _PORTS[parts.scheme]
            name = parts.hostname or ""
        except (ValueError, KeyError):
            raise ConfigError(f"{url} is no RTMP address: rtmp://HOST/APP/STREAM", path="target", value=url) from None
        path_app, _, path_stream = parts.path.lstrip("/").rpartition("/")
        if parts.query:
            path_stream += f"?{parts.query}"
        found = cls(
            name,
            port,
            app or unquote(path_app),
            stream or unquote(path_stream),
            parts.scheme == "rtmps",
            verify,
            unquote(parts.username or ""),
            unquote(parts.password or ""),
        )
        if not name or not found.stream:
            raise ConfigError(f"{url} names no host or no stream: rtmp://HOST/APP/STREAM", path="target", value=url)
        return found

    def moved_to(self, tc_url: str) -> RtmpAddress:
        """Return where the same stream is published at another URL, which may be relative. Raises ConfigError for what is none."""
        if not tc_url:
            return self
        scheme, host = "rtmps" if self.secure else "rtmp", self.tc_url.split("/")[2]
        if "://" not in tc_url:
            tc_url = f"{scheme}:{tc_url}" if tc_url.startswith("//") else f"{scheme}://{host}/{tc_url.lstrip('/')}"
        found = RtmpAddress.parse(f"{tc_url.rstrip('/')}/-", stream=self.stream, verify=self.verify)
        return replace(found, user=self.user, password=self.password)

    @property
    def tc_url(self) -> str:
        """What the server is told that it was called."""
        scheme = "rtmps" if self.secure else "rtmp"
        host = f"[{self.host}]" if ":" in self.host else self.host
        port = "" if self.port == _PORTS[scheme] else f":{self.port}"
        return f"{scheme}://{host}{port}/{self.app}"


async def publish(address: RtmpAddress) -> tuple[Dialled, ClientSession]:
    """Connect and ask to publish. Raises TransportError, AccessDenied (the server's refusal), RemoteProtocolError."""
    access, attempts = "", adobe_access.ATTEMPTS
    while True:
        attempts -= 1
        try:
            return await _publish(address, access)
        except AccessDenied as refusal:
            challenge = secrets.token_hex(4)
            access = (
                adobe_access.answer(str(refusal), address.user, address.password, challenge) if address.user else ""
            )
            if not access or not attempts:
                raise


async def _publish(address: RtmpAddress, access: str) -> tuple[Dialled, ClientSession]:
    """Connect once. access: for the server's management of access, behind the name of the application."""
    dialled = await dial(address.host, address.port, client_context(address.verify) if address.secure else None)
    session = ClientSession(
        app=address.app + access,
        stream=address.stream,
        tc_url=address.tc_url + access,
        publish=True,
        entropy=os.urandom,
        now=time.monotonic(),
    )
    await talk(dialled, session, _is_started)
    return dialled, session


def _is_started(event: Any) -> bool:
    if isinstance(event, m.Refused):
        raise AccessDenied(event.description or event.code or "the server refused")
    return isinstance(event, m.Started)

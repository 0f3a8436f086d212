"""The ways to the control API that follow the configuration: its certificate, and the port for datagrams."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from mist.controller.udp import UdpPort
from mist.errors import ConfigError

if TYPE_CHECKING:
    from mist.controller.server import ApiServer
    from mist.controller.state import Controller


class Doors:
    """Keeps the server's encryption and the datagram port as `config.controller` says."""

    def __init__(self, controller: Controller, server: ApiServer) -> None:
        self.controller = controller
        self.server = server
        self._udp: UdpPort | None = None
        self._files: tuple[str, str, int, int] | None = None

    def follow(self) -> None:
        """Apply the configuration; files of the certificate that were written anew are read again."""
        settings = self.controller.store.config.model.config.controller
        self._follow_tls(settings.tls.certificate if settings.tls else "", settings.tls.key if settings.tls else "")
        wanted = settings.udp and settings.localaccess
        if wanted and self._udp is None:
            self._udp = UdpPort(self.controller)
            self.controller.services.loop.create_task(self._udp.open(self.controller.endpoint[1]))
        elif not wanted and self._udp is not None:
            self._udp.close()
            self._udp = None

    def _follow_tls(self, certificate: str, key: str) -> None:
        from mist.controller.server import tls_context

        if not certificate and not key:
            self.server.tls, self.server.refusing, self._files = None, False, None
            return
        files = (certificate, key, _written(certificate), _written(key))
        if files == self._files:
            return
        try:
            self.server.tls = tls_context(certificate, key)
        except ConfigError as error:
            self.server.refusing = self.server.tls is None
            kept = "nobody is served over the network" if self.server.refusing else "the certificate before it stays"
            self.controller.log.error("%s; %s", error, kept)
            return
        self._files, self.server.refusing = files, False
        self.controller.log.info("The control API uses the certificate %s", certificate, extra={"kind": "CONF"})

    def close(self) -> None:
        """Close the datagram port."""
        if self._udp is not None:
            self._udp.close()


def _written(path: str) -> int:
    """Return when a file was written, 0 when there is none."""
    try:
        return Path(path).stat().st_mtime_ns
    except (OSError, ValueError):
        return 0

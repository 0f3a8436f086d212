"""Talking to a running server: commands of the control API over the socket that only the server's own user can open."""

from __future__ import annotations

import http.client
import json
import socket
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from mist.errors import TransportError

SECONDS = 60.0
MAX_REPLY_BYTES = 256 * 1024 * 1024
AWAY_SECONDS = 10.0  # that the controller of a running server may be away: one that was killed comes back
RETRY_SECONDS = 0.05


class _Connection(http.client.HTTPConnection):
    """HTTP over a Unix socket."""

    def __init__(self, path: Path) -> None:
        super().__init__("localhost", timeout=SECONDS)
        self._path = path

    def connect(self) -> None:
        """Connect, if need be to the next controller of a server whose last one has just died."""
        until = time.monotonic() + AWAY_SECONDS
        while True:
            self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
            self.sock.settimeout(SECONDS)
            try:
                self.sock.connect(str(self._path))
            except (FileNotFoundError, ConnectionRefusedError):
                self.sock.close()
                if time.monotonic() > until or not _is_served(self._path.parent):
                    raise
                time.sleep(RETRY_SECONDS)  # until it listens there is nothing to wait on but time
            else:
                return


def _is_served(folder: Path) -> bool:
    """Tell whether the main process of a server lives."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as main:
        return main.connect_ex(str(folder / "spawner.sock")) == 0


def call(path: Path, command: Mapping[str, Any]) -> dict[str, Any]:
    """Send a command and return the reply without what every reply has. Raises TransportError."""
    return call_and_hear(path, command)[0]


def call_and_hear(path: Path, command: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, list[str]]]:
    """Do what `call` does; returns the reply, and what the server says against the command: `refused`, and `warnings`."""
    connection = _Connection(path)
    try:
        connection.request("POST", "/api2", json.dumps(command), {"Content-Type": "application/json"})
        reply: dict[str, Any] = json.loads(connection.getresponse().read(MAX_REPLY_BYTES))
    except (FileNotFoundError, ConnectionRefusedError):
        raise TransportError(
            f'no server runs here ({path}); start one with "mist serve", or name its --instance'
        ) from None
    except PermissionError:
        raise TransportError(
            f"the server belongs to another user ({path}); run this as that user, or as root"
        ) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise TransportError(f"the server does not answer at {path}: {error}") from None
    finally:
        connection.close()
    for name in ("LTS", "authorize"):
        reply.pop(name, None)
    return reply, reply.pop("problems", {})

"""API calls about the server itself: what it can do, how busy it is, what it said."""

from __future__ import annotations

import os
from typing import Any

from mist.controller.state import Command, Controller
from mist.controller.version import version_report

MAX_LISTED = 10_000
SHUTTING_DOWN = "Shutting down"
NOT_ALLOWED = "Ignored: only a client on the same machine may shut the server down"


def capabilities(controller: Controller, command: Command) -> None:
    """Return the documents of all installed modules, and what the machine is."""
    installed = controller.services.capabilities
    if isinstance(command["capabilities"], str):  # asks for a device's capabilities, and no installed input has any
        command.reply["capabilities"] = None
        return
    documents = {kind: dict(installed.get(kind) or {}) or None for kind in ("connectors", "inputs", "processes")}
    command.reply["capabilities"] = {
        **documents, "triggers": None, "internal_writers": None, **controller.load.capabilities()
    }  # fmt: skip


def load(controller: Controller, command: Command) -> None:
    """Return how busy the machine is."""
    command.reply["load"] = controller.load.brief()


def version(controller: Controller, command: Command) -> None:
    """Return which version runs."""
    command.reply["version"] = dict(version_report())


def browse(controller: Controller, command: Command) -> None:
    """List a folder of the server; an empty text means the working directory."""
    given = command["browse"] if isinstance(command["browse"], str) else ""
    result: dict[str, Any] = {"path": [given]}
    command.reply["browse"] = result
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(given or ".") as entries:
            for entry, _ in zip(entries, range(MAX_LISTED), strict=False):
                (folders if entry.is_dir() else files).append(entry.name)
        result["path"] = [os.path.realpath(given or ".")]
    except (OSError, ValueError):
        return
    result.update({name: found for name, found in (("subdirectories", folders), ("files", files)) if found})


def log(controller: Controller, command: Command) -> None:
    """Return the last lines of the log, and forget them when asked to."""
    if "log" in command or not command.minimal:
        command.reply["log"] = controller.log_ring.rows() or None
    if "clearstatlogs" in command:
        controller.log_ring.clear()


def api_endpoint(controller: Controller, command: Command) -> None:
    """Return the URL of this API, as the client can reach it."""
    host, port = controller.endpoint
    if host in ("", "0.0.0.0", "::"):
        host = _host_name(command.host) or "localhost"
    command.reply["api_endpoint"] = f"http://[{host}]:{port}/" if ":" in host else f"http://{host}:{port}/"


def _host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def shutdown(controller: Controller, command: Command) -> None:
    """Stop the whole server, if the client is on the same machine."""
    if not command.local:
        command.reply["shutdown"] = NOT_ALLOWED
        return
    reason = command["shutdown"]
    controller.services.shutdown(reason if isinstance(reason, str) and reason else "API call shutdown")
    command.reply["shutdown"] = SHUTTING_DOWN

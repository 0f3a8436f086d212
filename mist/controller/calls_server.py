"""API calls about the server itself: what it can do, how busy it is, what it said."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mist.controller.state import Command, Controller
from mist.controller.version import version_report
from mist.net.remote_schemes import BUILT_IN
from mist.stream.triggers import TRIGGERS

SHUTTING_DOWN = "Shutting down"
NOT_ALLOWED = "Ignored: only a client on the same machine may shut the server down"


def capabilities(controller: Controller, command: Command) -> None:
    """Return the documents of all installed modules, and what the machine is."""
    installed = controller.services.capabilities
    if isinstance(command["capabilities"], str):  # asks for a device's capabilities, and no installed input has any
        command.reply["capabilities"] = None
        return
    documents = {
        kind: {name: _record(name, one) for name, one in (installed.get(kind) or {}).items()} or None
        for kind in ("connectors", "inputs", "processes")
    }
    command.reply["capabilities"] = {
        **documents,
        "triggers": {name: one.document() for name, one in TRIGGERS.items()},
        "internal_writers": sorted(BUILT_IN),
        **controller.load.capabilities(),
    }


def _record(name: str, document: Mapping[str, Any]) -> dict[str, Any]:
    """Return a module's document as clients know it: with its version, and its name as what may stand before an address."""
    named = {key: [*document[key], f"{name.lower()}:*"] for key in ("push_urls", "source_match") if document.get(key)}
    return {**document, **named, "version": version_report()["version"]}


def load(controller: Controller, command: Command) -> None:
    """Return how busy the machine is."""
    command.reply["load"] = controller.load.brief()


def version(controller: Controller, command: Command) -> None:
    """Return which version runs."""
    command.reply["version"] = dict(version_report())


def log(controller: Controller, command: Command) -> None:
    """Return the last lines of the log."""
    if "log" in command or not command.minimal:
        command.reply["log"] = controller.log_ring.rows() or None


def clearstatlogs(controller: Controller, command: Command) -> None:
    """Forget the lines that `log` returns, once they are in this reply."""
    controller.log_ring.clear()


def api_endpoint(controller: Controller, command: Command) -> None:
    """Return the URL of this API, as the client can reach it."""
    host, port = controller.endpoint
    if host in ("", "0.0.0.0", "::"):
        host = _host_name(command.host) or "localhost"
    scheme = "https" if controller.store.config.model.config.controller.tls is not None else "http"
    command.reply["api_endpoint"] = f"{scheme}://[{host}]:{port}/" if ":" in host else f"{scheme}://{host}:{port}/"


def _host_name(header: str) -> str:
    """Return the name in a Host header, without port and brackets."""
    if header.startswith("["):
        return header[1:].partition("]")[0]
    return header.partition(":")[0]


def shutdown(controller: Controller, command: Command) -> None:
    """Stop the whole server, if the client is on the same machine."""
    if not command.caller.local:
        command.reply["shutdown"] = NOT_ALLOWED
        return
    reason = command["shutdown"]
    controller.services.shutdown(reason if isinstance(reason, str) and reason else "API call shutdown")
    command.reply["shutdown"] = SHUTTING_DOWN

"""What the composition root hands to the runtime: the protocols, the inputs, the controller. The runtime imports none."""

from __future__ import annotations

import socket
from collections.abc import Awaitable, Callable, Container, Mapping, Set
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from mist.net.remote_schemes import scheme_of
from mist.runtime.instance import Instance
from mist.runtime.snapshot import Snapshot
from mist.stream.capability import Capability
from mist.stream.push import PushRole
from mist.stream.services import InputServices, OutputServices


class Connection(Protocol):
    """What serves one accepted socket."""

    def close(self, reason: str) -> None: ...


class ListenerRole(Protocol):
    """An output with a port of its own: its capability has a default port."""

    capability: Capability

    def connection(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str
    ) -> Connection: ...

    def resume(
        self, services: OutputServices, options: Mapping[str, Any], sock: socket.socket, peer: str, record: Any
    ) -> Connection:
        """Go on with a connection that another process served; record: what that process wrote down. Raises MistError, OSError."""
        ...


class InputRole(Protocol):
    """An input. Returning is a clean end of the source, raising a MistError an unclean one.

    It may have a coroutine `begin_ahead(services)`, for a process whose turn comes later: what that returns is `services.ahead` then.
    """

    capability: Any

    async def run(self, services: InputServices) -> None: ...


@dataclass(frozen=True)
class Program:
    """The server's parts.

    outputs, inputs: by capability name. load_config: reads and checks the configuration and returns its snapshot; runs in
    a process of its own, so it may import what it likes; raises ConfigError. controller: the controller's main coroutine,
    given the control services. preload: imports what workers need, called once before anything is forked. preload_readers: the same
    for what reads files whose names end so; done once, the process of each stream need not. debug: log level from the command
    line, or None for the configured one. pushes: what sends streams elsewhere, by the name of the
    output that it belongs to.
    """

    version: str
    outputs: Mapping[str, Any]
    inputs: Mapping[str, Any]
    load_config: Callable[[], Snapshot]
    controller: Callable[[Any], Awaitable[None]] | None = None
    preload: Callable[[], None] = lambda: None
    preload_readers: Callable[[Set[str]], None] = lambda suffixes: None
    config_path: Path = Path("/etc/mist/config.json")
    debug: int | None = None
    pushes: Mapping[str, PushRole] = field(default_factory=dict)

    def listener(self, connector: str) -> ListenerRole | None:
        """Return the output that listens for a connector, or None."""
        output: ListenerRole | None = self.outputs.get(connector)
        return output if output is not None and output.capability.default_port is not None else None

    def find_input(self, name: str) -> str | None:
        """Return an input's name as it is spelled here, or None."""
        return next((known for known in self.inputs if known.lower() == name.lower()), None)

    def input_for(self, source: str) -> str | None:
        """Return the name of the input that fetches a source, or None.

        The query of the source does not count. A prefix "NAME:" names the input; else the pattern with the highest
        priority that fits wins.
        """
        plain = source.partition("?")[0]
        prefix, colon, rest = plain.partition(":")
        if colon and not rest.startswith("//") and (named := self.find_input(prefix)) is not None:
            return named
        fitting = [
            (document.get("priority", 0), name)
            for name, document in self._input_documents()
            if not document.get("non-provider") and any(fits(one, plain) for one in document.get("source_match", ()))
        ]
        return max(fitting)[1] if fitting else None

    def push_role(self, target: str, schemes: Container[str] = ()) -> tuple[str, str] | None:
        """Return the connector that pushes to a target, and the target without a connector's name in front; or None.

        "NAME:rest" names the connector, unless a "//" follows. Else the first by name one of whose patterns fits; what is compared ends
        at the target's last "?", for a pattern that ends in one at its first. schemes: of the URLs that files can be written to; a
        pattern for files fits those, too.
        """
        prefix, colon, rest = target.partition(":")
        if colon and not rest.startswith("//"):
            named = next((name for name in self.pushes if name.lower() == prefix.lower()), None)
            if named is not None:
                return named, rest
        plain = target.rpartition("?")[0] or target
        to_first = target.partition("?")[0] + "?"
        remote = scheme_of(plain) in schemes
        for name in sorted(self.pushes):
            patterns = self.outputs[name].capability.push_urls
            if any(fits(pattern, to_first if pattern.endswith("?") else plain) for pattern in patterns):
                return name, target
            if remote and any(fits(pattern[1:], plain) for pattern in patterns if pattern.startswith("/*.")):
                return name, target
        return None

    def _input_documents(self) -> list[tuple[str, Mapping[str, Any]]]:
        return [(name, one.capability.document()) for name, one in self.inputs.items()]

    def capabilities(self) -> dict[str, Any]:
        """Return the capability documents of everything that is installed."""
        return {
            "connectors": {name: one.capability.document() for name, one in sorted(self.outputs.items())},
            "inputs": {name: one.capability.document() for name, one in sorted(self.inputs.items())},
            "processes": {},
        }


def fits(pattern: str, source: str) -> bool:
    """Tell whether a source fits a pattern, which is exact but for at most one "*"."""
    front, star, back = pattern.partition("*")
    if not star:
        return source == pattern
    return len(source) >= len(front) + len(back) and source.startswith(front) and source.endswith(back)


@dataclass(frozen=True)
class Server:
    """What every process of one server knows from the start."""

    instance: Instance
    program: Program

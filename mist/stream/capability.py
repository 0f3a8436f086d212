"""Capability documents: the one declaration from which API, dispatch and the check of configuration follow."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

CodecMatrix = Sequence[Sequence[Sequence[str]]]


@dataclass(frozen=True, slots=True)
class Capability:
    """The capability document of an output: what the API serves, what configuration is checked against, and how URLs
    find their output. One declaration for all three.

    name: the connector's name. deps: "HTTP" for outputs that are reached through the HTTP listener, else "".
    url_match, url_prefix: paths with "$" for the stream name. codecs: combinations of slots of codec names. methods:
    what a player may do with it. required, optional: configuration options by name. default_port: of listeners.
    """

    name: str
    friendly: str
    desc: str
    deps: str = ""
    url_match: tuple[str, ...] = ()
    url_prefix: tuple[str, ...] = ()
    url_rel: str = ""
    codecs: CodecMatrix = ()
    methods: tuple[Mapping[str, Any], ...] = ()
    exceptions: Mapping[str, Any] = field(default_factory=dict)
    required: Mapping[str, Any] = field(default_factory=dict)
    optional: Mapping[str, Any] = field(default_factory=dict)
    push_urls: tuple[str, ...] = ()
    default_port: int | None = None
    provides: str = ""
    source_match: tuple[str, ...] = ()
    always_match: tuple[str, ...] = ()
    priority: int = 9
    non_provider: bool = False

    def document(self) -> dict[str, Any]:
        """Return the capability document as the API serves it."""
        document: dict[str, Any] = {
            "name": self.name,
            "friendly": self.friendly,
            "desc": self.desc,
            "required": dict(self.required),
            "optional": dict(self.optional),
        }
        by_http = "HTTP" in (self.deps, self.provides)
        listed: dict[str, Any] = {
            "deps": self.deps,
            "protocol": "http://" if by_http else f"{self.name.lower()}://" if self.default_port else "",
            "url_rel": self.url_rel,
            "url_match": list(self.url_match),
            "url_prefix": list(self.url_prefix),
            "codecs": [[list(slot) for slot in combination] for combination in self.codecs],
            "methods": [dict(method) for method in self.methods],
            "exceptions": dict(self.exceptions),
            "push_urls": list(self.push_urls),
            "provides": self.provides,
            "source_match": list(self.source_match),
            "always_match": list(self.always_match),
            "priority": self.priority if self.source_match else 0,
            "non-provider": self.non_provider,
        }
        document.update((key, value) for key, value in listed.items() if value)
        return document


def listener_options(port: int) -> dict[str, Any]:
    """Return the options that every listener has, for a capability document."""
    return {
        "port": {
            "name": "TCP port",
            "help": "TCP port to listen on",
            "type": "uint",
            "default": port,
            "option": "--port",
            "short": "p",
        },
        "interface": {
            "name": "Interface",
            "help": "Address of the interface to listen on; empty or 0.0.0.0 for all",
            "type": "str",
            "default": "0.0.0.0",
            "option": "--interface",
            "short": "i",
        },
        "processes": {
            "name": "Worker processes",
            "help": "Connections spread over this many processes; 0 for a process of its own for every connection",
            "type": "uint",
            "default": "one for each core, at least 2",
        },
        "merge_ms": {
            "name": "Merge writes",
            "help": "Send at most this often to a viewer, in milliseconds; auto merges only as load asks for it",
            "type": "str",
            "default": "auto",
        },
    }


def discover(
    package: str, attribute: str, name: Callable[[Any], str] = lambda item: str(item.capability.name)
) -> dict[str, Any]:
    """Return {name: object} of all modules directly in a package that have the attribute. name: of an object, else its capability's."""
    found = {}
    for info in pkgutil.iter_modules(importlib.import_module(package).__path__):
        module = importlib.import_module(f"{package}.{info.name}")
        offered = getattr(module, attribute, None)
        for item in offered if isinstance(offered, tuple) else (offered,):
            if item is not None:
                found[name(item)] = item
    return found

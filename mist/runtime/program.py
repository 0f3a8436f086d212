"""What the composition root hands to the runtime: the parts that the runtime may not import."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Program:
    """The server's parts.

    outputs, inputs: by capability name. run_controller(program, instance, options): the controller process; returns its
    exit status. preload(): imports what workers need, called once before anything is forked.
    """

    version: str
    outputs: Mapping[str, Any]
    inputs: Mapping[str, Any]
    run_controller: Callable[..., int]
    preload: Callable[[], None] = lambda: None
    config_path: Path = Path("/etc/mist/config.json")
    config_explicit: bool = False
    demo: bool = False
    debug: int = 4
    extra: dict[str, Any] = field(default_factory=dict)

    def listener(self, connector: str) -> Any | None:
        """Return the output that listens for a connector, or None."""
        output = self.outputs.get(connector)
        return output if output is not None and output.capability.default_port is not None else None

    def input_for(self, source: str) -> str | None:
        """Return the name of the input that serves a source, or None. The query of the source does not count."""
        plain = source.partition("?")[0]
        best: tuple[int, str] | None = None
        for name, module in self.inputs.items():
            capability = module.capability
            document = capability.document() if hasattr(capability, "document") else capability
            patterns = document.get("source_match", ())
            for pattern in (patterns,) if isinstance(patterns, str) else patterns:
                front, star, back = pattern.partition("*")
                fits = plain == pattern if not star else plain.startswith(front) and plain.endswith(back)
                if fits and not document.get("non-provider"):
                    priority = int(document.get("priority", 9))
                    if best is None or priority > best[0]:
                        best = (priority, name)
        return best[1] if best else None

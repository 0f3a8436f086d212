"""What runs against what the configuration's files say."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from typing import Any, Final

from mist.controller.config import DEFAULT_PROTOCOLS, check
from mist.controller.config_files import Parts, edits

_ABSENT: Final = object()


def said(parts: Parts) -> dict[str, Any]:
    """Return what the files say, in the form in which the API backs up what runs. Raises ConfigError."""
    document = check(parts).document()
    document.setdefault("config", {}).setdefault("protocols", [dict(entry) for entry in DEFAULT_PROTOCOLS])
    return document


def lines(parts: Parts, files: Mapping[str, Any], runs: Mapping[str, Any]) -> Iterator[str]:
    """Yield a line with - for what the files say, and one with + for what runs, at each place in which these differ."""
    for place, _ in edits(files, runs):
        key = ".".join(place)
        for sign, document, note in (("-", files, f"\t// {parts.origin(key)}"), ("+", runs, "")):
            value = _found(document, place)
            if value is not _ABSENT:
                yield f"{sign} {key}: {json.dumps(value, ensure_ascii=False)}{note}"


def _found(document: Mapping[str, Any], place: tuple[str, ...]) -> object:
    found: Any = document
    for name in place:
        if not isinstance(found, Mapping) or name not in found:
            return _ABSENT
        found = found[name]
    return found

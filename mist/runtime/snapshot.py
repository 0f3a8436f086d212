"""The configuration as all processes but the controller see it: an immutable snapshot in the runtime directory."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from mist.runtime.instance import Instance, write_atomically

Snapshot = Mapping[str, Any]
DEFAULT_INPUT_TIMEOUT_SECONDS = 30.0
TIMEOUT_PARTS = 4
MIN_PART_SECONDS = 0.25
EMPTY: Snapshot = {"generation": 0, "config": {"protocols": [], "controller": {}}, "streams": {}}


def write_snapshot(instance: Instance, snapshot: Snapshot) -> bool:
    """Replace the snapshot, with the next generation number; False when it says what it said before."""
    former = read_snapshot(instance)
    generation = int(former["generation"])
    if generation and {**EMPTY, **json.loads(json.dumps(snapshot)), "generation": generation} == former:
        return False
    data = json.dumps({**snapshot, "generation": generation + 1}, separators=(",", ":")).encode()
    write_atomically(instance.config_file, data)
    return True


def read_snapshot(instance: Instance) -> Snapshot:
    """Return the newest snapshot; an empty one before the first was written."""
    try:
        data = instance.config_file.read_bytes()
    except FileNotFoundError:
        return EMPTY
    snapshot: dict[str, Any] = json.loads(data)
    return {**EMPTY, **snapshot}


def canonical(entry: Mapping[str, Any]) -> str:
    """Return the text by which a protocol entry is known, whatever its state; the controller forms the same."""
    plain = {key: value for key, value in entry.items() if key not in ("online", "error") and value is not None}
    return json.dumps(plain, sort_keys=True, separators=(",", ":"))


def stream_settings(snapshot: Snapshot, stream: str) -> Mapping[str, Any] | None:
    """Return the configuration of a stream, found by the part of its name before the wildcard, or None."""
    found = snapshot["streams"].get(stream.partition("+")[0])
    return found if isinstance(found, Mapping) else None


def input_timeout(snapshot: Snapshot, stream: str) -> float:
    """Return the seconds that a stream goes on without its publisher, or, when it is fetched, without viewers."""
    return float((stream_settings(snapshot, stream) or {}).get("inputtimeout", DEFAULT_INPUT_TIMEOUT_SECONDS))


def input_timeout_part(snapshot: Snapshot, stream: str) -> float:
    """Return the seconds after which it is looked again whether somebody watches: a small part of that time."""
    return max(input_timeout(snapshot, stream) / TIMEOUT_PARTS, MIN_PART_SECONDS)

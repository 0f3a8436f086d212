"""The configuration as all processes but the controller see it: an immutable snapshot in the runtime directory.

It is a JSON object whose first line has the generation, the second all but the streams, and each further one a stream, so
that writing again what did not change, and reading one stream of many, cost little.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Iterator, Mapping
from typing import Any

from mist.runtime.instance import Instance, write_atomically
from mist.stream.names import SHARED_MEMORY

Snapshot = Mapping[str, Any]
DEFAULT_INPUT_TIMEOUT_SECONDS = 30.0
TIMEOUT_PARTS = 4
MIN_PART_SECONDS = 0.25
EMPTY: Snapshot = {"generation": 0, "config": {"protocols": [], "controller": {}}, "streams": {}}


LINES_AT_ONCE = 500  # that are joined: a text of the whole costs as many page faults as it has pages
_STREAMS = b',"streams":{\n'
_END = b"\n}}\n"
_SUFFIX = re.compile(rb'"source":"(?!push:)[^"]*(\.[0-9A-Za-z]{1,8})"')
_NAME = re.compile(rb'^"((?:[^"\\]|\\.)*)":', re.MULTILINE)


class StreamLines(Mapping[str, Any]):
    """The streams of a snapshot, each read when it is asked for. lines: their part of the file."""

    def __init__(self, lines: bytes) -> None:
        self._lines = lines
        self._found: dict[str, Any] = {}
        self._places: dict[str, int] | None = None

    def _index(self) -> dict[str, int]:
        if self._places is None:
            found = ((match.group(1), match.end()) for match in _NAME.finditer(self._lines))
            self._places = {_text(name): end for name, end in found}
        return self._places

    def __getitem__(self, name: str) -> Any:
        if name not in self._found:
            start = self._index()[name]
            end = self._lines.find(b"\n", start)
            line = self._lines[start:] if end < 0 else self._lines[start:end]
            self._found[name] = json.loads(line.rstrip(b","))
        return self._found[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._index())

    def __len__(self) -> int:
        return len(self._index())

    def with_word(self, word: bytes) -> Iterator[str]:
        """Yield the names of the streams in whose line a word stands, without reading the others."""
        if word in self._lines:
            for line in self._lines.split(b"\n"):
                if word in line and (match := _NAME.match(line)):
                    yield _text(match.group(1))

    def suffixes(self) -> set[str]:
        """Return what the names of source files end with, without reading a stream."""
        return {suffix.decode().lower() for suffix in set(_SUFFIX.findall(self._lines))}

    def count(self, text: bytes) -> int:
        """Return how often a text stands in the lines."""
        return self._lines.count(text)


def _text(name: bytes) -> str:
    return name.decode() if b"\\" not in name else str(json.loads(b'"' + name + b'"'))


class SnapshotWriter:
    """Writes snapshots of an instance one after another; the text of a stream that is the same object is kept."""

    def __init__(self, instance: Instance) -> None:
        self._instance = instance
        self._lines: dict[str, tuple[object, bytes]] = {}
        self._said: list[
            bytes
        ] = []  # by the file: all but the streams, and each of them; none before anything was written
        self._generation = 0

    def prepare(self, streams: Mapping[str, object]) -> None:
        """Make the text of streams that the next snapshot will have."""
        self._lines.update({name: (stream, _line(name, stream)) for name, stream in streams.items()})

    def write(self, snapshot: Snapshot) -> bool:
        """Replace the snapshot, with the next generation number; False when it says what it said before."""
        rest = {**EMPTY, **snapshot}
        streams = rest.pop("streams")
        del rest["generation"]
        known = self._lines
        self._lines = {
            name: line if (line := known.get(name)) is not None and line[0] is stream else (stream, _line(name, stream))
            for name, stream in streams.items()
        }
        lines = [line for _, line in self._lines.values()]
        says = [_packed(rest)[1:-1] + _STREAMS, *lines]
        if says == self._said:
            return False
        pieces = [b",\n".join(lines[start : start + LINES_AT_ONCE]) for start in range(0, len(lines), LINES_AT_ONCE)]
        parts = [says[0], *(part for piece in pieces for part in (piece, b",\n"))]
        parts[len(parts) - bool(pieces) :] = [_END]
        if self._said or self._is_other(parts):
            write_atomically(self._instance.config_file, b'{"generation":%d,\n' % (self._generation + 1), *parts)
            self._generation += 1
            self._said = says
            return True
        self._said = says
        return False

    def _is_other(self, parts: list[bytes]) -> bool:
        """Take note of the generation that the file has, and return whether it says something else than these parts."""
        head, _, body = _read(self._instance).partition(b"\n")
        first = json.loads(head.removesuffix(b",") + b"}" if body else head or b"{}")  # 0.1.0 wrote one line
        self._generation = int(first.get("generation", 0))
        return body != b"".join(parts)


def _line(name: str, stream: object) -> bytes:
    return _packed(name) + b":" + _packed(stream)


def _packed(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _read(instance: Instance) -> bytes:
    try:
        return instance.config_file.read_bytes()
    except FileNotFoundError:
        return b""


def write_snapshot(instance: Instance, snapshot: Snapshot) -> bool:
    """Replace the snapshot, with the next generation number; False when it says what it said before."""
    return SnapshotWriter(instance).write(snapshot)


class SnapshotReader:
    """The newest snapshot at any moment; to see that it is still the newest costs one system call without a path.

    The file that was read is kept open: once another one has its name, it has none.
    """

    def __init__(self, instance: Instance) -> None:
        self._path = str(instance.config_file)
        self._fd = -1
        self._snapshot: Snapshot = EMPTY

    def newest(self) -> Snapshot:
        """Return the same object until there is another snapshot; an empty one before the first was written."""
        if self._fd < 0 or not os.fstat(self._fd).st_nlink:
            self._read()
        return self._snapshot

    def _read(self) -> None:
        try:
            fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        self.close()
        self._fd = fd
        with open(fd, "rb", closefd=False) as file:
            self._snapshot = _parsed(file.read())

    def close(self) -> None:
        """Let go of the file."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1


def read_snapshot(instance: Instance) -> Snapshot:
    """Return the newest snapshot; an empty one before the first was written."""
    return _parsed(_read(instance))


def _parsed(data: bytes) -> Snapshot:
    front, lines, streams = data.partition(_STREAMS)
    if not lines:  # none, or one that version 0.1.0 wrote
        return {**EMPTY, **json.loads(data or b"{}")}
    rest: dict[str, Any] = json.loads(front + b"}")
    return {**EMPTY, **rest, "streams": StreamLines(streams.removesuffix(_END))}


def always_on(snapshot: Snapshot) -> list[str]:
    """Return the names of the streams that always run."""
    streams = snapshot["streams"]
    names = streams.with_word(b'"always_on":true') if isinstance(streams, StreamLines) else streams
    return [name for name in names if streams[name].get("always_on")]


def has_sources(snapshot: Snapshot) -> bool:
    """Tell whether a stream is fetched or read when viewers come, and not pushed here first."""
    streams = snapshot["streams"]
    if isinstance(streams, StreamLines):
        return streams.count(b'"source":"') > streams.count(b'"source":"push://')
    return any(not str(one.get("source", "")).startswith("push://") for one in streams.values())


def source_suffixes(snapshot: Snapshot) -> set[str]:
    """Return what the names of the files end with that are sources of streams, in small letters."""
    streams = snapshot["streams"]
    lines = streams if isinstance(streams, StreamLines) else StreamLines(_packed(streams))
    return lines.suffixes()


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


def memory_bound(snapshot: Snapshot) -> int:
    """Return the bytes of shared memory that all streams together may use: by default three quarters of what there is."""
    wanted = int((snapshot["config"].get("memory") or {}).get("total_bytes", 0))
    if wanted:
        return wanted
    room = os.statvfs(SHARED_MEMORY)
    return room.f_frsize * room.f_blocks * 3 // 4

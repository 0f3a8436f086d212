"""What the controller knows and no other process does, kept where the next controller finds it.

Parts are registered by name. All together are written once a second at most, seldomer when that costs more than a fiftieth of the
time, and only when something has changed. Much is written by a forked process, on what was known when it was forked, so that nobody
waits for it. The reader is the next controller of the same server, of this version or another: a part
whose layout it does not know starts afresh, with one line in the log.
"""

from __future__ import annotations

import hashlib
import io
import logging
import pickle
import time
from collections.abc import Callable, Iterable
from typing import Any, Final, NamedTuple

from mist.controller.beside import RunBeside

INTERVAL_SECONDS: Final = 1.0
COST_FACTOR: Final = 50.0  # writing takes at most this part of the time
MAX_STATE_BYTES: Final = 256 << 20
# What a state may be made of besides plain values: it is read from a file that only the server's user can write, and still.
_MODULES: Final = ("mist.controller.", "mist.core.tally", "mist.stream.session_identity")
_CLASSES: Final = frozenset(
    {
        ("collections", "Counter"),
        ("collections", "OrderedDict"),
        ("collections", "deque"),
        ("array", "array"),
        ("array", "_array_reconstructor"),
        ("copyreg", "__newobj__"),
        ("copyreg", "_reconstructor"),
        ("builtins", "object"),
    }
)


class _Reader(pickle.Unpickler):
    """Reads states; anything but what they are made of is refused."""

    def find_class(self, module: str, name: str) -> Any:
        if (module, name) in _CLASSES or (module.startswith(_MODULES) and "." not in name):
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} does not belong here")


class _Part(NamedTuple):
    """One registered part: an object, and the names of those of its attributes that are kept."""

    owner: object
    names: tuple[str, ...]
    layout: object

    def pack(self) -> bytes:
        values = vars(self.owner)
        return pickle.dumps((self.layout, {name: values[name] for name in self.names}), pickle.HIGHEST_PROTOCOL)


class Memory:
    """Keeps parts of the controller.

    load: returns what `save` was last given, or b"". beside: runs something in a forked process.
    """

    def __init__(
        self, load: Callable[[], bytes], save: Callable[[bytes], None], beside: RunBeside, log: logging.Logger
    ) -> None:
        self._save = save
        self._beside = beside
        self._end_beside: Callable[[], None] | None = None
        self._log = log
        self._parts: dict[str, _Part] = {}
        self._written = b""
        self._due = 0.0
        self._former = self._read(load())

    def _read(self, data: bytes) -> dict[str, bytes]:
        if not data:
            return {}
        try:
            found = _Reader(io.BytesIO(data)).load()
            return {str(name): bytes(part) for name, part in found.items()}
        except Exception as error:  # noqa: BLE001  (a state may be broken in any way)
            self._log.error("What the controller before this one knew cannot be read: %s", error)
            return {}

    def keep(self, what: str, owner: object, names: Iterable[str], layout: object = ()) -> None:
        """Keep attributes of an object, and give it what the controller before this one had kept of them.

        what: plural, for the log. layout: plain values that are others when the kept objects are made otherwise.
        """
        part = self._parts[what] = _Part(owner, tuple(names), layout)
        data = self._former.pop(what, None)
        if data is None:
            return
        try:
            kept_layout, state = _Reader(io.BytesIO(data)).load()
            if kept_layout != layout:
                raise ValueError("another version of the server kept them in another layout")
            vars(owner).update({name: value for name, value in state.items() if name in part.names})
        except Exception as error:  # noqa: BLE001  (as above)
            self._log.error("The %s start afresh: %s", what, error)

    def write(self, now: float, *, much: bool = False, at_once: bool = False) -> None:
        """Write if it is due and something has changed. now: monotonic seconds. much: by a process beside; at_once: here, now."""
        if at_once and self._end_beside is not None:
            self._end_beside()
            self._end_beside = None
        if not at_once and (now < self._due or self._end_beside is not None):
            return
        if much and not at_once:

            def written(data: bytes | None, seconds: float) -> None:
                self._end_beside = None
                self._count(now, seconds)
                if data is None:
                    self._log.error("What the controller knows could not be written")

            try:
                self._end_beside = self._beside(self._write_beside, written)
            except OSError as error:
                self._log.error("What the controller knows could not be written: %s", error.strerror)
                self._count(now, INTERVAL_SECONDS)
            return
        began = time.perf_counter()
        data = self._pack()
        digest = hashlib.blake2b(data).digest()
        if digest != self._written and len(data) <= MAX_STATE_BYTES:
            self._written = digest
            self._save(data)
        self._count(now, time.perf_counter() - began)

    def _count(self, now: float, seconds: float) -> None:
        self._due = now + max(INTERVAL_SECONDS, COST_FACTOR * seconds) - 0.5

    def _write_beside(self) -> bytes:
        data = self._pack()
        if len(data) <= MAX_STATE_BYTES:
            self._save(data)
        return b""

    def _pack(self) -> bytes:
        return pickle.dumps({what: part.pack() for what, part in self._parts.items()}, pickle.HIGHEST_PROTOCOL)

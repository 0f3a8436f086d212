"""A push: a stream sent, by us, to another server or into files."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Final, Protocol
from urllib.parse import unquote

from mist.errors import ConfigError
from mist.stream.push_note import PushNote
from mist.stream.services import OutputServices

# With or without the name of a connector in front.
_PROGRAM: Final = re.compile(r"\s*(?:[^:/?]*:)?\s*[a-z0-9]+-exec:", re.IGNORECASE)


def runs_program(target: str) -> bool:
    """Tell whether a target is a program's standard input."""
    return _PROGRAM.match(target) is not None


def with_values(target: str, replace: Callable[[str], str]) -> str:
    """Return a target with its variables replaced. replace: does that in a text.

    Each word of a command stays one word, whatever a variable's value is, and no value makes a command of what is none. Raises ConfigError.
    """
    found = _PROGRAM.match(target)
    if found is None:
        used = replace(target)
        if runs_program(used):
            raise ConfigError(
                "a target that runs a program says so itself, not by a variable", path="target", value=target
            )
        return used
    command, mark, query = target[found.end() :].rpartition("?")
    command, query = (command, mark + replace(query)) if mark else (query, "")
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ConfigError(f'the command "{command}": {error}', path="target", value=target) from None
    return found[0] + shlex.join(replace(word) for word in words) + query


@dataclass(frozen=True, slots=True)
class PushPlan:
    """What is sent where. number: the push's own. requested: the target as it was asked for. target: as it is used, variables replaced and
    without a connector in front."""

    number: int
    stream: str
    requested: str
    target: str
    connector: str

    def document(self) -> dict[str, Any]:
        """Return it for a message to another process; `PushPlan(**document)` is it again."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class LeftConnection:
    """A connection to another server that the process before this one had. fd: of the socket, ours. record: its record, ours by now."""

    fd: int
    record: Any


@dataclass(slots=True)
class PushStatus:
    """How far a push is, as `push_list` of the API shows it. media_ms: time stamps of the packets, first and last that were sent.

    began: unix time. note: what the process before this one left, and where this one leaves what the next one needs.
    leave: called for an end that waits until the destination has taken what there is; None where the task is cancelled for that.
    left_file: descriptor of a file that the process before this one had, -1 for none. keep_file: called with one that is to outlive
    this process. left_connection, keep_connection: the same for a connection, the latter with its record and its socket.
    goes_on: what is opened was begun by another process: its triggers have been asked.
    waiting_bytes: that a destination elsewhere has not taken yet. waiting_full: no more may wait. trouble: why it takes
    nothing now.
    """

    bytes: int = 0
    first_ms: int | None = None
    last_ms: int | None = None
    latency_ms: int = 0
    tracks: list[int] = field(default_factory=list)
    current_target: str = ""
    began: float = 0.0
    note: PushNote | None = None
    leave: Callable[[], None] | None = None
    left_file: int = -1
    keep_file: Callable[[int], None] = lambda _fd: None
    left_connection: LeftConnection | None = None
    keep_connection: Callable[[Any, int], None] = lambda _record, _fd: None
    goes_on: bool = False
    waiting_bytes: int = 0
    waiting_full: bool = False
    trouble: str = ""

    @property
    def media_ms(self) -> int:
        """How much media was sent."""
        return 0 if self.first_ms is None or self.last_ms is None else self.last_ms - self.first_ms

    def document(self, active_ms: int) -> dict[str, Any]:
        """Return it as the API shows it. active_ms: time since the push began."""
        remote: dict[str, Any] = {
            "buffer_bytes": self.waiting_bytes,
            "buffer_full": self.waiting_full,
            "trouble": self.trouble,
        }
        return {
            **{name: value for name, value in remote.items() if value},
            "active_ms": active_ms,
            "active_seconds": active_ms // 1000,
            "bytes": self.bytes,
            "current_target": self.current_target,
            "latency": self.latency_ms,
            "media_tx": self.media_ms,
            "mediatime": self.last_ms or 0,
            "tracks": self.tracks,
        }


class PushRole(Protocol):
    """What pushes to one kind of target. connector: name of the output that it belongs to."""

    connector: str

    def shares(self, target: str) -> bool:
        """Tell whether a push to this target runs in one process with others: it waits for nothing but sockets."""
        ...

    async def push(self, services: OutputServices, plan: PushPlan, status: PushStatus) -> None:
        """Send until the stream ends or the task is cancelled, and keep `status` up to date. Raises MistError."""
        ...


def split_target(target: str) -> tuple[str, Mapping[str, str]]:
    """Return a target without what follows its last "?", and that as parameters; a plus sign is one, as in stream names."""
    path, mark, query = target.rpartition("?")
    if not mark:
        return target, {}
    pairs = (part.partition("=") for part in query.split("&") if part)
    return path, {unquote(name): unquote(value) for name, _, value in pairs}

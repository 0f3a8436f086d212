"""What the main process's books of listeners, streams and pushes have in common: guardians that give way to others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol, TypeAlias

from mist.runtime.channel import Message, close_all
from mist.runtime.family import Child, Family
from mist.runtime.program import Server
from mist.runtime.reactor import Reactor
from mist.runtime.succession import Succession

MAX_JOINING: Final = 4096  # workers that wait for a guardian

Around: TypeAlias = tuple[Server, Family, Reactor, Callable[[], None], Succession]


class Guarded(Protocol):
    """What a book has of something with a guardian."""

    child: Child | None

    @property
    def name(self) -> str: ...


class Book:
    """A book of things with guardians."""

    def __init__(
        self, server: Server, family: Family, reactor: Reactor, changed: Callable[[], None], succession: Succession
    ) -> None:
        """changed: called when there is something new to tell of."""
        self._server = server
        self._family = family
        self._reactor = reactor
        self._changed = changed
        self._succession = succession
        self._closed = False

    def _give_way(self, guarded: Guarded, guardian: Child) -> None:
        """Let a guardian of other code retire when it is its turn, if it is still there by then."""

        def now() -> None:
            if guarded.child is guardian:
                retire(guardian)

        self._succession.add(guarded, f"The guardian of {guarded.name}", now)

    def _await_turn(self, guarded: Guarded) -> None:
        """Let a patient guardian have its workers replaced when it is its turn, also if it was the turn of the one before."""

        def now() -> None:
            if guarded.child is not None:
                guarded.child.channel.send({"do": "replace"})

        self._succession.done(guarded)
        self._succession.add(guarded, f"The guardian of {guarded.name}", now)

    def _retire_late(self, message: Message, fds: list[int]) -> None:
        """Let a guardian that comes back after its duty was given to another one leave its workers to that one."""
        child = self._family.adopt(
            "A late guardian",
            message,
            fds,
            on_message=lambda child, message, fds: close_all(fds),
            on_ended=lambda child, status: None,
        )
        if child is not None:
            retire(child)


def retire(child: Child) -> None:
    """Let a guardian leave its duty and its workers to the next one."""
    if not child.stopping:
        child.stopping = True
        child.channel.send({"do": "retire"})


def pass_on_all(child: Child, joining: list[tuple[Message, list[int]]]) -> None:
    """Give a guardian the workers that wait for it."""
    for message, fds in joining:
        child.channel.send({**message, "do": "adopt"}, fds, close=fds)
    joining.clear()

"""Places of an input that cannot be read, as they are told."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Damage:
    """One place. offset: its first byte in the input. bytes: how many are lost there, 0 where some are missing or nobody knows."""

    offset: int
    bytes: int
    what: str

    def __str__(self) -> str:
        return f"byte {self.offset}{f' ({self.bytes} bytes)' if self.bytes else ''}: {self.what}"


def places_of(damage: Iterable[tuple[int, int, str]]) -> list[Damage]:
    """Return what a demuxer or a survey wrote down, in its order."""
    return [Damage(*place) for place in damage]

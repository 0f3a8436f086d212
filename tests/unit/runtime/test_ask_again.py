"""A publisher that comes at the moment when its stream ends is the first one of the next."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from mist.errors import Busy, StreamEnded
from mist.runtime.spawner_link import ask_again, raise_error


def asked(*answers: dict[str, Any]) -> tuple[Any, int]:
    """Return what is answered in the end, or the error, and how often was asked."""
    count = 0

    async def ask() -> Any:
        nonlocal count
        count += 1
        return raise_error(answers[count - 1])

    async def run() -> Any:
        try:
            return await ask_again(ask)
        except Busy as error:
            return error

    return asyncio.run(run()), count


def test_a_stream_that_was_just_ending_is_asked_again() -> None:
    ended = {"error": "StreamEnded", "text": "The stream live has ended; try again"}
    assert asked(ended, ended, {"ok": True}) == ({"ok": True}, 3)
    found, count = asked(ended, {"error": "Busy", "text": "it has a publisher"})
    assert isinstance(found, Busy) and count == 2


def test_one_that_does_not_end_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mist.runtime.spawner_link.REPLACED_SECONDS", 0.0)
    with pytest.raises(StreamEnded):
        asked({"error": "StreamEnded", "text": "no"})

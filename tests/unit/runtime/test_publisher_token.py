"""A publisher's token is asked about at its end, and when the configuration is another."""

from __future__ import annotations

import asyncio
import json
import time
from base64 import urlsafe_b64encode
from typing import Any, cast

import pytest

from mist.runtime import publisher_token
from mist.runtime.publisher_token import PublisherToken
from mist.runtime.session_link import SessionLink


class FakeLink:
    """Answers as it is told, once for each answer; then the test is over."""

    def __init__(self, *answers: bool) -> None:
        self.answers = list(answers)
        self.asked: list[tuple[str, str]] = []

    async def publishing_holds(self, token: str, host: str) -> bool:
        self.asked.append((token, host))
        return self.answers.pop(0)

    def close(self) -> None:
        """Close nothing."""


def token(**claims: Any) -> str:
    return ".".join(urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=") for part in ({}, claims, "s"))


def follow(link: FakeLink, text: str, *, checks: int = 0) -> None:
    """Follow a token until it holds no more."""

    async def act() -> None:
        loop, over = asyncio.get_running_loop(), asyncio.Event()
        one = PublisherToken(text, "192.0.2.1", cast(SessionLink, link), loop, loop.create_task, over.set)
        for _ in range(checks):
            one.check()
        await asyncio.wait_for(over.wait(), 20)
        one.close()

    asyncio.run(act())


def test_the_end_of_its_time_is_asked_about() -> None:
    link, shown = FakeLink(False), token(exp=time.time() - 5)
    follow(link, shown)
    assert link.asked == [(shown, "192.0.2.1")]


def test_who_gets_no_answer_asks_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(publisher_token, "AGAIN_SECONDS", 0.01)
    link = FakeLink(True, True, False)
    follow(link, token(exp=time.time() - 5))
    assert len(link.asked) == 3


@pytest.mark.parametrize("claims", [{}, {"exp": "soon"}, {"exp": 1e300}, {"exp": time.time() + 1e9}])
def test_another_configuration_is_asked_about(claims: dict[str, Any]) -> None:
    link = FakeLink(False)
    follow(link, token(**claims), checks=1)
    assert len(link.asked) == 1

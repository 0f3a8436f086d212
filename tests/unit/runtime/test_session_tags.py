"""Tags that workers give to sessions: once for each, and again when the session may be another one."""

from __future__ import annotations

import json
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from mist.runtime import session_tags
from mist.runtime.session_tags import LINGER_SECONDS, AgentTags

ONE = ("live", "HLS", "203.0.113.7", "a")
OTHER = ("live", "HLS", "203.0.113.7", "b")


class Loop:
    """A clock, and what is due later."""

    def __init__(self) -> None:
        self.now = 100.0
        self.later: list[tuple[float, Callable[[], None]]] = []
        self.writer: Callable[[], None] | None = None

    def time(self) -> float:
        return self.now

    def add_writer(self, fd: int, callback: Callable[[], None]) -> None:
        assert self.writer is None
        self.writer = callback

    def remove_writer(self, fd: int) -> None:
        assert self.writer is not None
        self.writer = None

    def call_later(self, seconds: float, callback: Callable[[], None]) -> None:
        self.later.append((seconds, callback))


class Controller:
    """Hears the tags."""

    def __init__(self, path: Path) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_NONBLOCK)
        self.socket.bind(str(path))

    def heard(self) -> list[tuple[tuple[str, ...], str]]:
        found = []
        while True:
            try:
                message: dict[str, Any] = json.loads(self.socket.recv(65536))
            except BlockingIOError:
                return found
            found.append((tuple(message["session"]), message["tag"]))


@pytest.fixture
def loop() -> Loop:
    return Loop()


@pytest.fixture
def controller(tmp_path: Path) -> Iterator[Controller]:
    one = Controller(tmp_path / "socket")
    yield one
    one.socket.close()


@pytest.fixture
def tags(tmp_path: Path, loop: Loop) -> Iterator[AgentTags]:
    made = AgentTags(str(tmp_path / "socket"), loop)  # type: ignore[arg-type]
    yield made
    made.close()


def test_one_datagram_for_a_session(tags: AgentTags, loop: Loop, controller: Controller) -> None:
    """However often it asks; after a pause it may be another session, and another program is told of at once."""
    for _ in range(20):
        tags.tell(ONE, "player/1", 0.0)
        loop.now += LINGER_SECONDS / 2
    assert controller.heard() == [(ONE, "UA:player/1")]
    tags.tell(OTHER, "x" * 1000, 0.0)
    tags.tell(ONE, "player/2", 0.0)
    loop.now += LINGER_SECONDS
    tags.tell(ONE, "player/2", 0.0)
    assert controller.heard() == [(OTHER, "UA:" + "x" * 128), (ONE, "UA:player/2"), (ONE, "UA:player/2")]


def test_a_viewer_of_one_long_reply_is_told_of_later(tags: AgentTags, loop: Loop, controller: Controller) -> None:
    tags.tell(ONE, "player", 10.0)
    assert controller.heard() == []
    [(seconds, callback)] = loop.later
    callback()
    assert (seconds, controller.heard()) == (10.0, [(ONE, "UA:player")])


def test_without_a_controller_it_is_told_with_the_next_request(tags: AgentTags, loop: Loop, tmp_path: Path) -> None:
    tags.tell(ONE, "player", 0.0)
    controller = Controller(tmp_path / "socket")
    tags.tell(ONE, "player", 0.0)
    assert controller.heard() == [(ONE, "UA:player")]
    controller.socket.close()


def test_a_controller_with_much_to_read_is_told_when_it_has_read(
    tags: AgentTags, loop: Loop, controller: Controller
) -> None:
    """Of each of many viewers that come at once."""
    wanted = [("live", "HLS", "h", str(number)) for number in range(2000)]
    for names in wanted:
        tags.tell(names, "player", 0.0)
    heard = [names for names, _ in controller.heard()]
    assert 0 < len(heard) < len(wanted), "this machine's sockets hold more than the test sends"
    while loop.writer is not None:
        loop.writer()
        heard += [names for names, _ in controller.heard()]
    assert heard == wanted


def test_another_controller_is_told(tags: AgentTags, controller: Controller, tmp_path: Path) -> None:
    """What the one before it did not hear is told with the next request."""
    tags.tell(ONE, "player", 0.0)
    controller.socket.close()
    tags.tell(OTHER, "player", 0.0)
    (tmp_path / "socket").unlink()
    another = Controller(tmp_path / "socket")
    for names in (ONE, OTHER):
        tags.tell(names, "player", 0.0)
    assert another.heard() == [(OTHER, "UA:player")]
    another.socket.close()


def test_what_is_remembered_is_bounded(
    tags: AgentTags, monkeypatch: pytest.MonkeyPatch, controller: Controller
) -> None:
    monkeypatch.setattr(session_tags, "MAX_TOLD", 2)
    for token in ("a", "b", "c", "a"):
        tags.tell(("live", "HLS", "h", token), "player", 0.0)
    assert [names[3] for names, _ in controller.heard()] == ["a", "b", "c", "a"]
    assert len(tags._told) == 2

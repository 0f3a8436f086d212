"""Messages and descriptors between processes."""

from __future__ import annotations

import os
from collections.abc import Iterator

import pytest

from mist.errors import LimitExceededError
from mist.runtime import channel as channels
from mist.runtime.channel import (
    MAX_INLINE_BYTES,
    Channel,
    Message,
    memory_file,
    pair,
    peer_credentials,
    read_memory_file,
    read_message,
    write_message,
)
from mist.runtime.reactor import Reactor


class Ends:
    """Two channels on one loop; what the second receives is kept."""

    def __init__(self) -> None:
        self.reactor = Reactor()
        one, other = pair()
        self.one, self.other = Channel(one), Channel(other)
        self.received: list[tuple[Message, list[int]]] = []
        self.closed = 0
        self.one.attach(self.reactor, lambda message, fds: None, self._gone)
        self.other.attach(self.reactor, lambda message, fds: self.received.append((message, fds)), self._gone)

    def _gone(self) -> None:
        self.closed += 1

    def turn(self, seconds: float = 0.005) -> None:
        self.reactor.call_later(seconds, self.reactor.stop)
        self.reactor.run()


@pytest.fixture
def ends() -> Iterator[Ends]:
    made = Ends()
    yield made
    made.one.close()
    made.other.close()
    made.reactor.abandon()


def test_a_message_arrives_with_its_descriptors(ends: Ends) -> None:
    reader, writer = os.pipe()
    ends.one.send({"do": "take", "text": "ä"}, (reader,), close=(reader,))
    ends.turn()
    [(message, fds)] = ends.received
    assert message == {"do": "take", "text": "ä"}
    os.write(writer, b"through")
    assert not os.get_inheritable(fds[0])  # programs that are executed do not get it
    assert os.read(fds[0], 10) == b"through"
    os.close(writer)
    os.close(fds[0])
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(reader)


@pytest.mark.parametrize("size", [MAX_INLINE_BYTES - 20, MAX_INLINE_BYTES + 1, 3_000_000])
def test_a_message_of_any_size_arrives(ends: Ends, size: int) -> None:
    reader, writer = os.pipe()
    ends.one.send({"text": "x" * size}, (writer,), close=(writer,))
    ends.turn()
    [(message, fds)] = ends.received
    assert len(message["text"]) == size
    assert len(fds) == 1
    os.close(fds[0])
    os.close(reader)


def test_messages_wait_in_order_when_the_socket_is_full(ends: Ends) -> None:
    for number in range(3000):
        ends.one.send({"number": number, "text": "x" * 500})
    for _ in range(100):
        if len(ends.received) == 3000:
            break
        ends.turn(0.2)
    assert [message["number"] for message, _ in ends.received] == list(range(3000))


def test_the_end_of_the_peer_is_told_once_and_sending_is_harmless(ends: Ends) -> None:
    ends.one.close()
    ends.turn()
    assert ends.closed == 1
    reader, writer = os.pipe()
    os.close(reader)
    ends.other.send({"do": "nothing"}, (writer,), close=(writer,))
    assert ends.closed == 1
    with pytest.raises(OSError, match="Bad file"):
        os.fstat(writer)


def test_what_was_sent_before_the_end_is_still_received(ends: Ends) -> None:
    ends.one.send({"last": "words"})
    ends.one.close()
    ends.other.drain()
    assert ends.received == [({"last": "words"}, [])]


def test_a_file_that_is_too_large_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(channels, "MAX_MESSAGE_BYTES", 10)
    fd = memory_file(b"eleven byte")
    try:
        with pytest.raises(LimitExceededError):
            read_memory_file(fd)
    finally:
        os.close(fd)


def test_blocking_use_and_who_is_at_the_other_end() -> None:
    one, other = pair()
    with one, other:
        assert peer_credentials(one) == (os.getpid(), os.getuid(), os.getgid())
        write_message(one, {"a": 1})
        assert read_message(other) == ({"a": 1}, [])
        one.close()
        assert read_message(other) is None

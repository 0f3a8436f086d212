"""Spans in memory: least recently used first out, inside the stream's bounds."""

from __future__ import annotations

import pytest

from mist.core.span import SpanWriter
from mist.errors import RemoteProtocolError, SharedMemoryFull
from mist.stream.span_store import MIN_KEPT, SpanStore

SIZE = 1000


def span(number: int) -> SpanWriter:
    return SpanWriter(number, number + 1, 0, SIZE, 1)


class Account:
    """Counts claims, up to a bound."""

    def __init__(self, bound: int = 1 << 40) -> None:
        self.used = 0
        self.bound = bound

    def claim(self, count: int) -> None:
        if count > 0 and self.used + count > self.bound:
            raise SharedMemoryFull("no room")
        self.used += count


def test_a_span_is_loaded_once() -> None:
    store = SpanStore(span)
    assert store.get(1) is store.get(1)
    assert store.loads == 1 and len(store) == 1


def test_the_least_recently_used_goes() -> None:
    size = span(0).size
    store = SpanStore(span, limit_bytes=size * 3)
    for number in (1, 2, 3, 1, 4):
        store.get(number)
    assert [number in store for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert store.bytes_used == size * 3


def test_some_are_kept_however_large() -> None:
    store = SpanStore(span, limit_bytes=1)
    for number in range(5):
        store.get(number)
    assert len(store) == MIN_KEPT and 4 in store


def test_memory_is_counted_and_given_back() -> None:
    account = Account()
    store = SpanStore(span, account.claim, limit_bytes=span(0).size * 2)
    for number in range(10):
        store.get(number)
    assert account.used == store.bytes_used == span(0).size * 2
    store.clear()
    assert account.used == 0 and len(store) == 0


def test_older_spans_go_when_the_streams_memory_is_used_up() -> None:
    account = Account(span(0).size * 2)
    store = SpanStore(span, account.claim)
    for number in range(5):
        store.get(number)
    assert len(store) == 2 and 4 in store
    account.bound = 10
    with pytest.raises(SharedMemoryFull):
        store.get(9)
    assert len(store) == 0 and account.used == 0


def test_what_cannot_be_loaded_is_not_kept() -> None:
    def load(number: int) -> SpanWriter:
        raise RemoteProtocolError("damaged", offset=number)

    store = SpanStore(load)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            store.get(7)
    assert len(store) == 0 and store.bytes_used == 0

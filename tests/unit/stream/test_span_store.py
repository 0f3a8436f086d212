"""Spans in memory: least recently used first out, inside the stream's bounds."""

from __future__ import annotations

import asyncio

import pytest

from mist.core.span import SpanWriter
from mist.errors import RemoteProtocolError, SharedMemoryFull
from mist.stream.span_store import MIN_KEPT, SpanStore

SIZE = 1000


async def span(number: int) -> SpanWriter:
    await asyncio.sleep(0)
    return SpanWriter(number, number + 1, 0, SIZE, 1)


SPAN_BYTES = SpanWriter(0, 1, 0, SIZE, 1).size


def get(store: SpanStore, number: int) -> SpanWriter:
    return asyncio.run(store.get(number))


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
    assert get(store, 1) is get(store, 1)
    assert store.loads == 1 and len(store) == 1


def test_two_that_want_the_same_span_wait_for_one() -> None:
    async def main() -> None:
        store = SpanStore(span)
        one, other = await asyncio.gather(store.get(1), store.get(1))
        assert one is other and store.loads == 1

    asyncio.run(main())


def test_the_least_recently_used_goes() -> None:
    store = SpanStore(span, limit_bytes=SPAN_BYTES * 3)
    for number in (1, 2, 3, 1, 4):
        get(store, number)
    assert [number in store for number in (1, 2, 3, 4)] == [True, False, True, True]
    assert store.bytes_used == SPAN_BYTES * 3


def test_some_are_kept_however_large() -> None:
    store = SpanStore(span, limit_bytes=1)
    for number in range(5):
        get(store, number)
    assert len(store) == MIN_KEPT and 4 in store


def test_memory_is_counted_and_given_back() -> None:
    account = Account()
    store = SpanStore(span, account.claim, limit_bytes=SPAN_BYTES * 2)
    for number in range(10):
        get(store, number)
    assert account.used == store.bytes_used == SPAN_BYTES * 2
    store.clear()
    assert account.used == 0 and len(store) == 0


def test_older_spans_go_when_the_streams_memory_is_used_up() -> None:
    account = Account(SPAN_BYTES * 2)
    store = SpanStore(span, account.claim)
    for number in range(5):
        get(store, number)
    assert len(store) == 2 and 4 in store
    account.bound = 10
    with pytest.raises(SharedMemoryFull):
        get(store, 9)
    assert len(store) == 0 and account.used == 0


def test_what_cannot_be_loaded_is_not_kept() -> None:
    async def load(number: int) -> SpanWriter:
        raise RemoteProtocolError("damaged", offset=number)

    store = SpanStore(load)
    for _ in range(2):
        with pytest.raises(RemoteProtocolError):
            get(store, 7)
    assert len(store) == 0 and store.bytes_used == 0

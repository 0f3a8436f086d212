"""The spans of an on-demand stream that are in memory: loaded when asked for, dropped least recently used first."""

from __future__ import annotations

import asyncio
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import Final

from mist.core.span import SpanWriter
from mist.errors import SharedMemoryFull

SPAN_MEMORY_BYTES: Final = 64 << 20  # of one stream; whoever plays a span that was dropped keeps it until done
MIN_KEPT: Final = 2  # spans kept however large they are


class SpanStore:
    """Least recently used spans, in a bounded amount of memory."""

    def __init__(
        self,
        load: Callable[[int], Awaitable[SpanWriter]],
        claim: Callable[[int], None] = lambda count: None,
        limit_bytes: int = SPAN_MEMORY_BYTES,
    ) -> None:
        """Make an empty store.

        load: makes a span of a number, never two at a time; its errors are passed on.
        claim: counts bytes against the stream's bounds, a negative
        number gives back; raises SharedMemoryFull, upon which older spans go.
        """
        self.limit_bytes = limit_bytes
        self.bytes_used = 0
        self.loads = 0
        self._load = load
        self._loading = asyncio.Lock()
        self._claim = claim
        self._spans: OrderedDict[int, SpanWriter] = OrderedDict()

    def __len__(self) -> int:
        return len(self._spans)

    def __contains__(self, number: int) -> bool:
        return number in self._spans

    async def get(self, number: int) -> SpanWriter:
        """Return a span, loaded if it is not there. Raises what loading raises, SharedMemoryFull."""
        span = self._find(number)
        if span is not None:
            return span
        async with self._loading:
            span = self._find(number)  # another one may have waited for it
            if span is None:
                span = await self._load(number)
                self._add(number, span)
            return span

    def _find(self, number: int) -> SpanWriter | None:
        span = self._spans.get(number)
        if span is not None:
            self._spans.move_to_end(number)
        return span

    def _add(self, number: int, span: SpanWriter) -> None:
        self.loads += 1
        while len(self._spans) >= MIN_KEPT and self.bytes_used + span.size > self.limit_bytes:
            self._drop_oldest()
        while True:
            try:
                self._claim(span.size)
                break
            except SharedMemoryFull:
                if not self._spans:
                    raise
                self._drop_oldest()
        self._spans[number] = span
        self.bytes_used += span.size

    def _drop_oldest(self) -> None:
        _, span = self._spans.popitem(last=False)
        self.bytes_used -= span.size
        self._claim(-span.size)

    def clear(self) -> None:
        """Drop everything."""
        while self._spans:
            self._drop_oldest()

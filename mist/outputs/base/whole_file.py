"""A file of known length made from an on-demand stream, sent whole or in the range that a client asks for.

Its bytes are put together span by span as they are sent.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from mist.core.muxer import Muxer
from mist.core.packet_log import PayloadSink
from mist.errors import MistError
from mist.formats.tracks import TrackInfo
from mist.outputs.base.on_demand import SEND_BYTES, Sender
from mist.stream.layouts import Layout
from mist.stream.on_demand import LoadedSpan, OnDemandReader, places

SMALL_BYTES: Final = 1 << 20  # ranges up to this are answered on a connection that goes on


class FileSender(Sender):
    """Sends a range of a file."""

    def __init__(
        self,
        media: OnDemandReader,
        indexes: list[int],
        layout: Layout,
        begin: int,
        end: int,
        window: dict[str, int],
        kind: str,
        make_muxer: Callable[[list[TrackInfo]], Muxer] | None = None,
    ) -> None:
        """begin, end: bytes of the file. kind: of the layout. window: from_us and to_us of the layout, where it has them.

        make_muxer: of what makes the bytes of a span, without a header; None where they are just payload.
        """
        super().__init__(media.name)
        self._media = media
        self._indexes = indexes
        self._layout = layout
        self._layout_kind = kind
        self._at = begin
        self._end = end
        self._window: dict[str, Any] = dict(window)
        self._make_muxer = make_muxer

    def place(self) -> dict[str, Any]:
        """Return what is left of the range."""
        return {
            "kind": "file",
            "stream": self.stream,
            "indexes": self._indexes,
            "layout": self._layout_kind,
            "at": self._at,
            "end": self._end,
            "window": self._window,
        }

    async def whole(self) -> bytes:
        """Return the range, for a small one."""
        parts = []
        while data := await self._next():
            parts.append(data)
        return b"".join(parts)

    async def send_media(self) -> None:
        """Send the range, from the memory of spans where their payload is what the file has of them.

        Where it began is written down already, and how far it got is what the kernel counts.
        """
        if self._skip:  # sent by another process, whose bytes these are
            self._at, self._skip = self._at + self._skip, 0
        while self._at < self._end:
            if self._make_muxer is None and self._at >= self._layout.header_bytes and await self._send_run():
                continue
            await self.send(await self._next())

    async def _send_run(self) -> bool:
        """Send what is left of the span in which the position lies, or of the range; False when it lies there in pieces.

        Raises MistError, as `_media_bytes`.
        """
        number, loaded = await self._span()
        run = loaded.span.payload_run(places(self._indexes, len(loaded.infos)), **self._window)
        if run is None:
            return False
        position, size = run
        self._check(number, size)
        begin = self._at - self._layout.positions[number]
        count = min(self._end, self._layout.positions[number + 1]) - self._at
        await self.send_from(loaded.memory, position + begin, count)
        self._at += count
        return True

    async def _next(self) -> bytes:
        """Return the next bytes of the range, b"" at its end."""
        if self._at >= self._end:
            return b""
        data = await (self._header_bytes() if self._at < self._layout.header_bytes else self._media_bytes())
        self._at += len(data)
        return data

    async def _header_bytes(self) -> bytes:
        """Return some of the header, of which the end may be in the making while the beginning is sent. Raises MistError."""
        if self._at >= len(self._layout.header):
            self._layout = await self._media.whole_layout(self._layout)
        elif self._end > len(self._layout.header):
            self._media.prepare_layout(self._layout)
        return bytes(self._layout.header[self._at : min(self._end, self._at + SEND_BYTES)])

    async def _media_bytes(self) -> bytes:
        """Return what is left of the span in which the position lies, or of the range.

        Raises MistError when the span is not what it was when the file was laid out: its bytes would be another file's.
        """
        number, loaded = await self._span()
        make_muxer = self._make_muxer
        sink = PayloadSink() if make_muxer is None else make_muxer([loaded.infos[one] for one in self._indexes])
        loaded.span.mux(sink, places(self._indexes, len(loaded.infos)), **self._window)
        data = sink.take_output()
        self._check(number, len(data))
        begin = self._layout.positions[number]
        return data[self._at - begin : self._end - begin]

    async def _span(self) -> tuple[int, LoadedSpan]:
        """Return the span in which the position lies; the next one is loaded meanwhile, if it is wanted."""
        number = self._layout.span_at(self._at)
        loaded = await self._media.span(number)
        if self._end > self._layout.positions[number + 1]:
            self._media.prepare(number + 1)
        self.position_us = loaded.place.from_us
        return number, loaded

    def _check(self, number: int, size: int) -> None:
        announced = self._layout.positions[number + 1] - self._layout.positions[number]
        if size != announced:
            raise MistError(f"span {number} of {self._media.name} has {size} bytes, and {announced} were announced")

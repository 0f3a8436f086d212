"""How workers ask the input of an on-demand stream for spans: messages over a Unix socket, spans as descriptors."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import socket
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from mist.errors import MistError, TransportError
from mist.runtime.acceptor import Acceptor
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.instance import Instance
from mist.runtime.spawner_link import ERRORS

log = logging.getLogger(__name__)

BACKLOG = 128
REQUEST_SECONDS = 30.0

# Both answer with a descriptor that stays the answerer's and what goes with it, and raise MistError: for a span's number, and for a
# layout's description (`mist.stream.layouts`).
Answer = Callable[[int], Awaitable[tuple[int, Mapping[str, Any]]]]
AnswerLayout = Callable[[Mapping[str, Any]], Awaitable[tuple[int, Mapping[str, Any]]]]


def socket_path(instance: Instance, pid: int) -> str:
    """Return where an input process serves spans."""
    return str(instance.spans / str(pid))


class SpanServer:
    """The input's end: takes connections of workers and answers each request when it can."""

    def __init__(
        self,
        instance: Instance,
        loop: asyncio.AbstractEventLoop,
        answer: Answer,
        answer_layout: AnswerLayout | None = None,
    ) -> None:
        """Listen. Raises OSError."""
        self._loop = loop
        self._answer = answer
        self._answer_layout = answer_layout
        self._tasks: set[asyncio.Task[None]] = set()
        self._path = socket_path(instance, os.getpid())
        self._channels: set[Channel] = set()
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        unheard = f"{self._path}.new"
        with contextlib.suppress(FileNotFoundError):
            os.unlink(unheard)
        self._socket.bind(unheard)
        self._socket.listen(BACKLOG)
        os.rename(unheard, self._path)  # whoever sees the name can connect
        self._acceptor = Acceptor(self._socket, loop, self._visited)

    def _visited(self, sock: socket.socket) -> None:
        channel = Channel(sock)
        self._channels.add(channel)
        channel.attach(
            self._loop,
            lambda message, fds: self._asked(channel, message, fds),
            lambda: self._channels.discard(channel),
        )

    def _asked(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        task = self._loop.create_task(self._reply(channel, message))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _reply(self, channel: Channel, message: Message) -> None:
        try:
            if "layout" in message and self._answer_layout is not None:
                fd, note = await self._answer_layout(message["layout"])
            else:
                fd, note = await self._answer(int(message["span"]))
        except MistError as error:
            if "span" in message:
                log.warning("Span %s: %s", message["span"], error)
            channel.send({"id": message.get("id"), "error": type(error).__name__, "text": str(error)})
            return
        if not channel.closed:
            copy = os.dup(fd)
            channel.send({"id": message.get("id"), **note}, (copy,), close=(copy,))

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()
        self._acceptor.close()
        self._socket.close()
        for channel in self._channels:
            channel.close()
        self._channels.clear()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._path)


class SpanClient:
    """A worker's end, for one stream: connects when it is first asked, and again to another input."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop, input_pid: Callable[[], int]) -> None:
        self._instance = instance
        self._loop = loop
        self._input_pid = input_pid
        self._channel: Channel | None = None
        self._connected_to = 0
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[tuple[int, Message]]] = {}

    async def fetch(self, wanted: Mapping[str, Any]) -> tuple[int, Mapping[str, Any]]:
        """Return the descriptor of what is wanted, {"span": number} or {"layout": description}, and what came with it.

        The descriptor is the caller's.

        Raises TransportError when the input is gone, or what it answered.
        """
        channel = self._connect()
        self._last_id += 1
        request = self._last_id
        future: asyncio.Future[tuple[int, Message]] = self._loop.create_future()
        self._pending[request] = future
        try:
            channel.send({**wanted, "id": request})
            async with asyncio.timeout(REQUEST_SECONDS):
                return await future
        except TimeoutError:
            raise MistError(f"The input did not answer in {REQUEST_SECONDS:.0f} s") from None
        finally:
            self._pending.pop(request, None)

    def listens(self) -> bool:
        """Tell whether the input serves spans already: a new one is known before it does."""
        return os.path.exists(socket_path(self._instance, self._input_pid()))

    def _connect(self) -> Channel:
        pid = self._input_pid()
        if self._channel is not None and self._connected_to != pid:
            self.close()
        if self._channel is None or self._channel.closed:
            sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
            try:
                sock.connect(socket_path(self._instance, pid))
            except OSError as error:
                sock.close()
                raise TransportError(f"the stream's input is not there: {error.strerror}") from None
            self._channel = Channel(sock)
            self._connected_to = pid
            self._channel.attach(self._loop, self._answered, self._lost)
        return self._channel

    def _answered(self, message: Message, fds: list[int]) -> None:
        future = self._pending.pop(message.pop("id", -1), None)
        if future is None or future.done():
            close_all(fds)
        elif "error" in message:
            close_all(fds)
            future.set_exception(ERRORS.get(message["error"], MistError)(message.get("text", "")))
        elif len(fds) != 1:
            close_all(fds)
            future.set_exception(TransportError("a span came without its memory"))
        else:
            future.set_result((fds[0], message))

    def _lost(self) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(TransportError("the stream's input has gone"))
        self._pending.clear()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None
        self._lost()

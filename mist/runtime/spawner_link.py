"""Asking the spawner over its socket: from workers and the controller (asyncio), and from the command line (blocking)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from mist.errors import (
    AccessDenied,
    Busy,
    ConfigError,
    MistError,
    NotFound,
    NotReady,
    SharedMemoryFull,
    StreamEnded,
    StreamError,
    TransportError,
    UnsupportedError,
)
from mist.runtime.channel import Channel, Loop, Message, close_all, read_message, write_message
from mist.runtime.instance import Instance

log = logging.getLogger(__name__)

REQUEST_SECONDS = 30.0
REPLACED_SECONDS = 5.0
AGAIN_SECONDS = 0.05
# Errors that travel between processes by name.
ERRORS: Mapping[str, type[MistError]] = {
    error.__name__: error
    for error in (
        AccessDenied,
        Busy,
        ConfigError,
        MistError,
        NotFound,
        NotReady,
        SharedMemoryFull,
        StreamEnded,
        StreamError,
        UnsupportedError,
    )
}


def raise_error(answer: Message) -> Message:
    """Return an answer that is none of an error. Raises the MistError that it names."""
    if "error" in answer:
        raise ERRORS.get(answer["error"], MistError)(answer.get("text", ""))
    return answer


async def ask_again(ask: Callable[[], Awaitable[Message]]) -> Message:
    """Return the answer of a stream, of the next one if it was just ending. Raises as `ask`, StreamEnded when it takes too long to end."""
    until = time.monotonic() + REPLACED_SECONDS
    while True:
        try:
            return await ask()
        except StreamEnded:
            if time.monotonic() >= until:
                raise
        await asyncio.sleep(AGAIN_SECONDS)  # no event tells of its end


class NotSent(TransportError):
    """There is nobody to ask now: nothing was sent."""


class NotAnswered(TransportError):
    """Who was asked is gone; whether the request was done is not known."""


class _Then:
    """Somebody without asyncio who waits for an answer. again: called when whoever was asked is gone."""

    def __init__(self, channel: Channel, then: Callable[[Message | None], None], again: Callable[[], None]) -> None:
        self.channel = channel
        self.timer: Any = None
        self._then = then
        self._again = again

    def answered(self, message: Message) -> None:
        self.timer.cancel()
        self._then(None if "error" in message else message)

    def lost(self, error: NotAnswered) -> None:
        self.timer.cancel()
        self._again()


class _Waiter:
    """A coroutine that waits for an answer."""

    def __init__(self, channel: Channel) -> None:
        self.channel = channel
        self.future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()

    def answered(self, message: Message) -> None:
        if not self.future.done():
            self.future.set_result(message)

    def lost(self, error: NotAnswered) -> None:
        if not self.future.done():
            self.future.set_exception(error)


class Link:
    """A process's connection to another one's socket, made when it is first needed and again when it is lost.

    One who is asked may give way to the next (`{"moved": true}`): it still answers what it was asked, the next is asked from then on.
    """

    def __init__(self, path: Path, whose: str, loop: Loop, answer_seconds: float) -> None:
        """Take a socket's path, and for messages about it whose it is."""
        self._path = path
        self._whose = whose
        self._loop = loop
        self._answer_seconds = answer_seconds
        self._channel: Channel | None = None
        self._last_id = 0
        self._pending: dict[int, _Waiter | _Then] = {}

    async def ask(self, message: Mapping[str, Any], fds: Sequence[int] = (), seconds: float = 0.0) -> Message:
        """Send a request and return its answer. The descriptors must stay open until then. seconds: how long, 0 for as usual.

        While the process that is asked is being replaced, the next one is waited for. What came with descriptors is sent once
        only: it may have been done. Raises the MistError that the answer names, TransportError when none comes.
        """
        until = 0.0
        while True:
            try:
                return await self._ask_once(message, fds, seconds or self._answer_seconds)
            except (NotSent, NotAnswered) as error:
                now = time.monotonic()
                until = until or now + REPLACED_SECONDS
                if now >= until or (fds and isinstance(error, NotAnswered)):
                    raise
            await asyncio.sleep(AGAIN_SECONDS)  # no event tells of a socket that appears

    async def _ask_once(self, message: Mapping[str, Any], fds: Sequence[int], seconds: float) -> Message:
        channel = self._connect()
        self._last_id += 1
        number = self._last_id
        waiter = self._pending[number] = _Waiter(channel)
        try:
            channel.send({**message, "id": number}, fds)
            async with asyncio.timeout(seconds):
                return raise_error(await waiter.future)
        except TimeoutError:
            raise TransportError(f"{self._whose} did not answer in {seconds:.0f} s") from None
        finally:
            self._forget(number)

    def ask_then(
        self, message: Mapping[str, Any], then: Callable[[Message | None], None], until: float | None = None
    ) -> None:
        """Ask as `ask` does, without asyncio; `then` is called with the answer, or None if there is none.

        until: end of the wait for another process to ask, monotonic seconds; set by the first one that is gone.
        """

        def again() -> None:
            end = time.monotonic() + REPLACED_SECONDS if until is None else until
            if time.monotonic() >= end:
                then(None)
            else:
                self._loop.call_later(AGAIN_SECONDS, lambda: self.ask_then(message, then, end))

        def give_up() -> None:
            self._forget(number)
            then(None)

        try:
            channel = self._connect()
        except TransportError:
            again()
            return
        self._last_id += 1
        number = self._last_id
        waiting = self._pending[number] = _Then(channel, then, again)
        waiting.timer = self._loop.call_later(self._answer_seconds, give_up)
        channel.send({**message, "id": number})

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message that has no answer. Raises TransportError."""
        self._connect().send(message)

    def _connect(self) -> Channel:
        if self._channel is None or self._channel.closed:
            channel = self._channel = Channel(self._open())
            channel.attach(
                self._loop, lambda message, fds: self._received(channel, message, fds), lambda: self._lost(channel)
            )
        return self._channel

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(self._path))
        except OSError as error:
            sock.close()
            raise NotSent(f"{self._whose} cannot be reached ({self._path}: {error.strerror})") from None
        return sock

    def _received(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("moved"):
            if channel is self._channel:
                self._channel = None
            self._close_unless_awaited(channel)
            return
        number = message.get("reply", -1)
        waiter = self._pending.get(number)
        if waiter is not None:
            self._forget(number)
            waiter.answered(message)

    def _forget(self, number: int) -> None:
        waiter = self._pending.pop(number, None)
        if waiter is not None and waiter.channel is not self._channel:
            self._close_unless_awaited(waiter.channel)

    def _close_unless_awaited(self, channel: Channel) -> None:
        """Let go of one who has given way, once it has answered everything."""
        if not any(waiter.channel is channel for waiter in self._pending.values()):
            channel.close()

    def _lost(self, channel: Channel) -> None:
        error = NotAnswered(f"{self._whose} has gone")
        lost = [number for number, waiter in self._pending.items() if waiter.channel is channel]
        for number in lost:
            self._pending.pop(number).lost(error)

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()


class SpawnerLink(Link):
    """A process's connection to the spawner."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(instance.spawner_socket, "The main process", loop, REQUEST_SECONDS)


def connect(instance: Instance) -> socket.socket:
    """Return a socket connected to the instance's spawner. Raises TransportError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(str(instance.spawner_socket))
    except PermissionError:
        sock.close()
        raise TransportError(
            f'the instance "{instance.name}" belongs to another user ({instance.spawner_socket}); run this as that user, or as root'
        ) from None
    except OSError as error:
        sock.close()
        raise TransportError(
            f'no server of the instance "{instance.name}" runs here ({instance.spawner_socket}: {error.strerror}); '
            'start one with "mist serve"'
        ) from None
    return sock


def ask_blocking(instance: Instance, message: Mapping[str, Any], seconds: float = 10.0) -> Message:
    """Send one request and wait for its answer. Raises TransportError, or the MistError that the answer names.

    seconds: to wait for a sign of life, which may be that what was asked goes on.
    """
    with contextlib.closing(connect(instance)) as sock:
        sock.settimeout(seconds)
        try:
            write_message(sock, {**message, "id": 1})
            while True:
                received = read_message(sock)
                if received is None:
                    raise TransportError("the main process of the instance closed the connection")
                answer, fds = received
                close_all(fds)
                if "progress" not in answer:
                    return raise_error(answer)
        except TransportError:
            raise
        except OSError as error:
            raise TransportError(f"the main process of the instance does not answer: {error}") from None

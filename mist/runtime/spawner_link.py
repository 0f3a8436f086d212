"""Asking the spawner over its socket: from workers and the controller (asyncio), and from the command line (blocking)."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import time
from collections.abc import Callable, Mapping, Sequence
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
        StreamError,
        UnsupportedError,
    )
}


def raise_error(answer: Message) -> Message:
    """Return an answer that is none of an error. Raises the MistError that it names."""
    if "error" in answer:
        raise ERRORS.get(answer["error"], MistError)(answer.get("text", ""))
    return answer


class NotSent(TransportError):
    """There is nobody to ask now: nothing was sent."""


class NotAnswered(TransportError):
    """Who was asked is gone; whether the request was done is not known."""


class _Then:
    """Calls a function with an answer, once."""

    def __init__(self, then: Callable[[Message | None], None]) -> None:
        self._then: Callable[[Message | None], None] | None = then

    def done(self) -> bool:
        return self._then is None

    def call(self, answer: Message | None) -> None:
        then, self._then = self._then, None
        assert then is not None
        then(answer)

    def give_up(self) -> None:
        if not self.done():
            self.call(None)

    def set_result(self, answer: Message) -> None:
        self.call(None if "error" in answer else answer)

    def set_exception(self, error: BaseException) -> None:
        self.call(None)


class Link:
    """An asyncio process's connection to another one's socket, made when it is first needed and again when it is lost."""

    def __init__(self, path: Path, whose: str, loop: Loop, answer_seconds: float) -> None:
        """Take a socket's path, and for messages about it whose it is."""
        self._path = path
        self._whose = whose
        self._loop = loop
        self._answer_seconds = answer_seconds
        self._channel: Channel | None = None
        self._last_id = 0
        self._pending: dict[int, asyncio.Future[Message] | _Then] = {}

    async def ask(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> Message:
        """Send a request and return its answer. The descriptors must stay open until then.

        Raises the MistError that the answer names, TransportError when none comes.
        """
        channel = self._connect()
        self._last_id += 1
        number = self._last_id
        future: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
        self._pending[number] = future
        try:
            channel.send({**message, "id": number}, fds)
            async with asyncio.timeout(self._answer_seconds):
                return raise_error(await future)
        except TimeoutError:
            raise TransportError(f"{self._whose} did not answer in {self._answer_seconds:.0f} s") from None
        finally:
            self._pending.pop(number, None)

    def ask_then(self, message: Mapping[str, Any], then: Callable[[Message | None], None]) -> None:
        """Send a request from a process without asyncio; `then` is called with the answer, or None if there is none."""
        try:
            channel = self._connect()
        except TransportError:
            then(None)
            return
        self._last_id += 1
        waiting = self._pending[self._last_id] = _Then(then)
        channel.send({**message, "id": self._last_id})
        self._loop.call_later(self._answer_seconds, waiting.give_up)

    def tell(self, message: Mapping[str, Any]) -> None:
        """Send a message that has no answer. Raises TransportError."""
        self._connect().send(message)

    def _connect(self) -> Channel:
        if self._channel is None or self._channel.closed:
            self._channel = Channel(self._open())
            self._channel.attach(self._loop, self._answered, self._lost)
        return self._channel

    def _open(self) -> socket.socket:
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
        try:
            sock.connect(str(self._path))
        except OSError as error:
            sock.close()
            raise NotSent(f"{self._whose} cannot be reached ({self._path}: {error.strerror})") from None
        return sock

    def _answered(self, message: Message, fds: list[int]) -> None:
        close_all(fds)
        future = self._pending.pop(message.get("reply", -1), None)
        if future is not None and not future.done():
            future.set_result(message)

    def _lost(self) -> None:
        for future in self._pending.values():
            if not future.done():
                future.set_exception(NotAnswered(f"{self._whose} has gone"))
        self._pending.clear()

    def close(self) -> None:
        if self._channel is not None:
            self._channel.close()


class SpawnerLink(Link):
    """An asyncio process's connection to the spawner."""

    def __init__(self, instance: Instance, loop: asyncio.AbstractEventLoop) -> None:
        super().__init__(instance.spawner_socket, "The main process", loop, REQUEST_SECONDS)

    async def ask(self, message: Mapping[str, Any], fds: Sequence[int] = ()) -> Message:
        """Ask as `Link.ask` does; while the main process is being replaced, wait for the next one.

        What came with descriptors is sent once only: it may have been done.
        """
        until = time.monotonic() + REPLACED_SECONDS
        while True:
            try:
                return await super().ask(message, fds)
            except (NotSent, NotAnswered) as error:
                if time.monotonic() >= until or (fds and isinstance(error, NotAnswered)):
                    raise
            await asyncio.sleep(AGAIN_SECONDS)  # no event tells of a socket that appears


def connect(instance: Instance) -> socket.socket:
    """Return a socket connected to the instance's spawner. Raises TransportError."""
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC)
    try:
        sock.connect(str(instance.spawner_socket))
    except OSError as error:
        sock.close()
        raise TransportError(
            f'no server of the instance "{instance.name}" runs here ({instance.spawner_socket}: {error.strerror}); '
            'start one with "mist serve"'
        ) from None
    return sock


def ask_blocking(instance: Instance, message: Mapping[str, Any], seconds: float = 10.0) -> Message:
    """Send one request and wait for its answer. Raises TransportError, or the MistError that the answer names."""
    with contextlib.closing(connect(instance)) as sock:
        sock.settimeout(seconds)
        try:
            write_message(sock, {**message, "id": 1})
            received = read_message(sock)
        except OSError as error:
            raise TransportError(f"the main process of the instance does not answer: {error}") from None
    if received is None:
        raise TransportError("the main process of the instance closed the connection")
    answer, fds = received
    close_all(fds)
    return raise_error(answer)

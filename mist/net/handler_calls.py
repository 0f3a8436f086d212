"""Calls to the handlers of triggers: a POST to a URL, or a program with the payload on its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import hmac
import logging
import os
import signal
import uuid
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from email.utils import format_datetime
from typing import Final
from urllib.parse import urlsplit

from mist.errors import RemoteProtocolError, TransportError
from mist.net.http_client import HttpClient
from mist.net.programs import signal_group

log = logging.getLogger(__name__)

ATTEMPTS: Final = 5
SILENCE_S: Final = 5.0  # a server that is silent for so long has failed
TERM_AFTER_S: Final = 10.0
KILL_AFTER_S: Final = 14.0
MAX_ANSWER_BYTES: Final = 64 * 1024
MAX_AT_ONCE: Final = 64  # calls of one handler; others wait their turn
MAX_WAITING: Final = 10_000
READ_BYTES: Final = 16 * 1024


@dataclass(frozen=True, slots=True)
class Event:
    """One firing of a trigger. pid: the process where it happened. number: shared by all its handlers."""

    trigger: str
    payload: str
    pid: int
    unix_ms: int
    number: str = field(default_factory=lambda: str(uuid.uuid4()))

    @property
    def date(self) -> str:
        """When it happened, as RFC 5322 writes it, in local time."""
        return format_datetime(datetime.fromtimestamp(self.unix_ms / 1000).astimezone())


@dataclass(frozen=True, slots=True)
class Server:
    """What the handlers are told of this server. identity: `iid` of the API, "" before the controller runs."""

    identity: str
    name: str
    version: str


@dataclass(frozen=True, slots=True)
class Call:
    """How a handler is called. attempts, timeout_s: None for the usual ones. secret: signs requests to a URL."""

    target: str
    default: str = ""
    attempts: int | None = None
    timeout_s: float | None = None
    secret: str = ""


class CallFailed(Exception):
    """A handler gave no answer; the text says why."""


class HandlerCalls:
    """Calls handlers. Each handler has a bounded number of calls at once, so that a slow one delays nobody else's."""

    def __init__(self, server: Callable[[], Server]) -> None:
        """Take a function that says what this server is called now."""
        self._server = server
        self._client = HttpClient(max_answer_bytes=MAX_ANSWER_BYTES)
        self._turns: dict[str, asyncio.Semaphore] = {}
        self._waiting = 0
        self._left: set[asyncio.Task[None]] = set()  # of programs that go on after nobody's turn

    async def call(self, call: Call, event: Event, *, blocking: bool) -> str:
        """Call a handler and return its answer, "" for one that is not waited for. Raises CallFailed."""
        async with self._turn(call.target):
            if urlsplit(call.target).scheme in ("http", "https"):
                return await self._post(call, event, blocking)
            return await self._run(call, event, blocking)

    def close(self) -> None:
        """Close idle connections, and leave programs that still run to themselves."""
        self._client.close()
        for talking in self._left:
            talking.cancel()

    @contextlib.asynccontextmanager
    async def _turn(self, target: str) -> AsyncIterator[None]:
        if self._waiting >= MAX_WAITING:
            raise CallFailed(f"{MAX_WAITING} calls of handlers wait already")
        turn = self._turns.setdefault(target, asyncio.Semaphore(MAX_AT_ONCE))
        self._waiting += 1
        try:
            async with turn:
                yield
        finally:
            self._waiting -= 1

    # -- URLs ------------------------------------------------------------------------------------------------------

    async def _post(self, call: Call, event: Event, blocking: bool) -> str:
        """Post until somebody answers; unless it is configured, only an answer that is waited for is asked for again."""
        why = ""
        for attempt in range(1, (call.attempts or (ATTEMPTS if blocking else 1)) + 1):
            try:
                return await self._attempt(call, event, attempt)
            except TransportError as error:
                why = str(error)
            except RemoteProtocolError as error:
                raise CallFailed(str(error)) from None
        raise CallFailed(why)

    async def _attempt(self, call: Call, event: Event, attempt: int) -> str:
        body = event.payload.encode("utf-8", "replace")
        headers = self._headers(call, event, attempt, body)
        seconds = call.timeout_s or SILENCE_S
        answer = await self._client.ask("POST", call.target, body=body, headers=headers, seconds=seconds)
        if not answer.ok:
            raise CallFailed(f"it answered {answer.status} {answer.words}")
        return answer.body.decode("utf-8", "replace")

    def _headers(self, call: Call, event: Event, attempt: int, body: bytes) -> dict[str, str]:
        server = self._server()
        headers = {
            "Content-Type": "text/plain",
            "User-Agent": f"MistServer/{server.version}",
            "Accept": "*/*",
            "Date": event.date,
            "X-Trigger": event.trigger,
            "X-Trigger-UUID": event.number,
            "X-Trigger-UnixMillis": str(event.unix_ms),
            "X-PID": str(event.pid),
            "X-Attempt": str(attempt),
            "X-Version": server.version,
        }
        if server.identity:
            headers["X-Instance"] = server.identity
        if server.name:
            headers["X-Name"] = server.name
        if call.secret:
            headers["X-Signature"] = sign(call.secret, event, body)
        return headers

    # -- programs --------------------------------------------------------------------------------------------------

    async def _run(self, call: Call, event: Event, blocking: bool) -> str:
        """Run a program until it can be started and ends in time: once, unless more attempts are configured."""
        for _ in range(1, call.attempts or 1):
            try:
                return await self._execute(call, event, blocking)
            except CallFailed as error:
                log.info("The handler %s of %s is run again: %s", call.target, event.trigger, error)
        return await self._execute(call, event, blocking)

    async def _execute(self, call: Call, event: Event, blocking: bool) -> str:
        """Run a program and return what it wrote; what it is told and for how long it may run are its interface.

        One that is not waited for may run as long as it likes, unless `timeout` is configured: many begin work of hours.
        """
        output = _Output() if blocking else None
        try:
            process = await self._start(call, event, output)
        except BaseException:
            if output is not None:
                output.close()
            raise
        longest = call.timeout_s or TERM_AFTER_S
        talking = asyncio.ensure_future(_talk(process, event.payload.encode("utf-8", "replace"), output))
        try:
            late = not (await asyncio.wait({talking}, timeout=longest))[0]
            if late and output is None and call.timeout_s is None:
                self._leave(talking)
                return ""
            stopped = late and process.returncode is None
            if stopped:
                await _stop(process.pid, talking)
        finally:
            if talking not in self._left:
                talking.cancel()
            if output is not None:
                output.close()
        if stopped and not (output and output.written):
            raise CallFailed(f"it ran longer than {longest:g} s")
        return output.written.decode("utf-8", "replace") if output is not None else ""

    async def _start(self, call: Call, event: Event, output: _Output | None) -> asyncio.subprocess.Process:
        """Start a program. Raises CallFailed."""
        try:
            return await asyncio.create_subprocess_exec(
                call.target,
                event.trigger,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL if output is None else output.given,
                env={**os.environ, **self._environment(call, event)},
                start_new_session=True,
            )
        except (OSError, ValueError) as error:
            raise CallFailed(str(error)) from None
        finally:
            if output is not None:
                output.hand_over()

    def _leave(self, talking: asyncio.Task[None]) -> None:
        """Let a program go on without holding up who comes after it."""
        self._left.add(talking)
        talking.add_done_callback(self._left.discard)

    def _environment(self, call: Call, event: Event) -> Mapping[str, str]:
        return {
            "MIST_TRIGGER": event.trigger,
            "MIST_TRIG_DEF": call.default,
            "MIST_PID": str(event.pid),
            "MIST_INSTANCE": self._server().identity,
            "MIST_NAME": self._server().name,
            "MIST_TUUID": event.number,
            "MIST_TIME": str(event.unix_ms),
            "MIST_DATE": event.date,
        }


def sign(secret: str, event: Event, body: bytes) -> str:
    """Return the signature of a request: HMAC-SHA-256 (RFC 2104) of time, number and body, as `sha256=HEX`."""
    message = f"{event.unix_ms}.{event.number}.".encode() + body
    return "sha256=" + hmac.new(secret.encode(), message, hashlib.sha256).hexdigest()


class _Output:
    """What a program writes. Its children may hold the pipe open after it has ended, and its answer is there before."""

    def __init__(self) -> None:
        self.written = bytearray()
        self._taken, self.given = os.pipe()
        os.set_blocking(self._taken, False)
        self._loop = asyncio.get_running_loop()
        self._loop.add_reader(self._taken, self._take)
        self.ended = asyncio.Event()

    def hand_over(self) -> None:
        """Forget the end that the program has now."""
        os.close(self.given)

    def _take(self) -> bool:
        """Take some of what is there; returns whether there was any."""
        try:
            part = os.read(self._taken, READ_BYTES)
        except BlockingIOError:
            return False
        self.written += part[: MAX_ANSWER_BYTES - len(self.written)]
        if not part:
            self._loop.remove_reader(self._taken)
            self.ended.set()
        return bool(part)

    def take_rest(self) -> None:
        """Take what a program that has ended left in the pipe, as far as it counts."""
        while len(self.written) < MAX_ANSWER_BYTES and self._take():
            pass

    def close(self) -> None:
        """Take nothing any more."""
        self._loop.remove_reader(self._taken)
        os.close(self._taken)


async def _talk(process: asyncio.subprocess.Process, payload: bytes, output: _Output | None) -> None:
    """Give a program its input and wait for its end; one that wrote nothing may have left that to its children."""
    assert process.stdin is not None
    # It need not read what it is told, and may have ended already: uvloop says that with a RuntimeError.
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, RuntimeError):
        process.stdin.write(payload)
        await process.stdin.drain()
    process.stdin.close()
    await process.wait()
    if output is not None:
        output.take_rest()
        if not output.written:
            await output.ended.wait()


async def _stop(pid: int, talking: asyncio.Task[None]) -> None:
    """End a program and its children, politely first."""
    signal_group(pid, signal.SIGTERM)
    if not (await asyncio.wait({talking}, timeout=KILL_AFTER_S - TERM_AFTER_S))[0]:
        signal_group(pid, signal.SIGKILL)
        await asyncio.wait({talking}, timeout=1.0)

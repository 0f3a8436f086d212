"""Where custom variables get their values: the output of a command, or the body of a URL."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from typing import Final

from mist.errors import RemoteProtocolError, TransportError
from mist.net.handler_calls import CallFailed
from mist.net.http_client import HttpClient
from mist.net.programs import signal_group

MAX_VALUE_BYTES: Final = 127
MAX_READ_BYTES: Final = 64 * 1024
MAX_ANSWER_BYTES: Final = 1 << 20


def as_value(data: bytes) -> str:
    """Return what becomes of a source's output: its first 127 bytes as text, without white space around."""
    return data[:MAX_VALUE_BYTES].decode("utf-8", "ignore").strip()


async def read_source(name: str, target: str, seconds: float) -> str:
    """Return a variable's new value. target: an http(s) URL, or a command line, which no shell sees. Raises CallFailed."""
    if target.startswith(("http://", "https://")):
        return await _fetch(name, target, seconds)
    return await _run(name, target, seconds)


async def _fetch(name: str, url: str, seconds: float) -> str:
    headers = {"X-Custom-Variable": name, "Content-Type": "text/plain"}
    client = HttpClient(max_answer_bytes=MAX_ANSWER_BYTES)
    try:
        async with asyncio.timeout(seconds):
            answer = await client.ask("GET", url, headers=headers, seconds=seconds)
    except TimeoutError:
        raise CallFailed(f"no answer in {seconds:g} s") from None
    except (TransportError, RemoteProtocolError) as error:
        raise CallFailed(str(error)) from None
    finally:
        client.close()
    if not answer.ok:
        raise CallFailed(f"it answered {answer.status} {answer.words}")
    return as_value(bytes(answer.body))


async def _run(name: str, command: str, seconds: float) -> str:
    """Run a command; one that runs too long is killed, and what it wrote counts."""
    written = bytearray()
    try:
        process = await asyncio.create_subprocess_exec(
            *shlex.split(command),
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            env={**os.environ, "MIST_CUSTOM_VARIABLE": name},
            start_new_session=True,
        )
    except (OSError, ValueError, TypeError) as error:
        raise CallFailed(str(error)) from None
    try:
        async with asyncio.timeout(seconds):
            await _collect(process, written)
    except TimeoutError:
        signal_group(process.pid, signal.SIGKILL)
        await process.wait()
    return as_value(bytes(written))


async def _collect(process: asyncio.subprocess.Process, written: bytearray) -> None:
    assert process.stdout is not None
    while part := await process.stdout.read(MAX_READ_BYTES):
        written += part[: MAX_VALUE_BYTES - len(written)]
    await process.wait()

"""Where custom variables get their values: the output of a command, or the body of a URL."""

from __future__ import annotations

import asyncio
import os
import shlex
import signal
from typing import Final

import httpx

from mist.net.handler_calls import MAX_STEPS, CallFailed, signal_group

MAX_VALUE_BYTES: Final = 127
MAX_READ_BYTES: Final = 64 * 1024


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
    data = bytearray()
    try:
        async with (
            asyncio.timeout(seconds),
            httpx.AsyncClient(follow_redirects=True, max_redirects=MAX_STEPS, timeout=seconds) as client,
            client.stream("GET", url, headers=headers) as response,
        ):
            if not response.is_success:
                raise CallFailed(f"it answered {response.status_code} {response.reason_phrase}")
            async for part in response.aiter_bytes():
                data += part
                if len(data) >= MAX_VALUE_BYTES:
                    break
    except TimeoutError:
        raise CallFailed(f"no answer in {seconds:g} s") from None
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise CallFailed(f"{type(error).__name__} {error}".strip()) from None
    return as_value(bytes(data))


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

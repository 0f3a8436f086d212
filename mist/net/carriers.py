"""What brings files to where they are to be: HTTP PUT, S3, and programs that operators name for URLs of some kinds.

All of them send a file that may still be growing from its beginning, and say with `Away` that they want to try again later.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import logging
import re
import signal
from collections.abc import AsyncIterator, Callable, Mapping
from html import escape, unescape
from typing import Any, Final, Protocol
from urllib.parse import quote, urlsplit, urlunsplit

from mist.errors import ConfigError, TransportError
from mist.net import s3
from mist.net.programs import signal_group, words_of
from mist.net.remote_schemes import HTTP_SCHEMES, Writers, without_password, written_by
from mist.net.spool import Spool, SpooledFile
from mist.net.uploads import Answer, Away, Refused, Uploader, check, redirected

log = logging.getLogger(__name__)

MAX_REDIRECTS: Final = 6
PART_BYTES: Final = 8 << 20  # of an upload to S3; stores take parts from 5 MiB on
PARTS_OF_A_SIZE: Final = 1000  # then parts grow, so that the 10,000 parts that an object may have hold 440 GiB
MAX_PARTS: Final = 10_000
PROGRAM_END_SECONDS: Final = 30.0
KILL_SECONDS: Final = 2.0
MAX_WORDS: Final = 300
LENGTH_REQUIRED: Final = 411
NOT_IMPLEMENTED: Final = 501
_MISSING: Final = frozenset({403, 404, 410})
_UPLOAD: Final = re.compile(rb"<UploadId>([^<]{1,1024})</UploadId>")


class Carrier(Protocol):
    """Brings files to one kind of destination."""

    async def send(self, url: str, file: SpooledFile, mime: str) -> None:
        """Send a file until it is whole and taken. Raises Away, and another TransportError when trying again makes no sense."""
        ...

    async def delete(self, url: str) -> None:
        """Remove a file, where the destination knows how to. Raises as `send`."""
        ...

    async def fetch(self, url: str) -> bytes | None:
        """Return a small file that is there already, None if there is none. Raises as `send`."""
        ...

    def state(self, file: SpooledFile) -> Any:
        """Return what another process needs to go on sending a file, as JSON has it; None if it begins again."""
        ...

    def restore(self, file: SpooledFile, state: Any) -> None:
        """Go on sending a file as another process would have. Raises KeyError, TypeError, ValueError."""
        ...

    def close(self) -> None: ...


def make_carrier(url: str, writers: Writers, spool: Spool, *, verify: bool = True) -> Carrier:
    """Return what brings files to a URL: the first writer that has its protocol, or what is built in.

    Raises ConfigError.
    """
    scheme = urlsplit(url).scheme.lower()
    for name, command, protocols in writers:
        if scheme in written_by(protocols):
            return ProgramCarrier(name, command, spool)
    if s3.is_s3(url):
        return S3Carrier(verify=verify)
    if scheme in HTTP_SCHEMES:
        return HttpCarrier(spool, verify=verify)
    raise ConfigError(f"nothing writes to {scheme}://", path="target", value=without_password(url))


async def _pieces(file: SpooledFile, at: int, end: int | None, sent: Callable[[int], None]) -> AsyncIterator[bytes]:
    """Yield a file's bytes; with no end, those that are still to come too. sent: told up to where the server was given them."""
    while end is None or at < end:
        if end is None:
            await file.wait_beyond(at)
        data = file.read(at)
        if end is not None:
            data = data[: end - at]
        if not data:
            return
        yield data
        at += len(data)
        sent(at)


def _make_room(spool: Spool, file: SpooledFile) -> Callable[[int], None]:
    """Return what lets go of sent bytes of an endless file, once keeping them would fill half the room."""

    def sent(at: int) -> None:
        if not file.whole and spool.used_bytes > spool.limit_bytes // 2:
            file.let_go(at)

    return sent


def _from_beginning(file: SpooledFile, url: str) -> None:
    """Raise TransportError for a file whose beginning is not here any more."""
    if file.start:
        raise TransportError(
            f"{without_password(url)}: the connection broke, and the file's beginning is no longer kept: use split or S3",
            reason="WRITE_FAILURE",
        )


class HttpCarrier:
    """PUT, in HTTP chunks while a file grows, with its length when it is whole; DELETE; GET."""

    def __init__(self, spool: Spool, *, verify: bool = True) -> None:
        self._spool = spool
        self._uploader = Uploader(verify=verify)
        self._wants_length = False

    async def send(self, url: str, file: SpooledFile, mime: str) -> None:
        for _ in range(MAX_REDIRECTS + 1):
            _from_beginning(file, url)
            if self._wants_length:
                while not file.whole:
                    await file.wait_beyond(file.size)
            size = file.size if file.whole else None
            body = _pieces(file, 0, size, _make_room(self._spool, file))
            answer = await self._uploader.ask("PUT", url, body, size=size, headers={"Content-Type": mime})
            if size is None and answer.status in (LENGTH_REQUIRED, NOT_IMPLEMENTED):
                self._wants_length = True
                continue
            moved = redirected(url, answer)
            if not moved:
                if answer.ok and not file.whole:
                    raise Away(f"{without_password(url)}: the server answered before the end of the file")
                check(answer, without_password(url))
                return
            url = moved
        raise Refused(f"{without_password(url)}: more than {MAX_REDIRECTS} redirects", 0)

    async def delete(self, url: str) -> None:
        answer = await self._uploader.ask("DELETE", url)
        if answer.status not in _MISSING:
            check(answer, without_password(url))

    async def fetch(self, url: str) -> bytes | None:
        answer = await self._uploader.ask("GET", url)
        return None if answer.status in _MISSING else check(answer, without_password(url)).body

    def state(self, file: SpooledFile) -> Any:
        return None

    def restore(self, file: SpooledFile, state: Any) -> None:
        """Do nothing: files are sent from their beginnings."""

    def close(self) -> None:
        self._uploader.close()


class _Upload:
    """A multipart upload: its number at the store, and what it has taken. It outlives connections."""

    def __init__(self, number: str) -> None:
        self.number = number
        self.tags: list[str] = []

    @property
    def next_bytes(self) -> int:
        """Size of the next part."""
        return PART_BYTES * (1 + len(self.tags) // PARTS_OF_A_SIZE)


class S3Carrier:
    """Objects in S3: in one request when they are small and whole, else as multipart uploads, of which each part is sent once."""

    def __init__(self, *, verify: bool = True) -> None:
        self._uploader = Uploader(verify=verify)
        self._uploads: dict[SpooledFile, _Upload] = {}

    async def send(self, url: str, file: SpooledFile, mime: str) -> None:
        while not file.whole and file.size < PART_BYTES:
            await file.wait_beyond(file.size)
        upload = self._uploads.get(file)
        if upload is None and file.whole and file.size < 2 * PART_BYTES:
            await self._put(url, "", file, 0, file.size, {"Content-Type": mime})
            return
        if upload is None:
            answer = await self._ask("POST", url, "uploads=", headers={"Content-Type": mime})
            found = _UPLOAD.search(answer.body)
            if found is None:
                raise Refused(f"{without_password(url)}: the store begins no upload", answer.status)
            upload = self._uploads[file] = _Upload(unescape(found[1].decode()))
        await self._send_parts(url, file, upload)
        await self._complete(url, upload)
        del self._uploads[file]

    async def _send_parts(self, url: str, file: SpooledFile, upload: _Upload) -> None:
        while not file.whole or file.start < file.size:
            while not file.whole and file.size - file.start < upload.next_bytes:
                await file.wait_beyond(file.size)
            if len(upload.tags) >= MAX_PARTS:
                raise TransportError(f"{without_password(url)}: {MAX_PARTS} parts are all that S3 takes: use split")
            end = min(file.start + upload.next_bytes, file.size)
            query = f"partNumber={len(upload.tags) + 1}&uploadId={quote(upload.number, safe='')}"
            answer = await self._put(url, query, file, file.start, end, {})
            upload.tags.append(answer.headers.get("etag", ""))
            file.let_go(end)

    async def _complete(self, url: str, upload: _Upload) -> None:
        parts = "".join(
            f"<Part><PartNumber>{number}</PartNumber><ETag>{escape(tag)}</ETag></Part>"
            for number, tag in enumerate(upload.tags, 1)
        )
        body = f"<CompleteMultipartUpload>{parts}</CompleteMultipartUpload>".encode()
        answer = await self._ask("POST", url, f"uploadId={quote(upload.number, safe='')}", body)
        if b"<Error>" in answer.body:  # S3 says so with status 200
            raise Away(f"{without_password(url)}: {s3.error_text(answer.body)}")

    async def _put(
        self, url: str, query: str, file: SpooledFile, begin: int, end: int, headers: Mapping[str, str]
    ) -> Answer:
        digest = hashlib.sha256()
        async for piece in _pieces(file, begin, end, lambda _at: None):
            digest.update(piece)
            await asyncio.sleep(0)
        body = _pieces(file, begin, end, lambda _at: None)
        return await self._ask("PUT", url, query, body, end - begin, digest.hexdigest(), headers)

    async def _ask(
        self,
        method: str,
        url: str,
        query: str = "",
        body: bytes | AsyncIterator[bytes] = b"",
        size: int = 0,
        digest: str = "",
        headers: Mapping[str, str] | None = None,
        missing: frozenset[int] = frozenset(),
    ) -> Answer:
        target, keys = s3.split_source(url)
        if query:
            target = urlunsplit(urlsplit(target)._replace(query=query))
        pieces: AsyncIterator[bytes] | None
        if isinstance(body, bytes):
            pieces, size, digest = (_one(body) if body else None), len(body), hashlib.sha256(body).hexdigest()
        else:
            pieces = body
        given = dict(headers or {})
        if keys is not None:
            given |= keys.sign(method, target, content_hash=digest)
        answer = await self._uploader.ask(method, target, pieces, size=size, headers=given)
        if answer.ok or answer.status in missing:
            return answer
        answer.words = s3.error_text(answer.body) or answer.words
        return check(answer, without_password(url))

    async def delete(self, url: str) -> None:
        await self._ask("DELETE", url, missing=frozenset({404}))

    async def fetch(self, url: str) -> bytes | None:
        answer = await self._ask("GET", url, missing=frozenset({404}))
        return answer.body if answer.ok else None

    def state(self, file: SpooledFile) -> Any:
        upload = self._uploads.get(file)
        return None if upload is None else [upload.number, upload.tags]

    def restore(self, file: SpooledFile, state: Any) -> None:
        if state is not None:
            upload = self._uploads[file] = _Upload(str(state[0]))
            upload.tags = [str(tag) for tag in state[1]]

    def close(self) -> None:
        self._uploader.close()


async def _one(data: bytes) -> AsyncIterator[bytes]:
    yield data


class ProgramCarrier:
    """A program of the operator's, run for each file with the URL as its last argument and the file on its standard input."""

    def __init__(self, name: str, command: str, spool: Spool) -> None:
        """Take a command line, which is split as a shell splits it; no shell runs it. Raises ConfigError."""
        self._name = name
        self._spool = spool
        self._words = words_of(command, f"the command of the external writer {name}", "extwriters")

    async def send(self, url: str, file: SpooledFile, mime: str) -> None:
        _from_beginning(file, url)
        try:
            process = await asyncio.create_subprocess_exec(
                *self._words,
                url,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                start_new_session=True,
            )
        except (OSError, ValueError, IndexError) as error:
            raise TransportError(
                f"the external writer {self._name} does not start: {error}", reason="EXEC_FAILURE"
            ) from None
        said = asyncio.ensure_future(_last_words(process))
        try:
            await self._feed(process, file)
            async with asyncio.timeout(PROGRAM_END_SECONDS):
                status = await process.wait()
        except TimeoutError:
            raise Away(f"the external writer {self._name} does not end after its input") from None
        finally:
            if process.returncode is None:
                signal_group(process.pid, signal.SIGKILL)
                await process.wait()
            words = await said
        if status:
            raise Away(f"the external writer {self._name} ended with {status}{': ' if words else ''}{words}")
        if not file.whole:
            raise Away(f"the external writer {self._name} ended before its input")

    async def _feed(self, process: asyncio.subprocess.Process, file: SpooledFile) -> None:
        assert process.stdin is not None
        ended = asyncio.ensure_future(process.wait())
        feeding = asyncio.ensure_future(self._feed_all(process.stdin, file))
        try:
            await asyncio.wait({ended, feeding}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ended.cancel()
            feeding.cancel()
            # A program that does not read to the end is no error here; uvloop says RuntimeError for a pipe that broke before.
            with contextlib.suppress(asyncio.CancelledError, OSError, RuntimeError):
                await feeding

    async def _feed_all(self, stdin: asyncio.StreamWriter, file: SpooledFile) -> None:
        async for piece in _pieces(file, 0, None, _make_room(self._spool, file)):
            if stdin.is_closing():
                return
            stdin.write(piece)
            await stdin.drain()
        stdin.close()

    async def delete(self, url: str) -> None:
        """Do nothing: such programs only write."""

    async def fetch(self, url: str) -> bytes | None:
        """Return None: such programs only write."""
        return None

    def state(self, file: SpooledFile) -> Any:
        return None

    def restore(self, file: SpooledFile, state: Any) -> None:
        """Do nothing: files are sent from their beginnings."""

    def close(self) -> None:
        """Do nothing: a program ends with its file."""


async def _last_words(process: asyncio.subprocess.Process) -> str:
    """Return the last line that a program wrote to its standard error."""
    assert process.stderr is not None
    last = b""
    while piece := await process.stderr.read(MAX_WORDS * 4):
        last = (last + piece)[-MAX_WORDS * 4 :]
    lines = last.decode("utf-8", "replace").strip().splitlines()
    return " ".join(lines[-1].split())[:MAX_WORDS] if lines else ""

"""Whole small documents from files and http(s) servers, such as playlists and segments: bounded, and asked for only if changed."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import quote, unquote, urljoin, urlsplit

from mist.errors import LimitExceededError, RemoteProtocolError, TransportError
from mist.net.http_source import HttpReader, HttpStatus
from mist.net.source_reader import is_url

READ_BYTES: Final = 1 << 20
NOT_MODIFIED: Final = 304
GONE: Final = frozenset({403, 404, 410})


class Missing(TransportError):
    """There is no such document (now)."""


@dataclass(frozen=True, slots=True)
class Document:
    """One document. place: where it was found after redirects. validators: for the next time."""

    data: bytes
    place: str
    validators: tuple[str, str] = ("", "")


def place_of(base: str, uri: str) -> str:
    """Return where a URI in a document is. base: place of the document, a path or URL.

    Raises RemoteProtocolError for a URI that leads from a server to this machine's files, or to another scheme.
    """
    scheme = urlsplit(uri).scheme
    if is_url(base) or is_url(uri):
        found = urljoin(base, uri) if is_url(base) else uri
        if not is_url(found):
            raise RemoteProtocolError(f"{uri[:200]!r} is on no http server")
        return found
    if scheme and len(scheme) > 1 and scheme != "file":
        raise RemoteProtocolError(f"{uri[:200]!r} has a scheme that is not supported")
    plain = uri.removeprefix("file://")
    folder = os.path.dirname(base)
    for path in (plain, unquote(plain), unquote(plain.partition("?")[0])):
        if os.path.exists(os.path.join(folder, path)):
            return os.path.join(folder, path)
    return os.path.join(folder, unquote(plain))


def fetch(
    place: str,
    limit_bytes: int,
    *,
    byte_range: tuple[int, int] | None = None,
    known: tuple[str, str] = ("", ""),
    seconds: float = 30.0,
) -> Document | None:
    """Return a document, or None if it is the one that is known; blocks.

    byte_range: (length, offset) of a part. known: validators of the one that is there. seconds: for everything.
    Raises Missing, TransportError, LimitExceededError, RemoteProtocolError.
    """
    return (_fetch_http if is_url(place) else _read_file)(place, limit_bytes, byte_range, known, seconds)


def _read_file(
    place: str, limit_bytes: int, byte_range: tuple[int, int] | None, known: tuple[str, str], _seconds: float
) -> Document | None:
    try:
        with Path(place).open("rb") as file:
            status = os.fstat(file.fileno())
            validators = (f"{status.st_ino}-{status.st_size}-{status.st_mtime_ns}", "")
            if validators == known:
                return None
            if byte_range is not None:
                file.seek(byte_range[1])
            data = file.read(limit_bytes + 1 if byte_range is None else byte_range[0])
    except OSError as error:
        kind = Missing if isinstance(error, FileNotFoundError) else TransportError
        raise kind(f"{place}: {error.strerror}") from None
    return Document(_checked(data, place, limit_bytes, byte_range), place, validators)


def _fetch_http(
    place: str, limit_bytes: int, byte_range: tuple[int, int] | None, known: tuple[str, str], seconds: float
) -> Document | None:
    names = ("If-None-Match", "If-Modified-Since")
    conditions = {name: value for name, value in zip(names, known, strict=True) if value}
    until = time.monotonic() + seconds
    parts: list[bytes] = []
    size = 0
    length, position = byte_range or (limit_bytes + 1, 0)
    try:
        with HttpReader(quote(place, safe="%:/?#[]@!$&'()*+,;=~"), headers=conditions) as reader:
            assert isinstance(reader, HttpReader)
            while size < length and (data := reader.read(position + size, min(length - size, READ_BYTES))):
                parts.append(data)
                size += len(data)
                if time.monotonic() > until:
                    raise TransportError(f"{reader.name}: not whole after {seconds:g} s")
            return Document(
                _checked(b"".join(parts), reader.name, limit_bytes, byte_range), reader.url, reader.validators
            )
    except HttpStatus as error:
        if error.status == NOT_MODIFIED and conditions:
            return None
        if error.status in GONE:
            raise Missing(str(error)) from None
        raise


def _checked(data: bytes, name: str, limit_bytes: int, byte_range: tuple[int, int] | None) -> bytes:
    if len(data) > limit_bytes:
        raise LimitExceededError(f"{name} has over {limit_bytes} bytes")
    if byte_range is not None and len(data) < byte_range[0]:
        raise TransportError(f"{name} ends before byte {sum(byte_range)}")
    return data

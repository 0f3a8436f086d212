"""Which URLs files can be written to: those of built-in protocols, and those of the operator's external writers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias
from urllib.parse import urlsplit, urlunsplit

from mist.net.s3 import SCHEMES

HTTP_SCHEMES: Final = ("http", "https")
BUILT_IN: Final = frozenset({*SCHEMES, *HTTP_SCHEMES})

Writers: TypeAlias = Sequence[tuple[str, str, Sequence[str]]]  # of each: name, command line, protocols


def written_by(protocols: Sequence[str]) -> set[str]:
    """Return the protocols of a writer as URLs begin with them: "ftp", "ftp:" and "ftp://" mean the same."""
    return {protocol.rstrip("/").removesuffix(":").lower() for protocol in protocols}


def remote_schemes(writers: Writers) -> set[str]:
    """Return the protocols of URLs that files can be written to."""
    found = set(BUILT_IN)
    for _, _, protocols in writers:
        found |= written_by(protocols)
    return found


def scheme_of(target: str) -> str:
    """Return what a URL begins with, "" for a path."""
    scheme, separator, _ = target.partition("://")
    return scheme.lower() if separator and "/" not in scheme else ""


def without_password(url: str) -> str:
    """Return a URL for messages."""
    try:
        parts = urlsplit(url)
        return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))
    except ValueError:
        return url.rpartition("@")[2]

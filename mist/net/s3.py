"""Requests to S3 and to stores like it: addresses, Signature Version 4 of Amazon's web services, and what their errors say."""

from __future__ import annotations

import hashlib
import hmac
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import unescape
from typing import Final
from urllib.parse import parse_qsl, quote, unquote, urlsplit, urlunsplit

SCHEMES: Final[Mapping[str, str]] = {"s3": "https", "s3+http": "http", "s3+https": "https"}
DEFAULT_REGION: Final = "us-east-1"
EMPTY_HASH: Final = hashlib.sha256(b"").hexdigest()
UNSIGNED: Final = "UNSIGNED-PAYLOAD"  # in place of the hash of a body that is not known before it is sent
MAX_ERROR_BYTES: Final = 16 << 10
MAX_WORDS: Final = 300

_ALGORITHM: Final = "AWS4-HMAC-SHA256"
_REGION: Final = re.compile(r"(?:.*\.)?s3[.-](?:dualstack\.)?([a-z]{2}(?:-[a-z]+)+-\d+)\.amazonaws\.com(?:\.cn)?")
_MEMBER: Final = re.compile(rb"<(Code|Message)>([^<]*)</\1>")


@dataclass(frozen=True, slots=True)
class Keys:
    """Who asks. region, service: what the signature is valid for."""

    key: str
    secret: str
    region: str = DEFAULT_REGION
    service: str = "s3"

    def __repr__(self) -> str:
        return f"Keys({self.key!r})"

    def sign(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None = None,
        content_hash: str = EMPTY_HASH,
        now: datetime | None = None,
    ) -> dict[str, str]:
        """Return the headers that make a request a signed one, `headers` not among them.

        headers: further ones that are to be signed. content_hash: SHA-256 of the body in hexadecimal digits, or UNSIGNED.
        now: a time of UTC.
        Spec: AWS Signature Version 4, with the header `Authorization`.
        """
        time = (now or datetime.now(UTC)).strftime("%Y%m%dT%H%M%SZ")
        added = {"x-amz-date": time}
        if self.service == "s3":
            added["x-amz-content-sha256"] = content_hash
        given = {"host": urlsplit(url).netloc.rpartition("@")[2], **(headers or {}), **added}
        signed = {name.lower(): " ".join(value.split()) for name, value in given.items()}
        names = ";".join(sorted(signed))
        scope = f"{time[:8]}/{self.region}/{self.service}/aws4_request"
        request = "\n".join(
            (
                method,
                *_canonical_target(url),
                *(f"{name}:{signed[name]}" for name in sorted(signed)),
                "",
                names,
                content_hash,
            )
        )
        text = "\n".join((_ALGORITHM, time, scope, hashlib.sha256(request.encode()).hexdigest()))
        key = f"AWS4{self.secret}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        signature = hmac.digest(key, text.encode(), "sha256").hex()
        added["Authorization"] = (
            f"{_ALGORITHM} Credential={self.key}/{scope}, SignedHeaders={names}, Signature={signature}"
        )
        return added


def _canonical_target(url: str) -> tuple[str, str]:
    """Return path and query as they are signed."""
    parts = urlsplit(url)
    pairs = [(_encoded(name), _encoded(value)) for name, value in parse_qsl(parts.query, keep_blank_values=True)]
    return quote(unquote(parts.path) or "/", safe="/-._~"), "&".join(f"{name}={value}" for name, value in sorted(pairs))


def _encoded(text: str) -> str:
    return quote(text, safe="-._~")


def is_s3(source: str) -> bool:
    """Tell whether a source is in an S3 store."""
    return source.partition("://")[0].lower() in SCHEMES and "://" in source


def split_source(source: str, environment: Mapping[str, str] = os.environ) -> tuple[str, Keys | None]:
    """Return the http(s) URL of a source, without keys, and the keys for it, None without any.

    source: `s3+https://KEY:SECRET@HOST/BUCKET/OBJECT`; `s3+http` and, for https, `s3` as well. Without keys in it those of the environment
    are taken: S3_ACCESS_KEY_ID and S3_SECRET_ACCESS_KEY, or the same with AWS_ in place of S3_.
    """
    parts = urlsplit(source)
    account, _, host = parts.netloc.rpartition("@")
    key, _, secret = account.partition(":")
    key, secret = unquote(key), unquote(secret)
    for prefix in ("S3", "AWS"):
        if not key:
            key, secret = (environment.get(f"{prefix}_{name}", "") for name in ("ACCESS_KEY_ID", "SECRET_ACCESS_KEY"))
    url = urlunsplit((SCHEMES[parts.scheme.lower()], host, parts.path, parts.query, ""))
    if not key:
        return url, None
    found = _REGION.fullmatch(parts.hostname or "")
    return url, Keys(key, secret, found[1] if found else environment.get("AWS_REGION") or DEFAULT_REGION)


def error_text(body: bytes) -> str:
    """Return what a store's error says: its code, and its message if there is one; "" for a body that says nothing."""
    members = {name: unescape(text.decode("utf-8", "replace")) for name, text in _MEMBER.findall(body)}
    words = ": ".join(members[name] for name in (b"Code", b"Message") if members.get(name))
    return " ".join(words.split())[:MAX_WORDS]

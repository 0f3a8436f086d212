"""Stream names: what a client may call a stream, and what that name becomes on this machine."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final
from urllib.parse import quote

from mist.errors import NotFound

SHARED_MEMORY: Final = Path("/dev/shm")
MAX_NAME_BYTES: Final = 100
MAX_SHM_NAME_BYTES: Final = 180

_BASE_CHARACTERS: Final = frozenset("abcdefghijklmnopqrstuvwxyz0123456789_.-")
_HASH_BYTES: Final = 16


def split(name: str) -> tuple[str, str | None]:
    """Return the base name and the wildcard part of a stream name.

    The first "+" or space ends the base name. The wildcard part is None when there is no such character, and may be "".
    """
    for place, character in enumerate(name):
        if character in "+ ":
            return name[:place], name[place + 1 :]
    return name, None


def base_name(name: str) -> str:
    """Return what stands before the first "+" or space: the name under which the stream is configured."""
    return split(name)[0]


def wildcard_part(name: str) -> str:
    """Return what follows the first "+" or space, or ""."""
    return split(name)[1] or ""


def sanitise(name: str) -> str:
    """Return the name under which a stream is known, from the name that a client wrote.

    Letters of the base name become lower case, and what is not in a-z 0-9 _ . - is dropped; the wildcard part keeps every
    character. Anything from a "?" on is cut in both. Sanitising twice changes nothing more.
    Raises NotFound when no base name is left, the result is over 100 bytes of UTF-8, or the wildcard part has control
    characters or is not text.
    """
    base, wildcard = split(name.partition("?")[0])
    clean = "".join(character for character in _lower_ascii(base) if character in _BASE_CHARACTERS)
    if not clean:
        raise NotFound("The stream has no name")
    if wildcard is not None:
        if not _is_text(wildcard):
            raise NotFound("The stream name has control characters")
        clean = f"{clean}+{wildcard}"
    if len(clean.encode()) > MAX_NAME_BYTES:
        raise NotFound(f"The stream name is over {MAX_NAME_BYTES} characters long")
    return clean


def shm_name(name: str) -> str:
    """Return a sanitised stream name as one part of a shared-memory file name.

    The result has only A-Z a-z 0-9 _ - + % ~ (so no "." and no "/"), is at most 180 bytes long, and differs for names
    that differ: other bytes are percent-encoded, and a text that grows too long ends in "~" and a hash of the name.
    """
    # quote() leaves ".", "~" and, here, "+" alone; "." separates the parts of our file names and "~" marks the hash.
    encoded = quote(name, safe="+", errors="surrogatepass").replace(".", "%2E").replace("~", "%7E")
    if len(encoded) <= MAX_SHM_NAME_BYTES:
        return encoded
    digest = hashlib.blake2b(name.encode(errors="surrogatepass"), digest_size=_HASH_BYTES).hexdigest()
    kept = encoded[: MAX_SHM_NAME_BYTES - len(digest) - 1]
    escape = kept.rfind("%", len(kept) - 2)
    return (kept if escape < 0 else kept[:escape]) + "~" + digest


def stream_prefix(instance: str, name: str) -> str:
    """Return what the names of all shared memory of a stream begin with."""
    return f"mist.{instance}.{shm_name(name)}"


def _lower_ascii(text: str) -> str:
    """Return text with A-Z in lower case; str.lower() would turn the Kelvin sign into a "k"."""
    return "".join(character.lower() if character.isascii() else character for character in text)


def _is_text(text: str) -> bool:
    """Return whether text has no control characters and no halves of surrogate pairs."""
    return not any(ord(c) < 0x20 or 0x7F <= ord(c) < 0xA0 or 0xD800 <= ord(c) < 0xE000 for c in text)

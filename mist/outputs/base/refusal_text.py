"""What viewers and publishers are told of an error: why, without where the server has its files and whom it asks for them."""

from __future__ import annotations

import re
from typing import Final

from mist.errors import (
    MistError,
    NotFound,
    RemoteProtocolError,
    SharedMemoryFull,
    StreamError,
    TransportError,
)

# An absolute or relative path, or a URL. The name of a stream has neither; shared memory is at the same place everywhere.
_PLACE: Final = re.compile(r"(?!\s/dev/shm\b)(?:^|[\s\"'(=:])(?:/|\.{1,2}/|~/)\S|\w/[^\s/]*\.\w|\w://|\b[A-Za-z]:\\")
# Where what an error says of a place begins.
_SAID: Final = re.compile(r" cannot |, byte \d| is (?:not|of|gone)|: ")
_INSTEAD: Final[tuple[tuple[type[MistError], str], ...]] = (
    (SharedMemoryFull, "The server has no memory left for it"),
    (NotFound, "What it plays is not there or cannot be read"),
    (StreamError, "It cannot be played now"),
    (RemoteProtocolError, "It is damaged, or of no known format"),
    (TransportError, "What it plays cannot be read"),
    (MistError, "What it plays cannot be used"),
)


def refusal_text(error: BaseException, otherwise: str) -> str:
    """Return what somebody outside is told of an error. otherwise: of one that says nothing. The log has the whole.

    Of a text with a place in it, what it says of the place is left, as far as that follows the last folder's name.
    """
    text = str(error)
    if _PLACE.search(text) is None:
        return text or otherwise
    said = _SAID.search(text, max(text.rfind("/"), text.rfind("\\")))
    if said is not None:
        return f"Its source{text[said.start() :]}"
    return next((known for kind, known in _INSTEAD if isinstance(error, kind)), otherwise)

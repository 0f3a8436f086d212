"""The JSON dialect of the control API: a writer with one exact output, and a reader that forgives.

Written text is ASCII without spaces, with the keys of objects in byte order. The reader takes what hand-written scripts and old
clients send: single quotes, stray characters, words after true, false and null.
"""

from __future__ import annotations

import math
import re
import sys
from collections.abc import Mapping
from typing import Any, Final

from mist.errors import LimitExceededError, LocalProtocolError, TruncatedError

MAX_DEPTH: Final = 64
MAX_TEXT_CHARACTERS: Final = 32 * 1024 * 1024

_MAX_INT: Final = (1 << 63) - 1
_MIN_INT: Final = -(1 << 63)
_MAX_EXACT_FLOAT: Final = 1 << 53
_MAX_INT_DIGITS: Final = 19

# --- writing --------------------------------------------------------------------------------------------------------

_TO_ESCAPE: Final = re.compile(r"[^ !#-\[\]-~]")
_SHORT_ESCAPES: Final = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\f": "\\f", "\n": "\\n", "\r": "\\r", "\t": "\\t"}


class Written:
    """A text of `dumps`, in pieces, that stands for its value in a further one."""

    __slots__ = ("pieces",)

    def __init__(self, pieces: list[str]) -> None:
        self.pieces = pieces


def dumps(value: object) -> str:
    """Return value as JSON text in printable ASCII.

    value: None, bool, int, float, str, `Written`, bytes, and mappings, lists, tuples and sets (in their order of sorting) of those.
    Bytes become a string of the characters U+0000 to U+00FF, and so do undecodable bytes in a str (surrogateescape). Floats have
    16 significant digits; those that are not numbers become null. Keys that are not text are written as their text.
    Raises LocalProtocolError for other types and for more than 64 levels.
    """
    return "".join(dumps_pieces(value))


def dumps_pieces(value: object) -> list[str]:
    """Return the text of `dumps` in pieces: those of a `Written` are as they were, and nothing of it is copied."""
    pieces: list[str] = []
    _write(value, pieces, 0)
    return pieces


def _write(value: object, pieces: list[str], depth: int) -> None:
    if depth > MAX_DEPTH:
        raise LocalProtocolError(f"a value of more than {MAX_DEPTH} levels is no JSON of ours")
    if isinstance(value, Mapping):
        separator = "{"
        for key in sorted(value, key=str):
            pieces.append(f"{separator}{_string(str(key))}:")
            _write(value[key], pieces, depth + 1)
            separator = ","
        pieces.append("{}" if separator == "{" else "}")
    elif isinstance(value, (list, tuple, set, frozenset)):
        separator = "["
        for member in sorted(value) if isinstance(value, (set, frozenset)) else value:
            pieces.append(separator)
            _write(member, pieces, depth + 1)
            separator = ","
        pieces.append("[]" if separator == "[" else "]")
    elif isinstance(value, Written):
        pieces.extend(value.pieces)
    else:
        pieces.append(_scalar(value))


def _scalar(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, str):
        return _string(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(int(value))
    if isinstance(value, float):
        return _number(value) if math.isfinite(value) else "null"
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _string(bytes(value).decode("latin-1"))
    raise LocalProtocolError(f"{type(value).__name__} has no form in JSON")


def _number(value: float) -> str:
    """Return a number with up to 16 digits; those of the largest would be rounded to more than readers can hold."""
    text = format(value, ".16g")
    return text if math.isfinite(float(text)) else repr(value)


def _string(text: str) -> str:
    return '"' + _TO_ESCAPE.sub(_escape, text) + '"'


def _escape(match: re.Match[str]) -> str:
    character = match[0]
    short = _SHORT_ESCAPES.get(character)
    if short:
        return short
    code = ord(character)
    if code >= 0x10000:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04X}\\u{0xDC00 + (code & 0x3FF):04X}"
    if 0xDC80 <= code <= 0xDCFF:
        code -= 0xDC00
    return f"\\u{code:04X}"


# --- reading --------------------------------------------------------------------------------------------------------

_VALUE_START: Final = re.compile(r"""[{\["'\-0-9tfnTFN]""")
_KEY_START: Final = re.compile(r"""["'}]""")
_MEMBER_START: Final = re.compile(r"""[{\["'\-0-9tfnTFN,}]""")
_ELEMENT_START: Final = re.compile(r"""[{\["'\-0-9tfnTFN\]]""")
_WORD_END: Final = re.compile(r"[,\]}]")
_NUMBER: Final = re.compile(r"-?(?P<whole>[0-9]*)(?P<fraction>\.[0-9]*)?(?P<exponent>[eE][+-]?[0-9]+)?")
_PLAIN_TEXT: Final = {'"': re.compile(r'[^"\\]*'), "'": re.compile(r"[^'\\]*")}
_HEX: Final = re.compile(r"[0-9A-Fa-f]{4}")
_UNESCAPE: Final = {"b": "\b", "f": "\f", "n": "\n", "r": "\r", "t": "\t"}
_WORDS: Final[Mapping[str, bool | None]] = {"t": True, "f": False, "n": None}
_UNDECODED: Final = re.compile("[\udc80-\udcff]")
_HALF_PAIR: Final = re.compile("[\ud800-\udfff]")


def loads_lenient(text: str | bytes, *, max_characters: int = MAX_TEXT_CHARACTERS) -> Any:
    """Return the value that a JSON text begins with, or None when there is none in it.

    Strings may have either quote. Characters that are not expected are skipped. Words that begin with t, f or n are true, false and
    null up to the next "," "]" or "}". Integers stop at the limits of 64 bits; numbers with an exponent are integers when
    they are whole. Bytes that are not UTF-8 become the characters U+0080 to U+00FF; half a surrogate pair becomes U+FFFD.
    Of equal keys the last counts. What follows the value is not read.
    Raises TruncatedError for a string, list or object without end, LimitExceededError for more than max_characters or 64 levels.
    """
    if len(text) > max_characters:
        raise LimitExceededError(f"JSON text of more than {max_characters} characters")
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    text = _UNDECODED.sub(lambda match: chr(ord(match[0]) - 0xDC00), text)
    start = _VALUE_START.search(text)
    while start:
        reader = _Reader(text, start.start())
        if not reader.at_lone_sign():
            return reader.value(0)
        start = _VALUE_START.search(text, start.end())
    return None


class _Reader:
    """A position in a text, and what can be read from there."""

    def __init__(self, text: str, position: int) -> None:
        self._text = text
        self._position = position

    def value(self, depth: int) -> Any:
        """Return the value that begins here with one of the characters of _VALUE_START."""
        if depth > MAX_DEPTH:
            raise LimitExceededError(f"JSON of more than {MAX_DEPTH} levels", offset=self._position)
        first = self._text[self._position]
        if first == "{":
            return self._object(depth)
        if first == "[":
            return self._list(depth)
        if first in "\"'":
            return self._string()
        if first in "-0123456789":
            return self._number()
        end = _WORD_END.search(self._text, self._position)
        self._position = end.start() if end else len(self._text)
        return _WORDS[first.lower()]

    def at_lone_sign(self) -> bool:
        """Return whether this is a minus with no number after it."""
        return self._text[self._position] == "-" and not self._text[self._position + 1 : self._position + 2].isdigit()

    def _skip_to(self, wanted: re.Pattern[str]) -> str:
        """Go on to the next wanted character and return it."""
        while True:
            match = wanted.search(self._text, self._position)
            if match is None:
                raise TruncatedError("JSON text ends inside a list or an object", offset=len(self._text))
            self._position = match.start()
            if not self.at_lone_sign():
                return match[0]
            self._position += 1

    def _object(self, depth: int) -> dict[str, Any]:
        members: dict[str, Any] = {}
        self._position += 1
        while self._skip_to(_KEY_START) != "}":
            key = self._string()
            if self._skip_to(_MEMBER_START) in ",}":
                members[key] = None
            else:
                members[key] = self.value(depth + 1)
        self._position += 1
        return members

    def _list(self, depth: int) -> list[Any]:
        elements: list[Any] = []
        self._position += 1
        while self._skip_to(_ELEMENT_START) != "]":
            elements.append(self.value(depth + 1))
        self._position += 1
        return elements

    def _number(self) -> int | float:
        match = _NUMBER.match(self._text, self._position)
        assert match is not None
        self._position = match.end()
        whole = match["whole"]
        if match["fraction"] is None and match["exponent"] is None:
            value = int(whole.lstrip("0")[: _MAX_INT_DIGITS + 1] or "0")
            return max(_MIN_INT, -value) if match[0].startswith("-") else min(_MAX_INT, value)
        real = float(match[0] if whole else match[0].replace(".", "0.", 1))
        if math.isinf(real):
            return math.copysign(sys.float_info.max, real)
        if match["exponent"] and real.is_integer() and abs(real) <= _MAX_EXACT_FLOAT:
            return int(real)
        return real

    def _string(self) -> str:
        text = self._text
        quote = text[self._position]
        plain = _PLAIN_TEXT[quote]
        pieces: list[str] = []
        self._position += 1
        while True:
            match = plain.match(text, self._position)
            assert match is not None
            pieces.append(match[0])
            self._position = match.end()
            if self._position >= len(text):
                raise TruncatedError("JSON text ends inside a string", offset=len(text))
            if text[self._position] == quote:
                self._position += 1
                return _HALF_PAIR.sub("\ufffd", _join_pairs("".join(pieces)))
            pieces.append(self._escaped())

    def _escaped(self) -> str:
        """Return the character for the escape that begins here; one that is not known stands for itself."""
        letter = self._text[self._position + 1 : self._position + 2]
        self._position += 2
        if letter == "u":
            digits = _HEX.match(self._text, self._position)
            if digits:
                self._position = digits.end()
                return chr(int(digits[0], 16))
        return _UNESCAPE.get(letter, letter)


def _join_pairs(text: str) -> str:
    """Return text with surrogate pairs as the characters they stand for."""
    if not _HALF_PAIR.search(text):
        return text
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

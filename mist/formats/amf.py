"""Action Message Format 0 and 3: the values in RTMP commands and FLV script data.

Python sees numbers as float (AMF 3 integers as int), strings as str, objects as dict, `EcmaArray` and `TypedObject`
(both dicts), arrays as list, dates as `Date`, byte arrays as bytes, undefined as `UNDEFINED`, XML as `Xml`.
Specs: Adobe AMF 0 (2007), Adobe AMF 3 (2013).
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, Final

from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError, UnsupportedError

MAX_DEPTH: Final = 32
MAX_VALUES: Final = 65536  # in one message, so that a small message cannot make a large tree


class Undefined:
    """The one value of the type undefined."""

    def __repr__(self) -> str:
        return "UNDEFINED"

    def __bool__(self) -> bool:
        return False


UNDEFINED: Final = Undefined()


class EcmaArray(dict[str, Any]):
    """An associative array. AMF 3 arrays that have both named and numbered items become one, numbers as text."""


class TypedObject(dict[str, Any]):
    """An object with a class name."""

    def __init__(self, class_name: str, values: Any = ()) -> None:
        super().__init__(values)
        self.class_name = class_name


class Xml(str):
    """An XML document, as text."""


@dataclass(frozen=True, slots=True)
class Date:
    """A moment: unix_ms milliseconds since 1970 UTC; zone_minutes is reserved and mostly 0."""

    unix_ms: float
    zone_minutes: int = 0


class _Reader:
    """A position in a message, and what the limits are counted with."""

    def __init__(self, data: bytes, offset: int) -> None:
        self.data = data
        self.at = offset
        self.values = 0

    def take(self, count: int) -> bytes:
        piece = self.data[self.at : self.at + count]
        if len(piece) != count:
            raise TruncatedError(f"AMF value needs {count} bytes", offset=self.at, spec="AMF 0")
        self.at += count
        return piece

    def byte(self) -> int:
        if self.at >= len(self.data):
            raise TruncatedError("AMF value ends early", offset=self.at, spec="AMF 0")
        self.at += 1
        return self.data[self.at - 1]

    def number(self, form: str) -> Any:
        (value,) = struct.unpack(form, self.take(struct.calcsize(form)))
        return value

    def text(self, count: int) -> str:
        # Titles in local code pages are common in onMetaData; they must not end a stream.
        return self.take(count).decode("utf-8", "replace")

    def count_value(self, depth: int) -> None:
        self.values += 1
        if depth > MAX_DEPTH:
            raise LimitExceededError(f"AMF nested deeper than {MAX_DEPTH}", offset=self.at, spec="AMF 0")
        if self.values > MAX_VALUES:
            raise LimitExceededError(f"more than {MAX_VALUES} AMF values", offset=self.at, spec="AMF 0")

    def fits(self, count: int, each: int = 1) -> int:
        """Return count if that many items of so many bytes can still be in the message."""
        if count * each > len(self.data) - self.at:
            raise TruncatedError(f"{count} AMF items announced", offset=self.at, spec="AMF 0")
        return count


# -- AMF 0


class _Reader0(_Reader):
    def __init__(self, data: bytes, offset: int) -> None:
        super().__init__(data, offset)
        self.references: list[Any] = []

    def value(self, depth: int = 0) -> Any:
        self.count_value(depth)
        marker = self.byte()
        simple = _SIMPLE0.get(marker)
        if simple is not None:
            return simple(self)
        if marker == 0x11:
            inner = _Reader3(self.data, self.at, self.values)
            value = inner.value(depth + 1)
            self.at, self.values = inner.at, inner.values
            return value
        if marker == 0x0A:
            items: list[Any] = []
            self.references.append(items)
            for _ in range(self.fits(self.number(">I"))):
                items.append(self.value(depth + 1))
            return items
        return self.object(marker, depth)

    def object(self, marker: int, depth: int) -> dict[str, Any]:
        target: dict[str, Any]
        if marker == 0x03:
            target = {}
        elif marker == 0x08:
            self.number(">I")  # a hint: many encoders write 0 or a wrong count; the end marker decides
            target = EcmaArray()
        elif marker == 0x10:
            target = TypedObject(self.text(self.number(">H")))
        else:
            raise RemoteProtocolError(f"AMF 0 marker {marker:#04x}", offset=self.at - 1, spec="AMF 0 section 2.1")
        self.references.append(target)
        while True:
            key = self.text(self.number(">H"))
            if not key and self.at < len(self.data) and self.data[self.at] == 0x09:
                self.at += 1
                return target
            if marker == 0x08 and not key and self.at == len(self.data):
                return target  # onMetaData of some encoders ends with 00 00 only
            target[key] = self.value(depth + 1)

    def reference(self) -> Any:
        number = self.number(">H")
        if number >= len(self.references):
            raise RemoteProtocolError(f"AMF 0 reference {number}", offset=self.at, spec="AMF 0 section 2.9")
        return self.references[number]

    def date(self) -> Date:
        return Date(self.number(">d"), self.number(">h"))


_SIMPLE0: Final[dict[int, Callable[[_Reader0], Any]]] = {
    0x00: lambda reader: reader.number(">d"),
    0x01: lambda reader: reader.byte() != 0,
    0x02: lambda reader: reader.text(reader.number(">H")),
    0x05: lambda reader: None,
    0x06: lambda reader: UNDEFINED,
    0x07: _Reader0.reference,
    0x0B: _Reader0.date,
    0x0C: lambda reader: reader.text(reader.number(">I")),
    0x0D: lambda reader: UNDEFINED,  # "unsupported"
    0x0F: lambda reader: Xml(reader.text(reader.number(">I"))),
}


# -- AMF 3


@dataclass(frozen=True, slots=True)
class _Traits:
    class_name: str
    externalizable: bool
    dynamic: bool
    names: tuple[str, ...]


# Externalizable classes of Flex that wrap one ordinary value.
_WRAPPERS: Final = ("flex.messaging.io.ArrayCollection", "flex.messaging.io.ObjectProxy")


class _Reader3(_Reader):
    def __init__(self, data: bytes, offset: int, values: int = 0) -> None:
        super().__init__(data, offset)
        self.values = values
        self.strings: list[str] = []
        self.objects: list[Any] = []
        self.traits: list[_Traits] = []

    def value(self, depth: int = 0) -> Any:
        self.count_value(depth)
        marker = self.byte()
        read = _TYPES3.get(marker)
        if read is None:
            raise RemoteProtocolError(f"AMF 3 marker {marker:#04x}", offset=self.at - 1, spec="AMF 3 section 3.1")
        return read(self, depth)

    def u29(self) -> int:
        """Read a variable length integer of 29 bits.   Spec: AMF 3 section 1.3.1."""
        value = 0
        for _ in range(3):
            byte = self.byte()
            value = value << 7 | byte & 0x7F
            if byte < 0x80:
                return value
        return value << 8 | self.byte()

    def integer(self, depth: int) -> int:
        value = self.u29()
        return value - (1 << 29) if value & (1 << 28) else value

    def string(self, depth: int = 0) -> str:
        head = self.u29()
        if not head & 1:
            return str(self.referred(self.strings, head >> 1))
        text = self.text(head >> 1)
        if text:
            self.strings.append(text)
        return text

    def referred(self, table: list[Any], number: int) -> Any:
        if number >= len(table):
            raise RemoteProtocolError(f"AMF 3 reference {number}", offset=self.at, spec="AMF 3 section 2.2")
        return table[number]

    def head(self) -> tuple[bool, int]:
        """Read the integer before an object: whether it is a reference, and the rest of it."""
        number = self.u29()
        return not number & 1, number >> 1

    def keep(self, value: Any) -> Any:
        self.objects.append(value)
        return value

    def xml(self, depth: int) -> Any:
        is_reference, number = self.head()
        return self.referred(self.objects, number) if is_reference else self.keep(Xml(self.text(number)))

    def date(self, depth: int) -> Any:
        is_reference, number = self.head()
        return self.referred(self.objects, number) if is_reference else self.keep(Date(self.number(">d")))

    def byte_array(self, depth: int) -> Any:
        is_reference, number = self.head()
        return self.referred(self.objects, number) if is_reference else self.keep(self.take(number))

    def array(self, depth: int) -> Any:
        is_reference, number = self.head()
        if is_reference:
            return self.referred(self.objects, number)
        self.fits(number)
        place = len(self.objects)
        items: list[Any] = self.keep([])
        named = EcmaArray()
        while key := self.string():
            if not named:
                self.objects[place] = named
            named[key] = self.value(depth + 1)
        for index in range(number):
            item = self.value(depth + 1)
            items.append(item)
            if named:
                named[str(index)] = item
        return named if named else items

    def object(self, depth: int) -> Any:
        number = self.u29()
        if not number & 1:
            return self.referred(self.objects, number >> 1)
        traits = self.read_traits(number)
        if traits.externalizable:
            if traits.class_name not in _WRAPPERS:
                raise UnsupportedError(f"AMF 3 externalizable {traits.class_name!r}", spec="AMF 3 section 3.12")
            place = len(self.objects)
            self.objects.append(None)
            self.objects[place] = self.value(depth + 1)
            return self.objects[place]
        target: dict[str, Any] = TypedObject(traits.class_name) if traits.class_name else {}
        self.keep(target)
        for name in traits.names:
            target[name] = self.value(depth + 1)
        if traits.dynamic:
            while key := self.string():
                target[key] = self.value(depth + 1)
        return target

    def read_traits(self, number: int) -> _Traits:
        if not number & 2:
            traits: _Traits = self.referred(self.traits, number >> 2)
            return traits
        class_name = self.string()
        count = 0 if number & 4 else self.fits(number >> 4)
        names = tuple(self.string() for _ in range(count))
        traits = _Traits(class_name, bool(number & 4), bool(number & 8), names)
        self.traits.append(traits)
        return traits

    def vector(self, form: str) -> Any:
        is_reference, number = self.head()
        if is_reference:
            return self.referred(self.objects, number)
        self.byte()  # fixed length or not
        size = struct.calcsize(form)
        count = self.fits(number, size)
        self.values += count
        self.count_value(0)
        return self.keep([value for (value,) in struct.iter_unpack(form, self.take(count * size))])

    def object_vector(self, depth: int) -> Any:
        is_reference, number = self.head()
        if is_reference:
            return self.referred(self.objects, number)
        self.byte()
        self.string()
        items: list[Any] = self.keep([])
        for _ in range(self.fits(number)):
            items.append(self.value(depth + 1))
        return items

    def dictionary(self, depth: int) -> Any:
        is_reference, number = self.head()
        if is_reference:
            return self.referred(self.objects, number)
        self.byte()
        target: dict[str, Any] = self.keep(EcmaArray())
        for _ in range(self.fits(number, 2)):
            key = self.value(depth + 1)
            target[key if isinstance(key, str) else repr(key)[:64]] = self.value(depth + 1)
        return target


_TYPES3: Final[dict[int, Callable[[_Reader3, int], Any]]] = {
    0x00: lambda reader, depth: UNDEFINED,
    0x01: lambda reader, depth: None,
    0x02: lambda reader, depth: False,
    0x03: lambda reader, depth: True,
    0x04: _Reader3.integer,
    0x05: lambda reader, depth: reader.number(">d"),
    0x06: _Reader3.string,
    0x07: _Reader3.xml,
    0x08: _Reader3.date,
    0x09: _Reader3.array,
    0x0A: _Reader3.object,
    0x0B: _Reader3.xml,
    0x0C: _Reader3.byte_array,
    0x0D: lambda reader, depth: reader.vector(">i"),
    0x0E: lambda reader, depth: reader.vector(">I"),
    0x0F: lambda reader, depth: reader.vector(">d"),
    0x10: _Reader3.object_vector,
    0x11: _Reader3.dictionary,
}


def decode(data: bytes, offset: int = 0) -> tuple[Any, int]:
    """Read one AMF 0 value; return it and the offset after it. Raises RemoteProtocolError."""
    reader = _Reader0(data, offset)
    return reader.value(), reader.at


def decode_all(data: bytes, offset: int = 0) -> list[Any]:
    """Read AMF 0 values to the end of data. Each may switch to AMF 3 (marker 0x11). Raises RemoteProtocolError."""
    reader = _Reader0(data, offset)
    values = []
    while reader.at < len(data):
        reader.references.clear()  # a table lasts for one value of a command
        values.append(reader.value())
    return values


def decode3(data: bytes, offset: int = 0) -> tuple[Any, int]:
    """Read one AMF 3 value; return it and the offset after it. Raises RemoteProtocolError."""
    reader = _Reader3(data, offset)
    return reader.value(), reader.at


# -- Writing


def encode(*values: Any) -> bytes:
    """Return values as AMF 0. Raises LocalProtocolError for what AMF 0 cannot say."""
    out: list[bytes] = []
    for value in values:
        _write0(out, value, 0)
    return b"".join(out)


def _write0(out: list[bytes], value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise LocalProtocolError(f"AMF value nested deeper than {MAX_DEPTH}")
    if value is None:
        out.append(b"\x05")
    elif value is UNDEFINED:
        out.append(b"\x06")
    elif isinstance(value, bool):
        out.append(b"\x01\x01" if value else b"\x01\x00")
    elif isinstance(value, int | float):
        out.append(struct.pack(">Bd", 0, value))
    elif isinstance(value, str):
        raw = value.encode()
        if isinstance(value, Xml):
            out.append(struct.pack(">BI", 0x0F, len(raw)) + raw)
        elif len(raw) < 65536:
            out.append(struct.pack(">BH", 0x02, len(raw)) + raw)
        else:
            out.append(struct.pack(">BI", 0x0C, len(raw)) + raw)
    elif isinstance(value, Date):
        out.append(struct.pack(">Bdh", 0x0B, value.unix_ms, value.zone_minutes))
    elif isinstance(value, dict):
        _write_object0(out, value, depth)
    elif isinstance(value, list | tuple):
        out.append(struct.pack(">BI", 0x0A, len(value)))
        for item in value:
            _write0(out, item, depth + 1)
    else:
        raise LocalProtocolError(f"AMF 0 has no form for {type(value).__name__}")


def _write_object0(out: list[bytes], value: dict[str, Any], depth: int) -> None:
    if isinstance(value, TypedObject):
        out.append(b"\x10" + _key0(value.class_name))
    elif isinstance(value, EcmaArray):
        out.append(struct.pack(">BI", 0x08, len(value)))
    else:
        out.append(b"\x03")
    for key, item in value.items():
        out.append(_key0(key))
        _write0(out, item, depth + 1)
    out.append(b"\x00\x00\x09")


def _key0(text: str) -> bytes:
    raw = text.encode()
    if len(raw) > 65535:
        raise LocalProtocolError("AMF 0 name of more than 65535 bytes")
    return struct.pack(">H", len(raw)) + raw


def encode3(value: Any) -> bytes:
    """Return a value as AMF 3, without references. Raises LocalProtocolError for what AMF 3 cannot say."""
    out: list[bytes] = []
    _write3(out, value, 0)
    return b"".join(out)


def _u29(value: int) -> bytes:
    if not 0 <= value < 1 << 29:
        raise LocalProtocolError(f"{value} does not fit 29 bits")
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value >> 7 | 0x80, value & 0x7F))
    if value < 0x200000:
        return bytes((value >> 14 | 0x80, value >> 7 & 0x7F | 0x80, value & 0x7F))
    return bytes((value >> 22 | 0x80, value >> 15 & 0x7F | 0x80, value >> 8 & 0x7F | 0x80, value & 0xFF))


def _string3(text: str) -> bytes:
    raw = text.encode()
    return _u29(len(raw) << 1 | 1) + raw


def _write3(out: list[bytes], value: Any, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise LocalProtocolError(f"AMF value nested deeper than {MAX_DEPTH}")
    if value is None:
        out.append(b"\x01")
    elif value is UNDEFINED:
        out.append(b"\x00")
    elif isinstance(value, bool):
        out.append(b"\x03" if value else b"\x02")
    elif isinstance(value, int) and -(1 << 28) <= value < 1 << 28:
        out.append(b"\x04" + _u29(value & (1 << 29) - 1))
    elif isinstance(value, int | float):
        out.append(struct.pack(">Bd", 0x05, value))
    elif isinstance(value, str):
        out.append((b"\x0b" if isinstance(value, Xml) else b"\x06") + _string3(value))
    elif isinstance(value, bytes):
        out.append(b"\x0c" + _u29(len(value) << 1 | 1) + value)
    elif isinstance(value, Date):
        out.append(struct.pack(">BBd", 0x08, 1, value.unix_ms))
    elif isinstance(value, dict):
        _write_dict3(out, value, depth)
    elif isinstance(value, list | tuple):
        out.append(b"\x09" + _u29(len(value) << 1 | 1) + b"\x01")
        for item in value:
            _write3(out, item, depth + 1)
    else:
        raise LocalProtocolError(f"AMF 3 has no form for {type(value).__name__}")


def _write_dict3(out: list[bytes], value: dict[str, Any], depth: int) -> None:
    if isinstance(value, EcmaArray):
        out.append(b"\x09\x01")
    else:
        out.append(b"\x0a\x0b" + _string3(value.class_name if isinstance(value, TypedObject) else ""))
    _write_pairs3(out, value.items(), depth)


def _write_pairs3(out: list[bytes], pairs: Iterable[tuple[str, Any]], depth: int) -> None:
    for key, item in pairs:
        if not key:
            raise LocalProtocolError("AMF 3 has no empty names")
        out.append(_string3(key))
        _write3(out, item, depth + 1)
    out.append(b"\x01")

"""Inputs of commands: a source, opened, with the demuxer of its format."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from mist.commands import BadUsage
from mist.core.demuxer import Demuxer
from mist.errors import MistError, RemoteProtocolError, UnsupportedError
from mist.formats.containers import CONTAINERS, Container, by_file_name, by_first_bytes, by_name
from mist.formats.sniffing import SNIFF_BYTES
from mist.net.source_reader import STANDARD_INPUT, FileReader, SourceReader, path_of
from mist.net.sources import open_source


@dataclass(frozen=True, slots=True)
class OpenInput:
    """A source that is open, its format, and a fresh demuxer for it."""

    reader: SourceReader
    container: Container
    demuxer: Demuxer

    def read(self, wanted: tuple[int, int]) -> bytes:
        """Return the bytes that a demuxer wants, b"" at the end."""
        return self.reader.read(*wanted)


@contextmanager
def open_input(source: str, format_name: str | None) -> Iterator[OpenInput]:
    """Open a source: "-" for standard input, a path, or an http(s) URL; closed when the block ends.

    format_name: of the table of formats; None: told by the first bytes, else by the file name.
    Raises BadUsage for a format that is not known, TransportError, UnsupportedError.
    """
    container = None if format_name is None else readable(format_name)
    with open_source(source) as reader:
        if container is None:
            container = tell_format(source, reader)
        assert container.make_demuxer is not None
        made = container.make_demuxer()
        if hasattr(made, "size"):
            made.size = reader.size
        if isinstance(reader, FileReader) and hasattr(made, "look_ahead"):
            made.look_ahead(reader.fileno())
        yield OpenInput(reader, container, made)


def readable(name: str) -> Container:
    """Return the format of a name that mist can read. Raises BadUsage."""
    found = by_name(name)
    if found is None or found.make_demuxer is None:
        known = ", ".join(row.name for row in CONTAINERS if row.make_demuxer)
        raise BadUsage(f"{name} is no format that mist reads; those are {known}")
    return found


def writable(name: str) -> Container:
    """Return the format of a name that mist can write. Raises BadUsage."""
    found = by_name(name)
    if found is None or found.make_muxer is None:
        known = ", ".join(row.name for row in CONTAINERS if row.make_muxer)
        raise BadUsage(f"{name} is no format that mist writes; those are {known}")
    return found


def tell_format(source: str, reader: SourceReader) -> Container:
    """Return the format of an open source. Raises UnsupportedError."""
    head = b""
    while len(head) < SNIFF_BYTES and (data := reader.read(len(head), SNIFF_BYTES - len(head))):
        head += data
        found = by_first_bytes(head)
        if found is not None and not found.weak:
            return found
    found = by_first_bytes(head)
    if found is None and source != STANDARD_INPUT:
        found = by_file_name(path_of(source))
    if not head:
        raise UnsupportedError(f"{reader.name} is empty")
    if found is None or found.make_demuxer is None:
        raise UnsupportedError(f"{reader.name} is in no format that mist knows; --from FORMAT says what it is")
    return found


def located(error: RemoteProtocolError, name: str, wanted: tuple[int, int] | None) -> MistError:
    """Return an error of an input with the input's name and the place in it.

    wanted: what was being read, for an error that does not say where it is.
    """
    if error.offset is not None:
        where = f"{name}: at byte {error.offset}: "
    elif wanted is not None:
        where = f"{name}: near byte {wanted[0]}: "
    else:
        where = f"{name}: "
    clause = f" ({error.spec})" if error.spec else ""
    return MistError(f"{where}{error}{clause}", reason=error.reason)

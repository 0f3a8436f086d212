"""What a push leaves for the process that goes on with it, and how it is kept: in the memory of the machine, outside of every process.

A note is two files in the runtime directory, which is in memory: the note itself, replaced by renaming at every checkpoint, and a
book of what changes seldom and may be large, whose number the note has. A note is never there without its book. Beside it stands
which process records the stream: when that one is dead, the next one still needs what is in memory, see `is_awaited`.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Final

from mist.core.track_buffer import Table
from mist.stream.names import SHARED_MEMORY

LAYOUT_VERSION: Final = 1
_OWNER: Final = ".owner"


class PushNote:
    """The note of one push. One process writes it; `read` is for the one that comes after."""

    def __init__(self, folder: Path, number: int) -> None:
        """folder: of all notes. number: of the push."""
        self._path = folder / str(number)
        self._book: tuple[Hashable, int] | None = None
        self.owned = False

    def own(self) -> None:
        """Say that the push is this process's now, which has caught up with the stream. Raises OSError."""
        self.owned = True
        try:
            self._put(self._owner_path(), os.getpid())
        except OSError:
            self._owner_path().unlink(missing_ok=True)  # or the stream would stay for the process before this one
            raise

    def read(self) -> tuple[dict[str, Any], dict[str, Any]] | None:
        """Return note and book, None when there is none. Raises ValueError for one that is damaged or of another layout."""
        try:
            note = json.loads(self._path.read_bytes())
            if note["layout"] != LAYOUT_VERSION:
                raise ValueError(f"layout {note['layout']}, not {LAYOUT_VERSION}")
            book = json.loads(self._book_path(note["book"]).read_bytes())
        except FileNotFoundError:
            return None
        except (KeyError, TypeError) as error:
            raise ValueError(f"a note without {error}") from error
        self._book = (None, int(note["book"]))
        # Of a process that was killed between a note and the end of the book before it.
        self._book_path(int(note["book"]) - 1).unlink(missing_ok=True)
        return note["note"], book

    def write(self, note: Mapping[str, Any], book_key: Hashable, book: Callable[[], Mapping[str, Any]]) -> None:
        """Replace the note. book_key: which another one of means that the book is another one. Raises OSError."""
        old = self._book
        if old is None and not self.owned:
            self.own()
        if old is None or old[0] != book_key:
            self._book = (book_key, old[1] + 1 if old is not None else 1)
            self._put(self._book_path(self._book[1]), book())
        assert self._book is not None
        self._put(self._path, {"layout": LAYOUT_VERSION, "book": self._book[1], "note": note})
        if old is not None and old[1] != self._book[1]:
            self._book_path(old[1]).unlink(missing_ok=True)

    def _book_path(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _owner_path(self) -> Path:
        return self._path.with_name(f"{self._path.name}{_OWNER}")

    def _put(self, path: Path, document: Mapping[str, Any] | int) -> None:
        draft = self._path.with_name(f"{self._path.name}.draft")
        draft.write_text(json.dumps(document, separators=(",", ":")))
        draft.rename(path)

    def version(self) -> int:
        """Return a number that changes with the note, 0 when there is none."""
        try:
            return os.stat(self._path).st_ino
        except FileNotFoundError:
            return 0

    def remove(self) -> None:
        """Remove everything: the push has ended. Costs the same however many pushes there are."""
        try:
            book = int(json.loads(self._path.read_bytes())["book"])
        except FileNotFoundError:
            book = 0
        except (ValueError, KeyError, TypeError):
            book = self._newest_book()
        for path in (self._path, self._path.with_name(f"{self._path.name}.draft"), self._owner_path()):
            path.unlink(missing_ok=True)
        for number in (book - 1, book, book + 1):  # a note is written between its book and the end of the one before
            self._book_path(number).unlink(missing_ok=True)

    def _newest_book(self) -> int:
        """Return the number of the newest book of a note that cannot be read."""
        numbers = (path.suffix[1:] for path in self._path.parent.glob(f"{self._path.name}.*"))
        return max((int(number) for number in numbers if number.isdecimal()), default=0)


def table_number(table: Table) -> int:
    """Return what tells a stream's table from the one of another stream of that name."""
    return os.stat(SHARED_MEMORY / table.prefix).st_ino


def is_awaited(folder: Path, table: int, is_alive: Callable[[int], bool]) -> bool:
    """Tell whether the stream of a table is still to be recorded by a process that is not there yet: the one before it was killed.

    folder: of all notes. table: as notes name it. is_alive: whether there is a process of that number.
    """
    for path in folder.glob(f"*{_OWNER}"):
        try:
            note = json.loads(path.with_suffix("").read_bytes())["note"]
            if note.get("table") == table and not note.get("over") and not is_alive(int(path.read_bytes())):
                return True
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            continue  # the push has ended meanwhile, or cannot be gone on with
    return False

"""What a push leaves for the process that goes on with it, and how it is kept: in the memory of the machine, outside of every process.

A note is two files in the runtime directory, which is in memory: the note itself, replaced by renaming at every checkpoint, and a
book of what changes seldom and may be large, whose number the note has. A note is never there without its book.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Hashable, Mapping
from pathlib import Path
from typing import Any, Final

LAYOUT_VERSION: Final = 1


class PushNote:
    """The note of one push. One process writes it; `read` is for the one that comes after."""

    def __init__(self, folder: Path, number: int) -> None:
        """folder: of all notes. number: of the push."""
        self._path = folder / str(number)
        self._book: tuple[Hashable, int] | None = None

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
        return note["note"], book

    def write(self, note: Mapping[str, Any], book_key: Hashable, book: Callable[[], Mapping[str, Any]]) -> None:
        """Replace the note. book_key: which another one of means that the book is another one. Raises OSError."""
        old = self._book
        if old is None or old[0] != book_key:
            self._book = (book_key, old[1] + 1 if old is not None else 1)
            self._put(self._book_path(self._book[1]), book())
        assert self._book is not None
        self._put(self._path, {"layout": LAYOUT_VERSION, "book": self._book[1], "note": note})
        if old is not None and old[1] != self._book[1]:
            self._book_path(old[1]).unlink(missing_ok=True)

    def _book_path(self, number: int) -> Path:
        return self._path.with_name(f"{self._path.name}.{number}")

    def _put(self, path: Path, document: Mapping[str, Any]) -> None:
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
        for path in (self._path, self._path.with_name(f"{self._path.name}.draft")):
            path.unlink(missing_ok=True)
        for number in (book - 1, book, book + 1):  # a note is written between its book and the end of the one before
            self._book_path(number).unlink(missing_ok=True)

    def _newest_book(self) -> int:
        """Return the number of the newest book of a note that cannot be read."""
        numbers = (path.suffix[1:] for path in self._path.parent.glob(f"{self._path.name}.*"))
        return max((int(number) for number in numbers if number.isdecimal()), default=0)

"""A copy of the configuration that ran last, for a service whose file is bad when the machine starts again."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from mist.controller.config_files import MAX_FILE_BYTES, write_atomically

NAME: Final = "last-good.json"


class LastGood:
    """The copy in the state directory that systemd names in STATE_DIRECTORY; without one there is no copy.

    main: the main file of the configuration that it is a copy of.
    """

    def __init__(self, main: Path, folder: Path | None = None) -> None:
        self._main = str(main.absolute())
        named = os.environ.get("STATE_DIRECTORY", "").partition(":")[0]
        folder = folder or (Path(named) if named else None)
        self._path = folder / NAME if folder is not None else None
        self._written: Mapping[str, Any] | None = None

    def take(self, document: Mapping[str, Any]) -> Callable[[], str] | None:
        """Return what replaces the copy, and then says why it could not; None where the copy says the same."""
        if self._path is None or self._written == document:
            return None
        self._written = document
        return partial(self._replace, self._path, document)

    def _replace(self, path: Path, document: Mapping[str, Any]) -> str:
        try:
            if self.read() != document:
                write_atomically(path, {"of": self._main, "configuration": document})
        except OSError as error:
            return f"No copy of the configuration can be kept as {path}: {error.strerror or error}"
        return ""

    def read(self) -> dict[str, Any] | None:
        """Return the configuration of the copy, None when there is none of this file."""
        if self._path is None:
            return None
        try:
            with self._path.open("rb") as file:
                found = json.loads(file.read(MAX_FILE_BYTES))
        except (OSError, ValueError, RecursionError):
            return None
        if not isinstance(found, dict) or found.get("of") != self._main:
            return None
        document = found.get("configuration")
        return document if isinstance(document, dict) else None

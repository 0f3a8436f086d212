"""What the `mist` command does without a server: converting, pipes, and looking into files."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from typing import Any, NoReturn

from mist.errors import MistError


class BadUsage(MistError):
    """The command line asks for what cannot be."""


class CommandParser(argparse.ArgumentParser):
    """A parser of commands whose errors say what to do; in those that do something, options may stand between the other words.

    What is too much is an error of that command, with its usage; `too_much` says what to do about it.
    """

    too_much = ""
    _ordering = False

    def parse_known_args(self, args: Sequence[str] | None = None, namespace: Any = None) -> tuple[Any, list[str]]:  # type: ignore[override]
        """Parse as `argparse` does, with the options first wherever they stand."""
        if self._ordering or self._subparsers is not None:
            return super().parse_known_args(args, namespace)
        self._ordering = True
        try:
            found, rest = self.parse_known_intermixed_args(args, namespace)
        finally:
            self._ordering = False
        if rest:
            self.error(f"unrecognized arguments: {' '.join(rest)}{self.too_much}")
        return found, rest

    def error(self, message: str) -> NoReturn:
        """Print what is wrong and what may have been meant, and exit with status 2."""
        found = re.search(r"invalid choice: '(.*?)' \(choose from (.*)\)", message)
        near: list[str] = []
        if found:
            from difflib import get_close_matches

            near = get_close_matches(found[1], re.findall(r"[\w-]+", found[2]), n=1)
            message = f'there is no "{found[1]}" here'
        super().error(f'{message}; did you mean "{near[0]}"?' if near else f'{message}; see "{self.prog} --help"')

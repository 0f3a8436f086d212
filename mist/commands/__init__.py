"""What the `mist` command does without a server: converting, pipes, and looking into files."""

from __future__ import annotations

from mist.errors import MistError


class BadUsage(MistError):
    """The command line asks for what cannot be."""

"""What this server says it is."""

from __future__ import annotations

import platform
import time
from functools import cache
from pathlib import Path

import mist


def version_text() -> str:
    """Return version and machine as the member `config.version` shows them."""
    return f"{mist.__version__} Generic_{platform.machine()}"


@cache
def version_report() -> dict[str, str]:
    """Return the reply of the call `version`; date and time are those of the installed files."""
    installed = time.localtime(Path(__file__).stat().st_mtime)
    return {
        "version": mist.__version__,
        "release": f"Generic_{platform.machine()}",
        "date": time.strftime("%b %d %Y", installed),
        "time": time.strftime("%H:%M:%S", installed),
    }

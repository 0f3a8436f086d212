"""How far a conversion is, on a terminal."""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Callable
from typing import Final, TextIO

INTERVAL_S: Final = 0.2
BAR_CHARACTERS: Final = 24
_UNITS: Final = ("B", "kB", "MB", "GB", "TB")


def bytes_text(count: float) -> str:
    """Return a number of bytes as people read it, such as "40.1 MB"."""
    unit = 0
    while count >= 1000 and unit < len(_UNITS) - 1:
        count /= 1000
        unit += 1
    return f"{count:.0f} {_UNITS[unit]}" if unit == 0 else f"{count:.1f} {_UNITS[unit]}"


def time_text(us: int, digits: int = 3) -> str:
    """Return a time as people read it, such as "1:02:03.500"; digits: after the point."""
    sign, us = ("-", -us) if us < 0 else ("", us)
    scale = 10 ** (6 - digits)
    ticks = (us + scale // 2) // scale
    whole, rest = divmod(ticks, 10**digits)
    minutes, seconds = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    text = f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"
    return f"{sign}{text}.{rest:0{digits}}" if digits else sign + text


class Progress:
    """One line that says how much of an input is read, how much media that was, and how long the rest takes.

    Nothing is written where standard error is no terminal.
    """

    def __init__(
        self,
        total_bytes: int | None,
        *,
        stream: TextIO | None = None,
        clock: Callable[[], float] = time.monotonic,
        shown: bool | None = None,
    ) -> None:
        """total_bytes: of the input, None when unknown. shown: None for "if it is a terminal"."""
        self._stream = sys.stderr if stream is None else stream
        self._clock = clock
        self._total = total_bytes
        self._shown = self._stream.isatty() if shown is None else shown
        self._begun = self._last = clock()
        self._width = 0

    def update(self, done_bytes: int, media_us: int) -> None:
        """Tell how far it is; cheap enough for every read."""
        if not self._shown:
            return
        now = self._clock()
        if now - self._last < INTERVAL_S:
            return
        self._last = now
        self._write(self.line(done_bytes, media_us, now - self._begun))

    def line(self, done_bytes: int, media_us: int, spent_s: float) -> str:
        """Return what is shown."""
        speed = f"{bytes_text(done_bytes / spent_s)}/s" if spent_s > 0 else ""
        if not self._total:
            return f"{bytes_text(done_bytes)}  {time_text(media_us, 0)}  {speed}"
        part = min(done_bytes / self._total, 1.0)
        bar = "#" * round(part * BAR_CHARACTERS)
        left_s = spent_s / part - spent_s if part > 0 else 0.0
        return (
            f"[{bar:.<{BAR_CHARACTERS}}] {part:4.0%}  {bytes_text(done_bytes)} of {bytes_text(self._total)}  "
            f"{time_text(media_us, 0)}  {speed}  {time_text(round(left_s * 1e6), 0)} left"
        )

    def clear(self) -> None:
        """Take the line away, before something else is written."""
        if self._width:
            self._write("")
            self._stream.write("\r")
            self._stream.flush()

    def _write(self, text: str) -> None:
        text = text[: shutil.get_terminal_size().columns - 1]
        self._stream.write(f"\r{text:<{self._width}}")
        self._stream.flush()
        self._width = len(text)

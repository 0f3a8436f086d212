"""Ten minutes of counters in little memory: a row for each of the last seconds, and one for each ten before."""

from __future__ import annotations

from array import array

HISTORY_SECONDS = 600
FINE_SECONDS = 20  # how long there is a row for each second
COARSE_STEP_SECONDS = 10  # older ones are kept for seconds that are a multiple of this


class History:
    """Rows of integers, the first of which is the unix second. All rows of one history are equally long."""

    __slots__ = ("_coarse", "_fine", "_width")

    def __init__(self, width: int) -> None:
        self._width = width
        self._fine = array("q")
        self._coarse = array("q")

    def record(self, row: tuple[int, ...]) -> None:
        """Append the row of a second that is later than all before."""
        fine, width = self._fine, self._width
        fine.extend(row)
        if len(fine) > FINE_SECONDS * width:
            del fine[:width]
        if row[0] % COARSE_STEP_SECONDS == 0 or not self._coarse:
            self._coarse.extend(row)
            if len(self._coarse) > (HISTORY_SECONDS // COARSE_STEP_SECONDS) * width:
                del self._coarse[:width]

    def shrink(self) -> None:
        """Keep only the coarse part and the last row: nothing more will be recorded."""
        self._coarse.extend(self._fine[-self._width :])
        self._fine = array("q")

    def at(self, time: int) -> tuple[int, ...] | None:
        """Return the newest row that is not after time, None when all are."""
        for rows, step in ((self._fine, 1), (self._coarse, COARSE_STEP_SECONDS)):
            if rows and rows[0] <= time:
                return self._find(rows, step, time)
        return None

    def _find(self, rows: array[int], step: int, time: int) -> tuple[int, ...]:
        """Return the newest row not after time, which the first one is not: guess its place, then walk there."""
        width = self._width
        place = min((time - rows[0]) // step + 1, len(rows) // width - 1) * width
        while rows[place] > time:
            place -= width
        while place + width < len(rows) and rows[place + width] <= time:
            place += width
        return tuple(rows[place : place + width])

"""Metadata and subtitle tracks as JSON: an array of objects with `data`, `time` in milliseconds and `track`."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Sequence
from typing import Any, Final, NoReturn

from mist.core.text_tracks import TextMuxer
from mist.errors import UnsupportedError
from mist.formats.tracks import JSON, META, SCTE35, SUBTITLE, TrackInfo

CALLBACK_NAME: Final = re.compile(r"[A-Za-z_$][\w$]{0,63}(\.[A-Za-z_$][\w$]{0,63}){0,4}", re.ASCII)
_TEXT_CODECS: Final = frozenset({SUBTITLE, JSON, SCTE35})


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(constant)


class JsonMuxer(TextMuxer):
    """Writes packets as items of one array, or as calls of a JavaScript function.

    open_end: the array is never closed and every item ends with a comma, so that a viewer may join anywhere.
    callback: name of the function; "" for an array. Data that is JSON is written as such, other text as a string, and what is
    no text in base64. Clearing packets of subtitles are left out. Raises UnsupportedError for tracks that are no metadata.
    """

    def __init__(self, tracks: Sequence[TrackInfo], *, open_end: bool = False, callback: str = "") -> None:
        super().__init__(tracks)
        self._tracks = self._checked(tracks)
        self._open_end = open_end
        self._callback = callback
        self._begun = False

    @staticmethod
    def _checked(tracks: Sequence[TrackInfo]) -> list[TrackInfo]:
        other = [info.codec for info in tracks if info.type != META]
        if other:
            raise UnsupportedError(f"JSON output carries metadata, not {', '.join(other)}")
        return list(tracks)

    def header(self, start_us: int = 0) -> bytes:
        """Return the beginning of the array."""
        return b"" if self._callback else b"[\n"

    def set_tracks(self, tracks: Sequence[TrackInfo]) -> bool:
        """Go on with changed tracks: none that is new."""
        if len(tracks) != self.count:
            return False
        self._tracks = self._checked(tracks)
        return True

    def serialize(self, track: int, time_us: int, payload: bytes) -> bytes:
        """Return an item."""
        if not payload.strip():
            return b""
        item = {"data": self._data(track, payload), "time": (time_us + 500) // 1000, "track": track}
        text = json.dumps(item, separators=(",", ":"))
        if self._callback:
            return f"{self._callback}({text});\n".encode()
        if self._open_end:
            return f"{text},\n".encode()
        begun, self._begun = self._begun, True
        return f"{',' if begun else ''}{text}\n".encode()

    def _data(self, track: int, payload: bytes) -> Any:
        codec = self._tracks[track].codec
        try:
            text = payload.decode() if codec in _TEXT_CODECS else ""
        except UnicodeDecodeError:
            text = ""
        if not text:
            return base64.b64encode(payload).decode()
        if codec == SUBTITLE:
            return text
        try:
            return json.loads(text, parse_constant=_refuse)
        except (ValueError, RecursionError):
            return text

    def finish(self) -> None:
        """Close the array."""
        if not self._callback and not self._open_end:
            self.out.write(b"]\n")

    def state(self) -> bytes:
        """Return whether an item was written."""
        return bytes((self._begun,))

    def restore(self, state: bytes) -> None:
        """Go on from a state."""
        self._begun = state[:1] == b"\x01"

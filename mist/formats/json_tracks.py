"""Metadata and subtitle tracks as JSON: an array of objects with `data`, `time` in milliseconds and `track`."""

from __future__ import annotations

import base64
import hashlib
import json
import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, NoReturn

from mist.core.text_tracks import TextMuxer
from mist.errors import UnsupportedError
from mist.formats.tracks import JSON, META, SCTE35, SUBTITLE, TrackInfo

CALLBACK_NAME: Final = re.compile(r"[A-Za-z_$][\w$]{0,63}(\.[A-Za-z_$][\w$]{0,63}){0,4}", re.ASCII)
MAX_DEDUPE_NAMES: Final = 64
DIGEST_BYTES: Final = 8
_TEXT_CODECS: Final = frozenset({SUBTITLE, JSON, SCTE35})


def _refuse(constant: str) -> NoReturn:
    """Refuse NaN and Infinity, which are no JSON."""
    raise ValueError(constant)


class JsonMuxer(TextMuxer):
    """Writes packets as items of one array, or as calls of a JavaScript function.

    open_end: the array is never closed and every item ends with a comma, so that a viewer may join anywhere.
    callback: name of the function; "" for an array. Data that is JSON is written as such, other text as a string, and what is
    no text in base64. Clearing packets of subtitles are left out. dedupe: where given, an item is left out whose data is that of
    the one before it in the same track, but for the members of an object that have these names. Raises UnsupportedError for tracks
    that are no metadata.
    """

    def __init__(
        self,
        tracks: Sequence[TrackInfo],
        *,
        open_end: bool = False,
        callback: str = "",
        dedupe: Iterable[str] | None = None,
    ) -> None:
        super().__init__(tracks)
        self._tracks = self._checked(tracks)
        self._open_end = open_end
        self._callback = callback
        self._begun = False
        self._ignored = None if dedupe is None else frozenset(dedupe)
        self._last = [bytes(DIGEST_BYTES)] * self.count

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
        data = self._data(track, payload)
        if self._ignored is not None and self._is_repeated(track, data):
            return b""
        item = {"data": data, "time": (time_us + 500) // 1000, "track": track}
        text = json.dumps(item, separators=(",", ":"))
        if self._callback:
            return f"{self._callback}({text});\n".encode()
        if self._open_end:
            return f"{text},\n".encode()
        begun, self._begun = self._begun, True
        return f"{',' if begun else ''}{text}\n".encode()

    def _is_repeated(self, track: int, data: Any) -> bool:
        if isinstance(data, dict):
            data = {name: value for name, value in data.items() if name not in (self._ignored or ())}
        digest = hashlib.blake2b(json.dumps(data, sort_keys=True).encode(), digest_size=DIGEST_BYTES).digest()
        before, self._last[track] = self._last[track], digest
        return digest == before

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
        """Return whether an item was written, and what the last ones were."""
        return bytes((self._begun,)) + (b"" if self._ignored is None else b"".join(self._last))

    def restore(self, state: bytes) -> None:
        """Go on from a state."""
        self._begun = state[:1] == b"\x01"
        for place in range(min((len(state) - 1) // DIGEST_BYTES, self.count)):
            self._last[place] = state[1 + place * DIGEST_BYTES :][:DIGEST_BYTES]

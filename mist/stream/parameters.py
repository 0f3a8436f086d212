"""The common parameters in the query of a media URL, read into one value."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Final

SELECTOR_NAMES: Final = ("audio", "video", "subtitle", "meta")
RELATIVE_UNIX_LIMIT_S: Final = 36_000  # smaller unix times count from now
UNLIMITED_RATE: Final = 0.0
LONG_WAIT_MS: Final = 120_000  # for viewers that ask for a number of tracks

_LIMIT_MS: Final = 1 << 52  # keeps every time inside 64-bit microseconds with room for sums
_LIMIT_S: Final = _LIMIT_MS // 1000
_MAX_TRACK_COUNT: Final = 1000
_MAX_RATE: Final = 1000.0
_MAX_FILE_NAME_CHARACTERS: Final = 200
_MAX_VALUE_CHARACTERS: Final = 4096
_NUMBER: Final = re.compile(r"\s*([+-]?\d{1,30}(\.\d{0,30})?)", re.ASCII)
_UNSAFE_IN_FILE_NAMES: Final = re.compile(r'[\x00-\x1f\x7f-\x9f"\\/:*?<>|;\ud800-\udfff]')


@dataclass(frozen=True, slots=True)
class PlaybackParameters:
    """What a viewer asked for.

    selectors: the selectors that were given, by kind. start_us, stop_us: media times. start_unix_s, stop_unix_s: unix
    seconds; those up to 36000, negative ones too, count from now. duration_us: overrides the stop. None = not asked.
    rate: speed of sending, 1 = as it happens, 0 = as fast as the peer reads. rate_given: the viewer asked for it.
    buffer_us: how far ahead may be sent.
    wait_key: start at a keyframe that is not there yet.
    wait_track_count, min_track_keys, min_track_us, max_track_us, max_wait_us: a live stream is playable once that many
    tracks have that many keys or that much media; waiting ends when a track has max_track_us, or after max_wait_us.
    download: None, or the file name to save as, "" when the client did not say. token: of the viewer, from the URL.
    """

    selectors: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    start_us: int | None = None
    stop_us: int | None = None
    start_unix_s: int | None = None
    stop_unix_s: int | None = None
    duration_us: int | None = None
    rate: float = 1.0
    rate_given: bool = False
    buffer_us: int | None = None
    wait_key: bool = False
    wait_track_count: int = 2
    min_track_keys: int = 2
    min_track_us: int = 500_000
    max_track_us: int = 20_000_000
    max_wait_us: int = 5_000_000
    download: str | None = None
    token: str = ""

    def window(self, now_unix_us: int, zero_unix_us: int | None, begin_us: int) -> tuple[int | None, int | None]:
        """Return the media times to start and stop at, None where the viewer set none.

        now_unix_us: unix time, microseconds. zero_unix_us: unix time of media time 0, None when unknown (then unix times
        are ignored). begin_us: where playback begins when no start is given; a duration counts from there.
        """
        start_us = _media_time(self.start_unix_s, now_unix_us, zero_unix_us)
        stop_us = _media_time(self.stop_unix_s, now_unix_us, zero_unix_us)
        start_us = self.start_us if start_us is None else start_us
        stop_us = self.stop_us if stop_us is None else stop_us
        if self.duration_us is not None:
            stop_us = (begin_us if start_us is None else start_us) + self.duration_us
        return start_us, stop_us

    @property
    def catches_up(self) -> bool:
        """Whether a live viewer that falls behind is to be brought back to the live edge."""
        return self.start_us is None and self.start_unix_s is None and self.rate != UNLIMITED_RATE


def _media_time(unix_s: int | None, now_unix_us: int, zero_unix_us: int | None) -> int | None:
    if unix_s is None or zero_unix_us is None:
        return None
    unix_us = unix_s * 1_000_000
    if unix_s <= RELATIVE_UNIX_LIMIT_S:
        unix_us += now_unix_us
    return unix_us - zero_unix_us


def _number(text: str) -> float:
    """Return the number that a text begins with, 0 when it begins with none."""
    match = _NUMBER.match(text)
    return float(match[1]) if match else 0.0


def _integer(query: Mapping[str, str], name: str, low: int, high: int, default: int) -> int:
    if name not in query:
        return default
    return max(low, min(high, int(_number(query[name]))))


def _time_us(query: Mapping[str, str], name: str) -> int | None:
    """Return a time that is given in milliseconds; 0 and nonsense count as absent."""
    return _integer(query, name, -_LIMIT_MS, _LIMIT_MS, 0) * 1000 or None


def _unix_s(query: Mapping[str, str], name: str) -> int | None:
    return _integer(query, name, -_LIMIT_S, _LIMIT_S, 0) if query.get(name) else None


def absolute_unix_s(query: Mapping[str, str], name: str, now_unix_s: float) -> int:
    """Return a unix time of a query; one that counts from now as what it is now."""
    unix_s = _unix_s(query, name) or 0
    return unix_s + int(now_unix_s) if unix_s <= RELATIVE_UNIX_LIMIT_S else unix_s


def _seconds_us(query: Mapping[str, str], name: str) -> int | None:
    if not query.get(name):
        return None
    return int(max(0.0, min(float(_LIMIT_S), _number(query[name]))) * 1_000_000)


def _rate(query: Mapping[str, str], header: str) -> float:
    if query.get("rate"):
        rate = _number(query["rate"])
    elif header:
        rate = float(math.floor(_number(header)))
    else:
        return 1.0
    return max(UNLIMITED_RATE, min(_MAX_RATE, rate))


def safe_file_name(name: str) -> str:
    """Return a name with no character that means something in a path or in a header, at most 200 long, or ""."""
    return _UNSAFE_IN_FILE_NAMES.sub("", name)[:_MAX_FILE_NAME_CHARACTERS].strip(" .")


def url_token(query: Mapping[str, str]) -> str:
    """Return the viewer token of a URL: `jwt`, else the first of `tkn`, `sid` and `sessId`; "" when there is none."""
    return next((query[name] for name in ("jwt", "tkn", "sid", "sessId") if query.get(name)), "")


def parse_parameters(query: Mapping[str, str], *, rate_header: str = "") -> PlaybackParameters:
    """Read the parameters that all media URLs share.

    query: decoded query of the URL; unknown names are ignored. rate_header: value of X-Mist-Rate, "" when absent.
    Nothing is an error: what is not a number counts as 0, and every number is brought inside its limits.
    """
    query = {name: value[:_MAX_VALUE_CHARACTERS] for name, value in query.items()}
    download = query.get("dl")
    if download is not None:
        download = safe_file_name(download) if "." in download else ""
    default_wait_ms = LONG_WAIT_MS if "waittrackcount" in query else 5_000
    return PlaybackParameters(
        selectors=MappingProxyType({name: query[name] for name in SELECTOR_NAMES if query.get(name)}),
        start_us=_time_us(query, "start"),
        stop_us=_time_us(query, "stop"),
        start_unix_s=_unix_s(query, "startunix"),
        stop_unix_s=_unix_s(query, "stopunix"),
        duration_us=_seconds_us(query, "duration") or None,
        rate=UNLIMITED_RATE if download is not None else _rate(query, rate_header),
        rate_given=bool(query.get("rate") or rate_header or download is not None),
        buffer_us=_seconds_us(query, "buffer"),
        wait_key="waitkey" in query,
        wait_track_count=_integer(query, "waittrackcount", 1, _MAX_TRACK_COUNT, 2),
        min_track_keys=_integer(query, "mintrackkeys", 0, 1_000_000, 2),
        min_track_us=_integer(query, "mintrackms", 0, 3_600_000, 500) * 1000,
        max_track_us=_integer(query, "maxtrackms", 0, 3_600_000, 20_000) * 1000,
        max_wait_us=_integer(query, "maxwaittrackms", 0, 3_600_000, default_wait_ms) * 1000,
        download=download,
        token=url_token(query),
    )

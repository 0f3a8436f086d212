"""What a recording is to do: its target with parameters, the names of its files, where they are cut, and its playlist.

Nothing here opens a file or looks at a clock.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import astuple, dataclass, field
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote, unquote

from mist.errors import ConfigError
from mist.formats.m3u8 import MediaPlaylist
from mist.stream.parameters import PlaybackParameters, parse_parameters
from mist.stream.state import Key
from mist.stream.variables import built_in, substitute

DEFAULT_SPLIT_US: Final = 60_000_000  # with a playlist
SEGMENT_COUNTER: Final = "segmentCounter"
MEDIA_TIME: Final = "currentMediaTime"
MAX_TARGET_CHARACTERS: Final = 4096
# Where YouTube and others take HLS: each file's name follows "file=".
_HLS_UPLOAD: Final = re.compile(
    r"(?P<head>(?P<base>(?P<scheme>[A-Za-z]+)://[^?]+)/http_upload_hls\?(?:[^#]*&)?file=)(?P<tail>(?:&[^#]*)?)"
)
UPLOAD_SPLIT_US: Final = 1_000_000
UPLOAD_ENTRIES: Final = 3

_PLAYBACK: Final = frozenset(
    ("audio", "video", "subtitle", "meta", "start", "stop", "duration", "waitkey", "waittrackcount")
    + ("mintrackkeys", "mintrackms", "maxtrackms", "maxwaittrackms", "startunix", "stopunix")
)
_FILES: Final = frozenset(
    (
        "recstart",
        "recstop",
        "recstartunix",
        "recstopunix",
        "unixstart",
        "unixstop",
        "split",
        "append",
        "segment",
        "m3u8",
    )
    + ("maxEntries", "targetAge", "nounlink", "noendlist", "adjustSplit", "passthrough", "unmask")
    + ("rate", "realtime", "pushdelay")
)
_UNIX_STARTS: Final = ("startunix", "unixstart", "recstartunix")  # the first that is there counts
_UNIX_STOPS: Final = ("stopunix", "unixstop", "recstopunix")
_SAFE_IN_PLAYLISTS: Final = "/+,=@!$&'()~"


@dataclass(frozen=True, slots=True)
class RecordingTarget:
    """Where a recording goes, and how.

    files: pattern of the media files' names, an absolute or relative path. playlist: pattern of the playlist's path, "" for
    none. split_us: new file at the first keyframe that is so far into one, 0 for never. adjust: split may grow to half the
    length that segments turn out to have. max_entries, target_age_us: the playlist's bounds, 0 for none. unlink: what falls
    out of the list is deleted. unmask: hidden tracks too. film: on demand. rate: speed, 0 for as fast as the
    media can be had. delay_us: so far behind a live stream. upload: URL of each file before and behind its name, where that
    is a parameter. unknown: names of parameters that mean nothing here.
    """

    files: str
    playlist: str = ""
    split_us: int = 0
    adjust: bool = False
    append: bool = False
    max_entries: int = 0
    target_age_us: int = 0
    unlink: bool = True
    end_list: bool = True
    unmask: bool = False
    playback: PlaybackParameters = field(default_factory=PlaybackParameters)
    film: bool = False
    rate: float = 0.0
    delay_us: int = 0
    upload: tuple[str, str] | None = None
    unknown: tuple[str, ...] = ()

    @property
    def prunes(self) -> bool:
        """Whether the playlist loses its oldest entries."""
        return self.max_entries > 0 or self.target_age_us > 0


def parse_target(text: str, schemes: Container[str] = ()) -> RecordingTarget:
    """Read a target: a path, and after its last "?" the parameters. schemes: of URLs that may take its place. Raises ConfigError."""
    if not text or len(text) > MAX_TARGET_CHARACTERS or "\0" in text:
        raise ConfigError("a target is the path of a file, with parameters after a '?'", path="TARGET", value=text)
    if (hls_upload := _HLS_UPLOAD.fullmatch(text)) and hls_upload["scheme"].lower() in schemes:
        return _upload_target(hls_upload)
    path, mark, query = text.rpartition("?")
    path, query = (path, query) if mark else (text, "")
    scheme, separator, rest = path.partition("://")
    remote = bool(separator) and scheme.lower() in schemes
    if separator and not remote:
        if scheme != "file":
            raise ConfigError(f"a recording goes to a local file, not to {scheme}://", path="TARGET", value=text)
        path = unquote(rest)
    given = _parse_query(query)
    folder = posixpath.dirname(path)
    files = _beside(folder, given["segment"], remote) if given.get("segment") else path
    playlist = _beside(folder, given["m3u8"], remote) if given.get("m3u8") else ""
    if playlist and not any(f"${name}" in files or f"${{{name}}}" in files for name in (SEGMENT_COUNTER, MEDIA_TIME)):
        raise ConfigError(
            "with m3u8 each segment needs a name of its own: put $segmentCounter or $currentMediaTime into it",
            path="TARGET",
            value=text,
        )
    if not posixpath.basename(files):
        raise ConfigError(f"{files} names a folder, not a file", path="TARGET", value=text)
    return RecordingTarget(
        files=files,
        playlist=playlist,
        split_us=_seconds_us(given, "split") or (DEFAULT_SPLIT_US if playlist else 0),
        adjust="adjustSplit" in given,
        append="append" in given,
        max_entries=int(_number(given.get("maxEntries", ""))),
        target_age_us=_seconds_us(given, "targetAge"),
        unlink="nounlink" not in given,
        end_list="noendlist" not in given,
        unmask="unmask" in given,
        playback=_playback(given),
        rate=_rate(given),
        delay_us=_seconds_us(given, "pushdelay"),
        unknown=tuple(sorted(given.keys() - _PLAYBACK - _FILES)),
    )


def _upload_target(found: re.Match[str]) -> RecordingTarget:
    """Return what such a server takes: the newest segments of a second, and a list of three of them."""
    return RecordingTarget(
        files=f"{found['base']}/${SEGMENT_COUNTER}.ts",
        playlist=f"{found['base']}/index.m3u8",
        split_us=UPLOAD_SPLIT_US,
        max_entries=UPLOAD_ENTRIES,
        unlink=False,
        upload=(found["head"], found["tail"]),
    )


def _beside(folder: str, name: str, remote: bool) -> str:
    return f"{folder}/{name.lstrip('/')}" if remote else posixpath.join(folder, name)


def _parse_query(query: str) -> dict[str, str]:
    """Return the parameters of a target; a plus sign is one, as in stream names."""
    pairs = (part.partition("=") for part in query.split("&") if part)
    return {unquote(name): unquote(value) for name, _, value in pairs}


def _number(text: str) -> float:
    """Return a number that is not negative, 0 for what is none."""
    try:
        value = float(text)
    except ValueError:
        return 0.0
    return value if 0 <= value < 1e9 else 0.0


def _seconds_us(given: Mapping[str, str], name: str) -> int:
    return round(_number(given.get(name, "")) * 1_000_000)


def _rate(given: Mapping[str, str]) -> float:
    """Return how fast a recording may be: at the media's own speed where it is to keep its distance."""
    if given.get("rate"):
        return _number(given["rate"])
    return 1.0 if "realtime" in given or _seconds_us(given, "pushdelay") else 0.0


def _playback(given: Mapping[str, str]) -> PlaybackParameters:
    """Return what is to be recorded. The names for recordings come before the general ones, except for unix times."""
    query = {name: value for name, value in given.items() if name in _PLAYBACK}
    for name in ("start", "stop"):
        if given.get(f"rec{name}"):
            query[name] = given[f"rec{name}"]
    for name, candidates in (("startunix", _UNIX_STARTS), ("stopunix", _UNIX_STOPS)):
        value = next((given[one] for one in candidates if given.get(one)), "")
        if value:
            query[name] = value
    if "passthrough" in given:
        query = {"audio": "all", "video": "all", "subtitle": "all", "meta": "all"} | query
    return parse_parameters(query)


# -- names -----------------------------------------------------------------------------------------------------------


def file_name(pattern: str, stream: str, now: datetime, *, counter: int, media_us: int) -> str:
    """Return a pattern with its variables replaced.

    counter: number of the file, from 0. media_us: where it begins. What comes from the stream's name stays inside the
    folder that the pattern names.
    """
    values = {name: _one_name(value) for name, value in built_in(stream, now).items()}
    own = {MEDIA_TIME: str(media_us // 1000), SEGMENT_COUNTER: str(counter)}
    return substitute(pattern, {**own, **values})


def _one_name(value: str) -> str:
    """Return a value as a part of one file's name."""
    value = value.replace("/", "_").replace("\0", "_")
    return "_" if value in (".", "..") else value


def other_name(path: str, number: int) -> str:
    """Return a path with a number before its suffix: for a file whose name is taken by an earlier one."""
    stem, suffix = posixpath.splitext(path)
    return f"{stem}_{number}{suffix}"


# -- cuts ------------------------------------------------------------------------------------------------------------


def next_cut(keys: Iterable[Key], begin: Key, split_us: int, limit_us: int, *, at_breaks: bool = False) -> Key | None:
    """Return the keyframe at which the next file begins, None if there is none up to the limit.

    keys: of the main track, oldest first. begin: the first key of the file. split_us: shortest file, 0 for one without end.
    limit_us: all that is before this time is there. at_breaks: cut where the times broke, too.
    """
    for key in keys:
        if key.sequence <= begin.sequence or key.dts_us > limit_us:
            continue
        if split_us and key.dts_us - begin.dts_us >= split_us:
            return key
        if at_breaks and key.discontinuities != begin.discontinuities:
            return key
    return None


# -- the playlist ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Entry:
    """One file in a playlist. uri: its path as seen from the playlist. date: when its media was live, "" if unknown."""

    uri: str
    duration_us: int
    date: str = ""
    discontinuity: bool = False


def relative_uri(playlist: str, path: str) -> str:
    """Return how a playlist names a file."""
    return quote(posixpath.relpath(path, posixpath.dirname(playlist) or "."), safe=_SAFE_IN_PLAYLISTS)


def iso_date(unix_us: int) -> str:
    """Return a unix time as a playlist tells it (ISO 8601, UTC, milliseconds); "" for 0, which is an unknown one."""
    if not unix_us:
        return ""
    return datetime.fromtimestamp(unix_us // 1000 / 1000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


class RecordingPlaylist:
    """The list of a recording's files (RFC 8216, version 3)."""

    def __init__(self, target: RecordingTarget) -> None:
        self._target = target
        self._target_s = max(int(target.split_us // 1_000_000), 1)
        self._removed = 0
        self._removed_breaks = 0
        self._join = False
        self.entries: list[Entry] = []

    @property
    def next_number(self) -> int:
        """How many files were ever listed."""
        return self._removed + len(self.entries)

    def continue_from(self, old: MediaPlaylist) -> None:
        """Go on behind the entries of a list that is there; the next file does not continue what was before."""
        self.entries = [
            Entry(one.uri, one.duration_us, one.date, one.discontinuity) for one in old.segments if "\n" not in one.uri
        ]
        self._removed = old.media_sequence
        self._removed_breaks = old.discontinuity_sequence
        self._target_s = max(self._target_s, old.target_duration_s)
        self._join = bool(self.entries)

    def state(self) -> dict[str, Any]:
        """Return the list as JSON has it, for another process."""
        return {
            "target_s": self._target_s,
            "removed": self._removed,
            "removed_breaks": self._removed_breaks,
            "join": self._join,
            "entries": [list(astuple(entry)) for entry in self.entries],
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Go on from `state()`. Raises KeyError, TypeError, ValueError."""
        self._target_s, self._removed = int(state["target_s"]), int(state["removed"])
        self._removed_breaks, self._join = int(state["removed_breaks"]), bool(state["join"])
        self.entries = [Entry(*entry) for entry in state["entries"]]

    def add(self, entry: Entry) -> list[Entry]:
        """Add a file. Returns the entries that have left the list for it."""
        if self._join:
            entry = Entry(entry.uri, entry.duration_us, entry.date, True)
            self._join = False
        self.entries.append(entry)
        if entry.duration_us > self._target_s * 1_000_000:
            self._target_s = entry.duration_us // 1_000_000 + 1
        count = self._surplus()
        gone, self.entries = self.entries[:count], self.entries[count:]
        self._removed += count
        self._removed_breaks += sum(one.discontinuity for one in gone)
        return gone

    def _surplus(self) -> int:
        """Return how many of the oldest entries are to go; the newest stays."""
        target = self._target
        count = max(len(self.entries) - target.max_entries, 0) if target.max_entries else 0
        if target.target_age_us:
            left_us = sum(entry.duration_us for entry in self.entries[count:])
            while left_us - self.entries[count].duration_us >= target.target_age_us:
                left_us -= self.entries[count].duration_us
                count += 1
        return min(count, len(self.entries) - 1)

    def text(self, *, ended: bool) -> str:
        """Return the list. ended: no file follows, which is said unless the list slides or noendlist was given."""
        target = self._target
        kind = "VOD" if target.film and ended else "EVENT"
        lines = [
            "#EXTM3U",
            "#EXT-X-VERSION:3",
            *(() if target.prunes else (f"#EXT-X-PLAYLIST-TYPE:{kind}",)),
            f"#EXT-X-TARGETDURATION:{self._target_s}",
            f"#EXT-X-MEDIA-SEQUENCE:{self._removed}",
            *((f"#EXT-X-DISCONTINUITY-SEQUENCE:{self._removed_breaks}",) if self._removed_breaks else ()),
        ]
        for entry in self.entries:
            lines += ["#EXT-X-DISCONTINUITY"] if entry.discontinuity else []
            lines += [f"#EXT-X-PROGRAM-DATE-TIME:{entry.date}"] if entry.date else []
            ms = (entry.duration_us + 500) // 1000
            lines += [f"#EXTINF:{ms // 1000}.{ms % 1000:03},", entry.uri]
        if ended and target.end_list and not target.prunes:
            lines.append("#EXT-X-ENDLIST")
        return "\n".join([*lines, ""])


def local_files(playlist: str, entries: Sequence[Entry], pattern: str) -> list[str]:
    """Return the paths of a playlist's files, without those outside of the folders that it and the files' pattern name."""
    folder = posixpath.normpath(posixpath.dirname(playlist) or ".")
    fixed = posixpath.dirname(pattern.partition("$")[0])
    allowed = {folder, posixpath.normpath(fixed or ".")}
    found = []
    for entry in entries:
        path = posixpath.normpath(posixpath.join(folder, unquote(entry.uri)))
        inside = any(one == "." or path.startswith(f"{one.rstrip('/')}/") for one in allowed)
        if "://" not in entry.uri and inside and not path.startswith("../") and "\0" not in path:
            found.append(path)
    return found

"""Which tracks a viewer gets: the selector grammar of the URL, and the capability matrix of an output.

A selector is a comma list read from left to right: `item` adds the tracks that match, `|item` keeps only those of the tracks
picked so far that match, `!item` removes them. A selector that begins with `!` starts from all tracks. The items are the rows
of `_ITEMS` below.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final, TypeAlias

from mist.formats import languages
from mist.formats.tracks import AUDIO, META, VIDEO
from mist.stream.state import TrackState

CodecMatrix: TypeAlias = Sequence[Sequence[Sequence[str]]]
ExceptionRules: TypeAlias = Sequence[Sequence[object]]
Tracks: TypeAlias = list[TrackState]

SUBTITLE: Final = "subtitle"
VIEWERS_MASK: Final = 1
PUSHES_MASK: Final = 2  # recordings see what pushes see
ANY_MASK: Final = 0xFF
SORTINGS: Final = ("bps_lth", "bps_htl", "id_lth", "id_htl", "res_lth", "res_htl")
RESOLUTIONS: Final[Mapping[str, tuple[int, int]]] = {
    "720p": (1280, 720),
    "1080p": (1920, 1080),
    "1440p": (2560, 1440),
    "2k": (2048, 1080),
    "4k": (3840, 2160),
    "5k": (5120, 2880),
    "8k": (7680, 4320),
}

MAX_SELECTOR_ITEMS: Final = 64
MAX_SELECTOR_CHARACTERS: Final = 1024
_TYPE_ORDER: Final = {VIDEO: 0, AUDIO: 1, META: 2}
_EVERYTHING: Final[CodecMatrix] = ((("+*",),),)


# --- the selector grammar -------------------------------------------------------------------------------------------


def _bits_per_second(track: TrackState) -> int:
    return track.bytes_per_second * 8


def _area(track: TrackState) -> int:
    return track.info.width * track.info.height


def _best(tracks: Tracks, key: Callable[[TrackState], float]) -> Tracks:
    """Return the one track with the highest key; the lowest index wins a tie."""
    return [max(tracks, key=lambda track: (key(track), -track.index))] if tracks else []


def _number(match: re.Match[str]) -> float:
    factor = {"": 1, "k": 1024, "m": 1024 * 1024}[match["unit"].lower()]
    return float(match["number"]) * factor


def _resolution(match: re.Match[str]) -> tuple[int, int]:
    if match["name"]:
        return RESOLUTIONS[match["name"].lower()]
    return int(match["width"]), int(match["height"])


def _max_rate(tracks: Tracks, match: re.Match[str]) -> Tracks:
    """Return the track closest to the rate and not above it, or else the closest above."""
    limit = _number(match)
    below = [track for track in tracks if _bits_per_second(track) <= limit]
    return _best(below, _bits_per_second) if below else _best(tracks, lambda track: -_bits_per_second(track))


def _nearest_rate(tracks: Tracks, match: re.Match[str]) -> Tracks:
    wanted = _number(match)
    return _best(tracks, lambda track: -abs(_bits_per_second(track) - wanted))


def _nearest_area(tracks: Tracks, match: re.Match[str]) -> Tracks:
    width, height = _resolution(match)
    return _best(tracks, lambda track: -abs(_area(track) - width * height))


def _compare_rate(tracks: Tracks, match: re.Match[str]) -> Tracks:
    limit = _number(match)
    if match["sign"] == "<":
        return [track for track in tracks if _bits_per_second(track) < limit]
    return [track for track in tracks if _bits_per_second(track) > limit]


def _compare_area(tracks: Tracks, match: re.Match[str]) -> Tracks:
    width, height = _resolution(match)
    if match["sign"] == "<":
        return [track for track in tracks if _area(track) < width * height]
    return [track for track in tracks if _area(track) > width * height]


def _exact_resolution(tracks: Tracks, match: re.Match[str]) -> Tracks:
    wanted = _resolution(match)
    return [track for track in tracks if (track.info.width, track.info.height) == wanted]


def _surround(tracks: Tracks, _match: re.Match[str]) -> Tracks:
    return [track for track in tracks if track.info.channels > 2]


def _channels(count: int | None) -> Callable[[Tracks, re.Match[str]], Tracks]:
    def pick(tracks: Tracks, match: re.Match[str]) -> Tracks:
        wanted = int(match["number"]) if count is None else count
        return [track for track in tracks if track.info.channels == wanted]

    return pick


def _index(tracks: Tracks, match: re.Match[str]) -> Tracks:
    return [track for track in tracks if track.index == int(match["number"])]


def _track_id(tracks: Tracks, match: re.Match[str]) -> Tracks:
    return [track for track in tracks if track.info.track_id == int(match["number"])]


def _word(tracks: Tracks, match: re.Match[str]) -> Tracks:
    """Return the tracks of that codec or language."""
    word = match[0]
    language = languages.canonical(word) if len(word) in (2, 3) else ""
    return [
        track
        for track in tracks
        if track.info.codec.lower() == word.lower()
        or (
            language
            and word.isalpha()
            and _language(track) == language
            and (language != "und" or word.lower() == "und")
        )
    ]


def _language(track: TrackState) -> str:
    return languages.canonical(track.info.language)


_RATE: Final = r"(?P<number>\d{1,15}(\.\d{1,6})?)(?P<unit>[km]?)bps"
_SIZE: Final = r"((?P<width>\d{1,7})x(?P<height>\d{1,7})|(?P<name>" + "|".join(RESOLUTIONS) + "))"
_ANY_TYPE: Final = frozenset((AUDIO, VIDEO, META, SUBTITLE))

# What an item looks like, for which types it has that meaning, and the tracks it stands for. The first row that fits counts.
_ITEMS: Final[Sequence[tuple[re.Pattern[str], frozenset[str], Callable[[Tracks, re.Match[str]], Tracks]]]] = [
    (re.compile(pattern, re.IGNORECASE | re.ASCII), frozenset(types), pick)
    for pattern, types, pick in (
        (r"(-1|none)?", _ANY_TYPE, lambda _tracks, _match: []),
        (r"all|\*", _ANY_TYPE, lambda tracks, _match: list(tracks)),
        (r"(?P<number>\d{1,10})", _ANY_TYPE, _index),
        (r"i(?P<number>\d{1,20})", _ANY_TYPE, _track_id),
        (r"(high|best|max)bps", _ANY_TYPE, lambda tracks, _match: _best(tracks, _bits_per_second)),
        (r"(low|worst|min)bps", _ANY_TYPE, lambda tracks, _match: _best(tracks, lambda t: -_bits_per_second(t))),
        (r"(?P<sign>[<>])" + _RATE, _ANY_TYPE, _compare_rate),
        (r"max<" + _RATE, _ANY_TYPE, _max_rate),
        (_RATE, _ANY_TYPE, _nearest_rate),
        (r"mono", {AUDIO}, _channels(1)),
        (r"stereo", {AUDIO}, _channels(2)),
        (r"surround", {AUDIO}, _surround),
        (r"(?P<number>\d{1,5})ch", {AUDIO}, _channels(None)),
        (r"bframes", {VIDEO}, lambda tracks, _match: [track for track in tracks if track.has_bframes]),
        (r"(high|best|max)res", {VIDEO}, lambda tracks, _match: _best(tracks, _area)),
        (r"(low|worst|min)res", {VIDEO}, lambda tracks, _match: _best(tracks, lambda t: -_area(t))),
        (r"(?P<sign>[<>])" + _SIZE, {VIDEO}, _compare_area),
        (r"~" + _SIZE, {VIDEO}, _nearest_area),
        (_SIZE, {VIDEO}, _exact_resolution),
        (r".*", _ANY_TYPE, _word),
    )
]


def _match_item(item: str, kind: str, tracks: Tracks) -> Tracks:
    for pattern, kinds, pick in _ITEMS:
        if kind in kinds:
            match = pattern.fullmatch(item)
            if match:
                return pick(tracks, match)
    return []


def pick_by_selector(selector: str, kind: str, tracks: Sequence[TrackState]) -> list[int]:
    """Return the indexes of the tracks that a selector picks, in the order of the given tracks.

    kind: "audio", "video", "subtitle" or "meta"; other tracks are left out first ("subtitle" is a codec of type meta).
    What an item without a meaning matches is nothing. Only the first 1024 characters and 64 items are read.
    """
    candidates = [track for track in tracks if _is_kind(track, kind)]
    items = [item.strip() for item in selector[:MAX_SELECTOR_CHARACTERS].split(",")[:MAX_SELECTOR_ITEMS]]
    current: Tracks = list(candidates) if items[0].startswith("!") else []
    for item in items:
        if item.startswith("|"):
            current = _match_item(item[1:], kind, current)
        elif item.startswith("!"):
            removed = {track.index for track in _match_item(item[1:], kind, current)}
            current = [track for track in current if track.index not in removed]
        else:
            wanted = {track.index for track in (*current, *_match_item(item, kind, candidates))}
            current = [track for track in candidates if track.index in wanted]
    return [track.index for track in current]


def _is_kind(track: TrackState, kind: str) -> bool:
    return track.info.codec == SUBTITLE if kind == SUBTITLE else track.info.type == kind


# --- the capability matrix ------------------------------------------------------------------------------------------


def _read_codec(text: str) -> tuple[str, bool, bool]:
    """Return the word of one matrix entry, whether it names a type ("@") and whether it may pick several ("+")."""
    word = text.lstrip("@+")
    marks = text[: len(text) - len(word)]
    return word, "@" in marks, "+" in marks


def codec_matches(entry: str, track: TrackState) -> bool:
    """Return whether a matrix entry such as "H264", "+AAC", "@meta" or "*" fits a track."""
    word, by_type, _several = _read_codec(entry)
    return word == "*" or word == (track.info.type if by_type else track.info.codec)


def _slot_matches(slot: Sequence[str], track: TrackState) -> bool:
    return any(codec_matches(entry, track) for entry in slot)


def passes_exceptions(rules: ExceptionRules, user_agent: str) -> bool:
    """Return whether a user agent passes an exception list of a capability document.

    rules: pairs of "whitelist", "blacklist", "whitelist_except" or "blacklist_except" and a list of texts. A pair applies
    when any of its texts is in the user agent (with "_except": when none is), or always when it has no list; the last
    pair that applies decides. Without rules, or without a user agent, everything passes.
    """
    allowed = True
    if not user_agent:
        return allowed
    for rule in rules:
        if not rule:
            continue
        mode = str(rule[0])
        texts = rule[1] if len(rule) > 1 else None
        found = isinstance(texts, (list, tuple)) and any(str(text) in user_agent for text in texts)
        if texts is None or found != mode.endswith("_except"):
            allowed = mode.startswith("whitelist")
    return allowed


def usable_tracks(
    tracks: Sequence[TrackState],
    codecs: CodecMatrix,
    *,
    exceptions: Mapping[str, ExceptionRules] | None = None,
    user_agent: str = "",
    max_delay_ms: int = 0,
    mask: int = VIEWERS_MASK,
) -> list[TrackState]:
    """Return the tracks that an output can send at all: not masked, not empty, of a codec in its matrix.

    exceptions: the capability's exception lists; those named "codec:NAME" hide that codec from a user agent.
    max_delay_ms: tracks whose last packet is older than the newest of all by more than this are left out; 0 = no limit.
    """
    matrix = codecs or _EVERYTHING
    newest_us = max((track.last_us for track in tracks), default=0)
    hidden = {
        name.partition(":")[2]
        for name, rules in (exceptions or {}).items()
        if name.startswith("codec:") and not passes_exceptions(rules, user_agent)
    }
    return [
        track
        for track in tracks
        if track.valid_mask & mask
        and track.next_sequence > track.first_sequence
        and track.info.codec not in hidden
        and not (max_delay_ms and newest_us - track.last_us > max_delay_ms * 1000)
        and any(_slot_matches(slot, track) for combination in matrix for slot in combination)
    ]


def sort_tracks(tracks: Iterable[TrackState], sorting: str, live: bool) -> list[TrackState]:
    """Return tracks in the order in which automatic choice tries them.

    sorting: one of SORTINGS, where lth is low to high; anything else is the default: the newest track first when live,
    else the oldest.
    """
    keys: dict[str, Callable[[TrackState], tuple[int, ...]]] = {
        "bps": lambda track: (_bits_per_second(track), track.index),
        "id": lambda track: (track.index,),
        "res": lambda track: (_area(track), track.info.channels * track.info.sample_rate_hz, track.index),
    }
    if sorting not in SORTINGS:
        sorting = "id_htl" if live else "id_lth"
    name, _, direction = sorting.partition("_")
    return sorted(tracks, key=keys[name], reverse=direction == "htl")


def configured_sorting(config: Mapping[str, Any], connector: str) -> str:
    """Return the option `default_track_sorting` of a connector, "" for the default order."""
    protocols = (config.get("config") or {}).get("protocols") or ()
    entry: Mapping[str, Any] = next((one for one in protocols if one.get("connector") == connector), {})
    return str(entry.get("default_track_sorting") or "")


def explicit_selector(parameters: Mapping[str, str], kind: str) -> str:
    """Return the selector that the viewer gave for a kind, or "" for automatic."""
    selector = (parameters.get(kind) or "").strip()
    return "" if selector == "auto" else selector


def _fill(
    combination: Sequence[Sequence[str]], picked: Mapping[int, TrackState], candidates: Sequence[TrackState]
) -> tuple[int, dict[int, TrackState]]:
    """Return how many slots of a combination have a track, and the picked tracks with those that fill the empty slots."""
    chosen = dict(picked)
    spoken_for: set[int] = set()
    filled = 0
    for slot in combination:
        holder = next((t for t in picked.values() if t.index not in spoken_for and _slot_matches(slot, t)), None)
        if holder is not None:
            spoken_for.add(holder.index)
        single_done = holder is not None
        found = single_done
        for entry in slot:
            several = _read_codec(entry)[2]
            for track in candidates:
                if track.index in chosen or (single_done and not several) or not codec_matches(entry, track):
                    continue
                chosen[track.index] = track
                found = single_done = True
        filled += found
    return filled, chosen


def select_tracks(
    tracks: Sequence[TrackState],
    parameters: Mapping[str, str],
    codecs: CodecMatrix,
    *,
    live: bool = True,
    sorting: str = "",
    exceptions: Mapping[str, ExceptionRules] | None = None,
    user_agent: str = "",
    no_bframes: bool = False,
    max_delay_ms: int = 0,
    mask: int = VIEWERS_MASK,
) -> list[int]:
    """Return the indexes of the tracks that a viewer of an output gets: video first, then audio, then meta, each by index.

    parameters: the selectors "audio", "video", "subtitle", "meta"; others are ignored. Empty, absent or "auto" means
    automatic; with a selector nothing of that kind is chosen automatically, even when it matches nothing. A selector
    chooses among the tracks that the output supports, and may pick more tracks than the matrix has slots.
    codecs: the matrix of the capability document: combinations of slots of codec names; "@" matches a type, "+" may pick
    several, "*" is anything. The combination that holds most of the selected tracks, then has most slots filled, then
    comes first, is used. Each slot takes one track: of its first codec that has one. An empty matrix takes everything.
    live, sorting: order of preference, see sort_tracks. no_bframes: no automatic choice of tracks with B-frames.
    exceptions, user_agent, max_delay_ms, mask: see usable_tracks.
    An empty list means that no track suits the output.
    """
    matrix = codecs or _EVERYTHING
    usable = usable_tracks(
        tracks, matrix, exceptions=exceptions, user_agent=user_agent, max_delay_ms=max_delay_ms, mask=mask
    )
    by_index = {track.index: track for track in usable}
    picked: dict[int, TrackState] = {}
    automatic = usable
    for kind in (VIDEO, AUDIO, META, SUBTITLE):
        selector = explicit_selector(parameters, kind)
        if selector:
            picked.update((index, by_index[index]) for index in pick_by_selector(selector, kind, usable))
            automatic = [track for track in automatic if not _is_kind(track, kind)]
    automatic = [track for track in sort_tracks(automatic, sorting, live) if not (no_bframes and track.has_bframes)]

    best: tuple[tuple[int, int], dict[int, TrackState]] = ((-1, -1), {})
    for combination in matrix:
        held = {i: t for i, t in picked.items() if any(_slot_matches(slot, t) for slot in combination)}
        filled, chosen = _fill(combination, held, automatic)
        if (len(held), filled) > best[0]:
            best = ((len(held), filled), chosen)
    return [track.index for track in sorted(best[1].values(), key=_output_order)]


def _output_order(track: TrackState) -> tuple[int, int]:
    return _TYPE_ORDER.get(track.info.type, len(_TYPE_ORDER)), track.index

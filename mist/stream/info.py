"""The stream information document that players ask for: what a stream is, and every way to play it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final
from urllib.parse import quote, urlsplit

from mist.formats.codecs import profile_level, shown_codec_string
from mist.formats.tracks import AUDIO, H264, META, VIDEO
from mist.stream.reader import StreamReader
from mist.stream.selectors import codec_matches, passes_exceptions, usable_tracks
from mist.stream.state import StreamStatus, TrackState

SELECTION_VERSION: Final = 2
META_VERSION: Final = 4
UNKNOWN_SIZE: Final = (640, 480)
AUDIO_ONLY_HEIGHT: Final = 20

STATUS_TEXTS: Final = {
    StreamStatus.OFF: "Stream is offline",
    StreamStatus.INIT: "Stream is initializing",
    StreamStatus.BOOT: "Stream is booting",
    StreamStatus.WAIT: "Stream is waiting for data",
    StreamStatus.SHUTDOWN: "Stream is shutting down",
    StreamStatus.INVALID: "Stream status is invalid?!",
}

Document = Mapping[str, Any]


def info_document(
    reader: StreamReader,
    documents: Mapping[str, Document],
    bases: Sequence[str],
    *,
    protocols: Sequence[Document] = (),
    user_agent: str = "",
    token: str = "",
    include_zero: bool = False,
    meta_everywhere: bool = False,
) -> dict[str, Any]:
    """Return the document of one stream.

    documents: capability documents of the outputs by connector name. bases: public base URLs, without the last slash.
    protocols: configured protocol entries, for connectors with a port of their own. token: appended to URLs unless "".
    include_zero: list outputs that can send none of the tracks. meta_everywhere: metadata counts as sent by all outputs.
    """
    status = reader.status()
    if status != StreamStatus.READY:
        return {"error": STATUS_TEXTS.get(status, "Stream status is unknown?!")}
    states = reader.tracks()
    width, height = picture_size(states)
    newest = max((state.last_us for state in states), default=0)
    oldest = min((state.first_us for state in states), default=0)
    meta: dict[str, Any] = {
        "tracks": {identifier(state): track_document(state) for state in states},
        "jitter": max((state.jitter_ms for state in states), default=0),
        "bframes": int(any(state.has_bframes for state in states)),
        "maxkeepaway": 0,
        "version": META_VERSION,
        "buffer_window": (newest - oldest) // 1000,
        "live" if reader.live else "vod": 1,
    }
    clock = {"unixoffset": reader.wall_clock_offset_us // 1000} if reader.live or reader.wall_clock_offset_us else {}
    return {
        "selver": SELECTION_VERSION,
        "capa": {"selver": SELECTION_VERSION, "ssl": False},
        "width": width,
        "height": height,
        "type": "live" if reader.live else "vod",
        **clock,
        "meta": meta,
        "source": sources(
            reader.name,
            states,
            documents,
            bases,
            protocols,
            user_agent,
            token,
            include_zero,
            meta_everywhere,
            reader.live,
        ),
    }


def picture_size(states: Iterable[TrackState]) -> tuple[int, int]:
    """Return the largest width and height of the video tracks, or what stands for "unknown" and "no picture"."""
    video = [state.info for state in states if state.info.type == VIDEO]
    if not video:
        return UNKNOWN_SIZE[0], AUDIO_ONLY_HEIGHT
    return max(info.width for info in video) or UNKNOWN_SIZE[0], max(info.height for info in video) or UNKNOWN_SIZE[1]


def identifier(state: TrackState) -> str:
    """Return a readable name of a track that no other track of the stream has."""
    info = state.info
    parts = [info.type, info.codec]
    if info.type == VIDEO:
        parts += [
            f"{info.width}x{info.height}",
            f"{(state.measured_frame_rate_mhz or info.frame_rate_mhz) / 1000:g}fps",
        ]
    elif info.type == AUDIO:
        parts += [f"{info.channels}ch", f"{info.sample_rate_hz}hz"]
    if info.language != "und":
        parts.append(info.language)
    return "_".join([*parts, str(state.index)])


def track_document(state: TrackState) -> dict[str, Any]:
    """Return what the document says of one track. Rates are bytes a second, times milliseconds, `fpks` frames in 1000 s."""
    info = state.info
    document: dict[str, Any] = {
        "codec": info.codec,
        "codecstring": shown_codec_string(info),
        "type": info.type,
        "idx": state.index,
        "trackid": info.track_id or state.index + 1,
        "init": info.init_data.decode("latin-1"),
        "firstms": state.first_us // 1000,
        "lastms": state.last_us // 1000,
        "nowms": max(state.now_us, state.last_us) // 1000,
        "bps": state.bytes_per_second,
        "maxbps": state.max_bytes_per_second,
        "jitter": state.jitter_ms,
    }
    if info.language not in ("", "und"):
        document.update(lang=info.language, language=info.language)
    if info.type == AUDIO:
        document.update(rate=info.sample_rate_hz, size=info.sample_bits, channels=info.channels)
    elif info.type == VIDEO:
        nominal, measured = info.frame_rate_mhz, state.measured_frame_rate_mhz or info.frame_rate_mhz
        document.update(width=info.width, height=info.height, fpks=nominal, efpks=measured)
        document.update(fps=nominal / 1000, efps=measured / 1000)
        if state.has_bframes:
            document["bframes"] = 1
        if info.codec == H264:
            document["h264_profile"], document["h264_level"] = profile_level(info)
    return document


def sources(
    name: str,
    states: Sequence[TrackState],
    documents: Mapping[str, Document],
    bases: Sequence[str],
    protocols: Sequence[Document],
    user_agent: str,
    token: str,
    include_zero: bool,
    meta_everywhere: bool,
    live: bool,
) -> list[dict[str, Any]]:
    """Return every way to play the tracks, the best first."""
    found: list[dict[str, Any]] = []
    for connector, document in documents.items():
        exceptions = document.get("exceptions", {})
        if not document.get("methods") or (live and not passes_exceptions(exceptions.get("live", ()), user_agent)):
            continue
        usable = usable_tracks(states, document.get("codecs", ()), exceptions=exceptions, user_agent=user_agent)
        slots, total = count_matches(document.get("codecs", ()), usable)
        if meta_everywhere:
            slots += any(state.info.type == META for state in states)
        if not slots and not include_zero:
            continue
        for method in document["methods"]:
            if live and method.get("nolive"):
                continue
            penalty = int(bool(method.get("nobframes")) and any(state.has_bframes for state in usable))
            for url, relative in addresses(connector, document, method, quote(name, safe="+"), bases, protocols):
                entry = {
                    "type": method["type"],
                    "hrn": method.get("hrn", ""),
                    "relurl": _with_token(relative, token),
                    "url": _with_token(url, token),
                    "priority": method.get("priority", 0),
                    "simul_tracks": max(slots - penalty, 0),
                    "total_matches": max(total - penalty, 0),
                }
                if "player_url" in method:
                    entry["player_url"] = method["player_url"]
                found.append(entry)
    found.sort(key=lambda e: (-e["simul_tracks"], -e["priority"], -e["total_matches"], e["url"]))
    return found


def count_matches(codecs: Sequence[Sequence[Sequence[str]]], tracks: Sequence[TrackState]) -> tuple[int, int]:
    """Return (slots that have a track in the best combination, fitting tracks over all slots of all combinations)."""
    best = total = 0
    for combination in codecs:
        fits = [sum(any(codec_matches(entry, track) for entry in slot) for track in tracks) for slot in combination]
        best = max(best, sum(1 for fit in fits if fit))
        total += sum(fits)
    return best, total


def addresses(
    connector: str, document: Document, method: Document, name: str, bases: Sequence[str], protocols: Sequence[Document]
) -> list[tuple[str, str]]:
    """Return (URL, URL relative to the base) of one method, for each public address."""
    relative = str(method.get("url_rel") or document.get("url_rel") or "/$").replace("$", name).lstrip("/")
    handler = str(method.get("handler", "http"))
    if document.get("deps") == "HTTP":
        scheme = {"http": ("http", "https"), "ws": ("ws", "wss")}.get(handler, ("http", "https"))
        return [
            (f"{scheme[urlsplit(b).scheme == 'https']}://{b.partition('://')[2]}/{relative}", relative) for b in bases
        ]
    entry = next((entry for entry in protocols if entry.get("connector") == connector), None)
    default = document.get("optional", {}).get("port", {}).get("default")
    port = (entry or {}).get("port") or default
    if entry is None or not port:
        return []
    hosts = [urlsplit(base).hostname or "localhost" for base in bases]
    return [(f"{handler}://{f'[{h}]' if ':' in h else h}:{port}/{relative}", relative) for h in hosts]


def _with_token(url: str, token: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}tkn={quote(token, safe='')}" if token else url

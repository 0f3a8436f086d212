"""A stream's state of health, as `active_streams` shows it: what its tracks look like, and what is wrong with them."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Any

from mist.formats.tracks import AUDIO, VIDEO
from mist.stream.state import Key, TrackState

if TYPE_CHECKING:
    from mist.stream.reader import StreamReader

MAX_FRAME_MS = 500
MIN_FRAMES_OF_KEY = 6
MAX_KEY_VARIATION = 0.3
MAX_JITTER_MS = 500


def track_name(track: TrackState) -> str:
    """Return the text that identifies a track: type, codec, its measures, its language if known, its index."""
    info = track.info
    parts = [info.type, info.codec]
    if info.type == VIDEO:
        parts.append(f"{info.width}x{info.height}")
        rate = info.frame_rate_mhz or track.measured_frame_rate_mhz
        if rate:
            parts.append(f"{round(rate / 1000, 2):g}fps")
    elif info.type == AUDIO:
        parts += [f"{info.channels}ch", f"{info.sample_rate_hz}hz"]
    else:
        parts.append("")
    if info.language not in ("", "und"):
        parts.append(info.language)
    return "_".join([*parts, str(track.index)])


def health(reader: StreamReader | None) -> dict[str, Any] | None:
    """Return the health object of a stream, None when it has no tracks."""
    tracks = reader.tracks() if reader is not None else []
    if reader is None or not tracks:
        return None
    result: dict[str, Any] = {
        "tracks": [track_name(track) for track in tracks],
        "jitter": max(track.jitter_ms for track in tracks),
        "buffer": (max(t.last_us for t in tracks) - min(t.first_us for t in tracks)) // 1000,
    }
    issues = []
    for track in tracks:
        entry = _entry(track, reader.keys(track.index) if track.info.type == VIDEO else [])
        result[track_name(track)] = entry
        issues += _issues(track, entry["keys"])
    kinds = {track.info.type for track in tracks}
    if VIDEO not in kinds:
        issues.append("HLS no video!")
    if AUDIO not in kinds:
        issues.append("HLS no audio!")
    if issues:
        result["issues"] = " ".join(issues)
    return result


def _entry(track: TrackState, keys: list[Key]) -> dict[str, Any]:
    info = track.info
    entry: dict[str, Any] = {
        "idx": track.index,
        "id": info.track_id,
        "codec": info.codec,
        "kbits": track.bytes_per_second * 8 // 1000,
        "buffer": (track.last_us - track.first_us) // 1000,
        "jitter": track.jitter_ms,
        "keys": _keys(keys),
    }
    if info.type == VIDEO:
        nominal, measured = info.frame_rate_mhz, track.measured_frame_rate_mhz
        entry.update(width=info.width, height=info.height, bframes=int(track.has_bframes))
        entry.update(fpks=nominal, efpks=measured, fps=nominal / 1000, efps=measured / 1000)
    elif info.type == AUDIO:
        entry.update(rate=info.sample_rate_hz, channels=info.channels)
    return entry


def _keys(keys: list[Key]) -> dict[str, Any]:
    """Return shortest and longest key interval, mean frame time and frames of a key; empty with less than two keys."""
    lengths = [(second.dts_us - first.dts_us) / 1000 for first, second in pairwise(keys)]
    frames = [second.sequence - first.sequence for first, second in pairwise(keys)]
    if not lengths or min(frames) <= 0:
        return {}
    frame_lengths = [length / count for length, count in zip(lengths, frames, strict=True)]
    return {
        "ms_min": int(min(lengths)),
        "ms_max": int(max(lengths)),
        "frame_ms_min": round(min(frame_lengths), 3),
        "frame_ms_max": round(max(frame_lengths), 3),
        "frames_min": min(frames),
        "frames_max": max(frames),
    }


def _issues(track: TrackState, keys: dict[str, Any]) -> list[str]:
    """Return what is wrong with a track, in short words; none of it stops playback."""
    found = []
    codec = track.info.codec
    if keys:
        if keys["frame_ms_max"] > MAX_FRAME_MS:
            found.append(f"{codec} frames of up to {keys['frame_ms_max']:.0f} ms!")
        if keys["frames_min"] < MIN_FRAMES_OF_KEY:
            found.append(f"{codec} only {keys['frames_min']} frames in a key!")
        if keys["ms_max"] - keys["ms_min"] > MAX_KEY_VARIATION * keys["ms_max"]:
            found.append(f"{codec} key intervals vary from {keys['ms_min']} to {keys['ms_max']} ms!")
    if track.jitter_ms > MAX_JITTER_MS:
        found.append(f"{codec} jitter of {track.jitter_ms} ms!")
    return found

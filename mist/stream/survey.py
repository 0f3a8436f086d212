"""What an input holds, as a whole: its tracks in figures, and what is wrong with it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Final

from mist.core.demuxer import Demuxer
from mist.core.track_survey import TrackSurvey
from mist.errors import RemoteProtocolError
from mist.formats.codecs import codec_string
from mist.formats.tracks import AUDIO, META, VIDEO, TrackInfo
from mist.stream.damage import Damage, places_of

LONG_GOP_US: Final = 20_000_000  # players that join or seek wait for a keyframe
LARGE_OFFSET_US: Final = 100_000  # of sound against picture, at the beginning
LARGE_END_OFFSET_US: Final = 1_000_000
SAME_RATE: Final = 500  # two rates that differ by less than this part are one, rounded

_REMARKS: Final = {
    "gap": ("gap", "gaps", "of {:.3f} s"),
    "backward": ("step back in decode time", "steps back in decode time", "by {:.3f} s"),
    "repeated": ("packet with the decode time of the one before", "packets with the decode time of the one before", ""),
}
_COUNTS: Final = {"gap": "gaps", "backward": "backward", "repeated": "repeated"}


@dataclass(frozen=True, slots=True)
class GopLengths:
    """Lengths of the whole GOPs of a track, from keyframe to keyframe. packets: in one of them."""

    least_us: int
    mean_us: int
    most_us: int
    least_packets: int
    most_packets: int


@dataclass(frozen=True, slots=True)
class TrackReport:
    """One track.

    codec_string: as RFC 6381, "" where there is none. bit_rate_bps: mean; peak_bps: of the fullest second. frame_rate_mhz: as
    measured for video. first_us, last_us: presentation time of the first and the last packet. gop: None for fewer than two
    keyframes and for what is no video. reordered: packets presented before one that came earlier (B-frames).
    """

    index: int
    track_id: int
    type: str
    codec: str
    codec_string: str
    language: str
    width: int
    height: int
    rotation_degrees: int
    frame_rate_mhz: int
    sample_rate_hz: int
    channels: int
    sample_bits: int
    bit_rate_bps: int
    peak_bps: int
    packets: int
    keyframes: int
    gop: GopLengths | None
    reordered: int
    first_us: int
    last_us: int
    duration_us: int
    bytes: int
    largest_packet_bytes: int
    gaps: int
    backward: int
    repeated: int
    init_changes: int
    init_bytes: int


@dataclass(frozen=True, slots=True)
class Report:
    """A whole input. duration_us: from the first packet's beginning to the last one's end, over all tracks.

    health: what is wrong, one sentence each; empty for nothing. damage: what cannot be read, in the order of the input, the first places
    of damage_count.
    """

    container: str
    bytes: int | None
    duration_us: int
    bit_rate_bps: int
    tracks: list[TrackReport]
    health: list[str]
    damage: list[Damage]
    damage_count: int

    def document(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def make_report(container: str, size: int | None, demuxer: Demuxer, survey: TrackSurvey) -> Report:
    """Return the report of an input whose packets went from a demuxer through a survey. size: bytes of the input, None if unknown."""
    reports = [_track(index, info, survey.figures(index)) for index, info in enumerate(demuxer.tracks)]
    present = [one for one in reports if one.packets]
    begin = min((one.first_us for one in present), default=0)
    end = max((one.first_us + one.duration_us for one in present), default=0)
    total = sum(one.bytes for one in present) if size is None else size
    rate = total * 8_000_000 // (end - begin) if end > begin else 0
    damage = places_of(sorted([*demuxer.damage, *survey.damage], key=lambda place: place[0]))
    count = demuxer.damage_count + survey.damage_count
    return Report(container, size, end - begin, rate, reports, _health(reports, survey), damage, count)


def _track(index: int, info: TrackInfo, figures: Mapping[str, int]) -> TrackReport:
    packets = figures["packets"]
    decoded_us = figures["newest_us"] - figures["first_dts_us"]
    usual_us = decoded_us // (packets - 1) if packets > 1 else 0
    duration_us = figures["last_pts_us"] - figures["first_pts_us"] + usual_us if packets else 0
    video = info.type == VIDEO
    measured = (packets - 1) * 1_000_000_000 // decoded_us if video and decoded_us > 0 else 0
    return TrackReport(
        index=index,
        track_id=info.track_id,
        type=info.type,
        codec=info.codec,
        codec_string=_codec_string(info),
        language=info.language or "und",
        width=info.width,
        height=info.height,
        rotation_degrees=info.rotation_degrees,
        frame_rate_mhz=_frame_rate_mhz(info, measured) if video else 0,
        sample_rate_hz=info.sample_rate_hz,
        channels=info.channels,
        sample_bits=info.sample_bits,
        bit_rate_bps=figures["bytes"] * 8_000_000 // duration_us if duration_us > 0 else 0,
        peak_bps=figures["most_window_bytes"] * 8,
        packets=packets,
        keyframes=figures["keys"],
        gop=_gop_lengths(figures) if video and figures["gops"] else None,
        reordered=figures["reordered"],
        first_us=figures["first_pts_us"],
        last_us=figures["last_pts_us"],
        duration_us=duration_us,
        bytes=figures["bytes"],
        largest_packet_bytes=figures["largest"],
        gaps=figures["gaps"] if info.type != META else 0,
        backward=figures["backward"],
        repeated=figures["repeated"] if info.type != META else 0,
        init_changes=figures["init_changes"],
        init_bytes=len(info.init_data),
    )


def _frame_rate_mhz(info: TrackInfo, measured: int) -> int:
    """Return the measured rate, or the announced one where the two are the same but for rounding."""
    if not measured or abs(measured - info.frame_rate_mhz) * SAME_RATE < measured:
        return info.frame_rate_mhz
    return measured


def _gop_lengths(figures: Mapping[str, int]) -> GopLengths:
    return GopLengths(
        figures["gop_least_us"],
        figures["gop_sum_us"] // figures["gops"],
        figures["gop_most_us"],
        figures["gop_least_packets"],
        figures["gop_most_packets"],
    )


def _codec_string(info: TrackInfo) -> str:
    try:
        return codec_string(info)
    except RemoteProtocolError:
        return ""


def _health(reports: Sequence[TrackReport], survey: TrackSurvey) -> list[str]:
    """Return what is wrong."""
    found = [] if any(one.packets for one in reports) else ["there is no packet in it"]
    for one in reports:
        found += _track_health(one, survey)
    video = next((one for one in reports if one.type == VIDEO and one.packets), None)
    audio = next((one for one in reports if one.type == AUDIO and one.packets), None)
    if video is not None and audio is not None:
        offset_us = audio.first_us - video.first_us
        if abs(offset_us) > LARGE_OFFSET_US:
            found.append(
                f"sound begins {abs(offset_us) / 1e6:.3f} s {'after' if offset_us > 0 else 'before'} the picture"
            )
        offset_us = audio.first_us + audio.duration_us - video.first_us - video.duration_us
        if abs(offset_us) > LARGE_END_OFFSET_US:
            found.append(
                f"sound ends {abs(offset_us) / 1e6:.3f} s {'after' if offset_us > 0 else 'before'} the picture"
            )
    return found


def _track_health(one: TrackReport, survey: TrackSurvey) -> list[str]:
    name = f"track {one.index}"
    if not one.packets:
        return [f"{name} has no packet"] if one.type != META else []
    found = []
    for kind, (singular, plural, detail) in _REMARKS.items():
        count = getattr(one, _COUNTS[kind])
        first = next(
            ((at, amount) for what, track, at, amount in survey.remarks if (what, track) == (kind, one.index)), None
        )
        if count and first is not None:
            at, amount_us = first
            words = f"{count} {singular if count == 1 else plural}"
            size = " " + detail.format(abs(amount_us) / 1e6) if detail else ""
            found.append(f"{name}: {words}, {'' if count == 1 else 'the first '}at {at / 1e6:.3f} s{size}")
    if one.type == VIDEO:
        if not one.keyframes:
            found.append(f"{name} has no keyframe")
        elif not survey.figures(one.index)["first_is_key"]:
            found.append(f"{name} does not begin with a keyframe")
        if one.gop is not None and one.gop.most_us > LONG_GOP_US:
            found.append(f"{name}: up to {one.gop.most_us / 1e6:.1f} s from one keyframe to the next")
        if not (one.width and one.height):
            found.append(f"{name}: its picture size is not known")
    return found

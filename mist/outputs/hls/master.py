"""The master playlist: qualities, and beside them other sound tracks and subtitles.

A stream with one sound track and no subtitles has a plain list of qualities. The first sound track is always in the segments of
the picture, so that players that know nothing of alternatives have sound.

Spec: RFC 8216 sections 4.3.4.1 and 4.3.4.2.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from mist.errors import NoSuitableTrack
from mist.formats import languages
from mist.formats.codecs import shown_codec_string
from mist.formats.m3u8 import Rendition, Variant, write_master
from mist.formats.tracks import AUDIO, META, SUBTITLE, VIDEO
from mist.stream.selectors import VIEWERS_MASK, explicit_selector, pick_by_selector, select_tracks
from mist.stream.state import TrackState

TS_CODECS: Final = ((("+HEVC", "+H264", "+MPEG2"), ("+AAC", "+MP3", "+AC3", "+EAC-3", "+MP2")),)
AUDIO_GROUP: Final = "audio"
SUBTITLE_GROUP: Final = "sub1"
LIVE_MARGIN: Final = 1.1  # of BANDWIDTH: fragments to come that are busier than those seen
# Of a packet in a transport stream at most: PES header, delimiter or ADTS header, filling.
PACKET_OVERHEAD_BYTES: Final = 210
TRANSPORT_FACTOR: Final = 188 / 184  # headers of transport stream packets
TABLES_BPS: Final = 3 * 188 * 8 * 5 // 2  # PAT, PMT and SDT, each 400 ms
USUAL_PACKETS_PER_SECOND: Final = 50
GUESSED_BPS: Final = {VIDEO: 2_000_000, AUDIO: 128_000}


def subtitle_tracks(states: Sequence[TrackState]) -> list[TrackState]:
    """Return the subtitle tracks that viewers may see, also those that have said nothing yet."""
    return [state for state in states if state.info.codec == SUBTITLE and state.valid_mask & VIEWERS_MASK]


def master_playlist(states: Sequence[TrackState], selectors: Mapping[str, str], query: str, *, live: bool) -> bytes:
    """Return the playlist of what the selectors choose. query: of every URL in it, "" or from its "?" on.

    Raises NoSuitableTrack.
    """
    by_index = {state.index: state for state in states}
    chosen = [by_index[index] for index in select_tracks(list(states), selectors, TS_CODECS, live=live)]
    videos = [state for state in chosen if state.info.type == VIDEO]
    audios = [state for state in chosen if state.info.type == AUDIO]
    if not videos and not audios:
        raise NoSuitableTrack("Stream has no track that HLS can carry and you asked for")
    subtitles = _chosen_subtitles(states, selectors)
    margin = LIVE_MARGIN if live else 1.0
    alternatives = audios[1:]
    variants = [_variant([video, *audios[:1]], alternatives, bool(subtitles), query, margin) for video in videos] or [
        _variant(audios[:1], alternatives, bool(subtitles), query, margin)
    ]
    renditions = _sounds(audios, query) if alternatives else []
    return write_master(variants, [*renditions, *_subtitles(subtitles, query)]).encode()


def _chosen_subtitles(states: Sequence[TrackState], selectors: Mapping[str, str]) -> list[TrackState]:
    tracks = subtitle_tracks(states)
    asked = [kind for kind in (META, SUBTITLE) if explicit_selector(selectors, kind)]
    if not asked:
        return tracks
    picked = {index for kind in asked for index in pick_by_selector(selectors[kind], kind, tracks)}
    return [track for track in tracks if track.index in picked]


def _sounds(tracks: Sequence[TrackState], query: str) -> list[Rendition]:
    """Return the sound tracks as renditions; the first is in the segments of the picture and has no URI."""
    names = _names(tracks)
    found: list[Rendition] = []
    for number, (track, name) in enumerate(zip(tracks, names, strict=True)):
        language = languages.tag(track.info.language)
        found.append(
            Rendition(
                type="AUDIO",
                group_id=AUDIO_GROUP,
                name=name,
                uri=_uri([track], query) if number else "",
                language=language,
                default=number == 0,
                autoselect=all(one.language != language for one in found),
                channels=str(track.info.channels or ""),
            )
        )
    return found


def _subtitles(tracks: Sequence[TrackState], query: str) -> list[Rendition]:
    return [
        Rendition("SUBTITLES", SUBTITLE_GROUP, name, _uri([track], query), languages.tag(track.info.language))
        for track, name in zip(tracks, _names(tracks), strict=True)
    ]


def _names(tracks: Sequence[TrackState]) -> list[str]:
    """Return a name for each track that no other of them has (section 4.3.4.1.1)."""
    names: list[str] = []
    for track in tracks:
        language = languages.english_name(track.info.language)
        name = f"Track {track.index}" if languages.tag(track.info.language) == "" else language.replace('"', "")
        names.append(name if name not in names else f"{name} ({track.index})")
    return names


def _uri(tracks: Sequence[TrackState], query: str) -> str:
    return f"{'_'.join(str(track.index) for track in tracks)}/index.m3u8{query}"


def _variant(
    tracks: Sequence[TrackState], alternatives: Sequence[TrackState], subtitles: bool, query: str, margin: float
) -> Variant:
    """Return the entry for a choice of tracks. alternatives: sound tracks that may be played instead of the one among them."""
    info = tracks[0].info
    codecs = list(dict.fromkeys(shown_codec_string(track.info) for track in (*tracks, *alternatives)))
    other_bps = max((_bandwidth_bps(track) for track in alternatives), default=0.0)
    frames = info.frame_rate_mhz or tracks[0].measured_frame_rate_mhz
    return Variant(
        _uri(tracks, query),
        bandwidth_bps=TABLES_BPS + round((sum(_bandwidth_bps(track) for track in tracks) + other_bps) * margin),
        codecs=",".join(codecs) if all(codecs) else "",  # a list that leaves one out would be wrong
        resolution=(info.width, info.height) if info.width and info.height else None,
        frame_rate=f"{frames / 1000:.3f}" if info.type == VIDEO and frames else "",
        audio=AUDIO_GROUP if alternatives else "",
        subtitles=SUBTITLE_GROUP if subtitles else "",
    )


def _bandwidth_bps(track: TrackState) -> float:
    """Return the bits a second of a track's busiest segment at most, as a transport stream."""
    measured = max(track.max_bytes_per_second, track.bytes_per_second) * 8
    payload = measured or track.info.bandwidth_bps or GUESSED_BPS.get(track.info.type, 0)
    span_us = track.last_us - track.first_us
    packets = track.next_sequence - track.first_sequence - 1
    per_second = packets * 1_000_000 / span_us if packets > 0 and span_us > 0 else USUAL_PACKETS_PER_SECOND
    return payload * TRANSPORT_FACTOR + per_second * PACKET_OVERHEAD_BYTES * 8

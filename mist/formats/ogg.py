"""What stands in the header packets of the codecs that Ogg carries, and how their granule positions count time.

Specs: RFC 7845 (Opus), Vorbis I appendix A, Theora specification section 6, Ogg FLAC mapping 1.0 (RFC 9639 section 10.1), Speex
manual section "Ogg file format". Pages are read and written by `mist.core.ogg_demux` and `mist.core.ogg_mux`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from mist.core.ogg_demux import OggDemuxer
from mist.core.ogg_mux import OggMuxer
from mist.errors import RemoteProtocolError, TruncatedError, UnsupportedError
from mist.formats import flac, opus, speex, theora, vorbis, xiph
from mist.formats.codecs import complete
from mist.formats.tracks import AUDIO, FLAC, OPUS, SPEEX, THEORA, VIDEO, VORBIS, TrackInfo

OPUS_TAGS: Final = b"OpusTags"
FLAC_MAGIC: Final = b"\x7fFLAC"
FLAC_HEADER_BYTES: Final = 51  # magic, version, header count, "fLaC", block header, STREAMINFO
FLAC_COMMENT_BLOCK: Final = 4
MAX_HEADER_PACKETS: Final = 256
PAGE_US: Final = 500_000  # of media in a page of a file

_FLAC_SPEC: Final = "Ogg FLAC mapping 1.0"


@dataclass(frozen=True, slots=True)
class Timing:
    """How a stream counts time, as `mist.core.ogg` takes it.

    rate_numerator / rate_denominator: ticks a second. packet_ticks: of every packet, where all are alike. pre_skip: granule
    positions are this many ticks ahead. granule_shift, first_frame: Theora's granule positions. blocks: Vorbis's short and long
    block; long_modes: which modes have the long one.
    """

    codec: str
    rate_numerator: int
    rate_denominator: int = 1
    packet_ticks: int = 0
    pre_skip: int = 0
    granule_shift: int = 0
    first_frame: int = 0
    blocks: tuple[int, int] = (0, 0)
    long_modes: tuple[bool, ...] = ()


@dataclass(frozen=True, slots=True)
class Mapping:
    """One codec in Ogg.

    magic: begins the first packet. least: as many header packets are needed. is_header: of a packet and its number in the stream,
    given the first packet. whole: tells whether these header packets are all. track: what they say. timing: of a track.
    packets: header packets for a track.
    """

    codec: str
    magic: bytes
    least: int
    is_header: Callable[[bytes, int, bytes], bool]
    whole: Callable[[Sequence[bytes]], bool]
    track: Callable[[Sequence[bytes]], TrackInfo]
    timing: Callable[[TrackInfo], Timing]
    packets: Callable[[TrackInfo], list[bytes]]


class HeaderReader:
    """The header packets of one stream, collected until they are all there."""

    def __init__(self, mapping: Mapping) -> None:
        self.mapping = mapping
        self.packets: list[bytes] = []

    def take(self, packet: bytes) -> bool:
        """Take the stream's next packet; False if it is none of the headers."""
        if not packet or not self.mapping.is_header(
            packet, len(self.packets), self.packets[0] if self.packets else packet
        ):
            return False
        if len(self.packets) < MAX_HEADER_PACKETS:
            self.packets.append(packet)
        return True

    def is_whole(self) -> bool:
        """Tell whether no more header packets come. A FLAC stream may leave that open."""
        return self.mapping.whole(self.packets)

    def track(self) -> TrackInfo:
        """Return what the headers say. Raises RemoteProtocolError, TruncatedError where some are missing."""
        if len(self.packets) < self.mapping.least:
            raise TruncatedError(f"{len(self.packets)} of {self.mapping.least} {self.mapping.codec} headers")
        return complete(self.mapping.track(self.packets))

    def timing(self, track: TrackInfo) -> Timing:
        """Return how the stream counts time. Raises RemoteProtocolError."""
        return self.mapping.timing(track)


# -- Opus


def _opus_track(packets: Sequence[bytes]) -> TrackInfo:
    opus.parse_head(packets[0])
    language = xiph.language_of(packets[1][len(OPUS_TAGS) :] if len(packets) > 1 else b"")
    return TrackInfo(AUDIO, OPUS, packets[0], language=language)


def _opus_head(track: TrackInfo) -> bytes:
    if track.init_data:
        return track.init_data
    channels = 1 if track.channels == 1 else 2
    return opus.build_head(opus.OpusHead(channels, coupled=channels - 1))


def _opus_timing(track: TrackInfo) -> Timing:
    head = opus.parse_head(_opus_head(track))
    return Timing(OPUS, opus.SAMPLE_RATE_HZ, pre_skip=head.pre_skip_samples)


def _opus_packets(track: TrackInfo) -> list[bytes]:
    return [_opus_head(track), OPUS_TAGS + _comments(track)]


def _comments(track: TrackInfo) -> bytes:
    return xiph.build_comments(comments={} if track.language == "und" else {"LANGUAGE": track.language})


# -- Vorbis and Theora


def _vorbis_track(packets: Sequence[bytes]) -> TrackInfo:
    found = vorbis.parse_identification(packets[0])
    init_data = vorbis.build_init_data(packets[0], packets[1], packets[2])
    language = xiph.language_of(packets[1][len(vorbis.COMMENTS) :])
    return TrackInfo(
        AUDIO, VORBIS, init_data, language=language, sample_rate_hz=found.sample_rate_hz, channels=found.channels,
        sample_bits=16, bandwidth_bps=found.bit_rate_bps,
    )  # fmt: skip


def _vorbis_timing(track: TrackInfo) -> Timing:
    identification, _, setup = vorbis.parse_headers(track.init_data)
    found = vorbis.parse_identification(identification)
    modes = vorbis.long_modes(setup, found.channels)
    blocks = (found.short_block_samples, found.long_block_samples)
    return Timing(VORBIS, found.sample_rate_hz, blocks=blocks, long_modes=modes)


def _vorbis_packets(track: TrackInfo) -> list[bytes]:
    return list(vorbis.parse_headers(track.init_data))


def _theora_track(packets: Sequence[bytes]) -> TrackInfo:
    found = theora.parse_identification(packets[0])
    init_data = theora.build_init_data(packets[0], packets[1], packets[2])
    language = xiph.language_of(packets[1][len(theora.COMMENTS) :])
    return TrackInfo(
        VIDEO, THEORA, init_data, language=language, width=found.width, height=found.height,
        frame_rate_mhz=found.frame_rate_mhz, bandwidth_bps=found.bit_rate_bps,
    )  # fmt: skip


def _theora_timing(track: TrackInfo) -> Timing:
    found = theora.describe(track.init_data)
    return Timing(
        THEORA, found.rate_numerator, found.rate_denominator, granule_shift=found.granule_shift,
        first_frame=int(found.version >= theora.COUNTS_FROM_ONE),
    )  # fmt: skip


def _theora_packets(track: TrackInfo) -> list[bytes]:
    return list(theora.parse_headers(track.init_data))


# -- FLAC


def _flac_track(packets: Sequence[bytes]) -> TrackInfo:
    first = packets[0]
    if len(first) < FLAC_HEADER_BYTES or first[5] != 1 or first[9:13] != b"fLaC" or first[13] & 0x7F:
        raise RemoteProtocolError("a broken FLAC header", offset=5, spec=_FLAC_SPEC)
    comments = (packet[4:] for packet in packets[1:] if packet[0] & 0x7F == FLAC_COMMENT_BLOCK)
    language = xiph.language_of(next(comments, b""))
    return TrackInfo(AUDIO, FLAC, first[17:FLAC_HEADER_BYTES], language=language)


def _flac_is_whole(packets: Sequence[bytes]) -> bool:
    count = int.from_bytes(packets[0][7:9], "big")
    return len(packets) > count if count else len(packets) > 1 and bool(packets[-1][0] & 0x80)


def _flac_timing(track: TrackInfo) -> Timing:
    return Timing(FLAC, flac.parse_stream_info(track.init_data).sample_rate_hz)


def _flac_packets(track: TrackInfo) -> list[bytes]:
    info = track.init_data
    comments = _comments(track)
    first = FLAC_MAGIC + b"\x01\x00\x00\x01" + b"fLaC" + b"\x00" + len(info).to_bytes(3, "big") + info
    return [first, bytes((0x80 | FLAC_COMMENT_BLOCK,)) + len(comments).to_bytes(3, "big") + comments]


# -- Speex


def _speex_track(packets: Sequence[bytes]) -> TrackInfo:
    found = speex.parse_header(packets[0])
    language = xiph.language_of(packets[1] if len(packets) > 1 else b"")
    return TrackInfo(
        AUDIO, SPEEX, packets[0], language=language, sample_rate_hz=found.sample_rate_hz, channels=found.channels,
        sample_bits=16, bandwidth_bps=found.bit_rate_bps,
    )  # fmt: skip


def _speex_head(track: TrackInfo) -> bytes:
    return track.init_data or speex.build_header(track.sample_rate_hz, max(track.channels, 1))


def _speex_timing(track: TrackInfo) -> Timing:
    found = speex.parse_header(_speex_head(track))
    return Timing(SPEEX, found.sample_rate_hz, packet_ticks=found.packet_samples)


def _speex_packets(track: TrackInfo) -> list[bytes]:
    head = bytearray(_speex_head(track))
    head[68:72] = bytes(4)  # the extra headers are not kept
    return [bytes(head), _comments(track)]


def _speex_header_count(first: bytes) -> int:
    return 2 + speex.parse_header(first).extra_headers


# -- all

_MAPPINGS: Final = (
    Mapping(
        OPUS, opus.MAGIC, 1, lambda packet, number, _first: number == 0 or (number == 1 and packet.startswith(OPUS_TAGS)),
        lambda packets: len(packets) == 2, _opus_track, _opus_timing, _opus_packets,
    ),
    Mapping(
        VORBIS, vorbis.IDENTIFICATION, 3, lambda packet, number, _first: number < 3 and bool(packet[0] & 1),
        lambda packets: len(packets) == 3, _vorbis_track, _vorbis_timing, _vorbis_packets,
    ),
    Mapping(
        THEORA, theora.IDENTIFICATION, 3, lambda packet, number, _first: number < 3 and bool(packet[0] & 0x80),
        lambda packets: len(packets) == 3, _theora_track, _theora_timing, _theora_packets,
    ),
    Mapping(
        FLAC, FLAC_MAGIC, 1, lambda packet, _number, _first: packet[0] != 0xFF, _flac_is_whole,
        _flac_track, _flac_timing, _flac_packets,
    ),
    Mapping(
        SPEEX, speex.MAGIC, 1, lambda _packet, number, first: number < _speex_header_count(first),
        lambda packets: len(packets) == _speex_header_count(packets[0]), _speex_track, _speex_timing, _speex_packets,
    ),
)  # fmt: skip
CODECS: Final = tuple(mapping.codec for mapping in _MAPPINGS)


def identify(packet: bytes) -> HeaderReader | None:
    """Return a reader of the headers of the stream that begins with this packet; None for a codec that is not known."""
    for mapping in _MAPPINGS:
        if packet.startswith(mapping.magic):
            return HeaderReader(mapping)
    return None


def header_packets(track: TrackInfo) -> list[bytes]:
    """Return the header packets of a track. Raises UnsupportedError for a codec that Ogg does not carry here."""
    return _mapping(track).packets(track)


def timing(track: TrackInfo) -> Timing:
    """Return how a track's granule positions count. Raises as `header_packets`."""
    return _mapping(track).timing(track)


def _mapping(track: TrackInfo) -> Mapping:
    for mapping in _MAPPINGS:
        if mapping.codec == track.codec:
            if not track.init_data and track.codec not in (OPUS, SPEEX):
                raise UnsupportedError(f"a {track.codec} track without init data cannot be put into Ogg")
            return mapping
    raise UnsupportedError(f"Ogg does not carry {track.codec}")


def continues(before: TrackInfo, after: TrackInfo) -> bool:
    """Tell whether a track of the next link of a chain goes on as the one before: what differs is no more than its comments."""
    if before.changed(track_id=0, init_data=b"") != after.changed(track_id=0, init_data=b""):
        return False
    split = {VORBIS: vorbis.parse_headers, THEORA: theora.parse_headers}.get(before.codec)
    if split is None or before.init_data == after.init_data:
        return before.init_data == after.init_data
    old, new = split(before.init_data), split(after.init_data)
    return (old[0], old[2]) == (new[0], new[2])


class _Headers:
    """The functions of this module as the engines take them."""

    identify = staticmethod(identify)
    header_packets = staticmethod(header_packets)
    timing = staticmethod(timing)
    continues = staticmethod(continues)


def make_demuxer() -> OggDemuxer:
    """Return a demuxer of Ogg."""
    return OggDemuxer(_Headers)


def make_muxer(tracks: Sequence[TrackInfo], page_us: int = PAGE_US) -> OggMuxer:
    """Return a muxer of Ogg. page_us: media time in a page; 0 for a live stream, where each packet is a page and leaves at once.

    Raises UnsupportedError.
    """
    return OggMuxer(tracks, _Headers, page_us)

"""AC-3 and E-AC-3: synchronisation frames and the boxes that describe them in MP4.

Spec: ETSI TS 102 366 V1.4.1 clauses 4.3 and 4.4 (AC-3), E.1 (E-AC-3), F.4 and F.6 (dac3, dec3).
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from mist.core.bits import BitReader, BitWriter
from mist.errors import LimitExceededError, RemoteProtocolError, TruncatedError

SYNC_WORD: Final = 0x0B77
MAX_SYNC_FRAME_BYTES: Final = 4096  # frmsiz has 11 bits and counts words
MAX_SUBSTREAMS: Final = 64  # 8 independent ones with 7 dependent ones each, clause E.1.3.1.2
HEADER_BYTES: Final = 8

INDEPENDENT: Final = 0
DEPENDENT: Final = 1
CONVERTED: Final = 2

_RATES_HZ: Final = (48000, 44100, 32000)
_BITRATES_KBPS: Final = (
    32,
    40,
    48,
    56,
    64,
    80,
    96,
    112,
    128,
    160,
    192,
    224,
    256,
    320,
    384,
    448,
    512,
    576,
    640,
)
_CHANNELS: Final = (2, 1, 2, 3, 3, 4, 4, 5)  # by acmod, table 4.3
_BLOCKS: Final = (1, 2, 3, 6)  # by numblkscod

# chan_loc of dec3 (table F.6.1) by the bits of chanmap, most significant first (table E.1.4).
_LOCATION_OF_MAP: Final = {5: 0, 6: 1, 7: 2, 8: 3, 9: 4, 10: 5, 11: 6, 12: 7, 14: 8}
_PAIRS_IN_MAP: Final = frozenset({5, 6, 9, 10, 11, 13})


@dataclass(frozen=True, slots=True)
class SyncFrame:
    """One synchronisation frame.

    bitstream_id: up to 10 AC-3, 11 to 16 E-AC-3. stream_type: of E-AC-3, 0 independent, 1 dependent, 2 converted.
    blocks: of 256 samples. channels: with the low-frequency one. channel_map: chanmap of a dependent substream, or 0.
    bitrate_code: of AC-3 (half of frmsizecod). complexity_index: of joint object coding, None without.
    """

    bitstream_id: int
    stream_type: int
    substream_id: int
    frame_bytes: int
    sample_rate_code: int
    sample_rate_hz: int
    blocks: int
    channel_mode: int
    lfe: bool
    channels: int
    bitstream_mode: int
    bitrate_bps: int
    bitrate_code: int = 0
    channel_map: int = 0
    complexity_index: int | None = None

    @property
    def extended(self) -> bool:
        """Whether this is E-AC-3."""
        return self.bitstream_id > 10


def parse_sync_frame(data: bytes, offset: int = 0) -> SyncFrame:
    """Parse the header of the AC-3 or E-AC-3 synchronisation frame at offset; the frame may end later than data.

    Raises TruncatedError where the header is not there as a whole; RemoteProtocolError where there is none.
    """
    if len(data) - offset < HEADER_BYTES:
        raise TruncatedError("an AC-3 header of under 8 bytes", offset=offset)
    if data[offset] << 8 | data[offset + 1] != SYNC_WORD:
        raise RemoteProtocolError(
            "no AC-3 synchronisation word",
            offset=offset,
            spec="ETSI TS 102 366 clause 4.3.1",
        )
    bitstream_id = data[offset + 5] >> 3
    if bitstream_id > 16:
        raise RemoteProtocolError(
            f"AC-3 bsid {bitstream_id}",
            offset=offset + 5,
            spec="ETSI TS 102 366 clause 4.4.2.1",
        )
    bits = BitReader(data[offset : offset + MAX_SYNC_FRAME_BYTES], 2)
    return _parse_extended(bits) if bitstream_id > 10 else _parse_plain(bits)


def _parse_plain(bits: BitReader) -> SyncFrame:
    """Parse syncinfo() and bsi().   Spec: ETSI TS 102 366 clauses 4.3.1 and 4.3.2."""
    bits.skip(16)  # crc1
    rate_code, size_code = bits.u(2), bits.u(6)
    bitstream_id, mode, channel_mode = bits.u(5), bits.u(3), bits.u(3)
    if rate_code == 3 or size_code >> 1 >= len(_BITRATES_KBPS):
        raise RemoteProtocolError("a broken AC-3 header", spec="ETSI TS 102 366 clause 4.4.1")
    if channel_mode & 1 and channel_mode != 1:
        bits.skip(2)
    if channel_mode & 4:
        bits.skip(2)
    if channel_mode == 2:
        bits.skip(2)
    lfe = bits.flag()
    shift = max(bitstream_id - 8, 0)  # half and quarter rates, annex of A/52 1995
    kbps = _BITRATES_KBPS[size_code >> 1]
    words = (kbps * 2, 320 * kbps // 147 + (size_code & 1), kbps * 3)[rate_code]
    return SyncFrame(
        bitstream_id, INDEPENDENT, 0, words * 2, rate_code, _RATES_HZ[rate_code] >> shift, 6, channel_mode, lfe,
        _CHANNELS[channel_mode] + lfe, mode, kbps * 1000 >> shift, size_code >> 1,
    )  # fmt: skip


def _parse_extended(bits: BitReader) -> SyncFrame:
    """Parse syncinfo() and bsi() of E-AC-3.   Spec: ETSI TS 102 366 clause E.1.2.2."""
    stream_type, substream_id, frame_bytes = bits.u(2), bits.u(3), (bits.u(11) + 1) * 2
    rate_code, second = bits.u(2), bits.u(2)
    if (rate_code == 3 and second == 3) or stream_type == 3:
        raise RemoteProtocolError("a broken E-AC-3 header", spec="ETSI TS 102 366 clause E.1.3.1")
    rate = _RATES_HZ[second] // 2 if rate_code == 3 else _RATES_HZ[rate_code]
    block_code = 3 if rate_code == 3 else second
    channel_mode, lfe, bitstream_id = bits.u(3), bits.flag(), bits.u(5)
    for _ in range(1 if channel_mode else 2):
        bits.skip(5)
        bits.skip(8 if bits.flag() else 0)
    channel_map = bits.u(16) if stream_type == DEPENDENT and bits.flag() else 0
    mode, complexity = 0, None
    try:
        mode = _read_metadata(bits, stream_type, channel_mode, lfe, rate_code, block_code)
        complexity = _read_additional(bits, stream_type, block_code)
    except TruncatedError:
        # Only a part of the frame was given; what is missing says nothing about rate and channels.
        complexity = None
    blocks = _BLOCKS[block_code]
    return SyncFrame(
        bitstream_id, stream_type, substream_id, frame_bytes, rate_code, rate, blocks, channel_mode, lfe,
        _CHANNELS[channel_mode] + lfe, mode, frame_bytes * 8 * rate // (blocks * 256), 0, channel_map, complexity,
    )  # fmt: skip


def _read_metadata(
    bits: BitReader,
    stream_type: int,
    mode: int,
    lfe: bool,
    rate_code: int,
    block_code: int,
) -> int:
    """Pass over mixing metadata and read bsmod of the informational metadata."""
    if bits.flag():
        _skip_mixing(bits, stream_type, mode, lfe, block_code)
    if not bits.flag():
        return 0
    bitstream_mode = bits.u(3)
    bits.skip(2 + (4 if mode == 2 else 0) + (2 if mode >= 6 else 0))
    for _ in range(1 if mode else 2):
        bits.skip(8 if bits.flag() else 0)
    bits.skip(1 if rate_code < 3 else 0)
    return bitstream_mode


def _skip_mixing(bits: BitReader, stream_type: int, mode: int, lfe: bool, block_code: int) -> None:
    """Pass over the mixing metadata.   Spec: ETSI TS 102 366 table E.1.2."""
    bits.skip((2 if mode > 2 else 0) + (6 if mode & 1 and mode > 2 else 0) + (6 if mode & 4 else 0))
    if lfe:
        bits.skip(5 if bits.flag() else 0)
    if stream_type != INDEPENDENT:
        return
    for _ in range(2 if mode else 3):  # pgmscl, pgmscl2 of dual mono, extpgmscl
        bits.skip(6 if bits.flag() else 0)
    definition = bits.u(2)
    if definition == 3:
        bits.skip(8 * (bits.u(5) + 2))
    else:
        bits.skip((0, 5, 12)[definition])
    if mode < 2:
        for _ in range(1 if mode else 2):
            bits.skip(14 if bits.flag() else 0)
    if bits.flag():
        if block_code == 0:
            bits.skip(5)
        else:
            for _ in range(_BLOCKS[block_code]):
                bits.skip(5 if bits.flag() else 0)


def _read_additional(bits: BitReader, stream_type: int, block_code: int) -> int | None:
    """Read addbsi; return the complexity index of joint object coding.   Spec: ETSI TS 103 420 clause 8.3.1."""
    if stream_type == INDEPENDENT and block_code != 3:
        bits.skip(1)
    if stream_type == CONVERTED and (block_code == 3 or bits.flag()):
        bits.skip(6)
    if not bits.flag():
        return None
    size = bits.u(6) + 1
    if size < 2:
        return None
    bits.skip(7)
    return bits.u(8) if bits.flag() else None


def iterate_sync_frames(payload: bytes) -> Iterator[SyncFrame]:
    """Yield the synchronisation frames of one packet (E-AC-3: the substreams of one access unit).

    Raises RemoteProtocolError; LimitExceededError for more than MAX_SUBSTREAMS frames.
    """
    at = 0
    for _ in range(MAX_SUBSTREAMS):
        frame = parse_sync_frame(payload, at)
        yield frame
        at += frame.frame_bytes
        if at >= len(payload):
            return
    raise LimitExceededError(f"more than {MAX_SUBSTREAMS} AC-3 frames in a packet", offset=at)


def channels_of(payload: bytes) -> int:
    """Return the channels of an access unit: of its first program with what dependent substreams add.

    Raises RemoteProtocolError.   Spec: ETSI TS 102 366 clause E.1.3.1.8.
    """
    frames = list(iterate_sync_frames(payload))
    channels = frames[0].channels
    for frame in frames[1:]:
        if frame.stream_type != DEPENDENT:
            break
        added = _locations(frame.channel_map)
        channels += sum(2 if place in _PAIRS_IN_MAP else 1 for place in added)
    return channels


def _locations(channel_map: int) -> list[int]:
    """Return the places in chanmap that are set and that a 5.1 program has not got already."""
    return [place for place in range(5, 15) if channel_map & 0x8000 >> place]


def build_dac3(frame: SyncFrame) -> bytes:
    """Return the payload of MP4's dac3 box (3 bytes).   Spec: ETSI TS 102 366 clause F.4."""
    bits = BitWriter()
    bits.u(frame.sample_rate_code, 2)
    bits.u(frame.bitstream_id, 5)
    bits.u(frame.bitstream_mode, 3)
    bits.u(frame.channel_mode, 3)
    bits.u(frame.lfe, 1)
    bits.u(frame.bitrate_code, 5)
    bits.u(0, 5)
    return bits.getvalue()


def build_dec3(payload: bytes) -> bytes:
    """Return the payload of MP4's dec3 box for the access unit in payload.

    Raises RemoteProtocolError where it is not E-AC-3.   Spec: ETSI TS 102 366 clause F.6.
    """
    programs: list[tuple[SyncFrame, list[SyncFrame]]] = []
    rate_bps = 0
    for frame in iterate_sync_frames(payload):
        rate_bps += frame.bitrate_bps
        if frame.stream_type == DEPENDENT and programs:
            programs[-1][1].append(frame)
        elif len(programs) < 8:
            programs.append((frame, []))
    bits = BitWriter()
    bits.u(min((rate_bps + 999) // 1000, 0x1FFF), 13)
    bits.u(len(programs) - 1, 3)
    for frame, dependent in programs:
        bits.u(frame.sample_rate_code, 2)
        bits.u(frame.bitstream_id, 5)
        bits.u(0, 2)  # reserved, asvc
        bits.u(frame.bitstream_mode, 3)
        bits.u(frame.channel_mode, 3)
        bits.u(frame.lfe, 1)
        bits.u(0, 3)
        bits.u(min(len(dependent), 15), 4)
        if dependent:
            places = {_LOCATION_OF_MAP.get(place) for one in dependent for place in _locations(one.channel_map)}
            bits.u(sum(1 << place for place in places if place is not None), 9)
        else:
            bits.u(0, 1)
    complexity = programs[0][0].complexity_index
    if complexity is not None:
        bits.u(1, 8)
        bits.u(complexity, 8)
    return bits.getvalue()


def codec_string(extended: bool) -> str:
    """Return "ec-3" for E-AC-3, "ac-3" for AC-3."""
    return "ec-3" if extended else "ac-3"

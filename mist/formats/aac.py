"""AAC: AudioSpecificConfig and ADTS headers.

Spec: ISO/IEC 14496-3 clause 1.6.2.1 (AudioSpecificConfig), 4.5.1.1 and 4.5.2.1 (program config element), 1.A.3 (ADTS).
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from mist.core.bits import BitReader, BitWriter
from mist.errors import (
    LocalProtocolError,
    RemoteProtocolError,
    TruncatedError,
    UnsupportedError,
)

MAIN: Final = 1
LC: Final = 2
SBR: Final = 5
ER_LC: Final = 17
PS: Final = 29
ER_LD: Final = 23
ER_ELD: Final = 39
USAC: Final = 42

SAMPLE_RATES_HZ: Final = (
    96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350,
)  # fmt: skip
CHANNELS: Final = (
    0,
    1,
    2,
    3,
    4,
    5,
    6,
    8,
    0,
    0,
    0,
    7,
    8,
    24,
    8,
    0,
)  # by channelConfiguration, table 1.19

ADTS_HEADER_BYTES: Final = 7
MAX_ADTS_FRAME_BYTES: Final = 8191  # aac_frame_length has 13 bits
MAX_SAMPLE_RATE_HZ: Final = 768_000
MAX_ADTS_OBJECT_TYPE: Final = 4

_RATE_OF_INDEX: Final = (*SAMPLE_RATES_HZ, 0, 0)
_ESCAPE: Final = 31
_ESCAPE_RATE: Final = 15
_PCE: Final = 5  # id_syn_ele of a program config element
_SYNC_SBR: Final = 0x2B7
_SYNC_PS: Final = 0x548
_GENERAL_AUDIO: Final = frozenset({1, 2, 3, 4, 6, 7, 17, 19, 20, 21, 22, 23})
_ERROR_RESILIENT: Final = frozenset({17, 19, 20, 21, 22, 23})
_SCALABLE: Final = frozenset({6, 20})


@dataclass(frozen=True, slots=True)
class AudioSpecificConfig:
    """Set-up of an AAC decoder.

    object_type: of the core (LC under HE-AAC). core_sample_rate_hz: of the core; sample_rate_hz: what comes out, with SBR.
    channel_configuration: 0 where a program config element tells. channels: what comes out, with parametric stereo; 0
    unknown. sbr, ps: signalled explicitly. frame_samples: that come out of one packet.
    program_config: the bits of the program config element, and how many, before its comment; or None. comment: of it.
    """

    object_type: int
    core_sample_rate_hz: int
    sample_rate_hz: int
    channel_configuration: int
    channels: int
    sbr: bool = False
    ps: bool = False
    frame_samples: int = 1024
    program_config: tuple[int, int] | None = None
    comment: bytes = b""


@dataclass(frozen=True, slots=True)
class AdtsHeader:
    """One ADTS header. header_bytes: 7, or 9 with a checksum; frame_bytes: header and payload.

    raw_data_blocks: AAC frames in the payload, 1 to 4.
    """

    mpeg2: bool
    object_type: int
    sample_rate_hz: int
    channel_configuration: int
    header_bytes: int
    frame_bytes: int
    raw_data_blocks: int


def _read_object_type(bits: BitReader) -> int:
    kind = bits.u(5)
    return 32 + bits.u(6) if kind == _ESCAPE else kind


def _read_rate(bits: BitReader) -> int:
    index = bits.u(4)
    rate = bits.u(24) if index == _ESCAPE_RATE else _RATE_OF_INDEX[index]
    if not 0 < rate <= MAX_SAMPLE_RATE_HZ:
        raise RemoteProtocolError(f"an AAC sample rate of {rate} Hz", spec="ISO/IEC 14496-3 table 1.18")
    return rate


@lru_cache(maxsize=64)
def parse_config(data: bytes) -> AudioSpecificConfig:
    """Parse an AudioSpecificConfig.

    HE-AAC counts where it is signalled, either way. Raises RemoteProtocolError.   Spec: ISO/IEC 14496-3 clause 1.6.2.1.
    """
    bits = BitReader(data)
    kind, rate, channel_configuration = (
        _read_object_type(bits),
        _read_rate(bits),
        bits.u(4),
    )
    output_rate, sbr, ps = rate, False, kind == PS
    if kind in (SBR, PS):
        sbr, output_rate, kind = True, _read_rate(bits), _read_object_type(bits)
    frame_samples, program = 1024, None
    comment, channels = b"", CHANNELS[channel_configuration]
    if kind in _GENERAL_AUDIO:
        frame_samples = (960 if bits.flag() else 1024) // (2 if kind == ER_LD else 1)
        bits.skip(14 if bits.flag() else 0)
        extension = bits.flag()
        if channel_configuration == 0:
            program, comment, channels = _read_program_config(bits)
        _skip_extension(bits, kind, extension)
        if not sbr and bits.remaining >= 16:
            sbr, ps, output_rate = _read_sync_extension(bits, rate)
    elif kind == ER_ELD:
        frame_samples = 480 if bits.flag() else 512
    if sbr and output_rate > rate:
        frame_samples *= 2
    if ps and channels == 1:
        channels = 2
    return AudioSpecificConfig(
        kind,
        rate,
        output_rate,
        channel_configuration,
        channels,
        sbr,
        ps,
        frame_samples,
        program,
        comment,
    )


def _skip_extension(bits: BitReader, kind: int, extension: bool) -> None:
    """Pass over the end of GASpecificConfig and epConfig.   Spec: ISO/IEC 14496-3 clauses 4.4.1 and 1.6.2.1."""
    try:
        if kind in _SCALABLE:
            bits.skip(3)
        if extension:
            bits.skip({22: 16, 17: 3, 19: 3, 20: 3, 23: 3}.get(kind, 0) + 1)
        if kind in _ERROR_RESILIENT:
            bits.skip(2)
    except TruncatedError:
        # Nothing of this is needed, and configurations made by hand stop after the channels.
        bits.skip(bits.remaining)


def _read_sync_extension(bits: BitReader, rate: int) -> tuple[bool, bool, int]:
    """Read backward compatible signalling of SBR and PS.   Spec: ISO/IEC 14496-3 table 1.15."""
    if bits.u(11) != _SYNC_SBR:
        return False, False, rate
    try:
        if _read_object_type(bits) != SBR or not bits.flag():
            return False, False, rate
        output_rate = _read_rate(bits)
        ps = bits.remaining >= 12 and bits.u(11) == _SYNC_PS and bits.flag()
    except RemoteProtocolError:
        # Bits that only looked like the extension: decoders go on without it.
        return False, False, rate
    return True, ps, output_rate


def _read_program_config(bits: BitReader) -> tuple[tuple[int, int], bytes, int]:
    """Return the bits of a program config element and their count, its comment, and its channels.

    Spec: ISO/IEC 14496-3 table 4.2.
    """
    begin = bits.position
    copy = BitReader(bits.data)
    bits.skip(10)  # element_instance_tag, object_type, sampling_frequency_index
    front, side, back, lfe, data, coupling = (bits.u(width) for width in (4, 4, 4, 2, 3, 4))
    for width in (4, 4, 3):
        if bits.flag():
            bits.skip(width)
    channels = lfe
    for _ in range(front + side + back):
        channels += 1 + bits.u(1)
        bits.skip(4)
    bits.skip(4 * (lfe + data) + 5 * coupling)
    count = bits.position - begin
    copy.skip(begin)
    value = 0
    for _ in range(count):
        value = value << 1 | copy.u(1)
    bits.align()
    return (value, count), bits.take(bits.u(8)), channels


def _write_object_type(bits: BitWriter, kind: int) -> None:
    if kind >= _ESCAPE:
        bits.u(_ESCAPE, 5)
        bits.u(kind - 32, 6)
    else:
        bits.u(kind, 5)


def _write_rate(bits: BitWriter, rate_hz: int) -> None:
    if rate_hz in SAMPLE_RATES_HZ:
        bits.u(SAMPLE_RATES_HZ.index(rate_hz), 4)
    else:
        bits.u(_ESCAPE_RATE, 4)
        bits.u(rate_hz, 24)


def _write_program_config(bits: BitWriter, program: tuple[int, int], comment: bytes) -> None:
    value, count = program
    for place in range(count - 1, -1, -1):
        bits.u(value >> place & 1, 1)
    bits.align()
    bits.u(len(comment), 8)
    bits.write(comment)


def build_config(config: AudioSpecificConfig) -> bytes:
    """Return the AudioSpecificConfig of a general audio object type; HE-AAC is signalled hierarchically.

    Raises LocalProtocolError for another object type, or without channels.   Spec: ISO/IEC 14496-3 clause 1.6.2.1.
    """
    if config.object_type not in _GENERAL_AUDIO - _SCALABLE - _ERROR_RESILIENT:
        raise LocalProtocolError(f"no AudioSpecificConfig is built for object type {config.object_type}")
    if config.channel_configuration == 0 and config.program_config is None:
        raise LocalProtocolError("an AudioSpecificConfig without channels")
    bits = BitWriter()
    _write_object_type(bits, (PS if config.ps else SBR) if config.sbr else config.object_type)
    _write_rate(bits, config.core_sample_rate_hz)
    bits.u(config.channel_configuration, 4)
    if config.sbr:
        _write_rate(bits, config.sample_rate_hz)
        _write_object_type(bits, config.object_type)
    bits.u(config.frame_samples in (960, 1920), 1)
    bits.u(0, 2)
    if config.channel_configuration == 0 and config.program_config is not None:
        _write_program_config(bits, config.program_config, config.comment)
    return bits.getvalue()


def simple_config(sample_rate_hz: int, channels: int, object_type: int = LC) -> AudioSpecificConfig:
    """Return the configuration of plain AAC with a standard channel layout.

    Raises UnsupportedError where no channel configuration has this many channels.
    """
    if channels not in CHANNELS[1:8]:
        raise UnsupportedError(f"AAC has no standard layout of {channels} channels")
    configuration = CHANNELS.index(channels, 1)
    return AudioSpecificConfig(object_type, sample_rate_hz, sample_rate_hz, configuration, channels)


def parse_adts(data: bytes, offset: int = 0) -> AdtsHeader:
    """Parse the ADTS header at offset.

    Raises TruncatedError for under 7 bytes (more may come); RemoteProtocolError where there is no ADTS header.
    Spec: ISO/IEC 14496-3 clause 1.A.3.2.
    """
    head = data[offset : offset + ADTS_HEADER_BYTES]
    if len(head) < ADTS_HEADER_BYTES:
        raise TruncatedError("an ADTS header of under 7 bytes", offset=offset)
    value = int.from_bytes(head, "big")
    if value >> 44 != 0xFFF or value >> 41 & 3:
        raise RemoteProtocolError("no ADTS sync word", offset=offset, spec="ISO/IEC 14496-3 clause 1.A.3.2.1")
    index = value >> 34 & 15
    header_bytes = 7 if value >> 40 & 1 else 9
    frame_bytes = value >> 13 & 0x1FFF
    if index >= len(SAMPLE_RATES_HZ) or frame_bytes < header_bytes:
        raise RemoteProtocolError(
            "a broken ADTS header",
            offset=offset,
            spec="ISO/IEC 14496-3 clause 1.A.3.2.1",
        )
    return AdtsHeader(
        bool(value >> 43 & 1), (value >> 38 & 3) + 1, SAMPLE_RATES_HZ[index], value >> 30 & 7,
        header_bytes, frame_bytes, (value & 3) + 1,
    )  # fmt: skip


def adts_config(header: AdtsHeader, payload: bytes = b"") -> bytes:
    """Return the AudioSpecificConfig that an ADTS header stands for.

    payload: the frame behind the header, read where its program config element tells the channels.
    Raises UnsupportedError where nothing tells the channels; RemoteProtocolError.
    """
    program, comment, channels = None, b"", CHANNELS[header.channel_configuration]
    if header.channel_configuration == 0:
        bits = BitReader(payload[:512])
        if bits.remaining < 3 or bits.u(3) != _PCE:
            raise UnsupportedError(
                "ADTS without a channel configuration",
                spec="ISO/IEC 14496-3 clause 1.A.3.2.1",
            )
        program, comment, channels = _read_program_config(bits)
    rate = header.sample_rate_hz
    return build_config(
        AudioSpecificConfig(
            header.object_type,
            rate,
            rate,
            header.channel_configuration,
            channels,
            False,
            False,
            1024,
            program,
            comment,
        )
    )


def adts_prefix(config: AudioSpecificConfig) -> bytes:
    """Return what stands before every frame in ADTS: the header with a length of 0, then a program config element if any.

    Put the length in with `set_adts_length`. Raises UnsupportedError where ADTS cannot carry the configuration.
    Spec: ISO/IEC 14496-3 clause 1.A.3.2.
    """
    if not 1 <= config.object_type <= MAX_ADTS_OBJECT_TYPE or config.core_sample_rate_hz not in SAMPLE_RATES_HZ:
        raise UnsupportedError(f"ADTS cannot carry AAC object type {config.object_type}")
    if config.channel_configuration > 7 or (config.channel_configuration == 0 and config.program_config is None):
        raise UnsupportedError("ADTS cannot carry this channel configuration")
    bits = BitWriter()
    bits.u(0xFFF1, 16)
    bits.u(config.object_type - 1, 2)
    bits.u(SAMPLE_RATES_HZ.index(config.core_sample_rate_hz), 4)
    bits.u(config.channel_configuration, 4)  # with private_bit 0 before it
    bits.u(0, 4 + 13)
    bits.u(0x7FF, 11)  # variable rate
    bits.u(0, 2)
    header = bits.getvalue()
    if config.channel_configuration or config.program_config is None:
        return header
    element = BitWriter()
    element.u(_PCE, 3)
    _write_program_config(element, config.program_config, config.comment)
    return header + element.getvalue()


def set_adts_length(prefix: bytes, payload_bytes: int) -> bytes:
    """Return a prefix from `adts_prefix` with the frame length for a payload of so many bytes.

    Raises UnsupportedError for a frame over MAX_ADTS_FRAME_BYTES.
    """
    frame_bytes = len(prefix) + payload_bytes
    if frame_bytes > MAX_ADTS_FRAME_BYTES:
        raise UnsupportedError(f"an AAC frame of {frame_bytes} bytes does not fit in ADTS")
    value = int.from_bytes(prefix[3:6], "big") | frame_bytes << 5
    return prefix[:3] + value.to_bytes(3, "big") + prefix[6:]


def build_adts_header(config: AudioSpecificConfig, payload_bytes: int) -> bytes:
    """Return the ADTS header (and program config element, if any) for one frame; raise UnsupportedError."""
    return set_adts_length(adts_prefix(config), payload_bytes)


def codec_string(config: AudioSpecificConfig) -> str:
    """Return the codec string: "mp4a.40." and the object type, 5 for HE-AAC and 29 for HE-AAC version 2.

    Spec: RFC 6381 section 3.3.
    """
    kind = (PS if config.ps else SBR) if config.sbr else config.object_type
    return f"mp4a.40.{kind}"

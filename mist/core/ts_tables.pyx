"""What a transport stream says about its tracks: PAT, PMT and SDT sections, descriptors, and set-up bytes of codecs.

Spec: ISO/IEC 13818-1 section 2.4.4, 2.6 (PSI, descriptors); EN 300 468 (SDT); ETSI TS 103 491 and its Opus profile; AOM
"Carriage of AV1 in MPEG-2 TS".
"""

from mist.core.ts_tables cimport ADTS, AV1, NAL_H264, NAL_HEVC, OPUS, SECTION, SIZED, WHOLE

import struct

from mist.core.bits import BitReader, BitWriter
from mist.core.crc import crc32_mpeg2
from mist.errors import RemoteProtocolError, UnsupportedError

PMT_PID = 4096
SDT_PID = 0x11
FIRST_PID = 256               # of the first track; the others follow
MAX_TRACKS = 64
MAX_PMT_LOOP_BYTES = 1024 - 16
MAX_SERVICE_NAME_BYTES = 150  # the SDT stays one packet

SAMPLE_RATES = (96000, 88200, 64000, 48000, 44100, 32000, 24000, 22050, 16000, 12000, 11025, 8000, 7350)


# -- what goes into the tables ------------------------------------------------------------------------------------------


def descriptor(tag, body):
    """Return a descriptor: tag, length, body."""
    return bytes((tag, len(body))) + body


def describe_aac(info):
    return descriptor(0x7C, b"\x51\x00")


def describe_opus(info):
    """Return registration and DVB extension descriptors; refuses channel layouts that have no code."""
    init = info.init_data
    channels = init[9] if len(init) > 18 else info.channels
    family = init[18] if len(init) > 18 else 0
    if not 1 <= channels <= (2 if family == 0 else 8) or family > 1:
        raise UnsupportedError(f"Opus with {channels} channels in mapping family {family} does not fit MPEG-TS")
    return descriptor(0x05, b"Opus") + descriptor(0x7F, bytes((0x80, channels)))


def describe_av1(info):
    init = info.init_data
    if len(init) < 4 or init[0] != 0x81:
        raise UnsupportedError("AV1 without a configuration record does not fit MPEG-TS")
    return descriptor(0x05, b"AV01") + descriptor(0x80, init[:3] + bytes((0xC0 | init[3] & 0x1F,)))


# codec: (how to write it, stream type, has its own range of stream ids, descriptors)
CODECS = {
    "H264": (NAL_H264, 0x1B, True, lambda info: b""),
    "HEVC": (NAL_HEVC, 0x24, True, lambda info: descriptor(0x05, b"HEVC")),
    "MPEG2": (WHOLE, 0x02, True, lambda info: b""),
    "AAC": (ADTS, 0x0F, True, describe_aac),
    "MP3": (WHOLE, 0x03, True, lambda info: b""),
    "MP2": (WHOLE, 0x03, True, lambda info: b""),
    "DTS": (WHOLE, 0x82, False, lambda info: descriptor(0x05, b"DTS2")),
    "AC3": (WHOLE, 0x81, False, lambda info: descriptor(0x05, b"AC-3") + descriptor(0x6A, b"\x00")),
    "EAC-3": (WHOLE, 0x87, False, lambda info: descriptor(0x05, b"EAC3") + descriptor(0x7A, b"\x00")),
    "opus": (OPUS, 0x06, False, describe_opus),
    "AV1": (AV1, 0x06, False, describe_av1),
    "JSON": (SIZED, 0x06, False, lambda info: descriptor(0x05, b"JSON")),
    "KLV": (WHOLE, 0x06, False, lambda info: descriptor(0x05, b"KLVA")),
    "ID3": (WHOLE, 0x15, False, lambda info: descriptor(0x26, b"\xff\xffID3 \xffID3 \x00\x0f")),
    "SCTE35": (SECTION, 0x86, False, lambda info: b""),
    "RAW": (WHOLE, 0x06, False, lambda info: info.init_data),
}

# What a program says of itself where it has such tracks: SCTE 35 section 8.1, metadata pointer of ISO/IEC 13818-1 section 2.6.58.
PROGRAM_DESCRIPTORS = {
    "SCTE35": descriptor(0x05, b"CUEI"),
    "ID3": descriptor(0x25, b"\xff\xffID3 \xffID3 \x00\x1f\x00\x01"),
}


def language_descriptor(language):
    """Return an ISO 639 language descriptor, or nothing for an unknown language."""
    code = language.encode("ascii", "replace")
    if len(code) != 3 or language == "und":
        return b""
    return descriptor(0x0A, code + b"\x00")


def section(table_id, number, version, body):
    """Return a long-form section with its CRC (13818-1 section 2.4.4.1)."""
    length = len(body) + 9
    # SDT sections have reserved_future_use where PSI has 0.
    marks = 0xF000 if table_id == 0x42 else 0xB000
    head = struct.pack(">BHHBBB", table_id, marks | length, number, 0xC1 | version << 1, 0, 0)
    content = head + body
    return content + struct.pack(">I", crc32_mpeg2(content))


def pat_section():
    """Return a program association section with program 1 (13818-1 section 2.4.4.3)."""
    return section(0, 1, 0, struct.pack(">HH", 1, 0xE000 | PMT_PID))


def pmt_section(version, pcr_place, loop, program=b""):
    """Return the program map section (13818-1 section 2.4.4.8).

    loop: of `stream_loop`. program: descriptors of the program. pcr_place: -1 for no PCR.
    """
    pcr_pid = FIRST_PID + pcr_place if pcr_place >= 0 else 0x1FFF
    return section(2, 1, version, struct.pack(">HH", 0xE000 | pcr_pid, 0xF000 | len(program)) + program + loop)


def program_descriptors(infos):
    """Return what is to be said of a program with these tracks."""
    codecs = {info.codec for info in infos}
    return b"".join(text for codec, text in PROGRAM_DESCRIPTORS.items() if codec in codecs)


def stream_loop(described):
    """Return the PMT's loop over elementary streams. Raises UnsupportedError if there are too many."""
    loop = b"".join(
        struct.pack(">BHH", stream_type, 0xE000 | FIRST_PID + place, 0xF000 | len(descriptors)) + descriptors
        for place, (_form, stream_type, _own_range, descriptors, _setup, _adts) in enumerate(described)
    )
    if len(loop) + sum(map(len, PROGRAM_DESCRIPTORS.values())) > MAX_PMT_LOOP_BYTES or len(described) > MAX_TRACKS:
        raise UnsupportedError(f"{len(described)} tracks do not fit a PMT")
    return loop


def sdt_section(stream_name):
    """Return a service description section that names program 1 (EN 300 468 section 5.2.3)."""
    name = stream_name.encode("utf-8")[:MAX_SERVICE_NAME_BYTES].decode("utf-8", "ignore").encode("utf-8")
    if not name.isascii():
        name = b"\x15" + name  # EN 300 468 annex A: UTF-8 follows
    service = descriptor(0x48, b"\x01\x04mist" + bytes((len(name),)) + name)
    return section(0x42, 1, 0, struct.pack(">HBHBH", 0xFF01, 0xFF, 1, 0xFC, 0x8000 | len(service)) + service)


# -- codec set-up -----------------------------------------------------------------------------------------------------


def parameter_sets_h264(init):
    """Return the parameter sets of an avcC record in Annex B form; what is broken is left out.

    Spec: ISO/IEC 14496-15 section 5.3.3.1.
    """
    sets = []
    offset = 5
    for mask in (31, 255):
        if offset >= len(init):
            break
        count = init[offset] & mask
        offset += 1
        offset = read_sets(init, offset, count, sets)
    return b"".join(sets)


def parameter_sets_hevc(init):
    """Return the parameter sets of an hvcC record in Annex B form. Spec: ISO/IEC 14496-15 section 8.3.3.1."""
    sets = []
    offset = 23
    for _ in range(init[22] if len(init) > 22 else 0):
        if offset + 3 > len(init):
            break
        kind = init[offset] & 63
        count = init[offset + 1] << 8 | init[offset + 2]
        found = []
        offset = read_sets(init, offset + 3, count, found)
        if 32 <= kind <= 34:  # not the SEI messages that some records hold
            sets += found
    return b"".join(sets)


def read_sets(init, offset, count, sets):
    """Append `count` NAL units with 16-bit lengths to sets; returns the offset behind them."""
    for _ in range(count):
        if offset + 2 > len(init):
            return len(init)
        size = init[offset] << 8 | init[offset + 1]
        unit = init[offset + 2:offset + 2 + size]
        offset += 2 + size
        if len(unit) == size and size:
            sets.append(b"\x00\x00\x00\x01" + unit)
    return offset


def adts_header(info):
    """Return bytes 0 to 3 of the ADTS header of an AAC track, with frame length 0.

    Reads the AudioSpecificConfig (ISO/IEC 14496-3 section 1.6.2.1), else uses the track's properties as AAC-LC. Raises
    UnsupportedError for object types that ADTS cannot say.
    """
    init = info.init_data
    if len(init) < 2:
        if info.sample_rate_hz <= 0:
            raise UnsupportedError("AAC without AudioSpecificConfig does not fit MPEG-TS")
        return adts_bytes(2, nearest_rate(info.sample_rate_hz), adts_channels(info.channels))
    bits = int.from_bytes(init[:16].ljust(16, b"\x00"), "big")
    place = 128

    def take(count):
        nonlocal place
        place -= count
        return bits >> place & (1 << count) - 1

    def object_type():
        number = take(5)
        return 32 + take(6) if number == 31 else number

    def rate():
        index = take(4)
        return nearest_rate(take(24)) if index == 15 else index

    kind, index, channels = object_type(), rate(), take(4)
    if kind in (5, 29):  # SBR and PS in the explicit form: the core's type follows
        rate()
        kind = object_type()
    if not 1 <= kind <= 4 or index > 12:
        raise UnsupportedError(f"AAC object type {kind} does not fit ADTS")
    return adts_bytes(kind, index, channels if channels < 8 else 0)


def program_element(init):
    """Return the program config element of an AudioSpecificConfig as it stands in front of frames, with its comment; b"" for none.

    ADTS has no number for channels such as 2.1 or 6.1, only this element says what they are.
    Spec: ISO/IEC 14496-3 tables 1.15, 4.1 and 4.2, section 1.A.2.2.1 (channel_configuration 0).
    """
    reader = BitReader(init)
    try:
        return element_of(reader)
    except RemoteProtocolError:
        return b""      # a configuration without its element: decoders may still know what it is


def element_of(reader):
    def object_type():
        kind = reader.u(5)
        return 32 + reader.u(6) if kind == 31 else kind

    def skip_rate():
        if reader.u(4) == 15:
            reader.skip(24)

    kind = object_type()
    skip_rate()
    if reader.u(4):
        return b""
    if kind in (5, 29):
        skip_rate()
        object_type()
    reader.skip(1)
    reader.skip(14 if reader.u(1) else 0)
    reader.skip(1)
    writer = BitWriter()

    def copied(width):
        value = reader.u(width)
        writer.u(value, width)
        return value

    writer.u(5, 3)
    copied(10)
    front, side, back, lfe, data, coupling = [copied(width) for width in (4, 4, 4, 2, 3, 4)]
    for width in (4, 4, 3):
        if copied(1):
            copied(width)
    for _ in range(front + side + back):
        copied(5)
    for width in [4] * (lfe + data) + [5] * coupling:
        copied(width)
    reader.align()
    comment = reader.take(reader.u(8))
    return writer.getvalue() + bytes((len(comment),)) + comment


def nearest_rate(rate_hz):
    return min(range(len(SAMPLE_RATES)), key=lambda index: abs(SAMPLE_RATES[index] - rate_hz))


def adts_channels(channels):
    return 7 if channels == 8 else channels if 0 < channels < 7 else 2


def adts_bytes(kind, index, channels):
    """Return the fixed part: MPEG-4, no CRC (ISO/IEC 14496-3 section 1.A.2.2.1)."""
    return bytes((0xFF, 0xF1, kind - 1 << 6 | index << 2 | channels >> 2, (channels & 3) << 6))


def describe_track(info):
    """Return (form, stream type, whether in the stream ids of its type, descriptors, set-up bytes, ADTS bytes) of a track.

    Set-up bytes go before a keyframe that has none: parameter sets with start codes, OBUs as the record has them, or AAC's channels.

    Raises UnsupportedError for what a transport stream cannot carry.
    """
    row = CODECS.get(info.codec)
    if row is None:
        raise UnsupportedError(f"{info.codec} does not fit MPEG-TS")
    form, stream_type, own_range, describe = row
    setup = SETUPS[form](info.init_data) if form in SETUPS else b""
    adts = adts_header(info) if form == ADTS else bytes(4)
    language = b"" if info.codec == "RAW" else language_descriptor(info.language)   # those of RAW are all that there were
    return form, stream_type, own_range, describe(info) + language, setup, adts


SETUPS = {NAL_H264: parameter_sets_h264, NAL_HEVC: parameter_sets_hevc, AV1: lambda init: init[4:], ADTS: program_element}

"""What a transport stream says of itself: sections put together, programs and elementary streams read from PAT and PMT.

Specs: ISO/IEC 13818-1 sections 2.4.4 and 2.6; ETSI TS 101 154 and EN 300 468 (AC-3, DTS); SCTE 35 section 8.1; SMPTE RP 217 (KLV);
ETSI TS 103 491 and its Opus profile; AOM "Carriage of AV1 in MPEG-2 TS".
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport uint8_t

from mist.core.buffer cimport ByteBuffer
from mist.core.crc cimport crc32_mpeg2_of

cdef enum:
    MAX_SECTION_BYTES = 4096 + 3        # private sections; PSI ends at 1024
    LONG_HEADER_BYTES = 8
    CRC_BYTES = 4

VIDEO_CODECS = {0x01: "MPEG2", 0x02: "MPEG2", 0x1B: "H264", 0x24: "HEVC"}
AUDIO_CODECS = {0x03: "MP3", 0x04: "MP3", 0x0F: "AAC", 0x11: "LATM", 0x81: "AC3", 0x87: "EAC-3", 0x8A: "DTS"}
DISC_CODECS = {0x81: "AC3", 0x82: "DTS", 0x84: "EAC-3", 0x85: "DTS", 0x86: "DTS", 0xA1: "EAC-3", 0xA2: "DTS"}
REGISTERED_AUDIO = {b"Opus": "opus", b"AC-3": "AC3", b"EAC3": "EAC-3", b"DTS1": "DTS", b"DTS2": "DTS", b"DTS3": "DTS"}
REGISTERED_META = {b"JSON": "JSON", b"KLVA": "KLV", b"ID3 ": "ID3", b"CUEI": "SCTE35"}
SILENT_TAGS = {0x0A, 0x52, 0x7C}     # language, component, AAC: with these alone the payload tells ADTS, LATM and others
UNTOLD = "?"
DESCRIBED_AUDIO = {0x6A: "AC3", 0x7A: "EAC-3", 0x7B: "DTS"}

LANGUAGE_TAG = 0x0A
REGISTRATION_TAG = 0x05
METADATA_TAG = 0x26
EXTENSION_TAG = 0x7F
PRIVATE_DATA = 0x06
METADATA = 0x15
SCTE35 = 0x86
DTS_OR_SUBTITLES = 0x82     # of SCTE 27, where a registration says so
DISC_REGISTRATION = b"HDMV"


@cython.final
cdef class SectionReader:
    """Sections of one PID. tables: give out only tables that apply now, with a right checksum, and not the same one again and again.

    Spec: ISO/IEC 13818-1 section 2.4.4.
    """

    def __init__(self, bint tables):
        self.held = ByteBuffer()
        self.tables = tables
        self.counter = -1
        self.newest = b""

    cdef list feed(self, const uint8_t* data, size_t size, bint start, int counter, bint broken):
        """Take a packet's payload; return the sections that end in it. broken: the counter may jump here."""
        cdef list found = []
        cdef size_t pointer
        if counter == self.counter and not broken:
            return found        # sent twice
        if self.counter >= 0 and counter != (self.counter + 1) & 15:
            self.open = False
        self.counter = counter
        if not start:
            if self.open:
                self.more(data, size, found)
            return found
        pointer = data[0] + 1 if size else 1
        if pointer > size:
            self.open = False
            return found
        if self.open:
            self.more(data + 1, pointer - 1, found)
        self.held.clear()
        self.open = True
        self.more(data + pointer, size - pointer, found)
        return found

    cdef int more(self, const uint8_t* data, size_t size, list found) except -1:
        """Add bytes and take off all sections that are complete."""
        cdef size_t length, need
        while size and self.open:
            if not self.held.size and data[0] == 0xFF:
                self.open = False       # stuffing up to the next start
                return 0
            need = 3
            if self.held.size >= 3:
                need = 3 + (<size_t> (self.held.data[1] & 15) << 8 | self.held.data[2])
            length = min(size, need - self.held.size)
            self.held.append(data, length)
            data += length
            size -= length
            if self.held.size == need and need > 3:
                self.check(found)
                self.held.clear()
            elif self.held.size == 3 and self.held.data[1] & 15 == 0 and self.held.data[2] == 0:
                self.held.clear()
        return 0

    cdef int check(self, list found) except -1:
        """Give out the section that is held, if it is to be seen."""
        cdef const uint8_t* data = self.held.data
        cdef size_t size = self.held.size
        cdef bytes section
        if data[1] & 0x80 and (size < LONG_HEADER_BYTES + CRC_BYTES or crc32_mpeg2_of(data, size, 0xFFFFFFFF)):
            return 0
        if self.tables and not (data[1] & 0x80 and data[5] & 1):
            return 0
        section = PyBytes_FromStringAndSize(<const char*> data, <Py_ssize_t> size)
        if not self.tables or section != self.newest:
            self.newest = section
            found.append(section)
        return 0


def parse_programs(bytes section not None):
    """Return (section number, last section number, {program number: PID of its PMT}) of a PAT section; None for other tables.

    Spec: ISO/IEC 13818-1 section 2.4.4.3.
    """
    if section[0] != 0:
        return None
    programs = {}
    for at in range(LONG_HEADER_BYTES, len(section) - CRC_BYTES - 3, 4):
        number = section[at] << 8 | section[at + 1]
        if number:
            programs[number] = (section[at + 2] & 0x1F) << 8 | section[at + 3]
    return section[6], section[7], programs


class StreamDescription:
    """One elementary stream as its PMT describes it.

    type: "video", "audio", "meta". codec: internal name, LATM for AAC in that form, or UNTOLD. language: ISO 639-2. descriptors: as
    they stand.
    channel_code: of Opus, channel_config_code; -1 without. sections: the PID carries sections, not PES packets.
    """

    def __init__(self, pid, type_, codec, language="und", descriptors=b"", channel_code=-1, sections=False):
        self.pid = pid
        self.type = type_
        self.codec = codec
        self.language = language
        self.descriptors = descriptors
        self.channel_code = channel_code
        self.sections = sections

    def told(self, bytes payload not None):
        """Return the description of a stream of which the tables do not tell, by what a PES packet begins with.

        None where that does not tell either, and nothing describes it.
        """
        codec = codec_by_sync(payload)
        if codec:
            return StreamDescription(self.pid, "audio", codec, self.language)
        return StreamDescription(self.pid, "meta", "RAW", self.language, self.descriptors) if self.descriptors else None

    def key(self):
        """Return what makes it another stream when it changes."""
        return self.pid, self.codec, self.channel_code

    def __repr__(self):
        return f"StreamDescription(pid={self.pid}, {self.codec}, {self.language})"


def parse_streams(bytes section not None):
    """Return (program number, PCR PID, [StreamDescription of each stream that is understood]) of a PMT section; None for other tables.

    Spec: ISO/IEC 13818-1 section 2.4.4.8.
    """
    if section[0] != 2 or len(section) < LONG_HEADER_BYTES + 4 + CRC_BYTES:
        return None
    end = len(section) - CRC_BYTES
    at = 12 + ((section[10] & 15) << 8 | section[11])
    program = dict(parse_descriptors(section[12:min(at, end)]))
    disc = program.get(REGISTRATION_TAG, b"")[:4] == DISC_REGISTRATION
    streams = []
    seen = set()
    while at + 5 <= end:
        pid = (section[at + 1] & 0x1F) << 8 | section[at + 2]
        length = (section[at + 3] & 15) << 8 | section[at + 4]
        stream = describe(section[at], pid, section[at + 5:min(at + 5 + length, end)], disc)
        if stream is not None and pid not in seen and 0x10 <= pid < 0x1FFF:
            seen.add(pid)
            streams.append(stream)
        at += 5 + length
    return section[3] << 8 | section[4], (section[8] & 0x1F) << 8 | section[9], streams


def parse_descriptors(bytes data not None):
    """Return [(tag, body)] of a descriptor loop; a broken one ends it."""
    found = []
    at = 0
    while at + 2 <= len(data) and at + 2 + data[at + 1] <= len(data):
        found.append((data[at], data[at + 2:at + 2 + data[at + 1]]))
        at += 2 + data[at + 1]
    return found


def describe(stream_type, pid, bytes descriptors, bint disc):
    """Return the description of a stream, or None for one that is not understood. disc: the program is of a Blu-ray disc."""
    cdef dict tags = {}
    for tag, body in parse_descriptors(descriptors):
        tags.setdefault(tag, body)
    registration = tags.get(REGISTRATION_TAG, b"")[:4]
    language = language_of(tags)
    if disc and stream_type in DISC_CODECS:
        return StreamDescription(pid, "audio", DISC_CODECS[stream_type], language)
    if stream_type in VIDEO_CODECS:
        return StreamDescription(pid, "video", VIDEO_CODECS[stream_type], language)
    if stream_type in AUDIO_CODECS:
        return StreamDescription(pid, "audio", AUDIO_CODECS[stream_type], language)
    if stream_type == DTS_OR_SUBTITLES and REGISTERED_AUDIO.get(registration or b"DTS1") == "DTS":
        return StreamDescription(pid, "audio", "DTS", language)
    if stream_type == SCTE35:
        return StreamDescription(pid, "meta", "SCTE35", language, sections=True)
    if stream_type == METADATA:
        codec = "KLV" if registration == b"KLVA" or b"KLVA" in tags.get(METADATA_TAG, b"") else "ID3"
        return StreamDescription(pid, "meta", codec, language)
    if stream_type == PRIVATE_DATA and tags.keys() <= SILENT_TAGS:
        return StreamDescription(pid, "audio", UNTOLD, language, descriptors)
    if stream_type == PRIVATE_DATA:
        return describe_private(pid, registration, language, descriptors, tags)
    return None


def describe_private(pid, bytes registration, language, bytes descriptors, dict tags):
    """Return the description of a stream of type 6, which only its descriptors explain."""
    if registration == b"AV01":
        return StreamDescription(pid, "video", "AV1", language)
    if registration == b"HEVC":
        return StreamDescription(pid, "video", "HEVC", language)
    codec = REGISTERED_AUDIO.get(registration)
    if codec is None:
        codec = next((name for tag, name in DESCRIBED_AUDIO.items() if tag in tags), None)
    if codec is not None:
        extension = tags.get(EXTENSION_TAG, b"")
        code = extension[1] if codec == "opus" and len(extension) > 1 and extension[0] == 0x80 else -1
        return StreamDescription(pid, "audio", codec, language, channel_code=code)
    codec = REGISTERED_META.get(registration, "RAW")
    return StreamDescription(pid, "meta", "RAW" if codec == "SCTE35" else codec, language, descriptors)


def codec_by_sync(bytes payload):
    """Return the codec whose frames begin like this, "" for none.

    Specs: ISO/IEC 14496-3 sections 1.7.2 and 1.A.3, ETSI TS 102 366, ETSI TS 102 114.
    """
    if len(payload) < 6:
        return ""
    if payload[0] == 0xFF and payload[1] & 0xF6 == 0xF0:
        return "AAC"
    if payload[0] == 0x56 and payload[1] & 0xE0 == 0xE0:
        return "LATM"
    if payload[:2] == b"\x0b\x77":
        return "EAC-3" if payload[5] >> 3 > 10 else "AC3"
    return "DTS" if payload[:4] == b"\x7f\xfe\x80\x01" else ""


def language_of(dict tags):
    """Return the language of an ISO 639 descriptor, "und" without a proper one."""
    code = tags.get(LANGUAGE_TAG, b"")[:3].lower()
    return code.decode("ascii") if len(code) == 3 and code.isalpha() and code.isascii() else "und"

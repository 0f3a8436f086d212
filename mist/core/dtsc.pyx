"""DTSC: MistServer's own format of packets, for files, pipes and between servers. Reader and muxer.

A packet is a magic, the count of the bytes after the first 8, and a typed object. `DTSC` holds what is known of the stream, `DTP2` (and
`DTPD`, its elder) one piece of media with its track and time in milliseconds, `DTCM` a command of the protocol.

Where both ends know it, a packet also has the members `dus` and `pus`: the microseconds that its decode and its presentation time are
later than the whole milliseconds say. Other readers pass over members that they do not know.
"""

cimport cython
from cpython.bytes cimport PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.string cimport memcmp, memcpy

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.dtsc_objects cimport (
    INTEGER,
    OBJECT,
    OTHER_OBJECT,
    STRING,
    be16,
    be32,
    be64,
    parse_at,
    put_be32,
    put_be64,
    to_ms,
    value_end,
)
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, NEW_INIT, PacketView
from mist.core.track_buffer cimport KEY_RECORD
from mist.core.trim cimport trim_flags, trim_of

from mist.core.demuxer import READ_BYTES
from mist.core.dtsc_objects import serialize_object
from mist.errors import LimitExceededError, LocalProtocolError, RemoteProtocolError, TruncatedError

MAX_TRACKS = 64
MAX_PACKET_BYTES = 64 << 20
MAX_HEADER_BYTES = 256 << 20        # of a file, with its index; ten hours of 30 frames a second and sound are 30 MB
MAX_COMMAND_BYTES = 64 << 10
MAX_HEADERS = 16                    # that refer to each other
MAX_TIME_MS = 1 << 52
MAX_OFFSET_MS = 1 << 40
DTSH_VERSION = 4

cdef enum:
    HEAD_BYTES = 8
    MEDIA_HEAD_BYTES = 20
    MAX_MEDIA_BYTES_BEFORE_DATA = 100   # more than all members but the payload take

cdef uint32_t HEADER_MAGIC = 0x44545343     # DTSC
cdef uint32_t COMMAND_MAGIC = 0x4454434D    # DTCM
cdef uint32_t MEDIA_MAGIC = 0x44545032      # DTP2
cdef uint32_t OLD_MEDIA_MAGIC = 0x44545044  # DTPD
cdef uint64_t TIME_LIMIT_MS = <uint64_t> 1 << 52
cdef int64_t OFFSET_LIMIT_MS = <int64_t> 1 << 40


# -- reading

cdef int read_fields(const uint8_t* data, size_t at, size_t size, PacketFields* found) except -1:
    """Find the members of a packet's object that matter; others are passed over.

    Raises RemoteProtocolError, TruncatedError, LimitExceededError with the offset in the packet.
    """
    cdef const uint8_t* name
    cdef size_t length, value
    if at >= size or (data[at] != OBJECT and data[at] != OTHER_OBJECT):
        raise RemoteProtocolError("a packet without an object", offset=at)
    at += 1
    while True:
        if size - at < 3:
            raise TruncatedError("a packet's object has no end", offset=at)
        length = be16(data + at)
        if length == 0:
            return 0
        if length > size - at - 2:
            raise TruncatedError("a member's name goes beyond the packet", offset=at)
        name = data + at + 2
        value = at + 2 + length
        at = value_end(data, value, size, 1)
        if data[value] == INTEGER:
            read_number(name, length, <int64_t> be64(data + value + 1), found)
        elif data[value] == STRING and length == 4 and memcmp(name, b"data", 4) == 0:
            found.data = data + value + 5
            found.size = at - value - 5


cdef int read_number(const uint8_t* name, size_t length, int64_t value, PacketFields* found) noexcept:
    if length == 4 and memcmp(name, b"time", 4) == 0:
        found.time_ms = <uint64_t> value
    elif length == 6 and memcmp(name, b"offset", 6) == 0:
        found.offset_ms = value
    elif length == 7 and memcmp(name, b"trackid", 7) == 0:
        found.track = <uint64_t> value
    elif length == 8 and memcmp(name, b"keyframe", 8) == 0:
        found.keyframe = value != 0
    elif length == 3 and memcmp(name, b"dus", 3) == 0:
        found.time_rest_us = value
    elif length == 3 and memcmp(name, b"pus", 3) == 0:
        found.shown_rest_us = value
        found.has_shown_rest = True
    elif length == 3 and memcmp(name, b"tus", 3) == 0:
        found.trim_us = value
    return 0


cdef class DtscReader(Demuxer):
    """DTSC in, packets out. A subclass says what a header's track is (`describe`).

    seekable: the input may be read anywhere, so a header's reference to another one is followed. max_packet_bytes,
    max_header_bytes: larger ones are refused.

    In a file whose header has an index, packets name their track by its place in that header, else by its track id. Commands go to
    `on_command`; after the command `reset` the next header replaces all tracks. An input that begins with packets needs `add_header` first.
    """

    def __cinit__(self, *args, **kwargs):
        self.rest = ByteBuffer()
        self.resume_at = -1

    def __init__(self, bint seekable=True, size_t max_packet_bytes=MAX_PACKET_BYTES,
                 size_t max_header_bytes=MAX_HEADER_BYTES):
        self.seekable = seekable
        self.max_packet_bytes = max_packet_bytes
        self.max_header_bytes = max_header_bytes

    def describe(self, name, members):
        """Return what a muxer must know of a track. members: of the track in a header. Raises RemoteProtocolError."""
        raise NotImplementedError

    def want(self):
        if self.ended:
            return None
        return self.next_byte, READ_BYTES

    def feed(self, data):
        cdef const uint8_t[::1] view = data
        if view.shape[0] == 0:
            self.end()
            return
        self.jumped = False
        self.take(&view[0], <size_t> view.shape[0])

    def end(self):
        """Take note that the input is over. Raises TruncatedError if it ended inside a packet."""
        cdef int64_t at = self.packet_at
        if self.resume_at >= 0:
            self.stop_following()
            return
        self.ended = True
        if self.rest.size:
            raise TruncatedError(f"the input ends in a packet, {self.rest.size} bytes after its start", offset=at)

    def seek(self, int64_t dts_us, int64_t position):
        self.rest.clear()
        self.resume_at = -1
        self.next_byte = position
        self.ended = False
        self.jumped = True

    cdef int take(self, const uint8_t* data, size_t size) except -1:
        """Handle the packets in the bytes fed; keep what is left of the last one."""
        cdef size_t at = 0
        cdef size_t need, count
        while at < size and not self.jumped:
            if self.rest.size == 0:
                self.packet_at = self.next_byte
                if size - at >= HEAD_BYTES:
                    need = self.packet_size(data + at)
                    if self.jumped:
                        return 0
                    if size - at >= need:
                        self.next_byte += <int64_t> need
                        self.packet(data + at, need)
                        at += need
                        continue
            need = HEAD_BYTES if self.rest.size < HEAD_BYTES else self.packet_size(self.rest.data)
            if self.jumped:
                return 0
            count = min(need - self.rest.size, size - at)
            self.rest.append(data + at, count)
            self.next_byte += <int64_t> count
            at += count
            if self.rest.size >= HEAD_BYTES and self.rest.size == self.packet_size(self.rest.data) and not self.jumped:
                try:
                    self.packet(self.rest.data, self.rest.size)
                finally:
                    self.rest.clear()
        return 0

    cdef size_t packet_size(self, const uint8_t* head) except 0:
        """Return the size of the packet that begins here. Raises RemoteProtocolError, LimitExceededError."""
        cdef uint32_t magic = be32(head)
        cdef size_t size = <size_t> be32(head + 4) + HEAD_BYTES
        cdef size_t limit = self.max_packet_bytes
        if self.resume_at >= 0 and magic != HEADER_MAGIC:
            self.stop_following()
            return HEAD_BYTES
        if magic == HEADER_MAGIC:
            limit = self.max_header_bytes
        elif magic == COMMAND_MAGIC:
            limit = MAX_COMMAND_BYTES
        elif magic >> 16 != 0x4454:
            raise RemoteProtocolError(f"0x{magic:08x} where a packet must begin", offset=self.packet_at)
        if size > limit:
            raise LimitExceededError(f"a packet of {size} bytes; the limit is {limit}", offset=self.packet_at)
        return size

    cdef int packet(self, const uint8_t* data, size_t size) except -1:
        """Handle a whole packet. Kinds that are not known are passed over."""
        cdef uint32_t magic = be32(data)
        try:
            if magic == MEDIA_MAGIC:
                self.media(data, size, False)
            elif magic == OLD_MEDIA_MAGIC:
                self.media(data, size, True)
            elif magic == HEADER_MAGIC:
                self.header(parse_at(data, HEAD_BYTES, size))
            elif magic == COMMAND_MAGIC:
                self.command(parse_at(data, HEAD_BYTES, size))
        except RemoteProtocolError as error:
            if error.offset is not None and not error.spec:
                error.offset += self.packet_at
                error.spec = "DTSC"
            raise
        return 0

    cdef int media(self, const uint8_t* data, size_t size, bint old) except -1:
        cdef PacketFields fields
        cdef PacketView view
        cdef int64_t shown_us
        cdef int track
        fields.time_ms = fields.track = 0
        fields.offset_ms = fields.time_rest_us = fields.shown_rest_us = fields.trim_us = 0
        fields.keyframe = fields.has_shown_rest = False
        fields.data = NULL
        if old:
            read_fields(data, HEAD_BYTES, size, &fields)
        else:
            if size < MEDIA_HEAD_BYTES:
                raise TruncatedError("a packet without track and time", offset=size)
            read_fields(data, MEDIA_HEAD_BYTES, size, &fields)
            fields.track = be32(data + 8)
            fields.time_ms = be64(data + 12)
        if fields.data is NULL:
            return 0
        if fields.time_ms > TIME_LIMIT_MS:
            raise LimitExceededError(f"the time {fields.time_ms} ms; the limit is {MAX_TIME_MS}", offset=12)
        for bound in (fields.offset_ms, fields.time_rest_us // 1000, fields.shown_rest_us // 1000):
            if not -OFFSET_LIMIT_MS <= bound <= OFFSET_LIMIT_MS:
                raise LimitExceededError(f"a time offset of {bound} ms; the limit is {MAX_OFFSET_MS}", offset=12)
        track = self.track_number(fields.track)
        view.dts_us = <int64_t> fields.time_ms * 1000 + fields.time_rest_us
        shown_us = (<int64_t> fields.time_ms + fields.offset_ms) * 1000
        shown_us += fields.shown_rest_us if fields.has_shown_rest else fields.time_rest_us
        view.offset_us = shown_us - view.dts_us
        view.flags = (KEYFRAME if fields.keyframe or not self.video[track] else 0) | trim_flags(fields.trim_us)
        if self.changed[track]:
            self.changed[track] = 0
            view.flags |= NEW_INIT
        view.data, view.size = fields.data, fields.size
        self.position = self.packet_at
        return self.emit(track, &view)

    cdef int track_number(self, uint64_t wire) except -1:
        """Return the number of the track that a packet names. Raises RemoteProtocolError for one without header."""
        cdef int number
        if self.by_place and wire < <uint64_t> self.place_count:
            return self.places[wire]
        for number in range(self.count):
            if self.ids[number] == wire and self.known[number]:
                return number
        what = "which no header announced" if self.ready else "before any header"
        raise RemoteProtocolError(f"a packet of track {wire}, {what}", offset=8)

    def track_id(self, int number):
        """Return what the peer calls a track. Raises IndexError."""
        if not 0 <= number < self.count:
            raise IndexError(number)
        return self.ids[number]

    @property
    def announced(self):
        """Numbers of the tracks that packets may name now."""
        return [number for number in range(self.count) if self.known[number]]

    # -- state for another process

    @property
    def rest_bytes(self):
        """Bytes of the packet that has begun."""
        return self.rest.size

    def export_state(self):
        """Return (what is known by headers, as JSON has it; the bytes of a packet that has begun)."""
        cdef int number
        numbers = range(self.count)
        return {
            "tracks": [info.export_state() for info in self.tracks],
            "ids": [self.ids[number] for number in numbers],
            "known": [self.known[number] for number in numbers],
            "changed": [self.changed[number] for number in numbers],
            "places": [self.places[number] for number in range(self.place_count)],
            "by_place": bool(self.by_place),
            "replace": bool(self.replace),
            "ready": bool(self.ready),
            "live": bool(self.live),
            "vod": bool(self.vod),
            "zero": self.unix_zero_ms,
            "next": self.next_byte,
            "packet": self.packet_at,
        }, PyBytes_FromStringAndSize(<const char*> self.rest.data, <Py_ssize_t> self.rest.size)

    def restore(self, state, tracks, bytes rest not None):
        """Go on from what `export_state` returned. tracks: those of the state. Raises LocalProtocolError."""
        cdef int number
        try:
            if len(tracks) > TRACK_LIMIT or len(state["places"]) > TRACK_LIMIT or len(rest) > self.max_packet_bytes + HEAD_BYTES:
                raise LocalProtocolError("more in a state than a connection has")
            self.tracks, self.count = list(tracks), <int> len(tracks)
            for number in range(self.count):
                self.ids[number], self.known[number] = state["ids"][number], state["known"][number]
                self.changed[number] = state["changed"][number]
                self.video[number] = tracks[number].type == "video"
            self.place_count = <int> len(state["places"])
            for number in range(self.place_count):
                self.places[number] = state["places"][number]
                if not 0 <= self.places[number] < self.count:
                    raise LocalProtocolError("a place of a track that is not there")
            self.by_place, self.replace, self.ready = state["by_place"], state["replace"], state["ready"]
            self.live, self.vod, self.unix_zero_ms = state["live"], state["vod"], state["zero"]
            self.next_byte, self.packet_at = state["next"], state["packet"]
        except (KeyError, TypeError, IndexError, OverflowError, AttributeError) as error:
            raise LocalProtocolError(f"damaged state of a DTSC reader: {error}") from error
        self.rest.clear()
        self.rest.append(<const uint8_t*> <const char*> rest, <size_t> len(rest))

    # -- headers and commands

    def command(self, members):
        """Take a command's members."""
        if members.get("cmd") == b"reset":
            self.replace = True
        if self.on_command is not None:
            self.on_command(members)

    def header(self, members):
        """Take a header, or go on to the one that it refers to."""
        elsewhere = members.get("moreheader")
        if self.seekable and isinstance(elsewhere, int) and 0 < elsewhere < 1 << 62:
            self.headers_followed += 1
            if self.headers_followed > MAX_HEADERS:
                raise LimitExceededError(f"more than {MAX_HEADERS} headers refer to each other", offset=HEAD_BYTES)
            if self.resume_at < 0:
                self.resume_at = self.next_byte
            self.last_header = members
            self.next_byte = elsewhere
            self.jumped = True
            return
        if self.resume_at >= 0:
            self.last_header = members
            self.stop_following()
            return
        self.add_header(members)

    cdef int stop_following(self) except -1:
        """Use the last header that was found, and go on with the packets."""
        self.next_byte, self.resume_at = self.resume_at, -1
        self.headers_followed = 0
        self.jumped = True
        self.rest.clear()
        members, self.last_header = self.last_header, None
        self.add_header(members)
        return 0

    def add_header(self, members):
        """Take up what a header says of stream and tracks: tracks that were there go on, new ones come after them.

        members: as `parse_object` returns them. Raises RemoteProtocolError, LimitExceededError.
        """
        cdef int number
        tracks = members.get("tracks")
        tracks = tracks if isinstance(tracks, dict) else {}
        if len(tracks) > TRACK_LIMIT:
            raise LimitExceededError(f"{len(tracks)} tracks; the limit is {MAX_TRACKS}", offset=HEAD_BYTES)
        zero = members.get("unixzero")
        self.unix_zero_ms = zero if isinstance(zero, int) and 0 < zero < MAX_TIME_MS else None
        self.live, self.vod = bool(members.get("live")), bool(members.get("vod"))
        if self.replace:
            self.replace = False
            for number in range(self.count):
                self.known[number] = 0
        self.place_count = 0
        self.by_place = False
        for name, entry in tracks.items():
            if not isinstance(entry, dict):
                raise RemoteProtocolError(f"the track {name[:64]!r} of a header is no object", offset=HEAD_BYTES)
            self.by_place = self.by_place or "keys" in entry
            self.add_track(name, entry)
        if not self.ready:
            self.become_ready()
        if self.on_header is not None:
            self.on_header(members)

    def add_track(self, name, entry):
        """Take up one track of a header."""
        cdef uint64_t wire
        cdef int number
        given = entry.get("trackid")
        wire = <uint64_t> given if isinstance(given, int) and 0 <= given < 1 << 63 else <uint64_t> self.place_count + 1
        info = self.describe(name, entry)
        for number in range(self.count):
            if self.ids[number] == wire:
                break
        else:
            number = self.free_number()
        self.places[self.place_count] = number
        self.place_count += 1
        self.ids[number] = wire
        self.known[number] = 1
        self.video[number] = info.type == "video"
        if number == self.count:
            self.count += 1
            self.set_track(number, info, False)
        elif self.tracks[number] != info:
            self.changed[number] = 1
            self.set_track(number, info, True)

    def free_number(self):
        """Return a number for a new track: one that no track ever had, else one that no track has now."""
        cdef int number
        if self.count < TRACK_LIMIT:
            return self.count
        for number in range(self.count):
            if not self.known[number]:
                return number
        raise LimitExceededError(f"more than {MAX_TRACKS} tracks", offset=HEAD_BYTES)


# -- writing

def track_name(info, int number):
    """Return the name of a track in a header's `tracks`."""
    if not info.type:
        return f"metadata_{number}"
    parts = [info.type, info.codec]
    if info.type == "audio":
        parts += [f"{info.channels}ch", f"{info.sample_rate_hz}hz"]
    elif info.type == "video":
        parts += [f"{info.width}x{info.height}", f"{info.frame_rate_mhz / 1000:g}fps"]
    if info.language and info.language != "und":
        parts.append(info.language)
    return "_".join([*parts, str(number)])


def track_members(info, int64_t first_ms, int64_t last_ms, rates, int64_t measured_frame_rate_mhz):
    """Return a track's members in a header after its track id, in their order.

    rates: mean and peak bytes a second. measured_frame_rate_mhz: frames in 1000 s.
    """
    members = {"firstms": first_ms, "lastms": last_ms, "bps": rates[0], "maxbps": rates[1]}
    members |= {"init": info.init_data, "codec": info.codec}
    if info.language and info.language != "und":
        members["lang"] = info.language
    members["type"] = info.type
    if info.type == "audio":
        members |= {"rate": info.sample_rate_hz, "size": info.sample_bits, "channels": info.channels}
        if info.delay_us:
            members["delay"] = info.delay_us
    elif info.type == "video":
        members |= {"width": info.width, "height": info.height, "fpks": info.frame_rate_mhz}
        members["efpks"] = measured_frame_rate_mhz
        if info.rotation_degrees:
            members["rotation"] = info.rotation_degrees
    return members


@cython.final
cdef class DtscMuxer(Muxer):
    """Packets as `DTP2`, after a header without an index; a track's id is its number plus 1.

    live: what the header says the stream is. unix_zero_us(): unix time in microseconds at media time 0, 0 for unknown; asked whenever
    a header is made. exact: packets carry the microseconds that milliseconds leave out, for receivers that asked for them.
    """

    def __init__(self, tracks, *, bint live=True, unix_zero_us=None, bint exact=False):
        self.live = live
        self.unix_zero = unix_zero_us
        self.exact = exact
        self.adopt(list(tracks))

    def adopt(self, list tracks not None):
        """Keep a list of tracks. Raises LimitExceededError."""
        cdef int number
        if len(tracks) > TRACK_LIMIT:
            raise LimitExceededError(f"{len(tracks)} tracks; the limit is {MAX_TRACKS}")
        self.tracks = tracks
        for number in range(len(tracks)):
            self.video[number] = tracks[number].type == "video"

    def header(self, start_us=0):
        cdef int number
        start_ms = max(0, to_ms(start_us))
        members = {"live": 1} if self.live else {"vod": 1}
        members["version"] = DTSH_VERSION
        zero_us = self.unix_zero() if self.unix_zero is not None else 0
        if zero_us:
            members["unixzero"] = to_ms(zero_us)
        members["tracks"] = {
            track_name(info, number): {"trackid": number + 1}
            | track_members(info, start_ms, start_ms, [info.bandwidth_bps // 8] * 2, info.frame_rate_mhz)
            for number, info in enumerate(self.tracks)
        }
        return packet_bytes(b"DTSC", serialize_object(members))

    def set_tracks(self, tracks):
        """Go on with other tracks: a header says so at this place."""
        self.adopt(list(tracks))
        self.out.write(self.header(0))
        return True

    def finish(self):
        """End the output; DTSC has nothing to say at its end."""

    def patches(self):
        """Return what to overwrite in a file after its end: nothing."""
        return []

    cdef int write_view(self, int track, const PacketView* packet) except -1:
        cdef int64_t time_ms = to_ms(packet.dts_us)
        cdef int64_t shown_us = packet.dts_us + packet.offset_us
        cdef int64_t offset_ms, time_rest, shown_rest
        cdef uint8_t* start
        cdef uint8_t* at
        if time_ms < 0:
            time_ms = 0
        offset_ms = to_ms(shown_us) - time_ms
        if packet.size > <uint64_t> 0xFFFFFF00:
            raise LimitExceededError(f"a packet of {packet.size} bytes is more than DTSC can carry")
        start = self.out.reserve(packet.size + MAX_MEDIA_BYTES_BEFORE_DATA + 54)
        memcpy(start, b"DTP2", 4)
        at = put_be32(start + 8, <uint32_t> track + 1)
        at = put_be64(at, <uint64_t> time_ms)
        at[0] = OBJECT
        at += 1
        if offset_ms:
            at = put_member(at, b"\x00\x06offset", 8, offset_ms)
        # The packets of other tracks are all places to begin at, but a reader lists each marked one: only those that we list are.
        if packet.flags & (KEYFRAME if self.video[track] else KEY_RECORD):
            at = put_member(at, b"\x00\x08keyframe", 10, 1)
        memcpy(at, b"\x00\x04data\x02", 7)
        at = put_be32(at + 7, <uint32_t> packet.size)
        memcpy(at, packet.data, packet.size)
        at += packet.size
        if self.exact:
            time_rest = packet.dts_us - time_ms * 1000
            shown_rest = shown_us - (time_ms + offset_ms) * 1000
            if time_rest:
                at = put_member(at, b"\x00\x03dus", 5, time_rest)
            if shown_rest != time_rest:
                at = put_member(at, b"\x00\x03pus", 5, shown_rest)
            if trim_of(packet.flags):
                at = put_member(at, b"\x00\x03tus", 5, trim_of(packet.flags))
        memcpy(at, b"\x00\x00\xee", 3)
        at += 3
        put_be32(start + 4, <uint32_t> (at - start - HEAD_BYTES))
        self.out.commit(<size_t> (at - start))
        return 0


cdef uint8_t* put_member(uint8_t* at, const char* name, size_t size, int64_t value) noexcept:
    """Write an integer member. name: with its length before it."""
    memcpy(at, name, size)
    at[size] = INTEGER
    return put_be64(at + size + 1, <uint64_t> value)


def packet_bytes(bytes magic not None, bytes body not None):
    """Return a packet with this magic."""
    if len(body) > 0xFFFFFFFF:
        raise LimitExceededError(f"{len(body)} bytes are more than a DTSC packet holds")
    return magic + len(body).to_bytes(4, "big") + body

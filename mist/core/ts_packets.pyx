"""Transport stream packets: sections and PES packets cut into 188 bytes, time stamps, clock references."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_GET_SIZE
from libc.stdint cimport int64_t, uint8_t, uint64_t
from libc.string cimport memcpy, memmove, memset

from mist.core.buffer cimport ByteBuffer


cdef uint64_t clock_90khz(int64_t time_us) noexcept nogil:
    """Return microseconds as 90 kHz, rounded, modulo 2**33."""
    cdef int64_t wide = time_us * 9 + 50
    cdef int64_t ticks = wide // 100
    if wide % 100 < 0:
        ticks -= 1
    return <uint64_t> ticks & <uint64_t> 0x1FFFFFFFF


cdef uint8_t* put_stamp(uint8_t* target, int prefix, uint64_t ticks) noexcept nogil:
    """Write a PTS or DTS (13818-1 section 2.4.3.7); returns the place behind it."""
    target[0] = <uint8_t> (prefix << 4 | (ticks >> 29 & 14) | 1)
    target[1] = <uint8_t> (ticks >> 22)
    target[2] = <uint8_t> ((ticks >> 14 & 254) | 1)
    target[3] = <uint8_t> (ticks >> 7)
    target[4] = <uint8_t> ((ticks << 1 & 254) | 1)
    return target + 5


cdef void put_pcr(uint8_t* target, int64_t pcr_us) noexcept nogil:
    """Write a PCR, exact to 27 MHz (13818-1 section 2.4.3.5)."""
    cdef int64_t ticks = pcr_us * 27
    cdef int64_t base = ticks // 300
    cdef int64_t rest = ticks % 300
    cdef uint64_t wrapped
    if rest < 0:
        rest += 300
        base -= 1
    wrapped = <uint64_t> base & <uint64_t> 0x1FFFFFFFF
    target[0] = <uint8_t> (wrapped >> 25)
    target[1] = <uint8_t> (wrapped >> 17)
    target[2] = <uint8_t> (wrapped >> 9)
    target[3] = <uint8_t> (wrapped >> 1)
    target[4] = <uint8_t> ((wrapped & 1) << 7 | 0x7E | rest >> 8)
    target[5] = <uint8_t> rest


cdef uint8_t* packetize(
    uint8_t* target, const Piece* piece, size_t left, Elementary* es, uint8_t flags, int64_t pcr_us
) noexcept nogil:
    """Write TS packets with `left` bytes taken from the pieces; returns the place behind the last one.

    flags: of the first packet's adaptation field. Stuffing goes into the last packet's adaptation field.
    """
    cdef const uint8_t* source = piece.data
    cdef size_t available = piece.size
    cdef size_t room, field, count
    cdef uint8_t* place
    cdef uint8_t start = 0x40
    while left:
        target[0] = 0x47
        target[1] = start | <uint8_t> (es.pid >> 8)
        target[2] = <uint8_t> es.pid
        if not start and left >= BODY and available >= BODY:
            target[3] = 0x10 | es.counter
            es.counter = (es.counter + 1) & 15
            memcpy(target + 4, source, BODY)
            source += BODY
            available -= BODY
            left -= BODY
            target += PACKET
            continue
        field = 0
        if start and flags:
            field = 8 if flags & AF_PCR else 2
        if left < BODY - field:
            field = BODY - left
        target[3] = (0x30 if field else 0x10) | es.counter
        es.counter = (es.counter + 1) & 15
        if field:
            target[4] = <uint8_t> (field - 1)
            if field > 1:
                target[5] = flags if start else 0
                place = target + 6
                if start and flags & AF_PCR:
                    put_pcr(place, pcr_us)
                    place += 6
                memset(place, 0xFF, <size_t> (target + 4 + field - place))
        place = target + 4 + field
        room = BODY - field
        left -= room
        while room:
            while not available:
                piece += 1
                source = piece.data
                available = piece.size
            count = room if room < available else available
            memcpy(place, source, count)
            place += count
            source += count
            available -= count
            room -= count
        start = 0
        target += PACKET
    return target


cdef void split_packet(uint8_t* packet, size_t extra, size_t behind) noexcept nogil:
    """Move the last `extra` bytes of a packet's payload into packets of their own, with one byte each.

    behind: bytes after the packet, which move up; the continuity counters of the same PID in them rise by `extra`.
    """
    cdef size_t field = packet[4] + 1 if packet[3] & 0x20 else 0
    cdef size_t fixed = 1 if field < 2 else 8 if packet[5] & AF_PCR else 2   # of the field, before its stuffing
    cdef size_t number, left = BODY - field - extra
    cdef uint8_t[BODY] payload
    cdef uint8_t* target
    memcpy(payload, packet + 4 + field, BODY - field)
    memmove(packet + (1 + extra) * PACKET, packet + PACKET, behind)
    if field < 2 and left < BODY - 1:
        packet[5] = 0
        fixed = 2
    packet[3] |= 0x20
    packet[4] = <uint8_t> (BODY - left - 1)
    memset(packet + 4 + fixed, 0xFF, BODY - left - fixed)
    memcpy(packet + PACKET - left, payload, left)
    for number in range(extra):
        target = packet + (1 + number) * PACKET
        memset(target, 0xFF, PACKET)
        target[0] = 0x47
        target[1] = packet[1] & 0x1F
        target[2] = packet[2]
        target[3] = <uint8_t> (0x30 | (packet[3] + number + 1) & 15)
        target[4] = BODY - 2
        target[5] = 0
        target[PACKET - 1] = payload[left + number]
    target = packet + (1 + extra) * PACKET
    while behind >= PACKET:
        if (target[1] & 0x1F) == (packet[1] & 0x1F) and target[2] == packet[2]:
            target[3] = target[3] & 0xF0 | <uint8_t> ((target[3] + extra) & 15)
        target += PACKET
        behind -= PACKET


cdef uint8_t* put_pcr_packet(uint8_t* target, const Elementary* es, int64_t pcr_us) noexcept nogil:
    """Write a packet without payload that carries a PCR; returns the place behind it."""
    target[0] = 0x47
    target[1] = <uint8_t> (es.pid >> 8)
    target[2] = <uint8_t> es.pid
    target[3] = 0x20 | ((es.counter - 1) & 15)
    target[4] = BODY - 1
    target[5] = AF_PCR
    put_pcr(target + 6, pcr_us)
    memset(target + 12, 0xFF, PACKET - 12)
    return target + PACKET


cdef int write_section(ByteBuffer out, int pid, bytes content, int counter) except -1:
    """Append a section in as many packets as it takes (13818-1 section 2.4.4); returns the next continuity counter."""
    cdef const uint8_t* source = <const uint8_t*> PyBytes_AS_STRING(content)
    cdef size_t left = <size_t> PyBytes_GET_SIZE(content)
    cdef size_t count
    cdef uint8_t* target
    cdef uint8_t* place
    cdef uint8_t start = 0x40
    while left:
        target = out.reserve(PACKET)
        target[0] = 0x47
        target[1] = start | <uint8_t> (pid >> 8)
        target[2] = <uint8_t> pid
        target[3] = <uint8_t> (0x10 | counter)
        place = target + 4
        if start:
            place[0] = 0  # pointer_field
            place += 1
        count = <size_t> (target + PACKET - place)
        if count > left:
            count = left
        memcpy(place, source, count)
        place += count
        memset(place, 0xFF, <size_t> (target + PACKET - place))
        out.commit(PACKET)
        source += count
        left -= count
        counter = (counter + 1) & 15
        start = 0
    return counter

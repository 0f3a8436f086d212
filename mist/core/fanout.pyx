"""Delivery: one muxer for many viewers, each with nothing but a position.

A *group* is what receives equal bytes: same stream, same tracks, same format. Its muxer writes into an arena, a byte
ring that is mapped twice in a row so that every range of it is contiguous; a viewer costs one `send(2)` from its position
to the arena's end. The arena keeps what lies between the newest place where a viewer may begin, or the slowest viewer,
and the end; memory behind that is given back to the kernel. A viewer that falls too far behind skips to a later keyframe.

Everything is driven by one epoll descriptor, which the owner's event loop watches: doorbells of streams, sockets that
became writable or readable, and one timer.
"""

cimport cython
from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize, PyBytes_GET_SIZE
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint8_t, uint32_t, uint64_t
from libc.stdlib cimport free, realloc
from libc.string cimport memcpy, memset
from posix.mman cimport MAP_FAILED, MAP_SHARED, PROT_NONE, PROT_READ, PROT_WRITE, mmap, munmap
from posix.time cimport clock_gettime, itimerspec, timespec
from posix.unistd cimport close, ftruncate, read

from mist.core.checkpoint cimport MAX_CURSORS
from mist.core.doorbell cimport Doorbell
from mist.core.packet cimport NEW_INIT, PacketView
from mist.core.shm cimport load32, load64, monotonic_us, unix_us
from mist.core.track_buffer cimport KEY_RECORD, MAX_TRACKS, PacketRecord, TrackReader

import os

from mist.errors import LimitExceededError, MistError

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        MSG_NOSIGNAL
        SHUT_RDWR
    ssize_t c_send "send"(int, const void*, size_t, int)
    ssize_t c_recv "recv"(int, void*, size_t, int)
    int c_shutdown "shutdown"(int, int)

cdef extern from "<sys/mman.h>" nogil:
    enum:
        MAP_FIXED
        MAP_ANONYMOUS
        MAP_PRIVATE
        MFD_CLOEXEC
    int memfd_create(const char*, unsigned int)

cdef extern from "<fcntl.h>" nogil:
    enum:
        FALLOC_FL_PUNCH_HOLE
        FALLOC_FL_KEEP_SIZE
    int fallocate(int, int, long, long)

cdef extern from "<sys/epoll.h>" nogil:
    enum:
        EPOLL_CTL_ADD
        EPOLL_CTL_DEL
        EPOLL_CTL_MOD
        EPOLLIN
        EPOLLOUT
        EPOLLERR
        EPOLLHUP
        EPOLL_CLOEXEC
    ctypedef union epoll_data_t:
        uint64_t u64
    struct epoll_event:
        uint32_t events
        epoll_data_t data
    int epoll_create1(int)
    int epoll_ctl(int, int, int, epoll_event*)
    int epoll_wait(int, epoll_event*, int, int)

cdef extern from "<sys/timerfd.h>" nogil:
    enum:
        TFD_NONBLOCK
        TFD_CLOEXEC
        TFD_TIMER_ABSTIME
    int timerfd_create(int, int)
    int timerfd_settime(int, int, const itimerspec*, itimerspec*)

cdef extern from "<poll.h>" nogil:
    enum:
        POLLIN
    struct pollfd:
        int fd
        short events
        short revents
    int poll(pollfd*, unsigned long, int)

cdef extern from "<time.h>" nogil:
    enum:
        CLOCK_MONOTONIC
        CLOCK_THREAD_CPUTIME_ID

ARENA_BYTES = 64 << 20           # of address space; memory is what lies between tail and end
MAX_RETAINED_BYTES = 16 << 20    # of the newest GOP, for those who join later
MAX_LAG_US = 10_000_000          # a viewer further behind skips to a later keyframe
LAG_CHECK_BYTES = 64 << 10
PRIVATE_UNSENT_BYTES = 1 << 20   # a group of its own is muxed only this far ahead of its viewer
EVENTS = 128
DRAIN_BYTES = 4096
STAY_ROUNDS = 32                 # turns that `run` takes at most before the event loop gets one
STAY_MS = 25                     # longer than packets of a usual stream are apart
MERGE_STEP_US = 10_000
MERGE_MAX_US = 100_000
LOAD_INTERVAL_US = 500_000
OUT_OF_BAND_LIMIT = 256
SYNC_WAIT_US = 2_000_000         # a viewer that wants packets in the order of their times waits this long for a silent track

cdef enum:
    ARENA = 64 << 20
    BELL_EVENT = 1
    TIMER_EVENT = 2
    PUNCH_BLOCK = 128 << 10

cdef uint64_t SPECIAL = <uint64_t> 1 << 32


@cython.final
cdef class Arena:
    """A byte ring of ARENA_BYTES, mapped twice in a row; positions only rise."""

    def __cinit__(self):
        cdef void* area
        self.base = NULL
        self.fd = memfd_create(b"mist-arena", MFD_CLOEXEC)
        if self.fd < 0 or ftruncate(self.fd, ARENA) < 0:
            raise MemoryError("no memory for a muxer's arena")
        area = mmap(NULL, 2 * <size_t> ARENA, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)
        if area is MAP_FAILED:
            raise MemoryError("no address space for a muxer's arena")
        self.base = <uint8_t*> area
        if (
            mmap(area, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self.fd, 0) is MAP_FAILED
            or mmap(self.base + ARENA, ARENA, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, self.fd, 0) is MAP_FAILED
        ):
            raise MemoryError("no address space for a muxer's arena")

    def __dealloc__(self):
        if self.base is not NULL:
            munmap(self.base, 2 * <size_t> ARENA)
        if self.fd >= 0:
            close(self.fd)

    cdef int append(self, const uint8_t* source, size_t count) except -1:
        """Copy bytes to the end; the caller made room."""
        memcpy(self.base + (self.end & (ARENA - 1)), source, count)
        self.end += count
        return 0

    cdef int release(self, uint64_t upto) noexcept:
        """Forget everything before `upto`, and give whole blocks back to the kernel."""
        cdef uint64_t edge = upto // PUNCH_BLOCK * PUNCH_BLOCK
        cdef uint64_t offset, count
        self.tail = upto
        while self.punched + PUNCH_BLOCK <= edge:
            offset = self.punched & (ARENA - 1)
            count = edge - self.punched
            if offset + count > ARENA:
                count = ARENA - offset
            fallocate(self.fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, <long> offset, <long> count)
            self.punched += count
        return 0


@cython.final
cdef class Subscription:
    """One viewer of a group: a socket and a position. Made by `Fanout.join`."""

    def send(self, bytes data not None):
        """Send bytes of the connection's own between two packets.

        Raises LimitExceededError when OUT_OF_BAND_LIMIT of them wait already.
        """
        if self.dead:
            return
        if len(self.out_of_band) >= OUT_OF_BAND_LIMIT:
            raise LimitExceededError("the peer asks faster than it reads the answers")
        self.out_of_band.append(data)
        if not self.blocked:
            self.flush()

    def pause(self, bint paused):
        """Hold the media back, or go on (at a later keyframe if too much was missed)."""
        self.paused = paused
        if not paused and not self.blocked and not self.dead:
            self.flush()

    def leave(self):
        """Stop delivery and return the socket, which is the caller's from now on."""
        cdef int fd = self.fd
        self.detach()
        return fd

    def close(self, str reason="CLEAN_INTENDED_STOP"):
        """End the connection; `on_close` is called."""
        if not self.dead:
            self.dead = True
            self.reason = reason
            self.fanout.dead.append(self)
            self.fanout.set_timer(1)

    def detach(self):
        """Take the socket out of the fan-out without closing it."""
        cdef epoll_event event
        if self.group is not None:
            epoll_ctl(self.fanout.fd, EPOLL_CTL_DEL, self.fd, &event)
            self.fanout.subscriptions.pop(self.fd, None)
            self.group.remove(self)
            self.group = None
        self.dead = True

    cdef int note_sent(self, ssize_t count) noexcept:
        self.bytes_sent += <uint64_t> count
        if self.record is not None:
            self.record.count(<uint64_t> count, 0, self.fanout.wall_us)
        return 0

    cdef int send_pending(self) noexcept:
        """Send what goes before the media; returns 1 when all of it went, 0 if blocked, -1 if dead."""
        cdef ssize_t sent
        cdef size_t left
        while self.pending is not None:
            left = <size_t> PyBytes_GET_SIZE(self.pending) - self.pending_sent
            if left:
                sent = c_send(
                    self.fd, PyBytes_AS_STRING(self.pending) + self.pending_sent, left, MSG_DONTWAIT | MSG_NOSIGNAL
                )
                if sent < 0:
                    return 0 if errno == EAGAIN or errno == EINTR else -1
                self.note_sent(sent)
                self.pending_sent += <size_t> sent
                if <size_t> sent < left:
                    return 0
            self.pending = None
            self.pending_sent = 0
        return 1

    cdef int flush(self) noexcept:
        """Send as much as the socket takes; returns 0."""
        cdef Group group = self.group
        cdef uint64_t end
        cdef ssize_t sent
        cdef int state
        if self.dead:
            return 0
        while True:
            state = self.send_pending()
            if state == 1:
                end = group.arena.end
                if self.out_of_band:
                    if self.waiting or self.position == end:
                        self.pending = self.out_of_band.pop(0)
                        continue
                    end = group.entries[group.entry_at(self.position) % group.entry_capacity].position
                    if end == self.position:
                        self.pending = self.out_of_band.pop(0)
                        continue
                if self.waiting or self.position == end or (self.paused and not self.out_of_band):
                    break
                sent = c_send(
                    self.fd, group.arena.base + (self.position & (ARENA - 1)), <size_t> (end - self.position),
                    MSG_DONTWAIT | MSG_NOSIGNAL,
                )
                if sent > 0:
                    self.position += <uint64_t> sent
                    self.note_sent(sent)
                    if self.position == end:
                        if end == group.arena.end:
                            break
                        continue
                    state = 0
                else:
                    state = 0 if sent < 0 and (errno == EAGAIN or errno == EINTR) else -1
            if state < 0:
                self.close("CLEAN_REMOTE_CLOSE")
                return 0
            if not self.blocked:
                self.blocked = True
                self.fanout.interest(self, True)
            return 0
        if self.record is not None:
            self.record.data.boundary_bytes = self.bytes_sent
            if group.entry_head:
                self.record.data.arrival = group.entries[(group.entry_head - 1) % group.entry_capacity].arrival
                self.record.data.position_us = group.entries[(group.entry_head - 1) % group.entry_capacity].dts_us
        if self.blocked:
            self.blocked = False
            self.fanout.interest(self, False)
        if group.ended and self.position == group.arena.end:
            self.close(group.end_reason)
        return 0


@cython.final
cdef class Group:
    """Viewers that get equal bytes, and the muxer that makes them."""

    def __cinit__(self):
        self.entries = NULL
        self.entry_capacity = 0

    def __dealloc__(self):
        free(self.entries)

    def __init__(self, Fanout fanout, Watch watch, key, indexes, make_muxer, reselect, start_us):
        self.fanout = fanout
        self.watch = watch
        self.key = key
        self.reader = watch.reader
        self.reselect = reselect
        self.subscriptions = []
        self.arena = Arena()
        self.order = list(indexes)
        self.infos = [self.reader.track(index).info for index in self.order]
        self.readers = [self.reader.track_reader(index) for index in self.order]
        self.seen_track_set = load64(&watch.table.header.track_set_generation)
        self.main = self.choose_main()
        self.muxer = make_muxer(self.infos)
        self.rate = 0
        self.ahead_us = 0
        self.stop_us = <int64_t> 1 << 62
        self.begin(start_us)

    def choose_main(self):
        """Return the place of the track whose keys viewers begin at: the first video track, else the last one."""
        for place, info in enumerate(self.infos):
            if info.type == "video":
                return place
        return len(self.infos) - 1

    def begin(self, start_us):
        """Set every track's first packet: the newest key of the main track, or the last key not after start_us."""
        cdef TrackReader main = self.readers[self.main]
        cdef int place
        sequence = main.newest_key()
        if start_us is not None:
            before = [key for key in main.key_records() if key[1] <= start_us]
            keys = main.key_records()
            sequence = before[len(before) - 1][0] if before else (keys[0][0] if keys else -1)
        times = main.packet_times(sequence) if sequence >= 0 else None
        for place in range(len(self.readers)):
            reader = <TrackReader> self.readers[place]
            if place == self.main:
                self.next_sequence[place] = sequence if times is not None else reader.end_sequence
            elif times is None:
                self.next_sequence[place] = reader.end_sequence
            else:
                self.next_sequence[place] = reader.sequence_after_arrival(times[1])

    # -- muxing ----------------------------------------------------------------------------------------------------

    cdef int pick(self) except -2:
        """Return the place of the track whose packet arrived first, -1 when there is none.

        Looks twice: whatever arrived before the first look's candidate is visible by the second look.
        """
        cdef int place, best
        cdef TrackReader reader
        cdef PacketRecord record
        cdef uint64_t arrival = 0
        if self.by_time:
            return self.pick_by_time()
        for _look in range(2):
            best = -1
            for place in range(len(self.readers)):
                reader = <TrackReader> self.readers[place]
                while True:
                    if reader.record(self.next_sequence[place], &record):
                        if best < 0 or record.arrival < arrival:
                            best = place
                            arrival = record.arrival
                    elif self.next_sequence[place] < load64(&reader.header.tail):
                        self.resume(place)
                        continue
                    break
            if best < 0:
                return -1
        return best

    cdef int pick_by_time(self) except -2:
        """Return the place of the track whose packet has the lowest decode time, -1 when there is none or an earlier one may still come.

        A track without a packet is waited for while the packets of others are less than SYNC_WAIT_US behind their track's newest one.
        """
        cdef int place
        cdef int best = -1
        cdef TrackReader reader
        cdef PacketRecord record
        cdef int64_t dts_us = 0
        cdef int64_t now_us
        cdef int64_t complete_us = <int64_t> 1 << 62
        for place in range(len(self.readers)):
            reader = <TrackReader> self.readers[place]
            now_us = <int64_t> load64(<const uint64_t*> &reader.header.now_us)  # first: what it covers is in the ring then
            while not reader.record(self.next_sequence[place], &record):
                if self.next_sequence[place] < load64(&reader.header.tail):
                    self.resume(place)
                    continue
                if self.infos[place].type != "meta":
                    complete_us = min(complete_us, now_us)
                break
            else:
                if best < 0 or record.dts_us < dts_us:
                    best, dts_us = place, record.dts_us
        if best < 0 or complete_us >= dts_us or (<TrackReader> self.readers[best]).header.last_us - dts_us > SYNC_WAIT_US:
            return best
        if load32(&self.watch.table.header.stale) or self.watch.table.header.status == 0:
            return best
        return -1

    def resume(self, int place):
        """Go on after packets left the buffer before this group had them."""
        cdef TrackReader reader = <TrackReader> self.readers[place]
        key = reader.newest_key()
        if place == self.main and key >= 0 and <uint64_t> key >= self.next_sequence[place]:
            self.next_sequence[place] = key
        else:
            self.next_sequence[place] = reader.first_sequence

    cdef bint held_back(self, int64_t dts_us) noexcept:
        """Return whether a packet's time has not come for a viewer with a pace of its own."""
        cdef int64_t due
        if self.rate <= 0:
            return False
        if self.pace_clock_us == 0:
            self.pace_clock_us, self.pace_media_us = self.fanout.now_us, dts_us
        due = self.pace_clock_us + <int64_t> ((dts_us - self.pace_media_us - self.ahead_us) / self.rate)
        if due <= self.fanout.now_us:
            self.due_us = 0
            return False
        self.due_us = due
        return True

    cdef int pump(self) except -1:
        """Mux all packets that are there (for a private group, as far as its viewer's pace goes); returns how many."""
        cdef int place, count = 0
        cdef PacketRecord record
        cdef Subscription viewer
        if self.ended:
            return 0
        if load64(&self.watch.table.header.track_set_generation) != self.seen_track_set:
            self.follow_tracks()
        while not self.ended:
            place = self.pick()
            if place < 0:
                break
            if self.private:
                (<TrackReader> self.readers[place]).record(self.next_sequence[place], &record)
                if self.subscriptions:
                    viewer = <Subscription> self.subscriptions[0]
                    if self.arena.end - viewer.position > PRIVATE_UNSENT_BYTES:
                        break
                if self.held_back(record.dts_us):
                    break
                if place == self.main and record.dts_us >= self.stop_us:
                    self.finish("CLEAN_EOF")
                    break
            count += self.mux_one(place)
        if not self.ended and (load32(&self.watch.table.header.stale) or self.watch.table.header.status == 0):
            if self.pick() < 0:
                self.finish("CLEAN_EOF")
        return count

    cdef int mux_one(self, int place) except -1:
        """Mux the next packet of one track; returns 1, or 0 if it has left the buffer."""
        cdef TrackReader reader = <TrackReader> self.readers[place]
        cdef PacketRecord record
        cdef PacketView view
        if not reader.fetch(self.next_sequence[place], &record, &view):
            return 0
        if view.flags & NEW_INIT:
            self.follow_tracks()
            if self.ended:
                return 0
            if self.readers[place] is not reader:
                return 0
        self.next_sequence[place] += 1
        self.muxer.write_view(place, &view)
        if not self.muxer.out.size:
            return 1
        self.make_room(self.muxer.out.size)
        self.add_entry(view.dts_us, record.arrival, place == self.main and (view.flags & KEY_RECORD) != 0)
        self.arena.append(self.muxer.out.data, self.muxer.out.size)
        self.muxer.out.clear()
        return 1

    def follow_tracks(self):
        """Take up new tracks and changed init data; end the group if the format cannot."""
        self.seen_track_set = load64(&self.watch.table.header.track_set_generation)
        states = {state.index: state for state in self.reader.tracks()}
        wanted = self.reselect(list(states.values())) if self.reselect is not None else self.order
        wanted = [index for index in wanted if index in states]
        order = self.merge_order(wanted, states)
        infos = [states[index].info if index in states else self.infos[place] for place, index in enumerate(order)]
        if order == self.order and infos == self.infos:
            return
        grown = order != self.order
        if len(order) > MAX_TRACKS or not self.muxer.set_tracks(infos):
            if grown and all(
                index in states and states[index].info == info
                for index, info in zip(self.order, self.infos, strict=True)
            ):
                return  # the format takes no more tracks: those it has play on
            self.finish("CLEAN_EOF")
            return
        self.adopt_order(order, infos)

    def merge_order(self, wanted, states):
        """Return the muxer's track list for a new choice: old tracks stay in place, new ones replace gone ones of their
        type or go to the end."""
        order = list(self.order)
        fresh = [index for index in wanted if index not in order]
        for place, index in enumerate(order):
            if index in states:
                continue
            for candidate in fresh:
                if states[candidate].info.type == self.infos[place].type:
                    order[place] = candidate
                    fresh.remove(candidate)
                    break
        return order + fresh

    def adopt_order(self, order, infos):
        cdef int place
        cdef uint64_t arrival = 0
        if self.entry_head:
            arrival = self.entries[(self.entry_head - 1) % self.entry_capacity].arrival
        old = self.order
        self.order, self.infos = order, infos
        for place in range(len(order)):
            if place < len(old) and old[place] == order[place]:
                continue
            reader = self.reader.track_reader(order[place])
            if place < len(self.readers):
                self.readers[place] = reader
            else:
                self.readers.append(reader)
            self.next_sequence[place] = reader.sequence_after_arrival(arrival)
        self.main = self.choose_main()

    def finish(self, str reason):
        """Mux no more; viewers end when they have everything."""
        cdef Subscription viewer
        self.ended = True
        self.end_reason = reason
        for viewer in list(self.subscriptions):
            if viewer.waiting or viewer.position == self.arena.end:
                if viewer.pending is None:
                    viewer.close(reason)

    # -- entries and the arena -------------------------------------------------------------------------------------

    cdef int add_entry(self, int64_t dts_us, uint64_t arrival, bint start) except -1:
        cdef Entry* grown
        cdef size_t capacity
        cdef uint64_t number
        cdef Subscription viewer
        if self.entry_head - self.entry_tail >= self.entry_capacity:
            capacity = self.entry_capacity * 2 if self.entry_capacity else 256
            grown = <Entry*> realloc(NULL, capacity * sizeof(Entry))
            if grown is NULL:
                raise MemoryError
            for number in range(self.entry_tail, self.entry_head):
                grown[number % capacity] = self.entries[number % self.entry_capacity]
            free(self.entries)
            self.entries, self.entry_capacity = grown, capacity
        grown = &self.entries[self.entry_head % self.entry_capacity]
        grown.position, grown.dts_us, grown.arrival, grown.start = self.arena.end, dts_us, arrival, start
        if start:
            self.newest_start = self.entry_head
            self.has_start = True
            for viewer in self.subscriptions:
                if viewer.waiting:
                    viewer.waiting = False
                    viewer.position = self.arena.end
                    viewer.pending = (viewer.pending or b"") + self.muxer.header(dts_us)
        self.entry_head += 1
        return 0

    cdef uint64_t entry_at(self, uint64_t position) noexcept:
        """Return the first entry that begins at or after a position; entry_head if there is none."""
        cdef uint64_t low = self.entry_tail
        cdef uint64_t high = self.entry_head
        cdef uint64_t middle
        while low < high:
            middle = low + (high - low) // 2
            if self.entries[middle % self.entry_capacity].position < position:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int make_room(self, size_t count) except -1:
        """Have room for `count` more bytes; viewers that would lose theirs skip ahead."""
        cdef uint64_t tail
        cdef Subscription viewer
        if count > ARENA // 2:
            raise LimitExceededError(f"a packet of {count} bytes in one piece")
        if self.arena.end + count - self.arena.tail <= ARENA:
            return 0
        tail = self.arena.end + count - ARENA
        for viewer in self.subscriptions:
            if not viewer.waiting and viewer.position < tail:
                if self.has_start and self.entries[self.newest_start % self.entry_capacity].position >= tail:
                    self.skip_ahead(viewer, self.newest_start)
                else:
                    self.skip_ahead(viewer, self.entry_head)
                    viewer.waiting = True
        if self.has_start and self.entries[self.newest_start % self.entry_capacity].position < tail:
            self.has_start = False
        self.forget(tail)
        return 0

    cdef int skip_ahead(self, Subscription viewer, uint64_t number) except -1:
        """Let a viewer finish the packet it is in and go on at entry `number`."""
        cdef uint64_t boundary = self.arena.end
        cdef uint64_t entry = self.entry_at(viewer.position)
        if entry < self.entry_head:
            boundary = self.entries[entry % self.entry_capacity].position
        rest = PyBytes_FromStringAndSize(
            <const char*> self.arena.base + (viewer.position & (ARENA - 1)), <Py_ssize_t> (boundary - viewer.position)
        )
        viewer.pending = (viewer.pending[viewer.pending_sent:] if viewer.pending is not None else b"") + rest
        viewer.pending_sent = 0
        if number < self.entry_head:
            viewer.position = self.entries[number % self.entry_capacity].position
        else:
            viewer.position = self.arena.end
        return 0

    def forget(self, uint64_t upto):
        """Drop everything before the last entry that begins at or before `upto`."""
        while self.entry_tail + 1 < self.entry_head and (
            self.entries[(self.entry_tail + 1) % self.entry_capacity].position <= upto
        ):
            self.entry_tail += 1
        self.arena.release(upto)

    # -- viewers ---------------------------------------------------------------------------------------------------

    cdef int flush(self) except -1:
        """Send to every viewer that can take it, and let go of what nobody needs."""
        cdef Subscription viewer
        cdef uint64_t needed = self.arena.end
        cdef int64_t newest_us = 0
        cdef uint64_t newest = 0
        cdef Py_ssize_t number, count = len(self.subscriptions)
        if self.has_start and not self.private:
            newest = self.entries[self.newest_start % self.entry_capacity].position
            if self.arena.end - newest <= MAX_RETAINED_BYTES:
                needed = newest
            else:
                self.has_start = False
        if self.entry_head:
            newest_us = self.entries[(self.entry_head - 1) % self.entry_capacity].dts_us
        # Each viewer is first in its turn: always going from the oldest to the newest would let the last one wait for all others' sends.
        self.first = self.first + 1 if self.first + 1 < count else 0
        for number in range(self.first, self.first + count):
            viewer = <Subscription> self.subscriptions[number if number < count else number - count]
            if not viewer.blocked:
                viewer.flush()
            elif (
                self.has_start and not self.private and not viewer.waiting
                and self.arena.end - viewer.position > LAG_CHECK_BYTES and viewer.position < newest
                and newest_us - self.entries[self.entry_at(viewer.position) % self.entry_capacity].dts_us > MAX_LAG_US
            ):
                self.skip_ahead(viewer, self.newest_start)
            if not viewer.waiting and not viewer.dead and viewer.position < needed:
                needed = viewer.position
        if needed > self.arena.tail:
            self.forget(needed)
        return 0

    def add(self, Subscription viewer, bytes head):
        """Put a viewer at the newest place where one may begin."""
        cdef Entry* entry
        viewer.group = self
        viewer.pending = head
        if self.has_start and not self.private:
            entry = &self.entries[self.newest_start % self.entry_capacity]
            viewer.position = entry.position
            viewer.pending = head + self.muxer.header(entry.dts_us)
        else:
            viewer.waiting = True
            viewer.position = self.arena.end
        self.subscriptions.append(viewer)

    def positions(self):
        """Return the next packet number of each track."""
        return [self.next_sequence[place] for place in range(len(self.order))]

    def remove(self, Subscription viewer):
        if viewer in self.subscriptions:
            self.subscriptions.remove(viewer)
        if not self.subscriptions:
            self.watch.groups.remove(self)
            self.fanout.unwatch_if_idle(self.watch)


@cython.final
cdef class Watch:
    """One stream that this process waits for."""

    def __init__(self, reader, uint32_t cookie):
        self.reader = reader
        self.table = reader.table
        self.cookie = cookie
        self.groups = []
        self.callbacks = []
        self.slot = self.table.subscribe(cookie)

    def close(self):
        self.table.unsubscribe(self.slot)


@cython.final
cdef class Fanout:
    """Delivers streams to the connections of one process.

    The owner's event loop watches `fileno()` for reading and calls `run()`.
    """

    def __init__(self, str bell_folder not None, merge_ms="auto"):
        """bell_folder: directory of the doorbells. merge_ms: send at most this often a viewer, milliseconds; "auto" is 0
        while the process is mostly idle and up to 100 as it fills its core."""
        cdef epoll_event event
        self.fd = epoll_create1(EPOLL_CLOEXEC)
        self.timer_fd = timerfd_create(CLOCK_MONOTONIC, TFD_NONBLOCK | TFD_CLOEXEC)
        if self.fd < 0 or self.timer_fd < 0:
            raise OSError(errno, os.strerror(errno))
        self.bell = Doorbell(bell_folder)
        self.watches, self.by_name, self.subscriptions, self.dead = {}, {}, {}, []
        self.loop_fd = -1
        self.merge_auto = merge_ms == "auto"
        self.merge_us = 0 if self.merge_auto else int(merge_ms) * 1000
        self.merge_max_us = MERGE_MAX_US
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        for number, fd in ((BELL_EVENT, self.bell.fd), (TIMER_EVENT, self.timer_fd)):
            event.events = EPOLLIN
            event.data.u64 = SPECIAL | <uint64_t> number
            epoll_ctl(self.fd, EPOLL_CTL_ADD, fd, &event)

    def __dealloc__(self):
        if self.timer_fd > 0:
            close(self.timer_fd)
        if self.fd > 0:
            close(self.fd)

    def fileno(self):
        return self.fd

    def close(self):
        """End all connections and remove the doorbell."""
        for viewer in list(self.subscriptions.values()):
            viewer.close("CLEAN_SIGNAL")
        self.reap()
        for watch in list(self.watches.values()):
            watch.close()
        self.watches.clear()
        self.by_name.clear()
        self.bell.close()

    def __len__(self):
        return len(self.subscriptions)

    # -- who watches what ------------------------------------------------------------------------------------------

    def watch_for(self, reader):
        """Return the watch of a stream, made when there is none. Raises LimitExceededError."""
        cdef Watch watch = self.by_name.get(reader.name)
        if watch is not None and load32(&watch.table.header.stale):
            self.by_name.pop(reader.name)
            watch = None
        if watch is None:
            self.last_cookie += 1
            watch = Watch(reader, self.last_cookie)
            self.watches[watch.cookie] = watch
            self.by_name[reader.name] = watch
        return watch

    def watch(self, reader, callback):
        """Call `callback()` after each change of a stream (packets, tracks, state) until `unwatch`."""
        cdef Watch watch = self.watch_for(reader)
        watch.callbacks.append(callback)
        watch.table.arm(watch.slot)
        return watch

    def unwatch(self, Watch watch not None, callback):
        """Stop calling."""
        if callback in watch.callbacks:
            watch.callbacks.remove(callback)
        self.unwatch_if_idle(watch)

    def unwatch_if_idle(self, Watch watch not None):
        if not watch.groups and not watch.callbacks and self.watches.pop(watch.cookie, None) is not None:
            if self.by_name.get(watch.reader.name) is watch:
                del self.by_name[watch.reader.name]
            watch.close()

    def join(self, reader, indexes, key, make_muxer, int fd, bytes head not None, *, start_us=None, stop_us=None,
             rate=None, ahead_us=7_500_000, by_time=False, reselect=None, record=None, on_close, on_readable=None):
        """Deliver a stream to a socket and return the subscription.

        indexes: track indexes in the muxer's order. key: names the format and everything else that changes its bytes;
        viewers with equal key and tracks share one muxer. make_muxer(infos) -> Muxer. fd: non-blocking socket, the
        fan-out's from now on. head: bytes before the media. start_us, stop_us, rate (media seconds a second, 0 for as
        fast as possible): a position or pace of its own, which makes the group private. by_time: merge tracks by decode time
        instead of arrival; `key` must say so. reselect(track states) -> indexes: the choice of tracks when the stream's tracks change. on_close(reason) is called once, before the
        socket is closed. on_readable(): called when the peer sent something, else that is dropped and an end of file
        ends the connection. record: the connection's checkpoint record, or an object that has it as `shared`.
        Raises NotFound, UnsupportedError (tracks the format cannot carry), LimitExceededError.
        """
        cdef Subscription viewer = Subscription()
        cdef Group group
        cdef Watch watch = self.watch_for(reader)
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        private = start_us is not None or stop_us is not None or rate is not None
        try:
            group = self.find_group(watch, (key, tuple(indexes)), make_muxer, reselect, start_us, private)
            group.by_time = by_time
        except BaseException:
            self.unwatch_if_idle(watch)
            raise
        if private:
            group.private = True
            group.rate = 1.0 if rate is None else rate
            group.ahead_us = ahead_us
            if stop_us is not None:
                group.stop_us = stop_us
        viewer.fanout = self
        viewer.fd = fd
        viewer.out_of_band = []
        viewer.on_close, viewer.on_readable = on_close, on_readable
        viewer.record = record = getattr(record, "shared", record)
        if not private:
            group.pump()
        group.add(viewer, head)
        self.subscriptions[fd] = viewer
        self.register(viewer)
        if record is not None:
            cursors = list(zip(group.order, group.positions(), strict=True))
            record.checkpoint(str(key)[:31], cursors[:MAX_CURSORS], 0, 0, b"")
        self.deliver_group(group)  # a new viewer does not wait for the next merged write
        self.service(watch)
        return viewer

    def find_group(self, Watch watch, key, make_muxer, reselect, start_us, bint private):
        cdef Group group
        if not private:
            for group in watch.groups:
                if group.key == key and not group.private and not group.ended:
                    return group
        group = Group(self, watch, key, key[1], make_muxer, reselect, start_us)
        watch.groups.append(group)
        return group

    def register(self, Subscription viewer not None):
        cdef epoll_event event
        event.events = EPOLLIN
        event.data.u64 = <uint64_t> viewer.fd
        if epoll_ctl(self.fd, EPOLL_CTL_ADD, viewer.fd, &event) < 0:
            raise OSError(errno, os.strerror(errno))

    cdef int interest(self, Subscription viewer, bint writable) noexcept:
        cdef epoll_event event
        event.events = EPOLLIN | (EPOLLOUT if writable else 0)
        event.data.u64 = <uint64_t> viewer.fd
        return epoll_ctl(self.fd, EPOLL_CTL_MOD, viewer.fd, &event)

    cdef int set_timer(self, int64_t at_us) noexcept:
        """Have `run` called at a monotonic time, or earlier."""
        cdef itimerspec spec
        if self.timer_at_us and self.timer_at_us <= at_us:
            return 0
        self.timer_at_us = at_us
        memset(&spec, 0, sizeof(spec))
        spec.it_value.tv_sec = at_us // 1000000
        spec.it_value.tv_nsec = at_us % 1000000 * 1000
        return timerfd_settime(self.timer_fd, TFD_TIMER_ABSTIME, &spec, NULL)

    # -- running ---------------------------------------------------------------------------------------------------

    def attach(self, int loop_fd):
        """Name the descriptor that the owner's event loop waits on, so that `run` may stay a while.

        A wake-up through the event loop costs several times one through `poll(2)`: while packets keep coming, `run` waits
        for the next one itself, and returns as soon as the loop has something to do.
        """
        self.loop_fd = loop_fd

    def run(self):
        """Do everything that is due. Called when `fileno()` is readable."""
        cdef pollfd[2] fds
        cdef int rounds = 0
        self.called = False
        self.turn()
        fds[0].fd, fds[0].events = self.fd, POLLIN
        fds[1].fd, fds[1].events = self.loop_fd, POLLIN
        while self.loop_fd >= 0 and rounds < STAY_ROUNDS and not self.called:
            if poll(fds, 2, STAY_MS) <= 0 or (fds[1].revents and self.loop_has_more()):
                return
            self.turn()
            rounds += 1

    cdef bint loop_has_more(self) noexcept:
        """Return whether the event loop has something to do besides this fan-out, which it watches too."""
        cdef epoll_event[2] events
        return epoll_wait(self.loop_fd, events, 2, 0) != 1 or <int> events[0].data.u64 != self.fd

    cdef int turn(self) except -1:
        cdef epoll_event[128] events
        cdef int count, i
        cdef uint32_t cookie
        cdef uint64_t expirations
        cdef bint timer = False
        cdef Watch watch
        cdef Subscription viewer
        count = epoll_wait(self.fd, events, EVENTS, 0)
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        self.wakeups += 1
        for i in range(count):
            if events[i].data.u64 == SPECIAL | BELL_EVENT:
                if self.bell.next_cookie(&cookie):
                    watch = self.watches.get(cookie)
                    if watch is not None:
                        watch.due = True
            elif events[i].data.u64 == SPECIAL | TIMER_EVENT:
                read(self.timer_fd, &expirations, 8)
                self.timer_at_us = 0
                timer = True
            else:
                viewer = self.subscriptions.get(<int> events[i].data.u64)
                if viewer is not None:
                    self.socket_event(viewer, events[i].events)
        if timer and self.flush_at_us and self.flush_at_us <= self.now_us:
            self.flush_at_us = 0
        for watch in list(self.watches.values()):
            if watch.due or timer:
                self.service(watch)
        if self.flush_at_us:
            self.set_timer(self.flush_at_us)
        self.adapt()
        self.reap()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return 0

    def socket_event(self, Subscription viewer not None, uint32_t happened):
        cdef char[4096] dropped
        cdef ssize_t count
        if viewer.dead:
            return
        if happened & (EPOLLIN | EPOLLHUP | EPOLLERR):
            if viewer.on_readable is not None:
                self.called = True
                try:
                    viewer.on_readable()
                except Exception as error:  # a defect of the connection's code: it ends that connection, and is reported
                    viewer.close("INTERNAL_ERROR")
                    self.failure = error
            else:
                count = c_recv(viewer.fd, dropped, DRAIN_BYTES, MSG_DONTWAIT)
                if count == 0 or (count < 0 and errno != EAGAIN and errno != EINTR):
                    viewer.close("CLEAN_REMOTE_CLOSE")
        if happened & EPOLLOUT and not viewer.dead:
            viewer.flush()
            if viewer.group is not None and viewer.group.private:
                self.deliver_group(viewer.group)

    cdef int service(self, Watch watch) except -1:
        """Mux and send what a stream has, then ask for the next ring."""
        cdef int pumped
        if self.merge_us and self.flush_at_us:
            watch.due = False
            return 0  # the timer will come back to it
        while True:
            pumped = self.deliver(watch)
            if pumped and watch.due:
                self.lateness_us += (self.now_us - watch.table.header.last_packet_us - self.lateness_us) // 16
            watch.due = False
            if watch.callbacks:
                self.called = True
                for callback in list(watch.callbacks):
                    callback()
            if self.watches.get(watch.cookie) is not watch:
                return 0
            if self.merge_us and watch.groups and pumped:
                self.flush_at_us = self.now_us + self.merge_us
                self.set_timer(self.flush_at_us)
                return 0
            watch.table.arm(watch.slot)
            for group in list(watch.groups):
                if (<Group> group).private:  # what came between muxing and arming; the others are looked at below
                    self.deliver_group(group)
            if not pumped and not self.has_news(watch):
                return 0

    cdef int deliver(self, Watch watch) except -1:
        """Mux and send once for every group of a stream; returns how many packets were muxed."""
        cdef int pumped = 0
        for group in list(watch.groups):
            pumped += self.deliver_group(group)
        return pumped

    cdef int deliver_group(self, Group group) except -1:
        """Mux and send for one group; a private one goes on for as long as its viewer takes more."""
        cdef int pumped = 1
        cdef int total = 0
        try:
            while pumped:
                pumped = group.pump()
                group.flush()
                if not group.private:
                    total += pumped
                    break
        except MistError as error:
            group.finish(error.reason)
            group.flush()
        if group.due_us:
            self.set_timer(group.due_us)
            group.due_us = 0
        return total

    def has_news(self, Watch watch not None):
        """Return whether something came between muxing and arming."""
        cdef Group group
        for group in watch.groups:
            if group.private or group.ended:
                continue
            if group.pick() >= 0 or load64(&watch.table.header.track_set_generation) != group.seen_track_set:
                return True
            if load32(&watch.table.header.stale):
                return True
        return False

    cdef int reap(self) except -1:
        """Close the connections that ended."""
        cdef Subscription viewer
        while self.dead:
            self.called = True
            ended, self.dead = self.dead, []
            for viewer in ended:
                fd = viewer.fd
                viewer.detach()
                try:
                    viewer.on_close(viewer.reason)
                finally:
                    viewer.on_close = viewer.on_readable = None
                    c_shutdown(fd, SHUT_RDWR)
                    close(fd)
        return 0

    cdef int adapt(self) noexcept:
        """Merge more while the process fills its core or runs late, less when there is room again."""
        cdef timespec used
        cdef int64_t cpu_us, elapsed, load
        if not self.merge_auto or self.now_us - self.load_clock_us < LOAD_INTERVAL_US:
            return 0
        clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used)
        cpu_us = <int64_t> used.tv_sec * 1000000 + used.tv_nsec // 1000
        elapsed = self.now_us - self.load_clock_us
        if self.load_clock_us and elapsed < 4 * LOAD_INTERVAL_US:
            load = (cpu_us - self.load_cpu_us) * 100 // elapsed
            if load > 60 or self.lateness_us > 50000:
                self.merge_us = min(self.merge_us + MERGE_STEP_US, self.merge_max_us)
            elif load < 35 and self.merge_us:
                self.merge_us -= MERGE_STEP_US
        self.load_clock_us, self.load_cpu_us = self.now_us, cpu_us
        return 0

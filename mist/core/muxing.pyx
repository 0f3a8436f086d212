"""A group's muxer: packets of one stream in the order of their arrival, into the bytes that all its viewers get."""

from cpython.bytes cimport PyBytes_AS_STRING, PyBytes_FromStringAndSize
from libc.stdint cimport int64_t, uint32_t, uint64_t
from libc.string cimport memcpy, memset

from mist.core.arena cimport ARENA_SIZE, STATE_LIMIT, Arena, Entry, GroupState
from mist.core.packet cimport KEYFRAME, NEW_INIT, PacketView
from mist.core.shm cimport load32, load64
from mist.core.track_buffer cimport KEY_RECORD, MAX_TRACKS, PacketRecord, TrackReader

import marshal

from mist.errors import LimitExceededError, MistError, NotFound

PRIVATE_UNSENT_BYTES = 1 << 20   # a group of its own is muxed only this far ahead of its viewer
SYNC_WAIT_US = 2_000_000         # a viewer that wants packets in the order of their times waits this long for a silent track
SILENT_MAIN_US = 5_000_000       # viewers begin at keys of another track when the main one has been silent for this long

cdef uint64_t NEVER = <uint64_t> 1 << 62


def described(infos):
    """Return tracks as bytes; `restore_infos` reads it."""
    return marshal.dumps([{name: getattr(info, name) for name in type(info).__dataclass_fields__} for info in infos], 2)


def restore_infos(text, kind):
    """Return the tracks that `described` wrote, as objects of `kind`; members it does not have are left out. Raises MistError."""
    known = kind.__dataclass_fields__
    try:
        return [
            kind(**{name: value for name, value in entry.items() if name in known}) for entry in marshal.loads(text)
        ]
    except (ValueError, TypeError, EOFError, AttributeError) as error:
        raise MistError(f"the description of the tracks is damaged: {error}") from None


cdef class MuxGroup:
    """What makes the bytes. A subclass has the viewers."""

    def open(self, key, indexes, make_muxer, start_us, Arena arena not None):
        """Begin with a stream's tracks. Raises UnsupportedError, NotFound."""
        self.key = key
        self.arena = arena
        self.order = list(indexes)
        self.infos = [self.reader.track(index).info for index in self.order]
        self.readers = [self.reader.track_reader(index) for index in self.order]
        self.seen_track_set = NEVER  # the tracks were chosen some time ago: what came since is looked at before the first packet
        self.main = self.choose_main()
        self.muxer = make_muxer(self.infos)
        self.stop_us = <int64_t> 1 << 62
        self.begin(start_us)
        self.describe()

    def take_over(self, key, make_muxer, kind, Arena arena not None):
        """Go on where the arena's former process was. kind: the class of tracks. Raises MistError."""
        cdef GroupState* state = arena.state()
        cdef uint32_t place
        self.key = key
        self.arena = arena
        self.order = [state.tracks[place] for place in range(state.track_count)]
        for place in range(state.track_count):
            self.next_sequence[place] = state.next_sequence[place]
        self.infos = restore_infos(arena.description(state), kind)
        if len(self.infos) != len(self.order) or not self.order:
            raise MistError("an arena without a description of its tracks")
        self.entry_tail, self.entry_head, self.newest_start = state.entry_tail, state.entry_head, state.newest_start
        self.has_start, self.ended = state.has_start, state.ended
        self.end_reason = (<bytes> state.end_reason).decode("utf-8", "replace")
        self.private, self.by_time = state.private_, state.by_time
        self.rate, self.ahead_us, self.stop_us = state.rate, state.ahead_us, state.stop_us
        self.pace_clock_us, self.pace_media_us = state.pace_clock_us, state.pace_media_us
        self.seen_track_set = state.seen_track_set
        # Entries that were made and not published may lie over the oldest ones.
        while self.entry_tail < self.entry_head and (
            arena.entries[self.entry_tail % arena.entry_capacity].position >= arena.end
        ):
            self.entry_tail += 1
        self.main = self.choose_main()
        self.muxer = make_muxer(self.infos)
        self.muxer.restore(PyBytes_FromStringAndSize(<const char*> state.muxer_state, state.muxer_state_size))
        self.reopen()

    def reopen(self):
        """Open the readers again; a stream that has gone has nothing more to come."""
        cdef int place
        self.readers = []
        found = None
        if self.reader is not None:
            for index in self.order:
                try:
                    found = self.reader.track_reader(index)
                except NotFound:
                    found = None
                self.readers.append(found)
            found = next((reader for reader in self.readers if reader is not None), None)
        if found is None:
            self.readers = []
            if not self.ended:
                self.ended, self.end_reason = True, "CLEAN_EOF"
            return
        for place in range(len(self.readers)):
            if self.readers[place] is None:  # of a track that has gone: it never has a packet again
                self.readers[place] = found
                self.next_sequence[place] = NEVER

    def describe(self):
        """Let the arena know the tracks. Without that nobody can take the group over, which is no reason to end it."""
        try:
            self.arena.describe(described(self.infos))
        except LimitExceededError:
            self.arena.text_size = 0

    cdef int publish(self) except -1:
        """Make all that was muxed known to whoever takes over; comes before it is sent."""
        cdef GroupState* state = self.arena.next_state()
        cdef uint32_t place
        cdef bytes text
        if self.muxer.out.size:  # what a change of tracks has to say
            self.append_output()
        text = self.muxer.state()
        state.muxer_state_size = <uint32_t> min(<size_t> len(text), <size_t> STATE_LIMIT)
        memcpy(state.muxer_state, PyBytes_AS_STRING(text), state.muxer_state_size)
        state.track_count = <uint32_t> len(self.order)
        for place in range(state.track_count):
            state.tracks[place] = self.order[place]
            state.next_sequence[place] = self.next_sequence[place]
        state.entry_tail, state.entry_head, state.newest_start = self.entry_tail, self.entry_head, self.newest_start
        state.has_start, state.ended = self.has_start, self.ended
        if self.ended:
            text = (self.end_reason or "").encode()[:63]
            memset(state.end_reason, 0, sizeof(state.end_reason))
            memcpy(state.end_reason, PyBytes_AS_STRING(text), len(text))
        state.private_, state.by_time = self.private, self.by_time
        state.rate, state.ahead_us, state.stop_us = self.rate, self.ahead_us, self.stop_us
        state.pace_clock_us, state.pace_media_us = self.pace_clock_us, self.pace_media_us
        state.seen_track_set = self.seen_track_set
        self.arena.publish()
        return 0

    # -- what the viewers are asked ------------------------------------------------------------------------------------

    cdef uint64_t unsent(self) noexcept:
        """Return how many bytes the viewer of a private group has not taken."""
        return 0

    cdef int started(self, int64_t dts_us) except -1:
        """A packet comes where a viewer may begin: those that wait do."""
        return 0

    cdef int spare(self, uint64_t tail) except -1:
        """Let viewers skip that are before a position which is about to go."""
        return 0

    def ended_here(self):
        """The group makes no more: end the viewers that have everything."""

    def choose_main(self):
        """Return the place of the track whose keys viewers begin at: the first video track, else the last one."""
        for place, info in enumerate(self.infos):
            if info.type == "video":
                return place
        return len(self.infos) - 1

    cdef int lead(self) except -1:
        """Return the place of the track where viewers may begin now: another than the main one while that is silent."""
        cdef int place, best = self.main
        cdef int64_t newest_us = (<TrackReader> self.readers[best]).header.last_us + SILENT_MAIN_US
        for place in range(len(self.readers)):
            reader = <TrackReader> self.readers[place]
            if self.infos[place].type == "audio" and reader.header.last_us > newest_us:
                best, newest_us = place, reader.header.last_us
        return best

    def begin(self, start_us):
        """Set every track's first packet: the newest key of the main track, or the last key not after start_us."""
        cdef int leading = self.main if start_us is not None else self.lead()
        cdef TrackReader main = self.readers[leading]
        cdef int place
        sequence = main.newest_key()
        if start_us is not None:
            before = [key for key in main.key_records() if key[1] <= start_us]
            keys = main.key_records()
            sequence = before[len(before) - 1][0] if before else (keys[0][0] if keys else -1)
        times = main.packet_times(sequence) if sequence >= 0 else None
        for place in range(len(self.readers)):
            reader = <TrackReader> self.readers[place]
            if place == leading:
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
        if load32(&self.table.header.stale) or self.table.header.status == 0:
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
            self.pace_clock_us, self.pace_media_us = self.poller.now_us, dts_us
        due = self.pace_clock_us + <int64_t> ((dts_us - self.pace_media_us - self.ahead_us) / self.rate)
        if due <= self.poller.now_us:
            self.due_us = 0
            return False
        self.due_us = due
        return True

    cdef int pump(self) except -1:
        """Mux all packets that are there (for a private group, as far as its viewer's pace goes); returns how many."""
        cdef int place, count = 0
        cdef PacketRecord record
        if self.ended:
            return 0
        if load64(&self.table.header.track_set_generation) != self.seen_track_set:
            if not self.private:
                count += self.finish_removed()
            self.follow_tracks()
        while not self.ended:
            place = self.pick()
            if place < 0:
                break
            if self.private:
                (<TrackReader> self.readers[place]).record(self.next_sequence[place], &record)
                if self.unsent() > PRIVATE_UNSENT_BYTES:
                    break
                if self.held_back(record.dts_us):
                    break
                if place == self.main and record.dts_us >= self.stop_us:
                    self.finish("CLEAN_EOF")
                    break
            count += self.mux_one(place)
        if not self.ended and (load32(&self.table.header.stale) or self.table.header.status == 0):
            if self.pick() < 0:
                self.finish("CLEAN_EOF")
        return count

    cdef int finish_removed(self) except -1:
        """Mux what is left of tracks that were removed, with all that arrived before it: what comes in their place begins after that.

        Returns how many packets were muxed.
        """
        cdef int place, count = 0
        cdef uint64_t last = 0
        cdef TrackReader reader
        cdef PacketRecord record
        for place in range(len(self.readers)):
            reader = <TrackReader> self.readers[place]
            if reader.removed() and load64(&reader.header.head) and reader.record(load64(&reader.header.head) - 1, &record):
                last = max(last, record.arrival)
        while last and not self.ended:
            place = self.pick()
            if place < 0 or not (<TrackReader> self.readers[place]).record(self.next_sequence[place], &record):
                break
            if record.arrival > last:
                break
            count += self.mux_one(place)
        return count

    cdef int mux_one(self, int place) except -1:
        """Mux the next packet of one track; returns 1, or 0 if it has left the buffer."""
        cdef TrackReader reader = <TrackReader> self.readers[place]
        cdef PacketRecord record
        cdef PacketView view
        cdef bint start
        if not reader.fetch(self.next_sequence[place], &record, &view):
            return 0
        if view.flags & NEW_INIT:
            self.follow_tracks()
            if self.ended:
                return 0
            if self.readers[place] is not reader:
                return 0
        self.next_sequence[place] += 1
        start = (view.flags & KEY_RECORD) != 0 and place == self.lead()
        if start and (place != self.main or not view.flags & KEYFRAME):
            self.muxer.begin_here()
        self.muxer.write_view(place, &view)
        if not self.muxer.out.size:
            return 1
        self.make_room(self.muxer.out.size)
        self.add_entry(view.dts_us, record.arrival, start)
        self.arena.append(self.muxer.out.data, self.muxer.out.size)
        self.muxer.out.clear()
        return 1

    cdef int append_output(self) except -1:
        """Append bytes of the muxer that belong to no packet."""
        self.make_room(self.muxer.out.size)
        self.arena.append(self.muxer.out.data, self.muxer.out.size)
        self.muxer.out.clear()
        return 0

    def follow_tracks(self):
        """Take up new tracks and changed init data; end the group if the format cannot."""
        self.seen_track_set = load64(&self.table.header.track_set_generation)
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
            arrival = self.arena.entries[(self.entry_head - 1) % self.arena.entry_capacity].arrival
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
        self.describe()

    def finish(self, str reason):
        """Mux no more; viewers end when they have everything."""
        self.ended = True
        self.end_reason = reason
        self.ended_here()

    # -- entries and the arena -------------------------------------------------------------------------------------

    cdef int add_entry(self, int64_t dts_us, uint64_t arrival, bint start) except -1:
        cdef Entry* entry
        if self.entry_head - self.entry_tail >= self.arena.entry_capacity:
            self.arena.grow_entries(self.entry_tail, self.entry_head)
        entry = &self.arena.entries[self.entry_head % self.arena.entry_capacity]
        entry.position, entry.dts_us, entry.arrival, entry.start = self.arena.end, dts_us, arrival, start
        if start:
            self.newest_start = self.entry_head
            self.has_start = True
            self.started(dts_us)
        self.entry_head += 1
        return 0

    cdef uint64_t entry_at(self, uint64_t position) noexcept:
        """Return the first entry that begins at or after a position; entry_head if there is none."""
        cdef uint64_t low = self.entry_tail
        cdef uint64_t high = self.entry_head
        cdef uint64_t middle
        while low < high:
            middle = low + (high - low) // 2
            if self.arena.entries[middle % self.arena.entry_capacity].position < position:
                low = middle + 1
            else:
                high = middle
        return low

    cdef int make_room(self, size_t count) except -1:
        """Have room for `count` more bytes; viewers that would lose theirs skip ahead."""
        cdef uint64_t tail
        if count > ARENA_SIZE // 2:
            raise LimitExceededError(f"a packet of {count} bytes in one piece")
        if self.arena.end + count - self.arena.tail <= ARENA_SIZE:
            return 0
        tail = self.arena.end + count - ARENA_SIZE
        self.spare(tail)
        if self.has_start and self.arena.entries[self.newest_start % self.arena.entry_capacity].position < tail:
            self.has_start = False
            self.arena.state().has_start = 0  # now: what it says is about to be overwritten
        self.forget(tail)
        return 0

    def forget(self, uint64_t upto):
        """Drop everything before the last entry that begins at or before `upto`."""
        while self.entry_tail + 1 < self.entry_head and (
            self.arena.entries[(self.entry_tail + 1) % self.arena.entry_capacity].position <= upto
        ):
            self.entry_tail += 1
        self.arena.release(upto)

    def positions(self):
        """Return the next packet number of each track."""
        return [self.next_sequence[place] for place in range(len(self.order))]

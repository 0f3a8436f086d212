"""Delivery: one muxer for many viewers, each with nothing but a position.

A *group* is what receives equal bytes: same stream, same tracks, same format. Its muxer writes into an arena, a byte
ring that is mapped twice in a row so that every range of it is contiguous; a viewer costs one `send(2)` from its position
to the arena's end. The arena keeps what lies between the newest place where a viewer may begin, or the slowest viewer,
and the end; memory behind that is given back to the kernel. A viewer that falls too far behind skips to a later keyframe.

Everything is driven by one epoll descriptor, which the owner's event loop watches: doorbells of streams, sockets that
became writable or readable, and one timer.

Another process can go on: what was muxed is published in the arena before it is sent, and what a viewer is sent besides
is in its record before that. How far each viewer got the kernel knows.
"""

cimport cython
from libc.errno cimport EAGAIN, EINTR, errno
from libc.stdint cimport int64_t, uint32_t, uint64_t
from posix.unistd cimport close

from mist.core.arena cimport Arena
from mist.core.checkpoint cimport Record
from mist.core.linux cimport EPOLLERR, EPOLLHUP, EPOLLIN, EPOLLOUT
from mist.core.muxing cimport MuxGroup
from mist.core.poller cimport Poller
from mist.core.shm cimport load32, load64, monotonic_us, unix_us
from mist.core.subscription cimport Subscription

import os

from mist.core.arena import adopt_arena
from mist.errors import MistError, NotFound

cdef extern from "<sys/socket.h>" nogil:
    enum:
        MSG_DONTWAIT
        SHUT_RDWR
    ssize_t c_recv "recv"(int, void*, size_t, int)
    int c_shutdown "shutdown"(int, int)

MAX_RETAINED_BYTES = 16 << 20    # of the newest GOP, for those who join later
MAX_LAG_US = 10_000_000          # a viewer further behind skips to a later keyframe
LAG_CHECK_BYTES = 64 << 10
DRAIN_BYTES = 4096


@cython.final
cdef class Group(MuxGroup):
    """Viewers that get equal bytes."""

    def __init__(self, Fanout fanout, Watch watch, reselect):
        """watch: of the stream, None for one that has gone."""
        self.poller = self.fanout = fanout
        self.watch = watch
        self.reselect = reselect
        self.subscriptions = []
        if watch is not None:
            self.table, self.reader = watch.table, watch.reader

    cdef uint64_t unsent(self) noexcept:
        if not self.subscriptions:
            return 0
        return self.arena.end - (<Subscription> self.subscriptions[0]).position

    cdef int started(self, int64_t dts_us) except -1:
        cdef Subscription viewer
        for viewer in self.subscriptions:
            if viewer.waiting:
                viewer.begin_at(self.newest_start)
        return 0

    cdef int spare(self, uint64_t tail) except -1:
        cdef Subscription viewer
        for viewer in self.subscriptions:
            if not viewer.waiting and viewer.position < tail:
                if self.has_start and self.arena.entries[self.newest_start % self.arena.entry_capacity].position >= tail:
                    viewer.skip_ahead(self.newest_start)
                else:
                    viewer.skip_ahead(self.entry_head)
        return 0

    def ended_here(self):
        cdef Subscription viewer
        for viewer in list(self.subscriptions):
            if viewer.waiting or viewer.position == self.arena.end:
                if viewer.pending is None:
                    viewer.close(self.end_reason)

    cdef int flush(self) except -1:
        """Send to every viewer that can take it, and let go of what nobody needs."""
        cdef Subscription viewer
        cdef uint64_t needed = self.arena.end
        cdef int64_t newest_us = 0
        cdef uint64_t newest = 0
        cdef Py_ssize_t number, count = len(self.subscriptions)
        if self.has_start and not self.private:
            newest = self.arena.entries[self.newest_start % self.arena.entry_capacity].position
            if self.arena.end - newest > MAX_RETAINED_BYTES:
                self.has_start = False
            elif not self.alone:
                needed = newest
        if self.entry_head:
            newest_us = self.arena.entries[(self.entry_head - 1) % self.arena.entry_capacity].dts_us
        # Each viewer is first in its turn: always going from the oldest to the newest would let the last one wait for all others' sends.
        self.first = self.first + 1 if self.first + 1 < count else 0
        for number in range(self.first, self.first + count):
            viewer = <Subscription> self.subscriptions[number if number < count else number - count]
            if not viewer.blocked:
                viewer.flush()
            elif (
                self.has_start and not self.private and not viewer.waiting
                and self.arena.end - viewer.position > LAG_CHECK_BYTES and viewer.position < newest
                and newest_us - self.arena.entries[self.entry_at(viewer.position) % self.arena.entry_capacity].dts_us > MAX_LAG_US
            ):
                viewer.skip_ahead(self.newest_start)
            if not viewer.waiting and not viewer.dead and viewer.position < needed:
                needed = viewer.position
        if needed > self.arena.tail:
            self.forget(needed)
            if self.alone and newest < needed:
                self.has_start = False
        return 0

    def add(self, Subscription viewer, bytes head):
        """Put a viewer at the newest place where one may begin."""
        viewer.group = self
        viewer.pending = head
        if self.has_start and not self.private:
            viewer.begin_at(self.newest_start)
        else:
            viewer.waiting = True
            viewer.position = self.arena.end
        self.subscriptions.append(viewer)

    def remove(self, Subscription viewer):
        if viewer in self.subscriptions:
            self.subscriptions.remove(viewer)
        if not self.subscriptions:
            self.fanout.drop_group(self)


@cython.final
cdef class Watch:
    """One stream that this process waits for."""

    def __init__(self, reader, uint32_t cookie):
        """Raises NotFound for a stream that has gone."""
        self.reader = reader
        self.table = reader.table
        self.cookie = cookie
        self.groups = []
        self.callbacks = []
        try:
            self.inode = os.stat(f"/dev/shm/{reader.table.prefix}").st_ino
        except FileNotFoundError:
            raise NotFound(f"The stream {reader.name} has ended") from None
        self.slot = self.table.subscribe(cookie)

    def close(self):
        self.table.unsubscribe(self.slot)


@cython.final
cdef class Fanout(Poller):
    """Delivers streams to the connections of one process.

    The owner's event loop watches `fileno()` for reading and calls `run()`. arena_made(number, fd), arena_gone(number): called
    when a group begins and ends, for whoever keeps a duplicate of its memory.
    """

    def __init__(self, str bell_folder not None, merge_ms="auto"):
        super().__init__(bell_folder, merge_ms)
        self.watches, self.by_name, self.adopted = {}, {}, {}
        self.arena_made = self.arena_gone = None

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
             rate=None, ahead_us=7_500_000, by_time=False, alone=False, reselect=None, record=None, state=None, on_close,
             on_readable=None):
        """Deliver a stream to a socket and return the subscription.

        indexes: track indexes in the muxer's order. key: names the format and everything else that changes its bytes;
        viewers with equal key and tracks share one muxer. make_muxer(infos) -> Muxer. fd: non-blocking socket, the
        fan-out's from now on. head: bytes before the media. start_us, stop_us, rate (media seconds a second, 0 for as
        fast as possible): a position or pace of its own, which makes the group private. by_time: merge tracks by decode time
        instead of arrival; `key` must say so. alone: nobody joins this viewer's group later, so nothing is kept for that.
        reselect(track states) -> indexes: the choice of tracks when the stream's tracks change. on_close(reason) is called once, before
        the socket is closed. on_readable(): called when the peer sent something, else that is dropped and an end of file ends the
        connection. record: the connection's checkpoint record, or an object that has it as `shared`. state: what the protocol needs
        to be resumed, for the record.
        Raises NotFound, UnsupportedError (tracks the format cannot carry), LimitExceededError.
        """
        cdef Subscription viewer = Subscription()
        cdef Group group
        cdef Watch watch = self.watch_for(reader)
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        private = start_us is not None or stop_us is not None or rate is not None
        try:
            group = self.find_group(watch, (key, tuple(indexes)), make_muxer, reselect, start_us, private or alone)
            group.by_time, group.alone = by_time, alone
        except BaseException:
            self.unwatch_if_idle(watch)
            raise
        if private:
            group.private = True
            group.rate = 1.0 if rate is None else rate
            group.ahead_us = ahead_us
            if stop_us is not None:
                group.stop_us = stop_us
        viewer.poller = self
        viewer.fd = fd
        viewer.out_of_band = []
        viewer.on_close, viewer.on_readable = on_close, on_readable
        viewer.record = record = getattr(record, "shared", record)
        viewer.state = state
        viewer.follow()
        if not private:
            group.pump()
        group.publish()
        group.add(viewer, head)
        self.subscriptions[fd] = viewer
        self.register(fd)
        self.deliver_group(group)  # a new viewer does not wait for the next merged write
        self.service(watch)
        return viewer

    def find_group(self, Watch watch, key, make_muxer, reselect, start_us, bint apart):
        cdef Group group
        if not apart:
            for group in watch.groups:
                if group.key == key and not group.private and not group.alone and not group.ended:
                    return group
        self.last_arena += 1
        group = Group(self, watch, reselect)
        arena = Arena(<uint64_t> os.getpid() << 32 | self.last_arena, watch.inode)
        group.open(key, key[1], make_muxer, start_us, arena)
        self.keep_group(group)
        return group

    cdef int keep_group(self, Group group) except -1:
        if group.watch is not None:
            group.watch.groups.append(group)
        if self.arena_made is not None:
            self.arena_made(group.arena.number, group.arena.fd)
        return 0

    def drop_group(self, Group group not None):
        """A group without viewers ends."""
        self.adopted.pop(group.arena.number, None)
        if group.watch is not None:
            group.watch.groups.remove(group)
            self.unwatch_if_idle(group.watch)
        if self.arena_gone is not None:
            self.arena_gone(group.arena.number)

    # -- going on for another process ------------------------------------------------------------------------------

    def adopt_arena(self, reader, int fd, str key not None, indexes, make_muxer, kind, reselect):
        """Take over a group of a process that has ended; its viewers follow with `adopt`. fd becomes the fan-out's.

        reader: None for a stream that has gone; what was muxed is sent to its end. kind: the class of tracks. The rest as in `join`.
        Raises MistError, MemoryError.
        """
        cdef Group group
        cdef Watch watch = None
        cdef Arena arena = adopt_arena(fd)
        if reader is not None:
            watch = self.watch_for(reader)
            if watch.inode != arena.header.stream_inode:
                self.unwatch_if_idle(watch)
                watch = None
        group = Group(self, watch, reselect)
        try:
            group.take_over((key, tuple(indexes)), make_muxer, kind, arena)
        except BaseException:
            if watch is not None:
                self.unwatch_if_idle(watch)
            raise
        self.adopted[arena.number] = group
        self.keep_group(group)

    def has_adopted(self, uint64_t number):
        """Return whether an arena's group has been taken over."""
        return number in self.adopted

    def adopt(self, int fd, Record record not None, *, on_close, on_readable=None):
        """Go on sending to a viewer whose record says which of the adopted arenas it is in. Raises MistError, OSError.

        The socket is the fan-out's from now on, unless this raises.
        """
        cdef Subscription viewer = Subscription()
        cdef Group group = self.adopted.get(record.progress()[5])
        if group is None:
            raise MistError("the arena of this viewer was lost")
        viewer.poller, viewer.group = self, group
        viewer.fd, viewer.record = fd, record
        viewer.on_close, viewer.on_readable = on_close, on_readable
        self.now_us, self.wall_us = monotonic_us(), unix_us()
        viewer.resume()
        self.register(fd)
        self.subscriptions[fd] = viewer
        group.subscriptions.append(viewer)
        viewer.flush()
        self.set_timer(1)  # the next turn muxes what came meanwhile, and asks for the doorbell
        return viewer

    def drop_unused(self):
        """Let go of adopted groups that no viewer came to."""
        cdef Group group
        for group in list(self.adopted.values()):
            if not group.subscriptions:
                self.drop_group(group)

    # -- running ---------------------------------------------------------------------------------------------------

    cdef int rung(self, uint32_t cookie) except -1:
        cdef Watch watch = self.watches.get(cookie)
        if watch is not None:
            watch.due = True
        return 0

    cdef int serve(self, bint timer) except -1:
        cdef Watch watch
        for watch in list(self.watches.values()):
            if watch.due or timer:
                self.service(watch)
        return 0

    cdef int end_turn(self) except -1:
        self.reap()
        if self.failure is not None:
            failure, self.failure = self.failure, None
            raise failure
        return 0

    cdef int socket_event(self, int fd, uint32_t happened) except -1:
        cdef Subscription viewer = self.subscriptions.get(fd)
        cdef char[4096] dropped
        cdef ssize_t count
        if viewer is None or viewer.dead:
            return 0
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
        return 0

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
                if pumped or group.muxer.out.size or group.ended:
                    group.publish()
                group.flush()
                if not group.private:
                    total += pumped
                    break
        except MistError as error:
            group.finish(error.reason)
            group.publish()
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

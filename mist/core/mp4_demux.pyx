"""MP4 and QuickTime files in, packets out: plain files read by their tables, fragmented ones fragment by fragment.

Spec: ISO/IEC 14496-12 (2022) clauses 4.2 (boxes), 8.1, 8.2, 8.8; ISO/IEC 23009-1 clause 5.10.3.3 (events). The boxes of `moov` are read
once by the reader that the demuxer is given (`mist.formats.mp4_movie.MovieReader`), everything that happens once a sample is here and in
the modules beside it.
"""

cimport cython
from libc.stdint cimport INT64_MAX, int64_t, uint8_t
from libc.string cimport memchr, memcmp

from mist.core.buffer cimport ByteBuffer
from mist.core.demuxer cimport Demuxer
from mist.core.mp4_fragments cimport FragmentReader, FragmentSample
from mist.core.mp4_payloads cimport packet_of, size_without_reading
from mist.core.mp4_tables cimport be32, be64
from mist.core.mp4_track cimport TrackReader
from mist.core.mp4_windows cimport WINDOW_BYTES, Window, Windows
from mist.core.muxer cimport Muxer
from mist.core.packet cimport KEYFRAME, NEW_INIT, Packet, PacketView
from mist.core.trim cimport trim_flags

from array import array
from bisect import insort

from mist.core.mp4_fragments import event_boxes
from mist.errors import LimitExceededError, NotReady, RemoteProtocolError, TruncatedError

MAX_TRACKS = MAX_READERS
MAX_MOOV_BYTES = 1 << 28            # tables of some 10 million samples
MAX_MOOF_BYTES = MOOF_LIMIT
MAX_SAMPLE_BYTES = 1 << 26
MAX_EVENT_BYTES = 1 << 20

cdef enum:
    MAX_READERS = 64
    LOOKING = 0                     # for moov
    PROBING = 1                     # reading first packets that say something of their track
    TABLES = 2                      # playing what the tables hold
    FRAGMENTS = 3                   # playing fragments
    NEAR_BYTES = 1 << 20            # read through this much that nobody asked for rather than jump
    NEAR_FRAGMENT_BYTES = 1 << 24   # fragments are read from front to back, so that they can come out of a pipe
    AHEAD_BYTES = 1 << 23           # fragments are looked through so far for packets of the other tracks
    AHEAD_US = 5000000
    KNOWN_EVENTS = 256              # so many are remembered, as packagers repeat them until they are due
    WAITING_EVENTS = 4096
    MOOF_LIMIT = 1 << 26
    MOOF_BYTES = 16                 # by which one is told: its head, and that of the mfhd in it
    ODD_BOX_BYTES = 1 << 20         # what may be between fragments of a kind that is not known
    DONE = 1                        # what a step of reading returns
    NEEDS_BYTES = 0
    AT_END = 2

# What may be between fragments, at any length.
cdef bytes BETWEEN_FRAGMENTS = b"moofmdatsidxssixstypemsgfreeskipwideprftmfrauuidmetapdinftypmoovudta"


@cython.final
cdef class Mp4Demuxer(Demuxer):
    """Reads MP4 and QuickTime files.

    reader: has movie(moov: bytes, offset: int), which returns the movie's tracks, complete(info, payload), and event(content, offset).

    Packets of all tracks come in the order of their decode times. A plain file is read by windows in the order of its samples: once from
    front to back when it is interleaved, which also works from a pipe when moov comes first. `position` of a packet is its own byte, in
    fragments that of their moof.

    Fragments that end in the middle, as of a recording that was cut off, are played as far as they go; a plain file
    that is shorter than its tables say raises TruncatedError there. Where something is no box between fragments, or its size lies,
    reading goes on at the next moof.

    Events between fragments are packets of further tracks, one for each kind, known from its first event on. Each comes once, before
    the first packet of the media that is not earlier, or at once where it is behind its time.
    """

    cdef object reader
    cdef object movie
    cdef list foreseen              # tracks that come behind those of the movie
    cdef dict event_tracks          # number of the track of each kind of events
    cdef list events                # (time, position, number of the track, payload) of those that are not due yet, sorted
    cdef list relative              # (event, position) of those that the next fragment gives a time
    cdef dict known                 # identities of events that were read, in their order
    cdef int64_t segment_begin      # byte of the first event behind the last fragment, -1 for none
    cdef list readers
    cdef Windows windows
    cdef FragmentReader fragments
    cdef ByteBuffer changed         # payload that differs from what is stored
    cdef int stage
    cdef int count
    cdef bint indexing
    cdef bint scanned               # all fragments are known
    cdef int64_t scan_position      # of the next box
    cdef int64_t first_fragment     # byte behind moov
    cdef bint lost                  # looking for a moof
    cdef int64_t lost_at            # since which byte
    cdef bint cut                   # a fragment that goes past the end was told
    cdef str last_box               # on the top level, in words
    cdef int64_t newest_us          # of the packets of fragments seen so far

    def __init__(self, reader):
        self.reader = reader
        self.readers = []
        self.windows = Windows()
        self.changed = ByteBuffer()
        self.newest_us = -INT64_MAX
        self.event_tracks = {}
        self.foreseen = []
        self.last_box = ""
        self.forget_events()

    # -- The driver's face

    def want(self):
        """Return (position, count) of the bytes to feed next, or None at the end; may write packets first.

        Raises RemoteProtocolError.
        """
        if not self.windows.needs and not self.ended:
            self.run()
        return None if self.ended else self.windows.wanted()

    def feed(self, data):
        """Take the bytes at the position that `want()` named. Empty: the input ends there.

        Raises RemoteProtocolError.   Cost: none for payload that is whole in what is fed (as bytes), else one copy.
        """
        cdef int64_t[MAX_READERS + 1] places
        cdef int count = 0
        cdef TrackReader track
        self.windows.take(data)
        if self.windows.needs:
            return
        if self.stage == FRAGMENTS or self.stage == LOOKING:
            places[0] = self.scan_position
            count = 1
        for track in self.readers:
            if track.has_head:
                places[count] = track.head.position
                count += 1
        self.windows.trim(places, count)
        self.run()

    @property
    def wants_rest_of_box(self):
        """Whether what is wanted is a part of a large box, behind which nothing is read."""
        return self.windows.needs and self.windows.need_bytes > WINDOW_BYTES

    def seek(self, int64_t dts_us, int64_t position):
        """Go on at the last keyframe of the first video track that is not after dts_us, and the other tracks at the same time.

        position: of fragments, the byte where a moof or the events before it begin (what `position` was); 0 for the first. Plain files
        do without.
        Raises NotReady before the tracks are known.   Cost: a binary search; the first one goes once through the rows of the tables.
        """
        cdef TrackReader track
        cdef int64_t at_us = dts_us
        cdef int main
        if not self.ready:
            raise NotReady("a file whose tracks are not known yet cannot be sought in")
        self.windows.forget_need()
        self.ended = False
        self.newest_us = -INT64_MAX
        self.forget_events()
        if self.fragments is not None:
            self.fragments.clear()
        for track in self.readers:
            track.has_head = False
            track.rewind()
        if self.fragments is not None and not self.in_tables(dts_us):
            return self.seek_fragment(dts_us, position)
        self.stage = TABLES
        main = self.main_track()
        for index in range(-1, self.count):
            track = self.readers[main if index < 0 else index]
            if index == main:
                continue
            track.go_to_us(at_us, not track.sparse)
            while track.sparse and track.load() and track.head.dts_us < at_us:
                track.has_head = False
            if index < 0 and track.load():
                at_us = min(at_us, track.head.dts_us)   # the main track may begin later than what is sought

    def attach(self, Muxer sink):
        """Write packets into this muxer from now on, those held back first. None: hold back."""
        self.indexing = False
        Demuxer.attach(self, sink)

    def index_into(self, Muxer sink not None):
        """Write all packets from here on into the sink with their sizes but without payload (data is NULL), then drive as usual.

        Media is not read: of a plain file nothing more is wanted once the tracks are known, of a fragmented one the moof boxes.
        The first packet of a track that is described by it may come with its payload. Sizes are those of the payload, unless
        `sizes_are_exact` is False. `position` and `tracks` are as when playing; changes of a track are announced.
        """
        Demuxer.attach(self, sink)
        self.indexing = True
        self.put_events(INT64_MAX)

    @property
    def sizes_are_exact(self):
        """Whether a packet's size is known without reading it: not for NAL unit lengths of under four bytes, and AV1
        whose first packet has another size than its sample. Subtitles do not count: what holds them has no length beforehand."""
        cdef TrackReader track
        for track in self.readers:
            if track.altered and track.source.info.codec != "subtitle":
                return False
        return True

    def keys(self, int track, int64_t distance_us=0):
        """Return the random access points of a plain file's track as an array of dts_us, position and sample number, one after the other.

        distance_us: leave out those that are nearer than this to the one before. Reads no media.
        Raises NotReady before the tracks are known.   Cost: once through the tables.
        """
        cdef TrackReader reader
        cdef int64_t last = -INT64_MAX
        if not self.ready:
            raise NotReady("the tracks are not known yet")
        reader = TrackReader((<TrackReader> self.readers[track]).source, self.movie.timescale)
        found = array("q")
        append = found.append
        while reader.load():
            reader.has_head = False
            if reader.head.key and (last == -INT64_MAX or reader.head.dts_us - last >= distance_us):
                last = reader.head.dts_us
                append(last)
                append(reader.head.position)
                append(reader.head.number)
        return found

    def share(self):
        """Return another demuxer of the same file that stands at its beginning and shares the tables in memory.

        Raises NotReady before the tracks are known.
        """
        cdef Mp4Demuxer other = Mp4Demuxer(self.reader)
        if not self.ready:
            raise NotReady("the tracks are not known yet")
        other.tracks = list(self.tracks)
        other.start(self.movie)
        other.event_tracks = dict(self.event_tracks)
        if self.fragments is not None:
            other.fragments.own_base = self.fragments.own_base
        for track in other.readers:
            (<TrackReader> track).pending = False
        other.scan_position = self.first_fragment
        other.first_fragment = self.first_fragment
        other.stage = TABLES if self.has_tables() or self.fragments is None else FRAGMENTS
        other.become_ready()
        return other

    # -- Boxes

    cdef int run(self) except -1:
        """Go on until bytes are needed, the tracks have become known, or the end."""
        cdef int step
        while not self.windows.needs and not self.ended:
            if self.stage == LOOKING:
                step = self.scan(0)
                if step == AT_END:
                    raise TruncatedError(
                        f"no moov box{self.last_box}", offset=self.scan_position, spec="ISO/IEC 14496-12 clause 8.2.1"
                    )
            elif self.stage == PROBING:
                if self.probe() == DONE:
                    self.stage = TABLES
                    self.become_ready()
                    return 0
            elif self.stage == TABLES:
                self.play()
            elif not self.play_fragments():
                return 0
        return 0

    cdef int scan(self, int64_t through) except -1:
        """Pass over a box on the top level, reading it if it is a moov or moof."""
        cdef int64_t size
        cdef int header = 8
        cdef const uint8_t* data
        cdef char[4] kind
        if self.lost:
            return self.find_fragment(through)
        data = self.windows.gather(self.scan_position, 8, through)
        if data is NULL:
            return AT_END if self.windows.beyond else NEEDS_BYTES
        size = be32(data)
        for place in range(4):
            kind[place] = <char> data[4 + place]
        if size == 1:
            header = 16
            data = self.windows.gather(self.scan_position, 16, through)
            if data is NULL:
                return AT_END if self.windows.beyond else NEEDS_BYTES
            size = be64(data + 8)
        elif size == 0:
            size = <int64_t> 1 << 61    # to the end of the file
        if self.fragments is not None and not may_follow(kind, size, header):
            self.lost = True
            self.lost_at = self.scan_position
            return DONE
        if size < header or size > <int64_t> 1 << 61:
            raise RemoteProtocolError(
                f"a box {bytes(kind[:4])!r} of {size} bytes{self.last_box}",
                offset=self.scan_position, spec="ISO/IEC 14496-12 clause 4.2",
            )
        if memcmp(kind, b"moov", 4) == 0 and self.movie is None:
            return self.read_moov(size, header)
        if memcmp(kind, b"moof", 4) == 0 and self.fragments is not None:
            return self.read_moof(size, through)
        if memcmp(kind, b"emsg", 4) == 0 and self.fragments is not None:
            return self.read_event(size, header, through)
        self.last_box = f"; the last box before it is {bytes(kind[:4])!r} of {size} bytes at byte {self.scan_position}"
        self.scan_position += size
        return DONE

    cdef int find_fragment(self, int64_t through) except -1:
        """Go on to the next place where a moof may begin, in the bytes that are there, and see whether one does."""
        cdef const uint8_t* data = self.windows.gather(self.scan_position, MOOF_BYTES, through)
        cdef const uint8_t* found
        cdef Window* window
        cdef size_t size
        if data is NULL and not self.windows.beyond:
            return NEEDS_BYTES
        if data is NULL or (memcmp(data + 4, b"moof", 4) == 0 and memcmp(data + 12, b"mfhd", 4) == 0):
            self.lost = False
            self.note_lost(self.windows.input_end if data is NULL else self.scan_position)
            return AT_END if data is NULL else DONE
        window = &self.windows.windows[self.windows.find(self.scan_position)]
        data = window.data + (self.scan_position - window.begin)
        size = <size_t> (window.end - self.scan_position)
        found = <const uint8_t*> memchr(data + 5, c"m", size - 5) if size > 5 else NULL
        if found is not NULL:
            size = <size_t> (found - data)
        self.scan_position += <int64_t> (size - 4 if size > 4 else 1)
        return DONE

    cdef int note_lost(self, int64_t found) except -1:
        """Write down what was passed over to where a fragment was found, or the input ends."""
        return self.note_damage(self.lost_at, found - self.lost_at, "no box between fragments; passed over up to the next moof")

    cdef int read_moov(self, int64_t size, int header) except -1:
        if size > MAX_MOOV_BYTES:
            raise LimitExceededError(f"a moov box of {size} bytes; at most {MAX_MOOV_BYTES} are read", offset=self.scan_position)
        if not self.windows.has(self.scan_position, <size_t> size, 0):
            if self.windows.beyond:
                raise TruncatedError(
                    f"a moov box of {size} bytes goes past the end of the file", offset=self.scan_position,
                    spec="ISO/IEC 14496-12 clause 4.2",
                )
            if self.scan_position >= WINDOW_BYTES:  # not in a pipe: read again from its first byte, it need not be copied
                self.windows.ask(self.scan_position, size, 0)
            return NEEDS_BYTES
        self.start(self.reader.movie(self.windows.whole(self.scan_position, <size_t> size), self.scan_position, header))
        self.scan_position += size
        self.windows.forget_until(self.scan_position)
        self.first_fragment = self.scan_position
        return DONE

    cdef int start(self, object movie) except -1:
        """Make a reader for each track of the movie."""
        cdef TrackReader track
        if len(movie.tracks) > MAX_READERS:
            raise LimitExceededError(f"{len(movie.tracks)} tracks; at most {MAX_READERS} are read", offset=self.scan_position)
        self.movie = movie
        self.left_out = list(movie.left_out)
        for source in movie.tracks:
            track = TrackReader(source, movie.timescale)
            self.readers.append(track)
            if len(self.tracks) < len(self.readers):
                info = source.info
                if info.type == "audio" and not track.opus:
                    info = info.changed(delay_us=track.lead_us())
                self.set_track(self.count, info, False)
            self.count += 1
        if movie.fragmented:
            self.fragments = FragmentReader([(one.track_id, one.defaults) for one in movie.tracks], movie.passed_over)
            for index in range(self.count):
                self.fragments.tracks[index].next_ticks = (<TrackReader> self.readers[index]).table.duration_ticks
                self.fragments.tracks[index].timed = self.fragments.tracks[index].next_ticks > 0
            self.foresee(self.foreseen)
        self.stage = PROBING if self.has_tables() or self.fragments is None else FRAGMENTS
        return 0

    cdef bint has_tables(self) except -1:
        """Tell whether moov itself has samples."""
        cdef TrackReader track
        for track in self.readers:
            if track.table.count:
                return True
        return False

    cdef bint in_tables(self, int64_t dts_us) except -1:
        """Tell whether what is at a time is in moov, not in fragments."""
        cdef TrackReader track
        for track in self.readers:
            if track.table.count and dts_us < track.us_of(track.table.duration_ticks + track.fragment_shift_ticks):
                return True
        return False

    cdef int main_track(self) except -1:
        """Return the track by whose keyframes a seek goes."""
        cdef TrackReader track
        cdef int found = 0
        for index in range(self.count - 1, -1, -1):
            track = self.readers[index]
            if track.video or (<TrackReader> self.readers[found]).sparse:
                found = index
        return found

    # -- Tables

    cdef int probe(self) except -1:
        """Complete what is known of tracks from their first packets."""
        cdef TrackReader track
        cdef int index
        for index in range(self.count):
            track = self.readers[index]
            if not track.pending:
                continue
            if not track.load():
                track.pending = False
            elif self.complete(index, track) == NEEDS_BYTES:
                return NEEDS_BYTES
        return DONE

    cdef int complete(self, int index, TrackReader track) except -1:
        cdef PacketView view
        cdef int step = self.read_payload(track, NEAR_BYTES, &view)
        if step == NEEDS_BYTES:
            return NEEDS_BYTES
        track.pending = False
        track.altered |= step == DONE and view.size != track.head.size
        if step == DONE and view.data is not NULL:
            info = self.tracks[index]
            payload = (<const char*> view.data)[:view.size]
            completed = self.reader.complete(info, payload)
            if completed != info:
                self.set_track(index, completed, False)
        return DONE

    cdef int play(self) except -1:
        """Write packets by their decode times as far as bytes are there."""
        cdef TrackReader track
        cdef TrackReader best
        cdef int index
        cdef int found
        while True:
            best = None
            found = -1
            for index in range(self.count):
                track = <TrackReader> self.readers[index]
                if (track.has_head or (not track.over and track.load())) and (
                    found < 0 or track.head.dts_us < best.head.dts_us
                ):
                    best = track
                    found = index
                elif not track.has_head:
                    track.over = True
            if found < 0:
                if self.fragments is None:
                    self.ended = True
                else:
                    self.stage = FRAGMENTS
                return 0
            if self.write_head(found, best, NEAR_BYTES) == NEEDS_BYTES:
                return 0

    cdef int write_head(self, int index, TrackReader track, int64_t through) except -1:
        """Write a track's next packet. Returns AT_END where the file is too short for a fragment's packet."""
        cdef PacketView view
        cdef int step = DONE
        if self.indexing and not track.pending and not (track.opus and track.head.rest_ticks):
            view.data = NULL
            view.size = size_without_reading(&track.forms[track.head.description], track.head.size)
        else:
            step = self.read_payload(track, through, &view)
            if step != DONE:
                return step
        track.has_head = False
        if view.size == 0:
            return DONE
        view.dts_us = track.head.dts_us
        view.offset_us = track.head.offset_us
        view.flags = (KEYFRAME if track.head.key else 0) | trim_flags(track.trim_us(&view))
        if track.head.description != track.announced:
            track.announced = track.head.description
            self.set_track(index, track.source.descriptions[track.announced].info, True)
            view.flags |= NEW_INIT
        self.position = track.head.resume
        self.emit(index, &view)
        return DONE

    cdef int read_payload(self, TrackReader track, int64_t through, PacketView* view) except -1:
        """Find the payload of a track's next packet; its size is 0 where the sample has none."""
        cdef const uint8_t* data
        if track.head.size > MAX_SAMPLE_BYTES:
            raise LimitExceededError(
                f"a sample of {track.head.size} bytes; at most {MAX_SAMPLE_BYTES} are read", offset=track.head.position
            )
        data = self.windows.gather(track.head.position, track.head.size, through)
        if data is NULL:
            if not self.windows.beyond:
                return NEEDS_BYTES
            if self.stage == FRAGMENTS:
                return AT_END
            raise TruncatedError(
                f"sample {track.head.number + 1} of track {track.source.track_id} goes past the end of the file",
                offset=track.head.position, spec="ISO/IEC 14496-12 clause 8.7.5",
            )
        view.size = track.head.size
        view.data = packet_of(&track.forms[track.head.description], data, &view.size, self.changed)
        if view.data is NULL:
            view.size = 0
        return DONE

    # -- Fragments

    cdef int read_moof(self, int64_t size, int64_t through) except -1:
        cdef const uint8_t* data
        cdef FragmentSample* last
        cdef TrackReader track
        cdef int index
        if size > MAX_MOOF_BYTES:
            raise LimitExceededError(f"a moof box of {size} bytes; at most {MAX_MOOF_BYTES} are read", offset=self.scan_position)
        data = self.windows.gather(self.scan_position, <size_t> size, through)
        if data is NULL:
            return AT_END if self.windows.beyond else NEEDS_BYTES
        self.fragments.resume = self.segment_begin
        self.segment_begin = -1
        self.read_fragment(data, <size_t> size)
        for index in range(self.count):
            if self.fragments.tracks[index].first < self.fragments.tracks[index].end:
                track = self.readers[index]
                last = &self.fragments.tracks[index].samples[self.fragments.tracks[index].end - 1]
                self.newest_us = max(self.newest_us, track.us_of(last.dts_ticks + track.fragment_shift_ticks))
        self.scan_position += size
        return DONE

    cdef int read_fragment(self, const uint8_t* moof, size_t size) except -1:
        """Queue a fragment's samples, and give the events before it the times that count from its first presentation."""
        cdef size_t[MAX_READERS] before
        cdef FragmentSample* sample
        cdef TrackReader track
        cdef int64_t first_us = INT64_MAX
        cdef size_t place
        cdef int index
        for index in range(self.count):
            before[index] = self.fragments.tracks[index].end - self.fragments.tracks[index].first
        self.fragments.read(moof, size, self.scan_position)
        if not self.relative:
            return 0
        for index in range(self.count):
            track = self.readers[index]
            for place in range(self.fragments.tracks[index].first + before[index], self.fragments.tracks[index].end):
                sample = &self.fragments.tracks[index].samples[place]
                first_us = min(
                    first_us, track.us_of(sample.dts_ticks + sample.offset_ticks + track.fragment_shift_ticks)
                )
        if first_us < INT64_MAX:
            relative, self.relative = self.relative, []
            for event, position in relative:
                self.keep_event(event, first_us + event.time_us, position)
        return 0

    # -- Events

    cdef int forget_events(self) except -1:
        self.events, self.relative, self.known = [], [], {}
        self.segment_begin = -1
        return 0

    def look_ahead(self, int fd):
        """Look through a whole local file for events, which come when outputs that tell their tracks first have begun."""
        kinds = {}
        for content in event_boxes(fd, MAX_EVENT_BYTES):
            event = self.reader.event(content, 0)
            if event is not None:
                kinds[event.info.codec] = event.info
        self.foreseen = list(kinds.values())

    def foresee(self, list infos not None):
        for info in infos:
            if info.type == "meta" and info.codec not in self.event_tracks and len(self.tracks) < MAX_READERS:
                self.event_tracks[info.codec] = len(self.tracks)
                self.set_track(len(self.tracks), info, False)

    cdef int read_event(self, int64_t size, int header, int64_t through) except -1:
        """Read an emsg box. Events of other kinds and those that were read before are passed over."""
        cdef const uint8_t* data
        cdef int64_t position = self.scan_position
        if size > MAX_EVENT_BYTES:
            raise LimitExceededError(f"an emsg box of {size} bytes; at most {MAX_EVENT_BYTES} are read", offset=position)
        data = self.windows.gather(position, <size_t> size, through)
        if data is NULL:
            return AT_END if self.windows.beyond else NEEDS_BYTES
        event = self.reader.event((<const char*> data)[header:size], position + header)
        self.scan_position += size
        if self.segment_begin < 0:
            self.segment_begin = position
        if event is None or event.identity in self.known:
            return DONE
        if len(self.known) == KNOWN_EVENTS:
            del self.known[next(iter(self.known))]
        self.known[event.identity] = True
        if len(self.events) + len(self.relative) >= WAITING_EVENTS:
            raise LimitExceededError(f"over {WAITING_EVENTS} events that are not due", offset=position)
        if event.relative:
            self.relative.append((event, position))
        else:
            self.keep_event(event, event.time_us, position)
        return DONE

    cdef int keep_event(self, object event, object time_us, object position) except -1:
        """Keep an event until it is due. An index takes it at once, so that it knows where reading must begin for it."""
        codec = event.info.codec
        if codec not in self.event_tracks:
            if len(self.tracks) >= MAX_READERS:
                return 0
            self.event_tracks[codec] = len(self.tracks)
            self.set_track(len(self.tracks), event.info, False)
        insort(self.events, (time_us, position, self.event_tracks[codec], event.payload))
        if self.indexing:
            self.put_events(INT64_MAX)
        return 0

    cdef int put_events(self, int64_t until_us) except -1:
        """Write the events that are due."""
        cdef Py_ssize_t due = 0
        for time_us, position, number, payload in self.events:
            if time_us > until_us:
                break
            self.put_packet(Packet(number, time_us, 0, True, payload), position)
            due += 1
        if due:
            del self.events[:due]
        return 0

    cdef int play_fragments(self) except -1:
        """Look through the next fragment or write a packet. Returns 0 after the tracks have become known."""
        cdef TrackReader track
        cdef int64_t lowest = INT64_MAX
        cdef int64_t through = 0 if self.indexing else NEAR_FRAGMENT_BYTES
        cdef int found = -1
        cdef int index
        cdef int step
        cdef bint waiting = False
        cdef bint pending = False
        for index in range(self.count):
            track = <TrackReader> self.readers[index]
            self.load_fragment(index, track)
            if track.has_head and track.head.dts_us < lowest:
                lowest = track.head.dts_us
                found = index
            waiting |= not track.has_head and not track.silent
            pending |= track.pending
        if waiting and found >= 0 and (
            self.scanned or self.newest_us - lowest > AHEAD_US or self.fragments.queued_bytes > AHEAD_BYTES
        ):
            waiting = False
            self.stop_waiting()
        if not self.ready and (not pending or self.held_bytes > AHEAD_BYTES):
            self.become_ready()
            return 0
        if found >= 0 and not waiting:
            track = <TrackReader> self.readers[found]
            if track.pending and self.complete(found, track) == NEEDS_BYTES:
                return 1
            if not self.is_last(found, track):
                track.head.rest_ticks = 0
            elif not self.scanned and self.newest_us - lowest <= AHEAD_US:
                self.scanned = self.scan(through) == AT_END
                return 1
            self.put_events(track.head.dts_us)
            step = self.write_head(found, track, through)
            if step == AT_END:
                track.has_head = False
                self.note_cut(track)
        elif self.scanned:
            self.finish()
        elif self.scan(through) == AT_END:
            self.scanned = True
        return 1

    cdef int note_cut(self, TrackReader track) except -1:
        """Write down where packets of fragments go past the end of the input."""
        if self.cut:
            return 0
        self.cut = True
        return self.note_damage(
            track.head.position, 0, f"a packet of track {track.source.track_id} of {track.head.size} bytes goes past the end of the input"
        )

    cdef bint is_last(self, int index, TrackReader track) noexcept:
        """Tell whether a packet may be the last one of its track: no other is known, and it is shorter than a frame."""
        return not self.fragments.head(index) and track.may_end()

    cdef int finish(self) except -1:
        if self.ready:
            self.put_events(INT64_MAX)
            self.ended = True
        else:
            for track in self.readers:
                (<TrackReader> track).pending = False
            self.become_ready()
        return 0

    cdef int load_fragment(self, int index, TrackReader track) except -1:
        cdef FragmentSample* sample
        while not track.has_head:
            sample = self.fragments.head(index)
            if sample is NULL:
                return 0
            track.silent = False
            track.load_fragment(sample, self.fragments.tracks[index].negative_ticks)
            self.fragments.drop(index)
        return 0

    cdef int stop_waiting(self) except -1:
        """Wait no more for tracks that had nothing for a long time, and know them as they are."""
        cdef TrackReader track
        for track in self.readers:
            if not track.has_head:
                track.silent = True
                track.pending = False
        return 0

    cdef int seek_fragment(self, int64_t dts_us, int64_t position) except -1:
        """Go on at a moof. Fragments that do not say their time are taken to be at the time that was sought."""
        cdef TrackReader track
        cdef int index
        self.stage = FRAGMENTS
        self.scanned = self.lost = False
        self.scan_position = position if position > 0 else self.first_fragment
        for index in range(self.count):
            track = self.readers[index]
            track.silent = False
            self.fragments.tracks[index].timed = False
            self.fragments.tracks[index].next_ticks = max(0, track.ticks_until(dts_us) - track.fragment_shift_ticks)
        return 0


cdef bint may_follow(const char* kind, int64_t size, int header) noexcept:
    """Tell whether a box is one that may be between fragments, rather than damage."""
    cdef int place
    if size < header or size > <int64_t> 1 << 61:
        return False
    for place in range(0, <int> len(BETWEEN_FRAGMENTS), 4):
        if memcmp(<const char*> BETWEEN_FRAGMENTS + place, kind, 4) == 0:
            return memcmp(kind, b"moof", 4) != 0 or size <= MOOF_LIMIT
    for place in range(4):
        if not 32 <= <uint8_t> kind[place] < 127:
            return False
    return size <= ODD_BOX_BYTES

"""What is done for each of tens of thousands of connections and sessions once a second: add up what they did, and note it."""

cimport cython
from cpython cimport array
from libc.stdint cimport int64_t
from libc.string cimport memmove

from array import array as make_array

HISTORY_SECONDS = 600
FINE_SECONDS = 20             # how long there is a row for each second
COARSE_STEP_SECONDS = 10      # older ones are kept for seconds that are a multiple of this

cdef enum:
    FINE_ROWS = 20
    COARSE_STEP = 10
    COARSE_ROWS = 60
    SESSION_ROW = 5

assert FINE_ROWS == FINE_SECONDS and COARSE_STEP == COARSE_STEP_SECONDS
assert COARSE_ROWS * COARSE_STEP == HISTORY_SECONDS


@cython.final
cdef class ConnectionSnapshot:
    """One connection as its record in shared memory showed it when somebody looked last; the next look changes it in place.

    names: (stream, connector, host, token). connector: "HLS", "RTMP", "INPUT:RTMP", "OUTPUT:FLV" … host: address text, IPv6 or
    dotted IPv4. token: session token. started_us, updated_us: unix microseconds. down_bytes: sent to the peer; up_bytes: received
    from it. position_us: media time the connection is at. active: False once it has ended (its record lingers a while).
    record_id: unique while the server runs.
    """

    def __init__(self, *, pid=0, str connector="", str stream="", str host="", str token="", started_us=0, updated_us=0,
                 down_bytes=0, up_bytes=0, position_us=0, packets=0, packets_lost=0, packets_retransmitted=0,
                 bint active=True, record_id=0):
        self.pid, self.started_us, self.updated_us = pid, started_us, updated_us
        self.down_bytes, self.up_bytes, self.position_us = down_bytes, up_bytes, position_us
        self.packets, self.packets_lost, self.packets_retransmitted = packets, packets_lost, packets_retransmitted
        self.active, self.record_id, self.identity = active, record_id, record_id
        self.names = (stream, connector, host, token)

    @property
    def stream(self):
        return self.names[0]

    @property
    def connector(self):
        return self.names[1]

    @property
    def host(self):
        return self.names[2]

    @property
    def token(self):
        return self.names[3]


@cython.final
cdef class History:
    """Ten minutes of counters in little memory: a row for each of the last seconds, and one for each ten before.

    Rows are integers, the first of which is the unix second. All rows of one history are equally long.
    """

    def __init__(self, int width):
        self.width = width
        self.fine = make_array("q")
        self.coarse = make_array("q")

    def __reduce__(self):
        return restored_history, (self.width, self.fine.tobytes(), self.coarse.tobytes())

    def record(self, tuple row not None):
        """Append the row of a second that is later than all before."""
        cdef int64_t numbers[16]
        cdef int place
        if len(row) != self.width or self.width > 16:
            raise ValueError("a row of another length")
        for place in range(self.width):
            numbers[place] = row[place]
        self.add(numbers)

    cdef int add(self, int64_t* row) except -1:
        append_row(self.fine, row, self.width, FINE_ROWS)
        if row[0] % COARSE_STEP == 0 or not len(self.coarse):
            append_row(self.coarse, row, self.width, COARSE_ROWS)
        return 0

    def shrink(self):
        """Keep only the coarse part and the last row: nothing more will be recorded."""
        self.coarse.extend(self.fine[len(self.fine) - self.width :] if len(self.fine) else self.fine)
        self.fine = make_array("q")

    def at(self, int64_t time):
        """Return the newest row that is not after time, None when all are."""
        if len(self.fine) and self.fine.data.as_longlongs[0] <= time:
            return newest_row(self.fine, self.width, 1, time)
        if len(self.coarse) and self.coarse.data.as_longlongs[0] <= time:
            return newest_row(self.coarse, self.width, COARSE_STEP, time)
        return None


cdef int append_row(array.array rows, int64_t* row, int width, int most) except -1:
    """Append a row, and drop the oldest of more than so many."""
    cdef Py_ssize_t size = len(rows)
    if size >= most * width:
        memmove(rows.data.as_longlongs, rows.data.as_longlongs + width, (size - width) * sizeof(int64_t))
        size -= width
    else:
        array.resize_smart(rows, size + width)
    memmove(rows.data.as_longlongs + size, row, width * sizeof(int64_t))
    return 0


cdef tuple newest_row(array.array rows, int width, int step, int64_t time):
    """Return the newest row not after time, which the first one is not: guess its place, then walk there."""
    cdef long long* numbers = rows.data.as_longlongs
    cdef Py_ssize_t count = len(rows) // width
    cdef Py_ssize_t place = min((time - numbers[0]) // step + 1, count - 1)
    while numbers[place * width] > time:
        place -= 1
    while place + 1 < count and numbers[(place + 1) * width] <= time:
        place += 1
    return tuple([numbers[place * width + column] for column in range(width)])


def restored_history(int width, bytes fine not None, bytes coarse not None):
    """Return a history as it was kept."""
    cdef History history = History(width)
    history.fine.frombytes(fine)
    history.coarse.frombytes(coarse)
    return history


cdef class Counted:
    """Bytes sent (up) and received (down), and packets."""


cdef class StreamCounts(Counted):
    """Counters of one stream."""


cdef class SessionCounts(Counted):
    """Counters of one session, and their history.

    touched: the last second with an active connection; seen: the number of the tick at that time. connected_s: seconds with at
    least one active connection; unspent_s: those of them that are not yet counted for the names of what is connected. linger_s:
    how long it goes on without a connection. counted: whether its bytes are the stream's; watches: whether its seconds are.
    """


@cython.final
cdef class Connection:
    """What was last seen of one connection, and what it counts for."""

    def __reduce__(self):
        return restored_connection, (
            self.key, self.session, self.totals, self.series,
            (self.sent, self.received, self.packets, self.lost, self.resent, self.seen),
        )


def restored_connection(key, session, totals, series, numbers):
    """Return a connection as it was kept."""
    cdef Connection one = Connection()
    one.key, one.session, one.totals, one.series = key, session, totals, series
    one.sent, one.received, one.packets, one.lost, one.resent, one.seen = numbers
    return one


def restored_counts(kind, tuple names, tuple values):
    """Return a session or totals as they were kept: an object of a class with attributes of these names."""
    one = kind.__new__(kind)
    for name, value in zip(names, values, strict=True):
        setattr(one, name, value)
    return one


cdef void add_bytes(Counted counters, int64_t up, int64_t down) noexcept:
    if counters is not None:
        counters.up += up
        counters.down += down


cdef void add_packets(Counted counters, int64_t packets, int64_t lost, int64_t resent) noexcept:
    if counters is not None:
        counters.packets += packets
        counters.lost += lost
        counters.resent += resent


def count_connections(dict connections not None, list snapshots not None, int64_t tick, int64_t now, attach):
    """Add what connections did since the last look, and mark the sessions that have an active one.

    connections: by record. attach: called with a connection, its names, now and the second it began (0: not now), puts it into its
    session. Returns what all did together: bytes (up, down), those of excepted addresses (up, down), packets (sent, lost, resent).
    """
    cdef ConnectionSnapshot snapshot
    cdef Connection one
    cdef SessionCounts session
    cdef int64_t up = 0, down = 0, other_up = 0, other_down = 0, packets = 0, lost = 0, resent = 0
    cdef int64_t first, second, third
    for snapshot in snapshots:
        found = connections.get(snapshot.record_id)
        if found is None:
            one = connections[snapshot.record_id] = Connection()
            attach(one, snapshot.names, now, snapshot.started_us // 1_000_000)
        else:
            one = found
            if one.key is not snapshot.names:
                if one.key != snapshot.names:
                    attach(one, snapshot.names, now, 0)
                one.key = snapshot.names
        one.seen = tick
        session = one.session
        if session is None:
            one.sent, one.received = snapshot.down_bytes, snapshot.up_bytes
            continue
        if session.ended:
            if not snapshot.active:
                continue  # its record lingers for those who look less often
            attach(one, snapshot.names, now, 0)  # a connection that was idle for longer than the session lasts
            session = one.session
            if session is None:
                continue
        if snapshot.active:
            session.seen = tick
        if one.sent != snapshot.down_bytes or one.received != snapshot.up_bytes:
            first, second = max(snapshot.down_bytes - one.sent, 0), max(snapshot.up_bytes - one.received, 0)
            one.sent, one.received = snapshot.down_bytes, snapshot.up_bytes
            add_bytes(session, first, second)
            add_bytes(one.series, first, second)
            if session.counted:
                add_bytes(one.totals, first, second)
                up += first
                down += second
            else:
                other_up += first
                other_down += second
        if snapshot.packets:
            first = max(snapshot.packets - one.packets, 0)
            second = max(snapshot.packets_lost - one.lost, 0)
            third = max(snapshot.packets_retransmitted - one.resent, 0)
            one.packets, one.lost, one.resent = snapshot.packets, snapshot.packets_lost, snapshot.packets_retransmitted
            packets += first
            lost += second
            resent += third
            add_packets(session, first, second, third)
            add_packets(one.totals, first, second, third)
            add_packets(one.series, first, second, third)
        session.position_ms = (snapshot.position_us + 500) // 1000
    return up, down, other_up, other_down, packets, lost, resent


def age_sessions(dict live not None, int64_t tick, int64_t now, int64_t elapsed):
    """Note this second in the histories of sessions, and count it for those with an active connection.

    tick: the number of this look. elapsed: seconds since the last. Returns (sessions that end, seconds watched by all).
    """
    cdef SessionCounts session
    cdef list ending = []
    cdef int64_t watched = 0
    cdef int64_t row[SESSION_ROW]
    row[0] = now
    for session in live.values():
        if session.seen == tick:
            if session.touched != now:
                session.touched = now
                session.connected_s += elapsed
                session.unspent_s += elapsed
                if session.watches:
                    watched += elapsed
                    if session.home_totals is not None:
                        session.home_totals.viewseconds += elapsed
        elif now - session.touched >= session.linger_s:
            ending.append(session)
        row[1], row[2], row[3], row[4] = session.up, session.down, session.position_ms, session.connected_s
        session.history.add(row)
    return ending, watched


def gone_connections(dict connections not None, int64_t tick):
    """Return the records of connections that a look did not find."""
    cdef Connection one
    cdef list gone = []
    for record_id, one in connections.items():
        if one.seen != tick:
            gone.append(record_id)
    return gone

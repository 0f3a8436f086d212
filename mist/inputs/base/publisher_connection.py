"""A publisher's connection, which goes on in another process when this one is killed.

Bytes are received into the ring that the guardian keeps; now and then the parser's state is put beside them. A replacement
restores the state, parses what came after it again, passes over the packets that the stream has (`mist.stream.replay`) and the
replies that were said, and goes on. How far the killed process had come with the socket is the kernel's to tell.
"""

from __future__ import annotations

import asyncio
import json
import os
import socket
import struct
import time
from collections.abc import Callable, Iterator
from typing import Any, Final

from mist.errors import LocalProtocolError, MistError, PeerClosed, TransportError, WriteStalled
from mist.net.receive_ring import READ_BYTES, ReceiveRing, create_ring
from mist.net.tcp_counters import received_bytes, sent_bytes
from mist.stream.continued_tracks import FORGET_TRACKS_SECONDS
from mist.stream.services import InputServices

SILENCE_SECONDS: Final = 30.0
GOODBYE_SECONDS: Final = 2.0
MAX_UNSENT_BYTES: Final = 64 * 1024
STATE_BYTES: Final = 128 << 10  # a state is written down after so many: parsing them again takes a few ms
MAX_BYTES_BETWEEN: Final = 4 << 20  # ... or after as many as a big state itself has, up to this
REPLAY_BYTES: Final = 64 << 10
MIN_PIECE_BYTES: Final = 2048  # read at once from a publisher whose rate is bounded
_SIZE: Final = struct.Struct("<I")


class HandedOver(MistError):
    """Another process goes on with the connection."""

    reason = "CLEAN_HANDOVER"


class PublisherConnection:
    """Reads a publisher's socket until it ends. A protocol implements what is below "the protocol"."""

    def __init__(self, services: InputServices) -> None:
        self._services = services
        self._socket = socket.socket(fileno=services.fd)
        self._socket.setblocking(False)
        own_ring = create_ring() if services.ring < 0 else -1
        self._ring = ReceiveRing(own_ring if own_ring >= 0 else services.ring)
        if own_ring >= 0:
            os.close(own_ring)
        self._unsent = b""
        self._said = 0  # bytes that the peer was sent
        self._replied = 0  # bytes that the parser has said of itself
        self._skip = 0  # ... of those that it says again, how many were said
        self._replaying = False
        self._state_due = False
        self._heard_at = time.monotonic()
        self._bytes_per_s = int(services.request.get("maxkbps") or 0) * 125
        self._piece_bytes = (
            min(READ_BYTES, max(self._bytes_per_s // 10, MIN_PIECE_BYTES)) if self._bytes_per_s else READ_BYTES
        )
        self._rest: asyncio.TimerHandle | None = None
        self._silence_s = float(services.config.get("inputtimeout") or SILENCE_SECONDS)
        self._done: asyncio.Future[None] = services.loop.create_future()
        self._timers: list[asyncio.TimerHandle] = []

    # -- the protocol ----------------------------------------------------------------------------------------------

    def _begin(self, state: bytes) -> None:
        """Make the parser from what the listener handed over, and say that the publisher is welcome."""
        raise NotImplementedError

    def _feed(self, data: memoryview) -> None:
        """Parse bytes, and write their packets into the stream. Empty: look at what was handed over unparsed."""
        raise NotImplementedError

    def _take_replies(self) -> bytes:
        """Return what the parser says to the peer, the same for the same bytes."""
        raise NotImplementedError

    def _take_receipts(self) -> bytes:
        """Return what the parser says whose time depends on clocks, and which may be left out."""
        return b""

    def _export(self) -> bytes:
        """Return the parser's state, for `_restore`."""
        raise NotImplementedError

    def _restore(self, state: bytes) -> None:
        """Make the parser from a state. Raises LocalProtocolError."""
        raise NotImplementedError

    def _state_bytes(self) -> int:
        """Return about how large the state is now."""
        return 0

    def _forget_left(self) -> None:
        """Remove the tracks of an earlier publisher that this one does not continue."""
        raise NotImplementedError

    def _goodbye(self, text: str) -> None:
        """Queue why the connection ends."""
        raise NotImplementedError

    def _feed_after_end(self, data: memoryview) -> None:
        """Parse what a publisher says that has said goodbye, and is waited for to close."""

    # -- life ------------------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Serve the publisher to its end. Raises MistError unless it said goodbye, or another process goes on."""
        loop = self._services.loop
        try:
            held = self._attach()
            loop.add_reader(self._socket.fileno(), self._guarded, self._read)
            self._timers.insert(0, loop.call_later(self._silence_s, self._check_silence))
            self._timers.append(loop.call_later(FORGET_TRACKS_SECONDS, self._forget_left))
            self._services.on_yield = self._yield
            self._guarded(self._catch_up, held)
            del held
            await self._done
            await self._drain()
        except HandedOver:
            return
        except PeerClosed:
            raise
        except MistError as error:
            self._last_words(str(error))
            raise
        except asyncio.CancelledError:
            self._last_words("The stream was stopped, or another publisher took over")
            raise
        finally:
            self._services.on_yield = None
            for timer in (*self._timers, *([self._rest] if self._rest is not None else [])):
                timer.cancel()
            loop.remove_reader(self._socket.fileno())
            loop.remove_writer(self._socket.fileno())
            self._socket.close()

    def _attach(self) -> memoryview:
        """Begin, or go on where another process was; returns what it had received and perhaps not parsed."""
        ring, publisher = self._ring, self._services.publisher
        state = ring.state()
        if state is None:
            ring.start(received_bytes(self._socket) or 0, sent_bytes(self._socket) or 0)
            self._begin(self._services.state)
            self._queue()
            self._write_state()
            return memoryview(b"")
        try:
            (size,) = _SIZE.unpack_from(state)
            head = json.loads(state[_SIZE.size : _SIZE.size + size])
            counts = dict(head["counts"])
            self._replied = int(head["replied"])
        except (ValueError, KeyError, TypeError, struct.error) as error:
            raise LocalProtocolError(f"damaged state of a publisher: {error}") from error
        self._restore(state[_SIZE.size + size :])
        publisher.begin_replay(counts)
        self._said, self._unsent, mark = ring.unsent(sent_bytes(self._socket))
        self._skip = max(0, mark - self._replied)
        self._replaying = True
        held = ring.recover(received_bytes(self._socket))
        self._services.log.info("Going on with the publisher: %d bytes are parsed again", len(held))
        return held

    def _catch_up(self, held: memoryview) -> None:
        """Parse what another process had received or been handed over."""
        start = self._ring.end - len(held)
        for at in range(0, max(len(held), 1), REPLAY_BYTES):
            piece = held[at : at + REPLAY_BYTES]
            self._feed(piece)
            self._queue()
            self._ring.handled(start + at + len(piece))
        self._replaying = False
        self._send()
        self._keep_state()

    def _yield(self) -> None:
        """Let another process go on from here."""
        if not self._done.done():
            self._write_state()
            self._done.set_exception(HandedOver("another process goes on"))

    def _guarded(self, action: Callable[..., None], *arguments: Any) -> None:
        """Run a part of the connection; whatever it raises ends `run`."""
        if self._done.done():
            return
        try:
            action(*arguments)
        except Exception as error:  # noqa: BLE001 (given to the task that waits, which raises it)
            if not self._done.done():
                self._done.set_exception(error)

    def _read(self) -> None:
        try:
            data = self._ring.receive(self._socket, self._piece_bytes)
        except (BlockingIOError, InterruptedError):
            return
        except OSError as error:
            raise PeerClosed(f"the publisher's connection broke: {error}") from error
        if not data:
            raise PeerClosed("the publisher closed the connection without ending the stream")
        self._heard_at = time.monotonic()
        self._services.record.add_bytes(0, len(data))
        self._feed(data)
        self._flush()
        self._ring.handled(self._ring.end)
        self._keep_state()
        if self._bytes_per_s:
            self._slow_down(len(data))

    def _slow_down(self, count: int) -> None:
        """Read nothing for as long as these bytes take at the highest rate; the network makes the publisher wait."""
        if self._done.done():
            return
        rest_s = count / self._bytes_per_s
        self._heard_at += rest_s
        self._services.loop.remove_reader(self._socket.fileno())
        self._rest = self._services.loop.call_later(rest_s, self._read_on)

    def _read_on(self) -> None:
        if not self._done.done():
            self._services.loop.add_reader(self._socket.fileno(), self._guarded, self._read)

    def _keep_state(self) -> None:
        """Write the state down if that is due: so that little is parsed again, and copying it costs little."""
        held = self._ring.held
        size = self._state_bytes()
        due = held >= max(STATE_BYTES, min(size, MAX_BYTES_BETWEEN)) or (self._state_due and size <= STATE_BYTES)
        if due and not self._done.done():
            self._write_state()

    def _state_is_due(self) -> None:
        """Have the state written down as soon as what was received is parsed: something rare has changed."""
        self._state_due = True

    def _write_state(self) -> None:
        counts = list(self._services.publisher.packet_counts().items())
        head = json.dumps({"counts": counts, "replied": self._replied}, separators=(",", ":")).encode()
        self._ring.publish_state(_SIZE.pack(len(head)) + head + self._export())
        self._state_due = False

    def _end(self) -> None:
        """Take note that the publisher has said goodbye."""
        if not self._done.done():
            self._done.set_result(None)

    # -- sending ---------------------------------------------------------------------------------------------------

    def _queue(self) -> None:
        """Put what the parser says behind what is unsent, and write that down before it is sent."""
        replies = self._take_replies()
        self._replied += len(replies)
        said = min(self._skip, len(replies))
        self._skip -= said
        receipts = self._take_receipts()
        output = replies[said:] + (b"" if self._replaying else receipts)
        if not output:
            return
        self._unsent += output
        if len(self._unsent) > MAX_UNSENT_BYTES:
            raise WriteStalled("the publisher does not read what is sent to it")
        self._ring.publish_replies(self._said, self._unsent, self._replied)

    def _flush(self) -> None:
        waiting = bool(self._unsent)
        self._queue()
        if self._unsent and not waiting:
            self._send()

    def _send(self) -> None:
        try:
            sent = self._socket.send(self._unsent) if self._unsent else 0
        except (BlockingIOError, InterruptedError):
            sent = 0
        except OSError as error:
            raise PeerClosed(f"the publisher's connection broke: {error}") from error
        self._said += sent
        self._ring.sent(self._said)
        self._services.record.add_bytes(sent, 0)
        self._unsent = self._unsent[sent:]
        loop = self._services.loop
        if self._unsent:
            loop.add_writer(self._socket.fileno(), self._guarded, self._send)
        else:
            loop.remove_writer(self._socket.fileno())

    def _last_words(self, text: str) -> None:
        """Send what can be sent at once; the connection ends anyway."""
        try:
            self._goodbye(text)
            self._socket.send(self._unsent + self._take_replies())
        except (OSError, AttributeError) as error:
            self._services.log.debug("the publisher did not hear why: %s", error)

    async def _drain(self) -> None:
        """Let the peer close first, for a while: GStreamer's rtmp2sink takes a connection that ends under it for a failure."""
        loop, fd = self._services.loop, self._socket.fileno()
        gone = loop.create_future()

        def read() -> None:
            try:
                data = self._socket.recv(READ_BYTES)
                self._feed_after_end(memoryview(data))
                self._flush()
                over = not data
            except (BlockingIOError, InterruptedError):
                return
            except (MistError, OSError) as error:
                self._services.log.debug("the publisher's connection ended: %s", error)
                over = True
            if over and not gone.done():
                gone.set_result(None)

        loop.remove_reader(fd)  # uvloop takes none for a descriptor whose watcher was closed by a reset
        read()
        if not gone.done():
            loop.add_reader(fd, read)
            await asyncio.wait((gone,), timeout=GOODBYE_SECONDS)

    def _check_silence(self) -> None:
        left = self._heard_at + self._silence_s - time.monotonic()
        if left <= 0 and not self._done.done():
            text = f"the publisher sent nothing for {self._silence_s:g} s"
            self._done.set_exception(TransportError(text, reason="CLEAN_INACTIVE"))
            return
        self._timers[0] = self._services.loop.call_later(max(left, 0.1), self._check_silence)


def pack_parts(*parts: bytes) -> bytes:
    """Return byte strings as one, for `split_parts`."""
    return b"".join(_SIZE.pack(len(part)) + part for part in parts)


def split_parts(state: bytes, count: int) -> list[bytes]:
    """Return the byte strings of `pack_parts`. Raises LocalProtocolError if there are not `count`."""
    parts = list(_parts(state))
    if len(parts) != count:
        raise LocalProtocolError("damaged state of a publisher")
    return parts


def _parts(state: bytes) -> Iterator[bytes]:
    at = 0
    while at + _SIZE.size <= len(state):
        (size,) = _SIZE.unpack_from(state, at)
        at += _SIZE.size
        if at + size > len(state):
            return
        yield state[at : at + size]
        at += size

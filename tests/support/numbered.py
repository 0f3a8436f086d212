"""Media of which every packet is known beforehand by its number, and the book of what one viewer got of it."""

from __future__ import annotations

import hashlib
import struct
import time
from dataclasses import dataclass, field
from functools import lru_cache

from tests.support.live import FRAME_MS, GOP, Sender

SOUND_MS = 5  # after its picture
PICTURE_HASHES, KEY_HASHES, SOUND_HASHES = 8, 64, 2
TOLERANCE_MS = 1.01  # formats with milliseconds, and formats with ticks of their own
MAX_FAULTS = 20


def is_key(number: int) -> bool:
    return number % GOP == 0


@lru_cache(4096)
def picture(number: int) -> bytes:
    """Return what follows the header byte of the only NAL unit of a picture. No byte of it needs escaping."""
    return b"<%08d>" % number + _text(number, KEY_HASHES if is_key(number) else PICTURE_HASHES)


@lru_cache(4096)
def sound(number: int) -> bytes:
    return b"<%08d>" % number + _text(-1 - number, SOUND_HASHES)


def _text(seed: int, count: int) -> bytes:
    return hashlib.sha256(b"%d" % seed).hexdigest().encode() * count


def picture_nal(number: int) -> bytes:
    """Return a picture as MP4, Matroska and FLV store it."""
    nal = (b"\x65" if is_key(number) else b"\x41") + picture(number)
    return struct.pack(">I", len(nal)) + nal


class NumberedSender(Sender):
    """A publisher of such media."""

    def send(self, stamps_ms: list[int], *, headers: bool = False, pace_s: float = 0.01) -> None:
        """Send a picture and a sound for each time."""
        if headers:
            self.peer.send_headers(stamps_ms[0])
        for stamp in stamps_ms:
            self.peer.send_video(stamp, picture(self.number), key=is_key(self.number))
            self.peer.send_audio(stamp + SOUND_MS, sound(self.number))
            self.number += 1
            time.sleep(pace_s)  # the network's pace, not a wait for something


@dataclass(eq=False)
class Book:
    """What a viewer got. Every difference from what was published is a fault; it starts at any keyframe."""

    name: str
    faults: list[str] = field(default_factory=list)
    closed: str = ""
    packets: int = 0
    last: dict[str, int] = field(default_factory=dict)
    pause_s: float = 0.0
    times: bool = True  # whether the times of sounds are told, and not only those of pictures
    _base_ms: float | None = None
    _arrived: float = 0.0

    def fault(self, text: str) -> None:
        if len(self.faults) < MAX_FAULTS:
            self.faults.append(text)

    @property
    def number(self) -> int:
        """The newest picture, -1 before the first."""
        return self.last.get("video", -1)

    def heard(self) -> None:
        """Take note that bytes arrived."""
        now = time.monotonic()
        if self._arrived:
            self.pause_s = max(self.pause_s, now - self._arrived)
        self._arrived = now

    def take(self, kind: str, payload: bytes, time_ms: float) -> None:
        """Compare a packet with the one that was published. kind: "video" or "audio"."""
        at = payload.find(b"<")
        try:
            number = int(payload[at + 1 : at + 9])
        except ValueError:
            self.fault(f"{kind}: a packet without a number, {payload[:20]!r}")
            return
        self.check(kind, number, time_ms)
        wanted = picture(number) if kind == "video" else sound(number)
        if payload[at:] != wanted:
            self.fault(f"{kind} {number}: {len(payload) - at} bytes that are others than the {len(wanted)} sent")

    def check(self, kind: str, number: int, time_ms: float) -> None:
        """Compare number and time of a packet with those of the one before it."""
        self.packets += 1
        last = self.last.get(kind)
        if last is not None and number != last + 1:
            self.fault(f"{kind} {number} follows {last}")
        self.last[kind] = number
        time_ms -= number * FRAME_MS + (SOUND_MS if kind == "audio" else 0)
        if self._base_ms is None and kind == "video":
            self._base_ms = time_ms
        elif self._base_ms is None or (kind == "audio" and not self.times):
            return
        elif abs(time_ms - self._base_ms) > TOLERANCE_MS:
            self.fault(f"{kind} {number} is {time_ms - self._base_ms:+.1f} ms from its place")

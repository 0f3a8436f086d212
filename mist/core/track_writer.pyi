from typing import Final

from mist.core.packet import Packet
from mist.core.shm import Segment
from mist.core.track_buffer import Table

PAGE_BYTES: Final[int]
PAGE_STEP_BYTES: Final[int]
PAGE_FLIP_BYTES: Final[int]
PAGE_FLIP_SMALL_BYTES: Final[int]
FIRST_RECORDS: Final[int]
FIRST_KEYS: Final[int]
FIRST_INIT_BYTES: Final[int]
MAX_RECORDS: Final[int]
AUDIO_KEY_INTERVAL_US: Final[int]
MIN_FRAGMENTS: Final[int]
GROWING: Final[str]
JITTER_WINDOW_US: Final[int]
FIRST_JITTER_MS: Final[int]

class TrackWriter:
    index: int
    video: bool
    def set_properties(
        self,
        type: str,
        codec: str,
        init_data: bytes,
        track_id: int,
        language: str,
        width: int,
        height: int,
        frame_rate_mhz: int,
        sample_rate_hz: int,
        channels: int,
        sample_bits: int,
        bandwidth_bps: int,
    ) -> None: ...
    def set_anchor(self, anchor: TrackWriter | None) -> None: ...
    def set_account(self, account: Segment | None) -> None: ...
    def mark(self, flags: int) -> None: ...
    @property
    def last_us(self) -> int | None: ...
    @property
    def packets(self) -> int: ...
    def advance(self, now_us: int) -> None: ...
    def write(self, packet: Packet) -> None: ...
    def claim_memory_back(self, count: int) -> None: ...
    def close(self, unlink: bool) -> None: ...

def create_track(table: Table, index: int, account: Segment | None = None) -> TrackWriter: ...
def show_track(table: Table, index: int, valid_mask: int) -> None: ...
def adopt_track(table: Table, index: int, account: Segment | None = None) -> TrackWriter: ...
def read_account(account: Segment) -> tuple[int, int]: ...
def set_account_limit(account: Segment, limit: int) -> None: ...
def release_account(account: Segment, count: int) -> None: ...

"""The files of a recording: named, locked, written as the media comes, listed in a playlist."""

from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any, Final

from mist.core.buffer import ByteBuffer
from mist.errors import RemoteProtocolError, TransportError
from mist.formats.m3u8 import MediaPlaylist, parse_playlist
from mist.stream.recorder import Span
from mist.stream.recording import (
    Entry,
    RecordingPlaylist,
    RecordingTarget,
    file_name,
    iso_date,
    local_files,
    other_name,
    relative_uri,
)

NOT_MADE: Final[list[int]] = []  # the identity of a file that was chosen and may not exist yet
_CURES: Final = {
    errno.ENOSPC: "; the file is whole up to there. Make room, or let old segments go with maxEntries or targetAge",
    errno.EDQUOT: "; the file is whole up to there. Raise the quota, or let old segments go with maxEntries or targetAge",
    errno.EFBIG: "; the file is whole up to there. Begin new files with split",
}


def identity(found: os.stat_result) -> list[int]:
    """Return what stays the same while a file is renamed."""
    return [found.st_dev, found.st_ino]


class RecordingFiles:
    """Writes one file after the other; what is in one can be played at every moment."""

    def __init__(
        self,
        target: RecordingTarget,
        stream: str,
        *,
        now: Callable[[], datetime] = datetime.now,
        on_closed: Callable[[str, Span, int], None] = lambda _path, _span, _size: None,
    ) -> None:
        """now: local time, for names. on_closed: told of each file that is whole: path, media, bytes."""
        self._target = target
        self._stream = stream
        self._now = now
        self._on_closed = on_closed
        self._fd = -1
        self._base = 0  # where this recording begins in a file that is appended to
        self._counter = 0
        self._playlist: RecordingPlaylist | None = None
        self._playlist_path = ""
        self._used: set[str] = set()
        self.path = ""
        self.bytes_written = 0
        self._before = 0
        self._size = 0  # up to which the file is whole
        self._identity = NOT_MADE

    def choose(self, begin_us: int) -> None:
        """Say which file is the next one, without making it. Raises TransportError."""
        if self._target.playlist and self._playlist is None:
            self._open_playlist(begin_us)
        self.path = self._free_name(begin_us)
        self._used.add(self.path)
        self._counter += 1
        self._before = self.bytes_written
        self._identity = NOT_MADE
        self._base = self._size = 0
        if self._target.append and not self._target.playlist:
            with suppress(OSError):
                self._base = self._size = os.stat(self.path).st_size

    def open(self) -> None:
        """Make the file that was chosen. Raises TransportError."""
        try:
            Path(self.path).parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self._take(os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o666))
        except OSError as error:
            raise self._failed(self.path, error) from error

    def _take(self, fd: int) -> None:
        """Go on writing a file where it is whole. Raises TransportError, OSError."""
        self._fd = fd
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise TransportError(f"{self.path}: another program is writing it") from None
        self._cut()
        self._identity = identity(os.fstat(fd))

    def _cut(self) -> None:
        """Cut off what is not whole."""
        os.ftruncate(self._fd, self._size)
        os.lseek(self._fd, 0, os.SEEK_END)

    def write(self, output: ByteBuffer) -> None:
        """Append all there is, or nothing. Raises TransportError."""
        size = len(output)
        if not size:
            return
        try:
            output.write_to(self._fd, size)
        except OSError as error:
            output.take()
            with suppress(OSError):
                self._cut()
            raise self._failed(self.path, error) from error
        self.bytes_written += size
        self._size += size

    def vanished(self) -> bool:
        """Tell whether the open file was removed, and let go of it then: nobody will read what is written there."""
        if self._fd < 0 or os.fstat(self._fd).st_nlink:
            return False
        self.abandon()
        return True

    def close(self, patches: Sequence[tuple[int, bytes]], span: Span) -> None:
        """Write over earlier bytes, as far as they are there, close the file and list it. Raises TransportError."""
        try:
            for position, data in patches:
                if self._base + position + len(data) <= self._size:  # a first write may have failed
                    os.pwrite(self._fd, data, self._base + position)
        except OSError as error:
            raise self._failed(self.path, error) from error
        finally:
            self.abandon()
        if self._playlist is not None:
            uri = relative_uri(self._playlist_path, self.path)
            entry = Entry(uri, span.end_us - span.begin_us, iso_date(span.date_us), span.discontinuity)
            gone = self._playlist.add(entry)
            self._write_playlist(ended=False)
            self._remove(gone)
        self._on_closed(self.path, span, self.bytes_written - self._before)

    # -- another process -------------------------------------------------------------------------------------------

    def state(self) -> dict[str, Any]:
        """Return where the open file is whole, or which file is to be made, and all that `book` does not hold, as JSON has it."""
        return {
            "path": self.path,
            "base": self._base,
            "size": self._size,
            "identity": self._identity,
            "bytes": self.bytes_written,
            "before": self._before,
        }

    @property
    def book_number(self) -> int:
        """Another one whenever what `book` returns may be another one."""
        return len(self._used)

    def book(self) -> dict[str, Any]:
        """Return what files there were, as JSON has it."""
        listed = self._playlist.state() if self._playlist is not None else None
        return {"counter": self._counter, "used": sorted(self._used), "playlist": listed, "list": self._playlist_path}

    def go_on(self, state: Mapping[str, Any], book: Mapping[str, Any]) -> str:
        """Be where another process was, and cut its file where it is whole; before `choose`.

        Returns "", or why the file cannot be gone on with. Raises TransportError; KeyError, TypeError, ValueError.
        """
        self._counter, self._used = int(book["counter"]), set(book["used"])
        self._playlist_path = str(book["list"])
        if book["playlist"] is not None:
            self._playlist = RecordingPlaylist(self._target)
            self._playlist.restore(book["playlist"])
        self.path, self._base, self._size = str(state["path"]), int(state["base"]), int(state["size"])
        self.bytes_written, self._before = int(state["bytes"]), int(state["before"])
        wanted = list(state["identity"])
        if wanted == NOT_MADE:
            self.open()
            return ""
        try:
            fd = os.open(self.path, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return f"{self.path} was moved or removed"
        except OSError as error:
            raise self._failed(self.path, error) from error
        found = os.fstat(fd)
        if identity(found) != wanted or found.st_size < self._size:
            os.close(fd)
            return f"{self.path} is another file now, or shorter"
        try:
            self._take(fd)
        except OSError as error:
            raise self._failed(self.path, error) from error
        return ""

    def abandon(self) -> None:
        """Close what is open, as it is."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def end(self) -> None:
        """Say in the playlist that nothing follows. Raises TransportError."""
        if self._playlist is not None and self._playlist.entries:
            self._write_playlist(ended=True)

    # -- names -----------------------------------------------------------------------------------------------------

    def _name(self, pattern: str, begin_us: int) -> str:
        return file_name(pattern, self._stream, self._now(), counter=self._counter, media_us=begin_us)

    def _free_name(self, begin_us: int) -> str:
        """Return the next file's name: not one that this recording has used, nor one that a list to be continued may need."""
        path = self._name(self._target.files, begin_us)
        if self._target.append and not self._target.playlist:
            return path
        number = 2
        while path in self._used or (self._target.append and os.path.exists(path)):
            self._counter += 1
            after = self._name(self._target.files, begin_us)
            if after == path or after in self._used:
                after, number = other_name(self._name(self._target.files, begin_us), number), number + 1
            path = after
        return path

    # -- the playlist ----------------------------------------------------------------------------------------------

    def _open_playlist(self, begin_us: int) -> None:
        """Begin the list, or go on with the one that is there; its files go when it is not continued."""
        self._playlist = RecordingPlaylist(self._target)
        self._playlist_path = self._name(self._target.playlist, begin_us)
        try:
            data = Path(self._playlist_path).read_bytes()
        except FileNotFoundError:
            return
        except OSError as error:
            raise self._failed(self._playlist_path, error) from error
        try:
            old = parse_playlist(data)
        except RemoteProtocolError as error:
            raise TransportError(f"{self._playlist_path} is there, and no playlist: {error}") from error
        if not isinstance(old, MediaPlaylist):
            raise TransportError(f"{self._playlist_path} is there, and a list of qualities, not of segments")
        if self._target.append:
            self._playlist.continue_from(old)
            self._counter = self._playlist.next_number
        else:
            self._remove([Entry(one.uri, one.duration_us) for one in old.segments])

    def _remove(self, entries: Sequence[Entry]) -> None:
        """Delete the files of entries, unless they are to be kept."""
        if not self._target.unlink:
            return
        for path in local_files(self._playlist_path, entries, self._target.files):
            try:
                Path(path).unlink(missing_ok=True)
            except OSError as error:
                raise self._failed(path, error) from error

    def _write_playlist(self, *, ended: bool) -> None:
        """Replace the list, so that readers see the old or the new one."""
        assert self._playlist is not None
        path = Path(self._playlist_path)
        draft = path.with_name(f".{path.name}.part")
        try:
            path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            draft.write_text(self._playlist.text(ended=ended))
            draft.rename(path)
        except OSError as error:
            raise self._failed(self._playlist_path, error) from error

    def _failed(self, path: str, error: OSError) -> TransportError:
        if isinstance(error, TransportError):
            return error
        cure = _CURES.get(error.errno or 0, "")
        return TransportError(f"{path}: {error.strerror}{cure}", reason="WRITE_FAILURE")

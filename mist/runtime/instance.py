"""One running server's place: its runtime directory, its lock, its names in shared memory."""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import stat
from collections.abc import Collection, Iterable
from pathlib import Path

from mist.errors import ConfigError, MistError
from mist.runtime.process import disinherit, holders, inherit
from mist.stream.names import SHARED_MEMORY

SERVICE_FOLDER = Path("/run/mist")
DEFAULT_NAME = "default"
MAX_FOLDER_BYTES = 90  # a Unix socket's path holds 107, and doorbells add "/bell/" and a process number
_NAME = re.compile(r"[A-Za-z0-9_-]{1,32}")


class AlreadyRunning(MistError):
    """Another server holds this instance."""


def base_folder() -> Path:
    """Return the directory that holds the runtime directories of all instances."""
    if given := os.environ.get("MIST_RUNTIME_DIR"):
        return Path(given)
    if os.getuid() == 0 or _owner(SERVICE_FOLDER) == os.getuid():
        return SERVICE_FOLDER
    if given := os.environ.get("XDG_RUNTIME_DIR"):
        return Path(given) / "mist"
    return Path(f"/tmp/mist-{os.getuid()}")


def _owner(path: Path) -> int | None:
    try:
        return path.stat().st_uid
    except OSError:
        return None


def write_atomically(path: Path, *data: bytes, mode: int = 0o640) -> None:
    """Replace a file so that readers see the old or the new contents and nothing between."""
    draft = draft_of(path, os.getpid())
    try:
        with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode), "wb") as file:
            file.writelines(data)
        draft.rename(path)
    except BaseException:
        draft.unlink(missing_ok=True)
        raise


def draft_of(path: Path, pid: int) -> Path:
    """Return where a process writes what is to replace a file; one that is killed leaves it behind."""
    return path.with_name(f".{path.name}.{pid}")


class Instance:
    """The paths and names of one instance. `acquire` makes it this process's own."""

    def __init__(self, name: str = DEFAULT_NAME, base: Path | None = None) -> None:
        if not _NAME.fullmatch(name):
            raise ConfigError(
                f'instance name "{name}" is not usable: 1 to 32 letters, digits, "-" or "_"',
                path="--instance",
                value=name,
            )
        self.name = name
        self.folder = (base or base_folder()) / name
        self.config_file = self.folder / "config.json"
        self.status_file = self.folder / "status.json"
        self.controller_state = self.folder / "controller.state"
        self.spawner_socket = self.folder / "spawner.sock"
        self.trigger_socket = self.folder / "trigger.sock"
        self.session_socket = self.folder / "session.sock"
        self.log_socket = self.folder / "log.sock"
        self.identity_file = self.folder / "identity"
        self.api_socket = self.folder / "api.sock"
        self.bells = self.folder / "bell"
        self.spans = self.folder / "span"
        self.session_notes = self.folder / "sessions"
        self.restart_note = self.folder / "restart"
        self.push_notes = self.folder / "push"
        self.lock_file = self.folder / "lock"
        self.alive_file = self.folder / "alive"
        self._lock = self._alive = -1

    def __repr__(self) -> str:
        return f"Instance({self.name!r})"

    # -- shared memory ---------------------------------------------------------------------------------------------

    @property
    def prefix(self) -> str:
        """What all names in shared memory begin with."""
        return f"mist.{self.name}."

    def shared_names(self) -> list[str]:
        """Return all names of this instance in shared memory."""
        account = self.prefix.removesuffix(".")
        names = (entry.name for entry in os.scandir(SHARED_MEMORY))
        return [name for name in names if name == account or name.startswith(self.prefix)]

    def identity(self) -> str:
        """Return what the control API calls this run of the server (`iid`), "" before it is there."""
        try:
            return self.identity_file.read_text()
        except FileNotFoundError:
            return ""

    # -- life ------------------------------------------------------------------------------------------------------

    def acquire(self) -> bool:
        """Make the runtime directory and lock it.

        Returns whether processes of this instance, whose main process was killed, still live: then all that is theirs stays. If
        not, what a killed server left there and in shared memory is cleared. `alive` is open in every process of the instance,
        so that the kernel tells which. Raises AlreadyRunning, ConfigError (the directory is unusable); their texts are for the
        operator.
        """
        self._check_folder_name()
        while True:
            self._make_folder()
            fd = self._open_lock()
            if self._is_current(fd):
                break
            os.close(fd)  # the last owner has just removed it: make a new one
        self._lock = fd
        os.truncate(fd, 0)
        os.pwrite(fd, b"%d\n" % os.getpid(), 0)
        self._alive = os.open(self.alive_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        inherit(self._alive)
        living = self._others_live()
        if not living:
            self._clear(keep=(self.lock_file.name, self.alive_file.name))
        self.bells.mkdir(mode=0o700, exist_ok=True)
        self.spans.mkdir(mode=0o700, exist_ok=True)
        self.push_notes.mkdir(mode=0o700, exist_ok=True)
        return living

    def hand_on(self) -> tuple[int, int]:
        """Return the descriptors that make this instance its process's own, for `take`."""
        return self._lock, self._alive

    def take(self, lock: int, alive: int) -> None:
        """Own this instance by the descriptors of `hand_on`."""
        self._lock, self._alive = lock, alive
        inherit(alive)

    def strangers(self) -> list[int]:
        """Return the processes of this instance that a former main process started, as long as any live.

        To be asked when this process has no children left: these have `alive` open by another opening of the file.
        """
        if not self._others_live():
            return []
        own = os.getpid()
        return [pid for pid in holders(self.alive_file) if pid != own]

    def _others_live(self) -> bool:
        """Tell whether there are processes of the instance that do not come from this one, and stay marked as one of it."""
        try:
            fcntl.flock(self._alive, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            fcntl.flock(self._alive, fcntl.LOCK_SH)
        return False

    def _check_folder_name(self) -> None:
        if len(os.fsencode(self.folder)) > MAX_FOLDER_BYTES:
            raise ConfigError(
                f"the runtime directory {self.folder} has a path longer than {MAX_FOLDER_BYTES} bytes; "
                "set MIST_RUNTIME_DIR to a shorter one",
                path="MIST_RUNTIME_DIR",
                value=str(self.folder),
            )

    def _make_folder(self) -> None:
        try:
            self.folder.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
            self.folder.mkdir(mode=0o750, exist_ok=True)
            status = self.folder.stat(follow_symlinks=False)
        except OSError as error:
            raise ConfigError(
                f"cannot make the runtime directory {self.folder}: {error.strerror}; "
                "set MIST_RUNTIME_DIR to a directory that you may write",
                path="MIST_RUNTIME_DIR",
                value=str(self.folder),
            ) from None
        if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
            raise ConfigError(
                f"the runtime directory {self.folder} belongs to user {status.st_uid}; remove it or set MIST_RUNTIME_DIR",
                path="MIST_RUNTIME_DIR",
                value=str(self.folder),
            )

    def _open_lock(self) -> int:
        try:
            fd = os.open(self.lock_file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        except OSError as error:
            raise ConfigError(
                f"cannot write in the runtime directory {self.folder}: {error.strerror}; "
                "set MIST_RUNTIME_DIR to a directory that you may write",
                path="MIST_RUNTIME_DIR",
                value=str(self.folder),
            ) from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(fd, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(fd)
            raise AlreadyRunning(
                f'instance "{self.name}" is already running (process {owner}, {self.folder}); '
                f'stop it with "mist stop --instance {self.name}" or start this one with another --instance'
            ) from None
        return fd

    def _is_current(self, fd: int) -> bool:
        try:
            return os.path.samestat(os.fstat(fd), self.lock_file.stat())
        except FileNotFoundError:
            return False

    def _clear(self, *, keep: Collection[str] = ()) -> None:
        for entry in os.scandir(self.folder):
            if entry.name in keep:
                continue
            if entry.is_dir(follow_symlinks=False):
                remove_folder(entry.path)
            else:
                os.unlink(entry.path)
        unlink_shared(self.shared_names())

    def release(self, *, clear: bool = True) -> None:
        """Remove the runtime directory and every name in shared memory, then the lock; or only let go of the lock."""
        if self._lock < 0:
            return
        if clear:
            self._clear()
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        os.close(self._lock)
        disinherit(self._alive)
        os.close(self._alive)
        self._lock = self._alive = -1


def remove_folder(path: str) -> None:
    """Remove a folder with all that is in it; what goes by itself meanwhile is fine."""
    for entry in os.scandir(path):
        if entry.is_dir(follow_symlinks=False):
            remove_folder(entry.path)
        else:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(entry.path)
    os.rmdir(path)


def unlink_shared(names: Iterable[str]) -> None:
    """Remove names from shared memory; one that is gone already is fine."""
    for name in names:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(SHARED_MEMORY / name)

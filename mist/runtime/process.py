"""Forking, and what a process must do about descriptors, signals and its place in the tree of processes."""

from __future__ import annotations

import ctypes
import gc
import logging
import os
import resource
import signal
import socket
import sys
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

log = logging.getLogger(__name__)

PR_SET_CHILD_SUBREAPER = 36
STANDARD_DESCRIPTORS = (0, 1, 2)
RESET_SIGNALS = (
    signal.SIGCHLD,
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGALRM,
)

# Sockets of this process that a forked child must let go of without closing a number that it uses for something else.
_owned: weakref.WeakSet[socket.socket] = weakref.WeakSet()
# Descriptors that every forked process keeps.
_inherited: set[int] = set()


def inherit(fd: int) -> None:
    """Let all processes that are forked from now on keep a descriptor."""
    _inherited.add(fd)


def disinherit(fd: int) -> None:
    """Take back `inherit`."""
    _inherited.discard(fd)


def own(sock: socket.socket) -> socket.socket:
    """Note a socket of a process that forks, and return it."""
    _owned.add(sock)
    return sock


def close_others(keep: Iterable[int]) -> None:
    """Close every descriptor except these and the standard three."""
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    first = 3
    for fd in sorted(set(keep)):
        if fd >= first:
            os.closerange(first, fd)
            first = fd + 1
    os.closerange(first, max(first, highest))


def fork(role: Callable[[], int], *, keep: Iterable[int], abandon: Callable[[], None] | None = None) -> int:
    """Run `role` in a child process and return the child's number.

    role: its result is the exit status; it never returns here. keep: descriptors that the child needs besides the
    standard ones. abandon: called in the child first, to let go of the parent's event loop. Raises OSError.
    """
    sys.stdout.flush()
    sys.stderr.flush()
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, RESET_SIGNALS)
    try:
        pid = os.fork()
    except OSError:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        raise
    if pid:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)
        return pid
    status = 1
    try:
        status = _child(role, frozenset(keep), abandon)
    except BaseException:
        log.critical("the process failed", exc_info=True)
    finally:
        logging.shutdown()
        os._exit(status)


def _child(role: Callable[[], int], keep: frozenset[int], abandon: Callable[[], None] | None) -> int:
    signal.set_wakeup_fd(-1)
    for number in RESET_SIGNALS:
        signal.signal(number, signal.SIG_DFL)
    if abandon is not None:
        abandon()
    for sock in tuple(_owned):
        if sock.fileno() not in keep:
            sock.detach()
    close_others(keep | _inherited)
    gc.freeze()  # what was inherited is never collected, so its pages stay shared
    signal.pthread_sigmask(signal.SIG_UNBLOCK, RESET_SIGNALS)
    return role()


def reap() -> Iterator[tuple[int, int]]:
    """Collect ended children; yields (process number, exit status, negative for a signal)."""
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        yield pid, os.waitstatus_to_exitcode(status)


def describe_exit(status: int) -> str:
    """Say in words how a process ended."""
    if status >= 0:
        return f"ended with status {status}"
    try:
        return f"was killed by {signal.Signals(-status).name}"
    except ValueError:
        return f"was killed by signal {-status}"


def send_signal(pid: int, number: int) -> bool:
    """Send a signal; False when the process is gone."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True


def is_alive(pid: int) -> bool:
    """Tell whether a process of ours runs (a zombie does not)."""
    try:
        stat = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return stat.rpartition(b")")[2].split()[0] not in (b"Z", b"X")


def adopt_orphans() -> None:
    """Become the parent of every descendant whose own parent dies."""
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def children(pid: int) -> list[int]:
    """Return the numbers of the direct children of a process, zombies too."""
    try:
        return [int(one) for one in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    except FileNotFoundError:
        return [child for child, parent in _parents() if parent == pid]


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdigit():
            try:
                stat = Path(entry.path, "stat").read_bytes()
            except (FileNotFoundError, ProcessLookupError):
                continue
            yield int(entry.name), int(stat.rpartition(b")")[2].split()[1])


def descendants(pid: int) -> list[int]:
    """Return the numbers of all processes below one, nearest first."""
    found = children(pid)
    for child in found:
        found.extend(children(child))
    return found


def holders(path: Path) -> list[int]:
    """Return the numbers of the processes that have a file open, as far as this one may look."""
    wanted = os.fspath(path.resolve())
    return [int(one) for one in os.listdir("/proc") if one.isdigit() and wanted in _open_files(one)]


def _open_files(pid: str) -> Iterator[str]:
    folder = f"/proc/{pid}/fd"
    try:
        for entry in os.scandir(folder):
            yield os.readlink(entry.path)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return


def raise_descriptor_limit() -> int:
    """Raise the soft limit of open descriptors to the hard one and return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard == resource.RLIM_INFINITY:
        hard = 1 << 20
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))
    return hard

"""Test the records for systemd's journal."""

from __future__ import annotations

import os
import socket
import struct
from pathlib import Path

import pytest

from mist.runtime.journal import MAX_FIELD_BYTES, Journal, is_journal, serialize


def test_records_as_the_protocol_says() -> None:
    """A value of one line stands behind "=", one of several behind its length; long ones are cut."""
    assert serialize({"MESSAGE": "ä", "PRIORITY": 5}) == "MESSAGE=ä\nPRIORITY=5\n".encode()
    assert serialize({"MESSAGE": "a\nb"}) == b"MESSAGE\n" + struct.pack("<Q", 3) + b"a\nb\n"
    assert len(serialize({"MESSAGE": "x" * 100_000})) == len("MESSAGE=\n") + MAX_FIELD_BYTES


def test_a_record_arrives(tmp_path: Path) -> None:
    path = str(tmp_path / "socket")
    journal = Journal(path)
    assert not journal.send({"MESSAGE": "nobody there"})
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        assert journal.send({"MESSAGE": "a", "STREAM": "live"})
        assert receiver.recv(1000) == b"MESSAGE=a\nSTREAM=live\n"
    journal.close()


def test_a_busy_journal_loses_lines_and_holds_nobody_up(tmp_path: Path) -> None:
    """What does not fit is counted, and the next record that fits says how many there were."""
    path = str(tmp_path / "socket")
    journal = Journal(path)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(path)
        receiver.setblocking(False)
        for _ in range(2000):
            assert journal.send({"MESSAGE": "x" * 1000})
        with pytest.raises(BlockingIOError):
            while True:
                receiver.recv(2000)
        assert journal.send({"MESSAGE": "y"})
        assert b"MESSAGE=y (" in receiver.recv(2000)
        assert journal.send({"MESSAGE": "z"})
        assert receiver.recv(2000) == b"MESSAGE=z\n"
    journal.close()


def test_standard_error_is_the_journal_only_as_long_as_it_is_the_same_file() -> None:
    status = os.fstat(2)
    assert is_journal(f"{status.st_dev}:{status.st_ino}")
    assert not is_journal(f"{status.st_dev}:{status.st_ino + 1}")
    assert not is_journal("")

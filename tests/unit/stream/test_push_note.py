"""Who has a push, and whether a stream is still needed by a recorder that is not there yet."""

from __future__ import annotations

import os
from pathlib import Path

from mist.stream.push_note import PushNote, is_awaited

TABLE = 12


def dead(_pid: int) -> bool:
    return False


def ours(pid: int) -> bool:
    return pid == os.getpid()


def write(note: PushNote, **more: object) -> None:
    note.write({"table": TABLE, **more}, 0, dict)


def begun(folder: Path) -> None:
    write(PushNote(folder, 1))


def test_a_stream_waits_for_the_recorder_that_comes(tmp_path: Path) -> None:
    assert not is_awaited(tmp_path, TABLE, dead)
    begun(tmp_path)
    assert not is_awaited(tmp_path, TABLE, ours)
    assert is_awaited(tmp_path, TABLE, dead)
    assert not is_awaited(tmp_path, TABLE + 1, dead)


def test_until_it_has_caught_up(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "1.owner").write_text("1")
    after = PushNote(tmp_path, 1)
    assert after.read() is not None
    write(after)
    assert not after.owned
    assert is_awaited(tmp_path, TABLE, ours)
    after.own()
    assert not is_awaited(tmp_path, TABLE, ours)


def test_a_recording_that_is_over_needs_nothing(tmp_path: Path) -> None:
    write(PushNote(tmp_path, 1), over=True)
    PushNote(tmp_path, 2).write({"result": {}}, 0, dict)
    assert not is_awaited(tmp_path, TABLE, dead)


def test_notes_that_cannot_be_read_hold_nothing(tmp_path: Path) -> None:
    begun(tmp_path)
    (tmp_path / "1").write_text("{")
    assert not is_awaited(tmp_path, TABLE, dead)
    (tmp_path / "1").unlink()
    assert not is_awaited(tmp_path, TABLE, dead)


def test_nothing_is_left(tmp_path: Path) -> None:
    begun(tmp_path)
    PushNote(tmp_path, 1).remove()
    assert not list(tmp_path.iterdir())


def test_a_book_that_a_killed_process_did_not_remove_goes(tmp_path: Path) -> None:
    note = PushNote(tmp_path, 1)
    note.write({"table": TABLE}, "first", dict)
    note.write({"table": TABLE}, "second", dict)
    (tmp_path / "1.1").write_text("{}")
    after = PushNote(tmp_path, 1)
    assert after.read() is not None
    after.write({"table": TABLE}, "third", dict)
    after.write({"table": TABLE}, "fourth", dict)
    after.remove()
    assert not list(tmp_path.iterdir())

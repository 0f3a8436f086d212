"""What a recording that is brought elsewhere notes for the process that goes on with it."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from mist.outputs.base.remote_recording import _NOTED, _Notes
from mist.stream.push_note import PushNote
from mist.stream.recorder import Checkpoint, GoneReader


def test_the_end_of_the_file_is_noted_with_all_that_it_has(tmp_path: Path) -> None:
    """The last blocks come with the end, and nothing else changes: whoever goes on must bring them away, and finish the file."""
    jobs: list[dict[str, Any]] = [{"size": 1000, "whole": False}]
    status: Any = SimpleNamespace(**dict.fromkeys(_NOTED), note=PushNote(tmp_path, 1), keep_file=lambda fd: None)
    spool: Any = SimpleNamespace(wait_for_notes=lambda wait: None, fileno=lambda: -1, noted=lambda: None)
    delivery: Any = SimpleNamespace(state=lambda: jobs, progress=lambda: (7, 1))
    files: Any = SimpleNamespace(state=lambda: {"job": 1}, book_number=1, book=dict, open_state=lambda state: None)
    made: Any = SimpleNamespace(status=status, spool=spool, delivery=delivery)
    notes = _Notes(made, GoneReader("live"), files)
    notes.keep(Checkpoint(state={}, index=b"", index_number=1))
    jobs[0] = {"size": 5000, "whole": True}
    notes.over()
    found = PushNote(tmp_path, 1).read()
    assert found is not None
    note, book = found
    assert note["over"] and note["files"]["job"] == 0
    assert book["jobs"] == [{"size": 5000, "whole": True}]

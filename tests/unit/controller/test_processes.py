"""Programs that work on streams: what they report, and what is shown of them."""

from __future__ import annotations

from typing import Any

from mist.controller import processes
from mist.controller.processes import StreamProcesses, runs

LINES: list[list[Any]] = [[n, "INFO", f"line {n}", "live", 7 if n % 2 else 8, "av", "a:1"] for n in range(100)]


def known(*running: int) -> tuple[StreamProcesses, set[int]]:
    alive = set(running)
    return StreamProcesses(lambda pid: pid in alive), alive


def report(pid: object, source: str = "live", sink: str = "live+low", **status: object) -> dict[str, object]:
    return {"id": pid, "proc": "AV", "source": source, "sink": sink, "status": status}


def test_what_was_reported_last_is_shown_with_the_last_lines() -> None:
    of_streams, _ = known(7, 8)
    assert of_streams.report(report(7, active_seconds=1)) == ""
    assert of_streams.report(report(7, active_seconds=6, ainfo={"encoder": "libx264"})) == ""
    [(pid, shown)] = of_streams.listed("", LINES).items()
    assert pid == "7"
    assert shown.pop("logs") == LINES[51::2]
    assert shown == {
        "source": "live", "sink": "live+low", "process": "AV", "active_seconds": 6, "ainfo": {"encoder": "libx264"}
    }  # fmt: skip


def test_a_stream_may_be_source_or_sink() -> None:
    of_streams, _ = known(7, 8)
    of_streams.report(report(7, "one", "two"))
    of_streams.report(report(8, "two", "three"))
    assert [list(of_streams.listed(name, ())) for name in ("one", "two", "three", "four", "")] == [
        ["7"], ["7", "8"], ["8"], [], ["7", "8"]
    ]  # fmt: skip


def test_one_that_has_ended_is_shown_once_more() -> None:
    of_streams, alive = known(7)
    of_streams.report(report(7))
    alive.clear()
    assert of_streams.listed("live", ())["7"]["terminated"] is True
    assert of_streams.listed("", ()) == {}


def test_reports_that_are_not_taken(monkeypatch: Any) -> None:
    monkeypatch.setattr(processes, "MAX_PROCESSES", 2)
    of_streams, alive = known(1, 2, 3)
    assert all("no such process" in of_streams.report(report(pid)) for pid in (0, -1, True, "1", None, 2**40, 4))
    assert "over" in of_streams.report(report(1, text="x" * processes.MAX_STATUS_BYTES))
    assert [of_streams.report(report(pid)) for pid in (1, 2)] == ["", ""]
    assert "known already" in of_streams.report(report(3))
    alive.remove(1)
    assert of_streams.report(report(3)) == ""


def test_which_processes_run() -> None:
    assert runs(1)
    assert not runs(2**22 + 1)

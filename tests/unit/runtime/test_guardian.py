"""Guardians: when those are replaced that another main process had started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from mist.runtime.build import running_build
from mist.runtime.channel import Channel, Message, pair, read_message
from mist.runtime.family import Child
from mist.runtime.guardian import Guardian
from mist.runtime.instance import Instance
from mist.runtime.program import Program, Server


class FakeDuty:
    """Has workers of other code until it is told to replace them."""

    def __init__(self) -> None:
        self.guardian: Guardian
        self.replaced = 0

    def command(self, message: Message, fds: list[int]) -> None: ...

    def replace_workers(self) -> None:
        self.replaced += 1
        for worker in self.guardian.workers.values():
            worker.build = running_build()

    def is_settled(self) -> bool:
        return True

    def retire(self) -> None: ...

    def may_retire(self) -> bool:
        return False


def told(sock: Any) -> list[Message]:
    sock.setblocking(False)
    found = []
    while True:
        try:
            received = read_message(sock)
        except BlockingIOError:
            return found
        assert received is not None
        found.append(received[0])


@pytest.mark.parametrize("patient", [False, True])
def test_a_patient_guardian_waits_for_its_turn(tmp_path: Path, patient: bool) -> None:
    ours, theirs = pair()
    duty = FakeDuty()
    server = Server(Instance("unit-guardian", tmp_path), Program("1", {}, {}, dict))
    upstream, workers = Channel(theirs), pair()
    none = Channel(workers[0])
    guardian = duty.guardian = Guardian(server, upstream, duty, "x", "x", patient=patient)  # type: ignore[arg-type]
    guardian.workers[1] = Child(1, "Worker", none, 0.0, lambda *_: None, lambda *_: None, build="of another start")
    guardian._replace()
    guardian.settle()
    assert guardian.may_replace is not patient
    assert (duty.replaced, told(ours)) == ((0, []) if patient else (1, [{"event": "settled"}]))
    guardian._ordered({"do": "replace"}, [])
    assert guardian.may_replace
    assert told(ours) == ([{"event": "settled"}] if patient else [])
    guardian._ordered({"do": "retire"}, [])
    assert not guardian.may_replace
    guardian.reactor.abandon()
    for one in (none, workers[1], ours, upstream):
        one.close()

"""Processes that the kernel kills because the memory of the service's group has run out."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.integration.conftest import MakeServer, SendTo
from tests.support.live import FRAME_MS, assert_rising, viewer, wait_mark
from tests.support.memory_group import MemoryGroup
from tests.support.processes import look, wait_until

KINDS = ("controller", "guardian RTMP", "guardian input live", "input live", "output RTMP (1 ")

pytestmark = [pytest.mark.root, pytest.mark.timeout(180)]


@pytest.fixture
def group() -> Iterator[MemoryGroup]:
    try:
        made = MemoryGroup()
    except OSError as error:
        pytest.skip(f"no control group can be made: {error}")
    yield made
    made.remove()


def test_who_is_killed_comes_back_and_nobody_else_notices(
    group: MemoryGroup, make_server: MakeServer, send_to: SendTo
) -> None:
    server = make_server(wrap=group.wrap)

    def numbers() -> dict[str, int]:
        """Return the processes by kind, once each is one."""

        def found() -> dict[str, int]:
            present = {kind: server.processes_titled(f"mist: {kind}") for kind in KINDS}
            return {kind: ones[0].pid for kind, ones in present.items() if len(ones) == 1}

        wait_until(lambda: len(found()) == len(KINDS), 30, f"one process of each kind of {KINDS}")
        return found()

    sender = send_to(server)
    sender.send([n * FRAME_MS for n in range(50)], headers=True)
    sender.keep_sending()
    with viewer(server) as seen:
        for kind in KINDS:
            before = numbers()
            group.kill(before[kind])
            wait_until(lambda pid=before[kind]: look(pid) is None, 10, f"the end of {kind}")  # type: ignore[misc]
            wait_mark(seen, sender.number + 10, 30)
            after = numbers()
            assert {one for one in KINDS if after[one] != before[one]} == {kind}
        assert_rising(seen)
        with viewer(server):
            assert "live" in server.api({"active_streams": True})["active_streams"]
    sender.close()

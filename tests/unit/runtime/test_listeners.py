"""Ports, and how their connections are spread over workers."""

from __future__ import annotations

import errno
import os
import select
import signal
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from mist.errors import TransportError
from mist.runtime import listener_guardian
from mist.runtime.build import running_build
from mist.runtime.channel import Message
from mist.runtime.guardian import WorkerHandle
from mist.runtime.instance import Instance
from mist.runtime.listener_guardian import ListenerDuty, plain_address, worker_limit
from mist.runtime.listeners import bind_listening
from mist.runtime.served import AcceptedSocket, Served
from tests.support.ports import free_port


class FakeChannel:
    """Keeps what is sent."""

    closed = False

    def __init__(self) -> None:
        self.sent: list[Message] = []

    def send(self, message: Message, fds: tuple[int, ...] = (), *, close: tuple[int, ...] = ()) -> None:
        self.sent.append(message)


def worker_handle(pid: int, build: str = "") -> WorkerHandle:
    return WorkerHandle(
        pid,
        "Worker",
        FakeChannel(),  # type: ignore[arg-type]
        0.0,
        on_message=lambda child, message, fds: None,
        on_ended=lambda child, status: None,
        build=build or running_build(),
    )


class FakeGuardian:
    """A guardian whose workers are numbers, and its event loop: what is planned runs when the test says so."""

    def __init__(self) -> None:
        self.reactor = self
        self.instance = Instance("unit-nobody", Path("/nonexistent"))
        self.ending = False
        self.may_replace = True
        self.started: list[WorkerHandle] = []
        self.stopped: list[int] = []
        self.forgotten: list[int] = []
        self.planned: list[Any] = []
        self.ended = ""

    def start_worker(self, main: object) -> WorkerHandle:
        handle = worker_handle(len(self.started) + 1)
        self.started.append(handle)
        return handle

    def forget_worker(self, pid: int) -> None:
        self.forgotten.append(pid)

    def stop_worker(self, worker: WorkerHandle, reason: str) -> None:
        worker.stopping = True
        self.stopped.append(worker.pid)

    def settle(self) -> None: ...

    def end(self, reason: str = "") -> None:
        self.ended = reason or "ended"

    def add_reader(self, fd: int, callback: object) -> None: ...
    def remove_reader(self, fd: int) -> None: ...

    def call_later(self, delay: float, callback: Any, *arguments: Any) -> None:
        self.planned.append((callback, arguments))

    def run_planned(self) -> None:
        planned, self.planned = self.planned, []
        for callback, arguments in planned:
            callback(*arguments)


class House:
    """A duty with a listening socket, and the peers that connect to it."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self.listening = socket.create_server(("127.0.0.1", 0))
        self.guardian = FakeGuardian()
        self.duty = ListenerDuty("HTTP", options, [self.listening], lambda channel: 0)
        self.duty.start(self.guardian)  # type: ignore[arg-type]
        self.peers: list[socket.socket] = []

    def connect(self, count: int) -> None:
        for _ in range(count):
            self.peers.append(socket.create_connection(self.listening.getsockname()))
        self.accept()

    def accept(self) -> None:
        """Do what the event loop does with connections that wait."""
        while select.select([self.listening], [], [], 0)[0]:
            self.duty._accept(self.listening)

    def counts(self) -> list[int]:
        return [len(served.connections) for served in self.duty._served.values()]

    def worker(self, number: int) -> WorkerHandle:
        return self.guardian.started[number - 1]

    def leave(self, number: int) -> None:
        """Let a worker report all its connections as closed."""
        served = self.duty._served[number]
        self.duty.worker_said(served.handle, {"closed": list(served.connections)}, [])

    def close(self) -> None:
        self.duty.finish()
        for sock in (*self.peers, self.listening):
            sock.close()
        os.close(self.duty._reserve)


@pytest.fixture
def make_house() -> Iterator[Any]:
    houses: list[House] = []

    def make(**options: Any) -> House:
        houses.append(House(options))
        return houses[-1]

    yield make
    for house in houses:
        house.close()


def test_each_connection_has_a_worker_of_its_own_up_to_the_limit(make_house: Any) -> None:
    house = make_house(processes=3)
    assert house.counts() == [0]
    house.connect(3)
    assert house.counts() == [1, 1, 1]
    house.connect(4)
    assert sorted(house.counts()) == [2, 2, 3]
    assert len(house.guardian.started) == 3


def test_an_idle_worker_is_used_again_and_one_is_kept_ready(make_house: Any) -> None:
    house = make_house(processes=3)
    house.connect(1)
    house.guardian.run_planned()
    assert house.counts() == [1, 0]
    house.leave(1)
    house.connect(2)
    assert house.counts() == [1, 1]
    house.guardian.run_planned()
    assert house.counts() == [1, 1, 0]
    house.connect(1)
    house.guardian.run_planned()
    assert house.counts() == [1, 1, 1]


def test_zero_is_no_limit(make_house: Any) -> None:
    house = make_house(processes=0)
    house.connect(40)
    assert house.counts() == [1] * 40


def test_a_guardian_that_dies_as_it_forks_has_taken_no_connection(
    make_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The longest that it does for a connection is to start a worker; the next guardian finds it at the port."""
    house = make_house(processes=0)
    house.connect(1)
    with socket.create_connection(house.listening.getsockname()) as peer:
        monkeypatch.setattr(house.guardian, "start_worker", lambda main: os.kill(os.getpid(), signal.SIGKILL))
        pid = os.fork()
        if not pid:
            try:
                house.accept()
            finally:
                os._exit(0)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGKILL
        taken, _ = house.listening.accept()
        with taken:
            peer.sendall(b"here")
            assert taken.recv(4) == b"here"


def test_connections_wait_at_the_port_while_no_worker_can_be_started(
    make_house: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    house = make_house(processes=0)
    house.connect(1)
    start_worker = house.guardian.start_worker

    def fail(main: object) -> None:
        raise BlockingIOError(errno.EAGAIN, "no more processes")

    monkeypatch.setattr(house.guardian, "start_worker", fail)
    house.peers.append(socket.create_connection(house.listening.getsockname()))
    house.duty._accept(house.listening)
    assert house.counts() == [1]
    monkeypatch.setattr(house.guardian, "start_worker", start_worker)
    house.accept()
    assert house.counts() == [1, 1]


def test_connections_of_a_worker_that_died_wait_for_another_to_be_started(
    make_house: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    house = make_house(processes=1)
    house.connect(2)
    failures = [BlockingIOError(errno.EAGAIN, "no more processes")]
    start_worker = house.guardian.start_worker

    def fail_once(main: object) -> WorkerHandle:
        if failures:
            raise failures.pop()
        return start_worker(main)  # type: ignore[no-any-return]

    monkeypatch.setattr(house.guardian, "start_worker", fail_once)
    assert house.duty.bequeath(house.worker(1), -9)
    house.duty.worker_ended(house.worker(1), -9)
    assert (house.counts(), house.duty._open) == ([], 2)
    assert "Connections wait for a worker" in caplog.text
    house.guardian.run_planned()
    assert house.counts() == [2]


def test_idle_workers_end_but_for_one(make_house: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listener_guardian, "IDLE_WORKER_SECONDS", 0.0)
    house = make_house(processes=4)
    house.connect(4)
    for number in (1, 2, 3):
        house.leave(number)
    house.guardian.run_planned()
    assert house.guardian.stopped == [1, 2]
    house.connect(1)
    assert len(house.duty._served[3].connections) == 1


def test_a_dead_workers_connections_are_closed_and_it_is_replaced(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(2)
    served = house.duty._served[1]
    house.duty.worker_ended(served.handle, -9)
    for peer in house.peers:
        peer.settimeout(5)
        assert peer.recv(1) == b""
    house.guardian.run_planned()
    assert house.counts() == [0]


def test_only_workers_that_worked_hear_of_a_new_configuration(make_house: Any) -> None:
    house = make_house(processes=3)
    house.connect(1)
    house.guardian.run_planned()
    house.duty.command({"do": "config"}, [])
    assert {"do": "config"} in house.worker(1).channel.sent
    assert house.worker(2).channel.sent == []


def orders_to(worker: WorkerHandle) -> list[Message]:
    return [message for message in worker.channel.sent if message["do"] == "adopt"]  # type: ignore[attr-defined]


def test_a_dead_workers_connections_go_to_another_one(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(2)
    served = house.duty._served[1]
    numbers = list(served.connections)
    assert house.duty.bequeath(served.handle, -9)
    house.duty.worker_ended(served.handle, -9)
    heir = house.duty._served[2]
    assert list(heir.connections) == numbers
    given, last = orders_to(heir.handle)
    assert given == {"do": "adopt", "pids": [1], "connections": [[number, "127.0.0.1"] for number in numbers]}
    assert last == {"do": "adopt", "pids": [1], "last": True}
    assert house.duty._open == 2
    # The heir dies before it has told that it has everything: the next one looks in both tables.
    assert house.duty.bequeath(heir.handle, -11)
    house.duty.worker_ended(heir.handle, -11)
    third = house.duty._served[3]
    assert orders_to(third.handle)[0]["pids"] == [2, 1]
    house.duty.worker_said(third.handle, {"adopted": [2, 1]}, [])
    assert house.guardian.forgotten == [2, 1]
    assert not any(peer.fileno() < 0 for peer in house.peers)


def test_a_worker_that_ended_in_peace_leaves_nothing(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(1)
    served = house.duty._served[1]
    assert not house.duty.bequeath(served.handle, 0)


def ask_to_leave(house: Any, *numbers: int) -> None:
    """Have workers replaced as if they were of other code."""
    for number in numbers:
        house.worker(number).build = "other code"
    house.duty.replace_workers()


def test_a_worker_is_replaced_by_one_that_is_ready(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(1)
    old = house.worker(1)
    ask_to_leave(house, 1)
    assert house.worker(2).channel.sent == [{"do": "prepare", "pid": 1}]
    assert not house.duty.is_settled()
    assert not house.duty.may_retire()
    house.connect(1)  # the one that is to have those connections gets no other one
    assert house.duty._served[2].connections == {}
    assert {"do": "retire"} not in old.channel.sent
    house.duty.worker_said(house.worker(2), {"prepared": True}, [])
    assert old.channel.sent[-1] == {"do": "retire"}
    house.duty.worker_said(old, {"retired": True}, [])
    assert len(house.duty._served[2].connections) == 1
    house.duty.worker_said(house.worker(2), {"adopted": [1]}, [])
    assert house.duty.is_settled()
    assert house.duty.bequeath(old, 75)  # nobody forgets what the other one has
    house.duty.worker_ended(old, 75)
    assert len(house.duty._served[2].connections) == 1


def test_a_worker_whose_connections_nobody_else_can_serve_stays(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(1)
    ask_to_leave(house, 1)
    former, heir = house.worker(1), house.guardian.started[-1]
    house.duty.worker_said(heir, {"prepared": True}, [])
    house.duty.worker_said(former, {"stays": True}, [])
    assert former.stays and house.duty.is_settled()
    house.duty.replace_workers()
    assert house.duty.is_settled()
    house.connect(1)
    assert len(house.duty._served[heir.pid].connections) == 1, "it serves others"
    [number] = house.duty._served[former.pid].connections
    house.duty.worker_said(former, {"closed": [number]}, [])
    assert house.guardian.stopped == [former.pid]


@pytest.mark.parametrize(("build", "longest"), [("other code", 1), (f"{running_build()}+0.1", 0)])
def test_a_worker_of_the_same_code_may_stay_for_good(make_house: Any, build: str, longest: int) -> None:
    house = make_house(processes=1)
    house.connect(1)
    house.worker(1).build = build
    house.duty.replace_workers()
    house.duty.worker_said(house.worker(1), {"stays": True}, [])
    ends = [callback for callback, _ in house.guardian.planned if callback == house.guardian.stop_worker]
    assert len(ends) == longest


def test_workers_are_replaced_one_after_the_other(make_house: Any) -> None:
    house = make_house(processes=2)
    house.connect(2)
    ask_to_leave(house, 1, 2)
    assert len(house.guardian.started) == 3
    house.duty.worker_said(house.worker(3), {"prepared": True}, [])
    house.duty.worker_said(house.worker(1), {"retired": True}, [])
    assert len(house.guardian.started) == 3
    house.duty.worker_said(house.worker(3), {"adopted": [1]}, [])
    assert house.worker(4).channel.sent == [{"do": "prepare", "pid": 2}]


def test_an_heir_that_dies_holds_nobody_up(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(1)
    ask_to_leave(house, 1)
    assert not house.duty.bequeath(house.worker(2), -9)
    house.duty.worker_ended(house.worker(2), -9)
    assert house.worker(1).channel.sent[-1] == {"do": "retire"}
    house.duty.worker_said(house.worker(1), {"retired": True}, [])
    assert len(house.duty._served[3].connections) == 1
    house.duty.worker_said(house.worker(3), {"adopted": [1]}, [])
    assert house.duty.is_settled()


def test_one_whose_viewers_leave_meanwhile_needs_no_heir(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(1)
    ask_to_leave(house, 1)
    house.leave(1)
    assert house.guardian.stopped == [1]
    assert not house.duty.bequeath(house.worker(1), 0)
    house.duty.worker_ended(house.worker(1), 0)
    assert house.duty.is_settled()
    house.connect(1)
    assert len(house.duty._served[2].connections) == 1


def test_what_a_former_guardians_worker_brings(make_house: Any) -> None:
    house = make_house(processes=1)
    former = worker_handle(77, "other code")
    house.duty.worker_rejoined(former, {})
    ours, theirs = socket.socketpair()
    arena = os.memfd_create("arena")
    with theirs:
        house.duty.worker_said(former, {"inventory": {"arenas": [5]}}, [arena])
        house.duty.worker_said(former, {"inventory": {"connections": [[9, "::1"]]}}, [ours.detach()])
        assert house.duty._open == 1
        house.duty.replace_workers()
        assert former.channel.sent == []  # type: ignore[attr-defined]  # there may be more of it
        house.duty.worker_said(former, {"inventory": {"last": True}}, [])
        [heir_handle] = [one for one in house.guardian.started if {"do": "prepare", "pid": 77} in one.channel.sent]
        house.duty.worker_said(heir_handle, {"prepared": True}, [])
        assert former.channel.sent == [{"do": "retire"}]  # type: ignore[attr-defined]
        assert house.duty.bequeath(former, 75)
        heir = next(served for served in house.duty._served.values() if served.connections)
        assert [list(one) for one in (heir.arenas, heir.connections)] == [[5], [9]]
        heir.let_go()


def test_a_connection_that_kills_is_found() -> None:
    suspects = listener_guardian.Suspects()
    assert not suspects.blame(4, 0.0)
    assert not suspects.blame(4, 3.0)
    assert not suspects.blame(5, 4.0)
    assert suspects.blame(4, 6.0)
    assert not suspects.blame(5, 20.0)
    assert not suspects.blame(5, 21.0)
    assert suspects.blame(5, 22.0)


def test_a_retired_duty_closes_its_port_only(make_house: Any) -> None:
    house = make_house(processes=1)
    house.connect(1)
    assert house.duty.may_retire()
    house.duty.retire()
    assert house.listening.fileno() == -1
    assert house.counts() == [1]
    assert house.guardian.stopped == []


def test_no_more_connections_than_descriptors(make_house: Any, caplog: pytest.LogCaptureFixture) -> None:
    house = make_house(processes=1)
    house.duty._most = 2
    house.connect(5)
    assert house.counts() == [2]
    for peer in house.peers[2:]:
        peer.settimeout(5)
        assert peer.recv(1) == b""
    assert len([line for line in caplog.messages if line.startswith("Refused")]) == 1
    house.leave(1)
    house.connect(1)
    assert house.counts() == [1]


def test_how_many_workers() -> None:
    assert worker_limit({"processes": 3}) == 3
    assert worker_limit({"processes": 0}) == 0
    assert worker_limit({}) == max(listener_guardian.MIN_WORKERS, len(os.sched_getaffinity(0)))


def test_addresses_as_people_write_them() -> None:
    assert plain_address("::ffff:10.0.0.1") == "10.0.0.1"
    assert plain_address("fe80::1%eth0") == "fe80::1"
    assert plain_address("2001:db8::1") == "2001:db8::1"


# -- binding -------------------------------------------------------------------------------------------------------


def test_every_address_takes_both_families() -> None:
    port = free_port()
    [sock] = bind_listening("", port, "HTTP")
    with sock, socket.create_connection(("127.0.0.1", port)):
        accepted, _ = sock.accept()
        with accepted:
            assert accepted.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            assert accepted.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)


def test_a_port_in_use_says_whose_and_what_to_do() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(TransportError, match=rf"^port {port} for RTMP is in use by another program: stop"):
            bind_listening("127.0.0.1", port, "RTMP")


def test_an_address_of_another_machine_is_named() -> None:
    with pytest.raises(TransportError, match=r'"192\.0\.2\.1" for RTMP is not an address of this machine'):
        bind_listening("192.0.2.1", free_port(), "RTMP")


# -- whose socket is it --------------------------------------------------------------------------------------------


def test_a_connection_is_open_as_long_as_any_number_leads_to_it() -> None:
    one, other = socket.socketpair()
    with other:
        gone: list[bool] = []
        sock = AcceptedSocket(fileno=one.detach())
        sock.on_gone = lambda: gone.append(True)
        served = Served(1, "", os.fstat(sock.fileno()).st_ino, {sock.fileno()})
        copy = os.dup(sock.fileno())
        served.descriptors.add(copy)
        sock.close()
        assert gone == [True]
        assert served.is_open()
        os.close(copy)
        reused = os.open("/dev/null", os.O_RDONLY)
        assert not served.is_open()
        os.close(reused)


def test_a_detached_socket_tells_too() -> None:
    one, other = socket.socketpair()
    gone: list[bool] = []
    sock = AcceptedSocket(fileno=one.detach())
    sock.on_gone = lambda: gone.append(True)
    os.close(sock.detach())
    assert gone == [True]
    other.close()

"""The main process's listening sockets: bound here, so that they survive every process that accepts from them."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mist.errors import MistError, TransportError
from mist.runtime.backoff import Backoff
from mist.runtime.book import MAX_JOINING, Around, Book, pass_on_all, retire
from mist.runtime.build import is_after_crash, running_build
from mist.runtime.channel import Channel, Message, close_all
from mist.runtime.descriptor_store import forget, listening_port, store
from mist.runtime.family import Child
from mist.runtime.guardian import RETIRED, guardian_main
from mist.runtime.listener_guardian import make_listener_duty
from mist.runtime.output_worker import output_main
from mist.runtime.process import own
from mist.runtime.reactor import Timer
from mist.runtime.rejoin import refuse
from mist.runtime.snapshot import Snapshot, canonical, has_sources
from mist.runtime.trigger_link import TriggerLink

log = logging.getLogger(__name__)

KIND = "listener"  # the first word of the names of guardians of listeners
BACKLOG = 4096
MIN_RETRY_SECONDS = 1.0
RUNNING, NOT_YET = 1, 0
KEEPALIVE_SECONDS = 60
USER_TIMEOUT_MS = 300_000  # of silence in the middle of a transfer, then the kernel gives the peer up
TCP_USER_TIMEOUT = 18
ALL_ADDRESSES = ("", "0.0.0.0", "::")

Address = tuple[str, int]
Inherited = Mapping[str, Sequence[int]]  # listening sockets by the name of their owner


def bind_listening(interface: str, port: int, what: str) -> list[socket.socket]:
    """Return listening sockets for an address; all addresses of both families for an empty one.

    what: names the user of the port in errors. Raises TransportError with a text for the operator.
    """
    try:
        if interface in ALL_ADDRESSES:
            return [_bind_all(port)]
        found = socket.getaddrinfo(interface, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        return [_bind(family, address) for family, address in dict.fromkeys((entry[0], entry[4]) for entry in found)]
    except OSError as error:
        raise TransportError(_explain(error, interface, port, what)) from None


def _bind_all(port: int) -> socket.socket:
    """Bind every address, with one socket for both families where the machine has IPv6."""
    try:
        return _bind(socket.AF_INET6, ("::", port))
    except OSError as error:
        if error.errno not in (errno.EAFNOSUPPORT, errno.EADDRNOTAVAIL):
            raise
    return _bind(socket.AF_INET, ("0.0.0.0", port))


def _bind(family: int, address: Any) -> socket.socket:
    sock = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # accepted sockets inherit this and what follows
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, KEEPALIVE_SECONDS)
        sock.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, USER_TIMEOUT_MS)
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0 if address[0] == "::" else 1)
        sock.bind(address)
        sock.listen(BACKLOG)
    except OSError:
        sock.close()
        raise
    return own(sock)


def _explain(error: OSError, interface: str, port: int, what: str) -> str:
    if error.errno == errno.EADDRINUSE:
        return (
            f"port {port} for {what} is in use by another program: stop that one, or set another port for {what} in the "
            "configuration"
        )
    if error.errno == errno.EACCES:
        return f"port {port} for {what} may not be opened by this user: choose one above 1023, or allow CAP_NET_BIND_SERVICE"
    if isinstance(error, socket.gaierror) or error.errno == errno.EADDRNOTAVAIL:
        return f'"{interface}" for {what} is not an address of this machine: set another interface in the configuration'
    return f"cannot listen on port {port} for {what}: {error.strerror}"


@dataclass(eq=False)
class Listener:
    """One entry of config.protocols with a port of its own. state: 1, 0, or why it does not run. announced: OUTPUT_START was fired.

    names: what its guardians were called, by which their workers ask for the next one. joining: those that wait for it. left: the
    numbers of those that will come. retired: its last guardian left as it was its turn. used: it has had a guardian. watched: sockets at
    which the first visitor is waited for.
    """

    key: str
    connector: str
    options: Mapping[str, Any]
    address: Address
    state: int | str = NOT_YET
    announced: bool = False
    sockets: list[socket.socket] = field(default_factory=list)
    child: Child | None = None
    timer: Timer | None = None
    backoff: Backoff = field(default_factory=Backoff)
    removed: bool = False
    names: set[str] = field(default_factory=set)
    joining: list[tuple[Message, list[int]]] = field(default_factory=list)
    left: Sequence[int] = ()
    retired: bool = False
    used: bool = False
    watched: list[int] = field(default_factory=list)

    @property
    def name(self) -> str:
        return f"{KIND} {self.connector} {self.address[0]}:{self.address[1]}"

    def set_up(self, key: str, options: Mapping[str, Any], address: Address) -> None:
        self.key, self.options, self.address = key, options, address
        self.names.add(self.name)

    def bind(self) -> None:
        """Open the port if it is not open. Raises TransportError."""
        if not self.sockets:
            self.sockets = bind_listening(*self.address, self.connector)
        store(self.name, [sock.fileno() for sock in self.sockets])

    def take(self, fds: Sequence[int]) -> None:
        """Take the port's sockets from another process."""
        self.sockets = [own(socket.socket(fileno=fd)) for fd in fds]
        for sock in self.sockets:
            sock.setblocking(False)

    def close(self) -> None:
        """Close the port here."""
        for sock in self.sockets:
            sock.close()
        self.sockets = []


class Listeners(Book):
    """Keeps one guardian for each configured listener, from when there is something to watch, or from the first visitor on."""

    def __init__(self, triggers: TriggerLink, *around: *Around) -> None:
        super().__init__(*around)
        self._triggers = triggers
        self._listeners: dict[str, Listener] = {}
        self._unknown: set[str] = set()
        self._expecting = False  # viewers, as there was a stream: their processes are to be there before they come

    # -- following the configuration -------------------------------------------------------------------------------

    def _tell_unknown(self, connector: str) -> None:
        """Say once that a configured connector is not there; one that is reached through another needs no listener."""
        if connector not in self._server.program.outputs and connector not in self._unknown:
            self._unknown.add(connector)
            log.warning(
                "config.protocols names %s, which this server does not have: it runs without", connector or "nothing"
            )

    def configured(self, snapshot: Snapshot) -> dict[str, Listener]:
        """Return a listener for each protocol entry that has a port of its own."""
        found: dict[str, Listener] = {}
        for entry in snapshot["config"].get("protocols") or ():
            connector = str(entry.get("connector", ""))
            role = self._server.program.listener(connector)
            if role is None:
                self._tell_unknown(connector)
                continue
            key = canonical(entry)
            port = int(entry.get("port") or role.capability.default_port or 0)
            listener = found[key] = Listener(key, entry["connector"], {}, ("", 0))
            listener.set_up(key, dict(entry), (str(entry.get("interface") or ""), port))
        return found

    def bind_first(self, snapshot: Snapshot, inherited: Inherited) -> None:
        """Bind everything at the first start. Raises TransportError for what cannot be."""
        self.expect(snapshot, inherited)
        for listener in self._listeners.values():
            listener.bind()

    def expect(self, snapshot: Snapshot, inherited: Inherited) -> None:
        """Know what is configured, with the ports that another main process or the service manager has kept open."""
        self._listeners.update(self.configured(snapshot))
        for name, fds in inherited.items():
            listener = self.find(name) or self._on_port(listening_port(fds[0]))
            if listener is not None and not listener.sockets:
                listener.take(fds)
            else:
                forget(name)
                close_all(fds)

    def _on_port(self, port: int) -> Listener | None:
        return next((one for one in self._listeners.values() if one.address[1] == port), None)

    def start_all(self) -> None:
        """Start what does not run."""
        for listener in self._listeners.values():
            if listener.child is None:
                self._start(listener)

    def sockets(self) -> dict[str, list[int]]:
        """Return the ports of all listeners, for the next main process."""
        return {one.name: [sock.fileno() for sock in one.sockets] for one in self._listeners.values()}

    def apply(self, snapshot: Snapshot) -> None:
        """Start what is new, end what is gone, give what has changed another guardian; its connections go on."""
        wanted = self.configured(snapshot)
        gone = [listener for key, listener in self._listeners.items() if key not in wanted]
        new = [listener for key, listener in wanted.items() if key not in self._listeners]
        for listener in gone:
            del self._listeners[listener.key]
            changed = _changed_form(listener, new)
            if changed is None:
                self._remove(listener)
            else:
                new.remove(changed)
                self._change(listener, changed)
        for listener in new:
            self._listeners[listener.key] = listener
            self._start(listener)
        for listener in self._listeners.values():
            if listener.child is not None:
                listener.child.channel.send({"do": "config"})
        if has_sources(snapshot):
            self.await_viewers()
        self._changed()

    def tell(self, message: Message) -> None:
        """Send a message to the guardians of all listeners."""
        for listener in self._listeners.values():
            if listener.child is not None:
                listener.child.channel.send(message)

    def await_viewers(self) -> None:
        """Have guardian and worker ready at each port: there is a stream, or one that viewers start."""
        self._expecting = True
        for listener in self._listeners.values():
            if listener.watched:
                self._start(listener)

    def _watch(self, listener: Listener) -> None:
        """Start the guardian when somebody connects; who does so first waits for two forks."""
        listener.watched = [sock.fileno() for sock in listener.sockets]
        for fd in listener.watched:
            self._reactor.add_reader(fd, lambda: self._visited(listener))

    def _visited(self, listener: Listener) -> None:
        listener.used = True
        self._start(listener)

    def _unwatch(self, listener: Listener) -> None:
        for fd in listener.watched:
            self._reactor.remove_reader(fd)
        listener.watched = []

    def _change(self, listener: Listener, changed: Listener) -> None:
        """Give a listener other options, and perhaps another port."""
        self._unwatch(listener)
        if changed.address != listener.address:
            forget(listener.name)
            listener.close()
        self._triggers.notify("OUTPUT_STOP", "", [listener.key])
        self._triggers.notify("OUTPUT_START", "", [changed.key])
        listener.set_up(changed.key, changed.options, changed.address)
        self._listeners[listener.key] = listener
        if listener.child is not None:
            retire(listener.child)
        else:
            self._restart(listener, 0.0)

    def _remove(self, listener: Listener) -> None:
        """End a listener and its connections."""
        listener.removed = True
        self._succession.done(listener)
        if listener.announced:
            self._triggers.notify("OUTPUT_STOP", "", [listener.key])
        if listener.timer is not None:
            listener.timer.cancel()
        forget(listener.name)
        self._unwatch(listener)
        listener.close()
        if listener.child is not None:
            listener.child.stopping = True
            listener.child.channel.send({"do": "stop", "reason": "CLEAN_CONTROLLER_REQ"})

    # -- processes of former guardians and main processes ----------------------------------------------------------

    def find(self, name: str) -> Listener | None:
        """Return the listener that a guardian of this name belongs to, or None."""
        return next((one for one in self._listeners.values() if name in one.names), None)

    def take(self, message: Message, fds: list[int]) -> None:
        """Take over a guardian whose main process is gone, with its port."""
        listener = self.find(str(message["name"]))
        if listener is None:
            refuse(fds, "its port is not configured any more")
            return
        if listener.child is not None:
            close_all(fds[2:])
            self._retire_late(message, fds[:2])
            return
        self._unwatch(listener)
        listener.used = True
        if listener.sockets:
            close_all(fds[2:])
        else:
            listener.take(fds[2:])
            listener.bind()
        listener.child = self._family.adopt(
            f"The guardian of {listener.connector}",
            message,
            fds[:2],
            on_message=lambda child, message, fds: self._said(listener, child, message, fds),
            on_ended=lambda child, status: self._ended(listener, status),
        )
        if listener.child is None:
            return
        listener.state, listener.announced = RUNNING, True
        options = message["note"].get("entry", {})
        if listener.child.build != running_build():
            self._give_way(listener, listener.child)
        elif canonical(options) != listener.key:
            retire(listener.child)
        self._pass_on_joining(listener)

    def pass_on(self, message: Message, fds: list[int]) -> None:
        """Give a worker whose guardian is gone to the next one."""
        listener = self.find(str(message["to"]))
        if listener is None or len(listener.joining) >= MAX_JOINING:
            refuse(fds, "its port is not configured any more")
            return
        listener.joining.append((message, fds))
        if listener.watched:
            self._start(listener)
        self._pass_on_joining(listener)

    def _pass_on_joining(self, listener: Listener) -> None:
        if listener.child is not None and not listener.child.stopping:
            pass_on_all(listener.child, listener.joining)

    # -- running ---------------------------------------------------------------------------------------------------

    def _start(self, listener: Listener) -> None:
        listener.timer = None
        if listener.removed or listener.child is not None:  # a guardian that nobody knew of may have come with the port
            return
        try:
            listener.bind()
        except MistError as error:
            self._retry(listener, str(error))
            return
        self._unwatch(listener)
        if listener.used or self._expecting or listener.joining or listener.left:
            try:
                self._start_guardian(listener)
            except OSError as error:
                self._retry(listener, f"no guardian of {listener.connector} can be started: {error.strerror}")
                return
        else:
            self._watch(listener)
        if not listener.announced:
            listener.announced = True
            self._triggers.notify("OUTPUT_START", "", [listener.key])
        if listener.state != RUNNING:
            log.info("%s listens on port %d", listener.connector, listener.address[1], extra={"kind": "CONF"})
        listener.state = RUNNING
        self._changed()

    def _start_guardian(self, listener: Listener) -> None:
        """Start one. Raises OSError."""
        listener.used = True
        fds = [sock.fileno() for sock in listener.sockets]
        role = self._server.program.listener(listener.connector)
        assert role is not None
        main = output_main(self._server, listener.connector, role, listener.options)
        duty = make_listener_duty(listener.connector, listener.options, fds, main, listener.left)
        patient = is_after_crash() and not listener.retired

        def guard(channel: Channel) -> int:
            return guardian_main(self._server, channel, duty, listener.connector, listener.name, patient=patient)

        listener.child = self._family.start(
            f"The guardian of {listener.connector}",
            guard,
            on_message=lambda child, message, fds: self._said(listener, child, message, fds),
            on_ended=lambda child, status: self._ended(listener, status),
            fds=fds,
        )
        listener.left = ()
        if patient:
            self._await_turn(listener)
        self._pass_on_joining(listener)

    def _said(self, listener: Listener, child: Child, message: Message, fds: list[int]) -> None:
        close_all(fds)
        if message.get("event") == "settled" and child.build == running_build():
            self._succession.done(listener)
        self._changed()

    def _retry(self, listener: Listener, text: str) -> None:
        if listener.state != text:
            log.error("%s; trying again", text[:1].upper() + text[1:])
        listener.state = text
        delay = max(MIN_RETRY_SECONDS, listener.backoff.next_delay(0.0))
        listener.timer = self._reactor.call_later(delay, self._start, listener)
        self._changed()

    def _ended(self, listener: Listener, status: int) -> None:
        child, listener.child = listener.child, None
        assert child is not None
        listener.left, listener.retired = child.left, status == RETIRED
        if not listener.removed:
            listener.state = NOT_YET
            self._restart(listener, 0.0 if status == RETIRED else listener.backoff.next_delay(child.ran_seconds()))
        self._changed()

    def _restart(self, listener: Listener, delay: float) -> None:
        if listener.timer is not None:
            listener.timer.cancel()
            listener.timer = None
        if delay:
            listener.timer = self._reactor.call_later(delay, self._start, listener)
        else:
            self._start(listener)

    def states(self) -> list[dict[str, Any]]:
        """Return what the listeners do, for the status."""
        return [
            {
                "entry": dict(listener.options),
                "connector": listener.connector,
                "port": listener.address[1],
                "state": listener.state,
                "pid": listener.child.pid if listener.child else 0,
            }
            for listener in self._listeners.values()
        ]

    def close(self) -> None:
        """Close all ports and start nothing any more."""
        for listener in self._listeners.values():
            listener.removed = True
            if listener.timer is not None:
                listener.timer.cancel()
            self._unwatch(listener)
            listener.close()


def _changed_form(listener: Listener, new: list[Listener]) -> Listener | None:
    """Return what became of a listener that is no longer configured as it was: on its port, else the only other one."""
    alike = [one for one in new if one.connector == listener.connector]
    same = [one for one in alike if one.address == listener.address]
    return same[0] if same else alike[0] if len(alike) == 1 else None


def bind_unix(path: str, mode: int) -> socket.socket:
    """Return a listening SOCK_SEQPACKET socket at a path, replacing what is there."""
    with contextlib.suppress(FileNotFoundError):
        os.unlink(path)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
    sock.bind(path)
    os.chmod(path, mode)
    sock.listen(BACKLOG)
    return own(sock)

"""The main process: forks everything else, keeps it running, and answers on its socket. No media, no asyncio, no threads."""

from __future__ import annotations

import gc
import logging
import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import Any

import setproctitle

from mist.core.immortal import make_immortal
from mist.errors import AccessDenied, MistError, NotFound
from mist.runtime import log as runtime_log
from mist.runtime import restart
from mist.runtime.acceptor import Acceptor
from mist.runtime.attendant import Attendant, session_main, trigger_main
from mist.runtime.book import Around
from mist.runtime.build import running_build, set_start
from mist.runtime.channel import Channel, Message, close_all, peer_credentials
from mist.runtime.control import CONTROLLER, former_children, write_status
from mist.runtime.control_keeper import ControlKeeper
from mist.runtime.departure import Departure
from mist.runtime.descriptor_store import stored
from mist.runtime.family import SESSIONS, TRIGGERS, Family
from mist.runtime.homecoming import Homecoming
from mist.runtime.instance import Instance
from mist.runtime.leftovers import RecordSweeper, release_subscriptions
from mist.runtime.listeners import Listeners, bind_unix
from mist.runtime.notify import notify, notify_watchdog, watchdog_seconds
from mist.runtime.orphans import Orphans
from mist.runtime.process import (
    RESET_SIGNALS,
    adopt_orphans,
    children,
    descendants,
    fork,
    own,
    raise_descriptor_limit,
    send_signal,
)
from mist.runtime.program import Program, Server
from mist.runtime.pushes import Pushes
from mist.runtime.reactor import Reactor, Timer
from mist.runtime.rejoin import refuse
from mist.runtime.reload import Reload, Waiting, answer_all, tell_progress
from mist.runtime.resident import give_back
from mist.runtime.snapshot import Snapshot, memory_bound, read_snapshot, source_suffixes, write_snapshot
from mist.runtime.streams import Streams
from mist.runtime.succession import Succession
from mist.runtime.trigger_link import TriggerLink
from mist.runtime.upgrade import Inheritance, execute, inherited
from mist.runtime.vigil import Vigil, Watched, is_restless, patience_seconds
from mist.stream.publisher import create_account, open_account, set_account

log = logging.getLogger(__name__)

STATUS_DELAY_SECONDS = 0.05
STATUS_SHARE = 10  # a status is written after so many times what the last one took: with a thousand pushes it is long
KILL_AFTER_SECONDS = 3.0
KILL_AGAIN_SECONDS = 0.1
EXIT_CONFIG = 2  # the configuration is unusable
SOCKET_MODE = 0o660
SWEEP_DELAY_SECONDS = 0.5
LOOK_SECONDS = 2.0
HANG_SECONDS = 6.0
LOADING_SECONDS = 600.0  # that the service manager lets new code take to begin: it gives way to all that serves
CALM_SECONDS = 5.0  # after a crash, before what the former main process had started gives way to processes of this one

Handler = Callable[[Channel, Message, list[int]], None]


class Spawner:
    """The service's main process."""

    def __init__(self, instance: Instance, program: Program) -> None:
        self.server = server = Server(instance, program)
        self.instance = instance
        self._heir = inherited()
        self._number, crashes = restart.start_after(instance) if self._heir is None else (self._heir.number, 0)
        set_start(self._number, crashes)
        self._calm_seconds = CALM_SECONDS if crashes else 0.0
        self._reactor = Reactor()
        self._family = Family(self._reactor, "", running_build(), self._gone)
        self._fires = TriggerLink(instance, self._reactor, lambda: read_snapshot(instance))
        self._succession = Succession(self._reactor, self._stepped)
        book: Around = (server, self._family, self._reactor, self._changed, self._succession)
        self._listeners = Listeners(self._fires, *book)
        self._streams = Streams(*book)
        self._pushes = Pushes(*book)
        self._controller = ControlKeeper(lambda error: self._reload.controller_said(error), *book)
        self._triggers = Attendant(
            "The process of the triggers", instance.trigger_socket, partial(trigger_main, server), *book[1:]
        )
        self._sessions = Attendant(
            "The process of the sessions", instance.session_socket, partial(session_main, server), *book[1:]
        )
        self._clients: set[Channel] = set()
        self._started = time.time()
        self._generation = 0
        self._bad_file = ""
        self._status_planned = False
        self._status_took_s = 0.0
        self._vigil = Vigil(self._reactor, LOOK_SECONDS, self._watched, is_restless)
        self._ending = False
        self._stop_asked = False
        self._exit_status = 0
        self._serving = False
        self._homecoming = Homecoming(self._reactor, self._serve)
        self._orphans = Orphans(self._reactor, lambda: self._family.children)
        self._strangers: dict[int, Departure] = {}
        self._reload = Reload(
            self._family, self._reactor, self._controller.ask_to_reload, self._execute, self._streams.is_busy
        )
        self._waiting: list[Waiting] = []
        self._notes = ""
        self._sweeper = RecordSweeper(server.instance)
        self._sweep_timer: Timer | None = None
        self._requests: dict[str, Handler] = {
            "start": self._do_start,
            "publish": self._do_publish,
            "stop_stream": self._do_stop_stream,
            "nuke_stream": self._do_nuke_stream,
            "push_start": self._do_push_start,
            "push_stop": self._do_push_stop,
            "end_connections": self._do_end_connections,
            "config": self._do_config,
            "status": self._do_status,
            "reload": self._do_reload,
            "shutdown": self._do_shutdown,
            "rejoin": self._do_rejoin,
        }

    # -- start -----------------------------------------------------------------------------------------------------

    def run(self) -> int:
        """Serve until told to end; returns the exit status. Raises MistError when the first start fails."""
        raise_descriptor_limit()
        heir = self._heir
        if heir is not None:
            self.instance.take(heir.lock, heir.alive)
        living = self.instance.acquire() if heir is None else True
        try:
            status = 0 if living and self.instance.config_file.exists() else self._load_configuration()
            if status != 0:
                return status
            self._prepare(living, heir)
            self._go(living, heir)
            self._reactor.run()
        finally:
            self.instance.release()
        log.info("Stopped")
        return self._exit_status

    def _load_configuration(self) -> int:
        """Let a short-lived process read the configuration, so that this one needs not what that takes, and get ready meanwhile."""

        def load() -> int:
            try:
                write_snapshot(self.instance, self.server.program.load_config())
            except MistError as error:
                sys.stderr.write("".join(f"mist: {line}\n" for line in str(error).splitlines()))
                return EXIT_CONFIG
            return 0

        pid = fork(load, keep=(), abandon=self._reactor.abandon)
        self.server.program.preload()
        return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])

    def _prepare(self, living: bool, heir: Inheritance | None) -> None:
        """Get ready to fork. living: the guardians of another main process have the ports and the streams."""
        restart.forget_note(self.instance)
        snapshot = read_snapshot(self.instance)
        self._follow_level(snapshot)
        ports: dict[str, Sequence[int]] = {**stored(), **(heir.sockets if heir is not None else {})}
        self._controller.take_port(ports.pop(CONTROLLER, ()), snapshot)
        self._triggers.take_door(ports.pop(TRIGGERS, ()))
        self._sessions.take_door(ports.pop(SESSIONS, ()))
        if living:
            self._listeners.expect(snapshot, ports)
            set_account(self.instance.name, memory_bound(snapshot))
        else:
            self._listeners.bind_first(snapshot, ports)
            self._controller.bind(snapshot)
            create_account(self.instance.name, memory_bound(snapshot))
        self._account = open_account(self.instance.name)  # mapped here, it shows that this instance runs
        self.server.program.preload()
        self.server.program.preload_readers(source_suffixes(snapshot))
        gc.collect()
        make_immortal()
        gc.freeze()
        give_back()

    def _go(self, living: bool, heir: Inheritance | None) -> None:
        adopt_orphans()
        setproctitle.setproctitle(f"mist: server {self.instance.name}")
        reactor = self._reactor
        reactor.on_signal(signal.SIGCHLD, self._family.reap)
        reactor.on_signal(signal.SIGTERM, self._terminated)
        reactor.on_signal(signal.SIGINT, lambda: self._ask_shutdown("signal Interrupt"))
        reactor.on_signal(signal.SIGHUP, self._reload.begin)
        reactor.on_signal(signal.SIGUSR1, partial(self._reload.begin, force=True))
        signal.signal(signal.SIGPIPE, signal.SIG_IGN)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, RESET_SIGNALS)
        if heir is None:
            self._door = bind_unix(str(self.instance.spawner_socket), SOCKET_MODE)
        else:
            self._door = own(socket.socket(fileno=heir.door))
            self._waiting = [(self._welcome(socket.socket(fileno=fd)), {"id": number}) for fd, number in heir.waiting]
            self._notes = heir.notes
        self._acceptor = Acceptor(self._door, reactor, self._visited)
        self._family.reap()
        if living:
            log.info("Taking over from another main process", extra={"kind": "CONF"})
            self._homecoming.expect(former_children(self.instance))
        else:
            self._serve()

    def _serve(self) -> None:
        """Start everything that does not run yet."""
        if self._serving or self._ending:
            return
        self._serving = True
        snapshot = read_snapshot(self.instance)
        self._triggers.open()
        self._sessions.open()
        self._controller.open()
        self._listeners.start_all()
        self._apply(snapshot)
        if self._calm_seconds:
            self._reactor.call_later(self._calm_seconds, self._succession.open)
        else:
            self._succession.open()
        self._write_status()
        self._vigil.begin()
        notify("READY=1")
        self._watchdog()
        log.info("Server %s runs, process %d", self.instance.name, os.getpid(), extra={"kind": "CONF"})

    # -- processes that a former main process had started ----------------------------------------------------------

    def _do_rejoin(self, channel: Channel, message: Message, fds: list[int]) -> None:
        if len(fds) < 2:
            close_all(fds)
            return
        pid = int(message["pid"])
        mine = not message["to"]
        kind = str(message["name"] if mine else message["to"]).partition(" ")[0]
        books: dict[str, Streams | Listeners | Pushes] = {
            "stream": self._streams,
            "listener": self._listeners,
            "push": self._pushes,
        }
        holder = books.get(kind)
        if not mine and holder is not None:
            holder.pass_on(message, fds)
        elif mine and holder is not None:
            holder.take(message, fds)
        elif mine and kind == CONTROLLER and self._controller.take(message, fds):
            pass
        elif mine and kind == TRIGGERS:
            self._triggers.take(message, fds)
        elif mine and kind == SESSIONS:
            self._sessions.take(message, fds)
        else:
            refuse(fds)
        self._homecoming.came_back(pid)
        self._orphans.came_back(pid)

    def _watchdog(self) -> None:
        seconds = watchdog_seconds()
        if seconds is not None:
            notify_watchdog(2 * seconds)
            self._reactor.call_later(seconds, self._watchdog)

    def _follow_level(self, snapshot: Snapshot) -> None:
        given = self.server.program.debug
        level = int(snapshot["config"].get("debug", 4)) if given is None else given
        runtime_log.start_log(level, str(self.instance.log_socket))

    # -- configuration ---------------------------------------------------------------------------------------------

    def _apply(self, snapshot: Snapshot) -> None:
        self._generation = int(snapshot["generation"])
        self._bad_file = str(snapshot.get("bad_file", ""))
        self._follow_level(snapshot)
        self.server.program.preload_readers(source_suffixes(snapshot))
        self._triggers.tell({"do": "config"})
        self._sessions.tell({"do": "config"})
        self._listeners.apply(snapshot)
        self._streams.apply(snapshot)
        self._pushes.tell({"do": "config"})
        self._changed()

    # -- reloading -------------------------------------------------------------------------------------------------

    def _execute(self, notes: str, waiting: list[Waiting]) -> str:
        """Have the installed code take this process's place; returns why it could not."""
        lock, alive = self.instance.hand_on()
        own_sockets = {
            CONTROLLER: self._controller.fds,
            TRIGGERS: self._triggers.fds,
            SESSIONS: self._sessions.fds,
        }
        sockets = {**own_sockets, **self._listeners.sockets()}
        self._number += 1
        write_status(self.server, self._status())
        log.info("Going over to the code that is installed now", extra={"kind": "CONF"})
        if watchdog_seconds() is not None:
            notify_watchdog(LOADING_SECONDS)  # if it comes to nothing, what is said next puts that right
        try:
            execute(
                Inheritance(
                    lock,
                    alive,
                    self._door.fileno(),
                    self._number,
                    {name: fds for name, fds in sockets.items() if fds},
                    [(channel.fileno(), request.get("id", 0)) for channel, request in waiting if not channel.closed],
                    notes,
                )
            )
        except OSError as error:
            return f"{sys.executable} cannot be executed: {error.strerror}"

    def _stepped(self) -> None:
        """Let those who wait for an upgrade know that it goes on."""
        tell_progress(self._waiting)
        self._changed()

    def _settle(self) -> None:
        """Answer those who wait for an upgrade once every process is one of this code."""
        build = running_build()
        over = self._serving and self._succession.is_over
        if self._waiting and over and all(one.build == build for one in self._family.children.values()):
            answer_all(self._waiting, "", self._notes)
            self._waiting = []

    # -- children --------------------------------------------------------------------------------------------------

    def _watched(self) -> Watched:
        for child in self._family.children.values():
            if child.watched:
                yield child, patience_seconds(child, HANG_SECONDS)

    def _gone(self, pid: int) -> None:
        """Clear up after a process that has ended; its records are its guardian's for a while, then the sweeper's."""
        if self._ending:
            self._end_if_alone()
            return
        self._orphans.look()
        release_subscriptions(self.instance, pid)
        self._plan_sweep(SWEEP_DELAY_SECONDS)

    def _left(self) -> set[int]:
        """Return all processes of this server but this one, as far as they are known here."""
        return {*children(os.getpid()), *self._family.children, *self._strangers}

    def _plan_sweep(self, delay: float) -> None:
        if self._sweep_timer is None:
            self._sweep_timer = self._reactor.call_later(delay, self._sweep)

    def _sweep(self) -> None:
        self._sweep_timer = None
        again = self._sweeper.sweep()
        if again is not None:
            self._plan_sweep(again)

    # -- visitors on the socket ------------------------------------------------------------------------------------

    def _visited(self, sock: socket.socket) -> None:
        _, uid, _ = peer_credentials(sock)
        if uid not in (0, os.getuid()):
            log.warning("Refused a visitor of user %d", uid)
            sock.close()
            return
        self._welcome(sock)

    def _welcome(self, sock: socket.socket) -> Channel:
        channel = Channel(sock)
        self._clients.add(channel)
        channel.attach(self._reactor, self._make_receiver(channel), self._make_leaver(channel))
        return channel

    def _make_receiver(self, channel: Channel) -> Callable[[Message, list[int]], None]:
        def received(message: Message, fds: list[int]) -> None:
            handler = self._requests.get(str(message.get("do")))
            try:
                if handler is None:
                    raise NotFound(f'no request is called "{message.get("do")}"')
                if self._ending:
                    raise AccessDenied("The server is shutting down")
            except MistError as error:
                close_all(fds)
                _answer(channel, message, {"error": type(error).__name__, "text": str(error)})
                return
            try:
                handler(channel, message, fds)
            except MistError as error:
                _answer(channel, message, {"error": type(error).__name__, "text": str(error)})

        return received

    def _make_leaver(self, channel: Channel) -> Callable[[], None]:
        return lambda: self._clients.discard(channel)

    def _do_start(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        self._streams.start(str(message["stream"]), lambda answer: _answer(channel, message, answer))

    def _do_publish(self, channel: Channel, message: Message, fds: list[int]) -> None:
        request = message["request"]
        self._streams.publish(str(message["stream"]), request, fds, lambda answer: _answer(channel, message, answer))

    def _do_stop_stream(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        self._streams.stop(str(message["stream"]), str(message.get("reason", "CLEAN_CONTROLLER_REQ")))
        _answer(channel, message, {"ok": True})

    def _do_nuke_stream(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        _answer(channel, message, {"ok": True, "found": self._streams.nuke(str(message["stream"]))})

    def _do_push_start(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        number = self._pushes.start(str(message["stream"]), str(message["requested"]), str(message["target"]))
        _answer(channel, message, {"number": number})

    def _do_push_stop(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        reason = str(message.get("reason", "CLEAN_CONTROLLER_REQ"))
        self._pushes.stop(int(message["number"]), reason, gracefully=bool(message.get("gracefully")))
        _answer(channel, message, {"ok": True})

    def _do_end_connections(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        order = {"do": "end_connections", "records": message["records"]}
        self._listeners.tell(order)
        self._streams.tell(order)
        _answer(channel, message, {"ok": True})

    def _do_config(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        snapshot = read_snapshot(self.instance)
        self._apply(snapshot)
        self._controller.follow(snapshot)
        _answer(channel, message, {"ok": True})

    def _do_status(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        _answer(channel, message, {"status": self._status()})

    def _do_reload(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        self._reload.begin((channel, message), force=bool(message.get("force")))

    def _do_shutdown(self, channel: Channel, message: Message, fds: list[int]) -> None:
        close_all(fds)
        _answer(channel, message, {"ok": True, "pid": os.getpid()})
        self._exit_status = int(bool(message.get("failed")))
        self._ask_shutdown(str(message.get("reason") or "asked for"))

    # -- status ----------------------------------------------------------------------------------------------------

    def _status(self) -> dict[str, Any]:
        return {
            "pid": os.getpid(),
            "instance": self.instance.name,
            "version": self.server.program.version,
            "build": running_build(),
            "upgrade_failure": self._reload.failure,
            "started": self._started,
            "generation": self._generation,
            "bad_file": self._bad_file,
            "config_path": str(self.server.program.config_path.absolute()),
            "controller": {"pid": self._controller.pid, "port": self._controller.port},
            "triggers": {"pid": self._triggers.pid},
            "sessions": {"pid": self._sessions.pid},
            "listeners": self._listeners.states(),
            "streams": self._streams.states(),
            "push_guardian": self._pushes.pid,
            "pushes": self._pushes.states(),
        }

    def _changed(self) -> None:
        """Write the status file soon, and look after the children that there are now."""
        if self._serving:
            self._vigil.begin()
        if not self._status_planned:
            self._status_planned = True
            self._reactor.call_later(max(STATUS_DELAY_SECONDS, self._status_took_s * STATUS_SHARE), self._write_status)

    def _write_status(self) -> None:
        self._status_planned = False
        if self._ending:
            return
        began = time.thread_time()
        status = self._status()
        if status["streams"]:
            self._listeners.await_viewers()
        write_status(self.server, status)
        self._status_took_s = time.thread_time() - began
        failure = f"; upgrade failed: {self._reload.failure}" if self._reload.failure else ""
        if self._bad_file:
            failure += f"; the configuration that ran last is used, because of {self._bad_file.splitlines()[0]}"
        notify(f"STATUS={len(status['streams'])} streams, {len(status['listeners'])} listeners{failure}")
        self._settle()

    # -- end -------------------------------------------------------------------------------------------------------

    def _terminated(self) -> None:
        """End everything, or this process alone when the service manager starts the next one at once."""
        if self._ending or not self._serving or not restart.is_wanted():
            self._ask_shutdown("signal Terminated")
            return
        try:
            restart.leave_note(self.instance, self._number)
        except OSError as error:
            log.error("The restart ends all connections: %s", error)
            self.shutdown()
            return
        write_status(self.server, self._status())
        log.info("Restarting: every other process goes on until the next one takes it over")
        notify("STOPPING=1")
        os._exit(0)  # as if it was killed: what it has is for the next one to find

    def _ask_shutdown(self, reason: str) -> None:
        """End the server unless the handlers of SYSTEM_STOP want it to go on; who asks again meanwhile does not wait."""
        if self._stop_asked or self._ending:
            self.shutdown()
            return

        def decided(allowed: bool) -> None:
            self._stop_asked = False
            if allowed:
                self.shutdown()
            else:
                log.warning("The server goes on: SYSTEM_STOP was refused (%s)", reason)

        self._stop_asked = True
        self._fires.decide_then("SYSTEM_STOP", "", [reason], decided)

    def shutdown(self) -> None:
        """End every process, then this one: politely, and after a while by force."""
        if self._ending:
            return
        self._ending = True
        log.info("Stopping")
        notify("STOPPING=1")
        self._acceptor.close()
        self._door.close()
        self._triggers.close()
        self._sessions.close()
        self._pushes.close()
        self._listeners.close()
        self._streams.close()
        self._controller.close()
        for child in self._family.children.values():
            child.stopping = True
        for pid in self._left():
            send_signal(pid, signal.SIGTERM)
        self._reactor.call_later(KILL_AFTER_SECONDS, self._kill_all)
        self._end_if_alone()

    def _end_if_alone(self) -> None:
        if not self._left():
            self._end_strangers()
        if not self._left():
            self._reactor.stop()

    def _end_strangers(self) -> None:
        """Ask those to end whom a former main process had started and who had no guardian under this one at the time."""
        for pid in self.instance.strangers():
            with suppress(ProcessLookupError):
                self._strangers[pid] = Departure(self._reactor, pid, partial(self._stranger_gone, pid))
                self._strangers[pid].signal(signal.SIGTERM)

    def _stranger_gone(self, pid: int) -> None:
        del self._strangers[pid]
        self._end_if_alone()

    def _kill_all(self) -> None:
        for pid in self._left():
            for one in (*descendants(pid), pid):
                send_signal(one, signal.SIGKILL)
        self._family.reap()
        self._end_if_alone()
        if self._left():
            self._reactor.call_later(KILL_AGAIN_SECONDS, self._kill_all)


def _answer(channel: Channel, request: Message, answer: Message) -> None:
    if "id" in request:
        channel.send({**answer, "reply": request["id"]})

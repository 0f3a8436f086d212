"""The controller process: reads the configuration, serves the API, counts, and keeps always-on streams running."""

from __future__ import annotations

import asyncio
import gc
import math
import socket
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mist.controller.beside import Beside
from mist.controller.doors import Doors
from mist.controller.log_ring import LogReceiver
from mist.controller.state import Controller
from mist.controller.store import Store
from mist.controller.stream_triggers import tell_start
from mist.controller.turns import short_collections
from mist.errors import ConfigError
from mist.stream.services import ControlServices

CHECK_SECONDS = 3


async def run(
    services: ControlServices,
    config_path: Path,
    api_socket: socket.socket | None = None,
    log_socket: socket.socket | None = None,
    *,
    must_exist: bool = False,
    built_in_streams: Mapping[str, Mapping[str, Any]] | None = None,
    last_snapshot: Mapping[str, Any] | None = None,
    admin_path: Path | None = None,
) -> None:
    """Run the controller until it is cancelled, or nobody is connected after it was asked to leave; then save changes that are not saved.

    api_socket: a listening socket for the API, closed at the end; None binds `config.controller`. log_socket: the
    runtime's datagram socket for log lines. must_exist: refuse to run without the file. built_in_streams: streams that
    exist unless the configuration defines them itself. last_snapshot: what was published last, by a controller that died.
    admin_path: where commands of the server's own user reach the API without login.
    Raises ConfigError for a bad file, TransportError for a port that is taken.
    """
    try:
        store = Store(
            config_path,
            services.capabilities,
            services.log,
            Beside(services.run_beside),
            must_exist=must_exist,
            built_in=built_in_streams,
            last_snapshot=last_snapshot,
        )
    except ConfigError:
        if api_socket is not None:
            api_socket.close()
        raise
    first = not services.load_state()
    controller = Controller(services, store)
    loop = services.loop
    receiver: LogReceiver | None = None
    if log_socket is not None:
        receiver = LogReceiver(loop, log_socket, controller.log_ring, controller.statistics.tag_session)
    services.on_reload = controller.reload_asked
    try:
        gc.freeze()  # what was read just now lives long
        with short_collections():
            await _serve(controller, api_socket, admin_path, first=first)
    finally:
        if receiver is not None:
            receiver.close()
        await controller.variables.close()
        await controller.watch.close()
        store.beside.close()
        store.save_if_changed()
        controller.memory.write(controller.monotonic(), at_once=True)


async def _serve(
    controller: Controller, api_socket: socket.socket | None, admin_path: Path | None, *, first: bool
) -> None:
    from mist.controller.api import application
    from mist.controller.server import ApiServer, listen, listen_here

    address = controller.store.config.model.config.controller
    listener = api_socket if api_socket is not None else listen(address.interface, address.port)
    host, port = listener.getsockname()[:2]
    controller.endpoint = (host, port)
    server = ApiServer(application(controller), controller.services.loop)
    doors = Doors(controller, server)
    doors.follow()
    await server.start(listener)
    if admin_path is not None:
        await server.start(listen_here(str(admin_path)), admin=True)
    controller.on_publish = doors.follow
    controller.services.tell_identity(controller.identity)
    controller.publish(controller.store.config)
    starting = controller.services.loop.create_task(tell_start(controller)) if first else None
    controller.log.info("The control API listens on port %d", port, extra={"kind": "CONF"})
    try:
        await _keep_time(controller, lambda: controller.services.asked_to_leave and server.is_idle)
    finally:
        if starting is not None:
            starting.cancel()
        doors.close()
        await server.close()
        if admin_path is not None:
            admin_path.unlink(missing_ok=True)


async def next_second(clock: Callable[[], float]) -> None:
    """Wait until the next whole second of a clock. Timers go by another one, and may come a moment before it."""
    due = math.floor(clock()) + 1
    while 0 < (left := due - clock()) <= 1:
        await asyncio.sleep(left)


async def _keep_time(controller: Controller, may_leave: Callable[[], bool]) -> None:
    """Do what is due each second, on the second, until it may leave."""
    seconds = 0
    checking: asyncio.Task[None] | None = None
    while not may_leave():
        await next_second(controller.clock)
        controller.tick()
        seconds += 1
        if seconds % CHECK_SECONDS == 1 and (checking is None or checking.done()):
            checking = asyncio.create_task(controller.check())

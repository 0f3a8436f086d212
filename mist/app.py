"""The composition root: finds inputs and outputs, and puts them together with runtime and controller."""

from __future__ import annotations

import asyncio
import importlib
import logging
import signal
import socket
from pathlib import Path
from typing import Any

import mist
from mist.errors import MistError
from mist.runtime.control import Control
from mist.runtime.instance import Instance
from mist.runtime.log import become
from mist.runtime.program import Program
from mist.runtime.spawner import EXIT_CONFIG
from mist.stream.capability import discover

log = logging.getLogger(__name__)

# What workers need, imported once before anything is forked. No PyAV, numpy, pydantic or web framework here.
PRELOADED = ("asyncio", "uvloop", "httptools", "json", "setproctitle")

# What `mist serve --demo` adds: a test picture, and a stream that anyone on this machine may publish to.
DEMO_STREAMS = {"demo": {"source": "demo:"}, "live": {"source": "push://127.0.0.1"}}


def capabilities(program: Program) -> dict[str, Any]:
    """Return the capability documents of everything that is installed."""
    return {
        "connectors": {name: one.capability.document() for name, one in sorted(program.outputs.items())},
        "inputs": {name: one.capability.document() for name, one in sorted(program.inputs.items())},
        "processes": {},
    }


def make_program(config_path: Path, *, explicit: bool, demo: bool, debug: int) -> Program:
    """Return everything the server is made of."""
    return Program(
        version=mist.__version__,
        outputs=discover("mist.outputs", "OUTPUT"),
        inputs=discover("mist.inputs", "INPUT"),
        run_controller=run_controller,
        preload=preload,
        config_path=config_path,
        config_explicit=explicit,
        demo=demo,
        debug=debug,
    )


def preload() -> None:
    """Import what every worker needs."""
    for name in PRELOADED:
        importlib.import_module(name)


def run_controller(program: Program, instance: Instance) -> int:
    """Be the controller; returns the exit status."""
    become("controller")
    from setproctitle import setproctitle

    setproctitle("mist: controller")
    return asyncio.run(_controller(program, instance))


async def _controller(program: Program, instance: Instance) -> int:
    from mist.controller.main import run

    log_socket = open_log_socket(instance)
    control = Control(instance, capabilities(program))
    loop = asyncio.get_running_loop()
    task = asyncio.ensure_future(
        run(
            control,
            program.config_path,
            log_socket=log_socket,
            must_exist=program.config_explicit,
            built_in_streams=DEMO_STREAMS if program.demo else None,
        )
    )
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, task.cancel)
    try:
        await task
    except asyncio.CancelledError:
        return 0
    except (MistError, OSError) as error:
        log.critical("%s", error)
        return EXIT_CONFIG
    finally:
        control.close()
        log_socket.close()
    return 0


def open_log_socket(instance: Instance) -> socket.socket:
    """Return the socket that all processes send their log lines to."""
    instance.log_socket.unlink(missing_ok=True)
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    sock.bind(str(instance.log_socket))
    sock.setblocking(False)
    return sock

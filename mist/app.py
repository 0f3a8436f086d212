"""The composition root: finds inputs and outputs, and puts them together with runtime and controller."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Mapping, Set
from pathlib import Path
from typing import TYPE_CHECKING, Any

import mist
from mist.errors import ConfigError
from mist.formats.containers import by_file_name
from mist.runtime.program import Program
from mist.stream.capability import discover

if TYPE_CHECKING:
    from mist.controller.config import Config

log = logging.getLogger(__name__)

# Imported once, before anything is forked, so that all processes share it. No PyAV and no numpy here. The controller's
# modules are among them because importing copies most of what a forked process shares: done afterwards it costs 6 MB more.
PRELOADED = (
    "asyncio",
    "uvloop",
    "httptools",
    "json",
    "setproctitle",
    "mist.core.fanout",
    "mist.stream.reader",
    "mist.controller.main",
    "mist.controller.api",
    "mist.controller.server",
    "uvicorn.lifespan.off",
    "uvicorn.protocols.websockets.wsproto_impl",
)

# What `mist serve --demo` adds: a test picture, and a stream that anyone on this machine may publish to.
DEMO_STREAMS: Mapping[str, Mapping[str, Any]] = {
    "demo": {"source": "demo:"},
    "live": {"source": "push://127.0.0.1"},
}


def make_program(config_path: Path, *, explicit: bool, demo: bool, debug: int | None) -> Program:
    """Return everything the server is made of.

    explicit: the operator named the file, so it must exist. debug: log level, or None for the configured one.
    """
    built_in = DEMO_STREAMS if demo else {}

    def read_config() -> Config:
        from mist.controller.config import check
        from mist.controller.config_files import read_parts

        parts = read_parts(config_path, must_exist=explicit, set_aside=True)
        for damaged, aside in parts.set_aside:
            log.error("%s was damaged; it is kept as %s, and what was changed through the API is lost", damaged, aside)
        return check(parts, program.capabilities())

    def load_config() -> Mapping[str, Any]:
        """Return the configuration of the file, or the one that ran last where the service keeps a copy."""
        from mist.controller.config import parse
        from mist.controller.last_good import LastGood

        bad: dict[str, str] = {}
        try:
            config = read_config()
        except ConfigError as error:
            former = LastGood(config_path).read()
            if former is None:
                raise
            log.error("The configuration cannot be used, and the one that ran last is used instead: %s", error)
            config, bad = parse(former, program.capabilities()), {"bad_file": str(error)}
        return {**config.with_streams(built_in).snapshot(), **bad}

    async def control(services: Any) -> None:
        from mist.controller.main import run
        from mist.runtime.snapshot import read_snapshot

        await run(
            services,
            config_path,
            api_socket=services.api_socket,
            log_socket=services.log_socket,
            must_exist=explicit,
            built_in_streams=built_in,
            last_snapshot=read_snapshot(services.server.instance),
            admin_path=services.server.instance.api_socket,
        )

    program = Program(
        version=mist.__version__,
        outputs=discover("mist.outputs", "OUTPUT"),
        inputs=discover("mist.inputs", "INPUT"),
        pushes=discover("mist.outputs", "PUSH", lambda role: str(role.connector)),
        load_config=load_config,
        controller=control,
        preload=preload,
        preload_readers=preload_readers,
        config_path=config_path,
        debug=debug,
    )
    return program


def preload() -> None:
    """Import what the processes need."""
    for name in PRELOADED:
        importlib.import_module(name)


def preload_readers(suffixes: Set[str]) -> None:
    """Import what reads files whose names end so. Not PyAV: it is large, and few streams need it."""
    for suffix in sorted(suffixes):
        container = by_file_name(f"_{suffix}")
        if container is None or container.make_demuxer is None or container.name == "libav":
            continue
        try:
            container.make_demuxer()
        except ImportError as error:  # those who play such a file are told
            log.error("%s files cannot be read: %s", container.name, error)

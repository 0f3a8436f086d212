"""Fuzz target: commands of the control API, from a client that may do everything."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

from mist.controller.access import Origin
from mist.controller.api import Api, ApiConnection, parse_command
from mist.formats.json_text import dumps
from tests.support.fake_control import ControllerUnderTest

NO_FILE = Path("/nonexistent/mist/config.json")


def fuzz(data: bytes) -> None:
    """Run any text as a command: the reply is an object that can be written, and the configuration stays acceptable."""
    command = parse_command(data)
    if isinstance(command, dict):
        asyncio.run(run_command(command))


async def run_command(command: dict[str, Any]) -> None:
    """Run a command on a fresh controller with a connection or two, twice: what it stored is there the second time."""
    control = ControllerUnderTest(NO_FILE, built_in={"live": {"source": "push://"}})
    control.controller.store.save = lambda: None  # type: ignore[method-assign]
    control.services.connect("live", "FLV")
    control.services.connect("live", "INPUT:RTMP")
    control.second(2)
    api = Api(control.controller)
    for _ in range(2):
        reply = await api.run(dict(command), ApiConnection(), Origin("127.0.0.1", local=True))
        json.loads(dumps(reply))
        json.dumps(control.controller.store.config.snapshot())
        control.second()
    await api.run(dict(command), ApiConnection(), Origin("192.0.2.1"))
    await control.controller.watch.close()

"""The calls of the control API: one declaration for each, in the order in which those of one command run."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from mist.controller import calls_config, calls_server, calls_statistics, calls_streams
from mist.controller.state import Command, Controller
from mist.errors import MistError

Handler = Callable[[Controller, Command], None]


@dataclass(frozen=True, slots=True)
class Call:
    """A step of every command. It runs when the command has the key `name`, or in every command when `always` is set."""

    name: str
    run: Handler
    always: bool = False


CALLS: tuple[Call, ...] = (
    Call("config_backup", calls_config.config_backup),
    Call("config_reload", calls_config.config_reload),
    Call("config_restore", calls_config.config_restore),
    Call("config", calls_config.config),
    Call("streams", calls_streams.streams),
    Call("addstream", calls_streams.addstream),
    Call("deletestream", calls_streams.deletestream),
    Call("addprotocol", calls_config.addprotocol),
    Call("deleteprotocol", calls_config.deleteprotocol),
    Call("updateprotocol", calls_config.updateprotocol),
    Call("tags", calls_config.tags),
    Call("add_tag", calls_config.add_tag),
    Call("remove_tag", calls_config.remove_tag),
    Call("capabilities", calls_server.capabilities),
    Call("load", calls_server.load),
    Call("browse", calls_server.browse),
    Call("ui_settings", calls_config.ui_settings),
    Call("version", calls_server.version),
    Call("publish what changed", calls_config.publish, always=True),
    Call("reply of streams", calls_streams.reply, always=True),
    Call("reply of config", calls_config.reply, always=True),
    Call("log", calls_server.log, always=True),
    Call("clients", calls_statistics.clients),
    Call("totals", calls_statistics.totals),
    Call("active_streams", calls_statistics.active_streams),
    Call("stats_streams", calls_statistics.stats_streams),
    Call("api_endpoint", calls_server.api_endpoint),
    Call("shutdown", calls_server.shutdown),
    Call("nuke_stream", calls_streams.nuke_stream),
    Call("save", calls_config.save),
)


def execute(controller: Controller, command: Command) -> None:
    """Run all calls of a command and fill its reply. What a call cannot do is logged and does not stop the others."""
    command.reply["LTS"] = 1
    for call in CALLS:
        if call.always or call.name in command:
            try:
                call.run(controller, command)
            except MistError as error:
                controller.log.warning("API call %s: %s", call.name, error)

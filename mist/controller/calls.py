"""The calls of the control API: one declaration for each, in the order in which those of one command run."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from mist.controller import (
    calls_accounts,
    calls_config,
    calls_handlers,
    calls_keys,
    calls_pushes,
    calls_server,
    calls_sessions,
    calls_statistics,
    calls_streams,
    calls_tools,
    replies,
)  # fmt: skip
from mist.controller.audit import summary
from mist.controller.declaration import Call, always, given_list, given_members, given_object
from mist.controller.permissions import Permission
from mist.controller.replies import Names, Presence
from mist.controller.state import Command, Controller
from mist.controller.stream_triggers import ask_about_streams
from mist.errors import MistError

READ, STREAMS, CONFIG, ADMIN = Permission.READ, Permission.STREAMS, Permission.CONFIG, Permission.ADMIN
PUSHES = Permission.PUSHES
_a, _c, _k, _n, _p = calls_accounts, calls_config, calls_keys, calls_sessions, calls_pushes
_h, _s, _t = calls_handlers, calls_streams, calls_tools


def _writes(name: str, run: Any, needs: Permission, request: Any, reply: Any = None, **options: Any) -> Call:
    """Return the declaration of a call that always changes something."""
    return Call(name, run, needs, request, reply, always, needs, **options)


CALLS: tuple[Call, ...] = (
    Call("config_backup", _c.config_backup, ADMIN, Presence, {"config_backup": dict[str, Any]}),
    _writes("config_reload", _c.config_reload, CONFIG, Presence),
    _writes("config_restore", _c.config_restore, ADMIN, dict[str, Any] | Presence),
    Call("config", _c.config, READ, dict[str, Any] | Presence, {"config": replies.Server}, given_members, CONFIG),
    Call("jwks", _k.jwks, ADMIN, list[Any] | Presence, {"jwks": replies.KeysShown}, given_list, ADMIN),
    _writes("deletejwks", _k.deletejwks, ADMIN, replies.KeysGiven, {"deletejwks": list[Any] | None}),
    _writes("addjwks", _k.addjwks, ADMIN, replies.KeysGiven, {"addjwks": list[Any] | None}),
    Call(
        "bandwidth", _c.bandwidth, READ, replies.Bandwidth | Presence, {"bandwidth": replies.Bandwidth}, given_members, CONFIG
    ),
    Call(
        "streams", _s.streams, READ, replies.StreamsGiven | Presence, {"streams": replies.StreamsShown}, given_object, STREAMS
    ),
    _writes(
        "addstream", _s.addstream, STREAMS, replies.StreamsGiven, {"streams": replies.SomeStreams}, otherwise=_s.name_streams
    ),
    _writes("deletestream", _s.deletestream, STREAMS, Names, {"streams": replies.SomeStreams}, otherwise=_s.name_streams),
    _writes(
        "deletestreamsource", _s.deletestreamsource, STREAMS, Names,
        {"deletestreamsource": replies.DeletedSources, "streams": replies.SomeStreams},
    ),
    _writes("addprotocol", _c.addprotocol, CONFIG, replies.Protocols),
    _writes("deleteprotocol", _c.deleteprotocol, CONFIG, replies.Protocols),
    _writes("updateprotocol", _c.updateprotocol, CONFIG, tuple[replies.ProtocolObject, replies.ProtocolObject]),
    Call("tags", _c.tags, READ, list[Any] | Presence, {"tags": list[str]}, given_list, CONFIG),
    _writes("add_tag", _c.add_tag, CONFIG, Names, {"tags": list[str]}, otherwise=_c.show_tags),
    _writes("remove_tag", _c.remove_tag, CONFIG, Names, {"tags": list[str]}, otherwise=_c.show_tags),
    Call("capabilities", calls_server.capabilities, READ, Presence, {"capabilities": replies.Capabilities | None}),
    Call("load", calls_server.load, READ, Presence, {"load": replies.Load}),
    Call("browse", _t.browse, STREAMS, str | Presence, {"browse": replies.Browse}, late=True),
    Call(
        "streamkeys", _k.set_streamkeys, STREAMS, dict[str, Any] | Presence, {"streamkeys": dict[str, str] | None},
        given_object, STREAMS,
    ),
    _writes(
        "streamkey_del", _k.streamkey_del, STREAMS, Names | Presence,
        {"streamkey_del": replies.Deleted, "streamkeys": dict[str, str] | None},
    ),
    _writes(
        "streamkey_add", _k.streamkey_add, STREAMS, dict[str, Any] | Presence,
        {"streamkey_add": replies.Added, "streamkeys": dict[str, str] | None},
    ),
    Call("reply of stream keys", _k.show_streamkeys, every=True),
    _writes(
        "playlist", _t.playlist, STREAMS, dict[str, replies.PlaylistOrder], {"playlist": dict[str, Any] | None}, late=True
    ),
    Call(
        "ui_settings", _c.ui_settings, READ, dict[str, Any] | Presence, {"ui_settings": dict[str, Any] | None},
        given_object, CONFIG,
    ),
    Call("update", _t.update, READ, Presence, {"update": replies.Update}),
    Call("checkupdate", _t.update, READ, Presence, {"update": replies.Update}),
    Call("autoupdate", _t.update, ADMIN, Presence, {"update": replies.Update}),
    Call("abortupdate", _t.update, ADMIN, Presence, {"update": replies.Update}),
    Call("version", calls_server.version, READ, Presence, {"version": replies.Version}),
    Call("reply of streams", calls_streams.reply, every=True),
    Call("reply of config", calls_config.reply, every=True),
    Call("log", calls_server.log, READ, Presence, {"log": replies.LogRows}, every=True),
    _writes("clearstatlogs", calls_server.clearstatlogs, CONFIG, Presence),
    Call(
        "clients", calls_statistics.clients, READ, replies.Query | list[Any] | Presence,
        {"clients": replies.Clients | list[replies.Clients] | None},
    ),
    Call(
        "totals", calls_statistics.totals, READ, replies.TotalsQuery | list[Any] | Presence,
        {"totals": replies.Totals | list[replies.Totals] | None},
    ),
    Call(
        "active_streams", calls_statistics.active_streams, READ, replies.ActiveQuery | list[Any] | Presence,
        {"active_streams": replies.ActiveShown},
    ),
    Call(
        "stats_streams", calls_statistics.stats_streams, READ, list[Any] | Presence, {"stats_streams": replies.StatsShown}
    ),
    Call("api_endpoint", calls_server.api_endpoint, READ, Presence, {"api_endpoint": str}),
    _writes("shutdown", calls_server.shutdown, ADMIN, Presence, {"shutdown": str}),
    _writes("nuke_stream", _s.nuke_stream, STREAMS, str),
    _writes("no_unconfigured_streams", _s.no_unconfigured_streams, STREAMS, Presence),
    _writes("invalidate_sessions", _n.invalidate_sessions, STREAMS, Names),
    _writes("stop_sessions", _n.stop_sessions, STREAMS, Names),
    _writes("stop_sessid", _n.stop_sessid, STREAMS, Names),
    _writes("stop_tag", _n.stop_tag, STREAMS, Names),
    _writes("tag_sessid", _n.tag_sessid, STREAMS, dict[str, Any]),
    _writes("tag_stream", _n.tag_stream, STREAMS, dict[str, Any]),
    _writes("untag_stream", _n.untag_stream, STREAMS, dict[str, Any]),
    Call("stream_tags", _n.stream_tags, READ, Names | Presence, {"stream_tags": dict[str, list[str] | None] | None}),
    _writes("push_start", _p.push_start, PUSHES, replies.PushWanted),
    Call("proc_status_update", _t.proc_status_update, CONFIG, replies.ProcessReport),
    Call("proc_list", _t.proc_list, READ, str | Presence, {"proc_list": dict[str, Any] | None}),
    Call("push_list", _p.push_list, READ, Presence, {"push_list": replies.PushRows}),
    _writes("push_stop", _p.push_stop, PUSHES, replies.PushNames),
    _writes("push_stop_graceful", _p.push_stop_graceful, PUSHES, replies.PushNames),
    _writes("push_auto_add", _p.push_auto_add, PUSHES, replies.PushRules, replies.PUSH_RULES_SHOWN),
    _writes("push_auto_remove", _p.push_auto_remove, PUSHES, replies.PushRulesGone, replies.PUSH_RULES_SHOWN),
    Call("push_auto_list", _p.push_auto_list, READ, Presence, replies.PUSH_RULES_SHOWN),
    Call("reply of automatic pushes", _p.reply, every=True),
    Call(
        "push_settings", _p.push_settings, READ, dict[str, Any] | Presence, {"push_settings": replies.PushSettings},
        given_members, PUSHES,
    ),
    Call("variable_list", _h.variable_list, READ, Presence, {"variable_list": replies.VariablesShown}),
    _writes(
        "variable_add", _h.variable_add, CONFIG, dict[str, Any] | list[Any], {"variable_list": replies.VariablesShown},
        otherwise=_h.variable_list,
    ),
    _writes(
        "variable_remove", _h.variable_remove, CONFIG, Names, {"variable_list": replies.VariablesShown},
        otherwise=_h.variable_list,
    ),
    _writes("trigger_stat", _h.trigger_stat, CONFIG, dict[str, Any], alone=True),
    _writes("trigger_fail", _h.trigger_fail, CONFIG, str, alone=True),
    Call("trigger_stats", _h.triggers, READ, Presence, {"trigger_stats": dict[str, Any] | None}, late=True),
    Call("trigger_test", _h.trigger_test, ADMIN, replies.TriggerTest, {"trigger_test": list[Any]}, late=True),
    Call("external_writer_list", _t.external_writer_list, READ, Presence, {"external_writer_list": replies.Writers}),
    _writes(
        "external_writer_add", _t.external_writer_add, ADMIN, replies.WriterGiven, {"external_writer_list": replies.Writers},
        otherwise=_t.external_writer_list,
    ),
    _writes(
        "external_writer_remove", _t.external_writer_remove, ADMIN, Names, {"external_writer_list": replies.Writers},
        otherwise=_t.external_writer_list,
    ),
    Call("enumerate_sources", _t.enumerate_sources, READ, Presence, {"enumerate_sources": Any}),
    Call("account_list", _a.account_list, ADMIN, Presence, {"account_list": dict[str, Any] | None}),
    _writes("account_set", _a.account_set, ADMIN, _a.AccountChange, {"account_set": replies.Done}, late=True),
    _writes("account_remove", _a.account_remove, ADMIN, str, {"account_remove": replies.Done}),
    _writes("account_key", _a.account_key, ADMIN, _a.KeyWanted, {"account_key": replies.Key}),
    _writes("account_unkey", _a.account_unkey, ADMIN, _a.KeyWanted, {"account_unkey": replies.Done}),
    _writes("save", calls_config.save, CONFIG, Presence, late=True),
)  # fmt: skip
PUBLISH_BEFORE = "reply of streams"
TAKEN_SECONDS = 1.0  # that a reply waits for those who serve to have what was changed


async def execute(controller: Controller, command: Command) -> None:
    """Run all calls of a command and fill its reply. What a call cannot do is logged and does not stop the others.

    The calls of a command that changes something share the configuration's lock, but for the late ones: those wait for
    files, and keep nobody else waiting.
    """
    if alone := [call for call in CALLS if call.alone and call.name in command]:
        if _may_run(controller, command, alone[0]):
            await _run(controller, command, alone[0])
        return
    command.reply["LTS"] = 1
    late: list[Call] = []
    await ask_about_streams(controller, command)
    changes = any(call.name in command and call.changes(command[call.name]) for call in CALLS)
    async with controller.lock if changes else nullcontext():
        for call in CALLS:
            if changes and call.name == PUBLISH_BEFORE:
                await controller.commit_in_turns()
            if not call.every and not _may_run(controller, command, call):
                continue
            if call.late:
                late.append(call)
            else:
                await _run(controller, command, call)
        if changes:
            await controller.commit_in_turns()
    if changes:
        await controller.services.config_taken(TAKEN_SECONDS)
    for call in late:
        await _run(controller, command, call)


async def _run(controller: Controller, command: Command, call: Call) -> None:
    try:
        waiting = call.run(controller, command)
        if waiting is not None:
            await waiting
    except MistError as error:
        controller.log.warning("API call %s: %s", call.name, error)


def _may_run(controller: Controller, command: Command, call: Call) -> bool:
    """Return whether a command has a call, in an acceptable form and from somebody who may make it; notes changes."""
    if call.name not in command:
        return False
    value, caller = command[call.name], command.caller
    needed = call.permission(value)
    if not caller.may(needed):
        command.denied.append(call.name)
        controller.log.warning(
            "API call %s by %s from %s needs the permission %s", call.name, caller.name, caller.address, needed,
            extra={"kind": "AUTH"},
        )  # fmt: skip
        return False
    problem = call.problem(value)
    if problem:
        controller.log.warning("API call %s", problem)
        if call.otherwise is not None:
            call.otherwise(controller, command)
        return False
    if call.changes(value):
        controller.log.info(
            "%s from %s: %s %s",
            caller.name,
            caller.address,
            call.name,
            summary(call.name, value),
            extra={"kind": "CONF"},
        )
    return True

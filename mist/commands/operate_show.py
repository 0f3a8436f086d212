"""`mist streams`, `mist clients`, `mist pushes`, `mist log` and `mist api`: what a running server does, and any call of its API."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from mist.commands import BadUsage
from mist.commands.operate_link import call, call_and_hear

STREAMS = """\
List the configured and the active streams: their state, who is connected, their tracks, and what is wrong with them.

  mist streams
  mist streams --json | jq -r '.[] | select(.viewers > 0).name'
"""
CLIENTS = """\
List the sessions of this moment: viewers, publishers (protocol INPUT:…) and pushes (OUTPUT:…). Rates are those of the
last five seconds, "sent" and "received" are the server's.

  mist clients
  mist clients live
  mist clients --json
"""
PUSHES = """\
List the pushes to other servers and to files that go on. `mist api push_start`, `push_stop` and `push_auto_add` begin and end them.

  mist api push_start '{"stream": "live", "target": "rtmp://example.org/app/key"}'
  mist pushes
  mist api push_stop 1
"""
LOG = """\
Show the last lines of the log of all processes; with -f go on with what comes, until Ctrl-C.

  mist log -f
  mist log --stream live
  mist log --json               a JSON array for each line: unix seconds, kind, text, stream, process, program, place
"""
API = """\
Send a call of the control API, and show what it answers. docs/api.md lists the calls.

  mist api active_streams
  mist api addstream '{"live": {"source": "push://"}}'
  mist api stop_sessions '{"live": "RTMP"}'
  mist api totals '{"fields": ["clients", "upbps"], "start": -10}'
  mist api -                    a whole command as JSON from standard input

A value that is no JSON is taken as a text: `mist api deletestream live`. Without a value it is `true`.
"""


def table(head: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return rows as aligned columns; columns of numbers are aligned to the right."""
    texts = [[_plain(cell) for cell in row] for row in rows]
    numeric = [all(_is_number(row[column]) for row in texts) for column in range(len(head))]
    widths = [max(len(row[column]) for row in [list(head), *texts]) for column in range(len(head))]

    def line(cells: Sequence[str]) -> str:
        shown = zip(cells, widths, numeric, strict=True)
        return "  ".join(cell.rjust(width) if right else cell.ljust(width) for cell, width, right in shown).rstrip()

    return "\n".join(line(cells) for cells in [[name.upper() for name in head], *texts])


def _plain(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return text if text.isprintable() else "".join(letter if letter.isprintable() else "?" for letter in text)


def _is_number(text: str) -> bool:
    return not text or text.replace(".", "", 1).replace("-", "", 1).isdigit()


def _show(rows: list[list[Any]], head: Sequence[str], options: argparse.Namespace, nothing: str) -> int:
    if options.json:
        print(json.dumps([dict(zip(head, row, strict=True)) for row in rows], indent=2))
    else:
        print(table(head, rows) if rows else nothing)
    return 0


# -- what there is -----------------------------------------------------------------------------------------------------

STREAM_HEAD = ("name", "state", "viewers", "inputs", "outputs", "tracks", "source", "issues")
CLIENT_HEAD = ("stream", "protocol", "host", "seconds", "sent", "received", "sent_bps", "received_bps", "session")
CLIENT_FIELDS = ("stream", "protocol", "host", "conntime", "up", "down", "upbps", "downbps", "sessid")
PUSH_HEAD = ("id", "stream", "target", "seconds", "bytes")


def streams(path: Path, options: argparse.Namespace) -> int:
    """List the streams."""
    fields = ["status", "viewers", "inputs", "outputs", "tracks", "health"]
    reply = call(path, {"streams": True, "active_streams": {"longform": True, "fields": fields}})
    configured, active = reply.get("streams") or {}, reply.get("active_streams") or {}
    rows = []
    for name in sorted({*configured, *active}):
        entry, now = configured.get(name, {}), active.get(name, {})
        state = now.get("status") or _state(entry)
        issues = (now.get("health") or {}).get("issues", "")
        source = entry.get("source", "")
        rows.append([name, state, *(now.get(field) or 0 for field in fields[1:5]), source, issues])
    return _show(rows, STREAM_HEAD, options, "There are no streams.")


def _state(entry: dict[str, Any]) -> str:
    if entry.get("online") == 1:
        return "Online"
    return str(entry.get("error") or "Offline").removeprefix("Stream offline: ")


def clients(path: Path, options: argparse.Namespace) -> int:
    """List the sessions."""
    query: dict[str, Any] = {"time": -1, "fields": list(CLIENT_FIELDS)}
    if options.stream:
        query["streams"] = [options.stream]
    reply = call(path, {"clients": query})["clients"]
    order = [reply["fields"].index(field) for field in CLIENT_FIELDS]
    rows = sorted([row[place] for place in order] for row in reply["data"] or ())
    return _show(rows, CLIENT_HEAD, options, "Nobody is connected.")


def pushes(path: Path, options: argparse.Namespace) -> int:
    """List the pushes."""
    rows = []
    for number, stream, target, *rest in call(path, {"push_list": True}).get("push_list") or ():
        status = rest[2] if len(rest) > 2 and isinstance(rest[2], dict) else {}
        rows.append([number, stream, target, status.get("active_seconds"), status.get("bytes")])
    return _show(rows, PUSH_HEAD, options, "There are no pushes.")


# -- the log -----------------------------------------------------------------------------------------------------------


def log(path: Path, options: argparse.Namespace, follow: Callable[[Path], Iterable[list[Any]]]) -> int:
    """Show the log. follow: yields the rows that come."""
    for row in call(path, {"log": True}).get("log") or ():
        _print_row(row, options)
    if options.follow:
        for row in follow(path):
            _print_row(row, options)
    return 0


def _print_row(row: list[Any], options: argparse.Namespace) -> None:
    when, kind, message, stream, pid, program, place = row
    if options.stream and stream != options.stream:
        return
    if options.json:
        print(json.dumps(row), flush=True)
        return
    text = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(when))
    owner = f"{program}:{stream}" if stream else str(program)
    print(_plain(f"[{text}] {owner} ({pid}) {kind}: {message} ({place})"), flush=True)


# -- any call ----------------------------------------------------------------------------------------------------------


def api(path: Path, options: argparse.Namespace, known: Callable[[], Iterable[str]]) -> int:
    """Send one call, or a whole command. known: returns the names of the calls that there are."""
    command = _command(options)
    reply, problems = call_and_hear(path, command)
    shown = reply.get(options.call, reply) if len(reply) == 1 else reply
    if reply:
        print(json.dumps(shown, indent=None if options.compact else 2, ensure_ascii=False))
    else:
        _check_names(command, {*known(), "authorize", "logout", "minimal"})
    for line in (line for kind in ("refused", "warnings") for line in problems.get(kind, ())):
        print(f"mist: {line}", file=sys.stderr)
    return 1 if problems.get("refused") else 0


def _check_names(command: Iterable[str], known: set[str]) -> None:
    """Look for calls that no server knows in a command that nothing was said to. Raises BadUsage."""
    for name in command:
        if name not in known:
            from difflib import get_close_matches

            near = get_close_matches(name, known, n=1)
            hint = f'; did you mean "{near[0]}"?' if near else ""
            raise BadUsage(f'there is no call "{name}"{hint}')


def _command(options: argparse.Namespace) -> dict[str, Any]:
    if options.call == "-":
        try:
            command = json.load(sys.stdin)
        except ValueError as error:
            raise BadUsage(f"standard input is no JSON: {error}") from None
        if not isinstance(command, dict):
            raise BadUsage("a command is a JSON object")
        return command
    if options.value is None:
        return {options.call: True}
    try:
        return {options.call: json.loads(options.value)}
    except ValueError:
        if options.value[:1] in "{[":
            raise BadUsage(f"that is no JSON: {options.value}") from None
        return {options.call: options.value}


# -- the command line --------------------------------------------------------------------------------------------------

Run = Callable[[Path, argparse.Namespace], int]


def add_commands(
    commands: Any, run: Callable[[Run], Callable[[argparse.Namespace], int]], known: Callable[[], Iterable[str]]
) -> list[argparse.ArgumentParser]:
    """Add the commands to the command line. run: makes of a command here what the parser calls. known: see `api`."""
    from mist.commands import operate_follow

    raw = argparse.RawDescriptionHelpFormatter
    shown: list[tuple[str, str, str, Run]] = [
        ("streams", "list the streams of a running server", STREAMS, streams),
        ("clients", "list who is connected", CLIENTS, clients),
        ("pushes", "list the pushes to other servers and files", PUSHES, pushes),
        ("log", "show the log", LOG, lambda path, options: log(path, options, operate_follow.follow)),
        ("api", "send a call of the control API", API, lambda path, options: api(path, options, known)),
    ]
    parsers = {}
    for name, summary, told, work in shown:
        parser = commands.add_parser(name, help=summary, description=told, formatter_class=raw)
        parser.set_defaults(run=run(work))
        parsers[name] = parser
        if name != "api":
            parser.add_argument("--json", action="store_true", help="as JSON, for programs")
    parsers["clients"].add_argument("stream", nargs="?", help="only of this stream")
    parsers["log"].add_argument("-f", "--follow", action="store_true", help="go on with what comes")
    parsers["log"].add_argument("--stream", help="only lines about this stream")
    parsers["api"].add_argument("call", metavar="CALL", help="name of the call, or - for a whole command")
    parsers["api"].add_argument("value", metavar="JSON", nargs="?", help="what it is given (default true)")
    parsers["api"].too_much = " (JSON with spaces is one word in single quotes)"
    parsers["api"].add_argument("--compact", action="store_true", help="the reply on one line")
    return list(parsers.values())

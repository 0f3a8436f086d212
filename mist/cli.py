"""The `mist` command."""

from __future__ import annotations

import argparse
import importlib
import json
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import mist
from mist.commands import (
    BadUsage,
    CommandParser,
    convert,
    info,
    operate_account,
    operate_show,
    operate_triggers,
    record,
)
from mist.errors import ConfigError, MistError, NotFound
from mist.runtime.instance import DEFAULT_NAME, Instance

if TYPE_CHECKING:
    from mist.runtime.program import Program

RELOAD_SECONDS = 60.0  # without a sign that it goes on
DEFAULT_CONFIG = Path("/etc/mist/config.json")

_DESCRIPTION = """\
A live and on-demand media server: it takes a live stream from OBS, ffmpeg or any RTMP encoder, and plays it over
RTMP, HTTP-FLV, MPEG-TS, MP4 and HLS, one frame later, without transcoding.

  mist serve --demo          a server with a test picture; open http://localhost:8080/demo.html
  mist status                what a running server does
  mist reload                let it read its configuration again, and use newly installed code
  mist streams, mist clients what it serves, and to whom
  mist log -f                what it says
  mist account add NAME      who may use its control API
  mist api CALL [JSON]       any call of it
  mist stop                  end it
  mist config check          what is wrong in its configuration
  mist config diff           what was changed since it was read
  mist nuke live             end a stream that hangs
  mist record live live.mkv  a stream of it into a file

Files, without a server:

  mist info a.flv            what is in a file, and what is wrong with it
  mist convert a.flv b.mp4   the same media in another format
  mist in a.mp4 | mist out ts > a.ts
"""

_SERVE = """\
Run the server in the foreground until SIGTERM or Ctrl-C.

Without a configuration file it listens on port 8080 (HTTP), 1935 (RTMP), 4200 (DTSC) and 4242 (control API), with no streams:
add them to the file, or through the API. A small configuration:

  {"streams": {"live": {"source": "push://"}},
   "config": {"protocols": [{"connector": "HTTP"}, {"connector": "RTMP"}]}}

Publish to rtmp://HOST/live/live, watch http://HOST:8080/live.html.

  mist serve --demo                                  with a test picture
  mist serve --config config.json
  mist serve --config test.json --instance test      beside another one, on ports of its own

Exit status: 0 after a stop; 1 when something it needs is not to be had (a port in use, a runtime directory); 2 for a bad
configuration or option.
"""

_STATUS = """\
Show what a running server does: listeners, streams with their tracks and viewers, processes with their memory.

  mist status
  mist status --json | jq .streams
"""

_STOP = """\
End a running server and wait until it is gone. Publishers and viewers are disconnected; files that are recorded are ended in order.

  mist stop
  mist stop --instance test
"""

_RELOAD = """\
Read the configuration file again, as SIGHUP and `systemctl reload mist` do. A bad file changes nothing. Changes touch only what they
concern: a stream whose source is another starts again, a port that is removed is closed, everything else goes on.

When other code is installed than runs, it takes over in place: a child tries it first, and if that fails, the old code goes on.
Ports, viewers and publishers stay connected.

  mist config check && mist reload

Exit status: 0 when all is done; 1, with the reason, when no server runs or everything stays as it was.
"""

_UPGRADE = """\
Replace every process of a running server in place by the code that is installed now, even if it is the same, without closing a
connection. `mist reload` does so when the installed code differs from the running one.

  mist upgrade

Exit status: 0 when all is done; 1, with the reason, when no server runs or everything stays as it was.
"""


_NUKE = """\
End a stream by force: its input is killed, its publisher and viewers are cut off, and its shared memory is removed. For a stream
that hangs; one that works ends with the API's "stop_sessions" or with its configuration. The stream may start again at once.

  mist nuke live             the stream "live"
  mist nuke live+backstage   one of its wildcard streams

Without a running server, what is left of the stream in shared memory is removed.

Exit status: 0 when it is gone; 1 when there was nothing of it; 2 for what is no name of a stream.
"""

_CLEANUP = """\
Remove the shared memory (/dev/shm/mist.NAME.*) and the runtime directory of servers that do not run any more. A server does so by
itself when it ends, and when it starts; this is for one that was killed together with all its processes and will not start again.

An instance that runs, or whose processes wait for their main process, is left alone; when it was named, that is an error.
Lists what was removed.

  mist cleanup
  mist cleanup --instance test

Exit status: 0 done, also when there was nothing; 1 when the instance that was named is still in use.
"""


_CONFIG = """\
Look at the configuration, which may be of several files that are taken together.

  mist config check /etc/mist/config.json
  mist config show
  mist config diff
"""

_CHECK = """\
Say whether a server would accept the configuration: a line for each mistake with file, key, what is expected and what stands
there. A line that begins with "warning" names a key that nobody knows: it is kept and does nothing.

  mist config check
  mist config check test.json && mist serve --config test.json

Exit status: 0 when it is good; 2 when it is not.
"""

_DIFF = """\
Compare what a server runs with what its configuration files say: a line for each difference, with - and + for what the files
have and what runs.

  mist config diff
  mist config diff --json /etc/mist/config.json

Exit status: 0 when they are the same; 1 when they differ, or no server runs; 2 for a bad file.
"""

_SHOW = """\
Print the configuration that all files make, as JSON, with the file that each value is from in a comment.

  mist config show
  mist config show test.json

Exit status: 0; 2 for a file that cannot be read.
"""

EXIT_STATUS = (
    "Exit status: 0 when it is done; 1 when it is not, with the reason in a line; 2 for a command line that cannot be."
)


def build_parser() -> argparse.ArgumentParser:
    """Return the parser of the whole command line."""
    raw = argparse.RawDescriptionHelpFormatter
    parser = CommandParser(prog="mist", description=_DESCRIPTION, formatter_class=raw)
    parser.add_argument("--version", action="version", version=f"mist {mist.__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", required=True)

    serve = commands.add_parser(
        "serve", help="run the server in the foreground", description=_SERVE, formatter_class=raw
    )
    serve.add_argument("--config", type=Path, metavar="PATH", help=f"configuration file (default {DEFAULT_CONFIG})")
    serve.add_argument(
        "--demo", action="store_true", help='add the streams "demo" (test picture) and "live" (publish to it)'
    )
    serve.add_argument(
        "--log-level", metavar="LEVEL", help="0 to 10, or error, warn, info, debug (default: config.debug, which is 4)"
    )
    serve.add_argument("--trial", action="store_true", help=argparse.SUPPRESS)  # the first step of an upgrade
    serve.set_defaults(run=run_serve)

    status = commands.add_parser(
        "status", help="show what a running server does", description=_STATUS, formatter_class=raw
    )
    status.add_argument("--json", action="store_true", help="as JSON, for programs")
    status.set_defaults(run=run_status)

    stop = commands.add_parser("stop", help="end a running server", description=_STOP, formatter_class=raw)
    stop.set_defaults(run=run_stop)

    reload = commands.add_parser(
        "reload",
        help="let a running server read its configuration again, and go over to newly installed code",
        description=_RELOAD,
        formatter_class=raw,
    )
    reload.set_defaults(run=run_reload, force=False)

    upgrade = commands.add_parser(
        "upgrade", help="let a running server start again in place", description=_UPGRADE, formatter_class=raw
    )
    upgrade.set_defaults(run=run_reload, force=True)

    nuke = commands.add_parser(
        "nuke", help="end a stream by force and remove all of it", description=_NUKE, formatter_class=raw
    )
    nuke.add_argument("stream", metavar="STREAM", help="name of the stream")
    nuke.set_defaults(run=run_nuke)

    cleanup = commands.add_parser(
        "cleanup", help="remove what dead servers left", description=_CLEANUP, formatter_class=raw
    )
    cleanup.add_argument("--instance", metavar="NAME", help="only what this one left (default: all that do not run)")
    cleanup.set_defaults(run=run_cleanup)

    _add_config_commands(commands)
    convert.add_commands(commands)
    info.add_commands(commands)
    recording = record.add_commands(commands, run_record)

    operating = [
        *operate_show.add_commands(commands, with_api, call_names),
        *operate_account.add_commands(commands, with_api),
        *operate_triggers.add_commands(commands, with_api),
    ]

    for command in (serve, status, stop, reload, upgrade, nuke, recording, *operating):
        command.add_argument(
            "--instance",
            default=DEFAULT_NAME,
            metavar="NAME",
            help="several servers run side by side under different names (default %(default)s)",
        )
    for command in leaves(parser):
        if "exit status:" not in f"{command.description} {command.epilog}".lower():
            command.epilog = f"{command.epilog or ''}\n\n{EXIT_STATUS}".strip("\n")
    return parser


def leaves(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    """Yield the parsers of the commands that do something."""
    groups = [action for action in parser._actions if isinstance(action, argparse._SubParsersAction)]
    for group in groups:
        for below in group.choices.values():
            yield from leaves(below)
    if not groups:
        yield parser


def call_names() -> list[str]:
    """Return the calls of the control API."""
    from mist.controller.calls import CALLS

    return [call.name for call in CALLS]


def _add_config_commands(commands: argparse._SubParsersAction[CommandParser]) -> None:
    raw = argparse.RawDescriptionHelpFormatter
    config = commands.add_parser(
        "config",
        help="check or show the configuration",
        description=_CONFIG,
        formatter_class=raw,
    )
    kinds = config.add_subparsers(dest="what", metavar="COMMAND", required=True)
    check = kinds.add_parser(
        "check", help="find the mistakes in a configuration", description=_CHECK, formatter_class=raw
    )
    check.set_defaults(run=run_config_check)
    diff = kinds.add_parser(
        "diff",
        help="show in what the running configuration differs from the files",
        description=_DIFF,
        formatter_class=raw,
    )
    diff.add_argument("--json", action="store_true", help="print the difference as a JSON merge patch (RFC 7396)")
    diff.add_argument("--instance", metavar="NAME", default=DEFAULT_NAME, help="which server (default: %(default)s)")
    diff.add_argument(
        "path", type=Path, nargs="?", metavar="PATH", help="the main file (default: the one the server read)"
    )
    diff.set_defaults(run=run_config_diff)
    show = kinds.add_parser(
        "show", help="show what all files of a configuration make together", description=_SHOW, formatter_class=raw
    )
    show.set_defaults(run=run_config_show)
    for command in (check, show):
        command.add_argument(
            "path",
            type=Path,
            nargs="?",
            default=DEFAULT_CONFIG,
            metavar="PATH",
            help="the main file (default %(default)s)",
        )


def with_api(work: Callable[[Path, argparse.Namespace], int]) -> Callable[[argparse.Namespace], int]:
    """Return a command that reaches the control API of the instance by its own socket."""
    return lambda options: work(Instance(options.instance).api_socket, options)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit status."""
    options = build_parser().parse_args(arguments)
    try:
        return int(options.run(options))
    except BadUsage as error:
        print(f"mist: {error}", file=sys.stderr)
        return 2
    except MistError as error:
        print(f"mist: {error}", file=sys.stderr)
        return 1
    except PermissionError as error:
        print(f"mist: {error.filename}: not allowed; run this as the server's user, or as root", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # the reader of our output, such as `head`, has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0


def run_serve(options: argparse.Namespace) -> int:
    """Serve."""
    from mist.runtime.gently import gently
    from mist.runtime.log import parse_level
    from mist.runtime.upgrade import INHERITANCE, try_out

    try:
        debug = None if options.log_level is None else parse_level(options.log_level)
    except ValueError as error:
        print(f"mist: --log-level: {error}", file=sys.stderr)
        return 2
    path = options.config or DEFAULT_CONFIG
    if options.config is not None and not path.exists():
        print(
            f"mist: there is no configuration file {path}; make it, or leave --config out for defaults", file=sys.stderr
        )
        return 2

    def load() -> Program:
        from mist.app import make_program

        return make_program(path, explicit=options.config is not None, demo=options.demo, debug=debug)

    def load_all() -> Program:
        importlib.import_module("mist.runtime.spawner")

        program = load()
        program.preload()
        return program

    instance = Instance(options.instance)
    if options.trial:
        return try_out(instance, load())
    program = gently(load_all) if INHERITANCE in os.environ else load()
    from mist.runtime.spawner import Spawner

    return Spawner(instance, program).run()


def run_config_check(options: argparse.Namespace) -> int:
    """Check a configuration."""
    from mist.app import make_program
    from mist.controller.config import check
    from mist.controller.config_files import read_parts

    program = make_program(options.path, explicit=True, demo=False, debug=None)
    try:
        config = check(read_parts(options.path, must_exist=True), program.capabilities(), sys.maxsize)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    for line in config.warnings:
        print(f"warning: {line}", file=sys.stderr)
    return 0


def run_config_show(options: argparse.Namespace) -> int:
    """Show a configuration and where each part is from."""
    from mist.controller.config_files import read_parts, shown

    try:
        print(shown(read_parts(options.path, must_exist=True)), end="")
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    return 0


def run_config_diff(options: argparse.Namespace) -> int:
    """Compare what runs with the files."""
    from mist.commands.operate_link import call
    from mist.controller.config_diff import lines, said
    from mist.controller.config_files import difference, read_parts
    from mist.runtime.spawner_link import ask_blocking

    instance = Instance(options.instance)
    path = options.path or Path(ask_blocking(instance, {"do": "status"})["status"]["config_path"])
    try:
        parts = read_parts(path)
        files = said(parts)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return 2
    runs = call(instance.api_socket, {"config_backup": True}).get("config_backup") or {}
    if options.json:
        print(json.dumps(difference(files, runs), indent=2, ensure_ascii=False))
    else:
        for line in lines(parts, files, runs):
            print(line)
    return 0 if files == runs else 1


def run_stop(options: argparse.Namespace) -> int:
    """Stop a server and wait until it is gone."""
    from mist.runtime.process import is_alive
    from mist.runtime.spawner_link import ask_blocking

    instance = Instance(options.instance)
    pid = int(ask_blocking(instance, {"do": "shutdown", "reason": "mist stop"})["pid"])
    until = time.monotonic() + 6
    while time.monotonic() < until:
        if not is_alive(pid):
            return 0
        time.sleep(0.05)
    raise MistError(f"process {pid} is still running")


def run_reload(options: argparse.Namespace) -> int:
    """Let a server read its configuration again, and go over to the installed code."""
    from mist.runtime.spawner_link import ask_blocking

    answer = ask_blocking(Instance(options.instance), {"do": "reload", "force": options.force}, RELOAD_SECONDS)
    if answer.get("notes"):
        print(answer["notes"])
    return 0


def run_nuke(options: argparse.Namespace) -> int:
    """End a stream by force."""
    from mist.runtime.spawner_link import ask_blocking
    from mist.stream.names import sanitise
    from mist.stream.publisher import remove_stream

    instance, stream = Instance(options.instance), sanitise(options.stream)
    if not stream:
        raise BadUsage(f'"{options.stream}" is not the name of a stream')
    if instance.spawner_socket.exists():
        found = ask_blocking(instance, {"do": "nuke_stream", "stream": stream}).get("found", True)
    else:
        found = remove_stream(instance.name, stream)
    if not found:
        raise NotFound(f"the stream {stream} does not run, and nothing of it is left")
    return 0


def run_cleanup(options: argparse.Namespace) -> int:
    """Remove what dead servers left."""
    from mist.runtime.cleanup import clean_up, known_instances
    from mist.runtime.instance import AlreadyRunning

    for instance in [Instance(options.instance)] if options.instance else known_instances():
        try:
            removed = clean_up(instance)
        except AlreadyRunning:
            if options.instance:
                raise
            continue
        for name in removed:
            print(name)
    return 0


def run_record(options: argparse.Namespace) -> int:
    """Record a stream of a running server."""
    from mist.runtime.spawner_link import REQUEST_SECONDS, ask_blocking

    instance = Instance(options.instance)

    def start(stream: str) -> None:
        ask_blocking(instance, {"do": "start", "stream": stream}, REQUEST_SECONDS)

    return record.record(options.stream, options.target, instance.name, str(instance.bells), start)


def run_status(options: argparse.Namespace) -> int:
    """Show a server's state."""
    from mist.runtime.spawner_link import ask_blocking
    from mist.runtime.status import collect, show

    instance = Instance(options.instance)
    report = collect(instance, ask_blocking(instance, {"do": "status"})["status"])
    print(json.dumps(report, indent=2) if options.json else show(report))
    return 0

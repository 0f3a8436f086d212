"""`mist trigger test`: fires a trigger at the handlers that are configured for it."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mist.commands import BadUsage
from mist.commands.operate_link import call
from mist.commands.operate_show import table

DESCRIPTION = """\
Fires a trigger at the handlers that a running server has for it, waits for each and shows what it answered.

  mist trigger test PLAY_REWRITE live
  mist trigger test STREAM_PUSH live --payload "$(printf 'live\\n127.0.0.1\\nRTMP\\nrtmp://host/app/live')"

Without --payload its first line is the stream's name and the others are empty. The handlers cannot tell it from an event.

Exit status: 0 when all answered; 1 when one failed or none is configured; 2 when no trigger has that name.
"""


def run_test(path: Path, options: argparse.Namespace) -> int:
    """Fire a trigger; the status is 1 when a handler failed or there is none."""
    request: dict[str, Any] = {"name": options.trigger, "stream": options.stream}
    if options.payload is not None:
        request["payload"] = options.payload
    results = call(path, {"trigger_test": request, "minimal": True}).get("trigger_test", BadUsage)
    if results is BadUsage:
        raise BadUsage(f"no trigger is called {options.trigger}, or the server did not answer; see its log")
    if options.json:
        print(json.dumps(results or [], indent=1))
    elif not results:
        print(f"No handler is configured for {options.trigger}" + (f" of {options.stream}." if options.stream else "."))
    else:
        rows = [[one["handler"], "yes" if one["blocking"] else "no", one["ms"], _answer(one)] for one in results]
        print(table(("handler", "blocking", "ms", "answer"), rows))
    return 0 if results and not any(one["error"] for one in results) else 1


def _answer(one: dict[str, Any]) -> str:
    return f"failed: {one['error']}" if one["error"] else json.dumps(one["answer"])


def add_commands(
    commands: Any, run: Callable[[Callable[[Path, argparse.Namespace], int]], Callable[[argparse.Namespace], int]]
) -> list[argparse.ArgumentParser]:
    """Add `trigger` to the command line. run: makes of a command here what the parser calls."""
    raw = argparse.RawDescriptionHelpFormatter
    trigger = commands.add_parser(
        "trigger", help="try handlers of triggers", description=DESCRIPTION, formatter_class=raw
    )
    actions = trigger.add_subparsers(dest="action", metavar="ACTION", required=True)
    test = actions.add_parser(
        "test", help="fire a trigger at its handlers", description=DESCRIPTION, formatter_class=raw
    )
    test.add_argument("trigger", metavar="NAME", help="of the trigger")
    test.add_argument("stream", metavar="STREAM", nargs="?", default="", help="whose handlers are called")
    test.add_argument("--payload", metavar="TEXT", help="what the handlers are told")
    test.add_argument("--json", action="store_true", help="print JSON")
    test.set_defaults(run=run(run_test))
    return [test]

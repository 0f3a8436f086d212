"""docs/api.md, from the declarations: `python -m mist.controller.reference > docs/api.md`."""

from __future__ import annotations

import sys
from typing import Any

from mist.controller.calls import CALLS
from mist.controller.declaration import Call, always, in_words

HEAD = """\
# Control API

Made by `python -m mist.controller.reference` from the declarations of the calls.

A command is a JSON object with one member for each call. It is sent to `http://HOST:4242/api2` as a body of type
`application/json`, or as the variable `command` of a query or a form. All calls of a command run, in the order of
this page; calls that are not known are passed over. The reply is an object with a member for each call that has
something to say, `"LTS": 1`, and `authorize`.

* `/api` also adds `config`, `log` and `streams` to every reply; with `"minimal": 1`, and on `/api2`, only what was
  asked for is there.
* Empty lists and objects are `null`. Keys are sorted. With the variable `jsonp` or `callback` the reply is a call of
  that function.
* `"logout": 1` ends the login of the connection after the command.
* `authorize.status` is `OK`; `CHALL` (log in: `challenge` is there); `NOACC` (there is no account yet; calls from
  this machine run all the same); `ACC_MADE` (the first account was made by `{"authorize": {"new_username",
  "new_password"}}`). `authorize.denied` names calls that the account may not make.
* A call that is given something unacceptable does nothing; the log says why.
* The login of older clients: `password` is the MD5 of the password's MD5 and the challenge, all in lower-case
  hexadecimal: `{"authorize": {"username": "NAME", "password": "…"}}`. Other ways are in
  [configuration](configuration.md#account-users-of-the-control-api).
* The same commands may be sent as datagrams to port 4242 of the loopback interface; `mist api` sends them from a
  shell.
* The websocket `/ws?logs=N&accs=N&streams=1` sends `["log", […]]`, `["access", […]]` and `["stream", […]]` as they
  come, after the last N lines or those `since:TIME`; its first message is `["auth", true]`, or `["auth", false]`
  until `["auth", {"username", "password"}]` was sent.

In this page `?` marks what may be absent, and `…` repetition.

| call | permission | request | reply |
|---|---|---|---|
"""


def _cell(text: str) -> str:
    return text.replace("|", "\\|")


def _permission(call: Call) -> str:
    if call.to_change is None or call.to_change == call.needs or call.changes is always:
        return str(call.needs)
    return f"{call.needs}; to change {call.to_change}"


def _reply(reply: Any) -> str:
    return "<br>".join(f"`{name}`: `{in_words(kind)}`" for name, kind in (reply or {}).items())


def reference() -> str:
    """Return the text of docs/api.md."""
    shown = [call for call in CALLS if not call.every or call.reply]
    rows = [
        f"| [`{call.name}`](#{call.name}) | {_permission(call)} | {_cell(f'`{in_words(call.request)}`')} | {_cell(_reply(call.reply))} |"
        for call in shown
    ]
    told = [f"### `{call.name}`\n\n{call.told}\n" for call in shown]
    return HEAD + "\n".join(rows) + "\n\n## What each call does\n\n" + "\n".join(told)


if __name__ == "__main__":
    sys.stdout.write(reference())

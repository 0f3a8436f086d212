"""Which handlers a trigger has, with the variables in their settings replaced."""

from __future__ import annotations

from typing import Any

from mist.runtime.trigger_link import handlers_of, tags_of

HANDLER = {
    "handler": "http://$host/$stream", "params": "${limit}0", "default": "$home", "secret": "$host", "streams": ["$host"]
}  # fmt: skip
VARIABLES = {"host": {"value": "$name.example"}, "name": {"value": "a"}, "limit": {"value": "10"}, "home": {}}


def snapshot(**handler: Any) -> dict[str, Any]:
    return {"config": {"triggers": {"LIVE_BANDWIDTH": [{**HANDLER, **handler}]}}, "variables": VARIABLES}


def test_configured_variables_are_replaced_and_no_others() -> None:
    [found] = handlers_of(snapshot(streams=[]), "LIVE_BANDWIDTH", "live")
    assert (found.target, found.argument, found.default) == ("http://a.example/$stream", "100", "")


def test_secrets_and_filters_stay() -> None:
    assert handlers_of(snapshot(), "LIVE_BANDWIDTH", "live") == []
    assert handlers_of(snapshot(streams=[]), "LIVE_BANDWIDTH", "live")[0].secret == "$host"


def test_long_texts_without_variables_stay() -> None:
    [found] = handlers_of(snapshot(streams=[], default="x" * 10_000), "LIVE_BANDWIDTH", "live")
    assert found.default == "x" * 10_000


def test_a_handler_without_default_has_none() -> None:
    [found] = handlers_of(snapshot(streams=[], default=None), "LIVE_BANDWIDTH", "live")
    assert found.default is None


def test_tags_are_those_that_the_stream_has_now() -> None:
    streams = {"live": {"tags": ["old"]}}
    for given, expected in (({}, ["old"]), ({"live": ["new"]}, ["new"]), ({"live": []}, [])):
        assert tags_of({"streams": streams, "stream_tags": given}, "live") == expected

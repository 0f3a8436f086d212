"""Triggers: whom they concern, and what answers mean."""

from __future__ import annotations

import pytest

from mist.stream.triggers import TRIGGERS, Handler, concerns, decide, handlers, is_yes, replace_value


@pytest.mark.parametrize(
    ("patterns", "stream", "tags", "expected"),
    [
        ([], "live", [], True),
        (["live"], "live", [], True),
        (["live"], "live+one", [], True),
        (["live"], "living", [], False),
        (["live+"], "live+one", [], True),
        (["live+"], "live", [], False),
        (["live+one"], "live+two", [], False),
        (["#news"], "live", ["news"], True),
        (["#news"], "live", [], False),
        (["!live"], "live", [], False),
        (["!live"], "other", [], True),
        (["!#news"], "live", ["news"], False),
        (["live", "!live+one"], "live+one", [], False),
        (["!live+one", "live"], "live+one", [], True),
        (["live", "!other"], "third", [], False),
        (["live"], "", [], True),
    ],
)
def test_the_filter(patterns: list[str], stream: str, tags: list[str], expected: bool) -> None:
    assert concerns(patterns, stream, tags) is expected


@pytest.mark.parametrize("answer", ["1", "yes", "Yes please", " tr ue\n", "TRUE", "continue", "10"])
def test_answers_that_allow(answer: str) -> None:
    assert is_yes(answer)


@pytest.mark.parametrize("answer", ["", "0", "no", "false", "\n", "tru", "y"])
def test_answers_that_deny(answer: str) -> None:
    assert not is_yes(answer)


def test_handlers_in_both_forms_and_order() -> None:
    config = {
        "triggers": {
            "USER_NEW": [
                {"handler": "http://a/", "sync": True, "streams": ["live"], "params": "5", "default": "false"},
                ["/bin/b", False, ["other"]],
                ["/bin/c"],
                {"handler": "/bin/d", "attempts": 2, "timeout": 1.5, "secret": "s"},
                None,
            ]
        }
    }
    assert handlers(config, "USER_NEW", "live") == [
        Handler("http://a/", True, ("live",), "5", "false"),
        Handler("/bin/c"),
        Handler("/bin/d", attempts=2, timeout_s=1.5, secret="s"),
    ]
    assert handlers(config, "USER_END", "live") == []
    assert handlers({}, "USER_NEW", "live") == []


def test_triggers_without_a_stream_are_not_filtered() -> None:
    config = {"triggers": {"PUSH_REWRITE": [{"handler": "/a", "sync": True, "streams": ["other"]}]}}
    assert len(handlers(config, "PUSH_REWRITE", "live")) == 1


def test_decisions() -> None:
    blocking, beside = Handler("/a", True), Handler("/b")
    assert decide([])
    assert decide([(blocking, "yes"), (beside, None)])
    assert not decide([(blocking, "no"), (beside, None)])
    assert not decide([(blocking, ""), (beside, None)])
    assert decide([(blocking, None)])
    assert not decide([(Handler("/a", True, default="false"), None)])
    assert not decide([(blocking, "1"), (Handler("/b", default="0"), None)])


def test_values() -> None:
    blocking = Handler("/a", True)
    assert replace_value("live", []) == "live"
    assert replace_value("live", [(blocking, "one"), (blocking, "two \n")]) == "two "
    assert replace_value("live", [(Handler("/b"), None)]) == "live"
    assert replace_value("live", [(blocking, None)]) == "live"  # never the text of a yes
    assert replace_value("live", [(Handler("/a", True, default="other"), None)]) == "other"
    assert replace_value("live", [(blocking, "")]) == ""


def test_documents_say_what_is_needed() -> None:
    for name, trigger in TRIGGERS.items():
        document = trigger.document()
        assert name.isupper() and document["when"] and document["payload"]
        assert document["response"] in ("always", "when-blocking", "ignored")
    assert "argument" in TRIGGERS["LIVE_BANDWIDTH"].document()

"""The configuration: defaults, what is refused and how it is said, migration, saving."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from mist.controller.config import Config, load, parse, save_document
from mist.errors import ConfigError
from tests.support.fake_control import CAPABILITIES


def refused(document: dict[str, Any]) -> ConfigError:
    with pytest.raises(ConfigError) as caught:
        parse(document, CAPABILITIES)
    return caught.value


def test_absent_file_is_defaults(tmp_path: Path) -> None:
    """No file: HTTP, RTMP and DTSC, nothing configured, nothing to save."""
    config = load(tmp_path / "config.json", CAPABILITIES)
    assert config.document() == {}
    snapshot = config.snapshot()
    ports = {entry["connector"]: entry["port"] for entry in snapshot["config"]["protocols"]}
    assert ports == {"HTTP": 8080, "RTMP": 1935, "DTSC": 4200}
    assert (
        snapshot["config"]["controller"].items() >= {"interface": "0.0.0.0", "port": 4242, "username": "root"}.items()
    )
    assert snapshot["config"]["memory"]["packet_bytes"] == 32 << 20
    assert snapshot["streams"] == {}
    json.dumps(snapshot)


def test_missing_file_that_was_asked_for(tmp_path: Path) -> None:
    """A file named by the operator must be there."""
    with pytest.raises(ConfigError, match=r"nothere\.json: no such file"):
        load(tmp_path / "nothere.json", must_exist=True)


def test_stream_defaults() -> None:
    """A stream in the snapshot has every default; the document has what was given."""
    config = parse({"streams": {"live": {"source": "push://", "DVR": "70000"}}}, CAPABILITIES)
    stream = config.snapshot()["streams"]["live"]
    assert (stream["name"], stream["DVR"], stream["segmentsize"], stream["publisher"]) == (
        "live",
        70_000,
        1900,
        "refuse",
    )
    assert (stream["inputtimeout"], stream["always_on"], stream["processes"]) == (30, False, [])
    assert config.document() == {"streams": {"live": {"source": "push://", "DVR": 70_000}}}


def test_live_window_has_a_minimum() -> None:
    """Buffers under a second become a second."""
    assert parse({"streams": {"a": {"DVR": 5}}}).snapshot()["streams"]["a"]["DVR"] == 1000


def test_notes_pass_everywhere() -> None:
    """Keys that begin with x- are kept and mean nothing."""
    document = {
        "x-a": 1,
        "config": {"x-b": {"c": 2}, "protocols": [{"connector": "HTTP", "x-d": []}]},
        "streams": {"s": {"source": "push://", "x-LSP-notes": "hello"}},
    }
    assert parse(document, CAPABILITIES).document() == document


@pytest.mark.parametrize(
    ("document", "path", "value", "text"),
    [
        ({"steams": {}}, "steams", {}, 'unknown key; did you mean "streams"?'),
        ({"config": {"protcols": []}}, "config.protcols", [], 'did you mean "protocols"?'),
        ({"config": {"memory": {"packet_byte": 1}}}, "config.memory.packet_byte", 1, 'did you mean "packet_bytes"?'),
        ({"config": {"controller": {"port": "4x"}}}, "config.controller.port", "4x", "expected a whole number"),
        ({"config": {"controller": {"port": 70000}}}, "config.controller.port", 70000, "less than or equal to 65535"),
        ({"config": {"protocols": {}}}, "config.protocols", {}, "expected a list"),
        ({"config": {"protocols": [3]}}, "config.protocols[0]", 3, "expected an object"),
        (
            {"config": {"protocols": [{"connector": "HTTP", "merge_ms": "x"}]}},
            "config.protocols[0].merge_ms",
            "x",
            "'auto'",
        ),
        (
            {"config": {"protocols": [{"connector": "RTMP", "maxkbps": 9001}]}},
            "config.protocols[0].maxkbps",
            9001,
            "0 to 9000",
        ),
        ({"streams": {"a": {"always_on": "maybe"}}}, "streams.a.always_on", "maybe", "expected true or false"),
        ({"streams": {"a": {"pass": []}}}, "streams.a.pass", [], "expected a text"),
        ({"streams": {"a": {"publisher": "both"}}}, "streams.a.publisher", "both", "'refuse' or 'takeover'"),
        ({"streams": []}, "streams", [], "an object"),
        ({"account": {"u": {"password": "clear"}}}, "account.u.password", "clear", "32 hexadecimal digits"),
    ],
)
def test_refused(document: dict[str, Any], path: str, value: object, text: str) -> None:
    """The error has the key, the value and the expectation; its text is one line with all three."""
    error = refused(document)
    assert (error.path, error.value) == (path, value)
    assert text in str(error)
    assert str(error).startswith(f"{path}: ")
    assert "\n" not in str(error)


@pytest.mark.parametrize(
    "entry",
    [
        5, None, "no url", [], [[]], [{"kty": "OKP", "crv": "Ed25519", "x": "AA"}], ["https://keys.example/set", 5],
        [{"kty": "oct", "k": "se cret"}], [{"kty": "oct", "k": "c2VjcmV0"}, {"stream": 7}], ["https://keys.example/set", {}, {}],
    ],
)  # fmt: skip
def test_what_can_check_no_token_is_refused(entry: object) -> None:
    """Each call about keys, and each bearer, would fail of it. A key with a mistake stays out of the log."""
    error = refused({"jwks": ["https://keys.example/set", entry]})
    assert error.path == "jwks[1]"
    assert str(error).startswith("jwks[1]: expected a key or the URL of keys; ")
    assert "cret" not in str(error) and "c2Vj" not in str(error)


def test_keys_of_all_forms() -> None:
    key = {"kty": "oct", "k": "c2VjcmV0"}
    given = [
        key,
        [{**key, "kty": "octets"}],
        [key, {"admin": True}],
        "https://a.example/1",
        ["https://a.example/2", {}],
    ]
    assert parse({"jwks": given}).document()["jwks"] == [
        [key], [key], [key, {"admin": True}], "https://a.example/1", ["https://a.example/2", {}],
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("document", "path", "text"),
    [
        ({"config": {"protocols": [{"connector": "RTMP", "prot": 1}]}}, "config.protocols[0].prot", 'mean "port"?'),
        ({"streams": {"a": {"DVRR": 3}}}, "streams.a.DVRR", 'unknown option; did you mean "DVR"?'),
        ({"auto_push": {"id": {"stream": "a", "flub": []}}}, "auto_push.id.flub", "unknown key"),
        (
            {"config": {"triggers": {"USER_NEW": [{"handler": "/x", "sink": 1}]}}},
            "config.triggers.USER_NEW[0].sink",
            "unknown key; expected one of attempts",
        ),
    ],
)
def test_what_nobody_knows_is_kept(document: dict[str, Any], path: str, text: str) -> None:
    """Clients of the API add keys of their own to streams, protocols, pushes and handlers: kept, and warned of."""
    config = parse(document, CAPABILITIES)
    assert config.document() == document
    (warning,) = config.warnings
    assert warning.startswith(f"{path}: ")
    assert text in warning


def test_a_change_makes_what_the_whole_makes() -> None:
    """A changed configuration has the documents that parsing all of it gives, and shares what did not change."""
    first = parse(
        {
            "x-note": 1,
            "tags": ["a"],
            "config": {"debug": 5},
            "streams": {f"s{number}": {"source": "push://"} for number in range(600)},
        },
        CAPABILITIES,
    )
    document = first.document()
    document["streams"]["new"] = {"source": "/x", "DVR": "3000", "flub": 1}
    document["streams"]["s3"] = {"source": "demo:"}
    del document["streams"]["s4"], document["tags"]
    document["bandwidth"] = {"limit": 5}
    document["x-other"] = []
    second = first.changed(document, ("streams", "tags", "bandwidth", "x-other"), CAPABILITIES)
    assert len(second.warnings) == 1
    whole = parse(document, CAPABILITIES)
    assert second.document() == whole.document()
    assert second.snapshot() == whole.snapshot()
    assert second.document()["streams"]["s5"] is first.document()["streams"]["s5"]
    assert second.model.streams["s5"] is first.model.streams["s5"]
    with pytest.raises(ConfigError, match=r"streams\.s599\.DVR: expected a whole number"):
        first.changed({"streams": {**document["streams"], "s599": {"DVR": "x"}}}, ("streams",), CAPABILITIES)


def test_mistakes_far_down_are_found() -> None:
    """Many streams are looked at piece by piece: a mistake anywhere names its key."""
    streams: dict[str, Any] = {f"s{number}": {"source": "push://"} for number in range(1000)}
    streams["s700"] = {"DVR": []}
    streams["s10"] = {"processes": 5}
    error = refused({"streams": streams})
    assert [line.partition(":")[0] for line in str(error).splitlines()] == ["streams.s10.processes", "streams.s700.DVR"]


def test_all_problems_are_told(tmp_path: Path) -> None:
    """One line for each problem, each beginning with the file's name; long values are cut."""
    path = tmp_path / "config.json"
    path.write_text(json.dumps({"flub": "x" * 500, "config": {"debugg": 1}}))
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = str(caught.value).splitlines()
    assert len(lines) == 2
    assert all(line.startswith(f"{path}: ") and len(line) < 400 for line in lines)


def test_syntax_error_has_line_and_column(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_text('{"config":\n  {"debug": 4,}}')
    with pytest.raises(ConfigError, match=r"config\.json: line 2 column 1\d: "):
        load(path)


@pytest.mark.parametrize("text", ["[1]", "3", '"x"', "[" * 100_000, '{"a":' * 500 + "1" + "}" * 500, b"\xff\xfe{}"])
def test_not_an_object(text: str | bytes, tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    with pytest.raises(ConfigError, match=r"config\.json: "):
        load(path)


def test_unknown_connector_and_source_are_no_errors() -> None:
    """A configuration of a fuller server loads; what is not installed is shown as that by the API."""
    parse({"config": {"protocols": [{"connector": "WebRTC", "jitterlog": True}]}}, CAPABILITIES)
    parse({"streams": {"cam": {"source": "v4l2:///dev/video0", "format": "YUYV-640x480"}}}, CAPABILITIES)


def test_migration() -> None:
    """Old forms become today's."""
    config = parse(
        {
            "config": {
                "controller": {"prometheus": "metrics", "interface": None},
                "protocols": [{"connector": "HSS"}, {"connector": "DASH"}, {"connector": "SRT", "online": 1}, None],
                "sessionViewerMode": 0,
                "iid": "abc",
                "triggers": {"USER_NEW": [["/bin/x", True, ["live"]]]},
                "trustedproxy": "10.0.0.1 10.0.0.2",
            },
            "streams": {"old": {"channel": {"URL": "push://"}, "preset": {}, "online": 1, "error": "x"}},
            "variables": [["name", "target", 5, 6, "value", 7], ["short"]],
            "autopushes": [["live", "rtmp://x/y/z", 0, 0]],
            "auto_push": None,
            "log": [],
        }
    )
    assert config.document() == {
        "config": {
            "controller": {},
            "prometheus": "metrics",
            "protocols": [{"connector": "SubRip"}, {"connector": "CMAF"}],
            "triggers": {"USER_NEW": [{"handler": "/bin/x", "sync": True, "streams": ["live"]}]},
            "trustedproxy": ["10.0.0.1", "10.0.0.2"],
        },
        "streams": {"old": {"source": "push://"}},
        "variables": {
            "name": {"target": "target", "interval": 5.0, "lastunix": 6.0, "value": "value", "waitTime": 7.0}
        },
        "autopushes": [["live", "rtmp://x/y/z", 0, 0]],
        "auto_push": {next(iter(config.document()["auto_push"])): {"stream": "live", "target": "rtmp://x/y/z"}},
    }
    assert config.snapshot()["config"]["sessionViewerMode"] == 14


def test_built_in_streams_give_way() -> None:
    """A stream of the configuration comes before a built-in one of the same name."""
    config = parse({"streams": {"live": {"source": "push://x"}}}).with_streams(
        {"live": {"source": "push://"}, "demo": {"source": "demo:"}}
    )
    assert {name: stream["source"] for name, stream in config.snapshot()["streams"].items()} == {
        "live": "push://x",
        "demo": "demo:",
    }


def test_save_and_load_again(tmp_path: Path) -> None:
    """What is saved loads as the same; the file ends with a newline and keeps its mode; nothing else is left behind."""
    path = tmp_path / "sub" / "config.json"
    config = parse({"streams": {"live": {"source": "push://", "tags": ["ä"]}}, "ui_settings": {"a": None}})
    config.save(path)
    path.chmod(0o600)
    config.save(path)
    assert load(path).document() == config.document()
    assert path.read_text().endswith("}\n")
    assert path.stat().st_mode & 0o777 == 0o600
    assert os.listdir(path.parent) == ["config.json"]


def test_save_keeps_links(tmp_path: Path) -> None:
    """A configuration that is a symbolic link stays one."""
    (tmp_path / "real.json").write_text("{}")
    link = tmp_path / "config.json"
    link.symlink_to("real.json")
    parse({"tags": ["a"]}).save(link)
    assert link.is_symlink()
    assert json.loads((tmp_path / "real.json").read_text()) == {"tags": ["a"]}


def test_split_files(tmp_path: Path) -> None:
    """Split sections come from their files and go back to them, beside what else is in there."""
    path, split = tmp_path / "config.json", tmp_path / "s.json"
    path.write_text(json.dumps({"config_split": {"streams": "s.json"}, "streams": {"a": {}}, "tags": ["t"]}))
    split.write_text(json.dumps({"streams": {"b": {"source": "push://"}}, "foreign": 1}))
    config: Config = load(path)
    assert list(config.document()["streams"]) == ["b"]
    document = config.document()
    document["streams"]["c"] = {"source": "push://"}
    save_document(document, path)
    assert json.loads(split.read_text()) == {
        "streams": {"b": {"source": "push://"}, "c": {"source": "push://"}},
        "foreign": 1,
    }
    assert "streams" not in json.loads(path.read_text())
    assert sorted(load(path).document()["streams"]) == ["b", "c"]


def test_unwritable_split_file_does_not_stop_the_main_one(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    (tmp_path / "folder").mkdir()
    with pytest.raises((OSError, ConfigError)):
        save_document({"config_split": {"streams": "folder"}, "streams": {}, "tags": ["x"]}, path)

"""Test configurations of several files: how they are put together, and where each change goes."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from mist import cli
from mist.controller.config import check, load, save_document
from mist.controller.config_files import difference, merge, read_parts, shown, without_comments
from mist.errors import ConfigError

Write = Callable[[str, str], Path]
SHIPPED = Path(__file__).resolve().parents[3] / "packaging" / "etc" / "config.json"


@pytest.fixture
def write(tmp_path: Path) -> Write:
    """Write a file of the configuration."""

    def write(name: str, text: str) -> Path:
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
        return path

    return write


def _read(path: Path) -> Any:
    return json.loads(path.read_text())


def _streams(path: Path) -> Mapping[str, Any]:
    return load(path).document()["streams"]  # type: ignore[no-any-return]


def test_comments_become_blanks() -> None:
    """Lines and columns stay; what is inside a string is no comment."""
    text = '{"a": "push://b", // c "d"\n "e": /* f\n g */ 1}'
    plain, found = without_comments(text)
    assert found
    assert json.loads(plain) == {"a": "push://b", "e": 1}
    assert [len(line) for line in plain.split("\n")] == [len(line) for line in text.split("\n")]
    assert without_comments('{"a": "// \\" /* b */"}') == ('{"a": "// \\" /* b */"}', False)
    assert without_comments("1 /* open")[0].strip() == "1"


def test_a_patch_makes_what_it_was_made_for() -> None:
    base = {"a": {"b": 1, "c": [1]}, "d": 2, "ui_settings": {"x": None}}
    wanted = {"a": {"c": [2], "e": {"f": 1}}, "ui_settings": {"x": None, "y": 1}}
    assert difference(base, wanted) == {
        "a": {"b": None, "c": [2], "e": {"f": 1}},
        "d": None,
        "ui_settings": wanted["ui_settings"],
    }
    assert merge(base, difference(base, wanted)) == wanted


def test_parts_are_read_in_the_order_of_their_names(write: Write) -> None:
    path = write("config.json", '{"config": {"debug": 1, "serverid": "main"}, "streams": {"a": {"source": "push://"}}}')
    write("conf.d/20.json", '{"config": {"debug": 3}, "streams": {"a": {"DVR": 9000}, "b": {}}}')
    write("conf.d/10.json", '{"config": {"debug": 2}, "tags": ["x"]} // comment')
    write("conf.d/ignored.txt", "{")
    write("conf.d/.hidden.json", "{")
    document = load(path).document()
    assert document["config"] == {"debug": 3, "serverid": "main"}
    assert document["streams"] == {"a": {"source": "push://", "DVR": 9000}, "b": {}}
    assert document["tags"] == ["x"]


def test_mistakes_name_the_file_they_are_in(write: Write) -> None:
    path = write("config.json", '{"config": {"controller": {"port": 99999}, "debug": 4}}')
    part = write("conf.d/10.json", '{"config": {"debug": "much"}, "streams": {"a.b": {"DVR": []}}}')
    with pytest.raises(ConfigError) as caught:
        load(path)
    assert str(caught.value).splitlines() == [
        f"{path}: config.controller.port: expected a value less than or equal to 65535 (it is 99999)",
        f'{part}: config.debug: expected a whole number (it is "much")',
        f"{part}: streams.a.b.DVR: expected a whole number (it is [])",
    ]
    part.write_text('{"config_split": {}}')
    with pytest.raises(ConfigError, match=f"^{part}: config_split: only "):
        load(path)
    for file in (part, path):
        file.write_text("\n")
        with pytest.raises(ConfigError, match=f"^{file}: the file is empty"):
            load(path)


def test_a_named_pipe_is_not_waited_for(write: Write) -> None:
    """A pipe without a name is read: `mist config check /dev/stdin`."""
    main = write("config.json", "{}")
    main.with_name("conf.d").mkdir()
    os.mkfifo(main.with_name("conf.d") / "10.json")
    with pytest.raises(ConfigError, match=r"10\.json: a named pipe"):
        read_parts(main)
    reader, writer = os.pipe()
    os.write(writer, b'{"tags": ["a"]}')
    os.close(writer)
    assert load(Path(f"/dev/fd/{reader}")).document() == {"tags": ["a"]}
    os.close(reader)


def test_each_part_keeps_what_is_its_own(write: Write) -> None:
    """A change goes to the file the value is from, a new option to that of its stream, a new stream to the main file."""
    path = write("config.json", '{"streams": {"a": {"source": "push://"}}}')
    part = write("conf.d/10.json", '{"streams": {"b": {"source": "push://"}}}')
    other = write("conf.d/20.json", '{"tags": ["t"]}')
    before = other.stat()
    document = load(path).document()
    document["streams"]["b"] = {"source": "push://x", "DVR": 9000}
    document["streams"]["c"] = {"source": "push://"}
    save_document(document, path)
    assert _read(part) == {"streams": {"b": {"source": "push://x", "DVR": 9000}}}
    assert _read(path) == {"streams": {"a": {"source": "push://"}, "c": {"source": "push://"}}}
    assert (other.stat().st_mtime_ns, other.stat().st_ino) == (before.st_mtime_ns, before.st_ino)
    del document["streams"]["b"]
    save_document(document, path)
    assert sorted(_streams(path)) == ["a", "c"]


def test_what_may_not_be_written_goes_to_the_file_of_changes(write: Write, tmp_path: Path) -> None:
    """Files with comments or without permission stay as they are, also for what is removed from them."""
    text = '// by hand\n{"streams": {"a": {"source": "push://"}, "b": {"DVR": 9000}}, "config_changes": "changes.json"}'
    path = write("config.json", text)
    part = write("conf.d/10.json", '{"tags": ["t"]}')
    part.chmod(0o444)
    document = load(path).document()
    del document["streams"]["a"]
    document["streams"]["b"]["DVR"] = 8000
    document["streams"]["c"] = {"source": "push://"}
    document["tags"] = ["u"]
    save_document(document, path)
    assert path.read_text() == text
    assert _read(part) == {"tags": ["t"]}
    changes = tmp_path / "changes.json"
    assert _read(changes) == {
        "streams": {"a": None, "b": {"DVR": 8000}, "c": {"source": "push://"}},
        "tags": ["u"],
    }
    assert load(path).document() == document
    path.write_text(text.replace("9000", "7000"))
    document = load(path).document()
    document["streams"]["b"]["DVR"] = 7000
    save_document(document, path)
    assert "b" not in _read(changes)["streams"], "an operator's later change is not overruled for nothing"


def test_without_a_file_of_changes_the_key_is_told(write: Write) -> None:
    text = '// by hand\n{"streams": {"a": {"DVR": 9000}}}'
    path = write("config.json", text)
    with pytest.raises(ConfigError, match=f"^{path}: streams.a.DVR: may not be written"):
        save_document({"streams": {"a": {"DVR": 8000}}}, path)
    assert path.read_text() == text


def test_section_files_that_may_not_be_written(write: Write, tmp_path: Path) -> None:
    path = write("config.json", '{"config_split": {"streams": "s.json"}, "config_changes": "c.json"}')
    section = write("s.json", '/* mine */ {"streams": {"a": {"source": "push://"}}, "foreign": 1}')
    document = load(path).document()
    document["streams"]["b"] = {"source": "push://"}
    save_document(document, path)
    assert section.read_text().startswith("/* mine */")
    assert _read(tmp_path / "c.json") == {"streams": {"b": {"source": "push://"}}}
    assert load(path).document() == document


def test_a_full_disk_keeps_the_old_file(write: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write("config.json", '{"tags": ["a"]}')
    path.chmod(0o604)
    if os.getuid() == 0:
        os.chown(path, 12345, 12346)
    save_document({"tags": ["b"]}, path)
    status = path.stat()
    assert status.st_mode & 0o777 == 0o604
    assert os.getuid() != 0 or (status.st_uid, status.st_gid) == (12345, 12346)

    def full(fd: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        save_document({"tags": ["c"]}, path)
    assert _read(path) == {"tags": ["b"]}
    assert os.listdir(tmp_path) == ["config.json"]


def test_a_damaged_file_of_changes_is_kept_aside(write: Write) -> None:
    """At the start only; the check calls it a mistake."""
    path = write("config.json", '{"config_changes": "c.json"}')
    damaged = write("c.json", '{"streams": {"a"')
    with pytest.raises(ConfigError, match=f"^{damaged}: line 1 "):
        load(path)
    parts = read_parts(path, set_aside=True)
    ((old, new),) = parts.set_aside
    assert old == damaged
    assert new.read_text() == '{"streams": {"a"'
    assert check(parts).document() == {"config_changes": "c.json"}


def test_commands(write: Write, capsys: pytest.CaptureFixture[str]) -> None:
    """`config check` has a line for each mistake and status 2; `config show` names the file of each value."""
    path = write("config.json", '{"config": {"debug": 4, "tknMode": 1}}')
    part = write("conf.d/a.json", '{"config": {"debug": 5}}')
    assert cli.main(["config", "check", str(path)]) == 0
    assert cli.main(["config", "show", str(path)]) == 0
    text = capsys.readouterr().out
    assert f'"debug": 5,\t// {part}' in text
    assert f'"tknMode": 1\t// {path}' in text
    assert json.loads(without_comments(text)[0]) == {"config": {"debug": 5, "tknMode": 1}}
    part.write_text('{"streams": {"a": {"souce": "push://"}}}')
    assert cli.main(["config", "check", str(path)]) == 0
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f'warning: {part}: streams.a.souce: unknown option; did you mean "source"?')
    part.write_text(json.dumps({f"wrong{number}": 1 for number in range(20)}))
    assert cli.main(["config", "check", str(path)]) == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 20
    assert all(line.startswith(f"{part}: wrong") for line in lines)


def test_the_shipped_configuration_is_good_and_read_only() -> None:
    parts = read_parts(SHIPPED)
    assert check(parts).document()["config_changes"] == "/var/lib/mist/changes.json"
    assert parts.main.commented
    assert "config_changes" in shown(parts)

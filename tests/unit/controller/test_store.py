"""The running configuration: when the file is written, and what a bad reload leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mist.controller.last_good import LastGood
from tests.support.fake_control import make_controller


def test_nothing_configured_writes_nothing(tmp_path: Path) -> None:
    """Without a file and without changes, no file appears, not even at the end."""
    control = make_controller(tmp_path, built_in={"demo": {"source": "demo:"}})
    control.clock.now += 1000
    control.check()
    control.controller.store.save_if_changed()
    assert not control.path.exists()
    assert "demo" in control.services.published[-1]["streams"]


def test_changes_are_written_a_minute_later(tmp_path: Path) -> None:
    """The last change counts; built-in streams and default protocols never reach the file."""
    control = make_controller(tmp_path, built_in={"demo": {"source": "demo:"}})
    store = control.controller.store
    store.streams["a"] = {"source": "push://"}
    control.controller.commit()
    control.clock.now += 40
    store.streams["b"] = {"source": "push://"}
    control.controller.commit()
    control.clock.now += 40
    control.check()
    assert not control.path.exists()
    control.clock.now += 21
    control.check()
    assert json.loads(control.path.read_text()) == {"streams": {"a": {"source": "push://"}, "b": {"source": "push://"}}}


def test_change_and_back_writes_nothing(tmp_path: Path) -> None:
    control = make_controller(tmp_path)
    control.controller.store.streams["a"] = {"source": "push://"}
    control.controller.commit()
    del control.controller.store.streams["a"]
    control.controller.commit()
    control.controller.store.save_if_changed()
    assert not control.path.exists()


def test_bad_reload_keeps_what_runs(tmp_path: Path) -> None:
    """The old configuration stays, unsaved changes with it, and the log has file, key, value and expectation."""
    control = make_controller(tmp_path, {"tags": ["a"]})
    control.path.write_text(json.dumps({"tag": ["b"]}))
    assert control.reload()
    assert control.controller.store.document["tags"] == ["a"]
    assert any(str(control.path) in line and '"tags"' in line for line in control.services.lines.texts())


def test_changed_file_is_read(tmp_path: Path) -> None:
    """A file that somebody else wrote is read at the next check; our own writing is not a change."""
    control = make_controller(tmp_path, {"tags": ["a"]})
    control.check()
    published = len(control.services.published)
    control.controller.store.save()
    control.check()
    assert len(control.services.published) == published
    control.path.write_text(json.dumps({"tags": ["b"]}))
    os.utime(control.path, ns=(1, 1))
    control.check()
    assert control.services.published[-1]["tags"] == ["b"]


def test_failed_save_is_told_and_tried_again(tmp_path: Path) -> None:
    control = make_controller(tmp_path)
    control.path.mkdir()
    control.controller.store.streams["a"] = {"source": "push://"}
    control.controller.commit()
    control.controller.store.save()
    assert any("could not be saved" in line for line in control.services.lines.texts())
    control.path.rmdir()
    control.controller.store.save_if_changed()
    assert json.loads(control.path.read_text())["streams"] == {"a": {"source": "push://"}}


def test_crash_before_the_change_was_saved(tmp_path: Path) -> None:
    """A controller that died hands its unsaved changes to the next through the snapshot, unless the file changed since."""
    first = make_controller(tmp_path, {"tags": ["a"]}, built_in={"demo": {"source": "demo:"}})
    first.controller.store.streams["new"] = {"source": "push://"}
    first.controller.commit()
    snapshot = first.services.published[-1]
    second = make_controller(tmp_path, None, built_in={"demo": {"source": "demo:"}}, last_snapshot=snapshot)
    assert sorted(second.controller.store.streams) == ["demo", "new"]
    second.check()
    assert json.loads(second.path.read_text()) == {"tags": ["a"], "streams": {"new": {"source": "push://"}}}
    third = make_controller(tmp_path, {"tags": ["b"]}, last_snapshot=snapshot)
    assert third.controller.store.streams == {}


def test_crash_before_changed_and_deleted_streams_were_saved(tmp_path: Path) -> None:
    """Of streams the snapshot names those that changed, and they are as they were: what was taken out of one is not back."""
    before = {name: {"source": "push://", "DVR": 20000} for name in ("kept", "changed", "gone")}
    first = make_controller(tmp_path, {"streams": before})
    store = first.controller.store
    store.streams["changed"] = {"source": "push://", "tags": ["a"], "processes": [{"process": "AV", "codec": "opus"}]}
    del store.streams["gone"]
    store.document["tags"] = ["b"]
    first.controller.commit()
    snapshot = first.services.published[-1]
    assert snapshot["unsaved"]["streams"] == ["changed"]
    second = make_controller(tmp_path, None, last_snapshot=snapshot)
    wanted = {"kept": before["kept"], "changed": store.streams["changed"]}
    assert second.controller.store.config.snapshot()["streams"] == first.controller.store.config.snapshot()["streams"]
    second.check()
    saved = json.loads(second.path.read_text())
    assert saved["tags"] == ["b"]
    assert {name: {**wanted[name], **stream} for name, stream in saved["streams"].items()} == saved["streams"]


def test_crash_of_a_version_that_wrote_streams_into_the_changes(tmp_path: Path) -> None:
    """What version 0.1 left is taken up as well."""
    first = make_controller(tmp_path, {"streams": {"a": {"source": "push://"}}})
    first.controller.store.document["tags"] = ["b"]
    first.controller.commit()
    snapshot = first.services.published[-1]
    time = snapshot["unsaved"]["file_time"]
    snapshot["unsaved"] = {"changes": {"streams": {"a": None, "b": {"source": "push://"}}}, "file_time": time}
    second = make_controller(tmp_path, None, last_snapshot=snapshot)
    assert list(second.controller.store.streams) == ["b"]


def test_crash_while_the_file_is_bad(tmp_path: Path) -> None:
    """What ran before goes on, and the bad file is left alone until it is good, or until somebody saves."""
    first = make_controller(tmp_path, {"streams": {"a": {"source": "push://"}}, "config": {"location": {"lat": 1}}})
    first.path.write_text("{")
    second = make_controller(tmp_path, None, last_snapshot={"generation": 3, **first.services.published[-1]})
    assert list(second.controller.store.streams) == ["a"]
    assert second.services.published[-1]["streams"] == first.services.published[-1]["streams"]
    second.controller.store.streams["b"] = {"source": "push://"}
    second.controller.commit()
    second.controller.store.save_if_changed()
    assert first.path.read_text() == "{"
    first.path.write_text('{"tags": ["good"]}')
    assert not second.reload()
    assert second.controller.store.document["tags"] == ["good"]


def test_a_save_after_a_start_with_a_wrong_value(tmp_path: Path) -> None:
    """Nothing of the file that was not used is left in the new one."""
    copy = LastGood(tmp_path / "config.json", tmp_path)
    first = make_controller(tmp_path, {"streams": {"a": {"source": "push://"}}}, last_good=copy)
    first.check()
    bad = '{"streams": {"a": {"source": "push://", "DVR": "long"}}, "tags": ["x"]}'
    for last_good, streams in ((None, [50000]), (copy, [])):
        first.path.write_text(bad)
        second = make_controller(tmp_path, None, last_snapshot=first.services.published[-1], last_good=last_good)
        second.controller.store.save()
        after = json.loads(second.path.read_text())
        assert [after["streams"]["a"][key] for key in after["streams"]["a"] if key == "DVR"] == streams
        assert "x" not in after.get("tags", [])


def test_impossible_change_is_dropped(tmp_path: Path) -> None:
    control = make_controller(tmp_path, {})
    control.controller.store.document["flub"] = 1
    control.controller.commit()
    assert "flub" not in control.controller.store.document
    assert any("flub: unknown key" in line for line in control.services.lines.texts())


def test_bad_file_is_kept_aside(tmp_path: Path) -> None:
    """A file that somebody broke is never overwritten by itself; `save` puts it aside and says where."""
    control = make_controller(tmp_path, {"tags": ["a"]})
    control.path.write_text('{"tags": [')
    assert control.reload()
    control.controller.store.document["tags"] = ["b"]
    control.controller.commit()
    control.clock.now += 1000
    control.check()
    assert control.path.read_text() == '{"tags": ['
    control.controller.store.save()
    (aside,) = tmp_path.glob("config.json.bad-*")
    assert aside.read_text() == '{"tags": ['
    assert json.loads(control.path.read_text())["tags"] == ["b"]
    assert any(str(aside) in line for line in control.services.lines.texts())


@pytest.mark.parametrize("name", ["config.json", "conf.d/50-more.json", "tags.json"])
def test_a_bad_file_of_several_is_kept_aside(tmp_path: Path, name: str) -> None:
    """Whichever file is damaged, `save` renames that one alone, and the configuration that runs is whole in the new files."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "50-more.json").write_text('{"streams": {"b": {"source": "push://"}}}')
    (tmp_path / "tags.json").write_text('{"tags": ["a"]}')
    main = {"streams": {"a": {"source": "push://"}}, "config_split": {"tags": "tags.json"}}
    control = make_controller(tmp_path, main)
    before = control.controller.store.config.document()
    (tmp_path / name).write_text('{"cut off": ')
    assert control.reload()
    control.controller.store.save()
    (aside,) = tmp_path.rglob("*.bad-*")
    assert aside.read_text() == '{"cut off": '
    assert aside.name.startswith(Path(name).name)
    after = make_controller(tmp_path, None).controller.store.config.document()
    assert after == before


def test_a_wrong_value_is_kept_aside(tmp_path: Path) -> None:
    """Files that can be read but not be used are copied before `save` writes them."""
    control = make_controller(tmp_path, {"tags": ["a"]})
    control.path.write_text('{"tags": 5}')
    control.check()
    assert control.controller.store.bad_file
    control.controller.store.save()
    (aside,) = tmp_path.glob("config.json.bad-*")
    assert aside.read_text() == '{"tags": 5}'
    assert json.loads(control.path.read_text()) == {"tags": ["a"]}
    assert not control.controller.store.bad_file


def test_the_last_good_copy(tmp_path: Path) -> None:
    """What runs is copied to the state directory: what was read, and changes after a while; a copy of another file is none."""
    path = tmp_path / "config.json"
    copy = LastGood(path, tmp_path)
    control = make_controller(tmp_path, {"tags": ["a"]}, last_good=copy, built_in={"demo": {"source": "demo:"}})
    assert copy.read() is None
    control.check()
    assert LastGood(path, tmp_path).read() == {"tags": ["a"]}
    control.controller.store.document["tags"] = ["b"]
    control.controller.commit()
    control.check()
    assert LastGood(path, tmp_path).read() == {"tags": ["b"]}
    assert LastGood(tmp_path / "other.json", tmp_path).read() is None
    (tmp_path / "last-good.json").write_text('{"of": ')
    assert LastGood(path, tmp_path).read() is None
    assert LastGood(path).read() is None


def test_the_copy_that_cannot_be_written(tmp_path: Path) -> None:
    """It is said once."""
    copy = LastGood(tmp_path / "config.json", tmp_path / "config.json")
    control = make_controller(tmp_path, {"tags": ["a"]}, last_good=copy)
    control.check()
    control.check()
    assert copy.take({"tags": ["a"]}) is None
    assert len([line for line in control.services.lines.texts() if "No copy" in line]) == 1


@pytest.mark.parametrize("split", [False, True])
@pytest.mark.root
@pytest.mark.tools("unshare", "mount")
def test_full_disk_keeps_the_old_file(tmp_path: Path, split: bool) -> None:
    """A disk without room: the files that were there stay whole, and the log says that nothing was saved."""
    place = tmp_path / "small"
    place.mkdir()
    code = (
        "import sys, json, pathlib\n"
        "sys.path[:0] = " + repr(sys.path) + "\n"
        "from tests.support.fake_control import make_controller\n"
        "place = pathlib.Path(sys.argv[1])\n"
        "split = json.loads(sys.argv[2])\n"
        "main = {'config_split': {'ui_settings': 'ui.json'}} if split else {'ui_settings': {'old': 1}}\n"
        "if split: (place / 'ui.json').write_text('{\"ui_settings\": {\"old\": 1}}')\n"
        "control = make_controller(place, main)\n"
        "control.controller.store.document['ui_settings'] = {'much': 'x' * 300_000}\n"
        "control.controller.commit()\n"
        "control.controller.store.save()\n"
        "assert json.loads(control.path.read_text()) == main\n"
        "if split: assert json.loads((place / 'ui.json').read_text()) == {'ui_settings': {'old': 1}}\n"
        "assert any('No space' in line for line in control.services.lines.texts())\n"
        "assert sorted(path.name for path in place.iterdir()) == ['config.json', 'ui.json'][:split + 1]\n"
    )
    script = f'mount -t tmpfs -o size=128k none "{place}" && exec "{sys.executable}" -c "$CODE" "{place}" {str(split).lower()}'
    done = subprocess.run(
        ["unshare", "-m", "sh", "-c", script],
        env={**os.environ, "CODE": code},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr


def test_what_a_part_of_the_files_could_not_take_stays(tmp_path: Path) -> None:
    """The files that could be written are no edit by somebody else, which would bring the old value back."""
    (tmp_path / "conf.d").mkdir()
    (tmp_path / "conf.d" / "10.json").write_text('// kept by hand\n{"config": {"serverid": "from the file"}}')
    control = make_controller(tmp_path, {"tags": ["a"]})
    store = control.controller.store
    store.server["serverid"] = "changed"
    store.document["tags"] = ["b"]
    control.controller.commit()
    store.save()
    assert json.loads(control.path.read_text())["tags"] == ["b"]
    assert any("config.serverid" in line for line in control.services.lines.texts())
    assert not store.file_changed()
    assert control.services.published[-1]["unsaved"]["changes"]["config"] == {"serverid": "changed"}

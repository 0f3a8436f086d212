"""Runtime directory, lock, names in shared memory."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from mist.errors import ConfigError
from mist.runtime.instance import AlreadyRunning, Instance, base_folder, write_atomically
from mist.runtime.snapshot import (
    EMPTY,
    SnapshotReader,
    SnapshotWriter,
    always_on,
    canonical,
    has_sources,
    read_snapshot,
    source_suffixes,
    stream_settings,
    write_snapshot,
)
from mist.stream.names import SHARED_MEMORY


def unique() -> str:
    return f"unit{os.getpid()}"


@pytest.mark.parametrize("name", ["", "a.b", "a/b", "ä", "x" * 33, "a b"])
def test_names_that_would_break_paths_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="instance name"):
        Instance(name, tmp_path)


def test_where_the_directory_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MIST_RUNTIME_DIR", "/somewhere")
    assert base_folder() == Path("/somewhere")
    monkeypatch.delenv("MIST_RUNTIME_DIR")
    monkeypatch.setattr(os, "getuid", lambda: 0)
    assert base_folder() == Path("/run/mist")
    monkeypatch.setattr(os, "getuid", lambda: 7)
    monkeypatch.setenv("XDG_RUNTIME_DIR", "/run/user/7")
    assert base_folder() == Path("/run/user/7/mist")
    monkeypatch.delenv("XDG_RUNTIME_DIR")
    assert base_folder() == Path("/tmp/mist-7")


def test_one_owner_at_a_time_and_nothing_left(tmp_path: Path) -> None:
    one, other = Instance(unique(), tmp_path), Instance(unique(), tmp_path)
    one.acquire()
    assert one.folder.stat().st_mode & 0o777 == 0o750
    with pytest.raises(AlreadyRunning, match=f"process {os.getpid()}"):
        other.acquire()
    one.release()
    assert not one.folder.exists()
    other.acquire()
    other.release()
    other.release()
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_server_left_is_cleared(tmp_path: Path) -> None:
    instance = Instance(unique(), tmp_path)
    (instance.folder / "bell").mkdir(parents=True)
    (instance.folder / "bell" / "17").touch()
    (instance.folder / "spawner.sock").touch()
    left = [f"{instance.prefix}live", f"{instance.prefix}live.0.1", f"{instance.prefix}#17", f"mist.{instance.name}"]
    kept = f"mist.{instance.name}x.live"
    for name in [*left, kept]:
        (SHARED_MEMORY / name).touch()
    try:
        instance.acquire()
        assert sorted(path.name for path in instance.folder.iterdir()) == ["alive", "bell", "lock", "push", "span"]
        assert list(instance.bells.iterdir()) == []
        assert not [name for name in left if (SHARED_MEMORY / name).exists()]
        assert (SHARED_MEMORY / kept).exists()
    finally:
        (SHARED_MEMORY / kept).unlink()
        instance.release()


def test_a_path_that_is_too_long_for_sockets_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="MIST_RUNTIME_DIR"):
        Instance(unique(), tmp_path / ("x" * 90)).acquire()


def test_a_directory_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(ConfigError, match="cannot make the runtime directory"):
        Instance(unique(), tmp_path / "file").acquire()


def test_a_link_in_the_place_of_the_directory_is_refused(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / unique()).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ConfigError):
        Instance(unique(), tmp_path).acquire()


def test_files_are_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"one")
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert list(tmp_path.iterdir()) == [path]
    with pytest.raises(OSError):
        write_atomically(tmp_path / "no" / "file", b"")


# -- the configuration's snapshot ----------------------------------------------------------------------------------


def test_generations_rise_with_changes_only(tmp_path: Path) -> None:
    instance = Instance("unit", tmp_path)
    instance.folder.mkdir()
    assert read_snapshot(instance) == EMPTY
    snapshot = {"config": {"protocols": [{"connector": "HTTP"}]}, "streams": {"a": {"source": "push://"}}}
    assert write_snapshot(instance, snapshot)
    assert read_snapshot(instance) == {**snapshot, "generation": 1}
    assert not write_snapshot(instance, snapshot)
    assert read_snapshot(instance)["generation"] == 1
    assert write_snapshot(instance, {**snapshot, "streams": {}})
    assert read_snapshot(instance)["generation"] == 2


def test_what_was_prepared_is_written(tmp_path: Path) -> None:
    """Its text is there before the snapshot that has it; also one that could not be written is written at the next time."""
    instance = Instance("unit", tmp_path)
    instance.folder.mkdir()
    writer = SnapshotWriter(instance)
    first, second = {"source": "push://"}, {"source": "/a"}
    assert writer.write({"streams": {"one": first}})
    writer.prepare({"two": second})
    assert writer.write({"streams": {"one": first, "two": second}})
    assert list(read_snapshot(instance)["streams"]) == ["one", "two"]
    writer.prepare({"two": first})
    assert writer.write({"streams": {"one": first, "two": first}})
    assert read_snapshot(instance)["streams"]["two"] == first
    assert not writer.write({"streams": {"one": first, "two": first}})
    folder = instance.config_file.parent
    folder.rename(folder.with_name("away"))
    with pytest.raises(OSError, match="No such file"):
        writer.write({"streams": {"one": second}})
    folder.with_name("away").rename(folder)
    assert writer.write({"streams": {"one": second}})
    assert list(read_snapshot(instance)["streams"]) == ["one"]


def test_streams_of_a_snapshot_are_read_one_by_one(tmp_path: Path) -> None:
    """Whatever the names are; the same stream objects are not serialized again."""
    instance = Instance("unit", tmp_path)
    instance.folder.mkdir()
    streams: dict[str, dict[str, object]] = {
        'a":{"b': {"source": 'x\n"y":1,', "always_on": True},
        "é\\": {"source": '"always_on":true'},
        "c": {"source": "push://", "tags": ["\n"]},
    }
    writer = SnapshotWriter(instance)
    assert writer.write({"config": {}, "streams": streams})
    snapshot = read_snapshot(instance)
    assert list(snapshot["streams"]) == list(streams)
    assert snapshot["streams"] == streams
    assert len(snapshot["streams"]) == 3
    assert always_on(snapshot) == ['a":{"b']
    assert has_sources(snapshot)
    assert stream_settings(snapshot, "c+d") == streams["c"]
    assert stream_settings(snapshot, "d") is None
    assert json.loads(instance.config_file.read_bytes()) == {"generation": 1, "config": {}, "streams": streams}
    assert not writer.write({"config": {}, "streams": dict(streams)})
    assert writer.write({"config": {}, "streams": {"c": streams["c"]}})
    assert dict(read_snapshot(instance)["streams"]) == {"c": streams["c"]}


def test_a_snapshot_of_an_older_version_is_read(tmp_path: Path) -> None:
    instance = Instance("unit", tmp_path)
    instance.folder.mkdir()
    instance.config_file.write_text('{"config":{},"streams":{"a":{"always_on":true}},"generation":7}')
    snapshot = read_snapshot(instance)
    assert (snapshot["generation"], always_on(snapshot)) == (7, ["a"])
    assert write_snapshot(instance, {"streams": {}})
    assert read_snapshot(instance)["generation"] == 8


def test_the_first_snapshot_counts_even_when_empty(tmp_path: Path) -> None:
    instance = Instance("unit", tmp_path)
    instance.folder.mkdir()
    assert write_snapshot(instance, {})
    assert read_snapshot(instance)["generation"] == 1


def test_entries_are_known_by_what_is_configured() -> None:
    entry = {"port": 1, "connector": "HTTP"}
    assert canonical(entry) == '{"connector":"HTTP","port":1}'
    assert canonical({**entry, "online": 1, "error": "x", "interface": None}) == canonical(entry)


def test_streams_are_configured_by_their_base_name() -> None:
    snapshot = {"streams": {"live": {"source": "push://"}, "odd": None}}
    assert stream_settings(snapshot, "live+one+two") == {"source": "push://"}
    assert stream_settings(snapshot, "other") is None
    assert stream_settings(snapshot, "odd") is None


def test_streams_that_are_pushed_here_are_no_sources(tmp_path: Path) -> None:
    instance = Instance(unique(), tmp_path)
    instance.folder.mkdir(parents=True)
    pushed = {"a": {"source": "push://"}, "b": {"source": "push://host@word"}}
    for streams, expected in (
        ({}, False),
        (pushed, False),
        ({**pushed, "c": {"source": "/films/$wildcard.mp4"}}, True),
    ):
        snapshot = {"config": {}, "streams": streams}
        write_snapshot(instance, snapshot)
        assert has_sources(snapshot) == has_sources(read_snapshot(instance)) == expected


def test_the_newest_snapshot_is_read_once(tmp_path: Path) -> None:
    instance = Instance("reads", tmp_path)
    instance.folder.mkdir(parents=True)
    reader = SnapshotReader(instance)
    assert reader.newest()["generation"] == 0
    write_snapshot(instance, {"streams": {"a": {"source": "push://"}}})
    first = reader.newest()
    assert first["generation"] == 1
    assert reader.newest() is first
    write_snapshot(instance, {"streams": {"b": {"source": "push://"}}})
    second = reader.newest()
    assert (second["generation"], list(second["streams"])) == (2, ["b"])
    assert list(first["streams"]) == ["a"]
    reader.close()
    assert reader.newest()["generation"] == 2
    reader.close()


def test_what_the_names_of_source_files_end_with(tmp_path: Path) -> None:
    instance = Instance(unique(), tmp_path)
    instance.folder.mkdir(parents=True)
    streams = {
        "a": {"source": '/films/one "quoted".MP4', "tags": [".doc"]},
        "b": {"source": "https://example.org/films/two.ts"},
        "live.flv": {"source": "push://host.aac"},
        "folder": {"source": "/films/"},
        "c": {"source": "/films/$wildcard.mp4"},
    }
    snapshot = {"config": {}, "streams": streams}
    write_snapshot(instance, snapshot)
    assert source_suffixes(snapshot) == source_suffixes(read_snapshot(instance)) == {".mp4", ".ts"}
    assert not source_suffixes(EMPTY)

"""The commands convert, in, out and info, on files."""

from __future__ import annotations

import argparse
import json
import os
from pathlib import Path

import pytest

from mist.cli import build_parser, main
from mist.commands.convert import seconds
from mist.formats.containers import by_name
from tests.unit.stream.test_conversion import read, source


@pytest.fixture
def flv(tmp_path: Path) -> Path:
    path = tmp_path / "a.flv"
    path.write_bytes(source()[1])
    return path


def test_convert_writes_the_format_that_the_name_says(flv: Path, no_leaks: None) -> None:
    target = flv.with_name("b.ts")
    assert main(["convert", str(flv), str(target)]) == 0
    assert target.read_bytes()[::188].count(b"G") == len(target.read_bytes()) // 188
    assert sorted(os.listdir(flv.parent)) == ["a.flv", "b.ts"]


def test_convert_takes_a_window_and_a_selection(flv: Path) -> None:
    target = flv.with_name("b.flv")
    assert main(["convert", "--start", "1.5", "--stop", "0:02", "--audio", "none", str(flv), str(target)]) == 0
    got = read(target.read_bytes())
    assert {p.track for p in got} == {0}
    assert [p.dts_us for p in got] == [number * 40_000 for number in range(25)]
    assert main(["convert", "--times", "keep", "--start", "1.5", str(flv), str(target)]) == 0
    assert read(target.read_bytes())[0].dts_us == 1_000_000


def test_format_options_win_over_names(flv: Path) -> None:
    odd = flv.rename(flv.with_name("a.bin"))
    target = flv.with_name("b.bin")
    assert main(["convert", "--from", "flv", "--to", "FMP4", str(odd), str(target)]) == 0
    assert target.read_bytes()[4:8] == b"ftyp"


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["convert", "{}/a.flv", "{}/b.xyz"], 2, "the name {}/b.xyz does not say in which format to write"),
        (["convert", "{}/a.flv", "{}/b", "--to", "xyz"], 2, "xyz is no format that mist writes; those are"),
        (["convert", "--from", "xyz", "{}/a.flv", "{}/b.ts"], 2, "xyz is no format that mist reads; those are"),
        (["convert", "--start", "5", "--stop", "4", "{}/a.flv", "{}/b.ts"], 2, "--stop is not after --start"),
        (["convert", "{}/a.flv", "{}/a.flv"], 2, "is the file that is read"),
        (["convert", "{}/missing.flv", "{}/b.ts"], 1, "{}/missing.flv: No such file or directory"),
        (["convert", "{}", "{}/b.ts"], 1, "it is a folder"),
        (["convert", "{}/a.flv", "{}/no/b.ts"], 1, "{}/no/b.ts.part: No such file or directory"),
        (["convert", "{}/empty", "{}/b.ts"], 1, "{}/empty is empty"),
        (["convert", "{}/text.txt", "{}/b.ts"], 1, "{}/text.txt is in no format that mist knows"),
        (["convert", "--video", "none", "--audio", "none", "{}/a.flv", "{}/b.ts"], 1, "a.flv: no track fits the sel"),
        (["convert", "--start", "99", "--video", "none", "{}/a.flv", "{}/b.ts"], 1, "no packet in it after the start"),
        (["info", "{}/text.txt"], 1, "{}/text.txt is in no format that mist knows"),
    ],
)
def test_what_is_wrong_is_said(
    arguments: list[str], status: int, words: str, flv: Path, capsys: pytest.CaptureFixture[str], no_leaks: None
) -> None:
    folder = flv.parent
    (folder / "empty").touch()
    (folder / "text.txt").write_text("hello world\n" * 100)
    before = sorted(os.listdir(folder))
    assert main([word.replace("{}", str(folder)) for word in arguments]) == status
    told = capsys.readouterr()
    assert told.out == "" and told.err.startswith("mist: ")
    assert words.replace("{}", str(folder)) in told.err
    assert sorted(os.listdir(folder)) == before


def test_a_damaged_input_leaves_what_was_before_the_damage_under_another_name(
    flv: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    data = bytearray(flv.read_bytes())
    place = len(data) // 2
    place = data.index(b"\x08\x00\x00", place)  # an audio tag; it becomes an encrypted one
    data[place] |= 0x20
    flv.write_bytes(data)
    target = flv.with_name("b.ts")
    assert main(["convert", str(flv), str(target)]) == 1
    words = capsys.readouterr().err
    assert words.startswith(f"mist: {flv}: ") and f"what is before that is in {target}.part" in words
    assert sorted(os.listdir(flv.parent)) == ["a.flv", "b.ts.part"]
    assert (target.parent / "b.ts.part").stat().st_size > 1000


def test_a_damaged_beginning_leaves_nothing(flv: Path) -> None:
    flv.write_bytes(b"FLV\x01\x05\xff\xff\xff\xff" + bytes(100))
    assert main(["convert", str(flv), str(flv.with_name("b.ts"))]) == 1
    assert os.listdir(flv.parent) == ["a.flv"]


def test_info_as_table_and_json(flv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["info", str(flv)]) == 0
    text = capsys.readouterr().out
    assert text.startswith(f"{flv}: flv, 0:03.0")
    assert "1280x720, 25 fps" in text and "44100 Hz, 2 ch" in text and "1.00 / 1.00 / 1.00" in text
    assert text.count("\n! ") == 1 and "track 1, the packet at 0.000 s: nothing but zeros" in text  # as it is made up
    assert main(["info", "--json", str(flv)]) == 0
    document = json.loads(capsys.readouterr().out)
    video, audio = document["tracks"]
    assert (document["container"], document["bytes"], document["error"]) == ("flv", flv.stat().st_size, None)
    assert (video["codec"], video["packets"], video["keyframes"], video["gop"]["most_us"]) == ("H264", 75, 3, 1_000_000)
    assert (audio["codec_string"], audio["sample_rate_hz"], audio["gop"]) == ("mp4a.40.2", 44100, None)
    assert document["health"] == []


def test_info_of_a_damaged_file_shows_what_it_could_read(flv: Path, capsys: pytest.CaptureFixture[str]) -> None:
    data = bytearray(flv.read_bytes())
    data[data.index(b"\x08\x00\x00", len(data) // 2)] |= 0x20
    flv.write_bytes(data)
    assert main(["info", str(flv)]) == 1
    told = capsys.readouterr()
    assert "H264" in told.out and str(flv) in told.err
    assert main(["info", "--json", str(flv)]) == 1
    document = json.loads(capsys.readouterr().out)
    assert document["error"] and document["tracks"][0]["packets"] > 0


@pytest.mark.parametrize(
    ("text", "us"), [("0", 0), ("1.5", 1_500_000), ("1:02", 62_000_000), ("1:02:03.25", 3_723_250_000)]
)
def test_times_of_the_command_line(text: str, us: int) -> None:
    assert seconds(text) == us


@pytest.mark.parametrize("text", ["", "x", "-1", "nan", "inf", "1:2:3:4", "1e12"])
def test_bad_times_of_the_command_line(text: str) -> None:
    with pytest.raises(ValueError, match=r".*"):
        seconds(text)


@pytest.mark.parametrize("command", ["convert", "in", "out", "info"])
def test_help_names_the_formats_and_shows_examples(command: str) -> None:
    parser = build_parser()
    action = next(one for one in parser._actions if isinstance(one, argparse._SubParsersAction))
    text = action.choices[command].format_help()
    assert f"mist {command} " in text
    assert command == "info" or "writes:" in text
    assert all(len(line) <= 120 for line in (action.choices[command].description or "").splitlines())


@pytest.mark.skipif(by_name("dtsc") is None, reason="no DTSC")
def test_in_and_out_are_the_two_ends_of_a_pipe(flv: Path) -> None:
    import subprocess
    import sys

    mist = [sys.executable, "-m", "mist"]
    first = subprocess.Popen([*mist, "in", str(flv)], stdout=subprocess.PIPE)
    second = subprocess.run([*mist, "out", "flv"], stdin=first.stdout, capture_output=True, timeout=60, check=True)
    assert first.stdout is not None
    first.stdout.close()
    assert first.wait(10) == 0
    assert read(second.stdout) == read(flv.read_bytes())

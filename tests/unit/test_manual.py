"""The man pages and the completion that are made from the command line say what `--help` says, and are well-formed."""

from __future__ import annotations

import argparse
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mist.cli import build_parser
from tests.support.tools import find_tool

ROOT = Path(__file__).resolve().parents[2]
# What argparse and pages say of the same things in other words.
HEADINGS = {"usage:", "options:", "positional", "arguments:", "exit", "status:"}


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `describe-commands` writes."""
    folder = tmp_path_factory.mktemp("pages")
    subprocess.run([sys.executable, ROOT / "packaging/describe-commands", folder], check=True, timeout=60)
    return folder


def parsers(parser: argparse.ArgumentParser, words: tuple[str, ...]) -> Iterator[tuple[str, argparse.ArgumentParser]]:
    yield "-".join(words), parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for name, below in action.choices.items():
                yield from parsers(below, (*words, name))


def spoken(text: str) -> set[str]:
    """The words of a text, however it is set."""
    for sign, plain in (("‐", "-"), ("−", "-"), ("’", "'"), ("[", " "), ("]", " "), (",", " ")):
        text = text.replace(sign, plain)
    return {word.strip(".;()") for word in text.lower().split()}


@pytest.mark.tools("man")
def test_pages_say_what_help_says(pages: Path) -> None:
    every = dict(parsers(build_parser(), ("mist",)))
    assert sorted(path.stem for path in pages.glob("*.1")) == sorted(every)
    man = find_tool("man")
    for name, parser in every.items():
        command = [man, "--warnings", "--nh", "--nj", "-E", "UTF-8", "-l", pages / f"{name}.1"]
        shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
        assert shown.stderr == "", name
        page = spoken(shown.stdout)
        if not any(isinstance(action, argparse._SubParsersAction) for action in parser._actions):
            assert "EXIT STATUS" in shown.stdout, name
            assert f"\n       {' '.join(name.split('-'))}" in shown.stdout, name  # an example, or the synopsis
            assert not spoken(parser.format_help()) - page - HEADINGS, name
        else:
            assert not spoken(parser.description or "") - page - HEADINGS, name


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["stat"], {"status"}),
        (["account", "ad"], {"add"}),
        (["trigger", "te"], {"test"}),
        (["convert", "--tim"], {"--times"}),
        (["convert", "--times", ""], {"keep", "zero"}),
        (["config", "check", "--h"], {"--help"}),
        (["trigger", "test", "USER"], {"USER_NEW", "USER_END"}),
        (["account", "key", "bob", "--may", "str"], {"streams"}),
        (["api", "active_"], {"active_streams"}),
        (["clients", "--instance", "x", "--js"], {"--json"}),
    ],
)
def test_bash_completes(pages: Path, words: list[str], offered: set[str]) -> None:
    script = 'source "$1"; shift; COMP_WORDS=(mist "$@"); COMP_CWORD=$#; _mist; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", script, "bash", pages / "mist.bash-completion", *words]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=pages)
    assert offered <= set(done.stdout.split()), done.stdout


def test_bash_offers_no_files_for_commands(pages: Path) -> None:
    script = 'source "$1"; COMP_WORDS=(mist config ""); COMP_CWORD=2; _mist; printf "%s\\n" "${COMPREPLY[@]}"'
    command = ["bash", "-c", script, "bash", pages / "mist.bash-completion"]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60, cwd=pages)
    assert set(done.stdout.split()) == {"-h", "--help", "check", "diff", "show"}

"""Keep the documents true where a program can tell: links, anchors, names of keys, capabilities and files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from pydantic import BaseModel

from mist.controller import schema
from mist.stream.capability import discover

ROOT = Path(__file__).resolve().parents[2]
DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted((ROOT / "docs").glob("*.md"))]
SOURCES = [path for suffix in ("py", "pyi", "pyx", "pxd") for path in sorted((ROOT / "mist").rglob(f"*.{suffix}"))]
MAX_PICTURE_BYTES = 100_000

_LINK = re.compile(r"\]\(([^)\s]+)\)")
_FENCE = re.compile(r"^```.*?^```", re.MULTILINE | re.DOTALL)
_CITED = re.compile(r"docs/([\w-]+\.md)(?:#([\w-]+))?")
_CONNECTOR = re.compile(r'"connector": "([^"]+)"')
_FILE = re.compile(r"`((?:mist|tests|bench|packaging|docs)/[\w./-]+)`")
# Sections of the configuration document and the models whose keys they explain.
KEY_TABLES: dict[str, type[BaseModel]] = {
    "Top level": schema.Document,
    "`config`: the server": schema.Server,
    "`config.memory`": schema.Memory,
    "`config.protocols`": schema.ProtocolEntry,
    "`streams`": schema.Stream,
}


def _prose(path: Path) -> str:
    return _FENCE.sub("", path.read_text("utf-8"))


def _anchors(path: Path) -> set[str]:
    """Return the anchors of a document: its headings as web pages of repositories name them, and those set by hand."""
    text = _prose(path)
    found = set(re.findall(r'<a id="([\w-]+)">', text))
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        found.add(re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-"))
    return found


def _sections(path: Path) -> dict[str, str]:
    parts = re.split(r"^#+ (.+)$", _prose(path), flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def _keys(section: str) -> Iterator[str]:
    """Yield the keys in the first column of a section's table."""
    for line in section.splitlines():
        if line.startswith("| `"):
            yield from re.findall(r"`([\w.]+)`", line.split("|")[1])


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_links_lead_somewhere(document: Path) -> None:
    for link in _LINK.findall(_prose(document)):
        if "://" in link:
            continue
        name, _, anchor = link.partition("#")
        target = (document.parent / name).resolve() if name else document
        assert target.is_file(), f"{link} leads to no file"
        assert target.is_relative_to(ROOT)
        if anchor:
            assert anchor in _anchors(target), f"{link} leads to no heading or anchor"


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_anchors_are_unique(document: Path) -> None:
    found = re.findall(r'<a id="([\w-]+)">', document.read_text("utf-8"))
    assert len(found) == len(set(found))


def test_what_docstrings_cite_exists() -> None:
    for source in SOURCES:
        for name, anchor in _CITED.findall(source.read_text("utf-8")):
            target = ROOT / "docs" / name
            assert target.is_file(), f"{source} cites {name}"
            assert not anchor or anchor in _anchors(target), f"{source} cites {name}#{anchor}"


@pytest.mark.parametrize(("section", "model"), KEY_TABLES.items(), ids=KEY_TABLES.keys())
def test_configuration_keys_are_those_of_the_models(section: str, model: type[BaseModel]) -> None:
    told = set(_keys(_sections(ROOT / "docs" / "configuration.md")[section]))
    assert told == set(model.model_fields)


def test_defaults_in_the_configuration_document() -> None:
    sections = _sections(ROOT / "docs" / "configuration.md")
    for section in ("`config`: the server", "`streams`"):
        model = KEY_TABLES[section]
        for line in sections[section].splitlines():
            cells = [cell.strip() for cell in line.split("|")]
            if len(cells) < 4 or not re.fullmatch(r"\d+|false|`\w+`", cells[2]):
                continue
            for key in re.findall(r"`(\w+)`", cells[1]):
                default = model.model_fields[key].default
                assert cells[2].strip("`") == str(default).replace("False", "false"), key


def test_connectors_in_the_documents_are_installed() -> None:
    installed = discover("mist.outputs", "OUTPUT")
    for document in DOCUMENTS:
        for name in _CONNECTOR.findall(document.read_text("utf-8")):
            assert name in installed, f"{document.name} names the connector {name}"


def test_addresses_in_the_readme_are_served() -> None:
    patterns = [
        pattern
        for output in discover("mist.outputs", "OUTPUT").values()
        for pattern in (*output.capability.url_match, *output.capability.url_prefix, output.capability.url_rel)
    ]
    text = (ROOT / "README.md").read_text("utf-8")
    for path in re.findall(r"(?:localhost(?::8080)?|`)(/[\w./-]*demo[\w./-]*)", text):
        assert any(
            re.match(re.escape(pattern).replace(r"\$", "demo"), path)
            for pattern in patterns
            if pattern not in ("", "/")
        ), path


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_files_named_in_the_documents_exist(document: Path) -> None:
    for name in _FILE.findall(_prose(document)):
        if "NAME" not in name and not re.search(r"[A-Z]{4}", name):
            assert (ROOT / name).exists(), f"{document.name} names {name}"


def test_pictures_are_small() -> None:
    for picture in (ROOT / "docs" / "images").iterdir():
        assert picture.stat().st_size <= MAX_PICTURE_BYTES

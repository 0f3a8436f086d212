"""Keep the import rule: a layer imports only what lies below it (docs/architecture.md, section on the code's layout)."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGE = ROOT / "mist"

_BELOW = ["errors", "core", "formats", "net", "stream"]
LAYERS: dict[str, list[str]] = {
    "errors": [],
    "core": ["errors"],
    "formats": ["errors", "core"],
    "net": ["errors", "core", "formats"],
    "stream": ["errors", "core", "formats"],
    "inputs": _BELOW,
    "outputs": _BELOW,
    "processes": _BELOW,
    "analysers": _BELOW,
    "loadtest": _BELOW,
    "commands": _BELOW,
    "controller": ["errors", "formats", "stream", "net"],
    "runtime": ["errors", "core", "stream", "net"],
    "web": [],
}
COMPOSITION_ROOT = {"app", "cli", "__main__"}

# What a layer must not take from outside: it gets bytes, times and configuration as arguments.
FORBIDDEN: dict[str, set[str]] = {
    "errors": {"asyncio", "logging", "socket", "time"},
    "core": {"asyncio", "logging", "time", "datetime", "configparser", "json"},
    "formats": {"asyncio", "socket", "selectors", "time", "random", "secrets", "uuid", "logging", "subprocess"},
    "stream": {"socket", "subprocess"},
    "net": set(),
}

# The payload of tracks of JSON is documents, which FLV has in another form.
EXEMPT = {"mist/core/script_data.pyx": {"json"}}

# The description of a track is a plain record that muxers are handed; their stubs say so, their code does not import it.
STUBS_MAY_NAME = {"core": {"mist.formats.tracks"}}

# Modules of these layers do not know each other, but for the ones named here.
STRANGERS = {"inputs": {"base"}, "outputs": {"base"}, "processes": {"base"}, "analysers": {"base"}}

_CIMPORT = re.compile(r"^\s*(?:from\s+(?P<source>[\w.]+)\s+cimport\s+(?P<names>[^#\n]+)|cimport\s+(?P<plain>[^#\n]+))")
_IMPORT = re.compile(r"^\s*(?:from\s+(?P<source>[\w.]+)\s+import\s+(?P<names>[^#\n]+)|import\s+(?P<plain>[^#\n]+))")


def _sources() -> list[Path]:
    return sorted(p for suffix in ("py", "pyi", "pyx", "pxd") for p in PACKAGE.rglob(f"*.{suffix}"))


def _absolute(path: Path, source: str) -> str:
    """Resolve a relative import of the file against its package."""
    dots = len(source) - len(source.lstrip("."))
    if not dots:
        return source
    package = path.relative_to(ROOT).parent.parts
    return ".".join([*package[: len(package) - (dots - 1)], *filter(None, source.lstrip(".").split("."))])


def _named(path: Path, source: str, names: list[str]) -> Iterator[str]:
    """Yield the modules that `from source import names` may mean: a name of a bare package is a module itself."""
    source = _absolute(path, source)
    if source == "mist" or (source.count(".") == 1 and source.startswith("mist.")):
        yield from (f"{source}.{name}" for name in names)
    else:
        yield source


def _python_imports(path: Path, text: str) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = "." * node.level + (node.module or "")
            for name in _named(path, source, [alias.name for alias in node.names]):
                yield node.lineno, name


def _cython_imports(path: Path, text: str) -> Iterator[tuple[int, str]]:
    text = re.sub(r"\(\s*([^()]*?)\s*\)", lambda m: m[1].replace("\n", " ") + "\n" * m[1].count("\n"), text)
    for number, line in enumerate(text.split("\n"), 1):
        for match in filter(None, (_CIMPORT.match(line), _IMPORT.match(line))):
            if match["plain"]:
                yield from ((number, part.split(" as ")[0].strip()) for part in match["plain"].split(","))
            else:
                names = [part.split(" as ")[0].strip() for part in match["names"].split(",")]
                yield from ((number, name) for name in _named(path, match["source"], names))


def imports_of(path: Path, text: str) -> list[tuple[int, str]]:
    """Return (line, dotted module) of every import and cimport, those for type checking included."""
    return list(_cython_imports(path, text) if path.suffix in (".pyx", ".pxd") else _python_imports(path, text))


def problems_of(path: Path, imports: list[tuple[int, str]]) -> list[str]:
    """Return what is wrong with the imports of the file, one line each."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    layer = parts[0]
    if layer in COMPOSITION_ROOT or layer == "__init__":
        return []
    if layer not in LAYERS:
        return [f"{path.relative_to(ROOT)}: no layer called {layer}; add it to the table in {Path(__file__).name}"]
    problems = []
    for line, module in imports:
        where = f"{path.relative_to(ROOT)}:{line}: {layer} must not import {module}"
        target = module.split(".")
        if target[0] != "mist":
            if target[0] in FORBIDDEN.get(layer, set()) - EXEMPT.get(str(path.relative_to(ROOT)), set()):
                problems.append(where)
            continue
        stub_only = path.suffix == ".pyi" and module in STUBS_MAY_NAME.get(layer, set())
        if len(target) < 2 or target[1] == "__version__" or stub_only:
            continue
        if target[1] == layer:
            own = parts[1] if len(parts) > 1 else ""
            if (
                layer in STRANGERS
                and own != "__init__"
                and len(target) > 2
                and target[2] not in STRANGERS[layer] | {own}
            ):
                problems.append(f"{where} (modules of {layer} do not know each other)")
        elif target[1] not in LAYERS[layer]:
            problems.append(where)
    return problems


def test_every_import_goes_downwards() -> None:
    problems = [problem for path in _sources() for problem in problems_of(path, imports_of(path, path.read_text()))]
    assert not problems, "\n" + "\n".join(problems)


def test_core_is_cython_only() -> None:
    stray = [p.name for p in (PACKAGE / "core").glob("*.py") if p.name != "__init__.py"]
    assert not stray, f"core holds compiled modules only: {stray}"


def test_every_cython_module_has_a_stub() -> None:
    missing = [p.name for p in PACKAGE.rglob("*.pyx") if not p.with_suffix(".pyi").exists()]
    assert not missing


def test_no_file_has_a_name_that_says_nothing() -> None:
    bad = {"utils", "helpers", "common", "misc", "manager"}
    trees = [PACKAGE, ROOT / "tests", ROOT / "bench"]
    found = [str(p.relative_to(ROOT)) for tree in trees for p in tree.rglob("*.*") if p.stem in bad]
    assert not found


@pytest.mark.parametrize(
    ("file", "text", "found"),
    [
        ("core/a.pyx", "from mist.core.packet cimport Packet\ncimport mist.net.x\n", 1),
        ("core/a.pyx", "from mist.core.packet cimport (\n  Packet,\n)\nfrom mist.formats.tracks import A", 1),
        ("core/a.pyx", "import time\nfrom libc.time cimport time_t", 1),
        ("formats/a.py", "from mist import stream, errors", 1),
        ("formats/a.py", "from ..core import packet\nfrom . import tracks", 0),
        ("formats/a.py", "if TYPE_CHECKING:\n    from mist.net.http import X", 1),
        ("outputs/flv.py", "from mist.outputs.base import Output\nfrom mist.outputs.rtmp import X", 1),
        ("outputs/http/pages.py", "from mist.outputs.http.dispatch import X\nfrom mist.controller import api", 1),
        ("controller/a.py", "import mist.core.packet", 1),
        ("runtime/a.py", "from mist.inputs import rtmp", 1),
        ("gui/a.py", "", 1),
    ],
)
def test_the_reader_sees_what_it_must(file: str, text: str, found: int) -> None:
    path = PACKAGE / file
    assert len(problems_of(path, imports_of(path, text))) == found

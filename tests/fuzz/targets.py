"""Find the fuzz targets and their seeds."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
DATA = HERE.parent / "data"


@dataclass(frozen=True, slots=True)
class Target:
    """One engine's entry for hostile bytes. corpora: names of the folders of tests/data that hold its seeds."""

    name: str
    fuzz: Callable[[bytes], None]
    corpora: tuple[str, ...]

    def seeds(self) -> list[Path]:
        """Return the seed files, sorted by name."""
        found = [p for corpus in self.corpora for p in (DATA / corpus / "corpus").glob("*") if p.is_file()]
        return sorted(found, key=lambda path: path.name)


def load_targets(only: str | None = None) -> list[Target]:
    """Import every tests/fuzz/fuzz_NAME.py, or the one called only."""
    targets = []
    for path in sorted(HERE.glob("fuzz_*.py")):
        name = path.stem.removeprefix("fuzz_")
        if only in (None, name):
            module = importlib.import_module(f"tests.fuzz.{path.stem}")
            targets.append(Target(name, module.fuzz, tuple(getattr(module, "CORPORA", (name,)))))
    return targets

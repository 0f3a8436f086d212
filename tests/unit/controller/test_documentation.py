"""docs/configuration.md names every key that the configuration has."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from mist.controller import schema
from mist.controller.reference import reference

TEXT = (Path(__file__).parents[3] / "docs/configuration.md").read_text()
NAMED = set(re.findall(r"`([A-Za-z_]+)`", TEXT))
DOCUMENTED = (
    schema.Document, schema.Server, schema.ControllerAddress, schema.ProtocolEntry, schema.Memory, schema.Location,
    schema.TriggerHandler, schema.Account, schema.AccountKey, schema.Tls, schema.Stream, schema.ProcessEntry, schema.Bandwidth,
)  # fmt: skip


@pytest.mark.parametrize("section", DOCUMENTED, ids=lambda section: section.__name__)
def test_every_key_is_documented(section: type[schema.Section]) -> None:
    assert set(section.model_fields) - NAMED == set()


def test_defaults_in_the_tables_are_true() -> None:
    """A default that is a number or a word in a table is the one of the schema."""
    rows = re.findall(r"^\| `(\w+)` \| `?([\w.]+)`? \|", TEXT, re.M)
    fields = {**schema.Server.model_fields, **schema.Stream.model_fields, **schema.Memory.model_fields}
    checked = [(key, told) for key, told in rows if key in fields and (told.isdigit() or told in ("LOG", "refuse"))]
    assert len(checked) > 15
    assert [(key, told) for key, told in checked if str(fields[key].default) != told and key != "debug"] == []


def test_reference_of_the_calls_is_current() -> None:
    text = (Path(__file__).parents[3] / "docs/api.md").read_text()
    assert text == reference(), "python -m mist.controller.reference > docs/api.md"

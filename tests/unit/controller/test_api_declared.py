"""Requests made from the declarations: what they allow and what they do not, of every call; never an exception."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mist.controller.access import Origin
from mist.controller.accounts import permissions
from mist.controller.api import Api, ApiConnection
from mist.controller.calls import CALLS
from mist.controller.declaration import Call, adapter
from mist.controller.permissions import Caller
from mist.formats.json_text import dumps
from tests.fuzz.fuzz_api import NO_FILE
from tests.support.fake_control import ControllerUnderTest

DECLARED = [call for call in CALLS if not call.every]
NAMES = st.sampled_from(["live", "other", "live+x", "", "k" * 300, "\0", "ü"])
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False) | NAMES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=6,
)


def from_schema(schema: dict[str, Any], definitions: dict[str, Any]) -> st.SearchStrategy[Any]:
    """Return what a JSON schema allows, for those that the declarations have."""
    if "$ref" in schema:
        return from_schema(definitions[schema["$ref"].rpartition("/")[2]], definitions)
    if "anyOf" in schema:
        return st.one_of([from_schema(one, definitions) for one in schema["anyOf"]])
    kind = schema.get("type")
    if kind == "object":
        if "properties" in schema:
            known = {name: from_schema(part, definitions) for name, part in schema["properties"].items()}
            required = set(schema.get("required", ()))
            return st.fixed_dictionaries(
                {name: part for name, part in known.items() if name in required},
                optional={name: part for name, part in known.items() if name not in required},
            )
        members = schema.get("additionalProperties")
        inner = from_schema(members, definitions) if isinstance(members, dict) else ANYTHING
        return st.dictionaries(NAMES, inner, max_size=3)
    if kind == "array":
        if "prefixItems" in schema:
            return st.tuples(*(from_schema(part, definitions) for part in schema["prefixItems"])).map(list)
        return st.lists(from_schema(schema.get("items", {}), definitions), max_size=4)
    simple = {"string": NAMES, "integer": st.integers(), "number": st.integers() | st.floats(allow_nan=False)}
    return simple.get(str(kind), st.booleans() if kind == "boolean" else ANYTHING)


def requests_of(call: Call) -> st.SearchStrategy[Any]:
    schema = adapter(call.request).json_schema()
    return from_schema(schema, schema.get("$defs", {})) | ANYTHING


@pytest.mark.parametrize("call", DECLARED, ids=lambda call: call.name)
@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(st.data())
def test_call(call: Call, data: st.DataObject) -> None:
    """A reply that can be written; a request that does not fit, or that may not be made, changes nothing."""
    value = data.draw(requests_of(call))
    if call.name == "browse" or (call.name == "deletestreamsource" and "/" in json.dumps(value)):
        value = "/nowhere"

    async def act() -> None:
        control = ControllerUnderTest(NO_FILE, built_in={"live": {"source": "push://"}})
        control.services.connect("live", "FLV")
        control.second()
        api, store = Api(control.controller), control.controller.store

        async def saved() -> None:
            return

        store.save_beside = saved  # type: ignore[method-assign]
        before = json.dumps(store.document, sort_keys=True)
        reader = Caller("reader", "192.0.2.1", permissions([]))
        json.loads(dumps(await api.run({call.name: value}, ApiConnection(), Origin("192.0.2.1"), bearer=reader)))
        assert json.dumps(store.document, sort_keys=True) == before
        json.loads(dumps(await api.run({call.name: value}, ApiConnection(), Origin("127.0.0.1", local=True))))
        if call.problem(value) or not call.changes(value):
            assert json.dumps(store.document, sort_keys=True) == before
        json.dumps(store.config.snapshot())
        await asyncio.sleep(0)
        await control.controller.watch.close()

    asyncio.run(act())

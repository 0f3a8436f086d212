"""How a call of the control API is declared: its name, what it takes and answers, and who may use it."""

from __future__ import annotations

import types
import typing
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError

from mist.controller.permissions import Permission

if TYPE_CHECKING:
    from mist.controller.state import Command, Controller

MAX_TOLD = 300


Handler = Callable[["Controller", "Command"], Awaitable[None] | None]


def never(value: Any) -> bool:
    """Tell that a call changes nothing, whatever it is given."""
    return False


def always(value: Any) -> bool:
    """Tell that a call changes something, whatever it is given."""
    return True


def given_object(value: Any) -> bool:
    """Tell that a call changes something when it is given an object."""
    return isinstance(value, dict)


def given_members(value: Any) -> bool:
    """Tell that a call changes something when it is given an object with members; an empty one only asks."""
    return isinstance(value, dict) and bool(value)


def given_list(value: Any) -> bool:
    """Tell that a call changes something when it is given a list."""
    return isinstance(value, list)


@dataclass(frozen=True, slots=True)
class Call:
    """One call. It runs when a command has the key `name`, or in every command when `every` is set.

    request, reply: types that pydantic knows; a request that does not fit is not run. reply None: nothing is added, {} of
    a call with other names: {key: type}. needs: who may call it; to_change: who may, when `changes` says that a value
    changes something. late: runs after the calls that share the configuration's lock. Any call may wait; the commands
    that change something wait for it then, and no others. alone: a command that has it does nothing else, and its reply is
    empty. otherwise: fills the reply for a request that does not fit.
    """

    name: str
    run: Handler
    needs: Permission = Permission.READ
    request: Any = Any
    reply: Any = None
    changes: Callable[[Any], bool] = never
    to_change: Permission | None = None
    every: bool = False
    late: bool = False
    alone: bool = False
    otherwise: Handler | None = None

    def permission(self, value: Any) -> Permission:
        """Return what a caller needs for a value."""
        return self.to_change if self.to_change is not None and self.changes(value) else self.needs

    def problem(self, value: Any) -> str:
        """Return what is wrong with a request, "" when nothing is."""
        try:
            adapter(self.request).validate_python(value)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            place = ".".join(str(part) for part in first["loc"] if not str(part).startswith("function-"))
            return f"{self.name}{'.' + place if place else ''}: {first['msg']}"[:MAX_TOLD]
        return ""

    @property
    def told(self) -> str:
        """What the call does, in one sentence."""
        return (self.run.__doc__ or "").strip().splitlines()[0]


class Record(BaseModel):
    """An object in a request or a reply whose members are known; others are passed over."""

    model_config = ConfigDict(extra="ignore", coerce_numbers_to_str=True)


class Exact(BaseModel):
    """An object in a reply that has exactly these members."""

    model_config = ConfigDict(extra="forbid")


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    """Return what checks values of a type."""
    return TypeAdapter(kind)


# -- types in words ----------------------------------------------------------------------------------------------------

_WORDS = {str: "text", int: "int", float: "number", bool: "bool", dict: "object", list: "list", type(None): "null"}


def in_words(kind: Any) -> str:
    """Return a type as docs/api.md shows it: `[text, …]`, `{NAME: object}`, `text or null`."""
    if kind is Any:
        return "anything"
    origin, parts = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        words = [note for note in parts[1:] if isinstance(note, str)]
        return words[0] if words else in_words(parts[0])
    if origin is typing.Literal:
        return " or ".join(f'"{part}"' if isinstance(part, str) else str(part).lower() for part in parts)
    if origin in (typing.Union, types.UnionType):
        return " or ".join(dict.fromkeys(in_words(part) for part in parts))
    if origin is list:
        return f"[{in_words(parts[0])}, …]"
    if origin is tuple:
        return f"[{', '.join(in_words(part) for part in parts)}]"
    if origin is dict:
        return f"{{NAME: {in_words(parts[1])}}}"
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        members = [
            f"{field.alias or name}{'' if field.is_required() else '?'}: {in_words(field.annotation)}"
            for name, field in kind.model_fields.items()
        ]
        return "{" + ", ".join(members) + "}"
    return _WORDS.get(kind, str(kind))

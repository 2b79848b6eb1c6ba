"""Conversion of frozen dataclasses to JSON objects and back. The objects have the names and nesting of the fields.

A field with the metadata FLAT has its own fields in the enclosing object. `called(name)` gives a field another name in
JSON, such as a Python keyword.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from functools import cache
from typing import Annotated, Any, TypeVar, get_type_hints

from pydantic import BeforeValidator, TypeAdapter

FLAT = {"flat": True}
T = TypeVar("T")
# JSON has no NaN or infinity: null stands for them.
Float = Annotated[float, BeforeValidator(lambda value: math.nan if value is None else value)]


def called(name: str) -> dict[str, Any]:
    """Return the metadata of a field that has this name in JSON."""
    return {"name": name}


def encode(value: Any) -> dict[str, Any]:
    """Return the JSON object of a dataclass. Only dataclasses in its values are converted."""
    found: dict[str, Any] = {}
    for one in fields(value):
        content = plain(getattr(value, one.name))
        if one.metadata.get("flat"):
            found |= content
        else:
            found[one.metadata.get("name", one.name)] = content
    return found


def plain(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        return encode(value)
    if isinstance(value, dict):
        return {key: plain(item) for key, item in value.items()} if nested(value.values()) else value
    if isinstance(value, (list, tuple)):
        return [plain(item) for item in value] if nested(value) else value
    return value


def nested(values: Any) -> bool:
    """Whether these values, which have one type, may contain dataclasses."""
    return any(is_dataclass(value) or isinstance(value, (dict, list, tuple)) for value in values)


def decode(kind: type[T], value: Mapping[str, Any]) -> T:
    """Return the dataclass of a JSON object. Names without a field are ignored.

    Raises pydantic.ValidationError, a ValueError, if the object lacks a field without a default, or if a value has the
    wrong type.
    """
    of_kind: Any = kind
    found: T = adapter(of_kind).validate_python(given(kind, value))
    return found


def given(kind: Any, value: Mapping[str, Any]) -> dict[str, Any]:
    """Return the values of the object by field name."""
    found = {}
    for one in fields(kind):
        hint = hints(kind)[one.name]
        if one.metadata.get("flat"):
            found[one.name] = given(hint, value)
        elif (name := one.metadata.get("name", one.name)) in value:
            found[one.name] = value[name]
    return found


@cache
def hints(kind: type) -> dict[str, Any]:
    return get_type_hints(kind, include_extras=True)


@cache
def adapter(kind: Any) -> TypeAdapter[Any]:
    return TypeAdapter(kind)

"""Writes JSON with null in place of NaN and infinite floats, which JSON cannot hold."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, **options: Any) -> str:
    """Return `value` as JSON, with its infinite floats and NaNs as null. `options` are those of json.dumps.

    Raises TypeError for other values that JSON cannot hold.
    """
    return json.dumps(with_nulls(value), allow_nan=False, **options)


def with_nulls(value: Any) -> Any:
    """Return a copy of a value in which None replaces floats that are not finite, also in nested containers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {with_nulls(key): with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_nulls(item) for item in value]
    return value

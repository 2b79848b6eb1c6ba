"""The JSON that is written: what is no number is null there, as JSON has no word for it."""

from __future__ import annotations

import json
import math
from typing import Any


def json_text(value: Any, **options: Any) -> str:
    """`value` as JSON, its infinite floats and NaNs as null. `options` are those of json.dumps.

    Raises TypeError for what JSON cannot hold.
    """
    return json.dumps(with_nulls(value), allow_nan=False, **options)


def with_nulls(value: Any) -> Any:
    """A value with None for floats that are not finite, in nested containers."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, dict):
        return {with_nulls(key): with_nulls(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [with_nulls(item) for item in value]
    return value

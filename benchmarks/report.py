"""Code that all benchmarks share: it runs two sides alternately, and prints a case as one JSON object a line."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import PackageNotFoundError, version
from statistics import median
from typing import Any, TypeVar

from replay.json_text import json_text

T = TypeVar("T")

LIBRARIES = ("torch", "numpy", "envpool", "ray")
LOAD_AT_START = os.getloadavg()  # load of the machine without the benchmark's own


@dataclass(frozen=True)
class Result:
    """Result of one case. `ratio` above 1 is better for us; if the other side is a limit, it is the fraction of it."""

    benchmark: str
    case: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]  # least and greatest ratio over the repeats

    def print(self, **extra: Any) -> None:
        """Print one line of JSON, which ends with the `extra` fields of this benchmark."""
        machine = {"versions": versions(), "load": LOAD_AT_START, "cores": os.cpu_count()}
        print(json_text(rounded(asdict(self) | machine | extra)), flush=True)


def alternate(ours: Callable[[], T], theirs: Callable[[], T], repeats: int) -> tuple[list[T], list[T]]:
    """Run both sides in turn, ours first, `repeats` times each. Return the results of all calls, by side."""
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compare(
    benchmark: str, case: str, unit: str, ours: Sequence[float], theirs: Sequence[float], less_is_better: bool = False
) -> Result:
    """Return medians of both sides, and the median ratio of neighbouring repeats, which cancels slow drifts of load."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [b / a if less_is_better else a / b for a, b in pairs]
    return Result(benchmark, case, unit, median(ours), median(theirs), median(ratios), (min(ratios), max(ratios)))


def versions() -> dict[str, str | None]:
    """Return the versions of Python and of the libraries that decide speed; None for one that is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def rounded(value: Any) -> Any:
    """Return a value with its floats rounded to four significant digits, in nested containers too."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value

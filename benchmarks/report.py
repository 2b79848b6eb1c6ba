"""What every benchmark shares: running two sides alternately, and printing a case as one JSON object a line."""

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
LOAD_AT_START = os.getloadavg()  # what was running before the benchmark added to it


@dataclass(frozen=True)
class Result:
    """One case. `ratio` above 1 is better for us; where the other side is a limit, it is the fraction of the limit."""

    benchmark: str
    case: str
    unit: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]  # least and greatest ratio over the repeats

    def print(self, **extra: Any) -> None:
        """One line of JSON, ending with `extra` fields that only this benchmark has."""
        machine = {"versions": versions(), "load": LOAD_AT_START, "cores": os.cpu_count()}
        print(json_text(rounded(asdict(self) | machine | extra)), flush=True)


def alternate(ours: Callable[[], T], theirs: Callable[[], T], repeats: int) -> tuple[list[T], list[T]]:
    """Run both sides in turn, ours first, `repeats` times each; what each call returned, by side."""
    pairs = [(ours(), theirs()) for _ in range(repeats)]
    return [pair[0] for pair in pairs], [pair[1] for pair in pairs]


def compare(
    benchmark: str, case: str, unit: str, ours: Sequence[float], theirs: Sequence[float], less_is_better: bool = False
) -> Result:
    """Medians of both sides and the median of the ratios of neighbouring repeats, which cancels slow drifts of load."""
    pairs = list(zip(ours, theirs, strict=True))
    ratios = [b / a if less_is_better else a / b for a, b in pairs]
    return Result(benchmark, case, unit, median(ours), median(theirs), median(ratios), (min(ratios), max(ratios)))


def versions() -> dict[str, str | None]:
    """Versions of what decides speed; None for what is not installed."""
    found: dict[str, str | None] = {"python": platform.python_version()}
    for name in LIBRARIES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found


def rounded(value: Any) -> Any:
    """Floats to four significant digits, in nested containers."""
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [rounded(item) for item in value]
    return value

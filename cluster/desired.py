"""How many actors of each benchmark a run is to have: a file in its folder that `brc scale` writes."""

from __future__ import annotations

import json
import os
from pathlib import Path

FILE = "desired_actors.json"


class Desired:
    """The run's side. Begins with what the configuration says, whatever was asked of the run before."""

    def __init__(self, folder: Path, counts: dict[str, int]) -> None:
        self.folder = folder
        self.counts = counts
        write(folder, counts)

    def changed(self) -> dict[str, int] | None:
        """What is asked for, if that is not what it was."""
        counts = read(self.folder)
        if counts == self.counts:
            return None
        self.counts = counts
        return counts


def read(folder: Path) -> dict[str, int]:
    """Actors by benchmark, as last asked for."""
    counts: dict[str, int] = json.loads((folder / FILE).read_text())
    return counts


def write(folder: Path, counts: dict[str, int]) -> None:
    """Ask for so many; at once or not at all."""
    temporary = folder / f"{FILE}.{os.getpid()}"
    temporary.write_text(json.dumps(counts))
    temporary.rename(folder / FILE)

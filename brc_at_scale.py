"""Where the `brc` command begins: refuses to go on where Python finds another's module in the place of one of ours.

The names of our packages are common words, so a file such as replay.py on PYTHONPATH may hide one. The name of this
module is nobody else's, so this is always reached.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("actors", "cluster", "dashboards", "learner", "replay")


def main() -> int:
    """Returns the exit code, 2 for a package that is hidden, 130 after Ctrl-C."""
    hidden = complaint()
    if hidden:
        print(f"brc: {hidden}", file=sys.stderr)
        return 2
    code = 1  # of an exception
    try:
        from cluster.cli.leaving import leave_in_time

        try:
            from cluster.cli.main import main as brc

            code = brc()
        except KeyboardInterrupt:
            code = 130
        except SystemExit as error:
            code = error.code if isinstance(error.code, int) else int(error.code is not None)
            raise
        finally:
            leave_in_time(code)
    except KeyboardInterrupt:
        return 130
    return code


def complaint() -> str:
    """Says in a sentence what hides one of our packages, or is "". Nothing is imported for it."""
    here = Path(__file__).resolve().parent
    for name in PACKAGES:
        found = find_spec(name)
        if found is None:
            return f"its package {name} is missing from {here}: install it again"
        place = Path(found.origin or next(iter(found.submodule_search_locations or [""]))).resolve()
        if here / name not in (place, place.parent):
            folder = (place.parent if place.name == "__init__.py" else place).parent
            return (
                f"{place} is found where its own package {name} should be: rename it, or take {folder} off PYTHONPATH "
                "or call brc from another folder"
            )
    return ""

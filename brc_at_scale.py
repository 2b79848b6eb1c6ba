"""Entry point of the `brc` command. It refuses to start when another module hides one of our packages.

The names of our packages are common words, so a file such as replay.py on PYTHONPATH may hide a package. The name of
this module is unique, so Python always finds this module.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from pathlib import Path

PACKAGES = ("actors", "cluster", "dashboards", "learner", "replay")


def main() -> int:
    """Run the command. Return its exit code: 2 for a hidden package, 130 after Ctrl-C."""
    hidden = complaint()
    if hidden:
        print(f"brc: {hidden}", file=sys.stderr)
        return 2
    code = 1  # the exit code after an exception
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
    """Return a sentence that says what hides one of our packages, or "". Import none of them."""
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

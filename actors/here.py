"""The folder that `brc` was called in: the modules and files of environments are found there, in every process.

Ray starts processes in other folders, and what it puts on sys.path comes before all that is installed. So the folder is
named in the environment, and is the last that is looked in: a file there hides nothing.
"""

from __future__ import annotations

import os
import sys
from functools import cache

CALLED_IN = "BRC_CALLED_IN"


def call_here() -> None:
    """Note the current folder for this process and those that it starts. Raises FileNotFoundError if it is gone."""
    os.environ[CALLED_IN] = os.getcwd()
    look_in(os.environ[CALLED_IN])
    enter()


@cache
def enter() -> None:
    """Have this process, if it was started elsewhere, be where `brc` was called. An environment may leave from there,
    so this is done once. On another machine there may be no such folder."""
    folder = os.environ.get(CALLED_IN, "")
    if os.path.isdir(folder):
        look_in(folder)
        os.chdir(folder)


def look_in(folder: str) -> None:
    """Have Python look in a folder for what it finds nowhere else."""
    if folder not in sys.path:
        sys.path.append(folder)

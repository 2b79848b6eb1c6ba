"""The folder that `brc` was called in: the modules and files of environments are found there, in every process.

Ray starts processes in other folders, and what it puts on sys.path comes before all that is installed. So the folder is
named in the environment, and is the last that is looked in: a file there hides nothing.
"""

from __future__ import annotations

import os
import sys

CALLED_IN = "BRC_CALLED_IN"


def call_here() -> None:
    """Note the current folder for this process and those that it starts. Raises FileNotFoundError if it is gone."""
    os.environ[CALLED_IN] = os.getcwd()
    enter()


def enter() -> None:
    """Have this process be where `brc` was called, and find modules there: for an environment that is about to be made,
    wherever others have gone. On another machine there may be no such folder."""
    folder = os.environ.get(CALLED_IN, "")
    if not os.path.isdir(folder):
        return
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.append(folder)

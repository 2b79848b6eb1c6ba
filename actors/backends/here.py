"""The folder in which `brc` was called: every process finds the modules and files of environments there.

Ray starts processes in other folders, and puts its own paths on sys.path before installed packages. So an environment
variable names the folder, and the folder comes last on sys.path: a file in it hides no other module.
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
    """Change to the folder where `brc` was called, and find modules there. It is called before an environment is made,
    because other environments may have changed the folder. Another machine may lack the folder: then do nothing."""
    folder = os.environ.get(CALLED_IN, "")
    if not os.path.isdir(folder):
        return
    os.chdir(folder)
    if folder not in sys.path:
        sys.path.append(folder)

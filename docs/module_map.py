"""`python docs/module_map.py`: a map of all modules, made of the first lines of their docstrings; docs/modules.md."""

from __future__ import annotations

import ast
from pathlib import Path

ROOT = Path(__file__).parent.parent
PACKAGES = ("learner", "actors", "replay", "cluster", "dashboards", "benchmarks")
HEAD = """# Modules

Every module, and what it is. This page is written by `make docs` from the first line of each docstring; edit those.
Packages import downwards: `cluster`, `dashboards`, `actors`, `learner`, `replay`; `make lint` holds
them to it.
"""


def first_line(file: Path) -> str:
    """What a module is. Raises ValueError for one that does not say."""
    text = ast.get_docstring(ast.parse(file.read_text()))
    if not text:
        raise ValueError(f"{file.relative_to(ROOT)} has no docstring: say in its first line what it is")
    return " ".join(text.split("\n\n")[0].split())


def page() -> str:
    """The whole map, a section for each folder."""
    parts = [HEAD]
    for package in PACKAGES:
        for folder in sorted({file.parent for file in (ROOT / package).rglob("*.py")}):
            modules = sorted(file for file in folder.glob("*.py") if file.name not in ("__init__.py", "__main__.py"))
            parts.append(f"## {folder.relative_to(ROOT)}/\n\n{first_line(folder / '__init__.py')}\n")
            if modules:
                rows = "\n".join(f"| `{file.stem}` | {first_line(file).replace('|', '/')} |" for file in modules)
                parts.append(f"| module | what it is |\n|---|---|\n{rows}\n")
    return "\n".join(parts)


if __name__ == "__main__":
    print(page(), end="")

"""The requirements in pyproject.toml: all imported packages, and dm_control without labmaze."""

from __future__ import annotations

import ast
import sys
import tomllib
from importlib import metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from actors.benchmarks.catalogue import BACKENDS

ROOT = Path(__file__).parents[2]
OURS = {"actors", "benchmarks", "cluster", "dashboards", "docs", "examples", "learner", "replay", "tests"}
# Modules of packages that are installed separately. The code looks for them before it imports them. Triton comes with
# torch for CUDA, in the version that this torch needs.
APART = {"humanoid_bench", "dex_envs", "gymnasium_robotics", "torchrl", "tensordict", "cpprb", "triton", "jax", "brax"}
APART |= {"huggingface_hub"}


def requirements(*extras: str) -> list[Requirement]:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    lines = [*project["dependencies"], *(line for extra in extras for line in project["optional-dependencies"][extra])]
    return [Requirement(line) for line in lines]


@pytest.mark.parametrize("package", sorted(OURS))
def test_what_is_imported_is_named_in_pyproject(package: str) -> None:
    """A package that is installed only for another package disappears when that package no longer requires it."""
    listed = requirements(*["test"] if package == "tests" else ["aws", "gcp", "wandb", "demonstrations", "sweep"])
    named = {canonicalize_name(one.name) for one in listed}
    brought = metadata.packages_distributions()
    for file in sorted((ROOT / package).rglob("*.py")):
        for module in modules(ast.parse(file.read_text())) - set(sys.stdlib_module_names) - OURS - APART:
            if (ROOT / f"{module}.py").exists():  # brc_at_scale.py, where `brc` begins
                continue
            distributions = {canonicalize_name(name) for name in brought.get(module, ())}
            assert distributions & named, (
                f"{file.relative_to(ROOT)} imports {module}, which pyproject.toml does not name"
            )


def modules(tree: ast.AST) -> set[str]:
    """Return the top-level names of the modules that a file imports."""
    found: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found


@pytest.mark.parametrize("python", ["3.11", "3.12", "3.13", "3.14"])
def test_what_dm_control_needs_is_asked_for_without_labmaze(python: str) -> None:
    """labmaze has no wheel for Python 3.13 and later."""
    wanted = [one for one in requirements() if one.marker is None or one.marker.evaluate({"python_version": python})]
    names = {canonicalize_name(one.name) for one in wanted}
    assert "labmaze" not in names and ("dm-control" in names) == (python in ("3.11", "3.12"))
    needs = [Requirement(line) for line in metadata.requires("dm_control") or ()]
    assert {canonicalize_name(one.name) for one in needs if one.marker is None} - names == {"labmaze"}


def test_the_command_for_dm_control_is_of_the_version_that_is_tested() -> None:
    pinned = [line for line in (ROOT / "constraints.txt").read_text().splitlines() if line.startswith("dm_control")]
    assert BACKENDS["dm_control"][1] == f"pip install --no-deps {pinned[0]}"

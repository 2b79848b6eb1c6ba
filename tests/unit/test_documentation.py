"""Everything that the documentation names exists: options, presets, commands, make targets, files."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest

from actors.benchmarks.catalogue import resolve, suites
from cluster.cli import main as cli
from cluster.cli.configuration_docs import markdown, sections
from cluster.cli.train import asked, configuration
from cluster.config.presets import PRESETS
from cluster.preflight.validation import check_bounds
from docs import module_map

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


def code(text: str) -> list[str]:
    """Return the indented lines and the inline code of a page, which a reader may type."""
    indented = [line.strip() for line in text.splitlines() if line.startswith("    ")]
    prose = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    return indented + re.findall(r"`([^`\n]+)`", prose)


def examples() -> list[str]:
    """Return the `brc train` command lines of the README with a real preset."""
    found = [line for line in code(README) if line.startswith("brc train ") and " --config " not in line]
    return [line for line in found if line.split()[2] not in ("PRESET", "dogs-small")]


def test_configuration_page_is_what_the_generator_prints() -> None:
    written = (ROOT / "docs" / "configuration.md").read_text()
    assert written == markdown(), "docs/configuration.md is out of date: run `make docs`"


def test_the_map_has_every_module() -> None:
    """The map is made of the first lines of the modules' docstrings."""
    written = (ROOT / "docs" / "modules.md").read_text()
    assert written == module_map.page(), "docs/modules.md is out of date: run `make docs`"
    assert all(f"| `{file.stem}` |" in written for file in ROOT.glob("cluster/*/*.py") if file.stem != "__init__")


def test_every_option_is_documented() -> None:
    undocumented = [option.path for part in sections() for option in part.options if not option.meaning]
    assert not undocumented, f"fields without a docstring below them: {undocumented}"


def test_presets_of_the_readme() -> None:
    named = set(re.findall(r"\bPRESET=([\w-]+)", README)) | {line.split()[2] for line in examples()}
    table = README.split("| preset | what it is |")[1].split("\n\n")[0]
    named |= {name for cell in re.findall(r"^\| (`.*?) \|", table, re.M) for name in re.findall(r"`([\w-]+)`", cell)}
    assert named == set(PRESETS)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_commands_exist(page: Path) -> None:
    known = set(re.findall(r"^  brc ([a-z-]+)", cli.USAGE, re.M))
    named = {match for line in code(page.read_text()) for match in re.findall(r"\bbrc ([a-z-]+)", line)}
    assert named <= known, f"{page.name} names brc {sorted(named - known)}"


def test_readme_names_every_command() -> None:
    known = set(re.findall(r"^  brc ([a-z-]+)", cli.USAGE, re.M))
    assert known <= {match for line in code(README) for match in re.findall(r"\bbrc ([a-z-]+)", line)}


@pytest.mark.parametrize("line", examples())
def test_training_examples_parse(line: str) -> None:
    preset, options = asked(shlex.split(line.partition(" > ")[0])[2:])
    config = configuration(options)
    assert preset in PRESETS
    check_bounds(config)
    assert resolve(config.tasks)


def test_suites_of_the_readme() -> None:
    named = {match for line in code(README) for match in re.findall(r"\bbrc suites ([a-z][\w-]*)", line)}
    assert named <= set(suites())


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_make_targets_exist(page: Path) -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = set(re.findall(r"^([a-z][a-z-]*):", makefile, re.M))
    named: set[str] = set()
    for line in code(page.read_text()):
        if line.startswith("make "):
            named |= {word for word in shlex.split(line)[1:] if "=" not in word}
    assert named <= targets, f"{page.name} names make {sorted(named - targets)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_exist(page: Path) -> None:
    known = set(re.findall(r"`(--[\w.-]+)`", markdown())) | {"--episodes", "--logdir", "--reference", "--keep"}
    known |= {"--output", "--apart", "--version", "--seeds", "--at-once"}  # of `brc report`, `brc study` and `brc`
    known |= {"--config", "--dry-run", "--print-config"}  # of `brc train`
    known |= {"--trials", "--port", "--checkpoint", "--no-checkpoint"}  # of `brc sweep`, `watch` and `pull`
    known |= {"--to", "--as-task", "--only-successes", "--format", "--replay"}  # of `brc record`
    # Benchmarks have other options.
    lines = [line for line in code(page.read_text()) if "-m benchmarks" not in line and "gpu-proof" not in line]
    named = {match for line in lines for match in re.findall(r"(--[a-z][\w.-]*)", line)}
    assert named - {"--help"} <= known, f"{page.name} names {sorted(named - known)}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", page.read_text()):
        if "://" in target:
            continue
        path, _, anchor = target.partition("#")
        file = page.parent / path if path else page
        assert file.exists(), f"{page.name} links to {target}"
        if anchor:
            titles = re.findall(r"^#+ (.+)$", file.read_text(), re.M)
            assert anchor in {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}, target

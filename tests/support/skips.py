"""Reasons for which a test may be skipped. Where CI is set, every other skip fails, so that no test is left out unseen.

These are hooks of pytest, which tests/conftest.py imports. `.ci/run` installs the packages that the other tests need.
"""

from __future__ import annotations

import os
import re
from collections.abc import Generator

import pytest

# Patterns of reasons. A machine with Python, a compiler and Debian's packages may lack each of these things.
MAY_SKIP = (
    r"needs a GPU",
    r"needs humanoid_bench\b",  # it is in no package index
    r"needs dex_envs\b",  # it is in no package index either
    r"Error opening file",  # a checkout of one of these two without its large files
    r"needs a machine without systemd",
    r"needs jax\b",  # large, and wanted by one test
    r"needs shared memory",
    r"needs root, buildah and mmdebstrap",  # `make proofs` builds an image where they are
)


def told(report: pytest.TestReport | pytest.CollectReport) -> str | None:
    """Return why the report of a skip counts as a failure; None without CI, for other reports and for allowed skips."""
    if (
        os.environ.get("CI", "").lower() in ("", "0", "false")
        or report.outcome != "skipped"
        or hasattr(report, "wasxfail")
    ):
        return None
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if any(re.search(pattern, reason) for pattern in MAY_SKIP):
        return None
    return f"{report.nodeid}: not to be skipped in CI, and was: {reason.removeprefix('Skipped: ')}"


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if (why := told(report)) is not None:
        report.outcome, report.longrepr = "failed", why
    return report


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_make_collect_report() -> Generator[None, pytest.CollectReport, pytest.CollectReport]:
    report = yield
    if (why := told(report)) is not None:
        report.outcome, report.longrepr = "failed", why
    return report

"""Tests of skips where CI=true: a skip fails unless its reason is allowed."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

KINDS = """
import unittest
import pytest

@pytest.mark.skipif(True, reason="needs {0}")
def test_by_mark(): pass

def test_by_call(): pytest.skip("needs {0}")

@pytest.fixture
def there(): pytest.skip("needs {0}")

def test_by_fixture(there): pass

def test_by_import(): pytest.importorskip("no_such_module", reason="needs {0}")

@pytest.mark.parametrize("value", [pytest.param(1, marks=pytest.mark.skip(reason="needs {0}"))])
def test_by_parameter(value): pass

class TestOld(unittest.TestCase):
    @unittest.skip("needs {0}")
    def test_by_unittest(self): pass

@pytest.mark.xfail(reason="is wrong")
def test_that_is_known_to_fail(): assert False

def test_that_passes(): pass
"""
WHOLE_FILES = {
    "call": 'import pytest\npytest.skip("needs {0}", allow_module_level=True)\n',
    "import": 'import pytest\npytest.importorskip("no_such_module", reason="needs {0}")\n',
    "mark": 'import pytest\npytestmark = pytest.mark.skip(reason="needs {0}")\ndef test_it(): pass\n',
}


def run_pytest(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *words]
    return subprocess.run(command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, timeout=200)


def run_file(tmp_path: Path, text: str, ci: str) -> subprocess.CompletedProcess[str]:
    file = tmp_path / "test_some.py"
    file.write_text(text)
    return run_pytest("-p", "tests.support.skips", "-c", os.devnull, "--rootdir", str(tmp_path), str(file), CI=ci)


@pytest.mark.parametrize(
    ("ci", "needed", "summary", "code"),
    [
        ("true", "redis-server", "3 failed, 1 passed, 1 xfailed, 3 errors", 1),  # errors are skips before a test's call
        ("true", "a GPU", "1 passed, 6 skipped, 1 xfailed", 0),
        ("", "redis-server", "1 passed, 6 skipped, 1 xfailed", 0),
    ],
)
def test_each_way_to_skip(tmp_path: Path, ci: str, needed: str, summary: str, code: int) -> None:
    done = run_file(tmp_path, KINDS.format(needed), ci)
    assert summary in done.stdout and done.returncode == code, done.stdout
    if code:
        assert done.stdout.count("not to be skipped in CI, and was: needs redis-server") >= 6, done.stdout


@pytest.mark.parametrize("way", WHOLE_FILES)
def test_each_way_to_skip_a_whole_file(tmp_path: Path, way: str) -> None:
    text = WHOLE_FILES[way]
    lacking, allowed = (
        run_file(tmp_path, text.format("wandb"), "true"),
        run_file(tmp_path, text.format("a GPU"), "true"),
    )
    assert lacking.returncode in (1, 2) and "and was: needs wandb" in lacking.stdout, lacking.stdout
    assert allowed.returncode in (0, 5) and "1 skipped" in allowed.stdout, allowed.stdout


def test_our_tests_do_not_skip_what_is_installed_for_them(tmp_path: Path) -> None:
    """A missing program fails our test in CI. PATH is empty, as on a machine without programs."""
    done = run_pytest("tests/integration/test_prometheus.py", CI="true", PATH=str(tmp_path))
    assert done.returncode == 1 and "and was: needs Prometheus and its promtool" in done.stdout, done.stdout
    assert "skipped" not in done.stdout.splitlines()[-1]

"""Films: written by a process of their own, which may die of it."""

from __future__ import annotations

import ctypes
from pathlib import Path

import imageio.v3 as imageio
import pytest

from actors.film import film_apart
from cluster.plan import make_plan
from replay.policy_store import PolicyMessage
from tests import tiny


def message() -> PolicyMessage:
    import torch

    from learner.networks import Policy
    from learner.publishing import Outgoing

    torch.manual_seed(0)
    return Outgoing(Policy(make_plan(tiny.config()).networks), None, 7).message()


def test_an_episode_is_filmed_and_returns_what_it_says(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        pytest.skip("needs libEGL: apt install libegl1")
    file = tmp_path / "film.gif"
    done = film_apart(make_plan(tiny.config()).evaluator(), 0, message(), 100, file)
    assert (done.trouble, done.length) == ("", 1000) and 0.0 < done.episode_return < 1000.0
    assert imageio.imread(file).shape == (10, 240, 320, 3)


def test_a_renderer_that_fails_is_told_of_and_does_no_harm(tmp_path: Path) -> None:
    done = film_apart(make_plan(tiny.config()).evaluator(), 0, message(), 100, tmp_path / "nowhere" / "film.gif")
    assert "exit code 1: FileNotFoundError" in done.trouble or "killed by signal" in done.trouble

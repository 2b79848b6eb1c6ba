"""Tests of films: a separate process writes each film, because drawing may kill that process."""

from __future__ import annotations

import ctypes
from dataclasses import replace
from pathlib import Path

import imageio.v3 as imageio
import numpy as np
import pytest

from actors.backends import gl
from actors.backends.gl import NoRenderer
from actors.evaluator import EvaluatorSpec
from actors.film import film_apart
from cluster.errors import ConfigError
from cluster.plan.plan import Plan, make_plan
from cluster.preflight.validation import check
from replay.policy_store import PolicyMessage
from tests.support import tiny


def message(plan: Plan) -> PolicyMessage:
    import torch

    from learner.networks.modules import Policy
    from learner.state.publishing import Outgoing

    torch.manual_seed(0)
    return Outgoing(Policy(plan.networks), None, 7).message()


def filmed(*tasks: str) -> tuple[EvaluatorSpec, int, PolicyMessage]:
    """Return an evaluator's specification, the index of its first task, and a policy."""
    plan = make_plan(tiny.config(tasks=tasks) if tasks else tiny.config())
    return plan.evaluator(), 0, message(plan)


def test_an_episode_is_filmed_and_returns_what_it_says(tmp_path: Path) -> None:
    try:
        ctypes.CDLL("libEGL.so.1")
    except OSError:
        pytest.skip("needs libEGL: apt install libegl1")
    file = tmp_path / "film.gif"
    done = film_apart(*filmed(), 100, file)
    assert (done.trouble, done.length) == ("", 1000) and 0.0 < done.episode_return < 1000.0
    assert imageio.imread(file).shape == (10, 240, 320, 3)


def test_a_renderer_that_fails_is_told_of_and_does_no_harm(tmp_path: Path) -> None:
    done = film_apart(*filmed(), 100, tmp_path / "nowhere" / "film.gif")
    assert "exit code 1: FileNotFoundError" in done.trouble or "killed by signal" in done.trouble


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("Undrawn", "its renderer lacks a package (crayons is not installed): what gymnasium's own renderers need"),
        ("Invisible", "it draws no pictures: with render_mode rgb_array, render gives none"),
        ("Unseen", "it draws no pictures: it has no render method"),
        ("Modeless", "it takes no render_mode: give it one"),
        ("Painted_sizes", "its pictures have several sizes: (12, 16) and (13, 16)"),
        ("Painted_exits", "exit code 0: it said nothing"),
    ],
)
def test_what_a_renderer_lacks_is_named(tmp_path: Path, kind: str, said: str) -> None:
    done = film_apart(*filmed(f"gymnasium/tests.support.odd_envs_pictures:{kind}-v0"), 1, tmp_path / "film.gif")
    assert done.trouble.startswith(said) and not list(tmp_path.iterdir())


@pytest.mark.parametrize("how", ["grey", "flat", "clear", "list", "floats", "bright", "wide", "deep", "same"])
def test_pictures_of_every_kind_are_filmed(tmp_path: Path, how: str) -> None:
    """All pictures are filmed, also if an environment draws each into the same array."""
    file = tmp_path / "film.gif"
    done = film_apart(*filmed(f"gymnasium/tests.support.odd_envs_pictures:Painted_{how}-v0"), 5, file)
    frames = imageio.imread(file)
    assert (done.trouble, frames.shape) == ("", (4, 12, 16, 3))
    assert np.abs(frames.mean(axis=(1, 2, 3)) - np.array([0, 5, 10, 15]) * 255 / 40).max() < 3


def test_training_that_would_fail_of_it_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    config = tiny.config()
    check(config)  # envpool does not read MUJOCO_GL
    with pytest.raises(ConfigError, match=r"MUJOCO_GL=nonsense is no renderer.*leave it unset"):
        check(replace(config, actors=replace(config.actors, backend="dm_control")))


def test_an_opengl_that_cannot_be_loaded_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MUJOCO_GL", "nonsense")
    done = film_apart(*filmed(), 100, tmp_path / "film.gif")
    assert done.trouble == "MUJOCO_GL=nonsense is no renderer: use egl, osmesa, or glfw where there is a display"
    for display in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(display, raising=False)
    with pytest.raises(NoRenderer, match="MUJOCO_GL=glfw cannot be loaded: it needs a display"):
        gl.usable("glfw")


def test_the_opengl_that_is_there_is_taken_and_the_one_that_is_not_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(gl.LIBRARIES, "egl", ("libnowhere.so.1", "libegl1"))
    monkeypatch.setitem(gl.LIBRARIES, "osmesa", ("libc.so.6", "libosmesa6"))
    assert gl.usable("") == gl.usable("disabled") == "osmesa"
    with pytest.raises(
        NoRenderer, match=r"libnowhere\.so\.1 is not found, install Debian's libegl1, or use MUJOCO_GL=osm"
    ):
        gl.usable("egl")
    monkeypatch.setitem(gl.LIBRARIES, "osmesa", ("libnowhere.so.2", "libosmesa6"))
    with pytest.raises(NoRenderer, match="no OpenGL is found to draw with: install Debian's libegl1, or libosmesa6"):
        gl.usable("disabled")

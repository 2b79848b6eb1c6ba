"""Films of episodes, in a process of their own for each task: a renderer that aborts takes nothing else with it."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import numpy as np

from actors import gl
from actors.actor import make_policy, room
from actors.closing import close_in_time
from actors.environments import Filmable, copy_seed, make_filmable
from actors.evaluator import EVALUATION_STREAM, EvaluatorSpec
from actors.gl import NoRenderer
from replay.policy_store import PolicyMessage

FRAMES_PER_SECOND = 25
MOST_FRAMES = 1500  # a minute; an episode of Atari may last half an hour
NO_RENDERER = 3  # exit code
DRAWN_OTHERWISE = ("atari", "gymnasium")  # benchmarks whose tasks need no OpenGL, or not all of them
INSTALL = "what gymnasium's own renderers need comes with pip install -e '.[film]'"
MARK = b"\0filmed\0"  # between what libraries print and what is answered


class Filmed(NamedTuple):
    """An episode that was filmed, or why it was not."""

    episode_return: float
    length: int
    trouble: str = ""


def film(spec: EvaluatorSpec, task: int, message: PolicyMessage, every: int, file: Path) -> Filmed:
    """Play one episode of a task with the deterministic policy and write every so many frames of it as a GIF,
    the first minute at most."""
    environment = make_filmable(spec.tasks[task], copy_seed(spec.seed, EVALUATION_STREAM, task))
    num_actions = np.array([spec.tasks[task].num_actions])
    policy = make_policy(message, np.array([task]), num_actions, spec.most_actions)
    inputs, total, length, over = environment.reset(), 0.0, 0, False
    observations = room(spec.tasks[task : task + 1], 1, spec.observation_size)
    camera = Camera(environment)
    while not over:
        if length % every == 0 and len(camera.frames) < MOST_FRAMES:
            camera.shoot()
        observations[:, : inputs.shape[1]] = inputs
        environment.send(policy.act(observations)[:, : spec.tasks[task].action_size])
        step = environment.recv()
        total, length = total + float(step.rewards[0]), length + 1
        is_last = length >= spec.tasks[task].episode_limit  # whatever its environment says
        inputs, over = step.next_inputs, bool(step.terminated[0] or step.truncated[0] or is_last)
    imageio.imwrite(file, np.stack(camera.frames), duration=1000 / FRAMES_PER_SECOND, loop=0)
    close_in_time([environment])
    return Filmed(total, length)


class Camera:
    """Takes frames of an environment, all of one size: (height, width, 3) uint8.

    Grey and transparent pictures are taken too, and of a list of them the last. Floats are parts of full light if the
    first picture has none above 1.
    """

    def __init__(self, environment: Filmable) -> None:
        self.environment = environment
        self.frames: list[np.ndarray] = []
        self.full = 255.0  # light

    def shoot(self) -> None:
        """Take a frame. Raises NoRenderer for an environment that gives no picture, or one of another size."""
        try:
            found = np.asarray(self.environment.frame())
        except NotImplementedError as error:
            raise NoRenderer("it draws no pictures: it has no render method") from error
        found = found[-1] if found.ndim == 4 and len(found) else found
        found = found[:, :, None] if found.ndim == 2 else found
        if found.ndim != 3 or found.shape[2] not in (1, 3, 4) or found.dtype.kind not in "buif":
            raise NoRenderer("it draws no pictures: with render_mode rgb_array, render gives none")
        if not self.frames and found.dtype.kind in "bf":
            self.full = 1.0 if np.nan_to_num(found).max(initial=0.0) <= 1.0 else 255.0
        elif found.dtype == np.uint16:
            self.full = 65535.0
        if self.full != 255.0 or found.dtype.kind == "f":
            found = np.nan_to_num(found.astype(np.float32)) * np.float32(255.0 / self.full)
        frame = np.empty((*found.shape[:2], 3), np.uint8)
        frame[:] = np.clip(found, 0, 255)[:, :, :3]
        if self.frames and frame.shape != self.frames[0].shape:
            sizes = f"{self.frames[0].shape[:2]} and {frame.shape[:2]}"
            raise NoRenderer(f"its pictures have several sizes: {sizes}")
        self.frames.append(frame)


def film_apart(spec: EvaluatorSpec, task: int, message: PolicyMessage, every: int, file: Path) -> Filmed:
    """`film` in a process that may die of it."""
    # Modules are found as here: -P leaves out the current folder, which -m puts first.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-P", "-m", "actors.film"],
        input=pickle.dumps((spec, task, message, every, file)),
        capture_output=True,
        env=environment,
        check=False,
    )
    _, mark, answer = done.stdout.rpartition(MARK)
    if mark and done.returncode == 0:
        return Filmed(*pickle.loads(answer))
    if mark and done.returncode == NO_RENDERER:
        return Filmed(0.0, 0, answer.decode())
    said = done.stderr.decode(errors="replace").strip().splitlines()
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Filmed(0.0, 0, f"{how}: {said[-1] if said else 'it said nothing'}")


def draw(spec: EvaluatorSpec, task: int, *rest: Any) -> Filmed:
    """`film`, with the OpenGL that is there. Raises NoRenderer for what the renderer lacks."""
    from gymnasium.error import DependencyNotInstalled

    what, trouble = spec.tasks[task], None
    try:
        os.environ["MUJOCO_GL"] = renderer = gl.usable(os.environ.get("MUJOCO_GL", ""))
        gl.load(renderer)
    except NoRenderer as error:
        if what.benchmark not in DRAWN_OTHERWISE:
            raise
        trouble = error
    try:
        return film(spec, task, *rest)
    except (ImportError, DependencyNotInstalled) as error:
        said = " ".join(str(error).split()).partition(", run ")[0]
        raise NoRenderer(f"its renderer lacks a package ({said}): {INSTALL}") from error
    except Exception as error:
        if isinstance(error, TypeError) and "render_mode" in str(error):
            raise NoRenderer("it takes no render_mode: give it one, and a render that returns pictures") from error
        if trouble is not None and "mujoco" in sys.modules:
            raise trouble from None
        raise


def main() -> None:
    try:
        answer, code = pickle.dumps(tuple(draw(*pickle.loads(sys.stdin.buffer.read())))), 0
    except NoRenderer as error:
        answer, code = str(error).encode(), NO_RENDERER
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)  # whatever threads there are
    sys.stdout.buffer.write(MARK + answer)
    sys.stdout.buffer.flush()
    os._exit(code)  # some renderers crash when they are taken down


if __name__ == "__main__":
    main()

"""Films episodes, each task in its own process: a renderer that aborts then ends nothing else."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import imageio.v3 as imageio
import numpy as np

from actors.actor import place, room
from actors.backends import gl
from actors.backends.gl import NoRenderer
from actors.benchmarks.catalogue import backend_of
from actors.camera import Camera
from actors.closing import close_in_time
from actors.environments import copy_seed, make_filmable
from actors.evaluator import EVALUATION_STREAM, EvaluatorSpec
from actors.policies.policy import make_policy
from replay.policy_store import PolicyMessage

FRAMES_PER_SECOND = 25
MOST_FRAMES = 1500  # a minute; an episode of Atari may last half an hour
INSTALL = "what gymnasium's own renderers need comes with pip install -e '.[film]'"
MARK = b"\0filmed\0"  # separates the answer from the output of libraries before it


class Filmed(NamedTuple):
    """A filmed episode; `trouble` says why it could not be filmed."""

    episode_return: float
    length: int
    trouble: str = ""


def film(
    spec: EvaluatorSpec, task: int, message: PolicyMessage, every: int, file: Path, tell: Callable[[Filmed], None]
) -> None:
    """Play one episode of a task with the deterministic policy. Write every `every`-th frame to a GIF, at most the
    first minute, then report with `tell`. The environment is closed last: some renderers crash when they are closed."""
    environment = make_filmable(spec.tasks[task], copy_seed(spec.seed, EVALUATION_STREAM, task))
    policy = make_policy(spec.acting, message, np.array([task]))
    inputs, total, length, over = environment.reset(), 0.0, 0, False
    observations = room(spec.tasks[task : task + 1], 1, spec.observation_size)
    camera = Camera(environment)
    while not over:
        if length % every == 0 and len(camera.frames) < MOST_FRAMES:
            camera.shoot()
        place(inputs, spec.tasks[task], observations, slice(1))
        environment.send(policy.act(observations)[:, : spec.tasks[task].action_size])
        step = environment.recv()
        total, length = total + float(step.rewards[0]), length + 1
        is_last = length >= spec.tasks[task].episode_limit  # even if its environment goes on
        inputs, over = step.next_inputs, bool(step.terminated[0] or step.truncated[0] or is_last)
    imageio.imwrite(file, np.stack(camera.frames), duration=1000 / FRAMES_PER_SECOND, loop=0)
    tell(Filmed(total, length))
    close_in_time([environment])


def film_apart(spec: EvaluatorSpec, task: int, message: PolicyMessage, every: int, file: Path) -> Filmed:
    """Film in a subprocess, which may die of an error in the renderer."""
    # Modules are found in the same places as here: -P leaves out the current folder, which -m puts first.
    environment = {"OMP_NUM_THREADS": "1"} | os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
    # Output goes to files: a process that the environment leaves running would hold pipes open.
    with tempfile.TemporaryFile() as out, tempfile.TemporaryFile() as errors:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "actors.film"],
            input=pickle.dumps((spec, task, message, every, file)),
            stdout=out,
            stderr=errors,
            env=environment,
            check=False,
        )
        for written in (out, errors):
            written.seek(0)
        shown, said = out.read(), errors.read()
    _, mark, answer = shown.rpartition(MARK)
    if mark:  # there is an answer: how the process ended does not matter
        return Filmed(*pickle.loads(answer))
    lines = said.decode(errors="replace").strip().splitlines()
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Filmed(0.0, 0, f"{how}: {lines[-1] if lines else 'it said nothing'}")


def draw(spec: EvaluatorSpec, task: int, *rest: Any) -> None:
    """Film with an OpenGL of this machine. Raises NoRenderer, which says what the renderer lacks."""
    from gymnasium.error import DependencyNotInstalled

    what, trouble = spec.tasks[task], None
    try:
        os.environ["MUJOCO_GL"] = renderer = gl.usable(os.environ.get("MUJOCO_GL", ""))
        gl.load(renderer)
    except NoRenderer as error:
        if not what.image and backend_of(what, spec.backend) != "gymnasium":  # these may need no OpenGL
            raise
        trouble = error
    try:
        film(spec, task, *rest)
    except (ImportError, DependencyNotInstalled) as error:
        said = " ".join(str(error).split()).partition(", run ")[0]
        raise NoRenderer(f"its renderer lacks a package ({said}): {INSTALL}") from error
    except Exception as error:
        if isinstance(error, TypeError) and "render_mode" in str(error):
            raise NoRenderer("it takes no render_mode: give it one, and a render that returns pictures") from error
        if trouble is not None and "mujoco" in sys.modules:
            raise trouble from None
        raise


def tell(filmed: Filmed) -> None:
    """Answer the process that asked for a film."""
    sys.stdout.buffer.write(MARK + pickle.dumps(tuple(filmed)))
    sys.stdout.buffer.flush()


def main() -> None:
    """Film the episode that stdin asks for, and exit without waiting for threads."""
    code = 0
    try:
        draw(*pickle.loads(sys.stdin.buffer.read()), tell)
    except NoRenderer as error:
        tell(Filmed(0.0, 0, str(error)))
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        code = 1
    os._exit(code)


if __name__ == "__main__":
    main()

"""Films of episodes, in a process of their own for each task: a renderer that aborts takes nothing else with it."""

from __future__ import annotations

import ctypes
import os
import pickle
import subprocess
import sys
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import imageio.v3 as imageio
import numpy as np

from actors.actor import make_policy, room
from actors.environments import copy_seed, make_filmable
from actors.evaluator import EVALUATION_STREAM, EvaluatorSpec
from replay.policy_store import PolicyMessage

FRAMES_PER_SECOND = 25
MOST_FRAMES = 1500  # a minute; an episode of Atari may last half an hour
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
    frames: list[np.ndarray] = []
    while not over:
        if length % every == 0 and len(frames) < MOST_FRAMES:
            frames.append(environment.frame())
        observations[:, : inputs.shape[1]] = inputs
        environment.send(policy.act(observations)[:, : spec.tasks[task].action_size])
        step = environment.recv()
        total, length = total + float(step.rewards[0]), length + 1
        is_last = length >= spec.tasks[task].episode_limit  # whatever its environment says
        inputs, over = step.next_inputs, bool(step.terminated[0] or step.truncated[0] or is_last)
    environment.close()
    imageio.imwrite(file, np.stack(frames), duration=1000 / FRAMES_PER_SECOND, loop=0)
    return Filmed(total, length)


def film_apart(spec: EvaluatorSpec, task: int, message: PolicyMessage, every: int, file: Path) -> Filmed:
    """`film` in a process that may die of it."""
    modules = {
        "PYTHONPATH": os.pathsep.join(sys.path)
    }  # found as here: -P leaves out the current folder, which -m puts first
    environment = {"MUJOCO_GL": "egl", "OMP_NUM_THREADS": "1"} | os.environ | modules
    done = subprocess.run(
        [sys.executable, "-P", "-m", "actors.film"],
        input=pickle.dumps((spec, task, message, every, file)),
        capture_output=True,
        env=environment,
        check=False,
    )
    if done.returncode == 0:
        return Filmed(*pickle.loads(done.stdout[done.stdout.rindex(MARK) + len(MARK) :]))
    said = done.stderr.decode(errors="replace").strip().splitlines()
    how = f"killed by signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
    return Filmed(0.0, 0, f"{how}: {said[-1] if said else 'it said nothing'}")


def main() -> None:
    with suppress(OSError):  # envpool aborts where no OpenGL is loaded before it renders
        ctypes.CDLL("libEGL.so.1", mode=ctypes.RTLD_GLOBAL)
    done = film(*pickle.loads(sys.stdin.buffer.read()))
    sys.stdout.buffer.write(MARK + pickle.dumps(tuple(done)))
    sys.stdout.buffer.flush()
    os._exit(0)  # some renderers crash when they are taken down


if __name__ == "__main__":
    main()

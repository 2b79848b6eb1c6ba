"""Small environments, each odd in its actions, its return values or its draws. Importing this registers them."""

from __future__ import annotations

import os
import random
import sys
import tempfile
import threading
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces


class Odd(gymnasium.Env[Any, Any]):
    """An environment of twenty steps an episode. It refuses actions outside its space, as many environments do."""

    observation_space: Any = spaces.Box(-np.inf, np.inf, (3,), np.float32)
    action_space: Any = spaces.Box(-1.0, 1.0, (2,), np.float32)

    def __init__(self, **_: Any) -> None:
        self.t = 0

    def observe(self) -> Any:
        return np.array([self.t / 20, np.sin(self.t), 1.0], np.float32)

    def pay(self) -> Any:
        return -float(self.t)

    def tell(self) -> Any:
        return {}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)
        self.t = 0
        return self.observe(), self.tell()

    def step(self, action: Any) -> Any:
        if not self.action_space.contains(action):
            raise ValueError(f"{action!r} is not in {self.action_space}")
        self.t += 1
        return self.observe(), self.pay(), self.t >= 20, False, self.tell()


class Newtons(Odd):
    action_space: Any = spaces.Box(np.array([-1000.0, 0.0], np.float32), np.array([1000.0, np.inf], np.float32))


class Switches(Odd):
    """Its actions are two switches, off or on."""

    action_space: Any = spaces.Box(0, 1, (2,), np.int64)


class OldReset(Odd):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class OldSignatures(Odd):
    """An environment with the interface of gym before 0.26, and with a `seed` method."""

    seeded = -1

    def seed(self, seed: int) -> None:
        self.seeded = seed

    def observe(self) -> Any:
        return np.array([self.t, self.seeded, self.np_random.random()])

    def reset(self) -> Any:  # type: ignore[override]
        self.t = 0
        return self.observe()

    def step(self, action: Any) -> Any:
        self.t += 1
        done, cut = self.t >= 10, self.t >= 10 and self.seeded % 2 == 1
        return self.observe(), 1.0, done, {"TimeLimit.truncated": True} if cut else {}


class NoInfo(Odd):
    def tell(self) -> Any:
        return None


class ArrayReward(Odd):
    def pay(self) -> Any:
        return np.array([-2.0])


class TwoRewards(Odd):
    def pay(self) -> Any:
        return np.array([1.0, 2.0])


class NoReward(Odd):
    def pay(self) -> Any:
        return None if self.t == 3 else 1


class WordReward(Odd):
    def pay(self) -> Any:
        return "high"


class Column(Odd):
    def observe(self) -> Any:
        return super().observe()[:, None].tolist()


class Short(Odd):
    def observe(self) -> Any:
        return super().observe()[:2]


class LateShort(Odd):
    """An environment whose observation lacks a number in one step of each episode."""

    def observe(self) -> Any:
        return super().observe()[: 2 if self.t == 15 else 3]


class Transposed(Odd):
    observation_space: Any = spaces.Box(-np.inf, np.inf, (3, 2), np.float32)

    def observe(self) -> Any:
        return np.zeros((2, 3))


class Lacking(Odd):
    observation_space: Any = spaces.Dict({"here": spaces.Box(-1, 1, (1,)), "there": spaces.Box(-1, 1, (2,))})

    def observe(self) -> Any:
        return {"here": np.zeros(1)}


class ThreeOfStep(Odd):
    def step(self, action: Any) -> Any:
        return super().step(action)[:3]


class Undecided(Odd):
    def step(self, action: Any) -> Any:
        observation, reward, _, truncated, info = super().step(action)
        return observation, reward, 0.5, truncated, info


class Flags(Odd):
    """Returns flags as arrays and numbers."""

    def tell(self) -> Any:
        return {"success": np.array([False, self.t == 20])}

    def step(self, action: Any) -> Any:
        observation, reward, terminated, truncated, info = super().step(action)
        return observation, np.float64(reward), np.array([terminated]), int(truncated), info


class NoAction(Odd):
    action_space: Any = spaces.Box(-1, 1, (0,), np.float32)


class NoObservation(Odd):
    observation_space: Any = spaces.Box(-1, 1, (0,), np.float32)


class Countless(Odd):
    action_space: Any = spaces.Discrete(1_000_000_000)


class Keyless(Odd):
    observation_space: Any = spaces.Dict({"": spaces.Box(-1, 1, (1,)), "there": spaces.Box(-1, 1, (2,))})


class Numbered(Odd):
    observation_space: Any = spaces.Dict(dict(enumerate([spaces.Box(-1, 1, (1,)), spaces.Box(-1, 1, (2,))])))  # type: ignore[arg-type]


class OwnBox(Odd):
    """Copies have different bounds of actions."""

    made = 0

    def __init__(self, **_: Any) -> None:
        super().__init__()
        OwnBox.made += 1
        self.action_space = spaces.Box(-1.0, 1.0 + OwnBox.made % 3, (2,), np.float32)


class OwnShape(Odd):
    """Copies have observations of different shapes."""

    made = 0

    def __init__(self, **_: Any) -> None:
        super().__init__()
        OwnShape.made += 1
        shape = (3, 2) if OwnShape.made % 2 else (2, 3)
        self.observation_space = spaces.Box(-1.0, 1.0, shape, np.float32)

    def observe(self) -> Any:
        return np.zeros(self.observation_space.shape)


class Unsteady(Odd):
    def step(self, action: Any) -> Any:
        raise RuntimeError("there is no\nsimulator")


class Exits(Odd):
    """Calls sys.exit when it is made, in every step, or in the 550th step of all copies together."""

    steps = 0  # of all copies together

    def __init__(self, when: str) -> None:
        super().__init__()
        self.when = when
        if when == "made":
            sys.exit("no licence")

    def step(self, action: Any) -> Any:
        Exits.steps += 1
        if self.when == "step" or Exits.steps == 550:
            sys.exit(0)
        return super().step(action)


class ForgottenReset(Odd):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        super().reset(seed=seed)


class NoFirst(Odd):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return None, super().reset(seed=seed)[1]


class Lists(Odd):
    """Returns lists where others return tuples."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return list(super().reset(seed=seed))

    def step(self, action: Any) -> Any:
        return list(super().step(action))


class WordSuccess(Odd):
    def tell(self) -> Any:
        return {"success": "yes", "is_success": {"lifted": True}}


class Immense(Odd):
    """Its rewards and observations do not fit in a float."""

    def observe(self) -> Any:
        return [10**400, -1e300, 1.0] if self.t in (1, 2) else super().observe()

    def pay(self) -> Any:
        return {1: 10**400, 2: -(10**400), 3: 1e300}.get(self.t, 1.0)


class Draws(Odd):
    """Draws in every step and reset from the generator that `source` names."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.source = source
        self.hidden = [np.random.default_rng()]
        self.rng = np.random.default_rng(3)
        self.episodes = 0

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episodes += 1
        return super().reset(seed=seed)

    def lazy(self) -> float:
        """Draw from a generator that is made when a step first needs it."""
        if self.t and not hasattr(self, "state"):
            self.state = np.random.RandomState(np.random.PCG64(5))
        return float(self.state.random_sample()) if self.t else 0.5

    def observe(self) -> Any:
        draws: Any = {
            "np_random": self.np_random.random,
            "numpy": np.random.standard_normal,
            "python": random.random,
            "attribute": self.rng.random,
            "hidden": self.hidden[0].random,
            "late": lambda: self.hidden[0].random() if self.episodes > 3 else 0.5,
            "pcg": self.lazy,
            "spawned": lambda: self.rng.spawn(1)[0].random() if self.t % 3 == 1 else 0.5,
        }
        drawn = draws[self.source]()
        if self.source == "np_random" and drawn < 0.1:  # the number of draws depends on what was drawn
            self.np_random.random(7)
        return np.array([self.t, drawn, 1.0])


class Slotted:
    """A stand-in for a simulator in another language: it has no __dict__."""

    __slots__ = ("back",)


class Leads(Odd):
    """Has an attribute `env` that is no environment, or that leads back to the environment itself."""

    def __init__(self, to: str) -> None:
        super().__init__()
        simulator: Any = Odd()
        simulator.env = self
        ends: dict[str, Any] = {"itself": self, "back": simulator, "slots": Slotted(), "words": "prod", "code": np}
        self.env = ends[to]


class Tires(Odd):
    """Raises an error in the 13th step of an episode, and in `close`."""

    closed = 0

    def fail(self) -> None:
        raise RuntimeError("it is\ntired")

    def step(self, action: Any) -> Any:
        if self.t == 12:
            self.fail()
        return super().step(action)

    def close(self) -> None:
        Tires.closed += 1
        self.fail()


class Leaves(Tires):
    def fail(self) -> None:
        sys.exit(7)


class Clings(Odd):
    """Raises an error when it is closed."""

    def close(self) -> None:
        raise RuntimeError("the window is gone already")


class Homeless(Odd):
    """Leaves its process in a folder that no longer exists."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        return super().reset(seed=seed)


class Threaded(Odd):
    """Has a thread that its process waits for at exit. If the environment obeys, `close` ends the thread. If not, the
    thread goes on, and `close` hangs after more than five episodes."""

    def __init__(self, obeys: bool) -> None:
        super().__init__()
        self.obeys = obeys
        self.episodes = 0
        self.over = threading.Event()
        threading.Thread(target=self.over.wait, name="an environment's").start()
        self.note("made")

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        self.episodes += 1
        return super().reset(seed=seed)

    def note(self, what: str) -> None:
        with Path(os.environ["NOTED"]).open("a") as file:
            file.write(f"{what}\n")

    def close(self) -> None:
        if self.obeys:
            self.note("closed")
            self.over.set()
        elif self.episodes > 5:
            self.over.wait()


KINDS = [kind for kind in list(globals().values()) if isinstance(kind, type) and issubclass(kind, Odd)]
for kind in KINDS:
    gymnasium.register(f"{kind.__name__}-v0", f"{__name__}:{kind.__name__}", max_episode_steps=100)
for when in ("made", "step", "late"):
    gymnasium.register(f"Exits_{when}-v0", f"{__name__}:Exits", max_episode_steps=100, kwargs={"when": when})
for obeys in (True, False):
    gymnasium.register(f"Threaded_{obeys}-v0", f"{__name__}:Threaded", max_episode_steps=100, kwargs={"obeys": obeys})
for source in ("np_random", "numpy", "python", "attribute", "hidden", "late", "pcg", "spawned"):
    gymnasium.register(f"Draws_{source}-v0", f"{__name__}:Draws", max_episode_steps=13, kwargs={"source": source})
for to in ("itself", "back", "slots", "words", "code"):
    gymnasium.register(f"Leads_{to}-v0", f"{__name__}:Leads", max_episode_steps=13, kwargs={"to": to})

"""Small environments, each with one peculiarity of what it takes, returns or draws. Importing this registers them."""

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
    """Twenty steps an episode. It refuses actions that are not in its space, as many environments do."""

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
    """Two of them, off or on."""

    action_space: Any = spaces.Box(0, 1, (2,), np.int64)


class OldReset(Odd):
    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return super().reset(seed=seed)[0]


class OldSignatures(Odd):
    """An environment as gym had it before 0.26, with a method that seeds."""

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
    """Forgets a number of its observation in the middle of an episode."""

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
    """Says in arrays and numbers what it has to say."""

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
    """Every copy has a box of its own."""

    made = 0

    def __init__(self, **_: Any) -> None:
        super().__init__()
        OwnBox.made += 1
        self.action_space = spaces.Box(-1.0, 1.0 + OwnBox.made % 3, (2,), np.float32)


class OwnShape(Odd):
    """Every copy observes in a shape of its own."""

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
    """Calls sys.exit in every step, in the 550th of all copies, or when it is made."""

    steps = 0  # of all

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
    """What it pays and observes has no place in a float."""

    def observe(self) -> Any:
        return [10**400, -1e300, 1.0] if self.t in (1, 2) else super().observe()

    def pay(self) -> Any:
        return {1: 10**400, 2: -(10**400), 3: 1e300}.get(self.t, 1.0)


class Draws(Odd):
    """Draws from one generator or another in every step and reset."""

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
        """Draws from a generator that is made when it is first needed in a step."""
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
    """A simulator in another language: it has no __dict__."""

    __slots__ = ("back",)


class Leads(Odd):
    """Calls something `env` that is none, or that leads back to it."""

    def __init__(self, to: str) -> None:
        super().__init__()
        simulator: Any = Odd()
        simulator.env = self
        ends: dict[str, Any] = {"itself": self, "back": simulator, "slots": Slotted(), "words": "prod", "code": np}
        self.env = ends[to]


class Tires(Odd):
    """Its 13th step, and its close, raise."""

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
    """Cannot be closed."""

    def close(self) -> None:
        raise RuntimeError("the window is gone already")


class Homeless(Odd):
    """Leaves its process in a folder that is no more."""

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
        return super().reset(seed=seed)


class Threaded(Odd):
    """Has a thread that the process waits for in the end, and that only `close` ends. One that does not obey goes on,
    and hangs when it is closed after some episodes."""

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

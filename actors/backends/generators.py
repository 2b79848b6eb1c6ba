"""The random generators of one environment copy, separate from those of other copies in the process.

They are the generators that the environment and its wrappers hold, such as `np_random`, and the global generators of
numpy and Python. If copies shared the global ones, they would depend on each other and could not be brought back to an
earlier state.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from types import ModuleType
from typing import Any

import numpy as np
from numpy.random.mtrand import get_bit_generator, set_bit_generator

OWN = (np.random.Generator, np.random.RandomState, random.Random)


class Generators:
    """Replaces the global generators by this copy's own inside a `with`.

    Numpy's generator is exchanged as an object, in one microsecond. Python's can only be copied, in 35 microseconds:
    that is done only with `exact`, for copies that must be brought back exactly.
    """

    def __init__(self, seed: int, exact: bool) -> None:
        state: Any = np.random.RandomState(seed).get_state(legacy=False)  # as np.random.seed sets it
        self.numpys = np.random.MT19937()
        self.numpys.state = state
        self.exact = exact
        self.pythons = random.Random(seed).getstate()

    def __enter__(self) -> None:
        self.others_numpys = get_bit_generator()
        set_bit_generator(self.numpys)
        if self.exact:
            self.others_pythons = random.getstate()
            random.setstate(self.pythons)

    def __exit__(self, *failure: object) -> None:
        set_bit_generator(self.others_numpys)
        if self.exact:
            self.pythons = random.getstate()
            random.setstate(self.others_pythons)

    def state(self, environment: Any) -> dict[str, Any]:
        """Return the states of all generators, in numbers, arrays and containers of these."""
        own = [[depth, name, state_of(value)] for depth, _, name, value in held(environment)]
        return {"numpys": self.numpys.state, "pythons": listed(self.pythons), "own": own}

    def load_state(self, environment: Any, state: dict[str, Any]) -> None:
        """Restore what `state` returned, in an equal environment. Generators that it does not hold yet are added."""
        self.numpys.state = state["numpys"]
        self.pythons = tupled(state["pythons"])
        layers = list(layers_of(environment))
        for depth, name, saved in state["own"]:
            if depth < len(layers):  # a layer that is made later cannot be restored now
                attributes = attributes_of(layers[depth])
                attributes[name] = revived(attributes.get(name), saved)


def layers_of(environment: Any) -> Iterator[Any]:
    """Yield the wrappers from the outermost on, then the environment, then the environment's own `env`, such as a
    simulator. Each is yielded once: some refer back to themselves."""
    met: list[Any] = []
    while attributes_of(environment) and not any(environment is one for one in met):
        met.append(environment)
        yield environment
        environment = attributes_of(environment).get("env")


def attributes_of(layer: Any) -> dict[str, Any]:
    """Return the attributes of an object. There are none for an object with slots or of another language, which has no
    readable attributes, nor for a class or a module, whose attributes are shared."""
    try:
        found = vars(layer)
    except TypeError:
        return {}
    return found if isinstance(found, dict) and not isinstance(layer, ModuleType) else {}


def held(environment: Any) -> Iterator[tuple[int, Any, str, Any]]:
    """Yield (depth, layer, name, generator) of every generator that is an attribute of the environment or a wrapper."""
    for depth, layer in enumerate(layers_of(environment)):
        for name, value in list(attributes_of(layer).items()):
            if isinstance(value, OWN) and not isinstance(value, random.SystemRandom):
                yield depth, layer, name, value


def state_of(generator: Any) -> Any:
    if isinstance(generator, random.Random):
        return listed(generator.getstate())
    if isinstance(generator, np.random.RandomState):
        return generator.get_state(legacy=False)
    seeds = generator.bit_generator.seed_seq
    # Generators that it spawns depend on its seed and on the number spawned before. Its own state holds neither.
    known = {"seeds": dict(seeds.state)} if isinstance(seeds, np.random.SeedSequence) else {}
    return {"generator": generator.bit_generator.state} | known


def revived(generator: Any, state: Any) -> Any:
    """Return the generator in this state, or a new one if it is of another kind. A kind that numpy lacks cannot be
    made: then the generator is returned unchanged."""
    if isinstance(state, list):
        generator = generator if isinstance(generator, random.Random) else random.Random()
        generator.setstate(tupled(state))
        return generator
    own = state.get("generator", state)
    wanted = np.random.Generator if "generator" in state else np.random.RandomState
    if not (isinstance(generator, wanted) and drawn_from(generator) == own["bit_generator"]):
        kind = getattr(np.random, own["bit_generator"], None)
        if kind is None:
            return generator
        generator = wanted(kind())
    if "seeds" in state:
        seeds = state["seeds"] | {"spawn_key": tuple(state["seeds"]["spawn_key"])}
        generator.bit_generator.__setstate__((own, np.random.SeedSequence(**seeds)))
    elif "generator" in state:
        generator.bit_generator.state = own
    else:
        generator.set_state(own)
    return generator


def drawn_from(generator: Any) -> str:
    """Return the kind of its bit generator, as states name it."""
    if isinstance(generator, np.random.RandomState):
        return str(generator.get_state(legacy=False)["bit_generator"])
    return type(generator.bit_generator).__name__


def listed(state: tuple[Any, ...]) -> list[Any]:
    """Return the state of Python's generator, with lists for tuples."""
    version, numbers, following = state
    return [version, list(numbers), following]


def tupled(state: list[Any]) -> tuple[Any, ...]:
    version, numbers, following = state
    return version, tuple(numbers), following

"""Replay buffers of TorchRL and cpprb, used as their documentation shows."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from replay.store.rows import Push


def peer_transitions(push: Push) -> dict[str, np.ndarray]:
    """Return the transitions of a push with their next observations, as the other libraries take them."""
    rows = push.rows[0]
    drawn = np.flatnonzero(rows.flags == 0)
    return {
        "obs": rows.observations[drawn],
        "act": rows.actions[drawn],
        "rew": rows.rewards[drawn, None],
        "next_obs": rows.observations[drawn + 1],
        "done": np.zeros((len(drawn), 1), np.float32),
    }


def torchrl_buffer(rows: int, batch: int, push: Push) -> tuple[Callable[[], object], Callable[[], object]]:
    """Fill TorchRL's buffer of `rows` transitions. Return two functions: sample a batch, and insert the push again."""
    from tensordict import TensorDict
    from torchrl.data import LazyTensorStorage, TensorDictReplayBuffer

    transitions = {name: torch.from_numpy(array) for name, array in peer_transitions(push).items()}
    count = len(transitions["rew"])
    data = TensorDict(transitions, batch_size=[count])
    buffer = TensorDictReplayBuffer(storage=LazyTensorStorage(rows), batch_size=batch)
    for _ in range(rows // count + 1):
        buffer.extend(data)
    return buffer.sample, lambda: buffer.extend(data)


def cpprb_buffer(rows: int, batch: int, push: Push) -> tuple[Callable[[], object], Callable[[], object]]:
    """Like `torchrl_buffer`, for cpprb."""
    import cpprb

    transitions = peer_transitions(push)
    count = len(transitions["rew"])
    shapes = {name: {"shape": array.shape[1:], "dtype": np.float32} for name, array in transitions.items()}
    buffer = cpprb.ReplayBuffer(rows, shapes)
    for _ in range(rows // count + 1):
        buffer.add(**transitions)
    return lambda: buffer.sample(batch), lambda: buffer.add(**transitions)


def package_version(name: str) -> str:
    from importlib.metadata import version

    return version(name)

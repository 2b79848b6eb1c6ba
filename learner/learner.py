"""One BRC agent in training: state, reward normaliser, random state and counters, fed with batches from replay."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from learner import brc, publishing
from learner.brc import Batch, BRCSettings, Noise
from learner.networks import NetworkSpec
from learner.reward_normalizer import RewardNormalizer
from replay.policy_store import PolicyMessage
from replay.rows import Batches

NOISE_SEED = 1 << 31  # added to the seed of a run, which is below it; torch uses 32 bits of a seed


@dataclass(frozen=True)
class LearnerSpec:
    """Everything a learner is made from. `most_batches` bounds the batches given to `train` at once."""

    networks: NetworkSpec
    settings: BRCSettings
    batch_size: int
    most_batches: int
    num_shards: int
    seed: int
    dtype: str = "float32"
    observation_dtype: str = "float32"
    device: str = "cpu"
    threads: int = 1


class Learner:
    """Not thread-safe. Seeds torch's global generator when made: networks are initialised from it."""

    def __init__(self, spec: LearnerSpec) -> None:
        self.spec = spec
        torch.set_num_threads(spec.threads)
        self.dtype: torch.dtype = getattr(torch, spec.dtype)
        self.device = torch.device(spec.device)
        torch.manual_seed(spec.seed)
        self.state = brc.initial_state(spec.networks, spec.settings, self.dtype, self.device)
        # Networks come from the seed itself; noise from the same stream would repeat their numbers.
        self.generator = torch.Generator(self.device).manual_seed(spec.seed + NOISE_SEED)
        self.normalizer = RewardNormalizer(
            spec.networks.num_tasks,
            spec.settings.discount,
            brc.target_entropy(spec.networks.action_size, spec.settings),
            spec.settings.value_limit,
            self.device,
        )
        self.updates = 0
        self.consumed = [0] * spec.num_shards  # batches used, by the shard they came from
        self.metrics: dict[str, Tensor] = {}
        self.copied = torch.cuda.Event() if self.device.type == "cuda" else None

    def allocate(self) -> Batches:
        """Space for `most_batches` batches that `train` takes without another copy; pinned if the device is a GPU."""
        shape = (self.spec.most_batches, self.spec.batch_size)
        networks = self.spec.networks
        observation_dtype = getattr(torch, self.spec.observation_dtype)

        def empty(*extra: int, dtype: torch.dtype = torch.float32) -> np.ndarray:
            array: np.ndarray = torch.empty(*shape, *extra, dtype=dtype, pin_memory=self.device.type == "cuda").numpy()
            return array

        return Batches(
            empty(networks.observation_size, dtype=observation_dtype),
            empty(networks.action_size),
            empty(),
            empty(),
            empty(networks.observation_size, dtype=observation_dtype),
            empty(dtype=torch.int64),
            np.empty(networks.num_tasks, np.float32),
            np.empty(networks.num_tasks, np.float32),
        )

    def release(self) -> None:
        """Wait until what `train` was given last may be overwritten: a GPU may still be reading it."""
        if self.copied is not None:
            self.copied.synchronize()

    def train(
        self,
        batches: Batches,
        shard: int = 0,
        diagnostics: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> None:
        """One update a batch. `shard` says who granted them; `diagnostics` measures norms in the last update.

        The arrays are used where they are and are not to change until `release`. `between` is called after every update
        but the last: the learner is whole then, and may be saved.
        """
        count = batches.num_batches
        arrays = (
            batches.observations,
            batches.actions,
            batches.rewards,
            batches.masks,
            batches.next_observations,
            batches.task_ids,
        )
        tensors = [torch.from_numpy(array) for array in arrays]
        self.normalizer.merge(
            torch.tensor(batches.return_minimum, device=self.device),
            torch.tensor(batches.return_maximum, device=self.device),
        )
        noise_shape = (2, self.spec.batch_size, self.spec.networks.action_size)
        for index in range(count):
            batch = Batch(*(self._to_device(tensor[index]) for tensor in tensors))
            if self.copied is not None:
                self.copied.record()
            temperature = self.state.log_temperature.detach().exp()
            batch = batch._replace(rewards=self.normalizer.normalize(batch.rewards, batch.task_ids, temperature))
            noise = torch.randn(noise_shape, generator=self.generator, dtype=self.dtype, device=self.device)
            self.state, metrics = brc.update(
                self.state, batch, Noise(*noise), self.spec.settings, diagnostics and index == count - 1
            )
            self.metrics |= metrics
            self.updates += 1
            self.consumed[shard] += 1
            if index < count - 1:
                between()

    def _to_device(self, tensor: Tensor) -> Tensor:
        tensor = tensor.to(self.device, non_blocking=True)
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def read_metrics(self) -> dict[str, float]:
        """The newest value of every metric. Raises FloatingPointError when a loss is not finite."""
        values = {name: float(value) for name, value in self.metrics.items()}
        for name in ("critic_loss", "policy_loss"):
            if not math.isfinite(values.get(name, 0.0)):
                raise FloatingPointError(f"{name} became {values[name]} at update {self.updates}")
        return values

    def reward_scale(self) -> list[float]:
        """What each task's rewards are divided by now; inf before its first finished episode."""
        scale: list[float] = self.normalizer.denominator(self.state.log_temperature.detach().exp()).tolist()
        return scale

    def policy(self) -> PolicyMessage:
        return publishing.message(self.state.policy, self.state.critic, self.updates)

    def state_dict(self) -> dict[str, Any]:
        """All that `load_state_dict` needs for updates to go on bit for bit."""
        state = self.state
        return {
            "networks": asdict(self.spec.networks),
            "critic": state.critic.state_dict(),
            "target": state.target.state_dict(),
            "policy": state.policy.state_dict(),
            "log_temperature": state.log_temperature.detach(),
            "critic_optimizer": state.critic_optimizer.state_dict(),
            "policy_optimizer": state.policy_optimizer.state_dict(),
            "temperature_optimizer": state.temperature_optimizer.state_dict(),
            "normalizer": self.normalizer.state_dict(),
            "generator": self.generator.get_state(),
            "device": self.device.type,
            "updates": self.updates,
            "consumed": list(self.consumed),
        }

    def load_state_dict(self, saved: dict[str, Any]) -> None:
        """Raises ValueError, naming the fields, when the networks saved have another shape.

        Rates of the optimisers stay those of this learner's settings. On another kind of device than the one that saved
        it, noise comes from a new stream: the generators of CPU and GPU have nothing in common.
        """
        ours = asdict(self.spec.networks)
        differing = {
            key: (saved["networks"].get(key), ours[key]) for key in ours if saved["networks"].get(key) != ours[key]
        }
        if differing:
            raise ValueError(f"checkpoint has other networks (saved, asked for): {differing}")
        state = self.state
        for part in ("critic", "target", "policy", "critic_optimizer", "policy_optimizer", "temperature_optimizer"):
            getattr(state, part).load_state_dict(saved[part])
        for optimizer in (state.critic_optimizer, state.policy_optimizer, state.temperature_optimizer):
            for group in optimizer.param_groups:
                group["lr"] = self.spec.settings.learning_rate
        for optimizer in (state.critic_optimizer, state.policy_optimizer):
            for group in optimizer.param_groups:
                group["weight_decay"] = self.spec.settings.weight_decay
        with torch.no_grad():
            state.log_temperature.copy_(saved["log_temperature"])
        self.normalizer.load_state_dict(saved["normalizer"])
        self.updates = saved["updates"]
        if saved["device"] == self.device.type:
            self.generator.set_state(saved["generator"].cpu())
        else:
            self.generator.manual_seed(self.spec.seed + NOISE_SEED + self.updates)
        if len(saved["consumed"]) == len(self.consumed):
            self.consumed = list(saved["consumed"])
        else:  # another number of shards: what matters is the sum
            share, rest = divmod(sum(saved["consumed"]), len(self.consumed))
            self.consumed = [share + (shard < rest) for shard in range(len(self.consumed))]

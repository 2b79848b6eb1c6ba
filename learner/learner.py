"""One agent in training: state, reward normaliser, random state and counters. It trains on batches from replay."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from learner.agents.catalogue import agent_of, described
from learner.agents.interface import Batch, State
from learner.agents.reward_normalizer import RewardNormalizer
from learner.agents.surgery import NONE
from learner.config import LearnerConfig
from learner.networks.layers import BatchNorm, RunningNormalizer
from learner.networks.modules import Critic
from learner.networks.spec import from_json, network_spec, to_json
from learner.networks.triton_switch import use_triton
from learner.reports import Measured, Ready
from learner.scale.cuda_graph import Recorded
from learner.scale.memory import critic_parameters, footprint, in_words
from learner.scale.precision import (
    fastest,
    multiplies_bfloat16,
    parameter_dtype,
    run_in_bfloat16,
    set_products,
)
from learner.scale.reckoning import update_flops
from learner.scale.sharding import average_over_ranks, divide, meshes, shard, to_save
from learner.spec import ALONE, LearnerSpec, Ranks
from learner.state.publishing import Outgoing
from learner.trained import Trained
from replay.policy_store import PolicyMessage
from replay.store.rows import Batches

FREE_S = 30.0
NOISE_SEED = 1 << 31  # added to the seed of a run, which is smaller; torch uses 32 bits of a seed


def check_room(spec: LearnerSpec, ranks: Ranks) -> None:
    """Raise MemoryError, with the figures, when the GPU has less free memory than the learner needs.

    Wait for it for up to FREE_S seconds: the driver frees the memory of a learner that has died a while after its end.
    """
    if spec.config.device != "cuda":
        return
    needed = footprint(
        spec.networks,
        spec.config.batch_size,
        spec.config.batches_per_request,
        spec.config.precision,
        ranks.count,
        ranks.sharding,
        ranks.replicas,
        spec.config.device,
        spec.config.compares_gradients and spec.networks.num_tasks > 1,
    )
    give_up = time.monotonic() + FREE_S
    free, total = torch.cuda.mem_get_info()
    while sum(needed.values()) > free and sum(needed.values()) <= total and time.monotonic() < give_up:
        time.sleep(0.2)
        free, total = torch.cuda.mem_get_info()
    if sum(needed.values()) > free:
        raise MemoryError(
            f"--learner.width {spec.networks.width} needs {sum(needed.values()):,} bytes on each GPU "
            f"({in_words(needed)}), and {free:,} of {total:,} are free: lower it, or shard it over more --learner.ranks"
        )


def make_learner(
    *,
    observation_size: int,
    action_size: int,
    num_tasks: int = 1,
    privileged_size: int = 0,
    num_actions: tuple[int, ...] = (),
    image: tuple[int, ...] = (),
    seed: int = 0,
    **options: Any,
) -> Learner:
    """Return a learner in this process, in float32 on one CPU thread.

    The sizes are those of NetworkSpec, and `options` are fields of LearnerConfig.

    learner = make_learner(observation_size=5, action_size=1, width=64, batch_size=256)
    """
    config = replace(LearnerConfig(precision="float32", device="cpu", threads=1), **options)
    networks = network_spec(
        config,
        observation_size=observation_size,
        action_size=action_size,
        num_tasks=num_tasks,
        privileged_size=privileged_size,
        num_actions=num_actions,
        image=image,
    )
    return Learner(LearnerSpec(networks=networks, config=config, seed=seed))


def settled(spec: LearnerSpec) -> LearnerSpec:
    """Return the spec with a definite precision: `auto` becomes the fastest for this machine according to a rule."""
    if spec.config.precision != "auto":
        return spec
    return spec.changed(precision=fastest(spec.config.device, spec.networks.width))


class Learner:
    """Trains one agent. Not thread-safe.

    Making a learner seeds torch's global generator, from which networks are initialised. Every rank has its own
    learner, made from an equal spec, and all ranks make the same calls in the same order.
    """

    def __init__(self, spec: LearnerSpec, ranks: Ranks = ALONE) -> None:
        """Make the networks and optimisers."""
        self.spec = spec = settled(spec)
        self.ranks = ranks
        check_room(spec, ranks)
        torch.set_num_threads(spec.config.threads)
        self.dtype = parameter_dtype(spec.config.precision)
        self.device = torch.device(spec.config.device)
        set_products(spec.config.precision)
        use_triton(spec.config.triton)
        torch.manual_seed(spec.seed)
        self.agent = agent_of(spec.networks)
        self.meshes = meshes(ranks, spec.networks.heads, spec.config.device)
        self.state: State = self.agent.initial_state(spec.networks, spec.config, self.dtype, self.device, self._prepare)
        if self.meshes is not None and not any(isinstance(one, Critic) for one in self.state.modules().values()):
            raise ValueError(
                f"--learner.sharding {ranks.sharding}: the critic of --learner.agent {spec.config.agent} is no "
                "learner.networks.modules.Critic, so it cannot be divided: use replicate"
            )
        for optimizer in self.state.optimizers().values():
            optimizer.ranks, optimizer.meshes = ranks, self.meshes
        parts = [part for module in self.state.modules().values() for part in module.modules()]
        self.observed = [part for part in parts if isinstance(part, RunningNormalizer)]
        for part in parts:
            if isinstance(part, BatchNorm):
                part.ranks = ranks.shares
        # Networks are initialised with the seed itself; noise with the same seed would repeat their numbers.
        self.generator = torch.Generator(self.device).manual_seed(spec.seed + NOISE_SEED)
        self.normalizer = RewardNormalizer(
            spec.networks.num_tasks,
            spec.config.discount,
            self.agent.target_entropy(spec.networks, spec.config),
            spec.config.value_limit,
            self.device,
            spec.config.reward_normalizer,
        )
        on_gpu = self.device.type != "cpu"
        self.copies = torch.get_device_module(self.device).Stream() if on_gpu else None
        graphs = spec.config.record and self.device.type == "cuda" and ranks.count == 1
        # An agent without a policy moves all that it has in every update.
        rests = spec.config.policy_interval > 1 and "policy" in self.state.modules()
        pool = torch.cuda.graph_pool_handle() if graphs else None
        self.recorded = {
            moves: Recorded(partial(self._diagnosed, moves), self.generator, pool)
            for moves in ((True, False) if rests else (True,))
            if graphs
        }
        self.interval = spec.config.policy_interval if rests else 1
        self.measures_conflict = spec.config.conflict_interval > 0 and spec.networks.num_tasks > 1
        self.updates = 0
        self.consumed = [0] * spec.num_shards  # batches used, by the shard they came from

    def _prepare(self, module: nn.Module) -> None:
        bfloat16, device = self.spec.config.precision == "bf16", self.device.type
        if isinstance(module, Critic) and self.meshes is not None:
            if self.ranks.sharding == "shard":
                shard(module, self.meshes, bfloat16 and multiplies_bfloat16(device))
            else:
                divide(module, self.meshes)
        if bfloat16:
            run_in_bfloat16(module, device)  # last, as dividing a network makes other chains

    def train(
        self,
        batches: Batches,
        shard: int = 0,
        diagnostics: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> Trained:
        """Make one update with each batch.

        Args:
            batches: all rows are used: of several ranks each has its own (learner.scale.crew). The arrays are not
                copied: they must not change until `finish` of the result has returned.
            shard: index of the replay shard that granted the batches.
            diagnostics: whether to measure norms in the last updates. Recorded updates always measure them.
            between: called after every update but the last.
        """
        returns = batches.return_minimum, batches.return_maximum, batches.return_moments
        return self.train_on(self.fetch(batches), returns, shard, diagnostics, between)

    def train_on(
        self,
        fetched: Batch,
        returns: tuple[np.ndarray, np.ndarray, np.ndarray],
        shard: int = 0,
        diagnostics: bool = False,
        between: Callable[[], None] = lambda: None,
    ) -> Trained:
        """Do the work of `train` with batches as `fetch` returns them, of which this rank has its rows, and the least
        and greatest returns of each task and the moments of its running returns."""
        batch = Batch(*(self._parameters_dtype(tensor) for tensor in fetched))
        self.normalizer.merge(*(self._to_device(array) for array in returns[:2]))
        self.normalizer.see(shard, returns[2])
        count = len(batch.rewards)
        metrics: dict[str, Tensor] = {}
        for index in range(count):
            one, moves = Batch(*(tensor[index] for tensor in batch)), self.updates % self.interval == 0
            if self.recorded:
                metrics |= self.recorded[moves](*one)
            else:  # one of the last updates moves the policy
                metrics |= self._update(one, diagnostics and index >= count - self.interval, moves)
            self.updates += 1
            self.consumed[shard] += 1
            if self.measures_conflict and self.updates % self.spec.config.conflict_interval == 0:
                metrics |= self.conflicts(one)
            if index < count - 1:
                between()
        average_over_ranks(list(metrics.values()), self.ranks)
        scale = self.normalizer.denominator(self.state.temperature())
        return Trained(metrics, scale.to(self.dtype), self.updates)

    def _update(self, batch: Batch, diagnostics: bool, moves: bool) -> dict[str, Tensor]:
        """Make an update, which `moves` the policy or not, without waiting for the device or reading values of
        tensors."""
        self._observe(batch.observations)
        temperature = self.state.temperature()
        batch = batch._replace(rewards=self.normalizer.normalize(batch.rewards, batch.task_ids, temperature))
        # Every rank draws the noise of all rows, so that the noise of a row does not depend on the number of ranks.
        shape = (self.agent.draws, self.spec.config.batch_size, self.spec.networks.action_size)
        noise = torch.randn(shape, generator=self.generator, dtype=self.dtype, device=self.device)
        rows = noise[:, self.ranks.rows(self.spec.config.batch_size)]
        orders = None
        if self.spec.config.surgery != NONE and self.spec.networks.num_tasks > 1:
            tasks = self.spec.networks.num_tasks
            orders = torch.rand((2, tasks, tasks), generator=self.generator, device=self.device).argsort(dim=-1)
        return self.agent.update(self.state, batch, rows, self.spec.config, diagnostics, orders, moves)

    def conflicts(self, batch: Batch) -> dict[str, Tensor]:
        """Return how much the gradients of the tasks conflict in the critic, on a batch of raw rewards."""
        temperature, config = self.state.temperature(), self.spec.config
        batch = batch._replace(rewards=self.normalizer.normalize(batch.rewards, batch.task_ids, temperature))
        # Noise of its own: what is measured does not change what is learned.
        generator = torch.Generator(self.device).manual_seed(self.spec.seed + self.updates)
        shape = (self.agent.draws, len(batch.rewards), self.spec.networks.action_size)
        noise = torch.randn(shape, generator=generator, dtype=self.dtype, device=self.device)
        return self.agent.conflicts(self.state, batch, noise, temperature, config)

    def _observe(self, observations: Tensor) -> None:
        """Add the rows of a batch, over all ranks, to the statistics of networks that normalise observations."""
        if not self.observed:
            return
        mean = observations.mean(dim=0)
        average_over_ranks([mean], self.ranks)
        # About the mean of all ranks: a difference of squares may be negative after rounding.
        variance = (observations - mean).square().mean(dim=0)
        average_over_ranks([variance], self.ranks)
        for norm in self.observed:
            seen = len(norm.mean)  # policies do not see the last numbers, if those are privileged
            norm.observe(mean[:seen], variance[:seen], self.spec.config.batch_size)

    def _diagnosed(self, moves: bool, *tensors: Tensor) -> dict[str, Tensor]:
        """Make an update with diagnostics. This is the function that is recorded: one recording serves all updates that
        move the policy, and another those that do not."""
        return self._update(Batch(*tensors), True, moves)

    def fetch(self, batches: Batches) -> Batch:
        """Copy batches to the device as they are, with a first dimension of their number. On a GPU the copy runs while
        it still works on earlier batches."""
        if self.copies is None:
            return Batch(*(self._to_device(array) for array in batches[:6]))
        streams = torch.get_device_module(self.device)
        current = streams.current_stream()
        with streams.stream(self.copies):
            fetched = [self._to_device(array) for array in batches[:6]]
        current.wait_stream(self.copies)
        for tensor in fetched:
            tensor.record_stream(current)
        return Batch(*fetched)

    def _to_device(self, array: np.ndarray) -> Tensor:
        return torch.from_numpy(array).to(self.device, non_blocking=True)

    def _parameters_dtype(self, tensor: Tensor) -> Tensor:
        return tensor.to(self.dtype) if tensor.is_floating_point() else tensor

    def ready(
        self, threads: int, measured: Sequence[Measured] = (), reckoned: Mapping[str, float] | None = None
    ) -> Ready:
        """Return its description. `threads` are those that it uses now; `measured` are the ways that were tried;
        `reckoned` are those to share the critic over ranks."""
        return Ready(
            updates=self.updates,
            device=str(self.device),
            precision=self.spec.config.precision,
            threads=threads,
            measured=list(measured),
            ranks=self.ranks.count,
            sharding=self.ranks.sharding,
            reckoned=dict(reckoned or {}),
            critic_parameters=critic_parameters(self.spec.networks),
            update_flops=sum(update_flops(self.spec.networks, self.spec.config)),
            consumed=list(self.consumed),
        )

    def outgoing(self) -> Outgoing:
        """Return a copy of the current policy, to be sent to actors. A GPU may still be copying it."""
        return Outgoing(self.acting(), self.state.embedding_table(), self.updates)

    def acting(self) -> nn.Module:
        """Return the network that actors run."""
        return self.state.modules()[described(self.spec.networks).acts]

    def policy(self) -> PolicyMessage:
        return self.outgoing().message()

    def tensors(self) -> dict[str, Any]:
        """Return all tensors of the training state by name, not copied: to save, or to load into. Sharded tensors are
        this rank's parts.

        Adam's moments have the names of their parameters, so that another number of ranks can load them.
        """
        state, modules = self.state, self.state.modules()
        found: dict[str, Any] = {
            name: {key: to_save(tensor) for key, tensor in module.state_dict().items()}
            for name, module in modules.items()
        }
        names = {id(p): key for module in modules.values() for key, p in module.named_parameters()}
        for name, scalar in state.scalars().items():
            found[name] = {"log": scalar.detach()}
            names[id(scalar)] = "log"
        for name, optimizer in state.optimizers().items():
            found[f"{name}_optimizer"] = {names[id(p)]: dict(moments) for p, moments in optimizer.state.items()}
        return found | {"normalizer": self.normalizer.state_dict()}

    def refresh(self) -> None:
        """Follow a change of the parameters from outside, such as that of `load`."""
        for optimizer in self.state.optimizers().values():
            optimizer.refresh()

    def counters(self) -> dict[str, Any]:
        """Return the rest of the training state, as JSON can hold it."""
        return {
            "networks": to_json(self.spec.networks),
            "generator": self.generator.get_state().numpy().tobytes().hex(),
            "device": self.device.type,
            "precision": self.spec.config.precision,
            "updates": self.updates,
            "consumed": list(self.consumed),
        }

    def load_counters(self, saved: dict[str, Any]) -> None:
        """Load the result of `counters`. Raises ValueError, naming the fields, when the saved networks differ in shape.

        If the state was saved on another kind of device, noise comes from a new stream: the generators of CPU and GPU
        have different states.
        """
        ours = to_json(self.spec.networks)
        theirs = to_json(from_json(saved["networks"]))
        differing = {key: (theirs[key], ours[key]) for key in ours if theirs[key] != ours[key]}
        if differing:
            raise ValueError(f"checkpoint has other networks (saved, asked for): {differing}")
        self.updates = saved["updates"]
        if saved["device"] == self.device.type:
            state = np.frombuffer(bytes.fromhex(saved["generator"]), np.uint8)
            self.generator.set_state(torch.from_numpy(state.copy()))
        else:
            self.generator.manual_seed(self.spec.seed + NOISE_SEED + self.updates)
        if len(saved["consumed"]) == len(self.consumed):
            self.consumed = list(saved["consumed"])
        else:  # another number of shards: only the sum matters
            share, rest = divmod(sum(saved["consumed"]), len(self.consumed))
            self.consumed = [share + (shard < rest) for shard in range(len(self.consumed))]

"""The learner's section of the configuration: fields, defaults, bounds and docstrings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from replay.setting import setting

Device = Literal["cpu", "cuda"]
MEASURED = ("return-scale", "return-deviation")  # reward normalisers that need the moments of running returns


@dataclass(frozen=True)
class LearnerConfig:
    """The agent and its updates. Defaults are those of the reference implementation."""

    agent: str = setting("auto", resume="fixed")
    """Algorithm: brc for continuous actions, discrete-brc for discrete actions, or an agent that another package
    registers; auto is brc or discrete-brc, by the actions of the tasks."""
    network: str = setting("bronet", resume="fixed")
    """Architecture of critic and policy: bronet, mlp, simba, simbav2, xqc, flash, or one that another package registers
    (docs/comparisons.md)."""
    width: int = setting(4096, 8, 65536, resume="fixed")
    """Hidden width of each critic head; 4096 gives 137 M parameters."""
    depth: int = setting(2, 1, 64, resume="fixed")
    """Blocks of each critic head; layers with mlp and xqc."""
    heads: int = setting(2, 1, 64, resume="fixed")
    """Critics in the ensemble."""
    policy_width: int = setting(256, 8, 65536, resume="fixed")
    """Hidden width of the policy."""
    policy_depth: int = setting(1, 1, 64, resume="fixed")
    """Blocks of the policy; layers with mlp and xqc."""
    conditioning: Literal["embedding", "one-hot", "heads", "none"] = setting("embedding", resume="fixed")
    """How networks are told the task: by a learned embedding, as in the paper, by a one-hot input, by output layers of
    each task's own, or not at all. Unused when there is a single task."""
    embedding_size: int = setting(32, 1, 4096, resume="fixed")
    """Length of a task embedding."""
    embedding_norm: Literal["l2", "l1"] = setting("l2", resume="fixed")
    """Norm by which task embeddings are scaled: l2 as in the published code, l1 as in the paper's text."""
    encoder_width: int = setting(1, 1, 64, resume="fixed")
    """Factor of the channels of the image encoder, which are 16, 32 and 32."""
    loss: Literal["categorical", "mse"] = setting("categorical", resume="fixed")
    """What the critic learns: a distribution over returns by cross-entropy, as in the paper, or the mean return by
    squared error."""
    target: Literal["mean", "min"] = setting("mean", resume="fixed")
    """What the critic's target and the policy's value take from the heads: the mean, as in the paper, or the head with
    the smaller value, whose whole distribution is the target."""
    privileged: bool = setting(True, resume="fixed")
    """Whether the critic sees the privileged observations of tasks that have them. Without, nobody does."""
    heads_loss: Literal["sum", "mean"] = "sum"
    """Whether the losses of the critic's heads are added or averaged."""
    num_bins: int = setting(101, 2, 4096, resume="fixed")
    """Atoms of the categorical value distribution; unused with another loss."""
    value_limit: float = setting(10.0, 1e-06, 1000000.0, resume="fixed")
    """The value support is [-value_limit, value_limit]; brc scales rewards to fill it."""
    reward_normalizer: Literal["brc", "return-scale", "return-deviation", "none"] = setting("brc", resume="fixed")
    """How rewards are scaled: brc makes the largest discounted return of each task, entropy bonus included, the value
    limit; return-scale divides by the deviation of each task's running returns, but keeps the largest within the value
    limit, as SimbaV2 does; return-deviation has no such bound, as XQC; none leaves them raw."""
    normalize_observations: bool = setting(False, resume="fixed")
    """Whether networks subtract the running mean from observations and divide by the running standard deviation."""
    batch_size: int = setting(1024, 1, 2**20, resume="fixed")
    """Rows in an update, drawn over all tasks."""
    updates_per_step: float = setting(2.0, 1e-06, 1000, resume="fixed")
    """Updates per environment step of every task."""
    offline_updates: int = setting(0, 0, 10**9, resume="fixed")
    """Updates from demonstrations alone, before the first environment step. Actors then begin with the policy that
    these have made."""
    discount: float = setting(0.99, 0.0, 0.999999, resume="fixed")
    """Discount of future rewards."""
    n_step: int = setting(1, 1, 1000)
    """Environment steps whose rewards an update's target sums before it adds the value of the target network."""
    polyak: float = setting(0.005, 1e-09, 1.0)
    """Fraction by which the target network moves towards the critic after every update."""
    order: Literal["critic-first", "policy-first"] = setting("critic-first", resume="fixed")
    """What an update moves first: the critic and its target, as in the paper, or the policy and the temperature, which
    the critic's target then uses. Of no effect where actions are discrete."""
    policy_interval: int = setting(1, 1, 1000)
    """Updates of the critic for one of the policy and the temperature. Of no effect where actions are discrete."""
    surgery: Literal["none", "pcgrad"] = "none"
    """Gradient surgery on the tasks' gradients, of critic and policy: pcgrad removes from each what conflicts with
    another."""
    conflict_interval: int = setting(0, 0, 10**9)
    """Updates between two measurements of how much the critic's gradients of tasks conflict; 0 measures none. One costs
    about as much as an update, or one update for each task with xqc, flash or discrete actions."""
    learning_rate: float = setting(3e-4, 1e-12, 1.0)
    """Learning rate of critic, policy and temperature."""
    schedule: Literal["constant", "linear", "cosine"] = "constant"
    """How the learning rate falls over the updates of the run. Each optimiser counts its own steps."""
    final_rate: float = setting(0.1, 0.0, 1.0)
    """Learning rate at the end of the schedule, as a fraction of the first."""
    schedule_updates: int = setting(0, 0, 2**62)
    """Updates over which the schedule runs; 0 for all updates of the run."""
    weight_decay: float = setting(1e-4, 0.0, 1.0)
    """AdamW's weight decay, for every parameter of critic and policy; none of the temperature."""
    adam_epsilon: float = setting(1e-8, 0.0, 1.0)
    """Epsilon of AdamW."""
    gradient_clip: float = setting(0.0, 0.0, 1e9)
    """Largest global norm of the gradient of critic and of policy; 0 does not clip. Norms are reported as before."""
    temperature_beta: float = setting(0.5, 0.0, 0.999)
    """First beta of Adam for the temperature; that of critic and policy is 0.9."""
    initial_temperature: float = setting(0.1, 1e-09, 1000.0)
    """Entropy temperature before the first update."""
    target_entropy_per_action: float = setting(-0.5, -100.0, -0.001)
    """Target entropy per action dimension of the task with the most dimensions."""
    precision: Literal["auto", "float64", "float32", "tf32", "bf16"] = "auto"
    """Precision of the networks' products. Parameters are float32, or float64 with float64. auto is float32 or, if the
    device has instructions for it, bf16, which learns equally well: the faster one, as measured when a run begins.
    GPUs, large networks and serial execution are not measured: there auto is bf16 if the device has it, on a CPU only
    from width 256. A resumed run keeps its precision."""
    record: bool = True
    """Record an update as a CUDA graph and replay it, on a GPU with a single rank. The host then launches one graph for
    each update instead of hundreds of kernels."""
    triton: bool = True
    """Compute LayerNorms and the steps of optimisers on a GPU by kernels in Triton, which read and write memory once.
    Without it, and where Triton or a C compiler is missing, torch's operations do the same."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Device of the updates; auto is a GPU if there is one."""
    threads: int = setting(0, 0, 1024)
    """CPU threads of each rank of the learner. 0 divides all cores of the machine among the ranks. A rank then uses the
    number of threads that makes updates fastest, measured at the start and during the run; all in serial execution."""
    checkpoints: str = setting("", resume="fixed")
    """Folder or URL, such as s3://bucket/folder, of the learner's part of checkpoints; empty for the run's folder."""
    ranks: int = setting(1, 1, 4096)
    """Processes that compute every update together, each with its own GPU if the device is cuda."""
    sharding: Literal["auto", "replicate", "tensor", "shard"] = "auto"
    """How ranks share the critic. replicate: each holds all of it and takes a part of the rows. tensor: each computes
    some heads, or some columns of a head, for all rows. shard: each takes a part of the rows, holds a part of every
    layer, and gathers weights when it needs them. auto is what is reckoned the fastest."""
    replicas: int = setting(1, 1, 4096)
    """Copies of a critic in parts among the ranks, with tensor or shard; one copy for each node reduces the traffic
    between nodes."""
    deadline: float = setting(120.0, 5.0, 3600.0)
    """Seconds that ranks wait for a rank that does not answer before all ranks are started again."""
    profile: int = setting(0, 0, 10000)
    """Approximate number of updates to trace, soon after the learner begins, into learner-trace.json.gz in the run's
    folder. 0 traces none."""
    publish_interval: int = setting(16, 1, 10**6)
    """Updates between two published policies."""
    batches_per_request: int = setting(4, 1, 1024)
    """Largest number of batches of one sample request."""
    requests_in_flight: int = setting(2, 1, 64)
    """Sample requests in flight while an update runs."""

    @property
    def compares_gradients(self) -> bool:
        """Whether the gradients of tasks are compared, for surgery or to measure their conflict."""
        return self.surgery != "none" or self.conflict_interval > 0

    @property
    def outputs(self) -> int:
        """The number of outputs of a critic head for an action: its atoms, or 1 for the value itself."""
        return self.num_bins if self.loss == "categorical" else 1

"""The learner's section of the configuration: fields, defaults, bounds and docstrings."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from replay.setting import setting

Device = Literal["cpu", "cuda"]


@dataclass(frozen=True)
class LearnerConfig:
    """The agent and its updates. Defaults are the reference implementation's."""

    agent: str = setting("auto", resume="fixed")
    """Algorithm: brc for continuous actions, discrete-brc for discrete ones, or an agent that another package
    registers; auto is the one of these two that fits the tasks."""
    network: str = setting("bronet", resume="fixed")
    """What critic and policy are made of: bronet, or a network that another package registers."""
    width: int = setting(4096, 8, 65536, resume="fixed")
    """Hidden width of each critic head; 4096 gives 137 M parameters."""
    depth: int = setting(2, 1, 64, resume="fixed")
    """Residual blocks of each critic head."""
    heads: int = setting(2, 1, 64, resume="fixed")
    """Critics in the ensemble; their probabilities are averaged."""
    policy_width: int = setting(256, 8, 65536, resume="fixed")
    """Hidden width of the policy."""
    policy_depth: int = setting(1, 1, 64, resume="fixed")
    """Residual blocks of the policy."""
    embedding_size: int = setting(32, 1, 4096, resume="fixed")
    """Length of a task embedding; unused when there is a single task."""
    embedding_norm: Literal["l2", "l1"] = setting("l2", resume="fixed")
    """Norm that task embeddings are scaled to: l2 as in the published code, l1 as in the paper's text."""
    encoder_width: int = setting(1, 1, 64, resume="fixed")
    """Multiplies the channels of the encoder of images, 16, 32 and 32."""
    loss: Literal["categorical", "mse"] = setting("categorical", resume="fixed")
    """What the critic learns: a distribution over returns by cross-entropy, as the paper, or their mean by squared
    error."""
    num_bins: int = setting(101, 2, 4096, resume="fixed")
    """Atoms of the categorical value distribution; of no meaning with mse."""
    value_limit: float = setting(10.0, 1e-06, 1000000.0, resume="fixed")
    """The value support is [-value_limit, value_limit]; rewards are scaled to fill it."""
    normalize_observations: bool = setting(False, resume="fixed")
    """Whether networks see observations less their running mean, divided by their running deviation."""
    batch_size: int = setting(1024, 1, 2**20, resume="fixed")
    """Rows in an update, drawn over all tasks."""
    updates_per_step: float = setting(2.0, 1e-06, 1000, resume="fixed")
    """Updates per environment step of every task."""
    discount: float = setting(0.99, 0.0, 0.999999, resume="fixed")
    """Discount of future rewards."""
    n_step: int = setting(1, 1, 1000)
    """Environment steps whose rewards an update's target sums before it looks to the target network."""
    polyak: float = setting(0.005, 1e-09, 1.0)
    """Step of the target network towards the critic after every update."""
    learning_rate: float = setting(3e-4, 1e-12, 1.0)
    """Learning rate of critic, policy and temperature."""
    weight_decay: float = setting(1e-4, 0.0, 1.0)
    """AdamW's decay of every parameter of critic and policy."""
    initial_temperature: float = setting(0.1, 1e-09, 1000.0)
    """Entropy temperature before the first update."""
    target_entropy_per_action: float = setting(-0.5, -100.0, -0.001)
    """Target entropy per action dimension of the widest task."""
    precision: Literal["auto", "float64", "float32", "tf32", "bf16"] = "auto"
    """Precision of the networks' products; parameters are float32, with float64 that. auto is float32 or, where the
    device has instructions for it, bf16, which learns alike: whichever makes updates faster, as measured when a run
    begins. Without a measurement, as on GPUs, at great widths and in serial execution, it is bf16, on a CPU from width
    256. A resumed run keeps it."""
    compile: bool = False
    """Have torch compile the networks' blocks, and a GPU of its own record whole requests of updates and replay them.
    It takes up to a minute when the learner begins."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """Where updates run; auto takes a GPU if there is one."""
    threads: int = setting(0, 0, 1024)
    """CPU threads of each of the learner's ranks. 0 divides all cores of the machine among them, of which as many are
    used as make updates fastest, measured when a run begins and while it goes on; in serial execution all."""
    checkpoints: str = setting("", resume="fixed")
    """Folder or URL, such as s3://bucket/folder, for the learner's part of checkpoints; empty is the run's folder."""
    ranks: int = setting(1, 1, 4096)
    """Processes that make every update together, each with a GPU if that is the device."""
    sharding: Literal["auto", "replicate", "shard"] = "auto"
    """Whether ranks hold all of the critic each, or a part; auto shards those of 30 million parameters and more."""
    replicas: int = setting(1, 1, 4096)
    """Copies of a sharded critic among the ranks: one for each node sends less between nodes."""
    deadline: float = setting(120.0, 5.0, 3600.0)
    """Seconds that ranks wait for one that does not answer before all are started again."""
    profile: int = setting(0, 0, 10000)
    """Updates to trace, about, when the learner has begun; learner-trace.json.gz in the run's folder. 0 traces none."""
    publish_interval: int = setting(16, 1, 10**6)
    """Updates between two published policies."""
    batches_per_request: int = setting(4, 1, 1024)
    """Batches that one sample request may bring."""
    requests_in_flight: int = setting(2, 1, 64)
    """Sample requests under way while an update runs."""

    @property
    def outputs(self) -> int:
        """Numbers that a critic head says of an action: atoms, or the value itself."""
        return 1 if self.loss == "mse" else self.num_bins

"""The networks of agents: critics, policies and the image encoder, made from a registered architecture."""

from __future__ import annotations

from functools import cache

from learner.networks.architectures import ARCHITECTURES, Architecture
from learner.networks.description import (
    ACTION,
    OBSERVATION,
    TASK,
    Concat,
    Convolution,
    Ensemble,
    Flatten,
    Group,
    Heads,
    Layer,
    Layers,
    MaxPool,
    Network,
    OwnTask,
    ReLU,
    Residual,
    RunningNorm,
    Shape,
)
from learner.networks.spec import IMPALA_CHANNELS, NetworkSpec
from learner.registered import registered

GROUP = "brc.networks"  # the group of entry points by which other packages register architectures


@cache
def architecture(name: str) -> Architecture:
    """Return the architecture of this name, from which critics and policies are made. Raises ValueError, with the known
    names, if there is none."""
    return registered("network", name, ARCHITECTURES, GROUP)


def impala(width: int) -> Layers:
    """Return three stages of 16, 32 and 32 channels, times `width`. Each stage is a convolution, pooling and two
    residuals (arXiv 1802.01561, figure 3, large network). Input rows are (frames, height, width) in [0, 1]."""
    block: Layers = (ReLU(), Convolution("first", 0), ReLU(), Convolution("second", 0))
    stages: list[Layer] = []
    for index, count in enumerate(IMPALA_CHANNELS):
        channels = width * count
        inner = tuple(Convolution(layer.name, channels) if isinstance(layer, Convolution) else layer for layer in block)
        blocks = (Residual("blocks.0", inner), Residual("blocks.1", inner))
        stages.append(Group(f"stages.{index}", (Convolution("convolution", channels), MaxPool(), *blocks)))
    return (*stages, ReLU(), Flatten())


def inputs(spec: NetworkSpec, *names: str, privileged: bool = False) -> tuple[tuple[str, Shape], ...]:
    """Return the names and shapes of these inputs for a network of this spec, of one that sees `privileged` numbers or
    one that does not. The task is left out where the network does not read it."""
    shapes: dict[str, Shape] = {
        OBSERVATION: spec.critic_shape if privileged else spec.observation_shape,
        ACTION: (spec.action_size,),
        TASK: (spec.task_size,),
    }
    return tuple((name, shapes[name]) for name in names if shapes[name] != (0,))


def begins(spec: NetworkSpec) -> Layers:
    """Return the normalisation of observations, if configured."""
    return (RunningNorm("observation_norm"),) if spec.normalize_observations else ()


def appended(spec: NetworkSpec, *names: str) -> Layers:
    """Return the Concat of the named inputs that a network reads at its beginning, if there are any."""
    found = tuple(name for name, _ in inputs(spec, *names) if name != TASK or spec.embedding_inputs)
    return (Concat(found),) if found else ()


def head(spec: NetworkSpec, outputs: int) -> tuple[Layers, Layers]:
    """Return the layers of a critic head, and those that follow the ensemble: with a head for every task, the choice of
    the row's task."""
    made, tasks = architecture(spec.network), spec.output_tasks
    layers = (*made.trunk(spec.width, spec.depth), *made.output("output", spec.width, outputs, tasks))
    return layers, (OwnTask(outputs),) if tasks > 1 else ()


def critic(spec: NetworkSpec) -> Network:
    """Return an ensemble over (observation, action, task embedding). Its output is (heads, rows, bins).

    Every head has parameters of its own, by name; a chain computes all heads together (learner.networks.chain).
    """
    first, (layers, own) = architecture(spec.network).first, head(spec, spec.num_bins)
    if first:  # the task is not normalised
        heads = Ensemble("heads", spec.heads, (*first, *appended(spec, TASK), *layers))
        begun = (*begins(spec), *appended(spec, ACTION))
    else:
        heads = Ensemble("heads", spec.heads, layers)
        begun = (*begins(spec), *appended(spec, ACTION, TASK))
    return Network(inputs(spec, OBSERVATION, ACTION, TASK, privileged=True), (*begun, heads, *own))


def policy(spec: NetworkSpec) -> Network:
    """Return a network with two outputs: `mean` and the bounded `log_std` of the Gaussian before the tanh."""
    made, size, tasks = architecture(spec.network), spec.action_size, spec.output_tasks
    own = (OwnTask(size),) if tasks > 1 else ()
    heads = Heads(
        (
            ("mean", (*made.output("mean", spec.policy_width, size, tasks), *own)),
            ("log_std", (*made.log_std("log_std", spec.policy_width, size, tasks), *own, made.bound)),
        )
    )
    layers = Group("trunk", made.trunk(spec.policy_width, spec.policy_depth))
    begun = (*begins(spec), *made.first, *appended(spec, TASK))
    return Network(inputs(spec, OBSERVATION, TASK), (*begun, layers, heads))


def discrete_critic(spec: NetworkSpec) -> Network:
    """Return an ensemble over (observation or image features, task embedding). Its output is (heads, rows, actions x
    bins)."""
    encoder = (Group("encoder", impala(spec.encoder_width)),) if spec.image else ()
    first, (layers, own) = architecture(spec.network).first, head(spec, spec.outputs)
    heads = Ensemble("heads", spec.heads, layers)
    begun = (*begins(spec), *first, *appended(spec, TASK))
    return Network(inputs(spec, OBSERVATION, TASK), (*encoder, *begun, heads, *own))

"""Builds the ONNX graph of a network from its description and the arrays that a learner has published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from learner.networks.description import (
    OBSERVATION,
    TASK,
    BatchNorm,
    Bounded,
    Clipped,
    Concat,
    Constant,
    Dense,
    Ensemble,
    Group,
    Heads,
    Interpolation,
    LayerNorm,
    Layers,
    Network,
    OwnTask,
    ReLU,
    Residual,
    RMSNorm,
    RunningNorm,
    Scaler,
    UnitNorm,
    placed,
)

OPSET, IR_VERSION = 17, 9  # the first opset with LayerNormalization; an IR version that runtimes since 2023 read


class Graph:
    """Nodes and constants of a graph under construction."""

    def __init__(self, arrays: Mapping[str, np.ndarray]) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.constants = dict(arrays)

    def node(self, kind: str, inputs: list[str], output: str = "", **attributes: Any) -> str:
        """Add a node. Return the name of its output."""
        output = output or f"{kind}.{len(self.nodes)}"
        self.nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def constant(self, name: str, value: Any, dtype: Any = np.float32) -> str:
        self.constants[name] = np.asarray(value, dtype)
        return name

    def number(self, value: float) -> str:
        """Return the name of a constant of one number."""
        return self.constant(f"number {value!r}", value)

    def scaled(self, x: str, name: str, ratio: float) -> str:
        """Return the product of x with a learned scale times a ratio."""
        scale = self.constants[name] * np.float32(ratio)
        return self.node("Mul", [x, self.constant(f"{name} x {ratio!r}", scale)])

    def layers(self, layers: Layers, x: str, inputs: Mapping[str, str], prefix: str = "") -> Any:
        """Add the nodes of layers that take x. Return the name of their output, or a dict of the names of several."""
        stacked = False  # the outputs of an ensemble
        for layer in layers:
            match layer:
                case Concat(names):
                    x = self.node("Concat", [x, *(inputs[name] for name in names)], axis=1)
                case Dense(name, bias=bias):
                    parameters = [f"{prefix}{name}.weight", *([f"{prefix}{name}.bias"] if bias else [])]
                    x = self.node("Gemm", [x, *parameters], transB=1)
                case BatchNorm(name, epsilon):
                    parameters = [f"{prefix}{name}.{part}" for part in ("weight", "bias", "mean", "variance")]
                    x = self.node("BatchNormalization", [x, *parameters], epsilon=epsilon)
                case RMSNorm(name, epsilon):
                    mean = self.node("ReduceMean", [self.node("Mul", [x, x])], axes=[1])
                    root = self.node("Sqrt", [self.node("Add", [mean, self.number(epsilon)])])
                    x = self.node("Mul", [self.node("Div", [x, root]), f"{prefix}{name}.weight"])
                case UnitNorm(epsilon):
                    norm = self.node("Max", [self.node("ReduceL2", [x], axes=[1]), self.number(epsilon)])
                    x = self.node("Div", [x, norm])
                case Scaler(name, initial, scale):
                    x = self.scaled(x, f"{prefix}{name}.weight", initial / scale)
                case Constant(value):
                    padded = self.constant("one behind", np.array([0, 0, 0, 1]), np.int64)
                    x = self.node("Pad", [x, padded, self.number(value)])
                case OwnTask(outputs):
                    shape = np.array([*([0, 0] if stacked else [0]), -1, outputs])
                    blocks = self.constant(f"blocks of {shape}", shape, np.int64)
                    axis = self.constant("last axis but one", np.array([-2]), np.int64)
                    own = self.node("Unsqueeze", [inputs[TASK], axis])
                    x = self.node("Squeeze", [self.node("MatMul", [own, self.node("Reshape", [x, blocks])]), axis])
                case Clipped(low, high):
                    x = self.node("Clip", [x, self.number(low), self.number(high)])
                case LayerNorm(name, epsilon):
                    parameters = [f"{prefix}{name}.weight", f"{prefix}{name}.bias"]
                    x = self.node("LayerNormalization", [x, *parameters], epsilon=epsilon)
                case RunningNorm(name, epsilon):
                    mean, variance = f"{prefix}{name}.mean", self.constants[f"{prefix}{name}.variance"]
                    deviation = self.constant(f"{prefix}{name}.deviation", np.sqrt(variance + np.float32(epsilon)))
                    x = self.node("Div", [self.node("Sub", [x, mean]), deviation])
                case ReLU(shift):
                    x = self.node("Relu", [x])
                    x = self.node("Add", [x, self.number(shift)]) if shift else x
                case Bounded(low, high):
                    half, middle = self.number((high - low) / 2), self.number((high + low) / 2)
                    x = self.node("Add", [self.node("Mul", [self.node("Tanh", [x]), half]), middle])
                case Group(name, inner):
                    x = self.layers(inner, x, inputs, f"{prefix}{name}.")
                case Residual(name, inner):
                    x = self.node("Add", [x, self.layers(inner, x, inputs, f"{prefix}{name}.")])
                case Interpolation(name, inner, initial, scale):
                    gap = self.node("Sub", [self.layers(inner, x, inputs, f"{prefix}{name}."), x])
                    part = f"{prefix}{name}.interpolation.weight"
                    x = self.node("Add", [x, self.scaled(gap, part, initial / scale)])
                case Ensemble(name, count, inner):
                    members = [self.layers(inner, x, inputs, f"{prefix}{name}.{member}.") for member in range(count)]
                    axes = self.constant_axes()
                    x = self.node("Concat", [self.node("Unsqueeze", [one, axes]) for one in members], axis=0)
                    stacked = True
                case Heads(branches):
                    return {name: self.layers(inner, x, inputs, prefix) for name, inner in branches}
                case _:
                    raise ValueError(f"{layer} has no ONNX form here")
        return x

    def constant_axes(self) -> str:
        return self.constant("first axis", np.zeros(1), np.int64)


def policy_graph(network: Network, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return a policy as a checked model. It takes `observation` (rows, observation) float32 and `task` (rows,) int64.
    It gives the deterministic `action` in [-1, 1], and `mean` and `log_std` of the distribution before its tanh."""
    graph = Graph(arrays)
    inputs = {}
    if "task_embeddings" in arrays:
        inputs[TASK] = graph.node("Gather", ["task_embeddings", "task"], "embedding")
    found: dict[str, str] = graph.layers(network.layers, OBSERVATION, inputs)
    for name, made in found.items():
        graph.node("Identity", [made], name)
    graph.node("Tanh", [found["mean"]], "action")
    (actions,) = next(place.after for place in reversed(placed(network)) if isinstance(place.layer, Bounded | Clipped))
    single, rows = TensorProto.FLOAT, "rows"
    (observation_size,) = network.shape(OBSERVATION)
    model = helper.make_model(
        helper.make_graph(
            graph.nodes,
            "policy",
            [
                helper.make_tensor_value_info(OBSERVATION, single, [rows, observation_size]),
                helper.make_tensor_value_info("task", TensorProto.INT64, [rows]),
            ],
            [helper.make_tensor_value_info(name, single, [rows, actions]) for name in ("action", "mean", "log_std")],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model


def model_of(network: Network, arrays: Mapping[str, np.ndarray]) -> onnx.ModelProto:
    """Return any network as a model. Inputs have their names; one output is `output`, several have their names."""
    graph = Graph(arrays)
    names = [name for name, _ in network.inputs]
    found = graph.layers(network.layers, OBSERVATION, {name: name for name in names})
    outputs = found if isinstance(found, dict) else {"output": found}
    for name, made in outputs.items():
        graph.node("Identity", [made], name)
    single = TensorProto.FLOAT
    return helper.make_model(
        helper.make_graph(
            graph.nodes,
            "network",
            [helper.make_tensor_value_info(name, single, ["rows", *shape]) for name, shape in network.inputs],
            [helper.make_tensor_value_info(name, single, None) for name in outputs],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in graph.constants.items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )

"""A policy on its own, for programs that know nothing of this project: `brc export`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper
from safetensors.numpy import save_file

from actors.backends.actions import ActionScaler
from actors.benchmarks.catalogue import Task
from actors.closing import close
from actors.environments import make_environment
from actors.policies.policy import LAYER_NORM_EPSILON, LOG_STD_MAX, LOG_STD_MIN, unpack
from cluster.plan.plan import Plan
from cluster.run.manifest import Manifest
from replay.json_text import json_text
from replay.policy_store import PolicyMessage

OPSET, IR_VERSION = 17, 9  # the first with LayerNormalization, and what runtimes since 2023 read
EXAMPLE = '''"""Acts with the policy in this folder: pip install numpy onnxruntime."""
import json
import numpy as np
import onnxruntime



def scaled(action, bounds):
    """From [-1, 1] to what the environment takes; whole numbers share [-1, 1] in equal parts."""
    taken = []
    for number, least, most in zip(action.tolist(), bounds["least"], bounds["most"]):
        if np.dtype(bounds["dtype"]).kind in "iub":
            taken.append(least + min(int((number + 1) / 2 * (most - least + 1)), most - least))
        else:
            taken.append(min(max(most / 2 + least / 2 + (most / 2 - least / 2) * number, least), most))
    return np.array(taken, bounds["dtype"])


about, session = json.load(open("policy.json")), onnxruntime.InferenceSession("policy.onnx")
for index, task in enumerate(about["tasks"]):
    observation = np.zeros((1, about["observation_size"]), np.float32)  # your environment's, zeros behind it
    (action,) = session.run(["action"], {"observation": observation, "task": np.array([index])})
    print(task["name"], scaled(action[0, : task["action_size"]], task["action"]))
'''


def export(plan: Plan, message: PolicyMessage, manifest: Manifest, folder: Path) -> list[Path]:
    """Write policy.safetensors, policy.onnx, policy.json and example.py into the folder; their paths.

    The tensors have the names of learner.networks.modules.Policy, and task_embeddings is scaled already. The graph
    takes `observation` (rows, observation) float32 and `task` (rows,) int64 and gives `action`, the deterministic one
    in [-1, 1], and `mean` and `log_std` of the distribution before its tanh. policy.json says what is in an
    observation, and of every task's actions the dtype, the bounds `low` and `high`, null where there is none, and what
    -1 and 1 stand for, `least` and `most`. Makes a copy of every task to learn this."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "observation_size": plan.observation_size,
        "action_size": plan.action_size,
        "env_steps": manifest.env_steps,
        "updates": manifest.updates,
        "tasks": [
            {
                "name": task.name,
                "observation": [{"key": key, "size": size} for key, size in task.observation_keys],
                "observation_size": task.observation_size,
                "action_size": task.action_size,
                "action": bounds(task, plan.config.actors.backend),
            }
            for task in plan.tasks
        ],
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in unpack(message).items()}
    paths = [folder / name for name in ("policy.safetensors", "policy.onnx", "policy.json", "example.py")]
    save_file(arrays, paths[0], {"about": json_text(about)})
    onnx.save(graph(arrays, plan.observation_size), paths[1])
    paths[2].write_text(json_text(about, indent=1))
    paths[3].write_text(EXAMPLE)
    return paths


def bounds(task: Task, backend: str) -> dict[str, Any]:
    """What the actions of a task may be, an entry for each of their numbers, in a row."""
    environment = make_environment(backend, task, [0])
    scaler = environment.scale
    close(environment)
    assert isinstance(scaler, ActionScaler), "discrete actions are not exported"
    low, high = (
        [bound if is_bound else None for bound, is_bound in zip(side.tolist(), bounded.tolist(), strict=True)]
        for side, bounded in zip((scaler.low, scaler.high), scaler.bounded, strict=True)
    )
    least, most = scaler.reach
    return {"dtype": scaler.dtype.name, "low": low, "high": high, "least": least, "most": most}


def graph(arrays: dict[str, np.ndarray], observation_size: int) -> onnx.ModelProto:
    """The policy as an ONNX model, checked."""
    nodes: list[onnx.NodeProto] = []
    constants = {
        "scale": np.float32(0.5 * (LOG_STD_MAX - LOG_STD_MIN)),
        "offset": np.float32(0.5 * (LOG_STD_MAX + LOG_STD_MIN)),
    }

    def node(kind: str, inputs: list[str], output: str, **attributes: Any) -> str:
        nodes.append(helper.make_node(kind, inputs, [output], **attributes))
        return output

    def dense(x: str, name: str, output: str = "") -> str:
        return node("Gemm", [x, f"{name}.weight", f"{name}.bias"], output or f"{name}.out", transB=1)

    def norm(x: str, name: str) -> str:
        inputs = [x, f"{name}.weight", f"{name}.bias"]
        return node("LayerNormalization", inputs, f"{name}.out", epsilon=float(LAYER_NORM_EPSILON))

    def relu(x: str) -> str:
        return node("Relu", [x], f"{x}.relu")

    x = "observation"
    if "task_embeddings" in arrays:
        x = node("Concat", [x, node("Gather", ["task_embeddings", "task"], "embedding")], "inputs", axis=1)
    x = relu(norm(dense(x, "trunk.input"), "trunk.input_norm"))
    blocks = sum(name.startswith("trunk.blocks.") and name.endswith("first.weight") for name in arrays)
    for block in (f"trunk.blocks.{number}." for number in range(blocks)):
        hidden = relu(norm(dense(x, block + "first"), block + "first_norm"))
        hidden = norm(dense(hidden, block + "second"), block + "second_norm")
        x = node("Add", [x, hidden], block + "out")
    node("Tanh", [dense(x, "mean", "mean")], "action")
    bounded = node("Mul", [node("Tanh", [dense(x, "log_std", "unbounded")], "bounded"), "scale"], "scaled")
    node("Add", [bounded, "offset"], "log_std")

    actions = arrays["mean.bias"].shape[0]
    single = TensorProto.FLOAT
    model = helper.make_model(
        helper.make_graph(
            nodes,
            "policy",
            [
                helper.make_tensor_value_info("observation", single, ["rows", observation_size]),
                helper.make_tensor_value_info("task", TensorProto.INT64, ["rows"]),
            ],
            [helper.make_tensor_value_info(name, single, ["rows", actions]) for name in ("action", "mean", "log_std")],
            [numpy_helper.from_array(np.asarray(value), name) for name, value in (arrays | constants).items()],
        ),
        opset_imports=[helper.make_opsetid("", OPSET)],
        ir_version=IR_VERSION,
    )
    onnx.checker.check_model(model, full_check=True)
    return model

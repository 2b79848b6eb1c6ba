"""`brc export`: writes a policy for programs that do not use this project."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
from safetensors.numpy import save_file

from actors.backends.actions import ActionScaler
from actors.benchmarks.benchmark import Task
from actors.closing import close
from actors.environments import make_environment
from actors.policies.policy import unpack
from cluster.cli.onnx_graph import policy_graph
from cluster.plan.plan import Plan
from cluster.run.manifest import Manifest
from learner.agents.catalogue import acting
from replay.json_text import json_text
from replay.policy_store import PolicyMessage

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
    """Write policy.safetensors, policy.onnx, policy.json and example.py into the folder. Return their paths.

    The tensors have the names of learner.networks.registry.policy, and task_embeddings is scaled already. The graph
    takes `observation` (rows, observation) float32 and `task` (rows,) int64. It gives `action`, the deterministic
    action in [-1, 1], and `mean` and `log_std` of the distribution before its tanh. policy.json lists the parts of an
    observation that the policy sees, and for how many steps of the environment an action is held. For the actions of
    every task it has the dtype, the bounds `low` and `high` (null where there is no bound), and the values `least` and
    `most` that -1 and 1 stand for. The function makes a copy of every task to learn these values."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "observation_size": plan.observation_size,
        "action_size": plan.action_size,
        "env_steps": manifest.env_steps,
        "updates": manifest.updates,
        "tasks": [
            {
                "name": task.name,
                "observation": [{"key": key, "size": size} for key, size in task.unprivileged().observation_keys],
                "observation_size": task.observation_size,
                "action_size": task.action_size,
                "action_repeat": task.action_repeat,
                "action": bounds(task, plan.config.actors.backend),
            }
            for task in plan.tasks
        ],
    }
    arrays = {name: np.ascontiguousarray(array) for name, array in unpack(message).items()}
    paths = [folder / name for name in ("policy.safetensors", "policy.onnx", "policy.json", "example.py")]
    save_file(arrays, paths[0], {"about": json_text(about)})
    onnx.save(policy_graph(acting(plan.networks).network, arrays), paths[1])
    paths[2].write_text(json_text(about, indent=1))
    paths[3].write_text(EXAMPLE)
    return paths


def bounds(task: Task, backend: str) -> dict[str, Any]:
    """Return dtype and limits of a task's actions. Each limit is a flat list with an entry for each number."""
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

"""A trace of some updates, to see where their time goes: open it in ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule


class Trace:
    """Traces as many requests as bring `updates` updates if they are full, into learner-trace.json.gz in the folder.

    It begins after two calls of `step`, which is to be called after every request's updates, of which there are
    `most_batches` or fewer. With 0 updates it does nothing.
    """

    def __init__(self, folder: Path, updates: int, most_batches: int) -> None:
        self.file = folder / "learner-trace.json.gz"
        self.profiler: profile | None = None
        if updates:
            activities = [ProfilerActivity.CPU] + [ProfilerActivity.CUDA] * torch.cuda.is_available()
            steps = schedule(wait=1, warmup=1, active=-(-updates // most_batches), repeat=1)
            self.profiler = profile(activities=activities, schedule=steps, on_trace_ready=self._write, acc_events=True)
            self.profiler.start()

    def step(self) -> None:
        if self.profiler is not None:
            self.profiler.step()

    def _write(self, profiler: profile) -> None:
        profiler.export_chrome_trace(str(self.file))
        self.profiler = None

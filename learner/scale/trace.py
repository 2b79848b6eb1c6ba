"""Writes a trace of some updates, to show how their time is spent. Open it in ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

from pathlib import Path

import torch
from torch.profiler import ProfilerActivity, profile, schedule


class Trace:
    """Traces about `updates` updates into learner-trace.json.gz in the folder.

    Call `step` after the updates of every request, of which there are at most `most_batches`. The trace begins after
    two calls, and covers as many requests as hold `updates` updates if all are full. With 0 updates nothing is traced.
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

"""What a run does with its results, however it is executed: rows, evaluations, checkpoints, the closing summary."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path
from typing import Any

from actors.actor import ActorReport
from actors.evaluator import Evaluation
from cluster.config.fields import get
from cluster.errors import RunFailed
from cluster.plan.plan import Plan
from cluster.plan.shapes import shapes
from cluster.run.bad_numbers import BadNumbers, taken_over
from cluster.run.evaluation_row import evaluation_row, missing, scored, unsound
from cluster.run.folder import REPORT, SERIAL_FIELDS, RunFolder
from dashboards.progress import Progress
from dashboards.sinks import records
from dashboards.sinks.console import Console, duration, number, plain_line, size
from dashboards.sinks.records import Records
from dashboards.sinks.tensorboard import TensorBoard
from replay.json_text import json_text
from replay.snapshots.snapshot import Place

MOST_RETURNS = 8
VERSIONS = ("torch", "ray", "numpy", "envpool", "dm_control", "mujoco")


class Session:
    """The records and the console of a run, and its milestones: when to evaluate and when to checkpoint."""

    def __init__(self, plan: Plan, folder: RunFolder, console: Console) -> None:
        self.plan = plan
        self.folder = folder
        self.console = console
        self.records = Records(folder.path)
        self.report_file = folder.path / REPORT
        self.records.mirrors.append(TensorBoard(folder.path))
        names = [task.name for task in plan.tasks]
        self.progress = Progress(names, plan.config.steps, plan.samples_per_insert, folder.manifest.get("progress"))
        self.records.elapsed_s = self.progress.elapsed_s
        self.evaluations_begun = folder.manifest.get("evaluations_begun", 0)
        scored = records.read(folder.path / "eval.jsonl")
        self.random_is_scored = any(row["policy"] == "random" for row in scored)
        self._expect(folder.manifest.get("env_steps", 0))
        self.missing: list[tuple[int, str]] = []  # evaluations that were given up: their steps, and why
        self.next_report = time.monotonic()
        self.console_was_lost = False
        self.snapshot_at = int(folder.manifest["replay"].split("-")[0]) if folder.manifest else 0  # milliseconds
        self.row: dict[str, Any] = {}
        self.bad_numbers = BadNumbers(self.records, console)

    def _expect(self, env_steps: int) -> None:
        """Set the milestones that follow so many steps."""
        self.next_evaluation = next_multiple(env_steps, self.plan.config.evaluation.interval)
        self.next_checkpoint = next_multiple(env_steps, self.plan.config.checkpoint_interval)

    def state(self) -> dict[str, Any]:
        """For a session that takes over from this one while the run goes on."""
        return {
            "env_steps": self.row.get("env_steps", 0),
            "updates": self.row.get("updates", 0),
            "evaluations_begun": self.evaluations_begun,
            "progress": self.progress.state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        self.evaluations_begun = state["evaluations_begun"]
        self.progress.load_state(state["progress"])
        self._expect(state["env_steps"])

    def begin(self, details: dict[str, Any], again: bool = False) -> None:
        """Tell what is about to run. `again`: by a coordinator in the place of one that died."""
        plan, config = self.plan, self.plan.config
        resumed = self.folder.manifest
        if again:
            self._count_returns()
        self.records.event(
            "coordinator_back" if again else "resume" if resumed else "start",
            f"from {self.folder.checkpoint}" if resumed else "",
            kept_steps=self.folder.kept.get("env_steps", 0),
            kept_updates=self.folder.kept.get("updates", 0),
            **({} if again else self._begins_at()),
            **({"elapsed_s": self.folder.kept["progress"]["elapsed_s"]} if again and self.folder.kept else {}),
            execution=config.execution,
            versions={name: version(name) for name in VERSIONS},
            python=platform.python_version(),
            **details,
        )
        self.console.say(
            f"run {self.folder.name}: {len(plan.tasks)} tasks, {config.steps:,} steps each, {plan.total_updates:,} "
            f"updates, samples per insert {plan.samples_per_insert:.2f}, replay {size(plan.replay_bytes)}, "
            f"{config.execution}"
        )
        self.console.say(f"at its end, or whenever `brc report {self.folder.name}` is called: {self.report_file}")
        if again:
            self.console.say("the coordinator died and is back")
        elif resumed:
            self.console.say(f"resumed at {resumed['env_steps']:,} steps, {resumed['updates']:,} updates")

    def learner_ready(self, ready: dict[str, Any]) -> None:
        """Record what the learner is, and say how it makes its updates and what they took when that was measured."""
        self.records.event("learner_ready", **ready)
        chosen = {"precision": ready["precision"], "threads": ready["threads"]}
        ways = sorted(ready["measured"], key=lambda way: (way | chosen != way, way["seconds"]))
        tried = "; ".join(f"{1000 * way['seconds']:.3g} ms {in_words(way)}" for way in ways)
        self.console.say(f"updates {in_words(chosen)}" + (f": measured {tried}" if tried else ""))

    def _begins_at(self) -> dict[str, float]:
        """Where the checkpoint that the run goes on from is: what has been recorded of later is undone."""
        resumed = self.folder.manifest
        elapsed = resumed["progress"]["elapsed_s"] if resumed else 0.0
        return {"from_steps": resumed.get("env_steps", 0), "from_elapsed_s": elapsed}

    def goes_back(self) -> None:
        """Begin at the checkpoint, if there is one, or anew: of replay and learner nothing lives."""
        if self.folder.checkpoint:
            self.prune()  # what came after it
        if self.folder.kept:  # by a coordinator that is back, which could have gone on with what lived
            self.records.event("gone_back", f"to {self.folder.checkpoint or 'the start'}", **self._begins_at())

    def _count_returns(self) -> None:
        """Raises RunFailed for a coordinator that dies again and again and gets nowhere in between."""
        kept = self.folder.kept
        now = (kept.get("env_steps", 0), kept.get("updates", 0))
        recent = records.tail(self.folder.path / "events.jsonl", 20 * MOST_RETURNS)
        returns = [row for row in recent if row["event"] == "coordinator_back"][-MOST_RETURNS:]
        if [(row["kept_steps"], row.get("kept_updates", 0)) for row in returns] == [now] * MOST_RETURNS:
            raise RunFailed(f"the coordinator died {MOST_RETURNS} times in a row and nothing got on in between")

    def replay_files(self, folder: Path, others: list[tuple[Path, int]]) -> None:
        """Say where replay is about to take its memory, and what dead runs have not given back."""
        self.console.say(f"replay takes {size(self.plan.replay_bytes)} in {folder} while the run lives")
        if others:
            held, paths = size(sum(held for _, held in others)), shlex.join(str(path) for path, _ in others)
            runs = "a run that died holds" if len(others) == 1 else f"{len(others)} runs that died hold"
            self.console.say(f"{runs} {held} of shared memory: resume, or give it up with rm -r {paths}")

    def replay_began(self, stats: dict[str, Any]) -> None:
        """Record what a shard has begun with; say so when it is more than nothing."""
        held = sum(stats["transitions_by_task"])
        self.records.event(
            "shard_began",
            stats["problem"],
            shard=stats["shard"],
            origin=stats["origin"],
            node=stats["node"],
            transitions=held,
            bad_segments=stats["bad_segments"],
            bad_transitions=stats["bad_transitions"],
        )
        if held or stats["problem"] or stats["bad_segments"]:
            self.console.say(
                f"replay shard {stats['shard']} begins with {held:,} transitions from "
                f"{'its ' if stats['origin'] == 'files' else ''}{stats['origin']}"
                + (f", since {stats['problem']}" if stats["problem"] else "")
                + taken_over(stats)
            )

    def shard_event(self, kind: str, reason: str, details: dict[str, Any]) -> None:
        """Record and say that a shard died, or that it is back and what it lacks."""
        self.records.event(kind, reason, **details)
        if kind == "shard_died":
            self.console.say(f"replay shard {details['shard']} died and is being restarted")
        else:
            self.console.say(
                f"replay shard {details['shard']} is back after {details['seconds']:.1f} s with "
                f"{details['transitions']:,} transitions from {details['origin']}"
                + (f", {details['lost']:,} less than before" if details["lost"] else "")
                + taken_over(details)
            )

    def heard(self, reports: Sequence[ActorReport]) -> None:
        """Take in what actors say."""
        self.progress.episodes_ended(reports)
        self.bad_numbers.heard(reports)

    def report_due(self) -> bool:
        return time.monotonic() >= self.next_report

    def report(self, row: dict[str, Any]) -> None:
        """Record and show a row of metrics; the next is due a report interval later."""
        self.row = row
        self.bad_numbers.clips(row["clipped"])
        self._say(row)
        self.next_report = time.monotonic() + self.plan.config.report_interval
        self.records.metrics(row)
        self.console.metrics(row)
        self._look_at_console()

    def _look_at_console(self) -> None:
        """Record that nobody is shown the run any more, once."""
        if self.console.lost and not self.console_was_lost:
            self.console_was_lost = True
            self.records.event("console_lost", self.console.lost)

    def _say(self, row: dict[str, Any]) -> None:
        """To the registry, for whoever asks how the run is."""
        scores = [scored(evaluation) for evaluation in list(self.records.evaluations)[-3:]]
        events = [[event["time"], event["event"], first_line(event["reason"])] for event in self.records.events]
        self.folder.presence.say(
            line=plain_line(row, self.plan.config.steps),
            scores=json_text(scores),
            events=json_text(events),
            fleet=json_text({"time": row["time"], "actors": row["actors_by_benchmark"]}),
        )

    def ended(self, state: str, reason: str = "") -> None:
        """Record how the run has ended: finished, stopped or failed, and why."""
        self.folder.presence.say(state=state, reason=first_line(reason))
        self._look_at_console()
        self.records.event(state, reason)

    def evaluation_due(self, env_steps: int) -> bool:
        """Whether a periodic evaluation is due; the one at the very end is the driver's."""
        if env_steps < self.next_evaluation or env_steps >= self.plan.config.steps:
            return False
        self.next_evaluation = next_multiple(env_steps, self.plan.config.evaluation.interval)
        return True

    def checkpoint_due(self, env_steps: int) -> bool:
        if env_steps < self.next_checkpoint or env_steps >= self.plan.config.steps:
            return False
        self.next_checkpoint = next_multiple(env_steps, self.plan.config.checkpoint_interval)
        return True

    def next_evaluation_number(self) -> int:
        self.evaluations_begun += 1
        return self.evaluations_begun - 1

    def evaluated(self, evaluation: Evaluation, env_steps: int) -> None:
        """Record and show an evaluation that was begun at `env_steps`."""
        row = evaluation_row(self.plan.tasks, evaluation, env_steps, self.progress.elapsed_s())
        self.records.evaluation(row)
        self.console.evaluation(row)
        for sentence in unsound(evaluation.returns):
            self.console.say(f"  {sentence}")

    def evaluator_died(self, benchmark: str, cause: str, env_steps: int) -> None:
        """Record and say that an evaluator is replaced, which the evaluation at `env_steps` has waited for."""
        self.records.event("evaluator_died", cause, evaluator=benchmark, env_steps=env_steps)
        self.console.say(f"the evaluator of {benchmark} is being replaced: {last_line(cause)}")

    def evaluation_lost(self, cause: str, env_steps: int) -> None:
        """Record and say that there will be no evaluation at `env_steps`. The run goes on without it."""
        self.missing.append((env_steps, last_line(cause)))
        self.records.event("evaluation_lost", cause, env_steps=env_steps)
        self.console.say(f"there is no evaluation at {env_steps:,} steps: {last_line(cause)}")

    def begin_checkpoint(self, env_steps: int) -> tuple[str, str]:
        """Names for the learner's part and for replay's snapshot. The latter sort by time, also where a clock goes
        back."""
        self.snapshot_at = max(int(time.time() * 1000), self.snapshot_at + 1)
        return self.folder.checkpoints.begin(env_steps), f"{self.snapshot_at:013d}-{env_steps}"

    def commit_checkpoint(
        self,
        name: str,
        snapshot: str,
        env_steps: int,
        updates: int,
        incarnation: int,
        new_bytes: int,
        started: float,
        seconds: dict[str, float],
    ) -> None:
        """Make a written checkpoint the newest one, and remove snapshots that no kept checkpoint belongs to.

        `new_bytes` are those that replay's snapshot has added; `seconds` say how long the learner and replay took to
        write since it was `started`.
        """
        config = self.plan.config
        manifest = {
            "env_steps": env_steps,
            "steps": config.steps,
            "updates": updates,
            "replay": snapshot,
            "evaluations_begun": self.evaluations_begun,
            "incarnation": incarnation,
            "tasks": [task.name for task in self.plan.tasks],
            "shapes": shapes(self.plan.tasks),
            "execution": config.execution,
            **{field: get(config, field) for field in SERIAL_FIELDS},
            "progress": self.progress.state(),
            "time": time.time(),
        }
        written = time.monotonic()
        learner_bytes = self.folder.checkpoints.commit(name, manifest, config.keep_checkpoints)
        ended = time.monotonic()
        self.folder.presence.say(checkpoint=self.folder.checkpoints.url(name))
        self.records.event(
            "checkpoint",
            env_steps=env_steps,
            updates=updates,
            checkpoint=self.folder.checkpoints.url(name),
            snapshot=snapshot,
            seconds=ended - started,
            part_seconds=seconds | {"commit": ended - written},
            part_bytes={"learner": learner_bytes, "replay": new_bytes},
        )
        self.prune()

    def prune(self) -> None:
        """Remove what the kept checkpoints do not need of replay's snapshots. What cannot be removed is told."""
        try:
            checkpoints = self.folder.checkpoints
            kept = [checkpoints.manifest(name)["replay"] for name in checkpoints.names()]
            Place(self.folder.replay_url).prune(kept)
        except Exception as error:  # of whatever kind a remote file system has: nothing depends on it
            self.records.event("prune_failed", f"{type(error).__name__}: {error}")

    def checkpoint_soon(self) -> None:
        """Have the next checkpoint at once, if there are any on the way: the last one came to nothing."""
        if self.plan.config.checkpoint_interval:
            self.next_checkpoint = 0

    def checkpoint_failed(self, env_steps: int, error: Exception, name: str = "") -> None:
        """A full disk, or a part that died while it wrote: the checkpoint before stays the newest, the run goes on.

        What was written of it, under `name`, goes first: if the disk is full, this makes room for the records.
        """
        with suppress(Exception):  # a store that is away keeps what it has
            if name and name not in self.folder.checkpoints.names():  # it may be whole, and only its record not written
                self.folder.checkpoints.discard(name)
        reason = last_line(str(error)) or type(error).__name__
        self.records.event("checkpoint_failed", str(error) or reason, env_steps=env_steps)
        self.console.say(f"checkpoint at {env_steps:,} steps failed: {reason}")

    def checkpoint_late(self, env_steps: int, seconds: float) -> None:
        """Record and say that a checkpoint takes unusually long; the one before stays the newest until it is whole."""
        reason = f"not all parts have written their share after {seconds:.0f} s: is the place that they write to there?"
        self.records.event("checkpoint_late", reason, env_steps=env_steps)
        self.console.say(f"checkpoint at {env_steps:,} steps: {reason}")

    def summary(self, state: str) -> None:
        """Write the report and say where everything is. `state` is how the run has ended."""
        evaluations = records.read(self.folder.path / "eval.jsonl")
        tasks = [task.name for task in self.plan.tasks]
        learned = [row for row in evaluations if row["policy"] != "random"]
        random = [row for row in evaluations if row["policy"] == "random"]
        if learned:
            for task in tasks:
                before = f"random {number(random[0]['return'][task]):>8s}   " if random else ""
                success = learned[-1]["success"][task]
                after = f", success {success:.0%}" if success else ""
                self.console.say(f"  {task:32s} {before}learned {number(learned[-1]['return'][task]):>8s}{after}")
        if self.row:
            self.console.say(
                f"{self.row['env_steps']:,} steps of each task, {self.row['updates']:,} updates, samples per insert "
                f"{self.row['samples_per_insert']:.3f} of {self.row['samples_per_insert_target']:.3f}, "
                f"in {duration(self.row['elapsed_s'])}"
            )
        if not learned:
            self.console.say("no evaluation was made")
        for sentence in missing(self.missing):
            self.console.say(sentence)
        self.write_report(state)
        logdir = shlex.quote(str(self.folder.path))
        self.console.say(f"everything in {self.folder.path}; `tensorboard --logdir {logdir}` shows more")

    def write_report(self, state: str) -> None:
        """The run is over, and has all it needs: a page that cannot be made is told."""
        try:
            from dashboards.report import page, runs  # matplotlib is wanted only now

            page.write([runs.load(self.folder.path, state)], self.report_file)
            self.console.say(f"report in {self.report_file}")
        except Exception as error:  # a full disk, or whatever a drawing may raise
            self.console.say(f"{self.report_file} could not be written: {type(error).__name__}: {error}")

    def close(self) -> None:
        self.records.close()


def first_line(reason: str) -> str:
    return reason.splitlines()[0] if reason else ""


def last_line(reason: str) -> str:
    """What went wrong, of a traceback."""
    return reason.strip().splitlines()[-1] if reason.strip() else ""


def in_words(way: dict[str, Any]) -> str:
    """How updates are made."""
    return f"in {way['precision']} on {way['threads']} thread{'s' if way['threads'] > 1 else ''}"


def next_multiple(done: int, interval: int) -> int:
    """The first multiple of `interval` beyond `done`; never, for interval 0."""
    return (done // interval + 1) * interval if interval else 1 << 62

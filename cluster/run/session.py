"""Handles the results of a run in every kind of execution: rows, evaluations, checkpoints, the closing summary."""

from __future__ import annotations

import platform
import shlex
import time
from collections.abc import Sequence
from contextlib import suppress
from importlib.metadata import version
from pathlib import Path

from actors.causes import Cause
from actors.evaluator import Evaluation
from actors.reports import ActorReport
from cluster.errors import RunFailed
from cluster.plan.plan import Plan
from cluster.plan.shapes import shapes
from cluster.run import version as brc
from cluster.run.bad_numbers import BadNumbers, taken_over
from cluster.run.evaluation_row import evaluation_row, missing, scored, unsound
from cluster.run.folder import REPORT, RunFolder
from cluster.run.kept import Kept
from cluster.run.manifest import Manifest, read_manifest, serial_options, to_json
from cluster.run.milestones import Milestones
from dashboards.codec import plain
from dashboards.events import (
    SCHEMA,
    Begun,
    Checkpoint,
    CheckpointFailed,
    CheckpointLate,
    ConsoleLost,
    EvaluationLost,
    EvaluatorDied,
    Failed,
    Finished,
    GoneBack,
    LearnerReady,
    PruneFailed,
    ShardBack,
    ShardBegan,
    ShardDied,
    Stopped,
    from_row,
)
from dashboards.progress import Progress
from dashboards.rows import Row
from dashboards.sinks import records
from dashboards.sinks.console import Console, duration, number, plain_line, size
from dashboards.sinks.records import Records
from dashboards.sinks.tensorboard import TensorBoard
from learner.reports import Ready
from replay.json_text import json_text
from replay.snapshots.snapshot import Place
from replay.stats import ShardStats

MOST_RETURNS = 8
VERSIONS = ("torch", "ray", "numpy", "envpool", "dm_control", "mujoco")


class Session:
    """The records and the console of a run, and its milestones."""

    def __init__(self, plan: Plan, folder: RunFolder, console: Console) -> None:
        self.plan = plan
        self.folder = folder
        self.console = console
        self.records = Records(folder.path)
        self.report_file = folder.path / REPORT
        self.records.mirrors.append(TensorBoard(folder.path))
        names = [task.name for task in plan.tasks]
        begun = folder.manifest
        counted = begun.progress if begun else None
        self.progress = Progress(names, plan.config.steps, plan.samples_per_insert, counted)
        self.records.elapsed_s = self.progress.elapsed_s
        self.evaluations_begun = begun.evaluations_begun if begun else 0
        self.random_is_scored = any(row.is_random for row in records.read_evaluations(folder.path))
        config = plan.config
        self.milestones = Milestones(config)
        self.milestones.begin(begun.env_steps if begun else 0, begun.updates if begun else 0)
        self.missing: list[tuple[int, str]] = []  # evaluations that were given up: their steps, and why
        self.next_report = time.monotonic()
        self.console_was_lost = False
        self.snapshot_at = int(begun.replay.split("-")[0]) if begun else 0  # milliseconds
        self.row: Row | None = None
        self.bad_numbers = BadNumbers(self.records, console)

    def take_over(self, kept: Kept) -> None:
        """Go on from the session of a coordinator that died while the run goes on."""
        self.evaluations_begun = kept.evaluations_begun
        self.progress.load_state(kept.progress)
        self.milestones.begin(kept.env_steps)

    def begin(self, preset: str, again: bool = False) -> None:
        """Record and print what is about to run. `again`: this coordinator replaces a coordinator that died."""
        plan, config = self.plan, self.plan.config
        resumed = self.folder.manifest
        if again:
            self._count_returns()
        kept = self.folder.kept
        from_steps, from_elapsed_s = (None, None) if again else self._begins_at()
        self.records.event(
            Begun(
                how="coordinator_back" if again else "resume" if resumed else "start",
                reason=f"from {self.folder.checkpoint}" if resumed else "",
                kept_steps=kept.env_steps if kept else 0,
                kept_updates=kept.updates if kept else 0,
                from_steps=from_steps,
                from_elapsed_s=from_elapsed_s,
                execution=config.execution,
                versions={name: version(name) for name in VERSIONS},
                python=platform.python_version(),
                preset=preset,
                actors=plan.counts(),
                shards=len(plan.shards),
                version=brc.version(),
                commit=brc.commit(),
                schema=SCHEMA,
            ),
            kept.progress.elapsed_s if again and kept else None,
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
            self.console.say(f"resumed at {resumed.env_steps:,} steps, {resumed.updates:,} updates")

    def learner_ready(self, ready: Ready) -> None:
        """Record the learner's settings. Print how it makes updates, and how long they took if that was measured."""
        self.records.event(LearnerReady(learner=ready))
        chosen = (ready.precision, ready.threads)
        ways = sorted(ready.measured, key=lambda way: ((way.precision, way.threads) != chosen, way.seconds))
        tried = "; ".join(f"{1000 * way.seconds:.3g} ms {in_words(way.precision, way.threads)}" for way in ways)
        self.console.say(f"updates {in_words(*chosen)}" + (f": measured {tried}" if tried else ""))
        if ready.ranks > 1:
            each = ", ".join(f"{1000 * seconds:.3g} ms by {way}" for way, seconds in ready.reckoned.items())
            self.console.say(f"{ready.ranks} ranks share the critic by {ready.sharding}: reckoned {each}")

    def _begins_at(self) -> tuple[int, float]:
        """Return steps and seconds of the checkpoint that the run goes on from: later records are undone."""
        resumed = self.folder.manifest
        return (resumed.env_steps, resumed.progress.elapsed_s) if resumed else (0, 0.0)

    def goes_back(self) -> None:
        """Begin at the checkpoint, or anew if there is none, because no part of replay or learner is alive."""
        if self.folder.checkpoint:
            self.prune()  # remove snapshots after it
        if self.folder.kept:  # a coordinator is back, and could have gone on with live parts
            steps, seconds = self._begins_at()
            to = f"to {self.folder.checkpoint or 'the start'}"
            self.records.event(GoneBack(reason=to, from_steps=steps, from_elapsed_s=seconds))

    def _count_returns(self) -> None:
        """Raise RunFailed if the coordinator died MOST_RETURNS times in a row without progress in between."""
        kept = self.folder.kept
        now = (kept.env_steps, kept.updates) if kept else (0, 0)
        recent = map(from_row, records.tail(self.folder.path / "events.jsonl", 20 * MOST_RETURNS))
        begun = [entry.event for entry in recent if isinstance(entry.event, Begun)]
        returns = [event for event in begun if event.how == "coordinator_back"][-MOST_RETURNS:]
        if [(event.kept_steps, event.kept_updates) for event in returns] == [now] * MOST_RETURNS:
            raise RunFailed(f"the coordinator died {MOST_RETURNS} times in a row and nothing got on in between")

    def replay_files(self, folder: Path, others: list[tuple[Path, int]]) -> None:
        """Print where replay is about to take its memory, and the memory that dead runs still hold."""
        self.console.say(f"replay takes {size(self.plan.replay_bytes)} in {folder} while the run lives")
        if others:
            held, paths = size(sum(held for _, held in others)), shlex.join(str(path) for path, _ in others)
            runs = "a run that died holds" if len(others) == 1 else f"{len(others)} runs that died hold"
            self.console.say(f"{runs} {held} of shared memory: resume, or give it up with rm -r {paths}")

    def replay_began(self, stats: ShardStats) -> None:
        """Record the content that a shard begins with. Print it unless it is empty and without problems."""
        content = stats.content
        self.records.event(ShardBegan(reason=stats.problem, shard=stats.shard, node=stats.node, content=content))
        if content.transitions or stats.problem or content.bad_segments:
            self.console.say(
                f"replay shard {stats.shard} begins with {content.transitions:,} transitions from "
                f"{'its ' if content.origin == 'files' else ''}{content.origin}"
                + (f", since {stats.problem}" if stats.problem else "")
                + taken_over(content)
            )

    def shard_event(self, event: ShardDied | ShardBack) -> None:
        """Record and print that a shard died, or that it is back and how much it has lost."""
        self.records.event(event)
        if isinstance(event, ShardDied):
            self.console.say(f"replay shard {event.shard} died and is being restarted")
        else:
            self.console.say(
                f"replay shard {event.shard} is back after {event.seconds:.1f} s with "
                f"{event.content.transitions:,} transitions from {event.content.origin}"
                + (f", {event.lost:,} less than before" if event.lost else "")
                + taken_over(event.content)
            )

    def heard(self, reports: Sequence[ActorReport]) -> None:
        """Take in the reports of actors."""
        self.progress.episodes_ended(reports)
        self.bad_numbers.heard(reports)

    def report_due(self) -> bool:
        return time.monotonic() >= self.next_report

    def report(self, row: Row) -> None:
        """Record and show a row of metrics. The next row is due a report interval later."""
        self.row = row
        self.bad_numbers.clips(row.clipped)
        self._say(row)
        self.next_report = time.monotonic() + self.plan.config.report_interval
        self.records.metrics(row)
        self.console.metrics(row)
        self._look_at_console()

    def _look_at_console(self) -> None:
        """Record, once, that the console cannot be written to any more."""
        if self.console.lost and not self.console_was_lost:
            self.console_was_lost = True
            self.records.event(ConsoleLost(reason=self.console.lost))

    def _say(self, row: Row) -> None:
        """Write the state of the run to the registry, for `brc status`."""
        scores = [scored(evaluation) for evaluation in list(self.records.evaluations)[-3:]]
        events = [[one.time, one.event.kind, first_line(one.event.reason)] for one in self.records.events]
        self.folder.presence.say(
            line=plain_line(row, self.plan.config.steps),
            scores=json_text(scores),
            events=json_text(events),
            fleet=json_text({"time": row.time, "actors": plain(row.actors_by_benchmark)}),
        )

    def ended(self, event: Finished | Stopped | Failed) -> None:
        """Record how the run has ended, and why."""
        self.folder.presence.say(state=event.kind, reason=first_line(event.reason))
        self._look_at_console()
        self.records.event(event)

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

    def evaluator_died(self, benchmark: str, cause: Cause, reason: str, env_steps: int) -> None:
        """Record and print that an evaluator is replaced. The evaluation at `env_steps` has waited for it."""
        self.records.event(EvaluatorDied(reason=reason, cause=cause, evaluator=benchmark, env_steps=env_steps))
        self.console.say(f"the evaluator of {benchmark} is being replaced: {last_line(reason)}")

    def evaluation_lost(self, reason: str, env_steps: int) -> None:
        """Record and print that there will be no evaluation at `env_steps`. The run goes on without it."""
        self.missing.append((env_steps, last_line(reason)))
        self.records.event(EvaluationLost(reason=reason, env_steps=env_steps))
        self.console.say(f"there is no evaluation at {env_steps:,} steps: {last_line(reason)}")

    def begin_checkpoint(self, env_steps: int) -> tuple[str, str]:
        """Return names for the learner's part and for replay's snapshot. Names of snapshots sort by time, even where a
        clock goes back."""
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

        `new_bytes` are the bytes that replay's snapshot has added. `seconds` says how long the learner and replay
        took to write; `started` is when the checkpoint began.
        """
        config = self.plan.config
        manifest = Manifest(
            env_steps=env_steps,
            steps=config.steps,
            updates=updates,
            replay=snapshot,
            evaluations_begun=self.evaluations_begun,
            incarnation=incarnation,
            tasks=[task.name for task in self.plan.tasks],
            shapes=shapes(self.plan.tasks),
            execution=config.execution,
            progress=self.progress.state(),
            time=time.time(),
            options=serial_options(config),
        )
        written = time.monotonic()
        learner_bytes = self.folder.checkpoints.commit(name, to_json(manifest), config.keep_checkpoints)
        ended = time.monotonic()
        self.folder.presence.say(checkpoint=self.folder.checkpoints.url(name))
        self.records.event(
            Checkpoint(
                env_steps=env_steps,
                updates=updates,
                checkpoint=self.folder.checkpoints.url(name),
                snapshot=snapshot,
                seconds=ended - started,
                part_seconds=seconds | {"commit": ended - written},
                part_bytes={"learner": learner_bytes, "replay": new_bytes},
            )
        )
        self.prune()

    def prune(self) -> None:
        """Remove replay's snapshots that no kept checkpoint needs. Only record a failure: no part depends on this."""
        try:
            checkpoints = self.folder.checkpoints
            kept = [read_manifest(checkpoints, name).replay for name in checkpoints.names()]
            Place(self.folder.replay_url).prune(kept)
        except Exception as error:  # remote file systems raise many kinds
            self.records.event(PruneFailed(reason=f"{type(error).__name__}: {error}"))

    def checkpoint_failed(self, env_steps: int, error: Exception, name: str = "") -> None:
        """Record and print that a checkpoint failed: a full disk, or a part that died while it wrote. The run goes on.

        The checkpoint before stays the newest. Its files, under `name`, are removed first: this makes room for the
        records if the disk is full.
        """
        with suppress(Exception):  # a store that is away keeps the files
            if name and name not in self.folder.checkpoints.names():  # it may be whole, with only its record missing
                self.folder.checkpoints.discard(name)
        reason = last_line(str(error)) or type(error).__name__
        self.records.event(CheckpointFailed(reason=str(error) or reason, env_steps=env_steps))
        self.console.say(f"checkpoint at {env_steps:,} steps failed: {reason}")

    def checkpoint_late(self, env_steps: int, seconds: float) -> None:
        """Record and print that a checkpoint takes unusually long. Until it is whole, the last one stays the newest."""
        reason = f"not all parts have written their share after {seconds:.0f} s: is the place that they write to there?"
        self.records.event(CheckpointLate(reason=reason, env_steps=env_steps))
        self.console.say(f"checkpoint at {env_steps:,} steps: {reason}")

    def summary(self, state: str) -> None:
        """Write the report and print where everything is. `state` is how the run has ended."""
        evaluations = records.read_evaluations(self.folder.path)
        tasks = [task.name for task in self.plan.tasks]
        learned = [row for row in evaluations if not row.is_random]
        random = [row for row in evaluations if row.is_random]
        if learned:
            for task in tasks:
                before = f"random {number(random[0].mean_return[task]):>8s}   " if random else ""
                success = learned[-1].success[task]
                after = f", success {success:.0%}" if success else ""
                self.console.say(f"  {task:32s} {before}learned {number(learned[-1].mean_return[task]):>8s}{after}")
        if self.row:
            self.console.say(
                f"{self.row.env_steps:,} steps of each task, {self.row.updates:,} updates, samples per insert "
                f"{self.row.samples_per_insert:.3f} of {self.row.samples_per_insert_target:.3f}, "
                f"in {duration(self.row.elapsed_s)}"
            )
        if not learned:
            self.console.say("no evaluation was made")
        for sentence in missing(self.missing):
            self.console.say(sentence)
        self.write_report(state)
        logdir = shlex.quote(str(self.folder.path))
        self.console.say(f"everything in {self.folder.path}; `tensorboard --logdir {logdir}` shows more")

    def write_report(self, state: str) -> None:
        """Write the report page. Print a failure instead of raising it: the run is over and has all else it needs."""
        try:
            from dashboards.report import page, runs  # matplotlib is needed only now

            page.write([runs.load(self.folder.path, state)], self.report_file)
            self.console.say(f"report in {self.report_file}")
        except Exception as error:  # a full disk, or any error of drawing
            self.console.say(f"{self.report_file} could not be written: {type(error).__name__}: {error}")

    def close(self) -> None:
        self.records.close()


def first_line(reason: str) -> str:
    return reason.splitlines()[0] if reason else ""


def last_line(reason: str) -> str:
    """Return the last line of a traceback, which says what went wrong."""
    return reason.strip().splitlines()[-1] if reason.strip() else ""


def in_words(precision: str, threads: int) -> str:
    """Return how updates are made, in words."""
    return f"in {precision} on {threads} thread{'s' if threads > 1 else ''}"

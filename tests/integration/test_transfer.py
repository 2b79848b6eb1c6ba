"""Tests of transfer: an agent for other tasks begins with all that a trained agent has learned, and learns faster."""

from __future__ import annotations

import contextlib
import io
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from cluster.cli import main as cli
from dashboards.sinks import records
from learner.learner import Learner
from learner.networks.architectures import ARCHITECTURES, Architecture
from learner.networks.description import Dense, LayerNorm, Layers, ReLU
from learner.networks.spec import NetworkSpec
from learner.spec import MEAN, RANDOM, Origin
from learner.state.transfer import begin_from
from tests.support import golden_vectors as golden
from tests.support import tiny
from tests.unit.test_learner import batches, save, spec

OLD = NetworkSpec(observation_size=5, action_size=2, num_tasks=3, width=16, policy_width=16)
WIDER = replace(OLD, observation_size=7, action_size=4, num_tasks=4)


def trained(folder: Path, networks: NetworkSpec = OLD) -> Learner:
    learner = Learner(spec(networks=networks))
    for step in range(3):
        learner.train(batches(step))
    save(learner, folder)
    return learner


def grown(folder: Path, old: NetworkSpec, new: NetworkSpec, embeddings: tuple[int, ...]) -> Learner:
    learner = Learner(spec(networks=new, seed=77))
    scales = tuple(task if task >= 0 else RANDOM for task in embeddings)
    begin_from(learner, Origin(str(folder), old, embeddings, scales))
    return learner


def test_what_was_learned_of_a_task_is_the_same_in_the_larger_agent(tmp_path: Path) -> None:
    old = trained(tmp_path)
    new = grown(tmp_path, OLD, WIDER, (MEAN, 2, RANDOM, 0))
    observations, actions = torch.randn(6, 5), torch.rand(6, 2)
    more = torch.cat([observations, torch.randn(6, 2)], dim=1), torch.cat([actions, torch.randn(6, 2)], dim=1)
    for before, after in ((2, 1), (0, 3)):
        theirs, ours = (torch.full((6,), task) for task in (before, after))
        for name in ("critic", "target"):
            one, other = golden.critics(old)[name], golden.critics(new)[name]
            torch.testing.assert_close(
                other(*more, other.embed(ours)), one(observations, actions, one.embed(theirs)), rtol=1e-5, atol=1e-5
            )
        mean, log_std = golden.continuous(new).policy(more[0], golden.continuous(new).critic.embed(ours))
        expected = golden.continuous(old).policy(observations, golden.continuous(old).critic.embed(theirs))
        torch.testing.assert_close(mean[:, :2], expected[0], rtol=1e-5, atol=1e-5)
        torch.testing.assert_close(log_std[:, :2], expected[1], rtol=1e-5, atol=1e-5)
    assert golden.continuous(new).log_temperature == golden.continuous(old).log_temperature
    table, rows = old.state.table(), new.state.table()
    assert table is not None and rows is not None
    torch.testing.assert_close(rows[0], table.mean(dim=0))
    assert not any(torch.equal(rows[2], row) for row in table)
    kept = new.normalizer.maximum
    assert kept[1] == old.normalizer.maximum[2] and kept[3] == old.normalizer.maximum[0]
    assert kept[0] == kept[2] == -torch.inf, "what is new has no returns yet"
    assert new.updates == 0
    for key, parameter in new.state.modules()["critic"].named_parameters():
        if "embeddings" not in key and "input.weight" not in key:
            assert torch.equal(parameter, dict(old.state.modules()["critic"].named_parameters())[key])


def plainly(width: int, depth: int) -> Layers:
    """Return the layers of a trunk, with names that no built-in trunk uses."""
    return (Dense("begin", width), ReLU(), Dense("middle", width), ReLU())


def test_layers_of_any_names_are_enlarged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(ARCHITECTURES, "plainly", Architecture(plainly))
    old, new = (replace(one, network="plainly") for one in (OLD, WIDER))
    one, other = trained(tmp_path, old), grown(tmp_path, old, new, (MEAN, 2, RANDOM, 0))
    alone = grown(tmp_path, old, replace(old, num_tasks=1), (2,))
    observations, actions = torch.randn(6, 5), torch.rand(6, 2)
    more = torch.cat([observations, torch.randn(6, 2)], dim=1), torch.cat([actions, torch.randn(6, 2)], dim=1)
    theirs = golden.critics(one)["critic"]
    expected = theirs(observations, actions, theirs.embed(torch.full((6,), 2)))
    ours = golden.critics(other)["critic"]
    torch.testing.assert_close(ours(*more, ours.embed(torch.full((6,), 1))), expected, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(
        golden.critics(alone)["critic"](observations, actions, None), expected, rtol=1e-5, atol=1e-5
    )


def test_a_layer_that_cannot_be_enlarged_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    normed = Architecture(lambda *sizes: (LayerNorm("norm"), *plainly(*sizes)))
    monkeypatch.setitem(ARCHITECTURES, "normed", normed)
    old, new = (replace(one, network="normed") for one in (OLD, WIDER))
    trained(tmp_path, old)
    with pytest.raises(
        ValueError, match=r"heads\.0\.norm\.weight has the shape \(39,\) in the origin and \(43,\) here"
    ):
        grown(tmp_path, old, new, (MEAN, 2, RANDOM, 0))


def test_statistics_of_new_numbers_begin_anew(tmp_path: Path) -> None:
    """Statistics of numbers that the origin saw for long do not change, and those of new numbers are soon right."""
    old, new = (replace(one, normalize_observations=True) for one in (OLD, WIDER))
    learner = trained(tmp_path, old)
    for norm in learner.observed:
        norm.count.fill_(1e9)
    save(learner, tmp_path)
    (norm, *_) = grown(tmp_path, old, new, (0, 1, 2, RANDOM)).observed
    before = norm.mean[:5].clone()
    norm.observe(torch.full((7,), 50.0), torch.full((7,), 4.0), 1000)
    torch.testing.assert_close(norm.mean[:5], before, rtol=0, atol=1e-3)
    torch.testing.assert_close(norm.mean[5:], torch.full((2,), 50.0), rtol=0, atol=1e-2)
    torch.testing.assert_close(norm.variance[5:], torch.full((2,), 4.0), rtol=0, atol=1e-2)


SINGLE = replace(OLD, num_tasks=1)


@pytest.mark.parametrize(
    ("old", "new", "embeddings"),
    [(SINGLE, OLD, (0, MEAN, RANDOM)), (OLD, SINGLE, (1,)), (WIDER, OLD, (3, 1, 0))],
    ids=["one to three", "three to one", "to a narrower one"],
)
def test_any_number_of_tasks_of_any_size(
    tmp_path: Path, old: NetworkSpec, new: NetworkSpec, embeddings: tuple[int, ...]
) -> None:
    learner = Learner(spec(networks=old))
    save(learner, tmp_path)
    made = grown(tmp_path, old, new, embeddings)
    saved = dict(learner.state.modules()["critic"].named_parameters())["heads.0.input.weight"]
    width = min(old.observation_size, new.observation_size)
    ours = dict(made.state.modules()["critic"].named_parameters())["heads.0.input.weight"]
    assert torch.equal(ours[:, :width], saved[:, :width])
    if new == SINGLE:  # the task's embedding is part of the bias now
        observations, actions, task = torch.randn(4, 5), torch.rand(4, 2), torch.full((4,), 1)
        for name in ("critic", "target"):
            one, other = golden.critics(learner)[name], golden.critics(made)[name]
            expected = one(observations, actions, one.embed(task))
            torch.testing.assert_close(other(observations, actions, None), expected, rtol=1e-5, atol=1e-5)
        expected = golden.continuous(learner).policy(observations, golden.continuous(learner).critic.embed(task))
        torch.testing.assert_close(golden.continuous(made).policy(observations, None), expected, rtol=1e-5, atol=1e-5)
    if new == OLD:
        made.train(batches(0)).finish()


def brc(*words: str) -> tuple[int, str]:
    said = io.StringIO()
    with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
        code = cli.main(list(words))
    return code, said.getvalue()


def test_brc_add_task_trains_on_with_more_tasks(tmp_path: Path) -> None:
    """A command in lock step adds a task of another observation size to a kept task. Bad commands are refused."""
    runs = f"--runs-folder={tmp_path}"
    options = [*tiny.OPTIONS, runs, "--execution=serial", "--steps=600"]
    code, said = brc("train", "quickstart", *options, "--name=a")
    assert code == 0, said
    code, said = brc("add-task", "a", "dmc/cheetah-run", "--keep", runs, "--name=b")
    assert code == 0, said
    assert "dmc/cartpole-swingup" in said and "dmc/cheetah-run" in said
    for words, reason in (
        (["a", "dmc/cheetah-run", "--learner.width=32"], "--learner.width 32: the origin"),
        (["a", "dmc/cheetah-run", "--origin-embedding=dmc/cartpole-swingpu"], "did you mean dmc/cartpole-swingup"),
        (["nothing", "dmc/cheetah-run"], "there is no run 'nothing'"),
        (["a"], "needs a run and tasks"),
    ):
        code, said = brc("add-task", *words, runs, "--name=c")
        assert code == 2 and reason in said, said


@pytest.mark.long
def test_a_new_task_is_learned_faster_than_from_scratch(tmp_path: Path) -> None:
    """For three seeds, an agent that can balance a pole, and knows another task, learns to balance a pole that is twice
    as long and heavier."""
    runs = [f"--runs-folder={tmp_path}", "--checkpoint-interval=0", "--evaluation.episodes=5"]
    small = [
        "--execution=serial",
        "--learner.width=64",
        "--learner.batch-size=64",
        "--replay.warmup=300",
        "--exploration.steps=500",
    ]
    known, new = "gymnasium/CartPole-v1", "gymnasium/tests.support.counting:LongPole-v0"
    returns: dict[str, list[float]] = {"begun": [], "scratch": []}
    for seed in range(3):
        named = [*runs, f"--seed={seed}"]
        old = [
            "--tasks",
            known,
            "gymnasium/Acrobot-v1",
            "--steps=4000",
            "--evaluation.interval=0",
            f"--name=old-{seed}",
        ]
        short = [*named, "--steps=1000", "--evaluation.interval=250"]
        for words in (
            ["train", "quickstart-discrete", *small, *named, *old],
            ["add-task", f"old-{seed}", new, *short, f"--origin-embedding={known}", f"--name=begun-{seed}"],
            ["train", "quickstart-discrete", *small, *short, "--tasks", new, f"--name=scratch-{seed}"],
        ):
            code, said = brc(*words)
            assert code == 0, said
        for name, found in returns.items():
            rows = records.read(tmp_path / f"{name}-{seed}" / "eval.jsonl")
            # The mean over the whole run: single evaluations of agents this young vary too much.
            found.append(sum(row["return"][new] for row in rows[1:]) / len(rows[1:]))
    assert min(returns["begun"]) > max(returns["scratch"]), returns
    assert sum(returns["begun"]) > 1.5 * sum(returns["scratch"]), returns


def test_an_agent_of_other_actions_is_no_origin(tmp_path: Path) -> None:
    """Its critic is of another kind: the agent is refused before anything is loaded."""
    options = [*tiny.OPTIONS, f"--runs-folder={tmp_path}", "--execution=serial", "--steps=400"]
    with contextlib.redirect_stdout(io.StringIO()):
        assert cli.main(["train", "quickstart", *options, "--name=old"]) == 0
    errors = io.StringIO()
    with contextlib.redirect_stderr(errors):
        command = ["add-task", "old", "gymnasium/CartPole-v1", f"--runs-folder={tmp_path}"]
        assert cli.main(command) == 2
    assert "takes continuous actions and these tasks discrete ones" in errors.getvalue()

"""Sweeps: what they find, what they prune, and how they go on after a stop."""

from __future__ import annotations

import re
import signal
import subprocess
from pathlib import Path

import pytest

from cluster.cli import main as cli
from cluster.errors import ConfigError
from cluster.run.folder import load_config
from cluster.study import search
from cluster.study.sweep import Range, load
from tests.support import tiny
from tests.support.live import wait_for

OPTIONS = """
options:
  tasks: [gymnasium/tests.support.press:Press-v0]
  steps: 1200
  execution: serial
  learner: {width: 16, policy-width: 16, batch-size: 64, updates-per-step: 0.5, threads: 1, precision: float32}
  actors.count: 1
  replay: {capacity: 20_000, warmup: 200}
  evaluation: {episodes: 2, interval: 400}
  report-interval: 0.5
"""


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(Path(__file__).parents[2]))  # where tests.support.press is found
    return tmp_path


def written(folder: Path, name: str, text: str) -> str:
    (folder / f"{name}.yaml").write_text("preset: quickstart\n" + OPTIONS + text)
    return f"{name}.yaml"


def test_a_sweep_finds_a_better_rate_than_the_worst_and_prunes(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A rate of 1e-7 learns nothing in 500 updates, and one of 3e-3 does. ASHA lets one trial of three go on."""
    file = written(here, "rates", "sampler: grid\nspace: {learner.learning-rate: [3e-3, 1e-3, 1e-7, 3e-8]}\n")
    assert cli.main(["sweep", file, "--at-once", "2"]) == 0
    said = capsys.readouterr().out
    found = load(here / file)
    study = search.open_study(found, search.folder_of(found, "runs"))
    states = [trial.state.name for trial in study.trials]
    assert len(states) == 4 and states.count("PRUNED") >= 1 and states.count("COMPLETE") >= 1, said
    assert study.best_params["learner.learning_rate"] >= 1e-3, said
    best = re.search(r"train with it: brc train --config (\S+)", said)
    assert best is not None and load_config(Path(best[1]).parent)[1].learner.learning_rate >= 1e-3
    page = (here / "runs/sweeps/rates/report.html").read_text()
    assert page.count("<svg") >= 4 and "pruned" in page
    # All trials have ended: the same command trains nothing.
    assert cli.main(["sweep", file]) == 0
    assert "4 trials, 4 done" in capsys.readouterr().out


def test_a_stopped_sweep_goes_on_where_it_was(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(
        here,
        "goes",
        "trials: 2\nprune: false\nspace: {learner.learning-rate: {low: 1e-4, high: 1e-2, log: true}}\n",
    )
    process = subprocess.Popen(tiny.command(["sweep", file, "--at-once", "1"]), stdout=subprocess.PIPE, text=True)
    try:
        wait_for(process, lambda: any(row["updates"] for row in tiny.rows(here, "goes-000", "metrics")))
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[0]
    finally:
        process.kill()
    assert process.returncode == 130 and "goes-000 was stopped" in said, said
    first = load_config(here / "runs/goes-000")[1].learner.learning_rate
    assert cli.main(["sweep", file, "--at-once", "1"]) == 0
    said = capsys.readouterr().out
    assert load_config(here / "runs/goes-000")[1].learner.learning_rate == first, "the same trial, the same values"
    found = load(here / file)
    states = [trial.state.name for trial in search.open_study(found, search.folder_of(found, "runs")).trials]
    assert states == ["COMPLETE", "COMPLETE"]
    events = [row["event"] for row in tiny.rows(here, "goes-000", "events")]
    assert "resumed at" in (here / "runs/sweeps/goes/goes-000.log").read_text(), events
    changed = (here / file).read_text().replace("1e-2", "1e-3")
    (here / file).write_text(changed)
    assert cli.main(["sweep", file]) == 2
    assert "was begun with another space" in capsys.readouterr().err


# (text behind preset and options, what is said of it)
WRONG = [
    ("spce: {}", "there is no key 'spce'; did you mean space"),
    ("space: {learner.widht: [1, 2]}", "there is no option 'learner.widht'; did you mean learner.width"),
    ("space: {learner.width: [16]}", "is to be a range, {low: 1, high: 9}, or two choices or more"),
    ("space: {learner.width: {low: 9, high: 8}}", "is no range: low is to be less than high"),
    ("space: {learner.width: {low: 8, heigh: 16}}", "a range has no 'heigh'"),
    ("space: {learner.width: [16, wide]}", "learner.width 'wide'"),
    ("space: {name: [a, b]}", "the sweep sets name itself"),
    ("space: {steps: [1, 2]}", "steps is there twice, or in the space too"),
    ("space: {learner.depth: {low: 1, high: 2}}\nsampler: grid", "a grid needs choices, and learner.depth is a range"),
    ("space: {learner.depth: [1, 2]}\nsampler: best", "sampler 'best' is not one of tpe"),
    ("space: {learner.width: [0, 16]}", "learner.width 0 is out of range"),
    ("space: {learner.width: {low: 8.0, high: 64.0}}", "learner.width is a whole number"),
    ("space: {learner.discount: {low: 0.1, high: 0.9, step: 0.0}}", "is no range"),
    ("space: {learner.discount: {low: 0.1, high: .inf}}", "is no range"),
    ("space: {learner.depth: [1, 2]}\nseed: 99999999999999", "seed 99999999999999 is to be a whole number"),
    ("space: {learner.depth: [1, 2]}\ntrials: many", "trials 'many' is to be a whole number"),
    ("space: {learner.depth: [1, 2]}\nprune: 1", "prune 1 is to be true or false"),
]


@pytest.mark.parametrize(("text", "said"), WRONG)
def test_what_is_wrong_in_a_sweep_is_named_with_its_line(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "s.yaml").write_text("preset: quickstart\noptions: {steps: 100}\n" + text)
    with pytest.raises(ConfigError) as caught:
        load(tmp_path / "s.yaml")
    assert said in str(caught.value) and re.search(r"s\.yaml line [1-4]: ", str(caught.value)), caught.value


def test_the_page_has_all_pictures_and_leaves_out_what_cannot_be_drawn(tmp_path: Path) -> None:
    import optuna

    from cluster.study import sweep_page

    space = "{learner.width: [16, 32], learner.learning-rate: {low: 1e-4, high: 0.1, log: true}}"
    (tmp_path / "s.yaml").write_text(f"preset: quickstart\nspace: {space}\n")
    found = load(tmp_path / "s.yaml")
    for scores, drawn in (([0.1, 0.5, 0.3, 0.7, 0.2], 5), ([0.1, 1e308, -1e308, 0.7, 0.2], 1)):
        study = optuna.create_study(direction="maximize", sampler=optuna.samplers.RandomSampler(seed=0))
        for score in scores:
            trial = study.ask()
            search.drawn(trial, found.space)
            trial.report(score, 1)
            study.tell(trial, score)
        page = sweep_page.write(found, study, tmp_path).read_text()
        assert page.count("<svg") >= drawn and page.count("<svg") + page.count("<p>not drawn: ") == 5


def test_runs_of_others_are_not_taken_for_trials(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = written(here, "mine", "trials: 2\nspace: {learner.learning-rate: [1e-3, 1e-4]}\n")
    (here / "runs/mine-001").mkdir(parents=True)
    assert cli.main(["sweep", file]) == 2
    assert "run mine-001 is there already, and not of this sweep" in capsys.readouterr().err


def test_ranges_and_choices(tmp_path: Path) -> None:
    space = "{learner.width: [16, 32], learner.learning-rate: {low: 1e-4, high: 0.1, log: true}}"
    (tmp_path / "s.yaml").write_text(f"preset: quickstart\nspace: {space}\n")
    assert load(tmp_path / "s.yaml").space == {
        "learner.width": (16, 32),
        "learner.learning_rate": Range(1e-4, 0.1, log=True),
    }

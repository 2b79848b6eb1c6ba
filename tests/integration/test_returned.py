"""Tests of values that environments return: clear ones are taken, others are refused with the task's name."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from actors.backends.returned import TOLD, BadEnvironment
from actors.benchmarks.benchmark import Task
from actors.benchmarks.catalogue import UnknownNameError, resolve
from actors.environments import Step, make_environment
from tests.support import tiny
from tests.support.live import events


def name(kind: str) -> str:
    return f"gymnasium/tests.support.odd_envs_actions:{kind}-v0"


def task(kind: str) -> Task:
    return resolve([name(kind)])[0]


def played(kind: str, steps: int, seeds: tuple[int, ...] = (1, 2)) -> tuple[np.ndarray, list[Step]]:
    """Return the first observations of copies of a task, and their next `steps` steps."""
    environment = make_environment("", task(kind), seeds)
    first, found = environment.reset(), []
    for _ in range(steps):
        environment.send(np.zeros((len(seeds), environment.task.action_size), np.float32))
        found.append(environment.recv())
    environment.close()
    return first, found


@pytest.mark.parametrize("kind", ["OldReset", "Lists", "WordSuccess", "NoInfo", "ArrayReward", "Column", "Flags"])
def test_what_is_plainly_meant_is_taken(kind: str) -> None:
    (plain, steps), (first, found) = played("Odd", 21), played(kind, 21)
    np.testing.assert_array_equal(first, plain)
    for ours, theirs in zip(found, steps, strict=True):
        np.testing.assert_array_equal(ours.observations, theirs.observations)
        np.testing.assert_array_equal(ours.next_inputs, theirs.next_inputs)
        np.testing.assert_array_equal(ours.terminated, theirs.terminated)
        assert ours.rewards.tolist() == ([-2.0, -2.0] if kind == "ArrayReward" else theirs.rewards.tolist())
    assert found[19].terminated.all() and found[19].successes.tolist() == [kind == "Flags"] * 2
    assert not found[18].successes.any()


def test_signatures_of_before_gymnasium_are_those_of_today() -> None:
    """Old environments are seeded by their `seed` method, and an episode cut by a limit is not terminal."""
    first, found = played("OldSignatures", 10, (4, 5))
    again, _ = played("OldSignatures", 1, (4, 5))
    np.testing.assert_array_equal(first, again)
    assert first[:, 1].tolist() == [4.0, 5.0] and first[0, 2] != first[1, 2]
    assert not any(step.terminated.any() or step.truncated.any() for step in found[:9])
    assert found[9].terminated.tolist() == [True, False] and found[9].truncated.tolist() == [False, True]


def test_what_is_missing_becomes_no_number() -> None:
    _, found = played("NoReward", 4)
    assert [np.isnan(step.rewards).all() for step in found] == [False, False, True, False]


def test_a_success_that_is_no_number_is_told_once(capsys: pytest.CaptureFixture[str]) -> None:
    TOLD.clear()
    played("WordSuccess", 21)
    assert capsys.readouterr().err == (
        f"{name('WordSuccess')}: info['success'] is str 'yes', which is not of numbers: its success counts as unknown\n"
    )


@pytest.mark.filterwarnings("error")
def test_numbers_beyond_all_floats_are_infinite() -> None:
    """Numbers beyond all floats become infinite, even where warnings are errors."""
    _, found = played("Immense", 3)
    assert [step.rewards[0] for step in found] == [np.inf, -np.inf, np.inf]
    assert found[0].observations[0].tolist() == [np.inf, -np.inf, 1.0]


REFUSED = [
    ("TwoRewards", r"its reward is an array of shape \(2,\), and a step has one reward"),
    ("WordReward", "its reward is str 'high', which is not of numbers"),
    ("Short", r"an array of shape \(2,\), and its observation_space has \(3,\)"),
    ("Transposed", r"an array of shape \(2, 3\), and its observation_space has \(3, 2\)"),
    ("Lacking", "it observed here, and its observation_space names here, there"),
    ("ThreeOfStep", r"its step returned a tuple of 3, not \(observation, reward"),
    ("Undecided", "terminated is float 0.5, neither True nor False"),
    ("NoAction", r"takes Box.*, which has no number in it"),
    ("NoObservation", r"observes Box.*, which has no number in it"),
    ("ForgottenReset", r"its reset returned None, not \(observation, info\)$"),
    ("NoFirst", r"its reset returned None, not \(observation, info\)$"),
    ("Exits_made", r" called sys.exit\('no licence'\) when it was imported and made$"),
    ("Exits_step", r" called sys.exit\(0\) when it was reset and made a step$"),
    ("Unsteady", "cannot be stepped: RuntimeError: there is no simulator$"),
]


@pytest.mark.parametrize(("kind", "said"), REFUSED)
def test_what_means_nothing_is_refused_before_a_run(kind: str, said: str) -> None:
    with pytest.raises(UnknownNameError, match=f"^{name(kind)}.*{said}"):
        resolve([name(kind)])


def test_a_module_that_exits_is_refused_with_the_name_of_the_task() -> None:
    done = tiny.run("train", "quickstart", "--tasks", "gymnasium/tests.support.exits_on_import:Any-v0")
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1].endswith(
        "gymnasium/tests.support.exits_on_import:Any-v0 called sys.exit(2) when it was imported and made"
    )


def test_a_serial_run_whose_environment_exits_fails_with_a_checkpoint(folder: Path) -> None:
    task = name("Exits_late")
    done = tiny.train(folder, "a", f"--tasks={task}", "--execution=serial", "--steps=600")
    said = done.stdout + done.stderr
    assert done.returncode == 1 and "Traceback" not in said, said
    assert f"run a failed: an environment failed: {task} called sys.exit(0)" in said
    assert "a last checkpoint was written" in said
    (failed,) = events(folder, "a", "failed")
    assert failed["reason"].endswith("called sys.exit(0)")


def test_what_goes_wrong_later_is_told_with_the_name_of_the_task() -> None:
    with pytest.raises(BadEnvironment, match=rf"^{name('LateShort')}: it observed an array of shape \(2,\)"):
        played("LateShort", 15)


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("OwnBox", r"the actions of one copy are float32 from -1.0 to \d.0, of shape \(2,\), and those of another"),
        ("OwnShape", r"one copy observes arrays of shape \(\d, \d\), and another \(\d, \d\): give all copies the same"),
    ],
)
def test_copies_that_are_not_alike_are_refused(kind: str, said: str) -> None:
    with pytest.raises(BadEnvironment, match=f"^{name(kind)}: {said}"):
        played(kind, 1)


@pytest.mark.parametrize(("execution", "code"), [("serial", 2), ("distributed", 1)])
def test_a_run_ends_with_that_sentence(folder: Path, execution: str, code: int) -> None:
    """A serial run does not begin, because it first tests whether it could be resumed."""
    done = tiny.train(folder, "a", f"--tasks={name('LateShort')}", f"--execution={execution}", "--steps=600")
    said = done.stdout + done.stderr
    assert done.returncode == code and "Traceback" not in said, said
    assert f"{name('LateShort')}: it observed an array of shape (2,), and its observation_space has (3,)" in said

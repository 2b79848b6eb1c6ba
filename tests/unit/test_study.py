"""Studies: what their files say, and what cannot work is one sentence before anything begins."""

from __future__ import annotations

from dataclasses import asdict, replace
from pathlib import Path

import pytest
import yaml

from actors.benchmarks.catalogue import resolve
from cluster.cli.parsing import parse
from cluster.config.presets import PRESETS
from cluster.config.schema import Config
from cluster.errors import ConfigError
from cluster.study.driver import check_members
from cluster.study.study import Study, find, load, narrowed, of_learner, shipped, words


def study(tmp_path: Path, **changes: object) -> Study:
    document = {
        "preset": "quickstart",
        "seeds": [0, 1],
        "options": {"steps": 3000, "learner.width": 32},
        "variants": {"brc": {}, "squared error": {"learner.loss": "mse"}},
    }
    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump(document | changes, sort_keys=False))
    return load(file)


def test_a_study_is_variants_times_seeds(tmp_path: Path) -> None:
    members = study(tmp_path).members("/runs")
    assert [member.name for member in members] == [
        "mine-brc-0",
        "mine-squared-error-0",
        "mine-brc-1",
        "mine-squared-error-1",
    ]
    assert [member.config.seed for member in members] == [0, 0, 1, 1]
    assert members[0].config.learner.loss == "categorical" and members[1].config.learner.loss == "mse"
    assert all(member.config.learner.width == 32 and member.config.steps == 3000 for member in members)
    assert len(narrowed(study(tmp_path), (5,)).members("/runs")) == 2


@pytest.mark.parametrize("name", shipped())
def test_shipped_studies_are_whole(name: str) -> None:
    """The command of every run gives its configuration, and its tasks are known."""
    found = find(name)
    assert found.about
    for member in found.members("/runs"):
        preset, *options = words(member)
        again = parse(Config, options, "brc train", default=PRESETS[preset]())
        assert again == member.config
        assert resolve(member.config.tasks)
    assert name.endswith("-small") or f"{name}-small" in shipped()


def test_words_give_flags_lists_and_pairs_back(tmp_path: Path) -> None:
    options = {"replay.task-weights": {"dmc/cartpole-balance": 2.0}, "learner.record": False, "tasks": ["dmc-dogs"]}
    (member, *_) = study(tmp_path, options=options | {"learner.normalize-observations": True}).members("/runs")
    assert parse(Config, words(member)[1:], "brc train", default=PRESETS["quickstart"]()) == member.config
    assert "--learner.no-record" in words(member)


def test_like_takes_the_learner_of_another_preset(tmp_path: Path) -> None:
    variants = {"xqc": {"like": "brc-xqc", "learner.width": 16}}
    (member, *_) = study(tmp_path, variants=variants).members("/runs")
    learner = member.config.learner
    assert (learner.network, learner.width, learner.policy_interval) == ("xqc", 16, 3)
    assert member.config.replay == PRESETS["quickstart"]().replay
    assert of_learner(PRESETS["brc-mse"]()) == {"learner.loss": "mse"}


def test_a_variant_says_the_last_word_however_it_is_spelt(tmp_path: Path) -> None:
    options = {"learner.policy-depth": 2}
    variants = {"xqc": {"like": "xqc", "learner.policy_depth": 1}}
    (member, *_) = study(tmp_path, options=options, variants=variants).members("/runs")
    assert member.config.learner.policy_depth == 1 and member.config.learner.depth == 4


def test_an_agent_for_each_task_and_one_that_begins_with_another(tmp_path: Path) -> None:
    variants = {
        "all": {},
        "alone": {"alone": True},
        "transfer": {"from": "all", "tasks": ["dmc/walker-walk"]},
        "each": {"from": "all", "alone": True, "tasks": ["dmc/walker-run"]},
    }
    members = study(tmp_path, seeds=[3], variants=variants).members("/runs")
    tasks = [task.name for task in resolve(("quickstart",))]
    assert [member.config.tasks for member in members] == [
        ("quickstart",),
        *((task,) for task in tasks),
        ("dmc/walker-walk",),
        ("dmc/walker-run",),
    ]
    assert len({member.name for member in members}) == len(members)
    for member in members[-2:]:
        assert member.after == "mine-all-3" and member.config.origin == "/runs/mine-all-3"


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"preset": "quickstar"}, "there is no preset 'quickstar'; did you mean quickstart"),
        ({"seeds": []}, "`seeds` is to be a list of whole numbers"),
        ({"variants": {}}, "`variants` is to map names to options"),
        ({"varaints": {}}, "there is no key 'varaints'; did you mean variants"),
        ({"options": {"learner.widht": 3}}, "there is no option 'learner.widht'; did you mean learner.width"),
        ({"options": {"learner.width": "wide"}}, "learner.width 'wide': "),
        ({"options": {"name": "x"}}, "the study sets name itself: leave it out"),
        ({"variants": {"a": {"like": "nothing"}}}, "there is no preset 'nothing'"),
        ({"variants": {"a": {"from": "b"}}}, "'b' is no variant with one agent to begin with"),
        ({"variants": {"a": {"from": "a"}}}, "'a' itself begins with another"),
        ({"variants": {"a": {"alone": True}, "b": {"from": "a"}}}, "'a' is no variant with one agent"),
        ({"variants": {"a b": {}, "a-b": {}}}, "variants 'a b' and 'a-b' both have the run mine-a-b-0"),
        ({"variants": {"a": 3}}, "a: 3 is to map options to values"),
        ({"variants": {"a": {"like": ["x"]}}}, "like ['x'] is to be a name"),
        ({"variants": {"a": {"alone": 1}}}, "alone 1 is to be true or false"),
        ({"options": [1]}, "options: [1] is to map options to values"),
        ({"preset": ["a"]}, "there is no preset ['a']"),
        ({"seeds": [True]}, "`seeds` is to be a list of whole numbers"),
        ({"seeds": [0, 0]}, "`seeds` has a seed twice"),
        ({"variants": {"a": {"alone": True, "tasks": ["dmc/dog-rum"]}}}, "did you mean dmc/dog-run"),
    ],
)
def test_what_cannot_work_is_one_sentence(tmp_path: Path, changes: dict[str, object], sentence: str) -> None:
    with pytest.raises(ConfigError) as error:
        study(tmp_path, **changes).members("/runs")
    assert sentence in str(error.value)


def test_no_run_begins_if_one_cannot(tmp_path: Path) -> None:
    variants = {"brc": {}, "no": {"learner.network": "xqc", "tasks": ["gymnasium/CartPole-v1"]}}
    with pytest.raises(ConfigError, match=r"run mine-no-0: --learner.network xqc normalises over the rows of a batch"):
        check_members(study(tmp_path, variants=variants).members(str(tmp_path)))


def test_a_run_of_other_options_is_not_taken_for_this_one(tmp_path: Path) -> None:
    found = study(tmp_path, seeds=[0], variants={"brc": {}})
    (member,) = found.members(str(tmp_path))
    folder = tmp_path / member.name
    folder.mkdir()
    longer = replace(member.config, steps=5000)  # may go on
    (folder / "config.yaml").write_text(yaml.safe_dump(plain({"preset": "quickstart", **asdict(longer)})))
    check_members([member])
    other = replace(member.config, learner=replace(member.config.learner, width=64))
    (folder / "config.yaml").write_text(yaml.safe_dump(plain({"preset": "quickstart", **asdict(other)})))
    with pytest.raises(ConfigError, match=r"was begun with --learner.width 64, and the study has 32 now"):
        check_members([member])


def plain(value: object) -> object:
    """Return a value as YAML holds it."""
    if isinstance(value, dict):
        return {key: plain(one) for key, one in value.items()}
    return [plain(one) for one in value] if isinstance(value, tuple) else value

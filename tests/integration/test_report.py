"""Tests of the report: its content for the folders of runs, and its page in a browser."""

from __future__ import annotations

import html
import json
import math
import re
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from dashboards.events import ActorDied, Begun
from dashboards.report import runs, sections
from dashboards.report.aggregate import finite, mean_interval
from dashboards.report.curves import group, score_curve, task_curve
from dashboards.report.figures import Figure, Line, Spans, svg
from dashboards.report.page import render, write
from dashboards.report.runs import Run, load
from dashboards.rows import EvaluationRow
from dashboards.sinks import records
from dashboards.sinks.records import Records
from tests.support import tiny
from tests.support.browser import chromium
from tests.support.live import PATIENCE_S, live, wait_for
from tests.support.rows import entry, evaluation, row

OPTIONS = ["--execution=serial", "--steps=1200", "--evaluation.interval=400", "--evaluation.episodes=2"]
OPTIONS += ["--tasks", "dmc/cartpole-swingup", "metaworld/reach"]
SIZES = {"desktop": (1280, 900), "phone": (400, 800)}


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Yield a folder with runs in lock step: a and b differ in their seed, and c has another configuration. Its path is
    short, for Ray's sockets."""
    with tempfile.TemporaryDirectory(prefix="brc-", ignore_cleanup_errors=True) as path:
        for name, *others in (("a", "--seed=0"), ("b", "--seed=1"), ("c", "--learner.width=32")):
            done = tiny.train(Path(path), name, *OPTIONS, *others)
            assert done.returncode == 0, done.stdout + done.stderr
            assert str(Path(path) / "runs" / name / "report.html") in done.stdout
        yield Path(path)


def report(folder: Path, *words: str) -> str:
    done = tiny.run("report", *words, f"--runs-folder={folder}/runs")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.strip()


def test_a_live_run_has_a_report_and_says_that_it_is_live(folder: Path) -> None:
    with live(folder, "d", "--execution=serial", "--steps=100000") as process:
        wait_for(process, lambda: len(tiny.rows(folder, "d", "metrics")) > 3)
        page = Path(report(folder, "d"))
        assert page == folder / "runs" / "d" / "report.html"
        assert "<td>live</td>" in page.read_text()
        process.terminate()
        process.wait(PATIENCE_S)
        assert "<td>stopped</td>" in page.read_text()


def test_seeds_are_one_curve_and_other_configurations_another(folder: Path) -> None:
    runs = [load(folder / "runs" / name, "finished") for name in "abc"]
    seeds, other = group(runs)
    assert [run.name for run in seeds.runs] == ["a", "b"] and [run.name for run in other.runs] == ["c"]
    assert (seeds.label, other.label) == ("a, b (2 runs)", "c")
    assert [len(one.runs) for one in group(runs, apart=True)] == [1, 1, 1]
    assert sections.differing(runs) == [("seed", ["0", "1", "0"]), ("learner.width", ["16", "16", "32"])]


def test_curves_are_means_over_runs_with_their_interval(folder: Path) -> None:
    runs = [load(folder / "runs" / name, "finished") for name in "ab"]
    task = "dmc/cartpole-swingup"
    (series,) = group(runs)
    curve = task_curve(series, task)
    assert curve is not None and curve.steps[-1] == 1200
    finals = finite(run.evaluations[-1].mean_return[task] for run in runs)
    assert curve.mean[-1] == pytest.approx(np.mean(finals))
    assert (curve.low[-1], curve.high[-1]) == pytest.approx((min(finals), max(finals)))  # for two runs, their range
    alone = task_curve(group(runs[:1])[0], task)
    episodes = finite(runs[0].evaluations[-1].returns[task])
    assert alone is not None and (alone.low[-1], alone.high[-1]) == pytest.approx((min(episodes), max(episodes)))
    score = score_curve(series, interquartile=False)
    assert score is not None
    assert score.mean[-1] == pytest.approx(np.mean([run.evaluations[-1].score_mean for run in runs]))
    assert score.low[-1] <= score.mean[-1] <= score.high[-1]
    assert task_curve(series, "metaworld/reach") is not None  # a curve of success


@given(st.lists(st.floats(-100, 100), min_size=1, max_size=12))
def test_the_interval_of_a_mean_is_around_it_and_within_the_values(values: list[float]) -> None:
    low, high = mean_interval(np.array(values)[:, None], resamples=300)
    assert min(values) - 1e-9 <= low <= high <= max(values) + 1e-9


def test_the_interval_of_a_mean_is_that_of_theory() -> None:
    values = np.random.default_rng(0).normal(5.0, 2.0, 400)
    low, high = mean_interval(values[:, None], resamples=4000)
    assert (low, high) == pytest.approx((values.mean() - 1.96 * 0.1, values.mean() + 1.96 * 0.1), abs=0.02)


@given(st.lists(st.integers(0, 3000), min_size=1, max_size=120), st.integers(1, 40))
def test_a_sample_has_the_first_row_and_the_last(tmp_path_factory: pytest.TempPathFactory, sizes: Any, n: int) -> None:
    file = tmp_path_factory.mktemp("s") / "rows.jsonl"
    file.write_text("".join(json.dumps({"n": n, "x": "y" * size}) + "\n" for n, size in enumerate(sizes)) + '{"n": 1')
    found = [row["n"] for row in records.sample(file, n)]
    assert found[0] == 0 and found[-1] == len(sizes) - 1
    assert found == sorted(set(found)) and len(found) <= n + 1


def test_short_files_are_sampled_whole(tmp_path: Path) -> None:
    file = tmp_path / "rows.jsonl"
    file.write_text("".join(json.dumps({"n": n, "text": "x" * 100}) + "\n" for n in range(50)))
    assert records.sample(file, 400) == records.read(file)
    assert records.sample(tmp_path / "none", 4) == []


def rows_of(*steps: int, session: int) -> list[EvaluationRow]:
    return [evaluation(env_steps=step, session=session) for step in steps]


@pytest.mark.parametrize(
    ("before", "come_from", "after", "standing"),
    [
        ([1, 2, 3], None, [], [1, 2, 3]),
        ([600_012, 800_007], 500_000, [], []),  # nothing new yet
        ([400_003, 600_012, 800_007], 500_000, [600_034], [400_003, 600_034]),
        ([400_003, 500_000], 500_000, [500_000], [400_003, 500_000]),
        ([5], 0, [1], [1]),
    ],
)
def test_what_a_resume_undid_is_left_out(before: Any, come_from: int | None, after: Any, standing: list[int]) -> None:
    events = [] if come_from is None else [entry(Begun(how="resume", from_steps=come_from), session=2)]
    rows = [*rows_of(*before, session=1), *rows_of(*after, session=2)]
    found = runs.standing(rows, events, lambda row: row.env_steps, lambda event: event.from_steps)
    assert [row.env_steps for row in found] == standing
    assert all(row.session == 2 for row in found if row.env_steps in after)


def test_a_resumed_run_tells_where_it_begins(folder: Path) -> None:
    shutil.copytree(folder / "runs" / "a", folder / "runs" / "again")
    done = tiny.train(folder, "again", *OPTIONS, "--seed=0", "--steps=1600", "--resume")
    assert done.returncode == 0, done.stdout + done.stderr
    (event,) = [row for row in tiny.rows(folder, "again", "events") if row["event"] == "resume"]
    assert event["from_steps"] == 1200 and event["from_elapsed_s"] > 0
    run = load(folder / "runs" / "again", "finished")
    steps = [row.env_steps for row in run.evaluations]
    assert steps == sorted(set(steps)) and steps[-1] == 1600 and len(run.marks()) == 1


def test_speed_is_unknown_where_nobody_counted() -> None:
    sessions, elapsed, updates = [1, 1, 2, 2, 2], [0, 5, 10, 15, 20], [0, 500, 7000, 7500, 7000]
    rows = [row(session=n, elapsed_s=s, updates=u) for n, s, u in zip(sessions, elapsed, updates, strict=True)]
    run = Run("a", "live", {}, rows, [], None, [])
    assert sections.speed(run, lambda row: row.updates) == [None, 100, None, 100, None]


def evaluated(name: str, *evaluations: tuple[int, dict[str, list[float]]], **config: Any) -> Run:
    """Return a run with these returns. Its scores are the returns divided by a thousand."""
    rows = [evaluation(returns, env_steps=steps) for steps, returns in evaluations]
    return Run(name, "live", {"preset": "p", "seed": 0, "steps": 9, **config}, [], rows, None, [])


def test_a_run_without_an_evaluation_does_not_hide_the_others() -> None:
    begun = Run("d-3", "live", {"preset": "p", "seed": 3, "steps": 9}, [], [], None, [])
    seeds = [
        evaluated(f"d-{n}", (100 + n, {"dmc/dog-run": [1.0 * n]}), (200, {"dmc/dog-run": [4.0]})) for n in range(2)
    ]
    (series,) = group([*seeds, begun])
    curve = task_curve(series, "dmc/dog-run")
    assert curve is not None and curve.mean[-1] == 4.0 and series.label == "d (3 runs)"
    assert "curves of 2: the others have no evaluation yet" in render([series])


def test_labels_tell_series_apart() -> None:
    one, other = group([*(evaluated(f"d-{n}") for n in (0, 1)), *(evaluated(f"d-{n}", width=2) for n in (2, 3))])
    assert (one.label, other.label) == ("d-0, d-1", "d-2, d-3")
    (series,) = group([evaluated(name) for name in ("dogs-1", "dogs-10", "dogs-11")])
    assert series.label == "dogs (3 runs)"


def test_places_do_not_make_another_experiment_but_rates_do() -> None:
    runs = [
        evaluated(str(number), learner={"threads": number, "rate": rate}, steps=number)
        for number, rate in enumerate((1, 1, 2))
    ]
    assert [len(series.runs) for series in group(runs)] == [2, 1]


def test_interquartile_means_of_one_run_and_of_several_are_of_the_same_kind() -> None:
    """Both kinds are over the means of tasks, not over single episodes, whose success is 0 or 1."""
    rates = {"a/x": 8, "a/y": 5, "a/z": 2, "a/w": 9}
    returns = {task: [1000.0] * rate + [0.0] * (10 - rate) for task, rate in rates.items()}
    run = evaluated("a", (100, returns))
    alone = score_curve(group([run])[0], interquartile=True)
    twice = score_curve(group([run, evaluated("b", *[(100, returns)])])[0], interquartile=True)
    assert alone is not None and twice is not None
    assert alone.mean == twice.mean == [pytest.approx(0.65)]
    assert alone.low[0] < 0.65 < alone.high[0]


def test_numbers_that_are_none_are_not_drawn() -> None:
    run = evaluated(
        "a", (1, {"dmc/dog-run": [1.0]}), (2, {"dmc/dog-run": [math.nan]}), (3, {"dmc/dog-run": [math.inf]})
    )
    text = render(group([run]))
    (points, *_) = re.findall(r'data-title="dmc/dog-run" data-points="([^"]*)"', text)
    assert [curve["points"] for curve in json.loads(html.unescape(points))["curves"]] == [[[1, 1.0]]]


def test_a_mean_that_is_a_rounding_beyond_its_interval_is_drawn() -> None:
    point = Line(0, "a", [(1.0, 0.3)], ([0.3 + 1e-16], [0.3 - 1e-16]))
    svg(Figure("title", "steps", [point]))


def test_series_of_different_tasks_say_so_and_have_no_score_of_the_papers() -> None:
    dog, cheetah = "dmc/dog-run", "dmc/cheetah-run"
    one = evaluated("a", (50_000, {dog: [1.0, 2.0]}))
    other = evaluated("b", (50_000, {dog: [1.0, 2.0], cheetah: [3.0, 4.0]}), width=2)
    assert "each score is over its own" in render(group([one, other]))
    (figure, _) = sections.score_figures(group([one, other]))
    assert [line.label for line in figure.lines] == ["a", "b"]
    (figure, _) = sections.score_figures(group([one]))
    assert [line.label for line in figure.lines] == ["a", "paper"]


@pytest.mark.parametrize("name", ["x#010010", "a$\\foo$", "n" * 100, "<b>&'\""])
def test_any_name_can_be_drawn(name: str) -> None:
    rows = [row(elapsed_s=float(at), bottleneck="actors") for at in range(3)]
    picture, place = svg(
        Figure(
            "who", "minutes", spans=[Spans(0, name, sections.bottlenecks(Run(name, "", {}, rows, [], None, []), 1.0))]
        )
    )
    assert place["right"] - place["left"] > 0.5 and "<b>" not in picture


def test_a_run_that_has_said_nothing_yet_has_a_page(tmp_path: Path) -> None:
    (tmp_path / "new").mkdir()
    (tmp_path / "new" / "config.yaml").write_text(yaml.safe_dump({"preset": "quickstart", "seed": 0, "steps": 5}))
    write([load(tmp_path / "new", "live")], tmp_path / "report.html")
    text = (tmp_path / "report.html").read_text()
    assert "No row of metrics yet." in text and "No evaluation yet" in text
    with pytest.raises(OSError, match="directory"):
        write([load(tmp_path / "new", "live")], tmp_path)
    assert sorted(file.name for file in tmp_path.iterdir()) == ["new", "report.html"]


def test_words_of_a_run_are_shown_and_not_obeyed(folder: Path, tmp_path: Path) -> None:
    shutil.copytree(folder / "runs" / "a", tmp_path / "a")
    told = Records(tmp_path / "a")
    told.event(ActorDied(reason="<script>alert(1)</script>", actor="dmc-0", incarnation=0))
    told.close()
    text = render(group([load(tmp_path / "a", "died")]))
    assert "&lt;script&gt;alert(1)" in text and "<script>alert" not in text


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["nothing"], "there is no run 'nothing'"),
        ([], "name a run, such as one of"),
        (["a", "--output=/proc/none/report.html"], "--output /proc/none/report.html cannot be written"),
        (["a", "--output=."], "--output . is a folder"),
        (["broken"], "is not a configuration of a run"),
    ],
)
def test_what_cannot_be_reported_is_one_sentence(folder: Path, words: list[str], sentence: str) -> None:
    (folder / "runs" / "broken").mkdir(exist_ok=True)
    (folder / "runs" / "broken" / "config.yaml").write_text("")
    done = tiny.run("report", *words, f"--runs-folder={folder}/runs")
    assert done.returncode == 2 and sentence in done.stderr and len(done.stderr.splitlines()) == 1


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Yield a driver of Chromium that logs its network requests and its console."""
    with chromium() as driver:
        yield driver


@pytest.fixture(scope="module")
def page(folder: Path) -> Path:
    return Path(report(folder, "[abc]"))


def resize(browser: Any, size: str) -> None:
    width, height = SIZES[size]
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": size == "phone"}
    browser.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)


@pytest.mark.parametrize("size", SIZES)
def test_the_page_needs_nobody_and_fits(browser: Any, page: Path, size: str) -> None:
    resize(browser, size)
    browser.get(page.as_uri())
    assert browser.execute_script("return innerWidth") == SIZES[size][0]
    assert browser.get_log("browser") == []
    messages = [json.loads(entry["message"])["message"] for entry in browser.get_log("performance")]
    asked = [one["params"]["request"]["url"] for one in messages if one["method"] == "Network.requestWillBeSent"]
    assert page.as_uri() in asked and all(url.startswith(("file:", "data:")) for url in asked), asked
    wide = browser.execute_script("return document.documentElement.scrollWidth - document.documentElement.clientWidth")
    assert wide <= 0  # only tables scroll sideways
    assert len(browser.find_elements("css selector", "figure.task svg")) == 2


def test_the_filter_leaves_tasks_with_all_words(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    box, found = browser.find_element("id", "filter"), browser.find_element("id", "found")
    for words, count in (("metaworld", 1), ("REACH meta", 1), ("nothing", 0), ("", 2)):
        box.clear()
        box.send_keys(words or " ")
        assert found.text == f"{count} of 2"
        figures = browser.find_elements("css selector", "figure.task")
        assert [figure.is_displayed() for figure in figures].count(True) == count
        assert len([row for row in browser.find_elements("css selector", "tr.task") if row.is_displayed()]) == count


def test_a_series_that_is_switched_off_is_nowhere(browser: Any, page: Path) -> None:
    browser.get(page.as_uri())
    drawn = browser.find_elements("css selector", "svg .series-0")
    others = browser.find_elements("css selector", "svg .series-1")
    assert drawn and others and all(one.is_displayed() for one in [*drawn, *others])
    box = browser.find_element("css selector", "input[data-series='0']")
    box.click()
    assert not any(one.is_displayed() for one in drawn) and all(one.is_displayed() for one in others)
    box.click()
    assert all(one.is_displayed() for one in drawn)


def test_light_and_dark(browser: Any, page: Path) -> None:
    def colors() -> list[str]:
        line = browser.find_element("css selector", "svg .series-0 path[style*=stroke]")
        sheet = browser.find_element("tag name", "body")
        return [sheet.value_of_css_property("background-color"), line.value_of_css_property("stroke")]

    found = {}
    for theme in ("light", "dark"):
        browser.execute_cdp_cmd(
            "Emulation.setEmulatedMedia", {"features": [{"name": "prefers-color-scheme", "value": theme}]}
        )
        browser.get(page.as_uri())
        found[theme] = colors()
    assert found == {
        "light": ["rgba(255, 255, 255, 1)", "rgb(0, 100, 177)"],
        "dark": ["rgba(21, 24, 28, 1)", "rgb(92, 179, 255)"],
    }
    browser.find_element("id", "theme").click()
    assert colors() == found["light"]


def test_what_is_pointed_to_is_told(browser: Any, page: Path, folder: Path) -> None:
    from selenium.webdriver import ActionChains, Keys

    resize(browser, "desktop")
    browser.get(page.as_uri())
    figure = browser.find_element("css selector", "figure.task")
    drawing = figure.find_element("css selector", "svg")
    browser.execute_script("arguments[0].scrollIntoView({block: 'center'})", figure)
    ActionChains(browser).move_to_element_with_offset(drawing, int(drawing.size["width"] * 0.45), 0).perform()
    told = figure.find_element("tag name", "output").text
    assert told.startswith("at 1,") and "c " in told and "a, b (2 runs) " in told and "random " in told
    drawing.send_keys(Keys.ARROW_LEFT)
    assert figure.find_element("tag name", "output").text not in ("", told)

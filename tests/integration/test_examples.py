"""Tests of the examples: each runs, and learns something."""

from __future__ import annotations

from pathlib import Path

import pytest

from examples import one_process, own_agent, own_benchmark, own_environment, own_loss, own_network, own_simulator


@pytest.mark.parametrize(
    "example",
    [own_environment, own_network, own_loss, own_benchmark, own_agent, own_simulator],
    ids=lambda one: one.__name__,
)
def test_an_example_trains(tmp_path: Path, example: object) -> None:
    found = example.main(tmp_path)  # type: ignore[attr-defined]
    assert found["learned"] > found["random"], found


def test_the_parts_make_an_agent_in_one_process() -> None:
    found = one_process.main(steps=1500)
    assert found.keys() == {"before", "after"} and all(value > 0 for value in found.values())

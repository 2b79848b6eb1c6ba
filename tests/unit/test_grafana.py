"""Grafana's dashboards: the committed JSON is exactly what the code writes, and its queries name existing metrics."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from dashboards.grafana.boards import BOARDS
from dashboards.grafana.dashboards import FOLDER, SOURCE, render, spans
from dashboards.grafana.panels import MARKS, NEVER, Board
from dashboards.metrics.metrics import METRICS

EACH = pytest.mark.parametrize("board", BOARDS, ids=lambda board: board.uid)


def test_the_files_are_what_the_code_writes() -> None:
    assert {file.name: file.read_text() for file in FOLDER.glob("*.json")} == {
        f"{board.uid}.json": render(board) for board in BOARDS
    }, "run `make docs`"


@EACH
def test_nothing_is_lost_on_the_way_through_the_sdk(board: Board) -> None:
    """The SDK would drop a misspelt key."""
    register_default_plugins()
    document = json.loads(render(board))
    assert json.loads(JSONEncoder().encode(Dashboard.from_json(document))) == document


@EACH
def test_every_panel_says_what_it_is_and_in_what_unit_and_when_it_is_bad(board: Board) -> None:
    panels = [panel for panel in json.loads(render(board))["panels"] if panel["type"] != "row"]
    assert len(panels) == sum(len(row) for row in board.rows.values())
    for panel in panels:
        defaults: dict[str, Any] = panel["fieldConfig"]["defaults"]
        assert panel["title"] and panel["description"].endswith(".") and defaults["unit"]
        first, then = defaults["thresholds"]["steps"]
        assert {first["color"], then["color"]} == {"green", "red"}
        drawn = defaults["custom"]["thresholdsStyle"]["mode"]
        assert drawn == ("line" if then["value"] < NEVER else "off"), "a limit is to be seen where there is one"
        assert all(target["expr"] and target["legendFormat"] for target in panel["targets"])


# Ray's own metrics on the dashboards, and their labels. tests/integration/test_prometheus.py asks Ray for them.
OF_RAY: dict[str, set[str]] = {
    **{key: {"ip"} for key in ("ray_node_cpu_utilization", "ray_node_mem_used", "ray_node_mem_total")},
    **{key: {"ip"} for key in ("ray_node_network_receive_speed", "ray_node_network_send_speed")},
    **{key: {"ip"} for key in ("ray_node_disk_io_read_speed", "ray_node_disk_io_write_speed")},
    "ray_node_disk_utilization_percentage": {"ip"},
    **{key: {"ip", "GpuIndex"} for key in ("ray_node_gpus_utilization", "ray_node_gram_used")},
    **{key: {"ip", "Component"} for key in ("ray_component_rss_bytes", "ray_component_cpu_percentage")},
    "ray_resources": {"NodeAddress", "Name", "State"},
    "ray_actors": {"State"},
    **{key: {"NodeAddress"} for key in ("ray_object_store_used_memory", "ray_object_store_available_memory")},
    "ray_object_store_memory": {"NodeAddress", "Location"},
}


@EACH
def test_queries_name_known_metrics_labels_and_variables(board: Board) -> None:
    labels = {metric.name: {"run", *metric.labels} for metric in METRICS} | OF_RAY
    for row in board.rows.values():
        for panel in row:
            for expression, legend in panel.queries:
                asked = set(re.findall(r"\b(?:brc|ray)_\w+", expression))
                assert asked and asked <= labels.keys(), asked - labels.keys()
                known = set.intersection(*(labels[name] for name in asked))
                assert set(re.findall(r"{{(\w+)}}", legend)) <= known
                assert set(re.findall(r'(\w+)[=!]~?"', expression)) <= known
                used = set(re.findall(r"\$(\w+)", expression)) - {"__rate_interval", "__range"}
                assert used <= set(board.variables)


@EACH
def test_rows_are_filled(board: Board) -> None:
    for panels in board.rows.values():
        assert sum(spans(panels)) % 24 == 0 and min(spans(panels)) >= 6


def test_dashboards_ask_the_source_that_compose_provides() -> None:
    provided = yaml.safe_load((FOLDER.parents[1] / "docker" / "grafana" / "datasources.yaml").read_text())
    assert [source["uid"] for source in provided["datasources"]] == [SOURCE]


def test_every_metric_is_on_a_dashboard() -> None:
    text = "".join(
        query for board in BOARDS for row in board.rows.values() for panel in row for query, _ in panel.queries
    )
    shown = set(re.findall(r"brc_\w+", text))
    elsewhere = {
        "brc_evaluation_steps",
        "brc_run_elapsed_seconds",
        "brc_checkpoints_total",
        "brc_push_wait_seconds_total",
    }
    elsewhere |= {"brc_checkpoint_interval_steps", "brc_failed"}  # alerts use them
    shown |= {name for query, _, _ in MARKS.values() for name in re.findall(r"brc_\w+", query)}
    assert {metric.name for metric in METRICS} - shown == elsewhere

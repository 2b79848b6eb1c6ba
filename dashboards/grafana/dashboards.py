"""`python -m dashboards.grafana.dashboards`: write the JSON of Grafana's dashboards into dashboards/grafana/.

The files are committed, and docker/compose.yaml mounts them. A test checks that they match the output of this module.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from grafana_foundation_sdk.builders import common as common_builders
from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common
from grafana_foundation_sdk.models import dashboard as models

from dashboards.grafana.boards import BOARDS
from dashboards.grafana.panels import MARKS, NEVER, Board, Panel

FOLDER = Path(__file__).parent
# uid and name of the data source, as in docker/grafana/datasources.yaml; distinct from other data sources of a server
SOURCE, SOURCE_NAME = "brc-prometheus", "BRC Prometheus"
LINE, OFF = common.GraphThresholdsStyleMode.LINE, common.GraphThresholdsStyleMode.OFF
VARIABLES = {
    "run": "label_values(brc_run_steps, run)",
    "benchmark": 'label_values(brc_environment_steps_total{run=~"$run"}, benchmark)',
    "node": "label_values(ray_node_cpu_utilization, ip)",
    "task": 'label_values(brc_environment_steps_total{run=~"$run", benchmark=~"$benchmark"}, task)',
}


def source() -> models.DataSourceRef:
    return common.DataSourceRef(type_val="prometheus", uid=SOURCE)


def render(board: Board) -> str:
    """Return a dashboard as JSON. Equal panels give equal JSON."""
    built = (
        dashboard.Dashboard(board.title)
        .uid(board.uid)
        .description(board.description)
        .tags(["brc"])
        .refresh("15s")
        .time("now-1h", "now")
        .timezone("browser")
    )
    for name, (expression, title, color) in MARKS.items() if "run" in board.variables else ():
        mark = dashboard.AnnotationQuery().name(name).datasource(source()).expr(expression).title_format(title)
        built = built.annotation(mark.step("60s").use_value_for_time(True).icon_color(color).enable(True))
    for name in board.variables:
        built = built.with_variable(
            dashboard.QueryVariable(name)
            .label(name)
            .query(VARIABLES[name])
            .datasource(source())
            .refresh(models.VariableRefresh.ON_TIME_RANGE_CHANGED)
            .multi(True)
            .include_all(True)
            .all_value(".*")  # not the names of three hundred tasks
            .sort(models.VariableSort.ALPHABETICAL_ASC)
        )
    for title, panels in board.rows.items():
        built = built.with_row(dashboard.Row(title))
        for panel, span in zip(panels, spans(panels), strict=True):
            built = built.with_panel(render_panel(panel, span))
    found: str = JSONEncoder(sort_keys=True, indent=1).encode(built.build()) + "\n"
    return found


def spans(panels: Sequence[Panel]) -> list[int]:
    """Return the widths of panels in a row of width 24. A wide panel has at most two others beside it."""
    others = sum(not panel.wide for panel in panels)
    beside = others <= 2 and others < len(panels)
    narrow = 12 // others if beside else 24 // min(others, 4 if others % 4 == 0 else 3)
    return [(12 if beside else 24) if panel.wide else narrow for panel in panels]


def render_panel(panel: Panel, span: int) -> timeseries.Panel:
    """Build a panel of this width."""
    built = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.description)
        .unit(panel.unit)
        .datasource(source())
        .height(8)
        .span(span)
        .thresholds(thresholds(panel))
        .thresholds_style(common_builders.GraphThresholdsStyleConfig().mode(LINE if panel.bad < NEVER else OFF))
    )
    for letter, (expression, legend) in zip("ABCDEFG", panel.queries, strict=False):
        built = built.with_target(prometheus.Dataquery().expr(expression).legend_format(legend).ref_id(letter))
    return built


def thresholds(panel: Panel) -> dashboard.ThresholdsConfig:
    """Build the limits between green and red from a panel's `good` and `bad`."""
    worse_below = panel.bad < panel.good
    first, then = ("red", "green") if worse_below else ("green", "red")
    steps = [
        models.Threshold(value=None, color=first),
        models.Threshold(value=panel.good if worse_below else panel.bad, color=then),
    ]
    return dashboard.ThresholdsConfig().mode(models.ThresholdsMode.ABSOLUTE).steps(steps)


def main() -> None:
    FOLDER.mkdir(exist_ok=True)
    for board in BOARDS:
        (FOLDER / f"{board.uid}.json").write_text(render(board))


if __name__ == "__main__":
    main()

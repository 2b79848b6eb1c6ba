"""Drawing of a figure as SVG. Its colors are CSS names of the page, so that it follows the page's dark mode."""

from __future__ import annotations

import io
import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib

matplotlib.use("svg")
import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter

COLORS = 8  # colors of series in page.css; they repeat for more series
SIDES = ("actors", "learner", "limiter", "balanced")
# Colors that no drawing uses stand for CSS names, which matplotlib does not accept. It would leave out black.
NAMES = {
    **{f"#0100{number:02x}": f"series-{number}" for number in range(COLORS)},
    **{f"#0100{0x10 + number:02x}": side for number, side in enumerate(SIDES)},
    "#010020": "ink",
    "#010021": "rule",
    "#010022": "paper",
    "#010023": "random",
    "#010024": "peers",
}
HEX = {name: color for color, name in NAMES.items()}
LETTERS = 20  # most letters of a name in a figure
TICK_LETTERS = 8  # of a number at the y axis, as in -0.00025
# Inches. The margins are fixed: all plots of a page are aligned, and matplotlib's own layout takes as long as drawing.
WIDTH, RIGHT, ABOVE, BELOW = 3.6, 0.12, 0.06, 0.44
DECIMALS, FIRST = r"(\d+\.\d)\d+", r"\1"
STYLE = {
    "svg.fonttype": "none",
    "font.family": "sans-serif",
    "font.size": 8,
    "text.color": HEX["ink"],
    "axes.labelcolor": HEX["ink"],
    "axes.edgecolor": HEX["rule"],
    "xtick.color": HEX["ink"],
    "ytick.color": HEX["ink"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": HEX["rule"],
    "grid.linewidth": 0.4,
    "axes.xmargin": 0.01,
}


Point = tuple[float, float]


@dataclass(frozen=True)
class Line:
    """A curve of a series. A curve with number -1 has no series, and stays when series are hidden."""

    number: int
    label: str  # empty if the page shows no values of it at the pointer
    points: Sequence[Point]
    band: tuple[Sequence[float], Sequence[float]] | None = None
    color: str = ""  # empty for the color of the series
    style: str = "-"
    width: float = 1.4


@dataclass(frozen=True)
class Spans:
    """Successive bottlenecks of a run: (from, to, one of SIDES)."""

    number: int
    label: str
    spans: Sequence[tuple[float, float, str]]


@dataclass(frozen=True)
class Figure:
    title: str
    x: str
    lines: Sequence[Line] = ()
    spans: Sequence[Spans] = ()
    marks: Sequence[tuple[int, float]] = ()  # (number of the series, x)
    share: bool = False  # whether values are between 0 and 1


def color(number: int) -> str:
    return HEX[f"series-{number % COLORS}"]


def svg(figure: Figure) -> tuple[str, dict[str, float]]:
    """Return the drawing and its x axis: the plot's `left` and `right` as shares of its width, at x `from` and `to`."""
    # The salt makes ids unique in each drawing: a drawing cannot use ids of another drawing that is hidden.
    with matplotlib.rc_context(STYLE | {"svg.hashsalt": figure.title}):
        height = BELOW + ABOVE + (0.22 * len(figure.spans) if figure.spans else 1.6)
        canvas = plt.figure(figsize=(WIDTH, height))
        left = left_margin(max((columns(middle_out(row.label)) for row in figure.spans), default=TICK_LETTERS))
        axes = canvas.add_axes(
            (left / WIDTH, BELOW / height, (WIDTH - left - RIGHT) / WIDTH, (height - BELOW - ABOVE) / height)
        )
        for line in figure.lines:
            group = f"series-{line.number}" if line.number >= 0 else "always"
            drawn = HEX[line.color] if line.color else color(line.number)
            at, values = zip(*line.points, strict=True)
            if len(at) > 1:
                axes.plot(at, values, line.style, color=drawn, linewidth=line.width, gid=group)
            elif line.band:
                # Rounding may put the mean slightly outside its bounds: no error bar below 0.
                errors = [[max(0.0, values[0] - line.band[0][0])], [max(0.0, line.band[1][0] - values[0])]]
                bar = axes.errorbar(at, values, errors, fmt="o", markersize=3, color=drawn, capsize=2)
                for part in bar.get_children():
                    part.set_gid(group)
            else:
                axes.plot(at, values, "o", markersize=3, color=drawn, gid=group)
            if line.band and len(at) > 1:
                axes.fill_between(at, *line.band, color=drawn, alpha=0.18, linewidth=0, gid=group)
        draw_spans(axes, figure.spans)
        for number, x in figure.marks:
            axes.axvline(x, color=color(number), linewidth=0.6, linestyle=":", gid=f"series-{number}")
        if figure.share:
            axes.set_ylim(-0.03, 1.03)
        axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        if not figure.spans:
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.set_xlabel(figure.x)
        text = io.StringIO()
        canvas.savefig(
            text, format="svg", transparent=True, metadata=dict.fromkeys(("Date", "Creator", "Format", "Type"))
        )
        place, (low, high) = axes.get_position(), axes.get_xlim()
        plt.close(canvas)
    return adopted(text.getvalue()), {"left": place.x0, "right": place.x1, "from": low, "to": high}


def draw_spans(axes: Axes, rows: Sequence[Spans]) -> None:
    for row, spans in enumerate(rows):
        for side in SIDES:
            pieces = [(begun, ended - begun) for begun, ended, what in spans.spans if what == side]
            if pieces:
                axes.broken_barh(pieces, (row - 0.35, 0.7), facecolor=HEX[side], gid=f"series-{spans.number}")
    if rows:
        axes.set_yticks(range(len(rows)), [middle_out(row.label) for row in rows], parse_math=False)
        axes.grid(False)
        axes.invert_yaxis()


def adopted(text: str) -> str:
    """Return the SVG as part of a page: without file head and fixed size, short, groups as classes, colors by name."""
    text = text[text.index("<svg") :]
    text = re.sub(r'(<svg [^>]*?) width="[^"]*" height="[^"]*"', r'\1 role="img" tabindex="0"', text, count=1)
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.S)
    text = re.sub(r'id="(series-\d+|always)"', r'class="\1"', text)
    text = re.sub(r' id="(?:figure|axes|patch|matplotlib|xtick|ytick|text|line2d|LineCollection)[^"]*"', "", text)
    text = re.sub(r"#0100[012][0-9a-f]", lambda found: f"var(--{NAMES.get(found[0], 'ink')})", text)
    text = re.sub(r' d="([^"]*)"', lambda found: f' d="{re.sub(DECIMALS, FIRST, found[1])}"', text)
    return re.sub(r"\s*\n\s*", " ", text)


def short(value: float) -> str:
    """Return a short form of a number, such as 250k."""
    for unit, name in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(value) >= unit:
            return f"{value / unit:.4g}{name}"
    return f"{value:.4g}"


def columns(text: str) -> int:
    """Return the width of a text in letters. Chinese, Japanese and Korean letters are two wide."""
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in text)


def left_margin(letters: int) -> float:
    """Return the inches that labels of this many letters take at the left of a plot, at most half of its width."""
    return min(0.12 + 0.068 * letters, WIDTH / 2)


def middle_out(name: str) -> str:
    """Return the beginning and the end of a long name."""
    return name if len(name) <= LETTERS else f"{name[: LETTERS // 2 - 1]}…{name[-LETTERS // 2 :]}"

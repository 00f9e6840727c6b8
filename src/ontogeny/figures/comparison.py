"""Two studies in one picture: the ability, the size of its circuit, and how alike the two circuits are."""

from __future__ import annotations

from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ontogeny.figures.style import (
    METRIC_LABELS,
    MUTED,
    TOKENS_NOTE,
    drawn,
    member_handles,
    member_styles,
    members_in_order,
    panel_grid,
    short,
    styled,
    token_axis,
)
from ontogeny.series.comparison import Comparison

_DASHES: Final[dict[str, Any]] = {"a": "-", "b": (0, (3, 1.6))}


def comparison_rows(comparison: Comparison) -> pd.DataFrame:
    """The comparison's table with the look of each member; `name_a` and `name_b` say which studies these are."""
    named = comparison.table.assign(name_a=comparison.a, name_b=comparison.b)
    return styled(named, comparison.table)


@drawn
def draw_comparison(rows: pd.DataFrame) -> Figure:
    """A panel a task of three axes: metric and edges kept (A solid, B dashed), Jaccard of the two circuits."""
    tasks = list(dict.fromkeys(rows["task"]))
    studies = [
        Line2D([], [], color=MUTED, linestyle=dashes, label=f"{side.upper()}: {rows[f'name_{side}'].iloc[0]}")
        for side, dashes in _DASHES.items()
    ]
    ways = [
        Line2D([], [], color=MUTED, marker="o", linestyle="", label="Jaccard: circuits as found"),
        Line2D([], [], color=MUTED, label="grown to the same size"),
    ]
    figure, panels = panel_grid(
        tasks, heights=[1.5, 1.3, 1.3], legends=[studies, member_handles(rows), ways], note=TOKENS_NOTE
    )
    for task, (metric, size, likeness) in panels.items():
        here = rows[rows["task"] == task]
        styles = member_styles(rows)
        for member in reversed(members_in_order(here)):
            _lines(metric, size, likeness, here[here["member"] == member].sort_values("step"), styles[member])
        metric.axhline(0, color=MUTED, linewidth=0.8, zorder=0)
        metric.set_ylabel(METRIC_LABELS.get(task, "metric"))
        _size_axis(size, here)
        likeness.set_ylim(-0.03, 1.03)
        likeness.set_ylabel("Jaccard, A and B")
        likeness.yaxis.set_major_locator(MaxNLocator(4))
        if not here[["jaccard_edges", "jaccard_edges_matched"]].notna().any(axis=None):
            _word(likeness, "no circuits to compare")
        token_axis(likeness, here["tokens"].astype(float).tolist())
    return figure


def _lines(metric: Axes, size: Axes, likeness: Axes, line: pd.DataFrame, style: dict[str, Any]) -> None:
    """One member."""
    x, plain = line["tokens"].astype(float), style | {"marker": ""}
    for side, dashes in _DASHES.items():
        metric.plot(x, line[f"metric_{side}"], **(plain | {"linestyle": dashes}))
        # Sizes are there or not from one checkpoint to the next: a mark shows one that stands alone.
        size.plot(
            x, line[f"edges_{side}"].astype(float), **(style | {"linestyle": dashes, "marker": "os"[side == "b"]})
        )
    likeness.plot(x, line["jaccard_edges_matched"], **plain)
    likeness.plot(x, line["jaccard_edges"], **(style | {"linestyle": "", "marker": "o"}))


def _size_axis(axes: Axes, rows: pd.DataFrame) -> None:
    sizes = rows[["edges_a", "edges_b"]].astype(float)
    axes.set_ylabel("edges kept")
    if sizes.notna().any(axis=None):
        axes.set_yscale("log")
        axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
        axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
        axes.yaxis.set_minor_formatter(NullFormatter())
    else:
        _word(axes, "no circuit")


def _word(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=MUTED)

"""Circuit size against model size (METHODS 8.4): edges and nodes, a point a scale, a column a task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ontogeny.figures.style import INK, MARKERS, MUTED, PAPER, drawn, mark_handle, panel_grid, short
from ontogeny.series import Trajectory, scale_colours

_WHAT: Final = ("edges", "nodes")
_AGAINST: Final = "log_parameters"


def size_scale_rows(trajectory: Trajectory) -> pd.DataFrame:
    """One row a task, scale and kind of size: the mean, its variation over training, and the task's correlation."""
    sizes = trajectory.sizes
    if not len(sizes):
        return pd.DataFrame()
    known = trajectory.size_correlations
    ranked = known[(known["against"] == _AGAINST) & (known["kind"] == "spearman")]
    colours = scale_colours(sizes)
    places = {scale: place for place, scale in enumerate(colours)}
    parts = []
    for what in _WHAT:
        numbers = ranked[ranked["what"] == what][["suite", "task", "value", "low", "high", "points"]]
        named = numbers.rename(columns={"value": "spearman", "low": "spearman_low", "high": "spearman_high"})
        part = sizes[["suite", "task", "scale", "parameters", "graph_edges", "members", "checkpoints", "censored"]]
        part = part.assign(what=what, size=sizes[what], variation=sizes[f"{what}_variation"], status=sizes["status"])
        parts.append(part.merge(named, on=["suite", "task"], how="left"))
    rows = pd.concat(parts, ignore_index=True)
    marks = {scale: MARKERS[place % len(MARKERS)] for scale, place in places.items()}
    return rows.assign(colour=rows["scale"].map(colours), marker=rows["scale"].map(marks))


@drawn
def draw_size_scale(rows: pd.DataFrame) -> Figure:
    """Bars: one standard deviation over checkpoints after the onset. Scales without a size stand at the lower edge."""
    tasks = list(dict.fromkeys(rows["task"]))
    scales = rows.sort_values("parameters").drop_duplicates("scale")
    legend = [
        mark_handle(f"{scale} ({short(float(size))})", marker, colour=colour, filled=True)
        for scale, size, marker, colour in zip(
            scales["scale"], scales["parameters"], scales["marker"], scales["colour"], strict=True
        )
    ]
    notes = [mark_handle("no circuit, or no onset", "x", colour=MUTED)] if (rows["status"] != "measured").any() else []
    columns = min(4, len(tasks))
    figure, panels = panel_grid(
        tasks, heights=[1.6, 1.6], columns=columns, width=3.4 * columns, legends=[[*legend, *notes]],
        title="Circuit size against model size (bar: standard deviation over training)",
        note="parameters (logarithmic)",
    )  # fmt: skip
    limits = float(rows["parameters"].min()) / 1.6, float(rows["parameters"].max()) * 1.6
    for task, stack in panels.items():
        for axes, what in zip(stack, _WHAT):
            here = rows[(rows["task"] == task) & (rows["what"] == what)]
            _panel(axes, here)
            axes.set_xlim(*limits)
            axes.set_ylabel(f"{what}, mean")
    return figure


def _panel(axes: Axes, here: pd.DataFrame) -> None:
    for row in here.to_dict("records"):
        _point(axes, row)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1.0, 3.0)))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.xaxis.set_minor_formatter(NullFormatter())
    tops = (here["size"] * (1 + here["variation"].fillna(0))).dropna()
    axes.set_ylim(0, 1.35 * float(tops.max()) if len(tops) else 1.0)  # the note needs its place
    if not len(tops):
        axes.set_yticks([])
    first = here.iloc[0]
    text = f"{int(first['points'])} shapes: too few for a correlation"
    if math.isfinite(first["spearman"]):
        text = (
            f"Spearman {first['spearman']:.2f} ({first['spearman_low']:.2f} to {first['spearman_high']:.2f}), "
            f"n = {int(first['points'])}"
        )
    axes.text(
        0.02, 0.97, text, transform=axes.transAxes, va="top", fontsize=7, color=INK,
        bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.0},
    )  # fmt: skip


def _point(axes: Axes, row: Mapping[Any, Any]) -> None:
    x = float(row["parameters"])
    if row["status"] != "measured":
        axes.plot(x, 0.03, marker="x", color=MUTED, transform=axes.get_xaxis_transform(), markersize=5,
                  markeredgewidth=1.2)  # fmt: skip
        return
    bar = row["size"] * row["variation"] if math.isfinite(row["variation"]) else 0.0
    axes.errorbar(
        x, row["size"], yerr=bar, marker=row["marker"], color=row["colour"], markersize=6, elinewidth=1.0, capsize=0
    )

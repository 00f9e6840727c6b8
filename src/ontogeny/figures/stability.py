"""The paper's appendix: nodes, edges and likeness of circuits over training, beside what chance gives."""

from __future__ import annotations

from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ontogeny.figures.style import (
    MANY,
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
from ontogeny.figures.training import single_values
from ontogeny.series import Trajectory

_COLUMNS: Final = (
    "edges", "nodes", "edges_previous", "edges_previous_ewma", "resampled_edges_low", "resampled_edges_high",
    "random_edges", "random_edges_p95", "verdict", "status",
)  # fmt: skip


def stability_rows(_: object, trajectory: Trajectory) -> pd.DataFrame:
    """Found circuits at each checkpoint: size, likeness to the previous one's edges, and both nulls."""
    table = trajectory.stability
    keys = ["suite", "member", "scale", "seed", "parameters", "task", "step", "tokens"]
    found = table.loc[table["size"] == "found", [*keys, *_COLUMNS]]
    return styled(found, trajectory.table) if found["edges"].notna().any() else found[:0]


@drawn
def draw_stability(rows: pd.DataFrame) -> Figure:
    """A column a task; the band is where circuits of resampled prompts lie, dotted the 95th percentile of chance."""
    tasks, styles = list(dict.fromkeys(rows["task"])), member_styles(rows)
    legend = [
        *member_handles(rows),
        single_values(),
        Line2D([], [], color=MUTED, alpha=0.3, linewidth=7, label="prompts drawn again"),
        Line2D([], [], color=MUTED, linestyle=":", linewidth=1.3, label="random circuits, 95 %"),
    ]
    columns = min(4, len(tasks))
    figure, panels = panel_grid(
        tasks, heights=[1.3, 1.3, 1.6 if len(styles) <= MANY else 2.6], columns=columns,
        width=max(6.5, 3.4 * columns), legends=[legend], note=TOKENS_NOTE,
        title="Circuits over training at the sizes that were found, and edges shared with the previous one",
    )  # fmt: skip
    for task, (nodes, edges, alike) in panels.items():
        here = rows[rows["task"] == task]
        _sizes(nodes, here, "nodes", styles)
        _sizes(edges, here, "edges", styles)
        _likeness(alike, here, styles)
        seen = here[here["edges"].notna()]
        token_axis(alike, (seen if len(seen) else here)["tokens"].astype(float).tolist())
    return figure


def _sizes(axes: Axes, rows: pd.DataFrame, name: str, styles: dict[str, dict[str, object]]) -> None:
    for member in reversed(members_in_order(rows)):
        line = rows[rows["member"] == member].sort_values("step")
        axes.plot(line["tokens"].astype(float), line[name], **styles[member])  # type: ignore[arg-type]
    axes.set_yscale("log")
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())
    axes.set_ylabel(name)


def _likeness(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, object]]) -> None:
    members = members_in_order(rows)
    for member in reversed(members):
        line, style = rows[rows["member"] == member].sort_values("step"), styles[member]
        x, colour = line["tokens"].astype(float), str(style["color"])
        low, high = (line[name].to_numpy(float) for name in ("resampled_edges_low", "resampled_edges_high"))
        pale = 0.25 / max(1.0, np.sqrt(len(members)))
        axes.fill_between(x, low, high, color=colour, alpha=pale, linewidth=0)
        axes.plot(x, line["random_edges_p95"], color=colour, linestyle=":", linewidth=1.1, alpha=0.8)
        axes.plot(x, line["edges_previous"], linestyle="", marker="o", markersize=2.4, color=colour, alpha=0.45)
        axes.plot(x, line["edges_previous_ewma"], **(style | {"marker": ""}))  # type: ignore[arg-type]
    axes.set_ylim(-0.03, 1.03)
    axes.set_ylabel("Jaccard to previous")

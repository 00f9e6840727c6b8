"""Circuits as roles, across scales: which share of |score| runs from role to role."""

from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from ontogeny.figures.roles import role_title
from ontogeny.figures.style import INK, MUTED, PAPER, drawn, panel_grid, short, styled, task_title
from ontogeny.series import Trajectory

_MOST = 0.5
"""Share from which on a cell has the darkest colour."""


def role_graph_rows(_: object, trajectory: Trajectory) -> pd.DataFrame:
    """The table, a row a member and pair of groups; groups that no member uses are left out."""
    table = trajectory.role_graph[trajectory.role_graph["share"] > 0]
    return styled(table, trajectory.table) if len(table) else table


@drawn
def draw_role_graph(rows: pd.DataFrame) -> Figure:
    """A panel a scale, the largest first, mean over its seeds: from a line to a column; all cells sum to 100 %."""
    used = [*rows["source"], *rows["target"]]
    inner = sorted({name for name in used if name not in ("input", "other heads", "mlps", "logits")})
    groups = [g for g in ("input", *inner, "other heads", "mlps", "logits") if g in used]
    sizes = rows.groupby("scale")["parameters"].max().sort_values(ascending=False, kind="stable")
    width = 1.35 + 0.36 * len(groups)
    figure, panels = panel_grid(
        [str(scale) for scale in sizes.index], heights=[0.34 * len(groups), 0.5], columns=min(3, len(sizes)),
        width=max(6.5, (width + 0.6) * min(3, len(sizes))), note="from the group of a line to that of a column",
        title=f"{task_title(str(rows['task'].iloc[0]))}: per cent of the circuit's |score| from group to group",
    )  # fmt: skip
    for scale, (axes, names) in panels.items():
        names.set_axis_off()  # the names of the columns need its place
        here = rows[rows["scale"] == scale]
        _cells(axes, here, groups)
        seeds = here["member"].nunique()
        axes.set_title(f"{scale} ({short(float(sizes[scale]))}{f', {seeds} seeds' if seeds > 1 else ''})")
    return figure


def _cells(axes: Axes, rows: pd.DataFrame, groups: list[str]) -> None:
    mean = rows.groupby(["source", "target"])["share"].sum() / rows["member"].nunique()
    colours = mpl.colormaps["Blues"]
    for (source, target), share in zip(mean.index.tolist(), mean.tolist()):
        x, y = groups.index(target), groups.index(source)
        depth = float(np.sqrt(min(1.0, share / _MOST)))
        axes.add_patch(Rectangle((x - 0.5, y - 0.5), 1, 1, facecolor=colours(depth), edgecolor=PAPER, linewidth=0.6))
        if share >= 0.005:
            axes.text(x, y, f"{100 * share:.0f}", ha="center", va="center", fontsize=6.5,
                      color=PAPER if depth > 0.6 else INK)  # fmt: skip
    axes.set_xlim(-0.5, len(groups) - 0.5)
    axes.set_ylim(len(groups) - 0.5, -0.5)
    names = ["MLPs" if group == "mlps" else role_title(group).replace(" ", "\n", 1) for group in groups]
    axes.set_xticks(range(len(groups)), names, rotation=90, fontsize=6)
    axes.set_yticks(range(len(groups)), names, fontsize=6)
    axes.grid(visible=False)
    axes.tick_params(length=0, colors=MUTED, labelbottom=True)

"""The same mechanism or not: circuits in the models of other checkpoints and seeds, and role heads taken out."""

from __future__ import annotations

import math
from typing import Any, Final

import matplotlib as mpl
import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch, Rectangle

from ontogeny.figures.roles import role_title
from ontogeny.figures.style import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    drawn,
    mark_handle,
    member_handles,
    member_labels,
    member_styles,
    members_in_order,
    panel_grid,
    styled,
    task_title,
)
from ontogeny.series import Trajectory

KIND_LABELS: Final = {
    "at_home": "at home",
    "over_time": "other checkpoints",
    "shuffled": "the same, heads shuffled",
    "seeds_matched": "other seed, heads matched",
    "seeds_unmatched": "other seed, same indices",
    "seeds_shuffled": "other seed, heads shuffled",
}
"""Of `alikeness`, in the order in which they are drawn."""
_MAP: Final = "viridis"
_WINDOW: Final = (-1.0, 1.5)
"""Faithfulness that is drawn; what is beyond stands at its edge."""


def transfer_rows(_: object, trajectory: Trajectory) -> pd.DataFrame:
    """Raw faithfulness of each anchor's circuit (source) in each anchor's model (target), a row a pair.

    Members and tasks without any circuit are left out. `status` says why a number is NaN.
    """
    table = trajectory.transfers[trajectory.transfers["heads"] == "own"]
    kept = table.groupby(["member", "task"])["kept"].transform("count") > 0
    columns = ["suite", "member", "scale", "seed", "parameters", "task", "step", "tokens", "source_step", "kept"]
    found = table[kept][[*columns, "raw", "normalised", "jaccard", "status"]]
    return styled(found, trajectory.table) if len(found) else found


@drawn
def draw_transfer(rows: pd.DataFrame) -> Figure:
    """A panel a member, the largest first: the circuit of one anchor a line, the model of one anchor a column."""
    members, labels = members_in_order(rows), member_labels(rows)
    task = str(rows["task"].iloc[0])
    grey = [Patch(facecolor=FAINT, label="no circuit there"), Patch(facecolor=PAPER, edgecolor=FAINT, hatch="////",
            label="the model has not learnt the task")]  # fmt: skip
    figure, panels = panel_grid(
        members, heights=[2.5], columns=min(4, len(members)), width=3.4 * min(4, max(2, len(members))),
        legends=[grey], note="evaluated in the model of step",  # type: ignore[list-item]
        title=f"{task_title(task)}: faithfulness of the circuit of one checkpoint in the model of another",
    )  # fmt: skip
    for member, (axes,) in panels.items():
        _heat_map(axes, rows[rows["member"] == member])
        axes.set_title(labels[member])
        axes.set_ylabel("circuit of step")
    return figure


def _heat_map(axes: Axes, rows: pd.DataFrame) -> None:
    """One member; the diagonal is a circuit at home."""
    steps = sorted(set(rows["step"]) | set(rows["source_step"]))
    place = {step: i for i, step in enumerate(steps)}
    colours = mpl.colormaps[_MAP]
    for row in rows.to_dict("records"):
        x, y, raw = place[row["step"]], place[row["source_step"]], float(row["raw"])
        corner = (x - 0.5, y - 0.5)
        if math.isfinite(raw):
            share = min(1.0, max(0.0, raw))
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=colours(share), edgecolor=PAPER, linewidth=0.5))
            axes.text(x, y, f"{raw:.2f}".replace("0.", "."), ha="center", va="center", fontsize=6.2,
                      color=INK if share > 0.55 else PAPER)  # fmt: skip
        elif pd.isna(row["kept"]):
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=FAINT, edgecolor=PAPER, linewidth=0.5))
        else:
            axes.add_patch(Rectangle(corner, 1, 1, facecolor=PAPER, edgecolor=FAINT, linewidth=0.5, hatch="////"))
    for i in range(len(steps)):
        axes.add_patch(Rectangle((i - 0.5, i - 0.5), 1, 1, fill=False, edgecolor=INK, linewidth=0.9))
    axes.set_xlim(-0.5, len(steps) - 0.5)
    axes.set_ylim(-0.5, len(steps) - 0.5)
    axes.set_xticks(range(len(steps)), [str(step) for step in steps], rotation=45, fontsize=6.5)
    axes.set_yticks(range(len(steps)), [str(step) for step in steps], fontsize=6.5)
    axes.grid(visible=False)
    axes.tick_params(length=0)
    for side in ("left", "bottom"):
        axes.spines[side].set_visible(False)


def alikeness_rows(_: object, trajectory: Trajectory) -> pd.DataFrame:
    """The table `alikeness` with the colours of its scales."""
    table = trajectory.alikeness
    if not len(table):
        return table
    everyone = trajectory.table[trajectory.table["parameters"].notna()].drop_duplicates("member")
    firsts = everyone.drop_duplicates("scale")[["scale", "member", "suite", "seed"]]
    return styled(table.merge(firsts, on="scale", how="left"), trajectory.table)


@drawn
def draw_alikeness(rows: pd.DataFrame) -> Figure:
    """A panel a task: medians over pairs, lines from the least to the largest; below, the edges that they share."""
    tasks, styles = list(dict.fromkeys(rows["task"])), member_styles(rows)
    kinds = [kind for kind in KIND_LABELS if kind in set(rows["what"])]
    figure, panels = panel_grid(
        tasks, heights=[1.7, 1.1, 0.1], columns=min(2, len(tasks)), width=6.6 * min(2, len(tasks)),
        legends=[member_handles(rows.assign(seed=0, dashes=0))],
        title="Circuits in other models: over time, over seeds, and with heads shuffled within layers",
        note="medians over pairs, lines from the least to the largest; what is beyond the window stands at its edge",
    )  # fmt: skip
    members = members_in_order(rows)
    for task, (upper, lower, names) in panels.items():
        names.set_axis_off()  # the second line of the names needs its place
        here = rows[rows["task"] == task]
        upper.axhline(1, color=MUTED, linewidth=0.7)
        upper.axhline(0, color=MUTED, linewidth=0.7)
        for place, member in enumerate(members):
            shift = (place - (len(members) - 1) / 2) * 0.7 / max(1, len(members))
            line = here[here["member"] == member].set_index("what").reindex(kinds)
            for axes, name in ((upper, "raw"), (lower, "jaccard")):
                _whiskers(axes, np.arange(len(kinds)) + shift, line, name, styles[member])
        upper.set_ylim(_WINDOW[0] - 0.05, _WINDOW[1] + 0.05)
        upper.set_ylabel("raw faithfulness")
        lower.set_ylim(-0.08, 1.08)
        lower.set_ylabel("Jaccard, edges")
        words = [KIND_LABELS[kind].replace(", ", ",\n") for kind in kinds]
        lower.set_xticks(range(len(kinds)), words, fontsize=6.8)
        lower.set_xlim(-0.6, len(kinds) - 0.4)
        lower.tick_params(labelbottom=True)
    return figure


def _whiskers(axes: Axes, x: np.ndarray, line: pd.DataFrame, name: str, style: dict[str, Any]) -> None:
    low, middle, high = (line[f"{name}{end}"].clip(*_WINDOW) for end in ("_low", "", "_high"))
    axes.vlines(x, low, high, color=style["color"], linewidth=1.2, alpha=0.55)
    axes.plot(x, middle, linestyle="", marker=style["marker"], color=style["color"], markersize=5)


def ablation_rows(_: object, trajectory: Trajectory) -> pd.DataFrame:
    """What each role's heads cost at the last anchor, and the sets that match them; in shares of clean - corrupted.

    `null_mean` and `null_p95` are of the sets, NaN where there is none. Roles that no head holds are left out.
    """
    table = trajectory.ablations
    kept = table[table["final"].astype(bool) & (table["status"] != "undefined")].copy()
    if not len(kept):
        return kept
    scale = kept["cost_share"] / kept["cost"].where(kept["cost"] != 0)
    kept["null_mean"], kept["null_p95"] = kept["sets_mean"] * scale, kept["sets_p95"] * scale
    return styled(kept, trajectory.table)


@drawn
def draw_ablations(rows: pd.DataFrame) -> Figure:
    """A panel a task, a line a role: marks are the role's heads, bars the mean to the 95th percentile of the sets."""
    tasks, styles = list(dict.fromkeys(rows["task"])), member_styles(rows)
    most = max(rows[rows["task"] == task]["role"].nunique() for task in tasks)
    null = Line2D([], [], color=MUTED, alpha=0.35, linewidth=6, label="as many heads of the same layers: mean to 95 %")
    few = mark_handle("too few sets to tell", "o", colour=MUTED)
    members = members_in_order(rows)
    height = most * (0.2 + 0.13 * len(members)) + 0.2
    figure, panels = panel_grid(
        tasks, heights=[height], columns=2, width=10.5, legends=[[*member_handles(rows), null, few]],
        title="What a role's heads are worth, last anchor",
        note="fall of the metric when they are ablated together, share of clean - corrupted",
    )  # fmt: skip
    for task, (axes,) in panels.items():
        here = rows[rows["task"] == task]
        roles = list(dict.fromkeys(here["role"]))
        axes.axvline(0, color=MUTED, linewidth=0.7)
        for row in here.to_dict("records"):
            shift = (members.index(row["member"]) - (len(members) - 1) / 2) * 0.75 / len(members)
            y, style = roles.index(row["role"]) + shift, styles[row["member"]]
            axes.plot([row["null_mean"], row["null_p95"]], [y, y], color=style["color"], alpha=0.3, linewidth=5,
                      solid_capstyle="butt")  # fmt: skip
            measured = row["status"] == "measured"
            if rows["seed"].nunique() > 1:
                axes.annotate(f"s{row['seed']}", (row["cost_share"], y), (4, 0), textcoords="offset points",
                              fontsize=5.5, color=MUTED, va="center")  # fmt: skip
            axes.plot(row["cost_share"], y, linestyle="", marker=style["marker"], markersize=5.5, zorder=4,
                      markerfacecolor=style["color"] if measured else PAPER, markeredgecolor=style["color"],
                      markeredgewidth=1.2)  # fmt: skip
        axes.set_yticks(range(len(roles)), [role_title(role).replace(" ", "\n") for role in roles], fontsize=6.8)
        axes.set_ylim(len(roles) - 0.4, -0.6)
        axes.grid(axis="x", color=FAINT)
        axes.grid(visible=False, axis="y")
    return figure

"""Pictures over training: behaviour (Fig. 1), circuit size and status, likeness of consecutive circuits."""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullFormatter

from ontogeny.figures.style import (
    FAINT,
    MANY,
    METRIC_LABELS,
    MUTED,
    PAPER,
    SHARED,
    TOKENS_NOTE,
    by_scale,
    drawn,
    mark_handle,
    member_handles,
    member_labels,
    member_styles,
    members_in_order,
    panel_grid,
    short,
    styled,
    token_axis,
    write_within,
)
from ontogeny.series import Trajectory, headline, similarity_quantity

_MATCHED: Final = "edges_at_"
_KIND_LABELS: Final = {"edges": "at the sizes that were found", "edges_weighted": "weighted by |score|"}
MOST_OF_THE_GRAPH: Final = "grown to most of the graph"
_SIZE_QUANTITIES: Final = ("circuit/edges", "circuit/best_edges", "circuit/cap")
STATUS_MARKS: Final[dict[str, dict[str, Any]]] = {
    "found": {"marker": "o", "fill": True, "label": "found"},
    "threshold_unmet": {"marker": "v", "fill": False, "label": "threshold not met"},
    "trivial": {"marker": "D", "fill": False, "label": "trivial (empty circuit passes)"},
    "nan": {"marker": "x", "fill": False, "label": "not finite"},
    "not_learned": {"marker": "|", "fill": False, "label": "task not learned (no search)"},
}


def behaviour_rows(trajectory: Trajectory) -> pd.DataFrame:
    """The task's metric at each checkpoint with its interval; `onset` is True at the checkpoint where it appears.

    `onset_status` repeats the onset's answer on every row of a member and task.
    """
    rows = headline(trajectory.table)[[*SHARED, "quantity", "value", "low", "high", "duplicate_of"]]
    keys = ["member", "task"]
    answers = trajectory.onsets[[*keys, "status", "step"]].rename(columns={"status": "onset_status", "step": "at"})
    merged = rows.merge(answers, on=keys, how="left")
    merged["onset"] = (merged["step"] == merged["at"]).fillna(False).astype(bool)
    return styled(merged.drop(columns="at"), trajectory.table)


@drawn
def draw_behaviour(rows: pd.DataFrame) -> Figure:
    """Fig. 1: a panel a task, a line a model, the interval as a band, a ring where the ability appears."""
    tasks = list(dict.fromkeys(rows["task"]))
    legend = [*member_handles(rows), mark_handle("onset", "o", size=9)]
    figure, panels = panel_grid(tasks, heights=[2.35], legends=[legend], note=TOKENS_NOTE)
    for task, (axes,) in panels.items():
        here = rows[rows["task"] == task]
        behaviour_panel(axes, here, member_styles(rows))
        axes.set_ylabel(METRIC_LABELS.get(task, "metric"))
        token_axis(axes, here["tokens"].astype(float).tolist())
    return figure


def behaviour_panel(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """One task."""
    axes.axhline(0, color=MUTED, linewidth=0.8)
    absent = {}
    pale = 0.16 / max(1, rows["seed"].nunique())
    for member in reversed(members_in_order(rows)):
        line = rows[rows["member"] == member].sort_values("step")
        x, style = line["tokens"].astype(float), styles[member]
        axes.fill_between(x, line["low"], line["high"], color=style["color"], alpha=pale, linewidth=0)
        axes.plot(x, line["value"], **style)
        start = line[line["onset"]]
        axes.plot(
            start["tokens"].astype(float), start["value"], linestyle="", marker="o",
            markersize=2.6 * style["markersize"], markerfacecolor="none", markeredgecolor=style["color"],
            markeredgewidth=1.7, zorder=5,
        )  # fmt: skip
        if not len(start):
            absent[member] = f"onset {line['onset_status'].iloc[0]}"
    text = by_scale(rows, absent)
    axes.text(0.02, 0.97, text, transform=axes.transAxes, va="top", fontsize=7.5, color=MUTED, linespacing=1.35)


def size_rows(trajectory: Trajectory) -> pd.DataFrame:
    """Status and edges of the chosen circuit at each checkpoint.

    `edges` is a size where the status is `found`, and else NaN; `best_edges` also counts the best circuit where the
    threshold was not met.
    """
    table = trajectory.table[trajectory.table["quantity"].isin(_SIZE_QUANTITIES)]
    wide = table.pivot(index=[*SHARED, "status"], columns="quantity", values="value").reset_index()
    wide = wide.rename(columns={name: name.removeprefix("circuit/") for name in _SIZE_QUANTITIES})
    wide.columns.name = None
    columns = [*SHARED, "status", "edges", "best_edges", "cap"]
    return styled(wide.sort_values(["member", "step"])[columns], trajectory.table)


@drawn
def draw_size(rows: pd.DataFrame) -> Figure:
    """A panel a task: edges kept by the smallest faithful circuit, and below it what the search said each time."""
    tasks, styles = list(dict.fromkeys(rows["task"])), member_styles(rows)
    seen = [mark for status, mark in STATUS_MARKS.items() if status in set(rows["status"])]
    marks = [mark_handle(m["label"], m["marker"], filled=m["fill"]) for m in seen]
    heights = [1.9, 0.15 * len(styles) + 0.08]
    figure, panels = panel_grid(tasks, heights=heights, legends=[member_handles(rows), marks], note=TOKENS_NOTE)
    for task, (upper, lower) in panels.items():
        here = rows[rows["task"] == task]
        size_panel(upper, here, styles)
        status_strip(lower, here, styles)
        token_axis(lower, here["tokens"].astype(float).tolist())
    return figure


def size_panel(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """Sizes of one task; a circuit below the threshold is shown open and not joined to the line."""
    for member in reversed(members_in_order(rows)):
        line, style = rows[rows["member"] == member].sort_values("step"), styles[member]
        x = line["tokens"].astype(float)
        axes.plot(x, line["edges"], **(style | {"marker": "o"}))
        unmet = line[line["status"] == "threshold_unmet"]
        axes.plot(
            unmet["tokens"].astype(float), unmet["best_edges"], linestyle="", marker="v", markersize=4.5,
            markerfacecolor=PAPER, markeredgecolor=style["color"], markeredgewidth=1.0,
        )  # fmt: skip
    axes.set_yscale("log")
    axes.set_ylabel("edges kept")
    largest, least = rows["best_edges"].max(), rows["best_edges"].min()
    if not np.isfinite(largest):
        axes.set_ylim(1, 100)
        write_within(axes, "no circuit")
    else:
        spare = 1.7 if largest > 2 * least else 3.0
        axes.set_ylim(max(0.7, least / spare), largest * spare)
    axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
    axes.yaxis.set_minor_formatter(NullFormatter())


def status_strip(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """A line of marks a model: what the search said at each checkpoint."""
    names, labels = [], member_labels(rows)
    for height, (member, style) in enumerate(reversed(styles.items())):
        line = rows[rows["member"] == member]
        names.append(labels.get(member, member))
        for status, mark in STATUS_MARKS.items():
            x = line.loc[line["status"] == status, "tokens"].astype(float)
            pale = status == "not_learned"
            axes.plot(
                x, np.full(len(x), height), linestyle="", marker=mark["marker"], markersize=4.2, clip_on=False,
                markeredgecolor=FAINT if pale else style["color"], markeredgewidth=1.0,
                markerfacecolor=style["color"] if mark["fill"] else PAPER,
            )  # fmt: skip
    axes.set_yticks(range(len(names)), names, fontsize=6.5)
    axes.set_ylim(-0.7, len(names) - 0.3)
    axes.grid(visible=False)
    axes.tick_params(axis="y", length=0)
    axes.spines["left"].set_visible(False)


def jaccard_rows(trajectory: Trajectory, kind: str = "edges") -> pd.DataFrame:
    """Likeness of each circuit to the previous checkpoint's, plain (`value`) and smoothed (`ewma`)."""
    quantity = similarity_quantity(kind, "previous")
    names = {quantity: "value", similarity_quantity(kind, "previous_ewma"): "ewma"}
    table = trajectory.table[trajectory.table["quantity"].isin(names)]
    wide = table.pivot(index=[*SHARED, "status"], columns="quantity", values="value").reset_index()
    wide = wide.rename(columns=names).assign(kind=kind)
    wide.columns.name = None
    for name in names.values():
        wide[name] = wide.get(name, np.nan)
    columns = [*SHARED, "kind", "value", "ewma", "status"]
    return styled(wide.sort_values(["member", "step"])[columns], trajectory.table)


@drawn
def draw_jaccard(rows: pd.DataFrame) -> Figure:
    """A panel a task: dots are the plain values, lines their exponentially weighted mean."""
    tasks, kind = list(dict.fromkeys(rows["task"])), str(rows["kind"].iloc[0]) if len(rows) else "edges"
    legend = [*member_handles(rows), single_values()]
    label = size_label(rows) if kind.startswith(_MATCHED) else _KIND_LABELS.get(kind, kind)
    title = f"Edges shared with the previous checkpoint's circuit, {label}"
    styles = member_styles(rows)
    height = 2.1 if len(styles) <= MANY else 3.2
    figure, panels = panel_grid(tasks, heights=[height], legends=[legend], note=TOKENS_NOTE, title=title)
    there = rows.loc[rows["value"].notna(), "tokens"].astype(float)
    for task, (axes,) in panels.items():
        here = rows[rows["task"] == task]
        jaccard_panel(axes, here, styles)
        token_axis(axes, (there if len(there) else here["tokens"].astype(float)).tolist())
        axes.set_ylabel("Jaccard")
    return figure


def single_values(what: str = "single values") -> Line2D:
    """Legend entry of the dots beside a smoothed line."""
    return mark_handle(f"{what} (lines: smoothed)", "o", colour=MUTED, filled=True, size=3)


def size_label(rows: pd.DataFrame) -> str:
    """To which size the circuits of `matched_jaccard_rows` are grown; also the floor, where it is more."""
    per_cent = float(str(rows["kind"].iloc[0]).removeprefix(_MATCHED).removesuffix("pct").replace("_", "."))
    floored = rows.loc[rows["grown"] > per_cent / 100 * rows["graph_edges"] + 0.5, "grown"]
    least = f", at least {floored.max():.0f}" if len(floored) else ""
    return f"grown to {per_cent:g} % of the edges{least}"


def jaccard_panel(axes: Axes, rows: pd.DataFrame, styles: dict[str, dict[str, Any]]) -> None:
    """One task."""
    for member in reversed(members_in_order(rows)):
        line, style = rows[rows["member"] == member].sort_values("step"), styles[member]
        x = line["tokens"].astype(float)
        axes.plot(x, line["value"], linestyle="", marker="o", markersize=2.6, color=style["color"], alpha=0.45)
        axes.plot(x, line["ewma"], **(style | {"marker": ""}))
    axes.set_ylim(-0.03, 1.03)
    axes.yaxis.set_major_locator(MaxNLocator(5))
    hidden = rows[rows["status"] == MOST_OF_THE_GRAPH].drop_duplicates("scale")
    if len(hidden):
        lines = [f"{r.scale}: not shown, {r.grown:.0f} of {r.graph_edges:.0f} edges" for r in hidden.itertuples()]
        axes.text(0.02, 0.04, "\n".join(lines), transform=axes.transAxes, va="bottom", fontsize=7, color=MUTED)
    elif not rows["value"].notna().any():
        write_within(axes, "no two circuits in a row")


def matched_jaccard_rows(trajectory: Trajectory) -> pd.DataFrame:
    """The same for circuits grown to one size: the largest of the sizes that the study compares.

    `grown` is that size in edges, `graph_edges` how many there are. Circuits of more than half of them are alike
    whatever was found: they have no value, and the status says so.
    """
    prefix = similarity_quantity(_MATCHED, "").rstrip("/")
    kinds = {q.split("/")[1] for q in trajectory.table["quantity"].unique() if q.startswith(prefix)}
    largest = max(kinds, key=lambda kind: float(kind[len(_MATCHED) : -3].replace("_", ".")), default=f"{_MATCHED}5pct")
    rows, sizes = jaccard_rows(trajectory, largest), trajectory.stability
    grown = sizes[sizes["size"] == largest.removeprefix(_MATCHED)].drop_duplicates("member")
    rows["grown"] = rows["member"].map(grown.set_index("member")["edges"]).astype(float)
    graphs = trajectory.sizes.drop_duplicates("scale").set_index("scale")["graph_edges"]
    rows["graph_edges"] = rows["scale"].map(graphs).astype(float)
    most = rows["grown"] > rows["graph_edges"] / 2
    rows.loc[most, ["value", "ewma"]] = np.nan
    rows.loc[most, "status"] = MOST_OF_THE_GRAPH
    return rows


def weighted_jaccard_rows(trajectory: Trajectory) -> pd.DataFrame:
    """The same, weighted by |score| over all edges."""
    return jaccard_rows(trajectory, "edges_weighted")

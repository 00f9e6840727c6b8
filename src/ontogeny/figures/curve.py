"""Faithfulness against circuit size (METHODS 4.3-4.4): of one checkpoint with its baselines, and of final ones."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ontogeny.core.results import CheckpointAnalysis, CurvePoint, Faithfulness
from ontogeny.figures.style import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    drawn,
    fraction_axis,
    mark_handle,
    member_handles,
    member_styles,
    members_in_order,
    panel_grid,
)
from ontogeny.records import MemberRecord

_COLUMNS: Final = [
    "suite", "member", "scale", "seed", "parameters", "task", "step", "tokens", "part", "fraction", "asked", "kept",
    "raw", "normalised", "status",
]  # fmt: skip
_NOTE: Final = "edges kept, share of the graph (logarithmic)"
_LINES: Final[dict[str, dict[str, Any]]] = {
    "raw": {"color": "#0072b2", "marker": "o", "label": "circuit: share of the metric (raw)"},
    "normalised": {"color": "#d55e00", "marker": "s", "label": "circuit: between corrupted and clean (normalised)"},
}


def curve_rows(analysis: CheckpointAnalysis, task: str) -> pd.DataFrame:
    """Every evaluated circuit of one task at one checkpoint.

    `part` is `circuit`, `searched` (sizes that the search looked at), `complement`, `random`, or `chosen` (one row).
    `fraction` is the share of the graph's edges that the circuit keeps.
    """
    return pd.DataFrame(list(_rows(analysis, task)), columns=_COLUMNS)


def final_curve_rows(records: Iterable[MemberRecord]) -> pd.DataFrame:
    """The curves of each member's last checkpoint, all tasks."""
    parts = [
        curve_rows(last, task)
        for record in records
        if record.analyses
        for last in [max(record.analyses, key=lambda a: a.ref.step)]
        for task in last.tasks
    ]
    return pd.concat([p for p in parts if len(p)], ignore_index=True) if any(map(len, parts)) else _empty()


@drawn
def draw_curve(rows: pd.DataFrame) -> Figure:
    """One task at one checkpoint: both forms of faithfulness, the complement, random circuits, the chosen size."""
    names = {"circuit", "complement", "random"} & set(rows["part"])
    legend = [Line2D([], [], linestyle="-", **line) for line in _LINES.values()]
    others = []
    if "complement" in names:
        others.append(mark_handle("without the circuit (raw)", "X", colour=MUTED, filled=True))
    if "random" in names:
        others.append(mark_handle("random circuits (raw)", "o", colour=MUTED, filled=True, size=3))
    if "chosen" in set(rows["part"]):
        others.append(mark_handle("the chosen circuit", "*", colour=INK, filled=True, size=9))
    who = rows.iloc[0]
    title = f"{who['member']}, step {who['step']}: faithfulness by circuit size"
    figure, panels = panel_grid(
        [str(who["task"])], heights=[2.9], columns=1, width=6.6, title=title,
        legends=[legend, others] if others else [legend], note=_NOTE,
    )  # fmt: skip
    axes = panels[str(who["task"])][0]
    _levels(axes, rows, ["raw", "normalised"])
    circuit = _curve(rows)
    for name, line in _LINES.items():
        axes.plot(circuit["fraction"], circuit[name], **line)
    without, random = rows[rows["part"] == "complement"], rows[rows["part"] == "random"]
    axes.plot(without["fraction"], without["raw"], linestyle="", marker="X", markersize=5.5, color=MUTED)
    axes.plot(random["fraction"], random["raw"], linestyle="", marker="o", markersize=2.6, color=MUTED, alpha=0.45)
    chosen = rows[rows["part"] == "chosen"]
    axes.plot(chosen["fraction"], chosen["raw"], linestyle="", marker="*", markersize=12, color=INK, zorder=6)
    axes.set_ylabel("faithfulness (discover split)")
    fraction_axis(axes)
    return figure


@drawn
def draw_final_curves(rows: pd.DataFrame) -> Figure:
    """A panel a task: raw faithfulness of the last checkpoint's circuits, a line a model, a star at the chosen size."""
    tasks, styles = list(dict.fromkeys(rows["task"])), member_styles(rows)
    chosen_by = set(rows.loc[rows["part"] == "chosen", "status"])
    marks = [mark_handle("smallest faithful circuit", "*", filled=True, size=9)] if "found" in chosen_by else []
    if "threshold_unmet" in chosen_by:
        marks.append(mark_handle("best circuit, threshold not met", "*", size=9))
    figure, panels = panel_grid(
        tasks, heights=[2.2], legends=[[*member_handles(rows), *marks]], note=_NOTE,
        title="Faithfulness by circuit size at the end of training",
    )  # fmt: skip
    for task, (axes,) in panels.items():
        here = rows[rows["task"] == task]
        _levels(axes, here, ["raw"])
        for member in reversed(members_in_order(here)):
            style, line = styles[member], here[here["member"] == member]
            circuit, chosen = _curve(line), line[line["part"] == "chosen"]
            axes.plot(circuit["fraction"], circuit["raw"], **style)
            axes.plot(
                chosen["fraction"], chosen["raw"], linestyle="", marker="*", markersize=12, color=style["color"],
                markerfacecolor=style["color"] if (chosen["status"] == "found").all() else PAPER,
                markeredgecolor=PAPER if (chosen["status"] == "found").all() else style["color"],
                markeredgewidth=0.9, zorder=6,
            )  # fmt: skip
        axes.set_ylabel("raw faithfulness")
        fraction_axis(axes)
    return figure


def _curve(rows: pd.DataFrame) -> pd.DataFrame:
    """The curve by size; sizes that prune to nothing are not on a logarithmic axis."""
    return rows[(rows["part"] == "circuit") & (rows["fraction"] > 0)].sort_values("fraction")


def _levels(axes: Axes, rows: pd.DataFrame, forms: list[str]) -> None:
    """0 and 1, and a window in which a wild value does not hide the others."""
    for level in (0, 1):
        axes.axhline(level, color=MUTED, linewidth=0.8)
    shown = rows[rows["part"].isin(["circuit", "complement", "chosen"])][forms].to_numpy(dtype=float)
    low, high = (float(np.nanmin(shown)), float(np.nanmax(shown))) if np.isfinite(shown).any() else (0.0, 1.0)
    axes.set_ylim(max(-1.5, min(-0.1, low - 0.1)), min(2.5, max(1.15, high + 0.1)))
    axes.grid(color=FAINT)


def _empty() -> pd.DataFrame:
    return pd.DataFrame(columns=_COLUMNS)


def _rows(analysis: CheckpointAnalysis, task: str) -> Iterator[tuple[object, ...]]:
    ref, model, circuit = analysis.ref, analysis.model, analysis.tasks[task].circuit
    who = (ref.suite, ref.member, ref.scale, ref.seed, model.parameters, task, ref.step, ref.tokens)

    def row(part: str, asked: int | None, kept: int | None, value: Faithfulness) -> tuple[object, ...]:
        share = math.nan if kept is None else kept / model.graph.n_edges
        return (*who, part, share, asked, kept, value.raw, value.normalised, circuit.status)

    def rows(part: str, point: CurvePoint) -> Iterator[tuple[object, ...]]:
        yield row(part, point.asked, point.kept, point.faithfulness)
        if part == "circuit" and point.complement is not None:
            yield row("complement", point.asked, point.kept, point.complement)
        if part == "circuit":
            yield from (row("random", point.asked, point.kept, draw) for draw in point.random)

    for point in circuit.curve:
        yield from rows("circuit", point)
    for point in circuit.searched:
        yield from rows("searched", point)
    if circuit.circuit is not None and "discover" in circuit.faithfulness:
        yield row("chosen", circuit.asked, circuit.kept, circuit.faithfulness["discover"])

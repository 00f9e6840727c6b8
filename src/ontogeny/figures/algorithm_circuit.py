"""Figure 4 A from data: the IOI circuit as roles, with the heads that were found and their path effects.

Three senders' columns and the logits, from left to right: heads that write into the values of the S-inhibition heads,
heads that write into the queries of the name movers, heads that write to the logits. A solid box is a head that counts
for its metric (it has the right role, and the effect); a dashed one is among the strongest that have not. The number on
an arrow is the path effect e: negative, the head helps; -1, patching it is as bad as the corrupted prompt.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from textwrap import fill
from typing import Final

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch, FancyBboxPatch, Patch, Rectangle

from ontogeny.core.results import IOI, CheckpointAnalysis
from ontogeny.core.roles import Head, head_names
from ontogeny.figures.roles import role_colours, role_title
from ontogeny.figures.style import INK, MUTED, PAPER, SHARED, drawn, new_figure, node_label, short
from ontogeny.records import MemberRecord
from ontogeny.series import METRICS, Trajectory, circuit_heads

_COLUMNS: Final = [
    *SHARED, "metric", "part", "head", "roles", "counts", "in_circuit", "effect", "frozen", "value", "null_p95",
    "status", "reason", "weaker",
]  # fmt: skip
_MOST: Final = 8
"""Heads of a metric's set that are shown: the strongest ones."""
_OTHERS: Final = 3
"""Heads without the right role that are shown beside the set: those with the strongest effects ..."""
_LEAST: Final = 0.02
"""... of at least this |e|."""
_HELPS, _HURTS = "#00695c", "#b23a48"
_PLACES: Final = ("values", "queries", "direct")
"""Columns from left to right, by the metric that their heads are senders of."""
_INTO: Final = {"values": "S-inhibition's values", "queries": "name movers' queries", "direct": "the logits"}
_WIDTH, _HEIGHT, _PITCH, _STEP, _LEFT = 0.66, 0.34, 0.50, 2.55, 1.0
"""Inches: a box, the distance of boxes in a column, the distance of columns, the middle of the first."""


def algorithm_circuit_rows(records: Sequence[MemberRecord], trajectory: Trajectory) -> pd.DataFrame:
    """Each member's last checkpoint: a row a metric (`part` metric), and a row a head shown (sender, or receiver)."""
    del trajectory
    last = [
        max(with_ioi, key=lambda a: a.ref.step)
        for record in records
        if (with_ioi := [a for a in record.analyses if a.algorithm is not None])
    ]
    return pd.DataFrame([row for analysis in last for row in _member_rows(analysis)], columns=_COLUMNS)


def member_rows(analysis: CheckpointAnalysis) -> pd.DataFrame:
    """The same for one checkpoint whose algorithm was looked for."""
    return pd.DataFrame(list(_member_rows(analysis)), columns=_COLUMNS)


def _member_rows(analysis: CheckpointAnalysis) -> Iterator[tuple[object, ...]]:
    ref, found = analysis.ref, analysis.algorithm
    assert found is not None
    who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, IOI, ref.step, ref.tokens)
    circuit = analysis.tasks[IOI].circuit
    inside = circuit_heads(circuit.circuit) if circuit.status == "found" else frozenset()
    nothing = ("", "", False, False, math.nan, math.nan)
    for name in METRICS:
        metric, effects = found.metrics.get(name), found.effects.get(name)
        if metric is None:
            yield (*who, name, "metric", *nothing, math.nan, math.nan, "undefined", found.reason, 0)
            continue
        weaker = max(0, len(metric.heads) - _MOST)
        yield (*who, name, "metric", *nothing, metric.value, metric.null_p95, metric.status, metric.reason, weaker)
        for head in metric.receivers:
            facts = (*head_names([head]), _held(analysis, head), True, head in inside)
            yield (*who, name, "receiver", *facts, math.nan, math.nan, math.nan, math.nan, "", "", 0)
        if effects is None:
            continue
        size = effects.effect.abs().double()
        order = sorted(((h, i) for h in range(size.shape[0]) for i in range(size.shape[1])),
                       key=lambda head: -float(size[head]))  # fmt: skip
        others = [h for h in order if h not in metric.heads and float(size[h]) >= _LEAST][:_OTHERS]
        counted = [h for h in order if h in metric.heads][:_MOST]
        for head in [*counted, *others]:
            facts = (*head_names([head]), _held(analysis, head), head in metric.heads, head in inside)
            numbers = (float(effects.effect[head]), float(effects.frozen[head]))
            yield (*who, name, "sender", *facts, *numbers, math.nan, math.nan, "", "", 0)


def _held(analysis: CheckpointAnalysis, head: Head) -> str:
    return " ".join(name for name, heads in analysis.holders.items() if head in heads)


@dataclass(frozen=True)
class _Box:
    """A head in a column, or what stands for a column that has none."""

    x: float
    y: float
    head: str
    roles: tuple[str, ...]
    counts: bool
    effect: float


@drawn
def draw_algorithm_circuit(rows: pd.DataFrame) -> Figure:
    """One member."""
    who = rows.iloc[0]
    columns = {name: _column(rows, name, place) for place, name in enumerate(_PLACES)}
    tallest = max(1, *(len(boxes) for boxes in columns.values()))
    body = max(1.5, tallest * _PITCH + 0.2)
    roles = list(dict.fromkeys(role for text in rows["roles"] for role in str(text).split()))
    width, height = 3 * _STEP + _LEFT + 0.8, body + 1.5 + 0.22 * (-(-len(roles) // 5) or 0)
    figure = new_figure(width, height)
    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, width)
    axes.set_ylim(0, height)
    middle = 0.62 + body / 2 + 0.22 * (-(-len(roles) // 5) or 0) - 0.22
    colours = role_colours(roles)
    frames = [[b.y for b in columns[name] if b.head in _hearing(rows, i)] for i, name in enumerate(_PLACES)]
    heard = {name: (min(f) + max(f)) / 2 if f else 0.0 for name, f in zip(_PLACES, [*frames[1:], []])}
    for place, name in enumerate(_PLACES):
        if frames[place]:
            _frame(axes, place, frames[place], middle)
        boxes = [_Box(b.x, b.y + middle, b.head, b.roles, b.counts, b.effect) for b in columns[name]]
        said = rows[(rows["metric"] == name) & (rows["part"] == "metric")].iloc[0]
        target = (_LEFT + (place + 1) * _STEP - (0.52 if name != "direct" else 0.30), heard[name] + middle)
        for box in boxes:
            _arrow(axes, box, target)
        for box in boxes:
            _draw_box(axes, box, colours)
        if not boxes:
            _say_nothing(axes, place, middle, str(said["reason"]))
        _caption(axes, place, name, said, middle + body / 2 + 0.12)
    logits = _LEFT + 3 * _STEP
    axes.add_patch(FancyBboxPatch((logits - 0.3, middle - 0.2), 0.75, 0.4, boxstyle="round,pad=0,rounding_size=0.03",
                                  facecolor="#eceef2", edgecolor=INK, linewidth=0.9))  # fmt: skip
    axes.text(logits + 0.075, middle, "logits", ha="center", va="center", fontsize=8.5)
    _titles(figure, who, colours)
    return figure


def _column(rows: pd.DataFrame, metric: str, place: int) -> list[_Box]:
    """Senders of one metric, from the top: those that hear the column before, those that count, the others."""
    here = rows[(rows["metric"] == metric) & (rows["part"] == "sender")]
    hearing = _hearing(rows, place)
    order = sorted(range(len(here)), key=lambda i: (here["head"].iloc[i] not in hearing, not here["counts"].iloc[i], i))
    here, top = here.iloc[order], (len(here) - 1) / 2 * _PITCH
    facts = zip(here["head"], here["roles"], here["counts"], here["effect"])
    return [
        _Box(_LEFT + place * _STEP, top - i * _PITCH, str(head), tuple(str(held).split()), bool(counts), float(effect))
        for i, (head, held, counts, effect) in enumerate(facts)
    ]


def _hearing(rows: pd.DataFrame, place: int) -> set[str]:
    """Heads of a column that are receivers of the column before it."""
    if place == 0:
        return set()
    before = _PLACES[place - 1]
    return set(rows[(rows["metric"] == before) & (rows["part"] == "receiver")]["head"])


def _arrow(axes: Axes, box: _Box, target: tuple[float, float]) -> None:
    """From a head to what hears it; its number stands where the arrows have not met yet."""
    colour = _HELPS if box.effect < 0 else _HURTS
    start = (box.x + _WIDTH / 2, box.y)
    width = 0.5 + 3.6 * min(1.0, abs(box.effect)) ** 0.7
    axes.add_patch(
        FancyArrowPatch(
            start, target, arrowstyle="-|>,head_length=3.4,head_width=1.9", linewidth=width, color=colour,
            alpha=0.85 if box.counts else 0.4, linestyle="-" if box.counts else (0, (3, 2)), shrinkA=0, shrinkB=0,
            mutation_scale=1.6, zorder=2, joinstyle="miter",
        )
    )  # fmt: skip
    share = 0.24
    x, y = start[0] + share * (target[0] - start[0]), start[1] + share * (target[1] - start[1])
    axes.text(x, y, f"{box.effect:+.2f}", fontsize=7, ha="center", va="center", color=colour, zorder=4,
              bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 0.6, "alpha": 0.9})  # fmt: skip


def _draw_box(axes: Axes, box: _Box, colours: dict[str, str]) -> None:
    left, low = box.x - _WIDTH / 2, box.y - _HEIGHT / 2
    axes.add_patch(Rectangle((left, low), _WIDTH, _HEIGHT, facecolor=PAPER, edgecolor="none", zorder=3))
    for place, role in enumerate(box.roles):
        part = _WIDTH / len(box.roles)
        axes.add_patch(
            Rectangle((left + place * part, low), part, 0.085, facecolor=colours[role], edgecolor="none", zorder=4)
        )
    axes.add_patch(
        Rectangle((left, low), _WIDTH, _HEIGHT, facecolor="none", edgecolor=INK if box.counts else MUTED,
                  linewidth=1.1 if box.counts else 0.8, linestyle="-" if box.counts else (0, (2.5, 2)), zorder=5)
    )  # fmt: skip
    axes.text(box.x, box.y + 0.035, node_label(box.head), ha="center", va="center",
              fontsize=8.5, zorder=6)  # fmt: skip


def _say_nothing(axes: Axes, place: int, middle: float, reason: str) -> None:
    text = fill(reason or f"No head has an effect of {_LEAST} or more.", 26)
    axes.text(_LEFT + place * _STEP, middle, text, ha="center", va="center", fontsize=7.5, color=MUTED)


def _caption(axes: Axes, place: int, metric: str, said: pd.Series, top: float) -> None:
    """Above a column: what its heads write into, and the metric."""
    value, null = float(said["value"]), float(said["null_p95"])
    number = f"{value:.0f} % (null 95 %: {null:.0f})" if math.isfinite(value) else "undefined"
    weaker = int(said["weaker"])
    number += f"; {weaker} weaker head{'s' * (weaker > 1)} not shown" if weaker else ""
    x = _LEFT + place * _STEP
    axes.text(x, top + 0.17, f"into {_INTO[metric]}", ha="center", va="bottom", fontsize=8.5, fontweight="bold")
    axes.text(x, top, number, ha="center", va="bottom", fontsize=8, color=MUTED)


def _frame(axes: Axes, place: int, heights: list[float], middle: float) -> None:
    """Around the boxes of a column that hear the column before: they hear together."""
    low, high = middle + min(heights) - _PITCH / 2, middle + max(heights) + _PITCH / 2
    axes.add_patch(
        FancyBboxPatch((_LEFT + place * _STEP - 0.52, low), 1.04, high - low, facecolor="#f5f6f8", edgecolor=MUTED,
                       boxstyle="round,pad=0,rounding_size=0.08", linewidth=0.7, zorder=0)
    )  # fmt: skip


def _titles(figure: Figure, who: pd.Series, colours: dict[str, str]) -> None:
    width, height = figure.get_size_inches()
    title = f"IOI as roles: {who['member']} at step {who['step']} ({short(float(who['tokens']))} tokens)"
    figure.text(0.14 / width, 1 - 0.10 / height, title, va="top", fontsize=10.5, fontweight="bold")
    handles = [Patch(facecolor=colour, label=role_title(role)) for role, colour in colours.items()]
    if handles:
        figure.legend(handles=handles, loc="lower left", bbox_to_anchor=(0.06 / width, 0.22 / height), ncols=5,
                      fontsize=7.8, handlelength=1.1, columnspacing=1.2, borderaxespad=0)  # fmt: skip
    note = (
        "Numbers: path effect e; green: the head helps. Dashed: strongest heads that do not count for the metric. "
        "Grey frame: heads that hear together."
    )
    figure.text(0.14 / width, 0.07 / height, note, fontsize=7.2, color=MUTED)

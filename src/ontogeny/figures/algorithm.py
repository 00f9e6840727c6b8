"""Whether the algorithm stays: the paper's Figure 4 B-D over training, and self-repair."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from ontogeny.core.results import IOI
from ontogeny.core.roles import head_names
from ontogeny.figures.roles import role_title
from ontogeny.figures.style import (
    MANY,
    MUTED,
    SHARED,
    TOKENS_NOTE,
    by_scale,
    drawn,
    mark_handle,
    member_handles,
    member_styles,
    members_in_order,
    panel_grid,
    styled,
    token_axis,
)
from ontogeny.records import MemberRecord
from ontogeny.series import METRICS, Trajectory, algorithm_quantity

METRIC_TITLES: Final = {
    "direct": "B  logits: name movers, copy suppression",
    "queries": "C  name movers' queries: S-inhibition",
    "values": "D  S-inhibition's values: induction, duplicates",
}
_PARTS: Final = {"value": "", "frozen": "_frozen", "in_circuit": "_in_circuit", "null_mean": "_null_mean",
                 "null_p95": "_null_p95"}  # fmt: skip
_WINDOW: Final = (-1.0, 1.5)
"""Shares that are drawn: where next to nothing is lost, a share of it is noise."""


def algorithm_rows(records: Sequence[MemberRecord], trajectory: Trajectory) -> pd.DataFrame:
    """Each metric at each checkpoint, with its null, in per cent; NaN where it is undefined, and `reason` says why.

    A checkpoint whose weights are those of an earlier step is left out.
    """
    table = trajectory.table[trajectory.table["duplicate_of"].isna()]
    reasons = _reasons(records)
    parts = []
    for metric in METRICS:
        names = {algorithm_quantity(metric, suffix): part for part, suffix in _PARTS.items()}
        long = table[table["quantity"].isin(names)]
        wide = long.pivot(index=[*SHARED, "status"], columns="quantity", values="value").reset_index()
        wide.columns.name = None
        parts.append(wide.rename(columns=names).assign(metric=metric))
    rows = pd.concat(parts, ignore_index=True)
    if not len(rows):
        return rows
    keys = zip(rows["member"], rows["step"], rows["metric"])
    rows["reason"] = [reasons.get((str(m), int(s), str(name)), "") for m, s, name in keys]
    columns = [*SHARED, "metric", *_PARTS, "status", "reason"]
    return styled(rows[columns].sort_values(["metric", "member", "step"]), trajectory.table)


def _reasons(records: Sequence[MemberRecord]) -> dict[tuple[str, int, str], str]:
    found = {}
    for record in records:
        for analysis in record.analyses:
            if analysis.algorithm is None:
                continue
            for name in METRICS:
                metric = analysis.algorithm.metrics.get(name)
                reason = analysis.algorithm.reason if metric is None else metric.reason
                found[record.member, analysis.ref.step, name] = reason
    return found


@drawn
def draw_algorithm(rows: pd.DataFrame) -> Figure:
    """Fig. 4 B-D: a panel a metric, a line a model; the band reaches from the null's mean to its 95th percentile."""
    styles = member_styles(rows)
    null = Line2D([], [], color=MUTED, alpha=0.3, linewidth=7, label="null: mean to 95th percentile")
    legend = [*member_handles(rows), null]
    figure, panels = panel_grid(
        METRICS, heights=[2.2], columns=3, width=12.9, legends=[legend], note=TOKENS_NOTE,
        title="IOI: share of the effect that the heads with the right role carry",
    )  # fmt: skip
    pale = 0.16 / max(1, rows["seed"].nunique()) * min(1.0, MANY / len(styles))
    for metric, (axes,) in panels.items():
        here, absent = rows[rows["metric"] == metric], {}
        axes.set_title(METRIC_TITLES[metric], fontsize=8.8)
        for member in reversed(members_in_order(here)):
            line, style = here[here["member"] == member].sort_values("step"), styles[member]
            x = line["tokens"].astype(float)
            axes.fill_between(x, line["null_mean"], line["null_p95"], color=style["color"], alpha=pale, linewidth=0)
            alone = line["value"].notna() & line["value"].shift().isna() & line["value"].shift(-1).isna()
            axes.vlines(x[alone], line["null_mean"][alone], line["null_p95"][alone], color=style["color"],
                        alpha=2 * pale, linewidth=5)  # fmt: skip
            axes.plot(x, line["value"], **style)
            if not line["value"].notna().any():
                absent[member] = "undefined"
        token_axis(axes, here["tokens"].astype(float).tolist() or [0.0])
        axes.set_ylim(-3, 103)
        axes.set_ylabel("per cent of |e|")
        axes.text(0.02, 0.97, by_scale(here, absent), transform=axes.transAxes, va="top", fontsize=7.5,
                  color=MUTED)  # fmt: skip
    return figure


def repair_rows(records: Sequence[MemberRecord], trajectory: Trajectory) -> pd.DataFrame:
    """What is lost when the leading heads of a role are ablated, and how much of it the rest takes over.

    One row a checkpoint and role; only roles of which some checkpoint of some member has a measurement. `helper` is
    the head whose own effect rises most.
    """
    rows = []
    for record in records:
        for analysis in sorted(record.analyses, key=lambda a: a.ref.step):
            if analysis.algorithm is None or analysis.ref.step in record.suspect:
                continue
            ref = analysis.ref
            who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, IOI, ref.step, ref.tokens)
            for repair in analysis.algorithm.repair:
                change = repair.change.double().nan_to_num(nan=-math.inf)
                best = int(change.argmax())
                found = repair.status == "measured" and math.isfinite(float(change.flatten()[best]))
                width = change.shape[1]
                helper = head_names([(best // width, best % width)])[0] if found else ""
                ablated = " ".join(head_names(repair.ablated))
                numbers = (repair.lost, repair.total, repair.taken_over)
                rows.append((*who, repair.role, ablated, *numbers, helper, repair.status, repair.reason))
    columns = [*SHARED, "role", "ablated", "lost", "total", "taken_over", "helper", "status", "reason"]
    frame = pd.DataFrame(rows, columns=columns)
    measured = set(frame.loc[frame["status"] == "measured", "role"])
    frame = frame[frame["role"].isin(measured)]
    return styled(frame, trajectory.table) if len(frame) else frame


@drawn
def draw_repair(rows: pd.DataFrame) -> Figure:
    """A panel a role: the share taken over, and below it the direct effect of the ablated heads."""
    roles, styles = list(dict.fromkeys(rows["role"])), member_styles(rows)
    legend = [*member_handles(rows), mark_handle("beyond the window", "^", colour=MUTED, size=5)]
    columns = min(3, max(2, len(roles)))
    figure, panels = panel_grid(
        roles, heights=[1.5, 0.95], columns=columns, width=3.9 * columns if len(roles) > 1 else 6.4, legends=[legend],
        note=TOKENS_NOTE, title="IOI, self-repair: a role's leading heads are ablated",
    )  # fmt: skip
    for role, (upper, lower) in panels.items():
        here, absent = rows[rows["role"] == role], {}
        title = role_title(role)
        upper.set_title(title[:1].upper() + title[1:])
        for height in (0.0, 1.0):
            upper.axhline(height, color=MUTED, linewidth=0.7)
        lower.axhline(0, color=MUTED, linewidth=0.7)
        for member in reversed(members_in_order(here)):
            line, style = here[here["member"] == member].sort_values("step"), styles[member]
            x, share = line["tokens"].astype(float), line["taken_over"].astype(float)
            inside = share.where(share.between(*_WINDOW))
            upper.plot(x, inside, **style)
            for edge, marker in zip(_WINDOW, "v^"):
                out = line[share < edge] if edge == _WINDOW[0] else line[share > edge]
                upper.plot(out["tokens"].astype(float), np.full(len(out), edge), linestyle="", marker=marker,
                           markerfacecolor="none", markeredgecolor=style["color"], markeredgewidth=1)  # fmt: skip
            lower.plot(x, line["lost"], **style)
            if not line["lost"].notna().any():
                absent[member] = "undefined"
        upper.set_ylim(_WINDOW[0] - 0.1, _WINDOW[1] + 0.1)
        upper.set_ylabel("taken over, share")
        lower.set_ylabel("lost, logits")
        token_axis(lower, here["tokens"].astype(float).tolist())
        upper.text(0.02, 0.04, by_scale(here, absent), transform=upper.transAxes, va="bottom", fontsize=7,
                   color=MUTED)  # fmt: skip
    return figure

"""Head roles over training: the paper's Figures 2 and 3, and a map of who holds what."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PolyCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from ontogeny.components import ROLES
from ontogeny.core.results import IOI, CheckpointAnalysis
from ontogeny.core.roles import Head, head_names
from ontogeny.figures.style import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    SHARED,
    TOKENS_NOTE,
    by_scale,
    drawn,
    mark_handle,
    member_handles,
    member_styles,
    members_in_order,
    new_figure,
    node_label,
    panel_grid,
    short,
    styled,
    token_axis,
)
from ontogeny.records import MemberRecord
from ontogeny.series import TASK_OF, Trajectory, circuit_heads

ROLE_COLOURS: Final[Mapping[str, str]] = {
    "induction": "#0072b2",
    "previous_token": "#56b4e9",
    "duplicate_token": "#009e73",
    "s_inhibition": "#e69f00",
    "name_mover": "#d55e00",
    "negative_name_mover": "#8c564b",
    "copy_suppression": "#cc79a7",
    "successor": "#7a5cc0",
}
OTHER_COLOURS: Final = ("#4d4d4d", "#999933", "#117733", "#882255", "#44aa99")
"""Of roles that are not ours."""
_CIRCUITS: Final[Mapping[str, str]] = {IOI: "IOI circuit", "greater_than": "greater-than circuit"}
_UNITS: Final[Mapping[str, str]] = {
    "successor": "successes, share",
    "induction": "attention, share",
    "previous_token": "attention, share",
    "duplicate_token": "attention, share",
    "copy_suppression": "CSPA",
    "name_mover": "names copied, %",
    "negative_name_mover": "names suppressed, %",
}
_MAP_COLUMNS: Final = [*SHARED, "layer", "head_index", "head", "roles", "roles_of_study", "undefined"]
_FIRST: Final = 0.33
"""A head has arrived when its score reaches this share of the model's maximum (the paper's Figure 2)."""
_TOP: Final = 5
_MAPS: Final = 8
HEAD_COLOURS: Final = (
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#7a5cc0", "#8c564b", "#1f2430", "#999933",
    "#882255", "#44aa99", "#bbbb00", "#dd7788", "#88ccee", "#6b7280", "#aa4499", "#117733", "#661100", "#b8860b",
)  # fmt: skip


def role_title(role: str) -> str:
    """A role's name for people."""
    return ROLES[role].title if role in ROLES else role.replace("_", " ")


def role_colours(roles: Sequence[str]) -> dict[str, str]:
    """The same role has the same colour everywhere; one that is not ours takes the next of the others."""
    others = iter(OTHER_COLOURS * (1 + len(roles)))
    return {role: ROLE_COLOURS.get(role) or next(others) for role in roles}


def component_rows(records: Sequence[MemberRecord], trajectory: Trajectory) -> pd.DataFrame:
    """Fig. 2: for each member and panel, the score of one head at each checkpoint.

    The head is the one that first reaches a third of the model's maximum, among the heads of the circuits that were
    found for the panel's task. Where there is none, `head` is empty, `score` NaN, and `reason` says why.
    """
    table = trajectory.heads
    rows = [part for record in records for role in TASK_OF for part in _first_head(record, table, role)]
    columns = [*SHARED, "role", "head", "score", "chance", "holds", "reason"]
    return styled(pd.DataFrame(rows, columns=columns), trajectory.table) if rows else pd.DataFrame()


def _first_head(record: MemberRecord, table: pd.DataFrame, role: str) -> Iterator[dict[str, Any]]:
    task = TASK_OF[role]
    here = table[(table["member"] == record.member) & (table["role"] == role)]
    if not len(here):
        return
    found = [a.tasks[task].circuit for a in record.analyses if task in a.tasks]
    inside = set(head_names({h for c in found if c.status == "found" for h in circuit_heads(c.circuit)}))
    wide = here.pivot(index="step", columns="head", values="score")
    head, reason = _earliest(wide, inside)
    chosen = here[here["head"] == head] if head else here.drop_duplicates("step")
    for row in chosen.sort_values("step").to_dict("records"):
        numbers = {name: row[name] if head else math.nan for name in ("score", "chance")}
        shared = {name: row[name] for name in SHARED if name != "task"} | {"task": task, "role": role}
        yield shared | numbers | {"head": head, "holds": bool(row["holds"]) and bool(head), "reason": reason}


def _earliest(wide: pd.DataFrame, inside: set[str]) -> tuple[str, str]:
    """The head of `inside` that first reaches a third of the maximum, or why there is none."""
    if not wide.notna().to_numpy().any():
        return "", "not measured"
    peak = float(np.nanmax(wide.to_numpy()))
    if not inside:
        return "", "no circuit"
    arrived = {
        str(head): (int((wide[head] >= _FIRST * peak).to_numpy().argmax()), -float(wide[head].max()))
        for head in wide.columns
        if head in inside and peak > 0 and bool((wide[head] >= _FIRST * peak).any())
    }
    if not arrived:
        return "", "no such head in the circuit"
    return min(arrived, key=lambda head: (arrived[head], head)), ""


@drawn
def draw_components(rows: pd.DataFrame) -> Figure:
    """A panel a role, a line a model; dots where the head holds the role, the chance rate dotted."""
    roles, styles = [r for r in TASK_OF if r in set(rows["role"])], member_styles(rows)
    holding = mark_handle("the head holds the role", "o", colour=MUTED, filled=True, size=5)
    legend = [*member_handles(rows), holding, Line2D([], [], color=MUTED, linestyle=":", label="chance")]
    figure, panels = panel_grid(
        roles, heights=[2.1], legends=[legend], note=TOKENS_NOTE,
        title="The head of each role that comes first, among those in the circuit",
    )  # fmt: skip
    for role, (axes,) in panels.items():
        here, notes = rows[rows["role"] == role], {}
        for member in reversed(members_in_order(here)):
            line, style = here[here["member"] == member].sort_values("step"), styles[member]
            head, reason = str(line["head"].iloc[0]), str(line["reason"].iloc[0])
            notes[member] = head or reason
            _head_line(axes, line, str(style["color"]), str(style["marker"]), style["linestyle"])
            axes.plot(line["tokens"].astype(float), line["chance"], color=style["color"], linestyle=":", linewidth=0.9)
        _role_axes(axes, role, here, f"{role_title(role)} ({_CIRCUITS[TASK_OF[role]]})")
        axes.text(0.02, 0.97, by_scale(here, notes), transform=axes.transAxes, va="top", fontsize=7, color=MUTED)
    return figure


def head_rows(records: Sequence[MemberRecord], trajectory: Trajectory) -> pd.DataFrame:
    """Fig. 3: for each member and panel, the scores of the five heads that get furthest."""
    del records
    table = trajectory.heads
    parts = []
    for (_, role), here in table[table["role"].isin(TASK_OF)].groupby(["member", "role"], sort=False):
        peaks = here.groupby("head", sort=False)["score"].max().dropna()
        order = peaks.sort_values(ascending=False, kind="stable").head(_TOP)
        rank = {head: place for place, head in enumerate(order.index)}
        part = here[here["head"].isin(rank)] if rank else here.drop_duplicates("step").assign(head="", score=np.nan)
        parts.append(part.assign(rank=part["head"].map(rank), task=TASK_OF[str(role)]))
    if not parts:
        return pd.DataFrame()
    columns = [*SHARED, "role", "head", "rank", "score", "chance", "holds"]
    return pd.concat(parts, ignore_index=True)[columns]


@drawn
def draw_heads(rows: pd.DataFrame) -> Figure:
    """Panels of Fig. 2 for one member; the same head has the same colour in all of them."""
    roles = [role for role in TASK_OF if role in set(rows["role"])]
    heads = sorted({str(head) for head in rows["head"] if head}, key=_by_layer)
    colours = {head: HEAD_COLOURS[place % len(HEAD_COLOURS)] for place, head in enumerate(heads)}
    legend = [Line2D([], [], color=colour, label=node_label(head)) for head, colour in colours.items()]
    marks = [
        mark_handle("holds the role", "o", colour=MUTED, filled=True, size=5),
        Line2D([], [], color=MUTED, linestyle=":", label="chance (mean)"),
    ]
    who = rows.iloc[0]
    figure, panels = panel_grid(
        roles, heights=[2.1], legends=[legend, marks], note=TOKENS_NOTE,
        title=f"{who['member']}: the {_TOP} heads that get furthest in each role (layer.head)",
    )  # fmt: skip
    for role, (axes,) in panels.items():
        here = rows[rows["role"] == role]
        for head in [str(head) for head in dict.fromkeys(here["head"]) if head]:
            _head_line(axes, here[here["head"] == head].sort_values("step"), colours[head], "o", "-")
        chance = here.groupby("tokens")["chance"].mean()
        axes.plot(chance.index.astype(float), chance, color=MUTED, linestyle=":", linewidth=0.9)
        _role_axes(axes, role, here, role_title(role))
    return figure


def _head_line(axes: Axes, line: pd.DataFrame, colour: str, marker: str, dashes: Any) -> None:
    """A head's score; a dot where it holds the role."""
    axes.plot(line["tokens"].astype(float), line["score"], color=colour, linestyle=dashes)
    held = line[line["holds"].astype(bool)]
    axes.plot(held["tokens"].astype(float), held["score"], linestyle="", marker=marker, color=colour, markersize=4)


def _role_axes(axes: Axes, role: str, rows: pd.DataFrame, title: str) -> None:
    axes.set_title(title[:1].upper() + title[1:])
    axes.set_ylabel(_UNITS.get(role, "score"))
    token_axis(axes, rows["tokens"].astype(float).tolist())
    highest = rows[["score", "chance"]].max().max()
    if not rows["score"].notna().any():
        axes.text(0.5, 0.5, "no head", transform=axes.transAxes, ha="center", va="center", color=MUTED)
    axes.set_ylim(top=float(highest) * 1.12 + 1e-3 if math.isfinite(highest) else 1.0)


def role_map_rows(records: Sequence[MemberRecord], trajectory: Trajectory) -> pd.DataFrame:
    """For each member, at up to eight checkpoints: every head and the roles that it holds, in the registry's order.

    The checkpoints are spread evenly over the sequence, the first and the last among them. A role that no head ever
    holds is in `roles_of_study` all the same: it says what was looked for.
    """
    del trajectory
    rows = []
    for record in records:
        kept = [a for a in sorted(record.analyses, key=lambda a: a.ref.step) if a.roles]
        names = tuple(dict.fromkeys(role for a in kept for role in a.roles))
        lacking = _undefined(kept, names)
        for analysis in _spread(kept):
            rows += list(_map_rows(analysis, names, lacking))
    return pd.DataFrame(rows, columns=_MAP_COLUMNS)


def checkpoint_map_rows(analysis: CheckpointAnalysis) -> pd.DataFrame:
    """The same for one checkpoint."""
    names = tuple(analysis.roles)
    return pd.DataFrame(list(_map_rows(analysis, names, _undefined([analysis], names))), columns=_MAP_COLUMNS)


def _undefined(kept: Sequence[CheckpointAnalysis], names: Sequence[str]) -> str:
    """Roles that no checkpoint could measure."""
    return " ".join(n for n in names if not any(a.roles[n].status == "measured" for a in kept if n in a.roles))


def _spread(kept: Sequence[CheckpointAnalysis]) -> list[CheckpointAnalysis]:
    if not kept:
        return []
    places = np.unique(np.linspace(0, len(kept) - 1, min(_MAPS, len(kept))).round().astype(int))
    return [kept[place] for place in places]


def _map_rows(analysis: CheckpointAnalysis, names: Sequence[str], lacking: str) -> Iterator[tuple[object, ...]]:
    ref, graph = analysis.ref, analysis.model.graph
    who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, "", ref.step, ref.tokens)
    for layer in range(graph.n_layers):
        for index in range(graph.n_heads):
            head: Head = (layer, index)
            held = [name for name in names if head in analysis.holders.get(name, ())]
            yield (*who, *head, *head_names([head]), " ".join(held), " ".join(names), lacking)


@drawn
def draw_role_map(rows: pd.DataFrame) -> Figure:
    """A grid a checkpoint: layers from bottom to top, heads from left to right, a stripe for each role held."""
    who, steps = rows.iloc[0], list(dict.fromkeys(rows["step"]))
    names = str(who["roles_of_study"]).split()
    colours, lacking = role_colours(names), set(str(who["undefined"]).split())
    layers, heads = int(rows["layer"].max()) + 1, int(rows["head_index"].max()) + 1
    columns = min(4, len(steps))
    lines = -(-len(steps) // columns)
    cell = min(0.42, 2.1 / heads, 3.2 / layers)
    grid_width, grid_height = cell * heads, cell * layers
    width = max(9.2, columns * (grid_width + 0.55) + 0.35)
    entries = _role_entries(names, colours, lacking, rows)
    legend_lines = -(-len(entries) // 4)
    head_room, pitch = 0.42 + 0.22 * legend_lines, grid_height + 0.52
    height = head_room + lines * pitch + 0.25
    figure = new_figure(width, height)
    figure.text(0.12 / width, 1 - 0.10 / height, f"{who['member']}: who holds which role", va="top", fontsize=11,
                fontweight="bold")  # fmt: skip
    figure.legend(
        handles=entries, loc="upper left", bbox_to_anchor=(0.06 / width, 1 - 0.32 / height), ncols=4, fontsize=8,
        handlelength=1.1, columnspacing=1.3, borderaxespad=0, borderpad=0.2,
    )  # fmt: skip
    for place, step in enumerate(steps):
        left = 0.45 + (place % columns) * (width - 0.35) / columns
        bottom = height - head_room - (place // columns) * pitch - 0.24 - grid_height
        axes = figure.add_axes((left / width, bottom / height, grid_width / width, grid_height / height))
        _grid(axes, rows[rows["step"] == step], colours, layers, heads, label=place % columns == 0)
    figure.text(0.12 / width, 0.06 / height, "Rows: layers, the first at the bottom. Columns: heads. Grey: no role.",
                fontsize=7.2, color=MUTED)  # fmt: skip
    return figure


def _role_entries(
    names: Sequence[str], colours: Mapping[str, str], lacking: set[str], rows: pd.DataFrame
) -> list[Patch]:
    held = {role for text in rows["roles"] for role in str(text).split()}
    said = {name: " (not measured)" if name in lacking else "" if name in held else " (no head)" for name in names}
    return [Patch(facecolor=colours[name], label=role_title(name) + said[name]) for name in names]


def _grid(axes: Axes, rows: pd.DataFrame, colours: Mapping[str, str], layers: int, heads: int, *, label: bool) -> None:
    places = list(zip(rows["head_index"], rows["layer"], (str(text).split() for text in rows["roles"])))
    cells = [_rectangle(x, y, 1, 1) for x, y, _ in places]
    axes.add_collection(PolyCollection(cells, facecolors="#eceef2", edgecolors=PAPER, linewidths=1.0))
    stripes = [
        (_rectangle(x + 0.04 + 0.92 * i / len(held), y + 0.04, 0.92 / len(held), 0.92), colours[role])
        for x, y, held in places
        for i, role in enumerate(held)
    ]
    axes.add_collection(
        PolyCollection([shape for shape, _ in stripes], facecolors=[colour for _, colour in stripes], linewidths=0)
    )
    axes.set_xlim(0, heads)
    axes.set_ylim(0, layers)
    axes.grid(visible=False)
    for spine in axes.spines.values():
        spine.set_color(FAINT)
    every = max(1, layers // 8)
    axes.set_yticks([layer + 0.5 for layer in range(0, layers, every)], [str(i) for i in range(0, layers, every)])
    every = max(1, heads // 8)
    axes.set_xticks([head + 0.5 for head in range(0, heads, every)], [str(i) for i in range(0, heads, every)])
    axes.tick_params(length=0, labelsize=6.5, pad=1.5)
    if not label:
        axes.tick_params(labelleft=False)
    who = rows.iloc[0]
    axes.set_title(f"step {who['step']:,} ({short(float(who['tokens']))})", fontsize=8, fontweight="normal", color=INK)


def _rectangle(x: float, y: float, width: float, height: float) -> list[tuple[float, float]]:
    """Corners."""
    return [(x, y), (x + width, y), (x + width, y + height), (x, y + height)]


def _by_layer(head: str) -> tuple[int, int]:
    layer, _, index = head.removeprefix("a").partition(".h")
    return int(layer), int(index)

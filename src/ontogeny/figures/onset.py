"""Pictures of series: the values with their onsets, onsets with their intervals, and sizes with their change points."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from ontogeny.figures.roles import role_title
from ontogeny.figures.style import (
    FAINT,
    INK,
    MUTED,
    PAPER,
    TOKENS_NOTE,
    WARNING,
    drawn,
    log_token_axis,
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
from ontogeny.series import Emergence, Fluctuation, Trajectory, change_table, emergence_table

_ONSET_COLUMNS: Final = ["status", "step", "tokens", "onset_tokens", "onset_low", "onset_high", "agrees"]
_ONSET_ROW: Final = ["suite", "member", "scale", "seed", "parameters", "task", "quantity", *_ONSET_COLUMNS]
_KEYS: Final = ["suite", "member", "task", "quantity"]


def onset_rows(found: Sequence[Emergence]) -> pd.DataFrame:
    """One row a series: the rule's answer, and the interval of its onset in tokens."""
    return _styled(emergence_table(found)[_ONSET_ROW])


def study_onset_rows(trajectory: Trajectory) -> pd.DataFrame:
    """The same of a study's behaviours, then of the best head of each role (its panel is the role's name)."""
    roles = trajectory.role_onsets
    titles = pd.Series([f"role: {role_title(role)}" for role in roles["role"]], index=roles.index, dtype="str")
    parts = [trajectory.onsets[_ONSET_ROW], roles.assign(task=titles, quantity="score of the best head")[_ONSET_ROW]]
    kept = [part for part in parts if len(part)]
    return _styled(pd.concat(kept, ignore_index=True)) if kept else pd.DataFrame()


@drawn
def draw_onsets(rows: pd.DataFrame) -> Figure:
    """A panel a task and quantity, a line a model: the interval, its median, and the checkpoint of the rule.

    Where the two disagree, the checkpoint has another mark.
    """
    panels, members = list(dict.fromkeys(rows["task"])), members_in_order(rows)
    legend = [mark_handle("median and interval", "o", filled=True), mark_handle("checkpoint of the rule", "|", size=8)]
    if _apart(rows).any():
        legend.append(mark_handle("the same, apart from the interval", "X", colour=WARNING, filled=True))
    figure, grid = panel_grid(
        panels, heights=[0.17 * len(members) + 0.15], columns=3, width=11.0, legends=[legend], note=TOKENS_NOTE,
        title="Onset of each series",
    )  # fmt: skip
    places = rows[["onset_low", "onset_high", "tokens"]].astype(float).to_numpy()
    places = places[np.isfinite(places)]
    for panel, (axes,) in grid.items():
        onset_panel(axes, rows[rows["task"] == panel], members)
        log_token_axis(axes, places)
    return figure


def _apart(rows: pd.DataFrame) -> pd.Series:
    """Onsets whose interval and rule do not agree."""
    return ~rows["agrees"].astype("boolean").fillna(True).astype(bool)


def onset_panel(axes: Axes, rows: pd.DataFrame, members: Sequence[str]) -> None:
    """One task and quantity; the largest model on top."""
    styles, labels = member_styles(rows), member_labels(rows)
    for row in rows.assign(apart=_apart(rows)).to_dict("records"):
        place, colour = len(members) - 1 - members.index(row["member"]), styles[row["member"]]["color"]
        if row["status"] == "found":
            axes.plot([row["onset_low"], row["onset_high"]], [place, place], color=colour, linewidth=1.8)
            axes.plot(row["onset_tokens"], place, marker="o", markersize=4.5, color=colour)
            marker, size, colour = ("X", 5.5, WARNING) if row["apart"] else ("|", 8.0, INK)
            axes.plot(
                float(row["tokens"]), place, marker=marker, markersize=size, color=colour,
                markeredgewidth=0 if row["apart"] else 1.2,
            )  # fmt: skip
        else:
            answer = "never" if row["status"] == "never" else "from the first"
            axes.text(
                0.02, place, answer, transform=axes.get_yaxis_transform(), va="center", fontsize=7, color=MUTED,
                bbox={"facecolor": PAPER, "edgecolor": "none", "pad": 1.5},
            )  # fmt: skip
    axes.set_yticks(range(len(members)), [labels.get(m, m) for m in reversed(members)], fontsize=7)
    axes.set_ylim(-0.7, len(members) - 0.3)
    axes.tick_params(axis="y", length=0)


def series_rows(table: pd.DataFrame, found: Sequence[Emergence]) -> pd.DataFrame:
    """Every value, and at which checkpoint the rule sees the onset (`onset`)."""
    answers = emergence_table(found)[[*_KEYS, "status", "step"]].rename(columns={"status": "answer", "step": "at"})
    merged = table.merge(answers, on=_KEYS)
    merged["onset"] = (merged["step"] == merged["at"]).fillna(False).astype(bool)
    return _styled(merged.drop(columns="at"))


@drawn
def draw_series(rows: pd.DataFrame) -> Figure:
    """A panel a task and quantity, a line a model, the interval as a band, a ring where the ability appears."""
    panels = list(dict.fromkeys(rows["task"]))
    legend = [*member_handles(rows), mark_handle("onset", "o", size=9)]
    figure, grid = panel_grid(
        panels, heights=[1.75], columns=3, width=11.0, legends=[legend], note=TOKENS_NOTE
    )  # fmt: skip
    for panel, (axes,) in grid.items():
        here = rows[rows["task"] == panel]
        styles, pale = member_styles(here), 0.4 / max(1, here["member"].nunique())
        for member in reversed(members_in_order(here)):
            line, style = here[here["member"] == member].sort_values("tokens"), styles[member]
            x = line["tokens"].astype(float)
            axes.fill_between(x, line["low"], line["high"], color=style["color"], alpha=pale, linewidth=0)
            axes.plot(x, line["value"], **(style | {"markersize": 2.5, "linewidth": 1.2}))
            start = line[line["onset"]]
            axes.plot(
                start["tokens"].astype(float), start["value"], linestyle="", marker="o", markersize=8.5,
                markerfacecolor="none", markeredgecolor=style["color"], markeredgewidth=1.4, zorder=5,
            )  # fmt: skip
        if not here["value"].notna().any():
            write_within(axes, "no values")
            axes.set_yticks([])
        token_axis(axes, here["tokens"].astype(float).tolist())
    return figure


def size_change_rows(table: pd.DataFrame, found: Sequence[Fluctuation]) -> pd.DataFrame:
    """Every size (`kind` size), and every change point with its interval and levels (`kind` change)."""
    sizes = table[["suite", "member", "scale", "seed", "parameters", "task", "quantity", "step", "tokens", "value"]]
    parts = [sizes.assign(kind="size"), change_table(found).assign(kind="change")]
    return _styled(pd.concat([part for part in parts if len(part)], ignore_index=True))


@drawn
def draw_size_changes(rows: pd.DataFrame) -> Figure:
    """A panel a task and quantity: sizes, their level between change points, and the change points' intervals."""
    panels = list(dict.fromkeys(rows["task"]))
    marks = [
        mark_handle("size at a checkpoint", "o", colour=MUTED, filled=True, size=3),
        Line2D([], [], color=MUTED, linewidth=1.6, label="level"),
        Line2D([], [], color=FAINT, linewidth=7, label="where the level changes, interval"),
    ]
    figure, grid = panel_grid(
        panels, heights=[2.4], columns=2, width=9.2 if len(panels) > 1 else 6.6, note=TOKENS_NOTE,
        legends=[member_handles(rows), marks], title="Sizes over training: levels, and where they change",
    )  # fmt: skip
    for panel, (axes,) in grid.items():
        here = rows[rows["task"] == panel]
        for member, style in member_styles(here).items():
            mine = here[here["member"] == member]
            _size_line(axes, mine[mine["kind"] == "size"], mine[mine["kind"] == "change"], str(style["color"]))
        if (here["value"] > 0).any():
            axes.set_yscale("log")
            axes.yaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
            axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: short(value)))
            axes.yaxis.set_minor_formatter(NullFormatter())
        else:
            write_within(axes, "no sizes")
            axes.set_yticks([])
        axes.set_ylabel("size")
        token_axis(axes, here["tokens"].astype(float).tolist())
    return figure


def _size_line(axes: Axes, sizes: pd.DataFrame, changes: pd.DataFrame, colour: str) -> None:
    """One model: dots, and the levels as steps."""
    sizes = sizes[sizes["value"] > 0].sort_values("tokens")
    x = sizes["tokens"].astype(float)
    axes.plot(x, sizes["value"], linestyle="", marker="o", markersize=2.6, color=colour, alpha=0.45)
    for low, high in zip(changes.get("low", []), changes.get("high", [])):
        axes.axvspan(float(low), float(high), color=FAINT, alpha=0.35, linewidth=0, zorder=0)
    if not len(changes) or not len(sizes):
        return
    edges = [float(x.min()), *changes["tokens"].astype(float), float(x.max())]
    levels = [*changes["before"], changes["after"].iloc[-1]]
    axes.plot(np.repeat(edges, 2)[1:-1], np.repeat(levels, 2), color=colour, linewidth=1.6)


def _styled(rows: pd.DataFrame) -> pd.DataFrame:
    """With the look of each model; a panel's name goes to `task`. Models whose size is unknown come last, by name.

    Names are somebody's text: their dollar signs begin no formula.
    """
    words = {name: rows[name].str.replace("$", r"\$", regex=False) for name in ("member", "scale", "task", "quantity")}
    rows = rows.assign(**words, parameters=rows["parameters"].astype("Float64").astype(float))
    several = rows.groupby("task")["quantity"].nunique().max() > 1 if len(rows) else False
    named = rows.assign(task=rows["task"] + ", " + rows["quantity"] if several else rows["task"])
    ranks = {scale: -place for place, scale in enumerate(sorted(rows["scale"].unique()))}
    return styled(named, named.fillna({"parameters": named["scale"].map(ranks)}))

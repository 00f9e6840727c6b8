"""The paper's claims and their verdicts as a picture."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Mapping
from typing import Any, Final

import pandas as pd
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from ontogeny.figures.style import FAINT, INK, MUTED, PAPER, drawn, new_figure
from ontogeny.series import Trajectory
from ontogeny.series.claims import ALL, VERDICTS

VERDICT_COLOURS: Final[Mapping[str, str]] = {
    "supported": "#0f7b57",
    "contradicted": "#c2410c",
    "undecided": "#6b7280",
    "other algorithm": "#7a5cc0",
    "n/a": "#a3a9b4",
}
_WIDTH: Final = 12.0
_PLACES: Final = {"claim": 0.55, "verdict": 3.6, "parts": 5.0, "statistic": 6.2, "why": 8.9}
"""Inches from the left."""
_LETTERS: Final = {"claim": 44, "measured": 46, "why": 45}
_LINE: Final = 0.155
_PAD: Final = 0.16
_DOTS: Final = 7
"""Parts in a row."""


def claim_rows(trajectory: Trajectory) -> pd.DataFrame:
    """One row a claim: the verdict on the whole, what decided, and how many of its parts have each verdict."""
    table = trajectory.claims
    whole = table[table["about"] == ALL].drop(columns=["about", "rule"]).reset_index(drop=True)
    parts = table[table["about"] != ALL]
    counts = {verdict: parts[parts["verdict"] == verdict].groupby("claim").size() for verdict in VERDICTS}
    return whole.assign(
        **{f"parts_{name}": whole["claim"].map(count).fillna(0).astype(int) for name, count in counts.items()}
    )


@drawn
def draw_claims(rows: pd.DataFrame) -> Figure:
    """A line a claim; dots: its parts (tasks, roles, members)."""
    wrapped = [
        {
            name: textwrap.wrap(str(row[key]), _LETTERS[name]) or [""]
            for name, key in (("claim", "sentence"), ("measured", "measured"), ("why", "reason"))
        }
        for row in rows.to_dict("records")
    ]
    lines = [max(len(texts["claim"]), 1 + len(texts["measured"]), len(texts["why"])) for texts in wrapped]
    heights = [_LINE * count + _PAD for count in lines]
    total = sum(heights) + 0.75
    figure = new_figure(_WIDTH, total)

    def at(x: float, y: float) -> tuple[float, float]:
        return x / _WIDTH, 1 - y / total

    def line(y: float, colour: str, width: float) -> None:
        axes.plot([0.12 / _WIDTH, 1 - 0.12 / _WIDTH], [1 - y / total] * 2, color=colour, linewidth=width)

    axes = figure.add_axes((0, 0, 1, 1))
    axes.set_axis_off()
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    axes.text(*at(0.12, 0.12), "The paper's claims on this study", va="top", fontsize=11, fontweight="bold")
    for name, x in _PLACES.items():
        axes.text(*at(x, 0.56), name, va="center", fontsize=7.5, color=MUTED)
    line(0.68, INK, 0.8)
    y = 0.70
    for row, texts, height in zip(rows.to_dict("records"), wrapped, heights):
        middle = y + height / 2
        axes.text(*at(0.12, middle), str(row["claim"]), va="center", fontsize=9, fontweight="bold")
        for name in ("claim", "why"):
            axes.text(*at(_PLACES[name], middle), "\n".join(texts[name]), va="center", fontsize=8, linespacing=1.25)
        _chip(axes, at(_PLACES["verdict"], middle), str(row["verdict"]), total)
        _dots(axes, row, middle, total)
        x, first = _PLACES["statistic"], middle - _LINE / 2 * len(texts["measured"])
        axes.text(*at(x, first), _number(row), va="center", fontsize=8)
        axes.text(*at(x, first + 0.09), "\n".join(texts["measured"]), va="top", fontsize=7, color=MUTED)
        y += height
        line(y, FAINT, 0.6)
    return figure


def _chip(axes: Any, place: tuple[float, float], verdict: str, total: float) -> None:
    width, height = 1.22 / _WIDTH, 0.20 / total
    axes.add_patch(
        FancyBboxPatch(
            (place[0], place[1] - height / 2), width, height, boxstyle="round,pad=0,rounding_size=0.004",
            color=VERDICT_COLOURS[verdict], linewidth=0, mutation_aspect=_WIDTH / total,
        )
    )  # fmt: skip
    axes.text(
        place[0] + width / 2, place[1] - 0.005 / total, verdict, ha="center", va="center", fontsize=8, color=PAPER
    )


def _dots(axes: Any, row: Mapping[Any, Any], middle: float, total: float) -> None:
    """A dot a part, in two rows at most; those that find no place are counted."""
    verdicts = [name for name in VERDICTS for _ in range(int(row[f"parts_{name}"]))]
    for place, verdict in enumerate(verdicts[: 2 * _DOTS]):
        x, y = _PLACES["parts"] + 0.06 + 0.115 * (place % _DOTS), middle + 0.12 * (place // _DOTS)
        y -= 0.06 * (len(verdicts) > _DOTS)
        axes.plot(x / _WIDTH, 1 - y / total, marker="o", markersize=4.5, color=VERDICT_COLOURS[verdict], linestyle="")
    if len(verdicts) > 2 * _DOTS:
        x = _PLACES["parts"] + 0.06 + 0.115 * _DOTS
        more = f"+{len(verdicts) - 2 * _DOTS}"
        axes.text(x / _WIDTH, 1 - middle / total, more, va="center", fontsize=6.5, color=MUTED)


def _number(row: Mapping[Any, Any]) -> str:
    """The statistic and its interval, three digits."""
    if not math.isfinite(row["statistic"]):
        return "-"
    between = f" ({row['low']:.3g} to {row['high']:.3g})" if math.isfinite(row["low"]) else ""
    return f"{row['statistic']:.3g}{between}"

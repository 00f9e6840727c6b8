"""Pictures of a study over settings: what was tried, the front, what matters, what thresholds and steps cost."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import FixedLocator, FuncFormatter, NullFormatter, NullLocator

from ontogeny.core.tuning import BASELINES, NAMES, Setting, TuningRecord
from ontogeny.figures import Picture
from ontogeny.figures.style import (
    FAINT,
    INK,
    LINE_STYLES,
    MARKERS,
    MUTED,
    PAPER,
    drawn,
    fraction_axis,
    mark_handle,
    panel_grid,
    short,
    task_title,
)

_COLOURS: Final = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8a8f98", "#f0e442")
"""Okabe and Ito's, told apart by colour-blind readers."""
_OBJECTIVES: Final = {"edges": "edges kept", "passes": "passes", "faithfulness": "faithfulness"}
_BASELINE_LABELS: Final = {"paper": "the paper's setting", "code": "the paper's code"}


def tuning_pictures(record: TuningRecord) -> Iterator[Picture]:
    """Every picture of a study; one without rows is left out."""
    kinds: Mapping[str, tuple[str, Callable[[TuningRecord], pd.DataFrame], Callable[[pd.DataFrame], Figure]]] = {
        "trials": ("Every setting: how small its circuits are, how faithful, at what cost.", trial_rows, draw_front),
        "history": ("The trials in order, and the smallest feasible circuits so far.", trial_rows, draw_history),
        "importances": ("How much each choice matters, by objective.", importance_rows, draw_importances),
        "thresholds": ("What a threshold costs in edges, and what it keeps.", threshold_rows, draw_thresholds),
        "steps": ("How well m steps rank the edges, against exact scores.", step_rows, draw_steps),
        "carried": ("The best setting of each checkpoint, at the others.", carried_rows, draw_carried),
    }
    for name, (caption, rows, draw) in kinds.items():
        found = rows(record)
        if len(found) and not (name == "history" and record.mode == "grid"):  # A grid has no order of its own.
            yield Picture(name, caption, found, draw)


def trial_rows(record: TuningRecord) -> pd.DataFrame:
    """A row a trial: its setting, its objectives, and the numbers of each checkpoint."""
    rows = []
    for place, trial in enumerate(record.trials):
        s = trial.setting
        row: dict[str, Any] = {"task": record.task, "trial": place} | {name: getattr(s, name) for name in NAMES}
        row |= {name: getattr(trial, name) for name in (*_OBJECTIVES, "held_out")}
        row |= {
            "feasible": trial.violation(record.target) <= 0,
            "front": place in record.front,
            "baseline": trial.baseline,
            "recommended": s == record.recommended.setting,
            "target": record.target,
            "form": record.form,
        }
        for name, e in trial.evaluations.items():
            row |= {f"{name} status": e.status, f"{name} kept": e.kept, f"{name} edges": e.edges}
            row |= {f"{name} tune": e.tune.value, f"{name} held_out": e.held_out.value}
        rows.append(row)
    return pd.DataFrame(rows)


def importance_rows(record: TuningRecord) -> pd.DataFrame:
    """A row an objective and choice."""
    rows = [
        {"task": record.task, "objective": objective, "choice": name, "importance": share}
        for objective, shares in record.importances.items()
        for name, share in shares.items()
    ]
    return pd.DataFrame(rows)


def reference_setting(record: TuningRecord) -> Setting | None:
    """The setting whose threshold is varied in a picture: the paper's, or the recommended, or the first."""
    tried = [trial.setting for trial in record.trials]
    wanted = [BASELINES["paper"], record.recommended.setting, *tried]
    return next((s for s in wanted if s in tried), None)


def threshold_rows(record: TuningRecord) -> pd.DataFrame:
    """A row a checkpoint and threshold, everything else as in the reference setting."""
    reference = reference_setting(record)
    if reference is None:
        return pd.DataFrame()
    rows = []
    for trial in sorted(record.trials, key=lambda t: t.setting.key):
        if _apart_from_threshold(trial.setting) != _apart_from_threshold(reference):
            continue
        for name, e in trial.evaluations.items():
            row: dict[str, Any] = {"task": record.task, "checkpoint": name, "setting": _says(reference)}
            row |= {"threshold": trial.setting.threshold, "status": e.status, "kept": e.kept, "edges": e.edges}
            row |= {"edges_low": e.edges_low, "edges_high": e.edges_high, "form": record.form}
            for split in ("tune", "held_out"):
                value = getattr(e, split)
                row |= {split: value.value, f"{split}_low": value.low, f"{split}_high": value.high}
            rows.append(row)
    return pd.DataFrame(rows)


def step_rows(record: TuningRecord) -> pd.DataFrame:
    """A row a checkpoint and way to score."""
    enough = {(e.checkpoint, e.method, e.rule): e.steps for e in record.enough}
    rows = []
    for q in record.quality:
        s = q.scores
        row: dict[str, Any] = {
            "task": record.task,
            "checkpoint": q.checkpoint,
            "method": s.method,
            "rule": s.rule,
            "steps": s.steps,
        }
        row |= {"passes": q.forward + q.backward}
        for name in ("spearman", "overlap", "behind"):
            value = getattr(q, name)
            row |= {name: value.value, f"{name}_low": value.low, f"{name}_high": value.high}
        row |= {"jaccard": q.jaccard.median, "jaccard_low": q.jaccard.low, "jaccard_high": q.jaccard.high}
        row["enough"] = bool(s.steps) and enough.get((q.checkpoint, s.method, s.rule)) == s.steps
        rows.append(row)
    return pd.DataFrame(rows)


def carried_rows(record: TuningRecord) -> pd.DataFrame:
    """A row a source and target checkpoint."""
    rows = []
    for c in record.carried:
        row: dict[str, Any] = {"task": record.task, "source": c.source, "target": c.target}
        row |= {name: getattr(c.setting, name) for name in NAMES}
        row |= {"edges": c.edges.value, "edges_low": c.edges.low, "edges_high": c.edges.high, "own_edges": c.own_edges}
        for split in ("tune", "held_out"):
            value = getattr(c, split)
            row |= {split: value.value, f"{split}_low": value.low, f"{split}_high": value.high}
        rows.append(row | {"carries": c.carries})
    return pd.DataFrame(rows)


@drawn
def draw_front(rows: pd.DataFrame) -> Figure:
    """Faithfulness on `tune` against edges kept; the colour is the cost, the line the front among feasible trials."""
    shown = rows[rows["edges"].notna()]
    task, target = str(rows["task"].iloc[0]), float(rows["target"].iloc[0])
    scale, costs = _cost_colours(shown["passes"])
    marks = [
        mark_handle("feasible", "o", colour=_COLOURS[0], filled=True),
        mark_handle("not feasible", "x", colour=MUTED),
    ]
    marks.append(mark_handle("on the front", "o", size=9))
    marks += [mark_handle(text, _BASELINE_MARKS[name], size=9) for name, text in _BASELINE_LABELS.items()]
    if rows["recommended"].any():
        marks.append(mark_handle("recommended", "*", colour=_COLOURS[1], filled=True, size=11))
    figure, panels = panel_grid(
        [task], heights=[3.4], columns=1, width=7.6, title="Settings tried", legends=[marks, costs],
        note="edges kept, share of the graph (mean over checkpoints, logarithmic)",
    )  # fmt: skip
    (axes,) = panels[task]
    axes.axhline(target, color=MUTED, linewidth=0.9, linestyle=LINE_STYLES[1])
    for feasible, marker in ((False, "x"), (True, "o")):
        part = shown[shown["feasible"] == feasible]
        axes.scatter(part["edges"], part["faithfulness"], c=scale(part["passes"]), marker=marker, s=20, linewidths=0.9)
    line = shown[shown["front"]].sort_values("edges")
    axes.scatter(line["edges"], line["faithfulness"], s=70, facecolors="none", edgecolors=INK, linewidths=0.8)
    for name, marker in _BASELINE_MARKS.items():
        part = shown[shown["baseline"] == name]
        axes.scatter(part["edges"], part["faithfulness"], s=110, marker=marker, facecolors="none", edgecolors=INK)
    part = shown[shown["recommended"]]
    axes.scatter(part["edges"], part["faithfulness"], s=170, marker="*", color=_COLOURS[1], edgecolors=PAPER, zorder=6)
    axes.set_ylabel(f"{rows['form'].iloc[0]} faithfulness on tune (least)")
    _percent_ticks(axes, shown["edges"])
    return figure


_BASELINE_MARKS: Final = {"paper": "s", "code": "D"}


def _feasibility() -> list[Line2D]:
    return [
        mark_handle("feasible", "o", colour=_COLOURS[0], filled=True),
        mark_handle("not feasible", "x", colour=MUTED),
    ]


def _cost_colours(passes: pd.Series) -> tuple[Callable[[pd.Series], Any], list[Line2D]]:
    """Colours of costs on a logarithmic scale, and legend entries for its ends and middle."""
    import matplotlib as mpl

    low, high = (float(passes.min()), float(passes.max())) if len(passes) else (1.0, 10.0)
    norm = mpl.colors.LogNorm(low, max(high, low * 1.001))
    colours = mpl.colormaps["viridis_r"]

    def scale(values: pd.Series) -> Any:
        return colours(0.08 + 0.92 * norm(values.to_numpy(dtype=float)))

    handles = []
    for value in dict.fromkeys((low, math.sqrt(low * high), high)):
        colour = scale(pd.Series([value]))[0]
        handles.append(mark_handle(f"{short(float(f'{value:.2g}'))} prompt passes", "o", colour=colour, filled=True))
    return scale, handles


@drawn
def draw_history(rows: pd.DataFrame) -> Figure:
    """Edges kept, trial by trial; the line is the best feasible so far."""
    task = str(rows["task"].iloc[0])
    legend = [
        mark_handle("feasible", "o", colour=_COLOURS[0], filled=True),
        mark_handle("not feasible", "x", colour=MUTED),
    ]
    legend.append(Line2D([], [], color=INK, label="smallest feasible so far"))
    figure, panels = panel_grid(
        [task], heights=[2.4], columns=1, width=7.6, title="Trials in order", legends=[legend], note="trial"
    )
    (axes,) = panels[task]
    for feasible, marker, colour in ((False, "x", MUTED), (True, "o", _COLOURS[0])):
        part = rows[rows["feasible"] == feasible]
        axes.scatter(part["trial"], part["edges"], marker=marker, s=16, color=colour, linewidths=0.9)
    best = rows["edges"].where(rows["feasible"]).cummin()
    axes.step(rows["trial"], best, where="post", color=INK, linewidth=1.2)
    axes.set_ylabel("edges kept")
    axes.set_yscale("log")
    _percent(axes.yaxis, rows["edges"])
    return figure


@drawn
def draw_importances(rows: pd.DataFrame) -> Figure:
    """A bar a choice and objective."""
    names = [name for name in NAMES if name in set(rows["choice"])]
    objectives = list(dict.fromkeys(rows["objective"]))
    legend = [
        mark_handle(_OBJECTIVES.get(o, o), "s", colour=c, filled=True, size=8) for o, c in zip(objectives, _COLOURS)
    ]
    key = str(rows["task"].iloc[0])
    figure, panels = panel_grid(
        [key], heights=[2.5], columns=1, width=7.6, title="What matters", legends=[legend],
        note="share of importance (PED-ANOVA: being among the better trials)",
    )  # fmt: skip
    (axes,) = panels[key]
    height = 0.8 / max(1, len(objectives))
    for place, (objective, colour) in enumerate(zip(objectives, _COLOURS)):
        shares = rows[rows["objective"] == objective].set_index("choice")["importance"]
        at = [i + (place - (len(objectives) - 1) / 2) * height for i in range(len(names))]
        axes.barh(at, [float(shares.get(name, 0.0)) for name in names], height=0.9 * height, color=colour)
    axes.set_yticks(range(len(names)), labels=names)
    axes.invert_yaxis()
    axes.grid(axis="y", visible=False)
    axes.grid(axis="x", color=FAINT)
    return figure


@drawn
def draw_thresholds(rows: pd.DataFrame) -> Figure:
    """Above the edges kept, below the faithfulness on `tune` (filled) and `held_out` (hollow); bars are intervals."""
    task, setting = str(rows["task"].iloc[0]), str(rows["setting"].iloc[0])
    names = list(dict.fromkeys(rows["checkpoint"]))
    legend = [Line2D([], [], color=_COLOURS[i % 8], marker=MARKERS[i % 10], label=n) for i, n in enumerate(names)]
    splits = [mark_handle("tune", "o", filled=True), mark_handle("held_out", "o"), mark_handle("not met", "v")]
    figure, panels = panel_grid(
        [task], heights=[2.0, 1.8], columns=1, width=7.6, title=f"What a threshold costs ({setting})",
        legends=[legend, splits], note="threshold of the search on discover",
    )  # fmt: skip
    top, low = panels[task]
    for i, name in enumerate(names):
        part = rows[rows["checkpoint"] == name].sort_values("threshold")
        x = part["threshold"] + 0.004 * (i - (len(names) - 1) / 2)
        style: dict[str, Any] = {"color": _COLOURS[i % 8], "marker": MARKERS[i % 10]}
        top.plot(x, part["edges"], **style)
        top.vlines(x, part["edges_low"], part["edges_high"].fillna(part["edges"]), color=style["color"], linewidth=1.0)
        unmet = part["status"] != "reached"
        top.plot(x[unmet], part["edges"][unmet], linestyle="", marker="v", markersize=9, color=style["color"])
        low.plot(x, part["tune"], **style)
        low.vlines(x, part["tune_low"], part["tune_high"], color=style["color"], linewidth=1.0)
        low.plot(
            x, part["held_out"], linestyle="", marker=style["marker"], markersize=6, markerfacecolor="none",
            markeredgecolor=style["color"], markeredgewidth=1.0,
        )  # fmt: skip
    ends = [float(rows["threshold"].min()), float(rows["threshold"].max())]
    low.plot(ends, ends, color=MUTED, linewidth=0.8, linestyle=LINE_STYLES[1])
    top.set_ylabel("edges kept")
    top.set_ylim(bottom=0)
    top.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    low.set_ylabel(f"{rows['form'].iloc[0]} faithfulness")
    low.xaxis.set_major_locator(FixedLocator(sorted(set(rows["threshold"]))))
    return figure


@drawn
def draw_steps(rows: pd.DataFrame) -> Figure:
    """A panel a checkpoint: above Spearman with the exact scores, below the overlap of the top edges, against cost."""
    names = list(dict.fromkeys(rows["checkpoint"]))
    kinds = list(dict.fromkeys(zip(rows["method"], rows["rule"])))
    legend = [
        Line2D([], [], color=_COLOURS[i % 8], marker=MARKERS[i % 10], label=f"{m} {r}".strip())
        for i, (m, r) in enumerate(kinds)
    ]
    figure, panels = panel_grid(
        names, heights=[1.9, 1.5], columns=min(3, len(names)), width=3.6 * min(3, max(2, len(names))),
        title=f"{task_title(str(rows['task'].iloc[0]))}: how many steps are enough?",
        legends=[[*legend, mark_handle("the fewest that are enough", "o", size=10)]],
        note="forward and backward passes for each prompt pair (the number at a point is m)",
    )  # fmt: skip
    for name, (top, low) in panels.items():
        here = rows[rows["checkpoint"] == name]
        for i, (method, rule) in enumerate(kinds):
            part = here[(here["method"] == method) & (here["rule"] == rule)].sort_values("passes")
            style: dict[str, Any] = {"color": _COLOURS[i % 8], "marker": MARKERS[i % 10]}
            for axes, quantity in ((top, "spearman"), (low, "overlap")):
                axes.plot(part["passes"], part[quantity], **style)
                axes.vlines(
                    part["passes"],
                    part[f"{quantity}_low"],
                    part[f"{quantity}_high"],
                    color=style["color"],
                    linewidth=0.9,
                )
            chosen = part[part["enough"]]
            top.scatter(chosen["passes"], chosen["spearman"], s=90, facecolors="none", edgecolors=INK, linewidths=1.0)
            for x, y, m in zip(part["passes"], part["spearman"], part["steps"]):
                if m and math.isfinite(y):
                    top.annotate(str(m), (x, y), textcoords="offset points", xytext=(0, -11), ha="center", fontsize=7)
        low.set_xscale("log")
        ticks = sorted(set(here["passes"]))
        low.xaxis.set_major_locator(FixedLocator(_apart(ticks)))
        low.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
        low.xaxis.set_minor_locator(NullLocator())
        top.set_ylabel("Spearman with exact")
        low.set_ylabel("top edges shared")
    return figure


@drawn
def draw_carried(rows: pd.DataFrame) -> Figure:
    """A cell a source (row) and target (column): edges kept over those of the target's own best setting."""
    targets, sources = list(dict.fromkeys(rows["target"])), list(dict.fromkeys(rows["source"]))
    task = str(rows["task"].iloc[0])
    legend = [
        mark_handle("keeps the target faithfulness on tune", "s", colour="#cfe8dc", filled=True, size=9),
        mark_handle("does not", "s", colour="#f6d5c6", filled=True, size=9),
    ]
    figure, panels = panel_grid(
        [task], heights=[0.62 * len(sources) + 0.1], columns=1, width=2.4 + 1.75 * len(targets),
        title="Does the best setting of one checkpoint serve another?", legends=[legend], note="tried at",
    )  # fmt: skip
    (axes,) = panels[task]
    box = axes.get_position()
    left = 1.5 / figure.get_figwidth()
    axes.set_position((left, box.y0, box.x1 - left, box.height))
    for cell in rows.to_dict("records"):
        x, y = targets.index(cell["target"]), sources.index(cell["source"])
        colour = "#cfe8dc" if cell["carries"] else "#f6d5c6"
        axes.add_patch(_square(x, y, colour))
        axes.text(x, y, _cell_text(cell), ha="center", va="center", fontsize=8)
    axes.set_xlim(-0.5, len(targets) - 0.5)
    axes.set_ylim(len(sources) - 0.5, -0.5)
    axes.set_xticks(range(len(targets)), labels=targets)
    axes.set_yticks(range(len(sources)), labels=sources)
    axes.set_ylabel("found at")
    axes.grid(visible=False)
    return figure


def _cell_text(cell: Mapping[Any, Any]) -> str:
    edges, own = cell["edges"], cell["own_edges"]
    if not math.isfinite(edges):
        return "no circuit"
    more = f" ({edges / own:.2f} × own)" if math.isfinite(own) and own > 0 else ""
    low, high = cell["tune_low"], cell["tune_high"]
    return f"{100 * edges:.1f} %{more}\ntune {cell['tune']:.2f} [{low:.2f}, {high:.2f}]"


def _square(x: int, y: int, colour: str) -> Any:
    from matplotlib.patches import Rectangle

    return Rectangle((x - 0.48, y - 0.46), 0.96, 0.92, color=colour, linewidth=0)


def _apart(ticks: Sequence[float]) -> list[float]:
    """Ticks of a logarithmic axis that leave room for each other's numbers."""
    kept: list[float] = []
    for tick in ticks:
        if not kept or tick > 1.5 * kept[-1]:
            kept.append(tick)
    return kept


def _percent_ticks(axes: Axes, values: pd.Series) -> None:
    fraction_axis(axes)
    _percent(axes.xaxis, values)


def _percent(axis: Any, values: pd.Series) -> None:
    """Ticks at 1, 2 and 5 per cent and their like, between the least and the largest value."""
    finite = values[np.isfinite(values) & (values > 0)]
    low, high = (float(finite.min()), float(finite.max())) if len(finite) else (0.01, 1.0)
    fine = (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 7, 8, 9)
    steps = [m * 10.0**e for e in range(-6, 1) for m in (fine if high < 4 * low else (1, 2, 3, 5, 7))]
    axis.set_major_locator(FixedLocator([s for s in steps if low / 1.5 <= s <= high * 1.5]))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:g} %"))
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def _apart_from_threshold(s: Setting) -> tuple[object, ...]:
    return (s.scores, s.selection, s.examples)


def _says(s: Setting) -> str:
    return f"{s.scores}, {s.selection}, {s.examples:.0%} of the prompts"

"""A circuit as a picture that a person can read: layers as columns, heads and MLPs as boxes, edges as curves.

Data flow from left to right. A head has three doors on its left side, from top to bottom query, key and value; an edge
ends at the door that it feeds and has its colour. Width and opacity say |score|; a dashed edge has a negative score:
it hurts the metric. MLPs lie along the bottom, so that attention and MLPs are told apart at a glance.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import PathCollection
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import FancyBboxPatch
from matplotlib.path import Path

from ontogeny.core.results import CheckpointAnalysis
from ontogeny.figures.style import INK, KIND_COLOURS, MUTED, drawn, new_figure, node_label, short, task_title

_COLUMNS: Final = [
    "suite", "member", "scale", "seed", "parameters", "task", "step", "tokens", "status", "kept", "nodes",
    "raw_discover", "raw_held_out", "n_layers", "edge", "writer", "reader", "kind", "score",
]  # fmt: skip
_WIDTH, _HEIGHT, _MARGIN = 0.62, 0.30, 0.15
"""Inches: a box, and the space beside the first and the last column."""
_STRONGEST: Final = 8
"""At most so many nodes (and at most a third of them) have a bold frame."""
_KIND_NAMES: Final = {"q": "into a query", "k": "into a key", "v": "into a value", "mlp": "into an MLP",
                      "logits": "into the logits"}  # fmt: skip


@dataclass(frozen=True)
class Box:
    """A node: its centre in inches, its name, and its share of the circuit's |score|."""

    x: float
    y: float
    label: str
    strength: float
    is_head: bool


def diagram_rows(analysis: CheckpointAnalysis, task: str) -> pd.DataFrame:
    """One row an edge of the chosen circuit, strongest first; no rows where there is no circuit."""
    ref, model, result = analysis.ref, analysis.model, analysis.tasks[task]
    found = result.circuit
    if found.circuit is None:
        return pd.DataFrame(columns=_COLUMNS)
    graph = model.graph
    raw = {split: value.raw for split, value in found.faithfulness.items()}
    shared = (
        ref.suite, ref.member, ref.scale, ref.seed, model.parameters, task, ref.step, ref.tokens, found.status,
        found.circuit.n_edges, found.nodes, raw.get("discover", np.nan), raw.get("held_out", np.nan), graph.n_layers,
    )  # fmt: skip
    rows = []
    for writer, reader in found.circuit.edges.nonzero().tolist():
        score = float(result.scores.values[writer, reader]) if result.scores is not None else np.nan
        names = (graph.edge_name(writer, reader), graph.writer_names[writer], graph.reader_names[reader])
        rows.append((*shared, *names, graph.reader_kinds[reader], score))
    frame = pd.DataFrame(rows, columns=_COLUMNS)
    return frame.sort_values("score", key=lambda s: -s.abs(), kind="stable").reset_index(drop=True)


@drawn
def draw_diagram(rows: pd.DataFrame) -> Figure:
    """The circuit of `diagram_rows`."""
    boxes = place(rows)
    right = max(box.x for box in boxes.values()) + _WIDTH / 2 + _MARGIN
    top = max(box.y for box in boxes.values()) + _HEIGHT / 2 + 0.40
    bottom = min(box.y for box in boxes.values()) - _HEIGHT / 2 - 0.16
    header, footer = 0.55, 0.52
    width, height = max(right, 7.4), top - bottom + header + footer
    figure = new_figure(width, height)
    axes = figure.add_axes((0, footer / height, 1, (top - bottom) / height))
    axes.set_axis_off()
    axes.set_xlim((right - width) / 2, (right + width) / 2)
    axes.set_ylim(bottom, top)
    _columns(axes, boxes, top)
    _edges(axes, boxes, rows)
    strongest = _strongest(boxes)
    for name, box in boxes.items():
        _box(axes, box, strong=name in strongest)
    _captions(figure, rows)
    return figure


def place(rows: pd.DataFrame) -> dict[str, Box]:
    """Where each node goes, by name: columns by layer, heads above MLPs.

    Heads of a column are ordered by the mean height of what they are joined with (three sweeps from left to right and
    back), which keeps crossings few. Every other column stands half a place higher, so that an edge that passes a
    column runs between its boxes and not behind one.
    """
    weight = rows["score"].abs().fillna(0.0)
    links = [(w, node_of(r), float(s)) for w, r, s in zip(rows["writer"], rows["reader"], weight)]
    strength: dict[str, float] = {"input": 0.0, "logits": 0.0}
    for writer, reader, score in links:
        strength[writer] = strength.get(writer, 0.0) + score
        strength[reader] = strength.get(reader, 0.0) + score
    total = max(float(weight.sum()), 1e-30)
    layers = int(rows["n_layers"].iloc[0])
    sequential = any(_layer(w, layers) == _layer(r, layers) for w, r, _ in links)
    columns: dict[float, list[str]] = {}
    for name in sorted(strength, key=_natural):
        columns.setdefault(_column(name, layers, sequential), []).append(name)
    heights = _heights(columns, links)
    used = {column: i for i, column in enumerate(sorted(columns))}
    step = _WIDTH + (0.75 if len(used) > 9 else 1.0)
    return {
        name: Box(
            x=_MARGIN + _WIDTH / 2 + used[column] * step,
            y=heights[name],
            label=node_label(name),
            strength=strength[name] / total,
            is_head=name.startswith("a"),
        )
        for column, names in columns.items()
        for name in names
    }


def node_of(reader: str) -> str:
    """The node that a reader belongs to: ``a5.h2<v>`` -> ``a5.h2``."""
    return reader.partition("<")[0]


def _heights(columns: dict[float, list[str]], links: list[tuple[str, str, float]]) -> dict[str, float]:
    """Height of each node: heads around 0, MLPs on a line below all heads, input and logits at the middle."""
    heads = {c: [n for n in names if n.startswith("a")] for c, names in columns.items()}
    tallest = max((len(names) for names in heads.values()), default=0)
    pitch = min(0.62, max(0.40, 2.6 / max(tallest, 1)))
    shift = {column: pitch / 4 * (-1) ** i for i, column in enumerate(sorted(columns))}
    floor = -(tallest / 2) * pitch - 0.42
    neighbours: dict[str, list[tuple[str, float]]] = {}
    for writer, reader, score in links:
        neighbours.setdefault(writer, []).append((reader, score))
        neighbours.setdefault(reader, []).append((writer, score))
    height = {n: shift[c] + floor * n.startswith("m") for c, names in columns.items() for n in names}

    def spread(column: float) -> None:
        for i, name in enumerate(heads[column]):
            height[name] = ((len(heads[column]) - 1) / 2 - i) * pitch + shift[column]

    for column in heads:
        spread(column)
    for sweep in range(6):
        for column in sorted(heads, reverse=bool(sweep % 2)):
            middle = {n: _barycentre(n, neighbours, height) for n in heads[column]}
            heads[column].sort(key=lambda n: (-middle[n], _natural(n)))
            spread(column)
    return height


def _barycentre(name: str, neighbours: dict[str, list[tuple[str, float]]], height: dict[str, float]) -> float:
    total = sum(score for _, score in neighbours[name])
    return sum(height[other] * score for other, score in neighbours[name]) / total if total else 0.0


def _columns(axes: Axes, boxes: dict[str, Box], top: float) -> None:
    """Name each layer above its column, and put a pale band behind every other one."""
    names = {box.x: name for name, box in boxes.items() if name not in ("input", "logits")}
    xs = sorted({box.x for box in boxes.values()})
    half = (xs[1] - xs[0]) / 2
    for x, name in sorted(names.items()):
        layer = _layer(name, 0)
        if layer % 2 == 0:
            axes.axvspan(x - half, x + half, color="#f5f6f8", linewidth=0, zorder=0)
        axes.text(x, top - 0.10, f"layer {layer}", ha="center", va="top", fontsize=7.5, color=MUTED)


def _edges(axes: Axes, boxes: dict[str, Box], rows: pd.DataFrame) -> None:
    """Weakest first, so that strong edges lie on top."""
    largest = float(rows["score"].abs().max()) or 1.0
    crowd = min(1.0, 60 / max(len(rows), 1))
    for negative, style in ((False, "-"), (True, (0, (3.5, 2.0)))):
        part = rows[(rows["score"] < 0) == negative].iloc[::-1]
        share = (part["score"].abs() / largest).fillna(0.3)
        colours = [KIND_COLOURS[kind] for kind in part["kind"]]
        axes.add_collection(
            PathCollection(
                [_curve(boxes, w, r) for w, r in zip(part["writer"], part["reader"])],
                facecolors="none",
                edgecolors=[(*_rgb(c), a) for c, a in zip(colours, (0.12 + 0.25 * crowd) + 0.6 * share**0.5)],
                linewidths=(0.4 + 3.4 * share**0.7).tolist(),
                linestyles=[style],
                zorder=2,
            )
        )


def _curve(boxes: dict[str, Box], writer: str, reader: str) -> Path:
    """From the writer's right side to the reader's door; the more columns it passes, the more it bows outwards."""
    start, end = boxes[writer], boxes[node_of(reader)]
    door = {"q": 1, "k": 0, "v": -1}.get(reader[-2:-1] if reader.endswith(">") else "", 0) * _HEIGHT * 0.31
    x0, y0, x1, y1 = start.x + _WIDTH / 2, start.y, end.x - _WIDTH / 2, end.y + door
    bend = min(0.5 * (x1 - x0), 1.0)
    passed = max(0.0, (x1 - x0) - 1.05)
    bow = min(0.11 * passed, 0.42) * (1 if y0 + y1 > -0.2 else -1)
    return Path(
        [(x0, y0), (x0 + bend, y0 + bow), (x1 - bend, y1 + bow), (x1, y1)],
        [Path.MOVETO, Path.CURVE4, Path.CURVE4, Path.CURVE4],
    )


def _box(axes: Axes, box: Box, *, strong: bool) -> None:
    tone = min(1.0, box.strength * 2.2) ** 0.6
    axes.add_patch(
        FancyBboxPatch(
            (box.x - _WIDTH / 2, box.y - _HEIGHT / 2), _WIDTH, _HEIGHT,
            boxstyle=f"round,pad=0,rounding_size={0.1 if box.is_head else 0.02}",
            facecolor=(1 - 0.10 * tone, 1 - 0.13 * tone, 1 - 0.30 * tone) if box.is_head else (1 - 0.1 * tone,) * 3,
            edgecolor=INK if strong else MUTED, linewidth=1.5 if strong else 0.7, zorder=3,
        )
    )  # fmt: skip
    axes.text(
        box.x, box.y - 0.008, box.label, ha="center", va="center", fontsize=8, zorder=4,
        fontweight="bold" if strong else "normal",
    )  # fmt: skip


def _captions(figure: Figure, rows: pd.DataFrame) -> None:
    who = rows.iloc[0]
    width, height = figure.get_size_inches()
    title = f"{task_title(str(who['task']))}: {who['member']} at step {who['step']} ({short(who['tokens'])} tokens)"
    figure.text(0.14 / width, 1 - 0.10 / height, title, va="top", fontsize=10.5, fontweight="bold")
    said = "smallest faithful circuit" if who["status"] == "found" else "best circuit; the threshold was not met"
    detail = f"{said}: {who['kept']} edges, {who['nodes']} nodes"
    known = [
        f"{who[name]:.2f} ({split})"
        for split, name in (("discover", "raw_discover"), ("held out", "raw_held_out"))
        if np.isfinite(who[name])
    ]
    detail += f"; raw faithfulness {', '.join(known)}" if known else ""
    figure.text(0.14 / width, 1 - 0.32 / height, detail, va="top", fontsize=8.5, color=MUTED)
    handles = [
        Line2D([], [], color=KIND_COLOURS[kind], linewidth=2.4, label=name)
        for kind, name in _KIND_NAMES.items()
        if kind in set(rows["kind"])
    ]
    if (rows["score"] < 0).any():
        handles.append(Line2D([], [], color=INK, linewidth=1.4, linestyle=(0, (3.5, 2.0)), label="hurts (score < 0)"))
    figure.legend(
        handles=handles, loc="lower left", bbox_to_anchor=(0.06 / width, 0.17 / height), ncols=len(handles),
        handlelength=1.6, columnspacing=1.1, borderaxespad=0, fontsize=7.8,
    )  # fmt: skip
    note = "Width: |score|. Doors of a head, from the top: query, key, value. Bold: the strongest nodes."
    figure.text(0.14 / width, 0.06 / height, note, fontsize=7.2, color=MUTED)


def _strongest(boxes: dict[str, Box]) -> set[str]:
    inner = [name for name in boxes if name not in ("input", "logits")]
    bold = min(_STRONGEST, -(-len(inner) // 3))
    return set(sorted(inner, key=lambda n: (-boxes[n].strength, _natural(n)))[:bold])


def _column(name: str, layers: int, sequential: bool) -> float:
    """Column key: with sequential blocks an MLP reads its layer's heads and stands after them."""
    return _layer(name, layers) + (0.5 if sequential and name.startswith("m") else 0.0)


def _layer(name: str, layers: int) -> int:
    match = re.match(r"[am](\d+)", name)
    return int(match[1]) if match else (-1 if name == "input" else layers)


def _natural(name: str) -> tuple[object, ...]:
    return tuple(int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name))


def _rgb(colour: str) -> tuple[float, float, float]:
    return tuple(int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5))  # type: ignore[return-value]

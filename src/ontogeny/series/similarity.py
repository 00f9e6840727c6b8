"""How alike the circuits of one member are from checkpoint to checkpoint (METHODS 8.1).

Kinds of likeness, each to the previous and to the final checkpoint:

    edges, nodes                     Jaccard of the circuits that the search found
    edges_at_1pct, nodes_at_1pct ... Jaccard of circuits grown to the same kept size (the search's jitter taken out)
    edges_weighted, nodes_weighted   sum of minima over sum of maxima of the shares of |score|, over *all* edges

The input and the logits are in every circuit, so node likeness leaves them out. Checkpoints whose weights are those of
an earlier step are left out. Where one of the two has no circuit the value is NaN and the status says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float
from numpy.typing import NDArray

from ontogeny.core.circuit import Circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import CheckpointAnalysis, TaskAnalysis
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.grow import grow
from ontogeny.series.quantities import similarity_quantity
from ontogeny.series.table import as_table

Members = NDArray[np.bool_]
Weights = NDArray[np.float64]


@dataclass(frozen=True)
class _Side:
    """What is compared of one checkpoint: sets and weights by kind; a kind that is missing cannot be compared."""

    analysis: CheckpointAnalysis
    status: str
    sets: Mapping[str, Members]
    weights: Mapping[str, Weights]


def jaccard(a: Bool[np.ndarray, ...], b: Bool[np.ndarray, ...]) -> float:
    """Size of the intersection over size of the union; NaN if both are empty."""
    union = int(np.logical_or(a, b).sum())
    return int(np.logical_and(a, b).sum()) / union if union else math.nan


def weighted_jaccard(a: Float[np.ndarray, ...], b: Float[np.ndarray, ...]) -> float:
    """Sum of minima over sum of maxima of |a| / sum |a| and |b| / sum |b|; NaN if either is all zero."""
    sizes = float(np.abs(a).sum()), float(np.abs(b).sum())
    if min(sizes) == 0:
        return math.nan
    x, y = np.abs(a) / sizes[0], np.abs(b) / sizes[1]
    return float(np.minimum(x, y).sum() / np.maximum(x, y).sum())


def ewma(values: Sequence[float], alpha: float) -> list[float]:
    """y_0 = x_0, y_t = alpha x_t + (1 - alpha) y_(t-1); a missing x_t is skipped and stays missing (adjust=False)."""
    series = pd.Series(values, dtype="float64")
    smooth = series.ewm(alpha=alpha, adjust=False, ignore_na=True).mean()
    return [float(v) for v in smooth.where(series.notna())]


def similarity(records: Sequence[MemberRecord], params: TrajectoryParams) -> pd.DataFrame:
    """Tidy rows (the columns of `tidy`) of every likeness of every member and task."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        duplicates = record.duplicates
        kept = sorted((a for a in record.analyses if a.ref.step not in duplicates), key=lambda a: a.ref.step)
        for task in dict.fromkeys(task for analysis in kept for task in analysis.tasks):
            sides = [_side(a, a.tasks[task], params) for a in kept if task in a.tasks]
            rows += _rows(task, sides, params)
    return as_table(rows)


def _rows(task: str, sides: Sequence[_Side], params: TrajectoryParams) -> Iterator[tuple[object, ...]]:
    kinds = list(dict.fromkeys(kind for side in sides for kind in (*side.sets, *side.weights)))
    for kind in kinds:
        previous = [_compare(kind, here, before) for before, here in pairwise(sides)]
        smooth = ewma([value for value, _ in previous], params.ewma_alpha)
        for side, (value, status), mean in zip(sides[1:], previous, smooth):
            yield _row(task, side, similarity_quantity(kind, "previous"), value, status)
            yield _row(task, side, similarity_quantity(kind, "previous_ewma"), mean, status)
        for side in sides[:-1]:
            yield _row(task, side, similarity_quantity(kind, "final"), *_compare(kind, side, sides[-1]))


def _row(task: str, side: _Side, quantity: str, value: float, status: str) -> tuple[object, ...]:
    ref, model = side.analysis.ref, side.analysis.model
    who = (ref.suite, ref.member, ref.scale, ref.seed, model.parameters, ref.step, ref.tokens, task)
    return (*who, quantity, value, math.nan, math.nan, status, None)


def _compare(kind: str, here: _Side, other: _Side) -> tuple[float, str]:
    """Likeness, and `measured` or why there is none."""
    if kind in here.sets and kind in other.sets:
        value = jaccard(here.sets[kind], other.sets[kind])
    elif kind in here.weights and kind in other.weights:
        value = weighted_jaccard(here.weights[kind], other.weights[kind])
    else:
        missing = here if kind not in here.sets and kind not in here.weights else other
        return math.nan, f"no circuit at step {missing.analysis.ref.step}: {missing.status}"
    return value, "measured" if math.isfinite(value) else "nan"


def _side(analysis: CheckpointAnalysis, result: TaskAnalysis, params: TrajectoryParams) -> _Side:
    sets: dict[str, Members] = {}
    weights: dict[str, Weights] = {}
    graph = analysis.model.graph
    if result.circuit.circuit is not None and result.circuit.status == "found":
        sets |= _both("", result.circuit.circuit)
    if result.scores is not None:
        strength = np.abs(result.scores.values.double().numpy())
        weights["edges_weighted"] = strength
        weights["nodes_weighted"] = _node_sums(graph, strength)
        if result.circuit.status != "not_learned":
            sizes = {f: _matched_size(graph, f, params) for f in params.matched_fractions}
            grown = grow(result.scores, list(sizes.values()))
            for fraction, size in sizes.items():
                sets |= _both(f"_at_{_per_cent(fraction)}pct", grown[size])
    return _Side(analysis, result.circuit.status, sets, weights)


def _both(suffix: str, circuit: Circuit) -> dict[str, Members]:
    edges = circuit.edges.numpy()
    nodes = _node_sums(circuit.graph, edges.astype(float)) > 0
    return {f"edges{suffix}": edges, f"nodes{suffix}": nodes}


def _matched_size(graph: GraphSpec, fraction: float, params: TrajectoryParams) -> int:
    """Kept edges: this share of the graph's, and no fewer than the floor (or all there are)."""
    return min(graph.n_edges, max(params.matched_floor, round(fraction * graph.n_edges)))


def _node_sums(graph: GraphSpec, edges: Float[np.ndarray, "writers readers"]) -> Float[np.ndarray, " writers-1"]:
    """Sum over each node's edges, in and out; the input and the logits are left out."""
    sums = edges.sum(axis=1)
    own = graph.writer_of_reader.numpy()
    np.add.at(sums, own[own >= 0], edges.sum(axis=0)[own >= 0])
    return sums[1:]


def _per_cent(fraction: float) -> str:
    return f"{100 * fraction:g}".replace(".", "_")

"""How alike the circuits of one member are from checkpoint to checkpoint (METHODS 8.1).

Kinds of likeness, each to the previous and to the final checkpoint:

    edges, nodes                     Jaccard of the circuits that the search found
    edges_at_1pct, nodes_at_1pct ... Jaccard of circuits grown to the same kept size (the search's jitter taken out)
    edges_weighted                   sum of minima over sum of maxima of the shares of |score|, over *all* edges
    nodes_weighted                   the same on the shares of each node: the |score| of its edges, in and out

Circuits of matched sizes are grown where the model does the task (any status but `not_learned`). Checkpoints whose
weights are those of an earlier step are left out. Where one of the two has no circuit the value is NaN and the status
says which.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

import pandas as pd

from ontogeny.core.circuit import (
    Circuit,
    EdgeScores,
    Selection,
    grow_to,
    jaccard_edges,
    jaccard_nodes,
    matched_size,
    weighted_jaccard,
    weighted_nodes,
)
from ontogeny.core.results import CheckpointAnalysis, TaskAnalysis
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.quantities import CHOSEN, similarity_quantity
from ontogeny.series.table import as_table

_FOUND: Final = "found"


@dataclass(frozen=True)
class _Side:
    """What is compared of one checkpoint."""

    analysis: CheckpointAnalysis
    status: str
    scores: EdgeScores | None
    circuits: Mapping[str, Circuit]
    """By the suffix of the kind: empty for the found circuit, `_at_1pct` for a matched one."""


def ewma(values: Sequence[float], alpha: float) -> list[float]:
    """y_0 = x_0, y_t = alpha x_t + (1 - alpha) y_(t-1); a missing x_t is skipped and stays missing (adjust=False)."""
    series = pd.Series(values, dtype="float64")
    smooth = series.ewm(alpha=alpha, adjust=False, ignore_na=True).mean()
    return [float(v) for v in smooth.where(series.notna())]


def similarity(
    records: Sequence[MemberRecord], params: TrajectoryParams, *, selection: Selection = "greedy"
) -> pd.DataFrame:
    """Tidy rows (the columns of `tidy`) of every likeness of every member and task."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        kept = sorted((a for a in record.analyses if a.ref.step not in record.suspect), key=lambda a: a.ref.step)
        for task in dict.fromkeys(task for analysis in kept for task in analysis.tasks):
            sides = [_side(a, a.tasks[task], params, selection) for a in kept if task in a.tasks]
            rows += _rows(task, sides, params)
    return as_table(rows)


def likeness_of(
    a: CheckpointAnalysis,
    b: CheckpointAnalysis,
    task: str,
    params: TrajectoryParams,
    *,
    selection: Selection = "greedy",
) -> dict[str, float]:
    """Every kind of likeness of two models of one graph on one task; kinds that one of them lacks are left out.

    Circuits of matched sizes come in the order of their size.
    """
    sides = [_side(analysis, analysis.tasks[task], params, selection) for analysis in (a, b)]
    suffixes = ["", *(f"_at_{per_cent(fraction)}pct" for fraction in sorted(params.matched_fractions))]
    kinds = [f"{what}{suffix}" for suffix in (*suffixes, "_weighted") for what in ("edges", "nodes")]
    return {kind: _likeness(kind, *sides) for kind in kinds if all(_has(kind, side) for side in sides)}


def _side(analysis: CheckpointAnalysis, result: TaskAnalysis, params: TrajectoryParams, selection: Selection) -> _Side:
    circuits: dict[str, Circuit] = {}
    status = result.circuit.status
    if result.circuit.circuit is not None and status == _FOUND:
        circuits[""] = result.circuit.circuit
    if result.scores is not None and status != "not_learned":
        sizes = [
            matched_size(analysis.model.graph, fraction, params.matched_floor) for fraction in params.matched_fractions
        ]
        grown = grow_to(result.scores, sizes, selection) if sizes else ()
        circuits |= {f"_at_{per_cent(share)}pct": each for share, each in zip(params.matched_fractions, grown)}
    return _Side(analysis, status, result.scores, circuits)


def _rows(task: str, sides: Sequence[_Side], params: TrajectoryParams) -> Iterator[tuple[object, ...]]:
    suffixes = list(dict.fromkeys(suffix for side in sides for suffix in side.circuits))
    kinds = [f"{what}{suffix}" for suffix in suffixes for what in ("edges", "nodes")]
    if any(side.scores is not None for side in sides):
        kinds += ["edges_weighted", "nodes_weighted"]
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
    kind = quantity.split("/")[1]
    part = "all edges" if kind.endswith("_weighted") else kind[6:] or CHOSEN
    return (*who, quantity, value, math.nan, math.nan, status, None, part)


def _compare(kind: str, here: _Side, other: _Side) -> tuple[float, str]:
    """Likeness, and `measured` or why there is none."""
    lacking = next((side for side in (here, other) if not _has(kind, side)), None)
    if lacking is not None:
        return math.nan, f"no circuit at step {lacking.analysis.ref.step}: {lacking.status}"
    value = _likeness(kind, here, other)
    return value, "measured" if math.isfinite(value) else "nan"


def _has(kind: str, side: _Side) -> bool:
    return side.scores is not None if kind.endswith("_weighted") else kind[5:] in side.circuits


def _likeness(kind: str, here: _Side, other: _Side) -> float:
    if kind.endswith("_weighted"):
        assert here.scores is not None
        assert other.scores is not None
        if kind == "edges_weighted":
            return weighted_jaccard(here.scores, other.scores)
        return weighted_nodes(here.scores, other.scores)
    compare = jaccard_edges if kind.startswith("edges") else jaccard_nodes
    return compare(here.circuits[kind[5:]], other.circuits[kind[5:]])


def per_cent(fraction: float) -> str:
    """A share as it stands in names: 0.005 -> ``0_5``."""
    return f"{100 * fraction:g}".replace(".", "_")

"""Two studies side by side: the same member, task and step under other settings, other data or on another machine.

One row a member, task and step that both have. Columns that end in `_a` and `_b` are the studies' own numbers. The
others say how alike the two circuits are (1: the same edges, 0: none in common), where both have one of the same graph:

    jaccard_edges, jaccard_nodes     of the circuits that each study found, at their own sizes
    jaccard_edges_matched            of circuits grown to one size, the largest of trajectory.matched_fractions
    likeness_weighted                sum of minima over sum of maxima of the shares of |score|, over all edges
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import pandas as pd

from ontogeny.core.results import CheckpointAnalysis
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.quantities import (
    BEST_EDGES,
    EDGES,
    HEADLINE_SPLITS,
    NODES,
    behaviour_quantity,
    faithfulness_quantity,
    measures,
)
from ontogeny.series.similarity import likeness_of

_LIKENESS: Final = ("jaccard_edges", "jaccard_nodes", "jaccard_edges_matched", "likeness_weighted")
_BOTH: Final = (
    "metric", "accuracy", "edges", "best_edges", "nodes", "faithfulness", "status", "dataset", "weights", "onset",
    "onset_step", "onset_tokens",
)  # fmt: skip
COMPARISON_COLUMNS: Final = (
    "member", "scale", "seed", "parameters", "task", "step", "tokens",
    *(f"{name}_{side}" for name in _BOTH for side in "ab"),
    *_LIKENESS, "reason",
)  # fmt: skip


@dataclass(frozen=True)
class Side:
    """One of the two studies."""

    name: str
    """What it is called in tables and pictures."""
    records: Sequence[MemberRecord]
    onsets: pd.DataFrame
    """One row a member and task: status, step, tokens."""
    settings: Mapping[str, str]
    """Dotted name -> value."""


@dataclass(frozen=True)
class Comparison:
    """What differs between studies A and B."""

    a: str
    b: str
    table: pd.DataFrame
    """`COMPARISON_COLUMNS`; `reason` says why likeness is undefined, empty where it is not."""
    settings: pd.DataFrame
    """Settings that differ: setting, a, b; None where a study does not know it."""
    only_a: tuple[str, ...]
    """`member task` that only A has; a common member without a common step counts as well."""
    only_b: tuple[str, ...]

    @property
    def final(self) -> pd.DataFrame:
        """The last common step of each member and task."""
        last = self.table.groupby(["member", "task"], sort=False)["step"].transform("max")
        return self.table[self.table["step"] == last].reset_index(drop=True)


def compare(a: Side, b: Side, params: TrajectoryParams) -> Comparison:
    """Lay two studies side by side; checkpoints are matched by member, task and training step."""
    sides = (_by_place(a), _by_place(b))
    onsets = (_onset_by_key(a), _onset_by_key(b))
    rows = [_row(place, (sides[0][place], sides[1][place]), onsets, params) for place in sides[0] if place in sides[1]]
    table = pd.DataFrame(rows, columns=list(COMPARISON_COLUMNS))
    counts = [f"onset_{what}_{side}" for what in ("step", "tokens") for side in "ab"]
    common = {(row.member, row.task) for row in table.itertuples()}
    only = [tuple(dict.fromkeys(f"{m} {t}" for m, _, t in side if (m, t) not in common)) for side in sides]
    return Comparison(a.name, b.name, table.astype(dict.fromkeys(counts, "Int64")), _differing(a, b), *only)


_Place = tuple[str, int, str]
"""Member, step, task."""


def _by_place(side: Side) -> dict[_Place, CheckpointAnalysis]:
    return {
        (record.member, analysis.ref.step, task): analysis
        for record in side.records
        for analysis in sorted(record.analyses, key=lambda analysis: analysis.ref.step)
        for task in analysis.tasks
    }


def _onset_by_key(side: Side) -> dict[tuple[str, str], Any]:
    return {(str(row.member), str(row.task)): row for row in side.onsets.itertuples()}


def _row(
    place: _Place,
    pair: tuple[CheckpointAnalysis, CheckpointAnalysis],
    onsets: Sequence[Mapping[tuple[str, str], Any]],
    params: TrajectoryParams,
) -> dict[str, Any]:
    member, step, task = place
    ref, model = pair[0].ref, pair[0].model
    row: dict[str, Any] = {
        "member": member, "scale": ref.scale, "seed": ref.seed, "parameters": model.parameters, "task": task,
        "step": step, "tokens": ref.tokens,
    }  # fmt: skip
    for analysis, known, letter in zip(pair, onsets, "ab"):
        row |= {f"{name}_{letter}": value for name, value in _numbers(analysis, task).items()}
        onset = known.get((member, task))
        row[f"onset_{letter}"] = None if onset is None else onset.status
        row[f"onset_step_{letter}"] = None if onset is None else onset.step
        row[f"onset_tokens_{letter}"] = None if onset is None else onset.tokens
    return row | _likeness(pair, task, params)


def _numbers(analysis: CheckpointAnalysis, task: str) -> dict[str, Any]:
    result = analysis.tasks[task]
    known = {name: measure.value for name, measure in measures(result, analysis.model.graph).items()}
    split = next((s for s in HEADLINE_SPLITS if behaviour_quantity(s) in known), HEADLINE_SPLITS[0])
    return {
        "metric": known.get(behaviour_quantity(split), math.nan),
        "accuracy": known.get(behaviour_quantity(split, "accuracy"), math.nan),
        "edges": known.get(EDGES, math.nan),
        "best_edges": known.get(BEST_EDGES, math.nan),
        "nodes": known.get(NODES, math.nan),
        "faithfulness": known.get(faithfulness_quantity(split), math.nan),
        "status": result.circuit.status,
        "dataset": result.dataset_digest,
        "weights": analysis.ref.weights_digest,
    }


def _likeness(
    pair: tuple[CheckpointAnalysis, CheckpointAnalysis], task: str, params: TrajectoryParams
) -> dict[str, Any]:
    """Likeness of the two circuits, and why there is none."""
    if pair[0].model.graph != pair[1].model.graph:
        return dict.fromkeys(_LIKENESS, math.nan) | {"reason": "the models have other layers or heads"}
    known = likeness_of(*pair, task, params)
    matched = [name for name in known if name.startswith("edges_at_")]
    values = {
        "jaccard_edges": known.get("edges", math.nan),
        "jaccard_nodes": known.get("nodes", math.nan),
        "jaccard_edges_matched": known[matched[-1]] if matched else math.nan,
        "likeness_weighted": known.get("edges_weighted", math.nan),
    }
    lacking = [
        f"{letter}: {analysis.tasks[task].circuit.status}"
        for analysis, letter in zip(pair, "AB")
        if analysis.tasks[task].circuit.status != "found"
    ]
    return values | {"reason": f"no circuit, {', '.join(lacking)}" if lacking else ""}


def _differing(a: Side, b: Side) -> pd.DataFrame:
    names = dict.fromkeys([*a.settings, *b.settings])
    rows = [(n, a.settings.get(n), b.settings.get(n)) for n in names if a.settings.get(n) != b.settings.get(n)]
    return pd.DataFrame(rows, columns=["setting", "a", "b"], dtype=object)

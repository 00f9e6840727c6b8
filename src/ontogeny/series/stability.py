"""How stable circuits are, in one table: size, likeness over time, and what chance would give (METHODS 8.1, 8.3, 5.4).

One row a member, task, checkpoint and size. The size is `found` (as the search left it), `1pct` ... (circuits grown to
the same kept size) or `weighted` (all edges, by share of |score|). Beside each likeness stand two nulls:

    resampled    circuits of one checkpoint whose prompts are drawn again: what the choice of prompts alone changes
                 (`analyse.stability`; of its matched sizes: those that are sizes here too)
    random       `series.nulls`: what the graph, the rule of selection and the size alone make alike; shuffled are the
                 scores of the last checkpoint that has any
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import chain
from typing import Any, Final

import numpy as np
import pandas as pd

from ontogeny.core.circuit import EdgeScores, Selection, matched_size
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.nulls import UNKNOWN, ByChance, RandomCircuits
from ontogeny.series.quantities import EDGES, NODES
from ontogeny.series.similarity import per_cent

_KEYS: Final = ["suite", "member", "scale", "seed", "parameters", "task", "step", "tokens"]
FOUND_SIZE: Final = "found"
WEIGHTED: Final = "weighted"
_LIKENESS: Final = tuple(f"{what}_{to}" for what in ("edges", "nodes") for to in ("previous", "previous_ewma", "final"))
_RESAMPLED: Final = tuple(f"resampled_{what}{end}" for what in ("edges", "nodes") for end in ("", "_low", "_high"))
_RANDOM: Final = tuple(f"random_{name}" for name in ByChance._fields)
_NUMBERS: Final = ("edges", "nodes", *_LIKENESS, *_RESAMPLED, *_RANDOM)
STABILITY_COLUMNS: Final = (*_KEYS, "size", *_NUMBERS, "verdict", "status")


def stability_table(
    records: Sequence[MemberRecord], table: pd.DataFrame, params: TrajectoryParams, selection: Selection = "greedy"
) -> pd.DataFrame:
    """The table; checkpoints with the weights of an earlier step are left out.

    `edges` and `nodes` are the found circuit's, or the size that circuits were grown to. `verdict`:
    `changed` if the circuit is less like the previous one than the interval of pairs of resamples allows, at both
    checkpoints, else `as resamples`; `undecided` where circuits were not resampled; empty without a previous circuit.
    Circuits of different sizes are judged by the share of what they could have in common at most, smaller / larger, so
    that the jitter of the search alone is no change. `status` says why there is no likeness to the previous checkpoint.

    Args:
        records: the members of a study.
        table: their tidy table, with similarity.
        params: matched sizes, and how many random circuits are drawn.
        selection: how circuits are chosen; the study's own rule.
    """
    graphs = {record.member: record.analyses[-1].model.graph for record in records if record.analyses}
    found = _likeness(table[table["duplicate_of"].isna()])
    if not len(found):
        return pd.DataFrame(columns=list(STABILITY_COLUMNS)).astype(_kinds())
    found = found.merge(_sizes(table), on=[*_KEYS, "size"], how="left")
    found = found.merge(_resampled(records, params), on=["member", "task", "step", "size"], how="left")
    matched = {f"{per_cent(fraction)}pct": fraction for fraction in params.matched_fractions}
    grown = [
        matched_size(graphs[member], matched[size], params.matched_floor) if size in matched else math.nan
        for member, size in zip(found["member"], found["size"])
    ]
    found["edges"] = found["edges"].fillna(pd.Series(grown, dtype="float64"))
    found = found.join(_random(found, records, params, selection))
    return found.assign(verdict=circuit_verdicts(found)).reindex(columns=list(STABILITY_COLUMNS)).astype(_kinds())


def _likeness(table: pd.DataFrame) -> pd.DataFrame:
    """A row a checkpoint and size, a column a likeness."""
    rows = table[table["quantity"].str.startswith("similarity/")].copy()
    if not len(rows):
        return rows
    parts = rows["quantity"].str.extract(r"similarity/(?P<what>edges|nodes)_?(?:at_)?(?P<size>\w*)/(?P<to>\w+)")
    rows["size"], rows["column"] = parts["size"].replace("", FOUND_SIZE), parts["what"] + "_" + parts["to"]
    wide = rows.pivot(index=[*_KEYS, "size"], columns="column", values="value").reset_index()
    wide.columns.name = None
    why = rows.loc[rows["column"] == "edges_previous", [*_KEYS, "size", "status"]]
    merged = wide.merge(why, on=[*_KEYS, "size"], how="left").fillna({"status": "the first checkpoint"})
    return merged.sort_values(["member", "task", "size", "tokens"], kind="stable").reset_index(drop=True)


def _sizes(table: pd.DataFrame) -> pd.DataFrame:
    """Edges and nodes of found circuits."""
    names = {EDGES: "edges", NODES: "nodes"}
    rows = table[table["quantity"].isin(names)]
    wide = rows.pivot(index=_KEYS, columns="quantity", values="value").rename(columns=names).reset_index()
    wide.columns.name = None
    return wide.assign(size=FOUND_SIZE)


def _resampled(records: Sequence[MemberRecord], params: TrajectoryParams) -> pd.DataFrame:
    """A row a checkpoint and size: likeness of resamples' circuits, of those sizes that are compared over time."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        for analysis in record.analyses:
            sizes: dict[int, list[str]] = {}  # in a small graph several shares come down to the floor
            for share in params.matched_fractions:
                kept = matched_size(analysis.model.graph, share, params.matched_floor)
                sizes.setdefault(kept, []).append(f"{per_cent(share)}pct")
            for task, result in analysis.tasks.items():
                for each in () if result.stability is None else result.stability.likeness:
                    ends = [(of.median, of.low, of.high) for of in (each.edges, each.nodes)]
                    names = sizes.get(each.kept or 0, []) if each.size == "matched" else [each.size]
                    rows += [
                        (record.member, task, analysis.ref.step, name, *chain.from_iterable(ends)) for name in names
                    ]
    kinds = {"member": "str", "task": "str", "step": "Int64", "size": "str"} | dict.fromkeys(_RESAMPLED, "float64")
    return pd.DataFrame(rows, columns=list(kinds)).astype(kinds).drop_duplicates(["member", "task", "step", "size"])


def circuit_verdicts(found: pd.DataFrame) -> pd.Series:
    """`verdict` of each row; rows of one member, task and size follow each other in time."""
    series = found.groupby(["member", "task", "size"], sort=False)
    sizes = pd.concat([found["edges"], series["edges"].shift()], axis=1)
    most = (sizes.min(axis=1, skipna=False) / sizes.max(axis=1, skipna=False)).fillna(1.0)
    least = pd.concat([found["resampled_edges_low"], series["resampled_edges_low"].shift()], axis=1).min(axis=1)
    decided = np.where(found["edges_previous"] / most < least, "changed", "as resamples")
    words = np.where(found["edges_previous"].isna(), "", np.where(least.isna(), "undecided", decided))
    return pd.Series(words, index=found.index, dtype="str")


def _random(
    found: pd.DataFrame, records: Sequence[MemberRecord], params: TrajectoryParams, selection: Selection
) -> pd.DataFrame:
    """The random null of each row of `found`: of two circuits of the sizes that are compared there."""
    last = {(record.member, task): scores for record in records for task, scores in _last_scores(record).items()}
    rows: dict[Any, ByChance] = {}
    for (member, task), part in found.groupby(["member", "task"], sort=False):
        scores = last.get((str(member), str(task)))
        if scores is None:
            continue
        drawn = RandomCircuits(scores, params.null_circuits, params.seed, selection)
        for size, here in part.groupby("size", sort=False):
            if size == WEIGHTED:
                rows |= dict.fromkeys(here.index, drawn.alike_weighted())
                continue
            before = here["edges"].shift()
            for index, one, other in zip(here.index, here["edges"], before):
                known = not (math.isnan(one) or math.isnan(other))
                rows[index] = drawn.alike(int(one), int(other)) if known else UNKNOWN
    return pd.DataFrame.from_dict(rows, orient="index", columns=list(_RANDOM)).reindex(found.index)


def _last_scores(record: MemberRecord) -> dict[str, EdgeScores]:
    """Task -> scores of the last checkpoint that has any."""
    found: dict[str, EdgeScores] = {}
    for analysis in sorted(record.analyses, key=lambda a: a.ref.step):
        found |= {task: result.scores for task, result in analysis.tasks.items() if result.scores is not None}
    return found


def _kinds() -> dict[str, str]:
    counts = dict.fromkeys(("seed", "parameters", "step", "tokens"), "Int64")
    words = dict.fromkeys(("suite", "member", "scale", "task", "size", "verdict", "status"), "str")
    return counts | words | dict.fromkeys(_NUMBERS, "float64")

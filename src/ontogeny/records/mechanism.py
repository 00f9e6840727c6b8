"""Roles of heads, the algorithm, checks and stability of circuits: how the record of a member keeps them.

The exact values are in the tensors files: each tensor under ``STEP/...``, everything else as JSON in the file's
metadata. The tables say the same for people and other programs; reading a record back does not need them.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any

from ontogeny.core.algorithm import AlgorithmMetric, AlgorithmResult, SelfRepair, Verification
from ontogeny.core.results import CheckpointAnalysis, StabilityResult
from ontogeny.core.roles import Head, HeadScores, RoleScores, head_names
from ontogeny.records.values import pack, unpack

if TYPE_CHECKING:
    import pyarrow as pa
    from torch import Tensor

Row = tuple[object, ...]
_METRIC_NUMBERS = (
    "value",
    "value_frozen",
    "value_in_circuit",
    "numerator",
    "all_heads",
    "circuit_heads",
    "null_mean",
    "null_p95",
)
_REPAIR_NUMBERS = ("lost", "total", "by_heads", "by_mlps", "by_norm", "taken_over")


@dataclass(frozen=True)
class Mechanism:
    """What one checkpoint knows beyond behaviour, scores and circuits."""

    roles: Mapping[str, RoleScores]
    holders: Mapping[str, tuple[Head, ...]]
    algorithm: AlgorithmResult | None
    verification: Mapping[str, Verification]
    """By task, where there is one."""
    stability: Mapping[str, StabilityResult]


def mechanism_of(analysis: CheckpointAnalysis) -> Mechanism:
    """The part of an analysis that is kept here."""
    tasks = analysis.tasks
    return Mechanism(
        analysis.roles,
        analysis.holders,
        analysis.algorithm,
        {task: result.verification for task, result in tasks.items() if result.verification is not None},
        {task: result.stability for task, result in tasks.items() if result.stability is not None},
    )


def pack_mechanism(analysis: CheckpointAnalysis) -> tuple[Any, dict[str, Tensor]]:
    """JSON and tensors, named ``STEP/...``."""
    data, tensors = pack(mechanism_of(analysis), f"{analysis.ref.step}/mechanism")
    return data, tensors


def unpack_mechanism(data: Any, tensors: Mapping[str, Tensor]) -> Mechanism:
    """Inverse of `pack_mechanism`."""
    found: Mechanism = unpack(Mechanism, data, tensors)
    return found


@cache
def mechanism_schemas() -> dict[str, pa.Schema]:
    """Columns of each table."""
    import pyarrow as pa

    integer, text, number, yes = pa.int64(), pa.string(), pa.float64(), pa.bool_()
    why = {"status": text, "reason": text}
    head = {"head": text, "layer": integer, "head_index": integer}
    columns: dict[str, dict[str, pa.DataType]] = {
        "roles": {"role": text} | why | head | {"score": number, "chance": number, "holds": yes},
        "role_facts": {"role": text, "name": text, "value": number},
        "algorithm": {"metric": text} | why | dict.fromkeys(_METRIC_NUMBERS, number)
        | {"heads": text, "receivers": text},
        "effects": {"metric": text} | head | {"effect": number, "frozen": number},
        "repair": {"role": text} | why | {"ablated": text} | dict.fromkeys(_REPAIR_NUMBERS, number),
        "repair_heads": {"role": text} | head | {"change": number},
        "verification": {"task": text, "name": text, "value": number},
        "verification_heads": {"task": text, "name": text} | head | {"value": number},
        "verification_mlps": {"task": text, "name": text, "layer": integer, "value": number},
        "verification_roles": {"task": text, "head": text, "roles": text},
        "stability": {"task": text} | why | dict.fromkeys(("asked", "resamples", "edges", "core"), integer)
        | dict.fromkeys(("jaccard_low", "jaccard", "jaccard_high"), number)
        | dict.fromkeys(("size_low", "size", "size_high"), integer)
        | {"unmet": number},
        "stability_likeness": {"task": text, "size": text, "kept": integer}
        | {f"{what}{end}": number for what in ("edges", "nodes") for end in ("_low", "", "_high")},
    }  # fmt: skip
    return {name: pa.schema({"step": integer} | fields) for name, fields in columns.items()}


def mechanism_rows(analysis: CheckpointAnalysis) -> dict[str, list[Row]]:
    """Rows of each table, in the order of its schema."""
    step, found = analysis.ref.step, mechanism_of(analysis)
    rows: dict[str, list[Row]] = {name: [] for name in mechanism_schemas()}
    for name, scores in found.roles.items():
        rows["roles"] += [(step, *row) for row in _role_rows(scores, found.holders.get(name, ()))]
        rows["role_facts"] += [(step, name, fact, float(value)) for fact, value in scores.facts.items()]
    if found.algorithm is not None:
        rows["algorithm"] += [(step, *_metric_row(metric)) for metric in found.algorithm.metrics.values()]
        for name, effects in found.algorithm.effects.items():
            rows["effects"] += [(step, name, *row) for row in _head_rows(effects.effect, effects.frozen)]
        for repair in found.algorithm.repair:
            rows["repair"].append((step, *_repair_row(repair)))
            rows["repair_heads"] += [(step, repair.role, *row) for row in _head_rows(repair.change)]
    for task, checks in found.verification.items():
        rows["verification"] += [(step, task, name, float(value)) for name, value in checks.numbers.items()]
        for name, values in checks.heads.items():
            rows["verification_heads"] += [(step, task, name, *row) for row in _head_rows(values)]
        for name, layers in checks.mlps.items():
            rows["verification_mlps"] += [(step, task, name, i, value) for i, value in enumerate(layers.tolist())]
        rows["verification_roles"] += [(step, task, head, ", ".join(names)) for head, names in checks.roles.items()]
    for task, stability in found.stability.items():
        rows["stability"].append((step, task, *_stability_row(stability)))
        for alike in stability.likeness:
            numbers = (x for of in (alike.edges, alike.nodes) for x in (of.low, of.median, of.high))
            rows["stability_likeness"].append((step, task, alike.size, alike.kept, *numbers))
    return rows


def _role_rows(scores: RoleScores, holders: tuple[Head, ...]) -> Iterator[Row]:
    for *head, score, chance in _head_rows(scores.score, scores.chance):
        holds = (head[1], head[2]) in holders
        yield scores.role, scores.status, scores.reason, *head, score, chance, holds


def _head_rows(*values: HeadScores) -> Iterator[Row]:
    """Name, layer and index of every head, and its number in each of `values`."""
    layers, heads = values[0].shape
    columns = [each.double().tolist() for each in values]
    for layer in range(layers):
        for head in range(heads):
            (name,) = head_names([(layer, head)])
            yield name, layer, head, *(column[layer][head] for column in columns)


def _metric_row(metric: AlgorithmMetric) -> Row:
    numbers = [float(getattr(metric, name)) for name in _METRIC_NUMBERS]
    heads = (" ".join(head_names(heads)) for heads in (metric.heads, metric.receivers))
    return metric.name, metric.status, metric.reason, *numbers, *heads


def _repair_row(repair: SelfRepair) -> Row:
    numbers = [float(getattr(repair, name)) for name in _REPAIR_NUMBERS]
    return repair.role, repair.status, repair.reason, " ".join(head_names(repair.ablated)), *numbers


def _stability_row(found: StabilityResult) -> Row:
    size = found.size
    sizes = (None, None, None, math.nan) if size is None else (size.low, size.median, size.high, size.unmet)
    counts = (found.asked, found.resamples, len(found.edges), found.core)
    jaccard = found.jaccard
    return found.status, found.reason, *counts, jaccard.low, jaccard.median, jaccard.high, *sizes

"""Numbers of the mechanism at one checkpoint and task: roles, the algorithm, checks and stability of the circuit.

    role/NAME/best, chance           largest score of a head, and that head's chance rate
    role/NAME/holders                how many heads hold the role
    role/NAME/best_in_circuit, holders_in_circuit     the same among the heads of the task's circuit
    role/NAME/direct_effect          sum of e over its holders, logits as receiver (IOI, METHODS 7.2); < 0: they help
    role/NAME/entering, leaving      added by `role_turnover`, each with ..._by_chance
    role/NAME/on_s                   what its holders add to the logit of S, logits (IOI); < 0: they lower it
    algorithm/METRIC                 per cent: direct, queries, values (METHODS 7.3-7.6)
    algorithm/METRIC_frozen, _in_circuit, _null_mean, _null_p95
    self_repair/ROLE/lost, total, taken_over          METHODS 8.5
    verification/NAME                checks of the circuit
    stability/jaccard, core, core_share, size, unmet  the circuit under resampled examples (METHODS 8.3)

Roles do not depend on the task: they are repeated for each, so that a task's table holds all that is known of it. The
algorithm is that of IOI.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Final

import torch

from ontogeny.algorithm.metrics import heads_of
from ontogeny.core.algorithm import AlgorithmMetric, AlgorithmResult
from ontogeny.core.circuit import Circuit
from ontogeny.core.results import IOI, CheckpointAnalysis, TaskAnalysis
from ontogeny.core.roles import Head, RoleScores, head_names
from ontogeny.series.quantities import Measure

METRICS: Final = ("direct", "queries", "values")
"""B, C and D of the paper's Figure 4."""
_PARTS: Final = {"": "value", "_frozen": "value_frozen", "_in_circuit": "value_in_circuit", "_null_mean": "null_mean",
                 "_null_p95": "null_p95"}  # fmt: skip


def role_quantity(role: str, what: str = "best") -> str:
    """Name of a number of a role: ``role/induction/best``."""
    return f"role/{role}/{what}"


def algorithm_quantity(metric: str, part: str = "") -> str:
    """Name of a number of the algorithm: ``algorithm/direct``, ``algorithm/direct_null_p95``."""
    return f"algorithm/{metric}{part}"


def mechanism_measures(analysis: CheckpointAnalysis, task: str) -> dict[str, Measure]:
    """All of the above for one task, by name."""
    result = analysis.tasks[task]
    named: dict[str, Measure] = {}
    inside = circuit_heads(result.circuit.circuit) if result.circuit.status == "found" else None
    for name, scores in analysis.roles.items():
        named |= dict(_role(scores, analysis.holders.get(name, ()), inside, result.circuit.status))
    if analysis.algorithm is not None and task == IOI:
        named |= dict(_algorithm(analysis.algorithm))
        named |= dict(_direct_effects(analysis, analysis.algorithm))
    if result.verification is not None:
        for name, value in result.verification.numbers.items():
            named[f"verification/{name}"] = _plain(value, "measured")
    return named | dict(_stability(result))


def leading_head(scores: RoleScores, among: frozenset[Head] | None = None) -> Head | None:
    """The head with the largest score (of those `among`); none where no score is defined. Ties: the first."""
    values = scores.score.double()
    if among is not None:
        mask = torch.zeros_like(values, dtype=torch.bool)
        for head in among:
            mask[head] = True
        values = values.masked_fill(~mask, math.nan)
    if not bool(values.isfinite().any()):
        return None
    best = int(values.nan_to_num(nan=-math.inf).argmax())
    return best // values.shape[1], best % values.shape[1]


def circuit_heads(circuit: Circuit | None) -> frozenset[Head]:
    """Heads among the nodes of a circuit."""
    if circuit is None:
        return frozenset()
    return frozenset((layer, head) for layer, head in heads_of(circuit).nonzero().tolist())


def _role(
    scores: RoleScores, holders: tuple[Head, ...], inside: frozenset[Head] | None, circuit: str
) -> Iterator[tuple[str, Measure]]:
    role, measured = scores.role, scores.status == "measured"
    best, within = leading_head(scores), leading_head(scores, inside) if inside is not None else None
    yield role_quantity(role), _of_head(scores, best, scores.status)
    chance = None if best is None else float(scores.chance[best])
    yield role_quantity(role, "chance"), _plain(chance, scores.status, _name(best))
    yield role_quantity(role, "holders"), _plain(len(holders) if measured else None, scores.status)
    status = scores.status if inside is not None else circuit
    yield role_quantity(role, "best_in_circuit"), _of_head(scores, within, status)
    count = None if inside is None or not measured else sum(head in inside for head in holders)
    yield role_quantity(role, "holders_in_circuit"), _plain(count, status)


def _of_head(scores: RoleScores, head: Head | None, status: str) -> Measure:
    return _plain(None if head is None else float(scores.score[head]), status, _name(head))


def _name(head: Head | None) -> str:
    return "" if head is None else head_names([head])[0]


def _algorithm(found: AlgorithmResult) -> Iterator[tuple[str, Measure]]:
    for name in METRICS:
        metric: AlgorithmMetric | None = found.metrics.get(name)
        for suffix, part in _PARTS.items():
            value = None if metric is None else float(getattr(metric, part))
            status, heads = ("undefined", ()) if metric is None else (metric.status, metric.heads)
            yield algorithm_quantity(name, suffix), _plain(value, status, " ".join(head_names(heads)))
    for repair in found.repair:
        for part in ("lost", "total", "taken_over"):
            number = float(getattr(repair, part))
            yield (
                f"self_repair/{repair.role}/{part}",
                _plain(number, repair.status, " ".join(head_names(repair.ablated))),
            )


def _direct_effects(analysis: CheckpointAnalysis, found: AlgorithmResult) -> Iterator[tuple[str, Measure]]:
    """Of all holders of each role together."""
    effects = found.effects.get("direct")
    for role, scores in analysis.roles.items():
        heads = analysis.holders.get(role, ())
        value = None if effects is None or not heads else sum(float(effects.effect[head]) for head in heads)
        status = "undefined" if effects is None else scores.status if heads else "no holder"
        yield role_quantity(role, "direct_effect"), _plain(value, status, " ".join(head_names(heads)))
        added = None if found.on_s is None or not heads else sum(float(found.on_s[head]) for head in heads)
        yield role_quantity(role, "on_s"), _plain(added, status, " ".join(head_names(heads)))


def _stability(result: TaskAnalysis) -> Iterator[tuple[str, Measure]]:
    found = result.stability
    if found is None:
        return
    measured = found.status == "measured"
    jaccard = found.jaccard
    yield "stability/jaccard", Measure(jaccard.median, jaccard.low, jaccard.high, _status(jaccard.median, found.status))
    yield "stability/core", _plain(found.core if measured else None, found.status)
    kept = result.circuit.kept
    yield "stability/core_share", _plain(found.core / kept if measured and kept else None, found.status)
    size = found.size
    low, middle, high = (math.nan,) * 3 if size is None else (size.low, size.median, size.high)
    ends = [math.nan if end is None else float(end) for end in (middle, low, high)]
    beyond = "measured" if math.isfinite(ends[0]) else "beyond what was evaluated" if measured else found.status
    yield "stability/size", Measure(ends[0], ends[1], ends[2], beyond)
    yield "stability/unmet", _plain(None if size is None else size.unmet, found.status)


def _plain(value: float | None, status: str, part: str = "") -> Measure:
    number = math.nan if value is None else float(value)
    return Measure(number, math.nan, math.nan, _status(number, status), part)


def _status(value: float, status: str) -> str:
    """`nan` where something is not defined although nobody says why."""
    return "nan" if status == "measured" and not math.isfinite(value) else status

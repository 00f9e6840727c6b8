"""A made-up study with the shape of a real one: for tables, pictures and tracking.

Abilities rise along logistic curves, later at small scales; edge scores drift slowly; a circuit is the set of strongest
edges into nodes that lead to the logits and are fed from the input. Nothing here comes from a model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence

import torch

from ontogeny.core.circuit import Circuit, EdgeScores, grow
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import SPLITS
from ontogeny.core.results import (
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    CurvePoint,
    Estimate,
    Faithfulness,
    ModelFacts,
    Status,
    TaskAnalysis,
)
from ontogeny.records import Failure, MemberRecord

TASKS = ("ioi", "gendered_pronoun", "greater_than", "sva")
STEPS = (0, 1, 8, 64, 76, 91, 108, 128, 152, 181, 215, 256, 304, 362, 431, 512, 609, 724, 861, 1024, 1218, 1448, 1722)
SCALES = {
    "nano": ModelFacts(GraphSpec(2, 4), 32, 8, 130_000),
    "small": ModelFacts(GraphSpec(4, 4), 64, 16, 420_000),
    "wide": ModelFacts(GraphSpec(4, 4), 96, 24, 800_000),
    "deep": ModelFacts(GraphSpec(6, 4), 96, 24, 1_150_000),
}
TOKENS_A_STEP = 1536
NAN = math.nan


def study(
    scales: Sequence[str] = tuple(SCALES), steps: Sequence[int] = STEPS, tasks: Sequence[str] = TASKS
) -> tuple[MemberRecord, ...]:
    """A record a scale."""
    return tuple(member(scale, steps, tasks) for scale in scales)


def member(
    scale: str, steps: Sequence[int] = STEPS, tasks: Sequence[str] = TASKS, *, setting: str = "m=5"
) -> MemberRecord:
    """One member, seed 0. `setting` only changes the fingerprints."""
    analyses = tuple(_checkpoint(scale, step, tasks) for step in steps)
    prints = {(s, t): _digest(f"{scale}/{s}/{t}/{setting}") for s in steps for t in tasks}
    return MemberRecord("ladder", f"{scale}-s0", analyses, prints)


def with_failure(record: MemberRecord, step: int) -> MemberRecord:
    """`record` with one more checkpoint, which failed."""
    failure = Failure(record.member, step, f"data/checkpoints/{record.member}/step{step}", "weights are not finite")
    return MemberRecord(record.suite, record.member, record.analyses, record.fingerprints, (failure,))


def _checkpoint(scale: str, step: int, tasks: Sequence[str]) -> CheckpointAnalysis:
    ref = CheckpointRef(
        "ladder", f"{scale}-s0", scale, 0, step, step * TOKENS_A_STEP, f"data/checkpoints/{scale}-s0/step{step}",
        _digest(f"weights {scale} {max(step, 1)}"),
    )  # fmt: skip
    return CheckpointAnalysis(ref, SCALES[scale], {task: _task(scale, step, task) for task in tasks})


def _task(scale: str, step: int, task: str) -> TaskAnalysis:
    model, place, size = SCALES[scale], TASKS.index(task), list(SCALES).index(scale)
    onset = 100 * 1.7**place * 1.5 ** (3 - size)
    top = (0.25, 0.8, 0.95, 1.0)[size] * (3.0, 2.6, 0.85, 0.8)[place]
    wobble = 0.04 * math.sin(3.1 * step + place) - 0.12 * math.exp(-((math.log((step + 1) / onset) / 0.5) ** 2))
    metric = top / (1 + (onset * 1.4 / (step + 1)) ** 3) + top * wobble
    width = 0.08 * top + 0.05
    splits = {split: _behaviour(metric + 0.01 * i, width, top) for i, split in enumerate(SPLITS)}
    scores = _scores(model.graph, scale, step, place)
    circuit = _circuit(scores, metric, width, step, place, size)
    return TaskAnalysis(task, _digest(f"dataset {task}"), splits, scores, circuit)


def _behaviour(metric: float, width: float, top: float) -> Behaviour:
    share = 1 / (1 + math.exp(-3 * metric / top))
    return Behaviour(
        metric=Estimate(metric, metric - width, metric + width),
        corrupted=Estimate(-0.8 * metric, -0.8 * metric - width, -0.8 * metric + width),
        difference=Estimate(1.8 * metric, 1.8 * metric - width, 1.8 * metric + width),
        accuracy=Estimate(share, share - 0.05, min(1.0, share + 0.05)),
        rank0=Estimate(0.7 * share, 0.6 * share, 0.8 * share),
        mass=Estimate(0.5 * share, 0.4 * share, 0.6 * share),
        examples=70,
    )


def _scores(graph: GraphSpec, scale: str, step: int, place: int) -> EdgeScores:
    """A fixed pattern, another that it replaces half way, and fresh noise: some edges are much stronger."""

    def pattern(name: str) -> torch.Tensor:
        generator = torch.Generator().manual_seed(int(_digest(name)[:8], 16))
        return torch.randn(graph.n_writers, graph.n_readers, generator=generator) ** 3

    old, new, noise = (pattern(f"{scale}{place}{name}") for name in ("old", "new", step))
    share = 1 / (1 + math.exp(-(math.log(step + 1) - 6)))
    return EdgeScores(graph, ((1 - share) * old + share * new + 0.25 * noise) * graph.real_edges, "eap_ig-right-5")


def _circuit(scores: EdgeScores, metric: float, width: float, step: int, place: int, size: int) -> CircuitResult:
    graph = scores.graph
    status: Status = "found"
    if metric - width <= 0:
        status = "not_learned"
    elif size == 0 and place in (0, 2):
        status = "threshold_unmet"
    elif step == STEPS[-3] and place == 1:
        status = "trivial"
    curve = tuple(_point(graph, f, place) for f in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0))
    empty = CircuitResult(status, f"{status} for a test", None, None, None, None, None, graph.n_edges, {}, NAN, (), (),
                          NAN, NAN)  # fmt: skip
    if status in ("not_learned", "trivial"):
        return empty
    wanted = round(graph.n_edges * (0.03 + 0.02 * place) * (1 + 0.2 * math.sin(step)))
    circuit: Circuit = grow(scores, wanted)
    found = status == "found"
    raw = 0.81 if found else 0.62
    return CircuitResult(
        status, empty.reason if not found else "", circuit, wanted + 3, circuit.n_edges, circuit.n_nodes,
        wanted + 9 if found else None, graph.n_edges,
        {"discover": Faithfulness(raw * metric, raw, raw - 0.02), "held_out": Faithfulness(0, raw - 0.03, raw - 0.05)},
        0.3, curve, curve[3:7], 0.82, 0.19,
    )  # fmt: skip


def _point(graph: GraphSpec, fraction: float, place: int) -> CurvePoint:
    asked = max(1, round(fraction * graph.n_edges))
    raw = 1 - math.exp(-asked / (12 + 10 * place)) + 0.05 * math.sin(asked / 9)

    def value(x: float) -> Faithfulness:
        return Faithfulness(2 * x, x, 2 * x - 1)

    low = [value(raw * 0.3 * (0.5 + draw / 20)) for draw in range(20)] if 0.01 <= fraction <= 0.05 else []
    return CurvePoint(fraction, asked, asked, value(raw), value(1 - raw) if low else None, tuple(low))


def _digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:32]

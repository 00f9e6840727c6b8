"""Suites whose claims are known: one on which C1 to C5 hold, and two that should support nothing.

A suite is arrays by member; `records` makes of them what an analysis would have left on disk: behaviour of one task
(IOI) with its interval, scores of four heads in the roles that IOI needs, the three metrics of its algorithm, and a
circuit of the whole graph.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import numpy as np
import torch

from ontogeny.core.algorithm import AlgorithmMetric, AlgorithmResult
from ontogeny.core.circuit import Circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import (
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    Estimate,
    Faithfulness,
    ModelFacts,
    TaskAnalysis,
)
from ontogeny.core.roles import RoleScores
from ontogeny.core.transfer import HeadAblation
from ontogeny.records import MemberRecord, TransferRecord
from ontogeny.series import TASK_OF

GRAPH = GraphSpec(2, 2)
HEADS = [(0, 0), (0, 1), (1, 0), (1, 1)]
ROLES = ("name_mover", "copy_suppression")
METRICS = ("direct", "queries", "values")
X = np.concatenate([[0.0], np.arange(8, 16, 0.25)])
"""log2 tokens of 33 checkpoints; 1 % of the last is 2^9.1."""
TOKENS = [0, *(2 ** X[1:]).round().astype(int).tolist()]
PLACES = {"a-s0": 12.1, "a-s1": 12.3, "b-s0": 12.2, "b-s1": 12.4, "c-s0": 12.1, "c-s1": 12.2}
"""log2 tokens of the onset."""
ERROR = 0.05
HOLDS = 0.4
"""Score from which a head holds a role."""


@dataclass(frozen=True)
class Suite:
    """Everything that C1 to C5 ask for, by member: an array whose first axis is the checkpoint."""

    task: dict[str, np.ndarray]
    heads: dict[str, np.ndarray]
    """[checkpoints, roles, heads]."""
    metrics: dict[str, np.ndarray]
    """[checkpoints, metrics], per cent."""


def real(seed: int) -> Suite:
    """Alike onsets, roles half an octave before, a head that leaves its role to another, flat metrics."""
    rng = np.random.default_rng(seed)
    task, heads, metrics = {}, {}, {}
    for member, place in PLACES.items():
        task[member] = (place < X) * 1.0 + rng.normal(0, 0.03, len(X))
        scores = np.abs(rng.normal(0, 0.03, (len(X), len(ROLES), len(HEADS))))
        scores[:, :, 0] += ((place - 0.6 < X) * np.where(X > 14, 0.1, 1.0))[:, None]
        scores[:, :, 1] += (place - 0.6 < X)[:, None]
        heads[member] = scores
        metrics[member] = 60 + rng.normal(0, 3, (len(X), len(METRICS)))
    return Suite(task, heads, metrics)


def shuffled(suite: Suite, seed: int) -> Suite:
    """The checkpoints of each member in a random order, the same for all that was measured on them."""
    rng = np.random.default_rng(seed)
    order = {m: rng.permutation(len(X)) for m in suite.task}
    parts = (suite.task, suite.heads, suite.metrics)
    return Suite(*({m: values[order[m]] for m, values in part.items()} for part in parts))


def random_models(seed: int) -> Suite:
    """Every checkpoint a model of its own that knows nothing: some heads seem to hold a role, some metrics are high."""
    rng = np.random.default_rng(seed)
    return Suite(
        {m: rng.normal(0, 2 * ERROR, len(X)) for m in PLACES},
        {m: np.abs(rng.normal(0, 0.3, (len(X), len(ROLES), len(HEADS)))) for m in PLACES},
        {m: rng.normal(40, 9, (len(X), len(METRICS))) for m in PLACES},
    )


def records(suite: Suite, null: float = 30.0) -> list[MemberRecord]:
    """A record a member; `null` is the 95th percentile of each metric's null."""
    return [
        MemberRecord("ladder", m, tuple(_checkpoint(suite, m, i, null) for i in range(len(X))), {}) for m in suite.task
    ]


def ablated(suite: Suite) -> list[TransferRecord]:
    """Ablating the role's heads costs more than all matched sets."""
    last = len(X) - 1
    found = tuple(
        HeadAblation(TASK_OF[r], r, last, "measured", "", ((0, 0),), 1.0, 0.5, 100, 100, 0.1, 0.3, 1.0)
        for r in ROLES
        if r in TASK_OF
    )
    return [TransferRecord("ladder", member, (last,), (), found, ()) for member in suite.task]


def _checkpoint(suite: Suite, member: str, index: int, null: float) -> CheckpointAnalysis:
    scale, _, seed = member.rpartition("-s")
    digest = hashlib.sha256(f"{member}/{index}".encode()).hexdigest()[:32]
    ref = CheckpointRef("ladder", member, scale, int(seed), index, TOKENS[index], f"{member}/{index}", digest)
    model = ModelFacts(GRAPH, 8, 4, 10 ** (6 + "abcdefgh".index(scale)))
    scores = torch.tensor(suite.heads[member][index], dtype=torch.float32).view(len(ROLES), 2, 2)
    chance = torch.full((2, 2), 0.01)
    roles = {r: RoleScores(r, "measured", "", scores[i], chance, {}, {}) for i, r in enumerate(ROLES)}
    holders = {r: tuple(h for h in HEADS if float(roles[r].score[h]) >= HOLDS) for r in ROLES}
    numbers = dict(zip(METRICS, suite.metrics[member][index]))
    metrics = {name: _metric(name, float(value), null) for name, value in numbers.items()}
    algorithm = AlgorithmResult("measured", "", {}, metrics, ())  # type: ignore[arg-type]
    task = _task(float(suite.task[member][index]))
    return CheckpointAnalysis(ref, model, {"ioi": task}, roles, holders, algorithm)


def _metric(name: str, value: float, null: float) -> AlgorithmMetric:
    return AlgorithmMetric(name, "measured", "", value, value, value, value, 100.0, 100.0, (), (), null / 2, null)  # type: ignore[arg-type]


def _task(metric: float) -> TaskAnalysis:
    here = Estimate(metric, metric - 1.96 * ERROR, metric + 1.96 * ERROR)
    behaviour = Behaviour(here, here, here, here, here, here, 70)
    circuit = Circuit(GRAPH, GRAPH.real_edges)
    nan = math.nan
    found = CircuitResult(
        "found", "", circuit, circuit.n_edges, circuit.n_edges, circuit.n_nodes, circuit.n_edges, GRAPH.n_edges,
        {"discover": Faithfulness(metric, 0.9, 0.9)}, 0.3, (), (), nan, nan,
    )  # fmt: skip
    return TaskAnalysis("ioi", "digest", {"held_out": behaviour}, None, found)

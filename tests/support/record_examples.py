"""Records that use every corner of the schema, built without a model."""

import math

import torch

from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import (
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    CurvePoint,
    Estimate,
    Faithfulness,
    ModelFacts,
    TaskAnalysis,
)
from ontogeny.records import Failure, MemberRecord

GRAPH = GraphSpec(2, 2)
NAN = math.nan


def ref(step: int, digest: str | None = None) -> CheckpointRef:
    return CheckpointRef("ladder", "small-s0", "small", 0, step, step * 1536, f"x/step{step}", digest or f"w{step}")


def behaviour(value: float) -> Behaviour:
    estimate = Estimate(value, value - 0.1, value + 0.1)
    return Behaviour(estimate, Estimate(-value, NAN, NAN), estimate, estimate, estimate, estimate, examples=70)


def task_analysis(task: str, step: int, *, found: bool) -> TaskAnalysis:
    values = torch.rand(GRAPH.n_writers, GRAPH.n_readers, generator=torch.Generator().manual_seed(step))
    scores = EdgeScores(GRAPH, values * GRAPH.real_edges, "eap_ig-right-5")
    both = Faithfulness(1.5, 0.75, NAN)
    point = CurvePoint(0.1, 3, 2, both, complement=both, random=(both, Faithfulness(math.inf, 0.0, 1.0)))
    size = 7 if found else None
    circuit = CircuitResult(
        status="found" if found else "not_learned",
        reason="" if found else "the interval of M holds 0",
        circuit=Circuit(GRAPH, (values > 0.5) & GRAPH.real_edges) if found else None,
        asked=size,
        kept=size,
        nodes=size,
        sustained=None,
        cap=GRAPH.n_edges,
        faithfulness={"discover": both, "held_out": Faithfulness(0.5, 0.25, -0.5)} if found else {},
        random_p95=0.1 if found else NAN,
        curve=(point, CurvePoint(1.0, 9, 9, both)) if found else (),
        searched=(CurvePoint(NAN, 1, 0, both),) if found else (),
        cpr=0.5 if found else NAN,
        cmd=0.25 if found else NAN,
    )
    measured = {"discover": behaviour(step / 7), "held_out": behaviour(1 / 3)}
    return TaskAnalysis(task, f"digest-{task}", measured, scores if found else None, circuit)


def member_record(steps: range = range(18)) -> MemberRecord:
    """18 checkpoints (two tensor files), two tasks; step 1 has the weights of step 0; one job failed."""
    analyses = tuple(
        CheckpointAnalysis(
            ref(step, "w0" if step == 1 else None),
            ModelFacts(GRAPH, 32, 16, 12345),
            {task: task_analysis(task, step, found=step % 2 == 0) for task in ("ioi", "greater_than")},
        )
        for step in steps
    )
    fingerprints = {(step, task): f"fp-{step}-{task}" for step in steps for task in ("ioi", "greater_than")}
    failures = (Failure("small-s0", 99, "x/step99/model.safetensors", "truncated"),)
    return MemberRecord("ladder", "small-s0", analyses, fingerprints, failures)

"""Records that use every corner of the schema, built without a model."""

import math

import torch

from ontogeny.core.algorithm import AlgorithmMetric, AlgorithmResult, PathEffects, SelfRepair, Verification
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
    Likeness,
    ModelFacts,
    Quantiles,
    SizeInterval,
    StabilityResult,
    TaskAnalysis,
)
from ontogeny.core.roles import RoleScores
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
    numbers = {"mlp_share": 0.25, "unknown_role_share": NAN}
    checks = Verification(
        numbers, {"attends_to_yy": values[:2, :2]}, {"valid": values[0, :2]}, {"a0.h1": ("induction",), "a1.h0": ()}
    )
    return TaskAnalysis(
        task,
        f"digest-{task}",
        measured,
        scores if found else None,
        circuit,
        verification=checks if found else None,
        stability=stability(step),
    )


def stability(step: int) -> StabilityResult:
    """Measured, with a size beyond what was evaluated, or not."""
    edges, inclusion = torch.tensor([[0, 3], [1, 6]]), torch.tensor([0.5, 1.0], dtype=torch.float64)
    if step % 2:
        return StabilityResult("not_measured", "off", GRAPH, None, 0, edges[:0], inclusion[:0], 0, (), None)
    size = SizeInterval(3, 5, None, 0.1)
    likeness = (
        Likeness("found", None, Quantiles(0.25, 0.5, 1.0), Quantiles(0.5, 0.75, 1.0)),
        Likeness("matched", 5, Quantiles(0.3, 0.6, 0.9), Quantiles(NAN, NAN, NAN)),
    )
    return StabilityResult("measured", "", GRAPH, 7, 50, edges, inclusion, 1, likeness, size)


def roles(step: int) -> dict[str, RoleScores]:
    """One that is measured, with a head that is not; one that is not."""
    score = torch.rand(2, 2, generator=torch.Generator().manual_seed(1000 + step))
    score[1, 0] = NAN
    chance = torch.full((2, 2), 0.01)
    curve = torch.rand(2, 2, 5, generator=torch.Generator().manual_seed(step))
    nothing = torch.full((2, 2), NAN)
    return {
        "induction": RoleScores("induction", "measured", "", score, chance, {"by_lag": curve}, {"length": 64.0}),
        "name_mover": RoleScores("name_mover", "undefined", "no names", nothing, nothing, {}, {}),
    }


def algorithm(step: int) -> AlgorithmResult:
    """One metric that is measured, one that is not; an algorithm that was not looked for."""
    if step % 3 == 0:
        return AlgorithmResult("undefined", "IOI is not learnt.", {}, {}, ())
    effect = torch.tensor([[-0.5, 0.0], [0.25, -1.0]])
    direct = AlgorithmMetric(
        "direct", "measured", "", 85.7, 80.0, 90.0, 1.5, 1.75, 1.7, ((1, 1), (0, 0)), (), 40.0, 71.4
    )
    numbers = (NAN,) * 6
    queries = AlgorithmMetric("queries", "undefined", "no name movers", *numbers, (), (), NAN, NAN)
    change = torch.tensor([[0.5, NAN], [0.0, -0.25]])
    repair = SelfRepair("name_mover", "measured", "", ((0, 1),), 2.0, 1.5, 0.5, -0.25, 0.25, 0.25, change)
    return AlgorithmResult(
        "measured",
        "",
        {"direct": PathEffects(("logits",), effect, effect / 2)},
        {"direct": direct, "queries": queries},
        (repair,),
    )


def member_record(steps: range = range(18)) -> MemberRecord:
    """18 checkpoints (two tensor files), two tasks; step 1 has the weights of step 0; one job failed."""
    analyses = tuple(
        CheckpointAnalysis(
            ref(step, "w0" if step == 1 else None),
            ModelFacts(GRAPH, 32, 16, 12345),
            {task: task_analysis(task, step, found=step % 2 == 0) for task in ("ioi", "greater_than")},
            roles(step),
            {"induction": ((0, 1), (0, 0)), "name_mover": ()},
            algorithm(step),
        )
        for step in steps
    )
    fingerprints = {(step, task): f"fp-{step}-{task}" for step in steps for task in ("ioi", "greater_than")}
    failures = (Failure("small-s0", 99, "x/step99/model.safetensors", "truncated"),)
    return MemberRecord("ladder", "small-s0", analyses, fingerprints, failures)

"""A made-up study with the shape of a real one: for tables, pictures and tracking.

Abilities rise along logistic curves, later at small scales; edge scores drift slowly; a circuit is the set of strongest
edges into nodes that lead to the logits and are fed from the input. Each role has a head that rises early and, at the
larger scales, another that takes over from it. Nothing here comes from a model.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from typing import Literal

import torch

from ontogeny.core.algorithm import AlgorithmMetric, AlgorithmResult, PathEffects, SelfRepair, Verification
from ontogeny.core.circuit import Circuit, EdgeScores, grow, matched_size
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
    Likeness,
    ModelFacts,
    Quantiles,
    SizeInterval,
    StabilityResult,
    Status,
    TaskAnalysis,
)
from ontogeny.core.roles import Head, RoleScores
from ontogeny.core.stability import stability_unmeasured
from ontogeny.records import Failure, MemberRecord

TASKS = ("ioi", "gendered_pronoun", "greater_than", "sva")
STEPS = (0, 1, 8, 64, 76, 91, 108, 128, 152, 181, 215, 256, 304, 362, 431, 512, 609, 724, 861, 1024, 1218, 1448, 1722)
SCALES = {
    "nano": ModelFacts(GraphSpec(2, 4), 32, 8, 130_000),
    "small": ModelFacts(GraphSpec(4, 4), 64, 16, 420_000),
    "wide": ModelFacts(GraphSpec(4, 4), 96, 24, 800_000),
    "deep": ModelFacts(GraphSpec(6, 4), 96, 24, 1_150_000),
}
ROLE_UNITS = {"induction": 1.0, "previous_token": 1.0, "duplicate_token": 1.0, "copy_suppression": 1.0,
              "name_mover": 100.0, "negative_name_mover": 100.0, "successor": 1.0, "s_inhibition": 1.0}  # fmt: skip
"""Role -> what a perfect head scores."""
TOKENS_A_STEP = 1536
NAN = math.nan


def study(
    scales: Sequence[str] = tuple(SCALES), steps: Sequence[int] = STEPS, tasks: Sequence[str] = TASKS, seeds: int = 1
) -> tuple[MemberRecord, ...]:
    """A record a scale and seed."""
    return tuple(member(scale, steps, tasks, seed=seed) for scale in scales for seed in range(seeds))


def member(
    scale: str, steps: Sequence[int] = STEPS, tasks: Sequence[str] = TASKS, *, setting: str = "m=5", seed: int = 0
) -> MemberRecord:
    """One member. `setting` only changes the fingerprints; later seeds have other edge scores, and learn later."""
    analyses = tuple(_checkpoint(scale, step, tasks, seed) for step in steps)
    name = f"{scale}-s{seed}"
    prints = {(s, t): _digest(f"{scale if seed == 0 else name}/{s}/{t}/{setting}") for s in steps for t in tasks}
    return MemberRecord("ladder", name, analyses, prints)


def with_failure(record: MemberRecord, step: int) -> MemberRecord:
    """`record` with one more checkpoint, which failed."""
    failure = Failure(record.member, step, f"data/checkpoints/{record.member}/step{step}", "weights are not finite")
    return MemberRecord(record.suite, record.member, record.analyses, record.fingerprints, (failure,))


def _checkpoint(scale: str, step: int, tasks: Sequence[str], seed: int = 0) -> CheckpointAnalysis:
    name = f"{scale}-s{seed}"
    ref = CheckpointRef(
        "ladder", name, scale, seed, step, step * TOKENS_A_STEP, f"data/checkpoints/{name}/step{step}",
        _digest(f"weights {scale if seed == 0 else name} {max(step, 1)}"),
    )  # fmt: skip
    found = roles(scale, step)
    return CheckpointAnalysis(
        ref,
        SCALES[scale],
        {task: _task(scale, step, task, seed) for task in tasks},
        found,
        {name: _holders(scores) for name, scores in found.items()},
        algorithm(scale, step) if "ioi" in tasks else None,
    )


def roles(scale: str, step: int) -> dict[str, RoleScores]:
    """Every role; at the smallest scale no head copies names, and S-inhibition cannot be looked for."""
    return {name: _role(scale, step, name) for name in ROLE_UNITS}


def _role(scale: str, step: int, role: str) -> RoleScores:
    graph, unit, place = SCALES[scale].graph, ROLE_UNITS[role], list(ROLE_UNITS).index(role)
    late = 3 - list(SCALES).index(scale)
    shape = (graph.n_layers, graph.n_heads)
    if role == "s_inhibition" and late == 3:
        nothing = torch.full(shape, NAN)
        return RoleScores(role, "undefined", "No head copies names.", nothing, nothing, {}, {})
    generator = torch.Generator().manual_seed(place * 100 + late)
    score = 0.05 * torch.rand(shape, generator=generator)
    if not (role == "name_mover" and late == 3):
        x = math.log((step + 1) / (90 * 1.2**place * 1.4**late))
        rise, handed = 1 / (1 + math.exp(-3 * x)), 1 / (1 + math.exp(-4 * (math.log(step + 1) - 6.2)))
        first, second = (place % graph.n_heads, (place + 2) % graph.n_heads)
        fades = late < 2 and place % 2 == 0
        score[-2, first] += 0.9 * rise * (1 - 0.9 * handed * fades)
        score[-1, second] += 0.8 * rise * handed
    score[0, 0] = NAN if role == "copy_suppression" else score[0, 0]
    return RoleScores(role, "measured", "", unit * score, torch.full(shape, 0.02 * unit), {}, {"prompts": 70.0})


def _holders(scores: RoleScores) -> tuple[Head, ...]:
    mask = scores.score >= 0.3 * ROLE_UNITS[scores.role]
    found = [(layer, head) for layer, head in mask.nonzero().tolist()]
    return tuple(sorted(found, key=lambda head: -float(scores.score[head])))


def algorithm(scale: str, step: int) -> AlgorithmResult:
    """The three metrics where IOI is learnt; at the smallest scale two have no receivers."""
    model, late = SCALES[scale], 3 - list(SCALES).index(scale)
    if _task(scale, step, "ioi").circuit.status == "not_learned":
        return AlgorithmResult("undefined", "IOI is not learnt here.", {}, {}, ())
    heads = {name: _holders(_role(scale, step, name)) for name in ROLE_UNITS}
    effects, metrics = {}, {}
    kinds = {"direct": ("copy_suppression", "name_mover"), "queries": ("s_inhibition",),
             "values": ("duplicate_token", "induction")}  # fmt: skip
    receivers = {"direct": (), "queries": heads["name_mover"], "values": heads["s_inhibition"]}
    for place, (name, of) in enumerate(kinds.items()):
        chosen = tuple(sorted({head for role in of for head in heads[role]}))
        if name != "direct" and not receivers[name]:
            numbers = (NAN,) * 6
            reason = "No head copies names." if name == "queries" else "No S-inhibition head."
            metrics[name] = AlgorithmMetric(name, "undefined", reason, *numbers, (), (), NAN, NAN)  # type: ignore[arg-type]
            continue
        generator = torch.Generator().manual_seed(step + place)
        effect = -0.05 * torch.rand(model.graph.n_layers, model.graph.n_heads, generator=generator)
        for head in chosen:
            effect[head] -= 0.6
        names = {"direct": ("logits",)}.get(
            name, tuple(f"a{layer}.h{head}<{name[0]}>" for layer, head in receivers[name])
        )
        effects[name] = PathEffects(names, effect, 0.8 * effect)
        total, inside = float(effect.abs().sum()), sum(abs(float(effect[head])) for head in chosen)
        value = 100 * inside / total
        metrics[name] = AlgorithmMetric(
            name, "measured", "", value, 0.9 * value, min(100.0, 1.1 * value), inside, total, 0.9 * total, chosen,  # type: ignore[arg-type]
            receivers[name], 22.0 + place, 48.0 + 2 * late,
        )  # fmt: skip
    return AlgorithmResult("measured", "", effects, metrics, _repair(scale, step, heads))


def _repair(scale: str, step: int, heads: dict[str, tuple[Head, ...]]) -> tuple[SelfRepair, ...]:
    graph, found = SCALES[scale].graph, []
    for place, role in enumerate(("name_mover", "copy_suppression")):
        change = torch.full((graph.n_layers, graph.n_heads), 0.02)
        if not heads[role]:
            numbers = (NAN,) * 6
            found.append(SelfRepair(role, "undefined", "No head holds the role.", (), *numbers, change * NAN))
            continue
        change[heads[role][0]] = NAN
        change[-1, (place + 1) % graph.n_heads] = 0.8
        lost, share = 2.0 - place, 0.5 - 0.2 * math.cos(math.log(step + 1))
        parts = (share * lost * 0.8, share * lost * 0.1, share * lost * 0.1)
        found.append(SelfRepair(role, "measured", "", heads[role][:1], lost, lost * (1 - share), *parts, share, change))
    return tuple(found)


def _task(scale: str, step: int, task: str, seed: int = 0) -> TaskAnalysis:
    model, place, size = SCALES[scale], TASKS.index(task), list(SCALES).index(scale)
    onset = 100 * 1.7**place * 1.5 ** (3 - size) * 1.1**seed
    top = (0.25, 0.8, 0.95, 1.0)[size] * (3.0, 2.6, 0.85, 0.8)[place]
    wobble = 0.04 * math.sin(3.1 * step + place) - 0.12 * math.exp(-((math.log((step + 1) / onset) / 0.5) ** 2))
    metric = top / (1 + (onset * 1.4 / (step + 1)) ** 3) + top * wobble
    width = 0.08 * top + 0.05
    splits = {split: _behaviour(metric + 0.01 * i, width, top) for i, split in enumerate(SPLITS)}
    scores = _scores(model.graph, scale if seed == 0 else f"{scale}-s{seed}", step, place)
    circuit = _circuit(scores, metric, width, step, place, size)
    checks = None if circuit.circuit is None else Verification({"mlp_share": 0.3 + 0.1 * place}, {}, {}, {})
    return TaskAnalysis(
        task, _digest(f"dataset {task}"), splits, scores, circuit, checks, _stability(scores, circuit, step)
    )


def _stability(scores: EdgeScores, circuit: CircuitResult, step: int) -> StabilityResult:
    found = circuit.circuit
    if found is None or circuit.status != "found":
        return stability_unmeasured(scores.graph, f"There is no faithful circuit: {circuit.status}.")
    edges = found.edges.nonzero()
    inclusion = torch.linspace(0.4, 1.0, len(edges), dtype=torch.float64)
    middle = 0.7 + 0.1 * math.sin(step)
    assert circuit.asked is not None
    size = SizeInterval(circuit.asked - 2, circuit.asked, circuit.asked + 5, 0.02)
    core = int((inclusion >= 0.9).sum())
    likeness = (
        _alike("found", None, middle),
        *(_alike("matched", matched_size(scores.graph, share, 20), middle + 0.02) for share in (0.01, 0.02, 0.05)),
        _alike("weighted", None, middle + 0.15),
    )
    return StabilityResult("measured", "", scores.graph, circuit.asked, 50, edges, inclusion, core, likeness, size)


def _alike(size: Literal["found", "matched", "weighted"], kept: int | None, middle: float) -> Likeness:
    edges, nodes = (Quantiles(x - 0.1, x, x + 0.1) for x in (middle, middle + 0.05))
    return Likeness(size, kept, edges, nodes)


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

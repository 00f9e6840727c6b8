"""The one use case: what one checkpoint does on the tasks, and which circuits carry it. No disk, tracker or clock.

It is made of parts that can be cached apart: for each task its `ANALYSES`, and once for the model each head role
(`ontogeny.components`). Each names the settings that its numbers depend on and the parts that it needs, so that a
changed setting recomputes only what it must.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.algorithm import analyse_algorithm, verify
from ontogeny.attribution import score_edges, score_edges_resampled
from ontogeny.components import ROLES, Material, Role, Texts, holders
from ontogeny.core.algorithm import AlgorithmResult, Verification
from ontogeny.core.behaviour import behaviour as behaviour_of
from ontogeny.core.circuit import Circuit, EdgeScores, complement, matched_size, random_circuits, rank_edges
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.faithfulness import (
    Ends,
    SearchOutcome,
    Sizes,
    Verdict,
    curve_areas,
    fraction_sizes,
    in_form,
    percentile_95,
    search_cap,
    search_sizes,
    verdict_after_search,
    verdict_before_search,
    verdict_on_behaviour,
)
from ontogeny.core.pairs import PairBatch, Split, TaskDataset, tokenize
from ontogeny.core.results import (
    IOI,
    Behaviour,
    CheckpointAnalysis,
    CheckpointRef,
    CircuitResult,
    CurvePoint,
    Faithfulness,
    StabilityResult,
    TaskAnalysis,
)
from ontogeny.core.roles import Head, RoleScores
from ontogeny.core.schedule import ANALYSES as ASKED
from ontogeny.core.stability import (
    matched_likeness,
    resampled_stability,
    resampling_of,
    size_interval,
    stability_measured,
    stability_unmeasured,
)
from ontogeny.models.subject import Subject, pair_logits
from ontogeny.params import AnalyseParams
from ontogeny.patching import CircuitEvaluator

Batches = Mapping[Split, PairBatch]
Roles = Mapping[str, RoleScores]


@dataclass(frozen=True)
class Analysis:
    """A part of a task's analysis at a checkpoint that is cached by itself."""

    name: str
    version: str
    """Raised when the same settings give other numbers than before."""
    sections: tuple[str, ...]
    """Sections of `AnalyseParams`, dotted, that its numbers depend on, besides `precision`."""
    needs: tuple[str, ...]
    """Analyses whose results it takes; `roles`: all head roles."""


BEHAVIOUR = Analysis("behaviour", "2", ("behaviour",), ())
SCORES = Analysis("scores", "2", ("attribution",), ("behaviour",))
CIRCUIT = Analysis("circuit", "4", ("search", "baselines"), ("behaviour", "scores"))
"""Its result also depends on whether baselines were asked for."""
STABILITY = Analysis("stability", "2", ("stability",), ("scores", "circuit"))
VERIFICATION = Analysis("verification", "2", ("roles.thresholds",), ("scores", "circuit", "roles"))
ANALYSES: tuple[Analysis, ...] = (BEHAVIOUR, SCORES, CIRCUIT, STABILITY, VERIFICATION)
ALGORITHM = Analysis("algorithm", "3", ("roles.thresholds", "algorithm"), ("circuit", "roles"))
"""Of IOI only."""
PARTS = {"behaviour": (BEHAVIOUR,), "circuits": (SCORES, CIRCUIT, STABILITY), "algorithm": (VERIFICATION,)}
"""By what a checkpoint may be analysed for (`core/schedule.py`); `algorithm` also brings the roles and `ALGORITHM`."""
DTYPES = {"float32": torch.float32, "float64": torch.float64}


def tokenize_splits(subject: Subject, dataset: TaskDataset) -> Batches:
    """The splits of a data set as token ids of this model.

    Raises:
        ImpossibleRequest: the model has no tokenizer or another one than the data set was made with, an answer is not
            in its vocabulary, or a prompt is longer than its context.
    """
    tokenizer = subject.tokenizer
    if tokenizer is None:
        raise ImpossibleRequest(f"{subject.source} has no tokenizer.json: prompts cannot be tokenised.")
    if tokenizer.digest != dataset.tokenizer_digest:
        raise ImpossibleRequest(
            f"The data set {dataset.task} was made with tokenizer {dataset.tokenizer_digest}, but {subject.source} has "
            f"{tokenizer.digest}. Make the data sets again with this model's tokenizer."
        )
    batches = {split: tokenize(pairs, dataset.metric, tokenizer) for split, pairs in dataset.splits.items()}
    for split, batch in batches.items():
        largest = max(int(batch.clean.max()), int(batch.corrupted.max()), int(batch.answer_ids.max()))
        if largest >= subject.architecture.vocab:
            raise ImpossibleRequest(
                f"{dataset.task}/{split} holds token {largest}, but the vocabulary of {subject.source} ends at "
                f"{subject.architecture.vocab - 1}."
            )
        if int(batch.lengths.max()) > subject.architecture.context:
            raise ImpossibleRequest(
                f"{dataset.task}/{split} holds a prompt of {int(batch.lengths.max())} tokens, longer than the context "
                f"of {subject.source}, {subject.architecture.context}."
            )
    return batches


def analyse_behaviour(subject: Subject, batches: Batches, settings: AnalyseParams) -> Mapping[Split, Behaviour]:
    """Behaviour on every split."""
    found = {}
    for split, batch in batches.items():
        found[split] = behaviour_of(*pair_logits(subject, batch), batch, settings.behaviour)
    return found


def analyse_scores(
    subject: Subject, batches: Batches, behaviour: Mapping[Split, Behaviour], settings: AnalyseParams
) -> EdgeScores | None:
    """Edge scores on `discover`; None where the task is not learnt (METHODS 4.5) or they are not finite."""
    if verdict_on_behaviour(behaviour["discover"]) is not None:
        return None
    scores = score_edges(subject, batches["discover"], settings.attribution)
    return scores if scores.finite else None


@dataclass(frozen=True)
class CircuitSearch:
    """A circuit, and what the search measured on the way to it."""

    result: CircuitResult
    by_size: Mapping[int, Float[Tensor, " examples"]]
    """Metric of each example of `discover` by number of edges asked for, of every non-empty circuit on the curve or
    looked at by the search. In memory only: `analyse_stability` takes it."""
    clean: Float[Tensor, " examples"]
    """The same of the whole model ..."""
    corrupted: Float[Tensor, " examples"]
    """... and of the corrupted prompts. Both are empty where nothing was evaluated."""


def analyse_circuit(
    subject: Subject,
    batches: Batches,
    behaviour: Mapping[Split, Behaviour],
    scores: EdgeScores | None,
    settings: AnalyseParams,
    *,
    baselines: bool = False,
) -> CircuitResult:
    """The smallest faithful circuit on `discover`, its curve, and how it holds on `held_out` (see `search_circuit`)."""
    return search_circuit(subject, batches, behaviour, scores, settings, baselines=baselines).result


def search_circuit(
    subject: Subject,
    batches: Batches,
    behaviour: Mapping[Split, Behaviour],
    scores: EdgeScores | None,
    settings: AnalyseParams,
    *,
    baselines: bool = False,
) -> CircuitSearch:
    """The smallest faithful circuit on `discover`, its curve, and how it holds on `held_out`.

    Args:
        subject: the model.
        batches: `tokenize_splits` of the task.
        behaviour: `analyse_behaviour` of the task.
        scores: `analyse_scores` of the task.
        settings: sections `search` and `baselines` matter.
        baselines: put random circuits and complements beside the curve's points of `baselines.fractions`.
    """
    search, cap = settings.search, search_cap(subject.graph.n_edges, settings.search.range)
    before = verdict_before_search(behaviour["discover"], search)
    if scores is None:
        nothing = _nothing(before or Verdict("nan", "Some edge scores are not finite."), cap)
        return CircuitSearch(nothing, {}, torch.zeros(0), torch.zeros(0))
    measured = _measure(subject, batches, scores, settings, search_too=before is None)
    sizes = measured.sizes
    cpr, cmd = curve_areas(measured.curve)
    curve = tuple(_with_baselines(p, sizes, scores, settings) if baselines else p for p in measured.curve)
    if before is not None:
        return measured.search(replace(_nothing(before, cap), curve=curve, cpr=cpr, cmd=cmd))
    outcome = measured.outcome
    assert outcome is not None
    searched = tuple(sizes.point(n) for n in outcome.searched)
    asked = outcome.best if outcome.first is None else outcome.first
    circuit = sizes.ranking.circuit(asked)
    p95 = math.nan
    if outcome.first is not None:
        drawn = _random_faithfulness(circuit, sizes, scores, settings)
        p95 = percentile_95([in_form(f, search.faithfulness) for f in drawn])
    verdict = verdict_after_search(outcome, sizes, search, p95, cap)
    if verdict.status == "nan" or circuit.n_edges == 0:
        return measured.search(replace(_nothing(verdict, cap), curve=curve, searched=searched, cpr=cpr, cmd=cmd))
    result = CircuitResult(
        status=verdict.status,
        reason=verdict.reason,
        circuit=circuit,
        asked=asked,
        kept=circuit.n_edges,
        nodes=circuit.n_nodes,
        sustained=outcome.sustained,
        cap=cap,
        faithfulness={"discover": sizes.faithfulness(asked), **_held_out(subject, circuit, batches, settings)},
        random_p95=p95,
        curve=curve,
        searched=searched,
        cpr=cpr,
        cmd=cmd,
    )
    return measured.search(result)


@dataclass(frozen=True)
class _Measured:
    """The evaluations that a curve and a search ask for, always in the same order: the same numbers to the last bit."""

    sizes: Sizes
    curve: tuple[CurvePoint, ...]
    outcome: SearchOutcome | None
    """None: not searched."""
    clean: Float[Tensor, " examples"]
    corrupted: Float[Tensor, " examples"]

    def search(self, result: CircuitResult) -> CircuitSearch:
        by_size = {n: values for n, values in self.sizes.values.items() if self.sizes.ranking.kept[n] > 0}
        return CircuitSearch(result, by_size, self.clean, self.corrupted)


def _measure(
    subject: Subject, batches: Batches, scores: EdgeScores, settings: AnalyseParams, *, search_too: bool
) -> _Measured:
    search = settings.search
    evaluator = CircuitEvaluator(subject, batches["discover"], search.ablation)
    ends = Ends(float(evaluator.clean.double().mean()), float(evaluator.corrupted.double().mean()))
    sizes = Sizes(rank_edges(scores, search.selection), evaluator.evaluate, ends)
    curve = tuple(sizes.point(n, f) for f, n in fraction_sizes(search.fractions, subject.graph.n_edges))
    outcome = search_sizes(sizes, search) if search_too else None
    return _Measured(sizes, curve, outcome, evaluator.clean, evaluator.corrupted)


def analyse_stability(
    subject: Subject,
    batches: Batches,
    scores: EdgeScores | None,
    circuit: CircuitResult,
    settings: AnalyseParams,
    *,
    search: CircuitSearch | None = None,
) -> StabilityResult:
    """How far the circuit hangs on the examples of `discover` that it was found with (METHODS 8.3).

    Scores of every example are computed once more, resampled, and let go of. The interval on the size comes from the
    metrics by example that the search measured. Where the task is learnt but no circuit was found, circuits of matched
    sizes are compared alone.

    Args:
        subject: the model.
        batches: `tokenize_splits` of the task.
        scores: `analyse_scores` of the task.
        circuit: `analyse_circuit` of the task.
        settings: sections `stability`, `attribution` and `search` matter.
        search: the search that found `circuit`, where it has just been made; None: its circuits are evaluated again,
            which gives the same numbers.
    """
    draws = settings.stability
    if not draws.enabled:
        return stability_unmeasured(subject.graph, "Switched off (analyse.stability.enabled).")
    why = f"There is no faithful circuit: {circuit.status}."
    if scores is None or circuit.status == "not_learned":
        return stability_unmeasured(subject.graph, why)
    asked, batch = circuit.asked if circuit.status == "found" else None, batches["discover"]
    resampled = score_edges_resampled(subject, batch, settings.attribution, resampling_of(len(batch), draws))
    matched = [matched_size(subject.graph, share, draws.matched_floor) for share in draws.matched_fractions]
    found = resampled_stability(
        subject.graph, resampled, asked, draws.confidence, settings.search.selection, matched=matched
    )
    if asked is None:
        return matched_likeness(subject.graph, draws.resamples, found, why)
    if search is None:
        search = _measure(subject, batches, scores, settings, search_too=True).search(circuit)
    size = size_interval(
        search.by_size,
        search.clean,
        search.corrupted,
        draws,
        threshold=settings.search.threshold,
        form=settings.search.faithfulness,
    )
    return stability_measured(asked, draws.resamples, found, size)


def analyses_of(task: str, asked: Sequence[str] = ASKED) -> tuple[Analysis, ...]:
    """The analyses of a task that belong to what a checkpoint is `asked` for, each after those that it needs."""
    found: list[Analysis] = []
    for what in asked:
        found += PARTS[what]
    return (*found, ALGORITHM) if task == IOI and "algorithm" in asked else tuple(found)


def circuit_unasked() -> CircuitResult:
    """Of a checkpoint whose circuits are not asked for."""
    return _nothing(Verdict("not_measured", "Only its behaviour is asked for (checkpoints.coverage)."), 0)


def analyse_role(role: Role, subject: Subject, material: Material, known: Roles, settings: AnalyseParams) -> RoleScores:
    """One role of every head; `known` holds at least the roles that it needs."""
    needed = {name: known[name] for name in role.needs}
    return role.score(subject, replace(material, roles=needed), settings.roles)


def analyse_roles(subject: Subject, material: Material, settings: AnalyseParams) -> dict[str, RoleScores]:
    """Every role of the registry, in its order (METHODS 6)."""
    found: dict[str, RoleScores] = {}
    for role in ROLES.values():
        found[role.name] = analyse_role(role, subject, material, found, settings)
    return found


def role_holders(roles: Roles, settings: AnalyseParams) -> dict[str, tuple[Head, ...]]:
    """Which heads hold each role under these thresholds, strongest first."""
    return {name: holders(scores, settings.roles.thresholds) for name, scores in roles.items()}


def analyse_verification(
    subject: Subject,
    dataset: TaskDataset,
    batches: Batches,
    scores: EdgeScores | None,
    circuit: CircuitResult,
    roles: Roles,
    settings: AnalyseParams,
) -> Verification | None:
    """Checks of a faithful circuit (METHODS 7.8); None where none was found."""
    if circuit.circuit is None or circuit.status != "found":
        return None
    found, thresholds = circuit.circuit, settings.roles.thresholds
    return verify(subject, dataset.task, dataset, batches["discover"], found, scores, roles, thresholds)


def analyse_ioi(
    subject: Subject, batches: Batches, circuit: CircuitResult, roles: Roles, settings: AnalyseParams
) -> AlgorithmResult:
    """The algorithm of IOI on `discover` (METHODS 7); undefined where the task is not learnt.

    Shares of in-circuit heads are those of a circuit that was found.
    """
    if circuit.status == "not_learned":
        return AlgorithmResult("undefined", f"IOI is not learnt: {circuit.reason}", {}, {}, ())
    inside = circuit.circuit if circuit.status == "found" else None
    return analyse_algorithm(subject, batches["discover"], roles, inside, settings)


def analyse_task(
    subject: Subject, dataset: TaskDataset, settings: AnalyseParams, roles: Roles, *, baselines: bool = False
) -> TaskAnalysis:
    """All analyses of one task but its algorithm."""
    batches = tokenize_splits(subject, dataset)
    behaviour = analyse_behaviour(subject, batches, settings)
    scores = analyse_scores(subject, batches, behaviour, settings)
    search = search_circuit(subject, batches, behaviour, scores, settings, baselines=baselines)
    stability = analyse_stability(subject, batches, scores, search.result, settings, search=search)
    checks = analyse_verification(subject, dataset, batches, scores, search.result, roles, settings)
    return TaskAnalysis(dataset.task, dataset.digest, behaviour, scores, search.result, checks, stability)


def analyse_checkpoint(
    subject: Subject,
    ref: CheckpointRef,
    datasets: Mapping[str, TaskDataset],
    settings: AnalyseParams,
    *,
    baselines: bool = False,
    text: Texts | None = None,
) -> CheckpointAnalysis:
    """All tasks of one checkpoint, and what its heads do.

    Args:
        subject: the checkpoint's model, loaded once.
        ref: where it stands in its suite.
        datasets: by task; each needs the splits `discover` and `held_out`.
        settings: `params.analyse`.
        baselines: see `analyse_circuit`.
        text: ordinary text that the model was not trained on; without it the roles that need it are undefined.
    """
    roles = analyse_roles(subject, Material(datasets.get(IOI), text), settings)
    tasks = {
        task: analyse_task(subject, dataset, settings, roles, baselines=baselines) for task, dataset in datasets.items()
    }
    algorithm = None
    if IOI in datasets:
        batches = tokenize_splits(subject, datasets[IOI])
        algorithm = analyse_ioi(subject, batches, tasks[IOI].circuit, roles, settings)
    return CheckpointAnalysis(ref, subject.facts, tasks, roles, role_holders(roles, settings), algorithm)


def _held_out(
    subject: Subject, circuit: Circuit, batches: Batches, settings: AnalyseParams
) -> Mapping[Split, Faithfulness]:
    if "held_out" not in batches:
        return {}
    evaluator = CircuitEvaluator(subject, batches["held_out"], settings.search.ablation)
    ends = Ends(float(evaluator.clean.double().mean()), float(evaluator.corrupted.double().mean()))
    return {"held_out": ends.faithfulness(float(evaluator.evaluate(circuit).double().mean()))}


def _random_faithfulness(
    circuit: Circuit, sizes: Sizes, scores: EdgeScores, settings: AnalyseParams
) -> tuple[Faithfulness, ...]:
    """Faithfulness of random circuits of this circuit's kept size (METHODS 5.4)."""
    generator = torch.Generator().manual_seed(settings.baselines.seed)
    kept, draws = circuit.n_edges, settings.baselines.random_draws
    drawn = random_circuits(scores, kept, draws, generator, settings.search.selection)
    return tuple(sizes.ends.faithfulness(float(sizes.measure(c).double().mean())) for c in drawn)


def _with_baselines(point: CurvePoint, sizes: Sizes, scores: EdgeScores, settings: AnalyseParams) -> CurvePoint:
    if point.fraction not in settings.baselines.fractions:
        return point
    circuit = sizes.ranking.circuit(point.asked)
    without = sizes.ends.faithfulness(float(sizes.measure(complement(circuit)).double().mean()))
    return replace(point, complement=without, random=_random_faithfulness(circuit, sizes, scores, settings))


def _nothing(verdict: Verdict, cap: int) -> CircuitResult:
    """No circuit, and why."""
    return CircuitResult(
        status=verdict.status,
        reason=verdict.reason,
        circuit=None,
        asked=None,
        kept=None,
        nodes=None,
        sustained=None,
        cap=cap,
        faithfulness={},
        random_p95=math.nan,
        curve=(),
        searched=(),
        cpr=math.nan,
        cmd=math.nan,
    )

"""One checkpoint and task, opened to try settings at: scores are computed once and shared by all that use them.

Two kinds of units are kept in the job cache: the scores of one (method, rule, m) for every number of prompts, with
those of resampled prompts; and the evaluation of one setting. Each is computed in the same way whatever was computed
before it, so that an interrupted study ends with the same bytes.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import cast

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.analysis import BEHAVIOUR, CIRCUIT, DTYPES, SCORES, analyse_circuit, tokenize_splits
from ontogeny.attribution import score_edges_resampled
from ontogeny.core.behaviour import behaviour
from ontogeny.core.bootstrap import resample_weights
from ontogeny.core.circuit import Circuit, EdgeScores, Selection, rank_edges
from ontogeny.core.faithfulness import (
    Ends,
    SearchOutcome,
    Sizes,
    Verdict,
    in_form,
    search_cap,
    search_sizes,
    verdict_before_search,
    verdict_on_behaviour,
)
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import PairBatch, Split
from ontogeny.core.results import Behaviour, CheckpointRef, CircuitResult, Estimate
from ontogeny.core.stability import Quantiles, resampled_stability, size_interval
from ontogeny.core.tuning import UNKNOWN, Evaluation, ScoreSetting, Setting, TrialStatus
from ontogeny.execution.cache import JobCache
from ontogeny.execution.fingerprints import VERSIONS, fingerprint, torch_version
from ontogeny.models.checkpoints import Opener
from ontogeny.models.subject import Subject, load_subject, pair_logits
from ontogeny.params import AnalyseParams, AttributionParams, SearchParams, TuneParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.records.datasets import read_dataset
from ontogeny.tasks.tokenizer import FileTokenizer
from ontogeny.tuning.cost import KEPT, bench_bytes, passes


@dataclass(frozen=True)
class Place:
    """A checkpoint and a task at which settings are tried, and under which study settings."""

    name: str
    """``member@step``."""
    ref: CheckpointRef
    source: Opener
    """Opens it."""
    task: str
    dataset: Path
    digest: str
    """Of the data set."""
    analyse: AnalyseParams
    """Precision, bootstrap of behaviour and the search apart from what is tuned."""
    tune: TuneParams
    cache: Path
    device: str
    tokenizer_file: Path | None = None
    """The study's tokenizer; None: each checkpoint's own, which must be that of the data set."""

    @property
    def jobs(self) -> JobCache:
        """The job cache."""
        return JobCache(self.cache)

    @cached_property
    def search(self) -> SearchParams:
        """The search apart from what is tuned (and from the curve): that is the same whatever params.yaml says."""
        fixed = {"selection": "greedy", "threshold": 1.0, "fractions": (1.0,)}
        return self.analyse.search.model_copy(update=fixed)

    @property
    def facts(self) -> dict[str, object]:
        """What every number here depends on."""
        return {
            "versions": [VERSIONS["tuning"], *(analysis.version for analysis in (BEHAVIOUR, SCORES, CIRCUIT))],
            "torch": torch_version(),
            "device": self.device.split(":")[0],
            "precision": self.analyse.precision,
            "weights": self.ref.identity,
            "dataset": self.digest,
            "behaviour": self.analyse.behaviour.model_dump(mode="json"),
            "resampling": self.tune.resampling.model_dump(mode="json"),
            "seed": self.tune.seed,
        }

    def opened_key(self) -> str:
        """Fingerprint of what opening the checkpoint tells."""
        return fingerprint(kind="tuning-place", **self.facts)

    def scores_key(self, scores: ScoreSetting) -> str:
        """Fingerprint of a `ScoreUnit`."""
        truth = self.tune.truth.model_dump(mode="json", exclude={"tolerance"})
        shares = sorted(self.tune.space.examples)
        return fingerprint(kind="tuning-scores", scores=str(scores), shares=shares, truth=truth, **self.facts)

    def truth_key(self) -> str:
        """Fingerprint of the `exact` scores that others are judged against."""
        return fingerprint(kind="tuning-truth", examples=self.tune.truth.examples, **self.facts)

    def key(self, setting: Setting) -> str:
        """Fingerprint of an `Evaluation`."""
        return fingerprint(
            kind="tuning-evaluation",
            scores=self.scores_key(setting.scores),
            setting=list(setting.key),
            largest_threshold=self.largest_threshold(setting),
            search=self.search.model_dump(mode="json"),
        )

    def confirmed_key(self, setting: Setting) -> str:
        """Fingerprint of the setting's circuit held against random ones."""
        baselines = self.analyse.baselines.model_dump(mode="json", include={"random_draws", "seed"})
        return fingerprint(kind="tuning-confirmed", evaluation=self.key(setting), baselines=baselines)

    def largest_threshold(self, setting: Setting) -> float:
        """Up to where the sizes of a ranking are looked at, for the interval of a size."""
        return max(*self.tune.space.threshold, setting.threshold)


@dataclass(frozen=True)
class Opened:
    """What is known of a place before any setting is tried."""

    graph: GraphSpec
    status: str
    """``learned`` or ``not_learned`` (METHODS 4.5)."""
    reason: str


@dataclass(frozen=True)
class ScoreUnit:
    """Scores of one (method, rule, m)."""

    scores: Mapping[int, Tensor]
    """Number of prompts -> ``[writers, readers]``."""
    resampled: Tensor | None
    """``[1 + resamples, writers, readers]``: the mean over the prompts that the truth is known of, then those of
    resamples of them; none in graphs that are too large for it."""
    jaccard: Quantiles
    """Of the top edges of two resamples of all prompts."""
    seconds: float


@dataclass
class Bench:
    """A place with its model loaded."""

    place: Place
    subject: Subject
    batches: Mapping[Split, PairBatch]
    _evaluators: dict[object, CircuitEvaluator] = field(default_factory=dict)
    _sweeps: dict[object, tuple[Sizes, SearchOutcome]] = field(default_factory=dict)
    _behaviours: dict[int, Behaviour] = field(default_factory=dict)
    _metrics: dict[object, Tensor] = field(default_factory=dict)

    @property
    def graph(self) -> GraphSpec:
        """Of the model."""
        return self.subject.graph

    @property
    def bytes(self) -> int:
        """What it holds when everything has been evaluated."""
        batches = {split: (len(batch), batch.clean.shape[1]) for split, batch in self.batches.items()}
        _, tokens = batches.pop("discover")
        parts = {self.prompts(share) for share in self.place.tune.space.examples}
        evaluated = [*batches.values(), *((count, tokens) for count in parts)]
        subject = self.subject
        return bench_bytes(subject.architecture, subject.parameters, subject.dtype.itemsize, evaluated)

    @cached_property
    def discover(self) -> PairBatch:
        """The prompts of `discover` in a seeded order: the first N are used."""
        batch = self.batches["discover"]
        return batch.take(torch.randperm(len(batch), generator=torch.Generator().manual_seed(self.place.tune.seed)))

    def prompts(self, share: float) -> int:
        """How many prompts a share of them is."""
        return max(2, math.floor(share * len(self.discover) + 0.5))

    def opened(self) -> Opened:
        """Whether there is anything to tune here."""
        jobs, key = self.place.jobs, self.place.opened_key()
        known: Opened | None = jobs.load(Opened, key)
        if known is None:
            verdict = verdict_on_behaviour(self._behaviour(len(self.discover)))
            known = (
                Opened(self.graph, "learned", "")
                if verdict is None
                else Opened(self.graph, verdict.status, verdict.reason)
            )
            jobs.store(key, known)
        return known

    def scores(self, scores: ScoreSetting) -> ScoreUnit:
        """The scores of a (method, rule, m), from the cache or computed now."""
        jobs, key = self.place.jobs, self.place.scores_key(scores)
        known: ScoreUnit | None = jobs.load(ScoreUnit, key)
        if known is None:
            known = self._scores(scores)
            jobs.store(key, known)
        return known

    def truth(self) -> Tensor | None:
        """`exact` scores as in `ScoreUnit.resampled`, from the cache or computed now; none in too large graphs."""
        jobs, key, count = self.place.jobs, self.place.truth_key(), self._truth_prompts
        if not count:
            return None
        known: Tensor | None = jobs.load(Tensor, key)
        if known is None:
            settings = AttributionParams(method="exact")
            batch = self.discover.take(slice(count))
            known = score_edges_resampled(self.subject, batch, settings, self._with_resamples(count, count)).float()
            jobs.store(key, known)
        return known

    def evaluate(self, setting: Setting) -> Evaluation:
        """What a setting gives here, from the cache or computed now."""
        jobs, key = self.place.jobs, self.place.key(setting)
        known: Evaluation | None = jobs.load(Evaluation, key)
        if known is None:
            known = self._evaluate(setting)
            jobs.store(key, known)
        return known

    def confirm(self, setting: Setting) -> CircuitResult:
        """The setting's circuit as the study itself would find it, random circuits included."""
        jobs, key = self.place.jobs, self.place.confirmed_key(setting)
        known: CircuitResult | None = jobs.load(CircuitResult, key)
        if known is None:
            count = self.prompts(setting.examples)
            search = self.place.search.model_copy(
                update={"selection": setting.selection, "threshold": setting.threshold}
            )
            settings = self.place.analyse.model_copy(update={"search": search})
            batches = dict(self.batches) | {"discover": self.discover.take(slice(count))}
            behaviours: dict[Split, Behaviour] = {"discover": self._behaviour(count)}
            known = analyse_circuit(self.subject, batches, behaviours, self._edge_scores(setting), settings)
            jobs.store(key, known)
        return known

    def _scores(self, scores: ScoreSetting) -> ScoreUnit:
        """One attribution pass over the prompts gives all of it: means over parts and over resamples of them."""
        started = time.perf_counter()
        count, truth = len(self.discover), self._truth_prompts
        parts = sorted({self.prompts(share) for share in self.place.tune.space.examples})
        rows = [_first(part, count)[None] for part in parts]
        rows += [self._with_resamples(truth, count)] if truth else []
        split = sum(map(len, rows))
        settings = AttributionParams.model_validate(
            {"method": scores.method} | ({"rule": scores.rule, "steps": scores.steps} if scores.steps else {})
        )
        shares = torch.cat([*rows, self._with_resamples(count, count)[1:]])
        means = score_edges_resampled(self.subject, self.discover, settings, shares)
        return ScoreUnit(
            scores=dict(zip(parts, means[: len(parts)].float())),
            resampled=means[len(parts) : split].float() if truth else None,
            jaccard=self._jaccard(means[split:]),
            seconds=time.perf_counter() - started,
        )

    def _with_resamples(self, used: int, count: int) -> Float[Tensor, "rows pairs"]:
        """Shares of `count` prompts: the first `used` alike, then resamples of these."""
        draws = self.place.tune.resampling
        weights = resample_weights(used, draws.resamples, torch.Generator().manual_seed(draws.seed))
        rest = torch.zeros(draws.resamples, count - used, dtype=weights.dtype)
        return torch.cat([_first(used, count)[None], torch.cat([weights, rest], dim=1)])

    @property
    def _truth_prompts(self) -> int:
        """Prompts that the truth is known of; 0 where it is not affordable."""
        truth = self.place.tune.truth
        return min(truth.examples, len(self.discover)) if self.graph.n_edges <= truth.up_to_edges else 0

    def _jaccard(self, resampled: Tensor) -> Quantiles:
        draws = self.place.tune.resampling
        return resampled_stability(self.graph, resampled, top_edges(self.place, self.graph), draws.confidence).jaccard

    def _behaviour(self, count: int) -> Behaviour:
        if count not in self._behaviours:
            batch = self.discover.take(slice(count))
            settings = self.place.analyse.behaviour
            self._behaviours[count] = behaviour(*pair_logits(self.subject, batch), batch, settings)
        return self._behaviours[count]

    def _edge_scores(self, setting: Setting) -> EdgeScores:
        values = self.scores(setting.scores).scores[self.prompts(setting.examples)]
        return EdgeScores(self.graph, values, str(setting.scores))

    def _evaluate(self, setting: Setting) -> Evaluation:
        started = time.perf_counter()
        count = self.prompts(setting.examples)
        cost = passes(setting.scores, self.graph)
        nothing = Evaluation("nan", "", count, forward=cost.forward, backward=cost.backward)
        search = self.place.search.model_copy(update={"threshold": setting.threshold})
        verdict = verdict_before_search(self._behaviour(count), search)
        if verdict is None and not self._edge_scores(setting).finite:
            verdict = Verdict("nan", "Some edge scores are not finite.")
        if verdict is not None:
            return replace(nothing, status=cast(TrialStatus, verdict.status), reason=verdict.reason)
        sizes, looked = self._swept(setting, count)
        outcome = search_sizes(sizes, search)
        asked = outcome.best if outcome.first is None else outcome.first
        circuit = sizes.ranking.circuit(asked)
        if not outcome.finite or circuit.n_edges == 0:
            return replace(nothing, reason="The faithfulness of a circuit is not finite, or no circuit has an edge.")
        cap = search_cap(self.graph.n_edges, search.range)
        reason = (
            "" if outcome.first is not None else f"No circuit of up to {cap} edges asked for reaches the threshold."
        )
        low, high = self._interval(sizes, {*looked.searched, *outcome.searched}, count, search)
        return replace(
            nothing,
            status="threshold_unmet" if outcome.first is None else "reached",
            reason=reason,
            asked=asked,
            kept=circuit.n_edges,
            nodes=circuit.n_nodes,
            edges=circuit.n_edges / self.graph.n_edges,
            edges_low=low,
            edges_high=high,
            discover=in_form(sizes.faithfulness(asked), search.faithfulness),
            tune=self._faithfulness("tune", circuit),
            held_out=self._faithfulness("held_out", circuit),
            circuits=len(outcome.searched),
            seconds=time.perf_counter() - started,
        )

    def _swept(self, setting: Setting, count: int) -> tuple[Sizes, SearchOutcome]:
        """The sizes of a ranking, looked at up to the largest threshold, and that search.

        Each caller gets a copy and an evaluator that remembers nothing: the last bits of a circuit's metric may depend
        on what was evaluated before it.
        """
        largest = self.place.largest_threshold(setting)
        key = (setting.scores, setting.selection, count, largest)
        evaluator = self._evaluator("discover", count)
        evaluator.forget()
        if key not in self._sweeps:
            ends = Ends(float(evaluator.clean.double().mean()), float(evaluator.corrupted.double().mean()))
            ranking = rank_edges(self._edge_scores(setting), cast(Selection, setting.selection))
            sizes = Sizes(ranking, evaluator.evaluate, ends)
            outcome = search_sizes(sizes, self.place.search.model_copy(update={"threshold": largest}))
            self._sweeps[key] = sizes, outcome
            evaluator.forget()
        sizes, outcome = self._sweeps[key]
        return replace(sizes, values=dict(sizes.values)), outcome

    def _interval(self, sizes: Sizes, looked: set[int], count: int, search: SearchParams) -> tuple[float, float]:
        """Ends of the interval of the share of edges kept, at this ranking."""
        evaluator, kept = self._evaluator("discover", count), sizes.ranking.kept
        by_size = {n: sizes.values[n] for n in looked if kept[n] > 0}
        found = size_interval(
            by_size,
            evaluator.clean,
            evaluator.corrupted,
            self.place.tune.resampling,
            threshold=search.threshold,
            form=search.faithfulness,
        )
        low, high = (math.nan if n is None else float(kept[n]) / self.graph.n_edges for n in (found.low, found.high))
        return low, high

    def _faithfulness(self, split: Split, circuit: Circuit) -> Estimate:
        """Of a circuit on a split, with its interval over prompts: a ratio of means in every resample."""
        if split not in self.batches:
            return UNKNOWN
        evaluator = self._evaluator(split, len(self.batches[split]))
        key = (split, circuit.edges.numpy().tobytes())
        if key not in self._metrics:
            evaluator.forget()
            self._metrics[key] = evaluator.evaluate(circuit)
        columns = torch.stack([evaluator.clean, evaluator.corrupted, self._metrics[key]], dim=1).double()
        means = self._with_resamples(len(columns), len(columns)) @ columns
        form = self.place.search.faithfulness
        ratios = [in_form(Ends(clean, corrupted).faithfulness(m), form) for clean, corrupted, m in means.tolist()]
        return interval(torch.tensor(ratios, dtype=torch.float64), self.place.tune.resampling.confidence)

    def _evaluator(self, split: Split, count: int) -> CircuitEvaluator:
        if (split, count) not in self._evaluators:
            batch = self.discover.take(slice(count)) if split == "discover" else self.batches[split]
            self._evaluators[split, count] = CircuitEvaluator(self.subject, batch, self.place.search.ablation)
        return self._evaluators[split, count]


def top_edges(place: Place, graph: GraphSpec) -> int:
    """How many edges count as the top ones."""
    return max(1, math.floor(place.tune.truth.top * graph.n_edges + 0.5))


def interval(values: Float[Tensor, " rows"], confidence: float) -> Estimate:
    """The first of `values`, and the ends of the percentile interval of the rest (its resamples)."""
    tail = (1.0 - confidence) / 2.0
    low, high = values[1:].quantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64)).tolist()
    return Estimate(float(values[0]), low, high)


_benches: dict[Place, Bench] = {}
"""Those that this worker keeps; the one that was used last is the last."""


def open_bench(place: Place) -> Bench:
    """Load the model of a place; a worker keeps those that it used last, as far as they take no more than `KEPT`.

    Raises:
        BadCheckpoint: the checkpoint cannot be read, or is not the one that the reference names.
        ImpossibleRequest: the data set was made for another tokenizer.
    """
    bench = _benches.pop(place, None) or _loaded(place)
    _benches[place] = bench
    while len(_benches) > 1 and sum(each.bytes for each in _benches.values()) > KEPT:
        del _benches[next(iter(_benches))]
    return bench


def _loaded(place: Place) -> Bench:
    with place.source.opened(place.ref) as folder:
        subject = load_subject(
            folder,
            device=place.device,
            dtype=DTYPES[place.analyse.precision],
            tokenizer=None if place.tokenizer_file is None else FileTokenizer(place.tokenizer_file),
        )
    return Bench(place, subject, tokenize_splits(subject, read_dataset(place.dataset)))


def _first(used: int, count: int) -> Float[Tensor, " pairs"]:
    """Shares of `count` prompts: the first `used` alike, the others 0."""
    shares = torch.zeros(count, dtype=torch.float64)
    shares[:used] = 1.0 / used
    return shares

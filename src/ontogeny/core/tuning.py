"""What is known of a search for good settings: which were tried, what they gave, and what follows.

A *setting* is a way to find a circuit. It is tried at one or more checkpoints of a task: scores and search use the
first N prompts of `discover`, the constraint is judged on `tune`, the report is on `held_out` (METHODS 4.3).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from ontogeny.core.results import Estimate
from ontogeny.core.stability import Quantiles

NAMES = ("method", "rule", "steps", "selection", "threshold", "examples")
"""Of what is searched, in the order in which settings are sorted."""
WITH_STEPS = ("eap_ig", "eap_ig_activations", "ceap")
"""Methods that take m points of a path; the others have no `steps` and no `rule`."""

TrialStatus = Literal["reached", "threshold_unmet", "not_learned", "trivial", "nan", "failed"]
"""`reached`: the search met the threshold (whether random circuits would too is looked at for the recommended setting
only); `failed`: the job did not end; the others as in METHODS 4.5."""


@dataclass(frozen=True)
class Setting:
    """One way to find a circuit."""

    method: str
    rule: str
    """Empty for a method without a path."""
    steps: int
    """m; 0 for a method without a path."""
    selection: str
    threshold: float
    """tau of the search on `discover`."""
    examples: float
    """Share of the prompts of `discover` that are used."""

    @property
    def key(self) -> tuple[str, str, int, str, float, float]:
        """Its values in the order of `NAMES`: settings are sorted by it."""
        return (self.method, self.rule, self.steps, self.selection, self.threshold, self.examples)

    @property
    def scores(self) -> ScoreSetting:
        """The part of it that scores depend on, besides the number of prompts."""
        return ScoreSetting(self.method, self.rule, self.steps)

    def __str__(self) -> str:
        return f"{self.scores}, {self.selection}, threshold {self.threshold:g}, {self.examples:.0%} of the prompts"


@dataclass(frozen=True, order=True)
class ScoreSetting:
    """How edges are scored."""

    method: str
    rule: str
    steps: int

    def __str__(self) -> str:
        return f"{self.method} (m = {self.steps}, {self.rule})" if self.steps else self.method


def setting(method: str, rule: str, steps: int, selection: str, threshold: float, examples: float) -> Setting:
    """A setting in its one form: a method without a path has no rule and no steps."""
    if method not in WITH_STEPS:
        rule, steps = "", 0
    return Setting(method, rule, steps, selection, float(threshold), float(examples))


BASELINES: Mapping[str, Setting] = {
    "paper": setting("eap_ig", "right", 5, "greedy", 0.8, 1.0),
    "code": setting("eap_ig", "right", 30, "greedy", 0.8, 1.0),
}
"""The paper's setting (m = 5), and what the scripts of its code pass (m = 30, METHODS 3.4)."""


UNKNOWN = Estimate(math.nan, math.nan, math.nan)
"""A number that there is not; a status or reason says why."""


@dataclass(frozen=True)
class Evaluation:
    """One setting at one checkpoint. Faithfulness is in the form that the study's search uses (raw by default)."""

    status: TrialStatus
    reason: str
    """One sentence; empty for `reached`."""
    prompts: int
    """Prompts of `discover` used."""
    asked: int | None = None
    kept: int | None = None
    """Edges after pruning."""
    nodes: int | None = None
    edges: float = math.nan
    """Edges kept as a share of the graph's."""
    edges_low: float = math.nan
    edges_high: float = math.nan
    """Percentile interval of `edges` over resampled prompts at this ranking; NaN: beyond the sizes looked at."""
    discover: float = math.nan
    """Faithfulness on the prompts that the search used."""
    tune: Estimate = UNKNOWN
    held_out: Estimate = UNKNOWN
    forward: int = 0
    """Forward passes that the scores take, for each prompt pair ..."""
    backward: int = 0
    """... and backward passes."""
    circuits: int = 0
    """Circuits that the search evaluated."""
    seconds: float = math.nan
    """Of scoring and search in the process that did them; information only, never in a result that is hashed."""

    @property
    def passes(self) -> float:
        """Cost: forward and backward passes of one prompt through the model that the scores take."""
        return float(self.prompts * (self.forward + self.backward))


@dataclass(frozen=True)
class Trial:
    """One setting at all checkpoints of a study."""

    setting: Setting
    baseline: str
    """A key of `BASELINES`, or empty."""
    evaluations: Mapping[str, Evaluation]
    """By checkpoint (``member@step``)."""

    @property
    def complete(self) -> bool:
        """Whether there is a circuit at every checkpoint: its numbers exist."""
        return all(e.kept is not None and not math.isnan(e.tune.value) for e in self.evaluations.values())

    @property
    def edges(self) -> float:
        """Mean over checkpoints of the share of edges kept."""
        return _mean([e.edges for e in self.evaluations.values()])

    @property
    def passes(self) -> float:
        """Mean over checkpoints of the cost."""
        return _mean([e.passes for e in self.evaluations.values()])

    @property
    def faithfulness(self) -> float:
        """Least faithfulness on `tune` over checkpoints."""
        return _least([e.tune.value for e in self.evaluations.values()])

    @property
    def held_out(self) -> float:
        """Least faithfulness on `held_out` over checkpoints."""
        return _least([e.held_out.value for e in self.evaluations.values()])

    def violation(self, target: float) -> float:
        """How far it is from what is asked of it: <= 0 means that `tune` keeps at least `target` everywhere and that
        every search met its threshold; infinite without circuits.
        """
        if not self.complete:
            return math.inf
        short = target - self.faithfulness
        unmet = sum(e.status != "reached" for e in self.evaluations.values())
        return max(short, 0.0) + unmet if unmet else short

    def at(self, checkpoints: Sequence[str]) -> Trial:
        """The same at some of its checkpoints."""
        return replace(self, evaluations={name: self.evaluations[name] for name in checkpoints})


@dataclass(frozen=True)
class TunedCheckpoint:
    """A checkpoint that settings are tried at."""

    name: str
    """``member@step``."""
    member: str
    scale: str
    step: int
    tokens: int
    weights: str
    """Digest."""
    edges: int
    """Of the graph; 0 where it was never opened."""
    status: Literal["learned", "not_learned", "failed"]
    reason: str


@dataclass(frozen=True)
class StepQuality:
    """How well scores rank the edges, against `exact` scores of the same prompts (Spearman of the scores, overlap of
    the top edges by |score|), and against themselves on other prompts (Jaccard of the top edges).
    """

    checkpoint: str
    scores: ScoreSetting
    forward: int
    backward: int
    """Passes for each prompt pair."""
    spearman: Estimate
    overlap: Estimate
    behind: Estimate
    """Spearman of the same method's and rule's largest m minus this one's; the interval is paired over prompts."""
    jaccard: Quantiles


@dataclass(frozen=True)
class EnoughSteps:
    """The least m whose Spearman is surely within the tolerance of the largest m's."""

    checkpoint: str
    method: str
    rule: str
    steps: int | None
    """None: none but the largest m, or there is no truth to compare with."""
    largest: int
    gap: Estimate
    """`StepQuality.behind` of `steps`."""


@dataclass(frozen=True)
class Carried:
    """The best setting found at one checkpoint, at another one."""

    source: str
    target: str
    setting: Setting
    edges: Estimate
    """At the target, with its interval over prompts."""
    own_edges: float
    """Of the target's own best setting."""
    tune: Estimate
    held_out: Estimate
    carries: bool
    """Whether the threshold is met and `tune` keeps the target faithfulness there."""


@dataclass(frozen=True)
class Confirmed:
    """The recommended setting's circuit at a checkpoint, held against random circuits of its size (METHODS 5.4)."""

    checkpoint: str
    status: str
    reason: str
    random_p95: float


@dataclass(frozen=True)
class Recommendation:
    """The setting to use, and why."""

    setting: Setting | None
    reason: str
    edges: float = math.nan
    passes: float = math.nan
    faithfulness: float = math.nan
    held_out: float = math.nan
    confirmed: tuple[Confirmed, ...] = ()


@dataclass(frozen=True)
class TuningRecord:
    """All that one search for settings found."""

    name: str
    task: str
    mode: Literal["grid", "multi", "single"]
    dataset: str
    """Digest of the task's data set."""
    target: float
    form: Literal["raw", "normalised"]
    """Of every faithfulness here."""
    confidence: float
    checkpoints: tuple[TunedCheckpoint, ...]
    trials: tuple[Trial, ...]
    """Sorted by setting in a grid; in the order in which they were tried otherwise."""
    quality: tuple[StepQuality, ...]
    enough: tuple[EnoughSteps, ...]
    carried: tuple[Carried, ...]
    front: tuple[int, ...]
    """Places in `trials`: feasible, and no other is at least as good in edges, cost and faithfulness and better in
    one."""
    importances: Mapping[str, Mapping[str, float]]
    """Objective -> name of what is searched -> share of the variance explained (PED-ANOVA)."""
    recommended: Recommendation
    adoptable: Recommendation
    """The same among settings that params.yaml can say: with all prompts."""


def _mean(values: list[float]) -> float:
    return math.fsum(values) / len(values) if values else math.nan


def _least(values: list[float]) -> float:
    return math.nan if not values or any(map(math.isnan, values)) else min(values)

"""What is known of one checkpoint: the frozen records that analysis returns, disk keeps and MLflow shows.

An undefined number is NaN, and the status beside it says why (METHODS 4.5). On disk NaN is null.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.core.algorithm import AlgorithmResult, Verification
from ontogeny.core.circuit import Circuit, EdgeScores
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import Split
from ontogeny.core.roles import Head, RoleScores
from ontogeny.core.schedule import ANALYSES, Analysis

IOI = "ioi"
"""The task on whose prompts some roles are measured, and whose algorithm is followed."""
Status = Literal["found", "threshold_unmet", "not_learned", "trivial", "nan", "not_measured"]


@dataclass(frozen=True)
class CheckpointRef:
    """One checkpoint of one member of a suite."""

    suite: str
    member: str
    scale: str
    seed: int
    step: int
    tokens: int
    """Tokens seen in training before this checkpoint."""
    path: str
    """Folder of the Hugging Face checkpoint, absolute or relative to the study's, or ``REPOSITORY@REVISION``."""
    weights_digest: str
    """SHA-256 of the weights, first 32 hex digits: of the tensors, or on a hub of the hashes of their files."""
    commit: str = ""
    """On a hub: the commit that the revision was when it was pinned."""
    config_digest: str = ""
    """SHA-256 of what the config says of the model's numbers; empty where the scale says it all."""
    analyses: tuple[Analysis, ...] = ANALYSES
    """What it is analysed for."""

    @property
    def identity(self) -> str:
        """What the model is: its weights, and what is done with them."""
        return f"{self.weights_digest} {self.config_digest}" if self.config_digest else self.weights_digest


@dataclass(frozen=True)
class ModelFacts:
    """What the analysis needs to remember of a model."""

    graph: GraphSpec
    d_model: int
    d_head: int
    parameters: int


@dataclass(frozen=True)
class Estimate:
    """A mean over examples and the ends of its bootstrap interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Behaviour:
    """How well a checkpoint does a task on one split (METHODS 2.5)."""

    metric: Estimate
    """The task's metric on clean prompts: logits (logit_diff) or probability (prob_diff)."""
    corrupted: Estimate
    """The same answers' metric on the corrupted prompts."""
    difference: Estimate
    """Paired: clean minus corrupted."""
    accuracy: Estimate
    """Share of examples whose metric is > 0."""
    rank0: Estimate
    """Share of examples whose most likely token is a correct answer."""
    mass: Estimate
    """Probability on all answers, correct and incorrect."""
    examples: int


@dataclass(frozen=True)
class Faithfulness:
    """Both forms, of the ratio of means (METHODS 4.4)."""

    metric: float
    """M(circuit)."""
    raw: float
    """M(circuit) / M(model)."""
    normalised: float
    """(M(circuit) - M(corrupted)) / (M(model) - M(corrupted))."""


@dataclass(frozen=True)
class CurvePoint:
    """A circuit of one size on a faithfulness curve."""

    fraction: float
    """Of the graph's edges that was asked for; NaN for a size that the search looked at."""
    asked: int
    kept: int
    faithfulness: Faithfulness
    complement: Faithfulness | None = None
    """With this circuit removed from the full graph (METHODS 5.4)."""
    random: tuple[Faithfulness, ...] = ()
    """Random circuits of about this kept size."""


@dataclass(frozen=True)
class CircuitResult:
    """The outcome of a search: never a made-up size (METHODS 4.5)."""

    status: Status
    reason: str
    """One sentence, empty for `found`."""
    circuit: Circuit | None
    """The smallest faithful circuit; for `threshold_unmet` the best one; otherwise none."""
    asked: int | None
    """n asked for (`size_first`)."""
    kept: int | None
    """Edges after pruning."""
    nodes: int | None
    """Nodes after pruning, input and logits included."""
    sustained: int | None
    """`size_sustained`: least n from which faithfulness holds for the next few sizes."""
    cap: int
    """Largest n that was allowed."""
    faithfulness: Mapping[Split, Faithfulness]
    """Of the chosen circuit, on the split it was searched on and on `held_out`."""
    random_p95: float
    """95th percentile of the faithfulness of random circuits of the same kept size, in the threshold's form."""
    curve: tuple[CurvePoint, ...]
    """At MIB's fractions of the graph."""
    searched: tuple[CurvePoint, ...]
    """Every size that the search evaluated, ascending."""
    cpr: float
    """Area under the normalised curve, trapezoids over fractions."""
    cmd: float
    """Area between the normalised curve and 1."""


@dataclass(frozen=True)
class Quantiles:
    """Median and the ends of a percentile interval."""

    low: float
    median: float
    high: float


@dataclass(frozen=True)
class Likeness:
    """How alike the circuits of two resamples of the examples are, over all pairs of resamples."""

    size: Literal["found", "matched", "weighted"]
    """Circuits of as many asked edges as the found one; circuits that keep at least `kept` edges; or all edges and
    nodes by their shares of |score| (`weighted_jaccard`, `weighted_nodes`)."""
    kept: int | None
    """Edges that matched circuits were grown to keep."""
    edges: Quantiles
    """Jaccard of edges; NaN where all circuits are empty, or all scores zero."""
    nodes: Quantiles


def jaccard_of(likeness: Sequence[Likeness]) -> Quantiles:
    """Of the edges of found circuits; NaN where there are none."""
    found = [each.edges for each in likeness if each.size == "found"]
    return found[0] if found else Quantiles(math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class SizeInterval:
    """Percentile interval of the smallest faithful size at a fixed ranking."""

    low: int | None
    median: int | None
    high: int | None
    """None: beyond the largest size that was evaluated."""
    unmet: float
    """Share of resamples in which no evaluated size is faithful."""


@dataclass(frozen=True)
class StabilityResult:
    """What is kept of one checkpoint and task: a summary, never scores by example (METHODS 8.3)."""

    status: Literal["measured", "not_measured"]
    """Of the circuit that was found."""
    reason: str
    """One sentence why it was not measured, empty if it was."""
    graph: GraphSpec
    asked: int | None
    """Edges asked for in every resample: the size of the circuit that was found."""
    resamples: int
    """0: nothing was measured."""
    edges: Int[Tensor, "edges 2"]
    """Writer and reader of every edge that some resample's pruned circuit holds; by writer, then reader."""
    inclusion: Float[Tensor, " edges"]
    """Share of resamples whose circuit holds the edge, float64."""
    core: int
    """How many edges are in at least 90 % of the resamples."""
    likeness: tuple[Likeness, ...]
    """Of found, matched and weighted circuits; those of matched sizes and all edges also where no circuit was found."""
    size: SizeInterval | None
    """Of the smallest faithful size at the ranking that was found; None where stability was not measured."""

    @property
    def jaccard(self) -> Quantiles:
        """Of the edges of two resamples' circuits, each as large as the one that was found; NaN where none was."""
        return jaccard_of(self.likeness)

    @property
    def inclusion_by_name(self) -> dict[str, float]:
        """The same by edge name."""
        names = (self.graph.edge_name(u, v) for u, v in self.edges.tolist())
        return dict(zip(names, self.inclusion.tolist()))


@dataclass(frozen=True)
class TaskAnalysis:
    """One task at one checkpoint."""

    task: str
    dataset_digest: str
    behaviour: Mapping[Split, Behaviour]
    scores: EdgeScores | None
    """None where the scores are not finite or were not asked for."""
    circuit: CircuitResult
    verification: Verification | None = None
    """None where there is no circuit to verify."""
    stability: StabilityResult | None = None
    """What happens to the circuit when its examples are drawn again."""


@dataclass(frozen=True)
class CheckpointAnalysis:
    """One checkpoint, all its tasks."""

    ref: CheckpointRef
    model: ModelFacts
    tasks: Mapping[str, TaskAnalysis]
    roles: Mapping[str, RoleScores] = field(default_factory=dict)
    """By role, every head."""
    holders: Mapping[str, tuple[Head, ...]] = field(default_factory=dict)
    """By role, the heads that hold it under the study's thresholds, strongest first."""
    algorithm: AlgorithmResult | None = None
    """Of IOI; None where the study has no such task."""

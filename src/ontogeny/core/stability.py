"""How far a circuit hangs on the examples that it was found with: bootstrap over examples, inside the job.

Scores of every example live in memory while this runs; what is kept is a summary. Prompts are the unit of resampling,
so that the noise between training runs is left out (METHODS 0.1).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.core.bootstrap import Resampling, resample_weights
from ontogeny.core.circuit import Circuit, EdgeScores, Selection, node_strengths, rank_edges
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.faithfulness import Ends, Form, in_form
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import Likeness, Quantiles, SizeInterval, StabilityResult, jaccard_of

STABLE = 0.9
"""An edge in at least this share of resamples belongs to the stable core."""


@dataclass(frozen=True)
class CircuitStability:
    """What happens to the circuit of one size when the examples are drawn again."""

    graph: GraphSpec
    inclusion: Float[Tensor, "writers readers"]
    """Share of resamples whose pruned circuit holds the edge; 0 throughout where no size was asked for."""
    likeness: tuple[Likeness, ...]
    """Over all pairs of resamples but those of two empty circuits; NaN where there is no other."""

    @property
    def jaccard(self) -> Quantiles:
        """Of the edges of circuits of the size asked for; NaN where none was."""
        return jaccard_of(self.likeness)

    @property
    def core(self) -> Circuit:
        """Edges in at least 90 % of the resamples; not pruned."""
        return Circuit(self.graph, self.inclusion >= STABLE - 1e-9)


def stability_unmeasured(graph: GraphSpec, reason: str) -> StabilityResult:
    """No measurement, and why."""
    return StabilityResult(
        status="not_measured",
        reason=reason,
        graph=graph,
        asked=None,
        resamples=0,
        edges=torch.zeros(0, 2, dtype=torch.int64),
        inclusion=torch.zeros(0, dtype=torch.float64),
        core=0,
        likeness=(),
        size=None,
    )


def matched_likeness(graph: GraphSpec, resamples: int, found: CircuitStability, reason: str) -> StabilityResult:
    """The summary where no circuit was found, and only circuits of matched sizes are compared."""
    return replace(stability_unmeasured(graph, reason), resamples=resamples, likeness=found.likeness)


def stability_measured(asked: int, resamples: int, found: CircuitStability, size: SizeInterval) -> StabilityResult:
    """The summary of a measurement of a circuit that was found."""
    edges = found.inclusion.nonzero()
    return StabilityResult(
        status="measured",
        reason="",
        graph=found.graph,
        asked=asked,
        resamples=resamples,
        edges=edges,
        inclusion=found.inclusion[edges[:, 0], edges[:, 1]],
        core=found.core.n_edges,
        likeness=found.likeness,
        size=size,
    )


def circuit_stability(
    graph: GraphSpec,
    by_example: Float[Tensor, "examples writers readers"],
    asked: int | None,
    settings: Resampling,
    selection: Selection = "greedy",
    *,
    matched: Sequence[int] = (),
) -> CircuitStability:
    """Rank the edges anew in every resample and compare the pruned circuits of `asked` edges.

    Args:
        graph: of the model.
        by_example: scores whose mean over examples is what edges are ranked by (`score_edges_by_example`).
        asked: how many edges each circuit asks for; None: there is no such size.
        settings: resamples, confidence, seed.
        selection: how edges are ranked.
        matched: edges that circuits are grown to keep, for their likeness.

    Raises:
        ImpossibleRequest: fewer than two resamples, a score that is not finite, or more edges than there are.
    """
    flat = by_example.detach().to("cpu", torch.float64).flatten(1)
    resampled = (resampling_of(len(flat), settings) @ flat).view(-1, *graph.real_edges.shape)
    return resampled_stability(graph, resampled, asked, settings.confidence, selection, matched=matched)


def resampling_of(examples: int, settings: Resampling) -> Float[Tensor, "resamples examples"]:
    """Share of each example in each resample; what is resampled under the same settings is resampled alike.

    Raises:
        ImpossibleRequest: fewer than two resamples.
    """
    if settings.resamples < 2:
        raise ImpossibleRequest(f"Circuits of {settings.resamples} resamples cannot be compared: ask for 2 or more.")
    return resample_weights(examples, settings.resamples, torch.Generator().manual_seed(settings.seed))


def resampled_stability(
    graph: GraphSpec,
    resampled: Float[Tensor, "resamples writers readers"],
    asked: int | None,
    confidence: float,
    selection: Selection = "greedy",
    *,
    matched: Sequence[int] = (),
) -> CircuitStability:
    """`circuit_stability` from the mean scores of each resample."""
    circuits: dict[int | None, list[Circuit]] = {kept: [] for kept in ([] if asked is None else [None]) + [*matched]}
    for values in resampled:
        ranking = rank_edges(EdgeScores(graph, values, "resampled"), selection)
        for kept, found in circuits.items():
            found.append(ranking.circuit(asked if kept is None else ranking.size_keeping(kept)))  # type: ignore[arg-type]
    inclusion = torch.zeros(graph.real_edges.shape, dtype=torch.float64)
    if asked is not None:
        inclusion = torch.stack([circuit.edges for circuit in circuits[None]]).double().mean(dim=0)
    likeness = [
        Likeness(
            "found" if kept is None else "matched",
            kept,
            _over_pairs(_jaccard(torch.stack([circuit.edges.flatten() for circuit in found])), confidence),
            _over_pairs(_jaccard(torch.stack([circuit.nodes for circuit in found])), confidence),
        )
        for kept, found in circuits.items()
    ]
    strengths = torch.stack([node_strengths(EdgeScores(graph, values, "resampled")) for values in resampled])
    weighted = (_over_pairs(_weighted_jaccard(shares), confidence) for shares in (resampled.flatten(1), strengths))
    return CircuitStability(graph, inclusion, (*likeness, Likeness("weighted", None, *weighted)))


def _jaccard(rows: Bool[Tensor, "resamples things"]) -> Float[Tensor, "resamples resamples"]:
    """Of every row with every other; only what some row holds is looked at."""
    chosen = rows[:, rows.any(dim=0)].double()
    common, sizes = chosen @ chosen.T, chosen.sum(dim=1)
    return common / (sizes[:, None] + sizes[None, :] - common)


def _weighted_jaccard(rows: Float[Tensor, "resamples things"]) -> Float[Tensor, "resamples resamples"]:
    """Sum of minima over sum of maxima of the rows' shares: both follow from the distance, as the shares sum to 1."""
    strength = rows.double().abs()
    shares = strength / strength.sum(dim=1, keepdim=True)
    apart = torch.cdist(shares, shares, p=1.0)
    return (2.0 - apart) / (2.0 + apart)


def _over_pairs(alike: Float[Tensor, "resamples resamples"], confidence: float) -> Quantiles:
    """Over all pairs of different resamples."""
    values = alike[torch.ones_like(alike).triu(diagonal=1).bool()]
    tail = (1.0 - confidence) / 2.0
    low, median, high = values.nanquantile(torch.tensor([tail, 0.5, 1.0 - tail], dtype=torch.float64)).tolist()
    return Quantiles(low, median, high)


def size_interval(
    metrics: Mapping[int, Float[Tensor, " examples"]],
    clean: Float[Tensor, " examples"],
    corrupted: Float[Tensor, " examples"],
    settings: Resampling,
    *,
    threshold: float,
    form: Form = "raw",
) -> SizeInterval:
    """The smallest faithful of the sizes already evaluated, in every resample: no new forward pass.

    Args:
        metrics: metric of each example by number of edges asked for; non-empty circuits of one ranking.
        clean: metric of each example under the whole model.
        corrupted: the same on the corrupted prompts.
        settings: resamples, confidence, seed.
        threshold: tau: a circuit is faithful from here on.
        form: of faithfulness. Where its denominator is not above 0 in a resample, no size is faithful there.

    Raises:
        ImpossibleRequest: no size was evaluated.
    """
    if not metrics:
        raise ImpossibleRequest("A size interval was asked for, but no circuit has been evaluated.")
    sizes = sorted(metrics)
    columns = torch.stack([clean, corrupted, *(metrics[n] for n in sizes)], dim=1).detach().to("cpu", torch.float64)
    weights = resample_weights(len(columns), settings.resamples, torch.Generator().manual_seed(settings.seed))
    found = sorted(_smallest(means, sizes, threshold, form) for means in (weights @ columns).tolist())
    tail = (1.0 - settings.confidence) / 2.0
    low, median, high = (_order_statistic(found, share) for share in (tail, 0.5, 1.0 - tail))
    return SizeInterval(low, median, high, sum(map(math.isinf, found)) / len(found))


def _smallest(means: list[float], sizes: list[int], threshold: float, form: Form) -> float:
    """Least faithful size given the means (clean, corrupted, each size); infinite if there is none."""
    ends = Ends(means[0], means[1])
    if (ends.model if form == "raw" else ends.model - ends.corrupted) <= 0:
        return math.inf
    reached = (n for n, m in zip(sizes, means[2:]) if in_form(ends.faithfulness(m), form) >= threshold)
    return next(reached, math.inf)


def _order_statistic(ascending: list[float], share: float) -> int | None:
    """The least value that at least this share of values does not exceed: always one of them."""
    value = ascending[max(0, math.ceil(share * len(ascending) - 1e-9) - 1)]
    return None if math.isinf(value) else int(value)

"""What follows from the trials of a study: how many steps are enough, what carries over, what to use."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import CircuitResult, Estimate
from ontogeny.core.tuning import (
    UNKNOWN,
    Carried,
    Confirmed,
    EnoughSteps,
    Evaluation,
    Recommendation,
    ScoreSetting,
    Setting,
    StepQuality,
    Trial,
)
from ontogeny.tuning.bench import Opened, Place, interval, top_edges
from ontogeny.tuning.cost import passes
from ontogeny.tuning.study import known_scores


def step_quality(place: Place, every: Sequence[ScoreSetting]) -> Iterator[StepQuality]:
    """Each way to score at a place against the truth there, and against itself on other prompts."""
    opened: Opened | None = place.jobs.load(Opened, place.opened_key())
    truth: Tensor | None = place.jobs.load(Tensor, place.truth_key())
    if opened is None:
        return
    graph, confidence = opened.graph, place.tune.resampling.confidence
    units = {scores: unit for scores in every if (unit := known_scores(place, scores)) is not None}
    ranks = {
        scores: rank_correlation(unit.resampled, truth, graph)
        for scores, unit in units.items()
        if unit.resampled is not None and truth is not None
    }
    for scores, unit in units.items():
        cost, largest = passes(scores, graph), _largest(scores, units)
        spearman = overlap = behind = UNKNOWN
        if scores in ranks and truth is not None and unit.resampled is not None:
            spearman = interval(ranks[scores], confidence)
            overlap = interval(top_overlap(unit.resampled, truth, graph, top_edges(place, graph)), confidence)
            behind = interval(ranks[largest] - ranks[scores], confidence) if scores.steps else UNKNOWN
        yield StepQuality(place.name, scores, cost.forward, cost.backward, spearman, overlap, behind, unit.jaccard)


def _largest(scores: ScoreSetting, among: Iterable[ScoreSetting]) -> ScoreSetting:
    """The same method and rule with the most steps."""
    return max((s for s in among if (s.method, s.rule) == (scores.method, scores.rule)), key=lambda s: s.steps)


def rank_correlation(
    a: Float[Tensor, "rows writers readers"], b: Float[Tensor, "rows writers readers"], graph: GraphSpec
) -> Float[Tensor, " rows"]:
    """Spearman's correlation of the scores of all edges, row by row; equal scores share their mean rank."""
    from scipy.stats import spearmanr

    real = graph.real_edges
    return torch.tensor(
        [float(spearmanr(x[real].numpy(), y[real].numpy()).statistic) for x, y in zip(a, b)], dtype=torch.float64
    )


def top_overlap(
    a: Float[Tensor, "rows writers readers"], b: Float[Tensor, "rows writers readers"], graph: GraphSpec, top: int
) -> Float[Tensor, " rows"]:
    """Share of the `top` edges by |score| that both have, row by row."""
    chosen = [x[:, graph.real_edges].abs().topk(top, dim=1).indices.tolist() for x in (a, b)]
    shares = [len(set(x) & set(y)) / top for x, y in zip(*chosen)]
    return torch.tensor(shares, dtype=torch.float64)


def enough_steps(quality: Sequence[StepQuality], tolerance: float) -> tuple[EnoughSteps, ...]:
    """The least m of each path method and rule, place by place."""
    found = []
    paths = sorted({(q.checkpoint, q.scores.method, q.scores.rule) for q in quality if q.scores.steps})
    for checkpoint, method, rule in paths:
        same = [q for q in quality if (q.checkpoint, q.scores.method, q.scores.rule) == (checkpoint, method, rule)]
        same.sort(key=lambda q: q.scores.steps)
        within = [q for q in same[:-1] if q.behind.high <= tolerance]
        steps, gap = (within[0].scores.steps, within[0].behind) if within else (None, UNKNOWN)
        found.append(EnoughSteps(checkpoint, method, rule, steps, same[-1].scores.steps, gap))
    return tuple(found)


def ranked(trials: Sequence[Trial], target: float, slack: float) -> list[Trial]:
    """Feasible trials, the one to use first: of those whose circuits are at most `slack` larger than the smallest the
    cheapest, then the smallest, then the most faithful; then the others by size.
    """
    feasible = [t for t in trials if t.violation(target) <= 0]
    if not feasible:
        return []
    limit = min(t.edges for t in feasible) * (1.0 + slack)
    return sorted(
        feasible,
        key=lambda t: (t.edges > limit, t.passes if t.edges <= limit else 0.0, t.edges, -t.faithfulness, t.setting.key),
    )


def carry(trials: Sequence[Trial], checkpoints: Sequence[str], target: float, slack: float) -> tuple[Carried, ...]:
    """The best setting of each place, evaluated at each place."""
    best: dict[str, Trial] = {}
    for name in checkpoints:
        order = ranked([t.at([name]) for t in trials], target, slack)
        if order:
            best[name] = order[0]
    by_setting = {t.setting: t for t in trials}
    found = []
    for source, trial in best.items():
        for name in checkpoints:
            there: Evaluation = by_setting[trial.setting].evaluations[name]
            found.append(
                Carried(
                    source=source,
                    target=name,
                    setting=trial.setting,
                    edges=Estimate(there.edges, there.edges_low, there.edges_high),
                    own_edges=best[name].edges if name in best else math.nan,
                    tune=there.tune,
                    held_out=there.held_out,
                    carries=by_setting[trial.setting].at([name]).violation(target) <= 0,
                )
            )
    return tuple(found)


def recommendation(
    order: Sequence[Trial], places: Sequence[Place], target: float, slack: float, tried: int
) -> tuple[Recommendation, tuple[Setting, ...]]:
    """The first of `order` whose circuits beat random ones everywhere; and the settings still to be held against them.

    Until nothing is left to be done the recommendation is not final.
    """
    if not order:
        why = f"None of {tried} settings keeps {target:g} of the metric on `tune` at every checkpoint."
        return Recommendation(None, why if tried else "Nothing was tried."), ()
    refused: list[Trial] = []
    for trial in order:
        confirmed = []
        for place in places:
            found: CircuitResult | None = place.jobs.load(CircuitResult, place.confirmed_key(trial.setting))
            if found is None:
                return Recommendation(None, "Its circuits were not held against random ones."), (trial.setting,)
            confirmed.append(Confirmed(place.name, found.status, found.reason, found.random_p95))
        if all(c.status == "found" for c in confirmed):
            return _recommend(trial, order, confirmed, refused, target, slack, tried), ()
        refused.append(trial)
    why = f"All {len(refused)} settings that keep {target:g} on `tune` are no better than random circuits somewhere."
    return Recommendation(None, why), ()


def _recommend(
    trial: Trial,
    order: Sequence[Trial],
    confirmed: Sequence[Confirmed],
    refused: Sequence[Trial],
    target: float,
    slack: float,
    tried: int,
) -> Recommendation:
    smallest = min(t.edges for t in order)
    parts = [
        f"{len(order)} of {tried} settings keep {target:g} of the metric on `tune` at every checkpoint; "
        f"the smallest circuits keep {smallest:.1%} of the edges.",
        f"Of the settings within {slack:.0%} of that this one takes the fewest passes "
        f"({trial.passes:,.0f}; {trial.edges:.1%} of the edges).",
    ]
    if refused:
        parts.append(f"{len(refused)} before it were no better than random circuits somewhere.")
        parts[1] = f"It keeps {trial.edges:.1%} and takes {trial.passes:,.0f} passes."
    parts.append(f"On `held_out` it keeps {trial.held_out:.2f}, on `tune` {trial.faithfulness:.2f} at the least.")
    return Recommendation(
        trial.setting, " ".join(parts), trial.edges, trial.passes, trial.faithfulness, trial.held_out, tuple(confirmed)
    )

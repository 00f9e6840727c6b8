"""Faithfulness, the search and the verdicts on synthetic functions whose answers are known."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.core.circuit import Circuit, EdgeScores, Ranking, rank_edges
from ontogeny.core.faithfulness import (
    Ends,
    Sizes,
    curve_areas,
    fraction_sizes,
    percentile_95,
    search_cap,
    search_sizes,
    verdict_after_search,
    verdict_before_search,
)
from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import Behaviour, CurvePoint, Estimate, Faithfulness
from ontogeny.params import SearchParams

BISECT = {"scan_up_to": 1}


def chain_ranking(graph: GraphSpec, seed: int = 0) -> Ranking:
    generator = torch.Generator().manual_seed(seed)
    return rank_edges(EdgeScores(graph, torch.randn(graph.real_edges.shape, generator=generator), "random"))


def flat_ranking(n_edges_at_least: int = 60) -> Ranking:
    """Every asked edge is kept: the embedding's edge to the logits first, and then whatever is grounded."""
    graph = GraphSpec(3, 2)
    order = np.full(graph.real_edges.shape, graph.n_edges + 1)
    order[graph.real_edges.numpy()] = np.arange(1, graph.n_edges + 1)
    assert graph.n_edges >= n_edges_at_least
    return Ranking(graph, order, order)


def sizes_of(ranking: Ranking, f: Callable[[int], float]) -> tuple[Sizes, list[int]]:
    """Raw faithfulness f(kept edges) with model metric 2 and corrupted metric -1; and the sizes that were measured."""
    measured: list[int] = []

    def measure(circuit: Circuit) -> torch.Tensor:
        measured.append(circuit.n_edges)
        return torch.full((4,), 2.0 * f(circuit.n_edges), dtype=torch.float64)

    return Sizes(ranking, measure, Ends(model=2.0, corrupted=-1.0)), measured


def brute_first(values: list[float], threshold: float) -> int | None:
    return next((n for n in range(1, len(values)) if values[n] >= threshold), None)


def brute_sustained(values: list[float], threshold: float, sustain: int) -> int | None:
    last = len(values) - 1
    for n in range(1, last + 1):
        if all(values[m] >= threshold for m in range(n, min(n + sustain, last) + 1)):
            return n
    return None


def test_both_forms_on_paper():
    ends = Ends(model=4.0, corrupted=-2.0)
    assert ends.faithfulness(1.0) == Faithfulness(1.0, 0.25, 0.5)
    assert math.isnan(Ends(0.0, 1.0).faithfulness(1.0).raw)
    assert math.isnan(Ends(1.0, 1.0).faithfulness(1.0).normalised)


def test_ratio_of_means_not_mean_of_ratios():
    sizes = Sizes(flat_ranking(), lambda _: torch.tensor([3.0, -1.0]), Ends(model=2.0, corrupted=0.0))
    assert sizes.faithfulness(5).raw == 0.5


def test_caps():
    assert search_cap(463, "full") == 463
    assert search_cap(463, "paper") == 23
    assert search_cap(102, "paper") == 5
    assert fraction_sizes((0.001, 0.02, 0.5, 1.0), 463) == ((0.001, 1), (0.02, 9), (0.5, 232), (1.0, 463))


@given(st.lists(st.floats(0, 1), min_size=90, max_size=90), st.integers(1, 6), st.floats(0.05, 0.99))
@settings(max_examples=60, deadline=None)
def test_a_scan_finds_what_brute_force_finds(noise: list[float], sustain: int, threshold: float):
    """Non-monotone in the extreme: every size its own random value."""
    ranking = flat_ranking()
    values = [0.0, *noise]
    values += [1.0] * (ranking.graph.n_edges + 1 - len(values))
    sizes, _ = sizes_of(ranking, lambda kept: values[kept])
    outcome = search_sizes(sizes, SearchParams(threshold=threshold, sustain=sustain))
    assert outcome.first == brute_first(values, threshold)
    assert outcome.sustained == brute_sustained(values, threshold, sustain)


@given(st.integers(0, 10**6), st.floats(0.1, 0.95))
@settings(max_examples=25, deadline=None)
def test_a_scan_with_pruning_finds_what_brute_force_finds(seed: int, threshold: float):
    ranking = chain_ranking(GraphSpec(3, 2), seed)
    rng = np.random.default_rng(seed)
    by_kept = np.linspace(0, 1, ranking.graph.n_edges + 1) + rng.normal(0, 0.1, ranking.graph.n_edges + 1)
    by_kept[0], by_kept[-1] = 0.99, 1.0  # an empty circuit never counts
    sizes, measured = sizes_of(ranking, lambda kept: float(by_kept[kept]))
    values = [by_kept[k] if k else 0.0 for k in ranking.kept]
    outcome = search_sizes(sizes, SearchParams(threshold=threshold))
    assert outcome.first == brute_first(values, threshold)
    assert outcome.sustained == brute_sustained(values, threshold, 5)
    assert len(measured) == len(set(measured)), "a kept circuit was measured twice"


@given(st.integers(1, 100), st.floats(0.3, 0.9))
@settings(max_examples=40, deadline=None)
def test_bisection_agrees_with_the_scan_where_f_is_monotone(place: int, threshold: float):
    ranking = flat_ranking()
    steep = lambda kept: 1 / (1 + math.exp(-(kept - place) / 3))  # noqa: E731
    outcomes = []
    for extra in ({}, BISECT):
        sizes, measured = sizes_of(ranking, lambda kept: 1.0 if kept == ranking.graph.n_edges else steep(kept))
        outcomes.append((search_sizes(sizes, SearchParams(threshold=threshold, **extra)), len(measured)))
    (scan, _), (bisect, evaluations) = outcomes
    assert bisect.first == scan.first
    assert bisect.sustained == scan.sustained
    assert evaluations <= 2 * math.ceil(math.log2(ranking.graph.n_edges)) + 2 * 6


def test_bisection_looks_at_the_neighbourhood():
    """A dip just below the faithful sizes, and a hole just above the first one."""
    ranking = flat_ranking()
    good = {30, 31, 33} | set(range(36, ranking.graph.n_edges + 1))
    scan, bisect = (
        search_sizes(sizes_of(ranking, lambda kept: 0.9 if kept in good else 0.5)[0], SearchParams(**extra))
        for extra in ({}, BISECT)
    )
    assert (scan.first, scan.sustained) == (30, 36)
    assert bisect.sustained == 36
    assert bisect.first in good
    assert bisect.first <= 36


def test_a_scan_stops_when_both_sizes_are_known():
    sizes, measured = sizes_of(flat_ranking(), lambda kept: 0.9 if kept >= 20 else 0.1)
    outcome = search_sizes(sizes, SearchParams())
    assert (outcome.first, outcome.sustained) == (20, 20)
    assert max(measured) == 25
    assert outcome.searched == tuple(range(1, 26))


def test_the_paper_range_is_censored():
    ranking = flat_ranking()
    cap = search_cap(ranking.graph.n_edges, "paper")
    for extra in ({}, BISECT):
        sizes, measured = sizes_of(ranking, lambda kept: 0.9 if kept > cap else 0.1 + 0.01 * kept)
        params = SearchParams(range="paper", **extra)
        outcome = search_sizes(sizes, params)
        assert outcome.first is None
        assert outcome.sustained is None
        assert outcome.best == cap
        assert max(measured) <= cap
        verdict = verdict_after_search(outcome, sizes, params, math.nan, cap)
        assert verdict.status == "threshold_unmet"
        assert f"up to {cap} edges" in verdict.reason


def test_sustained_reaches_to_the_cap():
    ranking = flat_ranking()
    E = ranking.graph.n_edges
    for extra in ({}, BISECT):
        sizes, _ = sizes_of(ranking, lambda kept: 0.9 if kept >= E - 1 else 0.1)
        outcome = search_sizes(sizes, SearchParams(**extra))
        assert (outcome.first, outcome.sustained) == (E - 1, E - 1)


def test_a_size_can_be_faithful_and_never_sustained():
    ranking = flat_ranking()
    cap = search_cap(ranking.graph.n_edges, "paper")
    sizes, _ = sizes_of(ranking, lambda kept: 0.9 if kept == 2 else 0.1)
    outcome = search_sizes(sizes, SearchParams(range="paper", sustain=1))
    assert cap > 3
    assert (outcome.first, outcome.sustained) == (2, None)


def test_numbers_that_are_not_finite_end_the_search():
    for extra in ({}, BISECT):
        sizes, _ = sizes_of(flat_ranking(), lambda kept: math.nan if kept >= 3 else 0.1)
        outcome = search_sizes(sizes, SearchParams(**extra))
        assert not outcome.finite
        assert verdict_after_search(outcome, sizes, SearchParams(), math.nan, 9).status == "nan"


def test_the_normalised_form_is_searched_when_asked():
    sizes, _ = sizes_of(flat_ranking(), lambda kept: kept / 100)
    assert search_sizes(sizes, SearchParams(threshold=0.5)).first == 50
    assert search_sizes(sizes, SearchParams(threshold=0.5, faithfulness="normalised")).first == 25


def estimate(value: float, half: float = 0.1) -> Estimate:
    return Estimate(value, value - half, value + half)


def behaviour(metric: Estimate, corrupted: Estimate, difference: Estimate | None = None) -> Behaviour:
    difference = difference or estimate(metric.value - corrupted.value)
    return Behaviour(metric, corrupted, difference, estimate(0.9), estimate(0.9), estimate(0.9), 70)


@pytest.mark.parametrize(
    ("case", "status", "reason"),
    [
        (behaviour(estimate(1.0), estimate(-0.5)), None, ""),
        (behaviour(estimate(0.05), estimate(-0.5)), "not_learned", "metric's interval reaches down to -0.05"),
        (behaviour(estimate(-1.0), estimate(-2.0)), "not_learned", "metric's interval"),
        (behaviour(estimate(1.0), estimate(0.95)), "not_learned", "Clean minus corrupted"),
        (behaviour(estimate(1.0), estimate(0.85)), "trivial", "The empty circuit would pass"),
        (behaviour(estimate(math.nan), estimate(0.0)), "nan", "not finite"),
    ],
)
def test_verdicts_before_the_search(case: Behaviour, status: str | None, reason: str):
    verdict = verdict_before_search(case, SearchParams())
    assert (verdict.status if verdict else None) == status
    assert reason in (verdict.reason if verdict else "")


def test_what_is_trivial_raw_is_not_when_normalised():
    case = behaviour(estimate(1.0), estimate(0.85))
    assert verdict_before_search(case, SearchParams(faithfulness="normalised")) is None


def test_verdicts_after_the_search():
    sizes, _ = sizes_of(flat_ranking(), lambda kept: 0.85 if kept >= 20 else 0.1)
    outcome = search_sizes(sizes, SearchParams())
    assert verdict_after_search(outcome, sizes, SearchParams(), 0.5, 90).status == "found"
    beaten = verdict_after_search(outcome, sizes, SearchParams(), 0.85, 90)
    assert beaten.status == "threshold_unmet"
    assert "random circuits of its size reach 0.85" in beaten.reason
    assert verdict_after_search(outcome, sizes, SearchParams(), math.nan, 90).status == "threshold_unmet"


def test_areas_on_paper():
    def point(x: float, y: float) -> CurvePoint:
        return CurvePoint(x, 1, 1, Faithfulness(y, y, y))

    cpr, cmd = curve_areas([point(1.0, 1.0), point(0.0, 0.0), point(0.5, 1.5)])
    assert cpr == pytest.approx(0.5 * 0.75 + 0.5 * 1.25)
    assert cmd == pytest.approx(0.5 * (1 + 0.5) / 2 + 0.5 * (0.5 + 0) / 2)


def test_percentile():
    assert percentile_95([float(x) for x in range(21)]) == pytest.approx(19.0)
    assert math.isnan(percentile_95([1.0, math.nan]))
    assert math.isnan(percentile_95([]))

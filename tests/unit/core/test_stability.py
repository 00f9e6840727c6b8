"""Bootstrap of circuits against the plain definitions, and on paper."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import combinations

import numpy as np
import pytest
import torch

from ontogeny.core.circuit import (
    EdgeScores,
    grow,
    jaccard_edges,
    jaccard_nodes,
    rank_edges,
    weighted_jaccard,
    weighted_nodes,
)
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.stability import circuit_stability, size_interval


@dataclass(frozen=True)
class Draws:
    resamples: int = 30
    confidence: float = 0.9
    seed: int = 3


GRAPH = GraphSpec(2, 2)


def drawn(examples: int, settings: Draws) -> torch.Tensor:
    """Which examples each resample holds."""
    generator = torch.Generator().manual_seed(settings.seed)
    return torch.randint(examples, (settings.resamples, examples), generator=generator)


def noisy(examples: int = 6, noise: float = 1.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    shape = GRAPH.real_edges.shape
    common, own = torch.randn(shape, generator=generator), torch.randn(examples, *shape, generator=generator)
    return (common + noise * own) * GRAPH.real_edges


@pytest.mark.parametrize("selection", ["greedy", "topn-signed"])
def test_each_resample_is_ranked_anew(selection: str):
    by_example, settings = noisy(), Draws()
    circuits = [
        rank_edges(EdgeScores(GRAPH, by_example[rows].mean(0), "x"), selection).circuit(12)  # type: ignore[arg-type]
        for rows in drawn(6, settings)
    ]
    found = circuit_stability(GRAPH, by_example, 12, settings, selection)  # type: ignore[arg-type]
    expected = torch.stack([c.edges for c in circuits]).double().mean(0)
    torch.testing.assert_close(found.inclusion, expected)
    assert int(((found.inclusion > 0) & (found.inclusion < 1)).sum()) > 0
    similar = [jaccard_edges(a, b) for a, b in combinations(circuits, 2)]
    low, median, high = np.nanquantile(similar, [0.05, 0.5, 0.95])
    assert (found.jaccard.low, found.jaccard.median, found.jaccard.high) == pytest.approx((low, median, high))
    assert low < high
    assert torch.equal(found.core.edges, expected >= 0.9)


def test_likeness_at_matched_sizes_and_of_all_edges_is_that_of_the_plain_definitions():
    by_example, settings = noisy(), Draws()
    scores = [EdgeScores(GRAPH, by_example[rows].mean(0).double(), "x") for rows in drawn(6, settings)]
    found = circuit_stability(GRAPH, by_example, 12, settings, matched=(4, 9))
    assert [(each.size, each.kept) for each in found.likeness] == [
        ("found", None), ("matched", 4), ("matched", 9), ("weighted", None)
    ]  # fmt: skip
    circuits = [[rank_edges(s).circuit(12) for s in scores], *([grow(s, kept) for s in scores] for kept in (4, 9))]
    for each, ours in zip(found.likeness, circuits):
        for got, kind in ((each.edges, jaccard_edges), (each.nodes, jaccard_nodes)):
            expected = np.nanquantile([kind(a, b) for a, b in combinations(ours, 2)], [0.05, 0.5, 0.95])
            assert (got.low, got.median, got.high) == pytest.approx(tuple(expected))
            assert got.low < got.high
    for got, kind in ((found.likeness[-1].edges, weighted_jaccard), (found.likeness[-1].nodes, weighted_nodes)):
        expected = np.quantile([kind(a, b) for a, b in combinations(scores, 2)], [0.05, 0.5, 0.95])
        assert (got.low, got.median, got.high) == pytest.approx(tuple(expected))
        assert 0 < got.low < got.high < 1


def test_without_a_size_asked_for_there_are_matched_sizes_only():
    found = circuit_stability(GRAPH, noisy(), None, Draws(), matched=(4,))
    assert [each.size for each in found.likeness] == ["matched", "weighted"]
    assert math.isnan(found.jaccard.median)
    assert (found.inclusion == 0).all()
    assert found.likeness == circuit_stability(GRAPH, noisy(), 12, Draws(), matched=(4,)).likeness[1:]


def test_equal_examples_give_one_circuit():
    found = circuit_stability(GRAPH, noisy(noise=0.0), 12, Draws())
    circuit = rank_edges(EdgeScores(GRAPH, noisy(noise=0.0)[0], "x")).circuit(12)
    assert torch.equal(found.core.edges, circuit.edges)
    assert set(found.inclusion.unique().tolist()) == {0.0, 1.0}
    assert found.jaccard.low == found.jaccard.high == 1.0


def test_noise_shrinks_the_core():
    cores = [circuit_stability(GRAPH, noisy(noise=noise), 12, Draws()).core.n_edges for noise in (0.0, 3.0)]
    assert cores[0] > cores[1]


def test_empty_circuits_have_no_similarity():
    found = circuit_stability(GRAPH, noisy(), 0, Draws())
    assert (found.inclusion == 0).all()
    assert math.isnan(found.jaccard.median)


def test_the_size_interval_on_paper():
    """Size 4 is faithful on the one kind of example alone, size 9 on both."""
    clean, corrupted = torch.full((8,), 2.0), torch.zeros(8)
    kind = torch.arange(8) % 2 == 0
    metrics = {9: torch.full((8,), 1.8), 2: torch.zeros(8), 4: torch.where(kind, 2.0, 1.0)}
    settings = Draws(400, 0.9)
    shares = kind[drawn(8, settings)].double().mean(1)
    passing = float((shares >= 0.6).double().mean())
    assert 0.1 < passing < 0.5
    interval = size_interval(metrics, clean, corrupted, settings, threshold=0.8)
    assert (interval.low, interval.median, interval.high, interval.unmet) == (4, 9, 9, 0.0)
    only = size_interval({4: metrics[4]}, clean, corrupted, settings, threshold=0.8)
    assert (only.low, only.median, only.high) == (4, None, None)
    assert only.unmet == pytest.approx(1 - passing)


def test_both_forms_and_denominators_that_are_not_above_zero():
    clean, corrupted, metrics = torch.full((4,), 2.0), torch.ones(4), {3: torch.full((4,), 1.7)}
    raw = size_interval(metrics, clean, corrupted, Draws(), threshold=0.8)
    normalised = size_interval(metrics, clean, corrupted, Draws(), threshold=0.8, form="normalised")
    assert (raw.high, raw.unmet) == (3, 0.0)
    assert (normalised.low, normalised.unmet) == (None, 1.0)
    negative = {3: torch.full((4,), -2.0)}
    assert size_interval(negative, -clean, corrupted, Draws(), threshold=0.8).unmet == 1.0


def test_impossible_requests():
    with pytest.raises(ImpossibleRequest, match="2 or more"):
        circuit_stability(GRAPH, noisy(), 3, Draws(resamples=1))
    with pytest.raises(ImpossibleRequest, match="not finite"):
        circuit_stability(GRAPH, noisy() * math.nan, 3, Draws())
    with pytest.raises(ImpossibleRequest, match="no circuit has been evaluated"):
        size_interval({}, torch.ones(2), torch.zeros(2), Draws(), threshold=0.8)

"""The metrics' arithmetic on paper, and their null against all permutations."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from ontogeny.algorithm.metrics import (
    Candidates,
    heads_of,
    holders_that_help,
    measure,
    movers_and_suppressors,
    movers_of_either_sign,
    permute_within_layers,
)
from ontogeny.core.algorithm import PathEffects
from ontogeny.core.circuit import Circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.params import AlgorithmParams

EFFECT = torch.tensor([[-0.4, 0.1, 0.0], [-0.2, -0.0005, 0.3]], dtype=torch.float64)
FROZEN = torch.tensor([[-0.1, 0.0, 0.0], [-0.1, 0.0, 0.2]], dtype=torch.float64)
EFFECTS = PathEffects(("logits",), EFFECT, FROZEN)
MOVERS = torch.tensor([[True, True, False], [False, True, False]])
NEGATIVE = torch.tensor([[False, True, True], [False, False, False]])
SUPPRESSORS = torch.tensor([[False, False, False], [False, False, True]])
DIRECT = Candidates((MOVERS, NEGATIVE, SUPPRESSORS), movers_and_suppressors)
SETTINGS = AlgorithmParams(null_draws=4000)


def circuit(*heads: tuple[int, int]) -> Circuit:
    graph = GraphSpec(2, 3)
    edges = torch.zeros_like(graph.real_edges)
    for head in heads:
        edges[0, graph.head_reader(head[0], 2, head[1])] = True
        edges[graph.head_writer(*head), graph.logits_reader] = True
    return Circuit(graph, edges)


def test_the_set_of_the_final_residual():
    """Movers with e < 0 and all suppressors: |e| 0.4 + 0.0005 + 0.3 of 1.0005."""
    found = measure("direct", EFFECTS, DIRECT, (), circuit((0, 0), (1, 0)), SETTINGS)
    assert found.status == "measured"
    assert found.heads == ((0, 0), (1, 1), (1, 2))
    assert found.numerator == pytest.approx(0.7005)
    assert found.all_heads == pytest.approx(1.0005)
    assert found.value == pytest.approx(100 * 0.7005 / 1.0005)
    assert found.circuit_heads == pytest.approx(0.6)
    assert found.value_in_circuit == pytest.approx(100 * 0.4 / 0.6)
    assert found.value_frozen == pytest.approx(100 * 0.3 / 0.4)


def test_the_set_of_the_papers_code():
    """Negative name movers with any effect join (+0.1; not 0.0); the suppressor with +0.3 goes."""
    found = measure("direct", EFFECTS, Candidates(DIRECT.roles, movers_of_either_sign), (), None, SETTINGS)
    assert found.heads == ((0, 0), (0, 1), (1, 1))
    harmful = Candidates((MOVERS, NEGATIVE, MOVERS), movers_of_either_sign)
    assert measure("direct", EFFECTS, harmful, (), None, SETTINGS).heads == ((0, 0), (0, 1), (1, 1))


def test_the_sets_behind_have_a_limit():
    """E < -0.001: the mover with -0.0005 is too weak, the one with +0.1 harms."""
    candidates = Candidates((MOVERS,), holders_that_help(-0.001))
    found = measure("queries", EFFECTS, candidates, ((1, 1),), None, SETTINGS)
    assert found.heads == ((0, 0),)
    assert found.receivers == ((1, 1),)
    assert found.value == pytest.approx(100 * 0.4 / 1.0005)
    assert math.isnan(found.value_in_circuit)
    assert math.isnan(found.circuit_heads)


def test_either_of_two_roles_will_do():
    candidates = Candidates((MOVERS, SUPPRESSORS), holders_that_help(math.inf))
    assert int(candidates.choose(candidates.roles, EFFECT).sum()) == 4


def test_no_effect_at_all_is_undefined():
    nothing = PathEffects(("a1.h1<q>",), 0 * EFFECT, 0 * EFFECT)
    found = measure("queries", nothing, DIRECT, (), None, SETTINGS)
    assert found.status == "undefined"
    assert "a1.h1<q>" in found.reason
    assert math.isnan(found.value)
    assert math.isnan(found.null_p95)


def every_permutation(candidates: Candidates) -> Tensor:
    """The metric under each of the 36 ways to permute heads within two layers of three."""
    values = []
    for first, second in itertools.product(itertools.permutations(range(3)), repeat=2):
        masks = tuple(torch.stack([m[0, list(first)], m[1, list(second)]]) for m in candidates.roles)
        chosen = candidates.choose(masks, EFFECT)
        values.append(100 * float(EFFECT.abs()[chosen].sum() / EFFECT.abs().sum()))
    return torch.tensor(values, dtype=torch.float64)


def test_the_null_is_that_of_all_permutations():
    found = measure("direct", EFFECTS, DIRECT, (), None, SETTINGS)
    exact = every_permutation(DIRECT)
    assert found.null_mean == pytest.approx(float(exact.mean()), abs=4 * float(exact.std()) / 4000**0.5)
    levels = exact.sort().values
    # 1/36 of the draws lie on each permutation: the 95th percentile is the 34th or 35th of 36
    assert float(levels[33]) - 1e-9 <= found.null_p95 <= float(levels[35]) + 1e-9
    assert exact.std() > 5
    again = measure("direct", EFFECTS, DIRECT, (), None, SETTINGS)
    assert (again.null_mean, again.null_p95) == (found.null_mean, found.null_p95)
    other = measure("direct", EFFECTS, DIRECT, (), None, SETTINGS.model_copy(update={"seed": 1}))
    assert other.null_mean != found.null_mean


def test_roles_of_a_head_move_together_and_stay_in_their_layer():
    generator = torch.Generator().manual_seed(0)
    drawn = permute_within_layers((MOVERS, SUPPRESSORS, MOVERS | SUPPRESSORS), 50, generator)
    assert bool((drawn[2] == (drawn[0] | drawn[1])).all())
    assert bool((drawn[0].sum(dim=2) == MOVERS.sum(dim=1)).all())
    assert len({tuple(mask.flatten().tolist()) for mask in drawn[0]}) == 9


def test_heads_of_a_circuit():
    assert heads_of(circuit((0, 1), (1, 2))).nonzero().tolist() == [[0, 1], [1, 2]]

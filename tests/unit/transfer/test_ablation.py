"""Role heads taken out: against path patching's own interchange, and the null's sets by counting."""

import math
from collections import Counter

import pytest
import torch

from ontogeny.core.graph import GraphSpec
from ontogeny.core.roles import Head
from ontogeny.patching import CircuitEvaluator
from ontogeny.patching.path_patching import PathPatcher
from ontogeny.transfer import LEAST_SETS, ablate_role, ablate_roles, matched_sets, without_heads
from support.engine import neox_subject, random_batch

SUBJECT = neox_subject(layers=3, heads=4)
BATCH = random_batch(pairs=6)
WIDE = GraphSpec(4, 12)


@pytest.mark.parametrize("heads", [((0, 1),), ((1, 0), (1, 3)), ((2, 2), (0, 0), (1, 1))])
def test_edges_out_of_heads_cut_are_their_outputs_exchanged(heads: tuple[Head, ...]) -> None:
    cut = CircuitEvaluator(SUBJECT, BATCH).evaluate(without_heads(SUBJECT.graph, heads))
    exchanged = PathPatcher(SUBJECT, BATCH).interchange(heads).metric
    assert torch.allclose(cut, exchanged, atol=1e-10)
    assert not torch.allclose(cut, CircuitEvaluator(SUBJECT, BATCH).clean, atol=1e-4)


def test_few_sets_are_all_taken() -> None:
    generator = torch.Generator().manual_seed(0)
    found = matched_sets(SUBJECT.graph, [(2, 1), (0, 3), (0, 0)], 100, generator)
    assert found.possible == len(found.sets) == math.comb(4, 2) * 4 - 1
    assert len(set(found.sets)) == 23
    assert ((0, 0), (0, 3), (2, 1)) not in found.sets


def test_many_sets_are_drawn_distinct_and_with_the_same_number_of_heads_in_each_layer() -> None:
    own = [(3, 1), (1, 2), (1, 5)]
    found = matched_sets(WIDE, own, 100, torch.Generator().manual_seed(0))
    assert found.possible == math.comb(12, 2) * 12 - 1
    assert len(set(found.sets)) == 100
    assert tuple(sorted(own)) not in found.sets
    assert {frozenset(Counter(layer for layer, _ in each).items()) for each in found.sets} == {
        frozenset({(1, 2), (3, 1)})
    }
    assert all(each == tuple(sorted(each)) for each in found.sets)
    assert found == matched_sets(WIDE, own[::-1], 100, torch.Generator().manual_seed(0)), (
        "the order of heads is nothing"
    )
    assert found != matched_sets(WIDE, own, 100, torch.Generator().manual_seed(1))


def test_the_share_of_sets_that_cost_less_by_hand() -> None:
    """All 64 sets of one head a layer, each by path patching."""
    patcher, evaluator = PathPatcher(SUBJECT, BATCH), CircuitEvaluator(SUBJECT, BATCH)
    clean = float(patcher.clean.mean())
    every = [((0, a), (1, b), (2, c)) for a in range(4) for b in range(4) for c in range(4)]
    costs = {heads: clean - float(patcher.interchange(heads).metric.mean()) for heads in every}
    ranked = sorted(every, key=lambda heads: costs[heads])
    for place in (0, 40, 63):
        own = ranked[place]
        found = ablate_role(evaluator, "ioi", 8, "induction", own[::-1], 100, 0)
        assert (found.status, found.sets, found.possible, found.heads) == ("measured", 63, 63, own[::-1])
        assert found.cost == pytest.approx(costs[own], abs=1e-10)
        assert found.beaten == pytest.approx(place / 63)
        others = [costs[each] for each in every if each != own]
        assert found.sets_mean == pytest.approx(sum(others) / 63, abs=1e-10)
        assert found.cost_share == pytest.approx(found.cost / (clean - float(patcher.corrupted.mean())))


def test_too_few_sets_cannot_show_anything_and_no_head_is_undefined() -> None:
    evaluator = CircuitEvaluator(SUBJECT, BATCH)
    few = ablate_role(evaluator, "ioi", 8, "induction", [(1, 2)], 100, 0)
    assert (few.status, few.sets, few.possible) == ("too few sets", 3, 3)
    assert str(LEAST_SETS) in few.reason
    assert math.isfinite(few.beaten)
    nobody = ablate_role(evaluator, "ioi", 8, "induction", [], 100, 0)
    assert (nobody.status, nobody.sets) == ("undefined", 0)
    assert math.isnan(nobody.beaten)
    everyone = ablate_role(evaluator, "ioi", 8, "induction", [(1, h) for h in range(4)], 100, 0)
    assert (everyone.status, everyone.possible) == ("too few sets", 0)
    assert math.isnan(everyone.beaten)
    assert math.isfinite(everyone.cost)


def test_roles_together_are_as_each_alone() -> None:
    holders = {"induction": ((1, 2), (0, 0)), "name_mover": ((0, 1), (1, 0)), "successor": ()}
    together = ablate_roles(CircuitEvaluator(SUBJECT, BATCH), "ioi", 8, holders, 100, 3)
    alone = [ablate_role(CircuitEvaluator(SUBJECT, BATCH), "ioi", 8, r, h, 100, 3) for r, h in holders.items()]
    assert [a.beaten for a in together[:2]] == [a.beaten for a in alone[:2]]
    assert together[0].cost == pytest.approx(alone[0].cost, abs=1e-12)
    assert together[2].status == "undefined"

"""Matching heads: against every permutation, and on scores whose heads were shuffled."""

from itertools import permutations

import numpy as np
import pytest
import torch

from ontogeny.core.circuit import Circuit, EdgeScores, grow
from ontogeny.core.graph import GraphSpec
from ontogeny.core.roles import RoleScores
from ontogeny.transfer import match_heads, rename_heads, role_vectors

GRAPH = GraphSpec(3, 4)


def scores(role: str, values: torch.Tensor, status: str = "measured") -> RoleScores:
    return RoleScores(role, status, "", values, values * 0, {}, {})  # type: ignore[arg-type]


def random_roles(seed: int) -> dict[str, RoleScores]:
    generator = torch.Generator().manual_seed(seed)
    units = {"induction": 1.0, "name_mover": 100.0, "successor": 1.0}
    return {name: scores(name, unit * torch.rand(3, 4, generator=generator)) for name, unit in units.items()}


def shuffled(roles: dict[str, RoleScores], to: np.ndarray) -> dict[str, RoleScores]:
    """The head that was (l, h) is now (l, to[l, h])."""
    found = {}
    for name, each in roles.items():
        values = torch.empty_like(each.score)
        for layer, heads in enumerate(to.tolist()):
            values[layer, heads] = each.score[layer]
        found[name] = scores(name, values)
    return found


def test_least_sum_of_squares_of_all_permutations() -> None:
    source, target = role_vectors(GRAPH, random_roles(0), random_roles(1))
    found = match_heads(source, target)
    for layer in range(3):
        costs = {
            p: sum(((source[layer, h] - target[layer, p[h]]) ** 2).sum() for h in range(4))
            for p in permutations(range(4))
        }
        assert tuple(found.to[layer]) == min(costs, key=lambda p: costs[p])
        assert float((found.distance[layer] ** 2).sum()) == pytest.approx(min(costs.values()))
    assert not (found.to == np.arange(4)).all()


def test_shuffled_heads_are_found_again_whatever_the_unit_of_a_role() -> None:
    to = np.array([[2, 0, 3, 1], [1, 0, 2, 3], [3, 2, 1, 0]])
    roles = random_roles(2)
    found = match_heads(*role_vectors(GRAPH, roles, shuffled(roles, to)))
    assert (found.to == to).all()
    assert found.distance == pytest.approx(0)


def test_roles_that_say_nothing_are_left_out() -> None:
    roles = random_roles(3)
    flat = roles | {
        "flat": scores("flat", torch.ones(3, 4)),
        "lost": scores("lost", torch.full((3, 4), torch.nan), "undefined"),
    }
    with_gap = roles | {"gap": scores("gap", torch.tensor([[torch.nan, 1.0, 2.0, 3.0]] * 3))}
    assert role_vectors(GRAPH, flat, flat)[0].shape == (3, 4, 3)
    ours, _ = role_vectors(GRAPH, with_gap, with_gap)
    assert ours.shape == (3, 4, 4)
    assert ours[:, 0, 3].tolist() == [0, 0, 0], "a score that was not measured is the mean"
    nothing = {"lost": flat["lost"]}
    for roles in (nothing, {}):
        assert match_heads(*role_vectors(GRAPH, roles, roles)).to.tolist() == [[0, 1, 2, 3]] * 3


def test_a_renamed_circuit_has_the_same_edges_under_other_names() -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(GRAPH.n_writers, GRAPH.n_readers, generator=generator) * GRAPH.real_edges
    circuit = grow(EdgeScores(GRAPH, values, "random"), 30)
    to = np.array([[2, 0, 3, 1], [1, 0, 2, 3], [3, 2, 1, 0]])

    def renamed(name: str) -> str:
        for layer in range(3):
            for head in range(4):
                name = name.replace(f"a{layer}.h{head}", f"a{layer}.H{to[layer, head]}")
        return name.lower()

    found = rename_heads(circuit, to)
    assert set(found.edge_names) == {renamed(name) for name in circuit.edge_names} != set(circuit.edge_names)
    back = np.argsort(to, axis=1)
    assert torch.equal(rename_heads(found, back).edges, circuit.edges)
    assert rename_heads(Circuit(GRAPH, GRAPH.real_edges), to).n_edges == GRAPH.n_edges

"""Selection, pruning and comparison of circuits against the plain definitions, word for word."""

from __future__ import annotations

import math
import re
from typing import get_args

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.core.circuit import (
    Circuit,
    EdgeScores,
    Selection,
    complement,
    edges_above,
    empty_circuit,
    full_circuit,
    grow,
    grow_to,
    jaccard_edges,
    jaccard_nodes,
    permute_scores,
    prune,
    random_circuits,
    rank_edges,
    weighted_jaccard,
)
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec

GRAPHS = st.one_of(
    st.builds(GraphSpec, st.integers(1, 4), st.integers(1, 3), st.booleans()),
    st.builds(GraphSpec, st.integers(1, 3), st.just(4), st.booleans(), st.sampled_from([1, 2, 4])),
)
SMALL = st.one_of(
    st.builds(GraphSpec, st.integers(1, 3), st.integers(1, 2), st.booleans()),
    st.builds(GraphSpec, st.integers(1, 2), st.just(4), st.booleans(), st.sampled_from([1, 2])),
)


def random_scores(graph: GraphSpec, seed: int) -> EdgeScores:
    generator = torch.Generator().manual_seed(seed)
    values = torch.randn(graph.n_writers, graph.n_readers, generator=generator) * graph.real_edges
    return EdgeScores(graph, values, "random")


def nodes_of(graph: GraphSpec) -> list[set[int]]:
    """Writers that each reader feeds, by name; -1 for the logits."""
    found = []
    for name in graph.reader_names:
        node, shared = name.partition("<")[0], re.fullmatch(r"a(\d+)\.g(\d+)<[kv]>", name)
        if shared is not None:
            size = graph.n_heads // (graph.kv_heads or 1)
            heads = range(int(shared[2]) * size, (int(shared[2]) + 1) * size)
            found.append({graph.writer_names.index(f"a{shared[1]}.h{head}") for head in heads})
        else:
            found.append({-1} if node == "logits" else {graph.writer_names.index(node)})
    return found


def naive_prune(circuit: Circuit) -> torch.Tensor:
    """METHODS 4.2 as written: drop nodes that lack inputs or outputs until nothing changes.

    A reader that heads share goes when it feeds no head that is left.
    """
    graph, edges = circuit.graph, circuit.edges.clone()
    nodes = nodes_of(graph)
    while True:
        before = edges.clone()
        for node in range(1, graph.n_writers):
            if not bool(edges[:, [v for v, fed in enumerate(nodes) if node in fed]].any()):
                edges[node] = False
        for reader, fed in enumerate(nodes[:-1]):
            if not bool(edges[sorted(fed)].any()):
                edges[:, reader] = False
        if torch.equal(before, edges):
            return edges


def naive_greedy(scores: EdgeScores, n: int, signed: bool = False) -> torch.Tensor:
    """METHODS 4.1 as written: look at every edge into a reached node, take the strongest, n times."""
    graph = scores.graph
    nodes = nodes_of(graph)
    reached, taken = {-1}, torch.zeros_like(graph.real_edges)
    for _ in range(n):
        open_edges = [(u, v) for u, v in graph.real_edges.nonzero().tolist() if nodes[v] & reached and not taken[u, v]]
        best = max(open_edges, key=lambda e: float(scores.values[e] if signed else scores.values[e].abs()))
        taken[best] = True
        reached.add(best[0])
    return taken


@given(GRAPHS, st.integers(0, 10**6), st.floats(0, 1))
@settings(max_examples=60, deadline=None)
def test_prune_is_the_fixpoint(graph: GraphSpec, seed: int, density: float):
    generator = torch.Generator().manual_seed(seed)
    edges = graph.real_edges & (torch.rand(graph.real_edges.shape, generator=generator) < density)
    circuit = Circuit(graph, edges)
    assert torch.equal(prune(circuit).edges, naive_prune(circuit))
    assert torch.equal(prune(prune(circuit)).edges, prune(circuit).edges)


@given(SMALL, st.integers(0, 10**6))
@settings(max_examples=25, deadline=None)
def test_greedy_is_the_definition_at_every_size(graph: GraphSpec, seed: int):
    scores = random_scores(graph, seed)
    ranking = rank_edges(scores, "greedy")
    for n in range(0, graph.n_edges + 1, max(1, graph.n_edges // 7)):
        taken = naive_greedy(scores, n)
        assert np.array_equal(ranking.order <= n, taken.numpy())
        assert torch.equal(ranking.circuit(n).edges, naive_prune(Circuit(graph, taken)))


@given(GRAPHS, st.integers(0, 10**6))
@settings(max_examples=40, deadline=None)
def test_topn_is_the_definition_at_every_size(graph: GraphSpec, seed: int):
    scores = random_scores(graph, seed)
    ranking = rank_edges(scores, "topn")
    strongest = sorted(graph.real_edges.nonzero().tolist(), key=lambda e: -abs(float(scores.values[tuple(e)])))
    for n in range(0, graph.n_edges + 1, max(1, graph.n_edges // 7)):
        taken = torch.zeros_like(graph.real_edges)
        for u, v in strongest[:n]:
            taken[u, v] = True
        assert torch.equal(ranking.circuit(n).edges, naive_prune(Circuit(graph, taken)))


@given(GRAPHS, st.integers(0, 10**6), st.sampled_from(get_args(Selection)))
@settings(max_examples=40, deadline=None)
def test_kept_counts_and_representatives(graph: GraphSpec, seed: int, selection: str):
    ranking = rank_edges(random_scores(graph, seed), selection)  # type: ignore[arg-type]
    assert ranking.kept[0] == 0
    assert ranking.kept[-1] == graph.n_edges
    for n in range(graph.n_edges + 1):
        assert ranking.kept[n] == ranking.circuit(n).n_edges
        same = ranking.representative(n)
        assert same <= n
        assert torch.equal(ranking.circuit(same).edges, ranking.circuit(n).edges)
        assert same == 0 or ranking.kept[same - 1] < ranking.kept[same]


@given(st.builds(GraphSpec, st.integers(1, 3), st.integers(1, 2), st.booleans()), st.integers(0, 10**6))
@settings(max_examples=20, deadline=None)
def test_signed_rankings_are_the_definition(graph: GraphSpec, seed: int):
    scores = random_scores(graph, seed)
    greedy, topn = rank_edges(scores, "greedy-signed"), rank_edges(scores, "topn-signed")
    strongest = sorted(graph.real_edges.nonzero().tolist(), key=lambda e: -float(scores.values[tuple(e)]))
    for n in range(0, graph.n_edges + 1, max(1, graph.n_edges // 7)):
        assert np.array_equal(greedy.order <= n, naive_greedy(scores, n, signed=True).numpy())
        taken = torch.zeros_like(graph.real_edges)
        for u, v in strongest[:n]:
            taken[u, v] = True
        assert torch.equal(topn.circuit(n).edges, naive_prune(Circuit(graph, taken)))


@given(GRAPHS, st.integers(0, 10**6), st.booleans())
@settings(max_examples=40, deadline=None)
def test_threshold_takes_equal_scores_together(graph: GraphSpec, seed: int, signed: bool):
    rough = random_scores(graph, seed)
    scores = EdgeScores(graph, (2 * rough.values).round(), "rough")
    strength = scores.values if signed else scores.values.abs()
    ranking = rank_edges(scores, "threshold-signed" if signed else "threshold")
    for value in strength[graph.real_edges].unique().tolist():
        above = graph.real_edges & (strength >= value)
        assert torch.equal(edges_above(scores, value, signed=signed).edges, naive_prune(Circuit(graph, above)))
        n = int(above.sum())
        assert torch.equal(ranking.circuit(n).edges, edges_above(scores, value, signed=signed).edges)
        stronger = int((graph.real_edges & (strength > value)).sum())
        assert torch.equal(ranking.circuit(n - 1).edges, ranking.circuit(stronger).edges)
    assert edges_above(scores, float(strength.max()) + 1.0, signed=signed).n_edges == 0


def test_thresholds_and_signs_on_paper():
    graph = GraphSpec(1, 1)
    scores = EdgeScores(graph, torch.zeros(graph.n_writers, graph.n_readers), "paper")
    for name, value in {"input->logits": 1.0, "m0->logits": -3.0, "input->m0": 2.0}.items():
        scores.values[graph.edge_index(name)] = value
    assert edges_above(scores, 2.0).edge_names == ("input->m0", "m0->logits")
    assert edges_above(scores, 2.0, signed=True).n_edges == 0
    assert edges_above(scores, 1.0, signed=True).edge_names == ("input->logits",)
    assert rank_edges(scores, "greedy").circuit(1).n_edges == 0
    assert rank_edges(scores, "greedy-signed").circuit(1).edge_names == ("input->logits",)


def test_some_asked_edges_are_pruned():
    ranking = rank_edges(random_scores(GraphSpec(3, 3), 0))
    assert (ranking.kept < np.arange(len(ranking.kept))).any()


def test_equal_scores_have_one_order():
    graph = GraphSpec(2, 2)
    scores = EdgeScores(graph, graph.real_edges.float(), "flat")
    for selection in ("greedy", "topn"):
        order = rank_edges(scores, selection).order[graph.real_edges.numpy()]  # type: ignore[arg-type]
        assert sorted(order.tolist()) == list(range(1, graph.n_edges + 1))
    assert rank_edges(scores).order[0, graph.logits_reader] == 1


def test_sizes_beyond_the_graph_and_scores_that_are_not_finite_are_refused():
    graph = GraphSpec(1, 2)
    scores = random_scores(graph, 0)
    with pytest.raises(ImpossibleRequest, match="ask for 0 to"):
        rank_edges(scores).circuit(graph.n_edges + 1)
    with pytest.raises(ImpossibleRequest, match="keeps"):
        grow(scores, graph.n_edges + 1)
    scores.values[0, 0] = float("nan")
    with pytest.raises(ImpossibleRequest, match="not finite"):
        rank_edges(scores)


def test_nodes_of_a_circuit_on_paper():
    graph = GraphSpec(2, 2)
    edges = torch.zeros_like(graph.real_edges)
    for name in ("input->a0.h1<k>", "a0.h1->m1", "m1->logits"):
        edges[graph.edge_index(name)] = True
    circuit = Circuit(graph, edges)
    names = [name for name, here in zip((*graph.writer_names, "logits"), circuit.nodes) if here]
    assert names == ["input", "a0.h1", "m1", "logits"]
    assert circuit.n_nodes == 4
    assert circuit.edge_names == ("input->a0.h1<k>", "a0.h1->m1", "m1->logits")
    assert empty_circuit(graph).n_nodes == 0
    assert full_circuit(graph).n_nodes == graph.n_writers + 1


def test_complement_and_full_share_nothing():
    graph = GraphSpec(2, 2)
    circuit = grow(random_scores(graph, 1), 6)
    other = complement(circuit)
    assert circuit.n_edges >= 6
    assert other.n_edges + circuit.n_edges == graph.n_edges
    assert not (other.edges & circuit.edges).any()


def test_grown_circuits_reach_their_size_and_not_before():
    ranking = rank_edges(random_scores(GraphSpec(3, 2), 5))
    for kept in (1, 7, 30):
        n = ranking.size_keeping(kept)
        assert ranking.kept[n] >= kept > ranking.kept[n - 1]


@settings(max_examples=60, deadline=None)
@given(graph=GRAPHS, seed=st.integers(0, 10_000), shares=st.lists(st.floats(0, 1), min_size=1, max_size=3))
def test_circuits_are_grown_to_several_sizes_without_ranking_all(graph: GraphSpec, seed: int, shares: list[float]):
    """The same as from the whole ranking, also where pruning takes more than was allowed for."""
    scores, sizes = random_scores(graph, seed), [round(share * graph.n_edges) for share in shares]
    ranking = rank_edges(scores)
    for circuit, size in zip(grow_to(scores, sizes), sizes, strict=True):
        assert torch.equal(circuit.edges, ranking.circuit(ranking.size_keeping(size)).edges)
        assert circuit.n_edges >= size


def test_permuted_scores_stay_in_their_group_and_move():
    graph = GraphSpec(3, 2, parallel=False)
    scores = random_scores(graph, 2)
    shuffled = permute_scores(scores, torch.Generator().manual_seed(0))
    assert not torch.equal(shuffled.values, scores.values)
    assert (shuffled.values[~graph.real_edges] == 0).all()
    for layer in range(4):
        for kind in ("q", "k", "v", "mlp", "logits"):
            columns = torch.tensor(
                [k == kind and int(x) == layer for k, x in zip(graph.reader_kinds, graph.reader_layers)]
            )
            here = graph.real_edges & columns
            assert torch.equal(shuffled.values[here].sort().values, scores.values[here].sort().values)


def test_random_circuits_keep_about_what_was_asked():
    scores = random_scores(GraphSpec(4, 4), 3)
    drawn = random_circuits(scores, 40, 20, torch.Generator().manual_seed(0))
    sizes = [circuit.n_edges for circuit in drawn]
    assert len(drawn) == 20
    assert min(sizes) >= 40
    assert max(sizes) < 70
    assert len({circuit.edges.numpy().tobytes() for circuit in drawn}) > 1


def test_jaccards_on_paper():
    graph = GraphSpec(1, 1)
    names = ("input->a0.h0<q>", "input->a0.h0<v>", "a0.h0->logits", "input->m0", "m0->logits")

    def of(*wanted: str) -> Circuit:
        edges = torch.zeros_like(graph.real_edges)
        for name in wanted:
            edges[graph.edge_index(name)] = True
        return Circuit(graph, edges)

    a, b = of(*names[1:3]), of(*names[1:5])
    assert jaccard_edges(a, b) == pytest.approx(2 / 4)
    assert jaccard_nodes(a, b) == pytest.approx(3 / 4)
    assert math.isnan(jaccard_edges(empty_circuit(graph), empty_circuit(graph)))
    x = EdgeScores(graph, torch.tensor([[3.0, 0, 0, 1, 0]] + [[0.0] * 5] * 2), "x")
    y = EdgeScores(graph, torch.tensor([[-1.0, 0, 0, 1, 0]] + [[0.0] * 5] * 2), "y")
    assert weighted_jaccard(x, y) == pytest.approx((0.5 + 0.25) / (0.75 + 0.5))
    assert weighted_jaccard(x, x) == pytest.approx(1.0)


def test_a_large_graph_is_ranked_quickly():
    graph = GraphSpec(12, 12)
    ranking = rank_edges(random_scores(graph, 0))
    assert ranking.kept[-1] == 32347

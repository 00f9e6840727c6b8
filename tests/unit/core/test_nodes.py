"""Circuits of nodes, on paper."""

from __future__ import annotations

import pytest
import torch

from ontogeny.core.circuit import full_circuit
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.nodes import NodeScores, node_circuit, top_nodes

GRAPH = GraphSpec(2, 1)
"""Writers: input, a0.h0, m0, a1.h0, m1."""


def named(*names: str) -> torch.Tensor:
    return torch.tensor([name in names for name in GRAPH.writer_names])


def test_all_edges_between_the_nodes():
    circuit = node_circuit(GRAPH, named("m0", "a1.h0"))
    assert set(circuit.edge_names) == {
        *("input->m0", "input->logits", "m0->logits", "a1.h0->logits"),
        *(f"{u}->a1.h0<{slot}>" for u in ("input", "m0") for slot in "qkv"),
    }
    assert node_circuit(GRAPH, named()).edge_names == ("input->logits",)


@pytest.mark.parametrize("parallel", [True, False])
def test_all_nodes_are_the_full_graph(parallel: bool):
    graph = GraphSpec(3, 2, parallel)
    everyone = torch.ones(graph.n_writers, dtype=torch.bool)
    assert torch.equal(node_circuit(graph, everyone).edges, full_circuit(graph).edges)


def test_the_strongest_nodes():
    scores = NodeScores(GRAPH, torch.tensor([9.0, 0.5, -3.0, 1.0, 0.5]), "paper")
    assert torch.equal(top_nodes(scores, 2).edges, node_circuit(GRAPH, named("m0", "a1.h0")).edges)
    assert torch.equal(top_nodes(scores, 2, signed=True).edges, node_circuit(GRAPH, named("a1.h0", "a0.h0")).edges)
    assert torch.equal(top_nodes(scores, 4).edges, full_circuit(GRAPH).edges)
    assert top_nodes(scores, 0).n_nodes == 2


def test_impossible_requests():
    scores = NodeScores(GRAPH, torch.zeros(5), "paper")
    with pytest.raises(ImpossibleRequest, match="4 heads and MLPs"):
        top_nodes(scores, 5)
    scores.values[2] = float("nan")
    with pytest.raises(ImpossibleRequest, match="not finite"):
        top_nodes(scores, 1)

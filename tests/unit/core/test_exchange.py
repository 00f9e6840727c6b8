"""Exchange with the EAP-IG library: round trips, its own conventions, and files that are none."""

from __future__ import annotations

import json

import pytest
import torch

from ontogeny.core.circuit import EdgeScores, empty_circuit, grow
from ontogeny.core.errors import OntogenyError
from ontogeny.core.exchange import from_eap_ig, to_eap_ig
from ontogeny.core.graph import GraphSpec


def example(parallel: bool = True) -> EdgeScores:
    graph = GraphSpec(3, 2, parallel)
    generator = torch.Generator().manual_seed(0)
    return EdgeScores(graph, torch.randn(graph.real_edges.shape, generator=generator) * graph.real_edges, "x")


@pytest.mark.parametrize("parallel", [True, False])
def test_round_trip_through_json_text(parallel: bool):
    scores = example(parallel)
    circuit = grow(scores, 9)
    again, values = from_eap_ig(json.loads(json.dumps(to_eap_ig(circuit, scores, 16))))
    assert again.graph == circuit.graph
    assert torch.equal(again.edges, circuit.edges)
    assert torch.equal(values.values.float(), scores.values)
    assert 9 <= again.n_edges < scores.graph.n_edges


def test_the_librarys_conventions():
    """What `Graph.from_json` there asks for: these keys, every node, every edge, logits always inside."""
    graph = GraphSpec(1, 2, parallel=False)
    data = to_eap_ig(empty_circuit(graph), None, 8)
    assert set(data) == {"cfg", "nodes", "edges"}
    assert data["cfg"] == {"n_layers": 1, "n_heads": 2, "parallel_attn_mlp": False, "d_model": 8}
    assert list(data["nodes"]) == ["input", "a0.h0", "a0.h1", "m0", "logits"]
    assert data["nodes"]["logits"] == {"in_graph": True}
    assert data["nodes"]["input"] == {"in_graph": False}
    assert set(data["edges"]) == {
        *(f"input->a0.h{h}<{slot}>" for h in (0, 1) for slot in "qkv"),
        *(f"{u}->m0" for u in ("input", "a0.h0", "a0.h1")),
        *(f"{u}->logits" for u in ("input", "a0.h0", "a0.h1", "m0")),
    }
    assert data["edges"]["input->m0"] == {"score": 0.0, "in_graph": False}


def test_files_that_are_none():
    data = to_eap_ig(empty_circuit(GraphSpec(1, 1)), None, 8)
    with pytest.raises(OntogenyError, match="lacks nodes"):
        from_eap_ig({key: data[key] for key in ("cfg", "edges")})
    with pytest.raises(OntogenyError, match="cfg lacks 'n_heads'"):
        from_eap_ig(data | {"cfg": {"n_layers": 1}})
    with pytest.raises(OntogenyError, match=r"'a0\.h0->m0' is no edge of a graph with 1 layers of 1 heads"):
        from_eap_ig(data | {"edges": {"a0.h0->m0": {"score": 0.0, "in_graph": True}}})

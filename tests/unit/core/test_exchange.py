"""Exchange with the EAP-IG library: round trips, its own conventions, and files that are none."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from ontogeny.core.circuit import EdgeScores, empty_circuit, grow
from ontogeny.core.errors import OntogenyError
from ontogeny.core.exchange import (
    from_eap_ig,
    from_eap_ig_tensors,
    read_graph,
    to_eap_ig,
    to_eap_ig_tensors,
    write_graph,
)
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


def test_the_early_dialect():
    """What `Graph.to_json` of 2024 wrote: nodes as plain booleans, no d_model, null for edges without a score."""
    scores = example()
    circuit = grow(scores, 9)
    data = to_eap_ig(circuit, None, 16, dialect="early")
    assert data["cfg"] == {"n_layers": 3, "n_heads": 2, "parallel_attn_mlp": True}
    assert data["nodes"]["logits"] is True
    assert set(data["nodes"].values()) == {True, False}
    assert data["edges"]["input->m0"]["score"] is None
    again, values = from_eap_ig(json.loads(json.dumps(data)))
    assert torch.equal(again.edges, circuit.edges)
    assert (values.values == 0).all()
    again, values = from_eap_ig(json.loads(json.dumps(to_eap_ig(circuit, scores, 16, dialect="early"))))
    assert torch.equal(again.edges, circuit.edges)
    assert torch.equal(values.values.float(), scores.values)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("suffix", [".json", ".pt"])
def test_round_trip_through_files(tmp_path: Path, suffix: str, parallel: bool):
    scores = example(parallel)
    circuit, path = grow(scores, 9), tmp_path / "new" / f"graph{suffix}"
    write_graph(path, circuit, scores, 16)
    again, values = read_graph(path)
    assert again.graph == circuit.graph
    assert torch.equal(again.edges, circuit.edges)
    assert torch.equal(values.values.float(), scores.values)
    write_graph(path, circuit, None, 16)
    assert (read_graph(path)[1].values == 0).all()


def test_what_the_library_asks_of_tensors():
    scores = example()
    data = to_eap_ig_tensors(grow(scores, 9), scores, 16)
    assert set(data) == {"cfg", "src_nodes", "dst_nodes", "edges_scores", "edges_in_graph", "nodes_in_graph"}
    assert data["src_nodes"][:4] == ["input", "a0.h0", "a0.h1", "m0"]
    assert data["dst_nodes"][:3] == ["a0.h0<q>", "a0.h1<q>", "a0.h0<k>"]
    assert data["dst_nodes"][-1] == "logits"
    assert data["nodes_in_graph"].shape == (scores.graph.n_writers,)
    assert data["edges_scores"].shape == data["edges_in_graph"].shape == scores.values.shape


def test_tensors_are_found_by_name_and_scores_may_be_missing():
    scores = example()
    circuit = grow(scores, 9)
    data = to_eap_ig_tensors(circuit, scores, 16)
    turned = data | {
        "src_nodes": data["src_nodes"][::-1],
        "edges_scores": data["edges_scores"].flip(0),
        "edges_in_graph": data["edges_in_graph"].flip(0),
    }
    again, values = from_eap_ig_tensors(turned)
    assert torch.equal(again.edges, circuit.edges)
    assert torch.equal(values.values.float(), scores.values)
    del turned["edges_scores"]
    assert (from_eap_ig_tensors(turned)[1].values == 0).all()


def test_tensors_that_do_not_fit():
    scores = example()
    data = to_eap_ig_tensors(grow(scores, 9), scores, 16)
    with pytest.raises(OntogenyError, match="lacks dst_nodes"):
        from_eap_ig_tensors({key: data[key] for key in data if key != "dst_nodes"})
    with pytest.raises(OntogenyError, match="src_nodes of the file are not the 10"):
        from_eap_ig_tensors(data | {"src_nodes": data["src_nodes"][:-1]})
    with pytest.raises(OntogenyError, match="edges_scores has shape"):
        from_eap_ig_tensors(data | {"edges_scores": data["edges_scores"][:-1]})
    with pytest.raises(OntogenyError, match="does not have"):
        from_eap_ig_tensors(data | {"edges_in_graph": torch.ones_like(data["edges_in_graph"])})


class Trap:
    """What a pickle may do when it is read."""

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return exec, ("raise SystemExit('code of the file was run')",)


def test_files_that_cannot_be_read(tmp_path: Path):
    trap, broken = tmp_path / "trap.pt", tmp_path / "broken.json"
    torch.save({"cfg": Trap()}, trap)
    with pytest.raises(OntogenyError, match=r"trap\.pt cannot be read"):
        read_graph(trap)
    broken.write_text("{")
    with pytest.raises(OntogenyError, match=r"broken\.json cannot be read"):
        read_graph(broken)
    broken.write_text("{}")
    with pytest.raises(OntogenyError, match=r"broken\.json: .* lacks cfg"):
        read_graph(broken)
    with pytest.raises(OntogenyError, match="lacks cfg"):
        from_eap_ig([])  # type: ignore[arg-type]
    with pytest.raises(OntogenyError, match="in_graph"):
        from_eap_ig(to_eap_ig(empty_circuit(GraphSpec(1, 1)), None, 8) | {"edges": {"input->m0": {"score": 1.0}}})
    with pytest.raises(OntogenyError, match="cannot be read"):
        read_graph(tmp_path / "absent.pt")
    with pytest.raises(OntogenyError, match=r"\.json or \.pt"):
        read_graph(tmp_path / "graph.bin")

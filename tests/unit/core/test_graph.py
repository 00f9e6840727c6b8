"""The graph: published edge counts, names, and the rule of METHODS 3.1 by an independent route."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from ontogeny.core.errors import OntogenyError
from ontogeny.core.graph import GraphSpec

PYTHIA = {
    "14m": (6, 4, 1_084),
    "31m": (6, 8, 3_580),
    "70m": (6, 8, 3_580),
    "160m": (12, 12, 32_347),
    "410m": (24, 16, 231_493),
    "1b": (16, 8, 27_545),
    "1.4b": (24, 16, 231_493),
    "2.8b": (32, 32, 1_591_857),
    "6.9b": (32, 32, 1_591_857),
    "12b": (36, 40, 3_131_263),
}


@pytest.mark.parametrize(("layers", "heads", "edges"), PYTHIA.values(), ids=PYTHIA)
def test_edges_of_pythia(layers: int, heads: int, edges: int):
    assert GraphSpec(layers, heads).n_edges == edges


def test_edges_of_gpt2_small_are_sequential():
    assert GraphSpec(12, 12, parallel=False).n_edges == 32_491


@given(st.integers(1, 4), st.integers(1, 4), st.booleans(), st.integers(1, 4))
@settings(max_examples=60, deadline=None)
def test_edges_are_those_of_the_rule(layers: int, heads: int, parallel: bool, groups: int):
    shared = groups if heads % groups == 0 else None
    graph = GraphSpec(layers, heads, parallel, shared)
    written = ["input"]
    names = set()
    for layer in range(layers):
        own = [f"a{layer}.h{h}" for h in range(heads)]
        keys = own if shared is None else [f"a{layer}.g{g}" for g in range(shared)]
        readers = [f"{n}<q>" for n in own] + [f"{n}<{slot}>" for n in keys for slot in "kv"]
        names |= {f"{w}->{reader}" for w in written for reader in readers}
        names |= {f"{w}->m{layer}" for w in (written if parallel else written + own)}
        written += [*own, f"m{layer}"]
    names |= {f"{w}->logits" for w in written}
    assert int(graph.real_edges.sum()) == graph.n_edges == len(names)
    assert {graph.edge_name(int(u), int(v)) for u, v in graph.real_edges.nonzero()} == names
    assert all(graph.edge_name(*graph.edge_index(name)) == name for name in names)
    assert len(graph.writer_names) == graph.n_writers
    assert len(graph.reader_names) == len(graph.reader_kinds) == len(graph.reader_layers) == graph.n_readers


@pytest.mark.parametrize("name", ["a1.h0->a0.h0<q>", "a0.h0->m0", "nonsense", "input->a9.h0<q>", "logits->m0"])
def test_edges_that_do_not_exist_are_refused(name: str):
    with pytest.raises(OntogenyError, match="is no edge of a graph with 2 layers of 2 heads"):
        GraphSpec(2, 2).edge_index(name)


def test_groups_feed_their_heads():
    """Four heads, two groups: heads 0 and 1 share the first."""
    graph = GraphSpec(2, 4, parallel=False, kv_heads=2)
    assert graph.reader_names[:9] == (
        *("a0.h0<q>", "a0.h1<q>", "a0.h2<q>", "a0.h3<q>"),
        *("a0.g0<k>", "a0.g1<k>", "a0.g0<v>", "a0.g1<v>", "m0"),
    )
    assert [graph.head_reader(1, 2, head) for head in range(4)] == [15, 15, 16, 16]
    fed = {graph.reader_names[v]: graph.feeds[:, v].nonzero().flatten().tolist() for v in range(9)}
    assert fed["a0.g1<k>"] == [graph.head_writer(0, 2), graph.head_writer(0, 3)]
    assert fed["a0.h1<q>"] == [graph.head_writer(0, 1)]
    assert fed["m0"] == [graph.mlp_writer(0)]


def test_without_groups_a_reader_feeds_one_node():
    graph = GraphSpec(3, 3)
    assert torch.equal(graph.feeds.sum(dim=0), torch.tensor([1] * (graph.n_readers - 1) + [0]))
    assert graph.feeds.int().argmax(dim=0)[:-1].tolist() == graph.writer_of_reader[:-1].tolist()


def test_what_groups_cannot_do_is_refused():
    with pytest.raises(OntogenyError, match="4 heads cannot share 3"):
        GraphSpec(2, 4, kv_heads=3)
    with pytest.raises(OntogenyError, match="every head has its own key and value readers"):
        _ = GraphSpec(2, 4, kv_heads=2).writer_of_reader

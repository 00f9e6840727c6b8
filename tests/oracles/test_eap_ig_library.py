"""Scores and circuits against recorded outputs of the EAP-IG library (../shared/oracle, see its README).

Its scores are (mean over 8 pairs) / 8 with the sign of ours. Zero ablation there keeps b_V W_O with b_O, and so does
ours. Two of its recordings carry effects of its own:

* ``exact``: the library prunes its graph in place, so when ``input->m0`` was taken out (m0's only input), m0 went with
  all its edges and stayed out for the rest of the sequence. The test follows that sequence and agrees to 1e-10.
* ``ig_activations``: the moved embedding needs no gradient there, so that the library's hooks at the readers of block 0
  do not fire in those m passes; ours do. The test leaves them out and agrees to 1e-10.
"""

from __future__ import annotations

import json
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from ontogeny.attribution import score_edges
from ontogeny.core.circuit import Circuit, EdgeScores, full_circuit, prune, rank_edges
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject, load_subject
from ontogeny.params import AttributionParams
from ontogeny.patching import Ablation, CircuitEvaluator

ORACLE = Path(__file__).resolve().parents[2].parent / "shared" / "oracle"
pytestmark = pytest.mark.skipif(not ORACLE.is_dir(), reason="needs ../shared/oracle beside the repository")

PAIRS = 8
METHODS = {
    "eap": AttributionParams(method="eap"),
    "eapig1": AttributionParams(rule="left", steps=1),
    "eapig5": AttributionParams(rule="left", steps=5),
    "eapig20": AttributionParams(rule="left", steps=20),
    "clean_corrupted": AttributionParams(method="clean_corrupted"),
}
DTYPES = [(torch.float64, 1e-10), (torch.float32, 1e-6)]


@lru_cache
def subject(dtype: torch.dtype) -> Subject:
    return load_subject(ORACLE / "model", dtype=dtype)


def arrays(name: str) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(value) for key, value in np.load(ORACLE / name).items() if value.dtype.kind in "if"}


def batch(which: str) -> PairBatch:
    inputs = arrays("inputs.npz" if which == "main" else "inputs_padded.npz")
    lengths = inputs.get("lengths", torch.full((PAIRS,), 10))
    signs = torch.tensor([[1.0, -1.0]], dtype=torch.float64).repeat(PAIRS, 1)
    return PairBatch(inputs["clean"], inputs["corrupted"], lengths, inputs["labels"], signs, "logit_diff")


def recorded(which: str) -> dict[str, Any]:
    return json.loads((ORACLE / f"circuits_{which}.json").read_text())


def circuit_of(names: list[str], dtype: torch.dtype = torch.float64) -> Circuit:
    graph = subject(dtype).graph
    edges = torch.zeros_like(graph.real_edges)
    for name in names:
        edges[graph.edge_index(name)] = True
    return Circuit(graph, edges)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_logits(dtype: torch.dtype, tolerance: float):
    pairs, inputs = batch("main"), arrays("inputs.npz")
    for tokens, expected in ((pairs.clean, "last_logits_clean"), (pairs.corrupted, "last_logits_corrupted")):
        ours = subject(dtype).logits(tokens, pairs.lengths).double()
        torch.testing.assert_close(ours, inputs[expected], atol=max(tolerance, 1e-5 * (dtype == torch.float32)), rtol=0)


@pytest.mark.parametrize("which", ["main", "padded"])
def test_graph(which: str):
    graph, names = subject(torch.float64).graph, recorded(which)
    assert list(graph.writer_names) == names["forward_nodes"]
    assert list(graph.reader_names) == names["backward_nodes"]
    assert sorted(full_circuit(graph).edge_names) == sorted(names["edge_names"])


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(
    ("which", "method"), [("main", m) for m in METHODS] + [("padded", "eap"), ("padded", "eapig5")]
)
def test_scores(which: str, method: str, dtype: torch.dtype, tolerance: float):
    expected = arrays(f"scores_{which}.npz")[f"matrix_{method}"] * PAIRS
    scores = score_edges(subject(dtype), batch(which), METHODS[method])
    assert expected.abs().max() > 0.1
    torch.testing.assert_close(scores.values.double(), expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_ig_activations(dtype: torch.dtype, tolerance: float):
    expected = arrays("scores_main.npz")["matrix_ig_activations5"] * PAIRS
    settings = AttributionParams(method="eap_ig_activations", rule="right", steps=5)
    ours = score_edges(subject(dtype), batch("main"), settings).values.double()
    graph = subject(dtype).graph
    in_block_0 = graph.reader_layers == 0
    passes = 2 * graph.n_layers + 1
    embedding = AttributionParams(method="eap_ig", rule="right", steps=5)
    silent = score_edges(subject(dtype), batch("main"), embedding).values.double() / passes
    assert silent[:, in_block_0].abs().max() > 0.01
    torch.testing.assert_close(ours - silent * in_block_0, expected, atol=tolerance, rtol=0)


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
def test_exact(dtype: torch.dtype, tolerance: float):
    pairs, names = batch("main"), recorded("main")["edge_names"]
    expected = arrays("scores_main.npz")["scores_exact"]
    graph = subject(dtype).graph
    evaluator = CircuitEvaluator(subject(dtype), pairs)
    baseline = evaluator.evaluate(full_circuit(graph)).double().mean()
    kept = graph.real_edges.clone()
    sequence = []
    for name in names:
        kept[graph.edge_index(name)] = False
        kept = prune(Circuit(graph, kept)).edges.clone()
        sequence.append(evaluator.evaluate(Circuit(graph, kept)).double().mean() - baseline)
        kept[graph.edge_index(name)] = True
    torch.testing.assert_close(torch.stack(sequence), expected, atol=tolerance, rtol=0)
    ours = score_edges(subject(dtype), pairs, AttributionParams(method="exact")).values.double()
    before = names[: names.index("input->m0") + 1]
    for name, value in zip(before, expected):
        assert float(ours[graph.edge_index(name)]) == pytest.approx(-float(value), abs=tolerance)


CASES = [
    (which, name) for which in ("main", "padded") for name in (recorded(which)["circuits"] if ORACLE.is_dir() else ())
]


@pytest.mark.parametrize(("dtype", "tolerance"), DTYPES)
@pytest.mark.parametrize(("which", "name"), CASES)
def test_circuits(which: str, name: str, dtype: torch.dtype, tolerance: float):
    """A circuit's metric, the mean over its pairs, and each pair: one number of size 1 to 5, whose spacing in float32
    is 2.4e-7 to 4.8e-7, is the sum of some twenty that were rounded like it, so that it may be off by twice as much.
    """
    case = recorded(which)["circuits"][name]
    ablation: Ablation = "zero" if case["intervention"] == "zero" else "patch"
    circuit = circuit_of(case["edges_after_prune"], dtype)
    values = CircuitEvaluator(subject(dtype), batch(which), ablation).evaluate(circuit)
    expected = torch.tensor(case["metric_per_pair"], dtype=torch.float64)
    torch.testing.assert_close(values.double().mean(), expected.mean(), atol=tolerance, rtol=0)
    torch.testing.assert_close(values.double(), expected, atol=2 * tolerance, rtol=0)


@pytest.mark.parametrize(("which", "name"), CASES)
def test_selection_and_pruning(which: str, name: str):
    """N = 100 of 102 cuts among scores that are all 0 (``input`` and ``m0`` do not differ at the read position)."""
    case = recorded(which)["circuits"][name]
    graph = subject(torch.float64).graph
    values = arrays(f"scores_{which}.npz")[f"matrix_{case['scores']}"]
    selection = "greedy" if case.get("selection") == "greedy" else "topn"
    circuit = rank_edges(EdgeScores(graph, values, "recorded"), selection).circuit(case["n"])
    if case["n"] < 100:
        assert sorted(circuit.edge_names) == sorted(case["edges_after_prune"])
    else:
        either = set(circuit.edge_names) ^ set(case["edges_after_prune"])
        assert all(abs(float(values[graph.edge_index(edge)])) < 1e-15 for edge in either)
        assert circuit.n_edges == len(case["edges_after_prune"])
    if "top_n_edges" in case:
        pruned = prune(circuit_of(case["top_n_edges"]))
        assert sorted(pruned.edge_names) == sorted(case["edges_after_prune"])
        nodes = [n for n, here in zip((*graph.writer_names, "logits"), pruned.nodes) if here]
        assert sorted({*nodes, "logits"}) == sorted(case["nodes_after_prune"])

"""Circuit evaluation against a second implementation, its identities, and its memory of earlier circuits."""

from __future__ import annotations

import pytest
import torch

from ontogeny.core.behaviour import metric_values
from ontogeny.core.circuit import Circuit, complement, empty_circuit, full_circuit, prune
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import Metric
from ontogeny.patching import Ablation, CircuitEvaluator, circuit_eval
from support.engine import naive_circuit, neox_model, neox_subject, random_batch

ABLATIONS = ("patch", "zero", "mean")


def random_circuit(graph: GraphSpec, density: float, seed: int) -> Circuit:
    generator = torch.Generator().manual_seed(seed)
    return Circuit(graph, graph.real_edges & (torch.rand(graph.real_edges.shape, generator=generator) < density))


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_circuits_are_those_of_the_definition(ablation: Ablation, parallel: bool, metric: Metric):
    """One evaluator sees all circuits in turn, pruned and not, so that what it remembers is tested too."""
    model, subject = neox_model(parallel=parallel), neox_subject(parallel=parallel)
    batch = random_batch(metric=metric, answers=4, padded=True, tokens=8)
    evaluator = CircuitEvaluator(subject, batch, ablation)
    seen = []
    for seed, density in enumerate((0.5, 0.9, 0.1, 0.5, 0.97)):
        circuit = random_circuit(subject.graph, density, seed)
        for one in (circuit, prune(circuit), complement(circuit)):
            expected = naive_circuit(model, batch, one.edges, ablation)
            torch.testing.assert_close(evaluator.evaluate(one), expected, atol=1e-12, rtol=0)
            seen.append(expected)
    assert torch.stack(seen).std(0).min() > 1e-3


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_a_cache_that_holds_one_pair_changes_nothing(ablation: Ablation, monkeypatch: pytest.MonkeyPatch):
    model, subject, batch = neox_model(), neox_subject(), random_batch(padded=True, tokens=8)
    circuit = random_circuit(subject.graph, 0.5, 0)
    whole = CircuitEvaluator(subject, batch, ablation)
    assert len(whole._parts[0]._tiles(9)) == 1
    monkeypatch.setattr(circuit_eval, "TILE", 1)
    tiled = CircuitEvaluator(subject, batch, ablation)
    assert len(tiled._parts[0]._tiles(9)) == len(batch) > 1
    expected = naive_circuit(model, batch, circuit.edges, ablation)
    torch.testing.assert_close(tiled.evaluate(circuit), expected, atol=1e-12, rtol=0)
    torch.testing.assert_close(tiled.evaluate(circuit), whole.evaluate(circuit), atol=1e-12, rtol=0)


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("ablation", ABLATIONS)
def test_the_full_graph_is_the_model(ablation: Ablation, parallel: bool):
    subject, batch = neox_subject(parallel=parallel, layers=3), random_batch()
    evaluator = CircuitEvaluator(subject, batch, ablation)
    clean = metric_values(subject.logits(batch.clean, batch.lengths), batch)
    torch.testing.assert_close(evaluator.evaluate(full_circuit(subject.graph)), clean, atol=1e-12, rtol=0)
    torch.testing.assert_close(evaluator.clean, clean, atol=1e-12, rtol=0)


def test_the_empty_graph_is_the_corrupted_prompt():
    subject, batch = neox_subject(layers=3), random_batch()
    evaluator = CircuitEvaluator(subject, batch)
    corrupted = metric_values(subject.logits(batch.corrupted, batch.lengths), batch)
    torch.testing.assert_close(evaluator.evaluate(empty_circuit(subject.graph)), corrupted, atol=1e-12, rtol=0)
    torch.testing.assert_close(evaluator.corrupted, corrupted, atol=1e-12, rtol=0)
    assert (evaluator.clean - corrupted).abs().max() > 0.1


def test_ablations_differ():
    subject, batch = neox_subject(), random_batch()
    circuit = random_circuit(subject.graph, 0.5, 3)
    patch, zero, mean = (CircuitEvaluator(subject, batch, a).evaluate(circuit) for a in ABLATIONS)
    assert min((patch - zero).abs().max(), (patch - mean).abs().max(), (zero - mean).abs().max()) > 1e-3


def test_pruning_changes_nothing_under_interchange():
    subject, batch = neox_subject(layers=3), random_batch()
    evaluator = CircuitEvaluator(subject, batch)
    circuit = random_circuit(subject.graph, 0.15, 5)
    assert prune(circuit).n_edges < circuit.n_edges
    torch.testing.assert_close(evaluator.evaluate(circuit), evaluator.evaluate(prune(circuit)), atol=1e-12, rtol=0)


@pytest.mark.parametrize("parallel", [True, False])
def test_a_scan_gives_what_fresh_evaluators_give(parallel: bool):
    """Neighbours in a scan share values; going back and forth must not mix them up."""
    subject, batch = neox_subject(parallel=parallel, layers=3), random_batch(padded=True, tokens=8)
    order = torch.randperm(subject.graph.n_edges, generator=torch.Generator().manual_seed(1))
    places = subject.graph.real_edges.nonzero()[order]
    circuits = []
    for n in (5, 40, 41, 42, 20, 42, 90, subject.graph.n_edges, 41, 0, 43):
        edges = torch.zeros_like(subject.graph.real_edges)
        edges[places[:n, 0], places[:n, 1]] = True
        circuits.append(Circuit(subject.graph, edges))
    scanned = CircuitEvaluator(subject, batch).evaluate_all(circuits)
    fresh = torch.stack([CircuitEvaluator(subject, batch).evaluate(circuit) for circuit in circuits])
    torch.testing.assert_close(scanned, fresh, atol=1e-13, rtol=0)
    assert scanned.std(0).max() > 0.05


def test_values_depend_neither_on_batch_size_nor_on_order():
    subject, batch = neox_subject(), random_batch(padded=True, tokens=8)
    circuit, order = random_circuit(subject.graph, 0.5, 2), torch.tensor([3, 0, 4, 2, 1])
    once = CircuitEvaluator(subject, batch).evaluate(circuit)
    apart = CircuitEvaluator(subject, batch.take(order), batch_pairs=2).evaluate(circuit)
    torch.testing.assert_close(apart, once[order], atol=1e-13, rtol=0)


def test_mean_ablation_keeps_groups_whole():
    subject, batch = neox_subject(), random_batch()
    circuit = random_circuit(subject.graph, 0.5, 2)
    once = CircuitEvaluator(subject, batch, "mean").evaluate(circuit)
    torch.testing.assert_close(CircuitEvaluator(subject, batch, "mean", batch_pairs=1).evaluate(circuit), once)


def test_float32_agrees_with_float64():
    batch = random_batch()
    circuit = random_circuit(neox_subject().graph, 0.5, 2)
    single, double = (CircuitEvaluator(neox_subject(double=d), batch).evaluate(circuit) for d in (False, True))
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_a_circuit_of_another_graph_is_refused():
    with pytest.raises(ImpossibleRequest, match="but the model's graph is"):
        CircuitEvaluator(neox_subject(), random_batch()).evaluate(full_circuit(GraphSpec(5, 5)))

"""Node scores against autograd on a second implementation, and against patching one node at a time."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from ontogeny.attribution import NODE_METHODS, NodeSettings, score_nodes, score_nodes_by_example
from ontogeny.core.circuit import full_circuit
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.nodes import node_circuit
from ontogeny.core.pairs import Metric, PairBatch
from ontogeny.models.subject import Subject
from ontogeny.patching import CircuitEvaluator
from support.engine import NaiveNeoX, naive_metric, neox_model, neox_subject, random_batch, see_all

ALPHAS = {
    "nap": (NodeSettings("nap"), [1.0]),
    "right": (NodeSettings("nap_ig", 3), [1 / 3, 2 / 3, 1.0]),
    "left": (NodeSettings("nap_ig", 2, "left"), [0.0, 0.5]),
}


def naive_node_scores(model: object, batch: PairBatch, alphas: list[float]) -> Tensor:
    """The definition by autograd, one prompt and one writer at a time."""
    naive, found = NaiveNeoX(model), []
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        clean, corrupted = (naive.run(naive.embed(t[row, :n]), see_all)[0] for t in (batch.clean, batch.corrupted))
        total = torch.zeros(naive.graph.n_writers, dtype=torch.float64)
        for alpha in alphas:
            start = (corrupted[0] + alpha * (clean[0] - corrupted[0])).requires_grad_()
            probes: dict[int, Tensor] = {0: start}

            def write(writer: int, z: Tensor, probes: dict[int, Tensor] = probes) -> Tensor:
                probes[writer] = torch.zeros_like(z, requires_grad=True)
                return z + probes[writer]

            _, logits = naive.run(start, see_all, write)
            gradients = torch.autograd.grad(naive_metric(logits[-1], batch, row), list(probes.values()))
            for writer, gradient in zip(probes, gradients):
                total[writer] += ((clean[writer] - corrupted[writer]) * gradient).sum() / len(alphas)
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("kind", ALPHAS)
def test_scores_are_autograds(kind: str, parallel: bool, metric: Metric):
    settings, alphas = ALPHAS[kind]
    subject, batch = neox_subject(parallel=parallel), random_batch(metric=metric, answers=6, padded=True, tokens=8)
    expected = naive_node_scores(neox_model(parallel=parallel), batch, alphas)
    scores = score_nodes(subject, batch, settings)
    assert scores.values.abs().max() > 1e-3
    torch.testing.assert_close(scores.values, expected.mean(0), atol=1e-12, rtol=0)
    one_by_one = score_nodes_by_example(subject, batch, settings, batch_pairs=2)
    torch.testing.assert_close(one_by_one, expected, atol=1e-12, rtol=0)


def lost_without(subject: Subject, batch: PairBatch, writer: int) -> float:
    """M(full graph) - M(full graph with the corrupted output of one head or MLP)."""
    evaluator = CircuitEvaluator(subject, batch)
    nodes = torch.ones(subject.graph.n_writers, dtype=torch.bool)
    nodes[writer] = False
    without = evaluator.evaluate(node_circuit(subject.graph, nodes))
    return float((evaluator.evaluate(full_circuit(subject.graph)) - without).mean())


@pytest.mark.parametrize("parallel", [True, False])
def test_nap_is_the_slope_of_patching_a_node(parallel: bool):
    """Where clean and corrupted nearly agree, first-order scores are exact up to second order."""
    subject = neox_subject(parallel=parallel)
    embed = subject.weights.embed.clone()
    embed[20:22] = embed[[3, 9]] + 1e-5 * embed[20:22]
    close = replace(subject, weights=replace(subject.weights, embed=embed))
    clean = torch.arange(1, 13).view(2, 6)
    corrupted = clean.clone()
    corrupted[:, 2] = torch.tensor([20, 21])
    batch = replace(random_batch(pairs=2, tokens=6), clean=clean, corrupted=corrupted)
    scores = score_nodes(close, batch, NodeSettings("nap")).values[1:]
    exact = torch.tensor([lost_without(close, batch, u) for u in range(1, close.graph.n_writers)]).double()
    assert exact.abs().max() > 1e-7
    torch.testing.assert_close(scores, exact, atol=1e-4 * float(exact.abs().max()), rtol=0)


def test_the_inputs_score_is_complete_as_m_grows():
    subject, batch = neox_subject(), random_batch()
    evaluator = CircuitEvaluator(subject, batch)
    change = float((evaluator.clean - evaluator.corrupted).mean())
    assert abs(change) > 0.05
    fine = score_nodes(subject, batch, NodeSettings("nap_ig", 64, "midpoint")).values[0]
    assert float(fine) == pytest.approx(change, rel=2e-3)


def test_methods_say_what_they_did_and_unknown_ones_are_refused():
    labels = {name: method.label(NodeSettings(name, 7)) for name, method in NODE_METHODS.items()}
    assert labels == {"nap": "nap", "nap_ig": "nap_ig-right-7"}
    assert score_nodes(neox_subject(), random_batch(pairs=1), NodeSettings("nap_ig", 7)).method == "nap_ig-right-7"
    with pytest.raises(ImpossibleRequest, match="there are: nap, nap_ig"):
        score_nodes(neox_subject(), random_batch(), NodeSettings("eap"))

"""The truth that the other methods estimate: one patched forward pass an edge (METHODS 3.4).

    score(u -> v) = M(full graph) - M(full graph without u -> v)

for each example, so > 0 means that the edge helps. Slow: E evaluations; an oracle for small graphs.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ontogeny.attribution.base import Attribution, AttributionSettings, register
from ontogeny.core.circuit import Circuit, full_circuit
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject
from ontogeny.patching.circuit_eval import CircuitEvaluator


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:  # noqa: ARG001
    graph = subject.graph
    evaluator = CircuitEvaluator(subject, batch)
    whole = evaluator.evaluate(full_circuit(graph))
    scores = torch.zeros(len(batch), graph.n_writers, graph.n_readers, dtype=whole.dtype)
    for writer, reader in graph.real_edges.nonzero().tolist():
        edges = graph.real_edges.clone()
        edges[writer, reader] = False
        scores[:, writer, reader] = whole - evaluator.evaluate(Circuit(graph, edges))
    return scores if per_example else scores.sum(dim=0)


register(Attribution("exact", _score, lambda _: "exact"))

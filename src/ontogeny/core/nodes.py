"""Scores of nodes and the circuits that sets of nodes span (METHODS 3.4).

A node circuit holds every edge between its nodes; the embedding and the logits are always among them. So what a
left-out node writes is the reference's, wherever it is read.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.core.circuit import Circuit, prune
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec


@dataclass(frozen=True)
class NodeScores:
    """One score a writer; > 0: the node helps, corrupting what it writes is predicted to lower the metric."""

    graph: GraphSpec
    values: Float[Tensor, " writers"]
    method: str
    """E.g. ``nap_ig-right-5``."""


def node_circuit(graph: GraphSpec, nodes: Bool[Tensor, " writers"]) -> Circuit:
    """All edges between these writers, the embedding and the logits, pruned."""
    inside = nodes.clone()
    inside[0] = True
    reads = (graph.feeds & inside[:, None]).any(dim=0)
    reads[graph.logits_reader] = True
    return prune(Circuit(graph, graph.real_edges & inside[:, None] & reads))


def top_nodes(scores: NodeScores, asked: int, *, signed: bool = False) -> Circuit:
    """The circuit of the `asked` nodes of largest |score| (with `signed`: of largest score) besides the embedding.

    Equal scores: the lower writer first.

    Raises:
        ImpossibleRequest: more nodes than there are, or a score is not finite.
    """
    heads_and_mlps = scores.graph.n_writers - 1
    if not 0 <= asked <= heads_and_mlps:
        raise ImpossibleRequest(
            f"A circuit of {asked} nodes was asked for, but this graph has {heads_and_mlps} heads and MLPs."
        )
    values = scores.values[1:].double()
    if not bool(values.isfinite().all()):
        raise ImpossibleRequest("Nodes cannot be ranked: some scores are not finite. Check the checkpoint's weights.")
    strongest = torch.argsort(values if signed else values.abs(), descending=True, stable=True)[:asked]
    inside = torch.zeros(scores.graph.n_writers, dtype=torch.bool)
    inside[1 + strongest] = True
    return node_circuit(scores.graph, inside)

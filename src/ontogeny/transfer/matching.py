"""Which head of one model plays the part of which head of another of the same shape (METHODS 8.2).

Indices of heads mean nothing across seeds. Within each layer heads are matched by what they do: each head is the
vector of its role scores, measured on the `tune` split where a role is measured on prompts at all, and the matching
is the one with the least sum of squared distances (Kuhn 1955; scipy's `linear_sum_assignment`).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.core.circuit import Circuit
from ontogeny.core.graph import GraphSpec
from ontogeny.core.roles import RoleScores

Names: TypeAlias = Int[np.ndarray, "layers heads"]
"""For each head of the source, the head of the target in the same layer."""


@dataclass(frozen=True)
class Matching:
    """A one-to-one matching within layers."""

    to: Names
    distance: Float[np.ndarray, "layers heads"]
    """Of each head of the source from the one that it is matched with."""


def role_vectors(
    graph: GraphSpec, source: Mapping[str, RoleScores], target: Mapping[str, RoleScores]
) -> tuple[Float[np.ndarray, "layers heads roles"], Float[np.ndarray, "layers heads roles"]]:
    """Both models' heads as vectors, a number a role, in standard deviations over the heads of both.

    A role that is undefined in either, or the same for all heads, is left out; a single score that is not measured is
    the mean.
    """
    shared = [name for name in source if name in target and {source[name].status, target[name].status} == {"measured"}]
    pairs = [np.stack([scores[name].score.double().numpy() for scores in (source, target)]) for name in shared]
    columns = []
    for both in pairs:
        seen = both[np.isfinite(both)]
        if len(seen) and seen.std() > 0:
            columns.append(np.nan_to_num((both - seen.mean()) / seen.std(), nan=0.0))
    ours, theirs = np.stack(columns, axis=-1) if columns else np.zeros((2, graph.n_layers, graph.n_heads, 0))
    return ours, theirs


def match_heads(
    source: Float[np.ndarray, "layers heads roles"], target: Float[np.ndarray, "layers heads roles"]
) -> Matching:
    """The matching of least squared distance in each layer; without any role every head keeps its index."""
    from scipy.optimize import linear_sum_assignment

    square = ((source[:, :, None] - target[:, None]) ** 2).sum(-1)
    to = np.stack([linear_sum_assignment(layer)[1] for layer in square])
    return Matching(to, np.sqrt(np.take_along_axis(square, to[:, :, None], axis=2)[:, :, 0]))


def random_names(graph: GraphSpec, generator: torch.Generator) -> Names:
    """A matching drawn at random within each layer."""
    drawn = [torch.randperm(graph.n_heads, generator=generator).numpy() for _ in range(graph.n_layers)]
    return np.stack(drawn)


def rename_heads(circuit: Circuit, to: Names) -> Circuit:
    """The same circuit among the heads that its own are matched with."""
    graph = circuit.graph
    graph.require_own_readers("Matching heads")
    writers, readers = list(range(graph.n_writers)), list(range(graph.n_readers))
    for layer, heads in enumerate(to.tolist()):
        for head, new in enumerate(heads):
            writers[graph.head_writer(layer, head)] = graph.head_writer(layer, new)
            for slot in range(3):
                readers[graph.head_reader(layer, slot, head)] = graph.head_reader(layer, slot, new)
    edges: Tensor = torch.zeros_like(circuit.edges)
    u, v = circuit.edges.nonzero(as_tuple=True)
    edges[torch.tensor(writers)[u], torch.tensor(readers)[v]] = True
    return Circuit(graph, edges)

"""How alike circuits are by chance: selected as the real ones are, on shuffled scores (METHODS 5.4).

Scores are shuffled among edges into readers of the same kind and layer, `draws` times; each shuffle is ranked once, and
cut wherever circuits of some size are compared. Random *sets* of edges share less, for a
circuit must reach from the input to the logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float

from ontogeny.core.circuit import EdgeScores, Selection, permute_scores, rank_edges, weighted_jaccard, weighted_nodes


class ByChance(NamedTuple):
    """Likeness of two random circuits over all pairs of different draws."""

    edges: float
    """Mean."""
    edges_p95: float
    nodes: float
    nodes_p95: float


UNKNOWN = ByChance(math.nan, math.nan, math.nan, math.nan)


class RandomCircuits:
    """Random circuits of one graph, of any size; sizes are rounded to two digits, so that few are cut."""

    def __init__(self, scores: EdgeScores, draws: int, seed: int, selection: Selection = "greedy") -> None:
        """Shuffle `scores` `draws` times, and rank each shuffle."""
        generator = torch.Generator().manual_seed(seed)
        self.scores = [permute_scores(scores, generator) for _ in range(draws)]
        self.rankings = [rank_edges(shuffled, selection) for shuffled in self.scores]
        self._cuts: dict[int, tuple[Bool[np.ndarray, "draws edges"], Bool[np.ndarray, "draws nodes"]]] = {}

    def alike(self, one: int, other: int) -> ByChance:
        """Jaccard of two random circuits that keep at least `one` and `other` edges."""
        (edges, nodes), (other_edges, other_nodes) = self._cut(one), self._cut(other)
        return ByChance(*_pairs(_jaccard(edges, other_edges)), *_pairs(_jaccard(nodes, other_nodes)))

    def alike_weighted(self) -> ByChance:
        """Weighted Jaccard of two shuffles, of edges and of nodes."""
        n = len(self.scores)
        edges, nodes = np.ones((2, n, n))
        for i in range(n):
            for j in range(i):
                edges[i, j] = edges[j, i] = weighted_jaccard(self.scores[i], self.scores[j])
                nodes[i, j] = nodes[j, i] = weighted_nodes(self.scores[i], self.scores[j])
        return ByChance(*_pairs(edges), *_pairs(nodes))

    def _cut(self, kept: int) -> tuple[Bool[np.ndarray, "draws edges"], Bool[np.ndarray, "draws nodes"]]:
        kept = min(self.rankings[0].graph.n_edges, _rounded(kept))
        if kept not in self._cuts:
            circuits = [ranking.circuit(ranking.size_keeping(kept)) for ranking in self.rankings]
            real = self.rankings[0].graph.real_edges
            edges = np.stack([circuit.edges[real].numpy() for circuit in circuits])
            self._cuts[kept] = edges, np.stack([circuit.nodes.numpy() for circuit in circuits])
        return self._cuts[kept]


def _rounded(size: int) -> int:
    """To two significant digits: likeness by chance moves by about as much, less than 5 %."""
    unit = 10 ** max(0, len(str(size)) - 2)
    return round(size / unit) * unit


def _jaccard(
    a: Bool[np.ndarray, "draws things"], b: Bool[np.ndarray, "draws things"]
) -> Float[np.ndarray, "draws draws"]:
    """Of every row of `a` with every row of `b`."""
    shared = a.astype(np.float32) @ b.astype(np.float32).T
    union = a.sum(1)[:, None] + b.sum(1)[None] - shared
    return np.where(union > 0, shared / np.maximum(union, 1), np.nan)


def _pairs(alike: Float[np.ndarray, "draws draws"]) -> tuple[float, float]:
    """Mean and 95th percentile over pairs of different draws."""
    values = alike[~np.eye(len(alike), dtype=bool)]
    return float(values.mean()), float(np.quantile(values, 0.95))

"""Edge scores and circuits as immutable values; choosing, pruning and comparing circuits (METHODS 4.1-4.2, 8.1)."""

from __future__ import annotations

from dataclasses import dataclass

from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.core.graph import GraphSpec


@dataclass(frozen=True)
class EdgeScores:
    """One score an edge (METHODS 3.3); > 0: corrupting the edge is predicted to lower the metric, so it helps."""

    graph: GraphSpec
    values: Float[Tensor, "writers readers"]
    """0 where there is no edge."""
    method: str
    """E.g. ``eap_ig-right-5``."""


@dataclass(frozen=True)
class Circuit:
    """A set of edges, after pruning."""

    graph: GraphSpec
    edges: Bool[Tensor, "writers readers"]

    @property
    def n_edges(self) -> int:
        """Edges kept."""
        return int(self.edges.sum())

"""What scoring costs: passes of one prompt through the model, whatever the machine.

For a method with a path: a forward pass of the corrupted and of the clean prompt, then for each point a backward pass,
and a forward pass unless the point is one of the two ends. `exact` takes a forward pass an edge and one for the full
graph. A pass that starts in the middle of the model (a moved layer, a circuit) counts as a whole one. A test counts
what the engine does.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from ontogeny.attribution.eap_ig import path_points
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.tuning import ScoreSetting


class Passes(NamedTuple):
    """For one prompt pair."""

    forward: int
    backward: int


def _inner(scores: ScoreSetting) -> int:
    """Points of the path that are no end of it."""
    return sum(0.0 < point.alpha < 1.0 for point in path_points(scores.rule, scores.steps))


_COSTS: dict[str, Callable[[ScoreSetting, GraphSpec], Passes]] = {
    "eap": lambda scores, graph: Passes(2, 1),  # noqa: ARG005
    "clean_corrupted": lambda scores, graph: Passes(2, 2),  # noqa: ARG005
    "eap_ig": lambda scores, graph: Passes(2 + _inner(scores), scores.steps),  # noqa: ARG005
    "eap_ig_activations": lambda scores, graph: Passes(
        4 + _inner(scores) + 2 * graph.n_layers * scores.steps, (2 * graph.n_layers + 1) * scores.steps
    ),
    "ceap": lambda scores, graph: Passes(1 + scores.steps * (2 if scores.rule == "midpoint" else 1), scores.steps),  # noqa: ARG005
    "exact": lambda scores, graph: Passes(3 + graph.n_edges, 0),  # noqa: ARG005
}


def passes(scores: ScoreSetting, graph: GraphSpec) -> Passes:
    """Passes for each prompt pair.

    Raises:
        ImpossibleRequest: no such method.
    """
    if scores.method not in _COSTS:
        raise ImpossibleRequest(f"The cost of the method {scores.method!r} is not known; of: {', '.join(_COSTS)}.")
    return _COSTS[scores.method](scores, graph)

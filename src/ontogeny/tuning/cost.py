"""What scoring costs: passes of one prompt through the model, whatever the machine; and memory.

For a method with a path: a forward pass of the corrupted and of the clean prompt, then for each point a backward pass,
and a forward pass unless the point is one of the two ends. `exact` takes a forward pass an edge and one for the full
graph. A pass that starts in the middle of the model (a moved layer, a circuit) counts as a whole one. A test counts
what the engine does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple

from ontogeny.attribution.eap_ig import path_points
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.tuning import ScoreSetting
from ontogeny.models.forward import bytes_of_run
from ontogeny.models.weights import Architecture

KEPT: Final = 2**29
"""Bytes of models, and of what circuits on them are evaluated with, that a worker keeps for its next jobs; the model in
use may take more."""
_WRITTEN: Final = 1.5
"""What an evaluator of circuits holds beside a run, in units of what all writers write on its prompts."""


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


def bench_bytes(architecture: Architecture, parameters: int, item: int, evaluated: Iterable[tuple[int, int]]) -> int:
    """What a model at which settings are tried takes: its weights, and an evaluator for each set of prompts.

    Less where prompts of a pair begin alike: what is common to them is not held twice.

    Args:
        architecture: of the model.
        parameters: its numbers.
        item: bytes of a number.
        evaluated: prompts and tokens of each set.
    """
    total = float(item * parameters)
    for prompts, tokens in evaluated:
        written = architecture.graph.n_writers * architecture.d_model * tokens * item
        total += prompts * (_WRITTEN * written + bytes_of_run(architecture, tokens, item))
    return int(total)

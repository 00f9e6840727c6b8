"""Methods that score nodes instead of edges, and the list of those there are (METHODS 3.4).

    score(u) = mean over examples of sum over positions of < z_u(clean) - z_u(corrupted), dM/dz_u >

What u writes reaches the metric through the readers after it and nowhere else, so dM/dz_u is the sum of their
gradients: a node's score is the sum of its outgoing edges' scores at the same points.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.attribution.base import AttributionSettings, Score, in_parts
from ontogeny.attribution.path import PathPoint, path_scores
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.nodes import NodeScores
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject


@dataclass(frozen=True)
class NodeSettings:
    """How nodes are scored; the fields mean what they mean for edges."""

    method: str = "nap_ig"
    """A key of `NODE_METHODS`."""
    steps: int = 5
    rule: str = "right"


@dataclass(frozen=True)
class NodeAttribution:
    """A method: `score` gives the scores of a batch that fits into memory, `label` says what was computed."""

    name: str
    score: Score
    """``[pairs, writers]``, or ``[writers]``."""
    label: Callable[[AttributionSettings], str]


NODE_METHODS: dict[str, NodeAttribution] = {}


def register_nodes(method: NodeAttribution) -> NodeAttribution:
    """Add a method; a name is taken once."""
    if method.name in NODE_METHODS:
        raise ValueError(f"There is a node attribution method {method.name!r} already.")
    NODE_METHODS[method.name] = method
    return method


def node_path_scores(
    subject: Subject, batch: PairBatch, points: Sequence[PathPoint], per_example: bool
) -> Float[Tensor, "*pairs writers"]:
    """Scores ``[pairs, writers]``, or their sum over pairs ``[writers]``."""
    return path_scores(subject, batch, points, per_example).sum(dim=-1)


def score_nodes(
    subject: Subject, batch: PairBatch, settings: AttributionSettings, *, batch_pairs: int | None = None
) -> NodeScores:
    """Scores of all writers: > 0 means that the node helps.

    Args:
        subject: the model.
        batch: the prompt pairs of one split.
        settings: method, steps, rule; `NodeSettings` is one.
        batch_pairs: pairs worked on at once; None: as `base.pairs_at_once` says.
    """
    method = _method(settings)
    total = torch.zeros(subject.graph.n_writers, dtype=torch.float64)
    for found in in_parts(method.score, subject, batch, settings, False, batch_pairs):
        total += found.double()
    values = (total / len(batch)).to(torch.float64 if subject.dtype == torch.float64 else torch.float32)
    return NodeScores(subject.graph, values, method.label(settings))


def score_nodes_by_example(
    subject: Subject, batch: PairBatch, settings: AttributionSettings, *, batch_pairs: int | None = None
) -> Float[Tensor, "pairs writers"]:
    """The scores whose mean over examples `score_nodes` gives: for the bootstrap."""
    method = _method(settings)
    return torch.cat(list(in_parts(method.score, subject, batch, settings, True, batch_pairs)))


def _method(settings: AttributionSettings) -> NodeAttribution:
    if settings.method not in NODE_METHODS:
        raise ImpossibleRequest(
            f"No node attribution method {settings.method!r}; there are: {', '.join(NODE_METHODS)}."
        )
    return NODE_METHODS[settings.method]

"""Node attribution patching: the gradient on the clean prompt (METHODS 3.4)."""

from __future__ import annotations

from torch import Tensor

from ontogeny.attribution.base import AttributionSettings
from ontogeny.attribution.nodes import NodeAttribution, node_path_scores, register_nodes
from ontogeny.attribution.path import PathPoint
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:  # noqa: ARG001
    return node_path_scores(subject, batch, [PathPoint(1.0, 1.0)], per_example)


register_nodes(NodeAttribution("nap", _score, lambda _: "nap"))

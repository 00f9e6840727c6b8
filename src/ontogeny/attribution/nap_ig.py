"""Node attribution with integrated gradients over the input embedding: the points of `eap_ig` (METHODS 3.4)."""

from __future__ import annotations

from torch import Tensor

from ontogeny.attribution.base import AttributionSettings
from ontogeny.attribution.eap_ig import path_points
from ontogeny.attribution.nodes import NodeAttribution, node_path_scores, register_nodes
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:
    return node_path_scores(subject, batch, path_points(settings.rule, settings.steps), per_example)


register_nodes(NodeAttribution("nap_ig", _score, lambda s: f"nap_ig-{s.rule}-{s.steps}"))

"""EAP with integrated gradients over activations: each writer layer is moved in turn (Hanna et al. 2024; METHODS 3.4).

For the embedding, for the heads of each block together, and for each MLP: what they write is moved from the corrupted
to the clean value in m steps (the rule's points) while everything downstream is recomputed; the gradients of all
m (2L + 1) passes are averaged and meet the writers' differences, as the EAP-IG library does it. Nothing flows back
through a layer that is moved.
"""

from __future__ import annotations

from torch import Tensor

from ontogeny.attribution.base import Attribution, AttributionSettings, register
from ontogeny.attribution.eap_ig import path_points
from ontogeny.attribution.path import PathPoint, path_scores
from ontogeny.core.pairs import PairBatch
from ontogeny.models.forward import Part
from ontogeny.models.subject import Subject


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:
    parts: tuple[Part, ...] = ("heads", "mlp")
    layers = [None, *((layer, part) for layer in range(subject.graph.n_layers) for part in parts)]
    points = [
        PathPoint(point.alpha, point.weight / len(layers), of)
        for of in layers
        for point in path_points(settings.rule, settings.steps)
    ]
    return path_scores(subject, batch, points, per_example)


register(Attribution("eap_ig_activations", _score, lambda s: f"eap_ig_activations-{s.rule}-{s.steps}"))

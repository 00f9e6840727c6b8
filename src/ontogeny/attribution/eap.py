"""Edge attribution patching: the gradient on the clean prompt (Syed et al. 2023; METHODS 3.4)."""

from __future__ import annotations

from torch import Tensor

from ontogeny.attribution.base import Attribution, AttributionSettings, register
from ontogeny.attribution.path import PathPoint, path_scores
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:  # noqa: ARG001
    return path_scores(subject, batch, [PathPoint(1.0, 1.0)], per_example)


register(Attribution("eap", _score, lambda _: "eap"))

"""EAP with integrated gradients over the input embedding (Hanna et al. 2024; METHODS 3.4).

Only the token embedding is interpolated; everything downstream is recomputed, and the writers' difference is that of
the clean and the corrupted run. The m points by rule, as weight alpha on the clean embedding: ``right`` k/m for
k = 1..m (the paper's), ``left`` k/m for k = 0..m-1 (the EAP-IG library), ``midpoint`` (k - 1/2)/m.
"""

from __future__ import annotations

from torch import Tensor

from ontogeny.attribution.base import Attribution, AttributionSettings, register
from ontogeny.attribution.path import PathPoint, path_scores
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject

OFFSETS = {"right": 1.0, "left": 0.0, "midpoint": 0.5}


def path_points(rule: str, steps: int) -> list[PathPoint]:
    """The m points of a rule, of weight 1/m each.

    Raises:
        ImpossibleRequest: no such rule, or less than one step.
    """
    if rule not in OFFSETS or steps < 1:
        raise ImpossibleRequest(
            f"Rule {rule!r} with {steps} steps: choose one of {', '.join(OFFSETS)} and at least 1 step."
        )
    return [PathPoint((k + OFFSETS[rule]) / steps, 1.0 / steps) for k in range(steps)]


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:
    return path_scores(subject, batch, path_points(settings.rule, settings.steps), per_example)


register(Attribution("eap_ig", _score, lambda s: f"eap_ig-{s.rule}-{s.steps}"))

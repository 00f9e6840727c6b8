"""Conductance-based edge attribution (CEAP; Wu, Tonin, Cevher 2026, arXiv 2606.16920; METHODS 3.4).

    score(u -> v) = sum over k of < z_u(alpha_{k+1}) - z_u(alpha_k), dM/d(input of v) >,   alpha_k = k / m

along the path of input embeddings that `eap_ig` takes. Each gradient meets what the writer did *on that part of the
path* (the conductance of Dhamdhere et al. 2018), where EAP-IG gives every gradient the same, whole difference. So not
only the scores out of `input` sum to M(clean) - M(corrupted) as m grows, but those into `logits` too. The rule says
where in part k the gradient is taken: ``left`` at alpha_k (as published), ``right`` at alpha_{k+1}, ``midpoint``
between.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ontogeny.attribution.base import Attribution, AttributionSettings, register
from ontogeny.attribution.eap_ig import OFFSETS, path_points
from ontogeny.attribution.path import contract, no_gradients, run_at, trace_at
from ontogeny.core.pairs import PairBatch
from ontogeny.models.readout import readout
from ontogeny.models.subject import Subject, align_pairs


def _score(subject: Subject, batch: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:
    m, weights = len(path_points(settings.rule, settings.steps)), subject.weights
    offset = OFFSETS[settings.rule]
    at_an_end = offset in (0.0, 1.0)
    pairs, read = align_pairs(subject, batch), readout(weights, batch)
    start, before = run_at(weights, pairs, 0.0, traced=at_an_end)
    parts = []
    for k in range(m):
        end, after = run_at(weights, pairs, (k + 1) / m, traced=at_an_end)
        here = (start if offset == 0.0 else end) if at_an_end else trace_at(weights, pairs, (k + offset) / m)
        sums = no_gradients(weights, len(batch))
        sums.add(weights, pairs.plan, read, here, 1.0, None)
        parts.append(contract(subject, after.minus(before), sums, per_example))
        start, before = end, after
    return torch.stack(parts).sum(dim=0)


register(Attribution("ceap", _score, lambda s: f"ceap-{s.rule}-{s.steps}"))

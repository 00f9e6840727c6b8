"""Self-repair: what the other heads do when a role's leading heads are taken out (METHODS 8.5).

The leading heads' outputs become those of the corrupted prompt, at all positions, and everything after them runs again.
With direct effects through the final norm at its clean scale, logits:

    lost      what the ablated heads' own direct effects fall by
    by_heads  what those of all other heads rise by, by_mlps those of the MLPs, by_norm what the norm's new scale adds
    total     M(clean) - M(ablated) = lost - by_heads - by_mlps - by_norm
    taken over  1 - total / lost

A role that acts through other heads (induction, S-inhibition) has little direct effect of its own, so that little can
be taken over; what `by_heads` shows there is the loss of what the role feeds, with a minus.
"""

from __future__ import annotations

import math

import torch

from ontogeny.components import holders
from ontogeny.core.algorithm import SelfRepair
from ontogeny.core.roles import HeadScores, RoleScores
from ontogeny.params import ThresholdParams
from ontogeny.patching.path_patching import PathPatcher

LEAST_SHARE = 0.01
"""`taken_over` is NaN where less than this share of M(clean) - M(corrupted) is lost: a ratio of two nothings."""


def self_repair(patcher: PathPatcher, scores: RoleScores, thresholds: ThresholdParams, leading: int) -> SelfRepair:
    """Ablate the `leading` strongest holders of a role together.

    Args:
        patcher: the clean and the corrupted run; the metric must be a difference of logits.
        scores: the role.
        thresholds: who holds it.
        leading: heads at most.
    """
    heads = () if scores.status == "undefined" else holders(scores, thresholds)[:leading]
    if not heads:
        reason = scores.reason or "No head holds this role."
        return _undefined(scores, reason)
    graph = patcher.graph
    before, after = patcher.direct_effects().double().mean(dim=1), patcher.interchange(heads)
    change = after.direct.double().mean(dim=1)
    ablated = torch.zeros(graph.n_writers, dtype=torch.bool)
    ablated[[graph.head_writer(*head) for head in heads]] = True
    mlps = torch.zeros_like(ablated)
    mlps[[graph.mlp_writer(layer) for layer in range(graph.n_layers)]] = True
    clean, corrupted = float(patcher.clean.double().mean()), float(patcher.corrupted.double().mean())
    lost, total = float(before[ablated].sum()), clean - float(after.metric.double().mean())
    by_heads, by_mlps = float(change[~ablated & ~mlps].sum()), float(change[mlps].sum())
    enough = abs(lost) > LEAST_SHARE * abs(clean - corrupted)
    by_head: HeadScores = torch.where(ablated, torch.nan, change)[1:].view(graph.n_layers, -1)[:, :-1]
    return SelfRepair(
        role=scores.role,
        status="measured",
        reason="",
        ablated=heads,
        lost=lost,
        total=total,
        by_heads=by_heads,
        by_mlps=by_mlps,
        by_norm=lost - by_heads - by_mlps - total,
        taken_over=1.0 - total / lost if enough else math.nan,
        change=by_head.contiguous(),
    )


def _undefined(scores: RoleScores, reason: str) -> SelfRepair:
    nan = math.nan
    return SelfRepair(
        scores.role, "undefined", reason, (), nan, nan, nan, nan, nan, nan, torch.full_like(scores.score, nan)
    )

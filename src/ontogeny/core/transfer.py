"""What is known of circuits at other checkpoints than their own, and of heads taken out (METHODS 8.2, 0.1 C2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from ontogeny.core.roles import Head

HeadsOf = Literal["own", "unmatched", "matched", "random"]
"""Whose heads a carried circuit uses: those of its own member; of another seed under the same indices, under the
matching of role vectors, or under a random matching within layers (mean over draws)."""


@dataclass(frozen=True)
class Transfer:
    """The circuit of one checkpoint (source) evaluated in the model of another (target), on held-out prompts."""

    task: str
    step: int
    """Of the target, whose member the record names."""
    source_member: str
    source_step: int
    heads: HeadsOf
    status: str
    """`measured`; else why numbers are NaN: no circuit at the source, or the target has not learnt the task (then
    `metric` is still measured) or is `trivial` (then `raw` is not used)."""
    kept: int | None
    """Edges of the circuit; None where there is none."""
    metric: float
    """M(circuit) in the target."""
    raw: float
    """M(circuit) / M(target)."""
    normalised: float
    """(M(circuit) - M(corrupted)) / (M(target) - M(corrupted))."""
    jaccard: float
    """Of its edges with the circuit that was found at the target; NaN where there is none."""


@dataclass(frozen=True)
class HeadAblation:
    """What a role's heads are worth to a task, beside as many heads of the same layers (METHODS 0.1 C2)."""

    task: str
    role: str
    step: int
    status: Literal["measured", "too few sets", "undefined"]
    """`too few sets`: there are so few sets of heads that none can stand out from 95 % of them."""
    reason: str
    """One sentence unless it was measured."""
    heads: tuple[Head, ...]
    """That hold the role at this step, strongest first."""
    cost: float
    """Fall of the metric on held-out prompts when their outputs are those of the corrupted prompt."""
    cost_share: float
    """The same over M(clean) - M(corrupted)."""
    sets: int
    """Other sets with as many heads in each layer that were ablated ..."""
    possible: int
    """... of so many that there are."""
    sets_mean: float
    """Mean fall over these sets ..."""
    sets_p95: float
    """... and its 95th percentile."""
    beaten: float
    """Share of these sets that cost less than the role's heads."""


@dataclass(frozen=True)
class HeadMatch:
    """Which head of one seed plays the part of which head of another."""

    step: int
    source_member: str
    layer: int
    source_head: int
    head: int
    """Of the member that the record names."""
    distance: float
    """Between the role vectors, in standard deviations of each role."""

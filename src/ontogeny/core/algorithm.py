"""Whether the algorithm is still the same, as numbers (METHODS 7, 8.5): what path patching and ablation found."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from jaxtyping import Float
from torch import Tensor

from ontogeny.core.roles import Head, HeadScores

MetricStatus = Literal["measured", "undefined"]
MetricName = Literal["direct", "queries", "values", "queries_by_token", "values_by_token"]
"""B, C, D of the paper's Figure 4; C and D of the heads that inhibit by the token signal instead of the position."""


@dataclass(frozen=True)
class PathEffects:
    """What patching each head alone into some receivers does to the behaviour (METHODS 7.1, 7.2)."""

    receivers: tuple[str, ...]
    """Names of the readers that heard of it: ``logits``, ``a9.h6<q>``."""
    effect: HeadScores
    """e, with MLPs recomputed: 0 nothing, -1 as bad as the corrupted prompt, negative: the head helps. 0 for heads that
    no path leads from."""
    frozen: HeadScores
    """The same with the MLPs between frozen: strictly direct."""


@dataclass(frozen=True)
class AlgorithmMetric:
    """Share of the effect on some receivers that comes from the heads with the right role (METHODS 7.3-7.7)."""

    name: MetricName
    status: MetricStatus
    reason: str
    """One sentence where it is undefined (then every number is NaN), else empty."""
    value: float
    """Per cent: 100 * sum of |e| over `heads` / sum of |e| over all heads."""
    value_frozen: float
    """The same of the effects with MLPs frozen."""
    value_in_circuit: float
    """The same over in-circuit heads only, above and below the line."""
    numerator: float
    all_heads: float
    """Both denominators, in units of e."""
    circuit_heads: float
    heads: tuple[Head, ...]
    """Heads with the right role."""
    receivers: tuple[Head, ...]
    """Heads whose queries or values were the receivers; empty for `direct` (the final residual)."""
    null_mean: float
    """Mean over draws with role scores permuted over heads within layers, per cent."""
    null_p95: float


@dataclass(frozen=True)
class SelfRepair:
    """What other heads do when the leading heads of a role are taken out (METHODS 8.5)."""

    role: str
    status: MetricStatus
    reason: str
    ablated: tuple[Head, ...]
    """Strongest first; their outputs become those of the corrupted prompt."""
    lost: float
    """Direct effect of the ablated heads on the metric that goes with them, logits: clean minus corrupted, through
    the final norm at its clean scale."""
    total: float
    """Fall of the metric when they are ablated, logits: ``lost - by_heads - by_mlps - by_norm``."""
    by_heads: float
    """What the direct effects of the other heads rise by, logits ..."""
    by_mlps: float
    """... those of the MLPs ..."""
    by_norm: float
    """... and what the final norm's new scale adds."""
    taken_over: float
    """1 - total / lost: the share of their direct effect that the rest makes up for; NaN where lost is ~0."""
    change: HeadScores
    """Change of each other head's direct effect on the metric, logits, > 0: it helps more; NaN for ablated heads."""


@dataclass(frozen=True)
class Verification:
    """Checks of one task's circuit (the paper's Appendices A and B; METHODS 7.8)."""

    numbers: Mapping[str, float]
    """By name, e.g. ``mlp_share_of_score`` (of |score|, on edges out of MLPs), ``unknown_role_share_of_heads``."""
    heads: Mapping[str, HeadScores]
    """By name, e.g. ``attend_to_yy``: share of prompts in which the head attends most to YY from the end."""
    mlps: Mapping[str, Float[Tensor, " layers"]]
    """By name: ``valid_minus_invalid``, mean logit of valid minus invalid years in the MLP's output."""
    roles: Mapping[str, tuple[str, ...]]
    """Head of the circuit -> the roles that it holds; an empty tuple: none that is known."""


@dataclass(frozen=True)
class AlgorithmResult:
    """The IOI algorithm at one checkpoint."""

    status: MetricStatus
    reason: str
    effects: Mapping[str, PathEffects]
    """By metric; only those whose receivers exist. `queries_by_token` has the receivers of `queries`."""
    metrics: Mapping[str, AlgorithmMetric]
    repair: tuple[SelfRepair, ...]
    on_s: HeadScores | None = None
    """What each head adds directly to the logit of S above the vocabulary's mean logit, clean minus corrupted, logits,
    through the final norm at its clean scale; < 0: it lowers S because S came twice. None: undefined."""

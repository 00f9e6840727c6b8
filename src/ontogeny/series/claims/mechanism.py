"""Rules on what circuits are made of: C4, C5, C10 and C12 of METHODS 0.1."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ontogeny.params import ClaimsParams
from ontogeny.series.claims.values import Claim, Verdict, mean_interval, too_short

DIRECT = "direct"
"""The metric of name movers and copy-suppression heads."""


def algorithm_stays(
    metric: str,
    log2_tokens: Float[np.ndarray, " checkpoints"],
    value: Float[np.ndarray, " checkpoints"],
    null_p95: Float[np.ndarray, " checkpoints"],
    after: int,
    rules: ClaimsParams,
) -> Claim:
    """C4: above its null at 90 % of the checkpoints after the onset, and flat to +-5 points an octave.

    `statistic` is the slope in points an octave with its 95 % interval (least squares, Student's t). `other algorithm`
    where the direct metric, of name movers, is above its null at less than half of them. Undefined ones do not count.
    """
    short = too_short(log2_tokens, after, rules)
    if short:
        return Claim("C4", metric, "undecided", short)
    x, y, null = log2_tokens[after:], value[after:], null_p95[after:]
    defined = np.isfinite(y) & np.isfinite(null)
    if defined.sum() < rules.least_checkpoints:
        return Claim("C4", metric, "undecided", f"defined at {int(defined.sum())} checkpoints only")
    slope, low, high = _slope(x[defined], y[defined])
    share = float((y[defined] > null[defined]).mean())
    text = f"above its null at {100 * share:.0f} % of the checkpoints, slope {slope:.1f} points an octave"
    if share < 0.5 and metric == DIRECT:
        return Claim("C4", metric, "other algorithm", text, slope, low, high)
    flat = rules.flat_points
    if share < rules.above_null or low > flat or high < -flat:
        return Claim("C4", metric, "contradicted", text, slope, low, high)
    verdict: Verdict = "supported" if low >= -flat and high <= flat else "undecided"
    return Claim("C4", metric, verdict, text, slope, low, high)


def same_roles(task: str, held: Mapping[str, Collection[str]]) -> Claim:
    """C5: the same roles above chance at every scale that learns the task.

    Args:
        task: its name.
        held: scale -> roles that heads of its final circuit hold; only of `learners`.
    """
    if len(held) < 2:
        return Claim("C5", task, "undecided", "fewer than two scales learn the task")
    everywhere, anywhere = set.intersection(*map(set, held.values())), set().union(*held.values())
    if not everywhere:
        return Claim("C5", task, "undecided" if not anywhere else "contradicted", "no role is held at every scale", 0.0)
    missing = sorted(anywhere - everywhere)
    share = len(everywhere) / len(anywhere)
    if missing:
        scales = [scale for scale, roles in held.items() if missing[0] not in roles]
        return Claim("C5", task, "contradicted", f"{missing[0]} is not held at {', '.join(scales)}", share)
    return Claim("C5", task, "supported", f"{', '.join(sorted(everywhere))} at all {len(held)} scales", share)


class Suppression(NamedTuple):
    """What a member's copy-suppression heads do, means over checkpoints after the onset."""

    effect: float
    """Sum of their e (METHODS 7.2), the logits as receiver; < 0: they help."""
    on_s: float
    """What they add to the logit of S, logits; NaN where it was not measured."""


def suppression_helps(found: Mapping[str, Suppression], rules: ClaimsParams) -> Claim:
    """C10: copy-suppression heads help IOI by lowering S; the statistic is the mean e over members.

    Args:
        found: member -> what its heads do; only of `learners` that have such heads.
        rules: the params.
    """
    if len(found) < rules.least_members:
        return Claim("C10", "ioi", "undecided", f"{len(found)} members have such heads, {rules.least_members} needed")
    mean, low, high = mean_interval([each.effect for each in found.values()])
    numbers = (mean, low, high)
    if low > 0:
        return Claim("C10", "ioi", "contradicted", "they hurt", *numbers)
    if not high < 0:
        return Claim("C10", "ioi", "undecided", "whether they help is open", *numbers)
    on_s = [each.on_s for each in found.values()]
    if not np.isfinite(on_s).all():
        return Claim("C10", "ioi", "undecided", "they help; what they add to the logit of S was not measured", *numbers)
    added, least, most = mean_interval(on_s)
    text = f"they help, and add {added:.2f} to the logit of S ({least:.2f} to {most:.2f})"
    verdict: Verdict = "supported" if most < 0 else "contradicted" if least > 0 else "undecided"
    return Claim("C10", "ioi", verdict, text, *numbers)


def mlp_dominant(task: str, shares: Mapping[str, tuple[float, float]], rules: ClaimsParams) -> Claim:
    """C12: more than half of a circuit's edges leave MLPs, and more than of the whole graph's.

    Args:
        task: its name.
        shares: member -> share in its circuits (mean over checkpoints after the onset), and in its graph.
        rules: the params.
    """
    if len(shares) < rules.least_members:
        return Claim("C12", task, "undecided", f"{len(shares)} members have circuits, {rules.least_members} needed")
    numbers = mean_interval([circuit for circuit, _ in shares.values()])
    mean, low, high = numbers
    graph = float(np.mean([graph for _, graph in shares.values()]))
    bar = max(rules.mlp_share, graph)
    text = f"{100 * mean:.0f} % of the circuits' edges leave MLPs, of the graphs' {100 * graph:.0f} %"
    verdict: Verdict = "supported" if low > bar else "contradicted" if high < bar else "undecided"
    return Claim("C12", task, verdict, text, *numbers)


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least squares slope and its 95 % interval."""
    from scipy.stats import linregress, t

    fit = linregress(x, y)
    half = float(t.ppf(0.975, len(x) - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half

"""Rules on what circuits are made of: C4, C5, C10 and C12 of METHODS 0.1."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ontogeny.params import ClaimsParams
from ontogeny.series.claims.values import Claim, Verdict, mean_interval, too_short
from ontogeny.series.drift import neighbours_alike, worth_of_mean

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

    Where the metric is undefined (no head to receive, none that copies) it is not above its null. `statistic` is the
    slope in points an octave over those that are defined, with its 95 % interval (`_slope`). `other algorithm` where
    the direct metric, of name movers, is above its null at less than half.
    """
    short = too_short(log2_tokens, after, rules)
    if short:
        return Claim("C4", metric, "undecided", short)
    x, y, null = log2_tokens[after:], value[after:], null_p95[after:]
    share = float(np.mean(y > null))
    other = share < 0.5 and metric == DIRECT
    defined = np.isfinite(y) & np.isfinite(null)
    slope, low, high = math.nan, math.nan, math.nan
    text = f"above its null at {100 * share:.0f} % of the checkpoints"
    if not too_short(x[defined], 0, rules):
        slope, low, high = _slope(x[defined], y[defined])
        text = f"{text}, slope {slope:.1f} points an octave"
    if other:
        return Claim("C4", metric, "other algorithm", text, slope, low, high)
    flat = rules.flat_points
    if share < rules.above_null or low > flat or high < -flat:
        return Claim("C4", metric, "contradicted", text, slope, low, high)
    verdict: Verdict = "supported" if low >= -flat and high <= flat else "undecided"
    return Claim("C4", metric, verdict, text, slope, low, high)


def same_roles(task: str, held: Mapping[str, Mapping[str, Sequence[bool]]]) -> Claim:
    """C5: the same roles above chance at every scale that learns the task.

    A role is at a scale if heads hold it in most seeds, and surely so, or surely not, if in all or in none. Supported
    if every role that is at some scale is at all; contradicted if one is surely at one scale and surely not at another.
    Scales of a single seed say nothing sure and are left out.

    Args:
        task: its name.
        held: scale -> role -> whether heads of the final circuit hold it, a value a seed; only of `learners`.
    """
    several = {scale: roles for scale, roles in held.items() if max(map(len, roles.values()), default=0) > 1}
    alone = [scale for scale in held if scale not in several]
    note = f" (one seed of {', '.join(alone)}: left out)" if alone else ""
    if len(several) < 2:
        return Claim("C5", task, "undecided", f"fewer than two scales learn the task in two seeds{note}")
    names = list(dict.fromkeys(role for roles in several.values() for role in roles))
    at = {role: [2 * sum(roles[role]) > len(roles[role]) for roles in several.values()] for role in names}
    anywhere, everywhere = [r for r in names if any(at[r])], [r for r in names if all(at[r])]
    if not anywhere:
        return Claim("C5", task, "undecided", f"no role is held{note}")
    share = len(everywhere) / len(anywhere)
    for role in names:
        surely = [scale for scale, roles in several.items() if len(roles[role]) > 1 and all(roles[role])]
        lacking = [scale for scale, roles in several.items() if len(roles[role]) > 1 and not any(roles[role])]
        if surely and lacking:
            reason = f"{role} is held in all seeds of {', '.join(surely)} and in none of {', '.join(lacking)}{note}"
            return Claim("C5", task, "contradicted", reason, share)
    missing = [role for role in anywhere if role not in everywhere]
    if missing:
        return Claim("C5", task, "undecided", f"{missing[0]} is held in some seeds only{note}", share)
    reason = f"{', '.join(sorted(everywhere))} at all {len(several)} scales{note}"
    return Claim("C5", task, "supported", reason, share)


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
        return Claim(
            "C10", "ioi", "undecided", f"such heads in {len(found)} of the {rules.least_members} members needed"
        )
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
        return Claim("C12", task, "undecided", f"circuits of {len(shares)} of the {rules.least_members} members needed")
    numbers = mean_interval([circuit for circuit, _ in shares.values()])
    mean, low, high = numbers
    graph = float(np.mean([graph for _, graph in shares.values()]))
    bar = max(rules.mlp_share, graph)
    text = f"{100 * mean:.0f} % of the circuits' edges leave MLPs, of the graphs' {100 * graph:.0f} %"
    verdict: Verdict = "supported" if low > bar else "contradicted" if high < bar else "undecided"
    return Claim("C12", task, verdict, text, *numbers)


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least squares slope and its 95 % interval, wider where residuals of neighbouring checkpoints are alike.

    Residuals that are alike are worth fewer independent ones (`series.drift`).
    """
    from scipy.stats import linregress, t

    fit = linregress(x, y)
    worth = worth_of_mean(len(x), neighbours_alike(y - fit.intercept - fit.slope * x))
    half = float(t.ppf(0.975, max(1.0, worth - 2)) * fit.stderr * math.sqrt(len(x) / worth))
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half

"""The paper's claims as verdicts: the decision rules of METHODS 0.1, fixed before looking.

Each function takes what was measured and gives one `Claim`. The unit of replication is a scale and seed; intervals
from prompts or resampled residuals leave out the noise between training runs, so nothing is called alike on one seed a
scale. Anything short of the data that a rule asks for is `undecided`, with the reason. Only onsets of series whose
order of checkpoints matters count (`learners`): shuffled checkpoints support nothing.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
import pandas as pd
from jaxtyping import Float

from ontogeny.params import TrajectoryParams
from ontogeny.series.emergence import Emergence, ordered
from ontogeny.series.onset import FOUND
from ontogeny.series.scale import EQUIVALENCE, MARGIN, onset_differences

Verdict = Literal["supported", "contradicted", "undecided", "other algorithm", "n/a"]

LAG_OF_ROLES: Final = (-2.0, 0.5)
"""Octaves: onset of a role minus onset of its task (C2)."""
LAG_OF_GREATER_THAN: Final = (0.0, 1.0)
"""Octaves: onset of greater-than minus onset of induction (C11)."""
LEAST_CHECKPOINTS: Final = 10
LEAST_OCTAVES: Final = 2.0
"""Of checkpoints and tokens after the last onset (C3, C4, C6)."""
_SLOPE: Final = 5.0
"""Points an octave that a metric may drift and still be called flat (C4)."""
_LEAST_SIZES: Final = 5


@dataclass(frozen=True)
class Claim:
    """One claim about one thing, and what the data say."""

    claim: str
    """C1 to C12."""
    about: str
    """The task, role or metric."""
    verdict: Verdict
    reason: str
    """One sentence: the rule as it came out."""
    statistic: float = math.nan
    low: float = math.nan
    high: float = math.nan
    """Interval of the statistic."""


def learners(found: Sequence[Emergence]) -> list[Emergence]:
    """Those with an onset whose checkpoints are in an order that matters."""
    return [each for each in found if each.onset.status == FOUND and each.in_order]


def similar_onsets(task: str, found: Sequence[Emergence], params: TrajectoryParams) -> Claim:
    """C1: all differences of log2 onset between scales within +-1 octave.

    Supported if every 90 % interval is inside, contradicted if one is wholly outside.

    Args:
        task: its name.
        found: the task's behaviour at each scale and seed.
        params: the bootstrap's.
    """
    missing = len({e.who["scale"] for e in found}) - len({e.who["scale"] for e in learners(found)})
    pairs = onset_differences(learners(found), params).to_dict("records")
    measured = sorted((p for p in pairs if p["status"] == "measured"), key=lambda p: -abs(p["octaves"]))
    if not measured:
        return Claim("C1", task, "undecided", "fewer than two scales have an onset")
    open_ = [p for p in measured if pd.isna(p["alike"])]
    outside = [p for p in measured if not pd.isna(p["alike"]) and not p["alike"]]
    widest = [*outside, *open_, *measured][0]
    numbers = (float(widest["octaves"]), float(widest["low_90"]), float(widest["high_90"]))
    pair = f"{widest['smaller']} and {widest['larger']}"
    if outside:
        return Claim("C1", task, "contradicted", f"{pair} differ by more than {MARGIN:g} octave", *numbers)
    if open_:
        return Claim("C1", task, "undecided", f"the interval of {pair} reaches beyond {MARGIN:g} octave", *numbers)
    if missing:
        return Claim("C1", task, "undecided", f"{missing} scales have no onset", *numbers)
    if max(p["smaller_seeds"] + p["larger_seeds"] for p in measured) < 3:
        return Claim("C1", task, "undecided", "one seed a scale: the noise between runs is unknown", *numbers)
    return Claim("C1", task, "supported", f"all pairs lie within {MARGIN:g} octave", *numbers)


def lag(
    claim: str, about: str, later: Sequence[Emergence], earlier: Sequence[Emergence], window: tuple[float, float]
) -> Claim:
    """C2 (time) and C11: onset of one thing minus onset of another, in octaves, for each member that has both.

    Supported if every 90 % interval lies in the window, contradicted if one is wholly outside.
    """
    first = {str(each.who["member"]): each for each in learners(earlier)}
    draws = {
        str(each.who["member"]): each.rise.draws - other.rise.draws
        for each in learners(later)
        if each.rise is not None and (other := first.get(str(each.who["member"]))) and other.rise is not None
    }
    if not draws:
        return Claim(claim, about, "undecided", "no member has both onsets")
    tail = (1 - EQUIVALENCE) / 2
    intervals = {member: np.quantile(each, [0.5, tail, 1 - tail]) for member, each in draws.items()}
    outside = [m for m, (_, low, high) in intervals.items() if low > window[1] or high < window[0]]
    partly = [m for m, (_, low, high) in intervals.items() if low < window[0] or high > window[1]]
    text = f"{window[0]:g} to {window[1]:g} octaves"
    shown = (outside or partly or list(intervals))[0]
    middle, low, high = (float(number) for number in intervals[shown])
    numbers = (middle, low, high)
    if outside:
        return Claim(claim, about, "contradicted", f"{shown} lies outside {text}", *numbers)
    if partly:
        return Claim(claim, about, "undecided", f"the interval of {shown} reaches beyond {text}", *numbers)
    return Claim(claim, about, "supported", f"{len(draws)} of {len(draws)} members lie within {text}", *numbers)


def roles_follow(timing: Claim, beaten: Mapping[str, float]) -> Claim:
    """C2: the timing, *and* ablating the role's heads costs more than 95 % of layer-matched sets of heads.

    Args:
        timing: from `lag` with `LAG_OF_ROLES`.
        beaten: member -> share of matched sets that cost less than the role's heads.
    """
    if timing.verdict != "supported":
        return timing
    numbers = (timing.statistic, timing.low, timing.high)
    if not beaten:
        return Claim("C2", timing.about, "undecided", "in time, but its heads were not ablated", *numbers)
    weak = [member for member, share in beaten.items() if not share > 0.95]
    if weak:
        reason = f"ablating its heads in {weak[0]} costs no more than other heads of their layers"
        return Claim("C2", timing.about, "contradicted", reason, *numbers)
    return Claim("C2", timing.about, "supported", f"{timing.reason}, and their heads matter", *numbers)


def roles_change_hands(
    about: str,
    log2_tokens: Float[np.ndarray, " checkpoints"],
    task: Float[np.ndarray, " checkpoints"],
    heads: Float[np.ndarray, "checkpoints heads"],
    after: int,
) -> Claim:
    """C3: a head of a role falls below half its maximum while the task stays at 0.8 of its running maximum or more.

    Both are read over two checkpoints in a row. `statistic` is the number of such heads.

    Args:
        about: the role.
        log2_tokens: ascending.
        task: the task's metric.
        heads: scores of the heads that hold the role at some time, in its order.
        after: index of the first checkpoint after the last onset.
    """
    short = _too_short(log2_tokens, after)
    if short or not heads.shape[1]:
        return Claim("C3", about, "undecided", short or "no head holds the role")
    if not ordered(task):
        return Claim("C3", about, "undecided", "the task's metric has no order in time")
    holds = task >= 0.8 * np.maximum.accumulate(task)
    lost = heads < 0.5 * np.maximum.accumulate(heads, axis=0)
    both = lost & holds[:, None]
    twice = (both[1:] & both[:-1])[max(after - 1, 0) :]
    time_ordered = np.array([ordered(column) for column in heads.T])
    count = int((twice.any(0) & time_ordered).sum())
    if count:
        return Claim("C3", about, "supported", f"{count} of {heads.shape[1]} heads lose it, the task holds", count)
    if not holds[after:].all():
        return Claim("C3", about, "undecided", "the task does not hold throughout", 0)
    return Claim("C3", about, "contradicted", "no head loses it", 0)


def algorithm_stays(
    metric: str,
    log2_tokens: Float[np.ndarray, " checkpoints"],
    value: Float[np.ndarray, " checkpoints"],
    null_p95: Float[np.ndarray, " checkpoints"],
    after: int,
) -> Claim:
    """C4: above its null at 90 % of the checkpoints after the onset, and flat to +-5 points an octave.

    `statistic` is the slope in points an octave with its 95 % interval (least squares, Student's t). `other algorithm`
    where less than half of the checkpoints are above the null, undefined ones not counting.
    """
    short = _too_short(log2_tokens, after)
    if short:
        return Claim("C4", metric, "undecided", short)
    x, y, null = log2_tokens[after:], value[after:], null_p95[after:]
    defined = np.isfinite(y) & np.isfinite(null)
    if defined.sum() < LEAST_CHECKPOINTS:
        return Claim("C4", metric, "undecided", f"defined at {int(defined.sum())} checkpoints only")
    slope, low, high = _slope(x[defined], y[defined])
    share = float((y[defined] > null[defined]).mean())
    text = f"above its null at {100 * share:.0f} % of the checkpoints, slope {slope:.1f} points an octave"
    if share < 0.5:
        return Claim("C4", metric, "other algorithm", text, slope, low, high)
    if share < 0.9 or low > _SLOPE or high < -_SLOPE:
        return Claim("C4", metric, "contradicted", text, slope, low, high)
    verdict: Verdict = "supported" if low >= -_SLOPE and high <= _SLOPE else "undecided"
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


def size_grows(
    task: str, points: Sequence[tuple[float, float]], rng: np.random.Generator, resamples: int = 2000
) -> Claim:
    """C6: Spearman of circuit size with model size; at least 5 points that are not censored, interval above 0.

    Args:
        task: its name.
        points: (parameters, edges) of each different shape of model; the mean over its seeds.
        rng: of the bootstrap over points.
        resamples: of it.
    """
    if len(points) < _LEAST_SIZES:
        return Claim("C6", task, "undecided", f"{len(points)} sizes of {_LEAST_SIZES} that are needed")
    data = np.array(points, dtype=float)
    drawn = data[rng.integers(len(data), size=(resamples, len(data)))]
    values = np.array([_spearman(each) for each in drawn])
    low, high = np.nanquantile(values, [0.025, 0.975])
    rank = _spearman(data)
    verdict: Verdict = "supported" if low > 0 else "contradicted" if high < 0 else "undecided"
    return Claim("C6", task, verdict, f"Spearman {rank:.2f} of {len(points)} sizes", rank, float(low), float(high))


def no_unlearning(task: str, found: Sequence[Emergence]) -> Claim:
    """C8: after its onset no member's behaviour ends more than 3 standard errors below its best; the least `kept`."""
    ends = {str(e.who["member"]): e.end for e in learners(found) if e.end is not None}
    if not ends:
        return Claim("C8", task, "undecided", "no member has an onset")
    worst = min(ends, key=lambda member: ends[member].kept)
    fallen = [member for member, end in ends.items() if end.ending != "kept"]
    if fallen:
        return Claim("C8", task, "contradicted", f"{', '.join(fallen)} ends below its best", ends[worst].kept)
    return Claim("C8", task, "supported", f"all {len(ends)} members keep it", ends[worst].kept)


def dips_below_zero(task: str, found: Sequence[Emergence]) -> Claim:
    """C9: the metric is negative before the onset in more than half of the members ("often"); exact 95 % interval."""
    from scipy.stats import binomtest

    dips = [each.dip.below_zero for each in learners(found) if each.dip is not None]
    if not dips:
        return Claim("C9", task, "undecided", "no member has an onset")
    share, interval = float(np.mean(dips)), binomtest(sum(dips), len(dips)).proportion_ci(0.95)
    verdict: Verdict = "supported" if interval.low > 0.5 else "contradicted" if interval.high < 0.5 else "undecided"
    reason = f"below zero before the onset in {sum(dips)} of {len(dips)} members"
    return Claim("C9", task, verdict, reason, share, float(interval.low), float(interval.high))


def together(claim: str, about: str, parts: Sequence[Claim]) -> Claim:
    """One verdict on several: contradicted by any, supported by all, else undecided."""
    for verdict in ("contradicted", "other algorithm", "undecided", "n/a", "supported"):
        named = [part for part in parts if part.verdict == verdict]
        if named:
            chosen = named[0]
            reason = f"{chosen.about}: {chosen.reason}" if len(parts) > 1 else chosen.reason
            return Claim(claim, about, chosen.verdict, reason, chosen.statistic, chosen.low, chosen.high)
    return Claim(claim, about, "undecided", "nothing was measured")


def _too_short(log2_tokens: Float[np.ndarray, " checkpoints"], after: int) -> str:
    """Why there is too little after the last onset, or nothing."""
    left = log2_tokens[after:]
    if len(left) < LEAST_CHECKPOINTS:
        return f"{len(left)} checkpoints after the last onset, {LEAST_CHECKPOINTS} are needed"
    if left[-1] - left[0] < LEAST_OCTAVES:
        return f"{left[-1] - left[0]:.1f} octaves after the last onset, {LEAST_OCTAVES:g} are needed"
    return ""


def _slope(x: np.ndarray, y: np.ndarray) -> tuple[float, float, float]:
    """Least squares slope and its 95 % interval."""
    from scipy.stats import linregress, t

    fit = linregress(x, y)
    half = float(t.ppf(0.975, len(x) - 2) * fit.stderr)
    return float(fit.slope), float(fit.slope) - half, float(fit.slope) + half


def _spearman(points: Float[np.ndarray, "points 2"]) -> float:
    """Rank correlation; NaN where all of one side are alike."""
    from scipy.stats import rankdata

    a, b = rankdata(points[:, 0]), rankdata(points[:, 1])
    if np.ptp(a) == 0 or np.ptp(b) == 0:
        return math.nan
    return float(np.corrcoef(a, b)[0, 1])

"""Rules on when things happen: C1, C2, C3, C8, C9 and C11 of METHODS 0.1.

Each takes what was measured and gives one `Claim`. The unit of replication is a scale and seed; intervals from prompts
or resampled residuals leave out the noise between training runs, so nothing is called alike on one seed of a scale.
Anything short of the data that a rule asks for is `undecided`, with the reason. Only onsets of series whose order of
checkpoints matters count (`learners`): shuffled checkpoints support nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from jaxtyping import Float

from ontogeny.params import ClaimsParams, TrajectoryParams
from ontogeny.series.claims.values import Claim, Verdict, too_short
from ontogeny.series.emergence import Emergence, ordered
from ontogeny.series.onset import FOUND
from ontogeny.series.scale import onset_differences


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
    margin = params.claims.alike_octaves
    missing = len({e.who["scale"] for e in found}) - len({e.who["scale"] for e in learners(found)})
    pairs = onset_differences(learners(found), params).to_dict("records")
    measured = sorted((p for p in pairs if p["status"] == "measured"), key=lambda p: -abs(p["octaves"]))
    if not measured:
        return Claim("C1", task, "undecided", "fewer than two scales have an onset")
    open_ = [p for p in measured if pd.isna(p["alike"])]
    outside = [p for p in measured if not pd.isna(p["alike"]) and not p["alike"]]
    widest = [*outside, *open_, *measured][0]
    numbers = (float(widest["octaves"]), float(widest["low_alike"]), float(widest["high_alike"]))
    pair = f"{widest['smaller']} and {widest['larger']}"
    if outside:
        return Claim("C1", task, "contradicted", f"{pair} differ by more than {margin:g} octave", *numbers)
    if open_:
        return Claim("C1", task, "undecided", f"the interval of {pair} reaches beyond {margin:g} octave", *numbers)
    if missing:
        return Claim("C1", task, "undecided", f"scales without an onset: {missing}", *numbers)
    seeds = {p[side]: p[f"{side}_seeds"] for p in measured for side in ("smaller", "larger")}
    single = [str(scale) for scale, count in seeds.items() if count < 2]
    if single:
        reason = f"one seed of {', '.join(single)}: the noise between runs is unknown"
        return Claim("C1", task, "undecided", reason, *numbers)
    return Claim("C1", task, "supported", f"all pairs lie within {margin:g} octave", *numbers)


def lag(
    claim: str,
    about: str,
    later: Sequence[Emergence],
    earlier: Sequence[Emergence],
    window: tuple[float, float],
    rules: ClaimsParams,
) -> Claim:
    """C2 (time) and C11: onset of one thing minus onset of another, in octaves, for each member that has both.

    Supported if every 90 % interval lies in the window, contradicted if one is wholly outside; undecided where a member
    has only one of the two.
    """
    first = {str(each.who["member"]): each for each in learners(earlier)}
    second = {str(each.who["member"]) for each in learners(later)}
    lonely = sorted(second ^ set(first))
    draws = {
        str(each.who["member"]): each.rise.draws - other.rise.draws
        for each in learners(later)
        if each.rise is not None and (other := first.get(str(each.who["member"]))) and other.rise is not None
    }
    if not draws:
        return Claim(claim, about, "undecided", "no member has both onsets")
    text = f"{window[0]:g} to {window[1]:g} octaves"
    tail = (1 - rules.alike_confidence) / 2
    intervals = {member: np.quantile(each, [0.5, tail, 1 - tail]) for member, each in draws.items()}
    outside = [m for m, (_, low, high) in intervals.items() if low > window[1] or high < window[0]]
    partly = [m for m, (_, low, high) in intervals.items() if low < window[0] or high > window[1]]
    shown = (outside or partly or list(intervals))[0]
    middle, low, high = (float(number) for number in intervals[shown])
    numbers = (middle, low, high)
    if outside:
        return Claim(claim, about, "contradicted", f"{shown} lies outside {text}", *numbers)
    if partly:
        return Claim(claim, about, "undecided", f"the interval of {shown} reaches beyond {text}", *numbers)
    if lonely:
        return Claim(claim, about, "undecided", f"only one of the two appears in {', '.join(lonely)}", *numbers)
    return Claim(claim, about, "supported", f"all {len(draws)} members lie within {text}", *numbers)


def roles_follow(timing: Claim, beaten: Mapping[str, float], rules: ClaimsParams) -> Claim:
    """C2: the timing, *and* ablating the role's heads costs more than 95 % of layer-matched sets of heads.

    Args:
        timing: from `lag` with the params' `role_lag`.
        beaten: member -> share of matched sets that cost less than the role's heads.
        rules: the params.
    """
    if timing.verdict != "supported":
        return timing
    numbers = (timing.statistic, timing.low, timing.high)
    if not beaten:
        return Claim("C2", timing.about, "undecided", "in time, but its heads were not ablated", *numbers)
    weak = [member for member, share in beaten.items() if not share > rules.sets_beaten]
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
    rules: ClaimsParams,
) -> Claim:
    """C3: a head of a role falls below half its maximum while the task stays at 0.8 of its running maximum or more.

    Both are read over two checkpoints in a row. `statistic` is the number of such heads.

    Args:
        about: the role.
        log2_tokens: ascending.
        task: the task's metric.
        heads: scores of the heads that hold the role at some time, in its order.
        after: index of the first checkpoint after the last onset.
        rules: the params.
    """
    short = too_short(log2_tokens, after, rules)
    if short or not heads.shape[1]:
        return Claim("C3", about, "undecided", short or "no head holds the role")
    if not ordered(task):
        return Claim("C3", about, "undecided", "the task's metric has no order in time")
    holds = task >= rules.task_holds * np.maximum.accumulate(task)
    lost = heads < rules.role_lost * np.fmax.accumulate(heads, axis=0)
    both = lost & holds[:, None]
    twice = (both[1:] & both[:-1])[after:]
    time_ordered = np.array([ordered(column) for column in heads.T])
    count = int((twice.any(0) & time_ordered).sum())
    if count:
        return Claim("C3", about, "supported", f"{count} of {heads.shape[1]} heads lose it, the task holds", count)
    if not holds[after:].all():
        return Claim("C3", about, "undecided", "the task does not hold throughout", 0)
    return Claim("C3", about, "contradicted", "no head loses it", 0)


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

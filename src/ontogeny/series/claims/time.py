"""Rules on when things happen: C1, C2, C3, C8, C9 and C11 of METHODS 0.1.

Each takes what was measured and gives one `Claim`. The unit of replication is a scale and seed; intervals from prompts
or resampled residuals leave out the noise between training runs, so where no scale has two seeds nothing is decided.
Anything short of the data that a rule asks for is `undecided`, with the reason. Only onsets of series whose order of
checkpoints matters count (`learners`): shuffled checkpoints support nothing.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from statistics import NormalDist
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Float

from ontogeny.params import ClaimsParams, TrajectoryParams
from ontogeny.series.claims.values import Claim, Verdict, too_short
from ontogeny.series.emergence import Emergence, ordered
from ontogeny.series.onset import FOUND
from ontogeny.series.scale import onset_differences

_HALF: Final = 0.5
"""C2: share of other sets of heads; a role's heads that cost less than so many are not what the task needs."""


def learners(found: Sequence[Emergence]) -> list[Emergence]:
    """Those with an onset whose checkpoints are in an order that matters."""
    return [each for each in found if each.onset.status == FOUND and each.in_order]


def similar_onsets(task: str, found: Sequence[Emergence], params: TrajectoryParams) -> Claim:
    """C1: all differences of log2 onset between scales within +-1 octave.

    Supported if every 90 % interval is inside, contradicted if one is wholly outside; undecided where a member has no
    onset, or no scale has two seeds.

    Args:
        task: its name.
        found: the task's behaviour at each scale and seed.
        params: the bootstrap's.
    """
    margin, known = params.claims.alike_octaves, learners(found)
    learnt = {each.who["member"] for each in known}
    missing = [str(each.who["member"]) for each in found if each.who["member"] not in learnt]
    pairs = onset_differences(known, params).to_dict("records")
    measured = sorted((p for p in pairs if p["status"] == "measured"), key=lambda p: -abs(p["octaves"]))
    if not measured:
        return Claim("C1", task, "undecided", "fewer than two scales have an onset")
    open_ = [p for p in measured if pd.isna(p["alike"])]
    outside = [p for p in measured if not pd.isna(p["alike"]) and not p["alike"]]
    widest = [*outside, *open_, *measured][0]
    numbers = (float(widest["octaves"]), float(widest["low_alike"]), float(widest["high_alike"]))
    pair = f"{widest['smaller']} and {widest['larger']}"
    if len(known) == len({each.who["scale"] for each in known}):
        return Claim("C1", task, "undecided", "one seed of every scale: the noise between runs is unknown", *numbers)
    if outside:
        return Claim("C1", task, "contradicted", f"{pair} differ by more than {margin:g} octave", *numbers)
    if open_:
        return Claim("C1", task, "undecided", f"the interval of {pair} reaches beyond {margin:g} octave", *numbers)
    if missing:
        return Claim("C1", task, "undecided", f"no onset, or none that is sure, in {_some(missing)}", *numbers)
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
    has only one of the two, or where fewer than `least_members` have both.
    """
    pairs = with_both(later, earlier)
    lonely = sorted({str(each.who["member"]) for each in [*learners(later), *learners(earlier)]} - set(pairs))
    draws = {
        member: one.rise.draws - other.rise.draws
        for member, (one, other) in pairs.items()
        if one.rise is not None and other.rise is not None
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
        return Claim(claim, about, "undecided", f"only one of the two appears in {_some(lonely)}", *numbers)
    if len(draws) < rules.least_members:
        reason = f"{len(draws)} of the {rules.least_members} members needed have both onsets"
        return Claim(claim, about, "undecided", reason, *numbers)
    return Claim(claim, about, "supported", f"all {len(draws)} members lie within {text}", *numbers)


def with_both(later: Sequence[Emergence], earlier: Sequence[Emergence]) -> dict[str, tuple[Emergence, Emergence]]:
    """Member -> both of its onsets."""
    first = {str(each.who["member"]): each for each in learners(earlier)}
    second = {str(each.who["member"]): each for each in learners(later)}
    return {member: (each, first[member]) for member, each in second.items() if member in first}


def roles_follow(timing: Claim, members: Collection[str], beaten: Mapping[str, float], rules: ClaimsParams) -> Claim:
    """C2: the timing, *and* ablating the role's heads costs more than 95 % of layer-matched sets of heads.

    Contradicted where they cost less than half of the sets do; in between it is open, and so it is where a member's
    heads were not ablated, or have too few sets beside them to stand out from 95 %.

    Args:
        timing: from `lag` with the params' `role_lag`.
        members: those that it is about.
        beaten: member -> share of matched sets that cost less than the role's heads; measured ones only.
        rules: the params.
    """
    if timing.verdict != "supported":
        return timing
    numbers = (timing.statistic, timing.low, timing.high)
    worse = [member for member in members if beaten.get(member, 1.0) < _HALF]
    if worse:
        reason = f"ablating its heads in {_some(worse)} costs less than most other sets of heads of their layers"
        return Claim("C2", timing.about, "contradicted", reason, *numbers)
    unknown = [member for member in members if member not in beaten]
    if unknown:
        reason = f"in time, but its heads were not ablated, or beside too few other sets, in {_some(unknown)}"
        return Claim("C2", timing.about, "undecided", reason, *numbers)
    weak = [member for member in members if not beaten[member] > rules.sets_beaten]
    if weak:
        reason = f"in time, but ablating its heads in {_some(weak)} does not stand out from other sets"
        return Claim("C2", timing.about, "undecided", reason, *numbers)
    return Claim("C2", timing.about, "supported", f"{timing.reason}, and their heads matter", *numbers)


def roles_change_hands(
    about: str,
    log2_tokens: Float[np.ndarray, " checkpoints"],
    task: Float[np.ndarray, " checkpoints"],
    heads: Float[np.ndarray, "checkpoints heads"],
    after: int,
    rules: ClaimsParams,
    tried: int = 1,
) -> Claim:
    """C3: a head of a role falls below half its maximum while the task stays at 0.8 of its running maximum or more.

    Both are read over two checkpoints in a row, the head's maximum from the last onset on. Only heads count whose
    checkpoints are in an order that matters, at 1 % over all heads that are looked at: one of many is enough for the
    claim. `statistic` is the number of such heads.

    Args:
        about: the role.
        log2_tokens: ascending.
        task: the task's metric.
        heads: scores of the heads that hold the role at some time from `after` on.
        after: index of the first checkpoint after the last onset.
        rules: the params.
        tried: heads of all roles and members that are looked at.
    """
    short = too_short(log2_tokens, after, rules)
    if short or not heads.shape[1]:
        return Claim("C3", about, "undecided", short or "no head holds the role")
    if not ordered(task):
        return Claim("C3", about, "undecided", "the task's metric has no order in time")
    holds = task >= rules.task_holds * np.fmax.accumulate(task)
    later = heads[after:]
    both = (later < rules.role_lost * np.fmax.accumulate(later, axis=0)) & holds[after:, None]
    twice = both[1:] & both[:-1]
    in_order = np.array([ordered(column, 0.01 / max(1, tried)) for column in heads.T])
    count = int((twice.any(0) & in_order).sum())
    if count:
        return Claim("C3", about, "supported", f"{count} of {heads.shape[1]} heads lose it, the task holds", count)
    if not holds[after:].all():
        return Claim("C3", about, "undecided", "the task does not hold throughout", 0)
    return Claim("C3", about, "contradicted", "no head loses it", 0)


def no_unlearning(task: str, found: Sequence[Emergence], rules: ClaimsParams) -> Claim:
    """C8: after its onset no member's behaviour ends below 0.8 of its best level; the least `kept`.

    Supported if the interval of every member's `kept` lies above that share, contradicted if one lies below. The
    intervals are widened so that all of them hold at once (95 %, Bonferroni).
    """
    ends = {str(e.who["member"]): e.end for e in learners(found) if e.end is not None}
    if not ends:
        return Claim("C8", task, "undecided", "no member has an onset")
    wide = NormalDist().inv_cdf(1 - 0.025 / len(ends))
    reach = {m: (end.kept - wide * end.kept_error, end.kept + wide * end.kept_error) for m, end in ends.items()}
    bar = rules.task_holds
    fallen = [member for member, (_, high) in reach.items() if high < bar]
    unsure = [member for member, (low, _) in reach.items() if not low > bar]
    shown = min(fallen or unsure or ends, key=lambda member: ends[member].kept)
    numbers = (ends[shown].kept, *reach[shown])
    if fallen:
        return Claim("C8", task, "contradicted", f"{_some(fallen)} ends below {bar:g} of its best", *numbers)
    if unsure:
        return Claim("C8", task, "undecided", f"whether {_some(unsure)} keeps {bar:g} of its best is open", *numbers)
    return Claim("C8", task, "supported", f"all {len(ends)} members keep {bar:g} of their best", *numbers)


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


def _some(members: Sequence[str]) -> str:
    """The first, and how many more."""
    more = f" and {len(members) - 1} more" if len(members) > 1 else ""
    return f"{members[0]}{more}"

"""When an ability appears (METHODS 6.6)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final, Literal

import numpy as np

from ontogeny.params import TrajectoryParams

NEVER: Final = "never"
BEFORE_FIRST: Final = "before the first checkpoint"
FOUND: Final = "found"
OnsetStatus = Literal["found", "never", "before the first checkpoint"]
_LEAST_FOR_SCATTER: Final = 20
"""Fewer differences would be outvoted by those beside a dip, a rise and a fall."""
_LEAST: Final = 4
"""Values below which nothing is known of their noise."""


@dataclass(frozen=True)
class Onset:
    """The first checkpoint from which the value stays above a share of its rise, or why there is none."""

    status: OnsetStatus
    reason: str
    """One sentence; empty for `found`."""
    step: int | None
    tokens: int | None
    base: float
    """Level before learning."""
    peak: float
    """Largest value."""
    threshold: float
    """Level that counts as having appeared."""
    checkpoints: int
    """Values that were used."""
    left_out: int
    """Values that are missing, and checkpoints whose weights are those of an earlier step."""
    noise: float = math.nan
    """Standard error of a value: the median over the checkpoints of what the rule used; NaN if nothing is known."""


def onset(
    steps: Sequence[int],
    tokens: Sequence[int],
    values: Sequence[float],
    errors: Sequence[float],
    params: TrajectoryParams,
    *,
    chance: float = 0.0,
    least_peak: float = -math.inf,
    left_out: int = 0,
) -> Onset:
    """First checkpoint from which the value stays at or above the threshold for `params.sustain` checkpoints.

    Rule `base_33`: threshold = base + 0.33 (peak - base), where base is the mean over the checkpoints before 1 % of
    the last checkpoint's tokens, and only if peak - base exceeds 3 standard errors of that difference (the errors of
    the peak and of the base's checkpoints in quadrature; those of the base, from the same prompts, are averaged as if
    fully dependent). Where no checkpoint is that early, base = `chance`. Three points make the rule hold on published
    series (METHODS 6.6 leaves them open):

    - checkpoints of the first 1 % that already show a rise that lasts are not part of the base;
    - a rise that is over again within the first 1 % is no onset (accuracies of models that answer everything alike
      flip there);
    - a standard error is never taken to be less than the series' own `scatter` from checkpoint to checkpoint.

    Rule `cot_33` (circuits-over-time): the first value at or above 0.33 of the peak, no base, no sustaining, no test
    of significance beyond a positive peak.

    If the first checkpoint qualifies, the onset lies at it or before it, and the answer is
    `before the first checkpoint`.

    Args:
        steps: training steps, ascending.
        tokens: tokens seen at those steps.
        values: the ability's measure; NaN is left out, and counted.
        errors: standard errors of the values; where one is NaN the scatter stands in, or, of fewer than 20 values, what
            neighbours differ by (`unevenness`). Without any of these there is no onset.
        params: the rule and its constants.
        chance: the value of a model that knows nothing.
        least_peak: what the peak must reach at least, e.g. the score that makes a head one of its role.
        left_out: checkpoints that the caller left out already.
    """
    finite = np.isfinite(np.asarray(values, dtype=float))
    step, token = np.asarray(steps)[finite], np.asarray(tokens, dtype=float)[finite]
    value = np.asarray(values, dtype=float)[finite]
    error = _noise(value, np.asarray(errors, dtype=float)[finite])
    counts = {"checkpoints": len(value), "left_out": left_out + int((~finite).sum())}
    if not len(value):
        return Onset(NEVER, "no checkpoint has a value", None, None, math.nan, math.nan, math.nan, **counts)

    early = token < params.base_fraction * token[-1]
    plain = params.onset_rule == "cot_33"
    noise = float(np.median(error))
    error = np.nan_to_num(error)
    base, base_error = (0.0, 0.0) if plain else _base(value, error, early, params, chance)
    peak = float(value.max())
    threshold = base + params.onset_fraction * (peak - base)
    needed = 0.0 if plain else params.standard_errors * math.hypot(error[value.argmax()], base_error)
    levels = (base, peak, threshold)

    def never(reason: str) -> Onset:
        return Onset(NEVER, reason, None, None, *levels, **counts, noise=noise)

    if math.isnan(noise) and not plain:
        return never(f"fewer than {_LEAST} values, and no standard errors: noise could look like this")
    if not peak - base > needed:
        reason = f"the rise of {peak - base:.3g} is within {needed:.3g}, {params.standard_errors:g} standard errors"
        return never("the value is never above 0" if plain else reason)
    if peak < least_peak:
        return never(f"the largest value is {peak:.3g}, below {least_peak:.3g}")
    above = value >= threshold
    runs = _runs(above, 1 if plain else params.sustain)
    if not runs:
        return never(f"the value is not above {threshold:.3g} at {params.sustain} checkpoints in a row")
    lasting = [start for start, end in runs if plain or not early[end]]
    if not lasting:
        share = f"{100 * params.base_fraction:g} % of the tokens"
        return never(f"the rise at step {int(step[runs[0][0]])} is over again before {share}")
    if lasting[0] == 0:
        reason = f"the value is above {threshold:.3g} from the first checkpoint on"
        return Onset(BEFORE_FIRST, reason, None, None, *levels, **counts, noise=noise)
    first = lasting[0]
    return Onset(FOUND, "", int(step[first]), int(token[first]), *levels, **counts, noise=noise)


def scatter(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation of the noise from one checkpoint to the next, whatever the values do on the whole.

    The median of |v[i-1] - 2 v[i] + v[i+1]| over 0.6745 sqrt(6): of normal noise around a line it is the standard
    deviation, and a jump touches only the two differences beside it. NaN for fewer than 20 finite values.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) < _LEAST_FOR_SCATTER:
        return math.nan
    return float(np.median(np.abs(np.diff(finite, 2))) / (NormalDist().inv_cdf(0.75) * math.sqrt(6)))


def unevenness(values: Sequence[float] | np.ndarray) -> float:
    """Standard deviation of the noise of few values: the median of |v[i] - v[i-1]| over 0.6745 sqrt(2).

    A steady rise is noise to it, too, so that it rather says too much. NaN for fewer than 4 finite values.
    """
    finite = np.asarray(values, dtype=float)
    finite = finite[np.isfinite(finite)]
    if len(finite) < _LEAST:
        return math.nan
    return float(np.median(np.abs(np.diff(finite))) / (NormalDist().inv_cdf(0.75) * math.sqrt(2)))


def _noise(value: np.ndarray, errors: np.ndarray) -> np.ndarray:
    """Standard error of each value; NaN where nothing is known."""
    own = scatter(value)
    return np.where(np.isfinite(errors), np.fmax(errors, own), own if math.isfinite(own) else unevenness(value))


def _base(
    value: np.ndarray, error: np.ndarray, early: np.ndarray, params: TrajectoryParams, chance: float
) -> tuple[float, float]:
    """Level before learning and its standard error, from the checkpoints before 1 % of the tokens; else chance."""
    count = int(early.sum())
    if not count:
        return chance, 0.0
    end = _end_of_base(value, error, count, params)
    return float(value[:end].mean()), float(error[:end].mean())


def _end_of_base(value: np.ndarray, error: np.ndarray, count: int, params: TrajectoryParams) -> int:
    """How many of the first `count` checkpoints, the early ones, come before the ability; all, unless some show it.

    They are split where two means leave the least squares. The second part shows the ability if its mean is more than
    3 standard errors above the first part's, and both it and the checkpoint that follows are above a third of the rise
    to the peak.
    """
    early = value[:count]
    if count < 2 or count == len(value):
        return count
    split = min(range(1, count), key=lambda k: float(early[:k].var() * k + early[k:].var() * (count - k)))
    low, high = early[:split].mean(), early[split:].mean()
    needed = params.standard_errors * math.hypot(error[:split].mean(), error[split:count].mean())
    third = low + params.onset_fraction * (value.max() - low)
    return split if high - low > needed and min(high, value[count]) >= third else count


def _runs(above: np.ndarray, length: int) -> list[tuple[int, int]]:
    """First and last index of each run of at least `length` True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], above.astype(int), [0]])))
    return [(int(start), int(end) - 1) for start, end in edges.reshape(-1, 2) if end - start >= length]

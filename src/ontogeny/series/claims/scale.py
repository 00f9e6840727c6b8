"""Rules on scales: C6 and C7 of METHODS 0.1."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float

from ontogeny.params import TrajectoryParams
from ontogeny.series.claims.values import Claim, Verdict
from ontogeny.series.size import correlation


def size_grows(task: str, points: Sequence[tuple[float, float]], params: TrajectoryParams) -> Claim:
    """C6: Spearman of circuit size with model size; at least 5 points that are not censored, interval above 0.

    Args:
        task: its name.
        points: (parameters, edges) of each different shape of model; the mean over its seeds.
        params: the rule.
    """
    needed = params.claims.least_sizes
    if len(points) < needed:
        return Claim("C6", task, "undecided", f"{len(points)} shapes of model have sizes, {needed} are needed")
    data = np.array(points, dtype=float)
    found = correlation(data[:, 0], data[:, 1], "spearman")
    if math.isnan(found.value):
        return Claim("C6", task, "undecided", "all sizes are the same")
    verdict: Verdict = "supported" if found.low > 0 else "contradicted" if found.high < 0 else "undecided"
    reason = f"Spearman {found.value:.2f} of {len(points)} shapes of model"
    return Claim("C6", task, verdict, reason, found.value, found.low, found.high)


class Ending(NamedTuple):
    """Where a member's behaviour ends."""

    level: float
    """Its metric at the last checkpoint."""
    error: float
    """Standard error, from prompts."""


def similar_ends(task: str, ends: Mapping[str, tuple[float, Sequence[Ending]]], params: TrajectoryParams) -> Claim:
    """C7: all scales but the smallest end at 0.8 or more of the best scale's level.

    Seeds of a scale are drawn again in each resample, each with its standard error, and averaged.

    Args:
        task: its name.
        ends: scale -> parameters, and the end of each of its members.
        params: the rule and the bootstrap.
    """
    rules, order = params.claims, sorted(ends, key=lambda scale: ends[scale][0])[1:]
    if len(order) < 2:
        return Claim("C7", task, "undecided", f"{len(order)} scales besides the smallest, two are needed")
    levels = {scale: _drawn(task, scale, ends[scale][1], params) for scale in order}
    best = max(order, key=lambda scale: float(np.median(levels[scale])))
    if not float(np.quantile(levels[best], 0.05)) > 0:
        return Claim("C7", task, "undecided", f"the best scale, {best}, does not end above 0")
    tail = (1 - rules.alike_confidence) / 2
    ratios = {
        scale: np.quantile(levels[scale] / np.maximum(levels[best], 1e-12), [0.5, tail, 1 - tail])
        for scale in order
        if scale != best
    }
    worst = min(ratios, key=lambda scale: float(ratios[scale][0]))
    middle, low, high = (float(number) for number in ratios[worst])
    text = f"{worst} ends at {middle:.2f} of {best}"
    below = [scale for scale, (_, _, most) in ratios.items() if most < rules.similar_end]
    if below:
        return Claim("C7", task, "contradicted", text, middle, low, high)
    if any(least < rules.similar_end for _, least, _ in ratios.values()):
        return Claim(
            "C7", task, "undecided", f"{text}; the interval reaches below {rules.similar_end:g}", middle, low, high
        )
    single = [scale for scale in order if len(ends[scale][1]) < 2]
    if single:
        reason = f"{text}; one seed of {', '.join(single)}: the noise between runs is unknown"
        return Claim("C7", task, "undecided", reason, middle, low, high)
    return Claim("C7", task, "supported", text, middle, low, high)


def _drawn(
    task: str, scale: str, members: Sequence[Ending], params: TrajectoryParams
) -> Float[np.ndarray, " resamples"]:
    rng = np.random.default_rng([params.seed, zlib.crc32(f"C7/{task}/{scale}".encode())])
    chosen = rng.integers(len(members), size=(params.resamples, len(members)))
    levels, errors = (np.array([getattr(m, name) for m in members], dtype=float) for name in Ending._fields)
    return (levels[chosen] + np.nan_to_num(errors[chosen]) * rng.standard_normal(chosen.shape)).mean(axis=1)

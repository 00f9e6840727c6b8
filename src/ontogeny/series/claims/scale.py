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
from ontogeny.series.seeds import seed_noise, shifts
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
        return Claim("C6", task, "undecided", f"sizes of {len(points)} of the {needed} shapes of model needed")
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

    Levels scatter by the standard error of each member and by the noise between seeds, pooled over scales
    (`series.seeds`); where no scale has two seeds it is unknown, and nothing is decided.

    Args:
        task: its name.
        ends: scale -> parameters, and the end of each of its members.
        params: the rule and the bootstrap.
    """
    rules, order = params.claims, sorted(ends, key=lambda scale: ends[scale][0])[1:]
    if len(order) < 2:
        return Claim("C7", task, "undecided", f"{len(order)} of the 2 scales needed besides the smallest")
    levels, runs = _drawn(task, {scale: ends[scale][1] for scale in order}, params)
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
    numbers = (middle, low, high)
    if runs == 0:
        reason = f"{text}; one seed of every scale: the noise between runs is unknown"
        return Claim("C7", task, "undecided", reason, *numbers)
    if any(most < rules.similar_end for _, _, most in ratios.values()):
        return Claim("C7", task, "contradicted", text, *numbers)
    if any(least < rules.similar_end for _, least, _ in ratios.values()):
        reason = f"{text}; the interval reaches below {rules.similar_end:g}"
        return Claim("C7", task, "undecided", reason, *numbers)
    return Claim("C7", task, "supported", text, *numbers)


def _drawn(
    task: str, ends: Mapping[str, Sequence[Ending]], params: TrajectoryParams
) -> tuple[dict[str, Float[np.ndarray, " resamples"]], int]:
    """Level of each scale, and the degrees of freedom of the noise between seeds."""
    rng = np.random.default_rng([params.seed, zlib.crc32(f"C7/{task}".encode())])
    errors = {scale: np.nan_to_num([each.error for each in seeds]) for scale, seeds in ends.items()}
    own = float(np.mean(np.concatenate(list(errors.values())) ** 2))
    noise = seed_noise([[each.level for each in seeds] for seeds in ends.values()], own)
    off = shifts(noise, [len(seeds) for seeds in ends.values()], params.resamples, rng)
    levels = {}
    for (scale, seeds), shift in zip(ends.items(), off):
        error = float(np.sqrt((errors[scale] ** 2).sum())) / len(seeds)
        mean = float(np.mean([each.level for each in seeds]))
        levels[scale] = mean + error * rng.standard_normal(params.resamples) + shift
    return levels, noise.freedom

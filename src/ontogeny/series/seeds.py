"""The noise between training runs: what seeds of one scale say about all scales.

A scale has few seeds, so that drawing them again would make the noise too small (with two, by half). One variance is
estimated from the deviations of all seeds from the means of their scales, and the mean of a scale then scatters as
Student's t with as many degrees of freedom. A scale with a single seed borrows it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Float


class SeedNoise(NamedTuple):
    """Noise between training runs."""

    deviation: float
    """Standard deviation of one run, beyond the error of its own value; 0 where it is not known."""
    freedom: int
    """Degrees of freedom: seeds less scales. 0: no scale has two seeds, and nothing is known."""


def seed_noise(scales: Sequence[Sequence[float]], error: float) -> SeedNoise:
    """Pooled over scales.

    Args:
        scales: a value for each seed of each scale.
        error: typical variance of such a value that is no noise between runs (its own bootstrap's).
    """
    freedom = sum(len(values) - 1 for values in scales)
    if freedom == 0:
        return SeedNoise(0.0, 0)
    squares = sum(float(((np.asarray(values) - np.mean(values)) ** 2).sum()) for values in scales)
    return SeedNoise(float(np.sqrt(max(0.0, squares / freedom - error))), freedom)


def shifts(
    noise: SeedNoise, seeds: Sequence[int], draws: int, rng: np.random.Generator
) -> Float[np.ndarray, "scales draws"]:
    """How far the mean of each scale may be off: normal, over one estimated variance that all scales share."""
    if noise.freedom == 0:
        return np.zeros((len(seeds), draws))
    variance = noise.freedom / rng.chisquare(noise.freedom, draws)
    each = noise.deviation / np.sqrt(np.asarray(seeds, dtype=float))
    return each[:, None] * rng.standard_normal((len(seeds), draws)) * np.sqrt(variance)

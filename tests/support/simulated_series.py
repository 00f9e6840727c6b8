"""Series whose onset is known: the shapes and schedules of real ones, with noise of a chosen size."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import pandas as pd

from ontogeny.models.ladder import checkpoint_steps
from ontogeny.params import CheckpointsParams
from ontogeny.series.table import as_table

THIRD = 0.33
LADDER = [2048 * step for step in checkpoint_steps(CheckpointsParams(scales={}))]
"""The default study's checkpoints, in tokens."""
PUBLISHED = [2_097_152 * s for s in (0, *(2**i for i in range(10)), 1000, 3000, *range(13000, 144000, 10000))]
"""The checkpoints of the published Pythia evaluations."""
SHAPES = ("sharp", "slow", "dip", "unlearning")
Curve = Callable[[np.ndarray], np.ndarray]


class Simulated(NamedTuple):
    """Many series of one shape."""

    table: pd.DataFrame
    """Tidy; one member a series."""
    truth: np.ndarray
    """log2 tokens at which the curve without noise crosses a third of its rise; NaN for flat ones."""
    gap: np.ndarray
    """Octaves between the checkpoints on both sides of the truth."""


def log2(tokens: list[int]) -> np.ndarray:
    """Step 0 one octave before the first checkpoint after it."""
    seen = np.array(tokens, dtype=float)
    return np.log2(np.where(seen > 0, seen, seen[1] / 2))


def simulate(shape: str, count: int, noise: float, tokens: list[int], seed: int = 0, *, told: bool = True) -> Simulated:
    """`count` series that rise from 0 to 1 somewhere in the middle of the schedule, or never.

    Args:
        shape: one of `SHAPES`, or `flat`.
        count: how many.
        noise: standard deviation at each checkpoint.
        tokens: the schedule.
        seed: of everything.
        told: whether the table has the noise as its standard error.
    """
    rng, x = np.random.default_rng(seed), log2(tokens)
    rows: list[tuple[object, ...]] = []
    truth, gap = np.full(count, np.nan), np.full(count, np.nan)
    for index in range(count):
        curve = _curve(shape, x, (index + rng.random()) / count, rng)
        mean = curve(x)
        if shape != "flat":
            truth[index] = _crossing(curve, x)
            right = np.searchsorted(x, truth[index])
            gap[index] = x[right] - x[right - 1]
        half = 1.96 * noise if told else np.nan
        who = ("simulated", f"series-{index}", f"series-{index}", 0, None)
        for step, (seen, value) in enumerate(zip(tokens, mean + rng.normal(0, noise, len(x)))):
            rows.append((*who, step, seen, "task", shape, value, value - half, value + half, "measured", None))
    return Simulated(as_table(rows), truth, gap)


def _curve(shape: str, x: np.ndarray, share_of_span: float, rng: np.random.Generator) -> Curve:
    """Places are even in log tokens, the rest is drawn: the base, and two checkpoints of each level, are seen.

    Unlearning comes after the first checkpoint past 1 % of the tokens: what is over by then is no onset.
    """
    place = x[3] + (x[-5] - x[3]) * share_of_span
    if shape == "flat":
        return np.zeros_like
    if shape == "sharp":
        return lambda t: (t > place) * 1.0
    if shape == "slow":
        width = rng.uniform(0.3, 0.8)
        return lambda t: 1 / (1 + np.exp(-np.clip((t - place) / width, -50, 50)))
    if shape == "dip":
        depth, before = rng.uniform(0.2, 0.6), min(rng.uniform(1.0, 2.5), place - x[2])
        return lambda t: (t > place) * 1.0 - ((t > place - before) & (t <= place)) * depth
    second, late = x[np.searchsorted(x, place) + 1], x[np.searchsorted(x, x[-1] + np.log2(0.01))]
    end, share = rng.uniform(max(second, late), x[-3]), rng.uniform(0.4, 1.0)
    return lambda t: (t > place) * 1.0 - (t > end) * share


def _crossing(curve: Curve, x: np.ndarray) -> float:
    """On a fine grid: the last place below the level before the highest value."""
    fine = np.linspace(x[0], x[-1], 20001)
    value = curve(fine)
    level = curve(x)[0] + THIRD * (curve(x).max() - curve(x)[0])
    top = int(np.argmax(value >= curve(x).max() - 1e-9))
    below = int(np.flatnonzero(value[: top + 1] < level)[-1])
    return float((fine[below] + fine[below + 1]) / 2)

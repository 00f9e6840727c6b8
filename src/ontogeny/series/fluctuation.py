"""How much a size goes up and down over training, and where it changes for good (METHODS 0, C6)."""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import pandas as pd
from jaxtyping import Float

from ontogeny.params import TrajectoryParams
from ontogeny.series.drift import neighbours_alike, worth_of_mean, worth_of_variance
from ontogeny.series.emergence import SERIES, series_of

LEAST: Final = 10
"""Sizes below which nothing is said."""
_SHORTEST: Final = 3
"""Checkpoints in a segment."""
_PENALTY: Final = 3.0
"""Noise variances times log(checkpoints) that a change point must save: it adds a level and a place."""
_LEAST_WORTH: Final = 1.5
"""Independent values that a series is worth at least."""


@dataclass(frozen=True)
class ChangePoint:
    """A checkpoint at which a size settles on another level."""

    step: int
    """First checkpoint of the new level."""
    tokens: float
    low: float
    high: float
    """Ends of the interval, tokens."""
    before: float
    after: float
    """Levels: geometric means of the segments."""


@dataclass(frozen=True)
class Fluctuation:
    """One series of sizes."""

    who: Mapping[str, Any]
    checkpoints: int
    left_out: int
    """Checkpoints without a size, with a size of 0, with an earlier one's weights, or before the onset."""
    status: str
    """`measured`, or why there is nothing."""
    mean: float = math.nan
    variation: float = math.nan
    """Coefficient of variation, standard deviation over mean."""
    low: float = math.nan
    high: float = math.nan
    """Ends of the interval of `variation`."""
    jitter: float = math.nan
    """The same from neighbouring checkpoints alone: sqrt(mean of squared differences / 2) / mean. No trend is in it."""
    changes: tuple[ChangePoint, ...] = ()


def fluctuations(
    table: pd.DataFrame, params: TrajectoryParams, *, since: Mapping[tuple[str, str], float] | None = None
) -> list[Fluctuation]:
    """Every series of a tidy table of sizes.

    Args:
        table: sizes only, as `series.tidy` has them.
        params: the bootstrap.
        since: (member, task) -> tokens of the onset; what comes before is left out.
    """
    starts = since or {}
    return [
        _fluctuation(who, rows, params, starts.get((str(who["member"]), str(who["task"])), 0.0))
        for who, rows in series_of(table)
    ]


def fluctuation_table(found: Sequence[Fluctuation]) -> pd.DataFrame:
    """One row a series."""
    names = ("checkpoints", "left_out", "mean", "variation", "low", "high", "jitter", "status")
    rows = [{**each.who, **{n: getattr(each, n) for n in names}, "change_points": len(each.changes)} for each in found]
    return pd.DataFrame(rows, columns=[*SERIES, *names, "change_points"])


def change_table(found: Sequence[Fluctuation]) -> pd.DataFrame:
    """One row a change point."""
    names = tuple(ChangePoint.__dataclass_fields__)
    rows = [{**each.who, **{n: getattr(point, n) for n in names}} for each in found for point in each.changes]
    return pd.DataFrame(rows, columns=[*SERIES, *names])


def change_points(levels: Float[np.ndarray, " checkpoints"], *, count: int | None = None) -> list[int]:
    """First index of each segment but the first, by least squares around a mean a segment.

    The number of them is chosen: each must lower the sum of squares by 3 log(n) times the noise's variance, half the
    mean squared difference of neighbours. With `count` it is given.
    """
    from ruptures import KernelCPD

    search = KernelCPD(kernel="linear", min_size=_SHORTEST).fit(np.ascontiguousarray(levels[:, None], dtype=float))
    if count is not None:
        return [int(end) for end in search.predict(n_bkps=count)[:-1]] if count else []
    noise = float(np.mean(np.diff(levels) ** 2)) / 2
    if not noise > 0:
        return []
    return [int(end) for end in search.predict(pen=_PENALTY * math.log(len(levels)) * noise)[:-1]]


def _fluctuation(who: Mapping[str, Any], rows: pd.DataFrame, params: TrajectoryParams, start: float) -> Fluctuation:
    size = rows["value"].to_numpy(float)
    usable = np.isfinite(size) & (size > 0) & rows["duplicate_of"].isna().to_numpy()
    usable &= (rows["tokens"].astype(float) >= start).to_numpy()
    kept = rows[usable].sort_values("tokens", kind="stable")
    size, tokens = kept["value"].to_numpy(float), kept["tokens"].to_numpy(float)
    if len(kept) < LEAST:
        return Fluctuation(who, len(kept), len(rows) - len(kept), f"fewer than {LEAST} sizes")
    text = "/".join(str(who[name]) for name in ("suite", "member", "task", "quantity"))
    rng = np.random.default_rng([params.seed, zlib.crc32(text.encode())])
    low, high = _variation_interval(size, params.confidence)
    return Fluctuation(
        who,
        len(kept),
        len(rows) - len(kept),
        "measured",
        mean=float(size.mean()),
        variation=_variation(size),
        low=low,
        high=high,
        jitter=float(np.sqrt(np.mean(np.diff(size) ** 2) / 2) / size.mean()),
        changes=tuple(_changes(kept["step"].to_numpy(int), tokens, size, params, rng)),
    )


def _variation(size: np.ndarray) -> float:
    return float(size.std(ddof=1) / size.mean())


def _variation_interval(size: np.ndarray, confidence: float) -> tuple[float, float]:
    """Of a normal series whose neighbours are alike: chi-squared, with as many degrees of freedom as that leaves.

    The standard deviation around a mean of its own is too small by what the mean is off by, which is made up for.
    """
    from scipy.stats import chi2

    count, alike = len(size), neighbours_alike(size - size.mean())
    freedom = max(1.0, worth_of_variance(count, alike) - 1)
    missing = max(1 - 1 / max(worth_of_mean(count, alike), _LEAST_WORTH), 1 - 1 / _LEAST_WORTH)
    spread = _variation(size) * math.sqrt((1 - 1 / count) / missing)
    ends = chi2.ppf([(1 + confidence) / 2, (1 - confidence) / 2], freedom)
    low, high = spread * np.sqrt(freedom / ends)
    return float(low), float(high)


def _changes(
    steps: np.ndarray, tokens: np.ndarray, size: np.ndarray, params: TrajectoryParams, rng: np.random.Generator
) -> list[ChangePoint]:
    """Change points of log size; their intervals from resamples whose residuals change signs at random."""
    levels = np.log2(size)
    starts = change_points(levels)
    if not starts:
        return []
    segments = np.split(levels, starts)
    means = [float(segment.mean()) for segment in segments]
    fitted = np.concatenate([np.full(len(segment), mean) for segment, mean in zip(segments, means)])
    signs = rng.choice([-1.0, 1.0], (params.resamples, len(levels)))
    again = fitted + (levels - fitted) * signs
    drawn = np.array([change_points(row, count=len(starts)) for row in again])
    places = tokens[drawn - 1] + (tokens[drawn] - tokens[drawn - 1]) * rng.random(drawn.shape)
    tail = (1 - params.confidence) / 2
    lows, highs = np.quantile(places, [tail, 1 - tail], axis=0)
    return [
        ChangePoint(int(steps[at]), float(tokens[at]), float(low), float(high), 2.0**before, 2.0**after)
        for at, low, high, before, after in zip(starts, lows, highs, means[:-1], means[1:])
    ]

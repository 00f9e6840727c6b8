"""When a series rises, as a fitted curve in log tokens with a bootstrap interval (METHODS 6.6).

1. Training tokens are taken to base 2; step 0 stands one octave before the first checkpoint that has seen any.
2. Least squares over a grid of rises: a jump between two checkpoints, or a curve with a place and a width, either
   logistic or one that settles slowly (1 - exp(-exp(z)), z the distance in widths). A dip before the rise and
   unlearning after it may each add a fall, where the fit asks for it.
3. The onset is where the fitted curve crosses the level of the onset rule, a third of the way from base to top.
4. Wild bootstrap: the residuals change signs at random, and the fit is repeated. What happened between two checkpoints
   nobody saw, so within its gap every place of a resample's onset is equally likely; the interval is that of the
   resamples.

The curve locates the gap; it is not believed any further, so the interval holds for rises of other shapes too.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from jaxtyping import Float

from ontogeny.series.shapes import Array, Model, grid, model_of

PlateauStatus = Literal["reached", "still rising"]

_LEAST_CHECKPOINTS: Final = 5
"""A jump has three numbers (two levels and a place): fewer checkpoints say nothing about the noise."""
_WIDTH_PENALTY: Final = 2.0
"""Noise variances by which a curve must fit better than a jump: it has one number more (Akaike's price)."""
_FALL_PENALTY: Final = 3.0
"""The same for a fall, times log(checkpoints): it adds two numbers, and every gap is tried."""
_REACH: Final = 60.0
"""Rises that fit worse than the best by more noise variances than this are not tried again in resamples."""
_PLATEAU_SHARE: Final = 0.9


@dataclass(frozen=True)
class Rise:
    """The fitted rise of a series. Places are in log2 of training tokens."""

    onset: float
    """Median of the resamples."""
    low: float
    high: float
    """Ends of the percentile interval."""
    base: float
    """Fitted level at the first checkpoint."""
    top: float
    """Fitted level after the rise, as far as it was seen."""
    trough: float
    """Fitted level just before the rise: below `base` if there is a dip, else equal to it."""
    plateau_status: PlateauStatus
    plateau: float
    """Where the curve has made 90 % of its rise; NaN if it is still rising at the last checkpoint."""
    draws: Float[Array, " resamples"]
    """Onset of each resample, the same number of them for every series: differences of two series come from these."""


def log2_tokens(tokens: Sequence[float] | Array) -> Float[Array, " checkpoints"]:
    """Tokens to base 2; 0 becomes one octave less than the least positive number."""
    seen = np.asarray(tokens, dtype=float)
    least = seen[seen > 0].min(initial=math.inf)
    return np.log2(np.where(seen > 0, seen, least / 2 if math.isfinite(least) else 1.0))


def fit_rise(
    tokens: Sequence[float] | Array,
    values: Sequence[float] | Array,
    *,
    fraction: float,
    resamples: int,
    confidence: float,
    rng: np.random.Generator,
) -> Rise | None:
    """The rise of a series and the interval of its onset; None for fewer than 5 checkpoints, or if nothing rises.

    Args:
        tokens: tokens seen at each checkpoint, ascending, no two the same.
        values: finite numbers.
        fraction: share of the way from base to top at which the onset is.
        resamples: of the bootstrap.
        confidence: of the interval, e.g. 0.95.
        rng: of the signs, and of the places in gaps.
    """
    x, y = log2_tokens(tokens), np.asarray(values, dtype=float)
    if len(x) < _LEAST_CHECKPOINTS or np.ptp(y) == 0:
        return None
    model = model_of(x, grid(tuple(x)), _find_falls(x, y))
    misfit = model.misfit(y[None])[:, 0]
    if not np.isfinite(misfit).any():
        return None
    degrees = max(1, len(x) - model.levels.shape[1] - 3)
    price = _WIDTH_PENALTY * misfit.min() / degrees
    penalised = misfit + price * (model.shapes.width > 0)
    best = penalised.argmin(keepdims=True)
    near = model.of(np.flatnonzero(penalised <= penalised.min() + _REACH / _WIDTH_PENALTY * price))

    fitted = model.fitted(best, y[None])[0]
    numbers = model.levels.shape[1] + 2 + int(model.shapes.width[best[0]] > 0)
    residuals = (y - fitted) * math.sqrt(len(x) / max(1, len(x) - numbers))
    again = fitted + residuals * rng.choice([-1.0, 1.0], (resamples, len(x)))
    chosen = (near.misfit(again) + (price * (near.shapes.width > 0))[:, None]).argmin(0)
    draws = _anywhere_in_gap(x, _crossings(near, chosen, again, fraction), rng)

    tail = (1 - confidence) / 2
    low, middle, high = np.quantile(draws, [tail, 0.5, 1 - tail], method="weibull")  # unbiased for uniform draws
    ends = model.ends(best, y[None])
    settled = float(model.shapes.reach(best, np.array([_PLATEAU_SHARE]))[0])
    return Rise(
        onset=float(middle),
        low=float(low),
        high=float(high),
        base=float(ends.base[0]),
        top=float(ends.top[0]),
        trough=float(min(ends.base[0], ends.trough[0])),
        plateau_status="reached" if settled <= x[-1] else "still rising",
        plateau=settled if settled <= x[-1] else math.nan,
        draws=draws,
    )


def _find_falls(x: Array, y: Array) -> list[float]:
    """Where the series falls to another level besides its rise: a dip before, unlearning after, both or neither.

    Up to two, one after the other; each must lower the misfit by more than its two numbers would by chance.
    """
    shapes = grid(tuple(x), coarse=True)
    falls: list[float] = []
    misfit = float(model_of(x, shapes, falls).misfit(y[None]).min())
    while len(falls) < min(2, len(x) - _LEAST_CHECKPOINTS):
        place, better = _best_fall(model_of(x, shapes, falls), y)
        variance = better / max(1, len(x) - 2 * len(falls) - 6)
        if not misfit - better > _FALL_PENALTY * math.log(len(x)) * variance:
            break
        falls.append(place)
        misfit = better
    return falls


def _best_fall(model: Model, y: Array) -> tuple[float, float]:
    """The gap in which one more fall, together with the best rise, leaves the least misfit; and that misfit.

    All gaps and shapes at once: the shapes and the steps down, both free of the levels, form 2 x 2 systems.
    """
    x, shapes = model.x, model.shapes
    steps = (x > ((x[:-1] + x[1:]) / 2)[:, None]).astype(float)
    step, step_norm = model.free(steps)
    usable = step_norm > _SMALL
    unit = step / np.where(usable, step_norm, 1)[:, None]
    along_shape, along_step, shared = model.unit @ y, unit @ y, model.unit @ unit.T
    rest = 1 - shared**2
    safe = np.where(rest > _SMALL, rest, 1)
    rise = (along_shape[:, None] - shared * along_step) / safe
    fall = (along_step - shared * along_shape[:, None]) / safe
    free_y = y - model.basis @ (model.basis.T @ y)
    misfit = free_y @ free_y - rise * along_shape[:, None] - fall * along_step
    possible = (rest > _SMALL) & usable & (rise > 0) & (fall < 0) & shapes.uncut()
    misfit = np.where(possible & (model.norm > _SMALL)[:, None], misfit, np.inf)
    least = misfit.min(0)
    gap = int(least.argmin())
    return float((x[gap] + x[gap + 1]) / 2), max(0.0, float(least[gap]))


_SMALL: Final = 1e-6


def _crossings(
    model: Model, chosen: Array, series: Float[Array, "series checkpoints"], fraction: float
) -> Float[Array, " series"]:
    """Where each fitted curve crosses `fraction` of the way from its base to its top."""
    ends = model.ends(chosen, series)
    height = (ends.base + fraction * (ends.top - ends.base) - ends.trough) / ends.rise
    places = model.shapes.reach(chosen, np.clip(height, 1e-9, 1 - 1e-9))
    return np.clip(places, model.x[0], model.x[-1])


def _anywhere_in_gap(x: Array, places: Array, rng: np.random.Generator) -> Float[Array, " series"]:
    """A uniform draw from the gap between checkpoints that each place lies in."""
    gap = np.clip(np.searchsorted(x, places) - 1, 0, len(x) - 2)
    return x[gap] + (x[gap + 1] - x[gap]) * rng.random(len(places))

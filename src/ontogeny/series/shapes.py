"""A grid of rising shapes, and their least squares fit to many series at once.

Each shape goes from 0 to 1: a jump between two checkpoints, a logistic curve, or 1 - exp(-exp(z)), which settles
slowly. A series is fitted as levels (a constant, and a step down at each fall) plus a positive multiple of one shape.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Final, NamedTuple

import numpy as np
from jaxtyping import Bool, Float, Int

Array = np.ndarray

_LEAST_WIDTH: Final = 0.08
"""In gaps; a steeper curve is a jump."""
_PLACES_A_WIDTH: Final = 8
"""Places of a curve are no closer than this part of its width."""
_CUT: Final = 0.2
"""Share of a rise that may be missing when a fall begins."""
_SMALL: Final = 1e-6
"""A shape closer to the levels than this cannot be told from them."""


@dataclass(frozen=True)
class Shapes:
    """A row a shape. A width of 0 is a jump in the middle of a gap; places and widths are in octaves."""

    place: Float[Array, " shapes"]
    width: Float[Array, " shapes"]
    skewed: Bool[Array, " shapes"]
    """Not logistic, but 1 - exp(-exp(z)), z the distance in widths."""
    value: Float[Array, "shapes checkpoints"]

    def of(self, index: Int[Array, " some"]) -> Shapes:
        """Some of the shapes."""
        return Shapes(self.place[index], self.width[index], self.skewed[index], self.value[index])

    def reach(self, index: Int[Array, " some"], height: Float[Array, " some"]) -> Float[Array, " some"]:
        """Where each of some shapes is at a height between 0 and 1."""
        odds = np.where(self.skewed[index], np.log(-np.log1p(-height)), np.log(height / (1 - height)))
        return self.place[index] + self.width[index] * odds

    def uncut(self) -> Bool[Array, "shapes gaps"]:
        """Whether a fall in a gap comes when most of the rise is done, or before it begins.

        Else a steep rise and a fall right after it would make a peak that nobody saw.
        """
        return (self.value[:, :-1] >= 1 - _CUT) | (self.value[:, 1:] <= _CUT)


@lru_cache(maxsize=16)
def grid(x: tuple[float, ...], *, coarse: bool = False) -> Shapes:
    """Jumps in every gap, and curves of several widths at several places; `x` in octaves, ascending."""
    at = np.array(x)
    gaps = np.diff(at)
    per_gap, widths = (max(1, 80 // len(at)), 10) if coarse else (max(3, 320 // len(at)), 28)
    inside = (np.arange(per_gap) + 0.5) / per_gap
    places, local = (at[:-1, None] + gaps[:, None] * inside).ravel(), np.repeat(gaps, per_gap)
    span = at[-1] - at[0]
    place, width = [], []
    for size in np.geomspace(min(_LEAST_WIDTH * gaps.min(), span / 8), span / 4, widths):
        useful = places[size > _LEAST_WIDTH * local]
        _, first = np.unique(np.floor(useful * _PLACES_A_WIDTH / size), return_index=True)
        place.append(useful[first])
        width.append(np.full(len(first), size))
    some_place, some_width = np.concatenate(place), np.concatenate(width)
    distance = np.clip((at - some_place[:, None]) / some_width[:, None], -60, 60)
    middles = (at[:-1] + at[1:]) / 2
    return Shapes(
        np.concatenate([middles, some_place, some_place]),
        np.concatenate([np.zeros(len(gaps)), some_width, some_width]),
        np.repeat([False, True], [len(gaps) + len(some_place), len(some_place)]),
        np.concatenate([at > middles[:, None], 1 / (1 + np.exp(-distance)), -np.expm1(-np.exp(distance))]),
    )


class Ends(NamedTuple):
    """Levels of fitted curves, one of each for every series."""

    base: Float[Array, " series"]
    """At the first checkpoint."""
    trough: Float[Array, " series"]
    """Just before the rise."""
    top: Float[Array, " series"]
    """After the rise, as far as it was seen; unlearning lowers nothing here."""
    rise: Float[Array, " series"]
    """From the trough to the curve's limit, seen or not."""


@dataclass(frozen=True)
class Model:
    """Shapes and the levels that they are fitted with."""

    x: Float[Array, " checkpoints"]
    falls: Float[Array, " falls"]
    shapes: Shapes
    levels: Float[Array, "checkpoints columns"]
    basis: Float[Array, "checkpoints columns"]
    """An orthonormal basis of the levels."""
    unit: Float[Array, "shapes checkpoints"]
    """What of each shape no level can take, of length 1."""
    norm: Float[Array, " shapes"]
    """Its length before."""

    def of(self, index: Int[Array, " some"]) -> Model:
        """Some of the shapes."""
        return replace(self, shapes=self.shapes.of(index), unit=self.unit[index], norm=self.norm[index])

    def free(self, rows: Float[Array, "rows checkpoints"]) -> tuple[Float[Array, "rows checkpoints"], Array]:
        """What of each row no level can take, and its length."""
        rest = rows - (rows @ self.basis) @ self.basis.T
        return rest, np.sqrt((rest**2).sum(1))

    def misfit(self, series: Float[Array, "series checkpoints"]) -> Float[Array, "shapes series"]:
        """Sum of squared residuals of every shape and series; infinite where the best multiple is not positive."""
        along = self.unit @ series.T
        rest, _ = self.free(series)
        misfit = np.maximum((rest**2).sum(1) - along**2, 0.0)
        misfit[(along <= 0) | (self.norm <= _SMALL)[:, None]] = np.inf
        return misfit

    def weights(self, chosen: Int[Array, " series"], series: Float[Array, "series checkpoints"]) -> tuple[Array, Array]:
        """Multiple of the chosen shape of each series (series), and weights of the levels (series, columns)."""
        rise = (self.unit[chosen] * series).sum(1) / self.norm[chosen]
        rest = series - rise[:, None] * self.shapes.value[chosen]
        return rise, np.linalg.lstsq(self.levels, rest.T, rcond=None)[0].T

    def fitted(self, chosen: Int[Array, " series"], series: Float[Array, "series checkpoints"]) -> Array:
        """The fitted curves (series, checkpoints)."""
        rise, weights = self.weights(chosen, series)
        fitted: Array = weights @ self.levels.T + rise[:, None] * self.shapes.value[chosen]
        return fitted

    def ends(self, chosen: Int[Array, " series"], series: Float[Array, "series checkpoints"]) -> Ends:
        """The falls before the rise lower its trough, those after it are unlearning."""
        rise, weights = self.weights(chosen, series)
        value = self.shapes.value[chosen]
        before = self.falls < self.shapes.place[chosen][:, None]
        trough = weights[:, 0] + (weights[:, 1:] * before).sum(1)
        return Ends(weights[:, 0] + rise * value[:, 0], trough, trough + rise * value[:, -1], rise)


def model_of(x: Float[Array, " checkpoints"], shapes: Shapes, falls: Sequence[float]) -> Model:
    """A model with a fall in the middle of each of some gaps; shapes that a fall would cut are left out."""
    levels = np.column_stack([np.ones(len(x)), *((x > fall).astype(float) for fall in falls)])
    if falls:
        gaps = np.searchsorted(x, falls) - 1
        shapes = shapes.of(np.flatnonzero(shapes.uncut()[:, gaps].all(1)))
    basis, _ = np.linalg.qr(levels)
    rest = shapes.value - (shapes.value @ basis) @ basis.T
    norm = np.sqrt((rest**2).sum(1))
    unit = rest / np.where(norm > _SMALL, norm, 1)[:, None]
    return Model(x, np.array(falls, dtype=float), shapes, levels, basis, unit, norm)

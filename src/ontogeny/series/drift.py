"""How much neighbouring checkpoints have in common: so many values are worth fewer independent ones."""

from __future__ import annotations

from typing import Final

import numpy as np
from jaxtyping import Float

_MOST: Final = 0.95
"""Correlation that is believed."""


def neighbours_alike(rest: Float[np.ndarray, " checkpoints"]) -> float:
    """Correlation of neighbours in values around 0, from 0 to 0.95.

    Too small by (1 + 3 r) / n on average in a short series, which is added (Marriott and Pope 1954).
    """
    around = float(rest @ rest)
    if not around > 0:
        return 0.0
    r = float(rest[1:] @ rest[:-1]) / around
    return min(max(r + (1 + 3 * r) / len(rest), 0.0), _MOST)


def worth_of_mean(n: int, alike: float) -> float:
    """How many independent values have a mean (or a slope) as sure as that of `n`: n (1 - r) / (1 + r)."""
    return n * (1 - alike) / (1 + alike)


def worth_of_variance(n: int, alike: float) -> float:
    """The same of a variance: n (1 - r^2) / (1 + r^2)."""
    return n * (1 - alike**2) / (1 + alike**2)

"""Percentile bootstrap over examples, vectorised: one matrix product for all quantities and all resamples.

All quantities of one call are resampled together, so that a difference of two of them is paired (METHODS 2.5, 4.5).
Prompts are the unit of resampling: the intervals leave out the noise between training runs (METHODS 0.1).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from jaxtyping import Float
from torch import Tensor


class Resampling(Protocol):
    """How to bootstrap; `params.BehaviourParams` is one."""

    @property
    def resamples(self) -> int:
        """How many resamples are drawn."""
        ...

    @property
    def confidence(self) -> float:
        """Coverage of the interval, e.g. 0.95."""
        ...

    @property
    def seed(self) -> int:
        """Seed of the draw."""
        ...


@dataclass(frozen=True)
class MeansWithIntervals:
    """Means over examples and the ends of their percentile intervals, float64."""

    value: Float[Tensor, " quantities"]
    low: Float[Tensor, " quantities"]
    high: Float[Tensor, " quantities"]


def resample_weights(examples: int, resamples: int, generator: torch.Generator) -> Float[Tensor, "resamples examples"]:
    """Share of each example in each resample (drawn with replacement, same size); rows sum to 1."""
    drawn = torch.randint(examples, (resamples, examples), generator=generator)
    counts = torch.zeros(resamples, examples, dtype=torch.float64)
    return counts.scatter_add_(1, drawn, torch.ones_like(counts)) / examples


def bootstrap_means(values: Float[Tensor, "examples quantities"], settings: Resampling) -> MeansWithIntervals:
    """Mean of each column with its percentile interval; a column that is not finite gives NaN throughout."""
    values = values.detach().to("cpu", torch.float64)
    generator = torch.Generator().manual_seed(settings.seed)
    means = resample_weights(len(values), settings.resamples, generator) @ values
    tail = (1.0 - settings.confidence) / 2.0
    low, high = means.quantile(torch.tensor([tail, 1.0 - tail], dtype=torch.float64), dim=0)
    undefined = ~values.isfinite().all(dim=0)
    value, low, high = (x.masked_fill(undefined, float("nan")) for x in (values.mean(dim=0), low, high))
    return MeansWithIntervals(value, low, high)

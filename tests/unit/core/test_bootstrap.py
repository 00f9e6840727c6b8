"""The bootstrap against the exact distribution of a small resample, and its seed."""

from __future__ import annotations

import itertools

import pytest
import torch

from ontogeny.core.bootstrap import bootstrap_means, resample_weights
from ontogeny.params import BehaviourParams


def test_weights_are_draws_with_replacement():
    weights = resample_weights(4, 500, torch.Generator().manual_seed(0))
    torch.testing.assert_close(weights.sum(1), torch.ones(500, dtype=torch.float64))
    assert ((weights * 4) % 1 == 0).all()
    assert weights.max() > 0.5


def test_quantiles_are_those_of_all_resamples_of_three():
    values = torch.tensor([0.0, 1.0, 10.0], dtype=torch.float64)
    means = torch.tensor([sum(draw) / 3 for draw in itertools.product(values.tolist(), repeat=3)])
    result = bootstrap_means(values[:, None], BehaviourParams(resamples=20000, confidence=0.8))
    assert float(result.low) == pytest.approx(float(means.quantile(0.1)), abs=0.34)
    assert float(result.high) == pytest.approx(float(means.quantile(0.9)), abs=0.34)


def test_same_seed_same_interval_other_seed_another():
    values = torch.randn(50, 1, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    first, again, other = (bootstrap_means(values, BehaviourParams(seed=seed)) for seed in (0, 0, 1))
    assert float(first.low) == float(again.low)
    assert float(first.low) != float(other.low)


def test_columns_are_resampled_together():
    x = torch.randn(30, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    result = bootstrap_means(torch.stack([x, -x], dim=1), BehaviourParams())
    torch.testing.assert_close(result.low[0], -result.high[1])

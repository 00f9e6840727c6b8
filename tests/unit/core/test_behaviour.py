"""Behaviour against arithmetic on paper, autograd and a second bootstrap."""

from __future__ import annotations

import math

import pytest
import torch

from ontogeny.core.behaviour import accuracy, answer_mass, behaviour, metric_gradient, metric_values, rank0
from ontogeny.core.pairs import Metric, PairBatch
from ontogeny.params import BehaviourParams


def batch_of(metric: Metric) -> PairBatch:
    """Three pairs over five tokens; the second pair has one answer less than the others."""
    return PairBatch(
        clean=torch.zeros(3, 2, dtype=torch.long),
        corrupted=torch.ones(3, 2, dtype=torch.long),
        lengths=torch.tensor([2, 2, 2]),
        answer_ids=torch.tensor([[1, 2, 3], [0, 4, 0], [4, 3, 2]]),
        answer_weights=torch.tensor([[1, 1, -1], [1, -1, 0], [1, -1, -1]], dtype=torch.float64),
        metric=metric,
    )


def log_probabilities() -> torch.Tensor:
    rows = [[0.1, 0.4, 0.2, 0.2, 0.1], [0.2, 0.1, 0.1, 0.1, 0.5], [0.5, 0.1, 0.1, 0.1, 0.2]]
    return torch.tensor(rows, dtype=torch.float64).log()


def test_prob_diff_on_paper():
    values = metric_values(log_probabilities(), batch_of("prob_diff"))
    torch.testing.assert_close(values, torch.tensor([0.4, -0.3, 0.0], dtype=torch.float64), atol=1e-15, rtol=0)


def test_logit_diff_on_paper():
    logits = torch.tensor([[0.0, 1, 2, 3, 4], [7, 0, 0, 0, 2], [0, 1, 2, 3, 5]], dtype=torch.float64)
    assert metric_values(logits, batch_of("logit_diff")).tolist() == [0.0, 5.0, 0.0]


def test_shares_on_paper():
    batch = batch_of("prob_diff")
    logits = log_probabilities()
    assert accuracy(logits, batch).tolist()[:2] == [1.0, 0.0]
    assert rank0(logits, batch).tolist() == [1.0, 0.0, 0.0]
    torch.testing.assert_close(answer_mass(logits, batch), torch.tensor([0.8, 0.7, 0.4], dtype=torch.float64))


def test_padding_of_answers_never_counts():
    batch = batch_of("prob_diff")
    assert rank0(torch.tensor([[0.0, 0, 0, 0, 0], [0, 0, 0, 0, 9.0], [9.0, 0, 0, 0, 0]]), batch)[1:].tolist() == [0, 0]


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff"])
def test_gradient_is_autograds(metric: Metric):
    batch = batch_of(metric)
    logits = torch.randn(3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(1), requires_grad=True)
    (expected,) = torch.autograd.grad(metric_values(logits, batch).sum(), logits)
    assert expected.abs().max() > 0.01
    torch.testing.assert_close(metric_gradient(logits.detach(), batch), expected, atol=1e-14, rtol=0)


def test_behaviour_means_and_paired_interval():
    n = 60
    generator = torch.Generator().manual_seed(3)
    clean = torch.randn(n, 4, dtype=torch.float64, generator=generator) * 3
    corrupted = clean - torch.tensor([0.5, 0, 0, 0], dtype=torch.float64)
    batch = PairBatch(
        clean=torch.zeros(n, 1, dtype=torch.long),
        corrupted=torch.zeros(n, 1, dtype=torch.long),
        lengths=torch.ones(n, dtype=torch.long),
        answer_ids=torch.tensor([[0, 1]]).repeat(n, 1),
        answer_weights=torch.tensor([[1.0, -1.0]], dtype=torch.float64).repeat(n, 1),
        metric="logit_diff",
    )
    result = behaviour(clean, corrupted, batch, BehaviourParams(resamples=4000))
    values = clean[:, 0] - clean[:, 1]
    assert result.metric.value == pytest.approx(float(values.mean()), abs=1e-12)
    half = 1.96 * float(values.std()) / math.sqrt(n)
    assert result.metric.low == pytest.approx(result.metric.value - half, abs=0.15 * half)
    assert result.metric.high == pytest.approx(result.metric.value + half, abs=0.15 * half)
    assert result.difference.low == pytest.approx(0.5, abs=1e-12)
    assert result.difference.high == pytest.approx(0.5, abs=1e-12)
    assert result.examples == n


def test_logits_that_are_not_finite_give_nan():
    logits = log_probabilities()
    broken = logits.clone()
    broken[0, 0] = float("nan")
    result = behaviour(broken, logits, batch_of("prob_diff"), BehaviourParams())
    assert math.isnan(result.metric.value)
    assert math.isnan(result.accuracy.value)
    assert math.isfinite(result.corrupted.value)

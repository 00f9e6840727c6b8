"""How well a model does a task, from the logits at the read position (METHODS 2, 2.5).

Logits are ``[pairs, vocab]``: those at the last real position of each prompt. What the two metrics are is said once,
in `PairBatch`.
"""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.bootstrap import Resampling, bootstrap_means
from ontogeny.core.pairs import PairBatch
from ontogeny.core.results import Behaviour, Estimate


def metric_values(logits: Float[Tensor, "pairs vocab"], batch: PairBatch) -> Float[Tensor, " pairs"]:
    """The task's metric of each example: logits (``logit_diff``) or probability (``prob_diff``)."""
    quantity = logits.softmax(dim=-1) if batch.metric == "prob_diff" else logits
    return (_at_answers(quantity, batch) * batch.answer_weights.to(quantity)).sum(dim=-1)


def metric_gradient(logits: Float[Tensor, "pairs vocab"], batch: PairBatch) -> Float[Tensor, "pairs vocab"]:
    """Gradient of each example's own metric with respect to its logits: not divided by the number of pairs."""
    weights = torch.zeros_like(logits).scatter_add_(
        1, batch.answer_ids.to(logits.device), batch.answer_weights.to(logits)
    )
    if batch.metric == "logit_diff":
        return weights
    probabilities = logits.softmax(dim=-1)
    return probabilities * (weights - (probabilities * weights).sum(dim=-1, keepdim=True))


def accuracy(logits: Float[Tensor, "pairs vocab"], batch: PairBatch) -> Float[Tensor, " pairs"]:
    """1 where the metric is > 0, else 0."""
    return (metric_values(logits, batch) > 0).cpu().to(torch.float64)


def rank0(logits: Float[Tensor, "pairs vocab"], batch: PairBatch) -> Float[Tensor, " pairs"]:
    """1 where the most likely token of the whole vocabulary is a correct answer, else 0."""
    hit = batch.answer_ids.to(logits.device) == logits.argmax(dim=-1, keepdim=True)
    return (hit & (batch.answer_weights.to(logits.device) > 0)).any(dim=-1).cpu().to(torch.float64)


def answer_mass(logits: Float[Tensor, "pairs vocab"], batch: PairBatch) -> Float[Tensor, " pairs"]:
    """Probability on all answers together, correct and incorrect."""
    real = batch.answer_weights.to(logits).abs()
    return (_at_answers(logits.softmax(dim=-1), batch) * real).sum(dim=-1)


def behaviour(
    clean_logits: Float[Tensor, "pairs vocab"],
    corrupted_logits: Float[Tensor, "pairs vocab"],
    batch: PairBatch,
    settings: Resampling,
) -> Behaviour:
    """All behavioural numbers of one split, each with its bootstrap interval over examples.

    ``difference`` is paired: clean and corrupted of the same examples are resampled together. Accuracy, rank and mass
    are those of the clean prompts; they are NaN if any clean logit is not finite.
    """
    clean = metric_values(clean_logits, batch)
    corrupted = metric_values(corrupted_logits, batch)
    shares = torch.stack([f(clean_logits, batch).to("cpu", torch.float64) for f in (accuracy, rank0, answer_mass)])
    if not bool(clean_logits.isfinite().all()):
        shares = torch.full_like(shares, float("nan"))
    metrics = torch.stack([clean, corrupted, clean - corrupted]).to("cpu", torch.float64)
    means = bootstrap_means(torch.cat([metrics, shares]).T, settings)
    m, c, d, a, r, w = (Estimate(*row) for row in torch.stack([means.value, means.low, means.high], dim=1).tolist())
    return Behaviour(metric=m, corrupted=c, difference=d, accuracy=a, rank0=r, mass=w, examples=len(batch))


def _at_answers(quantity: Float[Tensor, "pairs vocab"], batch: PairBatch) -> Float[Tensor, "pairs answers"]:
    return quantity.gather(1, batch.answer_ids.to(quantity.device))

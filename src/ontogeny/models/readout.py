"""The end of the model: logits and the metric at the read position."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.behaviour import metric_gradient, metric_values
from ontogeny.core.pairs import PairBatch
from ontogeny.models.functional import normalise, normalise_back
from ontogeny.models.weights import Weights


@dataclass(frozen=True)
class Readout:
    """The metric of a batch as a function of the residual at the read position.

    A logit difference needs one direction an example, not the vocabulary: ``direction = sum_k weight_k W_U[answer_k]``.
    """

    weights: Weights
    batch: PairBatch
    direction: Float[Tensor, "pairs d_model"] | None
    offset: Float[Tensor, " pairs"] | None

    def values(self, final: Float[Tensor, "pairs d_model"]) -> Float[Tensor, " pairs"]:
        """Metric of each example."""
        if self.direction is None or self.offset is None:
            return metric_values(read_logits(self.weights, final), self.batch)
        normed = normalise(self.weights.architecture, final)[0]
        return (normed * self.direction).sum(dim=-1) + self.offset

    def gradient(self, final: Float[Tensor, "pairs d_model"]) -> Float[Tensor, "pairs d_model"]:
        """Gradient of each example's own metric with respect to its residual, before the final norm."""
        normed, _, rstd = normalise(self.weights.architecture, final)
        grad = self.direction
        if grad is None:
            logits = torch.addmm(self.weights.unembed_bias, normed, self.weights.unembed)
            grad = metric_gradient(logits, self.batch) @ self.weights.unembed.T
        return normalise_back(self.weights.architecture, grad, normed, rstd)


def readout(weights: Weights, batch: PairBatch) -> Readout:
    """The readout of a batch."""
    if batch.metric == "prob_diff":
        return Readout(weights, batch, None, None)
    ids, signs = batch.answer_ids.to(weights.embed.device), batch.answer_weights.to(weights.embed)
    direction = (weights.unembed.T[ids] * signs[..., None]).sum(dim=1)
    return Readout(weights, batch, direction, (weights.unembed_bias[ids] * signs).sum(dim=1))


def read_logits(weights: Weights, final: Float[Tensor, "pairs d_model"]) -> Float[Tensor, "pairs vocab"]:
    """Logits from the residual at the read position."""
    return torch.addmm(weights.unembed_bias, normalise(weights.architecture, final)[0], weights.unembed)

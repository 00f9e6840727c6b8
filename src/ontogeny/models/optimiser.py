"""AdamW and Muon in plain tensors: their whole state is one dictionary that can be saved and loaded."""

from __future__ import annotations

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.models.neox import Parameters
from ontogeny.params import CheckpointsParams, ScaleParams

MOMENTUM = 0.95
BETAS = (0.9, 0.98)


class Optimiser:
    """AdamW, with Muon for the matrices inside the blocks if the settings say so.

    Muon (Jordan et al. 2024): momentum made orthogonal by Newton-Schulz; q, k and v are taken as separate matrices.
    """

    def __init__(self, parameters: Parameters, scale: ScaleParams, settings: CheckpointsParams) -> None:
        self.parameters, self.scale, self.settings = parameters, scale, settings
        self.by_muon = [
            n for n, p in parameters.items() if settings.optimiser == "muon" and ".layers." in n and p.ndim == 2
        ]
        self.by_adam = [name for name in parameters if name not in self.by_muon]
        self.state: Parameters = {f"first.{name}": torch.zeros_like(p) for name, p in parameters.items()}
        self.state |= {f"second.{name}": torch.zeros_like(parameters[name]) for name in self.by_adam}

    @torch.no_grad()
    def step(self, step: int) -> None:
        """Update in place with the gradients there are, and clear them; `step` counts from 0."""
        height = schedule(step, self.settings)
        s = self.settings
        rate = s.learning_rate * (self.scale.d_model / s.reference_width) ** s.width_exponent * height
        for name in self.by_adam:
            self._adam(name, rate, step + 1)
        if self.by_muon:
            self._muon(s.muon_learning_rate * height)
        for parameter in self.parameters.values():
            parameter.grad = None

    def _adam(self, name: str, rate: float, count: int) -> None:
        parameter, first, second = self.parameters[name], self.state[f"first.{name}"], self.state[f"second.{name}"]
        gradient = parameter.grad
        assert gradient is not None
        first.lerp_(gradient, 1 - BETAS[0])
        second.mul_(BETAS[1]).addcmul_(gradient, gradient, value=1 - BETAS[1])
        if parameter.ndim == 2:
            parameter.mul_(1 - rate * self.settings.weight_decay)
        spread = (second / (1 - BETAS[1] ** count)).sqrt_().add_(1e-8)
        parameter.addcdiv_(first, spread, value=-rate / (1 - BETAS[0] ** count))

    def _muon(self, rate: float) -> None:
        updates: dict[str, Tensor] = {}
        for name in self.by_muon:
            gradient, momentum = self.parameters[name].grad, self.state[f"first.{name}"]
            assert gradient is not None
            momentum.lerp_(gradient, 1 - MOMENTUM)
            updates[name] = self._as_matrices(name, gradient.lerp(momentum, MOMENTUM))
        for shape in dict.fromkeys(update.shape[1:] for update in updates.values()):
            names = [name for name, update in updates.items() if update.shape[1:] == shape]
            made = orthogonal(torch.cat([updates[name] for name in names])) * max(1.0, shape[0] / shape[1]) ** 0.5
            for name, update in zip(names, made.split([len(updates[name]) for name in names])):
                parameter = self.parameters[name]
                parameter.mul_(1 - rate * self.settings.weight_decay)
                parameter.add_(self._as_parameter(name, update), alpha=-rate)

    def _as_matrices(self, name: str, value: Tensor) -> Float[Tensor, "n out in"]:
        """A parameter as the matrices that Muon sees: the joint q, k, v (heads, 3, d_head, d) as three."""
        if "query_key_value" not in name:
            return value[None]
        d = self.scale.d_model
        return value.view(self.scale.heads, 3, -1, d).transpose(0, 1).reshape(3, d, d)

    def _as_parameter(self, name: str, value: Float[Tensor, "n out in"]) -> Tensor:
        """Inverse of `_as_matrices`."""
        if "query_key_value" not in name:
            return value[0]
        d = self.scale.d_model
        return value.view(3, self.scale.heads, -1, d).transpose(0, 1).reshape(3 * d, d)


def orthogonal(x: Float[Tensor, "n out in"]) -> Float[Tensor, "n out in"]:
    """Nearly the orthogonal factor of each matrix: five quintic Newton-Schulz steps, singular values end in about
    0.7..1.2.
    """
    tall = x.shape[1] > x.shape[2]
    x = x.mT if tall else x
    x = x / (x.norm(dim=(1, 2), keepdim=True) + 1e-7)
    for _ in range(5):
        a = x @ x.mT
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x.mT if tall else x


def schedule(step: int, settings: CheckpointsParams) -> float:
    """Height of the learning rate, 0..1: a rise, a plateau, a linear fall to `final_rate`."""
    rise = (step + 1) / max(1.0, settings.warmup * settings.steps)
    left = (settings.steps - step) / (settings.decay * settings.steps)
    return min(1.0, rise, settings.final_rate + (1 - settings.final_rate) * left)

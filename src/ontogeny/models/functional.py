"""Norms and activations, forwards and backwards, fused where torch has a kernel."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor

from ontogeny.models.weights import Architecture


def normalise(architecture: Architecture, x: Float[Tensor, "*rows d_model"]) -> tuple[Tensor, Tensor, Tensor]:
    """xhat, mean (unused by RMSNorm) and 1 / sigma of each row."""
    if architecture.norm == "layer":
        return torch.native_layer_norm(x, [x.shape[-1]], None, None, architecture.eps)
    rstd = x.square().mean(dim=-1, keepdim=True).add_(architecture.eps).rsqrt_()
    return x * rstd, rstd, rstd


def normalise_back(
    architecture: Architecture, grad: Float[Tensor, "*rows d_model"], normed: Tensor, rstd: Tensor
) -> Float[Tensor, "*rows d_model"]:
    """Gradient with respect to the input of a norm whose output is `normed` and has gradient `grad`.

    With g the gradient and y the output: ``rstd * (g - mean(g) - y * mean(g * y))``; RMSNorm is without the first
    mean. The output is its own normalised input (mean 0, sigma 1), so that the fused kernel needs no other.
    """
    if architecture.norm == "layer":
        keep, rows = [True, False, False], grad.shape[:-1]
        mean, one = rstd.new_zeros(*rows, 1), rstd.new_ones(*rows, 1)
        back = torch.ops.aten.native_layer_norm_backward(grad, normed, [grad.shape[-1]], mean, one, None, None, keep)
        return back[0].mul_(rstd)
    along = (grad * normed).mean(dim=-1, keepdim=True)
    return torch.addcmul(grad, normed, along, value=-1.0).mul_(rstd)


def activate(architecture: Architecture, pre: Float[Tensor, "*rows hidden"]) -> Float[Tensor, "*rows d_mlp"]:
    """The MLP's hidden activation."""
    if architecture.gated:
        gate, up = pre.chunk(2, dim=-1)
        return _act(architecture, gate) * up
    return _act(architecture, pre)


def activate_back(architecture: Architecture, grad: Tensor, pre: Tensor) -> Float[Tensor, "*rows hidden"]:
    """Gradient with respect to `pre`."""
    if architecture.gated:
        gate, up = pre.chunk(2, dim=-1)
        return torch.cat([_act_back(architecture, grad * up, gate), grad * _act(architecture, gate)], dim=-1)
    return _act_back(architecture, grad, pre)


def _act(architecture: Architecture, x: Tensor) -> Tensor:
    if architecture.activation == "silu":
        return F.silu(x)
    if architecture.activation == "relu":
        return F.relu(x)
    return F.gelu(x, approximate="tanh" if architecture.activation == "gelu_tanh" else "none")


def _act_back(architecture: Architecture, grad: Tensor, x: Tensor) -> Tensor:
    if architecture.activation == "silu":
        return torch.ops.aten.silu_backward(grad, x)
    if architecture.activation == "relu":
        return grad * (x > 0)
    approximate = "tanh" if architecture.activation == "gelu_tanh" else "none"
    return torch.ops.aten.gelu_backward(grad, x, approximate=approximate)

"""The engine's own backward pass: gradients of the metric at every reader of a run, without autograd."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.models.forward import BlockRun, Part, Plan, Residual
from ontogeny.models.functional import activate_back, normalise_back
from ontogeny.models.weights import Architecture, Block, Weights


@dataclass(frozen=True)
class Trace:
    """What the backward pass needs to know of what a block did on a run (`forward.BlockRun`)."""

    normed: Residual
    rstd: Float[Tensor, "pairs window 1"]
    q: Float[Tensor, "pairs heads asking d_head"]
    k: Float[Tensor, "pairs heads tokens d_head"]
    v: Float[Tensor, "pairs heads tokens d_head"]
    pattern: Float[Tensor, "pairs heads asking tokens"]
    mlp_normed: Residual
    """Of the asking columns; in parallel blocks the same numbers as `normed`."""
    mlp_rstd: Float[Tensor, "pairs asking 1"]
    pre: Float[Tensor, "pairs asking hidden"]


def trace(block: BlockRun) -> Trace:
    """The trace of a block's run."""
    mlp = block.mlp
    return Trace(block.normed, block.rstd, block.q, block.k, block.v, block.pattern, mlp.normed, mlp.rstd, mlp.pre)


@dataclass(frozen=True)
class BlockGradients:
    """Gradients that one backward pass leaves at the readers of a block, in the smallest form that holds them.

    The gradient at the input of channel c (a slot of a head), before the norm, is
    ``rstd * (g_c W'_c^T) - normed * along_c`` with g_c as wide as a head.
    """

    qkv: Float[Tensor, "pairs window 3 heads d_head"]
    """rstd * g_c."""
    along: Float[Tensor, "pairs window 3 heads"]
    """rstd * mean over d_model of (normed * g_c W'_c^T)."""
    mlp: Residual
    """Gradient at the MLP's input before its norm, asking columns."""


def backward(
    weights: Weights,
    traces: list[Trace],
    plan: Plan,
    final: Float[Tensor, "pairs d_model"],
    cut: tuple[int, Part] | None = None,
) -> Iterator[tuple[int, BlockGradients, Residual]]:
    """Reader gradients block by block, last block first, from the gradient at the residual of the read position.

    `traces` are those of a run, a block, and are taken off the list, so that each can be let go of once it has been
    used. With each block's gradients comes its normed input.

    Gradients into the prefix are left out: there every run is the same, so that they meet no difference. `cut` names
    a block whose heads, or MLP, wrote what they were told (`run_between`): nothing flows back through them.
    """
    architecture = weights.architecture
    grad: Residual = final[:, None]
    for layer in reversed(range(architecture.n_layers)):
        part, done = cut[1] if cut is not None and cut[0] == layer else None, traces.pop()
        gradients, grad = backward_block(architecture, weights.blocks[layer], done, plan, grad, part)
        normed = done.normed
        del done
        yield layer, gradients, normed
        del gradients, normed


def backward_block(
    architecture: Architecture, block: Block, done: Trace, plan: Plan, grad: Residual, cut: Part | None = None
) -> tuple[BlockGradients, Residual]:
    """Reader gradients of a block and the gradient at its input, from the gradient at its output (asking columns)."""
    n, w, d = done.normed.shape
    asking = grad.shape[1]
    rows = n * asking
    mlp = torch.zeros_like(grad) if cut == "mlp" else _mlp_back(architecture, block, done, grad)
    through = grad if architecture.parallel else grad + mlp
    out = (through.reshape(rows, d) @ block.out.T).view(n, asking, architecture.n_heads, -1)
    small, along = _attention_back(architecture, block, done, plan, out if cut != "heads" else torch.zeros_like(out))
    del out
    into_qkv = (small.view(n * w, -1) @ block.qkv.T).view(n, w, d)
    below = normalise_back(architecture, into_qkv, done.normed, done.rstd)
    below[:, w - asking :] += through
    if architecture.parallel:
        below[:, w - asking :] += mlp
    scale = done.rstd[..., None]
    return BlockGradients(small.mul_(scale[..., None]), along.mul_(scale), mlp), below


def _mlp_back(architecture: Architecture, block: Block, done: Trace, grad: Residual) -> Residual:
    """Gradient at the MLP's input before its norm."""
    rows = grad.shape[0] * grad.shape[1]
    hidden = activate_back(architecture, grad.reshape(rows, -1) @ block.mlp_out.T, done.pre.view(rows, -1))
    return normalise_back(architecture, (hidden @ block.mlp_in.T).view_as(grad), done.mlp_normed, done.mlp_rstd)


def _attention_back(
    architecture: Architecture,
    block: Block,
    done: Trace,
    plan: Plan,
    written: Float[Tensor, "pairs asking heads d_head"],
) -> tuple[Float[Tensor, "pairs window 3 heads d_head"], Float[Tensor, "pairs window 3 heads"]]:
    """Gradients of the (unrotated) queries, keys and values, and their mean product with the biasless projections."""
    n, w, d = done.normed.shape
    out = written.transpose(1, 2)
    asking, prefix = out.shape[2], done.k.shape[2] - w
    scale = architecture.d_head**-0.5
    d_scores = torch.matmul(out, done.v.transpose(-1, -2))
    d_scores -= (d_scores * done.pattern).sum(dim=-1, keepdim=True)
    d_scores.mul_(done.pattern).mul_(scale)
    small = torch.zeros(3, n, architecture.n_heads, w, architecture.d_head, dtype=out.dtype, device=out.device)
    q, k, v = small[0][:, :, w - asking :], small[1], small[2]
    torch.matmul(d_scores, done.k, out=q) if asking == w else q.copy_(torch.matmul(d_scores, done.k))
    torch.matmul(d_scores[..., prefix:].transpose(-1, -2), done.q, out=k)
    torch.matmul(done.pattern[..., prefix:].transpose(-1, -2), out, out=v)
    along = torch.zeros(small.shape[:-1], dtype=out.dtype, device=out.device)
    along[0][:, :, w - asking :] = (q * done.q).sum(dim=-1)
    along[1] = (k * done.k[:, :, prefix:]).sum(dim=-1)
    along[2] = (v * done.v[:, :, prefix:]).sum(dim=-1)
    plan.rotary.rotate(q, back=True)
    plan.rotary.rotate(k, back=True)
    bias = block.qkv_bias.view(3, 1, architecture.n_heads, 1, architecture.d_head)
    along -= (small * bias).sum(dim=-1)
    return small.permute(1, 3, 0, 2, 4).contiguous(), along.permute(1, 3, 0, 2).contiguous().div_(d)

"""What edges outside a circuit carry: the writers' outputs of a reference run (METHODS 5.1-5.2).

patch   each writer's output on the corrupted prompt
zero    nothing: biases that belong to no writer are all that is left of the residual stream
mean    each writer's mean output per position over the corrupted prompts of the same template and length
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.forward import BlockRun, Plan, Run, constant_input, run_block, run_mlp, write_heads
from ontogeny.models.subject import AlignedPairs, Subject
from ontogeny.models.weights import Weights

Ablation = Literal["patch", "zero", "mean"]


@dataclass(frozen=True)
class ReferenceBlock:
    """What a block reads, makes of it, and writes when no edge into it is in the circuit."""

    resid: Float[Tensor, "pairs window d_model"]
    """Input of the head slots: sum of the reference outputs of the writers before."""
    mid: Float[Tensor, "pairs asking d_model"]
    """Input of the MLP."""
    qkv: tuple[Tensor, Tensor, Tensor]
    """Rotated queries, keys and values computed from `resid`, ``[heads, pairs, columns, d_head]``."""
    pattern: Float[Tensor, "heads pairs asking tokens"]
    heads: Float[Tensor, "heads pairs asking d_head"]
    """Reference output of each head before W_O: what absent edges carry."""
    mlp: Float[Tensor, "pairs asking d_model"]
    """Reference output of the MLP."""
    own_mlp: Float[Tensor, "pairs asking d_model"] | None
    """Output that the MLP computes from `mid` itself; None: the same as `mlp`."""


@dataclass(frozen=True)
class Reference:
    """The reference run of a batch."""

    embed: Float[Tensor, "pairs window d_model"]
    blocks: tuple[ReferenceBlock, ...]
    final: Float[Tensor, "pairs d_model"]


def reference_run(
    subject: Subject, pairs: AlignedPairs, corrupted: Run, ablation: Ablation, groups: Int[Tensor, " pairs"]
) -> Reference:
    """What absent edges carry under an ablation.

    Args:
        subject: the model.
        pairs: the batch; its window must be the whole prompt unless the ablation is ``patch``.
        corrupted: the run on the corrupted prompts.
        ablation: see the module's docstring.
        groups: examples of the same number share their mean (``mean`` only).
    """
    if ablation == "patch":
        blocks = tuple(_reference_block(b, b.mlp.resid, b.heads, b.mlp.out, None) for b in corrupted.blocks)
        return Reference(corrupted.embed, blocks, corrupted.final)
    return _recompute(subject.weights, pairs.plan, corrupted, None if ablation == "zero" else _shares(groups))


def _recompute(weights: Weights, plan: Plan, corrupted: Run, shares: Float[Tensor, "pairs pairs"] | None) -> Reference:
    """Residuals made of reference outputs, and what every block computes from them.

    Row i of `shares` says how much each example counts in the mean of example i; None: zero ablation.
    """
    architecture = weights.architecture
    start = _average(corrupted.embed, shares)
    resid = start + constant_input(weights, plan.layout)
    blocks = []
    for layer, (block, seen) in enumerate(zip(weights.blocks, corrupted.blocks)):
        asking = seen.mlp.out.shape[1]
        own, _ = run_block(architecture, block, resid, plan, layer, asking)
        constant = block.value_bias
        heads = _average(seen.heads - constant, shares) + constant
        mlp = _average(seen.mlp.out, shares)
        after = resid[:, -asking:] + write_heads(block, heads)
        mid = resid[:, -asking:] if architecture.parallel else after
        own_mlp = run_mlp(architecture, block, mid).out
        blocks.append(_reference_block(own, mid, heads, mlp, own_mlp))
        resid = after + mlp
    return Reference(start, tuple(blocks), resid[:, -1])


def _shares(groups: Int[Tensor, " pairs"]) -> Float[Tensor, "pairs pairs"]:
    members = (groups[:, None] == groups[None, :]).to(torch.float64)
    return members / members.sum(dim=1, keepdim=True)


def _average(outputs: Float[Tensor, "pairs ..."], shares: Float[Tensor, "pairs pairs"] | None) -> Tensor:
    """Reference output of a writer from its outputs on the corrupted prompts."""
    if shares is None:
        return torch.zeros_like(outputs)
    return (shares.to(outputs) @ outputs.reshape(len(outputs), -1)).view_as(outputs)


def _reference_block(
    block: BlockRun, mid: Tensor, heads: Tensor, mlp: Tensor, own_mlp: Tensor | None
) -> ReferenceBlock:
    def heads_first(x: Tensor) -> Tensor:
        return x.transpose(0, 1).contiguous()

    return ReferenceBlock(
        block.resid,
        mid,
        (heads_first(block.q), heads_first(block.k), heads_first(block.v)),
        heads_first(block.pattern),
        heads.permute(2, 0, 1, 3).contiguous(),
        mlp,
        own_mlp,
    )

"""Paths that head roles are read off: a head's OV path through the norms (METHODS 6.0), and runs over every column.

The engine's projections hold the norms' scale, shift and centring (`weights.py`), so the path of a head from a residual
x to the logits is ``normalise(x) W_V' + b_V'``, then W_O, then the folded unembedding: LN1 with its real statistics and
its shift, and at the end the final norm's centring and scale without its statistics (one factor for the whole
vocabulary), without its shift and without b_U.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.forward import BlockRun, Residual, constant_input, embed, plan_runs, run_block
from ontogeny.models.functional import activate, normalise
from ontogeny.models.layout import right_align
from ontogeny.models.weights import Weights


def head_values(
    weights: Weights, layer: int, x: Float[Tensor, "rows d_model"], *, norm: bool = True
) -> Float[Tensor, "rows heads d_head"]:
    """The value that each head of a layer makes of x. `norm=False` leaves the norm's statistics out: x as it is."""
    a, block = weights.architecture, weights.blocks[layer]
    width = a.n_heads * a.d_head
    into, bias = block.qkv[:, 2 * width :], block.qkv_bias[2 * width :]
    seen = normalise(a, x)[0] if norm else x
    return torch.addmm(bias, seen, into).view(len(x), a.n_heads, a.d_head)


def head_outputs(weights: Weights, layer: int) -> Float[Tensor, "heads d_head d_model"]:
    """W_O of each head of a layer."""
    a = weights.architecture
    return weights.blocks[layer].out.view(a.n_heads, a.d_head, a.d_model)


def head_readouts(weights: Weights, layer: int, tokens: Int[Tensor, " tokens"]) -> Float[Tensor, "heads d_head tokens"]:
    """W_O of each head, then the logits of some tokens: what a unit of a head's value does to them."""
    return head_outputs(weights, layer) @ weights.unembed[:, tokens]


def first_mlp(
    weights: Weights, tokens: Int[Tensor, " tokens"], *, norm: bool = True
) -> Float[Tensor, "tokens d_model"]:
    """MLP0(LN2_0(W_E[t])): the first MLP on token embeddings alone. `norm=False` leaves the norm's statistics out."""
    a, block = weights.architecture, weights.blocks[0]
    x = embed(weights, tokens)
    seen = normalise(a, x)[0] if norm else x
    hidden = activate(a, torch.addmm(block.mlp_in_bias, seen, block.mlp_in))
    return torch.addmm(block.mlp_out_bias, hidden, block.mlp_out)


def run_blocks(
    weights: Weights, tokens: Int[Tensor, "rows tokens"], lengths: Int[Tensor, " rows"]
) -> Iterator[tuple[BlockRun, Residual]]:
    """Run right-padded rows block by block, every column asking in every block; nothing is kept between blocks.

    Yields each block's run and the residual after it. Columns are right-aligned: row n begins at column
    ``columns - lengths[n]``, and what stands in the columns before means nothing.
    """
    aligned, positions, padding = right_align(tokens, lengths)
    plan = plan_runs(weights, aligned, positions, padding)
    resid = embed(weights, aligned) + constant_input(weights, plan.layout)
    for layer, block in enumerate(weights.blocks):
        done, resid = run_block(weights.architecture, block, resid, plan, layer, resid.shape[1])
        yield done, resid

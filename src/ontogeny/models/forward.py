"""The engine's own forward passes over `Weights`: no hooks, working dtype throughout.

Prompts are right-aligned, so that the read position is always the last column and left padding is masked. A run covers
a *window* of trailing columns; the columns before it (a prefix that all runs share) enter only by their keys and
values. In the last block only the read position asks: its query, its MLP. Every run keeps what the backward pass and
the writers' outputs need, and nothing else.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeVar

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.models.functional import activate, normalise
from ontogeny.models.layout import Layout, Rotary, rotary_of
from ontogeny.models.weights import Architecture, Block, Weights

Residual = Float[Tensor, "pairs window d_model"]
Heads = Float[Tensor, "pairs heads window d_head"]
KeysValues = tuple[Float[Tensor, "pairs heads prefix d_head"], Float[Tensor, "pairs heads prefix d_head"]]
Part = Literal["heads", "mlp"]
Kept = TypeVar("Kept")


@dataclass(frozen=True)
class Plan:
    """What all runs over one window share."""

    layout: Layout
    rotary: Rotary
    mask: Float[Tensor, "pairs_or_1 1 window tokens"]
    prefix: Sequence[KeysValues | None]
    """Keys (rotated) and values of the columns before the window, a layer."""


@dataclass(frozen=True)
class MLPRun:
    """What the MLP of a block did on a run, at the asking columns."""

    resid: Residual
    """Its input before the norm: in parallel blocks that of the whole block."""
    mean: Tensor
    rstd: Float[Tensor, "pairs asking 1"]
    normed: Residual
    pre: Float[Tensor, "pairs asking hidden"]
    """Hidden layer before its activation."""
    out: Residual


@dataclass(frozen=True)
class BlockRun:
    """What one block did on a run. `asking` columns are the window, or the read position alone in the last block."""

    resid: Residual
    """Input of the block."""
    mean: Tensor
    rstd: Float[Tensor, "pairs window 1"]
    normed: Residual
    q: Float[Tensor, "pairs heads asking d_head"]
    """Rotated."""
    k: Float[Tensor, "pairs heads tokens d_head"]
    """Rotated; prefix first."""
    v: Float[Tensor, "pairs heads tokens d_head"]
    pattern: Float[Tensor, "pairs heads asking tokens"]
    heads: Float[Tensor, "pairs asking heads d_head"]
    """Output of each head before W_O."""
    mlp: MLPRun


@dataclass(frozen=True)
class Run:
    """One forward pass over a window."""

    embed: Residual
    """Output of the writer `input`: token embeddings."""
    blocks: tuple[BlockRun, ...]
    final: Float[Tensor, "pairs d_model"]
    """Residual at the read position before the final norm."""


def attention(
    q: Heads, k: Tensor, v: Tensor, mask: Tensor
) -> tuple[Float[Tensor, "pairs heads asking tokens"], Float[Tensor, "pairs heads asking d_head"]]:
    """Pattern and head outputs of rotated queries and keys."""
    scores = torch.matmul(q, k.transpose(-1, -2)).mul_(q.shape[-1] ** -0.5).add_(mask)
    pattern = torch.softmax(scores, dim=-1)
    return pattern, torch.matmul(pattern, v)


def split_slots(
    qkv: Float[Tensor, "pairs window 3*heads*d_head"], n_heads: int
) -> Float[Tensor, "3 pairs heads window d_head"]:
    """Queries, keys and values of all heads, contiguous."""
    n, w, _ = qkv.shape
    return qkv.view(n, w, 3, n_heads, -1).permute(2, 0, 3, 1, 4).contiguous()


def run_block(
    architecture: Architecture, block: Block, resid: Residual, plan: Plan, layer: int, asking: int
) -> tuple[BlockRun, Residual]:
    """One block on the window; the new residual covers the last `asking` columns."""
    n, w, d = resid.shape
    normed, mean, rstd = normalise(architecture, resid)
    qkv = torch.addmm(block.qkv_bias, normed.view(n * w, d), block.qkv).view(n, w, -1)
    q, k, v = split_slots(qkv, architecture.n_heads)
    q = q[:, :, w - asking :]
    plan.rotary.rotate(q)
    plan.rotary.rotate(k)
    before = plan.prefix[layer]
    if before is not None:
        q = q.clone()  # q, k and v share their memory: without this, all of it would be held beside the new k and v
        k, v = torch.cat([before[0], k], dim=2), torch.cat([before[1], v], dim=2)
    pattern, out = attention(q, k, v, plan.mask[:, :, w - asking :])
    heads = out.transpose(1, 2).contiguous()
    after = resid[:, w - asking :] + write_heads(block, heads)
    if architecture.parallel:
        x, m, r, y = (part[:, w - asking :].contiguous() for part in (resid, mean, rstd, normed))
        mid = MLPRun(x, m, r, y, *_mlp(architecture, block, y))
    else:
        mid = run_mlp(architecture, block, after)
    return BlockRun(resid, mean, rstd, normed, q, k, v, pattern, heads, mid), after + mid.out


def write_heads(block: Block, heads: Float[Tensor, "pairs asking heads d_head"]) -> Residual:
    """What the heads add to the residual stream together, b_O included."""
    n, asking = heads.shape[:2]
    return torch.addmm(block.out_bias, heads.reshape(n * asking, -1), block.out).view(n, asking, -1)


def run_mlp(architecture: Architecture, block: Block, mid: Residual) -> MLPRun:
    """The MLP on its input before the norm."""
    normed, mean, rstd = normalise(architecture, mid)
    return MLPRun(mid, mean, rstd, normed, *_mlp(architecture, block, normed))


def _mlp(architecture: Architecture, block: Block, normed: Residual) -> tuple[Tensor, Residual]:
    n, asking, d = normed.shape
    pre = torch.addmm(block.mlp_in_bias, normed.reshape(n * asking, d), block.mlp_in)
    out = torch.addmm(block.mlp_out_bias, activate(architecture, pre), block.mlp_out)
    return pre.view(n, asking, -1), out.view(n, asking, d)


def bytes_of_run(architecture: Architecture, tokens: int, item: int) -> int:
    """What `run` holds for a prompt: the residuals and normed residuals of both halves of a block and what each
    writes, queries, keys and values before and after rotation, and the MLP's hidden layer twice.
    """
    a = architecture
    hidden = a.d_mlp * (2 if a.gated else 1)
    return a.n_layers * tokens * (6 * a.d_model + 6 * a.n_heads * a.d_head + 2 * hidden) * item


def embed(weights: Weights, tokens: Int[Tensor, "pairs window"]) -> Residual:
    """Output of the writer `input`."""
    return F.embedding(tokens, weights.embed)


def constant_input(weights: Weights, layout: Layout) -> Residual | float:
    """What the residual stream holds at the start besides the embedding: learned positions, or 0."""
    return 0.0 if weights.position is None else F.embedding(layout.positions[:, layout.start :], weights.position)


def run(weights: Weights, embedding: Residual, plan: Plan) -> Run:
    """A forward pass over the window, from the embeddings of its columns."""
    blocks, final = run_keeping(weights, embedding, plan, lambda block: block)
    return Run(embedding, tuple(blocks), final)


def run_keeping(
    weights: Weights, embedding: Residual, plan: Plan, keep: Callable[[BlockRun], Kept]
) -> tuple[list[Kept], Float[Tensor, "pairs d_model"]]:
    """A forward pass of which only what `keep` takes of each block stays in memory, and the residual at its end."""
    return _go_on(weights, (), embedding + constant_input(weights, plan.layout), plan, keep)


def run_between(weights: Weights, clean: Run, corrupted: Run, plan: Plan, layer: int, part: Part, alpha: float) -> Run:
    """The clean run, but that one block's heads, or its MLP, write ``corrupted + alpha (clean - corrupted)``."""
    a, block = weights.architecture, weights.blocks[layer]
    x, y = clean.blocks[layer], corrupted.blocks[layer]
    if part == "mlp":
        out = torch.lerp(y.mlp.out, x.mlp.out, alpha)
        here = replace(x, mlp=replace(x.mlp, out=out))
    else:
        here = replace(x, heads=torch.lerp(y.heads, x.heads, alpha))
    after = x.resid[:, -x.mlp.out.shape[1] :] + write_heads(block, here.heads)
    if part == "heads" and not a.parallel:
        here = replace(here, mlp=run_mlp(a, block, after))
    done = (*clean.blocks[:layer], here)
    blocks, final = _go_on(weights, done, after + here.mlp.out, plan, lambda block: block)
    return Run(clean.embed, tuple(blocks), final)


def _go_on(
    weights: Weights, done: tuple[Kept, ...], resid: Residual, plan: Plan, keep: Callable[[BlockRun], Kept]
) -> tuple[list[Kept], Float[Tensor, "pairs d_model"]]:
    """Run the blocks that are not done yet."""
    last = weights.architecture.n_layers - 1
    blocks = list(done)
    for layer in range(len(done), last + 1):
        asking = resid.shape[1] if layer < last else 1
        block, resid = run_block(weights.architecture, weights.blocks[layer], resid, plan, layer, asking)
        blocks.append(keep(block))
        del block
    return blocks, resid[:, -1]


def plan_runs(
    weights: Weights,
    tokens: Int[Tensor, "pairs columns"],
    positions: Int[Tensor, "pairs columns"],
    padding: Int[Tensor, " pairs"],
    start: int = 0,
) -> Plan:
    """A window from column `start` on, after a prefix that is run once on `tokens`."""
    dtype = weights.embed.dtype
    layout = Layout(positions, padding, start, dtype)
    rotary = rotary_of(weights.architecture, positions[:, start:], dtype)
    prefix: Sequence[KeysValues | None] = [None] * weights.architecture.n_layers
    if start > 0:
        prefix = _run_prefix(weights, tokens[:, :start], positions[:, :start], padding)
    return Plan(layout, rotary, layout.columns(start, layout.tokens), prefix)


def _run_prefix(weights: Weights, tokens: Tensor, positions: Tensor, padding: Tensor) -> list[KeysValues]:
    """Keys and values of the prefix's columns. Its last block only makes keys and values: its output goes nowhere."""
    architecture = weights.architecture
    plan = plan_runs(weights, tokens, positions, padding)
    resid = embed(weights, tokens) + constant_input(weights, plan.layout)
    found = []
    for layer, block in enumerate(weights.blocks):
        done, resid = run_block(
            architecture, block, resid, plan, layer, resid.shape[1] if layer < architecture.n_layers - 1 else 1
        )
        found.append((done.k, done.v))
    return found

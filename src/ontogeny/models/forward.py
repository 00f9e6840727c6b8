"""The engine's own forward and backward passes over `Weights`: no hooks, no autograd, working dtype throughout.

Prompts are right-aligned, so that the read position is always the last column and left padding is masked. A run covers
a *window* of trailing columns; the columns before it (a prefix that all runs share) enter only by their keys and
values. In the last block only the read position asks: its query, its MLP. Every run keeps what the backward pass and
the writers' outputs need, and nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.core.behaviour import metric_gradient, metric_values
from ontogeny.core.pairs import PairBatch
from ontogeny.models.weights import Architecture, Block, Weights

Residual = Float[Tensor, "pairs window d_model"]
Heads = Float[Tensor, "pairs heads window d_head"]
KeysValues = tuple[Float[Tensor, "pairs heads prefix d_head"], Float[Tensor, "pairs heads prefix d_head"]]


@dataclass(frozen=True)
class Layout:
    """Where the tokens of a batch lie: right-aligned columns, and the window that runs cover."""

    positions: Int[Tensor, "pairs tokens"]
    """Position of each column in its own prompt; 0 for padding."""
    padding: Int[Tensor, " pairs"]
    """Columns of padding on the left."""
    start: int
    """First column of the window."""
    dtype: torch.dtype

    @property
    def tokens(self) -> int:
        """Columns."""
        return self.positions.shape[1]

    @property
    def window(self) -> int:
        """Columns from `start` on."""
        return self.tokens - self.start

    def columns(self, first: int, last: int) -> Float[Tensor, "pairs_or_1 1 queries keys"]:
        """Additive mask of the queries in columns [first, last) over the keys in columns [0, last).

        A padded column sees itself alone, so that nothing becomes NaN; nobody sees it.
        """
        device = self.positions.device
        query = torch.arange(first, last, device=device)[:, None]
        key = torch.arange(last, device=device)[None, :]
        padding = self.padding if bool((self.padding > 0).any()) else self.padding[:1] * 0
        seen = (key <= query) & ((key >= padding[:, None, None]) | (key == query))
        mask = torch.zeros(seen.shape, dtype=self.dtype, device=device)
        return mask.masked_fill_(~seen, float("-inf"))[:, None]


def right_align(
    tokens: Int[Tensor, "pairs tokens"], lengths: Int[Tensor, " pairs"]
) -> tuple[Int[Tensor, "pairs columns"], Int[Tensor, "pairs columns"], Int[Tensor, " pairs"]]:
    """Right-padded tokens moved to the right; their positions, and the padding now on the left of each."""
    columns = int(lengths.max())
    padding = columns - lengths
    positions = torch.arange(columns, device=tokens.device)[None, :] - padding[:, None]
    aligned = tokens.gather(1, positions.clamp(min=0))
    return aligned.masked_fill(positions < 0, 0), positions.clamp(min=0), padding


@dataclass(frozen=True)
class Rotary:
    """Cosines and sines for the window's columns, ``[pairs_or_1, 1, window, rotary / 2]``."""

    cos: Tensor
    sin: Tensor

    def rotate(self, x: Float[Tensor, "pairs heads columns d_head"], *, back: bool = False) -> None:
        """Rotate the leading dimensions of `x` in place; columns are the last ones of the window."""
        half = self.cos.shape[-1]
        if half == 0:
            return
        cos, sin = self.cos[:, :, -x.shape[2] :], self.sin[:, :, -x.shape[2] :]
        a, b = x[..., :half], x[..., half : 2 * half]
        sign = -1.0 if back else 1.0
        a_new = (a * cos).addcmul_(b, sin, value=-sign)
        b.mul_(cos).addcmul_(a, sin, value=sign)
        a.copy_(a_new)


def rotary_of(architecture: Architecture, positions: Int[Tensor, "pairs window"], dtype: torch.dtype) -> Rotary:
    """Angles position / base^(2i / rotary), in the working dtype or better."""
    if positions.shape[0] > 1 and bool((positions == positions[:1]).all()):
        positions = positions[:1]
    dims = torch.arange(0, architecture.rotary, 2, dtype=torch.float64, device=positions.device)
    frequency = architecture.rotary_base ** (-dims / max(architecture.rotary, 1))
    angles = positions[:, None, :, None].to(torch.float64) * frequency
    return Rotary(angles.cos().to(dtype), angles.sin().to(dtype))


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


def normalise(architecture: Architecture, x: Float[Tensor, "*rows d_model"]) -> tuple[Tensor, Tensor, Tensor]:
    """xhat, mean (unused by RMSNorm) and 1 / sigma of each row."""
    if architecture.norm == "layer":
        return torch.native_layer_norm(x, [x.shape[-1]], None, None, architecture.eps)
    rstd = x.square().mean(dim=-1, keepdim=True).add_(architecture.eps).rsqrt_()
    return x * rstd, rstd, rstd


def normalise_back(
    architecture: Architecture, grad: Tensor, x: Tensor, mean: Tensor, rstd: Tensor, normed: Tensor
) -> Float[Tensor, "*rows d_model"]:
    """Gradient with respect to x of a norm whose output has gradient `grad`."""
    if architecture.norm == "layer":  # the fused kernel takes strided means and sigmas for dense ones
        assert mean.is_contiguous(), "means must be dense"
        assert rstd.is_contiguous(), "sigmas must be dense"
        keep = [True, False, False]
        return torch.ops.aten.native_layer_norm_backward(grad, x, [x.shape[-1]], mean, rstd, None, None, keep)[0]
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


def embed(weights: Weights, tokens: Int[Tensor, "pairs window"]) -> Residual:
    """Output of the writer `input`."""
    return F.embedding(tokens, weights.embed)


def constant_input(weights: Weights, layout: Layout) -> Residual | float:
    """What the residual stream holds at the start besides the embedding: learned positions, or 0."""
    return 0.0 if weights.position is None else F.embedding(layout.positions[:, layout.start :], weights.position)


def run(weights: Weights, embedding: Residual, plan: Plan) -> Run:
    """A forward pass over the window, from the embeddings of its columns."""
    return _go_on(weights, embedding, (), embedding + constant_input(weights, plan.layout), plan)


Part = Literal["heads", "mlp"]


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
    return _go_on(weights, clean.embed, (*clean.blocks[:layer], here), after + here.mlp.out, plan)


def _go_on(weights: Weights, embedding: Residual, done: tuple[BlockRun, ...], resid: Residual, plan: Plan) -> Run:
    """Run the blocks that are not done yet."""
    last = weights.architecture.n_layers - 1
    blocks = list(done)
    for layer in range(len(done), last + 1):
        asking = resid.shape[1] if layer < last else 1
        block, resid = run_block(weights.architecture, weights.blocks[layer], resid, plan, layer, asking)
        blocks.append(block)
    return Run(embedding, tuple(blocks), resid[:, -1])


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
        normed, mean, rstd = normalise(self.weights.architecture, final)
        grad = self.direction
        if grad is None:
            logits = torch.addmm(self.weights.unembed_bias, normed, self.weights.unembed)
            grad = metric_gradient(logits, self.batch) @ self.weights.unembed.T
        return normalise_back(self.weights.architecture, grad, final, mean, rstd, normed)


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
    run: Run,
    plan: Plan,
    final: Float[Tensor, "pairs d_model"],
    cut: tuple[int, Part] | None = None,
) -> Iterator[tuple[int, BlockGradients]]:
    """Reader gradients block by block, last block first, from the gradient at the residual of the read position.

    Gradients into the prefix are left out: there every run is the same, so that they meet no difference. `cut` names
    a block whose heads, or MLP, wrote what they were told (`run_between`): nothing flows back through them.
    """
    architecture = weights.architecture
    grad: Residual = final[:, None]
    for layer in reversed(range(architecture.n_layers)):
        part = cut[1] if cut is not None and cut[0] == layer else None
        gradients, grad = backward_block(architecture, weights.blocks[layer], run.blocks[layer], plan, grad, part)
        yield layer, gradients


def backward_block(
    architecture: Architecture, block: Block, done: BlockRun, plan: Plan, grad: Residual, cut: Part | None = None
) -> tuple[BlockGradients, Residual]:
    """Reader gradients of a block and the gradient at its input, from the gradient at its output (asking columns)."""
    n, w, d = done.resid.shape
    asking = grad.shape[1]
    rows = n * asking
    mlp = torch.zeros_like(grad) if cut == "mlp" else _mlp_back(architecture, block, done.mlp, grad)
    through = grad if architecture.parallel else grad + mlp
    out = (through.reshape(rows, d) @ block.out.T).view(n, asking, architecture.n_heads, -1)
    small, along = _attention_back(architecture, block, done, plan, out if cut != "heads" else torch.zeros_like(out))
    into_qkv = (small.view(n * w, -1) @ block.qkv.T).view(n, w, d)
    below = normalise_back(architecture, into_qkv, done.resid, done.mean, done.rstd, done.normed)
    below[:, w - asking :] += through + mlp if architecture.parallel else through
    scale = done.rstd[..., None, None]
    return BlockGradients(small * scale, along.mul_(done.rstd[..., None]), mlp), below


def _mlp_back(architecture: Architecture, block: Block, done: MLPRun, grad: Residual) -> Residual:
    """Gradient at the MLP's input before its norm."""
    rows = grad.shape[0] * grad.shape[1]
    hidden = activate_back(architecture, grad.reshape(rows, -1) @ block.mlp_out.T, done.pre.view(rows, -1))
    return normalise_back(
        architecture, (hidden @ block.mlp_in.T).view_as(grad), done.resid, done.mean, done.rstd, done.normed
    )


def _attention_back(
    architecture: Architecture,
    block: Block,
    done: BlockRun,
    plan: Plan,
    written: Float[Tensor, "pairs asking heads d_head"],
) -> tuple[Float[Tensor, "pairs window 3 heads d_head"], Float[Tensor, "pairs window 3 heads"]]:
    """Gradients of the (unrotated) queries, keys and values, and their mean product with the biasless projections."""
    n, w, d = done.resid.shape
    out = written.transpose(1, 2)
    asking, prefix = out.shape[2], done.k.shape[2] - w
    scale = architecture.d_head**-0.5
    heads = done.heads.transpose(1, 2)
    d_pattern = torch.matmul(out, done.v.transpose(-1, -2))
    d_scores = (d_pattern - (out * heads).sum(dim=-1, keepdim=True)).mul_(done.pattern).mul_(scale)
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

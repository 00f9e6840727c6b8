"""Gradients along a straight path of input embeddings: the loop that EAP and its integrated forms share.

    score(u -> v) = sum over positions of < z_u(clean) - z_u(corrupted), sum_k w_k dM/d(input of v) at point alpha_k >

where the model runs from the embeddings ``corrupted + alpha_k (clean - corrupted)`` (METHODS 3.3, 3.4; Hanna et al.
2024, "Have faith in faithfulness", section 3). The difference of the writers does not depend on the point, so readers'
gradients are summed over points first and meet the differences once. Head slots keep their gradients as wide as a
head until then; only the norm's term along ``xhat`` keeps one number a position, slot and point.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.pairs import PairBatch
from ontogeny.models.backward import BlockGradients, Trace, backward, trace
from ontogeny.models.forward import BlockRun, Part, Plan, Residual, embed, run_keeping
from ontogeny.models.readout import Readout, readout
from ontogeny.models.subject import AlignedPairs, Subject, align_pairs
from ontogeny.models.weights import Architecture, Weights

WORKSPACE = {"cpu": 2**25}
"""Bytes of differences and gradients that `contract` writes out at one time: on a CPU about what its caches hold,
but enough pairs for matrix products of a good size."""
LARGE_WORKSPACE = 2**28


@dataclass(frozen=True)
class PathPoint:
    """Where a gradient is taken, and how much it counts."""

    alpha: float
    """Weight on the clean end."""
    weight: float


@dataclass(frozen=True)
class Outputs:
    """What all writers of a run wrote, or the difference of two runs in that; the last block's at the read position."""

    embed: Residual
    heads: tuple[Float[Tensor, "pairs asking heads d_head"], ...]
    """Before W_O, a block."""
    mlps: tuple[Float[Tensor, "pairs asking d_model"], ...]

    def minus(self, other: Outputs) -> Outputs:
        """What the writers wrote here minus what they wrote there."""
        heads = tuple(x - y for x, y in zip(self.heads, other.heads))
        return Outputs(self.embed - other.embed, heads, tuple(x - y for x, y in zip(self.mlps, other.mlps)))


@dataclass(frozen=True)
class PathRun:
    """What a gradient needs of a run."""

    traces: list[Trace]
    """One a block."""
    final: Float[Tensor, "pairs d_model"]


@dataclass
class BlockSums:
    """Sums over points of a block's reader gradients (`BlockGradients`)."""

    qkv: Tensor | None = None
    mlp: Tensor | None = None
    along: list[tuple[Tensor, Tensor]] = field(default_factory=list)
    """For each point, `BlockGradients.along` and the normed input that it goes along."""

    def add(self, gradients: BlockGradients, normed: Tensor, weight: float) -> None:
        """Count one more point."""
        qkv, mlp = gradients.qkv.mul_(weight), gradients.mlp.mul_(weight)
        self.qkv = qkv if self.qkv is None else self.qkv.add_(qkv)
        self.mlp = mlp if self.mlp is None else self.mlp.add_(mlp)
        self.along.append((gradients.along.mul_(weight), normed))


@dataclass
class GradientSums:
    """Sums over points of the gradients at all readers."""

    blocks: list[BlockSums]
    final: Float[Tensor, "pairs d_model"]

    def add(
        self, weights: Weights, plan: Plan, read: Readout, here: PathRun, weight: float, cut: tuple[int, Part] | None
    ) -> None:
        """Count the gradients of one more run, whose traces are used up; for `cut` see `backward`."""
        gradient = read.gradient(here.final)
        self.final.add_(gradient, alpha=weight)
        for layer, gradients, normed in backward(weights, here.traces, plan, gradient, cut):
            self.blocks[layer].add(gradients, normed, weight)
            del gradients, normed


def no_gradients(weights: Weights, pairs: int) -> GradientSums:
    """The sums over no points."""
    return GradientSums([BlockSums() for _ in weights.blocks], weights.embed.new_zeros(pairs, weights.embed.shape[1]))


def path_scores(subject: Subject, batch: PairBatch, points: Sequence[PathPoint], per_example: bool) -> Tensor:
    """Scores ``[pairs, writers, readers]``, or their sum over pairs ``[writers, readers]``."""
    weights, pairs, read = subject.weights, align_pairs(subject, batch), readout(subject.weights, batch)
    alphas = {point.alpha for point in points}
    corrupted, absent = run_at(weights, pairs, 0.0, traced=0.0 in alphas)
    clean, present = run_at(weights, pairs, 1.0, traced=1.0 in alphas)
    differences = present.minus(absent)
    del absent, present
    ends = {0.0: corrupted, 1.0: clean}
    del corrupted, clean
    sums = no_gradients(weights, len(batch))
    for point in sorted(points, key=lambda point: point.alpha not in ends):
        here = ends.pop(point.alpha, None) or trace_at(weights, pairs, point.alpha)
        sums.add(weights, pairs.plan, read, here, point.weight, None)
        del here
    return contract(subject, differences, sums, per_example)


def trace_at(weights: Weights, pairs: AlignedPairs, alpha: float) -> PathRun:
    """The run from one point of the path, for a gradient."""
    return PathRun(*run_keeping(weights, _start(weights, pairs, alpha), pairs.plan, trace))


def run_at(weights: Weights, pairs: AlignedPairs, alpha: float, *, traced: bool) -> tuple[PathRun, Outputs]:
    """The same, and what its writers wrote; unless `traced`, the run is good for no gradient."""

    def keep(block: BlockRun) -> tuple[Trace | None, Tensor, Tensor]:
        return trace(block) if traced else None, block.heads, block.mlp.out

    start = _start(weights, pairs, alpha)
    kept, final = run_keeping(weights, start, pairs.plan, keep)
    outputs = Outputs(start, tuple(heads for _, heads, _ in kept), tuple(mlp for _, _, mlp in kept))
    return PathRun([block for block, _, _ in kept if block is not None], final), outputs


def _start(weights: Weights, pairs: AlignedPairs, alpha: float) -> Residual:
    """The embeddings at a point of the path."""
    return torch.lerp(embed(weights, pairs.corrupted), embed(weights, pairs.clean), alpha)


def bytes_per_pair(architecture: Architecture, tokens: int, points: int, item: int) -> int:
    """What `path_scores` needs at its peak for each pair, at most: when the forward pass at the last point is done.

    Alive then: the writers' differences, the gradients summed so far, the normed input of every block at every point,
    and what the backward pass needs of the run; beside them what one block works with, and what `contract` gathers.

    Args:
        architecture: of the model.
        tokens: of a prompt.
        points: of the path.
        item: bytes of a number.
    """
    a, attention = architecture, architecture.n_heads * architecture.d_head
    hidden = 2 * a.d_mlp if a.gated else a.d_mlp
    differences = a.d_model + a.n_layers * (attention + a.d_model)
    sums = a.n_layers * (3 * attention + a.d_model + points * 3 * a.n_heads)
    normed = points * a.n_layers * a.d_model
    run = a.n_layers * (3 * attention + a.n_heads * tokens + hidden + (0 if a.parallel else a.d_model))
    block = 2 * hidden + 4 * attention + 4 * a.d_model
    scores = 2 * a.graph.n_writers * a.graph.n_readers
    return item * (tokens * (differences + sums + normed + run + block) + scores)


def contract(subject: Subject, differences: Outputs, sums: GradientSums, per_example: bool) -> Tensor:
    """Every writer's difference times every later reader's gradient: ``[pairs, writers, readers]``, or summed.

    A few pairs at a time, so that what has to be written out for it stays small.
    """
    graph, (pairs, window, d_model) = subject.graph, differences.embed.shape
    one = (graph.n_writers + 3 * graph.n_heads) * window * d_model * differences.embed.element_size()
    at_once = max(1, WORKSPACE.get(subject.device.type, LARGE_WORKSPACE) // one)
    parts = [
        _contract_pairs(subject, differences, sums, slice(start, start + at_once), per_example)
        for start in range(0, pairs, at_once)
    ]
    return torch.cat(parts) if per_example else torch.stack(parts).sum(dim=0)


def _contract_pairs(
    subject: Subject, differences: Outputs, sums: GradientSums, rows: slice, per_example: bool
) -> Tensor:
    """`contract` of some pairs, block by block."""
    graph, H = subject.graph, subject.graph.n_heads
    embedding, final = differences.embed[rows], sums.final[rows]
    n, w, d = embedding.shape
    scores = final.new_zeros(n if per_example else 1, graph.n_writers, graph.n_readers)
    here = scores if per_example else scores[0]
    early = final.new_empty(graph.n_writers - H - 1, n, w, d)
    last = final.new_empty(H + 1, n, 1, d)
    early[0].copy_(embedding)
    for layer, block_sums in enumerate(sums.blocks):
        assert block_sums.mlp is not None
        before, first, mlp = graph.writers_before(layer), graph.head_reader(layer, 0, 0), graph.mlp_reader(layer)
        here[..., :before, first:mlp] = _slot_products(subject, layer, early[:before], block_sums, rows, per_example)
        at_mlp = block_sums.mlp[rows][None]
        asking = at_mlp.shape[2]
        here[..., :before, mlp : mlp + 1] = _products(early[:before, :, -asking:], at_mlp, per_example)
        into = last if layer == graph.n_layers - 1 else early[before : before + H + 1]
        _write_out(subject, differences, layer, rows, into)
        if not graph.parallel:
            here[..., before : before + H, mlp : mlp + 1] = _products(into[:H], at_mlp, per_example)
    everyone = torch.cat([early[:, :, -1:], last])
    here[..., graph.logits_reader :] = _products(everyone, final[None, :, None], per_example)
    return here


def _write_out(
    subject: Subject,
    differences: Outputs,
    layer: int,
    rows: slice,
    into: Float[Tensor, "heads_and_mlp pairs asking d_model"],
) -> None:
    """The differences of a block's writers as they stand in the residual stream."""
    a, block = subject.architecture, subject.weights.blocks[layer]
    heads = differences.heads[layer][rows].permute(2, 0, 1, 3).reshape(a.n_heads, -1, a.d_head)
    projection = block.out.view(a.n_heads, a.d_head, a.d_model)
    torch.bmm(heads, projection, out=into[:-1].view(a.n_heads, -1, a.d_model))
    into[-1].copy_(differences.mlps[layer][rows])


def _slot_products(
    subject: Subject,
    layer: int,
    written: Float[Tensor, "writers pairs window d_model"],
    sums: BlockSums,
    rows: slice,
    per_example: bool,
) -> Float[Tensor, "*pairs writers slots"]:
    """Inner products with the gradients at the inputs of all head slots, before the norm (`BlockGradients`)."""
    a, block = subject.architecture, subject.weights.blocks[layer]
    assert sums.qkv is not None
    slots, (u, n, w, d) = 3 * a.n_heads, written.shape
    small = sums.qkv[rows].permute(2, 3, 0, 1, 4).reshape(slots, n * w, a.d_head)
    full = torch.bmm(small, block.qkv.view(d, slots, a.d_head).permute(1, 2, 0)).view(slots, n, w, d)
    normed = torch.stack([normed[rows] for _, normed in sums.along]).view(-1, n * w, d)
    along = torch.stack([along[rows] for along, _ in sums.along], dim=2).view(n, -1, slots)
    size = torch.bmm(written.view(u, n * w, d).transpose(0, 1), normed.permute(1, 2, 0))
    size = size.view(n, w, u, -1).transpose(1, 2).reshape(n, u, -1)
    aside = torch.bmm(size, along)
    return _shared(subject, _products(written, full, per_example).sub_(aside if per_example else aside.sum(dim=0)))


def _shared(
    subject: Subject, products: Float[Tensor, "*pairs writers 3*heads"]
) -> Float[Tensor, "*pairs writers slots"]:
    """Readers that heads share: what enters there enters all of them, so that its gradient is the sum of theirs."""
    graph, H = subject.graph, subject.graph.n_heads
    if graph.kv_heads is None:
        return products
    groups = products[..., H:].unflatten(-1, (2 * graph.kv_heads, -1)).sum(dim=-1)
    return torch.cat([products[..., :H], groups], dim=-1)


def _products(
    written: Float[Tensor, "writers pairs columns d_model"],
    gradients: Float[Tensor, "readers pairs columns d_model"],
    per_example: bool,
) -> Tensor:
    """Inner products over columns and d_model: ``[pairs, writers, readers]``, or summed over pairs."""
    if per_example:
        return torch.einsum("unwd,vnwd->nuv", written, gradients)
    return written.reshape(len(written), -1) @ gradients.reshape(len(gradients), -1).T

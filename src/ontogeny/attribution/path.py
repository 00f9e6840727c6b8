"""Gradients along a straight path of input embeddings: the loop that EAP and its integrated forms share.

    score(u -> v) = sum over positions of < z_u(clean) - z_u(corrupted), sum_k w_k dM/d(input of v) at point alpha_k >

where the model runs from the embeddings ``corrupted + alpha_k (clean - corrupted)`` (METHODS 3.3, 3.4; Hanna et al.
2024, "Have faith in faithfulness", section 3). The difference of the writers does not depend on the point, so readers'
gradients are summed over points first and meet the differences once. Head channels keep their gradients as wide as a
head until then; only the norm's term along ``xhat`` keeps one number a position, channel and point.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.pairs import PairBatch
from ontogeny.models.backward import BlockGradients, backward
from ontogeny.models.forward import Part, Residual, Run, embed, run, run_between
from ontogeny.models.readout import readout
from ontogeny.models.subject import AlignedPairs, Subject, align_pairs
from ontogeny.models.weights import Weights


@dataclass(frozen=True)
class PathPoint:
    """Where a gradient is taken, and how much it counts."""

    alpha: float
    """Weight on the clean end."""
    weight: float
    of: tuple[int, Part] | None = None
    """The block whose heads, or MLP, are moved along the path; None: the embedding."""


@dataclass(frozen=True)
class Differences:
    """z(clean) - z(corrupted) of all writers in the smallest form; the last block's at the read position only."""

    embed: Residual
    heads: list[Float[Tensor, "pairs asking heads d_head"]]
    """Before W_O."""
    mlps: list[Float[Tensor, "pairs asking d_model"]]


@dataclass
class _BlockSums:
    """Sums over points of a block's reader gradients (`BlockGradients`)."""

    qkv: Tensor | None = None
    mlp: Tensor | None = None
    along: list[tuple[Tensor, Tensor]] = field(default_factory=list)

    def add(self, gradients: BlockGradients, normed: Tensor, weight: float) -> None:
        qkv, mlp = gradients.qkv * weight, gradients.mlp * weight
        self.qkv = qkv if self.qkv is None else self.qkv.add_(qkv)
        self.mlp = mlp if self.mlp is None else self.mlp.add_(mlp)
        self.along.append((gradients.along * weight, normed))


def path_scores(subject: Subject, batch: PairBatch, points: Sequence[PathPoint], per_example: bool) -> Tensor:
    """Scores ``[pairs, writers, readers]``, or their sum over pairs ``[writers, readers]``."""
    pairs = align_pairs(subject, batch)
    weights, read = subject.weights, readout(subject.weights, batch)
    corrupted = run(weights, embed(weights, pairs.corrupted), pairs.plan)
    outputs = _outputs(corrupted)
    if not any(point.of is not None or point.alpha == 0.0 for point in points):
        corrupted = Run(corrupted.embed, (), corrupted.final)
    clean = run(weights, embed(weights, pairs.clean), pairs.plan)
    written = _differences(_outputs(clean), outputs)
    del outputs
    sums = [_BlockSums() for _ in weights.blocks]
    final = torch.zeros_like(clean.final)
    runs = _runs(points, weights, pairs, clean, corrupted)
    del clean, corrupted
    for point, here in runs:
        gradient = read.gradient(here.final)
        final += gradient * point.weight
        blocks = list(here.blocks)
        del here
        for layer, gradients, normed in backward(weights, blocks, pairs.plan, gradient, point.of):
            sums[layer].add(gradients, normed, point.weight)
            del gradients, normed
    return _contract(subject, written, sums, final, per_example)


def _runs(
    points: Sequence[PathPoint], weights: Weights, pairs: AlignedPairs, clean: Run, corrupted: Run
) -> Iterator[tuple[PathPoint, Run]]:
    """The run at each point. The ends of the path have been run already; each is let go of after its last use."""
    start, end = corrupted.embed, clean.embed
    for point in points:
        if point.of is not None:
            layer, part = point.of
            yield point, run_between(weights, clean, corrupted, pairs.plan, layer, part, point.alpha)
    kept = [(point, corrupted) for point in points if point.of is None and point.alpha == 0.0]
    kept += [(point, clean) for point in points if point.of is None and point.alpha == 1.0]
    del clean, corrupted
    while kept:
        yield kept.pop()
    for point in points:
        if point.of is None and 0.0 < point.alpha < 1.0:
            yield point, run(weights, torch.lerp(start, end, point.alpha), pairs.plan)


@dataclass(frozen=True)
class _Outputs:
    """What the writers of a run wrote; heads before W_O."""

    embed: Residual
    heads: tuple[Float[Tensor, "pairs asking heads d_head"], ...]
    mlps: tuple[Residual, ...]


def _outputs(done: Run) -> _Outputs:
    return _Outputs(done.embed, tuple(b.heads for b in done.blocks), tuple(b.mlp.out for b in done.blocks))


def _differences(clean: _Outputs, corrupted: _Outputs) -> Differences:
    """What each writer wrote on the clean run minus what it wrote on the corrupted run."""
    return Differences(
        clean.embed - corrupted.embed,
        [x - y for x, y in zip(clean.heads, corrupted.heads)],
        [x - y for x, y in zip(clean.mlps, corrupted.mlps)],
    )


def _write_out(
    subject: Subject, written: Differences, layer: int, into: Float[Tensor, "heads_and_mlp pairs asking d_model"]
) -> None:
    """The differences of a block's writers as they stand in the residual stream; takes them off the lists."""
    a, block = subject.architecture, subject.weights.blocks[layer]
    heads = written.heads.pop(0).permute(2, 0, 1, 3).reshape(a.n_heads, -1, a.d_head)
    projection = block.out.view(a.n_heads, a.d_head, a.d_model)
    torch.bmm(heads, projection, out=into[:-1].view(a.n_heads, -1, a.d_model))
    into[-1].copy_(written.mlps.pop(0))


def _contract(
    subject: Subject, written: Differences, sums: list[_BlockSums], final: Tensor, per_example: bool
) -> Tensor:
    """Every writer's difference times every later reader's gradient, block by block; `sums` and `written` are used up.

    The differences of a block are written out only when the next block reads them, and a block's gradients are let go
    of after that, so that neither is held for all blocks at once.
    """
    graph, H = subject.graph, subject.graph.n_heads
    n, w, d = written.embed.shape
    scores = final.new_zeros(n if per_example else 1, graph.n_writers, graph.n_readers)
    here = scores if per_example else scores[0]
    early = final.new_empty(graph.n_writers - H - 1, n, w, d)
    last = final.new_empty(H + 1, n, 1, d)
    early[0].copy_(written.embed)
    for layer in range(graph.n_layers):
        block_sums = sums.pop(0)
        before, first, mlp = graph.writers_before(layer), graph.head_reader(layer, 0, 0), graph.mlp_reader(layer)
        here[..., :before, first:mlp] = _products(
            early[:before], _slot_gradients(subject, layer, block_sums), per_example
        )
        assert block_sums.mlp is not None
        at_mlp = block_sums.mlp[None]
        del block_sums
        asking = at_mlp.shape[2]
        here[..., :before, mlp : mlp + 1] = _products(early[:before, :, -asking:], at_mlp, per_example)
        into = last if layer == graph.n_layers - 1 else early[before : before + H + 1]
        _write_out(subject, written, layer, into)
        if not graph.parallel:
            here[..., before : before + H, mlp : mlp + 1] = _products(into[:H], at_mlp, per_example)
    everyone = torch.cat([early[:, :, -1:], last])
    here[..., graph.logits_reader :] = _products(everyone, final[None, :, None], per_example)
    return here


def _slot_gradients(subject: Subject, layer: int, sums: _BlockSums) -> Float[Tensor, "3*heads pairs window d_model"]:
    """Gradients at the inputs of all head slots, before the norm."""
    a, block = subject.architecture, subject.weights.blocks[layer]
    assert sums.qkv is not None
    n, w = sums.qkv.shape[:2]
    small = sums.qkv.permute(2, 3, 0, 1, 4).reshape(3 * a.n_heads, n * w, a.d_head)
    projections = block.qkv.view(a.d_model, 3 * a.n_heads, a.d_head).permute(1, 2, 0)
    full = torch.bmm(small, projections)
    del small
    for along, normed in sums.along:
        by_channel = along.permute(2, 3, 0, 1).reshape(3 * a.n_heads, n * w, 1)
        full.addcmul_(by_channel, normed.reshape(1, n * w, a.d_model), value=-1.0)
    return full.view(3 * a.n_heads, n, w, a.d_model)


def _products(
    written: Float[Tensor, "writers pairs columns d_model"],
    gradients: Float[Tensor, "readers pairs columns d_model"],
    per_example: bool,
) -> Tensor:
    """Inner products over columns and d_model: ``[pairs, writers, readers]``, or summed over pairs."""
    if per_example:
        return torch.einsum("unwd,vnwd->nuv", written, gradients)
    return written.reshape(len(written), -1) @ gradients.reshape(len(gradients), -1).T

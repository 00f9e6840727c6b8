"""Training of the ladder: GPT-NeoX models from scratch, all on the same text in the same order (METHODS 11).

Rows hold whole documents, and a mask keeps them apart; the loss is computed with its gradient in one go.
Checkpoints are ordinary Hugging Face folders. The training state (parameters, optimiser, step) is saved atomically, and
the order of rows is a function of seed and step, so that a run that was killed ends with the same bytes.
"""

from __future__ import annotations

import bisect
import json
import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F
from jaxtyping import Bool, Float, Int
from safetensors.torch import load_file, save_file
from torch import Tensor

from ontogeny.models.neox import NeoxConfig, Parameters, initial_parameters, logits_at, neox_config
from ontogeny.models.optimiser import Optimiser
from ontogeny.params import CheckpointsParams, ScaleParams
from ontogeny.tasks.corpus import DECIDED, UNDECIDED, TokenStream, load_stream, load_tokenizer

OnStep = Callable[[int, float], None]


def train_member(
    scale: ScaleParams,
    settings: CheckpointsParams,
    corpus_dir: Path,
    out_dir: Path,
    state_dir: Path,
    seed: int,
    device: str,
    on_step: OnStep,
) -> None:
    """Train one member and write its checkpoints to ``out_dir/step{N}``.

    Sets one torch thread on a CPU: two threads give other bytes, and members run side by side in processes. Goes on
    from `state_dir` if a run of the same arguments was interrupted; the caller names it by their fingerprint.
    `on_step(step, loss)` is called after every step.
    """
    if device == "cpu":
        torch.set_num_threads(1)
    stream = load_stream(corpus_dir)
    rows = pack(stream, settings.context)
    config = neox_config(scale, settings.context, len(load_tokenizer(corpus_dir).ids()), settings.rotary)
    parameters = initial_parameters(config, seed)
    parameters = {name: value.to(device).requires_grad_() for name, value in parameters.items()}
    optimiser = Optimiser(parameters, scale, settings)
    for partial in out_dir.glob(".partial-*"):
        shutil.rmtree(partial)
    first = _restore(state_dir, parameters, optimiser)
    due = set(checkpoint_steps(settings))
    for step in range(first, settings.steps + 1):
        if step in due:
            write_checkpoint(out_dir, step, parameters, config, corpus_dir / "tokenizer")
        if step > first and (step in due or step % settings.save_every == 0):
            _save(state_dir, step, parameters, optimiser)
        if step == settings.steps:
            break
        batch = rows.take(row_order(len(rows.ids), settings.batch, step, seed), settings, device)
        loss = weighted_loss(parameters, config, batch)
        loss.backward()
        optimiser.step(step)
        on_step(step + 1, loss.item())


def checkpoint_steps(settings: CheckpointsParams) -> list[int]:
    """The schedule of METHODS 11.6: the first steps, `per_octave` an octave, then evenly; the last step included."""
    last = settings.steps
    dense_until = round(settings.even_from * last)
    start = max(settings.first_steps, default=1) or 1
    octaves = math.log2(max(dense_until, start) / start)
    dense = [round(start * 2 ** (i / settings.per_octave)) for i in range(int(octaves * settings.per_octave) + 1)]
    even = [
        round(dense_until + (last - dense_until) * (i + 1) / settings.even_count) for i in range(settings.even_count)
    ]
    return sorted({s for s in (*settings.first_steps, *dense, *even, last) if s <= last})


# --- Data ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """Rows of a step: each position predicts the next one of its document."""

    inputs: Int[Tensor, "rows tokens"]
    targets: Int[Tensor, "rows tokens"]
    weights: Float[Tensor, "rows tokens"]
    """Weight of each target in the loss, 0 across documents; they sum to 1."""
    mask: Bool[Tensor, "rows 1 tokens tokens"]
    """True where a query (rows of the matrix) may look at a key (columns)."""


@dataclass(frozen=True)
class Rows:
    """The corpus in rows of `context` tokens, whole documents only."""

    ids: Int[Tensor, "rows tokens"]
    roles: Int[Tensor, "rows tokens"]
    documents: Int[Tensor, "rows tokens"]
    """Number of the document within its row; -1 where the row is empty."""

    def take(self, chosen: Int[Tensor, " rows"], settings: CheckpointsParams, device: str) -> Batch:
        """The rows at `chosen`, ready for a step."""
        ids, roles, documents = self.ids[chosen].long(), self.roles[chosen], self.documents[chosen]
        weight = torch.ones(3)
        weight[UNDECIDED], weight[DECIDED] = settings.undecided_weight, settings.decided_weight
        same = (documents[:, 1:] == documents[:, :-1]) & (documents[:, 1:] >= 0)
        weights = F.pad(weight[roles[:, 1:].long()] * same, (0, 1))
        causal = torch.ones(ids.shape[1], ids.shape[1], dtype=torch.bool).tril()
        mask = (documents[:, :, None] == documents[:, None, :]) & causal
        targets = F.pad(ids[:, 1:], (0, 1))
        moved = [t.to(device) for t in (ids, targets, weights / weights.sum(), mask[:, None])]
        return Batch(*moved)


def pack(stream: TokenStream, context: int, window: int = 64) -> Rows:
    """Put whole documents into rows: of the next `window` documents always the longest that still fits."""
    starts = stream.starts.long()
    lengths = (starts[1:] - starts[:-1]).tolist()
    if max(lengths) > context:
        raise ValueError(f"A document has {max(lengths)} tokens, but a row only {context}.")
    waiting = sorted((length, i) for i, length in enumerate(lengths[:window]))
    coming = iter(range(window, len(lengths)))
    placed: list[tuple[int, int, int]] = []
    row = used = number = 0
    while waiting:
        fit = bisect.bisect_right(waiting, (context - used, len(lengths))) - 1
        if fit < 0:
            row, used, number = row + 1, 0, 0
            continue
        length, document = waiting.pop(fit)
        placed.append((document, row * context + used, number))
        used, number = used + length, number + 1
        if (new := next(coming, None)) is not None:
            bisect.insort(waiting, (lengths[new], new))
    document, begin, numbers = torch.tensor(placed).T
    sizes = torch.tensor(lengths)[document]
    source, target = _spans(starts[document], sizes), _spans(begin, sizes)
    rows = Rows(
        torch.zeros(row + 1, context, dtype=stream.ids.dtype),
        torch.zeros(row + 1, context, dtype=stream.roles.dtype),
        torch.full((row + 1, context), -1, dtype=torch.int16),
    )
    rows.ids.view(-1)[target] = stream.ids[source]
    rows.roles.view(-1)[target] = stream.roles[source]
    rows.documents.view(-1)[target] = numbers.repeat_interleave(sizes).to(torch.int16)
    return rows


def _spans(begins: Int[Tensor, " n"], sizes: Int[Tensor, " n"]) -> Int[Tensor, " total"]:
    """The numbers ``begin, begin + 1, ...``, `size` of them, for each pair in turn."""
    before = sizes.cumsum(0) - sizes
    return (begins - before).repeat_interleave(sizes) + torch.arange(int(sizes.sum()))


def row_order(rows: int, batch: int, step: int, seed: int) -> Int[Tensor, " batch"]:
    """Rows of a step: every epoch is a new permutation, a function of seed and epoch alone."""
    epoch, place = divmod(step, rows // batch)
    generator = torch.Generator().manual_seed(1_000_003 * seed + epoch)
    return torch.randperm(rows, generator=generator)[place * batch : (place + 1) * batch]


# --- Loss -----------------------------------------------------------------------------------------------------------


class _WeightedCrossEntropy(torch.autograd.Function):
    """Sum of weight x cross entropy, with the gradient made in the forward pass: half the time of the stock one."""

    @staticmethod
    def forward(ctx, scores: Tensor, targets: Tensor, weights: Tensor) -> Tensor:  # type: ignore[no-untyped-def]
        """`scores` [n, vocabulary], `targets` [n], `weights` [n]."""
        shares = (scores - scores.amax(-1, keepdim=True)).exp_()
        total = shares.sum(-1, keepdim=True)
        shares.mul_(weights[:, None] / total)
        at = targets[:, None]
        loss = -(weights * (shares.gather(1, at)[:, 0] / weights).clamp_min(1e-30).log()).sum()
        ctx.save_for_backward(shares.scatter_add_(1, at, -weights[:, None]))
        return loss

    @staticmethod
    def backward(ctx, upstream: Tensor) -> tuple[Tensor, None, None]:  # type: ignore[no-untyped-def]
        """Gradient with respect to the scores."""
        (gradient,) = ctx.saved_tensors
        return gradient * upstream, None, None


def weighted_loss(parameters: Parameters, config: NeoxConfig, batch: Batch) -> Tensor:
    """Weighted mean of the cross entropy in nats; positions of weight 0 are not unembedded."""
    counted = batch.weights > 0
    scores = logits_at(parameters, config, batch.inputs, batch.mask, counted)
    return _WeightedCrossEntropy.apply(scores, batch.targets[counted], batch.weights[counted])


# --- Disk ----------------------------------------------------------------------------------------------------------


def write_checkpoint(out_dir: Path, step: int, parameters: Parameters, config: NeoxConfig, tokenizer_dir: Path) -> None:
    """An ordinary Hugging Face folder ``step{N}``, there in full or not at all."""
    final, partial = out_dir / f"step{step}", out_dir / f".partial-step{step}"
    if final.exists():
        return
    partial.mkdir(parents=True)
    for file in sorted(tokenizer_dir.iterdir()):
        shutil.copyfile(file, partial / file.name)
    text = json.dumps(config.to_json(), indent=1, sort_keys=True) + "\n"
    (partial / "config.json").write_text(text, encoding="utf-8")
    tensors = {name: value.detach().cpu().contiguous() for name, value in parameters.items()}
    save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
    for file in partial.iterdir():
        _sync(file)
    os.rename(partial, final)
    _sync(out_dir)


def _save(state_dir: Path, step: int, parameters: Parameters, optimiser: Optimiser) -> None:
    """The training state after `step` steps, in one file that is replaced in one go."""
    state_dir.mkdir(parents=True, exist_ok=True)
    tensors = {f"parameter.{name}": value.detach().cpu() for name, value in parameters.items()}
    tensors |= {f"optimiser.{name}": value.cpu() for name, value in optimiser.state.items()}
    tensors["step"] = torch.tensor(step)
    save_file(tensors, state_dir / "state.partial")
    _sync(state_dir / "state.partial")
    os.replace(state_dir / "state.partial", state_dir / "state.safetensors")
    _sync(state_dir)


def _restore(state_dir: Path, parameters: Parameters, optimiser: Optimiser) -> int:
    """Load the saved state in place; the number of steps done, 0 if there is no state."""
    path = state_dir / "state.safetensors"
    if not path.exists():
        return 0
    tensors = load_file(path)
    with torch.no_grad():
        for name, value in parameters.items():
            value.copy_(tensors[f"parameter.{name}"])
        for name, value in optimiser.state.items():
            value.copy_(tensors[f"optimiser.{name}"])
    return int(tensors["step"])


def _sync(path: Path) -> None:
    """Wait until a file or folder is on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)

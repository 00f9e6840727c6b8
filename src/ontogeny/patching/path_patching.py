"""Path patching: what senders tell receivers, and what that does to the behaviour (METHODS 7.1; Wang et al. 2022).

1. Run the clean and the corrupted prompts.
2. In the clean run set the senders' outputs to those of the corrupted run, hold every other head at its clean output,
   recompute the MLPs (or hold them too: ``freeze_mlps``, strictly direct paths), and record what the receivers read.
3. In the clean run give the receivers what was recorded, and let everything after them follow.

Everything is kept as a *shift* from the clean run, a row for each set of senders, and little has to be run:

* with heads held, a column of tokens only ever depends on itself. Step 2 is MLPs alone, from the first sender to the
  last receiver; if all receivers ask from the read position alone, so is its one column, in step 3 too;
* columns before the first difference of a pair are no part of it, and receivers before the sender hear nothing;
* in the first receivers' block step 3 runs those heads alone, whose block still reads the clean residual;
* senders that are first heard in the same block go through it together.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from copy import copy
from dataclasses import dataclass, replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import SLOTS, GraphSpec
from ontogeny.core.pairs import PairBatch
from ontogeny.core.roles import Head, HeadScores
from ontogeny.models.forward import Plan, Run, attention, embed, run, run_mlp, split_slots
from ontogeny.models.functional import normalise
from ontogeny.models.layout import Rotary, right_align
from ontogeny.models.memory import halved, within_memory
from ontogeny.models.readout import readout
from ontogeny.models.subject import Subject, align_pairs, pairs_within

log = logging.getLogger(__name__)
Senders = tuple[int, ...]
"""Writers that are patched together."""
Shift = Float[Tensor, "senders pairs columns d_model"]
"""What a run writes more than the clean one: the residual stream of the last columns."""
WIDE = 12
"""Tensors of a shift's size that are alive at once, roughly: an MLP's hidden layer counts four."""


@dataclass(frozen=True)
class Watch:
    """Attention to look at: of each head, from the read position to some tokens of each prompt."""

    heads: tuple[Head, ...]
    positions: Int[Tensor, "pairs places"]
    """Of the tokens, counted from each prompt's start."""


@dataclass(frozen=True)
class Patched:
    """The behaviour after path patching, a row for each set of senders."""

    senders: tuple[Senders, ...]
    metric: Float[Tensor, "senders pairs"]
    attention: Float[Tensor, "senders pairs heads places"]
    """What was watched; no heads if nothing was."""


@dataclass(frozen=True)
class Interchange:
    """The behaviour with some heads' outputs set to those of the corrupted run, and everything after them run again."""

    metric: Float[Tensor, " pairs"]
    direct: Float[Tensor, "writers pairs"]
    """Change of each writer's direct effect on the metric, logits: through the final norm at its clean scale."""


class PathPatcher:
    """Path patching on one batch of prompt pairs; the runs are made once, for any receivers."""

    def __init__(
        self, subject: Subject, batch: PairBatch, *, batch_pairs: int | None = None, budget: int = 2**28
    ) -> None:
        """Run the clean and the corrupted prompts.

        Args:
            subject: the model.
            batch: the prompt pairs of one split.
            batch_pairs: pairs worked on at once; None: as many as fit.
            budget: bytes that the sets of senders worked on at once may take.
        """
        subject.graph.require_own_readers("Path patching")
        parts, size = halved(
            lambda size: [_part(subject, batch.take(place), budget) for place in _places(len(batch), size)],
            min(batch_pairs or pairs_within(subject, batch), len(batch)),
            "prompt pair",
        )
        self._hold(subject.graph, _places(len(batch), size), parts)

    def _hold(self, graph: GraphSpec, places: list[slice], parts: list[_Part]) -> None:
        self.graph, self._places, self._parts = graph, places, parts
        self.clean: Float[Tensor, " pairs"] = torch.cat([part.values(0.0) for part in parts])
        """Metric of the whole model, each example."""
        self.corrupted: Float[Tensor, " pairs"] = torch.cat([part.corrupted_values() for part in parts])
        """Metric of the whole model on the corrupted prompts, each example."""

    def against(self, corrupted: Int[Tensor, "pairs tokens"]) -> PathPatcher:
        """The same clean prompts with other corrupted ones; the clean run is shared.

        Args:
            corrupted: right-padded, as in the batch that this one was made of.

        Raises:
            ImpossibleRequest: they differ from the clean prompts before the first token in which this patcher's own do.
        """
        other = copy(self)
        other._hold(self.graph, self._places, [p.against(corrupted[at]) for p, at in zip(self._parts, self._places)])
        return other

    def patch(
        self,
        receivers: Sequence[int],
        senders: Sequence[Senders] | None = None,
        *,
        freeze_mlps: bool = False,
        at_end: bool = False,
        watch: Watch | None = None,
    ) -> Patched:
        """Patch the paths from each set of senders into all receivers together.

        Args:
            receivers: readers (`GraphSpec`); with the logits among them the others make no difference.
            senders: writers that are patched together, a row each; None: every head alone.
            freeze_mlps: hold the MLPs between senders and receivers too.
            at_end: patch the receivers at the read position only; otherwise at all positions.
            watch: attention patterns to report.

        Raises:
            ImpossibleRequest: no receivers, or a number that is no reader or writer of this model.
        """
        graph = self.graph
        rows = tuple(tuple(sorted(set(s))) for s in (all_heads(graph) if senders is None else senders))
        wanted = tuple(sorted(set(receivers)))
        if not wanted or not 0 <= wanted[0] <= wanted[-1] < graph.n_readers:
            raise ImpossibleRequest(f"Receivers must be readers 0 to {graph.n_readers - 1}, at least one: {receivers}.")
        if not all(row and 0 <= row[0] <= row[-1] < graph.n_writers for row in rows):
            raise ImpossibleRequest(f"Senders must be writers 0 to {graph.n_writers - 1}, at least one a set: {rows}.")
        task = _Task(graph, wanted, freeze_mlps, at_end)
        watched = [None if watch is None else Watch(watch.heads, watch.positions[place]) for place in self._places]
        found = [part.patch_within_memory(task, rows, seen) for part, seen in zip(self._parts, watched)]
        return Patched(rows, torch.cat([m for m, _ in found], dim=1), torch.cat([a for _, a in found], dim=1))

    def attention(self, watch: Watch) -> Float[Tensor, "pairs heads places"]:
        """What is watched in the clean run."""
        parts = zip(self._parts, self._places)
        return torch.cat([part.clean_attention(Watch(watch.heads, watch.positions[place])) for part, place in parts])

    def interchange(self, heads: Sequence[Head]) -> Interchange:
        """Set the outputs of `heads` to those of the corrupted run, at all positions, and run on from there.

        Raises:
            ImpossibleRequest: the metric is no difference of logits, so that nothing acts on it directly.
        """
        found = [part.interchange(heads) for part in self._parts]
        return Interchange(torch.cat([f.metric for f in found]), torch.cat([f.direct for f in found], dim=1))

    def direct_effects(self, direction: Float[Tensor, "pairs d_model"] | None = None) -> Float[Tensor, "writers pairs"]:
        """Direct effect of each writer, clean minus corrupted, logits: through the final norm at its clean scale.

        Args:
            direction: what is read off the final norm's output, for each pair a sum of unembedding vectors; None: the
                metric.

        Raises:
            ImpossibleRequest: no direction is given, and the metric is no difference of logits.
        """
        directions = [None if direction is None else direction[at] for at in self._places]
        found = [part.direct_effects(along) for part, along in zip(self._parts, directions)]
        return torch.cat(found, dim=1)


def _places(pairs: int, size: int) -> list[slice]:
    return [slice(start, start + size) for start in range(0, pairs, size)]


def _part(subject: Subject, batch: PairBatch, budget: int) -> _Part:
    pairs = align_pairs(subject, batch)
    clean = run(subject.weights, embed(subject.weights, pairs.clean), pairs.plan)
    return _Part(subject, batch, budget, pairs.plan, clean, pairs.corrupted)


def _aligned(subject: Subject, tokens: Int[Tensor, "pairs tokens"], batch: PairBatch) -> Int[Tensor, "pairs columns"]:
    return right_align(tokens.to(subject.device), batch.lengths.to(subject.device))[0]


def all_heads(graph: GraphSpec) -> tuple[Senders, ...]:
    """Every head alone, by layer, then head."""
    return tuple((graph.head_writer(layer, head),) for layer in range(graph.n_layers) for head in range(graph.n_heads))


def head_readers(graph: GraphSpec, slot: int, heads: Sequence[Head]) -> tuple[int, ...]:
    """One slot (0 query, 1 key, 2 value) of some heads."""
    return tuple(graph.head_reader(layer, slot, head) for layer, head in heads)


def head_effects(patcher: PathPatcher, metric: Float[Tensor, "heads pairs"]) -> HeadScores:
    """E of METHODS 7.2 from the metric with each head alone as sender; NaN if the corruption changes nothing.

    A ratio of means over examples, in float64.
    """
    clean, corrupted = patcher.clean.double().mean(), patcher.corrupted.double().mean()
    scale = clean - corrupted
    effect = (metric.double().mean(dim=1) - clean) / torch.where(scale == 0, torch.nan, scale)
    return effect.view(patcher.graph.n_layers, patcher.graph.n_heads)


@dataclass(frozen=True)
class _Task:
    """What is to be patched, and what follows from it."""

    graph: GraphSpec
    receivers: tuple[int, ...]
    freeze_mlps: bool
    at_end: bool

    @property
    def one_column(self) -> bool:
        """Whether nothing but the read position can change."""
        last = self.graph.n_layers - 1
        kinds, layers = self.graph.reader_kinds, self.graph.reader_layers
        return self.at_end or all(
            int(layers[v]) > last or (int(layers[v]) == last and kinds[v] in ("q", "mlp")) for v in self.receivers
        )

    @property
    def to_logits(self) -> bool:
        return self.receivers[-1] == self.graph.logits_reader

    def first_layer(self, senders: Senders) -> int | None:
        """Block of the first receiver after the senders; None if there is none."""
        heard = [v for v in self.receivers if bool(self.graph.real_edges[senders[0], v])]
        return int(self.graph.reader_layers[heard[0]]) if heard else None

    def slots(self, layer: int) -> list[tuple[int, int]]:
        """Slot and head of the receivers in a block."""
        first = self.graph.head_reader(layer, 0, 0)
        channels = [v - first for v in self.receivers if first <= v < self.graph.mlp_reader(layer)]
        return [divmod(channel, self.graph.n_heads) for channel in channels]


Recorded = Mapping[int, Tensor]
"""By reader: rotated queries and keys, values ``[senders, pairs, columns, d_head]``; what an MLP writes more than in
the clean run."""


class _Part:
    """Path patching on pairs that fit into memory together."""

    def __init__(
        self, subject: Subject, batch: PairBatch, budget: int, plan: Plan, clean: Run, corrupted: Tensor
    ) -> None:
        self.subject, self.graph, self.batch, self.budget = subject, subject.graph, batch, budget
        self.a, self.weights = subject.architecture, subject.weights
        self.plan, self.readout, self.clean = plan, readout(subject.weights, batch), clean
        self.corrupted = run(self.weights, embed(self.weights, corrupted), plan)

    def against(self, corrupted: Int[Tensor, "pairs tokens"]) -> _Part:
        batch, start = replace(self.batch, corrupted=corrupted), self.plan.layout.start
        clean, other = (_aligned(self.subject, tokens, batch) for tokens in (batch.clean, corrupted))
        if bool((clean[:, :start] != other[:, :start]).any()):
            raise ImpossibleRequest(
                f"These corrupted prompts differ from the clean ones before token {start} (from the right-aligned "
                "start), where the clean run begins. Make the patcher of the prompts that differ first."
            )
        return _Part(self.subject, batch, self.budget, self.plan, self.clean, other[:, start:])

    def values(self, shift: Tensor | float) -> Float[Tensor, " pairs"]:
        """Metric of each example with its final residual shifted."""
        return self.readout.values(self.clean.final + shift).cpu()

    def corrupted_values(self) -> Float[Tensor, " pairs"]:
        return self.readout.values(self.corrupted.final).cpu()

    def patch(
        self, task: _Task, rows: tuple[Senders, ...], watch: Watch | None
    ) -> tuple[Float[Tensor, "senders pairs"], Float[Tensor, "senders pairs heads places"]]:
        metric = self.values(0.0).repeat(len(rows), 1)
        seen = metric.new_empty(len(rows), len(self.clean.final), 0, 0)
        if watch is not None:
            seen = self.clean_attention(watch).repeat(len(rows), 1, 1, 1)
        width = 1 if task.one_column else self.plan.layout.window
        for start, places in self._heard_together(task, rows, width):
            chunk = [rows[place] for place in places]
            shift, recorded = self._listen(task, chunk, width)
            if not task.to_logits:
                patterns: dict[Head, Tensor] = {}
                shift = self._respond(task, recorded, len(chunk), start, width, patterns)
                if watch is not None:
                    seen[places] = self._look(watch, patterns, seen[places])
            metric[places] = torch.stack([self.values(final) for final in shift[:, :, -1]])
        return metric, seen

    def patch_within_memory(self, task: _Task, rows: tuple[Senders, ...], watch: Watch | None) -> tuple[Tensor, Tensor]:
        """`patch`; with half as many sets of senders at once whenever memory runs out.

        Raises:
            ImpossibleRequest: a single set does not fit.
        """
        least = WIDE * self.clean.final.nelement() * self.clean.final.element_size()
        while (found := within_memory(lambda: self.patch(task, rows, watch))) is None:
            if self.budget < least:
                raise ImpossibleRequest(
                    "Out of memory with a single set of senders. Use a smaller model, a device with more memory, or "
                    "fewer jobs at once (execution.n_jobs)."
                )
            self.budget //= 2
            log.warning("Out of memory: path patching goes on with half as many senders at once.")
        return found

    def _heard_together(
        self, task: _Task, rows: tuple[Senders, ...], width: int
    ) -> Iterator[tuple[int, Int[Tensor, " places"]]]:
        """Sets of senders that are first heard in the same block, in the order of their first sender."""
        groups: dict[int, list[int]] = {}
        for place in sorted(range(len(rows)), key=lambda place: rows[place]):
            layer = task.first_layer(rows[place])
            if layer is not None:
                groups.setdefault(layer, []).append(place)
        one = WIDE * len(self.clean.final) * width * self.a.d_model * self.clean.final.element_size()
        size = max(1, self.budget // one)
        for layer, places in groups.items():
            for i in range(0, len(places), size):
                yield layer, torch.tensor(places[i : i + size])

    def _listen(self, task: _Task, chunk: list[Senders], width: int) -> tuple[Shift, Recorded]:
        """Step 2: what the receivers read; the final residual's shift if the logits are among them."""
        graph, last = self.graph, self.graph.n_layers - 1
        n, _, d = self.clean.embed.shape
        shift = self.clean.final.new_zeros(len(chunk), n, width, d)
        recorded: dict[int, Tensor] = {}
        self._send(shift, chunk, 0, self.corrupted.embed - self.clean.embed)
        for layer in range(min(int(graph.reader_layers[task.receivers[-1]]), last) + 1):
            active = sum(row[0] < graph.writers_before(layer) for row in chunk)
            recorded |= self._read_slots(layer, shift, task.slots(layer))
            if layer == last:
                shift = shift[:, :, -1:]
            mlp = self._listening_mlp(task, layer, shift, active, recorded) if graph.parallel else None
            self._send_heads(layer, shift, chunk)
            if mlp is None:
                active = sum(row[0] < graph.writers_before(layer, mlp=True) for row in chunk)
                mlp = self._listening_mlp(task, layer, shift, active, recorded)
            self._write_mlp(layer, shift, chunk, mlp)
        return shift, recorded

    def _send(self, shift: Shift, chunk: list[Senders], writer: int, difference: Tensor) -> None:
        """Add a writer's corrupted minus clean output where it is a sender."""
        for row, senders in enumerate(chunk):
            if writer in senders:
                shift[row] += difference[:, -shift.shape[2] :]

    def _send_heads(self, layer: int, shift: Shift, chunk: list[Senders]) -> None:
        sending = {u for senders in chunk for u in senders}
        for head in range(self.graph.n_heads):
            writer = self.graph.head_writer(layer, head)
            if writer in sending:
                difference = self._head_differences(layer)[:, :, head : head + 1]
                self._send(shift, chunk, writer, self._write(layer, [head], difference))

    def _head_differences(self, layer: int) -> Float[Tensor, "pairs asking heads d_head"]:
        """Outputs of the heads in the corrupted run less those in the clean one."""
        return self.corrupted.blocks[layer].heads - self.clean.blocks[layer].heads

    def _listening_mlp(
        self, task: _Task, layer: int, shift: Shift, active: int, recorded: dict[int, Tensor]
    ) -> Float[Tensor, "active pairs columns d_model"]:
        """What the MLP writes more than in the clean run, of the sets that it hears."""
        receives = self.graph.mlp_reader(layer) in task.receivers
        after = task.receivers[-1] > self.graph.mlp_reader(layer)
        if not active or not (receives or (after and not task.freeze_mlps)):
            return shift[:0]
        change = self._mlp(layer, shift[:active])
        if receives:
            silent = change.new_zeros(len(shift) - active, *change.shape[1:])
            recorded[self.graph.mlp_reader(layer)] = torch.cat([change, silent])
        return shift[:0] if task.freeze_mlps else change

    def _write_mlp(self, layer: int, shift: Shift, chunk: list[Senders], change: Tensor) -> None:
        """Add what the MLP writes: its own corrupted output where it is a sender."""
        writer = self.graph.mlp_writer(layer)
        hearing = [row for row in range(len(change)) if writer not in chunk[row]]
        if len(hearing) == len(change):
            shift[: len(change)] += change
        else:
            shift[hearing] += change[hearing]
        if any(writer in senders for senders in chunk):
            self._send(shift, chunk, writer, self.corrupted.blocks[layer].mlp.out - self.clean.blocks[layer].mlp.out)

    def _mlp(self, layer: int, shift: Shift) -> Shift:
        """What the MLP writes more than in the clean run when its input is shifted."""
        clean = self.clean.blocks[layer].mlp
        s, n, c, d = shift.shape
        out = run_mlp(self.a, self.weights.blocks[layer], (clean.resid[:, -c:] + shift).view(s * n, c, d)).out
        return out.view(s, n, c, d) - clean.out[:, -c:]

    def _read_slots(self, layer: int, shift: Shift, slots: list[tuple[int, int]]) -> Recorded:
        """Queries, keys and values of the receivers in a block."""
        if not slots:
            return {}
        size, block = self.a.d_head, self.weights.blocks[layer]
        normed = normalise(self.a, self.clean.blocks[layer].resid[:, -shift.shape[2] :] + shift)[0]
        if layer == self.graph.n_layers - 1 and all(slot == 0 for slot, _ in slots):
            normed = normed[:, :, -1:]
        found = {}
        for slot, head in slots:
            columns = slice((slot * self.a.n_heads + head) * size, (slot * self.a.n_heads + head + 1) * size)
            rows = torch.matmul(normed, block.qkv[:, columns]) + block.qkv_bias[columns]
            if SLOTS[slot] != "v":
                self._rotate(rows[:, :, None])
            found[self.graph.head_reader(layer, slot, head)] = rows
        return found

    def _rotate(self, x: Float[Tensor, "senders pairs heads columns d_head"]) -> None:
        """Rotate in place."""
        s, n = x.shape[:2]
        cos, sin = self.plan.rotary.cos, self.plan.rotary.sin
        if len(cos) > 1:
            cos, sin = cos.repeat(s, 1, 1, 1), sin.repeat(s, 1, 1, 1)
        Rotary(cos, sin).rotate(x.view(s * n, *x.shape[2:]))

    def _respond(
        self, task: _Task, recorded: Recorded, sets: int, start: int, width: int, patterns: dict[Head, Tensor]
    ) -> Shift:
        """Step 3: the final residual's shift; `patterns` gets where all heads that ran look from the read position."""
        graph, shift = self.graph, None
        for layer in range(start, graph.n_layers):
            mine = {graph.head_reader(layer, *slot): slot for slot in task.slots(layer)}
            given = {slot: recorded[v] for v, slot in mine.items()}
            run_heads = sorted({head for _, head in given}) if shift is None else list(range(graph.n_heads))
            written = None
            if run_heads:
                change, seen = self._heads(layer, shift, run_heads, given, sets, width)
                written = self._write(layer, run_heads, change)
                patterns |= {(layer, head): seen[:, :, place] for place, head in enumerate(run_heads)}
            shift, _ = self._end_block(layer, shift, written, recorded.get(graph.mlp_reader(layer)), sets, width)
        assert shift is not None
        return shift

    def _end_block(
        self, layer: int, shift: Shift | None, heads: Shift | None, mlp: Shift | None, sets: int, width: int
    ) -> tuple[Shift, Shift | None]:
        """The shift after a block, and what its MLP adds to it, None if nothing.

        Args:
            layer: the block.
            shift: of its input; None: it is the clean one.
            heads: what its heads write more than in the clean run; None: nothing.
            mlp: what its MLP is to write more; None: what follows.
            sets: sets of senders.
            width: columns that may differ from the clean run.
        """
        asking = width if layer < self.graph.n_layers - 1 else 1
        n, _, d = self.clean.embed.shape
        before = self.clean.final.new_zeros(sets, n, asking, d) if shift is None else shift[:, :, -asking:]
        after = before if heads is None else before + heads
        if mlp is None and (shift is not None or (heads is not None and not self.graph.parallel)):
            mlp = self._mlp(layer, before if self.graph.parallel else after)
        return (after if mlp is None else after + mlp), mlp

    def _heads(
        self,
        layer: int,
        shift: Shift | None,
        heads: list[int],
        given: Mapping[tuple[int, int], Tensor],
        sets: int,
        width: int,
    ) -> tuple[Float[Tensor, "senders pairs asking heads d_head"], Float[Tensor, "senders pairs heads tokens"]]:
        """Outputs of some heads less those of the clean run, and where they look from the read position.

        Args:
            layer: the block.
            shift: of its input; None: it is the clean one.
            heads: which to run; all of them where there is a shift.
            given: by slot and head, queries, keys and values to use instead of their own.
            sets: sets of senders.
            width: columns that may differ from the clean run.
        """
        clean, asking = self.clean.blocks[layer], width if layer < self.graph.n_layers - 1 else 1
        q, k, v = self._slots(layer, shift, heads, sets, width)
        for (slot, head), rows in given.items():
            into = (q, k, v)[slot][:, :, heads.index(head)]
            into[:, :, -rows.shape[2] :] = rows[:, :, -into.shape[2] :]
        pattern, out = attention(q, k, v, self.plan.mask[:, :, -asking:])
        return out.transpose(2, 3) - clean.heads[:, -asking:, heads], pattern[:, :, :, -1]

    def _write(self, layer: int, heads: list[int], change: Float[Tensor, "*rows heads d_head"]) -> Tensor:
        """What a change of some heads' outputs adds to the residual stream."""
        project = self.weights.blocks[layer].out.view(self.a.n_heads, self.a.d_head, -1)[heads]
        return torch.matmul(change.flatten(-2), project.flatten(0, 1))

    def _slots(
        self, layer: int, shift: Shift | None, heads: list[int], sets: int, width: int
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Queries of the asking columns, keys and values of all, ``[senders, pairs, heads, columns, d_head]``."""
        clean, block = self.clean.blocks[layer], self.weights.blocks[layer]
        asking = width if layer < self.graph.n_layers - 1 else 1
        if shift is None:
            parts = (clean.q[:, heads, -asking:], clean.k[:, heads], clean.v[:, heads])
            q, k, v = (part.expand(sets, *part.shape).clone() for part in parts)
            return q, k, v
        s, n, c, d = shift.shape
        normed = normalise(self.a, clean.resid[:, -c:] + shift)[0].view(s * n * c, d)
        qkv = torch.addmm(block.qkv_bias, normed, block.qkv).view(s * n, c, -1)
        q, k, v = (rows.view(s, n, *rows.shape[1:]) for rows in split_slots(qkv, self.a.n_heads))
        q = q[:, :, :, -asking:].contiguous()
        self._rotate(q)
        self._rotate(k)
        earlier = clean.k.shape[2] - c
        keys, values = (rows[:, :, :earlier].expand(s, -1, -1, -1, -1) for rows in (clean.k, clean.v))
        return q, torch.cat([keys, k], dim=3), torch.cat([values, v], dim=3)

    def clean_attention(self, watch: Watch) -> Float[Tensor, "pairs heads places"]:
        rows = {head: self.clean.blocks[head[0]].pattern[None, :, head[1], -1] for head in watch.heads}
        nothing = self.clean.final.new_empty(1, len(self.clean.final), len(watch.heads), watch.positions.shape[1])
        return self._look(watch, rows, nothing)[0].cpu()

    def _look(
        self, watch: Watch, patterns: Mapping[Head, Tensor], otherwise: Float[Tensor, "senders pairs heads places"]
    ) -> Float[Tensor, "senders pairs heads places"]:
        """Attention from the read position to the watched tokens, of heads that ran."""
        columns = watch.positions.to(self.subject.device) + self.plan.layout.padding[:, None]
        found = otherwise.clone()
        for place, head in enumerate(watch.heads):
            if head in patterns:
                rows = patterns[head]
                found[:, :, place] = rows.gather(2, columns.expand(len(rows), -1, -1)).to(found.device)
        return found

    def interchange(self, heads: Sequence[Head]) -> Interchange:
        graph, width, everyone = self.graph, self.plan.layout.window, list(range(self.graph.n_heads))
        direct = self.clean.final.new_zeros(graph.n_writers, len(self.clean.final))
        shift: Shift | None = None
        for layer in range(min((at for at, _ in heads), default=graph.n_layers), graph.n_layers):
            fixed = [head for at, head in heads if at == layer]
            change = torch.zeros_like(self.clean.blocks[layer].heads)[None]
            if shift is not None:
                change, _ = self._heads(layer, shift, everyone, {}, 1, width)
            change[:, :, :, fixed] = self._head_differences(layer)[:, :, fixed]
            shift, mlp = self._end_block(layer, shift, self._write(layer, everyone, change), None, 1, width)
            first = graph.head_writer(layer, 0)
            direct[first : first + graph.n_heads] = self._heads_direct(layer, change[0, :, -1])
            if mlp is not None:
                direct[graph.mlp_writer(layer)] = self._direct(mlp[0, :, -1])
        return Interchange(self.values(0.0 if shift is None else shift[0, :, -1]), direct.cpu())

    def direct_effects(self, along: Tensor | None = None) -> Float[Tensor, "writers pairs"]:
        found = [self._direct(self.clean.embed[:, -1] - self.corrupted.embed[:, -1], along)[None]]
        for layer, (clean, corrupted) in enumerate(zip(self.clean.blocks, self.corrupted.blocks)):
            found.append(self._heads_direct(layer, -self._head_differences(layer)[:, -1], along))
            found.append(self._direct(clean.mlp.out[:, -1] - corrupted.mlp.out[:, -1], along)[None])
        return torch.cat(found).cpu()

    def _heads_direct(
        self, layer: int, outputs: Float[Tensor, "pairs heads d_head"], along: Tensor | None = None
    ) -> Float[Tensor, "heads pairs"]:
        """Direct effect of something that heads of a block put out at the read position."""
        return torch.stack(
            [self._direct(self._write(layer, [h], outputs[:, h : h + 1]), along) for h in range(self.a.n_heads)]
        )

    def _direct(
        self, written: Float[Tensor, "pairs d_model"], along: Float[Tensor, "pairs d_model"] | None = None
    ) -> Float[Tensor, " pairs"]:
        """Direct effect of something written at the read position, the final norm at its clean scale."""
        along = self.readout.direction if along is None else along
        if along is None:
            raise ImpossibleRequest(
                "Direct effects are those on a difference of logits (logit_diff); this task's metric is prob_diff."
            )
        scale = normalise(self.a, self.clean.final)[2][:, 0]
        return (written * along).sum(dim=-1) * scale

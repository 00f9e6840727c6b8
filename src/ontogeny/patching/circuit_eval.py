"""Evaluating circuits: the mixed run of METHODS 5.1, many circuits cheap.

Every reader's input is ``reference residual + sum over its in-circuit edges of (z_u(this run) - z_u(reference))``, so
in-circuit edges carry what the circuit itself computed and all others exactly the reference. Where the time goes, and
does not:

* the reference run is cached, and nodes without a live edge in and out are not run;
* readers of a block with the same incoming edges share one input and one norm;
* each value in the evaluator carries the number of the structure that made it (which edges, from which values). A
  value whose structure is asked for again is not recomputed: from one circuit of a scan to the next only what lies
  downstream of the changed edges is.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from ontogeny.core.circuit import Circuit
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import PairBatch
from ontogeny.models.forward import Plan, embed, run
from ontogeny.models.functional import activate, normalise
from ontogeny.models.memory import within_memory
from ontogeny.models.readout import readout
from ontogeny.models.subject import Subject, align_pairs, check_batch, pairs_within
from ontogeny.patching.reference import Ablation, Reference, ReferenceBlock, reference_run

log = logging.getLogger(__name__)
REFERENCE = 0
"""Structure number of a value that no in-circuit edge reaches."""
TILE = 12 * 2**20
"""Bytes of readers' inputs made, normed and projected before the next ones, so that they stay in the last cache."""
ALL = slice(None)
UNKNOWN = -1
"""Structure number of a value that has not been computed."""


class CircuitEvaluator:
    """The metric of circuits on one batch of prompt pairs."""

    def __init__(
        self, subject: Subject, batch: PairBatch, ablation: Ablation = "patch", *, batch_pairs: int | None = None
    ) -> None:
        """Run the clean and the corrupted prompts once.

        Args:
            subject: the model.
            batch: the prompt pairs of one split.
            ablation: what edges outside a circuit carry (`ontogeny.patching.reference`).
            batch_pairs: pairs worked on at once; None: as many as fit. ``mean`` always takes all.

        Raises:
            ImpossibleRequest: the batch does not fit the model (`check_batch`).
        """
        check_batch(subject, batch)
        self.graph = subject.graph
        self._subject, self._batch, self._ablation = subject, batch, ablation
        self._size = len(batch) if ablation == "mean" else batch_pairs or pairs_within(subject, batch)
        self._parts: list[_Part] | None = []
        """All parts, once they are made; None: each is made anew when its turn comes, as not all fit into memory."""
        ends = self._measured(lambda part: torch.stack([part.clean, part.corrupted]))
        self.clean: Float[Tensor, " pairs"] = ends[0]
        """Metric of the whole model, each example."""
        self.corrupted: Float[Tensor, " pairs"] = ends[1]
        """Metric of the whole model on the corrupted prompts, each example."""

    def evaluate(self, circuit: Circuit) -> Float[Tensor, " pairs"]:
        """Metric of each example when only this circuit's edges carry the clean run."""
        if circuit.graph != self.graph:
            raise ImpossibleRequest(f"The circuit is one of {circuit.graph}, but the model's graph is {self.graph}.")
        edges = circuit.edges.numpy()
        return self._measured(lambda part: part.evaluate(edges))

    def evaluate_all(self, circuits: Sequence[Circuit]) -> Float[Tensor, "circuits pairs"]:
        """`evaluate` of each; neighbours in the sequence share what they have in common."""
        return torch.stack([self.evaluate(circuit) for circuit in circuits])

    def forget(self) -> None:
        """Let go of what earlier circuits left; the next one is computed whole. For measurements."""
        for part in self._parts or ():
            part.forget()

    def _measured(self, measure: Callable[[_Part], Tensor]) -> Float[Tensor, "*what pairs"]:
        """`measure` of every part; when memory runs out, with less and less in memory at one time."""
        while True:
            found = within_memory(lambda: torch.cat([measure(part) for part in self._each_part()], dim=-1))
            if found is not None:
                return found
            self._retreat()

    def _each_part(self) -> Iterator[_Part]:
        starts = range(0, len(self._batch), self._size)
        made = (_Part(self._subject, self._batch.take(slice(i, i + self._size)), self._ablation) for i in starts)
        if self._parts == []:
            self._parts = list(made)
        yield from made if self._parts is None else self._parts

    def _retreat(self) -> None:
        """Keep no part beyond its turn; then halve them.

        Raises:
            ImpossibleRequest: there is nothing left to divide.
        """
        if self._parts is not None:
            self._parts = None
            log.warning("Out of memory: circuits are evaluated on %d pairs at a time, which is slower.", self._size)
        elif self._size > 1 and self._ablation != "mean":
            self._size //= 2
            log.warning("Out of memory: going on with %d pairs at a time.", self._size)
        else:
            raise ImpossibleRequest(
                f"Out of memory: {self._size} prompt pairs do not fit, and cannot be divided further. Use a smaller "
                "model, a device with more memory, or fewer jobs at once (execution.n_jobs)."
            )


@dataclass
class _BlockState:
    """Current values of a block, and the structure numbers that made them."""

    q: Float[Tensor, "heads pairs asking d_head"]
    k: Float[Tensor, "heads pairs tokens d_head"]
    v: Float[Tensor, "heads pairs tokens d_head"]
    pattern: Float[Tensor, "heads pairs asking tokens"]
    channels: list[int]
    """Structure of each channel: q, k and v of every head."""
    patterns: list[tuple[int, int]]
    """Structures of query and key in each head's pattern."""


class _Part:
    """Evaluation on pairs that fit into memory together."""

    def __init__(self, subject: Subject, batch: PairBatch, ablation: Ablation) -> None:
        self.subject, self.graph = subject, subject.graph
        weights = subject.weights
        pairs = align_pairs(subject, batch, share_prefix=ablation == "patch")
        self.plan: Plan = pairs.plan
        self.readout = readout(weights, batch)
        clean_embed = embed(weights, pairs.clean)
        corrupted = run(weights, embed(weights, pairs.corrupted), pairs.plan)
        self.clean = self.readout.values(run(weights, clean_embed, pairs.plan).final).cpu()
        self.corrupted = self.readout.values(corrupted.final).cpu()
        groups = batch.lengths if batch.groups is None else batch.groups
        self.reference: Reference = reference_run(subject, pairs, corrupted, ablation, groups)
        n, w, d = clean_embed.shape
        early = self.graph.n_writers - self.graph.n_heads - 1
        self.early = clean_embed.new_zeros(early, n, w, d)
        """z(this run) - z(reference) of the writers of all blocks but the last."""
        self.at_end = clean_embed.new_zeros(self.graph.n_writers, n, 1, d)
        """The same of all writers, at the read position."""
        self.early[0] = clean_embed - self.reference.embed
        self.at_end[0] = self.early[0][:, -1:]
        self.mask = pairs.plan.mask[:, 0]
        self.forget()

    def forget(self) -> None:
        """Every value unknown but that of the writer `input`."""
        self.writers = [UNKNOWN] * self.graph.n_writers
        self.writers[0] = 1
        self.structures: dict[tuple[object, ...], int] = {}
        self.state = [self._fresh_state(block) for block in self.reference.blocks]

    def evaluate(self, edges: Bool[np.ndarray, "writers readers"]) -> Float[Tensor, " pairs"]:
        live: Bool[np.ndarray, " writers"] = np.any(edges, axis=1)
        columns: list[list[int]] = [[] for _ in range(self.graph.n_readers)]
        for reader, writer in zip(*(places.tolist() for places in np.nonzero(edges.T))):
            columns[reader].append(writer)
        for layer in range(self.graph.n_layers):
            self._update_heads(layer, columns, live)
            self._update_mlp(layer, columns, live)
        return self.readout.values(self._final(columns[self.graph.logits_reader])).cpu()

    def _fresh_state(self, block: ReferenceBlock) -> _BlockState:
        H = self.graph.n_heads
        q, k, v = (x.clone() for x in block.qkv)
        return _BlockState(q, k, v, block.pattern.clone(), [REFERENCE] * (3 * H), [(REFERENCE, REFERENCE)] * H)

    def _structure(self, sources: list[int]) -> int:
        """Number of the value that a reader with these in-circuit edges gets."""
        if not sources:
            return REFERENCE
        key = (*sources, None, *(self.writers[u] for u in sources))
        return self.structures.setdefault(key, len(self.structures) + 2)

    def _update_heads(self, layer: int, columns: list[list[int]], live: Bool[np.ndarray, " writers"]) -> None:
        H, state = self.graph.n_heads, self.state[layer]
        first_writer = self.graph.head_writer(layer, 0)
        sources = [columns[self.graph.head_reader(layer, *divmod(channel, H))] for channel in range(3 * H)]
        stale_channels: dict[int, list[int]] = {}
        stale_heads, stale_patterns = [], []
        for head in np.flatnonzero(live[first_writer : first_writer + H]).tolist():
            channels = (head, H + head, 2 * H + head)
            wanted = tuple(self._structure(sources[c]) for c in channels)
            structure = self.structures.setdefault(("head", *wanted), len(self.structures) + 2)
            if self.writers[first_writer + head] == structure:
                continue
            self.writers[first_writer + head] = structure
            for channel, number in zip(channels, wanted):
                if state.channels[channel] != number:
                    state.channels[channel] = number
                    stale_channels.setdefault(number, []).append(channel)
            if state.patterns[head] != wanted[:2]:
                state.patterns[head] = (wanted[0], wanted[1])
                stale_patterns.append(head)
            stale_heads.append(head)
        if not stale_heads:
            return
        self._update_channels(layer, stale_channels, sources)
        if stale_patterns:
            self._update_patterns(state, stale_patterns)
        self._write_heads(layer, stale_heads)

    def _update_channels(self, layer: int, stale: dict[int, list[int]], columns: list[list[int]]) -> None:
        """Recompute queries, keys and values, one group of equal inputs at a time."""
        H, reference, state = self.graph.n_heads, self.reference.blocks[layer], self.state[layer]
        for channel in stale.pop(REFERENCE, []):
            slot, head = divmod(channel, H)
            (state.q, state.k, state.v)[slot][head] = reference.qkv[slot][head]
        asking = state.q.shape[2]
        whole = asking == reference.resid.shape[1]
        groups = [sorted(group) for group in stale.values()]
        everywhere = [group if whole else [c for c in group if c >= H] for group in groups]
        self._project(layer, [group for group in everywhere if group], columns, reference.resid.shape[1])
        if not whole:
            queries = [[c for c in group if c < H] for group in groups]
            self._project(layer, [group for group in queries if group], columns, asking)

    def _project(self, layer: int, groups: list[list[int]], columns: list[list[int]], width: int) -> None:
        """Queries, keys and values of the channels in `groups`, at the last `width` columns."""
        if not groups:
            return
        a, block, state = self.subject.architecture, self.subject.weights.blocks[layer], self.state[layer]
        mixed = self._mix(self.reference.blocks[layer].resid, [columns[group[0]] for group in groups], width)
        H, projections = a.n_heads, [_channel_weights(block.qkv, block.qkv_bias, c, a.d_head) for c in groups]
        for tile in self._tiles(len(groups) * width):
            for rows, channels, (weight, bias) in zip(normalise(a, mixed(tile))[0], groups, projections):
                out = torch.addmm(bias, rows.flatten(0, 1), weight)
                out = out.view(-1, width, len(channels), a.d_head).permute(0, 2, 1, 3)
                rotated = sum(c < 2 * H for c in channels)
                if rotated:
                    self.plan.rotary.of(tile).rotate(out[:, :rotated])
                for place, channel in enumerate(channels):
                    slot, head = divmod(channel, H)
                    (state.q, state.k, state.v)[slot][head][tile, -width:] = out[:, place]

    def _tiles(self, rows: int) -> list[slice]:
        """Slices of the pairs, each of whose `rows` inputs a pair stay in a processor's cache until they are used."""
        n, _, d = self.reference.embed.shape
        size = n
        if self.reference.embed.device.type == "cpu":
            size = max(1, TILE // (rows * d * self.reference.embed.element_size()))
        return [slice(i, i + size) for i in range(0, n, size)]

    def _update_patterns(self, state: _BlockState, heads: list[int]) -> None:
        q, k = _rows(state.q, heads), _rows(state.k, heads)
        scores = torch.matmul(q, k.transpose(-1, -2)).mul_(q.shape[-1] ** -0.5).add_(self.mask[:, -q.shape[2] :])
        _set_rows(state.pattern, heads, torch.softmax(scores, dim=-1))

    def _write_heads(self, layer: int, heads: list[int]) -> None:
        """z(this run) - z(reference) of heads whose inputs changed."""
        a, reference, state = self.subject.architecture, self.reference.blocks[layer], self.state[layer]
        out = torch.matmul(_rows(state.pattern, heads), _rows(state.v, heads))
        out -= _rows(reference.heads, heads)
        projection = _rows(self.subject.weights.blocks[layer].out.view(a.n_heads, a.d_head, a.d_model), heads)
        written = torch.bmm(out.view(len(heads), -1, a.d_head), projection)
        first = self.graph.head_writer(layer, 0)
        self._keep([first + head for head in heads], written.view(*out.shape[:-1], a.d_model))

    def _keep(self, writers: list[int], written: Float[Tensor, "writers pairs asking d_model"]) -> None:
        _set_rows(self.at_end, writers, written[:, :, -1:])
        if writers[0] < len(self.early):
            _set_rows(self.early, writers, written)

    def _update_mlp(self, layer: int, columns: list[list[int]], live: Bool[np.ndarray, " writers"]) -> None:
        writer, sources = self.graph.mlp_writer(layer), columns[self.graph.mlp_reader(layer)]
        if not live[writer]:
            return
        structure = self.structures.setdefault(("mlp", self._structure(sources)), len(self.structures) + 2)
        if self.writers[writer] == structure:
            return
        self.writers[writer] = structure
        a, block, reference = (
            self.subject.architecture,
            self.subject.weights.blocks[layer],
            self.reference.blocks[layer],
        )
        n, asking, d = reference.mid.shape
        if sources:
            rows = self._mix(reference.mid, [sources], asking)(ALL).view(n * asking, d)
            hidden = activate(a, torch.addmm(block.mlp_in_bias, normalise(a, rows)[0], block.mlp_in))
            written = torch.addmm(block.mlp_out_bias, hidden, block.mlp_out).view(n, asking, d).sub_(reference.mlp)
        elif reference.own_mlp is not None:
            written = reference.own_mlp - reference.mlp
        else:
            written = torch.zeros_like(reference.mlp)
        self._keep([writer], written[None])

    def _mix(
        self, base: Float[Tensor, "pairs columns d_model"], groups: list[list[int]], width: int
    ) -> Callable[[slice], Float[Tensor, "groups pairs width d_model"]]:
        """Reference residual plus the differences of each group's sources, at the last columns of some pairs."""
        base = base[:, -width:]
        stack = self.early if width == self.early.shape[2] and width > 1 else self.at_end
        sources = sorted({u for group in groups for u in group})
        if 3 * len(sources) > sources[-1]:
            stack, place = stack[: sources[-1] + 1], {u: u for u in sources}
        else:
            stack, place = stack[sources], {u: i for i, u in enumerate(sources)}
        choose = torch.zeros(len(groups), len(stack), dtype=base.dtype, device=base.device)
        for row, group in enumerate(groups):
            choose[row, [place[u] for u in group]] = 1.0

        def mixed(pairs: slice) -> Float[Tensor, "groups pairs width d_model"]:
            here = base[pairs]
            flat = here.reshape(1, -1).expand(len(groups), -1)
            return torch.addmm(flat, choose, stack[:, pairs].flatten(1)).view(len(groups), *here.shape)

        return mixed

    def _final(self, sources: list[int]) -> Float[Tensor, "pairs d_model"]:
        """Input of the logits at the read position."""
        if not sources:
            return self.reference.final
        return self._mix(self.reference.final[:, None], [sources], 1)(ALL)[0, :, 0]


def _channel_weights(weight: Tensor, bias: Tensor, channels: list[int], d_head: int) -> tuple[Tensor, Tensor]:
    """Columns of the joint projection; a view where the channels are neighbours."""
    if channels[-1] - channels[0] + 1 == len(channels):
        columns = slice(channels[0] * d_head, (channels[-1] + 1) * d_head)
        return weight[:, columns], bias[columns]
    by_channel = weight.view(len(weight), -1, d_head)
    return by_channel[:, channels].reshape(len(weight), -1), bias.view(-1, d_head)[channels].reshape(-1)


def _rows(x: Tensor, rows: list[int]) -> Tensor:
    """Rows of `x`; a view where they are neighbours."""
    return x[rows[0] : rows[-1] + 1] if rows[-1] - rows[0] + 1 == len(rows) else x[rows]


def _set_rows(x: Tensor, rows: list[int], values: Tensor) -> None:
    if rows[-1] - rows[0] + 1 == len(rows):
        x[rows[0] : rows[-1] + 1] = values
    else:
        x[rows] = values

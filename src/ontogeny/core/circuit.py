"""Edge scores and circuits as immutable values; choosing, pruning and comparing circuits (METHODS 4.1-4.2, 5.4, 8.1).

A `Ranking` orders all edges once and says, for every edge, from which size on it survives pruning. It comes from one
pass over the layers, because pruning to a fixpoint keeps exactly the edges that lie on a path from the input to the
logits: an edge u -> v of rank r is kept from ``max(r, grounded(u), useful(v))`` on, where u is *grounded* once a path
from the input leads to it, and v *useful* once a path leads from it to the logits. So every circuit of a scan over
sizes costs one comparison.
"""

from __future__ import annotations

import heapq
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Final, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec

Selection = Literal["greedy", "topn", "threshold", "greedy-signed", "topn-signed", "threshold-signed"]
"""How edges are ranked; a rule alone goes by |score|, ``-signed`` by the score itself, harmful edges last."""


@dataclass(frozen=True)
class EdgeScores:
    """One score an edge; > 0: the edge helps, corrupting it is predicted to lower the metric (METHODS 3.3)."""

    graph: GraphSpec
    values: Float[Tensor, "writers readers"]
    """0 where there is no edge."""
    method: str
    """E.g. ``eap_ig-right-5``."""

    @property
    def finite(self) -> bool:
        """Whether every score is a finite number."""
        return bool(self.values.isfinite().all())


@dataclass(frozen=True)
class Circuit:
    """A set of edges, after pruning."""

    graph: GraphSpec
    edges: Bool[Tensor, "writers readers"]

    @property
    def n_edges(self) -> int:
        """Edges kept."""
        return int(self.edges.sum())

    @cached_property
    def nodes(self) -> Bool[Tensor, " nodes"]:
        """True for each node that an edge touches: the writers in their order, then the logits.

        An edge into a reader that heads share touches those of them that something else touches.
        """
        feeds, read = self.graph.feeds, self.edges.any(dim=0)
        alone = feeds & (feeds.sum(dim=0) == 1)
        touched = self.edges.any(dim=1) | (alone & read).any(dim=1)
        return torch.cat([touched, read[-1:]])

    @property
    def n_nodes(self) -> int:
        """Nodes kept, input and logits included."""
        return int(self.nodes.sum())

    @cached_property
    def edge_names(self) -> tuple[str, ...]:
        """Names of the edges, by writer, then reader."""
        return tuple(self.graph.edge_name(int(u), int(v)) for u, v in self.edges.nonzero())


def full_circuit(graph: GraphSpec) -> Circuit:
    """All edges."""
    return Circuit(graph, graph.real_edges.clone())


def empty_circuit(graph: GraphSpec) -> Circuit:
    """No edge."""
    return Circuit(graph, torch.zeros_like(graph.real_edges))


def complement(circuit: Circuit) -> Circuit:
    """The full graph with this circuit's edges removed; not pruned (METHODS 5.4)."""
    return Circuit(circuit.graph, circuit.graph.real_edges & ~circuit.edges)


def prune(circuit: Circuit) -> Circuit:
    """Drop nodes without inputs or without outputs, and their edges, to a fixpoint (METHODS 4.2)."""
    never = circuit.graph.n_edges + 1
    order = np.where(circuit.edges.numpy(), 0, never)
    return Circuit(circuit.graph, torch.from_numpy(_keep_from(circuit.graph, order) < never))


@dataclass(frozen=True)
class Ranking:
    """The order in which edges are asked for, and from which size on each one survives pruning."""

    graph: GraphSpec
    order: Int[np.ndarray, "writers readers"]
    """1 for the edge that is asked for first, ..., E; E + 1 where there is no edge."""
    keep_from: Int[np.ndarray, "writers readers"]
    """Least n at which the edge is in the pruned circuit of n asked edges; E + 1 where there is no edge."""

    def circuit(self, asked: int) -> Circuit:
        """The pruned circuit of the first `asked` edges.

        Raises:
            ImpossibleRequest: `asked` is negative or more than there are edges.
        """
        if not 0 <= asked <= self.graph.n_edges:
            raise ImpossibleRequest(
                f"A circuit of {asked} edges was asked for, but this graph has {self.graph.n_edges}: "
                f"ask for 0 to {self.graph.n_edges}."
            )
        return Circuit(self.graph, torch.from_numpy(self.keep_from <= asked))

    @cached_property
    def kept(self) -> Int[np.ndarray, " sizes"]:
        """Edges kept at each n = 0, 1, ..., E."""
        return np.bincount(self.keep_from.ravel(), minlength=self.graph.n_edges + 2)[:-1].cumsum()

    def representative(self, asked: int) -> int:
        """Least n that gives the same pruned circuit as `asked`: circuits are evaluated once under this key."""
        return int(np.searchsorted(self.kept, self.kept[asked]))

    def size_keeping(self, kept: int) -> int:
        """Least n whose pruned circuit has at least `kept` edges.

        Raises:
            ImpossibleRequest: more edges than there are.
        """
        if kept > self.graph.n_edges:
            raise ImpossibleRequest(f"A circuit that keeps {kept} edges was asked for; there are {self.graph.n_edges}.")
        return int(np.searchsorted(self.kept, kept))


def rank_edges(scores: EdgeScores, selection: Selection = "greedy") -> Ranking:
    """Rank all edges by absolute score, or with ``-signed`` by the score itself (METHODS 4.1).

    ``greedy`` starts with the logits and repeatedly takes the strongest edge into a node that is already reached; its
    writer then opens its own inputs. ``topn`` takes the strongest edges anywhere. Equal scores: lower writer, then
    lower reader first. ``threshold`` is ``topn`` where equal scores stand or fall together: n asked edges are the
    largest set of at most n that some threshold leaves (`edges_above`).

    Raises:
        ImpossibleRequest: a score is not finite.
    """
    return _ranked(scores, selection, scores.graph.n_edges)


def _ranked(scores: EdgeScores, selection: Selection, most: int) -> Ranking:
    """A greedy ranking ends after `most` edges: the others are as if they were not there."""
    if not scores.finite:
        raise ImpossibleRequest("Edges cannot be ranked: some scores are not finite. Check the checkpoint's weights.")
    graph = scores.graph
    rule, _, by = selection.partition("-")
    strength = _strength(scores, signed=by == "signed")
    if rule == "greedy":
        order = _greedy_order(graph, strength, most)
    else:
        order = {"topn": _topn_order, "threshold": _threshold_order}[rule](graph, strength)
    return Ranking(graph, order, _keep_from(graph, order))


def edges_above(scores: EdgeScores, threshold: float, *, signed: bool = False) -> Circuit:
    """All edges with |score| >= `threshold` (with `signed`: score >= `threshold`), pruned."""
    return prune(Circuit(scores.graph, torch.from_numpy(_strength(scores, signed=signed) >= threshold)))


def grow(scores: EdgeScores, kept: int, selection: Selection = "greedy") -> Circuit:
    """The smallest circuit of this ranking that keeps at least `kept` edges after pruning (METHODS 5.4, 8.1)."""
    return grow_to(scores, (kept,), selection)[0]


def grow_to(scores: EdgeScores, sizes: Sequence[int], selection: Selection = "greedy") -> tuple[Circuit, ...]:
    """`grow` to each of several sizes; no more edges are ranked than the largest of them is likely to need."""
    graph, largest = scores.graph, max(sizes)
    most = min(graph.n_edges, _MARGIN * largest)
    ranking = _ranked(scores, selection, most)
    if most < graph.n_edges and ranking.kept[most] < largest:
        ranking = rank_edges(scores, selection)
    return tuple(ranking.circuit(ranking.size_keeping(size)) for size in sizes)


def matched_size(graph: GraphSpec, fraction: float, floor: int) -> int:
    """Edges of a circuit of matched size: this share of the graph's, and no fewer than `floor` (or all there are)."""
    return min(graph.n_edges, max(floor, round(fraction * graph.n_edges)))


def permute_scores(scores: EdgeScores, generator: torch.Generator) -> EdgeScores:
    """Scores shuffled among edges into readers of the same kind in the same layer: the null of METHODS 5.4."""
    graph, values = scores.graph, scores.values.clone()
    kinds = np.array(graph.reader_kinds)
    layers = graph.reader_layers.numpy()
    for layer in range(graph.n_layers + 1):
        for kind in ("q", "k", "v", "mlp", "logits"):
            columns = torch.from_numpy((layers == layer) & (kinds == kind))
            here = graph.real_edges & columns
            pool = values[here]
            values[here] = pool[torch.randperm(len(pool), generator=generator).to(values.device)]
    return EdgeScores(graph, values, f"{scores.method}-permuted")


def random_circuits(
    scores: EdgeScores, kept: int, draws: int, generator: torch.Generator, selection: Selection = "greedy"
) -> tuple[Circuit, ...]:
    """Circuits selected on permuted scores, each grown until it keeps at least `kept` edges (METHODS 5.4)."""
    return tuple(grow(permute_scores(scores, generator), kept, selection) for _ in range(draws))


def jaccard_edges(a: Circuit, b: Circuit) -> float:
    """Edges in both over edges in either; NaN if both are empty."""
    return _jaccard(a.edges, b.edges)


def jaccard_nodes(a: Circuit, b: Circuit) -> float:
    """Nodes in both over nodes in either, input and logits included; NaN if both are empty."""
    return _jaccard(a.nodes, b.nodes)


def weighted_jaccard(a: EdgeScores, b: EdgeScores) -> float:
    """Sum of minima over sum of maxima of |score| / sum |score| over all edges; NaN if either is all zero."""
    return _overlap(*(scores.values.double().abs() for scores in (a, b)))


def node_strengths(scores: EdgeScores) -> Float[Tensor, " nodes"]:
    """Sum of |score| over each node's edges, in and out: the writers in their order, then the logits."""
    strength = scores.values.double().abs()
    into = strength.sum(dim=0)
    sums = torch.cat([strength.sum(dim=1), into[-1:]])
    return sums.index_add(0, scores.graph.writer_of_reader[:-1], into[:-1])


def weighted_nodes(one: EdgeScores, other: EdgeScores) -> float:
    """Sum of minima over sum of maxima of the nodes' shares of |score|; NaN if either is all zero."""
    return _overlap(node_strengths(one), node_strengths(other))


def _overlap(a: Float[Tensor, "*things"], b: Float[Tensor, "*things"]) -> float:
    """Sum of minima over sum of maxima of the shares of two amounts of the same things."""
    x, y = a / a.sum(), b / b.sum()
    return float(torch.minimum(x, y).sum() / torch.maximum(x, y).sum())


_MARGIN: Final = 2
"""Edges that are ranked for each that a circuit is to keep: pruning seldom takes as many as it leaves."""


def _jaccard(a: Bool[Tensor, ...], b: Bool[Tensor, ...]) -> float:
    union = int((a | b).sum())
    return int((a & b).sum()) / union if union else float("nan")


def _strength(scores: EdgeScores, *, signed: bool) -> Float[np.ndarray, "writers readers"]:
    """What edges are ranked by; minus infinity where there is no edge."""
    values = scores.values.double()
    return np.where(scores.graph.real_edges.numpy(), (values if signed else values.abs()).numpy(), -np.inf)


def _threshold_order(
    graph: GraphSpec, strength: Float[np.ndarray, "writers readers"]
) -> Int[np.ndarray, "writers readers"]:
    """How many edges are at least as strong as each one."""
    real = graph.real_edges.numpy()
    weaker = np.searchsorted(np.sort(strength[real]), strength, side="left")
    return np.where(real, graph.n_edges - weaker, graph.n_edges + 1)


def _topn_order(graph: GraphSpec, strength: Float[np.ndarray, "writers readers"]) -> Int[np.ndarray, "writers readers"]:
    order = np.empty(strength.size, dtype=np.int64)
    order[np.argsort(-strength, axis=None, kind="stable")] = np.arange(1, strength.size + 1)
    return np.minimum(order, graph.n_edges + 1).reshape(strength.shape)


def _greedy_order(
    graph: GraphSpec, strength: Float[np.ndarray, "writers readers"], most: int
) -> Int[np.ndarray, "writers readers"]:
    """One heap that holds the strongest edge not yet taken of each open reader; the first `most` edges."""
    order = np.full(strength.shape, graph.n_edges + 1, dtype=np.int64)
    by_strength = np.argsort(-strength, axis=0, kind="stable")
    sorted_writers, weakness = by_strength.T.tolist(), np.take_along_axis(-strength, by_strength, 0).T.tolist()
    n_inputs = graph.real_edges.sum(dim=0).tolist()
    readers_of = [feeds.nonzero().flatten().tolist() for feeds in graph.feeds]
    heap: list[tuple[float, int, int, int]] = []

    def push(reader: int, place: int) -> None:
        if place < n_inputs[reader]:
            heapq.heappush(heap, (weakness[reader][place], sorted_writers[reader][place], reader, place))

    push(graph.logits_reader, 0)
    reached, opened = [False] * graph.n_writers, set[int]()
    rank = 0
    while heap and rank < most:
        _, writer, reader, place = heapq.heappop(heap)
        rank += 1
        order[writer, reader] = rank
        push(reader, place + 1)
        if not reached[writer]:
            reached[writer] = True
            for reader in readers_of[writer]:
                if reader not in opened:  # heads may share it
                    opened.add(reader)
                    push(reader, 0)
    return order


def _keep_from(graph: GraphSpec, order: Int[np.ndarray, "writers readers"]) -> Int[np.ndarray, "writers readers"]:
    """Least n at which each edge lies on a path input -> logits made of edges of rank <= n."""
    H, G, never = graph.n_heads, graph.kv_readers, graph.n_edges + 1
    grounded = np.full(graph.n_writers, never, dtype=np.int64)
    grounded[0] = 0
    useful = np.full(graph.n_readers, never, dtype=np.int64)
    useful[graph.logits_reader] = 0

    def reached_by(readers: slice) -> Int[np.ndarray, " readers"]:
        return np.maximum(order[:, readers], grounded[:, None]).min(axis=0)

    def leading_on(writers: slice) -> Int[np.ndarray, " writers"]:
        return np.maximum(order[writers], useful).min(axis=1)

    for layer in range(graph.n_layers):
        first, mlp, own = graph.head_reader(layer, 0, 0), graph.mlp_reader(layer), graph.head_writer(layer, 0)
        query, key, value = np.split(reached_by(slice(first, mlp)), [H, H + G])
        grounded[own : own + H] = np.minimum(query, np.repeat(np.minimum(key, value), H // G))
        grounded[own + H] = reached_by(slice(mlp, mlp + 1))[0]
    for layer in reversed(range(graph.n_layers)):
        first, mlp, own = graph.head_reader(layer, 0, 0), graph.mlp_reader(layer), graph.head_writer(layer, 0)
        useful[mlp] = leading_on(slice(own + H, own + H + 1))[0]
        heads = leading_on(slice(own, own + H))
        useful[first:mlp] = np.concatenate([heads, np.tile(heads.reshape(G, -1).min(axis=1), 2)])
    return np.maximum(np.maximum(order, grounded[:, None]), useful)

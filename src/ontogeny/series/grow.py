"""Circuits of one kept size, so that likeness is not blurred by the search's choice of size (METHODS 8.1)."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence

import torch

from ontogeny.core.circuit import Circuit, EdgeScores


def grow(scores: EdgeScores, sizes: Sequence[int]) -> dict[int, Circuit]:
    """The first greedy circuit that keeps at least each of `sizes` edges after pruning; all edges if none does.

    One pass of the greedy rule (METHODS 4.1) serves all sizes. A node that the greedy rule has reached always leads to
    the logits, so an edge survives pruning exactly if its writer is fed, in the circuit, from the input: fed writers
    are tracked while edges are added, and no circuit needs to be pruned.
    """
    graph = scores.graph
    chosen: dict[int, Circuit] = {}
    waiting = sorted(set(sizes))
    kept = torch.zeros(graph.n_writers, graph.n_readers, dtype=torch.bool)
    fed = [True] + [False] * (graph.n_writers - 1)
    idle: list[list[int]] = [[] for _ in range(graph.n_writers)]
    own = graph.writer_of_reader.tolist()
    count = 0
    for writer, reader in _greedy_order(scores):
        fresh = [(writer, reader)] if fed[writer] else []
        if not fed[writer]:
            idle[writer].append(reader)
        while fresh:
            u, v = fresh.pop()
            kept[u, v] = True
            count += 1
            node = own[v]
            if node >= 0 and not fed[node]:
                fed[node] = True
                fresh += [(node, reader) for reader in idle[node]]
        while waiting and count >= waiting[0]:
            chosen[waiting.pop(0)] = Circuit(graph, kept.clone())
        if not waiting:
            break
    return chosen | {size: Circuit(graph, kept) for size in waiting}


def _greedy_order(scores: EdgeScores) -> Iterator[tuple[int, int]]:
    """Edges by |score| into nodes that already lead to the logits, largest first; ties in index order."""
    graph = scores.graph
    strength = scores.values.double().abs().T.tolist()
    real = graph.real_edges.T.tolist()
    own = graph.writer_of_reader.tolist()
    slots: dict[int, list[int]] = {}
    for reader, node in enumerate(own):
        slots.setdefault(node, []).append(reader)
    heap: list[tuple[float, int, int]] = []

    def open_node(node: int) -> None:
        for reader in slots.get(node, ()):
            for writer, exists in enumerate(real[reader]):
                if exists:
                    heapq.heappush(heap, (-strength[reader][writer], writer, reader))

    reached = {-1, 0}
    open_node(-1)
    while heap:
        _, writer, reader = heapq.heappop(heap)
        yield writer, reader
        if writer not in reached:
            reached.add(writer)
            open_node(writer)

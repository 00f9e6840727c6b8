"""The graph of a transformer: writers, readers, and which edges exist (METHODS 3.1-3.2).

A *writer* adds to the residual stream (the embedding, a head, an MLP); a *reader* takes its input from it (a head's
query, key or value, an MLP, the logits). An edge u -> v exists where v reads after u has written. Scores and circuits
are dense ``[writers, readers]`` tensors over a `GraphSpec`: never one object per edge.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.core.errors import OntogenyError

ReaderKind = Literal["q", "k", "v", "mlp", "logits"]
SLOTS: tuple[ReaderKind, ...] = ("q", "k", "v")


@dataclass(frozen=True)
class GraphSpec:
    """Layers, heads, and whether attention and MLP of a block read in parallel."""

    n_layers: int
    n_heads: int
    parallel: bool = True

    @property
    def n_writers(self) -> int:
        """F = 1 + L (H + 1)."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """R = L (3 H + 1) + 1."""
        return self.n_layers * (3 * self.n_heads + 1) + 1

    @property
    def n_edges(self) -> int:
        """E = (3H+1) [L + (H+1) L (L-1) / 2] + 1 + L (H+1), sequential blocks + L H (METHODS 3.2)."""
        L, H = self.n_layers, self.n_heads
        parallel = (3 * H + 1) * (L + (H + 1) * L * (L - 1) // 2) + 1 + L * (H + 1)
        return parallel if self.parallel else parallel + L * H

    def head_writer(self, layer: int, head: int) -> int:
        """Writer index of head (layer, head)."""
        return 1 + layer * (self.n_heads + 1) + head

    def mlp_writer(self, layer: int) -> int:
        """Writer index of the MLP of `layer`."""
        return 1 + layer * (self.n_heads + 1) + self.n_heads

    def head_reader(self, layer: int, slot: int, head: int) -> int:
        """Reader index of a head's slot: 0 query, 1 key, 2 value."""
        return layer * (3 * self.n_heads + 1) + slot * self.n_heads + head

    def mlp_reader(self, layer: int) -> int:
        """Reader index of the MLP of `layer`."""
        return layer * (3 * self.n_heads + 1) + 3 * self.n_heads

    @property
    def logits_reader(self) -> int:
        """Reader index of the logits: the last."""
        return self.n_readers - 1

    def writers_before(self, layer: int, *, mlp: bool = False) -> int:
        """How many writers a reader in `layer` reads: a prefix of the writer order."""
        before = 1 + layer * (self.n_heads + 1)
        return before + self.n_heads if mlp and not self.parallel else before

    @cached_property
    def writer_names(self) -> tuple[str, ...]:
        """`input`, `a0.h0` ..., `m0`, ...: the names that the EAP-IG library uses."""
        names = ["input"]
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}" for head in range(self.n_heads)] + [f"m{layer}"]
        return tuple(names)

    @cached_property
    def reader_names(self) -> tuple[str, ...]:
        """`a0.h0<q>` ..., `m0`, ..., `logits`."""
        names = []
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<{slot}>" for slot in SLOTS for head in range(self.n_heads)] + [f"m{layer}"]
        return (*names, "logits")

    @cached_property
    def reader_kinds(self) -> tuple[ReaderKind, ...]:
        """Kind of each reader."""
        block: list[ReaderKind] = [slot for slot in SLOTS for _ in range(self.n_heads)] + ["mlp"]
        return (*(block * self.n_layers), "logits")

    @cached_property
    def reader_layers(self) -> Int[Tensor, " readers"]:
        """Layer of each reader; the logits count as layer L."""
        layers = torch.arange(self.n_layers).repeat_interleave(3 * self.n_heads + 1)
        return torch.cat([layers, torch.tensor([self.n_layers])])

    @cached_property
    def writer_of_reader(self) -> Int[Tensor, " readers"]:
        """The writer of the node that a reader belongs to: all three slots of a head give that head; logits -1."""
        own = []
        for layer in range(self.n_layers):
            own += [self.head_writer(layer, head) for _ in SLOTS for head in range(self.n_heads)]
            own.append(self.mlp_writer(layer))
        return torch.tensor([*own, -1])

    @cached_property
    def real_edges(self) -> Bool[Tensor, "writers readers"]:
        """True where an edge exists."""
        prefix = [
            self.writers_before(int(layer), mlp=kind == "mlp")
            for layer, kind in zip(self.reader_layers, self.reader_kinds)
        ]
        return torch.arange(self.n_writers)[:, None] < torch.tensor(prefix)[None, :]

    def edge_name(self, writer: int, reader: int) -> str:
        """`a0.h3->a5.h2<v>`."""
        return f"{self.writer_names[writer]}->{self.reader_names[reader]}"

    def edge_index(self, name: str) -> tuple[int, int]:
        """Inverse of `edge_name`.

        Raises:
            OntogenyError: no such edge in this graph.
        """
        match = re.fullmatch(r"(\S+?)->(\S+)", name)
        writer, reader = (match[1], match[2]) if match else ("", "")
        if writer in self.writer_names and reader in self.reader_names:
            index = self.writer_names.index(writer), self.reader_names.index(reader)
            if bool(self.real_edges[index]):
                return index
        raise OntogenyError(
            f"{name!r} is no edge of a graph with {self.n_layers} layers of {self.n_heads} heads; "
            f"edges are named as {self.edge_name(0, self.logits_reader)!r}."
        )

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
    kv_heads: int | None = None
    """With grouped-query attention, if groups are to be readers: key and value readers a layer, each of them shared by
    n_heads / kv_heads heads. None: every head has its own, with or without groups."""

    def __post_init__(self) -> None:
        """Groups are of equal size."""
        if self.kv_heads is not None and (self.kv_heads < 1 or self.n_heads % self.kv_heads):
            raise OntogenyError(f"{self.n_heads} heads cannot share {self.kv_heads} key and value readers evenly.")

    @property
    def kv_readers(self) -> int:
        """Key readers a layer, and value readers."""
        return self.kv_heads or self.n_heads

    @property
    def n_slots(self) -> int:
        """H + 2 G: readers of a layer's heads; 3 H if every head has its own."""
        return self.n_heads + 2 * self.kv_readers

    @property
    def n_writers(self) -> int:
        """F = 1 + L (H + 1)."""
        return 1 + self.n_layers * (self.n_heads + 1)

    @property
    def n_readers(self) -> int:
        """R = L (3 H + 1) + 1; with groups L (H + 2 G + 1) + 1."""
        return self.n_layers * (self.n_slots + 1) + 1

    @property
    def n_edges(self) -> int:
        """E = (3H+1) [L + (H+1) L (L-1) / 2] + 1 + L (H+1), sequential blocks + L H (METHODS 3.2); groups: H + 2G."""
        L, H = self.n_layers, self.n_heads
        parallel = (self.n_slots + 1) * (L + (H + 1) * L * (L - 1) // 2) + 1 + L * (H + 1)
        return parallel if self.parallel else parallel + L * H

    def head_writer(self, layer: int, head: int) -> int:
        """Writer index of head (layer, head)."""
        return 1 + layer * (self.n_heads + 1) + head

    def mlp_writer(self, layer: int) -> int:
        """Writer index of the MLP of `layer`."""
        return 1 + layer * (self.n_heads + 1) + self.n_heads

    def head_reader(self, layer: int, slot: int, head: int) -> int:
        """Reader index of a head's slot: 0 query, 1 key, 2 value; of its group's, if groups are readers."""
        first = layer * (self.n_slots + 1)
        if slot == 0:
            return first + head
        group = head * self.kv_readers // self.n_heads
        return first + self.n_heads + (slot - 1) * self.kv_readers + group

    def mlp_reader(self, layer: int) -> int:
        """Reader index of the MLP of `layer`."""
        return layer * (self.n_slots + 1) + self.n_slots

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
        """`a0.h0<q>` ..., `m0`, ..., `logits`; readers of groups are `a0.g0<k>`."""
        names, kind = [], "h" if self.kv_heads is None else "g"
        for layer in range(self.n_layers):
            names += [f"a{layer}.h{head}<q>" for head in range(self.n_heads)]
            names += [f"a{layer}.{kind}{i}<{slot}>" for slot in "kv" for i in range(self.kv_readers)] + [f"m{layer}"]
        return (*names, "logits")

    @cached_property
    def reader_kinds(self) -> tuple[ReaderKind, ...]:
        """Kind of each reader."""
        counts = zip(SLOTS, (self.n_heads, self.kv_readers, self.kv_readers))
        block: list[ReaderKind] = [*(slot for slot, count in counts for _ in range(count)), "mlp"]
        return (*(block * self.n_layers), "logits")

    @cached_property
    def reader_layers(self) -> Int[Tensor, " readers"]:
        """Layer of each reader; the logits count as layer L."""
        layers = torch.arange(self.n_layers).repeat_interleave(self.n_slots + 1)
        return torch.cat([layers, torch.tensor([self.n_layers])])

    @cached_property
    def writer_of_reader(self) -> Int[Tensor, " readers"]:
        """The writer of the node that a reader belongs to: all three slots of a head give that head; logits -1.

        Raises:
            OntogenyError: readers of groups belong to several heads (`feeds`).
        """
        self.require_own_readers("This")
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

    @cached_property
    def feeds(self) -> Bool[Tensor, "writers readers"]:
        """True where what the reader reads goes into what the writer writes."""
        found = torch.zeros(self.n_writers, self.n_readers, dtype=torch.bool)
        for layer in range(self.n_layers):
            found[self.mlp_writer(layer), self.mlp_reader(layer)] = True
            for head in range(self.n_heads):
                found[self.head_writer(layer, head), [self.head_reader(layer, slot, head) for slot in range(3)]] = True
        return found

    def require_own_readers(self, what: str) -> None:
        """Refuse a graph whose readers are shared.

        Raises:
            OntogenyError: it is one.
        """
        if self.kv_heads is not None:
            raise OntogenyError(
                f"{what} needs a graph in which every head has its own key and value readers: load the model with "
                "kv_readers='head'."
            )

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

"""Path patching word for word from METHODS 7.1: one prompt and one set of senders at a time, nothing shared."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from ontogeny.core.pairs import PairBatch
from ontogeny.patching.path_patching import Senders
from support.engine import NaiveNeoX, naive_metric, see_all


def naive_paths(
    model: Any, batch: PairBatch, receivers: list[int], senders: list[Senders], *, freeze: bool, at_end: bool
) -> Tensor:
    """METHODS 7.1 word for word, one prompt and one set of senders at a time: ``[senders, pairs]``."""
    naive = NaiveNeoX(model)
    mlps = {naive.graph.mlp_writer(layer) for layer in range(naive.L)}
    values = torch.empty(len(senders), len(batch), dtype=torch.float64)
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        inputs = [naive.embed(tokens[row, :n]) for tokens in (batch.clean, batch.corrupted)]
        clean, corrupted = (naive.run(x, see_all)[0] for x in inputs)
        for place, sending in enumerate(senders):
            heard: dict[int, Tensor] = {}

            def write(u: int, z: Tensor, sending: Senders = sending, now: Any = clean, then: Any = corrupted) -> Tensor:
                if u in sending:
                    return then[u]
                return z if u in mlps and not freeze else now[u]

            def listen(reader: int, written: list[Tensor], bias: Tensor, heard: dict[int, Tensor] = heard) -> Tensor:
                heard[reader] = see_all(reader, written, bias)
                return heard[reader]

            naive.run(corrupted[0] if 0 in sending else clean[0], listen, write)

            def respond(reader: int, written: list[Tensor], bias: Tensor, heard: dict[int, Tensor] = heard) -> Tensor:
                own = see_all(reader, written, bias)
                if reader not in receivers:
                    return own
                return torch.cat([own[:-1], heard[reader][-1:]]) if at_end else heard[reader]

            _, logits = naive.run(clean[0], respond)
            values[place, row] = naive_metric(logits[-1], batch, row)
    return values


def attention_row(naive: NaiveNeoX, asked: list[Tensor], clean: list[Tensor], head: tuple[int, int]) -> Tensor:
    """Where a head looks from the last token: its query reads `asked`, its keys `clean` writers."""
    at, h = head
    layer, size = naive.model.gpt_neox.layers[at], naive.d_head
    bias = sum(b.attention.dense(naive._value_bias(b)) for b in naive.model.gpt_neox.layers[:at])
    parts = []
    for slot, writers in enumerate((asked, clean)):
        seen = layer.input_layernorm(sum(writers[: naive.graph.writers_before(at)]) + bias)
        rows = slice((3 * h + slot) * size, (3 * h + slot + 1) * size)
        joint = layer.attention.query_key_value
        parts.append(naive._rotate(seen @ joint.weight[rows].T + joint.bias[rows]))
    return (parts[0][-1] @ parts[1].T / size**0.5).softmax(-1)

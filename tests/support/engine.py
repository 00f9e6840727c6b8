"""Small random models and batches for tests of the engine, and a second, slow implementation of everything.

`naive_*` follow METHODS word for word on the Hugging Face modules themselves: one tensor a writer, one residual a
reader, autograd for gradients, no sharing of anything. They share no code with the engine.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import Metric, PairBatch
from ontogeny.models.subject import Subject, subject_of


@lru_cache
def neox_model(
    layers: int = 2, heads: int = 3, d_head: int = 8, vocab: int = 40, parallel: bool = True, double: bool = True
) -> Any:
    """A GPT-NeoX model whose weights, biases and norms are all far from trivial."""
    from transformers import GPTNeoXConfig, GPTNeoXForCausalLM

    d = heads * d_head
    config = GPTNeoXConfig(
        vocab_size=vocab,
        hidden_size=d,
        num_hidden_layers=layers,
        num_attention_heads=heads,
        intermediate_size=2 * d,
        max_position_embeddings=32,
        rotary_pct=0.5,
        use_parallel_residual=parallel,
        tie_word_embeddings=False,
    )
    model = GPTNeoXForCausalLM(config).to(torch.float64 if double else torch.float32).eval().requires_grad_(False)
    shake(model)
    return model


def shake(model: Any, seed: int = 0) -> None:
    """Give every parameter a seeded random value of a size that keeps activations near 1."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in sorted(model.named_parameters()):
        noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64).to(parameter)
        if parameter.ndim == 2:
            scale = 1.0 if "embed_in" in name or "wte" in name else 1.2 * parameter.shape[1] ** -0.5
            parameter.copy_(noise * scale)
        else:
            parameter.copy_(noise * 0.3 + (1.0 if "norm" in name and name.endswith("weight") else 0.0))


@lru_cache
def neox_subject(**options: Any) -> Subject:
    """The same model as a subject."""
    return subject_of(neox_model(**options))


def random_batch(
    vocab: int = 40,
    pairs: int = 5,
    tokens: int = 7,
    *,
    metric: Metric = "logit_diff",
    padded: bool = False,
    answers: int = 2,
    first: int = 2,
    seed: int = 0,
) -> PairBatch:
    """Prompt pairs that differ at positions `first` and `first` + 2; half of the answers are correct."""
    generator = torch.Generator().manual_seed(seed)
    clean = torch.randint(1, vocab, (pairs, tokens), generator=generator)
    corrupted = clean.clone()
    for place in (first, first + 2):
        corrupted[:, place] = (clean[:, place] + 1 + torch.randint(vocab - 2, (pairs,), generator=generator)) % vocab
    lengths = torch.full((pairs,), tokens)
    if padded:
        lengths = torch.randint(first + 3, tokens + 1, (pairs,), generator=generator)
        lengths[0] = tokens
        beyond = torch.arange(tokens)[None, :] >= lengths[:, None]
        clean, corrupted = clean.masked_fill(beyond, 0), corrupted.masked_fill(beyond, 0)
    ids = torch.stack([torch.randperm(vocab, generator=generator)[:answers] for _ in range(pairs)])
    signs = torch.ones(pairs, answers, dtype=torch.float64)
    signs[:, answers // 2 :] = -1.0
    groups = (torch.arange(pairs) % 2) * tokens + lengths
    return PairBatch(clean, corrupted, lengths, ids, signs, metric, groups)


class NaiveNeoX:
    """GPT-NeoX one writer at a time; a run is told what each reader sees."""

    def __init__(self, model: Any) -> None:
        self.model, config = model, model.config
        self.H, self.L = config.num_attention_heads, config.num_hidden_layers
        self.graph = GraphSpec(self.L, self.H, config.use_parallel_residual)
        self.d_head = config.hidden_size // self.H

    def embed(self, tokens: Tensor) -> Tensor:
        return self.model.gpt_neox.embed_in(tokens)

    def run(
        self,
        embedding: Tensor,
        see: Callable[[int, list[Tensor], Tensor], Tensor],
        write: Callable[[int, Tensor], Tensor] = lambda _, z: z,
    ) -> tuple[list[Tensor], Tensor]:
        """Outputs of all writers, and logits at every position, of one prompt ``[tokens, d_model]``.

        ``see(reader, written, bias)`` gives the reader's input from the writers before it and the biases so far;
        ``write(writer, z)`` gives what a writer writes instead of z.
        """
        written, bias = [embedding], torch.zeros_like(embedding)
        for index, layer in enumerate(self.model.gpt_neox.layers):
            heads = [
                write(self.graph.head_writer(index, h), self._head(index, layer, h, see, written, bias))
                for h in range(self.H)
            ]
            after = bias + layer.attention.dense(self._value_bias(layer))
            seen = (written, bias) if self.graph.parallel else (written + heads, after)
            mlp = layer.mlp(layer.post_attention_layernorm(see(self.graph.mlp_reader(index), *seen)))
            mlp = write(self.graph.mlp_writer(index), mlp)
            written, bias = [*written, *heads, mlp], after
        final = self.model.gpt_neox.final_layer_norm(see(self.graph.logits_reader, written, bias))
        return written, self.model.get_output_embeddings()(final)

    def _head(self, index: int, layer: Any, h: int, see: Any, written: list[Tensor], bias: Tensor) -> Tensor:
        attention, size = layer.attention, self.d_head
        parts = []
        for slot in range(3):
            rows = slice((3 * h + slot) * size, (3 * h + slot + 1) * size)
            seen = layer.input_layernorm(see(self.graph.head_reader(index, slot, h), written, bias))
            weight, offset = attention.query_key_value.weight[rows], attention.query_key_value.bias[rows]
            parts.append(seen @ weight.T + (offset if slot < 2 else 0.0))
        q, k, v = parts
        scores = self._rotate(q) @ self._rotate(k).T / size**0.5
        causal = torch.ones_like(scores).tril().bool()
        pattern = scores.masked_fill(~causal, float("-inf")).softmax(-1)
        return pattern @ v @ attention.dense.weight[:, h * size : (h + 1) * size].T

    def _value_bias(self, layer: Any) -> Tensor:
        """b_V of all heads: a constant of every position, as rows of a pattern sum to 1."""
        return layer.attention.query_key_value.bias.view(self.H, 3, self.d_head)[:, 2].reshape(-1)

    def _rotate(self, x: Tensor) -> Tensor:
        """Rotary embedding as complex multiplication, angles in float64."""
        half = self.model.gpt_neox.layers[0].attention.rotary_ndims // 2
        angles = torch.arange(len(x), dtype=torch.float64)[:, None] * 10000.0 ** (
            -torch.arange(half, dtype=torch.float64) / half
        )
        turned = torch.complex(x[:, :half], x[:, half : 2 * half]) * torch.exp(1j * angles)
        return torch.cat([turned.real, turned.imag, x[:, 2 * half :]], dim=1)


def see_all(_: int, written: list[Tensor], bias: Tensor) -> Tensor:
    """The plain residual stream."""
    return sum(written) + bias  # type: ignore[return-value]


def naive_metric(logits: Tensor, batch: PairBatch, row: int) -> Tensor:
    """Metric of example `row` from its logits at the read position."""
    values = logits.softmax(-1) if batch.metric == "prob_diff" else logits
    return (values[batch.answer_ids[row]] * batch.answer_weights[row]).sum()


def naive_scores(model: Any, batch: PairBatch, points: list[tuple[float, tuple[int, ...]]]) -> Tensor:
    """METHODS 3.3 by autograd, one prompt at a time: ``[pairs, writers, readers]``.

    Each point is an alpha and the writers that are moved to ``corrupted + alpha (clean - corrupted)``.
    """
    naive = NaiveNeoX(model)
    found = []
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        embeddings = [naive.embed(tokens[row, :n]) for tokens in (batch.clean, batch.corrupted)]
        clean, corrupted = (naive.run(x, see_all)[0] for x in embeddings)
        total = torch.zeros(naive.graph.n_writers, naive.graph.n_readers, dtype=torch.float64)
        for alpha, moved in points:
            probes: dict[int, Tensor] = {}
            fixed = {u: corrupted[u] + alpha * (clean[u] - corrupted[u]) for u in moved}

            def see(reader: int, written: list[Tensor], bias: Tensor, probes: dict[int, Tensor] = probes) -> Tensor:
                probes[reader] = torch.zeros_like(bias, requires_grad=True)
                return see_all(reader, written, bias) + probes[reader]

            def write(writer: int, z: Tensor, fixed: dict[int, Tensor] = fixed) -> Tensor:
                return fixed.get(writer, z)

            _, logits = naive.run(fixed.get(0, clean[0]), see, write)
            metric = naive_metric(logits[-1], batch, row)
            gradients = torch.autograd.grad(metric, list(probes.values()), allow_unused=True)
            for reader, gradient in zip(probes, gradients):
                for writer in range(naive.graph.n_writers):
                    if naive.graph.real_edges[writer, reader] and gradient is not None:
                        total[writer, reader] += ((clean[writer] - corrupted[writer]) * gradient).sum() / len(points)
        found.append(total)
    return torch.stack(found)


def naive_circuit(model: Any, batch: PairBatch, edges: Tensor, ablation: str = "patch") -> Tensor:
    """METHODS 5.1 and 5.2, one prompt at a time: metric of each example."""
    naive = NaiveNeoX(model)
    rows = range(len(batch))
    lengths = batch.lengths.tolist()
    corrupted = [naive.run(naive.embed(batch.corrupted[r, : lengths[r]]), see_all)[0] for r in rows]
    assert batch.groups is not None
    kinds = [(int(batch.groups[r]), lengths[r]) for r in rows]
    values = []
    for row in rows:
        alike = [r for r in rows if kinds[r] == kinds[row]]
        absent = {
            "patch": corrupted[row],
            "zero": [torch.zeros_like(z) for z in corrupted[row]],
            "mean": [torch.stack([corrupted[r][u] for r in alike]).mean(0) for u in range(naive.graph.n_writers)],
        }[ablation]

        def see(reader: int, written: list[Tensor], bias: Tensor, absent: list[Tensor] = absent) -> Tensor:
            return bias + sum(z if edges[u, reader] else absent[u] for u, z in enumerate(written))  # type: ignore[return-value]

        _, logits = naive.run(naive.embed(batch.clean[row, : lengths[row]]), see)
        values.append(naive_metric(logits[-1], batch, row))
    return torch.stack(values)

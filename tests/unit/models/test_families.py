"""Every family goes through the same suite: logits, writers, gradients and circuits of small random models."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from ontogeny.attribution import score_edges
from ontogeny.attribution.base import score_edges_by_example
from ontogeny.core.behaviour import metric_values
from ontogeny.core.circuit import Circuit, empty_circuit, full_circuit, grow
from ontogeny.core.errors import UnsupportedModel
from ontogeny.core.pairs import PairBatch
from ontogeny.models.families import FAMILIES, read_weights
from ontogeny.models.subject import Subject, subject_of
from ontogeny.params import AttributionParams
from ontogeny.patching import CircuitEvaluator
from support.engine import random_batch, shake

SIZES: dict[str, Any] = {
    "vocab_size": 40,
    "hidden_size": 24,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "intermediate_size": 20,
    "max_position_embeddings": 32,
}
LLAMA = SIZES | {"num_key_value_heads": 2, "tie_word_embeddings": False}


def neox(**more: Any) -> Any:
    from transformers import GPTNeoXConfig

    return GPTNeoXConfig(**SIZES, rotary_pct=0.5, tie_word_embeddings=False, **more)


def gpt2(**more: Any) -> Any:
    from transformers import GPT2Config

    return GPT2Config(vocab_size=40, n_embd=24, n_layer=3, n_head=4, n_inner=20, n_positions=32, **more)


def llama(**more: Any) -> Any:
    from transformers import LlamaConfig

    return LlamaConfig(**(LLAMA | more))


def qwen2(**more: Any) -> Any:
    from transformers import Qwen2Config

    return Qwen2Config(**LLAMA, **more)


def olmo(**more: Any) -> Any:
    from transformers import OlmoConfig

    return OlmoConfig(**(LLAMA | {"num_key_value_heads": 4}), **more)


KINDS: dict[str, Callable[[], Any]] = {
    "gpt_neox parallel": lambda: neox(use_parallel_residual=True),
    "gpt_neox sequential": lambda: neox(use_parallel_residual=False),
    "gpt2": gpt2,
    "llama grouped": llama,
    "llama ungrouped, wide heads, biases": lambda: llama(
        num_key_value_heads=4, head_dim=10, attention_bias=True, mlp_bias=True
    ),
    "llama grouped, a reader a group": llama,
    "qwen2": qwen2,
    "olmo": olmo,
}


@lru_cache
def model_of(kind: str) -> Any:
    from transformers import AutoModelForCausalLM

    model = AutoModelForCausalLM.from_config(KINDS[kind]()).to(torch.float64).eval().requires_grad_(False)
    shake(model)
    return model


@lru_cache
def subject_of_kind(kind: str) -> Subject:
    return subject_of(model_of(kind), kv_readers="group" if kind.endswith("a reader a group") else "head")


def last_logits(model: Any, embeddings: list[Tensor]) -> Tensor:
    return torch.stack([model(inputs_embeds=x[None]).logits[0, -1] for x in embeddings])


def embeddings_of(model: Any, tokens: Tensor, batch: PairBatch) -> list[Tensor]:
    return [model.get_input_embeddings()(row[:n]) for row, n in zip(tokens, batch.lengths)]


def test_every_family_is_here():
    assert {kind.split()[0] for kind in KINDS} == set(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
def test_logits(kind: str):
    batch = random_batch(padded=True, tokens=9)
    theirs = last_logits(model_of(kind), embeddings_of(model_of(kind), batch.clean, batch))
    ours = subject_of_kind(kind).logits(batch.clean, batch.lengths)
    assert theirs.std() > 0.3
    torch.testing.assert_close(ours, theirs, atol=3e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_model_that_is_not_needed_lends_its_memory(kind: str):
    """The same weights; all of the residual stream's readers and writers but the joint projections are the model's."""
    model = copy.deepcopy(model_of(kind))
    stored = {p.untyped_storage().data_ptr() for p in model.parameters()}
    ours, theirs = read_weights(model, reuse=True), read_weights(model_of(kind))
    for here, there in zip((ours, *ours.blocks), (theirs, *theirs.blocks)):
        for name in ("embed", "unembed", "unembed_bias", "qkv", "qkv_bias", "out", "mlp_in", "mlp_in_bias", "mlp_out"):
            if hasattr(here, name):
                torch.testing.assert_close(getattr(here, name), getattr(there, name), atol=0, rtol=0)
    tied = model_of(kind).config.tie_word_embeddings
    assert (ours.unembed.untyped_storage().data_ptr() in stored) != (tied and kind != "olmo")
    assert all(block.mlp_out.untyped_storage().data_ptr() in stored for block in ours.blocks)
    assert any(block.mlp_in.untyped_storage().data_ptr() in stored for block in ours.blocks) == kind.startswith("gpt")


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff"])
@pytest.mark.parametrize("kind", KINDS)
def test_the_inputs_row_is_hugging_faces_gradient(kind: str, metric: Any):
    """All gradient reaches the embedding through its readers, so their scores sum to what autograd gives there."""
    model, batch = model_of(kind), random_batch(metric=metric, answers=6, padded=True, tokens=9)
    clean, corrupted = (embeddings_of(model, tokens, batch) for tokens in (batch.clean, batch.corrupted))
    here = [x.clone().requires_grad_(True) for x in clean]
    gradients = torch.autograd.grad(metric_values(last_logits(model, here), batch).sum(), here)
    expected = torch.stack([((a - b) * g).sum() for a, b, g in zip(clean, corrupted, gradients)])
    ours = score_edges_by_example(subject_of_kind(kind), batch, AttributionParams(method="eap"))[:, 0].sum(dim=1)
    assert expected.abs().max() > 1e-3
    torch.testing.assert_close(ours, expected, atol=1e-5 * float(expected.abs().max()) + 1e-6, rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_every_edges_gradient_is_the_slope_of_its_patch(kind: str):
    """Clean and corrupted that nearly agree: first-order scores equal those of patching each edge."""
    subject = subject_of_kind(kind)
    embed = subject.weights.embed.clone()
    embed[20:22] = embed[[3, 9]] + 1e-6 * embed[20:22]
    close = replace(subject, weights=replace(subject.weights, embed=embed))
    clean = torch.arange(1, 13).view(2, 6)
    corrupted = clean.clone()
    corrupted[:, 2] = torch.tensor([20, 21])
    batch = replace(random_batch(pairs=2, tokens=6), clean=clean, corrupted=corrupted)
    eap = score_edges(close, batch, AttributionParams(method="eap")).values
    exact = score_edges(close, batch, AttributionParams(method="exact")).values
    assert exact.abs().max() > 1e-8
    torch.testing.assert_close(eap, exact, atol=1e-4 * float(exact.abs().max()), rtol=0)


@pytest.mark.parametrize("kind", KINDS)
def test_circuits(kind: str):
    subject, batch = subject_of_kind(kind), random_batch(padded=True, tokens=9)
    clean, corrupted = (metric_values(subject.logits(t, batch.lengths), batch) for t in (batch.clean, batch.corrupted))
    scores = score_edges(subject, batch, AttributionParams())
    for ablation in ("patch", "zero", "mean"):
        evaluator = CircuitEvaluator(subject, batch, ablation)
        some = evaluator.evaluate(grow(scores, subject.graph.n_edges // 3))
        torch.testing.assert_close(evaluator.evaluate(full_circuit(subject.graph)), clean, atol=1e-12, rtol=0)
        assert (some - clean).abs().max() > 1e-3
        if ablation == "patch":
            nothing = evaluator.evaluate(empty_circuit(subject.graph))
            torch.testing.assert_close(nothing, corrupted, atol=1e-12, rtol=0)


def test_a_groups_reader_is_the_sum_of_its_heads_readers():
    """The scores of edges into it; and a circuit that has all of a group's edges or none is the same in both graphs."""
    apart, together = (subject_of_kind(kind) for kind in ("llama grouped", "llama grouped, a reader a group"))
    assert (apart.graph.n_readers, together.graph.n_readers) == (3 * 13 + 1, 3 * 9 + 1)
    batch = random_batch(padded=True, tokens=9)
    by_head, by_group = (score_edges(s, batch, AttributionParams()) for s in (apart, together))
    readers = apart.graph.reader_names
    for v, name in enumerate(together.graph.reader_names):
        first = readers.index(name.replace("g0", "h0").replace("g1", "h2"))
        members = [first, first + 1] if ".g" in name else [first]
        expected = by_head.values[:, members].sum(dim=1)
        torch.testing.assert_close(by_group.values[:, v], expected, atol=1e-12, rtol=0)
    circuit = grow(by_group, together.graph.n_edges // 3)
    edges = torch.stack(
        [circuit.edges[:, together.graph.reader_names.index(of_group(name))] for name in readers], dim=1
    )
    ours, same = CircuitEvaluator(together, batch), CircuitEvaluator(apart, batch)
    torch.testing.assert_close(ours.evaluate(circuit), same.evaluate(Circuit(apart.graph, edges)), atol=1e-12, rtol=0)
    assert (ours.evaluate(circuit) - ours.clean).abs().max() > 1e-3


def of_group(name: str) -> str:
    """Name of the reader that a head shares, of two groups of two heads."""
    return re.sub(r"h(\d)<([kv])>", lambda match: f"g{int(match[1]) // 2}<{match[2]}>", name)


def test_groups_of_one_head_are_heads():
    subject = subject_of(model_of("olmo"), kv_readers="group")
    assert subject.graph == subject_of_kind("olmo").graph


def test_groups_have_readers_for_each_query_head():
    subject = subject_of_kind("llama grouped")
    assert subject.graph.n_heads == 4
    keys = subject.weights.blocks[0].qkv.view(24, 3, 4, 6)[:, 1]
    assert torch.equal(keys[:, 0], keys[:, 1])
    assert not torch.equal(keys[:, 1], keys[:, 2])


@pytest.mark.parametrize(
    ("config", "reason"),
    [
        (lambda: gpt2(scale_attn_by_inverse_layer_idx=True), "scale_attn_by_inverse_layer_idx"),
        (lambda: olmo(clip_qkv=8.0), "clip_qkv"),
        (lambda: qwen2(use_sliding_window=True, sliding_window=4), "sliding window"),
        (lambda: neox(hidden_act="tanh"), "activation 'tanh'"),
        (
            lambda: llama(rope_parameters={"rope_type": "linear", "factor": 2.0, "rope_theta": 1e4}),
            "rope_type 'linear'",
        ),
    ],
)
def test_options_that_are_not_described_are_refused(config: Callable[[], Any], reason: str):
    from transformers import AutoModelForCausalLM

    with pytest.raises(UnsupportedModel, match=f"does not cover .*{reason}"):
        read_weights(AutoModelForCausalLM.from_config(config()))

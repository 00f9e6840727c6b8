"""Path patching against two implementations of its definition, its identities, and ablation with what follows."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from functools import lru_cache
from typing import Any

import pytest
import torch
from torch import Tensor

from ontogeny.core.behaviour import metric_values
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import PairBatch
from ontogeny.models.subject import Subject, subject_of
from ontogeny.patching.path_patching import (
    PathPatcher,
    Senders,
    Watch,
    all_heads,
    head_effects,
    head_readers,
)
from support.engine import NaiveNeoX, naive_metric, neox_model, neox_subject, random_batch, see_all, shake
from support.naive_paths import attention_row, naive_paths

EXACT = {"atol": 1e-11, "rtol": 0.0}
"""Both sides in float64 throughout; values are near 1 and go through a few hundred roundings."""
HUGGING_FACE = {"atol": 5e-6, "rtol": 0.0}
"""Hugging Face computes rotary angles, softmax and RMSNorm in float32, and metrics here are near 10."""


def some_senders(graph: GraphSpec) -> list[Senders]:
    """Heads alone, an MLP, the input, and sets of several kinds that lie blocks apart."""
    return [
        *all_heads(graph),
        (graph.mlp_writer(0),),
        (0,),
        (graph.head_writer(0, 1), graph.mlp_writer(1), graph.head_writer(2, 0)),
        (0, graph.head_writer(2, 1), graph.mlp_writer(2)),
    ]


RECEIVERS: dict[str, Callable[[GraphSpec], list[int]]] = {
    "logits": lambda g: [g.logits_reader],
    "queries of the last block": lambda g: [g.head_reader(2, 0, 0), g.head_reader(2, 0, 2)],
    "queries of two blocks": lambda g: [g.head_reader(1, 0, 1), g.head_reader(2, 0, 0)],
    "keys and values": lambda g: [g.head_reader(1, 1, 0), g.head_reader(1, 2, 2), g.head_reader(2, 2, 1)],
    "an MLP": lambda g: [g.mlp_reader(1)],
    "many kinds": lambda g: [g.head_reader(1, 0, 0), g.mlp_reader(1), g.head_reader(2, 1, 1), g.mlp_reader(2)],
    "the logits and others": lambda g: [g.head_reader(1, 0, 0), g.logits_reader],
}


@pytest.mark.parametrize("at_end", [False, True])
@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("kind", RECEIVERS)
def test_paths_are_those_of_the_definition(kind: str, parallel: bool, freeze: bool, at_end: bool):
    model, subject = neox_model(layers=3, parallel=parallel), neox_subject(layers=3, parallel=parallel)
    batch, receivers = random_batch(pairs=2, tokens=8, padded=True), RECEIVERS[kind](subject.graph)
    senders = some_senders(subject.graph)
    expected = naive_paths(model, batch, receivers, senders, freeze=freeze, at_end=at_end)
    patcher = PathPatcher(subject, batch)
    found = patcher.patch(receivers, senders, freeze_mlps=freeze, at_end=at_end)
    torch.testing.assert_close(found.metric, expected, **EXACT)
    assert found.senders == tuple(tuple(sorted(s)) for s in senders)
    assert (found.metric - patcher.clean).abs().max() > 1e-3


def test_freezing_and_ends_make_a_difference():
    """Else the cases above would not tell the options apart."""
    patcher = PathPatcher(neox_subject(layers=3), random_batch(pairs=3, tokens=8))
    receivers = RECEIVERS["queries of two blocks"](patcher.graph)
    plain, frozen, end = (
        patcher.patch(receivers, freeze_mlps=freeze, at_end=at_end).metric
        for freeze, at_end in ((False, False), (True, False), (False, True))
    )
    assert min((plain - frozen).abs().max(), (plain - end).abs().max()) > 1e-3


@pytest.mark.parametrize("parallel", [True, False])
def test_a_patch_of_the_same_prompt_changes_nothing(parallel: bool):
    subject, batch = neox_subject(layers=3, parallel=parallel), random_batch()
    patcher = PathPatcher(subject, replace(batch, corrupted=batch.clean))
    for kind in RECEIVERS.values():
        found = patcher.patch(kind(subject.graph), some_senders(subject.graph))
        torch.testing.assert_close(found.metric, patcher.clean.expand_as(found.metric), **EXACT)


@pytest.mark.parametrize("parallel", [True, False])
def test_everything_into_the_logits_is_the_corrupted_prompt(parallel: bool):
    subject, batch = neox_subject(layers=3, parallel=parallel), random_batch(padded=True, tokens=8)
    patcher = PathPatcher(subject, batch)
    found = patcher.patch([subject.graph.logits_reader], [tuple(range(subject.graph.n_writers))])
    corrupted = metric_values(subject.logits(batch.corrupted, batch.lengths), batch)
    torch.testing.assert_close(found.metric[0], corrupted, **EXACT)
    torch.testing.assert_close(patcher.corrupted, corrupted, **EXACT)
    assert (patcher.clean - corrupted).abs().max() > 0.1


def test_heads_after_the_receivers_send_nothing():
    subject, batch = neox_subject(layers=3), random_batch()
    patcher = PathPatcher(subject, batch)
    effects = head_effects(patcher, patcher.patch(head_readers(subject.graph, 0, [(1, 0)])).metric)
    assert (effects[1:] == 0).all()
    assert (effects[0] != 0).all()


def test_an_mlp_of_the_senders_own_parallel_block_cannot_relay():
    """METHODS 7.1: with the MLPs of later blocks silent, recomputing changes nothing in parallel blocks."""
    for parallel in (True, False):
        patcher = PathPatcher(neox_subject(layers=2, parallel=parallel), random_batch())
        last = [(patcher.graph.head_writer(1, 0),)]
        plain, frozen = (
            patcher.patch([patcher.graph.logits_reader], last, freeze_mlps=freeze).metric for freeze in (False, True)
        )
        assert ((plain - frozen).abs().max() < 1e-12) == parallel


def test_effects_are_ratios_of_means():
    """A hand-made case: clean 4 and 2, corrupted 0 and 2; patched 4, 2 (nothing), 0, 2 (all), 5, 2 (beyond)."""
    patcher = PathPatcher(neox_subject(layers=1, heads=3), random_batch(pairs=2))
    patcher.clean, patcher.corrupted = torch.tensor([4.0, 2.0]), torch.tensor([0.0, 2.0])
    found = head_effects(patcher, torch.tensor([[4.0, 2.0], [0.0, 2.0], [5.0, 2.0]]))
    torch.testing.assert_close(found, torch.tensor([[0.0, -1.0, 0.25]], dtype=torch.float64))
    patcher.corrupted = patcher.clean
    assert head_effects(patcher, torch.zeros(3, 2)).isnan().all()


@pytest.mark.parametrize("parallel", [True, False])
def test_values_depend_neither_on_batches_nor_on_how_senders_are_grouped(parallel: bool):
    subject, batch = neox_subject(layers=3, parallel=parallel), random_batch(padded=True, tokens=8)
    receivers, order = RECEIVERS["many kinds"](subject.graph), torch.tensor([3, 0, 4, 2, 1])
    once = PathPatcher(subject, batch).patch(receivers).metric
    apart = PathPatcher(subject, batch.take(order), batch_pairs=2, budget=1).patch(receivers).metric
    torch.testing.assert_close(apart, once[:, order], **EXACT)
    backwards = PathPatcher(subject, batch).patch(receivers, all_heads(subject.graph)[::-1]).metric
    torch.testing.assert_close(backwards.flip(0), once, **EXACT)


def test_float32_agrees_with_float64():
    batch = random_batch()
    single, double = (
        PathPatcher(neox_subject(layers=3, double=d), batch).patch(RECEIVERS["many kinds"](GraphSpec(3, 3))).metric
        for d in (False, True)
    )
    torch.testing.assert_close(single.double(), double, atol=1e-4, rtol=0)


def test_watched_attention_is_that_of_the_patched_run():
    """Queries of both heads from the definition; attention rows from them and the clean keys."""
    subject, batch = neox_subject(layers=3), random_batch(pairs=4, tokens=8, padded=True)
    positions = torch.tensor([[0, 2]]).expand(len(batch), -1)
    watch = Watch(((1, 2), (2, 0)), positions)
    patcher = PathPatcher(subject, batch)
    clean = patcher.attention(watch)
    receivers = head_readers(subject.graph, 0, watch.heads)
    found = patcher.patch(receivers, at_end=True, watch=watch).attention
    assert clean.shape == (4, 2, 2)
    assert found.shape == (9, 4, 2, 2)
    naive = NaiveNeoX(neox_model(layers=3))
    moves = []
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        inputs = [naive.embed(tokens[row, :n]) for tokens in (batch.clean, batch.corrupted)]
        now, then = (naive.run(x, see_all)[0] for x in inputs)
        for place, head in enumerate(watch.heads):
            rows = attention_row(naive, now, now, head)
            torch.testing.assert_close(clean[row, place], rows[[0, 2]], **EXACT)
        moved = [*now]
        moved[subject.graph.head_writer(0, 1)] = then[subject.graph.head_writer(0, 1)]
        rows = attention_row(naive, moved, now, (1, 2))
        moves.append(float((rows[[0, 2]] - clean[row, 0]).abs().max()))
        frozen = patcher.patch(receivers, at_end=True, watch=watch, freeze_mlps=True).attention
        torch.testing.assert_close(frozen[1, row, 0], rows[[0, 2]], **EXACT)
    assert max(moves) > 1e-3
    torch.testing.assert_close(found[6:], clean.expand(3, -1, -1, -1), **EXACT)


def test_impossible_requests_say_what_is_wrong():
    patcher = PathPatcher(neox_subject(), random_batch())
    with pytest.raises(ImpossibleRequest, match="at least one"):
        patcher.patch([])
    with pytest.raises(ImpossibleRequest, match="Receivers must be readers 0 to"):
        patcher.patch([patcher.graph.n_readers])
    with pytest.raises(ImpossibleRequest, match="Senders must be writers 0 to"):
        patcher.patch([patcher.graph.logits_reader], [()])


# Interchange of heads, with everything after them run again


def naive_interchange(model: Any, batch: PairBatch, heads: set[int]) -> tuple[Tensor, Tensor, Tensor]:
    """Metric of each example; outputs of all writers at the read position in the clean run and in the ablated one."""
    naive = NaiveNeoX(model)
    values, before, after = [], [], []
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        inputs = [naive.embed(tokens[row, :n]) for tokens in (batch.clean, batch.corrupted)]
        clean, corrupted = (naive.run(x, see_all)[0] for x in inputs)

        def write(u: int, z: Tensor, then: list[Tensor] = corrupted) -> Tensor:
            return then[u] if u in heads else z

        written, logits = naive.run(inputs[0], see_all, write)
        values.append(naive_metric(logits[-1], batch, row))
        before.append(torch.stack([z[-1] for z in clean]))
        after.append(torch.stack([z[-1] for z in written]))
    return torch.stack(values), torch.stack(before), torch.stack(after)


@pytest.mark.parametrize("parallel", [True, False])
def test_interchange_is_that_of_the_definition(parallel: bool):
    model, subject = neox_model(layers=3, parallel=parallel), neox_subject(layers=3, parallel=parallel)
    batch, graph = random_batch(pairs=3, tokens=8, padded=True), subject.graph
    heads = [(1, 0), (1, 2), (2, 1)]
    patcher = PathPatcher(subject, batch)
    found = patcher.interchange(heads)
    expected, before, after = naive_interchange(model, batch, {graph.head_writer(*head) for head in heads})
    torch.testing.assert_close(found.metric, expected, **EXACT)
    scale = _logit_scale(model, before, batch)
    torch.testing.assert_close(found.direct, ((after - before) * scale).sum(-1).T, **EXACT)
    assert found.direct.abs().max() > 1e-3
    corrupted = naive_interchange(model, replace(batch, clean=batch.corrupted), set())[1]
    torch.testing.assert_close(patcher.direct_effects(), ((before - corrupted) * scale).sum(-1).T, **EXACT)


def test_direct_effects_along_a_direction_are_those_on_its_logits():
    """The metric is the correct answers' logits minus the others'; each part alone adds up to it."""
    subject, batch = neox_subject(layers=3), random_batch(pairs=5, padded=True)
    patcher, unembed = PathPatcher(subject, batch, batch_pairs=2), subject.weights.unembed
    signs = batch.answer_weights.to(unembed)
    parts = [
        (unembed.T[batch.answer_ids] * part[..., None]).sum(1) for part in (signs.clamp(min=0), signs.clamp(max=0))
    ]
    right, wrong = (patcher.direct_effects(part) for part in parts)
    torch.testing.assert_close(right + wrong, patcher.direct_effects(), **EXACT)
    assert min(right.abs().max(), wrong.abs().max()) > 1e-3
    alone = replace(batch, answer_weights=batch.answer_weights.clamp(max=0))
    torch.testing.assert_close(wrong, PathPatcher(subject, alone).direct_effects(), **EXACT)


def _logit_scale(model: Any, written: Tensor, batch: PairBatch) -> Tensor:
    """What a unit of each residual direction adds to the metric at the clean final norm's scale: autograd through a
    norm whose mean and sigma are constants.
    """
    naive = NaiveNeoX(model)
    norm = model.gpt_neox.final_layer_norm
    bias = sum(b.attention.dense(naive._value_bias(b)) for b in model.gpt_neox.layers)
    rows = []
    for row in range(len(batch)):
        final = written[row].sum(0) + bias
        sigma = (final.var(unbiased=False) + norm.eps).sqrt()
        shift = torch.zeros_like(final, requires_grad=True)
        centred = (final + shift) - (final + shift).mean()
        logits = (centred / sigma * norm.weight + norm.bias) @ model.get_output_embeddings().weight.T
        rows.append(torch.autograd.grad(naive_metric(logits, batch, row), shift)[0])
    return torch.stack(rows)[:, None]


def test_interchange_of_all_heads_of_a_block_alone_keeps_the_rest_running():
    """No heads: nothing changes. The parts of a change add up to it when the norm's scale hardly moves."""
    patcher = PathPatcher(neox_subject(layers=3), random_batch())
    nothing = patcher.interchange([])
    torch.testing.assert_close(nothing.metric, patcher.clean, **EXACT)
    assert (nothing.direct == 0).all()
    some = patcher.interchange([(0, 0)])
    assert (some.direct[: patcher.graph.head_writer(0, 0)] == 0).all()
    assert (some.direct[patcher.graph.head_writer(0, 1) : patcher.graph.head_writer(1, 0)] == 0).all()
    assert (some.direct[patcher.graph.head_writer(1, 0) :] != 0).all()


def test_direct_effects_need_a_difference_of_logits():
    patcher = PathPatcher(neox_subject(), random_batch(metric="prob_diff"))
    with pytest.raises(ImpossibleRequest, match="logit_diff"):
        patcher.direct_effects()


# Other families, by hooks on the Hugging Face modules themselves


@lru_cache
def hugging_face(family: str) -> Any:
    from transformers import GPT2Config, GPT2LMHeadModel, LlamaConfig, LlamaForCausalLM

    if family == "gpt2":
        config = GPT2Config(
            vocab_size=40, n_embd=24, n_layer=3, n_head=4, n_inner=20, n_positions=32, bos_token_id=0, eos_token_id=0
        )
        model: Any = GPT2LMHeadModel(config)
    else:
        llama = LlamaConfig(
            vocab_size=40,
            hidden_size=24,
            num_hidden_layers=3,
            num_attention_heads=4,
            num_key_value_heads=2,
            intermediate_size=20,
            max_position_embeddings=32,
            tie_word_embeddings=False,
        )
        model = LlamaForCausalLM(llama)
    model = model.to(torch.float64).eval().requires_grad_(False)
    shake(model)
    return model


class Hooked:
    """A Hugging Face model whose modules' inputs and outputs can be noted down and set, by name."""

    def __init__(self, family: str) -> None:
        self.model = hugging_face(family)
        self.places: dict[str, Any] = {}
        for i, layer in enumerate(self.model.transformer.h if family == "gpt2" else self.model.model.layers):
            attention = layer.attn if family == "gpt2" else layer.self_attn
            self.places[f"z{i}"] = attention.c_proj if family == "gpt2" else attention.o_proj
            self.places[f"mlp{i}"] = layer.mlp
            if family == "gpt2":
                self.places[f"qkv{i}"] = attention.c_attn
            else:
                self.places |= {f"{slot}{i}": getattr(attention, f"{slot}_proj") for slot in "qkv"}

    def run(self, tokens: Tensor, change: Callable[[str, Tensor], Tensor]) -> tuple[dict[str, Tensor], Tensor]:
        """What went through each place, changed already, and the logits at the last token."""
        seen: dict[str, Tensor] = {}

        def at(name: str) -> Callable[..., Any]:
            def note(value: Tensor) -> Tensor:
                seen[name] = change(name, value.clone())
                return seen[name]

            if name.startswith("z"):
                return lambda _, inputs: (note(inputs[0]),)
            return lambda _, __, output: note(output)

        with ExitStack() as stack:
            for name, module in self.places.items():
                stack.enter_context(_hook(module, at(name), before=name.startswith("z")))
            return seen, self.model(tokens[None]).logits[0, -1]


@contextmanager
def _hook(module: Any, function: Callable[..., Any], *, before: bool) -> Iterator[None]:
    handle = module.register_forward_pre_hook(function) if before else module.register_forward_hook(function)
    try:
        yield
    finally:
        handle.remove()


def hooked_paths(
    family: str, batch: PairBatch, sender: tuple[int, int], receiving: dict[str, slice], *, freeze: bool
) -> Tensor:
    """Path patching by hooks: `receiving` gives, for each place, the columns that are receivers."""
    hooked, size, values = Hooked(family), 6, []
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        clean, now = hooked.run(batch.clean[row, :n], lambda _, x: x)
        corrupted, _ = hooked.run(batch.corrupted[row, :n], lambda _, x: x)

        def send(name: str, x: Tensor, clean: Any = clean, corrupted: Any = corrupted) -> Tensor:
            if name.startswith("z"):
                x = clean[name].clone()
                if name == f"z{sender[0]}":
                    columns = slice(sender[1] * size, (sender[1] + 1) * size)
                    x[..., columns] = corrupted[name][..., columns]
            return clean[name] if freeze and name.startswith("mlp") and name not in receiving else x

        recorded, direct = hooked.run(batch.clean[row, :n], send)

        def receive(name: str, x: Tensor, recorded: Any = recorded) -> Tensor:
            if name in receiving:
                x[..., receiving[name]] = recorded[name][..., receiving[name]]
            return x

        _, logits = hooked.run(batch.clean[row, :n], receive)
        values.append(naive_metric(logits if receiving else direct, batch, row))
        assert (now - logits).abs().max() > 1e-6 or not receiving
    return torch.stack(values)


@pytest.mark.parametrize("freeze", [False, True])
@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_other_families_agree_with_hooks_on_their_modules(family: str, freeze: bool):
    """With grouped queries the key and value of a group are receivers where those of all its query heads are."""
    subject: Subject = subject_of(hugging_face(family))
    batch, graph = random_batch(pairs=2, tokens=7, padded=True), subject.graph
    joint, group = family == "gpt2", 2 if family == "gpt2" else 1

    def columns(slot: str, layer: int, first: int, last: int) -> tuple[str, slice]:
        name, offset = (f"qkv{layer}", 24 * "qkv".index(slot)) if joint else (f"{slot}{layer}", 0)
        return name, slice(offset + 6 * first, offset + 6 * last)

    cases: list[tuple[list[int], dict[str, slice]]] = [
        ([graph.logits_reader], {}),
        (list(head_readers(graph, 0, [(2, 1)])), dict([columns("q", 2, 1, 2)])),
        (list(head_readers(graph, 0, [(1, 3), (2, 1)])), dict([columns("q", 1, 3, 4), columns("q", 2, 1, 2)])),
        (list(head_readers(graph, 2, [(1, 0), (1, 1)])), dict([columns("v", 1, 0, group)])),
        ([graph.mlp_reader(2)], {"mlp2": slice(None)}),
    ]
    patcher = PathPatcher(subject, batch)
    for receivers, receiving in cases:
        found = patcher.patch(receivers, freeze_mlps=freeze).metric
        moves = []
        for sender in ((0, 0), (0, 3)):
            expected = hooked_paths(family, batch, sender, receiving, freeze=freeze)
            torch.testing.assert_close(found[sender[0] * 4 + sender[1]], expected, **HUGGING_FACE)
            moves.append(float((expected - patcher.clean).abs().max()))
        assert max(moves) > 5 * HUGGING_FACE["atol"]


def test_other_corrupted_prompts_share_the_clean_run():
    subject, batch = neox_subject(layers=3), random_batch(pairs=4, tokens=8, padded=True)
    other = replace(batch, corrupted=batch.corrupted.roll(1, 0).where(batch.corrupted != batch.clean, batch.clean))
    receivers = RECEIVERS["many kinds"](subject.graph)
    patcher = PathPatcher(subject, batch, batch_pairs=3)
    found, fresh = patcher.against(other.corrupted), PathPatcher(subject, other)
    torch.testing.assert_close(found.patch(receivers).metric, fresh.patch(receivers).metric, **EXACT)
    torch.testing.assert_close(found.corrupted, fresh.corrupted, **EXACT)
    torch.testing.assert_close(found.clean, patcher.clean)
    assert (found.corrupted - patcher.corrupted).abs().max() > 1e-3
    earlier = batch.clean.clone()
    earlier[:, 0] = (earlier[:, 0] + 1) % 40
    with pytest.raises(ImpossibleRequest, match="differ from the clean ones before"):
        PathPatcher(subject, random_batch(pairs=4, tokens=8)).against(earlier)

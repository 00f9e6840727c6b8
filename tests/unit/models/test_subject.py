"""Loading, the checks on load, and logits against the stock Hugging Face forward pass."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from ontogeny.attribution import NodeSettings, score_edges, score_nodes
from ontogeny.core.errors import BadCheckpoint, ImpossibleRequest, UnsupportedModel
from ontogeny.core.graph import GraphSpec
from ontogeny.models import subject as subject_module
from ontogeny.models.forward import bytes_of_run, embed, plan_runs, run
from ontogeny.models.layout import right_align
from ontogeny.models.subject import (
    align_pairs,
    check_batch,
    check_subject,
    load_subject,
    pair_logits,
    pairs_within,
    probe,
    subject_of,
)
from ontogeny.params import AttributionParams
from ontogeny.patching import CircuitEvaluator
from support.engine import NaiveNeoX, neox_model, neox_subject, random_batch, see_all


@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize(("double", "tolerance"), [(True, 1e-6), (False, 1e-4)])
@pytest.mark.parametrize("padded", [False, True])
def test_logits_are_those_of_hugging_face(parallel: bool, double: bool, tolerance: float, padded: bool):
    options = {"parallel": parallel, "double": double, "layers": 3}
    batch = random_batch(padded=padded)
    ours = neox_subject(**options).logits(batch.clean, batch.lengths)
    theirs = torch.stack(
        [neox_model(**options)(row[None, :n]).logits[0, -1] for row, n in zip(batch.clean, batch.lengths)]
    )
    assert theirs.std() > 0.5
    torch.testing.assert_close(ours, theirs, atol=tolerance, rtol=0)


@pytest.mark.parametrize("parallel", [True, False])
def test_logits_are_those_of_float64_throughout(parallel: bool):
    batch = random_batch()
    naive = NaiveNeoX(neox_model(parallel=parallel))
    theirs = torch.stack([naive.run(naive.embed(row), see_all)[1][-1] for row in batch.clean])
    ours = neox_subject(parallel=parallel).logits(batch.clean, batch.lengths)
    torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_a_shared_prefix_changes_nothing():
    subject, batch = neox_subject(), random_batch(padded=True, first=3, tokens=9)
    aligned, positions, padding = right_align(batch.clean, batch.lengths)
    whole = run(
        subject.weights, embed(subject.weights, aligned), plan_runs(subject.weights, aligned, positions, padding)
    )
    pairs = align_pairs(subject, batch)
    assert 0 < pairs.plan.layout.start < 9
    late = run(subject.weights, embed(subject.weights, pairs.clean), pairs.plan)
    torch.testing.assert_close(late.final, whole.final, atol=1e-12, rtol=0)


def test_both_prompts_of_a_pair_at_once():
    subject, batch = neox_subject(), random_batch(padded=True, first=3, tokens=9)
    clean, corrupted = pair_logits(subject, batch)
    torch.testing.assert_close(clean, subject.logits(batch.clean, batch.lengths), atol=1e-12, rtol=0)
    torch.testing.assert_close(corrupted, subject.logits(batch.corrupted, batch.lengths), atol=1e-12, rtol=0)
    assert (clean - corrupted).abs().max() > 0.1


def test_logits_in_parts_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch):
    subject, batch = neox_subject(), random_batch(pairs=7, padded=True)
    whole = pair_logits(subject, batch)
    one = bytes_of_run(subject.architecture, batch.clean.shape[1], subject.weights.embed.element_size())
    runs: list[int] = []
    plain = subject_module.run
    monkeypatch.setattr(subject_module, "run", lambda w, x, plan: (runs.append(len(x)), plain(w, x, plan))[1])
    monkeypatch.setattr(subject_module, "budget_on", lambda _: 3 * one)
    parts = pair_logits(subject, batch)
    assert runs == [3, 3, 3, 3, 1, 1]
    for ours, theirs in zip(parts, whole):
        torch.testing.assert_close(ours, theirs, atol=1e-12, rtol=0)


def test_logits_that_run_out_of_memory_are_made_of_fewer_pairs(monkeypatch: pytest.MonkeyPatch):
    subject, batch = neox_subject(), random_batch(pairs=7)
    whole, plain = pair_logits(subject, batch), subject_module.run

    def scarce(weights: Any, x: torch.Tensor, plan: Any) -> Any:
        if len(x) > 2:
            raise torch.OutOfMemoryError("no more")
        return plain(weights, x, plan)

    monkeypatch.setattr(subject_module, "run", scarce)
    torch.testing.assert_close(pair_logits(subject, batch)[0], whole[0], atol=1e-12, rtol=0)


def test_a_run_holds_what_is_planned_for_it():
    """By the allocator's count of what the run's tensors own."""
    subject, batch = neox_subject(), random_batch(pairs=4, tokens=12)
    aligned, positions, padding = right_align(batch.clean, batch.lengths)
    done = run(
        subject.weights, embed(subject.weights, aligned), plan_runs(subject.weights, aligned, positions, padding)
    )
    kept: dict[int, int] = {}
    for block in done.blocks:
        mlp = vars(block.mlp).values() if not isinstance(block.mlp, tuple) else block.mlp
        for value in (*vars(block).values(), *mlp):
            if isinstance(value, torch.Tensor):
                kept[value.untyped_storage().data_ptr()] = value.untyped_storage().nbytes()
    planned = 4 * bytes_of_run(subject.architecture, 12, 8)
    assert 0.4 * planned < sum(kept.values()) < planned


def test_right_align_on_paper():
    tokens, positions, padding = right_align(torch.tensor([[5, 6, 7], [8, 9, 0]]), torch.tensor([3, 2]))
    assert tokens.tolist() == [[5, 6, 7], [0, 8, 9]]
    assert positions.tolist() == [[0, 1, 2], [0, 0, 1]]
    assert padding.tolist() == [0, 1]


def test_facts_and_graph():
    subject = neox_subject(layers=2, heads=3, parallel=False)
    assert subject.graph == GraphSpec(2, 3, parallel=False)
    assert subject.facts.d_model == 24
    assert subject.facts.d_head == 8
    assert subject.parameters == sum(p.numel() for p in neox_model(layers=2, heads=3, parallel=False).parameters())


def test_nothing_needs_a_gradient():
    subject = neox_subject()
    tensors = [t for block in subject.weights.blocks for t in vars(block).values()]
    assert not any(t.requires_grad for t in [subject.weights.embed, subject.weights.unembed, *tensors])


def test_batches_are_cut_to_the_budget():
    subject, batch = neox_subject(), random_batch(pairs=6)
    one = 1.5 * subject.graph.n_writers * 7 * 24 * 8
    assert pairs_within(subject, batch, int(3.2 * one)) == 3
    assert pairs_within(subject, batch, 1) == 1
    assert pairs_within(subject, batch) == 6


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    neox_model(double=False).save_pretrained(tmp_path)
    return tmp_path


def test_a_folder_round_trips(folder: Path):
    batch = random_batch()
    loaded = load_subject(folder)
    assert loaded.dtype == torch.float32
    assert loaded.tokenizer is None
    assert torch.equal(
        loaded.logits(batch.clean, batch.lengths), neox_subject(double=False).logits(batch.clean, batch.lengths)
    )


def test_truncated_weights_name_their_file(folder: Path):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors.*truncated"):
        load_subject(folder)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_name_their_file(folder: Path, bad: float):
    file = folder / "model.safetensors"
    weights = load_file(file)
    weights["gpt_neox.layers.1.mlp.dense_h_to_4h.weight"][0, 0] = bad
    save_file(weights, file, metadata={"format": "pt"})
    with pytest.raises(BadCheckpoint, match=r"model\.safetensors: 1 of .*dense_h_to_4h\.weight are not finite"):
        load_subject(folder)


def test_a_folder_that_is_none(tmp_path: Path):
    with pytest.raises(BadCheckpoint, match=r"config\.json does not exist"):
        load_subject(tmp_path / "nowhere")


def test_an_unknown_family_is_refused():
    from transformers import BloomConfig, BloomForCausalLM

    model = BloomForCausalLM(BloomConfig(vocab_size=20, hidden_size=8, n_layer=1, n_head=2))
    with pytest.raises(UnsupportedModel, match="'bloom' are not described yet"):
        subject_of(model)


def test_a_block_that_is_not_as_described_is_refused():
    """A model that does something the description does not know of: here one that scales its attention's output."""
    model = neox_model()
    subject = subject_of(model)

    def twice(_: Any, __: Any, output: Any) -> Any:
        return output * 2

    hook = model.gpt_neox.layers[0].mlp.register_forward_hook(twice)
    try:
        with pytest.raises(
            UnsupportedModel, match="block 1 is not the sum of the writers before it: largest difference"
        ):
            check_subject(subject, probe(model))
    finally:
        hook.remove()
    check_subject(subject, probe(model))


def test_other_logits_are_refused():
    subject = neox_subject()
    wrong = replace(subject, weights=replace(subject.weights, unembed=subject.weights.unembed * 1.01))
    with pytest.raises(UnsupportedModel, match="the logits differ"):
        check_subject(wrong, probe(neox_model()))


def test_weights_in_memory_that_are_not_finite_are_refused():
    model = copy.deepcopy(neox_model())
    model.gpt_neox.final_layer_norm.weight.data[2] = float("nan")
    with pytest.raises(BadCheckpoint, match=r"a model in memory: 1 of 24 numbers of .*final_layer_norm\.weight"):
        subject_of(model)


GOOD = random_batch()
CANCELLING = GOOD.answer_ids.clone()
CANCELLING[3] = CANCELLING[3, 0]
BAD = {
    "no pairs": (GOOD.take(slice(0, 0)), "no prompt pairs"),
    "unequal lengths": (
        replace(GOOD, corrupted=GOOD.corrupted[:, :6]),
        r"same number of tokens: got \(5, 7\) and \(5, 6\)",
    ),
    "too long": (replace(GOOD, lengths=GOOD.lengths + 1), "of 8 to 8 tokens: they must have 1 to 7"),
    "beyond the context": (
        replace(random_batch(tokens=40), lengths=torch.full((5,), 40)),
        "of 40 to 40 tokens: they must have 1 to 32",
    ),
    "an unknown token": (replace(GOOD, clean=GOOD.clean + 40), "holds the token .* has the ids 0 to 39"),
    "a negative token": (replace(GOOD, corrupted=GOOD.corrupted - 40), "holds the token -"),
    "an unknown answer": (replace(GOOD, answer_ids=GOOD.answer_ids + 40), "holds the answer .* has the ids 0 to 39"),
    "a constant metric": (replace(GOOD, answer_ids=CANCELLING), "1 of 5 examples is constant, .* example 3"),
    "no answer": (replace(GOOD, answer_weights=0 * GOOD.answer_weights), "5 of 5 examples is constant"),
}


@pytest.mark.parametrize("kind", BAD)
def test_pairs_that_make_no_sense_are_refused_before_any_work(kind: str, monkeypatch: pytest.MonkeyPatch):
    batch, reason = BAD[kind]
    subject = neox_subject()
    check_batch(subject, GOOD)
    for module in ("attribution.path", "patching.circuit_eval"):
        monkeypatch.setattr(f"ontogeny.{module}.align_pairs", None)
    for work in (
        lambda: score_edges(subject, batch, AttributionParams()),
        lambda: score_nodes(subject, batch, NodeSettings()),
        lambda: CircuitEvaluator(subject, batch),
    ):
        with pytest.raises(ImpossibleRequest, match=reason):
            work()

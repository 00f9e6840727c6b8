"""Edge scores against autograd on a second implementation, finite differences, and their invariances."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.profiler import ProfilerActivity, profile

from ontogeny.attribution import METHODS, base, score_edges
from ontogeny.attribution.base import AttributionSettings, pairs_at_once, score_edges_by_example
from ontogeny.attribution.eap_ig import path_points
from ontogeny.attribution.path import WORKSPACE, bytes_per_pair
from ontogeny.core.behaviour import metric_values
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.graph import GraphSpec
from ontogeny.core.pairs import Metric, PairBatch
from ontogeny.models.subject import Subject
from ontogeny.params import AttributionParams
from support.engine import (
    NaiveNeoX,
    naive_circuit,
    naive_metric,
    naive_scores,
    neox_model,
    neox_subject,
    random_batch,
    see_all,
)

INPUT = (0,)
ALPHAS = {
    "eap": (AttributionParams(method="eap"), [1.0]),
    "right": (AttributionParams(rule="right", steps=4), [0.25, 0.5, 0.75, 1.0]),
    "left": (AttributionParams(rule="left", steps=4), [0.0, 0.25, 0.5, 0.75]),
    "midpoint": (AttributionParams(rule="midpoint", steps=2), [0.25, 0.75]),
    "clean_corrupted": (AttributionParams(method="clean_corrupted"), [1.0, 0.0]),
    "activations": (AttributionParams(method="eap_ig_activations", steps=2), [0.5, 1.0]),
}


def points_of(kind: str, graph: GraphSpec) -> list[tuple[float, tuple[int, ...]]]:
    """Alphas, and the writers that they move."""
    layers = [INPUT]
    if kind == "activations":
        for layer in range(graph.n_layers):
            heads = tuple(graph.head_writer(layer, h) for h in range(graph.n_heads))
            layers += [heads, (graph.mlp_writer(layer),)]
    return [(alpha, moved) for moved in layers for alpha in ALPHAS[kind][1]]


@pytest.mark.parametrize("metric", ["logit_diff", "prob_diff"])
@pytest.mark.parametrize("parallel", [True, False])
@pytest.mark.parametrize("kind", ALPHAS)
def test_scores_are_autograds(kind: str, parallel: bool, metric: Metric):
    settings, subject = ALPHAS[kind][0], neox_subject(parallel=parallel)
    batch = random_batch(metric=metric, answers=6, padded=True, tokens=8)
    expected = naive_scores(neox_model(parallel=parallel), batch, points_of(kind, subject.graph))
    scores = score_edges(subject, batch, settings)
    assert scores.values.abs().max() > 1e-3
    torch.testing.assert_close(scores.values, expected.mean(0), atol=1e-12, rtol=0)
    one_by_one = score_edges_by_example(subject, batch, settings)
    torch.testing.assert_close(one_by_one, expected, atol=1e-12, rtol=0)


def test_the_rules_differ():
    batch = random_batch()
    right, left, middle = (
        score_edges(neox_subject(), batch, AttributionParams(rule=rule)).values  # type: ignore[arg-type]
        for rule in ("right", "left", "midpoint")
    )
    assert (right - left).abs().max() > 1e-3
    assert (right - middle).abs().max() > 1e-3


@pytest.mark.parametrize("parallel", [True, False])
def test_exact_is_the_metric_lost_without_the_edge(parallel: bool):
    model, subject, batch = neox_model(parallel=parallel), neox_subject(parallel=parallel), random_batch(pairs=3)
    scores = score_edges(subject, batch, AttributionParams(method="exact"))
    edges = subject.graph.real_edges
    whole = naive_circuit(model, batch, edges)
    for writer, reader in edges.nonzero().tolist()[::9]:
        without = edges.clone()
        without[writer, reader] = False
        lost = float((whole - naive_circuit(model, batch, without)).mean())
        assert float(scores.values[writer, reader]) == pytest.approx(lost, abs=1e-12)
    assert scores.values.abs().max() > 1e-2


def test_eap_is_the_slope_of_exact():
    """Where clean and corrupted nearly agree, first-order scores are exact up to second order."""
    subject = neox_subject()
    embed = subject.weights.embed.clone()
    embed[20:22] = embed[[3, 9]] + 1e-5 * embed[20:22]
    close = replace(subject, weights=replace(subject.weights, embed=embed))
    clean = torch.arange(1, 13).view(2, 6)
    corrupted = clean.clone()
    corrupted[:, 2] = torch.tensor([20, 21])
    batch = replace(random_batch(pairs=2, tokens=6), clean=clean, corrupted=corrupted)
    eap = score_edges(close, batch, AttributionParams(method="eap")).values
    exact = score_edges(close, batch, AttributionParams(method="exact")).values
    assert exact.abs().max() > 1e-7
    torch.testing.assert_close(eap, exact, atol=1e-4 * float(exact.abs().max()), rtol=0)


def test_the_inputs_row_is_complete_as_m_grows():
    """The path integral over the embedding: all of the metric's change passes through the writer `input`."""
    subject, batch = neox_subject(), random_batch()
    change = (subject.logits(batch.clean, batch.lengths) - subject.logits(batch.corrupted, batch.lengths)).gather(
        1, batch.answer_ids
    )
    change = float((change * batch.answer_weights).sum(1).mean())

    def row(steps: int) -> float:
        return float(score_edges(subject, batch, AttributionParams(rule="midpoint", steps=steps)).values[0].sum())

    assert abs(change) > 0.05
    assert abs(row(64) - change) < 2e-3 * abs(change)
    assert abs(row(1) - change) > 10 * abs(row(64) - change)


def naive_ceap(model: Any, batch: PairBatch, steps: int, offset: float) -> Tensor:
    """Conductance by its definition: autograd at a point of each part, and what the writers did on that part."""
    naive, found = NaiveNeoX(model), []
    for row in range(len(batch)):
        n = int(batch.lengths[row])
        clean, corrupted = (naive.embed(tokens[row, :n]) for tokens in (batch.clean, batch.corrupted))
        total = torch.zeros(naive.graph.n_writers, naive.graph.n_readers, dtype=torch.float64)
        for k in range(steps):
            ends = [naive.run(torch.lerp(corrupted, clean, i / steps), see_all)[0] for i in (k, k + 1)]
            probes: dict[int, Tensor] = {}

            def see(reader: int, written: list[Tensor], bias: Tensor, probes: dict[int, Tensor] = probes) -> Tensor:
                probes[reader] = torch.zeros_like(bias, requires_grad=True)
                return see_all(reader, written, bias) + probes[reader]

            _, logits = naive.run(torch.lerp(corrupted, clean, (k + offset) / steps), see)
            gradients = torch.autograd.grad(naive_metric(logits[-1], batch, row), list(probes.values()))
            for reader, gradient in zip(probes, gradients):
                for writer in naive.graph.real_edges[:, reader].nonzero().flatten().tolist():
                    total[writer, reader] += ((ends[1][writer] - ends[0][writer]) * gradient).sum()
        found.append(total)
    return torch.stack(found)


@pytest.mark.parametrize(("rule", "offset"), [("left", 0.0), ("midpoint", 0.5), ("right", 1.0)])
@pytest.mark.parametrize("parallel", [True, False])
def test_conductance_is_that_of_the_definition(parallel: bool, rule: Any, offset: float):
    batch = random_batch(padded=True, tokens=8)
    settings = AttributionParams(method="ceap", steps=3, rule=rule)
    ours = score_edges_by_example(neox_subject(parallel=parallel), batch, settings)
    expected = naive_ceap(neox_model(parallel=parallel), batch, 3, offset)
    assert expected.abs().max() > 1e-2
    torch.testing.assert_close(ours, expected, atol=1e-12, rtol=0)


def test_conductance_is_complete_at_both_ends_and_eap_ig_at_one():
    """Into the logits, the differences of the parts telescope to the change of the metric; EAP-IG's do not."""
    subject, batch = neox_subject(), random_batch()
    clean, corrupted = (
        metric_values(subject.logits(tokens, batch.lengths), batch) for tokens in (batch.clean, batch.corrupted)
    )
    change = float((clean - corrupted).mean())

    def sums(method: Any, steps: int) -> tuple[float, float]:
        values = score_edges(subject, batch, AttributionParams(method=method, rule="midpoint", steps=steps)).values
        return float(values[0].sum()), float(values[:, -1].sum())

    assert abs(change) > 0.05
    for end in sums("ceap", 64):
        assert abs(end - change) < 2e-3 * abs(change)
    assert abs(sums("eap_ig", 64)[1] - change) > 1e-2 * abs(change)
    one, eap_ig = (score_edges(subject, batch, AttributionParams(method=m, steps=1)).values for m in ("ceap", "eap_ig"))
    torch.testing.assert_close(one, eap_ig, atol=1e-13, rtol=0)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_scores_depend_neither_on_batch_size_nor_on_order(method: str):
    subject, batch = neox_subject(), random_batch(padded=True, tokens=8)
    settings = AttributionParams(method=method)  # type: ignore[arg-type]
    once = score_edges(subject, batch, settings).values
    shuffled = score_edges(subject, batch.take(torch.tensor([3, 0, 4, 2, 1])), settings, batch_pairs=2).values
    assert once.abs().max() > 1e-3
    torch.testing.assert_close(shuffled, once, atol=1e-13, rtol=0)


@pytest.mark.parametrize("method", sorted(METHODS))
def test_the_mean_over_examples_is_the_score(method: str):
    subject, batch = neox_subject(), random_batch()
    settings = AttributionParams(method=method)  # type: ignore[arg-type]
    by_example = score_edges_by_example(subject, batch, settings, batch_pairs=3)
    assert by_example.shape == (5, subject.graph.n_writers, subject.graph.n_readers)
    torch.testing.assert_close(by_example.mean(0), score_edges(subject, batch, settings).values, atol=1e-13, rtol=0)


def test_there_is_nothing_where_there_is_no_edge():
    for method in METHODS:
        scores = score_edges(neox_subject(), random_batch(), AttributionParams(method=method))  # type: ignore[arg-type]
        assert (scores.values[~scores.graph.real_edges] == 0).all()
        assert (scores.values[scores.graph.real_edges] != 0).float().mean() > 0.5


def test_equal_prompts_score_zero():
    batch = random_batch()
    same = type(batch)(batch.clean, batch.clean, batch.lengths, batch.answer_ids, batch.answer_weights, batch.metric)
    assert (score_edges(neox_subject(), same, AttributionParams()).values == 0).all()


def test_float32_agrees_with_float64():
    batch = random_batch()
    single = score_edges(neox_subject(double=False), batch, AttributionParams())
    double = score_edges(neox_subject(), batch, AttributionParams())
    assert single.values.dtype == torch.float32
    assert double.values.dtype == torch.float64
    torch.testing.assert_close(single.values.double(), double.values, atol=1e-5, rtol=0)


def test_labels_say_what_was_done():
    labels = {name: method.label(AttributionParams(rule="midpoint", steps=7)) for name, method in METHODS.items()}
    assert labels["eap_ig"] == "eap_ig-midpoint-7"
    assert labels["eap"] == "eap"
    assert len(set(labels.values())) == len(METHODS)


def test_impossible_paths_are_refused():
    with pytest.raises(ImpossibleRequest, match="choose one of right, left, midpoint"):
        path_points("sideways", 5)
    with pytest.raises(ImpossibleRequest, match="at least 1 step"):
        path_points("right", 0)


def peak_bytes(work: Callable[[], object]) -> int:
    """Most memory that the tensors made by `work` took at one time."""
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        work()
    assert profiler.profiler is not None
    events = profiler.profiler.kineto_results.events()
    changes = sorted((e.start_ns(), e.nbytes()) for e in events if e.name() == "[memory]")
    return max(itertools.accumulate(change for _, change in changes))


MEMORY = {
    "many narrow heads": {"layers": 6, "heads": 8, "d_head": 8},
    "few heads": {"layers": 3, "heads": 2, "d_head": 16},
    "sequential": {"layers": 4, "heads": 4, "d_head": 8, "parallel": False},
}


@pytest.mark.parametrize("steps", [1, 5])
@pytest.mark.parametrize("first", [0, 9])
@pytest.mark.parametrize("kind", MEMORY)
def test_memory_is_what_the_estimate_says(kind: str, first: int, steps: int):
    """The estimate is of the worst case: every token differs; and it must not be so high that it wastes memory."""
    subject, batch = neox_subject(**MEMORY[kind], double=False), random_batch(pairs=40, tokens=16, first=first)
    estimate = 40 * bytes_per_pair(subject.architecture, 16, steps, 4)
    peak = peak_bytes(lambda: score_edges(subject, batch, AttributionParams(steps=steps), batch_pairs=40))
    assert peak < estimate + WORKSPACE["cpu"]
    if first == 0:
        assert peak > 0.6 * estimate


@pytest.mark.parametrize("kind", MEMORY)
def test_memory_is_bounded_by_what_the_writers_write(kind: str, monkeypatch: pytest.MonkeyPatch):
    """At most one and a half times, where that is not little anyway."""
    monkeypatch.setattr(base, "UNBOUNDED", 0)
    monkeypatch.setitem(WORKSPACE, "cpu", 2**16)
    subject, batch = neox_subject(**MEMORY[kind], double=False), random_batch(pairs=40, tokens=16, first=0)
    written = subject.graph.n_writers * 40 * 16 * subject.architecture.d_model * 4
    at_once = pairs_at_once(subject, batch, AttributionParams())
    peak = peak_bytes(lambda: score_edges(subject, batch, AttributionParams()))
    assert 1 < at_once < 40
    assert 0.3 * written < peak < 1.5 * written


def test_parts_are_even_and_fit_the_budget():
    subject, batch = neox_subject(), random_batch(pairs=9)
    one = bytes_per_pair(subject.architecture, 7, 5, 8)
    at_once = [pairs_at_once(subject, batch, AttributionParams(), budget) for budget in (1, 4 * one, 8 * one, 2**30)]
    assert at_once == [1, 3, 5, 9]


class Crowded:
    """Stands in for a method where more than a number of pairs do not fit."""

    def __init__(self, fitting: int, error: Exception) -> None:
        self.fitting, self.error, self.tried = fitting, error, list[int]()
        self.whole = METHODS["eap"].score

    def __call__(self, subject: Subject, part: PairBatch, settings: AttributionSettings, per_example: bool) -> Tensor:
        self.tried.append(len(part))
        if len(part) > self.fitting:
            raise self.error
        return self.whole(subject, part, settings, per_example)


FULL = (
    torch.OutOfMemoryError("CUDA out of memory."),
    RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 8 bytes."),
    MemoryError(),
)


@pytest.mark.parametrize("error", FULL, ids=lambda e: type(e).__name__)
def test_out_of_memory_halves_the_batch_and_goes_on(error: Exception, monkeypatch: pytest.MonkeyPatch):
    subject, batch, settings = neox_subject(), random_batch(pairs=7), AttributionParams(method="eap")
    expected, by_example = score_edges(subject, batch, settings), score_edges_by_example(subject, batch, settings)
    crowded = Crowded(2, error)
    monkeypatch.setitem(METHODS, "eap", replace(METHODS["eap"], score=crowded))
    again = score_edges(subject, batch, settings)
    assert crowded.tried == [7, 3, 1, 1, 1, 1, 1, 1, 1]
    torch.testing.assert_close(again.values, expected.values, atol=1e-13, rtol=0)
    crowded.tried.clear()
    torch.testing.assert_close(
        score_edges_by_example(subject, batch, settings, batch_pairs=4), by_example, atol=1e-13, rtol=0
    )
    assert crowded.tried == [4, 2, 2, 2, 1]


def test_other_errors_and_a_single_pair_that_does_not_fit_end_it(monkeypatch: pytest.MonkeyPatch):
    subject, batch, settings = neox_subject(), random_batch(pairs=4), AttributionParams(method="eap")
    crowded = Crowded(0, torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setitem(METHODS, "eap", replace(METHODS["eap"], score=crowded))
    with pytest.raises(ImpossibleRequest, match="a single pair of 7 tokens"):
        score_edges(subject, batch, settings)
    assert crowded.tried == [4, 2, 1]
    crowded.error = RuntimeError("shapes do not fit")
    with pytest.raises(RuntimeError, match="shapes do not fit"):
        score_edges(subject, batch, settings)
    assert crowded.tried == [4, 2, 1, 4]

"""The analysis of a checkpoint: every status, the splits it uses, and what its parts depend on."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from ontogeny import analysis
from ontogeny.analysis import (
    CircuitSearch,
    analyse_behaviour,
    analyse_checkpoint,
    analyse_circuit,
    analyse_scores,
    analyse_stability,
    analyses_of,
    search_circuit,
    tokenize_splits,
)
from ontogeny.attribution import score_edges_by_example
from ontogeny.components import ROLES
from ontogeny.core.behaviour import metric_values
from ontogeny.core.circuit import EdgeScores, matched_size, rank_edges
from ontogeny.core.errors import ImpossibleRequest
from ontogeny.core.pairs import SPLITS, PairBatch, PromptPair, Split, TaskDataset
from ontogeny.core.results import Behaviour, CheckpointRef, CircuitResult
from ontogeny.core.stability import StabilityResult, circuit_stability
from ontogeny.models.subject import Subject
from ontogeny.params import AnalyseParams, BaselineParams, BehaviourParams, RolesParams, SearchParams, StabilityParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.records import pack, unpack
from ontogeny.tasks.tokenizer import train_tokenizer
from support.engine import neox_model, neox_subject, random_batch

SETTINGS = AnalyseParams(behaviour=BehaviourParams(resamples=200), stability=StabilityParams(matched_floor=2))
REF = CheckpointRef("ladder", "tiny-s0", "tiny", 0, 8, 4096, "data/x", "0" * 32)


def learnt_batches(subject: Subject, pairs: int = 12) -> Mapping[Split, PairBatch]:
    """Pairs whose answers are what the model says anyway: clean prompts favour the first, corrupted the second."""
    found: dict[Split, PairBatch] = {}
    for seed, split in enumerate(SPLITS):
        batch = random_batch(pairs=pairs, tokens=6, seed=seed)
        clean, corrupted = (subject.logits(tokens, batch.lengths) for tokens in (batch.clean, batch.corrupted))
        over = torch.minimum(clean[:, :, None] - clean[:, None, :], corrupted[:, None, :] - corrupted[:, :, None])
        best = over.flatten(1).argmax(1)
        found[split] = replace(batch, answer_ids=torch.stack([best // clean.shape[1], best % clean.shape[1]], dim=1))
    return found


def run(
    subject: Subject, batches: Mapping[Split, PairBatch], settings: AnalyseParams = SETTINGS, *, baselines: bool = False
) -> tuple[Mapping[Split, Behaviour], CircuitResult]:
    behaviour = analyse_behaviour(subject, batches, settings)
    scores = analyse_scores(subject, batches, behaviour, settings)
    return behaviour, analyse_circuit(subject, batches, behaviour, scores, settings, baselines=baselines)


def test_a_learnt_task_gives_a_circuit():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    behaviour, result = run(subject, batches)
    assert set(behaviour) == set(SPLITS)
    assert behaviour["discover"].metric.low > 0
    assert result.status == "found"
    assert result.reason == ""
    assert result.circuit is not None
    assert result.kept == result.circuit.n_edges
    assert result.nodes == result.circuit.n_nodes
    assert result.cap == subject.graph.n_edges
    assert 0 < result.kept < subject.graph.n_edges
    assert result.faithfulness["discover"].raw >= 0.8 > result.random_p95
    for split in ("discover", "held_out"):
        batch = batches[split]
        clean = float(metric_values(subject.logits(batch.clean, batch.lengths), batch).mean())
        value = float(CircuitEvaluator(subject, batch).evaluate(result.circuit).mean())
        assert result.faithfulness[split].raw == pytest.approx(value / clean, abs=1e-9)
    assert result.faithfulness["held_out"].raw != result.faithfulness["discover"].raw


def test_the_circuit_is_the_smallest_faithful_one():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    behaviour, result = run(subject, batches)
    scores = analyse_scores(subject, batches, behaviour, SETTINGS)
    assert scores is not None
    ranking, evaluator = rank_edges(scores), CircuitEvaluator(subject, batches["discover"])
    whole = float(evaluator.clean.mean())
    faithful = [
        n
        for n in range(1, subject.graph.n_edges + 1)
        if ranking.kept[n] and float(evaluator.evaluate(ranking.circuit(n)).mean()) >= 0.8 * whole
    ]
    assert result.asked == faithful[0]
    assert [p.asked for p in result.searched] == sorted(
        {ranking.representative(n) for n in range(1, result.searched[-1].asked + 1)}
    )


def test_the_curve():
    subject = neox_subject(layers=3)
    _, result = run(subject, learnt_batches(subject))
    assert [point.fraction for point in result.curve] == list(SETTINGS.search.fractions)
    assert result.curve[-1].kept == subject.graph.n_edges
    assert result.curve[-1].faithfulness.raw == pytest.approx(1.0, abs=1e-9)
    assert result.curve[-1].faithfulness.normalised == pytest.approx(1.0, abs=1e-9)
    assert math.isfinite(result.cpr)
    assert result.cmd > 0
    assert all(point.complement is None and point.random == () for point in result.curve)


def test_baselines_only_where_asked():
    subject = neox_subject(layers=3)
    settings = SETTINGS.model_copy(update={"baselines": BaselineParams(fractions=(0.05, 0.2))})
    _, result = run(subject, learnt_batches(subject), settings, baselines=True)
    for point in result.curve:
        asked_for = point.fraction in (0.05, 0.2)
        assert (point.complement is not None) == asked_for
        assert len(point.random) == (20 if asked_for else 0)
    without = next(point for point in result.curve if point.fraction == 0.2)
    assert without.complement is not None
    assert without.complement.raw < 1.0
    assert len({f.raw for f in without.random}) > 5


def test_a_task_not_learnt_is_not_searched(monkeypatch: pytest.MonkeyPatch):
    subject = neox_subject(layers=3)
    batches = {k: replace(b, answer_weights=-b.answer_weights) for k, b in learnt_batches(subject).items()}
    monkeypatch.setattr(analysis, "CircuitEvaluator", None)
    monkeypatch.setattr(analysis, "score_edges", None)
    _, result = run(subject, batches)
    assert result.status == "not_learned"
    assert result.circuit is None
    assert result.asked is result.kept is result.nodes is None
    assert result.curve == ()
    assert math.isnan(result.cpr)


def test_a_trivial_task_has_a_curve_and_no_circuit():
    subject = neox_subject(layers=3)
    batches = {}
    for split, batch in learnt_batches(subject).items():
        clean = subject.logits(batch.clean, batch.lengths)
        corrupted = subject.logits(batch.corrupted, batch.lengths)
        both = torch.minimum(clean - clean.mean(1, keepdim=True), corrupted - corrupted.mean(1, keepdim=True))
        ids = torch.stack([both.argmax(1), (clean + corrupted).argmin(1)], dim=1)
        batches[split] = replace(batch, answer_ids=ids)
    settings = SETTINGS.model_copy(update={"search": SearchParams(threshold=0.3)})
    behaviour = analyse_behaviour(subject, batches, settings)
    shifted = {k: replace(b, difference=replace(b.difference, low=0.01)) for k, b in behaviour.items()}
    scores = analyse_scores(subject, batches, shifted, settings)
    result = analyse_circuit(subject, batches, shifted, scores, settings)
    assert result.status == "trivial"
    assert result.circuit is None
    assert len(result.curve) == len(SETTINGS.search.fractions)
    assert math.isfinite(result.curve[3].faithfulness.normalised)


def test_a_threshold_out_of_reach_keeps_the_best():
    subject = neox_subject(layers=3)
    settings = SETTINGS.model_copy(update={"search": SearchParams(range="paper", threshold=1.0)})
    _, result = run(subject, learnt_batches(subject), settings)
    assert result.status == "threshold_unmet"
    assert result.circuit is not None
    assert result.cap == math.floor(0.05 * subject.graph.n_edges)
    assert result.asked is not None
    assert result.asked <= result.cap
    assert result.sustained is None
    best = max(point.faithfulness.raw for point in result.searched if point.kept)
    assert result.faithfulness["discover"].raw == pytest.approx(best)


def test_weights_that_overflow_are_nan():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    huge = replace(subject.weights, unembed=subject.weights.unembed * float("inf"))
    _, result = run(replace(subject, weights=huge), batches)
    assert result.status == "nan"
    assert result.circuit is None


def test_the_same_twice():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    first, second = (run(subject, batches, baselines=True)[1] for _ in range(2))
    assert first.curve == second.curve
    assert first.random_p95 == second.random_p95


def test_sections_of_an_analysis_are_those_that_change_it():
    parts = analyses_of("ioi")
    names = [part.name for part in parts]
    assert names == ["behaviour", "scores", "circuit", "stability", "verification", "algorithm"]
    assert analyses_of("sva") == parts[:-1]
    fields = set(AnalyseParams.model_fields)
    for place, part in enumerate(parts):
        assert {section.partition(".")[0] for section in part.sections} <= fields
        assert set(part.needs) <= {*names[:place], "roles"}
    used = {section for part in parts for section in part.sections}
    used |= {f"roles.{section}" for role in ROLES.values() for section in role.sections}
    assert used == fields - {"precision", "roles"} | {f"roles.{name}" for name in RolesParams.model_fields}


WORDS = ("the", "key", "keys", "is", "are", "on", "cabinet")


@pytest.fixture
def tokenized(tmp_path: Path) -> tuple[Subject, TaskDataset]:
    tokenizer = train_tokenizer([" ".join(WORDS)], [f" {word}" for word in WORDS], tmp_path)
    pairs = tuple(
        PromptPair(f"the {a} on the cabinet", f"the {b} on the cabinet", (f" {c}",), (f" {d}",), "pp", {})
        for a, b, c, d in (("keys", "key", "are", "is"), ("key", "keys", "is", "are"))
    )
    dataset = TaskDataset("sva", "prob_diff", "number", 0, tokenizer.digest, dict.fromkeys(SPLITS, pairs))
    return replace(neox_subject(), tokenizer=tokenizer), dataset


def test_a_checkpoint_end_to_end(tokenized: tuple[Subject, TaskDataset]):
    subject, dataset = tokenized
    result = analyse_checkpoint(subject, REF, {"sva": dataset}, SETTINGS)
    assert result.ref == REF
    assert result.model == subject.facts
    task = result.tasks["sva"]
    assert task.dataset_digest == dataset.digest
    assert set(task.behaviour) == set(SPLITS)
    assert task.circuit.status in {"found", "threshold_unmet", "not_learned", "trivial"}
    assert (task.scores is None) == (task.circuit.status == "not_learned")


def test_data_that_does_not_fit_the_model_is_refused(tokenized: tuple[Subject, TaskDataset]):
    subject, dataset = tokenized
    with pytest.raises(ImpossibleRequest, match="was made with tokenizer"):
        tokenize_splits(subject, replace(dataset, tokenizer_digest="0" * 32))
    with pytest.raises(ImpossibleRequest, match=r"has no tokenizer\.json"):
        tokenize_splits(replace(subject, tokenizer=None), dataset)
    small = replace(subject.weights, architecture=replace(subject.architecture, vocab=5))
    with pytest.raises(ImpossibleRequest, match=r"vocabulary of .* ends at 4"):
        tokenize_splits(replace(subject, weights=small), dataset)
    short = replace(subject.weights, architecture=replace(subject.architecture, context=3))
    with pytest.raises(ImpossibleRequest, match="longer than the context"):
        tokenize_splits(replace(subject, weights=short), dataset)


def test_the_model_is_left_as_it_was():
    subject = neox_subject(layers=3)
    before = {name: p.clone() for name, p in neox_model(layers=3).named_parameters()}
    embed = subject.weights.embed.clone()
    run(subject, learnt_batches(subject))
    assert torch.equal(subject.weights.embed, embed)
    assert all(torch.equal(p, before[name]) for name, p in neox_model(layers=3).named_parameters())


def stable(
    subject: Subject, batches: Mapping[Split, PairBatch], settings: AnalyseParams = SETTINGS
) -> tuple[EdgeScores, CircuitSearch, StabilityResult]:
    behaviour = analyse_behaviour(subject, batches, settings)
    scores = analyse_scores(subject, batches, behaviour, settings)
    assert scores is not None
    search = search_circuit(subject, batches, behaviour, scores, settings)
    return scores, search, analyse_stability(subject, batches, scores, search.result, settings, search=search)


def test_stability_is_that_of_scores_by_example():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    _, search, found = stable(subject, batches)
    assert (found.status, found.reason, found.asked) == ("measured", "", search.result.asked)
    by_example = score_edges_by_example(subject, batches["discover"], SETTINGS.attribution)
    assert found.asked is not None
    matched = [matched_size(subject.graph, share, 2) for share in SETTINGS.stability.matched_fractions]
    plain = circuit_stability(subject.graph, by_example, found.asked, SETTINGS.stability, matched=matched)
    assert found.likeness == plain.likeness
    assert len(found.likeness) == 5
    assert found.core == plain.core.n_edges
    names = {subject.graph.edge_name(u, v): float(plain.inclusion[u, v]) for u, v in plain.inclusion.nonzero().tolist()}
    assert found.inclusion_by_name == names
    assert 0 < found.core < len(names)
    assert found.jaccard.low < 1.0


def test_the_size_interval_asks_for_no_new_pass_and_holds_the_size_found(monkeypatch: pytest.MonkeyPatch):
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    scores, search, found = stable(subject, batches)
    again = analyse_stability(subject, batches, scores, search.result, SETTINGS)
    assert pack(again)[0] == pack(found)[0]
    assert all(torch.equal(a, b) for a, b in zip(pack(again)[1].values(), pack(found)[1].values()))
    assert found.size is not None
    assert found.size.low is not None
    assert found.asked is not None
    assert found.size.low <= found.asked <= (found.size.high or math.inf)
    assert found.size.low < (found.size.high or math.inf)
    monkeypatch.setattr(analysis, "CircuitEvaluator", None)
    assert analyse_stability(subject, batches, scores, search.result, SETTINGS, search=search).size == found.size


def test_the_search_hands_on_the_metrics_of_every_size():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    _, search, _ = stable(subject, batches)
    assert {p.asked for p in search.result.searched if p.kept} <= set(search.by_size)
    mean = float(search.by_size[search.result.searched[-1].asked].double().mean())
    assert mean == pytest.approx(search.result.searched[-1].faithfulness.metric)


def test_stability_says_why_it_was_not_measured():
    subject = neox_subject(layers=3)
    batches = learnt_batches(subject)
    off = SETTINGS.model_copy(update={"stability": StabilityParams(enabled=False)})
    assert "Switched off" in stable(subject, batches, off)[2].reason
    impossible = SETTINGS.model_copy(update={"search": SearchParams(threshold=0.99, range="paper")})
    _, search, found = stable(subject, batches, impossible)
    assert search.result.status == "threshold_unmet"
    assert (found.status, found.size, found.asked) == ("not_measured", None, None)
    assert "threshold_unmet" in found.reason
    assert [each.size for each in found.likeness] == ["matched"] * 3 + ["weighted"]
    assert all(each.edges.low <= each.edges.median <= 1 for each in found.likeness)
    assert analyse_stability(subject, batches, None, search.result, SETTINGS).status == "not_measured"
    data, tensors = pack(found)
    assert unpack(StabilityResult, data, tensors).reason == found.reason


def test_stability_survives_the_disk():
    subject = neox_subject(layers=3)
    found = stable(subject, learnt_batches(subject))[2]
    again = unpack(StabilityResult, *pack(found))
    assert again.inclusion_by_name == found.inclusion_by_name
    assert (again.likeness, again.size, again.graph) == (found.likeness, found.size, found.graph)

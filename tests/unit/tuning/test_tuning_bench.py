"""Trying settings at a checkpoint: the numbers are the study's own, and do not depend on what was done before."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open

from ontogeny.analysis import analyse_circuit
from ontogeny.attribution import score_edges
from ontogeny.core.circuit import EdgeScores
from ontogeny.core.errors import BadCheckpoint
from ontogeny.core.tuning import ScoreSetting, Setting, setting
from ontogeny.params import AttributionParams
from ontogeny.patching import CircuitEvaluator
from ontogeny.tuning.bench import Bench, Place, open_bench
from ontogeny.tuning.study import grid
from support.tuning import SPACE, place

M5 = setting("eap_ig", "right", 5, "greedy", 0.8, 1.0)


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> Bench:
    return open_bench(place(tmp_path_factory.mktemp("tuning")))


def fresh(bench: Bench, folder: Path, **tune: Any) -> Bench:
    """The same place with an empty cache and nothing in memory."""
    changed = bench.place.tune.model_copy(update=tune)
    return Bench(dataclasses.replace(bench.place, cache=folder, tune=changed), bench.subject, bench.batches)


def units(cache: Path) -> dict[str, tuple[str, dict[str, bytes]]]:
    """What the cache holds, without moments and seconds."""
    found = {}
    for path in cache.rglob("*.safetensors"):
        with safe_open(path, framework="pt") as file:
            value = json.loads(file.metadata()["ontogeny"])["value"]
            if isinstance(value, dict):
                value.pop("seconds", None)
            tensors = {name: file.get_tensor(name).numpy().tobytes() for name in file.keys()}  # noqa: SIM118
        found[path.stem] = (json.dumps(value, sort_keys=True), tensors)
    return found


def test_the_task_is_learned_and_the_circuit_is_that_of_the_analysis(bench: Bench) -> None:
    assert bench.opened().status == "learned"
    found = bench.evaluate(M5)
    search = bench.place.analyse.search.model_copy(update={"threshold": 0.8})
    settings = bench.place.analyse.model_copy(update={"search": search})
    scores = score_edges(bench.subject, bench.discover, AttributionParams(steps=5))
    behaviour = {"discover": bench._behaviour(len(bench.discover))}
    direct = analyse_circuit(bench.subject, {**bench.batches, "discover": bench.discover}, behaviour, scores, settings)
    assert found.status == "reached"
    assert (found.asked, found.kept, found.nodes) == (direct.asked, direct.kept, direct.nodes)
    assert found.kept is not None
    assert 0 < found.kept < bench.graph.n_edges
    assert found.edges == found.kept / bench.graph.n_edges
    assert found.discover == pytest.approx(direct.faithfulness["discover"].raw, abs=1e-5)
    assert found.held_out.value == pytest.approx(direct.faithfulness["held_out"].raw, abs=1e-5)
    assert found.held_out.low <= found.held_out.value <= found.held_out.high
    assert found.edges_low <= found.edges
    assert found.passes == len(bench.discover) * 11
    confirmed = bench.confirm(M5)
    assert confirmed.kept == found.kept
    assert confirmed.random_p95 == pytest.approx(direct.random_p95, abs=1e-4)


def test_faithfulness_on_tune_is_a_ratio_of_means(bench: Bench) -> None:
    """By hand, from a new evaluator; also of one resample, so that the interval is of ratios of means."""
    found = bench.confirm(M5)
    assert found.circuit is not None
    evaluator = CircuitEvaluator(bench.subject, bench.batches["tune"])
    metric = evaluator.evaluate(found.circuit).double()
    clean = evaluator.clean.double()
    value = bench.evaluate(M5).tune
    assert value.value == pytest.approx(float(metric.mean() / clean.mean()), abs=1e-5)
    weights = bench._with_resamples(len(metric), len(metric))[1:]
    ratios = (weights @ metric) / (weights @ clean)
    assert value.low == pytest.approx(float(ratios.quantile(0.025)), abs=1e-5)
    assert value.low < value.high


def test_scores_of_some_prompts_are_scores_of_these_prompts(bench: Bench) -> None:
    unit = bench.scores(M5.scores)
    half = len(bench.discover) // 2
    assert sorted(unit.scores) == [half, len(bench.discover)]
    direct = score_edges(bench.subject, bench.discover.take(slice(half)), AttributionParams(steps=5))
    torch.testing.assert_close(unit.scores[half], direct.values, atol=1e-6, rtol=1e-4)
    assert not torch.allclose(unit.scores[half], unit.scores[len(bench.discover)], atol=1e-6, rtol=1e-4)
    assert sorted(bench.discover.clean.tolist()) == sorted(bench.batches["discover"].clean.tolist())
    assert bench.discover.clean.tolist() != bench.batches["discover"].clean.tolist()


def test_the_truth_is_exact_on_the_same_prompts_and_resamples(bench: Bench) -> None:
    truth, unit = bench.truth(), bench.scores(M5.scores)
    assert truth is not None
    assert unit.resampled is not None
    assert truth.shape == unit.resampled.shape == (21, bench.graph.n_writers, bench.graph.n_readers)
    few = bench.discover.take(slice(10))
    direct = score_edges(bench.subject, few, AttributionParams(method="exact"))
    torch.testing.assert_close(truth[0], direct.values, atol=1e-5, rtol=1e-4)
    scores = score_edges(bench.subject, few, AttributionParams(steps=5))
    torch.testing.assert_close(unit.resampled[0], scores.values, atol=1e-6, rtol=1e-4)
    drawn = bench._with_resamples(10, len(bench.discover))[1]
    rows = (drawn * len(bench.discover)).round()
    assert float(drawn.sum()) == pytest.approx(1.0)
    assert set(rows[10:].tolist()) == {0.0}


def test_too_large_graphs_have_no_truth(bench: Bench, tmp_path: Path) -> None:
    truth = bench.place.tune.truth.model_copy(update={"up_to_edges": bench.graph.n_edges - 1})
    other = fresh(bench, tmp_path, truth=truth)
    assert other.truth() is None
    assert other.scores(M5.scores).resampled is None
    assert other.scores(M5.scores).scores.keys() == bench.scores(M5.scores).scores.keys()


def test_the_order_in_which_settings_are_tried_changes_no_bit(bench: Bench, tmp_path: Path) -> None:
    """So that a study which was interrupted ends with the same bytes."""
    every = grid(SPACE)
    one, other = fresh(bench, tmp_path / "one"), fresh(bench, tmp_path / "other")
    for s in every:
        one.evaluate(s)
    for s in reversed(every):
        Bench(other.place, other.subject, other.batches).evaluate(s)
    found = units(tmp_path / "one")
    assert len(found) == len(every) + len({s.scores for s in every})
    assert found == units(tmp_path / "other")


def test_scores_are_computed_once_and_shared(bench: Bench, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    inner = Bench._scores

    def counting(self: Bench, scores: ScoreSetting) -> Any:
        calls.append(scores)
        return inner(self, scores)

    monkeypatch.setattr(Bench, "_scores", counting)
    other = fresh(bench, tmp_path)
    for s in grid(SPACE):
        other.evaluate(s)
    assert sorted(calls) == sorted({s.scores for s in grid(SPACE)})
    again = Bench(other.place, other.subject, other.batches)
    for s in grid(SPACE):
        again.evaluate(s)
    assert len(calls) == 3


def key(bench: Bench, s: Setting, **tune: Any) -> str:
    return dataclasses.replace(bench.place, tune=bench.place.tune.model_copy(update=tune)).key(s)


def test_fingerprints_hold_what_matters(bench: Bench) -> None:
    base = bench.place.key(M5)
    assert key(bench, M5, target=0.9) == key(bench, M5, slack=0.5) == base
    assert key(bench, M5, seed=1) != base
    space = bench.place.tune.space
    assert key(bench, M5, space=space.model_copy(update={"method": ("eap_ig",)})) == base
    assert key(bench, M5, space=space.model_copy(update={"threshold": (0.6, 0.99)})) != base
    assert bench.place.key(dataclasses.replace(M5, threshold=0.7)) != base
    adopted = bench.place.analyse.search.model_copy(update={"threshold": 0.5, "selection": "topn"})
    analyse = bench.place.analyse.model_copy(update={"search": adopted})
    assert dataclasses.replace(bench.place, analyse=analyse).key(M5) == base


def test_where_nothing_can_be_found_the_status_says_why(bench: Bench, tmp_path: Path) -> None:
    other = fresh(bench, tmp_path)
    stored = other.scores(M5.scores)
    broken = {n: torch.full_like(values, float("nan")) for n, values in stored.scores.items()}
    other.place.jobs.store(other.place.scores_key(M5.scores), dataclasses.replace(stored, scores=broken))
    found = Bench(other.place, other.subject, other.batches).evaluate(M5)
    assert (found.status, found.kept) == ("nan", None)
    assert "not finite" in found.reason
    assert found.edges != found.edges
    assert isinstance(other._edge_scores(M5), EdgeScores)


def test_a_checkpoint_that_is_not_the_one_named_is_refused(bench: Bench) -> None:
    ref = dataclasses.replace(bench.place.ref, weights_digest="another")
    with pytest.raises(BadCheckpoint, match="was changed"):
        open_bench(dataclasses.replace(bench.place, ref=ref))
    assert isinstance(bench.place, Place)


def test_a_worker_keeps_models_up_to_a_size_and_the_one_in_use(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ontogeny.tuning.bench._benches", {})
    first, second, third = (dataclasses.replace(place(tmp_path), name=f"m-s0@{step}") for step in range(3))
    size = open_bench(first).bytes
    monkeypatch.setattr("ontogeny.tuning.bench.KEPT", 2 * size)
    kept = [open_bench(each) for each in (first, second)]
    assert [open_bench(each) is bench for each, bench in zip((first, second), kept)] == [True, True]
    open_bench(first)
    open_bench(third)
    assert open_bench(first) is kept[0], "it was used after the second"
    monkeypatch.setattr("ontogeny.tuning.bench.KEPT", 1)
    alone = open_bench(second)
    assert alone is not kept[1]
    assert open_bench(second) is alone


def test_what_a_model_takes_is_about_what_it_holds(bench: Bench) -> None:
    """Weights and the evaluators' tensors, counted one by one: the estimate is not less, nor four times as much."""

    def held(value: Any, seen: set[int]) -> int:
        if isinstance(value, torch.Tensor):
            memory = value.untyped_storage()
            if memory.data_ptr() in seen:
                return 0
            seen.add(memory.data_ptr())
            return memory.nbytes()
        if isinstance(value, dict):
            return sum(held(each, seen) for each in value.values())
        if isinstance(value, list | tuple):
            return sum(held(each, seen) for each in value)
        inside = getattr(value, "__dict__", None)
        return 0 if inside is None or id(value) in seen or seen.add(id(value)) else held(inside, seen)  # type: ignore[func-returns-value]

    for each in grid(SPACE)[:2]:
        bench.evaluate(each)
    for share in bench.place.tune.space.examples:
        bench._evaluator("discover", bench.prompts(share))
    counted = held([bench.subject.weights, bench._evaluators], set())
    assert counted > 4 * bench.subject.parameters
    assert counted <= bench.bytes <= 4 * counted

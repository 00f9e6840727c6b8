"""What is concluded from trials, on numbers small enough for paper."""

import dataclasses
import math
from pathlib import Path

import pytest
import torch

from ontogeny.core.graph import GraphSpec
from ontogeny.core.results import Estimate
from ontogeny.core.stability import Quantiles
from ontogeny.core.tuning import ScoreSetting, StepQuality, Trial
from ontogeny.params import SpaceParams
from ontogeny.tuning.answers import carry, enough_steps, rank_correlation, ranked, recommendation, top_overlap
from ontogeny.tuning.conclude import conclude, confirmations, learned
from ontogeny.tuning.landscape import front, importances, in_memory
from ontogeny.tuning.study import TuningSpec, grid, grid_jobs, grid_trials
from support.tuning import SPACE, place, run_here, trial

NAN = math.nan
SMALL, LARGE = "small-s0@8", "large-s0@8"


def both(edges: float, tune: float) -> dict[str, tuple[float, float]]:
    return {SMALL: (edges, tune), LARGE: (2 * edges, tune + 0.1)}


def test_a_trial_is_judged_at_its_worst_checkpoint() -> None:
    found = trial(5, 0.8, {SMALL: (0.1, 0.9), LARGE: (0.3, 0.7)})
    assert found.edges == pytest.approx(0.2)
    assert found.faithfulness == 0.7
    assert found.passes == 70 * 11
    assert found.violation(0.8) == pytest.approx(0.1)
    assert found.violation(0.7) <= 0
    assert found.baseline == "paper"
    unmet = trial(5, 0.8, both(0.1, 0.9), status="threshold_unmet")
    assert unmet.violation(0.8) == 2.0
    without = trial(5, 0.8, {SMALL: (0.1, 0.9), LARGE: (NAN, NAN)})
    assert not without.complete
    assert without.violation(0.1) == math.inf


def test_the_cheapest_of_nearly_equal_circuits_comes_first() -> None:
    cheap, small, big = trial(2, 0.8, both(0.104, 0.85)), trial(30, 0.8, both(0.1, 0.85)), trial(5, 0.9, both(0.2, 0.9))
    unfaithful = trial(2, 0.7, both(0.05, 0.75))
    everyone = [big, unfaithful, small, cheap]
    assert ranked(everyone, 0.8, 0.05) == [cheap, small, big]
    assert ranked(everyone, 0.8, 0.0) == [small, cheap, big]
    assert ranked(everyone, 0.7, 0.05)[0] == unfaithful
    assert ranked(everyone, 0.99, 0.05) == []


def quality(steps: int, behind: Estimate) -> StepQuality:
    scores = ScoreSetting("eap_ig", "right", steps)
    return StepQuality(SMALL, scores, 2, 1, behind, behind, behind, Quantiles(0.0, 0.0, 0.0))


def test_steps_are_enough_when_surely_within_the_tolerance() -> None:
    """Also where a point lies within it but its interval does not; the largest m proves nothing about itself."""
    every = [
        quality(30, Estimate(0.0, 0.0, 0.0)),
        quality(2, Estimate(0.2, 0.1, 0.3)),
        quality(5, Estimate(0.01, -0.02, 0.04)),
        quality(10, Estimate(0.005, -0.001, 0.015)),
    ]
    (found,) = enough_steps(every, 0.02)
    assert (found.steps, found.largest, found.gap.high) == (10, 30, 0.015)
    assert enough_steps(every, 0.05)[0].steps == 5
    assert enough_steps(every, 0.001)[0].steps is None
    assert (
        enough_steps([quality(2, Estimate(NAN, NAN, NAN)), quality(5, Estimate(NAN, NAN, NAN))], 0.5)[0].steps is None
    )


def test_rank_correlation_by_the_textbook() -> None:
    """1 - 6 sum d^2 / (n (n^2 - 1)), over edges only: what stands where there is no edge does not count."""
    graph = GraphSpec(1, 1)
    n = graph.n_edges
    order = torch.randperm(n, generator=torch.Generator().manual_seed(0))
    a, b = torch.full(graph.real_edges.shape, 9.0), torch.full(graph.real_edges.shape, -9.0)
    a[graph.real_edges], b[graph.real_edges] = torch.arange(n).float(), order.float() ** 3
    expected = 1 - 6 * float(((torch.arange(n) - order) ** 2).sum()) / (n * (n * n - 1))
    found = rank_correlation(torch.stack([a, a]), torch.stack([b, a]), graph)
    assert found.tolist() == pytest.approx([expected, 1.0])
    assert abs(expected) < 0.9


def test_the_overlap_is_of_the_strongest_edges() -> None:
    graph = GraphSpec(1, 1)
    a, b = torch.zeros(graph.real_edges.shape), torch.zeros(graph.real_edges.shape)
    values = torch.arange(graph.n_edges).float()
    a[graph.real_edges] = values
    b[graph.real_edges] = -torch.where(values == values.max(), torch.zeros_like(values), values)
    assert top_overlap(a[None], b[None], graph, 2).tolist() == [0.5]
    assert top_overlap(a[None], -a[None], graph, 2).tolist() == [1.0]


def test_what_is_best_at_one_checkpoint_is_tried_at_the_other() -> None:
    trials = [
        trial(2, 0.8, {SMALL: (0.10, 0.85), LARGE: (0.20, 0.70)}),
        trial(5, 0.8, {SMALL: (0.12, 0.86), LARGE: (0.25, 0.82)}),
    ]
    found = {(c.source, c.target): c for c in carry(trials, [SMALL, LARGE], 0.8, 0.0)}
    assert len(found) == 4
    assert found[SMALL, SMALL].carries
    assert not found[SMALL, LARGE].carries
    assert found[LARGE, SMALL].carries
    assert (found[LARGE, SMALL].edges.value, found[LARGE, SMALL].own_edges) == (0.12, 0.10)
    assert found[SMALL, LARGE].tune.value == 0.70
    nowhere = carry([trials[0]], [SMALL, LARGE], 0.8, 0.0)
    assert [(c.source, c.target) for c in nowhere] == [(SMALL, SMALL), (SMALL, LARGE)]
    assert math.isnan(nowhere[1].own_edges)


def space(trials: list[Trial]) -> SpaceParams:
    return SPACE.model_copy(update={"steps": tuple({t.setting.steps for t in trials}), "threshold": (0.5, 0.9)})


def test_the_front_is_what_nothing_feasible_beats() -> None:
    trials = [
        trial(2, 0.8, both(0.10, 0.85)),
        trial(5, 0.8, both(0.10, 0.85)),  # beaten: the same at a higher cost
        trial(30, 0.8, both(0.09, 0.85)),
        trial(5, 0.9, both(0.20, 0.95)),
        trial(2, 0.5, both(0.02, 0.50)),  # not feasible
        trial(2, 0.6, {SMALL: (0.01, 0.99), LARGE: (NAN, NAN)}),
    ]
    study = in_memory(trials, space(trials), 0.8)
    assert front(study) == (0, 2, 3)
    assert front(in_memory(trials[4:], space(trials), 0.8)) == ()


def test_what_decides_the_size_is_important_for_it() -> None:
    thresholds, steps = (0.5, 0.6, 0.7, 0.8, 0.9), (2, 5, 30)
    trials = [trial(m, tau, both(tau / 5, tau)) for m in steps for tau in thresholds]
    found = importances(in_memory(trials, space(trials), 0.8))
    assert found["edges"]["threshold"] > 0.9
    assert found["passes"]["steps"] > 0.9
    assert sum(found["edges"].values()) == pytest.approx(1.0)
    assert importances(in_memory(trials[:3], space(trials), 0.8)) == {}


@pytest.fixture(scope="module")
def spec(tmp_path_factory: pytest.TempPathFactory) -> TuningSpec:
    """A grid that was run."""
    spec = TuningSpec("letters", "letters", "grid", (place(tmp_path_factory.mktemp("answers")),))
    run_here(grid_jobs(spec))
    return spec


def test_a_whole_study_from_the_cache(spec: TuningSpec) -> None:
    places = learned(spec)
    trials = grid_trials(spec, places)
    assert [t.setting for t in trials] == list(grid(spec.space))
    while jobs := confirmations(spec, places, trials):
        run_here(jobs)
    record = conclude(spec, places, trials, {})
    assert record.checkpoints[0].status == "learned"
    assert {q.scores for q in record.quality} == {t.setting.scores for t in trials}
    assert all(-1 <= q.spearman.low <= q.spearman.high <= 1 for q in record.quality)
    assert all(0 <= q.jaccard.low <= q.jaccard.high <= 1 for q in record.quality)
    (largest,) = [q for q in record.quality if q.scores.steps == 30]
    assert largest.behind == Estimate(0.0, 0.0, 0.0)
    assert largest.spearman.value > 0.3
    feasible = ranked(trials, record.target, 0.05)
    assert feasible
    assert {record.trials[i].setting for i in record.front} <= {t.setting for t in feasible}
    if record.recommended.setting is not None:
        assert record.recommended.confirmed[0].status == "found"
        assert record.recommended.setting in {t.setting for t in feasible}
        assert f"{record.recommended.held_out:.2f}" in record.recommended.reason
    assert record.adoptable.setting is None or record.adoptable.setting.examples == 1.0


def test_a_circuit_no_better_than_random_ones_is_not_recommended(spec: TuningSpec) -> None:
    places, trials = learned(spec), grid_trials(spec, learned(spec))
    first, second = ranked(trials, 0.5, 0.05)[:2]
    with_cache = dataclasses.replace(places[0], cache=places[0].cache.with_name("other"))
    assert recommendation([first], [with_cache], 0.5, 0.05, 2)[1] == (first.setting,)
    found = places[0]
    run_here(confirmations(spec, places, [first]))
    run_here(confirmations(spec, places, [second]))
    from ontogeny.core.results import CircuitResult

    for t, status in ((first, "threshold_unmet"), (second, "found")):
        known = found.jobs.load(CircuitResult, found.confirmed_key(t.setting))
        with_cache.jobs.store(with_cache.confirmed_key(t.setting), dataclasses.replace(known, status=status))
    chosen, due = recommendation([first, second], [with_cache], 0.5, 0.05, 2)
    assert due == ()
    assert chosen.setting == second.setting
    assert "no better than random circuits" in chosen.reason
    none, _ = recommendation([first], [with_cache], 0.5, 0.05, 2)
    assert none.setting is None
    assert "no better than random circuits" in none.reason


def test_where_the_task_is_not_learned_there_is_nothing_to_try(tmp_path: Path) -> None:
    untrained = place(tmp_path)
    from ontogeny.core.graph import GraphSpec as Graph
    from ontogeny.tuning.bench import Opened

    untrained.jobs.store(untrained.opened_key(), Opened(Graph(1, 1), "not_learned", "It reaches down to -1."))
    spec = TuningSpec("letters", "letters", "grid", (untrained,))
    assert grid_jobs(spec) == []
    record = conclude(spec, learned(spec), grid_trials(spec, learned(spec)), {})
    assert record.trials == ()
    assert record.recommended.setting is None
    assert record.recommended.reason == "Nothing was tried."
    assert (record.checkpoints[0].status, record.checkpoints[0].reason) == ("not_learned", "It reaches down to -1.")

"""Survival and yardsticks of likeness, against closed forms and published numbers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pandas as pd
import pytest

from ontogeny.series import circuit_change, random_jaccard, role_survival, spells, survival
from ontogeny.series.table import as_table


def test_survival_of_the_published_example() -> None:
    """Remission under 6-MP (Freireich et al. 1963), the textbooks' example of the product limit."""
    ended = [6, 6, 6, 7, 10, 13, 16, 22, 23]
    going_on = [6, 9, 10, 11, 17, 19, 20, 25, 32, 32, 34, 35]
    found = survival([*ended, *going_on], [True] * len(ended) + [False] * len(going_on))
    assert found.time.tolist() == [6, 7, 10, 13, 16, 22, 23]
    np.testing.assert_allclose(found.share, [0.857, 0.807, 0.753, 0.690, 0.627, 0.538, 0.448], atol=5e-4)
    assert (found.median, found.spells, found.ended) == (23, 21, 9)


def test_without_censoring_survival_is_the_share_that_is_longer() -> None:
    lengths = np.random.default_rng(0).integers(1, 9, 50)
    found = survival(list(map(float, lengths)), [True] * 50)
    np.testing.assert_allclose(found.share, [(lengths > t).mean() for t in found.time], atol=1e-12)
    none = survival([3.0, 4.0], [False, False])
    assert len(none.time) == 0
    assert math.isnan(none.median)


def test_spells_end_when_the_role_is_seen_to_be_gone() -> None:
    assert spells(np.array([0, 1, 1, 0, 1], dtype=bool)) == [(1, 2, True), (4, 4, False)]
    assert spells(np.zeros(3, dtype=bool)) == []


def test_role_survival_counts_tokens_from_gain_to_loss() -> None:
    holds = {"a0.h0": [0, 1, 1, 0], "a0.h1": [0, 0, 1, 1], "a1.h0": [0, 0, 0, 0]}
    rows = [
        ("suite", "m-s0", "m", 0, 10, step, 100 * step, "induction", head, bool(held))
        for head, column in holds.items()
        for step, held in enumerate(column)
    ]
    names = ["suite", "member", "scale", "seed", "parameters", "step", "tokens", "role", "head", "holds"]
    (row,) = role_survival(pd.DataFrame(rows, columns=names)).to_dict("records")
    assert (row["spells"], row["ended"], row["ever"], row["kept"]) == (2, 1, 2, 1)
    # One spell ends after 200 tokens; the other, of 100 so far, is no longer at risk then.
    assert row["median_tokens"] == 200
    (row,) = role_survival(pd.DataFrame(rows, columns=names), steady=3).to_dict("records")
    assert (row["spells"], row["short"]) == (0, 2)


def held(columns: dict[str, list[int]]) -> pd.DataFrame:
    """Who holds a role at steps 0, 1, ..., of 100 tokens each."""
    rows = [
        ("suite", "m-s0", "m", 0, 10, step, 100 * step, "induction", head, bool(value))
        for head, column in columns.items()
        for step, value in enumerate(column)
    ]
    names = ["suite", "member", "scale", "seed", "parameters", "step", "tokens", "role", "head", "holds"]
    return pd.DataFrame(rows, columns=names)


def test_what_lasts_is_longer_than_in_shuffled_order_and_what_flickers_is_not() -> None:
    (steady,) = role_survival(held({"a0.h0": [1] * 10 + [0] * 10, "a0.h1": [0] * 20})).to_dict("records")
    assert steady["median_tokens"] == 1000
    assert 0 < steady["shuffled_median_tokens"] <= 300
    assert steady["longer_than_shuffled"] > 0.95
    (flickers,) = role_survival(held({"a0.h0": [1, 0] * 10})).to_dict("records")
    assert flickers["median_tokens"] == 100
    assert flickers["longer_than_shuffled"] == 0.0
    (always,) = role_survival(held({"a0.h0": [1] * 20})).to_dict("records")
    assert math.isnan(always["shuffled_median_tokens"])
    assert always["longer_than_shuffled"] == 0.0, "in any order it lasts for all that was seen"
    (never,) = role_survival(held({"a0.h0": [0] * 20})).to_dict("records")
    assert math.isnan(never["longer_than_shuffled"])


def test_by_chance_on_paper() -> None:
    """One of three checkpoints in random order: first or second, the spell ends after 100 tokens; last, it is open."""
    (row,) = role_survival(held({"a0.h0": [1, 0, 0]}), draws=600).to_dict("records")
    assert (row["median_tokens"], row["shuffled_median_tokens"]) == (100, 100)
    assert row["longer_than_shuffled"] == 0.0
    (last,) = role_survival(held({"a0.h0": [0, 0, 1]}), draws=600).to_dict("records")
    assert math.isnan(last["median_tokens"])
    assert last["longer_than_shuffled"] == pytest.approx(2 / 3, abs=4 * math.sqrt(2 / 9 / 600))


@pytest.mark.parametrize(("edges", "one", "other"), [(4, 2, 2), (6, 2, 3), (7, 4, 5)])
def test_likeness_of_random_sets_is_that_of_all_pairs_of_sets(edges: int, one: int, other: int) -> None:
    sets = [[set(s) for s in itertools.combinations(range(edges), size)] for size in (one, other)]
    every = sorted(len(a & b) / len(a | b) for a in sets[0] for b in sets[1])
    found = random_jaccard(edges, one, other)
    assert found.mean == pytest.approx(np.mean(every))
    assert np.mean([value <= found.p95 + 1e-12 for value in every]) >= 0.95
    assert np.mean([value < found.p95 - 1e-12 for value in every]) < 0.95
    assert all(map(math.isnan, random_jaccard(edges, 0, other)))


def measured(jaccards: list[float], resampled: list[tuple[float, float, float] | None]) -> pd.DataFrame:
    rows: list[tuple[object, ...]] = []
    for step, (value, spread) in enumerate(zip(jaccards, resampled)):
        who = ("suite", "m-s0", "m", 0, 10, step, 100 * step, "ioi")
        rows.append((*who, "circuit/edges", 10.0, math.nan, math.nan, "found", None))
        rows.append((*who, "similarity/edges/previous", value, math.nan, math.nan, "measured", None))
        if spread is not None:
            rows.append((*who, "stability/jaccard", *spread, "measured", None))
    return as_table(rows)


def test_a_circuit_changed_if_it_is_less_like_its_predecessor_than_resamples_are_alike() -> None:
    spread = (0.6, 0.5, 0.8)
    table = measured([math.nan, 0.7, 0.3, 0.02, 0.9], [spread, spread, spread, spread, None])
    found = circuit_change(table, {"m-s0": 100})
    assert found["step"].tolist() == [1, 2, 3, 4]
    assert found["verdict"].tolist() == ["as resamples", "changed", "changed", "as resamples"]
    # Two sets of 10 out of 100 share 1 on average: 1/19, and at most 3/17 in 95 % of pairs.
    assert found["random_mean"].iloc[0] == pytest.approx(1 / 19, rel=0.1)
    assert found["like_random"].tolist() == [False, False, True, False]
    unknown = circuit_change(measured([math.nan, 0.7], [None, None]), {"m-s0": 100})
    assert unknown["verdict"].tolist() == ["undecided"]

"""Survival of roles, against closed forms and published numbers."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
import pytest

from ontogeny.series import role_survival, spells, survival


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

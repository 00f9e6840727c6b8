"""Decision rules on data that are known: what is there is found, and null suites support nothing."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import Emergence, emergences
from ontogeny.series.claims import (
    Claim,
    algorithm_stays,
    dips_below_zero,
    lag,
    no_unlearning,
    roles_change_hands,
    roles_follow,
    same_roles,
    similar_onsets,
    size_grows,
    together,
)
from ontogeny.series.emergence import ordered
from ontogeny.series.table import as_table

PARAMS = TrajectoryParams(resamples=100)
RULES = PARAMS.claims
X = np.concatenate([[0.0], np.arange(8, 16, 0.25)])
"""log2 tokens of 33 checkpoints; 1 % of the last is 2^9.1."""
TOKENS = [0, *(2 ** X[1:]).round().astype(int).tolist()]


def abilities(values: dict[str, np.ndarray], error: float = 0.03, name: str = "metric") -> list[Emergence]:
    """`scale-sN` -> values at each checkpoint."""
    rows = []
    for member, series in values.items():
        scale, _, seed = member.rpartition("-s")
        who = ("suite", member, scale, int(seed), 10 ** (6 + "abcdefgh".index(scale)))
        for step, (tokens, value) in enumerate(zip(TOKENS, series)):
            ends = (value - 1.96 * error, value + 1.96 * error)
            rows.append((*who, step, tokens, "ioi", name, float(value), *ends, "measured", None))
    return emergences(as_table(rows), PARAMS)


def rises(places: dict[str, float], seed: int = 0) -> dict[str, np.ndarray]:
    rng = np.random.default_rng(seed)
    return {member: (place < X) * 1.0 + rng.normal(0, 0.03, len(X)) for member, place in places.items()}


ALIKE = {"a-s0": 12.1, "a-s1": 12.3, "b-s0": 12.2, "b-s1": 12.4, "c-s0": 12.1, "c-s1": 12.2}


def test_onsets_are_alike_only_if_every_pair_is_and_runs_were_repeated() -> None:
    supported = similar_onsets("ioi", abilities(rises(ALIKE)), PARAMS)
    assert supported.verdict == "supported"
    assert -1 <= supported.low <= supported.statistic <= supported.high <= 1
    apart = similar_onsets("ioi", abilities(rises(ALIKE | {"c-s0": 9.6, "c-s1": 9.7})), PARAMS)
    assert apart.verdict == "contradicted"
    assert "c differ" in apart.reason
    assert apart.high < -1
    near = similar_onsets("ioi", abilities(rises(ALIKE | {"c-s0": 11.3, "c-s1": 11.3})), PARAMS)
    assert near.verdict == "undecided"
    single = {member: place for member, place in ALIKE.items() if member != "b-s1"}
    one_seed = similar_onsets("ioi", abilities(rises(single)), PARAMS)
    assert (one_seed.verdict, "one seed of b:" in one_seed.reason) == ("undecided", True)
    silent = similar_onsets("ioi", abilities(rises(ALIKE | {"d-s0": 99.0})), PARAMS)
    assert (silent.verdict, silent.reason) == ("undecided", "scales without an onset: 1")


def test_roles_and_greater_than_follow_within_their_windows() -> None:
    task = abilities(rises({"a-s0": 12.1, "b-s0": 12.1}))
    before = abilities(rises({"a-s0": 11.4, "b-s0": 11.1}, seed=1), name="role")
    timing = lag("C2", "induction", before, task, RULES.role_lag, RULES)
    assert timing.verdict == "supported"
    assert timing.statistic == pytest.approx(-0.75, abs=0.2)
    assert roles_follow(timing, {}, RULES).verdict == "undecided"
    assert roles_follow(timing, {"a-s0": 0.99, "b-s0": 0.97}, RULES).verdict == "supported"
    assert roles_follow(timing, {"a-s0": 0.99, "b-s0": 0.6}, RULES).verdict == "contradicted"
    late = abilities(rises({"a-s0": 13.4, "b-s0": 12.1}, seed=2), name="role")
    assert lag("C2", "late", late, task, RULES.role_lag, RULES).verdict == "contradicted"
    assert lag("C11", "greater_than", task, before, RULES.greater_than_lag, RULES).verdict == "undecided"
    assert lag("C11", "greater_than", task, [], RULES.greater_than_lag, RULES).reason == "no member has both onsets"


def test_algorithm_is_flat_and_above_its_null() -> None:
    rng = np.random.default_rng(0)
    flat, null = 60 + rng.normal(0, 3, len(X)), np.full(len(X), 30.0)
    kept = algorithm_stays("direct", X, flat, null, 12, RULES)
    assert kept.verdict == "supported"
    assert -5 <= kept.low < kept.statistic < kept.high <= 5
    drifts = algorithm_stays("direct", X, flat - 8 * (X - X[12]), null - 100, 12, RULES)
    assert drifts.verdict == "contradicted"
    assert drifts.statistic == pytest.approx(-8, abs=1.5)
    assert algorithm_stays("direct", X, flat, null + 40, 12, RULES).verdict == "other algorithm"
    assert algorithm_stays("direct", X, flat * math.nan, null, 12, RULES).verdict == "undecided"
    assert "9 checkpoints after" in algorithm_stays("direct", X, flat, null, len(X) - 9, RULES).reason
    dense = np.linspace(15, 16, len(X))
    assert "octaves after" in algorithm_stays("direct", dense, flat, null, 2, RULES).reason


def test_a_head_that_loses_its_role_while_the_task_holds() -> None:
    task = np.clip((X - 11) / 2, 0, 1)
    leaves = np.clip((X - 10) / 2, 0, 1) * np.where(X > 14, 0.2, 1.0)
    stays = np.clip((X - 10) / 2, 0, 1)
    after = int(np.searchsorted(X, 13))
    found = roles_change_hands("name_mover", X, task, np.column_stack([leaves, stays]), after, RULES)
    assert (found.verdict, found.statistic) == ("supported", 1)
    assert roles_change_hands("name_mover", X, task, stays[:, None], after, RULES).verdict == "contradicted"
    falls = np.where(X > 14, 0.1, task)
    assert roles_change_hands("name_mover", X, falls, leaves[:, None], after, RULES).verdict == "undecided"


def test_same_roles_at_every_scale_that_learns() -> None:
    assert (
        same_roles("ioi", {"a": ["induction", "name_mover"], "b": ["name_mover", "induction"]}).verdict == "supported"
    )
    differ = same_roles("ioi", {"a": ["induction", "duplicate"], "b": ["induction"]})
    assert (differ.verdict, differ.reason, differ.statistic) == ("contradicted", "duplicate is not held at b", 0.5)
    assert same_roles("ioi", {"a": ["induction"]}).verdict == "undecided"


def test_size_needs_five_points_and_an_interval_above_zero() -> None:
    grows = [(10.0**k, 20.0 * k + k % 2) for k in range(3, 11)]
    assert size_grows("ioi", grows, PARAMS).verdict == "supported"
    assert size_grows("ioi", [(p, -e) for p, e in grows], PARAMS).verdict == "contradicted"
    assert size_grows("ioi", grows[:4], PARAMS).reason == "4 shapes of model have sizes, 5 are needed"
    assert size_grows("ioi", grows[:5], PARAMS).verdict == "supported"
    swapped = [*grows[:3], (grows[3][0], grows[4][1]), (grows[4][0], grows[3][1])]
    nearly = size_grows("ioi", swapped, PARAMS)  # 5 of 120 orders of five rank as well or better: p = 0.04 on one side
    assert (nearly.verdict, nearly.statistic) == ("undecided", pytest.approx(0.9))
    zigzag = [(10.0**k, float(5 * (k % 2) + k / 10)) for k in range(3, 11)]
    assert size_grows("ioi", zigzag, PARAMS).verdict == "undecided"
    assert size_grows("ioi", [(p, 7.0) for p, _ in grows], PARAMS).verdict == "undecided"


def test_unlearning_and_dips() -> None:
    kept = abilities(rises(ALIKE))
    assert no_unlearning("ioi", kept).verdict == "supported"
    lost = abilities({m: v - 0.6 * (X > 14.5) for m, v in rises(ALIKE).items()})
    assert no_unlearning("ioi", lost).verdict == "contradicted"
    assert no_unlearning("ioi", []).verdict == "undecided"
    many = {f"{scale}-s{seed}": 12.1 for scale in "abc" for seed in range(3)}
    dipped = abilities({m: v - 0.5 * ((X > 11) & (X < 12)) for m, v in rises(many).items()})
    assert dips_below_zero("ioi", dipped).verdict == "supported"
    assert dips_below_zero("ioi", abilities(rises(many))).verdict == "contradicted"
    # 1 of 1: the exact interval of a share goes from 0.025 to 1.
    few = dips_below_zero("ioi", dipped[:1])
    assert (few.verdict, few.low, few.high) == ("undecided", pytest.approx(0.025), 1.0)


def test_one_verdict_on_several() -> None:
    yes = Claim("C4", "direct", "supported", "flat")
    no, open_ = replace(yes, verdict="contradicted", about="queries"), replace(yes, verdict="undecided")
    assert together("C4", "ioi", [yes, yes]).verdict == "supported"
    assert together("C4", "ioi", [yes, open_]).verdict == "undecided"
    assert together("C4", "ioi", [open_, no, yes]).reason == "queries: flat"
    assert together("C4", "ioi", []).verdict == "undecided"


def test_order_matters_where_there_is_a_trend() -> None:
    rng = np.random.default_rng(0)
    rise = (X > 12) + rng.normal(0, 0.1, len(X))
    assert ordered(rise)
    assert np.mean([ordered(rng.permutation(rise)) for _ in range(500)]) <= 0.02  # nominal 1 %, 3 sd of 500 is 1.3 %
    assert not ordered([1.0] * 9)
    assert not ordered([1.0, math.nan, 2.0])

"""Decision rules on data that are known: what is there is found, and null suites support nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import Emergence, emergences
from ontogeny.series.claims import (
    LAG_OF_GREATER_THAN,
    LAG_OF_ROLES,
    Claim,
    algorithm_stays,
    dips_below_zero,
    lag,
    learners,
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


ALIKE = {"a-s0": 12.1, "a-s1": 12.3, "b-s0": 12.2, "b-s1": 12.4, "c-s0": 12.1}


def test_onsets_are_alike_only_if_every_pair_is_and_runs_were_repeated() -> None:
    supported = similar_onsets("ioi", abilities(rises(ALIKE)), PARAMS)
    assert supported.verdict == "supported"
    assert -1 <= supported.low <= supported.statistic <= supported.high <= 1
    apart = similar_onsets("ioi", abilities(rises(ALIKE | {"c-s0": 9.6})), PARAMS)
    assert apart.verdict == "contradicted"
    assert "c differ" in apart.reason
    assert apart.high < -1
    near = similar_onsets("ioi", abilities(rises(ALIKE | {"c-s0": 11.3})), PARAMS)
    assert near.verdict == "undecided"
    single = {member: place for member, place in ALIKE.items() if member.endswith("s0")}
    one_seed = similar_onsets("ioi", abilities(rises(single)), PARAMS)
    assert (one_seed.verdict, "one seed" in one_seed.reason) == ("undecided", True)
    silent = similar_onsets("ioi", abilities(rises(ALIKE | {"d-s0": 99.0})), PARAMS)
    assert (silent.verdict, silent.reason) == ("undecided", "1 scales have no onset")


def test_roles_and_greater_than_follow_within_their_windows() -> None:
    task = abilities(rises({"a-s0": 12.1, "b-s0": 12.1}))
    before = abilities(rises({"a-s0": 11.4, "b-s0": 11.1}, seed=1), name="role")
    timing = lag("C2", "induction", before, task, LAG_OF_ROLES)
    assert timing.verdict == "supported"
    assert timing.statistic == pytest.approx(-0.75, abs=0.2)
    assert roles_follow(timing, {}).verdict == "undecided"
    assert roles_follow(timing, {"a-s0": 0.99, "b-s0": 0.97}).verdict == "supported"
    assert roles_follow(timing, {"a-s0": 0.99, "b-s0": 0.6}).verdict == "contradicted"
    late = abilities(rises({"a-s0": 13.4, "b-s0": 12.1}, seed=2), name="role")
    assert lag("C2", "late", late, task, LAG_OF_ROLES).verdict == "contradicted"
    assert lag("C11", "greater_than", task, before, LAG_OF_GREATER_THAN).verdict == "undecided"
    assert lag("C11", "greater_than", task, [], LAG_OF_GREATER_THAN).reason == "no member has both onsets"


def test_algorithm_is_flat_and_above_its_null() -> None:
    rng = np.random.default_rng(0)
    flat, null = 60 + rng.normal(0, 3, len(X)), np.full(len(X), 30.0)
    kept = algorithm_stays("direct", X, flat, null, 12)
    assert kept.verdict == "supported"
    assert -5 <= kept.low < kept.statistic < kept.high <= 5
    drifts = algorithm_stays("direct", X, flat - 8 * (X - X[12]), null - 100, 12)
    assert drifts.verdict == "contradicted"
    assert drifts.statistic == pytest.approx(-8, abs=1.5)
    assert algorithm_stays("direct", X, flat, null + 40, 12).verdict == "other algorithm"
    assert algorithm_stays("direct", X, flat * math.nan, null, 12).verdict == "undecided"
    assert "9 checkpoints after" in algorithm_stays("direct", X, flat, null, len(X) - 9).reason
    dense = np.linspace(15, 16, len(X))
    assert "octaves after" in algorithm_stays("direct", dense, flat, null, 2).reason


def test_a_head_that_loses_its_role_while_the_task_holds() -> None:
    task = np.clip((X - 11) / 2, 0, 1)
    leaves = np.clip((X - 10) / 2, 0, 1) * np.where(X > 14, 0.2, 1.0)
    stays = np.clip((X - 10) / 2, 0, 1)
    after = int(np.searchsorted(X, 13))
    found = roles_change_hands("name_mover", X, task, np.column_stack([leaves, stays]), after)
    assert (found.verdict, found.statistic) == ("supported", 1)
    assert roles_change_hands("name_mover", X, task, stays[:, None], after).verdict == "contradicted"
    falls = np.where(X > 14, 0.1, task)
    assert roles_change_hands("name_mover", X, falls, leaves[:, None], after).verdict == "undecided"


def test_same_roles_at_every_scale_that_learns() -> None:
    assert (
        same_roles("ioi", {"a": ["induction", "name_mover"], "b": ["name_mover", "induction"]}).verdict == "supported"
    )
    differ = same_roles("ioi", {"a": ["induction", "duplicate"], "b": ["induction"]})
    assert (differ.verdict, differ.reason, differ.statistic) == ("contradicted", "duplicate is not held at b", 0.5)
    assert same_roles("ioi", {"a": ["induction"]}).verdict == "undecided"


def test_size_needs_five_points_and_an_interval_above_zero() -> None:
    rng = np.random.default_rng(0)
    grows = [(10.0**k, 20.0 * k + k % 2) for k in range(3, 11)]
    assert size_grows("ioi", grows, rng).verdict == "supported"
    assert size_grows("ioi", [(p, -e) for p, e in grows], rng).verdict == "contradicted"
    assert size_grows("ioi", grows[:4], rng).verdict == "undecided"
    zigzag = [(10.0**k, float(5 * (k % 2) + k / 10)) for k in range(3, 11)]
    assert size_grows("ioi", zigzag, rng).verdict == "undecided"


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


# --- Null suites ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Suite:
    """Everything that C1 to C5 ask for, by member."""

    task: dict[str, np.ndarray]
    role: dict[str, np.ndarray]
    heads: dict[str, np.ndarray]
    metric: dict[str, np.ndarray]


def real(seed: int) -> Suite:
    """Alike onsets, a role half an octave before, a head that leaves, a flat metric."""
    rng = np.random.default_rng(seed)
    heads = {m: np.column_stack([(X > 11.5) * np.where(X > 14, 0.1, 1.0), X > 11.5]) * 1.0 for m in ALIKE}
    metric = {m: 60 + rng.normal(0, 3, len(X)) for m in ALIKE}
    return Suite(rises(ALIKE, seed), rises({m: p - 0.6 for m, p in ALIKE.items()}, seed + 1), heads, metric)


def shuffled(suite: Suite, seed: int) -> Suite:
    """The checkpoints of each member in a random order, the same for all that was measured on them."""
    rng = np.random.default_rng(seed)
    order = {m: rng.permutation(len(X)) for m in suite.task}
    parts = (suite.task, suite.role, suite.heads, suite.metric)
    return Suite(*({m: values[order[m]] for m, values in part.items()} for part in parts))


def random_models(seed: int) -> Suite:
    """Every checkpoint a model of its own that knows nothing."""
    rng = np.random.default_rng(seed)

    def draw(*shape: int, scale: float) -> dict[str, np.ndarray]:
        return {m: rng.normal(0, scale, (len(X), *shape)) for m in ALIKE}

    return Suite(draw(scale=0.1), draw(scale=0.1), draw(2, scale=0.1), {m: v + 15 for m, v in draw(scale=9.0).items()})


def verdicts(suite: Suite) -> dict[str, str]:
    task, role = abilities(suite.task, 0.05), abilities(suite.role, 0.05, "role")
    learnt = {str(each.who["member"]): each for each in learners(task)}
    found = [similar_onsets("ioi", task, PARAMS)]
    found.append(roles_follow(lag("C2", "role", role, task, LAG_OF_ROLES), dict.fromkeys(learnt, 1.0)))
    after = {m: int(each.onset.step or 0) for m, each in learnt.items()}
    null = np.full(len(X), 30.0)
    found += [roles_change_hands(m, X, suite.task[m], suite.heads[m], after[m]) for m in learnt]
    found.append(together("C4", "direct", [algorithm_stays(m, X, suite.metric[m], null, after[m]) for m in learnt]))
    held = {m: [f"head {h}" for h in range(2) if suite.heads[m][-1, h] > 0.05] for m in learnt}
    found.append(same_roles("ioi", held))
    best: dict[str, str] = {}
    for claim in found:
        if claim.verdict == "supported" or claim.claim not in best:
            best[claim.claim] = claim.verdict
    return best


def test_null_suites_support_nothing_and_a_real_one_does() -> None:
    assert set(verdicts(real(0)).values()) == {"supported"}
    for seed in range(8):
        assert "supported" not in verdicts(shuffled(real(seed), seed)).values(), seed
        assert "supported" not in verdicts(random_models(seed)).values(), seed

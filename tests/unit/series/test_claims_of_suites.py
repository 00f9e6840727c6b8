"""All verdicts through the whole assembly, from records: a suite on which C1 to C5 hold, and two null suites."""

from __future__ import annotations

import json

import numpy as np
import pandas as pd
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import Trajectory, claim_metrics, claims_tree, follow
from ontogeny.series.claims import ALL, VERDICTS, texts
from support.claim_suites import PLACES, Suite, ablated, random_models, real, records, shuffled

PARAMS = TrajectoryParams(resamples=100)
TIMED = ("C1", "C2", "C3", "C4", "C5")
SEEDS = range(4)


def verdicts(suite: Suite, null: float = 30.0) -> pd.DataFrame:
    followed: Trajectory = follow(records(suite, null), PARAMS, transfers=ablated(suite))
    return followed.claims


def whole(table: pd.DataFrame) -> dict[str, str]:
    return {row.claim: row.verdict for row in table.itertuples() if row.about == ALL}


@pytest.fixture(scope="module")
def held() -> pd.DataFrame:
    return verdicts(real(0))


def test_a_suite_on_which_they_hold_supports_c1_to_c5(held: pd.DataFrame) -> None:
    found = whole(held)
    assert list(found) == [f"C{n}" for n in range(1, 13)]
    assert {name: found[name] for name in TIMED} == dict.fromkeys(TIMED, "supported")
    about = held[held["claim"] == "C2"].set_index("about")
    assert about.loc["name_mover of ioi", "statistic"] == pytest.approx(-0.6, abs=0.25)
    assert about.loc["induction of greater_than", "verdict"] == "n/a"
    assert about.loc["absolute token counts", "verdict"] == "n/a"
    assert found["C6"] == "undecided", "three scales, five are needed"
    assert (found["C7"], found["C8"]) == ("supported", "supported")
    assert (found["C11"], found["C12"]) == ("n/a", "n/a")


def test_without_ablations_c2_is_open_and_another_algorithm_is_named(held: pd.DataFrame) -> None:
    del held
    unablated = follow(records(real(0)), PARAMS).claims
    assert whole(unablated)["C2"] == "undecided"
    assert "not ablated" in unablated[unablated["claim"] == "C2"]["reason"].iloc[0]
    other = whole(verdicts(real(0), null=95.0))
    assert (other["C4"], other["C5"], other["C1"]) == ("other algorithm", "other algorithm", "supported")


@pytest.mark.parametrize("seed", SEEDS)
def test_checkpoints_in_a_random_order_support_nothing_about_time(seed: int) -> None:
    table = verdicts(shuffled(real(seed), seed))
    wrong = table[table["claim"].isin(TIMED) & (table["verdict"] == "supported")]
    assert wrong.empty, wrong[["claim", "about", "reason"]].to_string()


@pytest.mark.parametrize("seed", SEEDS)
def test_independent_random_models_support_nothing_about_time(seed: int) -> None:
    table = verdicts(random_models(seed))
    wrong = table[table["claim"].isin(TIMED) & (table["verdict"] == "supported")]
    assert wrong.empty, wrong[["claim", "about", "reason"]].to_string()


def test_the_table_the_tree_and_the_metrics_say_the_same(held: pd.DataFrame) -> None:
    assert set(held["verdict"]) <= set(VERDICTS)
    tree = json.loads(json.dumps(claims_tree(held), allow_nan=False))
    known = texts(PARAMS.claims)
    for claim, verdict in whole(held).items():
        assert tree[claim]["verdict"] == verdict == claim_metrics(held)["claims"][claim]["verdict"]
        assert tree[claim]["rule"] == known[claim].rule
        parts = held[(held["claim"] == claim) & (held["about"] != ALL)]
        assert {about: part["verdict"] for about, part in tree[claim]["parts"].items()} == dict(
            zip(parts["about"], parts["verdict"])
        )
    assert claim_metrics(held)["claims"]["C4"]["parts_supported"] == len(PLACES)


def test_rules_say_the_numbers_of_the_params() -> None:
    strict = PARAMS.claims.model_copy(update={"alike_octaves": 0.25, "least_members": 7})
    assert "within 0.25 octave" in texts(strict)["C1"].rule
    assert "7 or more members" in texts(strict)["C10"].rule
    narrow = PARAMS.model_copy(update={"claims": strict})
    suite = real(0)
    late = suite.task | {m: np.roll(suite.task[m], 3) for m in ("c-s0", "c-s1")}
    moved = follow(records(Suite(late, suite.heads, suite.metrics)), narrow).claims
    assert whole(moved)["C1"] == "contradicted", "three quarters of an octave"

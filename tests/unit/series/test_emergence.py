"""What comes before and after an onset, and what is counted."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import emergence_table, emergences
from ontogeny.series.onset import onset, scatter
from ontogeny.series.table import as_table

PARAMS = TrajectoryParams(resamples=60)
TOKENS = [0, 5, 8, 100, 200, 400, 600, 800, 900, 1000]


def table(values: list[float], error: float = 0.01, tokens: list[int] = TOKENS, **changes):
    half = 1.96 * error
    rows = [
        ("suite", "m-1b", "1b", 0, 10**9, step, seen, "task", "acc", v, v - half, v + half, "measured", None)
        for step, (seen, v) in enumerate(zip(tokens, values))
    ]
    return as_table(rows).assign(**changes)


def one(values: list[float], **options):
    (found,) = emergences(table(values, **options), PARAMS)
    return found


RISE = [0.0, 0.0, 0.0, 0.0, 0.1, 0.9, 1.0, 1.0, 1.0, 1.0]


def test_dip_is_the_lowest_value_before_the_onset() -> None:
    found = one([0.0, 0.0, 0.0, -0.3, 0.1, 0.9, 1.0, 1.0, 1.0, 1.0])
    assert found.dip is not None
    assert (found.dip.lowest, found.dip.step, found.dip.dips, found.dip.below_zero) == (-0.3, 3, True, True)
    shallow = one([0.5, 0.5, 0.5, 0.2, 0.5, 0.9, 1.0, 1.0, 1.0, 1.0])
    assert shallow.dip is not None
    assert (shallow.dip.dips, shallow.dip.below_zero) == (True, False)
    none = one(RISE)
    assert none.dip is not None
    assert (none.dip.dips, none.dip.below_zero) == (False, False)
    # 3 standard errors of a difference of two values: 3 * sqrt(2) * 0.08 = 0.34 > 0.3.
    noisy = one([0.0, 0.0, 0.0, -0.3, 0.1, 0.9, 1.0, 1.0, 1.0, 1.0], error=0.08)
    assert noisy.dip is not None
    assert not noisy.dip.dips


def test_the_end_compares_means_of_two_checkpoints() -> None:
    kept, lower, lost = (one([*RISE[:7], 1.0, *tail]) for tail in ([1.0, 0.98], [0.7, 0.6], [0.1, 0.0]))
    assert [each.end.ending for each in (kept, lower, lost) if each.end] == ["kept", "lower", "lost"]
    assert lower.end is not None
    assert (lower.end.best, lower.end.final) == (1.0, pytest.approx(0.65))
    assert lower.end.kept == pytest.approx(0.65)


def test_never_and_before_the_first_have_no_interval() -> None:
    never = one([0.1] * 10)
    assert (never.onset.status, never.rise, never.dip, never.end) == ("never", None, None, None)
    (early,) = emergences(table([0.9, 1.0, 1.0, 1.0], tokens=[500, 600, 700, 1000]), PARAMS)
    assert early.onset.status == "before the first checkpoint"
    assert (early.rise, early.dip) == (None, None)
    assert early.end is not None
    frame = emergence_table([never, early, one(RISE)])
    assert frame["status"].tolist() == ["never", "before the first checkpoint", "found"]
    assert frame["onset_low"].isna().tolist() == [True, True, False]
    assert frame["agrees"].tolist()[2] is True


def test_interval_and_rule_agree_on_the_gap() -> None:
    found = one([0.0] * 5 + [1.0] * 5)
    assert found.onset.tokens == 400
    assert found.gap == 1.0
    assert found.rise is not None
    assert math.log2(200) < found.rise.low < found.rise.high < math.log2(400)


def test_a_series_has_resamples_of_its_own() -> None:
    """Its interval is the same whether it is looked at alone or among others."""
    both = table([0.0] * 5 + [1.0] * 5)
    both = as_table(
        [*both.itertuples(index=False, name=None), *both.assign(member="other").itertuples(index=False, name=None)]
    )
    pair = emergences(both, PARAMS)
    alone = emergences(both[both["member"] == "other"], PARAMS)
    assert pair[1].rise is not None
    assert alone[0].rise is not None
    np.testing.assert_array_equal(pair[1].rise.draws, alone[0].rise.draws)
    assert pair[0].rise is not None
    assert not np.array_equal(pair[0].rise.draws, pair[1].rise.draws)


def test_gaps_nan_duplicates_and_single_checkpoints_are_counted() -> None:
    rows = table([0.0, 0.0, math.nan, 0.0, 0.1, 0.9, 1.0, 1.0, 1.0, 1.0])
    rows.loc[1, "duplicate_of"] = 0
    (found,) = emergences(rows, PARAMS)
    assert (found.onset.status, found.onset.checkpoints, found.onset.left_out) == ("found", 8, 2)
    (single,) = emergences(rows.iloc[[7]], PARAMS)
    assert (single.onset.status, single.onset.checkpoints) == ("never", 1)
    (nothing,) = emergences(rows.assign(value=math.nan), PARAMS)
    assert (nothing.onset.status, nothing.onset.left_out) == ("never", 10)


def test_the_order_of_rows_does_not_matter() -> None:
    rows = table(RISE)
    (here,), (there,) = emergences(rows, PARAMS), emergences(rows.iloc[::-1], PARAMS)
    assert here.onset == there.onset
    assert here.rise is not None
    assert there.rise is not None
    np.testing.assert_array_equal(here.rise.draws, there.rise.draws)


def test_peak_below_the_roles_threshold_is_no_onset() -> None:
    (found,) = emergences(table(RISE), PARAMS, least_peak={"acc": 1.5})
    assert found.onset.status == "never"
    assert "below 1.5" in found.onset.reason


# --- The three points of the rule that published series need -------------------------------------------------------


def steps(values: list[float], error: float):
    tokens = [0, *(2**k for k in range(len(values) - 1))]
    return onset(list(range(len(values))), tokens, values, [error] * len(values), PARAMS)


def test_a_rise_that_is_over_within_the_first_per_cent_is_no_onset() -> None:
    """16 checkpoints: 1 % of the last is 2^7.4, so nine are early."""
    flip = [0.36] * 3 + [0.64] * 5 + [0.36] * 8
    answer = steps(flip, 0.01)
    assert answer.status == "never"
    assert "over again before 1 %" in answer.reason
    # The same rise, when it lasts, is found, and what came before is the base.
    stays = steps([0.36] * 3 + [0.64] * 13, 0.03)
    assert (stays.status, stays.step, stays.base) == ("found", 3, pytest.approx(0.36))
    # When it comes later, it is found, though it is lost again.
    later = steps([0.36] * 9 + [0.64] * 3 + [0.36] * 4, 0.01)
    assert (later.status, later.step) == ("found", 9)


def test_scatter_is_the_standard_deviation_of_noise_around_a_trend() -> None:
    rng = np.random.default_rng(0)
    noise = rng.normal(0, 0.3, 20_000)
    # The median of |differences| of n values has a relative error near 1.2 / sqrt(n), more as they overlap.
    assert scatter(noise + np.linspace(0, 50, 20_000)) == pytest.approx(0.3, rel=0.04)
    jump = np.r_[np.zeros(20), np.ones(20)]
    assert scatter(jump) == 0.0
    assert math.isnan(scatter([1.0] * 19))


def test_scatter_stands_in_for_standard_errors_that_are_missing_or_too_small() -> None:
    wobble = 0.1 * np.resize([1.0, -1.0, 0.4, -0.7, 0.2], 24)
    flat = [float(v) for v in wobble]
    assert steps(flat, math.nan).status == "never"
    assert steps(flat, 0.001).status == "never"
    assert steps([0.0] * 12 + [1.0] * 12, math.nan).status == "found"

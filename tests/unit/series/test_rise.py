"""Onsets with intervals: simulated series with a known onset, and series small enough to think through."""

from __future__ import annotations

import numpy as np
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import emergences
from ontogeny.series.rise import Rise, fit_rise, log2_tokens
from ontogeny.series.shapes import grid, model_of
from support.simulated_series import LADDER, PUBLISHED, SHAPES, simulate

COUNT = 200
PARAMS = TrajectoryParams(resamples=200)
SCHEDULES = {"ladder": LADDER, "published": PUBLISHED}
NOISE = {"the suite's": 0.04, "a tenth of the rise": 0.1}
"""Standard error over rise: 0.03 to 0.05 for the ladder's tasks, 0.02 for SciQ; onsets must be found at 0.1."""


@pytest.mark.parametrize(
    ("schedule", "noise"),
    [("ladder", "the suite's"), ("ladder", "a tenth of the rise"), ("published", "a tenth of the rise")],
)
def test_intervals_cover_the_truth_and_onsets_are_found(schedule: str, noise: str) -> None:
    """Of intervals at 95 %, 90 to 99 % cover the truth; where curves are wider than gaps they may all do.

    3 standard deviations of a binomial are 4.6 % for 200 series.
    """
    everything = []
    for shape in SHAPES:
        made = simulate(shape, COUNT, NOISE[noise], SCHEDULES[schedule], seed=1)
        found = emergences(made.table, PARAMS)
        rises = [each.rise for each in found]
        assert sum(each.onset.status == "found" for each in found) >= 0.95 * COUNT, shape
        covered = [rise is not None and rise.low <= truth <= rise.high for rise, truth in zip(rises, made.truth)]
        assert np.mean(covered) >= 0.90, shape
        everything += covered
        if shape != "slow":
            widths = [(rise.high - rise.low) / gap for rise, gap in zip(rises, made.gap) if rise is not None]
            assert np.median(widths) <= 2, shape
        assert np.std(made.truth) > 1, shape  # onsets all over the schedule: no constant answer would do
    assert 0.90 <= np.mean(everything) <= 0.99


@pytest.mark.parametrize("told", [True, False], ids=["with standard errors", "without"])
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_flat_series_never_have_an_onset(schedule: str, told: bool) -> None:
    made = simulate("flat", COUNT, 0.1, SCHEDULES[schedule], seed=1, told=told)
    answers = [each.onset.status for each in emergences(made.table, PARAMS)]
    assert answers.count("never") >= 0.95 * COUNT


def rise(tokens: list[float], values: list[float], seed: int = 0, resamples: int = 400) -> Rise:
    found = fit_rise(
        tokens, values, fraction=0.33, resamples=resamples, confidence=0.95, rng=np.random.default_rng(seed)
    )
    assert found is not None
    return found


TOKENS = [float(2**k) for k in range(12)]
JUMP = [0.0] * 6 + [1.0] * 6


def test_a_jump_without_noise_is_somewhere_in_its_gap() -> None:
    """Between 2^5 and 2^6 nothing was seen: the interval is the middle 95 % of that octave."""
    found = rise(TOKENS, JUMP, resamples=4000)
    # Quantiles of 4,000 uniform draws at 2.5 % have a standard deviation of 0.0025.
    assert (found.low, found.high) == (pytest.approx(5.025, abs=0.01), pytest.approx(5.975, abs=0.01))
    assert found.onset == pytest.approx(5.5, abs=0.04)
    assert (found.base, found.top, found.trough) == pytest.approx((0.0, 1.0, 0.0))
    assert (found.plateau_status, found.plateau) == ("reached", pytest.approx(5.5))


def test_units_of_the_values_do_not_matter() -> None:
    noisy = np.array(JUMP) + np.random.default_rng(3).normal(0, 0.05, 12)
    one, other = rise(TOKENS, list(noisy)), rise(TOKENS, list(7 * noisy - 3))
    np.testing.assert_allclose(one.draws, other.draws, atol=1e-6)
    assert other.top == pytest.approx(7 * one.top - 3)
    assert not np.allclose(one.draws, rise(TOKENS, list(noisy), seed=1).draws)


def test_identical_values_at_steps_0_and_1_break_nothing() -> None:
    with_zero = rise([0.0, *TOKENS], [0.0, *JUMP])
    assert 5 < with_zero.low < with_zero.high < 6
    assert log2_tokens([0, 4, 8]).tolist() == [1, 2, 3]


def test_a_slow_rise_crosses_a_third_where_its_formula_says() -> None:
    """A logistic curve in log tokens of which all is seen crosses 0.33 at place + width * ln(0.33 / 0.67)."""
    x = np.linspace(0, 20, 81)
    found = rise(list(2**x), list(1 / (1 + np.exp(-(x - 9.3) / 0.7))))
    assert found.low - 0.25 <= 9.3 + 0.7 * np.log(0.33 / 0.67) <= found.high + 0.25  # a gap is 0.25
    assert found.high - found.low < 0.6
    # Widths of the grid are a factor of 1.23 apart: half of that is 0.17 octaves at ln 9 widths from the middle.
    assert found.plateau == pytest.approx(9.3 + 0.7 * np.log(9), abs=0.18)
    unfinished = rise(list(2 ** x[:40]), list(1 / (1 + np.exp(-(x[:40] - 9.3) / 0.7))))
    assert unfinished.plateau_status == "still rising"
    assert np.isnan(unfinished.plateau)


def test_dip_and_unlearning_move_neither_base_nor_onset() -> None:
    values = [0.0] * 4 + [-0.5] * 2 + [1.0] * 4 + [0.3] * 3
    found = rise([float(2**k) for k in range(13)], list(np.array(values) + 0.01 * np.resize([1, -1, 0.5], 13)))
    assert (found.base, found.trough, found.top) == pytest.approx((0.0, -0.5, 1.0), abs=0.03)
    assert 5 < found.low < found.high < 6


def test_too_little_is_no_rise() -> None:
    options = {"fraction": 0.33, "resamples": 50, "confidence": 0.95}
    rng = np.random.default_rng(0)
    assert fit_rise(TOKENS[:4], JUMP[4:8], rng=rng, **options) is None
    assert fit_rise(TOKENS, [1.0] * 12, rng=rng, **options) is None


def test_least_squares_are_those_of_a_general_solver() -> None:
    """Misfit, curve and ends of every shape, against numpy's lstsq on the same columns."""
    x, rng = np.linspace(0, 10, 15), np.random.default_rng(5)
    y = (x > 4) * 1.0 - (x > 8) * 0.5 + rng.normal(0, 0.1, 15)
    model = model_of(x, grid(tuple(x), coarse=True), [8.2])
    misfit = model.misfit(y[None])[:, 0]
    assert np.isfinite(misfit).sum() > 50
    for index in np.flatnonzero(np.isfinite(misfit))[::7]:
        columns = np.column_stack([model.levels, model.shapes.value[index]])
        weights, *_ = np.linalg.lstsq(columns, y, rcond=None)
        np.testing.assert_allclose(misfit[index], ((y - columns @ weights) ** 2).sum(), atol=1e-10)
        np.testing.assert_allclose(model.fitted(np.array([index]), y[None])[0], columns @ weights, atol=1e-8)
        assert weights[-1] > 0

"""Onset (METHODS 6.6) on series small enough to be worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import emergence_table, emergences, headline, onset, tidy
from support.synthetic_study import STEPS, study

RULE = TrajectoryParams()
COT = TrajectoryParams(onset_rule="cot_33")
TOKENS = [0, 5, 100, 200, 400, 1000]
"""1 % of the last is 10, so the first two checkpoints are the base."""


def at(values: list[float], errors: list[float] | float = 0.01, rule: TrajectoryParams = RULE, **options):
    errors = errors if isinstance(errors, list) else [errors] * len(values)
    return onset(list(range(len(values))), TOKENS[: len(values)], values, errors, rule, **options)


def test_threshold_is_a_third_of_the_rise_above_the_base() -> None:
    found = at([0.5, 0.7, 0.8, 1.2, 2.0, 1.6])
    assert (found.base, found.peak) == (pytest.approx(0.6), 2.0)
    assert found.threshold == pytest.approx(0.6 + 0.33 * 1.4)
    assert (found.status, found.step, found.tokens) == ("found", 3, 200)
    assert found.checkpoints == 6


def test_a_single_checkpoint_above_the_threshold_is_no_onset() -> None:
    spike = at([0.0, 0.0, 1.0, 0.0, 0.9, 1.0])
    assert (spike.status, spike.step) == ("found", 4)
    only_last = at([0.0, 0.0, 0.0, 0.0, 0.0, 1.0])
    assert only_last.status == "never"
    assert only_last.step is None
    assert "2 checkpoints in a row" in only_last.reason


def test_never_where_the_rise_is_within_three_standard_errors() -> None:
    values = [0.0, 0.0, 0.1, 0.2, 0.3, 0.3]
    assert at(values, 0.01).status == "found"
    never = at(values, 0.1)
    assert (never.status, never.step, never.tokens) == ("never", None, None)
    assert "3 standard errors" in never.reason
    # Errors of the peak and of the base in quadrature: 3 * hypot(0.06, 0.06) = 0.2546 < 0.3 <= 3 * hypot(0.08, 0.07).
    assert at(values, 0.06).status == "found"
    assert at(values, [0.07, 0.07, 0.0, 0.0, 0.08, 0.08]).status == "never"


def test_flat_series_never_has_an_onset() -> None:
    assert at([0.2] * 6, 0.0).status == "never"
    assert at([-0.5, -0.5, -0.9, -0.9, -0.7, -0.6], 0.0).status == "never"


def test_before_the_first_checkpoint() -> None:
    """All checkpoints after 1 % of the tokens: the base is chance, and the first value is already high."""
    early = onset([5, 6, 7], [500, 600, 700], [2.0, 2.2, 2.4], [0.1] * 3, RULE)
    assert early.status == "before the first checkpoint"
    assert (early.base, early.step, early.tokens) == (0.0, None, None)
    later = onset([5, 6, 7], [500, 600, 700], [0.2, 2.2, 2.4], [0.1] * 3, RULE)
    assert (later.status, later.step) == ("found", 6)
    # An accuracy of 0.5 is chance, not ability.
    assert onset([5, 6], [500, 600], [0.5, 0.52], [0.02] * 2, RULE, chance=0.5).status == "never"


def test_dip_below_zero_before_the_onset_does_not_move_the_base() -> None:
    dipped = at([0.0, 0.0, -0.8, -0.4, 1.0, 1.0])
    assert (dipped.base, dipped.step) == (0.0, 4)


def test_rule_of_the_papers_code_finds_step_0_where_chance_is_not_0() -> None:
    """METHODS 6.6: that is why it is an option and not the default."""
    accuracy = [0.5, 0.5, 0.5, 0.6, 0.9, 0.9]
    assert at(accuracy, rule=COT).status == "before the first checkpoint"
    assert at(accuracy).step == 4
    assert at([-0.1, 0.0, 0.2, 1.0, 0.0, 0.1], rule=COT).step == 3


def test_missing_values_are_left_out_and_counted() -> None:
    found = at([0.0, math.nan, 0.0, 1.0, math.nan, 1.0], left_out=2)
    assert (found.step, found.checkpoints, found.left_out) == (3, 4, 4)
    nothing = at([math.nan] * 6)
    assert (nothing.status, nothing.reason) == ("never", "no checkpoint has a value")


def test_onsets_of_a_study_one_row_a_member_and_task() -> None:
    table = emergence_table(emergences(headline(tidy(study())), RULE))
    assert len(table) == 16
    keyed = table.set_index(["scale", "task"])
    assert keyed.loc[("nano", "sva"), "status"] == "never"
    assert keyed.loc[("deep", "ioi"), "step"] in STEPS
    assert keyed.loc[("deep", "ioi"), "step"] < keyed.loc[("small", "ioi"), "step"]
    assert set(table["quantity"]) == {"behaviour/held_out/metric"}
    # Step 1 has the weights of step 0.
    assert set(table["left_out"]) == {1}


def test_intervals_of_higher_confidence_mean_smaller_standard_errors() -> None:
    """The same half width is 1.96 standard errors at 95 %, but 3.29 at 99.9 %."""
    numbers = headline(tidy(study(["nano"], tasks=["greater_than"])))
    (wide,) = emergences(numbers, RULE, confidence=0.95)
    (narrow,) = emergences(numbers, RULE, confidence=0.999)
    assert wide.onset.status == "never" != narrow.onset.status


@pytest.mark.parametrize("count", [4, 5, 7, 10, 15, 19])
def test_noise_of_few_values_without_standard_errors_is_no_ability(count: int) -> None:
    """Flat noise is `never` in 95 % of 300 at least; taken for exact, 54 to 61 % had an onset."""
    rng = np.random.default_rng(count)
    tokens = [0, *(2 ** np.linspace(8, 16, count - 1)).round().astype(int).tolist()]
    unknown = [math.nan] * count

    def found(values: np.ndarray) -> bool:
        answer = onset(list(range(count)), tokens, values.tolist(), unknown, RULE)
        assert math.isfinite(answer.noise)
        return answer.status == "found"

    assert np.mean([found(rng.normal(0, 0.05, count)) for _ in range(300)]) <= 0.05
    if count >= 7:
        rise = (np.arange(count) > 0.55 * count) * 1.0
        assert np.mean([found(rise + rng.normal(0, 0.05, count)) for _ in range(100)]) >= 0.95


def test_three_values_without_standard_errors_say_nothing() -> None:
    answer = at([0.0, 1.0, 1.0], [math.nan] * 3)
    assert (answer.status, answer.reason[:19]) == ("never", "fewer than 4 values")
    assert at([0.0, 1.0, 1.0], 0.01).status == "found"

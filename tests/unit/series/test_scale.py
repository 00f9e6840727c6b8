"""Differences between scales, and where the onset stops falling, on onsets that are known."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import emergences, onset_differences, onset_trend
from ontogeny.series.table import as_table

PARAMS = TrajectoryParams(resamples=400)
TOKENS = [2**k for k in range(24)]


def series(scale: str, parameters: int | None, onset: int, *, seed: int = 0, every: int = 1) -> pd.DataFrame:
    """0 before the checkpoint at 2^onset tokens, 1 from it on; onset 0 is never."""
    rng = np.random.default_rng(onset + 100 * seed)
    rows = []
    for step, tokens in enumerate(TOKENS[::every]):
        value = float(0 < onset <= np.log2(tokens)) + rng.normal(0, 0.02)
        who = ("suite", f"{scale}-s{seed}", scale, seed, parameters, step, tokens, "task", "acc")
        rows.append((*who, value, value - 0.04, value + 0.04, "measured", None))
    return as_table(rows)


def found(*parts: pd.DataFrame):
    return emergences(pd.concat(parts, ignore_index=True), PARAMS)


def test_difference_in_octaves_with_the_interval_of_two_uniform_gaps() -> None:
    """Both onsets are uniform in an octave: their difference is a triangle of +-1 around -4."""
    (row,) = onset_differences(found(series("1m", 10**6, 16), series("8m", 8 * 10**6, 12)), PARAMS).to_dict("records")
    assert (row["smaller"], row["larger"], row["status"]) == ("1m", "8m", "measured")
    assert row["octaves"] == pytest.approx(-4, abs=0.1)
    # 2.5 % of a triangle on [-1, 1] lie below -1 + sqrt(0.05), 5 % below -1 + sqrt(0.1); 400 draws.
    assert row["low"] == pytest.approx(-5 + np.sqrt(0.05), abs=0.12)
    assert row["high"] == pytest.approx(-3 - np.sqrt(0.05), abs=0.12)
    assert row["low_alike"] == pytest.approx(-5 + np.sqrt(0.1), abs=0.12)
    assert row["alike"] is False or row["alike"] == np.False_


def test_alike_means_that_the_interval_lies_within_an_octave() -> None:
    same = found(series("1m", 10**6, 14), series("8m", 8 * 10**6, 14))
    assert onset_differences(same, PARAMS)["alike"].tolist() == [True]
    coarse = found(series("1m", 10**6, 14), series("8m", 8 * 10**6, 14, every=3))
    (row,) = onset_differences(coarse, PARAMS).to_dict("records")
    assert pd.isna(row["alike"])  # three octaves between checkpoints cannot show it


def test_never_is_named_and_takes_part_in_no_interval() -> None:
    scales = found(series("1m", 10**6, 0), series("8m", 8 * 10**6, 12), series("64m", 64 * 10**6, 12))
    table = onset_differences(scales, PARAMS)
    assert table["status"].tolist() == ["no onset at 1m", "no onset at 1m", "measured"]
    (trend,) = onset_trend(scales, PARAMS).to_dict("records")
    assert (trend["scales"], trend["with_onset"], trend["without"]) == (3, 2, "1m")


def test_scale_at_which_the_onset_stops_falling() -> None:
    falls = [("1m", 1, 18), ("4m", 4, 14), ("16m", 16, 10), ("64m", 64, 10), ("256m", 256, 10)]
    (row,) = onset_trend(found(*(series(n, p * 10**6, k) for n, p, k in falls)), PARAMS).to_dict("records")
    assert (row["status"], row["stops_at"]) == ("stops", "16m")
    assert 0 < row["unseen"] <= 1.01  # a gap of one octave hides as much
    # Least squares of (18, 14, 10, 10, 10) on (0, 2, 4, 6, 8): -40 / 40.
    assert row["slope"] == pytest.approx(-1.0, abs=0.08)
    assert row["slope_low"] < -1.0 < row["slope_high"] < 0
    always = found(*(series(n, p * 10**6, k) for n, p, k in [("1m", 1, 18), ("4m", 4, 14), ("16m", 16, 10)]))
    (row,) = onset_trend(always, PARAMS).to_dict("records")
    assert (row["status"], row["stops_at"]) == ("falls on", "")
    (row,) = onset_trend(found(series("1m", 10**6, 18), series("4m", 4 * 10**6, 0)), PARAMS).to_dict("records")
    assert row["status"] == "undecided"


def test_seeds_of_a_scale_are_averaged_and_widen_the_interval() -> None:
    small = series("1m", 10**6, 14)
    one = found(small, series("8m", 8 * 10**6, 12))
    two = found(small, series("8m", 8 * 10**6, 10), series("8m", 8 * 10**6, 14, seed=1))
    (alone,), (both,) = (onset_differences(each, PARAMS).to_dict("records") for each in (one, two))
    assert (both["smaller_seeds"], both["larger_seeds"]) == (1, 2)
    assert both["octaves"] == pytest.approx(alone["octaves"], abs=0.3)
    assert both["high"] - both["low"] > 1.5 * (alone["high"] - alone["low"])
    assert pd.isna(both["alike"])

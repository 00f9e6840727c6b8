"""Fluctuation and change points, on sizes small enough to be worked out by hand and by brute force."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import change_table, fluctuation_table, fluctuations
from ontogeny.series.fluctuation import change_points
from ontogeny.series.table import as_table

PARAMS = TrajectoryParams(resamples=200)


def table(sizes: list[float]):
    rows = [
        ("suite", "m", "m", 0, None, step, 100 * (step + 1), "ioi", "edges", size, math.nan, math.nan, "found", None)
        for step, size in enumerate(sizes)
    ]
    return as_table(rows)


def test_coefficient_of_variation_and_jitter_by_hand() -> None:
    (found,) = fluctuations(table([1.0, 3.0] * 6), PARAMS)
    assert found.mean == 2.0
    assert found.variation == pytest.approx(math.sqrt(12 / 11) / 2)
    assert found.jitter == pytest.approx(math.sqrt(4 / 2) / 2)
    assert found.low <= found.variation <= found.high
    assert found.changes == ()
    # A straight line has hardly any jitter, but varies: 20, 21, ... 39.
    (line,) = fluctuations(table([20.0 + k for k in range(20)]), PARAMS)
    assert line.jitter == pytest.approx(math.sqrt(0.5) / 29.5)
    assert line.variation > 5 * line.jitter


def test_what_is_left_out_is_counted() -> None:
    rows = table([5.0, math.nan, 0.0, *([8.0, 9.0] * 8)])
    rows.loc[3, "duplicate_of"] = 0
    (found,) = fluctuations(rows, PARAMS, since={("m", "ioi"): 500.0})
    # Steps 0 and 1, 2 have no size or come before 500 tokens, step 3 repeats weights.
    assert (found.checkpoints, found.left_out) == (15, 4)
    (few,) = fluctuations(rows.iloc[:8], PARAMS)
    assert few.status == "fewer than 10 sizes"
    assert math.isnan(few.variation)
    assert fluctuation_table([found, few])["status"].tolist() == ["measured", "fewer than 10 sizes"]


def test_change_points_are_those_of_all_segmentations_tried_one_by_one() -> None:
    rng = np.random.default_rng(2)
    levels = np.repeat([0.0, 2.0, 1.0], [5, 6, 5]) + rng.normal(0, 0.3, 16)

    def rest(cuts: tuple[int, ...]) -> float:
        return sum(float(((part - part.mean()) ** 2).sum()) for part in np.split(levels, cuts))

    for count in (1, 2):
        tried = [
            cuts
            for cuts in itertools.combinations(range(1, 16), count)
            if min(np.diff([0, *cuts, 16])) >= 3
        ]  # fmt: skip
        assert change_points(levels, count=count) == list(min(tried, key=rest))
    assert change_points(levels) == [5, 11]


def test_noise_alone_has_no_change_points() -> None:
    rng = np.random.default_rng(0)
    found = [change_points(rng.normal(0, 1, 60)) for _ in range(100)]
    assert sum(map(bool, found)) <= 5
    assert change_points(np.ones(30)) == []


def test_interval_of_a_change_point_holds_the_truth() -> None:
    rng, covered = np.random.default_rng(1), []
    for _ in range(40):
        at = int(rng.integers(10, 30))
        sizes = 2.0 ** (np.where(np.arange(40) < at, 6.0, 8.0) + rng.normal(0, 0.4, 40))
        changes = change_table(fluctuations(table(list(sizes)), PARAMS))
        # The level changes somewhere between the last checkpoint before and the first one after.
        places = 100.0 * (at + rng.random())
        covered.append(((changes["low"] <= places) & (places <= changes["high"])).any())
    # 95 % within three standard deviations of a binomial of 40.
    assert np.mean(covered) >= 0.85


@pytest.mark.parametrize(
    ("count", "alike", "least"), [(10, 0.0, 0.92), (20, 0.0, 0.92), (30, 0.6, 0.87), (60, 0.8, 0.85)]
)
def test_intervals_of_the_variation_hold_the_truth(count: int, alike: float, least: float) -> None:
    """Nominal 95 % of 400, which scatter by 1.1 %; less where neighbours are alike, which a short series hides."""
    rng, held = np.random.default_rng(count), 0
    for _ in range(400):
        noise = rng.normal(size=count + 50)
        for i in range(1, len(noise)):
            noise[i] = alike * noise[i - 1] + math.sqrt(1 - alike**2) * noise[i]
        (found,) = fluctuations(table((100 + noise[50:]).tolist()), PARAMS)
        held += found.low <= 0.01 <= found.high
    assert least <= held / 400 <= 0.985

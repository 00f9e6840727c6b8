"""The appendix picture: its rows are the found circuits of the table, and each member has its lines and band."""

from __future__ import annotations

import pytest

from ontogeny.figures.stability import draw_stability, stability_rows
from ontogeny.params import TrajectoryParams
from ontogeny.series import Trajectory, follow
from support.synthetic_study import STEPS, study


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    records = study(("small",), STEPS[8:], ("ioi", "greater_than"), seeds=2)
    return follow(records, TrajectoryParams(resamples=50, null_circuits=3))


def test_rows_are_the_found_circuits(trajectory: Trajectory) -> None:
    rows = stability_rows(None, trajectory)
    assert len(rows) == 2 * 2 * len(STEPS[8:])
    sizes = trajectory.table[trajectory.table["quantity"] == "circuit/edges"]
    assert rows["edges"].sum() == sizes["value"].sum() > 0
    assert rows["resampled_edges_low"].notna().sum() == rows["edges"].notna().sum()


def test_a_member_has_lines_a_band_and_a_null_in_every_task(trajectory: Trajectory) -> None:
    rows = stability_rows(None, trajectory)
    axes = draw_stability(rows).axes
    assert len(axes) == 2 * 3
    for task, (nodes, edges, alike) in zip(("ioi", "greater_than"), (axes[:3], axes[3:])):
        here = rows[rows["task"] == task]
        assert len(nodes.lines) == len(edges.lines) == 2
        assert len(alike.lines) == 2 * 3
        assert len(alike.collections) == 2
        shown = sorted(float(y) for line in edges.lines for y in line.get_ydata() if y == y)
        assert shown == sorted(here["edges"].dropna())


def test_without_circuits_there_is_no_picture(trajectory: Trajectory) -> None:
    nothing = trajectory.stability.assign(edges=float("nan"))
    assert len(stability_rows(None, Trajectory(**(vars(trajectory) | {"stability": nothing})))) == 0

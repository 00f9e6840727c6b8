"""Onsets of a study, sizes against scale and verdicts: their rows; a person looks at the pictures."""

from __future__ import annotations

import math

import pytest

from ontogeny.figures import FIGURES, render
from ontogeny.figures.claims import VERDICT_COLOURS, claim_rows, draw_claims
from ontogeny.figures.onset import study_onset_rows
from ontogeny.figures.size import draw_size_scale, size_scale_rows
from ontogeny.params import TrajectoryParams
from ontogeny.series import Trajectory, follow
from ontogeny.series.claims import ALL, VERDICTS
from support.synthetic_study import ROLE_UNITS, STEPS, TASKS, study

RECORDS = study(("nano", "deep"), steps=STEPS[::2])


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    return follow(RECORDS, TrajectoryParams(resamples=50))


def test_a_panel_for_each_task_and_role(trajectory: Trajectory) -> None:
    rows = study_onset_rows(trajectory)
    panels = list(dict.fromkeys(rows["task"]))
    assert panels[: len(TASKS)] == list(TASKS)
    assert len(panels) == len(TASKS) + len(ROLE_UNITS)
    assert "role: name mover" in panels
    mine = rows[rows["task"] == "role: induction"].set_index("member")
    known = trajectory.role_onsets[trajectory.role_onsets["role"] == "induction"].set_index("member")
    assert mine["onset_tokens"].to_dict() == known["onset_tokens"].to_dict()
    nano = rows[(rows["task"] == "role: name mover") & (rows["member"] == "nano-s0")].iloc[0]
    assert nano["status"] == "never"


def test_sizes_with_their_variation_and_scales_without_one(trajectory: Trajectory) -> None:
    rows = size_scale_rows(trajectory).set_index(["task", "scale", "what"])
    known = trajectory.sizes.set_index(["task", "scale"])
    for task in TASKS:
        for what in ("edges", "nodes"):
            row = rows.loc[(task, "deep", what)]
            assert row["size"] == known.loc[(task, "deep"), what]
            assert row["variation"] == pytest.approx(known.loc[(task, "deep"), f"{what}_variation"], nan_ok=True)
    assert rows.loc[("ioi", "nano", "edges"), "status"] == "no circuit was found"
    assert math.isnan(rows.loc[("ioi", "nano", "edges"), "size"])


def test_claims_are_in_order_and_their_parts_are_counted(trajectory: Trajectory) -> None:
    rows = claim_rows(trajectory)
    assert rows["claim"].tolist() == [f"C{n}" for n in range(1, 13)]
    parts = rows[[f"parts_{name}" for name in VERDICTS]].sum(axis=1)
    assert parts.sum() == (trajectory.claims["about"] != ALL).sum()
    assert set(VERDICT_COLOURS) == set(VERDICTS)


def test_every_claim_says_what_its_statistic_is(trajectory: Trajectory) -> None:
    rows = claim_rows(trajectory)
    words = [" ".join(text.get_text().split()) for text in draw_claims(rows).axes[0].texts]
    assert set(rows["measured"]) <= set(words)


def test_bars_of_sizes_end_below_the_note(trajectory: Trajectory) -> None:
    rows = size_scale_rows(trajectory)
    for task, stack in zip(dict.fromkeys(rows["task"]), zip(*[iter(draw_size_scale(rows).axes)] * 2)):
        for axes, what in zip(stack, ("edges", "nodes")):
            here = rows[(rows["task"] == task) & (rows["what"] == what)]
            top = (here["size"] * (1 + here["variation"].fillna(0))).max()
            assert not math.isfinite(top) or axes.get_ylim()[1] > 1.2 * top


@pytest.mark.parametrize("name", ["onsets", "size_against_scale", "claims"])
def test_they_are_drawn_the_same_every_time(trajectory: Trajectory, name: str) -> None:
    kind = FIGURES[name]
    rows = kind.rows(RECORDS, trajectory)
    first, second = (render(kind.draw(rows), "svg") for _ in range(2))
    assert first == second
    assert len(first) > 5000
    assert not len(kind.rows([], follow([], TrajectoryParams()))) or name == "claims"

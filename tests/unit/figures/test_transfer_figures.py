"""Transfer pictures: their rows, and that a drawing shows each of them."""

import pandas as pd
import pytest
from matplotlib.patches import Rectangle

from ontogeny.figures.drift import draw_drift, drift_rows
from ontogeny.figures.role_graph import draw_role_graph, role_graph_rows
from ontogeny.figures.transfer import (
    KIND_LABELS,
    ablation_rows,
    alikeness_rows,
    draw_ablations,
    draw_alikeness,
    draw_transfer,
    transfer_rows,
)
from ontogeny.params import TrajectoryParams
from ontogeny.series import COMPARED, Trajectory, follow
from support.synthetic_study import STEPS, study
from support.synthetic_transfers import transfers

RECORDS = study(("small", "deep"), STEPS[-9:], ("ioi", "greater_than"), seeds=2)


@pytest.fixture(scope="module")
def trajectory() -> Trajectory:
    return follow(RECORDS, TrajectoryParams(resamples=50), transfers=transfers(RECORDS))


def test_a_cell_for_each_pair_of_anchors_and_its_number_in_it(trajectory: Trajectory) -> None:
    rows = transfer_rows(None, trajectory)
    assert (rows.groupby(["member", "task"]).size() == 64).all()
    figure = draw_transfer(rows[rows["task"] == "ioi"].reset_index(drop=True))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["deep-s0", "deep-s1", "small-s0", "small-s1"]
    for axes in figure.axes:
        here = rows[(rows["task"] == "ioi") & (rows["member"] == axes.get_title(loc="left"))]
        boxes = [patch for patch in axes.patches if isinstance(patch, Rectangle) and patch.get_fill()]
        assert len(boxes) == 64
        assert len(axes.texts) == here["raw"].notna().sum()
        assert sorted(t.get_text() for t in axes.texts if t.get_position() == (7, 7)) == [".82"]


def test_members_without_a_circuit_are_left_out(trajectory: Trajectory) -> None:
    nothing = trajectory.transfers.assign(kept=pd.NA)
    kept = trajectory.transfers[trajectory.transfers["member"] != "deep-s0"]
    lost = pd.concat([kept, nothing[nothing["member"] == "deep-s0"]])
    changed = Trajectory(**(vars(trajectory) | {"transfers": lost}))
    assert set(transfer_rows(None, changed)["member"]) == {"deep-s1", "small-s0", "small-s1"}
    assert len(transfer_rows(None, Trajectory(**(vars(trajectory) | {"transfers": nothing})))) == 0


def test_over_time_beside_over_seeds_in_the_colour_of_the_scale(trajectory: Trajectory) -> None:
    assert set(KIND_LABELS) == set(COMPARED)
    rows = alikeness_rows(None, trajectory)
    assert len(rows) == len(trajectory.alikeness) == 2 * 2 * len(COMPARED)
    assert rows.groupby("scale")["colour"].nunique().tolist() == [1, 1]
    figure = draw_alikeness(rows)
    assert figure.axes[1].get_xticklabels()[0].get_text() == "at home"
    assert figure.axes[1].get_ylim()[1] > 1.05, "marks at 1 are whole"
    assert len([axes for axes in figure.axes if axes.axison]) == 4


def test_role_heads_beside_their_null(trajectory: Trajectory) -> None:
    rows = ablation_rows(None, trajectory)
    assert (rows["status"] != "undefined").all()
    assert rows["step"].eq(STEPS[-1]).all()
    # 1.2 is 0.4 of clean - corrupted, so that the sets' mean 0.3 is 0.1 of it and their 95th percentile 0.9 is 0.3.
    assert rows["null_mean"].to_numpy() == pytest.approx(0.1)
    assert rows["null_p95"].to_numpy() == pytest.approx(0.3)
    lines = [line for axes in draw_ablations(rows).axes for line in axes.lines]
    assert len([line for line in lines if line.get_marker() not in ("None", "")]) == len(rows) == 12
    assert len(ablation_rows(None, Trajectory(**(vars(trajectory) | {"ablations": trajectory.ablations[:0]})))) == 0


def test_roles_of_a_scale_are_the_mean_of_its_seeds(trajectory: Trajectory) -> None:
    rows = role_graph_rows(None, trajectory)
    assert rows.groupby(["member", "task"])["share"].sum().to_numpy() == pytest.approx(1)
    here = rows[rows["task"] == "ioi"].reset_index(drop=True)
    figure = draw_role_graph(here)
    titles = [axes.get_title(loc="left") for axes in figure.axes if axes.axison]
    assert titles == ["deep (1.15M, 2 seeds)", "small (420K, 2 seeds)"]
    mean = here[here["scale"] == "deep"].groupby(["source", "target"])["share"].sum() / 2
    shown = [float(text.get_text()) for text in figure.axes[0].texts]
    assert shown == [float(f"{100 * share:.0f}") for share in mean if share >= 0.005]


def test_drift_is_from_a_first_checkpoint_that_was_trained_before(trajectory: Trajectory) -> None:
    assert len(drift_rows(None, trajectory)) == 0
    carried = trajectory.transfers
    first = carried["step"].min()
    based = carried.assign(**{name: carried[name].replace({first: 0}) for name in ("step", "source_step")})
    rows = drift_rows(None, Trajectory(**(vars(trajectory) | {"transfers": based})))
    one = rows[(rows["member"] == "deep-s0") & (rows["task"] == "ioi")].sort_values("step")
    assert list(one["step"]) == sorted(based["step"].unique())
    assert one["jaccard"].iloc[0] == 1.0
    assert one["held"].iloc[0] == one["back"].iloc[0]
    source = based[(based["member"] == "deep-s0") & (based["task"] == "ioi") & (based["heads"] == "own")]
    last = source["step"].max()
    there = source[(source["step"] == last) & (source["source_step"] == 0)]
    assert float(one["held"].iloc[-1]) == float(there["raw"].iloc[0])
    back = source[(source["step"] == 0) & (source["source_step"] == last)]
    assert float(one["back"].iloc[-1]) == float(back["raw"].iloc[0])
    figure = draw_drift(rows)
    assert len(figure.axes) == 2 * rows["task"].nunique()
    assert len(figure.axes[0].lines) == rows["member"].nunique()

"""What MLflow shows of circuits in other models: points of the trajectory runs, and the tables beside them."""

import io

import pandas as pd
import pytest

from ontogeny.params import TrajectoryParams
from ontogeny.series import follow
from ontogeny.tracking import Projection
from ontogeny.tracking.content import TRAJECTORIES, RunContent
from support.synthetic_study import STEPS, study
from support.synthetic_transfers import transfers

RECORDS = study(("deep",), STEPS[-4:], ("ioi", "sva"), seeds=2)


def content(carried: bool) -> dict[str, RunContent]:
    """Trajectory runs by name."""
    found = transfers(RECORDS) if carried else ()
    projection = Projection(
        records=RECORDS,
        trajectory=follow(RECORDS, TrajectoryParams(resamples=50, null_circuits=2), transfers=found),
        study="test",
        settings={},
        now=0.0,
    )
    built = [planned.build() for planned in projection.runs() if planned.kind == TRAJECTORIES]
    return {run.name: run for run in built}


def test_trajectory_runs_show_circuits_in_other_models() -> None:
    runs = content(carried=True)
    run = runs["deep-s1 ioi"]
    points = {(point.name, point.step): point.value for point in run.points}
    assert points["transfer/to_final/raw", STEPS[-1]] == pytest.approx(0.82)
    assert points["transfer/seeds_matched/raw", STEPS[-1]] == pytest.approx(0.6)
    assert points["ablation/name_mover/beaten", STEPS[-1]] == pytest.approx(0.98)
    table = pd.read_csv(io.BytesIO(run.files["transfers.csv"]))
    assert set(table["member"]) == {"deep-s1"}
    assert set(table["task"]) == {"ioi"}
    assert set(table["source_member"]) == {"deep-s0", "deep-s1"}
    assert set(pd.read_csv(io.BytesIO(run.files["ablations.csv"]))["role"]) == {"name_mover", "induction"}
    assert "ablations.csv" not in runs["deep-s0 sva"].files, "no role was ablated for it"


def test_without_them_there_is_no_file() -> None:
    run = content(carried=False)["deep-s0 ioi"]
    assert set(run.files) == {"series.csv"}
    assert not any(point.name.startswith(("transfer/", "ablation/")) for point in run.points)

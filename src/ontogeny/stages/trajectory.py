"""Stage `trajectory`: the tables over training and scale, and the metrics that `dvc metrics show` prints."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.records.files import replacing, write_json
from ontogeny.stages.study import Study

if TYPE_CHECKING:
    from ontogeny.records import MemberRecord, TransferRecord
    from ontogeny.series import Trajectory

_LARGE = ("table", "heads")
"""Tables that are written as parquet only."""


def run(study: Study, item: str | None) -> None:
    """Write data/trajectories and data/metrics; let DVC forget the stages that had failed jobs."""
    from ontogeny.series import claim_metrics, claims_tree, dvc_metrics, follow

    assert item is None
    confidence = study.params.analyse.behaviour.confidence
    selection = study.params.analyse.search.selection
    records, transfers = read_records(study), read_transfers(study)
    trajectory = follow(
        records, study.params.trajectory, confidence=confidence, selection=selection, transfers=transfers
    )
    write_trajectory(study.trajectories, trajectory)
    write_json(study.claims, claims_tree(trajectory.claims))
    write_metrics(study.metrics, dvc_metrics(trajectory.summary) | claim_metrics(trajectory.claims))
    study.forget_failed()


def read_records(study: Study) -> list[MemberRecord]:
    """The records of all members, in the order of the params."""
    from ontogeny.records import read_member

    return [read_member(study.analyses(member)) for member in study.params.suite.members]


def read_transfers(study: Study) -> list[TransferRecord]:
    """What the stage `transfer` found of all members."""
    from ontogeny.records import read_transfer

    return [read_transfer(study.transfers(member)) for member in study.params.suite.members]


def write_trajectory(folder: Path, trajectory: Trajectory) -> None:
    """A parquet file a table; the small ones as CSV too, for people and for `dvc plots`."""
    for name in table_names():
        with replacing(folder / f"{name}.parquet") as temporary:
            getattr(trajectory, name).to_parquet(temporary, index=False)
    for name in [name for name in table_names() if name not in _LARGE]:
        with replacing(folder / f"{name}.csv") as temporary:
            getattr(trajectory, name).to_csv(temporary, index=False)


def table_names() -> list[str]:
    """Of all tables of a trajectory."""
    from ontogeny.series import Trajectory

    return [field.name for field in fields(Trajectory)]


def write_metrics(folder: Path, metrics: Mapping[str, Mapping[str, object]]) -> None:
    """``MEMBER/TASK.json`` and ``claims/CLAIM.json``; those that are no longer there are removed."""
    shutil.rmtree(folder, ignore_errors=True)
    for member, tasks in metrics.items():
        for task, numbers in tasks.items():
            write_json(folder / member / f"{task}.json", numbers)


def read_trajectory(folder: Path) -> Trajectory:
    """Inverse of `write_trajectory`."""
    import pandas as pd

    from ontogeny.series import Trajectory

    return Trajectory(**{name: pd.read_parquet(folder / f"{name}.parquet") for name in table_names()})

"""A folder with a finished study in it, made of synthetic records: for what reads a study without running one."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from pathlib import Path

import yaml

from ontogeny.execution.places import places_at
from ontogeny.params import load_params
from ontogeny.records import MemberRecord, write_member, write_transfer
from ontogeny.series import follow
from ontogeny.stages.study import Study
from ontogeny.stages.trajectory import write_trajectory
from support.synthetic_transfers import transfers

ROOT = Path(__file__).parents[2]


def finished(folder: Path, records: Sequence[MemberRecord], *, threshold: float = 0.8) -> Study:
    """Write params.yaml, dvc.yaml and data/ into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(ROOT / "dvc.yaml", folder / "dvc.yaml")
    settings = yaml.safe_load((ROOT / "params.yaml").read_text(encoding="utf-8"))
    members = [record.member for record in records]
    scale = settings["checkpoints"]["scales"]["small"]
    settings["checkpoints"]["scales"] = {member.rpartition("-s")[0]: scale for member in members}
    settings["suite"]["members"] = members
    settings["tune"]["checkpoints"] = [f"{member}@last" for member in members]
    settings["analyse"]["search"]["threshold"] = threshold
    (folder / "params.yaml").write_text(yaml.safe_dump(settings), encoding="utf-8")
    study = Study(load_params(folder / "params.yaml"), places_at(folder))
    for record in records:
        write_member(study.analyses(record.member), record)
    carried = transfers(records)
    for each in carried:
        write_transfer(study.transfers(each.member), each)
    write_trajectory(study.trajectories, follow(records, study.params.trajectory, transfers=carried))
    return study

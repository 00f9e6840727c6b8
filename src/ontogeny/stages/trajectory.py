"""Stage `trajectory`: the tables over training and scale, and the metrics that `dvc metrics show` prints.

What is said of each member alone is computed by workers and kept in the cache, under a digest of its record, the
settings and the sources: when one member changes, only its part is computed again. What compares members is not kept.
"""

from __future__ import annotations

import logging
import pickle
import shutil
from collections.abc import Mapping
from dataclasses import fields
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.fingerprints import content, fingerprint, sources
from ontogeny.execution.jobs import Job, Report
from ontogeny.execution.pool import run_jobs
from ontogeny.execution.progress import progress_of
from ontogeny.records.files import replacing, write_json
from ontogeny.stages.study import Study

if TYPE_CHECKING:
    from ontogeny.core.circuit import Selection
    from ontogeny.params import TrajectoryParams
    from ontogeny.records import MemberRecord, TransferRecord
    from ontogeny.series import Trajectory
    from ontogeny.series.parts import Part

log = logging.getLogger(__name__)

_LARGE = ("table", "heads")
"""Tables that are written as parquet only."""
_PACKAGES = ("numpy", "pandas", "ruptures", "scipy", "torch")
"""Whose versions the numbers may depend on."""


def run(study: Study, item: str | None) -> None:
    """Write data/trajectories and data/metrics; let DVC forget the stages that had failed jobs."""
    from ontogeny.series import claim_metrics, claims_tree, dvc_metrics, join

    assert item is None
    confidence = study.params.analyse.behaviour.confidence
    parts, transfers = read_parts(study), read_transfers(study)
    trajectory = join(parts, study.params.trajectory, confidence=confidence, transfers=transfers)
    write_trajectory(study.trajectories, trajectory)
    write_json(study.claims, claims_tree(trajectory.claims))
    write_metrics(study.metrics, dvc_metrics(trajectory.summary) | claim_metrics(trajectory.claims))
    study.forget_failed()


def read_parts(study: Study) -> list[Part]:
    """What is said of each member alone, in the order of the params; those that are not in the cache are computed.

    Raises:
        OntogenyError: a record is missing or broken; the message names it.
    """
    settings, analyse = study.params.trajectory, study.params.analyse
    asked = (settings, analyse.behaviour.confidence, analyse.search.selection)
    places = {member: _place(study, member, *asked) for member in study.params.suite.members}
    kept = {member: part for member, place in places.items() if (part := _kept(place)) is not None}
    jobs = [
        Job(f"series of {member}", follow_member, (place, study.analyses(member), *asked))
        for member, place in places.items()
        if member not in kept
    ]
    if jobs:
        with progress_of("Series", jobs) as progress:
            outcomes = run_jobs(jobs, study.params.execution.n_jobs, progress)
        for outcome in outcomes:
            if outcome.error is not None:
                raise OntogenyError(f"{outcome.job.name}: {outcome.error}")
    log.info("Series of %d members, %d of them computed anew.", len(places), len(jobs))
    return [kept[member] if member in kept else _read(place) for member, place in places.items()]


def follow_member(
    place: Path, folder: Path, params: TrajectoryParams, confidence: float, selection: Selection, report: Report
) -> None:
    """Compute the part of the member whose record is in `folder` (in a worker) and keep it at `place`."""
    from ontogeny.records import read_member
    from ontogeny.series.parts import part_of

    part = part_of([read_member(folder)], params, confidence=confidence, selection=selection)
    with replacing(place, flush=False) as temporary:
        temporary.write_bytes(pickle.dumps(part))
    report(1.0, "")


def _place(study: Study, member: str, params: TrajectoryParams, confidence: float, selection: str) -> Path:
    """File in the cache; what only the claims need is no part of it."""
    key = fingerprint(
        kind="series",
        record=content(study.analyses(member)),
        settings=params.model_dump(mode="json", exclude={"claims"}),
        confidence=confidence,
        selection=selection,
        code=[sources("core", "params", "records", "series"), *map(version, _PACKAGES)],
    )
    return study.places.cache / "series" / key[:2] / f"{key}.pickle"


def _kept(place: Path) -> Part | None:
    """What was kept there; a file that cannot be read is removed and counts as not there."""
    try:
        return _read(place) if place.exists() else None
    except Exception as error:  # whatever is wrong with a file of the cache
        log.warning("%s cannot be read (%s): computing it again.", place, error)
        place.unlink()
        return None


def _read(place: Path) -> Part:
    part: Part = pickle.loads(place.read_bytes())
    return part


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

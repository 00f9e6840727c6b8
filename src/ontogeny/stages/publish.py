"""Putting a study into MLflow: pictures drawn by workers, then one process writes."""

from __future__ import annotations

import logging
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ontogeny.execution.fingerprints import fingerprint
from ontogeny.execution.jobs import Job, Report
from ontogeny.execution.pool import run_jobs
from ontogeny.execution.progress import progress_of
from ontogeny.records import MemberRecord, read_member, replacing
from ontogeny.stages.study import Study
from ontogeny.stages.trajectory import read_records, read_trajectory
from ontogeny.tracking import Projection, PublishReport, open_store, publish, settings_of

if TYPE_CHECKING:
    from ontogeny.tracking.claims import ClaimsProjection

log = logging.getLogger(__name__)


def publish_study(study: Study) -> PublishReport:
    """Make the tracking store show the study's records; what is there already is left alone.

    Raises:
        OntogenyError: the store's address cannot be one, or the study has not been run.
    """
    records = read_records(study)
    from ontogeny.stages.studies import tuning_projections
    from ontogeny.tracking.claims import publish_claims
    from ontogeny.tracking.trials import publish_tuning

    store = open_store(study.places.project, study.params.tracking.uri)
    pictures = Pictures(study.places.cache / "pictures")
    _draw(study, records, pictures)
    projection = Projection(
        records=records,
        trajectory=read_trajectory(study.trajectories),
        study=study.params.tracking.study,
        settings=settings_of(study.params),
        now=time.time(),
        finished_at=study.cache.finished_at,
        bundle=pictures.read,
        commit=git_commit(study.places.project),
    )
    report = publish(projection, store).with_more(publish_tuning(tuning_projections(study), store))
    report = report.with_more(publish_claims(_verdicts(study, projection), store))
    log.info(
        "MLflow, %s: %d runs added, %d were there, %d retired, %d unpublished.",
        " and ".join(report.experiments),
        report.added,
        report.kept,
        report.retired,
        report.unpublished,
    )
    return report


def _verdicts(study: Study, projection: Projection) -> ClaimsProjection:
    """The claims, at the moment of the last job that they rest on."""
    from ontogeny.tracking.claims import ClaimsProjection

    jobs = {job for record in projection.records for job in record.fingerprints.values()}
    moments = [moment for job in jobs if (moment := projection.finished_at(job)) is not None]
    picture = study.figures / "claims.png"
    return ClaimsProjection(
        claims=projection.trajectory.claims,
        study=projection.study,
        moment=max(moments, default=projection.now),
        rules=study.params.trajectory.claims.model_dump(mode="json"),
        files={picture.name: picture.read_bytes()} if picture.exists() else {},
        commit=projection.commit,
    )


@dataclass(frozen=True)
class Pictures:
    """Drawn bundles, by the fingerprint of the job that they show."""

    folder: Path

    def path(self, job: str) -> Path:
        """File of a bundle; another way of drawing is another file."""
        from ontogeny.figures.bundle import VERSION

        name = fingerprint(kind="bundle", version=VERSION, job=job)
        return self.folder / name[:2] / f"{name}.zip"

    def read(self, job: str) -> bytes | None:
        """The bundle, or none if it has not been drawn."""
        path = self.path(job)
        return path.read_bytes() if path.exists() else None


def draw_member(folder: Path, pictures: Pictures, report: Report) -> None:
    """Draw the missing bundles of a member (in a worker)."""
    from ontogeny.figures import draw_bundle

    record = read_member(folder)
    due = _due(record, pictures)
    steps = {analysis.ref.step: analysis for analysis in record.analyses}
    for place, (step, task) in enumerate(due):
        bundle = draw_bundle(steps[step], task)
        with replacing(pictures.path(record.fingerprints[step, task]), flush=False) as temporary:
            temporary.write_bytes(bundle)
        report((place + 1) / len(due), f"step {step} {task}")


def _draw(study: Study, records: list[MemberRecord], pictures: Pictures) -> None:
    """Draw what is missing, members side by side; a picture that cannot be drawn stops nothing."""
    due = {record.member: len(_due(record, pictures)) for record in records}
    jobs = [
        Job(f"pictures of {member}", draw_member, (study.analyses(member), pictures), weight=count)
        for member, count in due.items()
        if count
    ]
    if jobs:
        with progress_of("Drawing", jobs) as progress:
            run_jobs(jobs, study.params.execution.n_jobs, progress)


def _due(record: MemberRecord, pictures: Pictures) -> list[tuple[int, str]]:
    """Step and task of the bundles that have not been drawn."""
    analysed = [(analysis.ref.step, task) for analysis in record.analyses for task in analysis.tasks]
    return [key for key in analysed if not pictures.path(record.fingerprints[key]).exists()]


def git_commit(project: Path) -> str | None:
    """Git's HEAD, where there is one."""
    command = ["git", "-C", str(project), "rev-parse", "HEAD"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout.strip() if done.returncode == 0 else None

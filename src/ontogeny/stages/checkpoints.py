"""Stage `checkpoints`: what there is to analyse, a list a member.

Members that are trained here are trained side by side, the largest first. Training goes on in
`.cache/training/FINGERPRINT`, outside DVC's outputs, so that a kill loses seconds and a changed analysis loses nothing;
finished checkpoints are copied from there. Of checkpoints that exist elsewhere the list is all: commits and hashes.
"""

from __future__ import annotations

import logging
import shutil

from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.execution.progress import progress_of
from ontogeny.execution.training import Training, is_complete, training_job
from ontogeny.models.checkpoints import CheckpointSource, FoundSource, TrainedSource, step_folders, weights_digest
from ontogeny.params import split_member
from ontogeny.records.datasets import Checkpoints, write_checkpoints
from ontogeny.records.member import Failure
from ontogeny.stages.study import Study

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/checkpoints and data/failures/checkpoints.json."""
    assert item is None
    source = study.source
    found = _train(study, source) if isinstance(source, TrainedSource) else _find(study, source)
    for member, checkpoints in found.items():
        write_checkpoints(study.checkpoints(member), checkpoints)
    study.write_failures("checkpoints", [f for checkpoints in found.values() for f in checkpoints.failures])


def _find(study: Study, source: CheckpointSource) -> dict[str, Checkpoints]:
    """The lists of a source whose checkpoints exist; a member that cannot be had does not stop the others."""
    assert isinstance(source, FoundSource)
    found: dict[str, Checkpoints] = {}
    for member in study.params.suite.members:
        folder = study.checkpoints(member)
        try:
            found[member] = Checkpoints(source.references(member, folder))
        except OntogenyError as error:
            path = folder.relative_to(study.places.study).as_posix()
            reason = " ".join(str(error).split())
            log.error("%s: %s", member, reason)
            found[member] = Checkpoints((), (Failure(member, None, path, reason),))
        log.info("%s: %d checkpoints.", member, len(found[member].refs))
    return found


def trainings_of(study: Study, source: TrainedSource) -> list[Training]:
    """The work on each member, the largest first."""
    members = sorted(study.params.suite.members, key=source.cost, reverse=True)
    return [Training(source, member, study.places.cache / "training") for member in members]


def _train(study: Study, source: TrainedSource) -> dict[str, Checkpoints]:
    """Train what has not been trained, and copy all checkpoints into data/."""
    trainings = trainings_of(study, source)
    due = [training for training in trainings if not is_complete(training)]
    jobs = [training_job(training) for training in due]
    with progress_of("Training", jobs) as progress:
        outcomes = study.executor().run(jobs, progress)
    errors = {outcome.job.name: outcome.error for outcome in outcomes if outcome.error is not None}
    log.info("Checkpoints: %d of %d members trained now.", len(due) - len(errors), len(trainings))
    return {training.member: _assemble(study, training, errors.get(training.member)) for training in trainings}


def _assemble(study: Study, training: Training, error: str | None) -> Checkpoints:
    """Copy a member's checkpoints into data/; if its training failed, those from before that."""
    member, target = training.member, study.checkpoints(training.member)
    scale, seed = split_member(member)
    refs: list[CheckpointRef] = []
    for step, folder in step_folders(training.folder).items():
        shutil.copytree(folder, target / folder.name)
        path = (target / folder.name).relative_to(study.places.study).as_posix()
        digest = weights_digest(target / folder.name)
        tokens = training.source.tokens(step)
        refs.append(CheckpointRef(study.params.suite.name, member, scale, seed, step, tokens, path, digest))
    path = target.relative_to(study.places.study).as_posix()
    return Checkpoints(tuple(refs), () if error is None else (Failure(member, None, path, error),))

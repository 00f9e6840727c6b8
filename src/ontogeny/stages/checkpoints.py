"""Stage `checkpoints`: all members side by side, the largest first.

Training goes on in `.cache/training/FINGERPRINT`, outside DVC's outputs, so that a kill loses seconds and a changed
analysis loses nothing; finished checkpoints are copied from there.
"""

from __future__ import annotations

import logging
import shutil

from ontogeny.core.results import CheckpointRef
from ontogeny.execution.pool import run_jobs
from ontogeny.execution.progress import progress_of
from ontogeny.execution.training import Training, is_complete, training_job
from ontogeny.models.checkpoints import checkpoint_source, step_folders, weights_digest
from ontogeny.params import split_member
from ontogeny.records.datasets import Checkpoints, write_checkpoints
from ontogeny.records.member import Failure
from ontogeny.stages.study import Study

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/checkpoints and data/failures/checkpoints.json."""
    assert item is None
    params = study.params
    source = checkpoint_source(params.suite.source)(params, study.corpus, params.execution.device)
    members = sorted(params.suite.members, key=source.cost, reverse=True)
    trainings = [Training(source, member, study.places.cache / "training") for member in members]
    due = [training for training in trainings if not is_complete(training)]
    jobs = [training_job(training) for training in due]
    with progress_of("Training", jobs) as progress:
        outcomes = run_jobs(jobs, params.execution.n_jobs, progress)
    errors = {outcome.job.name: outcome.error for outcome in outcomes if outcome.error is not None}
    failures: list[Failure] = []
    for training in trainings:
        found = _assemble(study, training, errors.get(training.member))
        write_checkpoints(study.checkpoints(training.member), found)
        failures += found.failures
    study.write_failures("checkpoints", failures)
    log.info("Checkpoints: %d of %d members trained now.", len(due) - len(errors), len(trainings))


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

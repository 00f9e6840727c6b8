"""Bringing the checkpoints of a member: resumable work in a folder named by its fingerprint."""

from __future__ import annotations

import logging
import shutil
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from ontogeny.core.errors import BadCheckpoint
from ontogeny.execution.fingerprints import VERSIONS, fingerprint, torch_version
from ontogeny.execution.jobs import Job, Report
from ontogeny.models.checkpoints import TrainedSource, step_folders, weights_digest
from ontogeny.records.files import read_json, write_json

log = logging.getLogger(__name__)
_DONE = "done.json"


@dataclass(frozen=True)
class Training:
    """The work on one member."""

    source: TrainedSource
    member: str
    root: Path
    """Holds a folder a fingerprint."""

    @cached_property
    def folder(self) -> Path:
        """Checkpoints so far, the training state, and `done.json` at the end."""
        facts = self.source.facts(self.member)
        name = fingerprint(kind="training", version=VERSIONS["training"], torch=torch_version(), **facts)
        return self.root / name


def is_complete(training: Training) -> bool:
    """Whether all checkpoints are there and are what they were when they were written.

    A member with a damaged checkpoint is trained anew: its folder is removed.
    """
    done = training.folder / _DONE
    if not done.exists():
        return False
    try:
        found = {str(step): weights_digest(path) for step, path in step_folders(training.folder).items()}
        if found == read_json(done):
            return True
        reason = "its checkpoints are not those that were written"
    except BadCheckpoint as error:
        reason = str(error)
    log.warning("%s is trained anew: %s", training.member, reason)
    shutil.rmtree(training.folder)
    return False


def training_job(training: Training) -> Job:
    """The job that completes a training."""
    lock = training.folder.with_suffix(".lock")
    return Job(training.member, bring, (training,), lock, weight=training.source.cost(training.member))


def bring(training: Training, report: Report) -> None:
    """Complete a training (in a worker)."""
    if (training.folder / _DONE).exists():
        return
    training.folder.mkdir(parents=True, exist_ok=True)
    training.source.bring(training.member, training.folder, report)
    digests = {str(step): weights_digest(path) for step, path in step_folders(training.folder).items()}
    write_json(training.folder / _DONE, digests)
    shutil.rmtree(training.folder / "state", ignore_errors=True)

"""The study that a stage works in, and how a stage is run."""

from __future__ import annotations

import importlib
import json
import logging
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

from ontogeny.core.errors import OntogenyError
from ontogeny.execution.cache import JobCache
from ontogeny.execution.executors import executor_of
from ontogeny.execution.jobs import Executor
from ontogeny.execution.locks import held
from ontogeny.execution.places import Places, places_at
from ontogeny.params import Params, load_params
from ontogeny.records.files import read_json, write_json
from ontogeny.records.member import Failure

if TYPE_CHECKING:
    from ontogeny.models.checkpoints import CheckpointSource

log = logging.getLogger(__name__)

STAGES = ("corpus", "datasets", "checkpoints", "analyse", "transfer", "tune", "trajectory", "figures")
"""In order. Each is a module here, a stage of dvc.yaml and a section of params.yaml."""
MATRIX = ("datasets", "analyse", "transfer", "tune")
"""Stages that are run once an item: a task, a member."""


@dataclass(frozen=True)
class Study:
    """Settings and folders."""

    params: Params
    places: Places

    @property
    def cache(self) -> JobCache:
        """Finished jobs."""
        return JobCache(self.places.jobs)

    def executor(self, workers: int | None = None) -> Executor:
        """What jobs run on; `workers` jobs at once, or as the params say."""
        return executor_of(self.params.execution, self.places.cache, workers)

    @property
    def source(self) -> CheckpointSource:
        """Where its checkpoints come from."""
        from ontogeny.models.checkpoints import checkpoint_source

        return checkpoint_source(self.params, self.places.study, self.places.project)

    @property
    def corpus(self) -> Path:
        """Text and tokenizer."""
        return self.places.data / "corpus"

    @property
    def tokenizer(self) -> Path:
        """The tokenizer.json that the data sets are made with."""
        return self.corpus / "tokenizer" / "tokenizer.json"

    def dataset(self, task: str) -> Path:
        """A task's data set."""
        return self.places.data / "tasks" / task

    def checkpoints(self, member: str) -> Path:
        """A member's checkpoints."""
        return self.places.data / "checkpoints" / member

    def analyses(self, member: str) -> Path:
        """A member's record."""
        return self.places.data / "analyses" / member

    def transfers(self, member: str) -> Path:
        """A member's circuits at other checkpoints and in other seeds."""
        return self.places.data / "transfer" / member

    def tuned(self, task: str) -> Path:
        """A task's study over settings."""
        return self.places.data / "studies" / task

    @property
    def trajectories(self) -> Path:
        """Tables over training and scale."""
        return self.places.data / "trajectories"

    @property
    def claims(self) -> Path:
        """The paper's claims with their verdicts, for people and programs."""
        return self.trajectories / "claims.json"

    @property
    def metrics(self) -> Path:
        """What `dvc metrics show` prints: a file a member and task, or claim, so that each is a row of its table."""
        return self.places.data / "metrics"

    @property
    def figures(self) -> Path:
        """Pictures and their rows."""
        return self.places.data / "figures"

    @property
    def failures(self) -> Path:
        """A list of failed jobs for each stage (and item) that has jobs."""
        return self.places.data / "failures"

    @property
    def timings(self) -> Path:
        """Seconds of each stage in the current run; no output."""
        return self.places.cache / "timings" / f"{self.places.label}.jsonl"

    def write_failures(self, name: str, failures: Sequence[Failure]) -> None:
        """Leave the list where `forget_failed` and the summary find it."""
        write_json(self.failures / f"{name}.json", [asdict(failure) for failure in failures])

    def read_failures(self) -> list[Failure]:
        """All failed jobs of the last run."""
        files = sorted(self.failures.glob("*.json"))
        return [Failure(**item) for file in files for item in read_json(file)]

    def forget_failed(self) -> None:
        """Remove the lists that are not empty: for DVC their stages are then no longer done, and run again.

        Finished jobs are in the job cache, so that only the failed ones are done again.
        """
        for file in self.failures.glob("*.json"):
            if read_json(file):
                file.unlink()


def open_study(folder: Path) -> Study:
    """The study whose params.yaml is in `folder`.

    Raises:
        OntogenyError: params.yaml is missing or refused.
    """
    places = places_at(folder)
    return Study(load_params(places.study / "params.yaml"), places)


class StageModule(Protocol):
    """What a module of this package offers."""

    def run(self, study: Study, item: str | None) -> None:
        """Do the stage."""
        ...


def stages_until(name: str) -> tuple[str, ...]:
    """The stages up to and with `name`.

    Raises:
        OntogenyError: there is no such stage.
    """
    _require_stage(name)
    return STAGES[: STAGES.index(name) + 1]


def _require_stage(name: str) -> None:
    if name not in STAGES:
        raise OntogenyError(f"There is no stage {name!r}; choose from {', '.join(STAGES)}.")


def run_stage(name: str, item: str | None, folder: Path) -> None:
    """Run one stage of the study in `folder`; a second run of the same stage waits.

    Raises:
        OntogenyError: no such stage, or the item is missing or too much.
    """
    _require_stage(name)
    if (item is None) == (name in MATRIX):
        raise OntogenyError(
            f"Stage {name!r} {'needs an item (a task or a member)' if item is None else 'has no items'}."
        )
    study = open_study(folder)
    title = name if item is None else f"{name} {item}"
    with held(study.places.lock(title.replace(" ", "-")), f"stage {title}"):
        started = time.monotonic()
        module = cast(StageModule, importlib.import_module(f"ontogeny.stages.{name}"))
        module.run(study, item)
        seconds = time.monotonic() - started
    study.timings.parent.mkdir(parents=True, exist_ok=True)
    with study.timings.open("a", encoding="utf-8") as file:
        file.write(json.dumps({"stage": name, "item": item, "seconds": seconds}) + "\n")
    log.info("Stage %s: %.1f s.", title, seconds)

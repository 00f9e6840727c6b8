"""Stage `tune`, an item a task: every setting of the search space at a few checkpoints, and what follows from it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ontogeny.execution.jobs import Job, Outcome
from ontogeny.execution.progress import progress_of
from ontogeny.models.checkpoints import TrainedSource
from ontogeny.records import Failure
from ontogeny.records.datasets import read_checkpoints, read_dataset
from ontogeny.records.files import replacing
from ontogeny.stages.study import Study

if TYPE_CHECKING:
    from pathlib import Path

    from ontogeny.core.tuning import Trial, TuningRecord
    from ontogeny.tuning.bench import Place
    from ontogeny.tuning.study import TuningSpec

log = logging.getLogger(__name__)


def run(study: Study, item: str | None) -> None:
    """Write data/studies/TASK and data/failures/tune-TASK.json."""
    from ontogeny.records.tuning import write_tuning
    from ontogeny.tuning.conclude import conclude, learned
    from ontogeny.tuning.study import TuningSpec, grid_jobs, grid_trials

    assert item is not None
    if not study.params.tune.checkpoints:
        study.tuned(item).mkdir(parents=True, exist_ok=True)
        study.write_failures(f"tune-{item}", [])
        log.info("%s: no checkpoints to tune at (tune.checkpoints).", item)
        return
    spec = TuningSpec(item, item, "grid", tuning_places(study, item))
    outcomes = work(study, spec, grid_jobs(spec), lambda: grid_trials(spec, learned(spec)))
    failures = tuple(_failure(outcome) for outcome in outcomes if outcome.error is not None)
    reasons = {f"{failure.member}@{failure.step}": failure.reason for failure in failures}
    places = learned(spec)
    trials = grid_trials(spec, places)
    record = conclude(spec, places, trials, reasons)
    folder = study.tuned(item)
    write_tuning(folder, record)
    write_pictures(study, folder, record)
    study.write_failures(f"tune-{item}", failures)
    log.info("%s: %d settings at %d checkpoints. %s", item, len(trials), len(places), record.recommended.reason)


def tuning_places(study: Study, task: str, checkpoints: Sequence[str] = ()) -> tuple[Place, ...]:
    """The checkpoints of the params, or those named, for a task.

    Raises:
        OntogenyError: a member or step is not there, or the study has not been run that far.
    """
    from ontogeny.tuning.bench import Place
    from ontogeny.tuning.study import choose_ref

    digest = read_dataset(study.dataset(task)).digest
    places: dict[str, Place] = {}
    for checkpoint in checkpoints or study.params.tune.checkpoints:
        ref = choose_ref(checkpoint, read_checkpoints(study.checkpoints(checkpoint.partition("@")[0])).refs)
        name = f"{ref.member}@{ref.step}"
        places[name] = Place(
            name=name,
            ref=ref,
            source=study.source,
            tokenizer_file=None if isinstance(study.source, TrainedSource) else study.tokenizer,
            task=task,
            dataset=study.dataset(task),
            digest=digest,
            analyse=study.params.analyse,
            tune=study.params.tune,
            cache=study.places.jobs,
            device=study.params.execution.device,
        )
    return tuple(places.values())


def work(
    study: Study,
    spec: TuningSpec,
    jobs: Sequence[Job],
    trials: Callable[[], Sequence[Trial]],
    workers: int | None = None,
) -> list[Outcome]:
    """Do jobs on as many workers as the params say; then hold the circuits to be recommended against random ones.

    Args:
        study: the study that the settings are for.
        spec: the study over settings.
        jobs: what is to be done.
        trials: what has been tried, once the jobs are done.
        workers: processes; none: as the params say.
    """
    from ontogeny.tuning.conclude import confirmations, learned

    asked: set[str] = set()

    def more() -> list[Job]:
        due = [job for job in confirmations(spec, learned(spec), trials()) if job.name not in asked]
        asked.update(job.name for job in due)
        return due

    if not jobs and not (jobs := more()):
        return []
    with progress_of(f"Tuning {spec.name}", jobs) as progress:
        return study.executor(workers).run(jobs, progress, more)


def write_pictures(study: Study, folder: Path, record: TuningRecord) -> None:
    """Each picture and its rows."""
    from ontogeny.figures.tuning import tuning_pictures

    settings = study.params.figures
    for picture in tuning_pictures(record):
        path = folder / f"{picture.name}.csv"
        with replacing(path) as temporary:
            picture.rows.to_csv(temporary, index=False)
        for kind, content in picture.files(settings.formats, settings.dpi).items():
            with replacing(path.with_suffix(f".{kind}")) as temporary:
                temporary.write_bytes(content)


def _failure(outcome: Outcome) -> Failure:
    place = outcome.job.arguments[0]
    assert outcome.error is not None
    return Failure(place.ref.member, place.ref.step, place.ref.path, outcome.error)

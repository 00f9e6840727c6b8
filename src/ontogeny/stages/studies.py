"""Studies over settings: run one interactively, find those that there are, put them into MLflow."""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast, get_args

from ontogeny.core.errors import OntogenyError
from ontogeny.core.tuning import Setting, TuningRecord
from ontogeny.execution.jobs import cores
from ontogeny.execution.locks import held
from ontogeny.records.tuning import RECORD, read_tuning, write_tuning
from ontogeny.stages.study import Study
from ontogeny.stages.tune import tuning_places, work, write_pictures

if TYPE_CHECKING:
    from ontogeny.tracking.trials import Told, TuningProjection
    from ontogeny.tuning.bench import Place

log = logging.getLogger(__name__)
JOURNAL = "tuning.journal"


def run_search(
    study: Study,
    task: str,
    mode: str,
    *,
    name: str | None = None,
    trials: int = 40,
    workers: int | None = None,
    checkpoints: Sequence[str] = (),
    storage: str | None = None,
) -> TuningRecord:
    """Search settings for a task, going on from what an interrupted call left; write and publish what was found.

    Args:
        study: whose data sets and checkpoints are used.
        task: one of its tasks.
        mode: `multi` (several objectives), `single` (edges only) or `grid` (every setting).
        name: of the study; default: the study's, the task and the mode.
        trials: finished trials at the end; a grid is done whole.
        workers: processes; none: one a core.
        checkpoints: instead of those of the params.
        storage: a database's URL or a journal file; none: the journal under ``.cache/studies``.

    Raises:
        OntogenyError: an unknown task or checkpoint, a task that is not learned at one of them, or a study of this name
            that was made with something else. Nothing was searched then.
    """
    from ontogeny.tuning.conclude import conclude, learned
    from ontogeny.tuning.search import SearchPlan, check_known, prepare, search_jobs, tried
    from ontogeny.tuning.study import Mode, TuningSpec, opening_jobs, truth_jobs

    if task not in study.params.datasets.tasks:
        raise OntogenyError(
            f"There is no task {task!r} in this study; choose from {', '.join(study.params.datasets.tasks)}."
        )
    if mode not in get_args(Mode):
        raise OntogenyError(f"There is no mode {mode!r}; choose from {', '.join(get_args(Mode))}.")
    if trials < 1 or (workers is not None and workers < 1):
        asked = f"--trials {trials}" if trials < 1 else f"--jobs {workers}"
        raise OntogenyError(f"{asked}: ask for at least 1.")
    chosen = name or f"{study.params.tracking.study}-{task}-{mode}"
    if chosen in study.params.datasets.tasks or not _is_plain(chosen):
        raise OntogenyError(
            f"{chosen!r} cannot be a study's name: use letters, digits, '-' and '_', and no task's name."
        )
    spec = TuningSpec(chosen, task, cast(Mode, mode), tuning_places(study, task, checkpoints))
    plan = SearchPlan(storage or str(study.places.cache / "studies" / JOURNAL), trials, workers or cores())
    with held(study.places.lock(f"tune-{chosen}"), f"ontogeny tune run {chosen}"):
        check_known(spec, plan)
        errors = [o.error for o in work(study, spec, opening_jobs(spec), tuple) if o.error is not None]
        _refuse_unlearned(spec.places, errors)
        searching = prepare(spec, plan)
        jobs = [*truth_jobs(spec), *search_jobs(searching, spec, plan)]
        outcomes = work(study, spec, jobs, lambda: tried(searching), workers=plan.workers)
        errors = [o.error for o in outcomes if o.error is not None]
        for error in errors:
            log.warning("A worker stopped: %s", error)
        record = conclude(spec, learned(spec), tried(searching), {})
        folder = searched_folder(study, chosen)
        write_tuning(folder, record)
        write_pictures(study, folder, record)
    return record


def searched_folder(study: Study, name: str) -> Path:
    """Where an interactive study's record and pictures are."""
    return study.places.cache / "tuning" / study.places.label / name


def find_study(study: Study, name: str) -> Path:
    """Folder of a study over settings: a task's grid (made by `make study`) or an interactive one.

    Raises:
        OntogenyError: there is none of that name; the message names those that are.
    """
    known = known_studies(study)
    if name not in known:
        raise OntogenyError(
            f"There is no study over settings {name!r}; there are: {', '.join(known) or 'none'}. "
            "`make study` makes one for each task, `ontogeny tune run TASK` others."
        )
    return known[name]


def known_studies(study: Study) -> dict[str, Path]:
    """Name -> folder, grids of the pipeline first."""
    places = [study.tuned(task) for task in study.params.datasets.tasks]
    searched = searched_folder(study, "x").parent
    places += sorted(searched.iterdir()) if searched.is_dir() else []
    return {place.name: place for place in places if (place / RECORD).exists()}


def tuning_projections(study: Study) -> list[TuningProjection]:
    """Every study over settings, for MLflow."""
    return [_projection(study, folder) for folder in known_studies(study).values()]


def publish_search(study: Study, name: str) -> bool:
    """Put one study over settings into MLflow; whether all of it is there now."""
    from ontogeny.tracking import open_store
    from ontogeny.tracking.trials import publish_tuning

    store = open_store(study.places.project, study.params.tracking.uri)
    report = publish_tuning([_projection(study, find_study(study, name))], store)
    log.info("MLflow, %s: %d runs added, %d were there.", report.experiments[0], report.added, report.kept)
    return report.complete


def _projection(study: Study, folder: Path) -> TuningProjection:
    from ontogeny.stages.publish import git_commit
    from ontogeny.tracking.trials import TuningProjection

    record = read_tuning(folder)
    files = {
        path.name: path.read_bytes() for path in sorted(folder.iterdir()) if path.suffix in (".png", ".csv", ".json")
    }
    del files[RECORD]
    return TuningProjection(
        record=record,
        study=study.params.tracking.study,
        files=files,
        now=time.time(),
        told=_teller(study, record),
        commit=git_commit(study.places.project),
    )


def _teller(study: Study, record: TuningRecord) -> Any:
    """What the job cache knows of a trial: when it was done and how long it took."""
    from ontogeny.core.tuning import Evaluation
    from ontogeny.tracking.trials import Told
    from ontogeny.tuning.study import known_scores

    try:
        names = [c.name for c in record.checkpoints if c.status == "learned"]
        places: Sequence[Place] = tuning_places(study, record.task, names) if names else ()
    except OntogenyError:
        places = ()
    scoring: dict[object, float] = {}

    def seconds(place: Place, s: Setting) -> float:
        if (place.name, s.scores) not in scoring:
            unit = known_scores(place, s.scores)
            scoring[place.name, s.scores] = math.nan if unit is None else unit.seconds
        known: Evaluation | None = place.jobs.load(Evaluation, place.key(s))
        return scoring[place.name, s.scores] + (math.nan if known is None else known.seconds)

    def told(s: Setting) -> Told:
        moments = [moment for place in places if (moment := place.jobs.finished_at(place.key(s))) is not None]
        return Told(
            max(moments, default=None), math.fsum(seconds(place, s) for place in places) if places else math.nan
        )

    return told


def _refuse_unlearned(places: Sequence[Place], errors: Sequence[str]) -> None:
    from ontogeny.tuning.study import tuned_checkpoint

    if errors:
        raise OntogenyError(f"A checkpoint cannot be tuned: {errors[0]}")
    refused = [c for place in places if (c := tuned_checkpoint(place, None)).status != "learned"]
    if refused:
        lines = [f"  {c.name}: {c.reason}" for c in refused]
        raise OntogenyError(
            f"The task {places[0].task} is not learned at every checkpoint:\n" + "\n".join(lines) + "\n"
            "Choose others with --checkpoint MEMBER@STEP."
        )


def _is_plain(name: str) -> bool:
    return bool(name) and all(c.isalnum() or c in "-_" for c in name) and name[0].isalnum()

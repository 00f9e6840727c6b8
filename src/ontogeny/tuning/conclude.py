"""From trials to the record of a study: the answers, the front, and a recommendation held against random circuits."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ontogeny.core.tuning import Recommendation, Setting, Trial, TuningRecord
from ontogeny.execution.jobs import Job
from ontogeny.tuning.answers import carry, enough_steps, ranked, recommendation, step_quality
from ontogeny.tuning.bench import Place
from ontogeny.tuning.landscape import front, importances, in_memory
from ontogeny.tuning.study import TuningSpec, confirm_jobs, score_settings, tuned_checkpoint


def conclude(
    spec: TuningSpec, places: Sequence[Place], trials: Sequence[Trial], failures: Mapping[str, str]
) -> TuningRecord:
    """The record of a study.

    Args:
        spec: the study.
        places: those where the task is learned, in the order of the study.
        trials: as tried at these places.
        failures: place -> why its jobs failed.
    """
    first = spec.places[0]
    settings, target = first.tune, first.tune.target
    (recommended, _), (adoptable, _) = _recommendations(spec, places, trials)
    landscape = in_memory(trials, spec.space, target)
    quality = tuple(q for place in places for q in step_quality(place, score_settings(spec.space)))
    return TuningRecord(
        name=spec.name,
        task=spec.task,
        mode=spec.mode,
        dataset=first.digest,
        target=target,
        form=first.search.faithfulness,
        confidence=settings.resampling.confidence,
        checkpoints=tuple(tuned_checkpoint(place, failures.get(place.name)) for place in spec.places),
        trials=tuple(trials),
        quality=quality,
        enough=enough_steps(quality, settings.truth.tolerance),
        carried=carry(trials, [place.name for place in places], target, settings.slack) if trials else (),
        front=front(landscape),
        importances=importances(landscape),
        recommended=recommended,
        adoptable=adoptable,
    )


def confirmations(spec: TuningSpec, places: Sequence[Place], trials: Sequence[Trial]) -> list[Job]:
    """Jobs without which it is not known what to recommend; none: it is known."""
    (_, some), (_, whole) = _recommendations(spec, places, trials)
    return confirm_jobs(places, (*some, *whole))


def learned(spec: TuningSpec) -> tuple[Place, ...]:
    """The places that were opened and where the task is learned."""
    return tuple(place for place in spec.places if tuned_checkpoint(place, None).status == "learned")


def _recommendations(
    spec: TuningSpec, places: Sequence[Place], trials: Sequence[Trial]
) -> tuple[tuple[Recommendation, tuple[Setting, ...]], ...]:
    """Among all trials and among those with all prompts; with what is still to be held against random circuits."""
    tune = spec.places[0].tune
    whole = [t for t in trials if t.setting.examples == 1.0]
    return tuple(
        recommendation(ranked(some, tune.target, tune.slack), places, tune.target, tune.slack, len(some))
        for some in (trials, whole)
    )

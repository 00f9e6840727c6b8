"""What a study over settings is: the places it looks at, its search space, and what it was made with."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from ontogeny.core.errors import OntogenyError
from ontogeny.core.results import CheckpointRef
from ontogeny.core.tuning import (
    BASELINES,
    WITH_STEPS,
    Evaluation,
    ScoreSetting,
    Setting,
    Trial,
    TunedCheckpoint,
    setting,
)
from ontogeny.execution.jobs import Job, Report
from ontogeny.params import SpaceParams
from ontogeny.tuning.bench import Opened, Place, ScoreUnit, open_bench

Mode = Literal["grid", "multi", "single"]


@dataclass(frozen=True)
class TuningSpec:
    """One study: a task, places, and how to search."""

    name: str
    task: str
    mode: Mode
    places: tuple[Place, ...]

    @property
    def space(self) -> SpaceParams:
        """What may be chosen."""
        return self.places[0].tune.space

    @property
    def facts(self) -> dict[str, Any]:
        """What the study was made with, by name: a study is not gone on with under other facts."""
        first = self.places[0]
        shared = first.facts | {"search": first.search.model_dump(mode="json"), "target": first.tune.target}
        shared |= {"truth": first.tune.truth.model_dump(mode="json"), "space": self.space.model_dump(mode="json")}
        del shared["weights"]
        weights = {place.name: place.ref.weights_digest for place in self.places}
        return shared | {"task": self.task, "mode": self.mode, "checkpoints": weights}


def check_facts(name: str, made_with: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    """Refuse to go on with a study that was made with something else.

    Raises:
        OntogenyError: it was; the message says what differs.
    """
    differing = [key for key in {**made_with, **now} if made_with.get(key) != now.get(key)]
    if differing:
        lines = [f"  {key}: {made_with.get(key)} then, {now.get(key)} now" for key in differing]
        raise OntogenyError(
            f"The study {name!r} was made with other {', '.join(differing)}:\n" + "\n".join(lines) + "\n"
            "Give this one a name of its own (--name), or go back to what it was made with."
        )


def grid(space: SpaceParams) -> tuple[Setting, ...]:
    """Every distinct setting of the space, sorted; methods without a path are not repeated for each m and rule."""
    names = ("method", "rule", "steps", "selection", "threshold", "examples")
    every = itertools.product(*(getattr(space, name) for name in names))
    return tuple(sorted({setting(*values) for values in every}, key=lambda s: s.key))


def score_settings(space: SpaceParams) -> tuple[ScoreSetting, ...]:
    """Every way to score of the space."""
    return tuple(sorted({s.scores for s in grid(space)}))


def baselines(space: SpaceParams) -> dict[str, Setting]:
    """The baselines that lie in the space."""
    return {name: s for name, s in BASELINES.items() if contains(space, s)}


def contains(space: SpaceParams, s: Setting) -> bool:
    """Whether a setting lies in the space; the threshold anywhere between the least and the largest."""
    path = s.method not in WITH_STEPS or (s.rule in space.rule and s.steps in space.steps)
    named = s.method in space.method and s.selection in space.selection and s.examples in space.examples
    return path and named and min(space.threshold) <= s.threshold <= max(space.threshold)


def baseline_name(s: Setting) -> str:
    """Which baseline a setting is; empty: none."""
    return next((name for name, known in BASELINES.items() if known == s), "")


def choose_ref(checkpoint: str, refs: Sequence[CheckpointRef]) -> CheckpointRef:
    """The checkpoint of a member that ``MEMBER@STEP``, ``MEMBER@last`` or ``MEMBER@60%`` names.

    Raises:
        OntogenyError: the member has no such step, or no checkpoint at all.
    """
    member, _, moment = checkpoint.partition("@")
    if not refs:
        raise OntogenyError(f"{checkpoint}: {member} has no checkpoints. Run `make study`, which trains them.")
    if moment == "last":
        return refs[-1]
    if moment.endswith("%"):
        wanted = float(moment[:-1]) / 100.0 * refs[-1].step
        return min(refs, key=lambda ref: (abs(ref.step - wanted), ref.step))
    found = [ref for ref in refs if ref.step == int(moment)]
    if not found:
        steps = ", ".join(str(ref.step) for ref in refs)
        raise OntogenyError(f"{checkpoint}: {member} has no checkpoint of step {moment}; there are: {steps}.")
    return found[0]


def grid_jobs(spec: TuningSpec) -> list[Job]:
    """The whole grid as jobs: for each place the truth, then each way to score with all settings that share it.

    What is in the cache already is not done again.
    """
    jobs = []
    every = grid(spec.space)
    for place in spec.places:
        due: list[tuple[Setting, ...]] = []
        for scores in score_settings(spec.space):
            sharing = tuple(s for s in every if s.scores == scores)
            if not all(key in place.jobs for key in (place.scores_key(scores), *map(place.key, sharing))):
                due.append(sharing)
        opened: Opened | None = place.jobs.load(Opened, place.opened_key())
        if opened is not None and opened.status != "learned":
            continue
        if place.truth_key() not in place.jobs or opened is None:
            jobs.append(Job(f"{place.name} exact", judge, (place,), weight=2.0))
        for sharing in due:
            name = f"{place.name} {sharing[0].scores}"
            jobs.append(Job(name, try_settings, (place, sharing), weight=1.0 + sharing[0].steps / 5.0))
    return sorted(jobs, key=lambda job: -job.weight)


def truth_jobs(spec: TuningSpec) -> list[Job]:
    """The truth at each place, where it is not known yet."""
    due = [place for place in spec.places if place.truth_key() not in place.jobs]
    return [Job(f"{place.name} exact", judge, (place,), weight=2.0) for place in due]


def opening_jobs(spec: TuningSpec) -> list[Job]:
    """Looking at each place that was never opened: is the task learned there?"""
    due = [place for place in spec.places if place.opened_key() not in place.jobs]
    return [Job(f"{place.name} behaviour", look, (place,)) for place in due]


def look(place: Place, report: Report) -> None:
    """Open a place (in a worker)."""
    report(0.0, "")
    open_bench(place).opened()


def judge(place: Place, report: Report) -> None:
    """Compute the truth at a place (in a worker)."""
    report(0.0, "")
    bench = open_bench(place)
    if bench.opened().status == "learned":
        bench.truth()


def try_settings(place: Place, settings: Sequence[Setting], report: Report) -> None:
    """Evaluate settings at a place (in a worker)."""
    report(0.0, "")
    bench = open_bench(place)
    if bench.opened().status != "learned":
        return
    bench.scores(settings[0].scores)
    for s in settings:
        bench.evaluate(s)


def confirm_setting(place: Place, chosen: Setting, report: Report) -> None:
    """Hold a setting's circuit against random ones (in a worker)."""
    report(0.0, "")
    open_bench(place).confirm(chosen)


def confirm_jobs(places: Sequence[Place], chosen: Sequence[Setting]) -> list[Job]:
    """Those of the settings that have not been held against random circuits yet."""
    return [
        Job(f"{place.name} {s} against random circuits", confirm_setting, (place, s))
        for place in places
        for s in dict.fromkeys(chosen)
        if place.confirmed_key(s) not in place.jobs
    ]


def tuned_checkpoint(place: Place, failure: str | None) -> TunedCheckpoint:
    """What is known of a place after the jobs."""
    opened: Opened | None = place.jobs.load(Opened, place.opened_key())
    ref = place.ref
    status: Literal["learned", "not_learned", "failed"] = "failed"
    if opened is not None:
        status = "learned" if opened.status == "learned" else "not_learned"
    reason = (failure or "It was not opened.") if opened is None else opened.reason
    edges = 0 if opened is None else opened.graph.n_edges
    return TunedCheckpoint(
        place.name, ref.member, ref.scale, ref.step, ref.tokens, ref.weights_digest, edges, status, reason
    )


def known_evaluation(place: Place, s: Setting) -> Evaluation:
    """From the cache; `failed` where it is not there."""
    known: Evaluation | None = place.jobs.load(Evaluation, place.key(s))
    return Evaluation("failed", "Its job failed.", 0) if known is None else known


def known_scores(place: Place, scores: ScoreSetting) -> ScoreUnit | None:
    """From the cache; none where they are not there."""
    unit: ScoreUnit | None = place.jobs.load(ScoreUnit, place.scores_key(scores))
    return unit


def grid_trials(spec: TuningSpec, places: Sequence[Place]) -> tuple[Trial, ...]:
    """All trials of a grid that was run, from the cache; none without places."""
    settings = grid(spec.space) if places else ()
    return tuple(
        Trial(s, baseline_name(s), {place.name: known_evaluation(place, s) for place in places}) for s in settings
    )

"""Interactive studies: Optuna chooses what to try next, in as many processes as wanted, and goes on after a kill.

Seeded: before each choice the sampler is seeded with the study's seed and the number of finished trials, so that with
one worker a study that was killed and resumed tries what an undisturbed one would. A trial that was running when its
process died is tried again.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ontogeny.core.errors import OntogenyError
from ontogeny.core.tuning import Evaluation, Setting, Trial, setting
from ontogeny.execution.jobs import Job, Report
from ontogeny.records import pack, unpack
from ontogeny.tuning.bench import open_bench
from ontogeny.tuning.landscape import OBJECTIVES, as_params, distributions, quiet_optuna
from ontogeny.tuning.storage import load_study, open_storage, study_names
from ontogeny.tuning.study import TuningSpec, baseline_name, baselines, check_facts, grid

if TYPE_CHECKING:
    from optuna.study import Study
    from optuna.trial import FrozenTrial
    from optuna.trial import Trial as OptunaTrial

_FACTS, _EVALUATIONS, _MACHINE, _WHY = "facts", "evaluations", "machine", "reason"


@dataclass(frozen=True)
class SearchPlan:
    """How to search."""

    storage: str
    """Path of a journal file, or a database's URL."""
    trials: int
    """Finished trials at the end, baselines included; a grid is done to its end."""
    workers: int


def check_known(spec: TuningSpec, plan: SearchPlan) -> None:
    """Refuse to go on with a study that was made with something else.

    Raises:
        OntogenyError: there is one of this name; the message says what differs.
    """
    if spec.name in study_names(plan.storage):
        check_facts(spec.name, _made_with(load_study(plan.storage, spec.name)), spec.facts)


def prepare(spec: TuningSpec, plan: SearchPlan) -> Study:
    """Make the study or open it, with the baselines (and in a grid everything) waiting to be tried."""
    import optuna

    quiet_optuna()
    directions = list(OBJECTIVES.values()) if spec.mode != "single" else [OBJECTIVES["edges"]]
    study = optuna.create_study(
        storage=open_storage(plan.storage), study_name=spec.name, directions=directions, load_if_exists=True
    )
    study.set_user_attr(_FACTS, spec.facts)
    _retry_dead(study)
    for wanted in (*baselines(spec.space).values(), *(grid(spec.space) if spec.mode == "grid" else ())):
        study.enqueue_trial(as_params(wanted), skip_if_exists=True)
    return study


def remaining(study: Study, spec: TuningSpec, plan: SearchPlan) -> int:
    """Trials that are still to be done."""
    from optuna.trial import TrialState

    if spec.mode == "grid":
        return len(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))
    return max(0, plan.trials - len(_finished(study)))


def search_jobs(study: Study, spec: TuningSpec, plan: SearchPlan) -> list[Job]:
    """The remaining trials, shared among workers."""
    left = remaining(study, spec, plan)
    shares = [left // plan.workers + (i < left % plan.workers) for i in range(plan.workers)]
    return [
        Job(f"worker {i + 1}", search, (spec, plan.storage, share, i), weight=share)
        for i, share in enumerate(shares)
        if share
    ]


def search(spec: TuningSpec, storage: str, count: int, worker: int, report: Report) -> None:
    """Do `count` trials (in a worker process)."""
    quiet_optuna()
    study = load_study(storage, spec.name)
    for done in range(count):
        if spec.mode == "grid" and not _waiting(study):
            return
        reseed(study, spec.places[0].tune.seed, worker)
        one_trial(study, spec)
        report((done + 1) / count, f"{done + 1} of {count}")


def reseed(study: Study, seed: int, worker: int) -> None:
    """Let what is tried next depend on the seed, the worker and the trials so far, and on nothing else."""
    from optuna.samplers import TPESampler

    study.sampler = TPESampler(seed=(seed * 1_000_003 + worker * 10_007 + len(_finished(study))) % 2**32)


def one_trial(study: Study, spec: TuningSpec) -> None:
    """Ask what to try, try it, tell."""
    from optuna.trial import TrialState

    asked = study.ask()
    asked.set_user_attr(_MACHINE, f"{uuid.getnode():012x}")
    chosen = _suggest(asked, spec)
    trial = Trial(chosen, baseline_name(chosen), {p.name: open_bench(p).evaluate(chosen) for p in spec.places})
    asked.set_user_attr(_EVALUATIONS, pack(dict(trial.evaluations))[0])
    if not trial.complete:
        asked.set_user_attr(_WHY, _why(trial))
        study.tell(asked, state=TrialState.FAIL)
        return
    asked.set_constraint("faithfulness", trial.violation(spec.places[0].tune.target))
    values = [getattr(trial, name) for name in OBJECTIVES]
    study.tell(asked, values if spec.mode != "single" else values[:1])


def tried(study: Study) -> tuple[Trial, ...]:
    """All finished trials, in the order in which they were asked for; a setting that came up twice only once."""
    found: dict[Setting, Trial] = {}
    for t in _finished(study):
        chosen = _setting_of(t)
        evaluations = unpack(Mapping[str, Evaluation], t.user_attrs[_EVALUATIONS], {})
        found.setdefault(chosen, Trial(chosen, baseline_name(chosen), evaluations))
    return tuple(found.values())


def _suggest(asked: OptunaTrial, spec: TuningSpec) -> Setting:
    """A setting of the space; rule and steps are asked for only where the method has a path."""
    space = spec.space
    method = str(asked.suggest_categorical("method", space.method))
    chosen: dict[str, Any] = {"method": method, "rule": "", "steps": 0}
    for name, how in distributions(space, setting(method, "", 0, "", 0.0, 1.0)).items():
        if name == "threshold":
            chosen[name] = round(asked.suggest_float(name, min(space.threshold), max(space.threshold)), 3)
        elif name != "method":
            chosen[name] = asked.suggest_categorical(name, getattr(how, "choices"))  # noqa: B009
    return setting(**chosen)


def _setting_of(t: FrozenTrial) -> Setting:
    chosen: dict[str, Any] = {"rule": "", "steps": 0} | t.params
    return setting(**(chosen | {"threshold": round(chosen["threshold"], 3)}))


def _finished(study: Study) -> list[FrozenTrial]:
    """Trials with an outcome, also where there was no circuit; not those whose process died."""
    return [t for t in study.get_trials(deepcopy=False) if t.state.is_finished() and _EVALUATIONS in t.user_attrs]


def _waiting(study: Study) -> bool:
    from optuna.trial import TrialState

    return bool(study.get_trials(deepcopy=False, states=(TrialState.WAITING,)))


def _retry_dead(study: Study) -> None:
    """Trials of this machine that are still running have no process any more (the study is locked): try them again."""
    from optuna.trial import TrialState

    ours = f"{uuid.getnode():012x}"
    for t in study.get_trials(deepcopy=False, states=(TrialState.RUNNING,)):
        if t.user_attrs.get(_MACHINE, ours) != ours:
            continue
        study.tell(t.number, state=TrialState.FAIL)
        if set(t.params) >= {"method", "selection", "threshold", "examples"}:
            study.enqueue_trial(t.params)
        elif fixed := t.system_attrs.get("fixed_params"):
            study.enqueue_trial(fixed)


def _made_with(study: Study) -> dict[str, Any]:
    facts: Mapping[str, Any] | None = study.user_attrs.get(_FACTS)
    if facts is None:
        raise OntogenyError(f"The study {study.study_name!r} was not made by `ontogeny tune run`: choose another name.")
    return dict(facts)


def _why(trial: Trial) -> str:
    without = {name: e for name, e in trial.evaluations.items() if e.kept is None}
    return " ".join(f"{name}: {e.status}. {e.reason}" for name, e in without.items())

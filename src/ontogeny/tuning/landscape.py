"""Finished trials as an Optuna study in memory: the Pareto front, and which of the settings matter."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from ontogeny.core.tuning import WITH_STEPS, Setting, Trial
from ontogeny.params import SpaceParams

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

OBJECTIVES: Mapping[str, Literal["minimize", "maximize"]] = {
    "edges": "minimize",
    "passes": "minimize",
    "faithfulness": "maximize",
}
"""Names of `Trial`'s numbers, and which way is better."""
_FEWEST = 8
"""Trials without which nothing is said about importance."""


def quiet_optuna() -> None:
    """Only warnings of Optuna's own, and none about what it calls experimental."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    warnings.filterwarnings("ignore", message="PedAnovaImportanceEvaluator computes the importances")


def distributions(space: SpaceParams, s: Setting) -> dict[str, BaseDistribution]:
    """Of what a setting chose from: rule and steps only where the method has a path."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution

    names = [name for name in SpaceParams.model_fields if name != "threshold"]
    path = s.method in WITH_STEPS
    chosen: dict[str, BaseDistribution] = {
        name: CategoricalDistribution(getattr(space, name)) for name in names if path or name not in ("rule", "steps")
    }
    chosen["threshold"] = FloatDistribution(min(space.threshold), max(space.threshold))
    return chosen


def as_params(s: Setting) -> dict[str, Any]:
    """A setting as Optuna's parameters."""
    skip = () if s.method in WITH_STEPS else ("rule", "steps")
    return {name: getattr(s, name) for name in SpaceParams.model_fields if name not in skip}


def in_memory(trials: Sequence[Trial], space: SpaceParams, target: float) -> Study:
    """The complete trials as a study; a trial's place in `trials` is its user attribute ``place``."""
    import optuna

    quiet_optuna()
    study = optuna.create_study(directions=list(OBJECTIVES.values()))
    study.add_trials(
        optuna.trial.create_trial(
            params=as_params(t.setting),
            distributions=distributions(space, t.setting),
            values=[getattr(t, name) for name in OBJECTIVES],
            constraints={"faithfulness": t.violation(target)},
            user_attrs={"place": place},
        )
        for place, t in enumerate(trials)
        if t.complete
    )
    return study


def front(study: Study) -> tuple[int, ...]:
    """Places of the feasible trials that no other one beats, ascending."""
    feasible = [t for t in study.best_trials if all(v <= 0 for v in t.constraints.values())]
    return tuple(sorted(int(t.user_attrs["place"]) for t in feasible))


def importances(study: Study) -> dict[str, dict[str, float]]:
    """Of each objective: how much each choice matters for being among the better trials (PED-ANOVA); empty with too
    few trials.
    """
    import optuna

    done = study.get_trials(deepcopy=False)
    found: dict[str, dict[str, float]] = {}
    for place, name in enumerate(OBJECTIVES):
        sign = 1.0 if OBJECTIVES[name] == "minimize" else -1.0

        def lower_is_better(t: FrozenTrial, place: int = place, sign: float = sign) -> float:
            return sign * float(t.values[place])

        if len(done) < _FEWEST or len(set(map(lower_is_better, done))) < 2:
            continue
        evaluated = optuna.importance.get_param_importances(study, target=lower_is_better)
        found[name] = {key: float(value) for key, value in sorted(evaluated.items())}
    return found

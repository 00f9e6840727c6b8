"""Whether a model has learnt a task: the study's own thresholds, on held-out prompts at the end of training.

They say whether the suite can carry the claims about circuits (METHODS 11): the largest scale is to pass all four.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from ontogeny.core.results import Behaviour


@dataclass(frozen=True)
class Condition:
    """One number that must reach a threshold."""

    what: str
    value: Callable[[Behaviour, float], float]
    """From the behaviour on held-out prompts and the blind score."""
    threshold: float
    compare: Callable[[float, float], bool] = operator.ge

    @property
    def sign(self) -> str:
        """`>=` or `<=`."""
        return ">=" if self.compare is operator.ge else "<="


@dataclass(frozen=True)
class Verdict:
    """A condition and what was measured; NaN never passes."""

    condition: Condition
    value: float

    @property
    def passed(self) -> bool:
        """Whether the threshold is reached."""
        return self.condition.compare(self.value, self.condition.threshold)

    def __str__(self) -> str:
        return f"{self.condition.what} {self.value:.2f} ({self.condition.sign} {self.condition.threshold:g})"


def _metric(behaviour: Behaviour, _: float) -> float:
    return behaviour.metric.value


LEARNT: Mapping[str, tuple[Condition, ...]] = {
    "ioi": (
        Condition("logit difference", _metric, 1.0),
        Condition("accuracy", lambda behaviour, _: behaviour.accuracy.value, 0.85),
    ),
    "gendered_pronoun": (Condition("logit difference", _metric, 2.0),),
    "greater_than": (
        Condition("probability difference", _metric, 0.6),
        Condition("corrupted", lambda behaviour, _: behaviour.corrupted.value, 0.0, operator.le),
        Condition("above a YY-blind guess", lambda behaviour, blind: behaviour.metric.value - blind, 0.3),
    ),
    "sva": (Condition("probability difference", _metric, 0.6),),
}
"""A task that is not here has no threshold."""


def verdicts(task: str, behaviour: Behaviour, blind: float) -> tuple[Verdict, ...]:
    """How a model stands with the conditions of `task`."""
    return tuple(Verdict(condition, condition.value(behaviour, blind)) for condition in LEARNT.get(task, ()))

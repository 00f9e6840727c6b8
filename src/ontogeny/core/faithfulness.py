"""How faithful circuits are, and the search for the smallest faithful one (METHODS 4.3-4.5).

Nothing here knows a model: a `Measure` gives the metric of each example under a circuit. Faithfulness is a ratio of
means over examples, never a mean of ratios.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Literal, Protocol

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from ontogeny.core.circuit import Circuit, Ranking
from ontogeny.core.results import Behaviour, CurvePoint, Faithfulness, Status

Form = Literal["raw", "normalised"]
Measure = Callable[[Circuit], Float[Tensor, " examples"]]
"""Metric of each example when only the circuit's edges carry the clean run."""
PAPER_CAP = 0.05


class SearchSettings(Protocol):
    """How circuits are searched; `params.SearchParams` is one."""

    @property
    def threshold(self) -> float:
        """tau: a circuit is faithful from here on."""
        ...

    @property
    def faithfulness(self) -> Form:
        """The form that the threshold is about."""
        ...

    @property
    def range(self) -> Literal["full", "paper"]:
        """N in [1, E], or [1, 5 % of E]."""
        ...

    @property
    def sustain(self) -> int:
        """For how many further sizes a size must stay faithful to be sustained."""
        ...

    @property
    def scan_up_to(self) -> int:
        """Graphs with at most this many edges are scanned at every size."""
        ...

    @property
    def fractions(self) -> tuple[float, ...]:
        """Of the graph's edges, for the curve."""
        ...


@dataclass(frozen=True)
class Ends:
    """Mean metric of the whole model on clean and on corrupted prompts: the ends of the scale."""

    model: float
    corrupted: float

    def faithfulness(self, metric: float) -> Faithfulness:
        """Both forms of METHODS 4.4; a form whose denominator is 0 is NaN."""
        span = self.model - self.corrupted
        return Faithfulness(
            metric=metric,
            raw=metric / self.model if self.model != 0 else math.nan,
            normalised=(metric - self.corrupted) / span if span != 0 else math.nan,
        )


def in_form(value: Faithfulness, form: Form) -> float:
    """Raw or normalised."""
    return value.raw if form == "raw" else value.normalised


def search_cap(n_edges: int, range_: Literal["full", "paper"]) -> int:
    """Largest n that a search may ask for."""
    return n_edges if range_ == "full" else math.floor(PAPER_CAP * n_edges)


def fraction_sizes(fractions: Iterable[float], n_edges: int) -> tuple[tuple[float, int], ...]:
    """N = max(1, round(f E)) for each fraction, halves up."""
    return tuple((f, max(1, math.floor(f * n_edges + 0.5))) for f in fractions)


@dataclass
class Sizes:
    """Faithfulness by number of edges asked for; each pruned circuit is evaluated once."""

    ranking: Ranking
    measure: Measure
    ends: Ends
    values: dict[int, Float[Tensor, " examples"]] = field(default_factory=dict)
    """Metric of each example by the least n that gives the circuit."""

    def examples(self, asked: int) -> Float[Tensor, " examples"]:
        """Metric of each example under the pruned circuit of `asked` edges."""
        key = self.ranking.representative(asked)
        if key not in self.values:
            self.values[key] = self.measure(self.ranking.circuit(key))
        return self.values[key]

    def faithfulness(self, asked: int) -> Faithfulness:
        """Of the pruned circuit of `asked` edges."""
        return self.ends.faithfulness(float(self.examples(asked).double().mean()))

    def point(self, asked: int, fraction: float = math.nan) -> CurvePoint:
        """The same as a point of a curve."""
        return CurvePoint(fraction, asked, int(self.ranking.kept[asked]), self.faithfulness(asked))


@dataclass(frozen=True)
class SearchOutcome:
    """What a search found among the sizes 1 .. cap."""

    first: int | None
    """`size_first`: least n with F >= tau and a non-empty circuit."""
    sustained: int | None
    """`size_sustained`: least n from which F >= tau for the next sizes too."""
    best: int
    """n of the largest F that was seen; the smallest such n."""
    searched: tuple[int, ...]
    """Sizes that were evaluated, ascending; of sizes with the same pruned circuit only the least."""
    finite: bool
    """Whether every F that was looked at is a number."""


def search_sizes(sizes: Sizes, settings: SearchSettings) -> SearchOutcome:
    """The smallest faithful sizes (METHODS 4.3).

    Graphs of at most `scan_up_to` edges: every n upwards, until both sizes are known. Larger ones: double until
    faithful, bisect, then look at the neighbourhood below and above what was found; F is not monotone in n, so that
    these two may differ, and `searched` says what was looked at.
    """
    cap = search_cap(sizes.ranking.graph.n_edges, settings.range)
    probe = _Probe(sizes, settings, cap)
    if sizes.ranking.graph.n_edges <= settings.scan_up_to:
        return _scan(probe)
    return _bisect(probe)


@dataclass
class _Probe:
    """Looks at sizes and remembers which."""

    sizes: Sizes
    settings: SearchSettings
    cap: int
    seen: dict[int, float] = field(default_factory=dict)

    def value(self, n: int) -> float:
        if n not in self.seen:
            self.seen[n] = in_form(self.sizes.faithfulness(n), self.settings.faithfulness)
        return self.seen[n]

    def passes(self, n: int) -> bool:
        return self.value(n) >= self.settings.threshold and int(self.sizes.ranking.kept[n]) > 0

    def sustained(self, n: int) -> bool:
        """Faithful at n and at the next sizes, as far as the cap."""
        return all(self.passes(m) for m in range(n, min(n + self.settings.sustain, self.cap) + 1))

    def outcome(self, first: int | None, sustained: int | None) -> SearchOutcome:
        ranking = self.sizes.ranking
        looked = sorted({ranking.representative(n) for n in self.seen})
        non_empty = [n for n in self.seen if ranking.kept[n] > 0] or [0]
        best = ranking.representative(max(non_empty, key=lambda n: (self._comparable(n), -n)))
        finite = all(math.isfinite(value) for value in self.seen.values())
        return SearchOutcome(first, sustained, best, tuple(looked), finite)

    def _comparable(self, n: int) -> float:
        value = self.seen.get(n, math.nan)
        return -math.inf if math.isnan(value) else value


def _scan(probe: _Probe) -> SearchOutcome:
    first, sustained, run = None, None, 0
    for n in range(1, probe.cap + 1):
        if not math.isfinite(probe.value(n)):
            break
        run = run + 1 if probe.passes(n) else 0
        if run and first is None:
            first = n
        if run == probe.settings.sustain + 1 or (run and n == probe.cap):
            sustained = n - run + 1
            break
    return probe.outcome(first, sustained)


def _bisect(probe: _Probe) -> SearchOutcome:
    """Double, bisect, then walk down and up around the smallest faithful size that was seen."""
    low, high = 0, min(1, probe.cap)
    while high < probe.cap and not probe.passes(high):
        low, high = high, min(2 * high, probe.cap)
    if probe.cap == 0 or not probe.passes(high):
        return probe.outcome(None, None)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if probe.passes(middle) else (middle, high)
    first = high
    for n in range(high - 1, max(0, high - 1 - probe.settings.sustain), -1):
        first = n if probe.passes(n) else first
    first = probe.sizes.ranking.representative(first)
    sustained = first
    while sustained <= probe.cap and not probe.sustained(sustained):
        failing = next(m for m in range(sustained, probe.cap + 1) if not probe.passes(m))
        sustained = next((m for m in range(failing + 1, probe.cap + 1) if probe.passes(m)), probe.cap + 1)
    return probe.outcome(first, sustained if sustained <= probe.cap else None)


def curve_areas(points: Sequence[CurvePoint]) -> tuple[float, float]:
    """CPR and CMD: the areas under the normalised curve, and between it and 1; trapezoids over fractions (MIB)."""
    x = np.array([point.fraction for point in points])
    y = np.array([point.faithfulness.normalised for point in points])
    order = np.argsort(x, kind="stable")
    x, y = x[order], y[order]
    width = np.diff(x)
    gap = np.abs(1.0 - y)
    return float((width * (y[1:] + y[:-1]) / 2).sum()), float((width * (gap[1:] + gap[:-1]) / 2).sum())


@dataclass(frozen=True)
class Verdict:
    """A status and one sentence why; the sentence is empty for `found`."""

    status: Status
    reason: str


def verdict_on_behaviour(behaviour: Behaviour) -> Verdict | None:
    """Whether the task is learnt (METHODS 4.5); None: it is. Depends on no setting but the bootstrap's."""
    m, difference = behaviour.metric, behaviour.difference
    if not all(math.isfinite(e.value) for e in (m, difference, behaviour.corrupted)):
        return Verdict("nan", "The model's metric is not finite.")
    if m.low <= 0:
        return Verdict("not_learned", f"The metric's interval reaches down to {m.low:.4g}: not above 0.")
    if difference.low <= 0:
        return Verdict(
            "not_learned", f"Clean minus corrupted reaches down to {difference.low:.4g}: not above 0 (paired interval)."
        )
    return None


def verdict_before_search(behaviour: Behaviour, settings: SearchSettings) -> Verdict | None:
    """Whether there is anything to search (METHODS 4.5); None: there is."""
    unlearnt = verdict_on_behaviour(behaviour)
    if unlearnt is not None:
        return unlearnt
    m, corrupted = behaviour.metric, behaviour.corrupted
    if settings.faithfulness == "raw" and corrupted.value >= settings.threshold * m.value:
        return Verdict(
            "trivial",
            f"The empty circuit would pass: corrupted {corrupted.value:.4g} is at least {settings.threshold:g} of "
            f"clean {m.value:.4g}. Raw faithfulness is not used; see the normalised one.",
        )
    return None


def verdict_after_search(
    outcome: SearchOutcome, sizes: Sizes, settings: SearchSettings, random_p95: float, cap: int
) -> Verdict:
    """`found`, `threshold_unmet` or `nan` (METHODS 4.5)."""
    if outcome.first is None:
        if not outcome.finite:
            return Verdict("nan", "The faithfulness of a circuit is not finite.")
        best = in_form(sizes.faithfulness(outcome.best), settings.faithfulness)
        return Verdict(
            "threshold_unmet",
            f"No circuit of up to {cap} edges asked for reaches {settings.threshold:g}; best {best:.4g} at "
            f"{outcome.best}.",
        )
    reached = in_form(sizes.faithfulness(outcome.first), settings.faithfulness)
    if not reached > random_p95:
        return Verdict(
            "threshold_unmet",
            f"The circuit of {outcome.first} edges reaches {reached:.4g}, but random circuits of its size reach "
            f"{random_p95:.4g} (95th percentile).",
        )
    return Verdict("found", "")


def percentile_95(values: Sequence[float]) -> float:
    """95th percentile, linear between order statistics; NaN if any value is."""
    return float(torch.tensor(values, dtype=torch.float64).quantile(0.95)) if values else math.nan

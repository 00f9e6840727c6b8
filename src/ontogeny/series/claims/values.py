"""A claim, its verdict, and how several verdicts become one."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, Literal, NamedTuple, get_args

import numpy as np
from jaxtyping import Float

from ontogeny.params import ClaimsParams

Verdict = Literal["supported", "contradicted", "undecided", "other algorithm", "n/a"]
VERDICTS: Final[tuple[Verdict, ...]] = get_args(Verdict)
ALL: Final = "all"
"""`about` of the verdict on a claim as a whole."""


@dataclass(frozen=True)
class Claim:
    """One claim about one thing, and what the data say."""

    claim: str
    """C1 to C12."""
    about: str
    """The task, role or metric; `all`: the claim as a whole."""
    verdict: Verdict
    reason: str
    """One sentence: the rule as it came out."""
    statistic: float = math.nan
    low: float = math.nan
    high: float = math.nan
    """Interval of the statistic."""


class Text(NamedTuple):
    """What is claimed, what is measured, and the rule that decides (METHODS 0, 0.1)."""

    sentence: str
    statistic: str
    rule: str


def texts(rules: ClaimsParams) -> Mapping[str, Text]:
    """By claim, with the numbers of the params."""
    r = rules
    sure = f"{100 * r.alike_confidence:g} % interval"
    enough = f"at least {r.least_checkpoints} checkpoints and {r.least_octaves:g} octaves of tokens after the onset"
    within = f"{r.role_lag[0]:g} to {r.role_lag[1]:g} octaves"
    soon = f"{r.greater_than_lag[0]:g} to {r.greater_than_lag[1]:g} octaves"
    return {
        "C1": Text(
            "Abilities are acquired at similar token counts at every scale.",
            "largest difference of two scales' onsets, octaves",
            f"Supported: the {sure} of every difference lies within {r.alike_octaves:g} octave, and every member has "
            "an onset. Contradicted: one lies wholly outside. The noise between seeds is pooled over scales; without "
            "any nothing is decided.",
        ),
        "C2": Text(
            "The heads that a task needs emerge when the ability does.",
            "onset of the role minus onset of its task, octaves",
            f"Supported: the {sure} lies within {within} in every member, {r.least_members} or more, and ablating the "
            f"role's heads costs more than {100 * r.sets_beaten:g} % of sets of as many heads of the same layers in "
            "each of them. Contradicted: one lies wholly outside, or most other sets cost more.",
        ),
        "C3": Text(
            "After a circuit has formed, heads lose and gain roles while the ability holds.",
            "heads that lose the role",
            f"Supported: a head falls below {r.role_lost:g} of its maximum since the last onset, two checkpoints in a "
            f"row, while the task stays at {r.task_holds:g} of its running maximum, and its scores are in no random "
            f"order, at 1 % over all heads; {enough}. Contradicted: none does anywhere.",
        ),
        "C4": Text(
            "The algorithm stays: the three IOI metrics remain high and flat.",
            "slope of the metric, points an octave",
            f"Supported: above the null's 95th percentile at {100 * r.above_null:g} % of the checkpoints after the "
            f"onset (an undefined one is not above), and the 95 % interval of the slope within {r.flat_points:g} "
            f"points an octave; {enough}. Other algorithm: name movers do not beat their null at half of them.",
        ),
        "C5": Text(
            "The algorithm and the kinds of heads are the same at every scale.",
            "share of the roles that every scale has",
            "Supported: the circuits of all scales that learn the task in two seeds hold the same roles, above chance, "
            "in most seeds. Contradicted: a role is held in all seeds of one scale and in none of another. Other "
            "algorithm: as C4, for IOI.",
        ),
        "C6": Text(
            "Circuits of larger models are larger.",
            "Spearman of edges with parameters",
            f"Supported: the 95 % interval lies above 0, {r.least_sizes} or more shapes of model with sizes that are "
            f"not censored; {enough}. Contradicted: it lies below 0.",
        ),
        "C7": Text(
            "All scales but the smallest end at similar performance.",
            "least ratio of a scale's final metric to the best scale's",
            f"Supported: the {sure} of every ratio lies above {r.similar_end:g}. Contradicted: one lies below. The "
            "noise between seeds is pooled over scales; without any nothing is decided.",
        ),
        "C8": Text(
            "Abilities are not unlearned.",
            "least share of its best level that a member keeps",
            f"Supported: the interval of every member lies above {r.task_holds:g}, all of them at 95 %. Contradicted: "
            "one lies below.",
        ),
        "C9": Text(
            "The metric is often negative just before the onset.",
            "share of members below zero before the onset",
            "Supported: the exact 95 % interval of the share lies above 0.5. Contradicted: below.",
        ),
        "C10": Text(
            "Copy-suppression heads help IOI, by lowering S.",
            "mean effect e of the copy-suppression heads; negative: they help",
            f"Supported: the 95 % interval over {r.least_members} or more members lies below 0, of e and of what they "
            "add to the logit of S. Contradicted: one lies above 0.",
        ),
        "C11": Text(
            "Greater-than follows induction within an octave.",
            "onset of greater-than minus onset of induction, octaves",
            f"Supported: the {sure} lies within {soon} in every member, {r.least_members} or more. Contradicted: one "
            "lies wholly outside.",
        ),
        "C12": Text(
            "The circuits of pronouns and agreement are dominated by MLPs.",
            "share of the circuit's edges that leave MLPs",
            f"Supported: the 95 % interval over {r.least_members} or more members lies above {r.mlp_share:g} and above "
            "the share in the whole graph. Contradicted: below one of them.",
        ),
    }


def together(claim: str, about: str, parts: Sequence[Claim]) -> Claim:
    """One verdict on several: contradicted by any, supported by all, else undecided; n/a only where all are."""
    order: tuple[Verdict, ...] = ("contradicted", "other algorithm", "undecided", "supported", "n/a")
    return _first_of(order, claim, about, parts)


def any_of(claim: str, about: str, parts: Sequence[Claim]) -> Claim:
    """One verdict on a claim that something exists: supported by any, contradicted by all."""
    return _first_of(("supported", "other algorithm", "undecided", "contradicted", "n/a"), claim, about, parts)


def _first_of(order: Sequence[Verdict], claim: str, about: str, parts: Sequence[Claim]) -> Claim:
    for verdict in order:
        named = [part for part in parts if part.verdict == verdict]
        if named:
            first, rest = named[0], len(named) - 1
            others = f" ({rest} more like it)" if rest else ""
            reason = f"{first.about}: {first.reason}{others}" if len(parts) > 1 else first.reason
            return replace(first, claim=claim, about=about, reason=reason)
    return Claim(claim, about, "undecided", "nothing was measured")


def too_short(log2_tokens: Float[np.ndarray, " checkpoints"], after: int, rules: ClaimsParams) -> str:
    """Why there is too little after the last onset, or nothing."""
    left = log2_tokens[after:]
    if len(left) < rules.least_checkpoints:
        return f"{len(left)} checkpoints after the last onset, {rules.least_checkpoints} are needed"
    if left[-1] - left[0] < rules.least_octaves:
        return f"{left[-1] - left[0]:.1f} octaves after the last onset, {rules.least_octaves:g} are needed"
    return ""


def mean_interval(values: Sequence[float]) -> tuple[float, float, float]:
    """Mean over members and its 95 % interval (Student's t)."""
    from scipy.stats import t

    data = np.asarray(values, dtype=float)
    mean = float(data.mean())
    half = float(t.ppf(0.975, len(data) - 1) * data.std(ddof=1) / math.sqrt(len(data))) if len(data) > 1 else math.nan
    return mean, mean - half, mean + half

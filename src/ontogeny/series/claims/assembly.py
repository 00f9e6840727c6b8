"""From the series of a study to all verdicts: what each rule is given.

A checkpoint whose weights are those of an earlier one never counts. "After the onset" is from the checkpoint of the
onset rule on; for a role, from the later of its onset and its task's.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from statistics import NormalDist
from typing import Any, Final, NamedTuple

import numpy as np
import pandas as pd

from ontogeny.core.results import IOI
from ontogeny.params import ClaimsParams, TrajectoryParams
from ontogeny.series.claims.mechanism import (
    DIRECT,
    Suppression,
    algorithm_stays,
    mlp_dominant,
    same_roles,
    suppression_helps,
)
from ontogeny.series.claims.scale import Ending, similar_ends, size_grows
from ontogeny.series.claims.time import (
    dips_below_zero,
    lag,
    learners,
    no_unlearning,
    roles_change_hands,
    roles_follow,
    similar_onsets,
    with_both,
)
from ontogeny.series.claims.values import ALL, Claim, any_of, together
from ontogeny.series.emergence import Emergence
from ontogeny.series.mechanism import METRICS, algorithm_quantity, role_quantity
from ontogeny.series.rise import log2_tokens
from ontogeny.series.roles import TASK_OF, role_of
from ontogeny.series.size import distinct
from ontogeny.series.table import headline

GREATER_THAN: Final = "greater_than"
INDUCTION: Final = "induction"
SUPPRESSION: Final = "copy_suppression"
MLP_TASKS: Final = ("gendered_pronoun", "sva")
PUBLISHED_ONSETS: Final[Mapping[str, tuple[float, float]]] = {INDUCTION: (2e9, 5e9), "name_mover": (2e9, 8e9)}
"""Tokens between which the paper sees roles appear (C2)."""


@dataclass(frozen=True)
class Evidence:
    """All that claims are judged by."""

    table: pd.DataFrame
    """Tidy."""
    abilities: Sequence[Emergence]
    """The behaviour of each member and task."""
    roles: Sequence[Emergence]
    """The best head of each role (`role_emergences`)."""
    heads: pd.DataFrame
    """Score of every head (`role_table`)."""
    points: pd.DataFrame
    """Sizes by scale (`size_points`)."""
    beaten: Mapping[tuple[str, str], float] = field(default_factory=dict)
    """(role, member) -> share of layer-matched sets of heads that cost less than the role's, when ablated."""
    confidence: float = 0.95
    """Of the behaviour's intervals."""

    @property
    def tasks(self) -> tuple[str, ...]:
        """Those that the study has."""
        return tuple(dict.fromkeys(str(each.who["task"]) for each in self.abilities))

    @property
    def suite(self) -> str:
        """Its name; empty if nothing was analysed."""
        return next((str(each.who["suite"]) for each in self.abilities), "")

    def of_task(self, task: str) -> list[Emergence]:
        """The behaviour of each member."""
        return [each for each in self.abilities if each.who["task"] == task]

    def of_role(self, role: str) -> list[Emergence]:
        """The role in each member."""
        return [each for each in self.roles if role_of(each) == role]

    def series(self, member: str, task: str, quantity: str) -> pd.Series:
        """Values by tokens, ascending."""
        rows = self._series.get((member, task, quantity))
        return pd.Series(dtype=float) if rows is None else rows

    @cached_property
    def _series(self) -> Mapping[tuple[str, str, str], pd.Series]:
        used = self.table[self.table["duplicate_of"].isna() & self.table["quantity"].str.startswith(_READ)]
        return {
            (str(m), str(t), str(q)): rows.set_index(rows["tokens"].astype(float))["value"].sort_index()
            for (m, t, q), rows in used.groupby(["member", "task", "quantity"], sort=False)
        }


_READ: Final = ("behaviour/", "algorithm/", "role/", "verification/mlp_")


def judge(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    """The verdict on each claim as a whole, then on its parts."""
    found = []
    for name, (assemble, join) in _CLAIMS.items():
        parts = assemble(evidence, params)
        found += [join(name, ALL, parts), *parts]
    return found


# --- What each rule is given ----------------------------------------------------------------------------------------


def _by_task(rule: Callable[[str, Evidence, TrajectoryParams], Claim]) -> _Assemble:
    return lambda evidence, params: [rule(task, evidence, params) for task in evidence.tasks]


def _onsets_alike(task: str, evidence: Evidence, params: TrajectoryParams) -> Claim:
    return similar_onsets(task, evidence.of_task(task), params)


def _roles_emerge(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    found = []
    for role, task in TASK_OF.items():
        about, rules = f"{role} of {task}", params.claims
        if task not in evidence.tasks:
            found.append(_absent("C2", about, task))
            continue
        timing = lag("C2", about, evidence.of_role(role), evidence.of_task(task), rules.role_lag, rules)
        members = with_both(evidence.of_role(role), evidence.of_task(task))
        beaten = {member: share for (of, member), share in evidence.beaten.items() if of == role}
        found.append(roles_follow(timing, list(members), beaten, rules))
    return [*found, *_published_onsets(evidence)]


def _published_onsets(evidence: Evidence) -> list[Claim]:
    """Absolute token counts mean something only for models trained on the same text."""
    if "pythia" not in evidence.suite:
        reason = "they are those of Pythia's training text, which this suite did not see"
        return [Claim("C2", "absolute token counts", "n/a", reason)]
    found = []
    for role, (least, most) in PUBLISHED_ONSETS.items():
        about, known = f"{role}, absolute token counts", learners(evidence.of_role(role))
        rises = [each.rise for each in known if each.rise is not None]
        if not rises:
            found.append(Claim("C2", about, "undecided", "no member has the onset"))
            continue
        ends = np.log2([least, most])
        outside = [rise for rise in rises if rise.low > ends[1] or rise.high < ends[0]]
        partly = [rise for rise in rises if rise.low < ends[0] or rise.high > ends[1]]
        shown = (outside or partly or rises)[0]
        text = f"{len(rises) - len(partly)} of {len(rises)} members lie within {least:.0e} to {most:.0e} tokens"
        numbers = [2.0**place for place in (shown.onset, shown.low, shown.high)]
        verdict: Any = "contradicted" if outside else "undecided" if partly else "supported"
        found.append(Claim("C2", about, verdict, text, *numbers))
    return found


def _roles_move(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    """A claim for each role and member that learns the role's task."""
    by_role = dict(iter(evidence.heads.groupby(["member", "role"], sort=False)))
    lives: list[tuple[str, _RoleLife | None]] = []
    for role, task in TASK_OF.items():
        starts = {str(e.who["member"]): e.onset.tokens for e in learners(evidence.of_role(role))}
        for each in learners(evidence.of_task(task)):
            member = str(each.who["member"])
            start = max(float(each.onset.tokens or 0), float(starts[member] or 0)) if member in starts else None
            values = evidence.series(member, task, str(each.who["quantity"]))
            life = None if start is None else _role_life(by_role[member, role], values, start)
            lives.append((f"{role} in {member}", life))
    tried = sum(life.heads.shape[1] for _, life in lives if life is not None)
    return [
        Claim("C3", about, "undecided", "the role has no onset")
        if life is None
        else roles_change_hands(about, *life, params.claims, tried)
        for about, life in lives
    ]


class _RoleLife(NamedTuple):
    """What C3 looks at of one role of one member: arguments of `roles_change_hands`."""

    log2_tokens: np.ndarray
    task: np.ndarray
    heads: np.ndarray
    after: int


def _role_life(rows: pd.DataFrame, values: pd.Series, start: float) -> _RoleLife:
    wide = rows.pivot(index="tokens", columns="head", values="score").sort_index()
    common = wide.index.intersection(values.index)
    holds, later = rows["holds"].astype(bool), rows["tokens"].astype(float) >= start
    held = sorted(rows.loc[holds & later, "head"].unique())
    tokens = common.to_numpy(float)
    scores = wide.loc[common, held].to_numpy(float)
    return _RoleLife(log2_tokens(tokens), values[common].to_numpy(float), scores, int(np.searchsorted(tokens, start)))


def _algorithm_kept(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    """One verdict a member that learns IOI: the three metrics together, unless name movers do not carry it."""
    if IOI not in evidence.tasks:
        return [_absent("C4", IOI, IOI)]
    found = []
    for each in learners(evidence.of_task(IOI)):
        member = str(each.who["member"])
        parts = [_metric_kept(metric, each, evidence, params.claims) for metric in METRICS]
        direct = parts[METRICS.index(DIRECT)]
        found.append(together("C4", member, [direct] if direct.verdict == "other algorithm" else parts))
    return found


def _metric_kept(metric: str, each: Emergence, evidence: Evidence, rules: ClaimsParams) -> Claim:
    value, null = (
        evidence.series(str(each.who["member"]), IOI, algorithm_quantity(metric, part)) for part in ("", "_null_p95")
    )
    tokens = value.index.to_numpy(float)
    after = int(np.searchsorted(tokens, float(each.onset.tokens or 0)))
    return algorithm_stays(metric, log2_tokens(tokens), value.to_numpy(float), null.to_numpy(float), after, rules)


def _other_algorithm(each: Emergence, evidence: Evidence, rules: ClaimsParams) -> bool:
    """Whether C4 says that name movers do not carry this member's IOI: only with as much data as it asks for."""
    return _metric_kept(DIRECT, each, evidence, rules).verdict == "other algorithm"


def _roles_replicate(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    found = []
    for task in evidence.tasks:
        known = learners(evidence.of_task(task))
        others = [
            str(each.who["member"]) for each in known if task == IOI and _other_algorithm(each, evidence, params.claims)
        ]
        if others:
            reason = f"name movers do not beat their null in {', '.join(others)}"
            found.append(Claim("C5", task, "other algorithm", reason))
            continue
        found.append(same_roles(task, _held_by_scale(task, known, evidence)))
    return found


def _held_by_scale(task: str, known: Sequence[Emergence], evidence: Evidence) -> dict[str, dict[str, list[bool]]]:
    """Scale -> role -> whether heads of the last circuit hold it, a value a seed that learns the task and has one."""
    roles = dict.fromkeys(role_of(each) for each in evidence.roles)
    found: dict[str, dict[str, list[bool]]] = {}
    for each in known:
        at = found.setdefault(str(each.who["scale"]), {role: [] for role in roles})
        for role in roles:
            counts = evidence.series(str(each.who["member"]), task, role_quantity(role, "holders_in_circuit")).dropna()
            if len(counts):
                at[role].append(bool(counts.iloc[-1] > 0))
    return found


def _sizes_grow(task: str, evidence: Evidence, params: TrajectoryParams) -> Claim:
    rules, here = params.claims, evidence.points[evidence.points["task"] == task]
    measured = here["status"] == "measured"
    enough = (here["checkpoints"] >= rules.least_checkpoints) & (here["octaves"] >= rules.least_octaves)
    used = distinct(here[measured & enough])
    claim = size_grows(task, list(zip(used["parameters"], used["edges"])), params)
    notes = {
        "scales without a size": int((~measured).sum()),
        "with too few checkpoints": int((measured & ~enough).sum()),
    }
    left = ", ".join(f"{why}: {count}" for why, count in notes.items() if count)
    return replace(claim, reason=f"{claim.reason}; {left}" if left else claim.reason)


def _ends_alike(task: str, evidence: Evidence, params: TrajectoryParams) -> Claim:
    """Every scale counts, whether it learns the task or not."""
    rows = headline(evidence.table[evidence.table["task"] == task])
    rows = rows[rows["value"].notna() & rows["duplicate_of"].isna()]
    quantile = 2 * NormalDist().inv_cdf(0.5 + evidence.confidence / 2)
    ends: dict[str, tuple[float, list[Ending]]] = {}
    for (scale, _), series in rows.sort_values("step").groupby(["scale", "member"], sort=False):
        level, low, high, size = series[["value", "low", "high", "parameters"]].to_numpy(float)[-1]
        ends.setdefault(str(scale), (size, []))[1].append(Ending(level, (high - low) / quantile))
    return similar_ends(task, ends, params)


def _suppression(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    if IOI not in evidence.tasks:
        return [_absent("C10", IOI, IOI)]
    found = {}
    for each in learners(evidence.of_task(IOI)):
        member, start = str(each.who["member"]), float(each.onset.tokens or 0)
        effect, on_s = (
            _mean_after(evidence.series(member, IOI, role_quantity(SUPPRESSION, name)), start)
            for name in ("direct_effect", "on_s")
        )
        if math.isfinite(effect):
            found[member] = Suppression(effect, on_s)
    return [suppression_helps(found, params.claims)]


def _greater_than_follows(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    if GREATER_THAN not in evidence.tasks:
        return [_absent("C11", GREATER_THAN, GREATER_THAN)]
    task, role = evidence.of_task(GREATER_THAN), evidence.of_role(INDUCTION)
    return [lag("C11", GREATER_THAN, task, role, params.claims.greater_than_lag, params.claims)]


def _mlps_dominate(evidence: Evidence, params: TrajectoryParams) -> list[Claim]:
    found = []
    for task in MLP_TASKS:
        if task not in evidence.tasks:
            found.append(_absent("C12", task, task))
            continue
        shares = {}
        for each in learners(evidence.of_task(task)):
            member, start = str(each.who["member"]), float(each.onset.tokens or 0)
            names = ("verification/mlp_share_of_circuit", "verification/mlp_share_of_graph")
            circuit, graph = (_mean_after(evidence.series(member, task, name), start) for name in names)
            if math.isfinite(circuit):
                shares[member] = (circuit, graph)
        found.append(mlp_dominant(task, shares, params.claims))
    return found


def _mean_after(values: pd.Series, start: float) -> float:
    """NaN where nothing is known."""
    known = values[values.index >= start].dropna()
    return float(known.mean()) if len(known) else math.nan


def _absent(claim: str, about: str, task: str) -> Claim:
    return Claim(claim, about, "n/a", f"the study has no task {task}")


_Assemble = Callable[[Evidence, TrajectoryParams], list[Claim]]
_Join = Callable[[str, str, Sequence[Claim]], Claim]
_CLAIMS: Final[Mapping[str, tuple[_Assemble, _Join]]] = {
    "C1": (_by_task(_onsets_alike), together),
    "C2": (_roles_emerge, together),
    "C3": (_roles_move, any_of),
    "C4": (_algorithm_kept, together),
    "C5": (_roles_replicate, together),
    "C6": (_by_task(_sizes_grow), together),
    "C7": (_by_task(_ends_alike), together),
    "C8": (
        _by_task(lambda task, evidence, params: no_unlearning(task, evidence.of_task(task), params.claims)),
        together,
    ),
    "C9": (_by_task(lambda task, evidence, _: dips_below_zero(task, evidence.of_task(task))), together),
    "C10": (_suppression, together),
    "C11": (_greater_than_follows, together),
    "C12": (_mlps_dominate, together),
}
"""Claim -> its parts, and how they become one verdict. A new claim is a line here and a text in `values.texts`."""

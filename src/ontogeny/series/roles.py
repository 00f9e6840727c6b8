"""Head roles over training: when they appear, which heads hold them, and who follows whom (METHODS 6.6, 8.1, 8.5)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

from ontogeny.core.results import IOI, CheckpointAnalysis
from ontogeny.core.roles import Head, head_names
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.emergence import Emergence, emergence_table, emergences
from ontogeny.series.mechanism import leading_head, role_quantity
from ontogeny.series.onset import NEVER
from ontogeny.series.table import as_table

TASK_OF: Final[Mapping[str, str]] = {
    "successor": "greater_than",
    "induction": "greater_than",
    "copy_suppression": IOI,
    "name_mover": IOI,
}
"""Roles that a task needs, as the paper has it (C2), and panels of its Figures 2 and 3."""
_WHO: Final = ("suite", "member", "scale", "seed", "parameters")
HANDOVER_COLUMNS: Final = (
    *_WHO, "role", "head", "lost_step", "lost_tokens", "score_before", "score_after", "score_final", "successor",
    "gained_step", "gained_tokens", "expected",
)  # fmt: skip
ROLE_COLUMNS: Final = (
    *_WHO, "step", "tokens", "role", "status", "layer", "head_index", "head", "score", "chance", "holds",
)  # fmt: skip


def role_table(records: Sequence[MemberRecord]) -> pd.DataFrame:
    """One row a checkpoint, role and head; checkpoints whose weights are those of an earlier step are left out."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        for analysis in _kept(record):
            ref = analysis.ref
            who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, ref.step, ref.tokens)
            heads = _heads(analysis)
            names = head_names(heads)
            for role, scores in analysis.roles.items():
                holders = set(analysis.holders.get(role, ()))
                numbers = zip(scores.score.flatten().tolist(), scores.chance.flatten().tolist())
                rows += [
                    (*who, role, scores.status, *head, name, score, chance, head in holders)
                    for head, name, (score, chance) in zip(heads, names, numbers)
                ]
    return pd.DataFrame(rows, columns=list(ROLE_COLUMNS))


def role_series(records: Sequence[MemberRecord]) -> pd.DataFrame:
    """Tidy rows: the largest score of a head in each role (`part` names it), once a checkpoint; no task."""
    rows: list[tuple[object, ...]] = []
    for record in records:
        duplicates, roles = record.duplicates, _roles(record.analyses)
        for analysis in sorted(record.analyses, key=lambda a: a.ref.step):
            ref = analysis.ref
            who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, ref.step, ref.tokens)
            for role in roles:
                best, value, status = None, math.nan, "not measured"
                if role in analysis.roles:
                    scores = analysis.roles[role]
                    best, status = leading_head(scores), scores.status
                    value = math.nan if best is None else float(scores.score[best])
                part = "" if best is None else head_names([best])[0]
                numbers = (value, math.nan, math.nan, status, duplicates.get(ref.step), part)
                rows.append((*who, "", role_quantity(role), *numbers))
    return as_table(rows)


def role_emergences(records: Sequence[MemberRecord], params: TrajectoryParams) -> list[Emergence]:
    """When the best head of each role appears, by member and role; `never` where no head ever holds the role.

    No interval of a score is known, so that its scatter stands for its error.
    """
    held = {(record.member, role) for record in records for a in _kept(record) for role in a.holders if a.holders[role]}
    found = emergences(role_series(records), params)
    return [each if (each.who["member"], role_of(each)) in held else _unheld(each) for each in found]


def role_of(each: Emergence) -> str:
    """The role whose best head's score a series is."""
    return str(each.who["quantity"]).split("/")[1]


def role_onsets(found: Sequence[Emergence]) -> pd.DataFrame:
    """One row a member and role, from `role_emergences`: the columns of `emergence_table`, and `role`."""
    table = emergence_table(found).drop(columns=["task", "quantity"])
    table.insert(len(_WHO), "role", pd.Series([role_of(each) for each in found], dtype="str"))
    return table


def _unheld(each: Emergence) -> Emergence:
    if each.onset.status == NEVER:
        return each
    reason = "no head reaches the role's threshold"
    never = replace(each.onset, status=NEVER, reason=reason, step=None, tokens=None)
    return replace(each, onset=never, gap=math.nan, rise=None, dip=None, end=None)


def role_turnover(records: Sequence[MemberRecord]) -> pd.DataFrame:
    """Tidy rows: the share of a role's heads that are new since the previous checkpoint, and of those before that left.

    ``role/NAME/entering`` is a share of the heads that hold the role now, ``role/NAME/leaving`` of those that held it;
    NaN and `no holder` where there is none. Beside each stands ``..._by_chance``: its mean were as many heads drawn
    anew from all heads at every checkpoint, 1 - (holders at the other checkpoint) / (heads).
    """
    rows: list[tuple[object, ...]] = []
    for record in records:
        kept = _kept(record)
        for role in _roles(kept):
            for before, here in itertools.pairwise(kept):
                old, new = set(before.holders.get(role, ())), set(here.holders.get(role, ()))
                heads = len(_heads(here))
                for name, of, other in (("entering", new, old), ("leaving", old, new)):
                    status = "measured" if of else "no holder"
                    value = len(of - other) / len(of) if of else math.nan
                    chance = 1 - len(other) / heads if of else math.nan
                    rows += _tidy(here, role_quantity(role, name), value, status)
                    rows += _tidy(here, role_quantity(role, f"{name}_by_chance"), chance, status)
    return as_table(rows)


def handovers(records: Sequence[MemberRecord], params: TrajectoryParams) -> pd.DataFrame:
    """Every head that lost a role for good or for a while, and who gained it then; one row a loss.

    A head has lost a role when it held it and then does not at `params.sustain` checkpoints in a row; gains are read
    alike. `successor` is the head that gained the role nearest in time, no further than `params.sustain` checkpoints
    before or after; empty if there is none. `expected` is the share of all checkpoints of this member around which
    another head gained the role: what a loss at a random time would find.
    """
    rows: list[tuple[object, ...]] = []
    for record in records:
        kept = _kept(record)
        for role in _roles(kept):
            rows += _losses(role, [a for a in kept if role in a.roles], params.sustain)
    frame = pd.DataFrame(rows, columns=list(HANDOVER_COLUMNS))
    counts = ("seed", "parameters", "lost_step", "lost_tokens", "gained_step", "gained_tokens")
    numbers = ("score_before", "score_after", "score_final", "expected")
    words = ("suite", "member", "scale", "role", "head", "successor")
    kinds = dict.fromkeys(counts, "Int64") | dict.fromkeys(numbers, "float64") | dict.fromkeys(words, "str")
    return frame.astype(kinds)


def settled(holds: Bool[np.ndarray, " checkpoints"], sustain: int) -> Bool[np.ndarray, " checkpoints"]:
    """The same without changes that do not last for `sustain` checkpoints."""
    state, steady = bool(holds[0]), np.empty(len(holds), dtype=bool)
    for i in range(len(holds)):
        ahead = holds[i : i + sustain]
        if len(ahead) == sustain and bool((ahead != state).all()):
            state = not state
        steady[i] = state
    return steady


def _losses(role: str, kept: Sequence[CheckpointAnalysis], sustain: int) -> Iterator[tuple[object, ...]]:
    heads = _heads(kept[-1])
    scores: Float[np.ndarray, "checkpoints heads"] = np.array(
        [[float(a.roles[role].score[head]) for head in heads] for a in kept]
    )
    holds = np.array([[head in a.holders.get(role, ()) for head in heads] for a in kept])
    steady = np.stack([settled(column, sustain) for column in holds.T], axis=1)
    change = np.diff(steady.astype(int), axis=0)
    gains = [(int(i) + 1, int(h)) for i, h in np.argwhere(change > 0)]
    refs = [a.ref for a in kept]
    who = (refs[-1].suite, refs[-1].member, refs[-1].scale, refs[-1].seed, kept[-1].model.parameters)
    for before, lost in np.argwhere(change < 0):
        i, head = int(before) + 1, int(lost)
        others = [(at, other) for at, other in gains if other != head]
        near = [(abs(at - i), at < i, at, other) for at, other in others if abs(at - i) <= sustain]
        windows = [any(abs(at - j) <= sustain for at, _ in others) for j in range(1, len(kept))]
        name, successor = head_names([heads[head]])[0], ""
        gained: tuple[object, object] = (None, None)
        if near:
            *_, at, other = min(near)
            successor, gained = head_names([heads[other]])[0], (refs[at].step, refs[at].tokens)
        numbers = (scores[i - 1, head], scores[i, head], scores[-1, head])
        when = (refs[i].step, refs[i].tokens)
        yield (*who, role, name, *when, *numbers, successor, *gained, float(np.mean(windows)))


def _kept(record: MemberRecord) -> list[CheckpointAnalysis]:
    return sorted((a for a in record.analyses if a.ref.step not in record.suspect), key=lambda a: a.ref.step)


def _roles(kept: Sequence[CheckpointAnalysis]) -> list[str]:
    return list(dict.fromkeys(role for analysis in kept for role in analysis.roles))


def _heads(analysis: CheckpointAnalysis) -> list[Head]:
    graph = analysis.model.graph
    return [(layer, head) for layer in range(graph.n_layers) for head in range(graph.n_heads)]


def _tidy(analysis: CheckpointAnalysis, quantity: str, value: float, status: str) -> Iterator[tuple[object, ...]]:
    ref = analysis.ref
    who = (ref.suite, ref.member, ref.scale, ref.seed, analysis.model.parameters, ref.step, ref.tokens)
    for task in analysis.tasks:
        yield (*who, task, quantity, value, math.nan, math.nan, status, None)

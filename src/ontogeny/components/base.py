"""What a head role is, and the list of those there are (METHODS 6).

A new role is one file that builds a `Role` and hands it to `register`, plus its import in `ontogeny.components` and,
if it has settings, a section of `params.RolesParams`. Everything else (job cache, records, MLflow, figures) goes
through the registry.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import torch
from jaxtyping import Bool, Int
from torch import Tensor

from ontogeny.core.pairs import TaskDataset, Tokenizer
from ontogeny.core.roles import Head, RoleScores
from ontogeny.models.subject import Subject
from ontogeny.params import RolesParams, ThresholdParams


@dataclass(frozen=True)
class Texts:
    """Ordinary documents that the model was not trained on, a row each, right-padded."""

    tokens: Int[Tensor, "documents tokens"]
    lengths: Int[Tensor, " documents"]


LONGEST_DOCUMENT = 128
"""Tokens of a document that are read: one long text is no substitute for many (METHODS 6.4 takes means over them)."""


def texts_of(lines: Iterable[str], tokenizer: Tokenizer, tokens: int) -> Texts:
    """The first documents (a line each) up to `tokens` tokens in all; empty ones are left out."""
    rows: list[list[int]] = []
    for line in lines:
        if sum(map(len, rows)) >= tokens:
            break
        row = tokenizer.encode(line)[:LONGEST_DOCUMENT]
        if row:
            rows.append(row)
    width = max(map(len, rows), default=1)
    padded = torch.tensor([row + [0] * (width - len(row)) for row in rows], dtype=torch.long).view(-1, width)
    return Texts(padded, torch.tensor([len(row) for row in rows], dtype=torch.long))


@dataclass(frozen=True)
class Material:
    """What roles are measured on; a role whose material is missing is undefined, and says so."""

    ioi: TaskDataset | None = None
    text: Texts | None = None
    roles: Mapping[str, RoleScores] = field(default_factory=dict)
    """Roles measured before that this one builds on (`Role.needs`)."""


Score = Callable[[Subject, Material, RolesParams], RoleScores]
Holders = Callable[[RoleScores, ThresholdParams], Bool[Tensor, "layers heads"]]


@dataclass(frozen=True)
class Role:
    """Something a head may do."""

    name: str
    title: str
    """For people: ``copy suppression``."""
    source: str
    """Who described it first."""
    version: str
    """Raised when the same settings give other numbers than before."""
    score: Score
    holders: Holders
    """Which heads hold the role; never a head whose score is NaN."""
    sections: tuple[str, ...] = ()
    """Sections of `RolesParams` that the scores depend on."""
    uses_ioi: bool = False
    uses_text: bool = False
    needs: tuple[str, ...] = ()
    """Roles whose scores it takes (their holders too: then `thresholds` is one of `sections`)."""


ROLES: dict[str, Role] = {}


def register(role: Role) -> Role:
    """Add a role; a name is taken once, and what a role needs comes before it."""
    if role.name in ROLES:
        raise ValueError(f"There is a role {role.name!r} already.")
    missing = [name for name in role.needs if name not in ROLES]
    if missing:
        raise ValueError(f"Role {role.name!r} needs {missing}, which must be registered before it.")
    ROLES[role.name] = role
    return role


def undefined(role: str, subject: Subject, reason: str) -> RoleScores:
    """A role that cannot be measured here: every score NaN, and why."""
    nothing = torch.full((subject.graph.n_layers, subject.graph.n_heads), torch.nan)
    return RoleScores(role, "undefined", reason, nothing, nothing.clone(), {}, {})


def holders(scores: RoleScores, thresholds: ThresholdParams) -> tuple[Head, ...]:
    """Heads that hold the role, strongest first."""
    mask = ROLES[scores.role].holders(scores, thresholds) & scores.score.isfinite()
    found = [(layer, head) for layer, head in mask.nonzero().tolist()]
    return tuple(sorted(found, key=lambda head: -float(scores.score[head])))

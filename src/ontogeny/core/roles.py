"""What a head does, as numbers: one score a head and role, its chance rate beside it (METHODS 6).

Scores are measured without any threshold; who *holds* a role is decided afterwards (`ontogeny.components`), so that a
new threshold measures nothing again.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Literal

from jaxtyping import Float
from torch import Tensor

ROLES_OF_TASKS: Final[Mapping[str, tuple[str, ...]]] = {
    "ioi": ("name_mover", "copy_suppression", "s_inhibition", "induction", "duplicate_token"),
    "greater_than": ("successor", "induction"),
}
"""The roles that a task's circuit is said to need (the paper's Figures 2 and 4): what C2 is about."""
HeadScores = Float[Tensor, "layers heads"]
Head = tuple[int, int]
"""Layer and head, as in ``a5.h2``."""


@dataclass(frozen=True)
class RoleScores:
    """One role at one checkpoint, all heads."""

    role: str
    status: Literal["measured", "undefined"]
    reason: str
    """One sentence where the role is undefined (then every score is NaN), else empty."""
    score: HeadScores
    """NaN: not measured for this head (e.g. its own effect is nothing)."""
    chance: HeadScores
    """Chance rate or null of the score, in its unit."""
    details: Mapping[str, Tensor]
    """Further numbers by name: other ``[layers, heads]`` scores, or curves ``[layers, heads, points]``."""
    facts: Mapping[str, float]
    """Numbers of the measurement itself: length of the run, loss on its halves, pairs of a list that counted."""


def head_names(heads: Iterable[Head]) -> tuple[str, ...]:
    """The field's names: ``(5, 2)`` -> ``a5.h2``."""
    return tuple(f"a{layer}.h{head}" for layer, head in heads)

"""What stays: how long heads keep a role (METHODS 8.1)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import pandas as pd
from jaxtyping import Bool, Float

_OF_ROLE: Final = ["suite", "member", "scale", "seed", "parameters", "role"]
_SHUFFLED: Final = ("shuffled_median_tokens", "longer_than_shuffled")


class Spell(NamedTuple):
    """A stretch of checkpoints over which a head holds a role."""

    first: int
    """Index of its first checkpoint."""
    last: int
    """Index of its last checkpoint."""
    ended: bool
    """Whether the head is seen without the role afterwards; else how long it would last is unknown (censored)."""


@dataclass(frozen=True)
class Survival:
    """Share of spells that last at least so long (Kaplan and Meier)."""

    time: Float[np.ndarray, " times"]
    """Lengths at which some spell ended, ascending."""
    share: Float[np.ndarray, " times"]
    """Share that lasts longer than that."""
    spells: int
    ended: int

    @property
    def median(self) -> float:
        """Length that half of the spells outlast; NaN if more than half outlast all that was seen."""
        below = np.flatnonzero(self.share <= 0.5 + 1e-12)
        return float(self.time[below[0]]) if len(below) else math.nan


def spells(holds: Bool[np.ndarray, " checkpoints"]) -> list[Spell]:
    """Every stretch of True."""
    edges = np.flatnonzero(np.diff(np.concatenate([[0], holds.astype(int), [0]])))
    return [Spell(int(a), int(b) - 1, bool(b < len(holds))) for a, b in edges.reshape(-1, 2)]


def survival(lengths: Sequence[float], ended: Sequence[bool]) -> Survival:
    """Product limit: at each length, times 1 - (spells that end then) / (spells that are at least as long).

    Args:
        lengths: of the spells, in any unit.
        ended: False where a spell goes on after what was seen.
    """
    length, end = np.asarray(lengths, dtype=float), np.asarray(ended, dtype=bool)
    times = np.unique(length[end])
    at_risk = (length[None] >= times[:, None]).sum(1)
    ends = ((length == times[:, None]) & end).sum(1)
    return Survival(times, np.cumprod(1 - ends / np.maximum(at_risk, 1)), len(length), int(end.sum()))


def role_survival(roles: pd.DataFrame, steady: int = 1, *, draws: int = 100, seed: int = 0) -> pd.DataFrame:
    """One row a member and role: how long a head keeps it, in tokens (from `series.role_table`), beside a null.

    A spell lasts from its first checkpoint to the first one without the role. `ever` heads held the role at some time,
    `kept` of them hold it at the last checkpoint; spells of fewer than `steady` checkpoints are left out, and counted.

    The null puts the checkpoints into random order, `draws` times: each head holds the role as often as before, but at
    other times. `shuffled_median_tokens` is the middle of the medians; `longer_than_shuffled` the share of the draws
    whose median is shorter than the one found. A median beyond what was seen is longer than any other, and NaN here;
    where there is no spell, nothing lasts.
    """
    rows = []
    for keys, table in roles.groupby(_OF_ROLE, sort=False, dropna=False):
        wide = table.pivot(index="tokens", columns="head", values="holds").sort_index()
        tokens, holds = wide.index.to_numpy(float), wide.to_numpy(bool)
        found, short = _survival_of(holds, tokens, steady)
        who = dict(zip(_OF_ROLE, keys))
        counts = {"spells": found.spells, "ended": found.ended, "short": short}
        heads = {"ever": int(holds.any(0).sum()), "kept": int(holds[-1].sum())}
        rows.append(
            who | counts | heads | {"median_tokens": found.median} | _shuffled(holds, tokens, steady, draws, seed)
        )
    columns = ["spells", "ended", "short", "ever", "kept", "median_tokens", *_SHUFFLED]
    return pd.DataFrame(rows, columns=[*_OF_ROLE, *columns])


def _survival_of(
    holds: Bool[np.ndarray, "checkpoints heads"], tokens: Float[np.ndarray, " checkpoints"], steady: int
) -> tuple[Survival, int]:
    """Of all spells of all heads, and how many were too short to count."""
    every = [spell for column in holds.T for spell in spells(column)]
    long = [spell for spell in every if spell.last - spell.first + 1 >= steady]
    ends = [spell.last + 1 if spell.ended else spell.last for spell in long]
    lengths = [tokens[end] - tokens[spell.first] for spell, end in zip(long, ends)]
    return survival(lengths, [spell.ended for spell in long]), len(every) - len(long)


def _shuffled(
    holds: Bool[np.ndarray, "checkpoints heads"],
    tokens: Float[np.ndarray, " checkpoints"],
    steady: int,
    draws: int,
    seed: int,
) -> dict[str, float]:
    """The null of `role_survival`."""
    ever = holds[:, holds.any(0)]
    if not ever.size:
        return dict.fromkeys(_SHUFFLED, math.nan)
    random = np.random.default_rng(seed)
    own = _lasting(_survival_of(ever, tokens, steady)[0])
    medians = np.array(
        [_lasting(_survival_of(ever[random.permutation(len(ever))], tokens, steady)[0]) for _ in range(draws)]
    )
    middle = float(np.sort(medians)[(draws - 1) // 2])
    return dict(zip(_SHUFFLED, (middle if math.isfinite(middle) else math.nan, float((medians < own).mean()))))


def _lasting(found: Survival) -> float:
    """The median; infinite where it is beyond what was seen, 0 without any spell."""
    if found.spells == 0:
        return 0.0
    return found.median if math.isfinite(found.median) else math.inf

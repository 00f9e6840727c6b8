"""Everything that a study says over time, computed once and read by tables, MLflow and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ontogeny.core.circuit import Selection
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord
from ontogeny.series.emergence import onsets
from ontogeny.series.roles import handovers, role_onsets, role_turnover
from ontogeny.series.similarity import similarity
from ontogeny.series.summary import summary
from ontogeny.series.table import tidy


@dataclass(frozen=True)
class Trajectory:
    """The tables of a study."""

    table: pd.DataFrame
    """Tidy: one row a checkpoint, task and quantity; similarity and turnover of roles included."""
    onsets: pd.DataFrame
    """One row a member and task."""
    summary: pd.DataFrame
    """One row a member and task."""
    role_onsets: pd.DataFrame
    """One row a member and role."""
    handovers: pd.DataFrame
    """One row for each time that a head lost a role."""


def follow(
    records: Sequence[MemberRecord],
    params: TrajectoryParams,
    *,
    confidence: float = 0.95,
    selection: Selection = "greedy",
) -> Trajectory:
    """The tables of `records`.

    Args:
        records: the members of a study.
        params: onset and similarity.
        confidence: of the behaviour's intervals.
        selection: how circuits of matched sizes are chosen; the study's own rule.
    """
    numbers = tidy(records)
    appeared = onsets(numbers, params, confidence=confidence)
    likeness = similarity(records, params, selection=selection)
    return Trajectory(
        table=pd.concat([numbers, likeness, role_turnover(records)], ignore_index=True),
        onsets=appeared,
        summary=summary(numbers, appeared),
        role_onsets=role_onsets(records, params),
        handovers=handovers(records, params),
    )

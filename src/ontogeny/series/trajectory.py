"""Everything that a study says over time, computed once and read by tables, MLflow and figures."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import pandas as pd

from ontogeny.core.circuit import Selection
from ontogeny.core.results import ModelFacts
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord, TransferRecord
from ontogeny.series.claims import Evidence, claims_table, judge
from ontogeny.series.emergence import emergence_table
from ontogeny.series.fluctuation import change_table, fluctuation_table
from ontogeny.series.parts import Part, part_of, together
from ontogeny.series.role_graph import role_graph_likeness
from ontogeny.series.roles import role_onsets
from ontogeny.series.scale import onset_differences, onset_trend
from ontogeny.series.size import size_correlations, size_points
from ontogeny.series.summary import summary
from ontogeny.series.transfer import ablation_table, alikeness, sets_beaten, transfer_measures, transfer_table

_SHUFFLES: Final = 100
"""Of roles among heads: what circuits as roles are compared with."""


@dataclass(frozen=True)
class Trajectory:
    """The tables of a study."""

    table: pd.DataFrame
    """Tidy: one row a checkpoint, task and quantity; similarity, turnover of roles and transfer included."""
    heads: pd.DataFrame
    """One row a checkpoint, role and head."""
    onsets: pd.DataFrame
    """One row a member and task: the life of the behaviour."""
    role_onsets: pd.DataFrame
    """One row a member and role: the same of its best head."""
    differences: pd.DataFrame
    """One row a task or role and pair of scales: difference of their onsets."""
    trend: pd.DataFrame
    """One row a task or role: onset against size."""
    fluctuation: pd.DataFrame
    """One row a member, task and size (edges, nodes): variation from the onset on."""
    changes: pd.DataFrame
    """One row a change point of a size."""
    sizes: pd.DataFrame
    """One row a task and scale: mean size of the circuits."""
    size_correlations: pd.DataFrame
    """Sizes against scale."""
    summary: pd.DataFrame
    """One row a member and task."""
    stability: pd.DataFrame
    """One row a member, task, checkpoint and size of circuits: likeness over time, beside its nulls."""
    survival: pd.DataFrame
    """One row a member and role: how long a head keeps it."""
    role_graph: pd.DataFrame
    """One row a member, task and pair of groups of nodes: the share of the last circuit that runs between them."""
    role_graph_likeness: pd.DataFrame
    """One row a task and pair of members: how alike their circuits are as roles, beside a null."""
    handovers: pd.DataFrame
    """One row for each time that a head lost a role."""
    transfers: pd.DataFrame
    """One row for each circuit in each model that it was carried to."""
    ablations: pd.DataFrame
    """One row a member, anchor, task and role: what the role's heads cost, beside sets of heads that match them."""
    alikeness: pd.DataFrame
    """One row a scale, task and kind of pair: over time against over seeds."""
    claims: pd.DataFrame
    """One row a verdict."""


def follow(
    records: Sequence[MemberRecord],
    params: TrajectoryParams,
    *,
    confidence: float = 0.95,
    selection: Selection = "greedy",
    transfers: Sequence[TransferRecord] = (),
) -> Trajectory:
    """The tables of `records`.

    Args:
        records: the members of a study.
        params: onset, similarity and claims.
        confidence: of the behaviour's intervals.
        selection: how circuits of matched sizes are chosen; the study's own rule.
        transfers: the members' circuits in other models, and their role heads ablated.
    """
    parts = [part_of([record], params, confidence=confidence, selection=selection) for record in records]
    return join(parts or [part_of([], params)], params, confidence=confidence, transfers=transfers)


def join(
    parts: Sequence[Part],
    params: TrajectoryParams,
    *,
    confidence: float = 0.95,
    transfers: Sequence[TransferRecord] = (),
) -> Trajectory:
    """The tables of members whose parts are there, at least one; arguments as of `follow`."""
    whole = together(parts)
    carried, ablated = transfer_table(transfers, whole.records), ablation_table(transfers, whole.records)
    points = size_points(whole.numbers, _models(whole.records), whole.abilities)
    evidence = Evidence(
        whole.numbers, whole.abilities, whole.roles, whole.heads, points, sets_beaten(ablated), confidence
    )
    tidy_ones = [whole.numbers, whole.likeness, whole.turnover, transfer_measures(carried, ablated)]
    onsets = emergence_table(whole.abilities)
    return Trajectory(
        table=pd.concat(tidy_ones, ignore_index=True),
        heads=whole.heads,
        onsets=onsets,
        role_onsets=role_onsets(whole.roles),
        differences=onset_differences([*whole.abilities, *whole.roles], params),
        trend=onset_trend([*whole.abilities, *whole.roles], params),
        fluctuation=fluctuation_table(whole.sizes),
        changes=change_table(whole.sizes),
        sizes=points,
        size_correlations=size_correlations(points),
        summary=summary(whole.numbers, onsets),
        stability=whole.stability,
        survival=whole.survival,
        role_graph=whole.role_graph,
        role_graph_likeness=role_graph_likeness(whole.records, _SHUFFLES, params.seed),
        handovers=whole.handovers,
        transfers=carried,
        ablations=ablated,
        alikeness=alikeness(carried),
        claims=claims_table(judge(evidence, params), params.claims),
    )


def _models(records: Sequence[MemberRecord]) -> dict[str, ModelFacts]:
    """Of the members of which something was analysed."""
    return {record.member: record.analyses[-1].model for record in records if record.analyses}

"""Everything that a study says over time, computed once and read by tables, MLflow and figures."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import pandas as pd

from ontogeny.core.circuit import Selection
from ontogeny.core.results import ModelFacts
from ontogeny.params import TrajectoryParams
from ontogeny.records import MemberRecord, TransferRecord
from ontogeny.series.claims import Evidence, claims_table, judge
from ontogeny.series.emergence import Emergence, emergence_table, emergences
from ontogeny.series.fluctuation import change_table, fluctuation_table, fluctuations
from ontogeny.series.onset import BEFORE_FIRST, FOUND, NEVER
from ontogeny.series.persistence import role_survival
from ontogeny.series.quantities import EDGES, NODES
from ontogeny.series.role_graph import role_graph_likeness, role_graph_table
from ontogeny.series.roles import handovers, role_emergences, role_onsets, role_table, role_turnover
from ontogeny.series.scale import onset_differences, onset_trend
from ontogeny.series.similarity import similarity
from ontogeny.series.size import size_correlations, size_points
from ontogeny.series.stability import stability_table
from ontogeny.series.summary import summary
from ontogeny.series.table import headline, tidy
from ontogeny.series.transfer import ablation_table, alikeness, sets_beaten, transfer_measures, transfer_table


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
    numbers = tidy(records)
    abilities = emergences(headline(numbers), params, confidence=confidence)
    roles = role_emergences(records, params)
    onsets, heads = emergence_table(abilities), role_table(records)
    changing = fluctuations(numbers[numbers["quantity"].isin([EDGES, NODES])], params, since=_starts(abilities))
    points = size_points(numbers, _models(records), abilities)
    carried, ablated = transfer_table(transfers, records), ablation_table(transfers, records)
    evidence = Evidence(numbers, abilities, roles, heads, points, sets_beaten(ablated), confidence)
    likeness = similarity(records, params, selection=selection)
    parts = [numbers, likeness, role_turnover(records), transfer_measures(carried, ablated)]
    table = pd.concat(parts, ignore_index=True)
    return Trajectory(
        table=table,
        heads=heads,
        onsets=onsets,
        role_onsets=role_onsets(roles),
        differences=onset_differences([*abilities, *roles], params),
        trend=onset_trend([*abilities, *roles], params),
        fluctuation=fluctuation_table(changing),
        changes=change_table(changing),
        sizes=points,
        size_correlations=size_correlations(points),
        summary=summary(numbers, onsets),
        stability=stability_table(records, table, params, selection),
        survival=role_survival(heads, params.sustain, seed=params.seed),
        role_graph=role_graph_table(records),
        role_graph_likeness=role_graph_likeness(records, params.null_circuits, params.seed),
        handovers=handovers(records, params),
        transfers=carried,
        ablations=ablated,
        alikeness=alikeness(carried),
        claims=claims_table(judge(evidence, params), params.claims),
    )


def _starts(abilities: Sequence[Emergence]) -> dict[tuple[str, str], float]:
    """(member, task) -> tokens from which on its sizes count: never without an onset."""
    first = {FOUND: 0.0, BEFORE_FIRST: 0.0, NEVER: math.inf}
    return {(str(e.who["member"]), str(e.who["task"])): e.onset.tokens or first[e.onset.status] for e in abilities}


def _models(records: Sequence[MemberRecord]) -> dict[str, ModelFacts]:
    """Of the members of which something was analysed."""
    return {record.member: record.analyses[-1].model for record in records if record.analyses}
